"""Training with tracking is bit-identical to training without, whatever is measured how, on whatever model."""

import itertools
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fisherkit.fisher import fisher_trace
from fisherkit.recording import FisherTracker

ESTIMATORS = ("exact", "sampled", "propagated", "empirical")
ENGINES = ("auto", "ghost", "vmap", "backpack", "batch")
STEPS = 3


class Way(NamedTuple):
    """What is measured; `spectrum`: the eigenvalues beside the trace."""

    estimator: str
    engine: str
    spectrum: bool = False


class Setting(NamedTuple):
    """What is trained, and how."""

    batchnorm: bool
    dropout: bool
    autocast: bool
    compiled: bool


# with `batch`, exact and empirical cannot be measured (and are refused)
WAYS = [
    Way(*pair) for pair in itertools.product(ESTIMATORS, ENGINES) if pair[1] != "batch" or pair[0] in ESTIMATORS[1:3]
]
WAYS.append(Way("propagated", "auto", spectrum=True))
SETTINGS = [Setting(*values) for values in itertools.product((False, True), repeat=4)]


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 4, 4, generator=generator), torch.arange(count) % 3


PROBE = images(6, seed=0)


def network(setting: Setting) -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3, padding=1), *([nn.BatchNorm2d(4)] if setting.batchnorm else []), nn.ReLU()]
    layers += [nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Tanh(), *([nn.Dropout(0.3)] if setting.dropout else [])]
    return nn.Sequential(*layers, nn.Linear(8, 3))


def train(setting: Setting, backend: str, measure: Callable[[nn.Module, int], None] | None = None) -> dict[str, Any]:
    """A user's loop; returns all that a measurement could change."""
    torch._dynamo.reset()
    torch.manual_seed(7)
    np.random.seed(7)
    model = network(setting)
    trained: Any = torch.compile(model, backend=backend) if setting.compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, labels = images(12, seed=1)
    for step in range(STEPS):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=setting.autocast):
            if measure:
                measure(trained, 2 * step)
            rows = torch.randperm(12)[:6]
            loss = nn.functional.cross_entropy(trained(inputs[rows]).float(), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        if measure:  # also between backward and step
            measure(trained, 2 * step + 1)
        optimizer.step()
    if setting.compiled:
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    momenta = {f"momentum {i}": state["momentum_buffer"] for i, state in optimizer.state_dict()["state"].items()}
    gradients = {f"gradient {name}": parameter.grad for name, parameter in model.named_parameters()}
    # not Python's `random`: the tests' own check of types draws from it
    random_states = {"rng": torch.get_rng_state(), "numpy rng": np.random.get_state()}
    return {**model.state_dict(), **momenta, **gradients, **random_states}


def tracked(setting: Setting, backend: str, way: Way, folder) -> dict[str, Any]:
    """The same, with a row recorded before and within every step."""
    if way.estimator == "empirical":  # a tracker records it beside the true one, by the same engine
        return train(
            setting, backend, lambda model, _: fisher_trace(model, *PROBE, estimator="empirical", engine=way.engine)
        )
    trackers = []

    def measure(model: nn.Module, row: int) -> None:
        if not trackers:
            options = dict(estimator=way.estimator, engine=way.engine, spectrum=2 if way.spectrum else None)
            trackers.append(FisherTracker(folder / "run.h5", model, [PROBE], **options))
        trackers[0].record(row)

    found = train(setting, backend, measure)
    trackers[0].close()
    assert len(trackers[0].trajectory) == 2 * STEPS
    return found


def differing(plain: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert plain.keys() == other.keys()
    return [name for name in plain if not same(plain[name], other[name])]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.numpy().tobytes() == b.numpy().tobytes()
    return repr(a) == repr(b)


def cells(*, full: bool) -> list[tuple[Way, Setting]]:
    """All, or one setting for every way of measuring, and each setting once at least."""
    if full:
        return list(itertools.product(WAYS, SETTINGS))
    return [(way, SETTINGS[5 * i % len(SETTINGS)]) for i, way in enumerate(WAYS)]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method", "ignore:.*isinstance.treespec, LeafSpec")
def test_weights_and_random_numbers_are_bit_identical(tmp_path, count, publish):
    full = bool(count(short=0, full=1))
    backend = "inductor" if full and shutil.which("g++") else "aot_eager"
    plain = cache(lambda setting: train(setting, backend))
    tried = cells(full=full)
    different = []
    for number, (way, setting) in enumerate(tried):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = differing(plain(setting), tracked(setting, backend, way, folder))
        different += [(way, setting, found)] if found else []
    publish(
        "10 training with tracking and without",
        f"{len(tried)} pairs (of {len(WAYS)} ways to measure and {len(SETTINGS)} of batch-norm, dropout, autocast, "
        f"torch.compile with {backend}): {len(different)} differ in weights, momenta, gradients or random states",
    )
    assert different == []


def test_the_comparison_notices_a_draw_and_a_changed_bit():
    setting = Setting(batchnorm=True, dropout=True, autocast=False, compiled=False)
    plain = train(setting, "eager")
    assert "rng" in differing(plain, train(setting, "eager", lambda model, row: torch.rand(1)))
    assert "1.running_mean" in differing(plain, train(setting, "eager", lambda model, row: model(PROBE[0])))
