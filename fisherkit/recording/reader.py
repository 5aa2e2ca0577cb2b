"""Reading a run file that anybody may have made: its structure is checked before any of its data is read.

`from_bytes` is a function of bytes alone, so that a caller can hand it to a child process with limits.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import fisherkit
from fisherkit.errors import UnreadableFile
from fisherkit.recording import layout
from fisherkit.recording.trajectory import Trajectory

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LARGEST_FILE = 2**31
_MOST_DATASETS, _MOST_LAYERS, _MOST_ATTRIBUTES = 2_000, 100_000, 1_000
_LARGEST_CHUNK = 2**26
# what the arrays may claim: noise compresses to 0.9, and columns that were not measured to nearly nothing
_LARGEST_CLAIM, _LARGEST_RATIO = 2**26, 50
_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_LAYOUTS = frozenset({h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT})
# what h5py raises for damaged files, and json and Trajectory for contents that no run has
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, OverflowError, MemoryError)


def read(path: str | Path) -> Trajectory:
    """The trajectory in a run file.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is not a run file, is damaged, or needs a newer fisherkit; says which.
    """
    path = Path(path)
    if path.is_dir():
        raise UnreadableFile(path, "is a folder, not a run file. Name the file in it (run.h5).")
    if path.exists() and not path.is_file():
        raise UnreadableFile(path, "is not a regular file.")
    with path.open("rb") as file:
        start = file.read(len(_SIGNATURE))
        if start != _SIGNATURE:
            raise _not_a_run(path, "it is not HDF5" if start else "it is empty")
        if path.stat().st_size > _LARGEST_FILE:
            raise _not_a_run(path, f"it is larger than {_LARGEST_FILE:,} bytes")
        return from_bytes(start + file.read(), path)


def from_bytes(data: bytes, path: str | Path = "<memory>") -> Trajectory:
    """The trajectory in the bytes of a run file; `path` is what errors call it.

    Raises:
        UnreadableFile: As `read`.
    """
    if not data.startswith(_SIGNATURE):
        raise _not_a_run(path, "it is not HDF5")
    try:
        with _open(data) as file:
            _check_schema(file, path)
            claimed = _Structure(file, path).check()
            if claimed > _LARGEST_CLAIM + _LARGEST_RATIO * len(data):
                raise UnreadableFile(path, f"claims {claimed:,} bytes of data in a file of {len(data):,}.")
            return _read_trajectory(file, path)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UnreadableFile(path, f"is damaged ({reason}). Use a copy of it, if there is one.") from error


def _open(data: bytes) -> h5py.File:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(data)
    return h5py.File(h5py.h5f.open(b"run file in memory", h5py.h5f.ACC_RDONLY, fapl=access))


def _not_a_run(path: str | Path, reason: str) -> UnreadableFile:
    return UnreadableFile(path, f"is not a run file of fisherkit: {reason}.")


def _check_schema(file: h5py.File, path: str | Path) -> None:
    version = _attribute(file, "schema_version")
    if not isinstance(version, int) or version < 1:
        raise _not_a_run(path, "it has no schema_version")
    if version > layout.SCHEMA_VERSION:
        writer = str(_attribute(file, "fisherkit_version"))
        known = re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,30}", writer)
        raise UnreadableFile(
            path,
            f"has schema {version}; fisherkit {fisherkit.__version__} reads up to {layout.SCHEMA_VERSION}. "
            + (f"It needs fisherkit {writer} or newer." if known else "It needs a newer fisherkit."),
        )


def _attribute(file: h5py.File, name: str) -> str | int | float | None:
    """A scalar text or number; None for anything else, without reading it."""
    if name not in file.attrs:
        return None
    kind = file.attrs.get_id(name)
    text = h5py.check_string_dtype(kind.dtype)
    if kind.shape != () or (text is None and kind.dtype.kind not in "iuf"):
        return None
    value = file.attrs[name]
    if isinstance(value, bytes):
        return value.decode()
    plain: str | int | float = value if isinstance(value, str) else value.item()
    return plain


class _Structure:
    """Whether a file consists of nothing but the plain arrays of a run; reads no data."""

    def __init__(self, file: h5py.File, path: str | Path) -> None:
        self.file, self.path = file, path

    def check(self) -> int:
        """The bytes that all arrays claim to hold.

        Raises:
            UnreadableFile: Naming the dataset and what it has that a run file has not.
        """
        if len(self.file) > _MOST_DATASETS or len(self.file.attrs) > _MOST_ATTRIBUTES:
            raise _not_a_run(self.path, "it holds too many objects")
        names = list(self.file)
        for name in ("layer", "parameters", "time", *layout.REQUIRED_SERIES):
            if name not in names:
                raise _not_a_run(self.path, f"it holds no {name}")
        datasets = {name: self._dataset(name) for name in names}
        rows, layers = datasets["step"].shape, datasets["layer"].shape
        if len(rows) != 1 or len(layers) != 1 or not 0 < layers[0] <= _MOST_LAYERS:
            raise _not_a_run(self.path, "its layers and rows are not one axis each")
        return sum(self._claim(name, dataset, rows, layers) for name, dataset in datasets.items())

    def _dataset(self, name: str) -> h5py.Dataset:
        """The array of that name, opened but not read."""
        if name not in layout.RESERVED_NAMES:
            self._require(_is_name(name), name, "a name that no run has")
        link = self.file.get(name, getlink=True)
        self._require(isinstance(link, h5py.HardLink), name, "a link to another place")
        kind = h5py.h5o.get_info(self.file.id, name.encode()).type
        self._require(kind == h5py.h5o.TYPE_DATASET, name, "not an array")
        dataset = self.file[name]
        creation = dataset.id.get_create_plist()
        self._require(creation.get_external_count() == 0, name, "data in another file")
        self._require(creation.get_layout() in _LAYOUTS, name, "a virtual array")
        filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
        self._require(filters <= _FILTERS, name, "an unknown compression")
        return dataset

    def _claim(self, name: str, dataset: h5py.Dataset, rows: tuple[int, ...], layers: tuple[int, ...]) -> int:
        """Bytes of an array, once its shape and type are those of its name."""
        if name == "layer":
            text = h5py.check_string_dtype(dataset.dtype)
            self._require(text is not None and text.length is None, name, "names that are not text")
            return 0
        shapes = {"time": (rows,), "parameters": (layers,)}.get(name, (rows, rows + layers))
        self._require(dataset.shape in shapes, name, f"the shape {dataset.shape}")
        right = _is_plain(dataset) and dataset.dtype == _dtype(name, dataset.ndim)
        self._require(right, name, f"the type {dataset.dtype}")
        chunk = int(np.prod(dataset.chunks or (0,), dtype=float)) * dataset.dtype.itemsize
        self._require(chunk <= _LARGEST_CHUNK, name, "too large chunks")
        return 0 if name == "time" else dataset.size * dataset.dtype.itemsize

    def _require(self, holds: bool, name: str, problem: str) -> None:
        if not holds:
            raise UnreadableFile(self.path, f"is not a run file of fisherkit: {problem}.", dataset=name)


def _is_name(name: str) -> bool:
    try:
        layout.check_name(name, "series")
    except ValueError:
        return False
    return True


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether it holds numbers, not enumerations, references, compounds or text."""
    return dataset.id.get_type().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)


