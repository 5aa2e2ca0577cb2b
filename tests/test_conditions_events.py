import pytest
import torch
from torch import nn

from fisherkit.conditions import LrRestart, LrScale, ShrinkPerturb


def network(seed: int, width: int = 4) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))
        model(torch.randn(8, 3) + seed)  # moves the statistics
    return model


def test_shrink_perturb_is_the_equation() -> None:
    model, fresh = network(0), network(1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    state = torch.get_rng_state()
    ShrinkPerturb(350, shrink=0.4, perturb=0.1).apply(model, fresh)
    for name, parameter in model.named_parameters():
        expected = 0.4 * before[name] + 0.1 * fresh.get_parameter(name)
        torch.testing.assert_close(parameter.detach(), expected.detach(), rtol=1e-6, atol=1e-7)
        assert parameter.requires_grad
        assert parameter.is_leaf
    assert torch.equal(torch.get_rng_state(), state)


def test_shrink_perturb_takes_the_buffers_of_the_fresh_network() -> None:
    model, fresh = network(0), network(1)
    buffers = dict(model.named_buffers())
    assert not torch.equal(buffers["1.running_mean"], fresh.get_buffer("1.running_mean"))
    ShrinkPerturb(0).apply(model, fresh)
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name]
        assert torch.equal(buffer, fresh.get_buffer(name))


def test_shrink_perturb_leaves_the_fresh_network_alone() -> None:
    model, fresh, untouched = network(0), network(1), network(1)
    ShrinkPerturb(0).apply(model, fresh)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, untouched.state_dict()[name])


def test_a_tied_parameter_shrinks_once() -> None:
    models = []
    for seed in (0, 1):
        first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        nn.init.constant_(first.weight, 1.0 + seed)
        second.weight = first.weight
        models.append(nn.Sequential(first, second))
    ShrinkPerturb(0, 0.5, 0.25).apply(*models)
    assert (models[0][0].weight == 0.5 * 1 + 0.25 * 2).all()


def test_identity_of_shrink_perturb() -> None:
    model, before = network(0), network(0)
    ShrinkPerturb(0, shrink=1.0, perturb=0.0).apply(model, network(1))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name))


def test_another_network_is_refused_unchanged() -> None:
    model, before = network(0), network(0)
    with pytest.raises(ValueError, match=r"with '0.weight' of shape \(4, 3\); got \(5, 3\)"):
        ShrinkPerturb(0).apply(model, network(1, width=5))
    with pytest.raises(ValueError, match=r"with '1.weight' of shape \(4,\); got None"):
        ShrinkPerturb(0).apply(model, nn.Sequential(nn.Linear(3, 4)))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name])


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ShrinkPerturb(350), "shrink_perturb(0.4,0.1):350"),
        (LrRestart(40), "lr_restart:40"),
        (LrScale(40, 0.1), "lr_scale(0.1):40"),
    ],
    ids=str,
)
def test_text(event: object, text: str) -> None:
    assert str(event) == text


def test_epoch_is_not_negative() -> None:
    with pytest.raises(ValueError, match="epoch of lr_restart must be a whole number >= 0; got -1"):
        LrRestart(-1)
