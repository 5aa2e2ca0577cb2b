"""Which runs of a study branch off which: what several have in common is trained once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fisherkit.studies.prefix import Course
from fisherkit.studies.specification import RunSpecification


@dataclass(frozen=True)
class Branch:
    """A place to begin: the run of that identity after so many epochs."""

    identity: str
    epoch: int


@dataclass(frozen=True)
class PlannedRun:
    """A run, where it may begin (the best first; else at epoch 0), and where others begin in it."""

    specification: RunSpecification
    branches: tuple[Branch, ...]
    keep: tuple[int, ...]

    @property
    def epochs(self) -> int:
        """The epochs that this run trains itself, when its best branch is there."""
        return self.specification.epochs - (self.branches[0].epoch if self.branches else 0)


def plan_runs(
    runs: Sequence[RunSpecification], *, finished: Mapping[str, Collection[int]] | None = None
) -> tuple[PlannedRun, ...]:
    """The runs still to do, in the order given, each branching off an earlier one as late as it can.

    The epochs trained are those of the tree of common beginnings, whatever the order: each run adds what it shares
    with none before it.

    Args:
        finished: identities of the runs that are done, with the epochs of which they still hold a checkpoint.
    """
    on_disk = [Branch(identity, epoch) for identity, epochs in (finished or {}).items() for epoch in epochs]
    courses = {run.identity: Course.of(run) for run in runs}
    todo = [run.identity for run in runs if run.identity not in (finished or {})]
    chosen: dict[str, Branch] = {}
    for number, run in enumerate(todo):
        common = [Branch(other, courses[run].shared(courses[other])) for other in todo[:number]]
        found = max((*_fitting(on_disk, run, courses), *common), key=lambda branch: branch.epoch, default=None)
        if found is not None and found.epoch > 0:
            chosen[run] = found
    by_identity = {run.identity: run for run in runs}
    planned = []
    for number, run in enumerate(todo):
        before = {*todo[:number], *(branch.identity for branch in on_disk)}
        held = {branch for branch in (*chosen.values(), *on_disk) if branch.identity in before}
        rest = sorted(
            _fitting(held - {chosen.get(run)}, run, courses), key=lambda branch: (-branch.epoch, branch.identity)
        )
        branches = (chosen[run], *rest) if run in chosen else ()
        keep = sorted({branch.epoch for branch in chosen.values() if branch.identity == run})
        planned.append(PlannedRun(by_identity[run], branches, tuple(keep)))
    return tuple(planned)


def trained_epochs(plan: Sequence[PlannedRun]) -> tuple[int, int]:
    """The epochs that the plan trains, and those that its runs would train each alone."""
    return sum(run.epochs for run in plan), sum(run.specification.epochs for run in plan)


def _fitting(branches: Collection[Branch], run: str, courses: Mapping[str, Course]) -> list[Branch]:
    """Those at which the run is still the same run."""
    return [branch for branch in branches if branch.epoch <= courses[run].shared(courses[branch.identity])]
