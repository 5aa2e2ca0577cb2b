"""What a trajectory says, as pure functions of it; no torch."""

from fisherkit.analysis.arms import Arm
from fisherkit.analysis.comparison import final_value
from fisherkit.analysis.concentration import Concentration, concentration
from fisherkit.analysis.correlation import rank_correlation
from fisherkit.analysis.critical_period import CriticalPeriod, critical_period
from fisherkit.analysis.intervals import Interval, mean_interval
from fisherkit.analysis.phases import Phases, phases
from fisherkit.analysis.summary import Peak, final_row, peak, shares

__all__ = [
    "Arm",
    "Concentration",
    "CriticalPeriod",
    "Interval",
    "Peak",
    "Phases",
    "concentration",
    "critical_period",
    "final_row",
    "final_value",
    "mean_interval",
    "peak",
    "phases",
    "rank_correlation",
    "shares",
]
