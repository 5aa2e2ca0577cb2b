"""A study as a value: its arms, and the runs that each of them consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fisherkit.studies.specification import RunSpecification


@dataclass(frozen=True)
class PlannedArm:
    """One point of a study's figure; its runs differ in the seed only.

    `group` names the curve it lies on, `value` its place on the axis, in epochs as they are run (None: it has
    none). A control is what the other arms are compared with.
    """

    label: str
    group: str
    value: float | None
    runs: tuple[RunSpecification, ...]
    control: bool = False


@dataclass(frozen=True)
class Study:
    """The arms of a protocol, with the label of their axis and what was asked for (JSON-able)."""

    protocol: str
    axis: str
    arms: tuple[PlannedArm, ...]
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(
                f"arms must differ; got {repeated[0]!r} twice. Leave one out, or give a larger --time-scale."
            )

    @property
    def runs(self) -> tuple[RunSpecification, ...]:
        """The distinct runs of all arms, in order."""
        return tuple({run.identity: run for arm in self.arms for run in arm.runs}.values())
