"""Street View House Numbers: MATLAB 5 files with X [32, 32, 3, images] and y [images, 1], digit 0 labelled 10."""

import io
import struct
import zlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from .contents import Content

Decoded = tuple[UInt8[np.ndarray, "images 3 32 32"], Int64[np.ndarray, "images"]]
_HEADER_BYTES, _TAG_BYTES = 128, 8
_COMPRESSED = 15  # miCOMPRESSED, the element type of zlib data


def decode(contents: Sequence[Content]) -> Decoded:
    """The one file of a split."""
    (content,) = contents
    images = content.file.images
    pixels, labels = _variables(content, images)
    wrong = np.flatnonzero(~np.isin(labels, range(1, 11)))
    if len(wrong):
        raise content.unreadable(
            f"labels must be whole numbers from 1 to 10; that of image {wrong[0]} is {labels[wrong[0]]:g}. "
            "The file is damaged or of another format."
        )
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10


def _variables(
    content: Content, images: int
) -> tuple[UInt8[np.ndarray, "32 32 3 images"], Shaped[np.ndarray, "images"]]:
    """X and y, after their names, shapes and types in the headers have been checked."""
    matlab: Any = import_module("scipy.io")  # scipy's stubs do not know that it takes file objects
    expected = {"X": ((32, 32, 3, images), ("uint8",)), "y": ((images, 1), ("uint8", "double"))}
    try:
        plain = _uncompressed(content.data, limit=images * (32 * 32 * 3 + 8) + 4096)
        claimed = matlab.whosmat(io.BytesIO(plain))
        for name, (shape, kinds) in expected.items():
            if [(s, k in kinds) for n, s, k in claimed if n == name] != [(shape, True)]:
                raise ValueError(f"it must have one variable {name} {shape} of type {' or '.join(kinds)}")
        values = matlab.loadmat(io.BytesIO(plain), variable_names=list(expected))
    except Exception as error:  # damaged data make scipy fail in every way
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise content.unreadable(
            f"it is not a readable SVHN file in MATLAB 5 format: {reason}. Get the official file again."
        ) from error
    return values["X"], values["y"][:, 0]


def _uncompressed(data: bytes, *, limit: int) -> bytes:
    """The same file without compression, so that scipy meets no more bytes than SVHN has."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("the header is another one")
    parts, position = [data[:_HEADER_BYTES]], _HEADER_BYTES
    while position + _TAG_BYTES <= len(data):
        kind, size = struct.unpack_from(order + "II", data, position)
        end = position + _TAG_BYTES + size
        element = data[position:end]
        if kind == _COMPRESSED:
            element = zlib.decompressobj().decompress(element[_TAG_BYTES:], limit + 1)
        parts.append(element)
        limit -= len(element)
        if limit < 0:
            raise ValueError("it unpacks to more than the official file")
        position = end
    return b"".join(parts)
