"""MNIST and Fashion-MNIST: IDX files of 28 x 28 images, padded to 32 x 32."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from .cifar import check_labels
from .contents import Content

Decoded = tuple[UInt8[np.ndarray, "images 1 32 32"], Int64[np.ndarray, "images"]]


def decode(contents: Sequence[Content], *, classes: int) -> Decoded:
    """The images file and the labels file of one split."""
    pixels, labels = contents
    images = _array(pixels, (pixels.file.images, 28, 28))
    numbers = _array(labels, (labels.file.images,)).astype(np.int64)
    check_labels(labels, numbers, classes)
    return padded(images), numbers


def padded(images: UInt8[np.ndarray, "images 28 28"]) -> UInt8[np.ndarray, "images 1 32 32"]:
    """Two rows and columns of zeros on every side."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, np.newaxis]


def _array(content: Content, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """The array, if the header (type and number of axes; sizes as big-endian int32) says this shape.

    The claimed sizes are only compared, never allocated.
    """
    header_bytes = 4 + 4 * len(shape)
    header = content.data[:header_bytes].ljust(header_bytes, b"\0")  # a file that is cut in it fits no sizes
    magic, sizes = header[:4], np.frombuffer(header[4:], ">u4").tolist()
    if magic != bytes((0, 0, 8, len(shape))):
        raise content.unreadable(
            f"the IDX header must begin 00 00 08 {len(shape):02} (unsigned bytes, {len(shape)} axes); "
            f"it begins {magic.hex(' ')}."
        )
    if tuple(sizes) != shape:
        expected, claimed = (" x ".join(map(str, sizes)) for sizes in (shape, sizes))
        raise content.unreadable(f"the IDX header must say {expected}; it says {claimed}.")
    return np.frombuffer(content.data, np.uint8, offset=header_bytes).reshape(shape)
