"""The value that a run recorded: labels, types, comparison."""

import dataclasses
import pickle

import numpy as np
import pytest
from trajectories import made_up

from fisherkit.recording import SCHEMA_VERSION, Trajectory


def small(**changes) -> Trajectory:
    fields = {
        "layers": ("a", "b"),
        "parameters": np.array([3, 4]),
        "variables": {"fisher_true": np.ones((3, 2))},
        "series": {"epoch": np.arange(3.0), "step": np.array([0, 5, 10])},
        "attributes": {"seed": 1},
    }
    return Trajectory(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ("a", "a")}, r"layers must be at least one name, each once; got \['a'\]"),
        ({"layers": ()}, "layers must be at least one name"),
        ({"layers": ("a", "")}, r"layers must be names of 1 to 1000 UTF-8 characters; got ''"),
        ({"layers": ("a", "x\0y")}, "layers must be names of 1 to 1000"),
        ({"parameters": np.array([3])}, r"parameters must have the shape \(2,\); got \(1,\)"),
        ({"parameters": np.array([3.5, 4])}, "parameters must hold whole numbers that fit int64; got float64"),
        ({"variables": {"fisher_true": np.ones((2, 3))}}, r"fisher_true must have the shape \(3, 2\); got \(2, 3\)"),
        ({"variables": {"fisher true": np.ones((3, 2))}}, "variable name must be 1 to 64 letters, digits and _"),
        ({"variables": {"layer": np.ones((3, 2))}}, "variable name must not be one of layer, parameters, time"),
        ({"variables": {"epoch": np.ones((3, 2))}}, "variables and series must have different names; got 'epoch'"),
        ({"series": {"epoch": np.arange(3.0)}}, "series must hold epoch and step; step is missing"),
        ({"series": {"epoch": np.arange(3.0), "step": np.array([0, 5, 5])}}, r"step must increase .* \[0, 5, 5\]"),
        ({"series": {"epoch": np.array(["x"] * 3), "step": np.arange(3)}}, "epoch must hold real numbers; got <U1"),
        ({"series": {"epoch": np.array([0, 2, 1.0]), "step": np.arange(3)}}, "epoch must be finite and not decrease"),
        ({"series": {"epoch": np.array([0, 1, np.nan]), "step": np.arange(3)}}, "epoch must be finite"),
        ({"attributes": {"engines": ["ghost"]}}, "attribute engines must be a dictionary"),
        (
            {"attributes": {"deficit_windows": [{"text": "blur", "start": "0"}]}},
            "attribute deficit_windows must be a list",
        ),
        ({"attributes": {"seed": {1, 2}}}, r"attribute seed must be JSON-able; got \{1, 2\}"),
        ({"attributes": {"seed": float("nan")}}, "attribute seed must be JSON-able; got nan"),
        ({"attributes": {"sha256": "x"}}, "attribute name must not be one of Conventions, json_attributes, sha256"),
    ],
)
def test_refuses_what_has_no_meaning(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_types_follow_the_names():
    series = {
        "epoch": np.arange(3, dtype=np.float32),
        "step": np.arange(3, dtype=np.int32),
        "deficit_active": np.array([True, False, True]),
        "train_loss": np.array([1, 2, 3]),
    }
    trajectory = small(series=series, variables={"fisher_true": np.ones((3, 2), np.float32)})
    types = {name: array.dtype.name for name, array in trajectory.series.items()}
    assert types == {"epoch": "float64", "step": "int64", "deficit_active": "uint8", "train_loss": "float64"}
    assert trajectory.variables["fisher_true"].dtype == np.float64


def test_holds_copies_that_cannot_be_written_to():
    trace = np.ones((3, 2))
    trajectory = small(variables={"fisher_true": trace})
    trace[:] = 7
    assert (trajectory.variables["fisher_true"] == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        trajectory.variables["fisher_true"][0, 0] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        trajectory.layers = ("x",)


def test_attributes_are_as_json_gives_them_and_versions_are_added():
    trajectory = small(attributes={"pair": (1, 2), "nested": {"a": None}})
    assert trajectory.attributes["pair"] == [1, 2]
    assert trajectory.attributes["schema_version"] == SCHEMA_VERSION
    assert trajectory.attributes["fisherkit_version"]


def test_rows_up_to_a_step():
    trajectory = small()
    assert [len(trajectory.up_to_step(step)) for step in (-1, 0, 4, 5, 9, 10, 99)] == [0, 1, 1, 2, 2, 3, 3]
    assert trajectory.up_to_step(5).series["step"].tolist() == [0, 5]
    assert trajectory.up_to_step(5).variables["fisher_true"].shape == (2, 2)


def test_total_is_the_recorded_one_or_the_sum():
    trajectory = made_up()
    assert np.array_equal(trajectory.total(), trajectory.series["fisher_true_total"])
    empirical = trajectory.variables["fisher_empirical"].sum(axis=1)
    assert np.array_equal(trajectory.total("fisher_empirical"), empirical)
    with pytest.raises(ValueError, match=r"variable must be one of fisher_empirical, .*weight_norm; got 'fisher'"):
        trajectory.total("fisher")


def test_an_equal_trajectory_has_no_differences():
    nan = np.full((3, 2), np.nan)
    a, b = small(variables={"fisher_true": nan}), small(variables={"fisher_true": nan.copy()})
    assert a.differences(b) == []
    assert a.equals(b)
    assert made_up(seed=1).equals(pickle.loads(pickle.dumps(made_up(seed=1))))


def with_value(place, value) -> Trajectory:
    trace = np.ones((3, 2))
    trace[place] = value
    return small(variables={"fisher_true": trace})


def test_differences_are_sentences():
    other = small(
        variables={
            "fisher_true": with_value((1, 0), 1 + 2e-16).variables["fisher_true"],
            "weight_norm": np.ones((3, 2)),
        },
        parameters=np.array([3, 5]),
        attributes={"seed": 2, "configuration": {"epochs": 3, "lr": 0.1}, "note": "x"},
    )
    mine = small(attributes={"seed": 1, "configuration": {"epochs": 3, "lr": 0.05}})
    assert mine.differences(other) == [
        "fisher_true: 1.0 and 1.0000000000000002 at step 5, layer a; 1 of 6 values differ",
        "parameters: 4 and 5 at layer b; 1 of 2 values differ",
        "weight_norm: only in the second",
        "configuration.lr: 0.05 and 0.1",
        "note: only in the second",
        "seed: 1 and 2",
    ]
    ignored = ("fisher_true", "parameters", "weight_norm", "configuration", "note", "seed")
    assert mine.differences(other, ignore=ignored) == []


def test_zeros_of_different_sign_are_different():
    assert not with_value((0, 0), 0.0).equals(with_value((0, 0), -0.0))


def test_differences_of_layers_and_rows():
    assert small().differences(small(layers=("a", "c"))) == ["layers: 2 and 2; first difference 'b' and 'c'"]
    assert small().differences(small().up_to_step(5)) == ["rows: 3 and 2"]
    assert made_up(rows=3).differences(made_up(rows=3, layers=19))[0].startswith("layers: 20 and 19")


def test_elapsed_seconds_are_ignored_unless_asked_for():
    series = small().series
    a = small(series={**series, "elapsed_s": np.arange(3.0)})
    b = small(series={**series, "elapsed_s": np.arange(3.0) + 1})
    assert a.equals(b)
    assert a.differences(b, ignore=()) == ["elapsed_s: 0.0 and 1.0 at step 0; 3 of 3 values differ"]


def test_prints_in_one_line():
    assert repr(small()) == "Trajectory(3 rows, 2 layers; fisher_true)"
