"""Files that fisherkit did not write, or that were damaged since: one clear UnreadableFile each, nothing else."""

import os

import h5py
import numpy as np
import pytest
from reliability.corpus_hdf5 import CONTENTS, RUN_CHANGES, change_name
from reliability.corpus_hdf5 import RUN as GOOD

from fisherkit.errors import UnreadableFile
from fisherkit.recording import from_bytes, read


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.h5"
    file.write_bytes(GOOD)
    return file


@pytest.mark.parametrize(
    ("contents", "message"), [pytest.param(data, says, id=name) for name, data, says in CONTENTS if says]
)
def test_refuses_other_files_and_parts(path, contents, message):
    path.write_bytes(contents)
    with pytest.raises(UnreadableFile, match=message) as caught:
        read(path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(UnreadableFile, match=r"is a folder, not a run file\. Name the file in it"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFile, match="is not a regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.h5")


@pytest.mark.parametrize(
    ("change", "message"), [pytest.param(change, says, id=change_name(change)) for change, says in RUN_CHANGES]
)
def test_refuses_whatever_a_run_file_does_not_hold(path, change, message):
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UnreadableFile, match=message) as caught:
        read(path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["array", "attribute", "layer", "parameters"])
def test_a_change_by_another_program_is_noticed(path, change):
    with h5py.File(path, "r+") as file:
        if change == "array":
            file["fisher_true"][2, 3] *= 1.0001
        elif change == "attribute":
            file.attrs["seed"] = 7
        elif change == "layer":
            file["layer"][0] = "renamed"
        else:
            file["parameters"][0] = 1
    with pytest.raises(UnreadableFile, match="is damaged: its checksum does not fit its contents"):
        read(path)


def test_a_bit_that_flips_never_changes_a_number(path):
    rng = np.random.default_rng(3)
    expected, refused = from_bytes(GOOD), 0
    for position in rng.integers(0, len(GOOD), 400):
        damaged = bytearray(GOOD)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read(path)  # in its own process: some bits keep HDF5 busy for ever
        except UnreadableFile:
            refused += 1
        else:  # an unused byte, or the wording of a unit
            assert found.differences(expected, ignore=()) == []
    assert refused > 50


def test_from_bytes_names_the_file_it_was_told(path):
    with pytest.raises(UnreadableFile, match=r"^checkpoint rows: is not a run file of fisherkit: it is not HDF5"):
        from_bytes(b"nonsense", "checkpoint rows")
