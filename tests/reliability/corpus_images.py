"""Hostile image files: CIFAR binaries and pickles, IDX, SVHN and archives that are not the official ones.

Made of small releases (tests/small_releases.py), whose sources stand in the catalogue while a case runs.
"""

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import small_releases as small
from reliability import hostile_pickles as pickles
from reliability.corpus import EXECUTED, Case

from fisherkit.images import catalogue, load, releases

Bytes = Callable[[bytes], bytes]
BINARY = partial(small.release, "cifar10", releases.CIFAR10_BINARY, small.cifar10_binary)
PICKLES = partial(small.release, "cifar10", releases.CIFAR10_PYTHON, small.python2_pickle)
SVHN = partial(small.release, "svhn", releases.SVHN_MAT, small.svhn_bytes)
MNIST = partial(small.idx_release, "mnist")
RELEASES = {"cifar10 binary": BINARY, "cifar10 pickles": PICKLES, "svhn": SVHN, "mnist": MNIST}
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"


@cache
def release(kind: str) -> small.Release:
    """The small release; the same at every call."""
    return RELEASES[kind]()


@contextmanager
def small_catalogue() -> Iterator[None]:
    """The catalogue with the sources of the small releases in place of the real ones."""
    before = catalogue.CATALOGUE
    made = {kind: release(kind).source for kind in RELEASES}
    both = (*made["cifar10 binary"].layouts, *made["cifar10 pickles"].layouts)
    ours = (replace(made["cifar10 binary"], layouts=both), made["svhn"], made["mnist"])
    names = {source.name for source in ours}
    try:
        catalogue.CATALOGUE = load.CATALOGUE = (*(each for each in before if each.name not in names), *ours)
        yield
    finally:
        catalogue.CATALOGUE = load.CATALOGUE = before


def with_file(made: small.Release, parent: Path, name: str, change: Bytes) -> Path:
    """The release's folder with one file changed."""
    path = made.folder(parent) / name
    path.write_bytes(change(made.files[name]))
    return path


# ---------------------------------------------------------------- sizes and labels

WRONG_SIZES: list[tuple[str, Bytes, str]] = [
    ("short", lambda data: data[:-1], r"must be [\d,]+ bytes; it is [\d,]+\. .*incomplete"),
    ("long", lambda data: data + b"\0", r"must be [\d,]+ bytes; it is more than"),
    ("empty", lambda data: b"", r"must be [\d,]+ bytes; it is 0\. "),
]
EXACT = [("cifar10 binary", "data_batch_4.bin"), ("mnist", "t10k-labels-idx1-ubyte")]


def binary_label(data: bytes) -> bytes:
    """Label 10 for image 3."""
    return data[: 3 * 3073] + b"\x0a" + data[3 * 3073 + 1 :]


def last_label(data: bytes) -> bytes:
    return data[:-1] + b"\xff"


def svhn_label(label: int) -> Bytes:
    """A file whose image 5 has that label; with 0, all have."""

    def change(_: bytes) -> bytes:
        images, labels = release("svhn").test
        if label == 0:  # the writer of small releases turns 0 into 10
            return mat_bytes(images.transpose(2, 3, 1, 0), np.zeros((len(labels), 1), np.uint8))
        return small.svhn_bytes(images, np.where(np.arange(len(labels)) == 5, label, np.maximum(labels, 1)))

    return change


# ---------------------------------------------------------------- gzip and IDX

