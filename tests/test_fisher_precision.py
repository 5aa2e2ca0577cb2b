"""Lower precision is an option that is recorded, never what happens to be switched on."""

import pytest
import torch
from cases import BY_NAME

from fisherkit.fisher import fisher_trace


def single(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    model, inputs = BY_NAME[name].build()
    return model.float(), inputs.float()


@pytest.mark.parametrize("name", ["residual", "transformer", "lstm", "multihead_attention"])
@pytest.mark.parametrize("estimator", ["propagated", "exact"])
def test_bf16_is_close_recorded_and_on_for_the_measurement_alone(name: str, estimator: str):
    model, inputs = single(name)
    full = fisher_trace(model, inputs, estimator=estimator)
    rounded = fisher_trace(model, inputs, estimator=estimator, precision="bf16")
    assert rounded.trace == pytest.approx(full.trace, rel=0.1)
    assert (rounded.trace != full.trace).any()
    assert rounded.dtype == "float32 under bf16 autocast"
    assert "float32 under bf16 autocast" in str(rounded)
    assert full.dtype == "float32"
    assert not torch.is_autocast_enabled("cpu")


def test_the_callers_autocast_changes_nothing():
    model, inputs = single("residual")
    plain = fisher_trace(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert (fisher_trace(model, inputs).trace == plain.trace).all()
        assert torch.is_autocast_enabled("cpu")


def test_norms_are_squared_in_single_precision():
    """The gradient of a Linear layer on given inputs is one product of numbers that are rounded once."""
    model, inputs = torch.nn.Linear(64, 4), torch.randn(200, 64)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    full = fisher_trace(model, inputs, estimator="exact")
    rounded = fisher_trace(model, inputs, estimator="exact", precision="bf16")
    assert rounded.total == pytest.approx(full.total, rel=1e-2)
    assert rounded.stderr == pytest.approx(full.stderr, rel=1e-2)


def test_unknown_and_unavailable_precisions():
    model, inputs = single("mlp")
    with pytest.raises(ValueError, match="precision must be one of full, tf32, bf16; got 'fp16'"):
        fisher_trace(model, inputs, precision="fp16")
    with pytest.raises(ValueError, match="precision='tf32' needs a CUDA device"):
        fisher_trace(model, inputs, precision="tf32")


@pytest.mark.gpu
def test_tf32_is_close_and_recorded():
    model, inputs = single("residual")
    model, inputs = model.cuda(), inputs.cuda()
    full = fisher_trace(model, inputs)
    rounded = fisher_trace(model, inputs, precision="tf32")
    assert rounded.trace == pytest.approx(full.trace, rel=0.02)
    assert rounded.dtype == "float32 in TF32"


SETTINGS = (
    lambda: None,
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    lambda: setattr(torch.backends.mkldnn.conv, "fp32_precision", "bf16"),
)


@pytest.fixture
def backends():
    """Those that round single precision; as they were at the end."""
    cuda, cudnn, cpu = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    every = [torch.backends, cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn]
    before, products = [one.fp32_precision for one in every], torch.get_float32_matmul_precision()
    yield every
    torch.set_float32_matmul_precision(products)
    for one, precision in zip(every, before, strict=True):
        one.fp32_precision = precision


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "medium", "newer_names", "convolutions"])
def test_the_callers_rounding_is_off_while_measuring_and_comes_back(setting, backends):
    """On some CPUs "medium" rounds products to bfloat16; torch's older names alone would come back as "high"."""
    model, inputs = single("residual")
    plain = fisher_trace(model, inputs)
    setting()
    before, inside = [one.fp32_precision for one in backends], []
    model.register_forward_hook(lambda *_: inside.append([one.fp32_precision for one in backends[1:]]))
    assert (fisher_trace(model, inputs).trace == plain.trace).all()
    assert [one.fp32_precision for one in backends] == before
    assert all(precision == ["ieee"] * 6 for precision in inside)
