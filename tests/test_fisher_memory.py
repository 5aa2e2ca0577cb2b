"""Passes planned by memory; memory that runs out in the middle of a measurement."""

import os
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import exact_per_image
from torch import Tensor, nn

from fisherkit.fisher import FisherTrace, fisher_trace, fisher_traces, memory
from fisherkit.fisher.inputs import DEFAULT_BATCH
from fisherkit.fisher.layers import trainable_layers
from fisherkit.fisher.memory import CACHE_BYTES, MOST, Need, free_memory, images_within, planned_images
from fisherkit.fisher.passes import Reduced, out_of_memory
from fisherkit.fisher.per_image import CHUNK_BYTES
from fisherkit.fisher.survey import survey

MB = 2**20
CPU_TEXT = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cuda_text": RuntimeError("CUDA error: out of memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "linux": RuntimeError(f"{CPU_TEXT} allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"),
    "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000 bytes."),
    "python": MemoryError(),
}


class Crowded(nn.Module):
    """Memory runs out when more than `most` images come at once, from the image `after` on."""

    def __init__(self, most: int, error: BaseException = ERRORS["cuda"], *, after: int = 0) -> None:
        super().__init__()
        self.most, self.error, self.after = most, error, after
        self.passes: list[int] = []  # images of every pass that went well, the survey's too
        self.last: weakref.ref[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most and sum(self.passes) >= self.after:
            self.last = weakref.ref(x)
            raise type(self.error)(*self.error.args)
        self.passes.append(len(x))
        return x


class Bare(nn.Module):
    """A parameter for which there is no closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, 4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(self.factor * x)


def network(*inside: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), *inside, nn.Linear(4, 5)).double()


def inputs(n: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(5, (n,), generator=generator)


def assert_same(one: FisherTrace, other: FisherTrace) -> None:
    for name in ("trace", "stderr", "stderr_draws", "skewness"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.total, one.entropy, one.images, one.groups) == (other.total, other.entropy, other.images, other.groups)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_whatever_memory_runs_out_the_same_images_are_measured(error: BaseException):
    crowded = Crowded(6, error)
    result = fisher_trace(network(crowded), inputs()[0], batch_size=20, draws=2)
    assert crowded.passes[-4:] == [5, 5, 5, 5]
    assert result.batch_size == 5
    assert_same(result, fisher_trace(network(), inputs()[0], batch_size=5, draws=2))


@pytest.mark.parametrize("estimator", ["propagated", "sampled", "exact", "empirical"])
@pytest.mark.parametrize("engine", ["ghost", "vmap", "backpack"])
def test_the_draws_belong_to_the_images_whatever_pass_they_are_in(estimator: str, engine: str):
    x, labels = inputs()
    options = dict(estimator=estimator, engine=engine, batch_size=10)
    result = fisher_trace(network(Crowded(4)), x, labels, **options)
    whole = fisher_trace(network(), x, labels, **options)
    np.testing.assert_allclose(result.trace, whole.trace, rtol=1e-12)
    np.testing.assert_allclose(result.stderr, whole.stderr, rtol=1e-10)
    assert result.images == 20


def test_what_was_measured_before_memory_ran_out_is_kept():
    crowded = Crowded(4, after=5 + 2 * 8)  # the survey shows 3 and 2 images
    result = fisher_trace(network(crowded), inputs(24)[0], batch_size=8)
    assert crowded.passes[2:] == [8, 8, 4, 4]
    assert result.batch_size == 4
    assert result.images == 24
    assert result.total == pytest.approx(fisher_trace(network(), inputs(24)[0], batch_size=8).total, rel=1e-12)


def test_the_result_says_that_passes_became_smaller():
    notes = fisher_trace(network(Crowded(6)), inputs()[0], batch_size=20).notes
    assert any("memory ran out in a pass of 10 images" in note and "5 images at most" in note for note in notes)
    assert not any("memory" in note for note in fisher_trace(network(), inputs()[0]).notes)


def test_several_estimators_are_measured_again_together():
    x, labels = inputs()
    both = fisher_traces(network(Crowded(5)), x, labels, batch_size=20)
    for name, result in both.items():
        assert_same(result, fisher_trace(network(), x, labels, estimator=name, batch_size=5))


def test_a_layer_measured_by_batch_has_a_value_for_each_part():
    """Four groups of five images: unbiased as before, and the standard error rests on what was really measured."""
    model, plain = network(Crowded(5), Bare()), network(Bare())
    result = fisher_trace(model, inputs()[0], batch_size=20, engine="batch")
    assert result.groups == 4
    assert_same(result, fisher_trace(plain, inputs()[0], batch_size=5, engine="batch"))


def test_the_batches_of_an_iterable_are_divided_too():
    x, labels = inputs()
    stream = [(x[:7], labels[:7]), (x[7:], labels[7:])]
    crowded = Crowded(4)
    result = fisher_trace(network(crowded), stream, estimator="empirical")
    assert max(crowded.passes[2:]) <= 4
    assert sum(crowded.passes[2:]) == 20
    assert result.total == pytest.approx(fisher_trace(network(), x, labels, estimator="empirical").total, rel=1e-12)


def test_a_single_image_that_does_not_fit_is_an_error_with_remedies():
    crowded = Crowded(0, after=5)
    message = (
        r"memory ran out measuring a single image, which takes about [\d,]+ bytes .* smaller images or another dev"
    )
    with pytest.raises(MemoryError, match=message) as caught:
        fisher_trace(network(crowded), inputs(8)[0])
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    with pytest.raises(MemoryError, match="Use estimator='propagated'"):
        fisher_trace(network(Crowded(0, after=5)), inputs(8)[0], estimator="exact")
    with pytest.raises(MemoryError, match=r"memory ran out measuring 3 images\. Use smaller images"):
        fisher_trace(network(Crowded(0)), inputs(8)[0])


def test_a_joint_batch_cannot_be_divided():
    model = network(nn.BatchNorm1d(4), Crowded(4))
    with pytest.raises(MemoryError, match=r"measuring 10 images, which .* one joint model .*smaller batch_size"):
        fisher_trace(model, inputs()[0], batchnorm="train", batch_size=10)
    assert fisher_trace(model, inputs()[0], batchnorm="train", batch_size=4).groups == 5


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fisher_trace(network(Crowded(5, RuntimeError("shapes do not fit"))), inputs()[0], batch_size=20)
    assert not out_of_memory(ValueError("out of memory"))
    assert all(map(out_of_memory, ERRORS.values()))


def test_real_allocations_that_fail_are_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as tensor:
        torch.empty(10**16)
    with pytest.raises((RuntimeError, MemoryError)) as array:
        np.empty(10**16)
    assert out_of_memory(tensor.value)
    assert out_of_memory(array.value)


def test_nothing_is_left_of_the_pass_that_failed():
    crowded = Crowded(6)
    model = network(crowded)
    fisher_trace(model, inputs()[0], batch_size=20)
    assert crowded.last is not None
    assert crowded.last() is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_smallest_limit_counts_among_processes():
    assert min(Reduced(8, 16), Reduced(4, 8)) == Reduced(4, 8)


# ---- planning


def test_need_is_the_sum_of_its_parts():
    need = Need(kept=3, image=10, gradients=CHUNK_BYTES // 4, fixed=7)
    assert need.of(1) == 7 + 10 + 4 * (CHUNK_BYTES // 4)
    assert need.of(3) == 7 + 30 + 12 * (CHUNK_BYTES // 4)
    assert need.of(100) == 7 + 1000 + 16 * (CHUNK_BYTES // 4)  # vmap holds four images' gradients at most


@pytest.mark.parametrize(("budget", "images"), [(0, 0), (99, 0), (100, 1), (199, 1), (399, 2), (400, 4), (6500, 64)])
def test_images_within_a_budget_are_a_power_of_two(budget: int, images: int):
    assert images_within(Need(kept=1, image=100), budget) == images


@pytest.mark.parametrize(
    ("kept", "images"),
    [
        (5.5 * MB, 16),  # ResNet-18 of width 64: 17 fit into the cache's share
        (1.2 * MB, 64),  # of width 16
        (1000, MOST),
        (50 * MB, 8),
    ],
)
def test_on_a_cpu_the_cache_decides_where_memory_allows(kept: float, images: int):
    need = Need(kept=int(kept), image=2 * int(kept))
    assert planned_images(need, 10**12, "cpu") == images
    assert planned_images(need, need.of(4), "cpu") == 4
    assert planned_images(need, 0, "cpu") == 1
    assert CACHE_BYTES == 96 * MB


def test_on_a_gpu_a_quarter_of_the_budget_decides():
    need = Need(kept=5 * MB, image=10 * MB)
    assert planned_images(need, 40 * 2**30, "cuda") == 512
    assert planned_images(need, 4 * 2**30, "cuda") == 64  # 102 fit into the quarter
    assert planned_images(need, 40 * MB, "cuda") == 4


def test_what_is_kept_of_an_image_is_counted():
    """Inputs of the three layers (6, 4 and 4 numbers: tanh keeps its output), and the survey's images."""
    model, (x, _) = network(), inputs()
    found = survey(model, x[:3], trainable_layers(model), lambda z: ())
    assert found.kept_bytes == 8 * (6 + 4)
    assert found.outputs == 5
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(12, 2).double())
    view = torch.zeros(1000, 3, 4, dtype=torch.float64)[:3]
    found = survey(frozen, view, trainable_layers(frozen), lambda z: ())
    assert found.kept_bytes == 8 * 12  # of three images, not of the thousand that the view looks into


