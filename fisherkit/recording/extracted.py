"""What an HDF5 file holds, as plain values, and the bytes in which one process hands them to another."""

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np

from fisherkit.recording import hdf5

_MOST_TEXT = 2**26  # letters of all texts together: one text of a file may stand in many places


@dataclass(frozen=True, eq=False)
class Extracted:
    """Arrays of numbers and of texts (str) by name, and the attributes as the file codes them."""

    numbers: dict[str, np.ndarray]
    texts: dict[str, np.ndarray]
    attributes: dict[str, str | int | float]

    def write(self, stream: BinaryIO) -> None:
        """One line of JSON, then the bytes of the numbers."""
        header = {
            "numbers": [[name, array.dtype.str, list(array.shape)] for name, array in self.numbers.items()],
            "texts": {name: [list(array.shape), array.ravel().tolist()] for name, array in self.texts.items()},
            "attributes": self.attributes,
        }
        stream.write(json.dumps(header).encode() + b"\n")
        for array in self.numbers.values():
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def receive(header: dict[str, Any], stream: BinaryIO) -> Extracted:
    """What `write` wrote; `header` is its first line.

    Raises:
        EOFError: The stream ends before.
    """
    numbers = {name: _array(stream, np.dtype(dtype), shape) for name, dtype, shape in header["numbers"]}
    texts = {name: np.array(flat, dtype=object).reshape(shape) for name, (shape, flat) in header["texts"].items()}
    return Extracted(numbers, texts, header["attributes"])


def _array(stream: BinaryIO, dtype: np.dtype[Any], shape: list[int]) -> np.ndarray:
    flat = np.empty(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, np.uint8)
    if stream.readinto(flat.data) != flat.size:  # type: ignore[attr-defined]  # of every buffered reader
        raise EOFError("the numbers are cut off")
    return flat.view(dtype).reshape(shape)


class TextBudget:
    """Reads texts one by one until all together are too long."""

    def __init__(self, most: int = _MOST_TEXT) -> None:
        self.most = self.left = most

    def texts(self, dataset: h5py.Dataset) -> np.ndarray:
        """The texts of an array, as str."""
        found = np.empty(dataset.shape, dtype=object)
        plain = dataset.asstr()
        for place in np.ndindex(*dataset.shape):
            text: str = plain[place]
            self._spend(text)
            found[place] = text
        return found

    def attributes(self, file: h5py.File) -> dict[str, str | int | float]:
        """All attributes that are scalar texts or numbers."""
        found = {}
        for name in file.attrs:
            value = hdf5.attribute(file, name)
            if value is not None:
                found[name] = value
                self._spend(str(value))
        return found

    def _spend(self, text: str) -> None:
        self.left -= len(text)
        if self.left < 0:
            raise ValueError(f"more than {self.most:,} letters of text")
