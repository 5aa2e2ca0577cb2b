"""Every official format, from folder and archive, gives back exactly the images and labels that were written."""

import gzip
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_releases as small
import torch

from fisherkit.images import SOURCES, catalogue, load_images, releases
from fisherkit.images.image_set import ImageSet
from fisherkit.images.load import load_found
from fisherkit.images.locate import Found, data_folders, locate

RELEASES = {
    "cifar10 binary": lambda: small.release("cifar10", releases.CIFAR10_BINARY, small.cifar10_binary),
    "cifar100 binary": lambda: small.release("cifar100", releases.CIFAR100_BINARY, small.cifar100_binary),
    "cifar10 Python 2 pickles": lambda: small.release("cifar10", releases.CIFAR10_PYTHON, small.python2_pickle),
    "cifar100 Python 2 pickles": lambda: small.release(
        "cifar100", releases.CIFAR100_PYTHON, partial(small.python2_pickle, key="fine_labels")
    ),
    "cifar10 Python 3 pickles, protocol 2": lambda: small.release(
        "cifar10", releases.CIFAR10_PYTHON, small.python3_pickle
    ),
    "cifar10 Python 3 pickles, protocol 4": lambda: small.release(
        "cifar10", releases.CIFAR10_PYTHON, partial(small.python3_pickle, protocol=4)
    ),
    "mnist": lambda: small.idx_release("mnist"),
    "fashion_mnist": lambda: small.idx_release("fashion_mnist"),
    "svhn": lambda: small.release("svhn", releases.SVHN_MAT, small.svhn_bytes),
    "svhn uncompressed": lambda: small.release("svhn", releases.SVHN_MAT, partial(small.svhn_bytes, compressed=False)),
}
ARCHIVED = [name for name in RELEASES if "cifar" in name]


def load(release: small.Release, folder: Path) -> tuple[ImageSet, ImageSet]:
    found = locate(release.source, (folder,))
    assert found is not None
    return load_found(found)


def check(release: small.Release, sets: tuple[ImageSet, ImageSet]) -> None:
    for images, (pixels, labels), split in zip(sets, (release.train, release.test), ("train", "test"), strict=True):
        assert np.array_equal(images.images.numpy(), pixels)
        assert np.array_equal(images.labels.numpy(), labels)
        assert images.images.shape[2:] == (32, 32)
        assert images.name == f"{release.source.name} {split}"
        assert images.classes == release.source.classes
        assert (images.mean, images.std) == (release.source.mean, release.source.std)
        assert images.notices == ()


@pytest.mark.parametrize("name", RELEASES)
def test_from_the_official_folder(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]()
    release.folder(tmp_path)
    check(release, load(release, tmp_path))


@pytest.mark.parametrize("name", RELEASES)
def test_from_a_folder_that_holds_the_files_directly(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]()
    check(release, load(release, release.folder(tmp_path, "anywhere")))


