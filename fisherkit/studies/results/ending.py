"""Which rows of a run stand for its end: the papers' rules, scaled in time like everything else of a study."""

from dataclasses import dataclass
from typing import Literal

from fisherkit.analysis import final_value
from fisherkit.recording import Trajectory
from fisherkit.studies.arms import Study

NAMES = ("test_accuracy", "train_accuracy", "test_loss", "train_loss")
# Achille 2019: median of the last 10 epochs for the sensitivity, mean of the last 5 for the removal of a deficit.
# Ash 2020: where training stopped; the epochs before may be of another phase
_RULES: dict[str, tuple[int, Literal["mean", "median"]]] = {"window": (10, "median"), "warm-start": (1, "mean")}
_USUAL: tuple[int, Literal["mean", "median"]] = (5, "mean")


@dataclass(frozen=True)
class EndRule:
    """The last so many epochs, and what is made of them."""

    last: int
    statistic: Literal["mean", "median"]

    def __str__(self) -> str:
        return "last epoch" if self.last == 1 else f"{self.statistic} of the last {self.last} epochs"

    def finals(self, trajectory: Trajectory) -> dict[str, float]:
        """The accuracies and losses at the end, where they were measured."""
        there = [name for name in NAMES if name in trajectory.series]
        return {name: final_value(trajectory, name, last=self.last, statistic=self.statistic) for name in there}


def end_rule(study: Study) -> EndRule:
    """The protocol's rule at the time scale of the study; at least the last epoch."""
    last, statistic = _RULES.get(study.protocol, _USUAL)
    scale = float(study.options.get("time_scale", 1.0))
    return EndRule(max(1, int(min(last, last * scale) + 0.5)), statistic)
