"""Files that were written by this schema's first version and by earlier ones are read, to the same numbers."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fisherkit.recording import layout, read, read_study

DATA = Path(__file__).parent / "data"
_found = importlib.util.spec_from_file_location("make_stored_files", DATA / "make_stored_files.py")
assert _found is not None
assert _found.loader is not None
stored = importlib.util.module_from_spec(_found)
_found.loader.exec_module(stored)

# the files stay as they were written: a change of one is a change of what this promises
CHECKSUMS = {
    "run-schema-1.h5": "f0e0f774f745555089ec21fc4fad630b878491501a7089411731956c66dc579b",
    "study-schema-1.h5": "6e6688095a562de974b295993497109fc399e36ba303f2a7daaa53e35f4c2181",
}
RUNS = range(1, layout.SCHEMA_VERSION + 1)
STUDIES = range(1, layout.STUDY_SCHEMA_VERSION + 1)


@pytest.mark.parametrize("name", CHECKSUMS)
def test_the_files_are_those_that_were_stored(name: str) -> None:
    assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == CHECKSUMS[name]


def test_a_run_whose_numbers_are_compressed_is_read_to_the_same() -> None:
    """As all of them were in the first weeks of schema 1."""
    compressed = read(DATA / "run-schema-1-deflated.h5")
    assert compressed.differences(read(DATA / "run-schema-1.h5"), ignore=()) == []


def test_there_is_one_of_every_schema() -> None:
    """A new schema needs a stored file: tests/data/make_stored_files.py writes it."""
    names = {f"run-schema-{version}.h5" for version in RUNS} | {f"study-schema-{version}.h5" for version in STUDIES}
    assert names == set(CHECKSUMS)


@pytest.mark.parametrize("version", RUNS)
def test_a_run_of_every_schema_is_read(version: int) -> None:
    run = read(DATA / f"run-schema-{version}.h5")
    assert run.layers == ("conv1", "layer1.0.bn1", "größer → fc")
    assert run.parameters.tolist() == [432, 32, 2**40]
    assert run.series["step"].tolist() == [0, 79, 158, 237, 316]
    assert run.series["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert run.series["deficit_active"].tolist() == [1, 1, 0, 0, 0]
    assert run.series["test_accuracy"].tolist() == [0, 0.125, 0.25, 0.375, 0.5]
    np.testing.assert_array_equal(run.series["lr"], [0.1, 0.1, 0.1, np.nan, np.nan])
    np.testing.assert_array_equal(run.variables["fisher_true"], stored.numbers(1.0))
    np.testing.assert_array_equal(run.variables["fisher_true_stderr"], stored.numbers(0.5))
    assert run.variables["fisher_true"][4].tolist() == [1.5, 1.46875, 1.4375]
    assert run.attributes["configuration"] == {
        "model": "resnet18",
        "deficit": ["blur:0-2"],
        "lr": 0.1,
        "width": None,
        "seed": 0,
    }
    assert run.attributes["deficit_windows"] == [{"name": "blur", "text": "blur", "start": 0, "stop": 2}]
    assert run.attributes["note"] == "größer → 0.1 + 0.2"
    assert run.attributes["lr_found"] == 0.30000000000000004
    assert run.attributes["finished"] is True
    assert run.attributes["fisherkit_version"] == "0.1.0"


@pytest.mark.parametrize("version", STUDIES)
def test_a_study_of_every_schema_is_read(version: int) -> None:
    study = read_study(DATA / f"study-schema-{version}.h5")
    assert (study.protocol, study.axis) == ("removal", "deficit removed at epoch")
    assert [arm.label for arm in study.arms] == ["control", "blur until 2"]
    assert study.options == {"seeds": 2, "arms": [0, None]}
    assert study.attributes["command"] == "fisherkit study removal"
    control, blur = study.arms
    assert (control.control, control.value, blur.control, blur.value) == (True, 0.0, False, 2.0)
    assert {seed: run.state for seed, run in blur.runs.items()} == {0: "exploded", 1: "failed"}
    assert (blur.runs[1].message, blur.runs[1].trajectory) == ("out of memory", None)
    assert control.runs[1].final == {"test_accuracy": 0.5}
    assert control.runs[1].specification == {"seed": 1}
    first, short = control.runs[1].trajectory, blur.runs[0].trajectory
    assert first is not None
    assert short is not None
    np.testing.assert_array_equal(first.variables["fisher_true"], stored.numbers(2.0))
    np.testing.assert_array_equal(short.variables["fisher_true"], stored.numbers(1.0, rows=3))
    assert short.series["step"].tolist() == [0, 79, 158]
    assert short.series["deficit_active"].tolist() == [1, 1, 0]
    assert first.attributes["configuration"]["seed"] == 1
