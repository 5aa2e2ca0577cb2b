"""What a study recorded: its arms, and of each run whether it is there, how it ended and its rows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

import fisherkit
from fisherkit.recording import layout
from fisherkit.recording.trajectory import Trajectory

RunState = Literal["finished", "exploded", "failed", "unfinished", "missing"]
STATES = get_args(RunState)
RECORDED = ("finished", "exploded")  # states of runs whose rows are part of the study


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run of a study.

    `state`: "finished"; "exploded" (its loss became infinite: done, its rows end there); "failed" (`message` says
    why); "unfinished" (it stopped on the way); "missing" (it was never started). Only finished and exploded runs have
    a trajectory, without its eigenvalues and its schedule of every epoch, which the run file has. `final` are numbers
    that stand for the end of the run, by name. `specification` is that of the run, JSON-able.
    """

    identity: str
    specification: Mapping[str, Any]
    state: RunState
    message: str = ""
    trajectory: Trajectory | None = None
    final: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}; got {self.state!r}.")
        if (self.trajectory is not None) != (self.state in RECORDED):
            has = "none" if self.trajectory is None else "one"
            raise ValueError(f"trajectory must be given for finished and exploded runs; {self.state}, got {has}.")
        if not self.identity:
            raise ValueError("identity must be that of the run; got ''.")
        for name in self.final:
            layout.check_name(f"final_{name}", "series")
        object.__setattr__(self, "final", {name: float(value) for name, value in self.final.items()})
        object.__setattr__(self, "message", layout.plain_text(self.message))
        object.__setattr__(self, "specification", json.loads(json.dumps(dict(self.specification), sort_keys=True)))
        if self.trajectory is not None:
            object.__setattr__(self, "trajectory", condensed(self.trajectory))


@dataclass(frozen=True, eq=False)
class ArmRecord:
    """One point of a study's figure and its runs by seed; `value` is its place on the axis, NaN if it has none."""

    label: str
    group: str
    value: float
    control: bool
    runs: Mapping[int, RunRecord]

    def with_state(self, *states: RunState) -> tuple[RunRecord, ...]:
        """The runs in these states, by seed."""
        return tuple(run for _, run in sorted(self.runs.items()) if run.state in states)

    def finals(self, name: str) -> tuple[float, ...]:
        """That number of the finished runs, where it is known, by seed."""
        values = (run.final.get(name, np.nan) for run in self.with_state("finished"))
        return tuple(value for value in values if np.isfinite(value))


