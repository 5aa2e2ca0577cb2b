"""Damaged and hostile files: one clear error that names the file, nothing executed, nothing written, little memory."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_releases as small
from hypothesis import given, settings
from hypothesis import strategies as st
from reliability import corpus_images as corpus
from reliability.corpus_images import BINARY, DIGITS, FOLDER, MNIST, PICKLES, PIXELS, SVHN, archive_with, with_file

from fisherkit.errors import UnreadableFile
from fisherkit.images.image_set import ImageSet
from fisherkit.images.load import load_found
from fisherkit.images.locate import locate


def table(rows: list[tuple[str, object, str]]) -> list[object]:
    """Parameters of a test from a table of the corpus."""
    return [pytest.param(value, message, id=name) for name, value, message in rows]


def load(release: small.Release, folder: Path) -> tuple[ImageSet, ImageSet]:
    found = locate(release.source, (folder,))
    assert found is not None
    return load_found(found)


def refused(release: small.Release, folder: Path, message: str) -> UnreadableFile:
    with pytest.raises(UnreadableFile, match=message) as caught:
        load(release, folder)
    return caught.value


# ---------------------------------------------------------------- sizes and labels


@pytest.mark.parametrize(("kind", "name"), corpus.EXACT)
@pytest.mark.parametrize(("change", "message"), table(corpus.WRONG_SIZES))
def test_wrong_size(kind: str, name: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    release = corpus.release(kind)
    path = with_file(release, tmp_path, name, change)
    assert refused(release, tmp_path, message).path == path


def test_label_out_of_range_in_binary(tmp_path: Path) -> None:
    release = BINARY()
    path = with_file(release, tmp_path, "test_batch.bin", corpus.binary_label)
    assert refused(release, tmp_path, "labels must be from 0 to 9; that of image 3 is 10").path == path


def test_label_out_of_range_in_idx(tmp_path: Path) -> None:
    release = MNIST()
    with_file(release, tmp_path, "train-labels-idx1-ubyte", corpus.last_label)
    refused(release, tmp_path, "labels must be from 0 to 9; that of image 23 is 255")


@pytest.mark.parametrize("label", [0, 11, 255])
def test_label_out_of_range_in_svhn(label: int, tmp_path: Path) -> None:
    release = SVHN()
    with_file(release, tmp_path, "test_32x32.mat", corpus.svhn_label(label))
    refused(release, tmp_path, "labels must be whole numbers from 1 to 10; that of image")


# ---------------------------------------------------------------- gzip and IDX


@pytest.mark.parametrize(("change", "message"), table(corpus.DAMAGED_GZIP))
def test_damaged_gzip(change: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    release = MNIST()
    with_file(release, tmp_path, "train-images-idx3-ubyte", lambda data: change(gzip.compress(data)))
    refused(release, tmp_path, message)


def test_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    release = MNIST()
    with_file(release, tmp_path, "train-labels-idx1-ubyte", lambda _: corpus.gzip_bomb())
    tracemalloc.start()
    try:
        refused(release, tmp_path, "the size must be 32 bytes; it is more than 32")
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("header", "message"), table(corpus.IDX_HEADERS))
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


@pytest.mark.parametrize("name", corpus.TRAVERSALS)
def test_path_traversal_writes_nothing(name: str, tmp_path: Path) -> None:
    release = BINARY()
    inner = tmp_path / "inner"
    inner.mkdir()
    archive_with(release, inner, lambda archive: corpus.add(archive, name, b"gotcha"))
    train, _ = load(release, inner)
    assert np.array_equal(train.images.numpy(), release.train[0])
    assert {path.name for path in tmp_path.rglob("*")} == {"inner", "cifar-10-binary.tar.gz"}
    assert not Path("/tmp/fisherkit-outside").exists()


@pytest.mark.parametrize(("kind", "target"), [pytest.param(*rest, id=name) for name, *rest in corpus.NO_FILES])
def test_member_that_is_no_regular_file(kind: bytes, target: str, tmp_path: Path) -> None:
    release = BINARY()
    path = archive_with(
        release, tmp_path, lambda archive: corpus.add(archive, f"{FOLDER}/test_batch.bin", type=kind, linkname=target)
    )
    error = refused(release, tmp_path, "it must be a regular file; it is another kind")
    assert (error.path, error.dataset) == (path, f"{FOLDER}/test_batch.bin")


def test_member_of_another_size(tmp_path: Path) -> None:
    release = BINARY()
    archive_with(release, tmp_path, lambda archive: corpus.add(archive, f"{FOLDER}/test_batch.bin", bytes(73_752 + 1)))
    refused(release, tmp_path, "test_batch.bin: the size must be 73,752 bytes; it is 73,753")


def test_member_that_is_there_twice(tmp_path: Path) -> None:
    release = BINARY()
    archive_with(release, tmp_path, corpus.twice)
    refused(release, tmp_path, "data_batch_1.bin: the archive has this file twice")


@pytest.mark.parametrize("name", corpus.INEXACT_NAMES)
def test_only_exact_names_count(name: str, tmp_path: Path) -> None:
    corpus.renamed_member(name)(tmp_path)
    refused(BINARY(), tmp_path, f"the archive ends without {FOLDER}/test_batch.bin")


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


@pytest.mark.parametrize("bomb", [corpus.long_member, corpus.long_member_name])
def test_archive_bomb_is_not_unpacked(bomb: Callable[..., None], tmp_path: Path) -> None:
    release = BINARY()
    archive_with(release, tmp_path, bomb)
    tracemalloc.start()
    try:
        refused(release, tmp_path, "unpacks to far more than the official release")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- MATLAB files


@pytest.mark.parametrize(("data", "message"), table(corpus.matlab_files()))
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
    with_file(release, tmp_path, "train_32x32.mat", lambda _: corpus.mat_bytes(PIXELS, DIGITS.astype(float)))
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
