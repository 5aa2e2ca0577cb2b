"""What only a GPU can show: the same numbers as on the CPU, whole runs, no TF32. Run with `pytest -m gpu`."""

import pytest
import torch
from runs import small

import fisherkit
from fisherkit.fisher import fisher_spectrum, fisher_trace
from fisherkit.models import build_model
from fisherkit.studies import track

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


def test_a_run_on_the_gpu_repeats_to_the_bit(tmp_path):
    for name in ("a", "b"):
        track(small(device="cuda"), tmp_path / name)
    a, b = fisherkit.read(tmp_path / "a" / "run.h5"), fisherkit.read(tmp_path / "b" / "run.h5")
    assert a.differences(b) == []
