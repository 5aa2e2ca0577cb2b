"""HDF5 files as fisherkit writes and reads them: plain labelled arrays, the same bytes every time.

Writing: images made in memory, every axis with its dimension scale. Reading: a file that anybody may have made has
its structure checked before any of its data is read.
"""

import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import fisherkit
from fisherkit.errors import UnreadableFile
from fisherkit.recording import layout

LARGEST_CHUNK = 2**26
ROWS_PER_CHUNK = 1024
# what h5py raises for damaged files, and json and values for contents that no file of ours has
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, OverflowError, MemoryError)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LARGEST_FILE = 2**31
# what the arrays may claim: noise compresses to 0.9, and columns that were not measured to nearly nothing
_LARGEST_CLAIM, _LARGEST_RATIO = 2**26, 50
_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_LAYOUTS = frozenset({h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT})
# level 1: the noise in the mantissas does not shrink further at higher levels (measured: 0.3 % at level 4)
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}


@contextmanager
def new_image() -> Iterator[h5py.File]:
    """An empty file in memory; its bytes are `image_bytes(file)`.

    `libver` v108 is what ncdump, netCDF-Java and older HDF5 still open.
    """
    options = {"driver": "core", "backing_store": False, "libver": ("v108", "v108")}
    with h5py.File(uuid.uuid4().hex, "w", track_order=False, **options) as file:
        yield file


def image_bytes(file: h5py.File) -> bytes:
    """The bytes of a file in memory."""
    file.flush()
    return bytes(file.id.get_file_image())


def write_dimension(file: h5py.File, name: str, length: int, *, unlimited: bool) -> None:
    """A pure dimension, as netCDF writes it: no values of its own."""
    scale = file.create_dataset(
        name,
        (length,),
        "<f4",
        maxshape=(None if unlimited else length,),
        chunks=(ROWS_PER_CHUNK,) if unlimited else (max(length, 1),),
        fletcher32=True,
        track_times=False,
    )
    scale.make_scale(layout.dimension_name(length))


def write_text(file: h5py.File, name: str, texts: Any) -> h5py.Dataset:
    """Text of variable length, for a fixed-length string crashes ncdump."""
    array = np.asarray(texts, dtype=object)
    empty = {"chunks": (1,) * array.ndim, "maxshape": tuple(n or None for n in array.shape)} if not array.size else {}
    return file.create_dataset(name, data=array, dtype=h5py.string_dtype(), track_times=False, **empty)


def write_numbers(
    file: h5py.File,
    name: str,
    array: np.ndarray,
    axes: Sequence[str],
    *,
    chunks: tuple[int, ...],
    unlimited: Collection[str] = (),
    attributes: Mapping[str, Any],
    compress: bool = True,
) -> None:
    """Numbers, each axis with its scale; NaN where a float was never written."""
    limits = tuple(None if axis in unlimited else length for axis, length in zip(axes, array.shape, strict=True))
    fill = np.nan if array.dtype.kind == "f" else None
    options = {"chunks": chunks, "maxshape": limits, "fillvalue": fill, "track_times": False}
    filters = _COMPRESSION if compress else {"fletcher32": True}
    dataset = file.create_dataset(name, data=array, **options, **filters)
    write_attributes(dataset, attributes)
    attach_scales(file, dataset, axes)


def attach_scales(file: h5py.File, dataset: h5py.Dataset, axes: Sequence[str]) -> None:
    """Name the axes of an array, for every tool."""
    for axis, scale in enumerate(axes):
        dataset.dims[axis].attach_scale(file[scale])


