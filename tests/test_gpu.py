"""What only a GPU can show: the same numbers as on the CPU, whole runs, no TF32. Run with `pytest -m gpu`."""

import pytest
import torch
from observers import StopsAfter
from runs import small

from fisherkit.errors import RunRefused
from fisherkit.fisher import fisher_spectrum, fisher_trace
from fisherkit.models import build_model
from fisherkit.studies import track
from fisherkit.training import newest_checkpoint, numerics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("model_name", ["resnet18", "allcnn", "vit_tiny"])
@pytest.mark.parametrize("estimator", ["exact", "propagated", "sampled"])
def test_the_gpu_gives_the_cpus_numbers(model_name: str, estimator: str):
    width = {"resnet18": "8", "allcnn": "8", "vit_tiny": "12"}[model_name]
    model = build_model(model_name, classes=10, channels=3, image_size=32, width=width).double()
    x = torch.randn(12, 3, 32, 32, dtype=torch.float64)
    cpu = fisher_trace(model, x, estimator=estimator)
    gpu = fisher_trace(model.cuda(), x, estimator=estimator)
    assert gpu.trace == pytest.approx(cpu.trace, rel=1e-9)
    assert gpu.device.startswith("cuda")


def test_the_gpu_gives_the_cpus_spectrum():
    model = build_model("resnet18", classes=10, channels=3, image_size=32, width="8").double()
    x = torch.randn(12, 3, 32, 32, dtype=torch.float64)
    cpu, gpu = fisher_spectrum(model, x, k=4), fisher_spectrum(model.cuda(), x, k=4)
    assert gpu.eigenvalues == pytest.approx(cpu.eigenvalues, rel=1e-8)
    assert gpu.effective_rank_corrected == pytest.approx(cpu.effective_rank_corrected, rel=1e-8)


def test_tf32_is_off_while_measuring_and_as_before_afterwards():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    model = build_model("resnet18", classes=10, channels=3, image_size=32, width="16").cuda()
    x = torch.randn(32, 3, 32, 32)
    single = fisher_trace(model, x, estimator="exact").total
    double = fisher_trace(model.double(), x.double(), estimator="exact").total
    assert single == pytest.approx(double, rel=1e-4)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


RUNS = {
    "everything": {},
    "dropout": dict(model="models_with_dropout:build", width=None, every="1"),
    "resnet18": dict(model="resnet18", width="4", every="1"),
    "vit_tiny": dict(model="vit_tiny", width="12", every="1"),
    "adam": dict(optimizer="adam", lr=1e-3),
    "bf16": dict(precision="bf16"),
    "sampled": dict(estimator="sampled", draws=2),
    "exact": dict(estimator="exact", every="1"),
    "spectrum": dict(spectrum=3, every="1"),
    "penalty": dict(fisher_penalty="0.1:2:held", every="1"),
    "fraction": dict(fraction=("0.5:0-2",), gradient_norms=True, every="1"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """`whole(name)`: the uninterrupted run, made once, and the weights at its end."""
    made = {}

    def run(name: str):
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[name] = track(small(device="cuda", **RUNS[name]), folder).trajectory, weights(folder)
        return made[name]

    return run


def weights(folder):
    """Those of the last checkpoint."""
    return newest_checkpoint(folder).contents["training"]["model"]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_the_gpu_repeats_to_the_bit(whole, tmp_path, name: str):
    again = track(small(device="cuda", **RUNS[name]), tmp_path).trajectory
    trajectory, state = whole(name)
    assert trajectory.differences(again) == []
    assert all(torch.equal(values, state[key]) for key, values in weights(tmp_path).items())


@pytest.mark.parametrize("steps", [1, 3, 4, 6])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_the_gpu_resumes_to_the_same_bits(whole, tmp_path, name: str, steps: int):
    specification = small(device="cuda", **RUNS[name])
    assert not track(specification, tmp_path, observer=StopsAfter(steps)).finished
    resumed = track(specification, tmp_path)
    trajectory, state = whole(name)
    assert resumed.finished
    assert trajectory.differences(resumed.trajectory) == []
    assert all(torch.equal(values, state[key]) for key, values in weights(tmp_path).items())


def test_a_run_of_a_cpu_is_not_continued_on_a_gpu_unless_accepted(tmp_path):
    track(small(device="cuda"), tmp_path, observer=StopsAfter(3))
    with pytest.raises(RunRefused, match="--device cuda"):
        track(small(device="cpu"), tmp_path)


def test_numerics_of_a_gpu_name_all_that_its_bits_depend_on():
    found = numerics("cuda")
    expected = {"cuda", "cudnn", "matmul_precision", "convolution_precision", "device_name", "torch"}
    assert expected <= found.keys()
    assert found["device_name"] == torch.cuda.get_device_name()


def test_a_loss_that_is_not_finite_is_named_with_its_step(tmp_path):
    with pytest.raises(FloatingPointError, match="became infinite or NaN at step 2, in epoch 1: the weights of layer"):
        track(small(device="cuda", lr=1e30, event=(), every="1"), tmp_path / "stop")
    chosen = small(device="cuda", lr=1e30, event=(), every="1", on_nonfinite="continue")
    run = track(chosen, tmp_path / "continue")
    assert run.finished
    assert run.trajectory.attributes["exploded"]
