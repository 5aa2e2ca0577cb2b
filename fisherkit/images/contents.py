"""The bytes of official files, from a folder or from a tar archive: never more of them than the release has.

Archives are read as a stream in memory. Nothing is extracted, so no member can land anywhere, and what
decompression yields is cut off at the size of the release.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fisherkit.errors import UnreadableFile

from .releases import OfficialFile

_GZIP_MAGIC = b"\x1f\x8b"
# for the tar headers, and the small files (readme, class names) that are in the archive too
_ARCHIVE_SLACK = 4 << 20


@dataclass(frozen=True, eq=False)
class Content:
    """All bytes of one official file, and where they were found: a file, or a member of an archive."""

    file: OfficialFile
    data: bytes
    place: Path
    member: str | None = None

    def unreadable(self, problem: str) -> UnreadableFile:
        """The error to raise about this file."""
        return UnreadableFile(self.place, problem, dataset=self.member)

    def matches(self, checksum: str) -> bool:
        """Whether the bytes have this `algorithm:hex` checksum."""
        algorithm, _, expected = checksum.partition(":")
        return hashlib.new(algorithm, self.data, usedforsecurity=False).hexdigest() == expected


def resolve(folder: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """The regular file in the folder that has this name, with the first of the suffixes that is there."""
    paths = (folder / f"{name}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def read_folder(folder: Path, files: Sequence[OfficialFile], suffixes: Sequence[str]) -> list[Content]:
    """The files from a folder; one that is gzipped is unpacked, whatever its name says."""
    contents = []
    for file in files:
        path = resolve(folder, file.name, suffixes)
        if path is None:
            raise UnreadableFile(folder, f"the file {file.name} is missing.")
        with _opened(path) as stream:
            data = stream.read(file.limit + 1)
        contents.append(_checked(Content(file, data, path)))
    return contents


def read_archive(path: Path, folder: str, files: Sequence[OfficialFile]) -> list[Content]:
    """The files from a tar archive, where they are regular members with the exact name `folder/name`."""
    wanted = {f"{folder}/{file.name}": file for file in files}
    found: dict[str, Content] = {}
    limit = sum(file.limit for file in files) + _ARCHIVE_SLACK
    with _opened(path) as stream, _tar(path, _Limited(stream, path, limit)) as archive:
        for member in archive:
            if member.name not in wanted:
                continue
            if member.name in found:
                raise UnreadableFile(path, "the archive has this file twice.", dataset=member.name)
            found[member.name] = _read_member(archive, member, wanted[member.name], path)
            if len(found) == len(wanted):
                break
    absent = [name for name in wanted if name not in found]
    if absent:
        raise UnreadableFile(path, f"the archive ends without {', '.join(absent)}. {_AGAIN}")
    return [found[name] for name in wanted]


_AGAIN = "It may be an incomplete download: remove it and get it again."


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, file: OfficialFile, path: Path) -> Content:
    if not member.isreg() or member.issparse():
        raise UnreadableFile(path, "it must be a regular file; it is another kind.", dataset=member.name)
    if member.size > file.limit:
        raise UnreadableFile(path, _size_problem(file, f"{member.size:,}"), dataset=member.name)
    stream = archive.extractfile(member)
    assert stream is not None  # a regular file
    return _checked(Content(file, stream.read(), path, member.name))


def _checked(content: Content) -> Content:
    """The content, if its size can be that of the official file."""
    file, size = content.file, len(content.data)
    if size > file.limit:
        raise content.unreadable(_size_problem(file, f"more than {file.limit:,}"))
    if size == 0 or (file.exact and size < file.size):
        raise content.unreadable(f"{_size_problem(file, f'{size:,}')} {_AGAIN}")
    return content


def _size_problem(file: OfficialFile, size: str) -> str:
    must = "must be" if file.exact else "should be about"
    return f"the size {must} {file.size:,} bytes; it is {size}."


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file as a stream, unpacked if it is gzipped; every failure to read becomes an UnreadableFile."""
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if gzipped:
                with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableFile(path, f"the gzip data are damaged or cut off ({error}). {_AGAIN}") from error
    except OSError as error:
        raise UnreadableFile(path, f"it cannot be read: {error.strerror or error}.") from error


@contextmanager
def _tar(path: Path, stream: "_Limited") -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            yield archive
    except tarfile.TarError as error:
        raise UnreadableFile(path, f"the tar archive is damaged or cut off ({error}). {_AGAIN}") from error


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes."""

    def __init__(self, stream: io.BufferedIOBase, path: Path, limit: int) -> None:
        self._stream, self._path, self._left = stream, path, limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise UnreadableFile(self._path, "the archive unpacks to far more than the official release.")
        return data
