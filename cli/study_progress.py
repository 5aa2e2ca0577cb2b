"""What `study` shows while it runs: one screen on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from fisherkit.studies.execution import Ending, ExecutionObserver
from fisherkit.studies.execution.observer import RUNNING
from fisherkit.studies.execution.process import LOG_NAME

from .output import say
from .study_screen import run_names, screen, summary_text

if TYPE_CHECKING:
    from fisherkit.studies.arms import Study
    from fisherkit.studies.execution import Origin, Slot, Snapshot, Unit, UnitOutcome

SUMMARY_EVERY_S = 60.0


class StudyProgress(ExecutionObserver):
    """Prints what happens to the runs of a study."""

    def __init__(self, study: "Study", console: Console | None = None) -> None:
        self.study, self.names = study, run_names(study)
        self.console = console or Console(highlight=False)
        self.live = self.console.is_terminal
        self.display = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
        self.snapshot: Snapshot | None = None
        self.notices: list[str] = []
        self.submitted: dict[str, str] = {}  # what to say once the run has begun; a cluster may take a while
        self.summary_at = time.monotonic() + SUMMARY_EVERY_S

    def began(self, units: Sequence["Unit"], done: Sequence["UnitOutcome"]) -> None:
        """Say how much there is to do."""
        runs = len(self.study.runs)
        before = runs - len(units) + len(done)
        self._say(f"{self.study.protocol}: {len(self.study.arms)} arms, {runs} runs, {before} of them done before")

    def started(self, unit: "Unit", *, origin: "Origin | None", slot: "Slot", attempt: int) -> None:
        """Keep it until the run has begun."""
        text = f"starts, {slot.name}" if attempt == 1 else f"starts again, attempt {attempt}, {slot.name}"
        if origin is not None:
            parent = Path(origin.folder).name
            text += f", from epoch {origin.epoch} of {self.names.get(parent, parent)}"
        self.submitted[unit.identity] = f"{self._name(unit)}: {text}"

    def retried(self, unit: "Unit", *, reason: str, attempts_left: int) -> None:
        """Say why, and that it goes on."""
        self._say_started(unit)
        left = f"{attempts_left} more attempt{'s' if attempts_left > 1 else ''}"
        self._notice(f"{self._name(unit)}: {reason}; it is tried again ({left})")

    def ended(self, outcome: "UnitOutcome") -> None:
        """Say how; on the screen only what did not go well."""
        self._say_started(outcome.unit)
        text = f"{self._name(outcome.unit)}: {outcome.ending.value}"
        if outcome.ending not in (Ending.FAILED, Ending.EXPLODED):
            self._say(text)
            return
        why = f": {outcome.text.removeprefix('fisherkit: ')}" if outcome.ending is Ending.FAILED else ""
        self._notice(text + why, f"; see {Path(outcome.unit.folder) / LOG_NAME}")

    def looked(self, snapshot: "Snapshot") -> None:
        """Draw the screen; elsewhere say who has begun, and now and then how far all are."""
        self.snapshot = snapshot
        if self.live:
            self._draw()
            return
        for progress in snapshot.units:
            if progress.state == RUNNING:
                self._say_started(progress.unit)
        if time.monotonic() >= self.summary_at:
            self.summary_at = time.monotonic() + SUMMARY_EVERY_S
            self._say(summary_text(self.study, snapshot))

    def stopping(self, signal: int, running: int) -> None:
        """Say what happens now."""
        self._notice(
            f"stopping: waiting for {running} running to write a checkpoint; the same command goes on from there"
        )

    def notice(self, text: str) -> None:
        """Something the user should know."""
        self._notice(f"note: {text}")

    def _name(self, unit: "Unit") -> str:
        return self.names.get(unit.identity, unit.identity)

    def _say_started(self, unit: "Unit") -> None:
        text = self.submitted.pop(unit.identity, None)
        if text is not None:
            self._say(text)

    def _notice(self, text: str, more: str = "") -> None:
        """On the screen, the last ones stay in sight, without what is too long for it."""
        self.notices.append(text)
        self._say(text + more)
        if self.live:
            self._draw()

    def _draw(self) -> None:
        if self.snapshot is not None:
            picture = screen(self.study, self.snapshot, self.notices, height=self.console.height - 1)
            self.display.update(picture, refresh=True)

    def _say(self, text: str) -> None:
        if not self.live:
            say(text)

    def __enter__(self) -> "StudyProgress":
        if self.live:
            self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.display.stop()