@pytest.mark.parametrize("name", ARCHIVED)
def test_from_the_official_archive(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]()
    release.archive(tmp_path)
    check(release, load(release, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [release.layout.archive]  # nothing was extracted


def test_from_an_archive_that_a_browser_has_unpacked(tmp_path: Path) -> None:
    release = RELEASES["cifar10 binary"]()
    path = release.archive(tmp_path)
    path.write_bytes(gzip.decompress(path.read_bytes()))
    check(release, load(release, tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_may_be_gzipped(name: str, tmp_path: Path) -> None:
    release = RELEASES[name]()
    folder = release.folder(tmp_path)
    for level, path in enumerate(sorted(folder.iterdir())):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), level))
        path.unlink()
    check(release, load(release, tmp_path))  # no notice either: the checksum is of the unpacked bytes


def test_idx_file_named_gz_but_unpacked(tmp_path: Path) -> None:
    release = RELEASES["mnist"]()
    for path in release.folder(tmp_path).iterdir():
        path.rename(path.with_name(f"{path.name}.gz"))
    check(release, load(release, tmp_path))


def test_padding_keeps_the_28_x_28_pixels_in_the_middle(tmp_path: Path) -> None:
    release = RELEASES["mnist"]()
    release.folder(tmp_path)
    train, _ = load(release, tmp_path)
    assert train.images[:, :, 2:30, 2:30].numpy().tobytes() == release.files["train-images-idx3-ubyte"][16:]
    assert train.images.sum() == train.images[:, :, 2:30, 2:30].sum()


def test_svhn_digit_zero_is_label_zero(tmp_path: Path) -> None:
    release = RELEASES["svhn"]()
    release.folder(tmp_path)
    train, _ = load(release, tmp_path)
    assert train.labels[0] == 0
    assert train.labels.max() == 9


def test_other_checksum_is_a_notice_of_that_split(tmp_path: Path) -> None:
    release = RELEASES["cifar10 binary"]()
    folder = release.folder(tmp_path)
    data = bytearray((folder / "data_batch_2.bin").read_bytes())
    data[100] ^= 1
    (folder / "data_batch_2.bin").write_bytes(data)
    train, test = load(release, tmp_path)
    assert test.notices == ()
    (notice,) = train.notices
    assert notice.startswith(f"cifar10 train: data_batch_2.bin in {folder} differ from the official release")
    assert train.subset(5, seed=0).notices == train.notices


def test_pickle_as_numpy_reads_it() -> None:
    """The instructions that the tests write for Python 2 are those that numpy understands."""
    import pickle

    images, labels = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3, 32, 32), np.array([3, 9])
    content = pickle.loads(small.python2_pickle(images, labels), encoding="bytes")
    assert np.array_equal(content[b"data"], images.reshape(2, -1))
    assert content[b"labels"] == [3, 9]
    assert content[b"filenames"] == [b"image_0.png", b"image_1.png"]


@pytest.mark.parametrize("source", catalogue.CATALOGUE, ids=SOURCES)
def test_catalogue_is_consistent(source: catalogue.Source) -> None:
    assert len(source.mean) == len(source.std)
    for layout in source.layouts:
        per_image = 2 if layout.format == "idx" else 1
        assert sum(file.images for file in layout.train) == per_image * source.train_images
        assert sum(file.images for file in layout.test) == per_image * source.test_images
        for file in layout.files:
            algorithm, _, digits = file.checksum.partition(":")
            assert len(bytes.fromhex(digits)) == {"sha256": 32, "md5": 16}[algorithm]
    names = {layout.archive for layout in source.layouts} | {
        f"{folder}/{file.name}{suffix}"
        for layout in source.layouts
        for folder in layout.folders[:1]
        for file in layout.files
        for suffix in layout.suffixes
    }
    assert source.embedded or {download.path for download in source.downloads} <= names
    assert source.embedded or source.downloads


def test_class_names() -> None:
    assert [len(source.classes) for source in catalogue.CATALOGUE] == [10, 10, 100, 10, 10, 10]
    assert all(len(set(source.classes)) == len(source.classes) for source in catalogue.CATALOGUE)
    assert list(catalogue.source_named("cifar100").classes) == sorted(catalogue.source_named("cifar100").classes)


def test_official_sizes() -> None:
    assert {file.size for file in releases.CIFAR10_BINARY.files} == {30_730_000}
    assert [file.size for file in releases.MNIST_IDX.files] == [47_040_016, 60_008, 7_840_016, 10_008]


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_real_fashion_mnist_is_official_and_the_constants_fit() -> None:
    train, test = load_images("fashion_mnist", data_dir=DEBIAN)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.notices == test.notices == ()
    assert train.labels.bincount().tolist() == [6_000] * 10
    pixels = train.images.numpy() / np.float32(255)
    assert pixels.mean(dtype=float) == pytest.approx(train.mean[0], abs=5e-5)
    assert pixels.std(dtype=float) == pytest.approx(train.std[0], abs=5e-5)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_under_the_name_of_mnist_is_refused() -> None:
    with pytest.raises(Exception, match="this is a file of fashion_mnist, not of mnist") as caught:
        load_images("mnist", data_dir=DEBIAN)
    assert type(caught.value).__name__ == "UnreadableFile"


