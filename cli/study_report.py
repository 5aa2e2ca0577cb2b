"""What `study` says: the plan of a dry run; how it ended."""

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from .failure import FAILURE, printable
from .progress import duration

if TYPE_CHECKING:
    from fisherkit.studies.conduct import Conducted, StudyPlan
    from fisherkit.studies.execution import ExecutorChoice

_LABEL = 40


def say_plan(plan: "StudyPlan", name: str, executor: "ExecutorChoice") -> None:
    """Arms, runs, epochs with and without sharing, time from a timed epoch, disk."""
    study = plan.study
    _say(f"{study.protocol}: {len(study.arms)} arms, {len(study.runs)} runs, {len(plan.done)} of them done")
    _say(f"{'arm':{_LABEL}} {'epochs':>6} {'runs':>5}  control")
    for arm in study.arms:
        epochs = ", ".join(sorted({str(run.epochs) for run in arm.runs}))
        _say(f"{arm.label:{_LABEL}} {epochs:>6} {len(arm.runs):>5}  {'yes' if arm.control else ''}".rstrip())
    for note in study.options.get("notes", ()):
        _say(f"note     {note}")
    trained, alone = plan.epochs
    saved = f", {1 - trained / alone:.1%} fewer" if trained < alone else ""
    _say(f"epochs   {trained:,} to train ({alone:,} without training common beginnings once{saved})")
    _say(f"results  {plan.out / name}")
    if plan.left:
        _say_cost(plan, executor)


def _say_cost(plan: "StudyPlan", executor: "ExecutorChoice") -> None:
    from fisherkit.studies.estimate import disk_bytes, slots_here, time_epoch

    _say("timing one epoch ...")
    cost = time_epoch(plan.left[0].specification)
    epochs, _ = plan.epochs
    most, own = disk_bytes(plan, cost)
    slots = slots_here(plan, executor)
    at_once = f" with {slots} runs at a time (if each is as fast as one alone)" if slots and slots > 1 else ""
    spent = duration(epochs * cost.seconds / (slots or 1))
    where = " on this machine, one at a time" if slots is None else at_once
    _say(f"time     {spent}{where}: {cost.seconds:.1f} s an epoch here")
    _say(f"disk     {own / 1e6:,.0f} MB, while it runs at most {most / 1e6:,.0f} MB")


def conduct(plan: "StudyPlan", name: str, executor: "ExecutorChoice", values: dict[str, Any]) -> int:
    """Do the study and say how it ended; the exit status."""
    from fisherkit.studies.conduct import conduct as carry_out

    from .study_progress import StudyProgress

    command = shlex.join(["fisherkit", *sys.argv[1:]])
    with StudyProgress(plan.study) as progress:
        found = carry_out(
            plan,
            name,
            executor,
            retries=values["retries"],
            keep_checkpoints=values["keep_checkpoints"],
            observer=progress,
            command=command,
        )
    return _say_end(found, command)


def _say_end(found: "Conducted", command: str) -> int:
    if found.results is None:
        _say("Stopped; nothing is lost. The same command goes on from there:")
        _say(f"  {command}")
        return 128 + (found.execution.signal or 0)
    if not found.plan.left:
        _say(f"All {len(found.plan.study.runs)} runs are done.")
    _say("")
    _say(found.results.text)
    for path in found.results.files:
        _say(f"file     {path}")
    failed = [outcome for outcome in found.execution.outcomes.values() if not outcome.ending.done]
    if failed:
        click.echo(f"{len(failed)} runs did not finish; the same command tries them again.", err=True)
    return FAILURE if failed else 0


def _say(text: str) -> None:
    click.echo("\n".join(printable(line) for line in text.splitlines()))
