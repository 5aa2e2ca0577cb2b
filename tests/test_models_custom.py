import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fisherkit.models import build_model

MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes, width=7, *, scale: float = 1.0, deep: bool = False, act: str = "relu"):
        super().__init__()
        self.linear = nn.Linear(width, classes)
        self.given = (classes, width, scale, deep, act)


def everything(**arguments):
    net = nn.Linear(2, 2)
    net.given = arguments
    return net


def sizes(channels, image_size):
    return nn.Linear(channels * image_size**2, 2)


def lazily(classes):
    import fk_layers
    return fk_layers.layer(classes)


def requires(classes, hidden, depth):
    return nn.Linear(hidden, classes)


def number(classes):
    return 3


def fails(classes, width=1):
    raise RuntimeError("no weights")


names = ["a"]
"""
SIZES = {"classes": 10, "channels": 3, "image_size": 32}


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current directory, which is not on the path."""
    (tmp_path / "fk_nets.py").write_text(MODULE)
    (tmp_path / "fk_layers.py").write_text("from torch import nn\ndef layer(n): return nn.Linear(1, n)\n")
    monkeypatch.chdir(tmp_path)
    for name in ("fk_nets", "fk_layers"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_gets_what_its_signature_accepts() -> None:
    path = list(sys.path)
    assert build_model("fk_nets:Net", **SIZES).given == (10, 7, 1.0, False, "relu")
    assert build_model("fk_nets:sizes", **SIZES).in_features == 3 * 32 * 32
    assert sys.path == path


def test_width_and_options_come_as_what_they_are_written_as() -> None:
    options = {"scale": "1e-3", "deep": "true", "act": "gelu"}
    model = build_model("fk_nets:Net", **SIZES, width="5", options=options)
    assert model.given == (10, 5, 0.001, True, "gelu")
    assert [type(value) for value in model.given] == [int, int, float, bool, str]


def test_any_keyword_arguments_get_everything() -> None:
    model = build_model("fk_nets:everything", **SIZES, width="4-4", options={"depth": "3"})
    assert model.given == SIZES | {"width": "4-4", "depth": 3}


def test_an_import_inside_the_callable_finds_the_current_directory() -> None:
    assert build_model("fk_nets:lazily", **SIZES).out_features == 10


def test_initialisation_is_seeded_and_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (build_model("fk_nets:Net", **SIZES, seed=seed).linear.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_class_of_a_library_works() -> None:
    model = build_model("torch.nn:Linear", **SIZES, options={"in_features": "4", "out_features": "2"})
    assert isinstance(model, nn.Linear)


FAILURES = {
    "requires": ({}, r"options of fk_nets:requires must give what its signature requires: hidden, depth; got none"),
    "number": ({}, r"model fk_nets:number must return a torch\.nn\.Module; got a int"),
    "fails": (
        {"width": "4"},
        r"model fk_nets:fails\(classes=10, width=4\) failed: RuntimeError: no weights",
    ),
    "sizes": ({"width": "4"}, r"options of fk_nets:sizes .* got 'width'\. It takes no options"),
    "Net": (
        {"options": {"depth": "3"}},
        r"options of fk_nets:Net must be in its signature; got 'depth'\. Choose from width, scale, deep, act\.",
    ),
    "everything": (
        {"options": {"classes": "3"}},
        r"options of fk_nets:everything must not be what the images decide; got 'classes'",
    ),
    "names": ({}, r"model 'fk_nets:names' must name a callable; 'names' is a list in .*fk_nets\.py"),
    "missing": ({}, r"model 'fk_nets:missing' must name a callable; 'missing' is missing in .*fk_nets\.py"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_name_the_callable(name: str) -> None:
    arguments, message = FAILURES[name]
    with pytest.raises(ValueError, match=message):
        build_model(f"fk_nets:{name}", **SIZES, **arguments)


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"model 'fk_absent:Net' must name an importable module .*No module named"):
        build_model("fk_absent:Net", **SIZES)