def _dtype(name: str, axes: int) -> np.dtype[Any]:
    if name == "time":
        return np.dtype("<f4")
    if name == "parameters":
        return np.dtype("<i8")
    return layout.series_dtype(name) if axes == 1 else np.dtype("<f8")


def _read_trajectory(file: h5py.File, path: str | Path) -> Trajectory:
    arrays = {name: _read_array(file, name, lambda d: d[()], path) for name in file if name != "layer"}
    del arrays["time"]
    layers = tuple(_read_array(file, "layer", lambda d: d.asstr()[()].tolist(), path))
    encoded = {name: value for name in file.attrs if (value := _attribute(file, name)) is not None}
    attributes = layout.decode_attributes(encoded)
    parameters = arrays.pop("parameters")
    if layout.digest(layers, parameters, arrays, attributes) != encoded.get("sha256"):
        raise UnreadableFile(path, "is damaged: its checksum does not fit its contents. Use a copy, if any.")
    return Trajectory(
        layers=layers,
        parameters=parameters,
        variables={name: array for name, array in arrays.items() if array.ndim == 2},
        series={name: array for name, array in arrays.items() if array.ndim == 1},
        attributes=attributes,
    )


def _read_array(file: h5py.File, name: str, take: Callable[[h5py.Dataset], Any], path: str | Path) -> Any:
    try:
        return take(file[name])
    except _DAMAGE as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UnreadableFile(path, f"is damaged ({reason}). Use a copy, if any.", dataset=name) from error
