"""CIFAR-10 and CIFAR-100: the binary records, and the pickles of the Python version."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from .contents import Content
from .pickles import PickledArray, load_data

_PIXELS = 3 * 32 * 32
Decoded = tuple[UInt8[np.ndarray, "images 3 32 32"], Int64[np.ndarray, "images"]]


def decode_binary(contents: Sequence[Content], *, label_bytes: int, classes: int) -> Decoded:
    """Records of label bytes (the last one is the label; CIFAR-100 has the coarse one first) and pixels."""
    records = [np.frombuffer(c.data, np.uint8).reshape(-1, label_bytes + _PIXELS) for c in contents]
    labels = [rows[:, label_bytes - 1].astype(np.int64) for rows in records]
    for content, these in zip(contents, labels, strict=True):
        check_labels(content, these, classes)
    pixels = np.concatenate([rows[:, label_bytes:] for rows in records])
    return pixels.reshape(-1, 3, 32, 32), np.concatenate(labels)


def decode_python(contents: Sequence[Content], *, label_key: str, classes: int) -> Decoded:
    """Pickled dictionaries with `data` [images, 3072] and a list of labels."""
    parts = [_decode_pickle(content, label_key, classes) for content in contents]
    pixels = np.concatenate([pixels for pixels, _ in parts])
    return pixels.reshape(-1, 3, 32, 32), np.concatenate([labels for _, labels in parts])


def check_labels(content: Content, labels: Int64[np.ndarray, "images"], classes: int) -> None:
    """Raise if a label is not one of the classes."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise content.unreadable(
            f"labels must be from 0 to {classes - 1}; that of image {wrong[0]} is {labels[wrong[0]]}. "
            "The file is damaged or of another format."
        )


def _decode_pickle(
    content: Content, label_key: str, classes: int
) -> tuple[UInt8[np.ndarray, "images pixels"], Int64[np.ndarray, "images"]]:
    images = content.file.images
    try:
        # an official file takes about 5 steps an image, one that Python 3 wrote anew up to 10
        values = load_data(content.data, steps=1_000 + 16 * images)
        pixels = _pixels(values, images)
        labels = _labels(values, label_key, images)
    except ValueError as error:
        raise content.unreadable(
            f"it is not a readable CIFAR pickle: {error}. Get the official file again, or the binary version."
        ) from error
    check_labels(content, labels, classes)
    return pixels, labels


def _pixels(values: dict[str, object], images: int) -> UInt8[np.ndarray, "images pixels"]:
    array = values.get("data")
    if not isinstance(array, PickledArray):
        raise ValueError("it has no array 'data'")
    pixels = array.as_uint8()
    if pixels.shape != (images, _PIXELS):
        raise ValueError(f"the shape of 'data' must be {(images, _PIXELS)}; it is {pixels.shape}")
    return pixels


def _labels(values: dict[str, object], key: str, images: int) -> Int64[np.ndarray, "images"]:
    labels = values.get(key)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"it has no list of integers {key!r}")
    if len(labels) != images:
        raise ValueError(f"{key!r} must have {images} labels; it has {len(labels)}")
    if any(abs(label) > 1_000_000 for label in labels):
        raise ValueError(f"{key!r} has numbers that are no labels")
    return np.array(labels, dtype=np.int64)
