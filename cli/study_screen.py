"""The screen of a study while it runs: arms, epochs, time left, what runs where, the last notices."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, JustifyMethod, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fisherkit.studies.arms import Study
from fisherkit.studies.execution import Ending, Snapshot, UnitProgress
from fisherkit.studies.execution.observer import QUEUED, RUNNING, WAITING

from .failure import printable
from .progress import duration

FINISHED, EXPLODED = Ending.FINISHED.value, Ending.EXPLODED.value
STATES = (RUNNING, QUEUED, WAITING, FINISHED, EXPLODED)  # as they are listed; other endings follow
BAR_WIDTH, FEWEST_ARMS = 24, 3


@dataclass(frozen=True)
class ArmProgress:
    """How far the runs of an arm are: epochs, and how many runs are in which state."""

    label: str
    done: int
    total: int
    states: Counter[str]

    @property
    def urgency(self) -> int:
        """Arms with something to see come first where not all fit."""
        if self.states[RUNNING]:
            return 0
        return 2 if self.states[FINISHED] == self.states.total() else 1


def arms_progress(study: Study, snapshot: Snapshot) -> list[ArmProgress]:
    """The arms of a study; a run that is not in the snapshot was done before."""
    found = {unit.unit.identity: unit for unit in snapshot.units}
    arms = []
    for arm in study.arms:
        there = [(run, found.get(run.identity)) for run in arm.runs]
        done = sum(run.epochs if unit is None else unit.done for run, unit in there)
        states = Counter(FINISHED if unit is None else unit.state for _, unit in there)
        arms.append(ArmProgress(arm.label, done, sum(run.epochs for run in arm.runs), states))
    return arms


def run_names(study: Study) -> dict[str, str]:
    """`blur 0-40, seed 1` for every identity; a run of several arms has the name of the first."""
    names: dict[str, str] = {}
    for arm in study.arms:
        for run in arm.runs:
            names.setdefault(run.identity, f"{arm.label}, seed {run.seed}")
    return names


def counts_text(states: Counter[str]) -> str:
    """`2 running, 1 finished`."""
    order = [*STATES, *sorted(set(states) - {*STATES})]
    return ", ".join(f"{states[state]} {state}" for state in order if states[state])


def study_counts(study: Study, snapshot: Snapshot) -> tuple[int, int, Counter[str]]:
    """Epochs done, epochs in all, and the states of all distinct runs."""
    there = {unit.unit.identity for unit in snapshot.units}
    before = [run for run in study.runs if run.identity not in there]
    states = Counter(unit.state for unit in snapshot.units)
    states[FINISHED] += len(before)
    epochs = sum(run.epochs for run in before)
    return snapshot.done + epochs, snapshot.total + epochs, states


def summary_text(study: Study, snapshot: Snapshot) -> str:
    """`removal: 2 running, 4 waiting, 1 finished; 30 of 70 epochs; about 12 min left`."""
    done, total, states = study_counts(study, snapshot)
    left = _left(snapshot)
    return f"{study.protocol}: {counts_text(states)}; {done:,} of {total:,} epochs" + (f"; {left}" if left else "")


def _left(snapshot: Snapshot) -> str:
    return f"about {duration(snapshot.left_s)} left" if snapshot.left_s else ""


def screen(study: Study, snapshot: Snapshot, notices: Sequence[str], *, height: int) -> Group:
    """All of it, in at most `height` lines where that is at least 15."""
    running = [unit for unit in snapshot.units if unit.state == RUNNING]
    shown_runs = running[: max(1, height // 4)]
    lines = [_line(notice) for notice in notices[-max(1, height // 6) :]]
    # two lines of heading, what is not shown of either table, and a blank line before each part
    rest = height - 2 - len(shown_runs) - len(lines) - 2 - 3
    parts: list[RenderableType] = [*_heading(study, snapshot), Text()]
    parts += [_arms_table(arms_progress(study, snapshot), max(FEWEST_ARMS, rest))]
    if running:
        parts += [Text(), _runs_table(shown_runs, len(running) - len(shown_runs), run_names(study))]
    if lines:
        parts += [Text(), *lines]
    return Group(*parts)


def _heading(study: Study, snapshot: Snapshot) -> tuple[Text, Table]:
    done, total, states = study_counts(study, snapshot)
    table = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(1, total), completed=done, width=BAR_WIDTH)
    table.add_row(bar, _line(f"{done:,}/{total:,} epochs"), _line(_left(snapshot)))
    return _line(f"{study.protocol}: {states.total()} runs: {counts_text(states)}"), table


def _arms_table(arms: Sequence[ArmProgress], most: int) -> Group:
    shown = sorted(sorted(range(len(arms)), key=lambda number: arms[number].urgency)[:most])
    table = Table.grid(padding=(0, 2))
    for number in shown:
        arm = arms[number]
        bar = ProgressBar(total=max(1, arm.total), completed=arm.done, width=BAR_WIDTH)
        epochs = _line(f"{arm.done:,}/{arm.total:,}", justify="right")
        table.add_row(_line(arm.label), epochs, bar, _line(counts_text(arm.states)))
    hidden = [arm for number, arm in enumerate(arms) if number not in shown]
    states = sum((arm.states for arm in hidden), Counter[str]())
    more = [_line(f"and {len(hidden)} more: {counts_text(states)}")] if hidden else []
    return Group(table, *more)


def _runs_table(runs: Sequence[UnitProgress], more: int, names: dict[str, str]) -> Group:
    table = Table.grid(padding=(0, 2))
    for run in runs:
        name = names.get(run.unit.identity, run.unit.identity)
        table.add_row(_line(name), _line(f"epoch {run.done:,}/{run.unit.epochs:,}"), _line(run.where))
    return Group(table, *([_line(f"and {more} more")] if more else []))


def _line(text: str, *, justify: JustifyMethod = "left") -> Text:
    """One line, cut where the screen ends."""
    return Text(printable(text).replace("\n", " "), no_wrap=True, overflow="ellipsis", justify=justify)
