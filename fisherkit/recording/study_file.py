"""The file of a study: all arms with their labels, for xarray, netCDF, ncdump and every HDF5 viewer.

Dimensions arm, seed, time, layer, each with its scale; `epoch` [arm, seed, time] says when a row was recorded.
Equal studies give equal bytes; a sha256 over everything is an attribute.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fisherkit.errors import UnreadableFile
from fisherkit.recording import hdf5, isolated, layout
from fisherkit.recording.extracted import Extracted, TextBudget
from fisherkit.recording.hdf5 import ForeignFile
from fisherkit.recording.study import StudyRecord
from fisherkit.recording.study_arrays import (
    AXES,
    NUMBERS,
    TEXTS,
    StudyArrays,
    axes_of,
    described,
    from_arrays,
    to_arrays,
)

_COORDINATES = "epoch step value group control"
_OWN = ("protocol", "axis", "options", "content")
_MOST_DATASETS, _MOST_LABELS, _MOST_CELLS = 2_000, 100_000, 20_000


def study_to_bytes(study: StudyRecord) -> bytes:
    """The study file, an image made in memory."""
    arrays = to_arrays(study)
    attributes = {**study.attributes, **{name: getattr(study, name) for name in ("protocol", "axis", "options")}}
    attributes["content"] = layout.STUDY_CONTENT
    with hdf5.new_image() as file:
        _write_scales(file, arrays)
        for name, texts in sorted(arrays.texts.items()):
            dataset = hdf5.write_text(file, name, texts)
            hdf5.write_attributes(dataset, described(name))
            hdf5.attach_scales(file, dataset, axes_of(name, texts.ndim))
        for name, array in sorted(arrays.numbers.items()):
            _write_array(file, name, array)
        file.attrs["Conventions"] = layout.CONVENTIONS
        hdf5.write_attributes(file, layout.encode_attributes(layout.normalise_attributes(attributes)))
        file.attrs["sha256"] = _digest(arrays, attributes)
        return hdf5.image_bytes(file)


def _write_scales(file: h5py.File, arrays: StudyArrays) -> None:
    arms = hdf5.write_text(file, "arm", arrays.arm)
    arms.attrs["long_name"] = "label of the arm"
    arms.make_scale("arm")
    seeds = file.create_dataset("seed", data=np.asarray(arrays.seed, "<i8"), track_times=False)
    seeds.attrs["long_name"] = "seed of the run"
    seeds.make_scale("seed")
    hdf5.write_dimension(file, "time", arrays.rows, unlimited=not arrays.rows)
    layers = hdf5.write_text(file, "layer", arrays.layer)
    layers.attrs["long_name"] = layout.describe("layer")["long_name"]
    layers.make_scale("layer")


def _write_array(file: h5py.File, name: str, array: np.ndarray) -> None:
    axes = axes_of(name, array.ndim)
    chunks = tuple(max(length, 1) for length in array.shape)
    attributes = described(name)
    if "time" in axes:
        chunks = (1, 1, min(chunks[2], hdf5.ROWS_PER_CHUNK), *chunks[3:])  # of one run, as they are read
        if name not in ("epoch", "step"):
            attributes["coordinates"] = _COORDINATES
    empty = [axis for axis, length in zip(axes, array.shape, strict=True) if not length]
    hdf5.write_numbers(file, name, array, axes, chunks=chunks, unlimited=empty, attributes=attributes)


def _digest(arrays: StudyArrays, attributes: Mapping[str, Any]) -> str:
    """Sha256 (hex) over labels, texts and attributes as sorted JSON, and the numbers by name, type, shape and bytes."""
    texts = {name: [list(array.shape), array.ravel().tolist()] for name, array in arrays.texts.items()}
    labels = [list(arrays.arm), list(arrays.seed), list(arrays.layer)]
    total = hashlib.sha256(json.dumps([labels, texts, dict(attributes)], sort_keys=True).encode())
    for name, array in sorted(arrays.numbers.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def read_study(path: str | Path) -> StudyRecord:
    """The study in a study file (`study.h5`).

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is not a study file, is damaged, or needs a newer fisherkit; says which.
    """
    path = Path(path)
    data = ForeignFile(path, "study file").read_bytes("study.h5")
    return _study(isolated.extract("study", data, path), path)


def study_from_bytes(data: bytes, path: str | Path = "<memory>") -> StudyRecord:
    """The study in the bytes of a study file, read in this process; `path` is what errors call it.

    For bytes that come from fisherkit, as with `fisherkit.recording.from_bytes`.

    Raises:
        UnreadableFile: As `read_study`.
    """
    return _study(extract(data, path), path)


def extract(data: bytes, path: str | Path) -> Extracted:
    """What a study file holds, its structure checked before.

    Raises:
        UnreadableFile: As `read_study`.
    """
    foreign = ForeignFile(path, "study file")
    with foreign.opened(data) as file:
        foreign.check_schema(file, layout.STUDY_SCHEMA_VERSION)
        if hdf5.attribute(file, "content") != layout.STUDY_CONTENT:
            raise foreign.foreign("it holds no study. A single run is read with fisherkit.read")
        foreign.check_claim(_Structure(file, foreign).check(), data)
        budget = TextBudget()
        texts = {name: foreign.read_array(file, name, budget.texts) for name in ("arm", "layer", *TEXTS)}
        numbers = {name: foreign.read_array(file, name, lambda d: d[()]) for name in file if name not in texts}
        return Extracted(numbers, texts, budget.attributes(file))


def holds_study(path: str | Path) -> bool:
    """Whether a file says that it is that of a study, else it should be that of a run.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is not HDF5, or is damaged.
    """
    data = ForeignFile(path, "run file").read_bytes("run.h5")
    return isolated.extract("content", data, path).attributes["content"] == layout.STUDY_CONTENT


def extract_content(data: bytes, path: str | Path) -> Extracted:
    """What the file says it holds; nothing for a run."""
    with ForeignFile(path, "run file").opened(data) as file:
        return Extracted({}, {}, {"content": hdf5.attribute(file, "content") or ""})


class _Structure:
    """Whether a file consists of nothing but the plain arrays of a study; reads no data."""

    def __init__(self, file: h5py.File, foreign: ForeignFile) -> None:
        self.file, self.foreign = file, foreign

    def check(self) -> int:
        """The bytes that all arrays claim to hold.

        Raises:
            UnreadableFile: Naming the dataset and what it has that a study file has not.
        """
        names = list(self.file) if len(self.file) <= _MOST_DATASETS else []
        missing = [name for name in (*AXES, *TEXTS, *NUMBERS, "epoch", "step") if name not in names]
        if missing:
            raise self.foreign.foreign(f"it holds no {missing[0]}" if names else "it holds too many objects")
        datasets = {name: self._dataset(name) for name in names}
        sizes = {axis: datasets[axis].shape for axis in AXES}
        if any(len(size) != 1 or size[0] > _MOST_LABELS for size in sizes.values()):
            raise self.foreign.foreign("its labels are not one axis each")
        lengths = {axis: size[0] for axis, size in sizes.items()}
        if lengths["arm"] * lengths["seed"] > _MOST_CELLS:
            raise self.foreign.foreign("it has too many runs")
        return sum(self._claim(name, dataset, lengths) for name, dataset in datasets.items())

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in layout.RESERVED_NAMES:
            self.foreign.require(hdf5.is_name(name), name, "a name that no study has")
        return self.foreign.dataset(self.file, name)

    def _claim(self, name: str, dataset: h5py.Dataset, lengths: Mapping[str, int]) -> int:
        axes = (name,) if name in AXES else axes_of(name, dataset.ndim)
        self.foreign.require(dataset.shape == tuple(lengths[a] for a in axes), name, f"the shape {dataset.shape}")
        if name in TEXTS or name in ("arm", "layer"):
            self.foreign.require(hdf5.is_text(dataset), name, "labels that are not text")
            return 0
        special = {"time": "<f4", "seed": "<i8"} | {key: dtype for key, (_, dtype, _) in NUMBERS.items()}
        claim = self.foreign.check_numbers(dataset, name, np.dtype(special.get(name, "<f8")))
        return 0 if name == "time" else claim


def _study(found: Extracted, path: str | Path) -> StudyRecord:
    """The study of these values, if their checksum is right."""
    with ForeignFile(path, "study file").guarded():
        texts = {name: array for name, array in found.texts.items() if name in TEXTS}
        numbers = {name: array for name, array in found.numbers.items() if name not in AXES}
        arms, layers = (tuple(found.texts[axis].tolist()) for axis in ("arm", "layer"))
        arrays = StudyArrays(arms, tuple(found.numbers["seed"].tolist()), layers, texts, numbers)
        attributes = layout.decode_attributes(found.attributes)
        if _digest(arrays, attributes) != found.attributes.get("sha256"):
            raise UnreadableFile(path, "is damaged: its checksum does not fit its contents. Use a copy, if any.")
        return StudyRecord(
            protocol=attributes["protocol"],
            axis=attributes["axis"],
            arms=from_arrays(arrays),
            options=attributes["options"],
            attributes={name: value for name, value in attributes.items() if name not in _OWN},
        )
