"""Files that fisherkit did not write, or that were damaged since: one clear UnreadableFile each, nothing else."""

import os

import h5py
import numpy as np
import pytest
from trajectories import made_up

from fisherkit.errors import UnreadableFile
from fisherkit.recording import from_bytes, read, to_bytes

GOOD = to_bytes(made_up(rows=6, layers=8))


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.h5"
    file.write_bytes(GOOD)
    return file


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "run.h5: is not a run file of fisherkit: it is empty"),
        (b"epoch,loss\n0,2.3\n", "is not a run file of fisherkit: it is not HDF5"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "it is not HDF5"),
        (GOOD[:8], "is damaged"),
        (GOOD[:1000], "is damaged"),
        (GOOD[: len(GOOD) // 2], "is damaged"),
        (GOOD[:-1], "is damaged"),
        (GOOD[:48] + bytes(len(GOOD) - 48), "is damaged"),
    ],
    ids=["empty", "text", "picture", "signature only", "1000 bytes", "half", "last byte missing", "zeros"],
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


def test_refuses_a_newer_schema_and_names_the_version_it_needs(path):
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 2
        file.attrs["fisherkit_version"] = "3.1.4"
    with pytest.raises(
        UnreadableFile, match=r"has schema 2; fisherkit .* reads up to 1. It needs fisherkit 3.1.4 or newer"
    ):
        read(path)
    with h5py.File(path, "r+") as file:
        file.attrs["fisherkit_version"] = "\x1b[31m"
    with pytest.raises(UnreadableFile, match="It needs a newer fisherkit"):
        read(path)


def test_refuses_the_files_of_other_programs(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.ones(3)
    with pytest.raises(UnreadableFile, match="is not a run file of fisherkit: it has no schema_version"):
        read(tmp_path / "other.h5")


def external_storage(file):
    file.create_dataset("stolen", shape=(6,), dtype="f8", external=[("/etc/passwd", 0, 48)])


def external_link(file):
    file["stolen"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file):
    file["alias"] = h5py.SoftLink("/epoch")


def virtual(file):
    layout = h5py.VirtualLayout(shape=(6,), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "epoch", shape=(6,))
    file.create_virtual_dataset("stolen", layout)


def cycle(file):
    file["again"] = file["/"]


def group(file):
    file.create_group("inner")


def ragged(file):
    file.create_dataset("ragged", shape=(6,), dtype=h5py.vlen_dtype(np.float64))


def references(file):
    file.create_dataset("references", data=[file["epoch"].ref] * 6, dtype=h5py.ref_dtype)


def compound(file):
    file.create_dataset("compound", shape=(6,), dtype=[("a", "f8"), ("b", "i8")])


def enumeration(file):
    file["flags"] = np.zeros(6, bool)


def named_type(file):
    file["kind"] = np.dtype("f8")


def text(file):
    file["notes"] = ["x"] * 6


def single_precision(file):
    file["loss"] = np.zeros(6, np.float32)


def big_endian(file):
    file.create_dataset("loss", data=np.zeros(6), dtype=">f8")


def other_shape(file):
    file["loss"] = np.zeros(7)


def three_axes(file):
    file["loss"] = np.zeros((6, 8, 2))


def bad_name(file):
    file["../loss"[3:] + " "] = np.zeros(6)


def unknown_filter(file):
    file.create_dataset("loss", data=np.zeros(6), compression="lzf")


def large_chunk(file):
    file.create_dataset("loss", shape=(6,), maxshape=(None,), chunks=(2**24,), dtype="f8")


def missing(file):
    del file["step"]


def fixed_length_names(file):
    del file["layer"]
    file["layer"] = np.array([b"x"] * 8)


def no_layers(file):
    del file["layer"]
    file.create_dataset("layer", shape=(0,), dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_storage, "run.h5, stolen: is not a run file of fisherkit: data in another file"),
        (external_link, "stolen: .* a link to another place"),
        (soft_link, "alias: .* a link to another place"),
        (virtual, "stolen: .* a virtual array"),
        (cycle, "again: .* not an array"),
        (group, "inner: .* not an array"),
        (named_type, "kind: .* not an array"),
        (ragged, "ragged: .* the type object"),
        (references, "references: .* the type object"),
        (compound, "compound: .* the type"),
        (enumeration, "flags: .* the type bool"),
        (text, "notes: .* the type object"),
        (single_precision, "loss: .* the type float32"),
        (big_endian, "loss: .* the type >f8"),
        (other_shape, r"loss: .* the shape \(7,\)"),
        (three_axes, r"loss: .* the shape \(6, 8, 2\)"),
        (bad_name, "loss : .* a name that no run has"),
        (unknown_filter, "loss: .* an unknown compression"),
        (large_chunk, "loss: .* too large chunks"),
        (missing, "it holds no step"),
        (fixed_length_names, "layer: .* names that are not text"),
        (no_layers, "its layers and rows are not one axis each"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "refused",
)
def test_refuses_whatever_a_run_file_does_not_hold(path, change, message):
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UnreadableFile, match=message):
        read(path)


def test_refuses_a_bomb_before_unpacking_it(tmp_path):
    rows = 40_000_000
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        options = {"shape": (rows,), "chunks": (1_000_000,), "maxshape": (None,), "compression": "gzip"}
        file.attrs["schema_version"] = 1
        for name, kind in (("time", "<f4"), ("epoch", "<f8"), ("step", "<i8")):
            file.create_dataset(name, dtype=kind, **options)
        file.create_dataset("parameters", data=np.ones(1, np.int64))
        file.create_dataset("layer", data=["x"], dtype=h5py.string_dtype())
    with pytest.raises(UnreadableFile, match=r"claims 640,000,008 bytes of data in a file of [0-9,]+"):
        read(tmp_path / "bomb.h5")


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


def test_a_bit_that_flips_never_changes_a_number():
    rng = np.random.default_rng(3)
    expected, refused = from_bytes(GOOD), 0
    for position in rng.integers(0, len(GOOD), 400):
        damaged = bytearray(GOOD)
        damaged[position] ^= 1 << rng.integers(8)
        try:
            found = from_bytes(bytes(damaged))
        except UnreadableFile:
            refused += 1
        else:  # an unused byte, or the wording of a unit
            assert found.differences(expected, ignore=()) == []
    assert refused > 50


def test_from_bytes_names_the_file_it_was_told(path):
    with pytest.raises(UnreadableFile, match=r"^checkpoint rows: is not a run file of fisherkit: it is not HDF5"):
        from_bytes(b"nonsense", "checkpoint rows")
