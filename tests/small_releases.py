"""Small releases in the official formats: the catalogue's own values with fewer images, and files that fit them."""

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import scipy.io

from fisherkit.images.catalogue import Source, source_named
from fisherkit.images.releases import Layout, OfficialFile

PER_FILE = 24
Encoder = Callable[[np.ndarray, np.ndarray], bytes]


@dataclass(frozen=True, eq=False)
class Release:
    """A source with small files, the bytes of the files, and the images and labels that they hold."""

    source: Source
    files: dict[str, bytes]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def layout(self) -> Layout:
        return self.source.layouts[0]

    def folder(self, parent: Path, name: str | None = None) -> Path:
        """Write the files into a folder, by default the official one."""
        folder = parent / (self.layout.folders[0] if name is None else name)
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in self.files.items():
            (folder / file).write_bytes(data)
        return folder

    def archive(self, parent: Path) -> Path:
        """Write the official archive, with the directory and a readme as in the real one."""
        members = {f"{self.layout.folders[0]}/{name}": data for name, data in self.files.items()}
        members |= {f"{self.layout.folders[0]}/readme.html": b"<html>"}
        path = parent / str(self.layout.archive)
        path.write_bytes(gzip.compress(tar_bytes(members, self.layout.folders[0])))
        return path


def tar_bytes(members: dict[str, bytes], folder: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def release(name: str, layout: Layout, encode: Encoder) -> Release:
    """One image file per official file."""
    source = source_named(name)
    generator = np.random.default_rng(0)
    parts = {file.name: _random_images(generator, len(source.classes)) for file in layout.files}
    files = {file: encode(*part) for file, part in parts.items()}
    small = replace(
        layout,
        train=tuple(_fitting(file, files[file.name]) for file in layout.train),
        test=tuple(_fitting(file, files[file.name]) for file in layout.test),
    )
    train, test = (
        tuple(np.concatenate([parts[file.name][i] for file in split]) for i in (0, 1))
        for split in (layout.train, layout.test)
    )
    return Release(replace(source, layouts=(small,)), files, train, test)


def idx_release(name: str) -> Release:
    """Two files per split: images and labels."""
    source = source_named(name)
    (layout,) = source.layouts
    generator = np.random.default_rng(0)
    files, splits = {}, []
    for split in (layout.train, layout.test):
        images, labels = _random_images(generator, 10, shape=(28, 28))
        files |= {split[0].name: idx_bytes(images), split[1].name: idx_bytes(labels.astype(np.uint8))}
        splits.append((np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None], labels))
    small = replace(
        layout,
        train=tuple(_fitting(file, files[file.name]) for file in layout.train),
        test=tuple(_fitting(file, files[file.name]) for file in layout.test),
    )
    return Release(replace(source, layouts=(small,)), files, splits[0], splits[1])


def _fitting(file: OfficialFile, data: bytes) -> OfficialFile:
    return replace(file, images=PER_FILE, size=len(data), checksum=f"sha256:{sha256(data).hexdigest()}")


def _random_images(
    generator: np.random.Generator, classes: int, shape: tuple[int, ...] = (3, 32, 32)
) -> tuple[np.ndarray, np.ndarray]:
    labels = generator.integers(0, classes, PER_FILE)
    labels[:2] = 0, classes - 1
    return generator.integers(0, 256, (PER_FILE, *shape), dtype=np.uint8), labels


def cifar10_binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.column_stack([labels.astype(np.uint8), images.reshape(len(images), -1)]).tobytes()


def cifar100_binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    coarse = labels // 5
    return np.column_stack([coarse, labels, images.reshape(len(images), -1)]).astype(np.uint8).tobytes()


def python3_pickle(images: np.ndarray, labels: np.ndarray, *, key: str = "labels", protocol: int = 2) -> bytes:
    """As somebody writes the official dictionary anew with Python 3."""
    names = [b"image_%d.png" % i for i in range(len(images))]
    content = {b"data": images.reshape(len(images), -1), key.encode(): labels.tolist(), b"filenames": names}
    return pickle.dumps(content, protocol=protocol)


def python2_pickle(images: np.ndarray, labels: np.ndarray, *, key: str = "labels") -> bytes:
    """Instruction by instruction as Python 2's cPickle wrote the official files."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels = images.tobytes()
    array = b"".join([
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03", b"K\x00\x85", text(b"b"), b"\x87R",
        b"(K\x01", integer(len(images)), integer(3 * 32 * 32), b"\x86", b"cnumpy\ndtype\n", text(b"u1"),
        b"K\x00K\x01\x87R(K\x03", text(b"|"), b"NNN", integer(-1), integer(-1), b"K\x00tb",
        b"\x89T", struct.pack("<i", len(pixels)), pixels, b"tb",
    ])  # fmt: skip
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels.tolist()) + b"e"
    names = b"](" + b"".join(text(b"image_%d.png" % i) for i in range(len(images))) + b"e"
    items = [text(b"batch_label"), text(b"training batch 1 of 5"), text(key.encode()), listed]
    items += [text(b"data"), array, text(b"filenames"), names]
    return b"\x80\x02}q\x01(" + b"".join(items) + b"u."


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def svhn_bytes(images: np.ndarray, labels: np.ndarray, *, compressed: bool = True) -> bytes:
    out = io.BytesIO()
    numbers = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(out, {"X": images.transpose(2, 3, 1, 0), "y": numbers}, do_compression=compressed)
    return out.getvalue()