class Gradient(nn.Module):
    """torch.func in its forward, which refuses hooks on saved tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda w: w.pow(2).sum() / 2)(self.weight).mean() + x @ self.weight


def test_models_that_refuse_to_be_counted_are_measured_all_the_same():
    model = Gradient()
    found = survey(model, inputs(3)[0], trainable_layers(model), lambda z: ())
    assert found.kept_bytes is None
    assert fisher_trace(model, inputs(DEFAULT_BATCH + 3)[0], engine="vmap").batch_size == DEFAULT_BATCH


def test_the_planned_size_is_in_the_result():
    assert fisher_trace(network(), inputs(300)[0]).batch_size == MOST
    assert fisher_trace(network(), inputs(20)[0]).batch_size == 20
    assert fisher_trace(network(), inputs(20)[0], batch_size=7).batch_size == 7
    assert fisher_trace(network(), [inputs(9)[0], inputs(4)[0]]).batch_size == 9
    assert fisher_trace(network(), [inputs(9)[0], inputs(4)[0]], batch_size=5).batch_size == 5


def test_max_memory_limits_the_passes(monkeypatch):
    passes = Crowded(10**9)
    model, (x, _) = network(passes), inputs(40)
    measured = partial(fisher_trace, model, estimator="exact")
    whole = measured(x)
    for images, stream in (("tensor", x), ("iterable", [x[:23], x[23:]])):
        passes.passes.clear()
        result = measured(stream, max_memory=5000)
        assert 1 < result.batch_size <= 8, images
        assert max(passes.passes) == max(3, result.batch_size), images  # 3: the survey
        np.testing.assert_allclose(result.trace, whole.trace, rtol=1e-12)
    assert measured(x, max_memory=5000, batch_size=30).batch_size == 30  # what was asked for comes first
    monkeypatch.setattr(memory, "free_memory", lambda device: 10_000)
    assert measured(x).batch_size == result.batch_size  # half of what is free


def test_too_little_memory_is_an_error_that_says_how_much_is_needed():
    with pytest.raises(
        ValueError, match=r"max_memory must be at least [\d,]+ bytes for the passes over one image; got 1"
    ):
        fisher_trace(network(), inputs()[0], max_memory=100)
    with pytest.raises(ValueError, match=r"max_memory must be a number of bytes such as 4GB, .*; got -1"):
        fisher_trace(network(), inputs()[0], max_memory=-1)
    with pytest.raises(ValueError, match=r"for a batch of 64 images, which are one joint model; got 3,000.*batch_size"):
        fisher_trace(network(nn.BatchNorm1d(4)), inputs()[0], max_memory=3000, batchnorm="train")


def test_memory_does_not_decide_the_size_of_joint_batches(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 100_000)
    model = network(nn.BatchNorm1d(4))
    result = fisher_trace(model, inputs(150)[0], batchnorm="train")
    assert (result.batch_size, result.groups) == (DEFAULT_BATCH, 3)
    assert fisher_trace(network(), inputs(64)[0], engine="batch").batch_size == 2  # 32 groups for its standard error


def test_free_memory_is_what_the_control_groups_leave(tmp_path: Path):
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert memory._available(tmp_path) is None
    write("proc/meminfo", "MemTotal:       2000 kB\nMemAvailable:    1000 kB\n")
    assert memory._available(tmp_path) == 1_024_000
    assert list(memory._left_in_groups(tmp_path)) == []
    write("proc/self/cgroup", "0::/batch/job\n")
    write("sys/fs/cgroup/memory.max", "max\n")
    write("sys/fs/cgroup/batch/memory.max", "900\n")
    write("sys/fs/cgroup/batch/memory.current", "500\n")
    write("sys/fs/cgroup/batch/memory.stat", "anon 5\ninactive_file 100\n")
    write("sys/fs/cgroup/batch/job/memory.max", "600\n")
    write("sys/fs/cgroup/batch/job/memory.current", "400\n")
    assert list(memory._left_in_groups(tmp_path)) == [200, 500]
    write("proc/self/cgroup", "4:memory:/\n3:cpu,cpuacct:/x\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "700\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "300\n")
    assert list(memory._left_in_groups(tmp_path)) == [400]


def test_where_the_system_does_not_tell_a_guess_is_made(monkeypatch):
    assert free_memory(torch.device("mps")) == memory.UNKNOWN_FREE
    monkeypatch.setattr(memory, "_lines", lambda path: [])
    assert free_memory(torch.device("cpu")) == memory.UNKNOWN_FREE
    assert memory.default_memory(torch.device("cpu"), sharing=4) == memory.UNKNOWN_FREE // 8


# ---- peak memory, in processes of their own

PEAKS = {
    # outputs take 6.4 MB; a copy of them for each class would be 320 GB
    "50,000 classes": ("nn.Linear(16, 50_000)", "torch.randn(32, 16)", "dict(batch_size=32)", 60),
    # the same for 16 tokens an image: 25.6 MB of outputs
    "50,000 tokens": (
        "nn.Sequential(nn.Embedding(50_000, 8), nn.Linear(8, 50_000))",
        "torch.randint(50_000, (8, 16))",
        "dict(loss='token_cross_entropy', batch_size=8)",
        200,
    ),
    # per-image gradients of the first layer take 210 MB, a copy of activations for each class 420 MB
    "100 classes, exact": (
        "nn.Sequential(nn.Linear(1000, 16384), nn.Tanh(), nn.Linear(16384, 100))",
        "torch.randn(32, 1000)",
        "dict(estimator='exact', batch_size=32)",
        40,
    ),
}
SCRIPT = """
import torch
from pathlib import Path
from torch import nn
from fisherkit.fisher import fisher_trace

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
model, x, options = {model}, {x}, {options}
fisher_trace(model, x[:2], **options)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
fisher_trace(model, x, **options)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(("model", "x", "options", "most"), PEAKS.values(), ids=PEAKS)
def test_nothing_is_copied_for_each_output(model: str, x: str, options: str, most: int):
    script = SCRIPT.format(model=model, x=x, options=options)
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # large tensors go back to the system when they are freed
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=exact)
    assert int(done.stdout) < most * MB


REAL = """
import resource
import torch
from torch import nn
from fisherkit.fisher import fisher_trace

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 2**18), nn.Tanh(), nn.Linear(2**18, 2))  # 2 MB of activations an image
x = torch.randn(64, 1)
few = fisher_trace(model, x, batch_size=4)
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 100 * 2**20, resource.RLIM_INFINITY))
result = fisher_trace(model, x, batch_size=64)
assert abs(result.total / few.total - 1) < 1e-5, (result.total, few.total)
assert result.images == 64
print(result.batch_size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_real_limit_of_the_system_is_met_by_smaller_passes():
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=True)
    assert 4 < int(done.stdout) < 64


def test_exact_values_are_unchanged_by_division():
    x, _ = inputs(7)
    model = network(Crowded(3))
    result = fisher_trace(model, x, estimator="exact")
    reference = exact_per_image(network(), x, "cross_entropy")
    for name, values in reference.items():
        there = {"0": "0", "2": "3"}[name]
        assert result[there] == pytest.approx(float(values.mean()), rel=1e-10)
