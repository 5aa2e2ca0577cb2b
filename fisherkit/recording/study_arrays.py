"""A study as labelled arrays, and back: the axes are arm, seed, time (the rows of a run) and layer.

A run with fewer rows than the longest is filled up with NaN, as is a run that is not there: whole numbers and flags of
runs are float64 here. Models with other layers have NaN in those they lack; `layer_index` [arm, layer] is a layer's
place in the arm's model, -1 where it has none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fisherkit.recording import layout
from fisherkit.recording.study import ArmRecord, RunRecord, StudyRecord
from fisherkit.recording.trajectory import Trajectory

AXES = ("arm", "seed", "time", "layer")
TEXTS = {
    "group": (("arm",), "curve of the figure that the arm lies on"),
    "identity": (("arm", "seed"), "name of the run's folder; empty where the arm has no run with that seed"),
    "state": (("arm", "seed"), "finished, exploded, failed, unfinished or missing"),
    "message": (("arm", "seed"), "why the run is not finished"),
    "specification": (("arm", "seed"), "options of the run, JSON"),
    "run_attributes": (("arm", "seed"), "attributes of the run file without its schedule, JSON"),
}
NUMBERS = {
    "value": (("arm",), "<f8", "place of the arm on the axis of the study"),
    "control": (("arm",), "u1", "whether the other arms are compared with this one"),
    "rows": (("arm", "seed"), "<i8", "rows that the run recorded"),
    "layer_index": (("arm", "layer"), "<i8", "place of the layer in the arm's model; -1: it has no such layer"),
    "parameters": (("arm", "layer"), "<i8", "number of parameters of the layer; -1: the model has no such layer"),
}
_FINAL = "final_"
_TIME = {3: ("arm", "seed", "time"), 4: AXES}
_TAKEN = frozenset({*AXES, *TEXTS, *NUMBERS} - layout.RESERVED_NAMES)


@dataclass(frozen=True, eq=False)
class StudyArrays:
    """The arrays by name: labels of the axes, texts (arrays of str) and numbers."""

    arm: tuple[str, ...]
    seed: tuple[int, ...]
    layer: tuple[str, ...]
    texts: Mapping[str, np.ndarray]
    numbers: Mapping[str, np.ndarray]

    @property
    def rows(self) -> int:
        """The length of the axis of time."""
        return int(self.numbers["epoch"].shape[2])


def axes_of(name: str, ndim: int) -> tuple[str, ...]:
    """The axes of an array."""
    if name in TEXTS:
        return TEXTS[name][0]
    if name in NUMBERS:
        return NUMBERS[name][0]
    return ("arm", "seed") if name.startswith(_FINAL) else _TIME.get(ndim, ())


def described(name: str) -> dict[str, Any]:
    """The CF attributes of an array."""
    if name in TEXTS:
        return {"long_name": TEXTS[name][1]}
    if name == "control":
        return {**layout.describe("control_active"), "long_name": NUMBERS[name][2], "flag_meanings": "no yes"}
    if name in NUMBERS:
        return {"long_name": NUMBERS[name][2]}
    if name.startswith(_FINAL):
        attributes = layout.describe(name.removeprefix(_FINAL))
        return {**attributes, "long_name": f"{attributes['long_name']}, at the end of the run"}
    attributes = layout.describe(name)
    if "flag_values" in attributes:
        attributes["flag_values"] = attributes["flag_values"].astype(np.float64)
    return attributes


def to_arrays(study: StudyRecord) -> StudyArrays:
    """The arrays of a study.

    Raises:
        ValueError: Two runs of an arm have different layers, or an array of a run is called like one of a study.
    """
    models = [_model(arm) for arm in study.arms]
    layers = tuple(dict.fromkeys(name for model in models for name in model))
    shape = {"arm": len(study.arms), "seed": len(study.seeds), "time": _longest(study), "layer": len(layers)}
    texts = {name: np.full([shape[axis] for axis in axes], "", dtype=object) for name, (axes, _) in TEXTS.items()}
    numbers: dict[str, np.ndarray] = {"epoch": _empty(_TIME[3], shape), "step": _empty(_TIME[3], shape)}
    for name, (axes, dtype, _) in NUMBERS.items():
        numbers[name] = np.zeros([shape[axis] for axis in axes], dtype)
    for name in ("layer_index", "parameters"):
        numbers[name][:] = -1
    for a, (arm, model) in enumerate(zip(study.arms, models, strict=True)):
        texts["group"][a], numbers["value"][a], numbers["control"][a] = arm.group, arm.value, arm.control
        for place, (layer, parameters) in enumerate(model.items()):
            column = layers.index(layer)
            numbers["layer_index"][a, column], numbers["parameters"][a, column] = place, parameters
        for seed, run in arm.runs.items():
            cell = (a, study.seeds.index(seed))
            _put_run(run, cell, texts, numbers)
            _put_rows(run.trajectory, cell, numbers, [layers.index(layer) for layer in model], shape)
    return StudyArrays(tuple(arm.label for arm in study.arms), study.seeds, layers, texts, numbers)


def _model(arm: ArmRecord) -> dict[str, int]:
    """Layers and parameter counts of an arm; its runs differ in the seed alone."""
    models = [
        dict(zip(run.trajectory.layers, run.trajectory.parameters.tolist(), strict=True))
        for run in arm.runs.values()
        if run.trajectory is not None
    ]
    if any(list(model.items()) != list(models[0].items()) for model in models):
        raise ValueError(f"runs of an arm must have the same layers; those of {arm.label!r} have not.")
    return models[0] if models else {}


def _longest(study: StudyRecord) -> int:
    runs = (run.trajectory for arm in study.arms for run in arm.runs.values())
    return max((len(trajectory) for trajectory in runs if trajectory is not None), default=0)


def _empty(axes: Sequence[str], shape: Mapping[str, int]) -> np.ndarray:
    return np.full([shape[axis] for axis in axes], np.nan)


def _put_run(
    run: RunRecord, cell: tuple[int, int], texts: Mapping[str, np.ndarray], numbers: dict[str, np.ndarray]
) -> None:
    texts["identity"][cell], texts["state"][cell], texts["message"][cell] = run.identity, run.state, run.message
    texts["specification"][cell] = json.dumps(run.specification, sort_keys=True)
    for name, value in run.final.items():
        numbers.setdefault(f"{_FINAL}{name}", np.full_like(numbers["rows"], np.nan, dtype=np.float64))[cell] = value
    if run.trajectory is not None:
        texts["run_attributes"][cell] = json.dumps(dict(run.trajectory.attributes), sort_keys=True)
        numbers["rows"][cell] = len(run.trajectory)


def _put_rows(
    trajectory: Trajectory | None,
    cell: tuple[int, int],
    numbers: dict[str, np.ndarray],
    columns: Sequence[int],
    shape: Mapping[str, int],
) -> None:
    if trajectory is None:
        return
    rows = slice(0, len(trajectory))
    for name, array in {**trajectory.series, **trajectory.variables}.items():
        if name in _TAKEN or name.startswith(_FINAL):
            raise ValueError(f"series of a run must not be called like an array of the study; got {name!r}.")
        axes = _TIME[array.ndim + 2]
        target = numbers.setdefault(name, _empty(axes, shape))
        if target.ndim != len(axes):
            raise ValueError(f"{name} must be per layer in all runs or in none; it is in some.")
        if array.ndim == 1:
            target[*cell, rows] = array
        else:
            target[*cell, rows][:, columns] = array  # [rows, layers of the arm]


def from_arrays(arrays: StudyArrays) -> tuple[ArmRecord, ...]:
    """The arms; the inverse of `to_arrays`."""
    return tuple(_arm(arrays, a) for a in range(len(arrays.arm)))


def _arm(arrays: StudyArrays, a: int) -> ArmRecord:
    places = arrays.numbers["layer_index"][a]
    columns = [int(column) for column in np.argsort(places, kind="stable") if places[column] >= 0]
    runs = {seed: _run(arrays, (a, s), columns) for s, seed in enumerate(arrays.seed) if arrays.texts["identity"][a, s]}
    return ArmRecord(
        label=arrays.arm[a],
        group=arrays.texts["group"][a],
        value=float(arrays.numbers["value"][a]),
        control=bool(arrays.numbers["control"][a]),
        runs=runs,
    )


def _run(arrays: StudyArrays, cell: tuple[int, int], columns: Sequence[int]) -> RunRecord:
    texts = {name: arrays.texts[name][cell] for name in TEXTS if name != "group"}
    finals = {name: float(array[cell]) for name, array in arrays.numbers.items() if name.startswith(_FINAL)}
    return RunRecord(
        identity=texts["identity"],
        specification=json.loads(texts["specification"]),
        state=texts["state"],
        message=texts["message"],
        trajectory=_trajectory(arrays, cell, columns) if texts["run_attributes"] else None,
        final={name.removeprefix(_FINAL): value for name, value in finals.items() if np.isfinite(value)},
    )


def _trajectory(arrays: StudyArrays, cell: tuple[int, int], columns: Sequence[int]) -> Trajectory:
    rows = slice(0, int(arrays.numbers["rows"][cell]))
    found = {name: array[*cell, rows] for name, array in arrays.numbers.items() if array.ndim > 2}
    variables = {name: array[:, columns] for name, array in found.items() if array.ndim == 2}
    series = {name: array for name, array in found.items() if array.ndim == 1}
    return Trajectory(
        layers=tuple(arrays.layer[column] for column in columns),
        parameters=arrays.numbers["parameters"][cell[0]][columns],
        variables={name: array for name, array in variables.items() if np.isfinite(array).any()},
        series={n: a for n, a in series.items() if n in layout.REQUIRED_SERIES or np.isfinite(a).any()},
        attributes=json.loads(arrays.texts["run_attributes"][cell]),
    )
