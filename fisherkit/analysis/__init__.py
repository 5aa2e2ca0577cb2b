"""What a trajectory says, as pure functions of it; no torch."""

from fisherkit.analysis.arm_phases import ArmPhases, arm_phases
from fisherkit.analysis.arms import Arm
from fisherkit.analysis.comparison import Ratio, final_value, ratio_to_control, undertrained
from fisherkit.analysis.concentration import Concentration, concentration
from fisherkit.analysis.confound import Confound, confound
from fisherkit.analysis.correlation import rank_correlation
from fisherkit.analysis.critical_period import ArmLoss, CriticalPeriod, critical_period
from fisherkit.analysis.intervals import Interval, mean_interval
from fisherkit.analysis.phases import Phases, phases
from fisherkit.analysis.summary import Peak, final_row, peak, shares

__all__ = [
    "Arm",
    "ArmLoss",
    "ArmPhases",
    "Concentration",
    "Confound",
    "CriticalPeriod",
    "Interval",
    "Peak",
    "Phases",
    "Ratio",
    "arm_phases",
    "concentration",
    "confound",
    "critical_period",
    "final_row",
    "final_value",
    "mean_interval",
    "peak",
    "phases",
    "rank_correlation",
    "ratio_to_control",
    "shares",
    "undertrained",
]
