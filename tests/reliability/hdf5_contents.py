"""Bombs, and contents with any checksum that fits them: changes of a good run file."""

import zlib
from typing import Any

import h5py
import numpy as np
from reliability.hdf5_objects import Change

from fisherkit.recording import layout

SCHEMA = "it has no schema_version"
CHECKSUM = "is damaged: its checksum does not fit its contents"


# ---------------------------------------------------------------- bombs


def unknown_filter(file):
    file.create_dataset("loss", data=np.zeros(6), compression="lzf")


def scale_offset_filter(file):
    file.create_dataset("loss", data=np.zeros(6), scaleoffset=3)


def large_chunk(file):
    file.create_dataset("loss", shape=(6,), maxshape=(None,), chunks=(2**24,), dtype="f8")


def huge_claim(file):
    _only(file, "layer", "parameters", "time", "epoch", "step")
    options: Any = {"maxshape": (None,), "chunks": (1_000_000,), "compression": "gzip"}
    for name, kind in (("time", "<f4"), ("epoch", "<f8"), ("step", "<i8")):
        del file[name]
        file.create_dataset(name, shape=(40_000_000,), dtype=kind, **options)


def absurd_claim(file):
    _only(file, "layer", "parameters", "time", "epoch", "step")
    for name, kind in (("time", "<f4"), ("epoch", "<f8"), ("step", "<i8")):
        del file[name]
        file.create_dataset(name, shape=(2**60,), dtype=kind, maxshape=(None,), chunks=(1024,))


def _only(file, *names: str) -> None:
    for name in set(file) - set(names):
        del file[name]


def chunk_that_inflates(file):
    _one_chunk(file, zlib.compress(bytes(250 * 2**20), 9))


def chunk_that_inflates_again_and_again(file):
    data = bytes(2**28)
    for _ in range(3):
        data = zlib.compress(data, 9)
    _one_chunk(file, data, layers=3)


def chunk_of_noise(file):
    _one_chunk(file, np.random.default_rng(0).bytes(500))


def _one_chunk(file, data: bytes, layers: int = 1) -> None:
    """The series `loss` as one compressed chunk of these bytes."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((6,))
    for _ in range(layers):
        plist.set_deflate(9)
    space = h5py.h5s.create_simple((6,))
    made = h5py.h5d.create(file.id, b"loss", h5py.h5t.IEEE_F64LE, space, plist)
    made.write_direct_chunk((0,), data, filter_mask=0)


def one_text_in_many_places(file):
    """A name of 500 KB that all of 90,000 layers refer to."""
    _only(file, "time", "epoch", "step")
    file["parameters"] = np.ones(90_000, np.int64)
    names = file.create_dataset("layer", shape=(90_000,), dtype=h5py.string_dtype(), chunks=(90_000,))
    names[0] = "x" * 500_000
    _, chunk = names.id.read_direct_chunk((0,))
    names.id.write_direct_chunk((0,), chunk[:16] * 90_000)


def text_outside_the_file(file):
    """References into a heap that is not there."""
    names = file["layer"]
    kind, wrong = names.dtype, np.arange(8 * 16, dtype=np.uint8).tobytes()
    del file["layer"]
    made = file.create_dataset("layer", shape=(8,), dtype=kind, chunks=(8,))
    made.id.write_direct_chunk((0,), wrong)


# ---------------------------------------------------------------- attributes


def set_attribute(name: str, value: Any) -> Change:
    """Sets one attribute, whatever it was before."""
    return lambda file: file.attrs.__setitem__(name, value)


def no_schema(file):
    del file.attrs["schema_version"]


def newer(file):
    file.attrs["schema_version"] = 2
    file.attrs["fisherkit_version"] = "9.1"


def newer_by_a_liar(file):
    file.attrs["schema_version"] = 2
    file.attrs["fisherkit_version"] = "\x1b[31m"


def schema_by_reference(file):
    file.attrs["schema_version"] = file["epoch"].ref


def no_checksum(file):
    del file.attrs["sha256"]


def many_attributes(file):
    for number in range(1_001):
        file.attrs[f"a{number}"] = number


def deep_json(file):
    resealed(file, configuration="[" * 100_000)


def resealed(file: h5py.File, *, layers: tuple[str, ...] | None = None, **attributes: Any) -> None:
    """Other attributes or layers, with the checksum that fits them: anybody can compute it."""
    if layers is not None:
        del file["layer"]
        file.create_dataset("layer", data=list(layers), dtype=h5py.string_dtype())
    for name, value in attributes.items():
        file.attrs[name] = value
    encoded = {name: _plain(value) for name, value in file.attrs.items()}
    arrays = {name: file[name][()] for name in file if name not in ("time", "layer", "parameters")}
    names = tuple(file["layer"].asstr()[()].tolist())
    try:
        decoded = layout.decode_attributes(encoded)
    except (ValueError, RecursionError):
        return
    file.attrs["sha256"] = layout.digest(names, file["parameters"][()], arrays, decoded)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def steps_back(file):
    file["step"][:] = [5, 4, 3, 2, 1, 0]
    resealed(file)


def epochs_of_nan(file):
    file["epoch"][:] = np.nan
    resealed(file)


def same_layers(file):
    resealed(file, layers=("x",) * 8)


def empty_layer(file):
    resealed(file, layers=("", *"abcdefg"))


def long_layers(file):
    resealed(file, layers=("x" * 2_000, *"abcdefg"))