DAMAGED_GZIP: list[tuple[str, Bytes, str]] = [
    ("truncated", lambda data: data[: len(data) // 2], "gzip data are damaged or cut off"),
    ("damaged", lambda data: data[:12] + b"\xff" * 40 + data[52:], "gzip data are damaged"),
    ("header only", lambda data: data[:10], "gzip data are damaged or cut off"),
]


@cache
def gzip_bomb() -> bytes:
    return gzip.compress(bytes(100 << 20))


IDX_HEADERS: list[tuple[str, bytes, str]] = [
    (
        "huge sizes",
        bytes((0, 0, 8, 3)) + struct.pack(">III", 2**32 - 1, 2**31, 28),
        r"must say 24 x 28 x 28; it says 4294967295 x 2147483648 x 28",
    ),
    ("order", bytes((0, 0, 8, 3)) + struct.pack(">III", 28, 24, 28), "must say 24 x 28 x 28; it says 28 x 24"),
    ("no images", bytes((0, 0, 8, 3)) + struct.pack(">III", 0, 28, 28), "it says 0 x 28 x 28"),
    ("one axis", bytes((0, 0, 8, 1)), r"must begin 00 00 08 03 .* it begins 00 00 08 01"),
    ("floats", bytes((0, 0, 13, 3)), "it begins 00 00 0d 03"),
    ("png", b"\x89PNG", "it begins 89 50 4e 47"),
]


# ---------------------------------------------------------------- archives


def archive_with(made: small.Release, parent: Path, change: Callable[[tarfile.TarFile], None]) -> Path:
    """The archive of the binary release, in which `change` adds members first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        change(archive)
        for name, data in made.files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            if member.name not in archive.getnames():
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    path = parent / ARCHIVE
    path.write_bytes(gzip.compress(out.getvalue()))
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **attributes: object) -> None:
    """A member of that name."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    archive.addfile(member, io.BytesIO(data))


TRAVERSALS = (
    "../outside",
    "/tmp/fisherkit-outside",
    f"{FOLDER}/../../outside",
    "outside\0",
    "~/outside",
    "C:\\outside",
)
NO_FILES: list[tuple[str, bytes, str]] = [
    ("symlink", tarfile.SYMTYPE, "/etc/passwd"),
    ("hard link", tarfile.LNKTYPE, f"{FOLDER}/data_batch_2.bin"),
    ("folder", tarfile.DIRTYPE, ""),
    ("device", tarfile.CHRTYPE, ""),
    ("pipe", tarfile.FIFOTYPE, ""),
]
INEXACT_NAMES = ("./cifar-10-batches-bin/test_batch.bin", "test_batch.bin", "CIFAR-10-batches-bin/x")


def twice(archive: tarfile.TarFile) -> None:
    data = release("cifar10 binary").files["data_batch_1.bin"]
    add(archive, f"{FOLDER}/data_batch_1.bin", data)
    add(archive, f"{FOLDER}/data_batch_1.bin", bytes(len(data)))


def long_member(archive: tarfile.TarFile) -> None:
    add(archive, "readme.html", bytes(64 << 20))


def long_member_name(archive: tarfile.TarFile) -> None:
    add(archive, "././@LongLink", bytes(64 << 20), type=tarfile.GNUTYPE_LONGNAME)


def renamed_member(name: str) -> Callable[[Path], object]:
    """The archive with the test batch under another name."""

    def make(parent: Path) -> None:
        files = release("cifar10 binary").files
        members = {f"{FOLDER}/{file}": data for file, data in files.items() if file != "test_batch.bin"}
        tar = small.tar_bytes({**members, name: files["test_batch.bin"]}, FOLDER)
        (parent / ARCHIVE).write_bytes(gzip.compress(tar))

    return make


# ---------------------------------------------------------------- MATLAB files


def mat_bytes(pixels: np.ndarray, labels: np.ndarray, **others: object) -> bytes:
    """A MATLAB 5 file with X, y and others."""
    out = io.BytesIO()
    scipy.io.savemat(out, {"X": pixels, "y": labels, **others}, do_compression=True)
    return out.getvalue()


PIXELS, DIGITS = np.ones((32, 32, 3, 24), np.uint8), np.ones((24, 1), np.uint8)


def with_claimed_shape(data: bytes) -> bytes:
    """The same file, with the number of images in the header of X raised to 2 ** 31 - 1."""
    head, size = data[:128], struct.unpack_from("<I", data, 132)[0]
    element = zlib.decompress(data[136 : 136 + size])
    wrong = zlib.compress(element.replace(struct.pack("<I", 24), struct.pack("<I", 2**31 - 1), 1))
    return head + struct.pack("<II", 15, len(wrong)) + wrong + data[136 + size :]


@cache
def matlab_files() -> list[tuple[str, bytes, str]]:
    """Name, contents, and what is said of them."""
    return [
        ("other count", mat_bytes(PIXELS[..., :23], DIGITS), "one variable X"),
        ("signed", mat_bytes(PIXELS.astype(np.int8), DIGITS), "of type uint8"),
        ("labels in a row", mat_bytes(PIXELS, DIGITS.T), "one variable y"),
        ("broken labels", mat_bytes(PIXELS, DIGITS + 0.5), "whole numbers"),
        ("nan labels", mat_bytes(PIXELS, np.full((24, 1), np.nan)), "whole numbers"),
        ("cells", mat_bytes(PIXELS, np.array([{"a": 1}], object)), "one variable y"),
        ("bomb", mat_bytes(PIXELS, DIGITS, z=np.zeros(1 << 24)), "unpacks to more than"),
        ("huge claimed shape", with_claimed_shape(mat_bytes(PIXELS, DIGITS)), "one variable X"),
        ("truncated", mat_bytes(PIXELS, DIGITS)[:200], "not a readable SVHN file"),
        ("MATLAB 7.3", b"\x89HDF\r\n\x1a\n" + bytes(4096), "the header is another one"),
        ("noise", b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + b"\xff" * 64, "not a readable"),
    ]


# ---------------------------------------------------------------- as command lines


def _changed(kind: str, file: str, change: Bytes) -> Callable[[Path], object]:
    return lambda parent: with_file(release(kind), parent, file, change)


def _case(kind: str, name: str, file: str, change: Bytes, says: str) -> Case:
    source = kind.split(" ", 1)[0]
    arguments = ("data", "check", source, "--data-dir", "{}")
    return Case(f"{kind}: {name}", arguments, _changed(kind, file, change), says, file=file)


def _file_cases() -> list[Case]:
    cases = [_case(kind, name, file, change, says) for kind, file in EXACT for name, change, says in WRONG_SIZES]
    cases.append(_case("cifar10 binary", "label", "test_batch.bin", binary_label, "that of image 3 is 10"))
    cases.append(_case("mnist", "label", "train-labels-idx1-ubyte", last_label, "that of image 23 is 255"))
    digits = "labels must be whole numbers from 1 to 10; that of image"
    cases += [_case("svhn", f"label {n}", "test_32x32.mat", svhn_label(n), digits) for n in (0, 11, 255)]
    images = "train-images-idx3-ubyte"
    for name, change, says in DAMAGED_GZIP:
        cases.append(_case("mnist", f"gzip {name}", images, lambda data, f=change: f(gzip.compress(data)), says))
    bomb = "the size must be 32 bytes; it is more than 32"
    cases.append(_case("mnist", "gzip bomb", "train-labels-idx1-ubyte", lambda _: gzip_bomb(), bomb))
    for name, header, says in IDX_HEADERS:
        cases.append(_case("mnist", f"header {name}", images, lambda data, h=header: h + data[len(h) :], says))
    return cases + [_case("svhn", n, "train_32x32.mat", lambda _, d=data: d, s) for n, data, s in matlab_files()]


def _pickle_cases() -> list[Case]:
    file, not_a_pickle = "data_batch_2", "it is not a readable CIFAR pickle"
    cases = [
        _case(
            "cifar10 pickles", f"calls {name}", file, lambda _, f=f, a=a: pickles.calling(f, a, EXECUTED), "it asks for"
        )
        for name, f, a, _ in pickles.CALLS
    ]
    size = "the size should be about"
    for name, data, message in pickles.NOT_DATA:
        cases.append(_case("cifar10 pickles", name, file, lambda _, d=data: d, message if data else size))
    for name, data, _ in pickles.PICKLE_BOMBS:
        says = size if len(data) > 2 * len(release("cifar10 pickles").files[file]) else not_a_pickle
        cases.append(_case("cifar10 pickles", name, file, lambda _, d=data: d, says))
    return cases


def _archive_cases() -> list[Case]:
    makers: list[tuple[str, Callable[[Path], object], str]] = [
        (f"{kind} as a member", _with(add, f"{FOLDER}/test_batch.bin", type=code, linkname=target), "a regular file")
        for kind, code, target in NO_FILES
    ]
    makers += [(f"member called {name}", renamed_member(name), "the archive ends without") for name in INEXACT_NAMES]
    makers += [
        ("a member of another size", _with(add, f"{FOLDER}/test_batch.bin", bytes(73_753)), "the size must be 73,752"),
        ("a member twice", _with(twice), "the archive has this file twice"),
        ("a long member", _with(long_member), "unpacks to far more than the official release"),
        ("a long name", _with(long_member_name), "unpacks to far more than the official release"),
        ("no archive", _bytes(b"<html>404 not found</html>" * 100), "the tar archive is damaged or cut off"),
        ("empty archive", _bytes(b""), "the tar archive is damaged or cut off|ends without"),
        ("gzip bomb as archive", _bytes(gzip_bomb()), "unpacks to far more|damaged|ends without"),
        *((f"archive cut at {kept}", _cut(kept), "cut off|ends without") for kept in (0.3, 0.95)),
    ]
    arguments = ("data", "check", "cifar10", "--data-dir", "{}")
    cases = [Case(f"archive: {name}", arguments, make, says, file=ARCHIVE) for name, make, says in makers]
    outside = [Case(f"archive: member {n!r}", arguments, _with(add, n, b"x"), status=0) for n in TRAVERSALS]
    return cases + outside


def _with(change: Callable[..., None], *arguments: Any, **options: Any) -> Callable[[Path], object]:
    return lambda parent: archive_with(
        release("cifar10 binary"), parent, lambda archive: change(archive, *arguments, **options)
    )


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda parent: (parent / ARCHIVE).write_bytes(data)


def _cut(kept: float) -> Callable[[Path], object]:
    def make(parent: Path) -> None:
        path = release("cifar10 binary").archive(parent)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    return make


def cases() -> list[Case]:
    """All of them; made when asked for."""
    return [*_file_cases(), *_pickle_cases(), *_archive_cases()]
