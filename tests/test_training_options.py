"""Options check themselves; defaults are the papers'."""

from typing import Any

import pytest

from fisherkit.conditions import Conditions
from fisherkit.training import TrainingOptions, derive_seed, paper_defaults


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1; got 0"),
        ({"epochs": True}, "epochs must be a whole number >= 1; got True"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0; got -1"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd, adam; got 'lion'"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16; got 'fp16'"),
        ({"lr": 0.0}, "lr must be a number above 0 and at most 1e\\+30; got 0.0"),
        ({"lr": float("inf")}, "lr must be a number above 0 and at most 1e\\+30; got inf"),
        ({"lr": 1e38, "optimizer": "adam"}, "lr must be a number above 0 and at most 1e\\+30; got 1e"),
        ({"lr": float("nan")}, "lr must be a number above 0 and at most 1e\\+30; got nan"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1; got 1.0"),
        ({"momentum": -0.1}, "momentum must be at least 0 and below 1; got -0.1"),
        ({"lr_schedule": "exponential(2)"}, "decay of exponential must be above 0 and at most 1; got 2.0"),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**{"epochs": 1, **options})


PAPERS = {
    ("allcnn", "sgd"): (0.05, "exponential(0.97)", 0.9, 0.001, "crop+flip"),
    ("resnet18", "sgd"): (0.1, "exponential(0.97)", 0.9, 5e-4, "crop+flip"),
    ("mlp", "sgd"): (0.005, "constant", 0.9, 0.0, "none"),
    ("allcnn", "adam"): (1e-3, "constant", 0.9, 1e-4, "crop+flip"),
    ("resnet18", "adam"): (1e-3, "constant", 0.9, 1e-4, "crop+flip"),
}


@pytest.mark.parametrize(("model", "optimizer"), PAPERS, ids="-".join)
def test_defaults_are_the_papers(model: str, optimizer: str) -> None:
    names = ("lr", "lr_schedule", "momentum", "weight_decay", "augment")
    assert paper_defaults(model, optimizer) == dict(zip(names, PAPERS[model, optimizer], strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("model", ["resnet18", "allcnn", "mlp", "linear", "vit_tiny", "my.module:net"])
def test_defaults_are_valid_options_and_conditions(model: str, optimizer: str) -> None:
    defaults = paper_defaults(model, optimizer)
    decay, augment = defaults.pop("weight_decay"), defaults.pop("augment")
    TrainingOptions(epochs=1, optimizer=optimizer, **defaults)
    assert Conditions.parse(weight_decay=[str(decay)], augment=[augment]).at(0).weight_decay == decay


def test_changing_the_defaults_of_one_call_leaves_the_next_alone() -> None:
    paper_defaults("mlp")["lr"] = 99.0
    assert paper_defaults("mlp")["lr"] == 0.005
    assert paper_defaults("linear")["lr"] == 0.005


def test_an_unknown_optimizer_has_no_defaults() -> None:
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adam; got 'lion'"):
        paper_defaults("mlp", "lion")


def test_seeds_of_different_purposes_epochs_and_runs_differ() -> None:
    made = [
        derive_seed(0, "order"),
        derive_seed(0, "order", 0),
        derive_seed(0, "order", 1),
        derive_seed(0, "augmentation", 1),
        derive_seed(1, "order", 1),
        derive_seed(0, "order", 11),
    ]
    assert len(set(made)) == len(made)
    assert all(0 <= seed < 2**63 for seed in made)


def test_a_derived_seed_never_changes_between_versions() -> None:
    # sha256 of "3/order/7", its first 8 bytes big-endian, without the last bit
    assert derive_seed(3, "order", 7) == int("e93d4e89e9dace1c", 16) >> 1
