"""Who watches a run, and how a call of `track` ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fisherkit.fisher import FisherTrace
from fisherkit.recording import Trajectory
from fisherkit.training import EpochReport, StepReport

if TYPE_CHECKING:
    from fisherkit.studies.run import Run


class Observer:
    """Who watches a run; this one says nothing, the command line's prints."""

    def started(self, run: "Run", *, resumed_at: int | None) -> None:
        """Before the first step of this session."""

    def measured(self, run: "Run", result: FisherTrace) -> None:
        """After a measurement."""

    def stepped(self, run: "Run", step: StepReport) -> None:
        """After every optimiser step."""

    def epoch_ended(self, run: "Run", report: EpochReport) -> None:
        """After an epoch's row was recorded."""

    def notice(self, text: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `track` ended."""

    folder: Path
    trajectory: Trajectory
    finished: bool
    step: int
    signal: int | None = None  # that interrupted it
    already_finished: bool = False

    @property
    def file(self) -> Path:
        """The run file."""
        return self.folder / "run.h5"
