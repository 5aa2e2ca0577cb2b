"""The end of the critical period: from which deficit on the loss exceeds what seeds do."""

from collections.abc import Sequence
from dataclasses import dataclass

from fisherkit.analysis.arms import Arm
from fisherkit.analysis.comparison import Statistic


@dataclass(frozen=True)
class CriticalPeriod:
    """The verdict; `end` on the axis of the arms with its bounds, `noise` the standard deviation of a run over seeds."""

    verdict: str
    end: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    noise: float = float("nan")


def critical_period(
    arms: Sequence[Arm], control: Arm, *, last: float = 5, statistic: Statistic = "mean"
) -> CriticalPeriod:
    """Stub."""
    return CriticalPeriod("too few seeds")
