"""The bytes of a run file, made in memory: a skeleton that is kept, filled with the rows at every publication.

Making the arrays (types, chunks, axes, units, names) takes ten times as long as filling them and is the same at every
publication, so it is done once: the skeleton is a file without rows. Numbers are written as they are: deflate took most
of the time and won 10 %, for mantissas are noise. Only large arrays that mostly repeat the row before (not measured:
NaN) are compressed. Equal contents give equal bytes, whatever was written before.
"""

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5p, h5s

from fisherkit.recording import hdf5, layout
from fisherkit.recording.attributes import Attributes
from fisherkit.recording.trajectory import Trajectory

_ROOM = 2**18  # for what is in a file beside numbers and attributes: growing in memory takes as long as filling it
_SMALLEST_COMPRESSED = 2**18  # bytes: a smaller array is not worth the time
_SMALLEST_CHUNK, _LARGEST_POWER = 16, 128  # rows
_Arrays = Mapping[str, np.ndarray]


class _Form(NamedTuple):
    """What a skeleton depends on."""

    layers: tuple[str, ...]
    parameters: bytes
    variables: tuple[str, ...]
    series: tuple[str, ...]
    compressed: frozenset[str]
    rows_per_chunk: int


def to_bytes(trajectory: Trajectory) -> bytes:
    """The run file of a trajectory; equal trajectories give equal bytes."""
    attributes = Attributes(trajectory.attributes)
    return image_of(trajectory.layers, trajectory.parameters, trajectory.variables, trajectory.series, attributes)


def image_of(
    layers: tuple[str, ...], parameters: np.ndarray, variables: _Arrays, series: _Arrays, attributes: Attributes
) -> bytes:
    """The run file of these rows, as they are checked by `Rows` or `Trajectory`; `attributes` with the versions."""
    arrays = {**variables, **series}
    rows = len(series["step"])
    names = tuple(sorted(variables)), tuple(sorted(series))
    compressed = frozenset(name for name, array in arrays.items() if _pays_to_compress(array))
    form = _Form(layers, parameters.tobytes(), *names, compressed, _rows_per_chunk(rows))
    text = attributes.json()
    file = _opened(_skeleton(form), room=_room(arrays, rows, form.rows_per_chunk) + len(text))
    try:
        _set_length(file, rows)
        for name in (*form.series, *form.variables):
            dataset = h5d.open(file, name.encode())
            dataset.set_extent(arrays[name].shape)
            dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(arrays[name]))
        digest = layout.digest_given(layers, parameters, arrays, text)
        for name, value in (attributes.encoded() | {"sha256": digest}).items():
            _set_attribute(file, name, value)
        h5f.flush(file)
        return bytes(file.get_file_image())
    finally:
        file.close()


@lru_cache(maxsize=4)
def _skeleton(form: _Form) -> bytes:
    """The file without rows."""
    parameters = np.frombuffer(form.parameters, "<i8")
    with hdf5.new_image() as file:
        hdf5.write_dimension(file, "time", 0, unlimited=True)
        names = hdf5.write_text(file, "layer", form.layers)
        names.attrs["long_name"] = layout.describe("layer")["long_name"]
        names.make_scale("layer")
        _make(file, form, "parameters", parameters, ("layer",))
        for name in form.series:
            _make(file, form, name, np.zeros(0, layout.series_dtype(name)), ("time",))
        present = " ".join(name for name in layout.COORDINATES if name in form.series)
        for name in form.variables:
            _make(file, form, name, np.zeros((0, len(parameters)), "<f8"), ("time", "layer"))
            file[name].attrs["coordinates"] = present
        file.attrs["Conventions"] = layout.CONVENTIONS
        return hdf5.image_bytes(file)


def _make(file: h5py.File, form: _Form, name: str, array: np.ndarray, axes: tuple[str, ...]) -> None:
    over_time = (form.rows_per_chunk,) if axes[0] == "time" else ()
    hdf5.write_numbers(
        file,
        name,
        array,
        axes,
        chunks=(*over_time, *array.shape[len(over_time) :]),
        unlimited=("time",),
        attributes=layout.describe(name),
        compress=name in form.compressed,
    )


def _rows_per_chunk(rows: int) -> int:
    """Rows shared out evenly to as few chunks as can be, in steps of an eighth: a skeleton fits until the next.

    Short runs, whose publications cost little beside a skeleton, get powers of two.
    """
    each = max(_SMALLEST_CHUNK, -(-rows // max(1, -(-rows // hdf5.ROWS_PER_CHUNK))))
    if each <= _LARGEST_POWER:
        return int(1 << (each - 1).bit_length())
    step = 1 << (each.bit_length() - 3)
    return -(-each // step) * step


def _room(arrays: _Arrays, rows: int, rows_per_chunk: int) -> int:
    """Bytes of the chunks, the last of which is as long as the others, and a little more."""
    length = -(-rows // rows_per_chunk) * rows_per_chunk
    return sum(length * array[:1].nbytes for array in arrays.values()) + _ROOM


def _pays_to_compress(array: np.ndarray) -> bool:
    """Whether it is large and more than half of it repeats the row before, bit for bit."""
    if array.nbytes < _SMALLEST_COMPRESSED:
        return False
    bits = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    return bool((bits[1:] == bits[:-1]).mean() > 0.5)


def _opened(skeleton: bytes, *, room: int) -> h5f.FileID:
    """A copy of the skeleton in memory, for writing."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(block_size=room, backing_store=False)
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    access.set_file_image(skeleton)
    return h5f.open(uuid.uuid4().hex.encode(), h5f.ACC_RDWR, fapl=access)


def _set_length(file: h5f.FileID, rows: int) -> None:
    """Set the dimension of time, whose attribute NAME holds its length for netCDF."""
    time = h5d.open(file, b"time")
    time.set_extent((rows,))
    attribute = h5a.open(time, b"NAME")
    attribute.write(np.array(layout.dimension_name(rows).encode(), attribute.dtype))


def _set_attribute(file: h5f.FileID, name: str, value: str | float) -> None:
    """A scalar: text of variable length, or a number."""
    array = np.asarray(value, h5py.string_dtype() if isinstance(value, str) else None)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    h5a.create(file, name.encode(), kind, h5s.create(h5s.SCALAR)).write(array)
