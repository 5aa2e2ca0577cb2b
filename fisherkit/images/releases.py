"""The official releases: files, sizes, checksums, the folders and archives they come in, and where to get them.

Checksums are of a file's own bytes, after decompression, so that a folder, the official archive and one packed
anew by a distribution are all recognised. Those of downloads are of the file as the server sends it. The MD5
sums (CIFAR Python files, Fashion-MNIST downloads) are the ones that their authors and torchvision publish.
"""

from dataclasses import dataclass
from typing import Literal

Format = Literal["cifar10-binary", "cifar100-binary", "cifar10-python", "cifar100-python", "idx", "svhn"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class OfficialFile:
    """One file of a release: how many images it is about, its bytes once decompressed, and their checksum.

    `exact`: the format leaves no freedom, so every valid file has this size. Otherwise a file that somebody
    has written anew may be smaller, or larger up to `limit`.
    """

    name: str
    images: int
    size: int
    checksum: str
    exact: bool = True

    @property
    def limit(self) -> int:
        """More bytes than this are never read."""
        return self.size if self.exact else 2 * self.size


@dataclass(frozen=True)
class Layout:
    """One way a release is stored: the files of both splits, in one of `folders` or in the tar `archive`.

    `suffixes` are tried in this order after every file name.
    """

    format: Format
    folders: tuple[str, ...]
    train: tuple[OfficialFile, ...]
    test: tuple[OfficialFile, ...]
    archive: str | None = None
    suffixes: tuple[str, ...] = ("",)

    @property
    def files(self) -> tuple[OfficialFile, ...]:
        """The files of both splits."""
        return self.train + self.test


@dataclass(frozen=True)
class Download:
    """One file to fetch: where from, where to in the data folder, its size in bytes and its checksum."""

    url: str
    path: str
    size: int
    checksum: str


def _cifar_binary(name: str, images: int, sha256: str, *, labels: int = 1) -> OfficialFile:
    return OfficialFile(name, images, images * (labels + 3 * 32 * 32), f"sha256:{sha256}")


def _pickle(name: str, images: int, md5: str) -> OfficialFile:
    # pixels, and about 33 bytes an image for labels and file names
    return OfficialFile(name, images, images * (3 * 32 * 32 + 33), f"md5:{md5}", exact=False)


def _idx(prefix: str, images: int, *, pixels: str, labels: str) -> tuple[OfficialFile, OfficialFile]:
    return (
        OfficialFile(f"{prefix}-images-idx3-ubyte", images, 16 + images * 28 * 28, f"sha256:{pixels}"),
        OfficialFile(f"{prefix}-labels-idx1-ubyte", images, 8 + images, f"sha256:{labels}"),
    )


CIFAR10_BINARY = Layout(
    format="cifar10-binary",
    folders=("cifar-10-batches-bin",),
    archive="cifar-10-binary.tar.gz",
    train=(
        _cifar_binary("data_batch_1.bin", 10_000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        _cifar_binary("data_batch_2.bin", 10_000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
        _cifar_binary("data_batch_3.bin", 10_000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
        _cifar_binary("data_batch_4.bin", 10_000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
        _cifar_binary("data_batch_5.bin", 10_000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ),
    test=(_cifar_binary("test_batch.bin", 10_000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),),
)

CIFAR10_PYTHON = Layout(
    format="cifar10-python",
    folders=("cifar-10-batches-py",),
    archive="cifar-10-python.tar.gz",
    train=(
        _pickle("data_batch_1", 10_000, "c99cafc152244af753f735de768cd75f"),
        _pickle("data_batch_2", 10_000, "d4bba439e000b95fd0a9bffe97cbabec"),
        _pickle("data_batch_3", 10_000, "54ebc095f3ab1f0389bbae665268c751"),
        _pickle("data_batch_4", 10_000, "634d18415352ddfa80567beed471001a"),
        _pickle("data_batch_5", 10_000, "482c414d41f54cd18b22e5b47cb7c3cb"),
    ),
    test=(_pickle("test_batch", 10_000, "40351d587109b95175f43aff81a1287e"),),
)

CIFAR100_BINARY = Layout(
    format="cifar100-binary",
    folders=("cifar-100-binary",),
    archive="cifar-100-binary.tar.gz",
    train=(
        _cifar_binary(
            "train.bin",
            50_000,
            "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            labels=2,
        ),
    ),
    test=(
        _cifar_binary(
            "test.bin",
            10_000,
            "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
            labels=2,
        ),
    ),
)

CIFAR100_PYTHON = Layout(
    format="cifar100-python",
    folders=("cifar-100-python",),
    archive="cifar-100-python.tar.gz",
    train=(_pickle("train", 50_000, "16019d7e3df5f24257cddd939b257f8d"),),
    test=(_pickle("test", 10_000, "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
)

FASHION_IDX = Layout(
    format="idx",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    suffixes=("", ".gz"),
    train=_idx(
        "train",
        60_000,
        pixels="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        labels="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test=_idx(
        "t10k",
        10_000,
        pixels="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        labels="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

MNIST_IDX = Layout(
    format="idx",
    folders=("mnist", "MNIST/raw"),
    suffixes=("", ".gz"),
    train=_idx(
        "train",
        60_000,
        pixels="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        labels="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test=_idx(
        "t10k",
        10_000,
        pixels="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        labels="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

_SVHN_TRAIN = "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
_SVHN_TEST = "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
SVHN_MAT = Layout(
    format="svhn",
    folders=("svhn", "SVHN"),
    train=(OfficialFile("train_32x32.mat", 73_257, 182_040_794, _SVHN_TRAIN, exact=False),),
    test=(OfficialFile("test_32x32.mat", 26_032, 64_275_384, _SVHN_TEST, exact=False),),
)

_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_SVHN_URL = "http://ufldl.stanford.edu/housenumbers/"


def _download(base: str, path: str, size: int, checksum: str) -> Download:
    return Download(base + path.rpartition("/")[2], path, size, checksum)


CIFAR10_DOWNLOADS = (
    _download(
        _TORONTO,
        "cifar-10-binary.tar.gz",
        170_052_171,
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
)
CIFAR100_DOWNLOADS = (
    _download(
        _TORONTO,
        "cifar-100-binary.tar.gz",
        168_513_733,
        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
)
FASHION_MNIST_DOWNLOADS = (
    _download(
        _FASHION_URL,
        "fashion_mnist/train-images-idx3-ubyte.gz",
        26_421_880,
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    _download(
        _FASHION_URL,
        "fashion_mnist/train-labels-idx1-ubyte.gz",
        29_515,
        "md5:25c81989df183df01b3e8a0aad5dffbe",
    ),
    _download(
        _FASHION_URL,
        "fashion_mnist/t10k-images-idx3-ubyte.gz",
        4_422_102,
        "md5:bef4ecab320f06d8554ea6380940ec79",
    ),
    _download(
        _FASHION_URL,
        "fashion_mnist/t10k-labels-idx1-ubyte.gz",
        5_148,
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
MNIST_DOWNLOADS = (
    _download(
        _MNIST_URL,
        "mnist/train-images-idx3-ubyte.gz",
        9_912_422,
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    _download(
        _MNIST_URL,
        "mnist/train-labels-idx1-ubyte.gz",
        28_881,
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    _download(
        _MNIST_URL,
        "mnist/t10k-images-idx3-ubyte.gz",
        1_648_877,
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    _download(
        _MNIST_URL,
        "mnist/t10k-labels-idx1-ubyte.gz",
        4_542,
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
SVHN_DOWNLOADS = (
    _download(_SVHN_URL, "svhn/train_32x32.mat", 182_040_794, _SVHN_TRAIN),
    _download(_SVHN_URL, "svhn/test_32x32.mat", 64_275_384, _SVHN_TEST),
)
