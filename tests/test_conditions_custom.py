import sys
from pathlib import Path

import pytest
import torch
from random_sets import random_set

from fisherkit.conditions import Conditions, CustomDeficit

MODULE = """
import torch

LEVEL = 3

def darken(images, divisor=2):
    return images // divisor

def in_place(images):
    return images.fill_(0)

def speckle(images, share):
    return torch.where(torch.rand(images.shape) < share, 0, images)

def lazily(images):
    import fk_sibling
    return images + fk_sibling.LEVEL

def float_pixels(images):
    return images.float()

def crop(images):
    return images[:, :, 1:]

def arrays(images):
    return images.numpy()

def fails(images):
    raise RuntimeError("no such angle")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, which is not on the path."""
    (tmp_path / "fk_custom.py").write_text(MODULE)
    (tmp_path / "fk_sibling.py").write_text("LEVEL = 0\n")
    (tmp_path / "fk_broken.py").write_text("import fk_custom\n1 / 0\n")
    (tmp_path / "fk_exits.py").write_text("raise SystemExit('usage: ...')\n")
    monkeypatch.chdir(tmp_path)
    for name in ("fk_custom", "fk_sibling", "fk_broken", "fk_exits"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "fk_custom"


def test_pixels_are_what_the_callable_returns(module: str) -> None:
    images = random_set()
    path = list(sys.path)
    halved, quartered = (CustomDeficit(f"{module}:darken", given).apply(images, seed=0) for given in ((), (4,)))
    assert torch.equal(halved.images, images.images // 2)
    assert torch.equal(quartered.images, images.images // 4)
    assert torch.equal(halved.labels, images.labels)
    assert sys.path == path


def test_an_import_inside_the_callable_finds_the_current_directory(module: str) -> None:
    images = random_set()
    assert CustomDeficit(f"{module}:lazily").apply(images, seed=0).digest == images.digest


def test_a_callable_that_writes_in_place_leaves_the_set_alone(module: str) -> None:
    images = random_set()
    before = images.images.clone()
    assert CustomDeficit(f"{module}:in_place").apply(images, seed=0).images.max() == 0
    assert torch.equal(images.images, before)


def test_random_callables_are_seeded_and_leave_the_global_state_alone(module: str) -> None:
    images, deficit = random_set(), CustomDeficit(f"{module}:speckle", (0.5,))
    state = torch.get_rng_state()
    first, again, other = (deficit.apply(images, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


FAILURES = {
    "float_pixels": r"must return a uint8 tensor of shape \(20, 3, 32, 32\) on cpu; got torch.float32 of shape",
    "crop": r"must return a uint8 tensor .* got torch.uint8 of shape \(20, 3, 31, 32\)",
    "arrays": "must return a uint8 tensor .* got a ndarray",
    "fails": "failed: RuntimeError: no such angle",
    "speckle": "failed: TypeError: .*share",
    "LEVEL": "must name a callable; 'LEVEL' is a int in .*fk_custom.py",
    "rotate": "must name a callable; 'rotate' is missing in .*fk_custom.py",
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_name_the_callable(module: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"deficit '?{module}:{name}'? {FAILURES[name]}"):
        CustomDeficit(f"{module}:{name}").apply(random_set(), seed=0)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("fk_missing:rotate", "importing 'fk_missing' failed: ModuleNotFoundError: No module named 'fk_missing'"),
        ("fk_broken:rotate", "importing 'fk_broken' failed: ZeroDivisionError: division by zero"),
        ("fk_exits:rotate", "importing 'fk_exits' failed: SystemExit: usage"),
    ],
)
def test_modules_that_cannot_be_imported(module: str, target: str, problem: str) -> None:
    path = list(sys.path)
    with pytest.raises(ValueError, match=f"deficit '{target}' must name an importable module .*{problem}"):
        CustomDeficit(target).apply(random_set(), seed=0)
    assert sys.path == path


@pytest.mark.parametrize("target", ["rotate", "my.module", "my module:rotate", "my:", ":rotate", "my..x:rotate"])
def test_target_must_have_its_form(target: str) -> None:
    with pytest.raises(ValueError, match=r"target must have the form package\.module:callable"):
        CustomDeficit(target)


@pytest.mark.parametrize("argument", [float("nan"), float("inf"), True, 2**63])
def test_arguments_must_be_finite_numbers(argument: float) -> None:
    with pytest.raises(ValueError, match="arguments of my:rotate must be finite numbers; got"):
        CustomDeficit("my:rotate", (argument,))


def test_check_imports_before_training(module: str) -> None:
    conditions = Conditions.parse(deficits=[f"{module}:darken(3):50-", "fk_missing:rotate:90-"])
    with pytest.raises(ValueError, match="fk_missing"):
        conditions.check(random_set())