def write_attributes(target: h5py.File | h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a file or an array."""
    for name, value in attributes.items():
        target.attrs[name] = value


class ForeignFile:
    """A file that anybody may have made; `kind` is what it should be ("run file"), `path` what errors call it."""

    def __init__(self, path: str | Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def read_bytes(self, example: str) -> bytes:
        """The whole file, if it is HDF5 and not too large; `example` is a usual name of such a file.

        Raises:
            FileNotFoundError: There is no such file.
            UnreadableFile: It is something else.
        """
        path = Path(self.path)
        if path.is_dir():
            raise UnreadableFile(path, f"is a folder, not a {self.kind}. Name the file in it ({example}).")
        if path.exists() and not path.is_file():
            raise UnreadableFile(path, "is not a regular file.")
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
            if start != _SIGNATURE:
                raise self.foreign("it is not HDF5" if start else "it is empty")
            if path.stat().st_size > _LARGEST_FILE:
                raise self.foreign(f"it is larger than {_LARGEST_FILE:,} bytes")
            return start + file.read()

    @contextmanager
    def opened(self, data: bytes) -> Iterator[h5py.File]:
        """The file in these bytes; whatever goes wrong within is an UnreadableFile."""
        if not data.startswith(_SIGNATURE):
            raise self.foreign("it is not HDF5")
        with self.guarded(), _open(data) as file:
            yield file

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever goes wrong within is an UnreadableFile."""
        try:
            yield
        except DAMAGE as error:
            raise self.damaged(error, remedy="Use a copy of it, if there is one.") from error

    def foreign(self, reason: str, *, dataset: str | None = None) -> UnreadableFile:
        """The error that says why it is not a file of this kind."""
        return UnreadableFile(self.path, f"is not a {self.kind} of fisherkit: {reason}.", dataset=dataset)

    def damaged(self, error: BaseException, *, dataset: str | None = None, remedy: str) -> UnreadableFile:
        """The error that says what could not be read."""
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return UnreadableFile(self.path, f"is damaged ({reason}). {remedy}", dataset=dataset)

    def check_schema(self, file: h5py.File, newest: int) -> None:
        """Refuse a file without a schema, or with a newer one than `newest`."""
        version = attribute(file, "schema_version")
        if not isinstance(version, int) or version < 1:
            raise self.foreign("it has no schema_version")
        if version > newest:
            writer = str(attribute(file, "fisherkit_version"))
            known = re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,30}", writer)
            raise UnreadableFile(
                self.path,
                f"has schema {version}; fisherkit {fisherkit.__version__} reads up to {newest}. "
                + (f"It needs fisherkit {writer} or newer." if known else "It needs a newer fisherkit."),
            )

    def check_claim(self, claimed: int, data: bytes) -> None:
        """Refuse arrays that claim far more than the file can hold."""
        if claimed > _LARGEST_CLAIM + _LARGEST_RATIO * len(data):
            raise UnreadableFile(self.path, f"claims {claimed:,} bytes of data in a file of {len(data):,}.")

    def require(self, holds: bool, name: str, problem: str) -> None:
        """Refuse a file whose array `name` has what no such file has."""
        if not holds:
            raise self.foreign(problem, dataset=name)

    def dataset(self, file: h5py.File, name: str) -> h5py.Dataset:
        """The plain array of that name, opened but not read."""
        link = file.get(name, getlink=True)
        self.require(isinstance(link, h5py.HardLink), name, "a link to another place")
        kind = h5py.h5o.get_info(file.id, name.encode()).type
        self.require(kind == h5py.h5o.TYPE_DATASET, name, "not an array")
        dataset = file[name]
        creation = dataset.id.get_create_plist()
        self.require(creation.get_external_count() == 0, name, "data in another file")
        self.require(creation.get_layout() in _LAYOUTS, name, "a virtual array")
        filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
        self.require(filters <= _FILTERS, name, "an unknown compression")
        return dataset

    def check_numbers(self, dataset: h5py.Dataset, name: str, dtype: np.dtype[Any]) -> int:
        """The bytes that an array of numbers claims, once its type is `dtype`."""
        right = _is_plain(dataset) and dataset.dtype == dtype
        self.require(right, name, f"the type {dataset.dtype}")
        chunk = int(np.prod(dataset.chunks or (0,), dtype=float)) * dataset.dtype.itemsize
        self.require(chunk <= LARGEST_CHUNK, name, "too large chunks")
        return int(dataset.size * dataset.dtype.itemsize)

    def read_array(self, file: h5py.File, name: str, take: Callable[[h5py.Dataset], Any]) -> Any:
        """What `take` gets of an array; damage names the array."""
        try:
            return take(file[name])
        except DAMAGE as error:
            raise self.damaged(error, dataset=name, remedy="Use a copy, if any.") from error


def attribute(file: h5py.File, name: str) -> str | int | float | None:
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


def is_text(dataset: h5py.Dataset) -> bool:
    """Whether it holds text of variable length."""
    text = h5py.check_string_dtype(dataset.dtype)
    return text is not None and text.length is None


def is_name(name: str) -> bool:
    """Whether a variable or series may be called that."""
    try:
        layout.check_name(name, "series")
    except ValueError:
        return False
    return True


def _open(data: bytes) -> h5py.File:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(data)
    # a name of its own: HDF5 takes two open files of one name for the same file
    return h5py.File(h5py.h5f.open(uuid.uuid4().hex.encode(), h5py.h5f.ACC_RDONLY, fapl=access))


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether it holds numbers, not enumerations, references, compounds or text."""
    return dataset.id.get_type().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)
