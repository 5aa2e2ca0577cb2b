"""What `analyze` prints of runs: a table of layers, concentration, confound, ratio to the control."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .failure import printable

if TYPE_CHECKING:
    from fisherkit.analysis import Interval, Phases
    from fisherkit.analysis.layers import LayerAnalysis, LayerRow

_LAYER = 32
_HEAD = ("layer", "verdict", "peak epoch", "memorizes", "forgets", "half rise", "half decay", "forgotten")


def layers_text(found: "LayerAnalysis") -> str:
    """The analysis of an arm as lines of text."""
    blocks = [_head(found), table(_rows(found)), _concentration(found), _confounds(found), _ratio(found)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns aligned; texts are made printable first."""
    plain = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in plain)
    return [line.rstrip() for line in lines]


def number(found: "Interval", digits: int = 3) -> str:
    """A mean with its interval: "10.3 [8.1, 12.5]"; "-" where there is none."""
    if not np.isfinite(found.value):
        return "-"
    bounds = f" [{found.low:.{digits}g}, {found.high:.{digits}g}]" if np.isfinite(found.low) else ""
    return f"{found.value:.{digits}g}{bounds}"


def _head(found: "LayerAnalysis") -> list[str]:
    runs = len(found.arm.trajectories)
    shown = runs > 1 and f"; {runs} runs that differ in their seed: means over seeds [95 % interval]"
    lines = [f"{found.arm.label}: {found.variable}{shown or ''}"]
    if found.undertrained:
        lines.append("undertrained: final train accuracy below 95 %; what a network does not fit it cannot forget")
    return lines


def _rows(found: "LayerAnalysis") -> list[tuple[str, ...]]:
    compared = [row.final_ratio for row in found.rows]
    rows = [(*_HEAD, *(["x control, end"] if any(compared) else []))]
    for row, ratio in zip(found.rows, compared, strict=True):
        cells = _single(row) if len(row.runs) == 1 else _several(row)
        more = [number(ratio) if ratio else "-"] if any(compared) else []
        rows.append((_layer(row.layer), *cells, *more))
    return rows


def _single(row: "LayerRow") -> list[str]:
    run = row.runs[0]
    times = (run.rise_half_time, run.decay_half_time)
    forgotten = f"{run.forgotten:.2f} ±{run.forgotten_stderr:.2f}" if np.isfinite(run.forgotten) else "-"
    spans = (_span(*run.memorization), _span(*run.forgetting))
    return [run.verdict, _plain(run.peak_epoch), *spans, *map(_plain, times), forgotten]


def _several(row: "LayerRow") -> list[str]:
    found = row.phases
    forgets = _span(found.forgetting_start.value, found.forgetting_end.value)
    until = f"to {_plain(found.memorization_end.value)}" if found.memorization_end.n else "-"
    times = (found.rise_half_time, found.decay_half_time)
    return [found.verdict, number(found.peak_epoch), until, forgets, *map(number, times), number(found.forgotten)]


def _layer(name: str) -> str:
    return name if len(name) <= _LAYER else f"...{name[3 - _LAYER :]}"


def _plain(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "-"


def _span(start: float, stop: float) -> str:
    return f"{start:.3g} to {stop:.3g}" if np.isfinite(start) and np.isfinite(stop) else "-"


def _concentration(found: "LayerAnalysis") -> list[str]:
    """Where the trace lies at three times."""
    if not found.concentration:
        return []
    head = ("over depth", "epoch", "entropy, nats", "of log L", "centre (0 first, 1 last)", "last quarter")
    rows = [(place, *map(number, values.values())) for place, values in found.concentration.items()]
    return table([head, *rows])


def _confounds(found: "LayerAnalysis") -> list[str]:
    from fisherkit.analysis.intervals import known_interval

    if not found.confounds:
        return []
    lines = [
        f"confidence   {_counted([each.verdict for each in found.confounds])}",
        f"entropy      {_counted([_shape(each.entropy) for each in found.confounds])}",
        f"weight norm  {_counted([_shape(each.weight_norm) for each in found.confounds])}",
    ]
    falls = {
        "trace": known_interval([each.fisher_fall for each in found.confounds]),
        "entropy": known_interval([each.entropy_fall for each in found.confounds]),
        "trace x squared weight norm": known_interval([each.scale_invariant_fall for each in found.confounds]),
    }
    if falls["trace"].n:
        told = ", ".join(f"{name} {number(each)}" for name, each in falls.items())
        lines += ["log falls from the peak of the trace to the end:", f"  {told}"]
    return lines


def _counted(texts: Sequence[str]) -> str:
    from fisherkit.analysis.arm_phases import agreed

    return agreed({each: texts.count(each) for each in texts})


def _shape(found: "Phases | None") -> str:
    if found is None:
        return "not recorded"
    return found.shape + (f", peak in epoch {found.peak_epoch:.3g}" if np.isfinite(found.peak_epoch) else "")


def _ratio(found: "LayerAnalysis") -> list[str]:
    """The total against the control's, at five epochs."""
    from fisherkit.analysis import Interval

    whole = found.rows[0].ratio
    if found.control is None:
        return []
    if whole is None or not len(whole.epoch):
        return [f"control: no seed in common with {found.control.label}, or no epoch"]
    rows = [("epoch", f"x control ({found.control.label}), all layers, {_seeds(whole.n)}")]
    for k in sorted({round(place) for place in np.linspace(0, len(whole.epoch) - 1, 5)}):
        at = Interval(float(whole.ratio[k]), float(whole.low[k]), float(whole.high[k]), whole.n)
        rows.append((f"{whole.epoch[k]:g}", number(at)))
    return table(rows)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"
