"""What `track` shows while it runs: one live line on a terminal, a plain line an epoch elsewhere."""

import re
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fisherkit.studies import Observer

from .failure import printable
from .log import LOG_NAME, Log
from .output import say

_NUMBER = re.compile(r"(?<![\w.'])[0-9][0-9,]*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")  # in a note; not those in layer names
_MOST_NOTES = 20
NOT_MEASURED = "tr F -"

if TYPE_CHECKING:
    from fisherkit.fisher import FisherTrace
    from fisherkit.studies import Run, RunSpecification
    from fisherkit.training import EpochReport, StepReport


class Progress(Observer):
    """Prints what happens in a run; with `log` also into log.txt of its folder, with the time."""

    def __init__(self, specification: "RunSpecification", folder: Path, *, log: bool = False) -> None:
        self.epochs, self.folder = specification.epochs, folder
        self.console = Console(highlight=False)
        self.live = self.console.is_terminal
        self.bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=1.0, epoch="", text="")
        self.fisher, self.of_the_epoch = "", NOT_MEASURED  # the last total; the last of the epoch in progress
        self.began, self.ran = time.monotonic(), 0
        self.noted: set[str] = set()
        self.log = Log(folder / LOG_NAME, tell=lambda text: self._print(f"note: {text}")) if log else None

    def started_text(self, run: "Run", resumed_at: int | None) -> str:
        """What is about to happen."""
        begin = "starts" if resumed_at is None else f"goes on at epoch {run.training.epoch}, step {resumed_at}"
        images = f"{len(run.training.train_images):,} training images"
        if run.specification.held_out is not None:
            images += f" (tested on {len(run.training.test_images):,} held out)"
        return f"{self.folder} {begin}: {self.epochs} epochs of {images} on {run.specification.device}"

    def started(self, run: "Run", *, resumed_at: int | None) -> None:
        """Say where the run is."""
        self.began, self.ran = time.monotonic(), 0
        if self.log is not None:
            self.log.open()
        self._say(self.started_text(run, resumed_at))

    def measured(self, run: "Run", result: "FisherTrace") -> None:
        """Keep the total for the next line; show a note when it first says what none said, numbers aside."""
        self.fisher = self.of_the_epoch = f"tr F {result.total:.3g} ± {result.total_stderr:.1g}"
        for note in result.notes:
            kind = _NUMBER.sub("#", note)
            if kind not in self.noted and len(self.noted) < _MOST_NOTES:
                self.noted.add(kind)
                self.notice(note)

    def stepped(self, run: "Run", step: "StepReport") -> None:
        """Move the bar."""
        if step.step_in_epoch == 1:
            self.of_the_epoch = NOT_MEASURED
        done = (step.epoch + step.step_in_epoch / step.steps_in_epoch) / self.epochs
        if self.live:
            self.bar.update(self.task, completed=done, epoch=f"{step.epoch + 1}/{self.epochs}", text=self.fisher)

    def epoch_ended(self, run: "Run", report: "EpochReport") -> None:
        """One line for the epoch."""
        self.ran += 1
        self._say(f"{self.line(report)}{self._left(report.next_epoch)}")
        if report.skipped_epochs:
            self._say(self.phase_end(report))

    def line(self, report: "EpochReport") -> str:
        """The numbers of an epoch, with the last total that was measured in it."""
        deficits = " ".join(str(deficit) for deficit in report.conditions.deficits)
        return (
            f"epoch {report.epoch + 1:3}/{self.epochs}  train {report.train_loss:.3f} {report.train_accuracy:6.1%}  "
            f"test {report.test_loss:.3f} {report.test_accuracy:6.1%}  {self.of_the_epoch}  lr {report.lr:.3g}"
            + (f"  [{deficits}]" if deficits else "")
        )

    def phase_end(self, report: "EpochReport") -> str:
        """Where training goes on when a phase has ended early."""
        then = f"goes on with epoch {report.next_epoch + 1}" if report.next_epoch < self.epochs else "ends"
        return (
            f"train accuracy {report.train_accuracy:.1%} reaches --stop-accuracy: the phase ends and the run {then}; "
            f"epochs left out: {report.skipped_epochs}"
        )

    def _left(self, next_epoch: int) -> str:
        if next_epoch >= self.epochs:
            return ""
        seconds = (time.monotonic() - self.began) / self.ran * (self.epochs - next_epoch)
        return f"  about {duration(seconds)} left"

    def notice(self, text: str) -> None:
        """A notice, on a line of its own."""
        self._say(f"note: {text}")

    def say(self, text: str) -> None:
        """Print a text and add it to the log."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._print(text)
        if self.log is not None:
            self.log.add(printable(text))

    def _print(self, text: str) -> None:
        if self.live:
            self.console.print(printable(text), markup=False)
        elif (problem := say(text)) and self.log is not None:
            self.log.add(
                f"note: standard output cannot be written ({problem}); the run goes on, and is told here alone"
            )

    def __enter__(self) -> "Progress":
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()
        if self.log is not None and isinstance(error, Exception):
            self.log.add(f"fisherkit: {printable(str(error))}")


def duration(seconds: float) -> str:
    """`12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
