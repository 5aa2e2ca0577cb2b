"""Damaged and hostile files: one clear error that names the file, nothing executed, nothing written, little memory."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import small_releases as small
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherkit.errors import UnreadableFile
from fisherkit.images import releases
from fisherkit.images.image_set import ImageSet
from fisherkit.images.load import load_found
from fisherkit.images.locate import locate

BINARY = partial(small.release, "cifar10", releases.CIFAR10_BINARY, small.cifar10_binary)
PICKLES = partial(small.release, "cifar10", releases.CIFAR10_PYTHON, small.python2_pickle)
SVHN = partial(small.release, "svhn", releases.SVHN_MAT, small.svhn_bytes)
MNIST = partial(small.idx_release, "mnist")
FOLDER = "cifar-10-batches-bin"


def load(release: small.Release, folder: Path) -> tuple[ImageSet, ImageSet]:
    found = locate(release.source, (folder,))
    assert found is not None
    return load_found(found)


def refused(release: small.Release, folder: Path, message: str) -> UnreadableFile:
    with pytest.raises(UnreadableFile, match=message) as caught:
        load(release, folder)
    return caught.value


def with_file(release: small.Release, parent: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """The release's folder with one file changed."""
    path = release.folder(parent) / name
    path.write_bytes(change(release.files[name]))
    return path


# ---------------------------------------------------------------- sizes and labels


@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(BINARY, "data_batch_4.bin", id="cifar10 binary"),
        pytest.param(MNIST, "t10k-labels-idx1-ubyte", id="idx"),
    ],
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda data: data[:-1], r"must be [\d,]+ bytes; it is [\d,]+\. .*incomplete", id="short"),
        pytest.param(lambda data: data + b"\0", r"must be [\d,]+ bytes; it is more than", id="long"),
        pytest.param(lambda data: b"", r"must be [\d,]+ bytes; it is 0\. ", id="empty"),
    ],
)
def test_wrong_size(
    make: Callable[[], small.Release],
    name: str,
    change: Callable[[bytes], bytes],
    message: str,
    tmp_path: Path,
) -> None:
    release = make()
    path = with_file(release, tmp_path, name, change)
    assert refused(release, tmp_path, message).path == path


def test_label_out_of_range_in_binary(tmp_path: Path) -> None:
    release = BINARY()
    path = with_file(
        release, tmp_path, "test_batch.bin", lambda data: data[: 3 * 3073] + b"\x0a" + data[3 * 3073 + 1 :]
    )
    assert refused(release, tmp_path, "labels must be from 0 to 9; that of image 3 is 10").path == path


def test_label_out_of_range_in_idx(tmp_path: Path) -> None:
    release = MNIST()
    with_file(release, tmp_path, "train-labels-idx1-ubyte", lambda data: data[:-1] + b"\xff")
    refused(release, tmp_path, "labels must be from 0 to 9; that of image 23 is 255")


@pytest.mark.parametrize("label", [0, 11, 255])
def test_label_out_of_range_in_svhn(label: int, tmp_path: Path) -> None:
    release = SVHN()
    images, labels = release.test
    wrong = small.svhn_bytes(images, np.where(np.arange(len(labels)) == 5, label, np.maximum(labels, 1)))
    if label == 0:  # the writer turns 0 into 10
        wrong = mat_bytes(images.transpose(2, 3, 1, 0), np.zeros((len(labels), 1), np.uint8))
    with_file(release, tmp_path, "test_32x32.mat", lambda data: wrong)
    refused(release, tmp_path, "labels must be whole numbers from 1 to 10; that of image")


# ---------------------------------------------------------------- gzip and IDX


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "gzip data are damaged or cut off", id="truncated"),
        pytest.param(lambda data: data[:12] + b"\xff" * 40 + data[52:], "gzip data are damaged", id="damaged"),
        pytest.param(lambda data: data[:10], "gzip data are damaged or cut off", id="header only"),
    ],
)
def test_damaged_gzip(change: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    release = MNIST()
    with_file(release, tmp_path, "train-images-idx3-ubyte", lambda data: change(gzip.compress(data)))
    refused(release, tmp_path, message)


def test_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    release = MNIST()
    bomb = gzip.compress(bytes(100 << 20))
    with_file(release, tmp_path, "train-labels-idx1-ubyte", lambda data: bomb)
    tracemalloc.start()
    try:
        refused(release, tmp_path, "the size must be 32 bytes; it is more than 32")
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param(
            bytes((0, 0, 8, 3)) + struct.pack(">III", 2**32 - 1, 2**31, 28),
            r"must say 24 x 28 x 28; it says 4294967295 x 2147483648 x 28",
            id="huge sizes",
        ),
        pytest.param(
            bytes((0, 0, 8, 3)) + struct.pack(">III", 28, 24, 28), "must say 24 x 28 x 28; it says 28 x 24", id="order"
        ),
        pytest.param(bytes((0, 0, 8, 1)), r"must begin 00 00 08 03 .* it begins 00 00 08 01", id="one axis"),
        pytest.param(bytes((0, 0, 13, 3)), "it begins 00 00 0d 03", id="floats"),
        pytest.param(b"\x89PNG", "it begins 89 50 4e 47", id="png"),
    ],
)
def test_idx_header_that_lies(header: bytes, message: str, tmp_path: Path) -> None:
    release = MNIST()
    with_file(release, tmp_path, "train-images-idx3-ubyte", lambda data: header + data[len(header) :])
    refused(release, tmp_path, message)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    release = BINARY()
    path = release.folder(tmp_path) / "data_batch_1.bin"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # opens, and refuses to be read
    if not path.is_file():
        pytest.skip("no /proc")
    assert refused(release, tmp_path, "it cannot be read").path == path