@dataclass(frozen=True, eq=False, repr=False)
class StudyRecord:
    """All arms of a study, with what was asked for (`options`, JSON-able) and further attributes."""

    protocol: str
    axis: str
    arms: tuple[ArmRecord, ...]
    options: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        layout.check_labels(labels, kind="arms")
        for arm in self.arms:
            layout.check_labels([arm.group], kind="group")
        versions = {"schema_version": layout.STUDY_SCHEMA_VERSION, "fisherkit_version": fisherkit.__version__}
        attributes = layout.normalise_attributes({**versions, **self.attributes, "options": dict(self.options)})
        object.__setattr__(self, "options", attributes.pop("options"))
        object.__setattr__(self, "attributes", attributes)

    def __repr__(self) -> str:
        return f"StudyRecord({self.protocol}: {len(self.arms)} arms, seeds {', '.join(map(str, self.seeds))})"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all arms, ascending."""
        return tuple(sorted({seed for arm in self.arms for seed in arm.runs}))

    @property
    def controls(self) -> tuple[ArmRecord, ...]:
        """The arms that others are compared with."""
        return tuple(arm for arm in self.arms if arm.control)

    def control_of(self, arm: ArmRecord) -> ArmRecord | None:
        """What an arm is compared with; None for the control itself, and where there is none.

        Of several controls the one whose group ends as the arm's does after a comma ("control, lr reset" for
        "blur, lr reset"); else the first without such an ending, else the first.
        """
        endings = [(control.group.partition(", ")[2], control) for control in self.controls]
        same = [(len(end), -k) for k, (end, _) in enumerate(endings) if end and arm.group.endswith(f", {end}")]
        plain = [k for k, (end, _) in enumerate(endings) if not end]
        places = [-max(same)[1]] if same else [*plain, *range(len(endings))][:1]
        found = endings[places[0]][1] if places else None
        return None if found is None or found.label == arm.label else found

    def losses(self, arm: ArmRecord, name: str = "test_accuracy") -> tuple[float, ...]:
        """That final number of the control less the arm's, for each seed of which both have finished."""
        control = self.control_of(arm)
        pairs = (
            [] if control is None else [(control.runs[s], arm.runs[s]) for s in sorted(arm.runs) if s in control.runs]
        )
        values = (a.final.get(name, np.nan) - b.final.get(name, np.nan) for a, b in pairs)
        return tuple(value for value in values if np.isfinite(value))

    def arm(self, label: str) -> ArmRecord:
        """The arm of that label; a ValueError lists them."""
        found = [arm for arm in self.arms if arm.label == label]
        if not found:
            raise ValueError(f"label must be one of {', '.join(arm.label for arm in self.arms)}; got {label!r}.")
        return found[0]

    def differences(self, other: "StudyRecord") -> list[str]:
        """What differs, one sentence each; numbers are compared bit by bit, NaN equals NaN."""
        found = [
            f"{name}: {getattr(self, name)!r} and {getattr(other, name)!r}"
            for name in ("protocol", "axis", "options", "attributes")
            if getattr(self, name) != getattr(other, name)
        ]
        if [arm.label for arm in self.arms] != [arm.label for arm in other.arms]:
            return [*found, "arms: other labels"]
        for mine, theirs in zip(self.arms, other.arms, strict=True):
            found += [f"{mine.label}: {line}" for line in _arm_differences(mine, theirs)]
        return found


def condensed(trajectory: Trajectory) -> Trajectory:
    """Without what only the run file keeps: eigenvalues, the schedule of every epoch, arrays that hold nothing."""
    dropped = {*layout.eigenvalue_names(trajectory.variables)}
    attributes = {name: value for name, value in trajectory.attributes.items() if name != "schedule"}
    return replace(
        trajectory,
        variables={name: a for name, a in trajectory.variables.items() if name not in dropped and _holds_something(a)},
        series={n: a for n, a in trajectory.series.items() if n in layout.REQUIRED_SERIES or _holds_something(a)},
        attributes=attributes,
    )


def _holds_something(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).any())


def _arm_differences(mine: ArmRecord, theirs: ArmRecord) -> list[str]:
    found = []
    for name in ("group", "value", "control"):
        a, b = getattr(mine, name), getattr(theirs, name)
        if a != b and not (name == "value" and np.isnan(a) and np.isnan(b)):
            found.append(f"{name}: {a!r} and {b!r}")
    if sorted(mine.runs) != sorted(theirs.runs):
        return [*found, f"seeds: {sorted(mine.runs)} and {sorted(theirs.runs)}"]
    for seed, run in sorted(mine.runs.items()):
        found += [f"seed {seed}: {line}" for line in _run_differences(run, theirs.runs[seed])]
    return found


def _run_differences(mine: RunRecord, theirs: RunRecord) -> list[str]:
    names = ("identity", "state", "message", "specification")
    found = [
        f"{name}: {getattr(mine, name)!r} and {getattr(theirs, name)!r}"
        for name in names
        if getattr(mine, name) != getattr(theirs, name)
    ]
    for name in sorted({*mine.final, *theirs.final}):
        a, b = mine.final.get(name, np.nan), theirs.final.get(name, np.nan)
        if a != b and not (np.isnan(a) and np.isnan(b)):
            found.append(f"final_{name}: {a!r} and {b!r}")
    if mine.trajectory is not None and theirs.trajectory is not None:
        found += mine.trajectory.differences(theirs.trajectory, ignore=())
    return found
