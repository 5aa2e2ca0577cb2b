"""The phases of an arm: means over its seeds, and how many of its runs did what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fisherkit.analysis.arms import Arm
from fisherkit.analysis.intervals import Interval, mean_interval
from fisherkit.analysis.phases import Phases, phases


@dataclass(frozen=True)
class ArmPhases:
    """Means over the seeds in which there is such a thing, with their intervals, and the verdicts, most common first.

    A mean over fewer seeds than the arm has is of those that peaked, which `n` of each interval says.
    """

    verdicts: Mapping[str, int]
    peak_epoch: Interval
    forgotten: Interval
    rise_half_time: Interval
    decay_half_time: Interval
    memorization_end: Interval
    forgetting_start: Interval
    forgetting_end: Interval

    @property
    def verdict(self) -> str:
        """One text if all runs agree, else each with its count."""
        if len(self.verdicts) <= 1:
            return "".join(self.verdicts)
        total = sum(self.verdicts.values())
        return "; ".join(f"{text} ({count} of {total})" for text, count in self.verdicts.items())


def arm_phases(arm: Arm, name: str = "fisher_true", *, layer: str | None = None, level: float = 0.95) -> ArmPhases:
    """The phases of each run of the arm (`phases`), together; runs that exploded are among the verdicts."""
    return together([phases(run, name, layer=layer) for run in arm.trajectories], level=level)


def together(found: Sequence[Phases], *, level: float = 0.95) -> ArmPhases:
    """Phases of several runs as those of an arm."""

    def mean(values: Sequence[float]) -> Interval:
        finite = [value for value in values if np.isfinite(value)]
        return mean_interval(finite, level=level) if finite else Interval(np.nan, np.nan, np.nan, 0)

    return ArmPhases(
        verdicts=dict(Counter(each.verdict for each in found).most_common()),
        peak_epoch=mean([each.peak_epoch for each in found]),
        forgotten=mean([each.forgotten for each in found]),
        rise_half_time=mean([each.rise_half_time for each in found]),
        decay_half_time=mean([each.decay_half_time for each in found]),
        memorization_end=mean([each.memorization[1] for each in found]),
        forgetting_start=mean([each.forgetting[0] for each in found]),
        forgetting_end=mean([each.forgetting[1] for each in found]),
    )