# ---------------------------------------------------------------- archives


def archive_with(release: small.Release, tmp_path: Path, change: Callable[[tarfile.TarFile], None]) -> Path:
    """The archive of the release, in which `change` adds members first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        change(archive)
        for name, data in release.files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            if member.name not in archive.getnames():
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(out.getvalue()))
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **attributes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("name", ["../outside", "/tmp/fisherkit-outside", f"{FOLDER}/../../outside", "outside\0"])
def test_path_traversal_writes_nothing(name: str, tmp_path: Path) -> None:
    release = BINARY()
    inner = tmp_path / "inner"
    inner.mkdir()
    archive_with(release, inner, lambda archive: add(archive, name, b"gotcha"))
    train, _ = load(release, inner)
    assert np.array_equal(train.images.numpy(), release.train[0])
    assert {path.name for path in tmp_path.rglob("*")} == {"inner", "cifar-10-binary.tar.gz"}
    assert not Path("/tmp/fisherkit-outside").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        pytest.param(tarfile.SYMTYPE, "/etc/passwd", id="symlink"),
        pytest.param(tarfile.LNKTYPE, f"{FOLDER}/data_batch_2.bin", id="hard link"),
        pytest.param(tarfile.DIRTYPE, "", id="folder"),
        pytest.param(tarfile.CHRTYPE, "", id="device"),
        pytest.param(tarfile.FIFOTYPE, "", id="pipe"),
    ],
)
def test_member_that_is_no_regular_file(kind: bytes, target: str, tmp_path: Path) -> None:
    release = BINARY()
    path = archive_with(
        release, tmp_path, lambda archive: add(archive, f"{FOLDER}/test_batch.bin", type=kind, linkname=target)
    )
    error = refused(release, tmp_path, "it must be a regular file; it is another kind")
    assert (error.path, error.dataset) == (path, f"{FOLDER}/test_batch.bin")


def test_member_of_another_size(tmp_path: Path) -> None:
    release = BINARY()
    archive_with(release, tmp_path, lambda archive: add(archive, f"{FOLDER}/test_batch.bin", bytes(73_752 + 1)))
    refused(release, tmp_path, "test_batch.bin: the size must be 73,752 bytes; it is 73,753")


def test_member_that_is_there_twice(tmp_path: Path) -> None:
    release = BINARY()
    data = release.files["data_batch_1.bin"]

    def twice(archive: tarfile.TarFile) -> None:
        add(archive, f"{FOLDER}/data_batch_1.bin", data)
        add(archive, f"{FOLDER}/data_batch_1.bin", bytes(len(data)))

    archive_with(release, tmp_path, twice)
    refused(release, tmp_path, "data_batch_1.bin: the archive has this file twice")


@pytest.mark.parametrize("name", ["./cifar-10-batches-bin/test_batch.bin", "test_batch.bin", "CIFAR-10-batches-bin/x"])
def test_only_exact_names_count(name: str, tmp_path: Path) -> None:
    release = BINARY()
    files = {f"{FOLDER}/{file}": data for file, data in release.files.items() if file != "test_batch.bin"}
    tar = small.tar_bytes({**files, name: release.files["test_batch.bin"]}, FOLDER)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(tar))
    refused(release, tmp_path, f"the archive ends without {FOLDER}/test_batch.bin")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_truncated_archive(kept: float, tmp_path: Path) -> None:
    release = BINARY()
    path = release.archive(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    error = refused(release, tmp_path, "cut off|ends without")
    assert "incomplete download" in str(error)


def test_archive_that_is_none(tmp_path: Path) -> None:
    release = BINARY()
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"<html>404 not found</html>" * 100)
    refused(release, tmp_path, "the tar archive is damaged or cut off")


@pytest.mark.parametrize("where", ["a long member", "a long name"])
def test_archive_bomb_is_not_unpacked(where: str, tmp_path: Path) -> None:
    release = BINARY()
    huge = bytes(64 << 20)

    def bomb(archive: tarfile.TarFile) -> None:
        if where == "a long member":
            add(archive, "readme.html", huge)
        else:
            add(archive, "././@LongLink", huge, type=tarfile.GNUTYPE_LONGNAME)

    archive_with(release, tmp_path, bomb)
    tracemalloc.start()
    try:
        refused(release, tmp_path, "unpacks to far more than the official release")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- MATLAB files


def mat_bytes(pixels: np.ndarray, labels: np.ndarray, **others: object) -> bytes:
    out = io.BytesIO()
    scipy.io.savemat(out, {"X": pixels, "y": labels, **others}, do_compression=True)
    return out.getvalue()


PIXELS, DIGITS = np.ones((32, 32, 3, 24), np.uint8), np.ones((24, 1), np.uint8)


def with_claimed_shape(data: bytes) -> bytes:
    """The same file, with the number of images in the header of X raised to 2 ** 31 - 1."""
    head, size = data[:128], struct.unpack_from("<I", data, 132)[0]
    element = zlib.decompress(data[136 : 136 + size])
    changed = zlib.compress(element.replace(struct.pack("<I", 24), struct.pack("<I", 2**31 - 1), 1))
    return head + struct.pack("<II", 15, len(changed)) + changed + data[136 + size :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(mat_bytes(PIXELS[..., :23], DIGITS), "one variable X", id="other count"),
        pytest.param(mat_bytes(PIXELS.astype(np.int8), DIGITS), "of type uint8", id="signed"),
        pytest.param(mat_bytes(PIXELS, DIGITS.T), "one variable y", id="labels in a row"),
        pytest.param(mat_bytes(PIXELS, DIGITS + 0.5), "whole numbers", id="broken labels"),
        pytest.param(mat_bytes(PIXELS, np.full((24, 1), np.nan)), "whole numbers", id="nan labels"),
        pytest.param(mat_bytes(PIXELS, np.array([{"a": 1}], object)), "one variable y", id="cells"),
        pytest.param(mat_bytes(PIXELS, DIGITS, z=np.zeros(1 << 24)), "unpacks to more than", id="bomb"),
        pytest.param(with_claimed_shape(mat_bytes(PIXELS, DIGITS)), "one variable X", id="huge claimed shape"),
        pytest.param(mat_bytes(PIXELS, DIGITS)[:200], "not a readable SVHN file", id="truncated"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(4096), "the header is another one", id="MATLAB 7.3"),
        pytest.param(b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + b"\xff" * 64, "not a readable", id="noise"),
    ],
)
def test_matlab_files_that_are_not_svhn(data: bytes, message: str, tmp_path: Path) -> None:
    release = SVHN()
    path = with_file(release, tmp_path, "train_32x32.mat", lambda _: data)
    tracemalloc.start()
    try:
        assert refused(release, tmp_path, message).path == path
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_labels_may_be_doubles_as_octave_writes_them(tmp_path: Path) -> None:
    release = SVHN()
    with_file(release, tmp_path, "train_32x32.mat", lambda _: mat_bytes(PIXELS, DIGITS.astype(float)))
    train, _ = load(release, tmp_path)
    assert train.labels.tolist() == [1] * 24
    assert len(train.notices) == 1


# ---------------------------------------------------------------- any damage at all


def attempt(release: small.Release, folder: Path) -> ImageSet | UnreadableFile:
    try:
        return load(release, folder)[1]
    except UnreadableFile as error:
        return error


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_change_of_a_file_is_read_with_a_notice_or_refused_by_name(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make, name = data.draw(
        st.sampled_from(
            [
                (BINARY, "test_batch.bin"),
                (PICKLES, "test_batch"),
                (SVHN, "test_32x32.mat"),
                (MNIST, "t10k-images-idx3-ubyte"),
            ]
        )
    )
    release = make()
    original = release.files[name]
    # most of a file is pixels: half of the changes go into the head or the tail, where the structure is
    near = st.integers(0, 400) | st.integers(max(0, len(original) - 900), len(original) - 1)
    position = data.draw(near | st.integers(0, len(original) - 1))
    new = data.draw(st.binary(min_size=0, max_size=8))
    cut = data.draw(st.integers(0, 8))
    folder = tmp_path_factory.mktemp("changed")
    changed = original[:position] + new + original[position + cut :]
    path = with_file(release, folder, name, lambda _: changed)
    outcome = attempt(release, folder)
    if isinstance(outcome, UnreadableFile):
        assert outcome.path == path
        assert str(outcome).startswith(str(path))
    else:
        assert bool(outcome.notices) == (changed != original)
