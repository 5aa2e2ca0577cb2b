"""The image sets by name: what each holds, how it is normalised, and which releases it is read from.

Imports neither torch nor numpy, so that a command line can list the names at once.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from . import class_names, releases
from .releases import Download, Layout


@dataclass(frozen=True)
class Source:
    """One image set; `mean` and `std` are per channel, of pixels scaled to [0, 1], for normalisation."""

    name: str
    title: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layouts: tuple[Layout, ...] = ()
    downloads: tuple[Download, ...] = ()

    @property
    def embedded(self) -> bool:
        """Whether the images are part of the package."""
        return not self.layouts


CATALOGUE = (
    Source(
        name="fashion-mini",
        title="Fashion-MNIST, 500 + 100 images of every class, in the package",
        classes=class_names.FASHION,
        train_images=5_000,
        test_images=1_000,
        # of the 5,000 training images, padded to 32 x 32 (scripts/make_fashion_mini.py prints them)
        mean=(0.2200,),
        std=(0.3331,),
    ),
    Source(
        name="cifar10",
        title="CIFAR-10 (Krizhevsky 2009)",
        classes=class_names.CIFAR10,
        train_images=50_000,
        test_images=10_000,
        # the constants of the critical-period experiments; .2023, ... is the mean over images of each image's
        # own deviation, not the deviation over all pixels (.2470, .2435, .2616)
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        layouts=(releases.CIFAR10_BINARY, releases.CIFAR10_PYTHON),
        downloads=releases.CIFAR10_DOWNLOADS,
    ),
    Source(
        name="cifar100",
        title="CIFAR-100, fine labels (Krizhevsky 2009)",
        classes=class_names.CIFAR100,
        train_images=50_000,
        test_images=10_000,
        # the widely used constants, over all pixels of the training set
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        layouts=(releases.CIFAR100_BINARY, releases.CIFAR100_PYTHON),
        downloads=releases.CIFAR100_DOWNLOADS,
    ),
    Source(
        name="fashion_mnist",
        title="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), padded to 32 x 32",
        classes=class_names.FASHION,
        train_images=60_000,
        test_images=10_000,
        # computed from the official training images, padded to 32 x 32; unpadded they are .2860 and .3530
        mean=(0.2190,),
        std=(0.3318,),
        layouts=(releases.FASHION_IDX,),
        downloads=releases.FASHION_MNIST_DOWNLOADS,
    ),
    Source(
        name="mnist",
        title="MNIST (LeCun et al. 1998), padded to 32 x 32",
        classes=class_names.DIGITS,
        train_images=60_000,
        test_images=10_000,
        # from the well-known .13066 and .30811 of the 28 x 28 images: padding scales both moments by
        # 784 / 1024
        mean=(0.1000,),
        std=(0.2752,),
        layouts=(releases.MNIST_IDX,),
        downloads=releases.MNIST_DOWNLOADS,
    ),
    Source(
        name="svhn",
        title="Street View House Numbers, cropped digits (Netzer et al. 2011)",
        classes=class_names.DIGITS,
        train_images=73_257,
        test_images=26_032,
        # the widely used constants, over all pixels of the training set
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        layouts=(releases.SVHN_MAT,),
        downloads=releases.SVHN_DOWNLOADS,
    ),
)

SOURCES: tuple[str, ...] = tuple(source.name for source in CATALOGUE)


def source_named(name: str) -> Source:
    """The image set of this name.

    Raises:
        ValueError: There is none; the message lists the names and suggests the nearest.
    """
    for source in CATALOGUE:
        if source.name == name:
            return source
    plain = {known.replace("-", "").replace("_", ""): known for known in SOURCES}
    near = get_close_matches(name.lower().replace("-", "").replace("_", ""), plain, n=1)
    suggestion = f" Did you mean {plain[near[0]]!r}?" if near else ""
    raise ValueError(f"The image set must be one of {', '.join(SOURCES)}; got {name!r}.{suggestion}")
