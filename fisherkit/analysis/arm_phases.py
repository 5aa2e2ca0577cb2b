"""The phases of an arm: means over its seeds, and how many of its runs did what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fisherkit.analysis.arms import Arm
from fisherkit.analysis.intervals import Interval, known_interval
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
        return agreed(self.verdicts)


def arm_phases(arm: Arm, name: str = "fisher_true", *, layer: str | None = None, level: float = 0.95) -> ArmPhases:
    """The phases of each run of the arm (`phases`), together; runs that exploded are among the verdicts."""
    return together([phases(run, name, layer=layer) for run in arm.trajectories], level=level)


def together(found: Sequence[Phases], *, level: float = 0.95) -> ArmPhases:
    """Phases of several runs as those of an arm."""

    return ArmPhases(
        verdicts=dict(Counter(each.verdict for each in found).most_common()),
        peak_epoch=known_interval([each.peak_epoch for each in found], level=level),
        forgotten=known_interval([each.forgotten for each in found], level=level),
        rise_half_time=known_interval([each.rise_half_time for each in found], level=level),
        decay_half_time=known_interval([each.decay_half_time for each in found], level=level),
        memorization_end=known_interval([each.memorization[1] for each in found], level=level),
        forgetting_start=known_interval([each.forgetting[0] for each in found], level=level),
        forgetting_end=known_interval([each.forgetting[1] for each in found], level=level),
    )


def agreed(verdicts: Mapping[str, int]) -> str:
    """One text if all runs agree, else each with its count; empty without any."""
    if len(verdicts) <= 1:
        return "".join(verdicts)
    total = sum(verdicts.values())
    return "; ".join(f"{text} ({count} of {total})" for text, count in verdicts.items())
