"""Everything about an arm at once: phases of each layer and of all, concentration, confound, ratio to the control."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fisherkit.analysis.arm_phases import ArmPhases, together
from fisherkit.analysis.arms import Arm
from fisherkit.analysis.comparison import Ratio, ratio_to_control, undertrained
from fisherkit.analysis.concentration import concentration
from fisherkit.analysis.confound import Confound, confound
from fisherkit.analysis.intervals import Interval, known_interval
from fisherkit.analysis.phases import Phases, phases
from fisherkit.recording import Trajectory

ALL = "all layers"
PLACES = ("start", "peak", "end")
SPREADS = ("epoch", "entropy", "normalised_entropy", "centre", "last_quarter")
_COLUMNS = (
    *("peak_epoch", "memorization_end", "forgetting_start", "forgetting_end"),
    *("rise_half_time", "decay_half_time", "forgotten"),
)


@dataclass(frozen=True, eq=False)
class LayerRow:
    """One layer, or all together: the phases of each run and over them, the ratio to the control through time."""

    layer: str
    runs: tuple[Phases, ...]
    phases: ArmPhases
    ratio: Ratio | None

    @property
    def final_ratio(self) -> Interval | None:
        """The ratio in the last row that arm and control have."""
        if self.ratio is None or not len(self.ratio.epoch):
            return None
        found = self.ratio
        return Interval(float(found.ratio[-1]), float(found.low[-1]), float(found.high[-1]), found.n)


@dataclass(frozen=True, eq=False)
class LayerAnalysis:
    """An arm, layer by layer; `concentration` by place (start, peak, end) and quantity, for Fisher information only."""

    arm: Arm
    control: Arm | None
    variable: str
    rows: tuple[LayerRow, ...]
    concentration: dict[str, dict[str, Interval]]
    confounds: tuple[Confound, ...]
    undertrained: bool


def analyse_layers(arm: Arm, control: Arm | None = None, variable: str = "fisher_true") -> LayerAnalysis:
    """Analyse a per-layer variable of the runs of an arm.

    Raises:
        ValueError: the arm has no run, its runs have different layers, or there is no such variable.
    """
    if not arm.trajectories:
        raise ValueError(f"arm must have a run with rows; got {arm.label!r} without.")
    layers = arm.trajectories[0].layers
    if any(run.layers != layers for run in arm.trajectories):
        raise ValueError(f"runs of an arm must have the same layers; those of {arm.label!r} have not.")
    for run in arm.trajectories:
        run.variable(variable)
    fisher = variable.startswith("fisher_true") or variable.startswith("fisher_empirical")
    whole = [run for run in arm.whole.values() if len(run)]
    return LayerAnalysis(
        arm=arm,
        control=control,
        variable=variable,
        rows=tuple(_row(arm, control, variable, layer) for layer in (None, *layers)),
        concentration=_concentrations(whole, variable) if fisher else {},
        confounds=tuple(confound(run, variable) for run in whole) if fisher else (),
        undertrained=undertrained(arm),
    )


def _row(arm: Arm, control: Arm | None, variable: str, layer: str | None) -> LayerRow:
    runs = tuple(phases(run, variable, layer=layer) for run in arm.trajectories)
    paired = control is not None and bool(arm.whole.keys() & control.whole.keys())
    ratio = ratio_to_control(arm, control, variable, layer=layer) if control is not None and paired else None
    return LayerRow(layer or ALL, runs, together(runs), ratio)


def _concentrations(runs: Sequence[Trajectory], variable: str) -> dict[str, dict[str, Interval]]:
    """At the first row after training began, where the total is largest, and at the end."""
    places = [found for run in runs if (found := _places(run, variable))]
    return {
        place: {name: known_interval([each[place][name] for each in places]) for name in SPREADS}
        for place in PLACES
        if places
    }


def _places(run: Trajectory, variable: str) -> dict[str, dict[str, float]]:
    found = concentration(run, variable)
    trained = np.flatnonzero(found.epoch > 0)
    rows = trained if len(trained) else np.arange(len(found.epoch))
    if not len(rows):
        return {}
    total = run.total(variable)[np.isfinite(run.variable(variable)).all(axis=1)]
    at = dict(zip(PLACES, (rows[0], rows[int(np.argmax(total[rows]))], rows[-1]), strict=True))
    return {place: {name: float(getattr(found, name)[row]) for name in SPREADS} for place, row in at.items()}


def csv_rows(analyses: Sequence[LayerAnalysis]) -> str:
    """The table: a row for each arm and layer; means over runs with intervals, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("", "_low", "_high", "_n")
    writer.writerow(
        [
            *("arm", "variable", "layer", "runs", "verdict"),
            *(f"{name}{end}" for name in _COLUMNS for end in ends),
            *("peak", "forgotten_stderr"),
            *(f"ratio_to_control{end}" for end in ends),
        ]
    )
    for analysis in analyses:
        for row in analysis.rows:
            found = [getattr(row.phases, name) for name in _COLUMNS]
            one = row.runs[0] if len(row.runs) == 1 else None
            cells = [analysis.arm.label, analysis.variable, row.layer, len(row.runs), row.phases.verdict]
            cells += [cell for each in found for cell in _cells(each)]
            cells += [_number(one.peak), _number(one.forgotten_stderr)] if one else ["", ""]
            writer.writerow([*cells, *(_cells(row.final_ratio) if row.final_ratio else [""] * 4)])
    return text.getvalue()


def _cells(found: Interval) -> list[str]:
    return [_number(found.value), _number(found.low), _number(found.high), str(found.n)]


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
