"""Reading a run file that anybody may have made: its structure is checked before any of its data is read.

`read` leaves the HDF5 to a child process with limits (`fisherkit.recording.isolated`): no file can crash, hang or fill
the process that asks. `from_bytes` reads in this process bytes that are known to be fisherkit's own.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fisherkit.errors import UnreadableFile
from fisherkit.recording import hdf5, isolated, layout
from fisherkit.recording.extracted import Extracted, TextBudget
from fisherkit.recording.hdf5 import ForeignFile
from fisherkit.recording.trajectory import Trajectory

_MOST_DATASETS, _MOST_LAYERS, _MOST_ATTRIBUTES = 2_000, 100_000, 1_000


def read(path: str | Path) -> Trajectory:
    """The trajectory in a run file.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is not a run file, is damaged, or needs a newer fisherkit; says which.
    """
    path = Path(path)
    data = ForeignFile(path, "run file").read_bytes("run.h5")
    return _trajectory(isolated.extract("run", data, path), path)


def from_bytes(data: bytes, path: str | Path = "<memory>") -> Trajectory:
    """The trajectory in the bytes of a run file, read in this process; `path` is what errors call it.

    For bytes that come from fisherkit: a file made to crash the HDF5 library would crash this process.

    Raises:
        UnreadableFile: As `read`.
    """
    return _trajectory(extract(data, path), path)


def extract(data: bytes, path: str | Path) -> Extracted:
    """What a run file holds, its structure checked before.

    Raises:
        UnreadableFile: As `read`.
    """
    foreign = ForeignFile(path, "run file")
    with foreign.opened(data) as file:
        if hdf5.attribute(file, "content") == layout.STUDY_CONTENT:
            raise foreign.foreign("it holds a whole study; read it with fisherkit.read_study")
        foreign.check_schema(file, layout.SCHEMA_VERSION)
        foreign.check_claim(_Structure(file, foreign).check(), data)
        budget = TextBudget()
        numbers = {name: foreign.read_array(file, name, lambda d: d[()]) for name in file if name != "layer"}
        return Extracted(numbers, {"layer": foreign.read_array(file, "layer", budget.texts)}, budget.attributes(file))


class _Structure:
    """Whether a file consists of nothing but the plain arrays of a run; reads no data."""

    def __init__(self, file: h5py.File, foreign: ForeignFile) -> None:
        self.file, self.foreign = file, foreign

    def check(self) -> int:
        """The bytes that all arrays claim to hold.

        Raises:
            UnreadableFile: Naming the dataset and what it has that a run file has not.
        """
        if len(self.file) > _MOST_DATASETS or len(self.file.attrs) > _MOST_ATTRIBUTES:
            raise self.foreign.foreign("it holds too many objects")
        names = list(self.file)
        for name in ("layer", "parameters", "time", *layout.REQUIRED_SERIES):
            if name not in names:
                raise self.foreign.foreign(f"it holds no {name}")
        datasets = {name: self._dataset(name) for name in names}
        rows, layers = datasets["step"].shape, datasets["layer"].shape
        if len(rows) != 1 or len(layers) != 1 or not 0 < layers[0] <= _MOST_LAYERS:
            raise self.foreign.foreign("its layers and rows are not one axis each")
        return sum(self._claim(name, dataset, rows, layers) for name, dataset in datasets.items())

    def _dataset(self, name: str) -> h5py.Dataset:
        """The array of that name, opened but not read."""
        if name not in layout.RESERVED_NAMES:
            self.foreign.require(hdf5.is_name(name), name, "a name that no run has")
        return self.foreign.dataset(self.file, name)

    def _claim(self, name: str, dataset: h5py.Dataset, rows: tuple[int, ...], layers: tuple[int, ...]) -> int:
        """Bytes of an array, once its shape and type are those of its name."""
        if name == "layer":
            self.foreign.require(hdf5.is_text(dataset), name, "names that are not text")
            return 0
        shapes = {"time": (rows,), "parameters": (layers,)}.get(name, (rows, rows + layers))
        self.foreign.require(dataset.shape in shapes, name, f"the shape {dataset.shape}")
        claim = self.foreign.check_numbers(dataset, name, _dtype(name, dataset.ndim))
        return 0 if name == "time" else claim


def _dtype(name: str, axes: int) -> np.dtype[Any]:
    if name == "time":
        return np.dtype("<f4")
    if name == "parameters":
        return np.dtype("<i8")
    return layout.series_dtype(name) if axes == 1 else np.dtype("<f8")


def _trajectory(found: Extracted, path: str | Path) -> Trajectory:
    """The trajectory of these values, if their checksum is right."""
    with ForeignFile(path, "run file").guarded():
        arrays = {name: array for name, array in found.numbers.items() if name not in ("time", "parameters")}
        layers, parameters = tuple(found.texts["layer"].tolist()), found.numbers["parameters"]
        attributes = layout.decode_attributes(found.attributes)
        if layout.digest(layers, parameters, arrays, attributes) != found.attributes.get("sha256"):
            raise UnreadableFile(path, "is damaged: its checksum does not fit its contents. Use a copy, if any.")
        return Trajectory(
            layers=layers,
            parameters=parameters,
            variables={name: array for name, array in arrays.items() if array.ndim == 2},
            series={name: array for name, array in arrays.items() if array.ndim == 1},
            attributes=attributes,
        )