def test_embedded_images() -> None:
    train, test = load_images("fashion-mini")
    assert train.images.shape == (5_000, 1, 32, 32)
    assert test.images.shape == (1_000, 1, 32, 32)
    assert train.labels.bincount().tolist() == [500] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    assert train.images[:, :, [0, 1, 30, 31]].sum() == train.images[..., [0, 1, 30, 31]].sum() == 0
    normalised = train.normalised()
    assert abs(normalised.mean()) < 1e-3
    assert abs(normalised.std() - 1) < 1e-3
    # the contents, bit for bit: runs of different versions compare only on the same images
    assert train.digest == "5c00cdc2ed646f57" + train.digest[16:]
    assert test.digest == "3808dea138dd9911" + test.digest[16:]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_embedded_images_are_the_first_of_every_class() -> None:
    for mini, full, count in zip(
        load_images("fashion-mini"), load_images("fashion_mnist", data_dir=DEBIAN), (500, 100), strict=True
    ):
        firsts = torch.cat([torch.nonzero(full.labels == label)[:count, 0] for label in range(10)]).sort().values
        assert torch.equal(mini.images, full.images[firsts])
        assert torch.equal(mini.labels, full.labels[firsts])


def test_license_of_the_embedded_images_is_beside_them() -> None:
    from importlib import resources

    text = (resources.files("fisherkit.images") / "data" / "LICENSE-fashion-mnist.txt").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "The above copyright notice and this permission notice shall be included" in text


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("cifar-10", r" Did you mean 'cifar10'\?"),
        ("Fashion-MNIST", r" Did you mean 'fashion_mnist'\?"),
        ("fashion_mini", r" Did you mean 'fashion-mini'\?"),
        ("imagenet", "$"),
        ("", "$"),
    ],
)
def test_unknown_name_lists_the_choices(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match=rf"must be one of {', '.join(SOURCES)}; got '{name}'\.{suggestion}"):
        load_images(name)


def test_folder_before_archive_and_binary_before_python(tmp_path: Path) -> None:
    binary, python = RELEASES["cifar10 binary"](), RELEASES["cifar10 Python 2 pickles"]()
    source = replace(binary.source, layouts=(binary.layout, python.layout))

    def found() -> tuple[str, bool]:
        where = locate(source, (tmp_path,))
        assert isinstance(where, Found)
        return where.layout.format, where.archived

    python.archive(tmp_path)
    assert found() == ("cifar10-python", True)
    binary.archive(tmp_path)
    assert found() == ("cifar10-binary", True)
    python.folder(tmp_path)
    assert found() == ("cifar10-python", False)
    binary.folder(tmp_path)
    assert found() == ("cifar10-binary", False)


def test_data_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FISHERKIT_DATA", raising=False)
    (cache,) = data_folders()
    assert cache.name == "fisherkit"
    monkeypatch.setenv("FISHERKIT_DATA", str(tmp_path / "named"))
    assert data_folders() == (tmp_path / "named", cache)
    assert data_folders(tmp_path) == (tmp_path,)  # an explicit folder is the only one


def test_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = RELEASES["mnist"]()
    monkeypatch.setattr(catalogue, "CATALOGUE", (release.source,))
    monkeypatch.setenv("FISHERKIT_DATA", str(release.folder(tmp_path)))
    check(release, load_images("mnist"))


def test_missing_set_says_what_was_looked_for_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cifar10 was not found") as caught:
        load_images("cifar10", data_dir=tmp_path / "nowhere")
    message = str(caught.value)
    for part in (
        f"{tmp_path / 'nowhere'} (there is no such folder)",
        "data_batch_1.bin, data_batch_2.bin",
        "test_batch (in the folder itself or in cifar-10-batches-py/)",
        "cifar-10-binary.tar.gz",
        "cifar-10-python.tar.gz",
        "`fisherkit data fetch cifar10`",
        "--data-dir",
        "FISHERKIT_DATA",
    ):
        assert part in message


def test_incomplete_folder_says_what_is_lacking(tmp_path: Path) -> None:
    folder = RELEASES["cifar10 binary"]().folder(tmp_path)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=rf"Incomplete: {folder} lacks data_batch_3\.bin\."):
        load_images("cifar10", data_dir=tmp_path)


def test_catalogue_imports_neither_torch_nor_numpy() -> None:
    import subprocess
    import sys

    code = "import sys, fisherkit.images as i; i.SOURCES; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
