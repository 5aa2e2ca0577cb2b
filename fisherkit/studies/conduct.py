"""A whole study: what is left to do, doing it, and writing what came of it.

<out>/runs/<identity>/   one folder a run, shared by all studies of <out>
<out>/<name>/plan.json   the arms and what was asked for
<out>/<name>/...         study.h5, summary.csv, summary.txt, figure.*
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherkit.errors import BadName, RunRefused, UnreadableFile
from fisherkit.names import folder_named
from fisherkit.storage import atomic_write, lock
from fisherkit.studies.arms import Study
from fisherkit.studies.execution import (
    Ending,
    Execution,
    ExecutionObserver,
    ExecutorChoice,
    Unit,
    execute,
    open_workplace,
    state_on_disk,
)
from fisherkit.studies.plan import PlannedRun, plan_runs, trained_epochs
from fisherkit.studies.results import Results, write_results
from fisherkit.studies.results.collect import RUNS
from fisherkit.training import kept_epochs, remove_kept

PLAN_NAME = "plan.json"
_SCHEMA = 1
_IDENTITY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class StudyPlan:
    """A study in a folder: its runs that are done, and those left to do with their places to branch off."""

    study: Study
    out: Path
    done: tuple[str, ...]
    left: tuple[PlannedRun, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """What there is to execute."""
        return tuple(_unit(run, self.out) for run in self.left)

    @property
    def epochs(self) -> tuple[int, int]:
        """The epochs that are left to train, and those it would be without sharing."""
        return trained_epochs(self.left)


@dataclass(frozen=True)
class Conducted:
    """What came of a study; without results where a signal interrupted it."""

    plan: StudyPlan
    execution: Execution
    results: Results | None


def plan_study(study: Study, out: Path) -> StudyPlan:
    """Look for what is done under `out`, and plan the rest."""
    out = out.absolute()
    alone = {run.identity: _unit(PlannedRun(run, (), ()), out) for run in study.runs}
    done = {identity: kept_epochs(Path(unit.folder)) for identity, unit in alone.items() if state_on_disk(unit)}
    return StudyPlan(study, out, tuple(done), plan_runs(study.runs, finished=done))


def conduct(
    plan: StudyPlan,
    name: str,
    executor: ExecutorChoice,
    *,
    retries: int = 2,
    keep_checkpoints: bool = False,
    observer: ExecutionObserver | None = None,
    command: str = "",
) -> Conducted:
    """Do what is left of a study, and write its results into `<out>/<name>/`.

    The same call goes on where it was interrupted; when all is done, it writes the results again, to the same bytes.

    Args:
        keep_checkpoints: leave the checkpoints at which runs branch, for further studies in the same folder.
        command: the command line, for the summary.

    Raises:
        RunRefused: another driver has the folder, or the name is that of another study.
        ValueError: the executor cannot be had here.
    """
    claim(plan, name, command=command)
    execution = _execute(plan, executor, retries=retries, observer=observer)
    if execution.signal is not None:
        return Conducted(plan, execution, None)
    failures = {outcome.unit.identity: outcome.text for outcome in execution.of(Ending.FAILED)}
    results = write_results(plan.study, plan.out, name, failures=failures, command=command)
    if not keep_checkpoints and not failures:
        _remove_kept(plan)
    return Conducted(plan, execution, results)


def claim(plan: StudyPlan, name: str, *, command: str = "") -> None:
    """Write `<out>/<name>/plan.json`; one that is there must be of this study, which may have more runs by now.

    Raises:
        BadName: the name cannot be that of a folder.
        RunRefused: it is of another study; the message shows what differs.
    """
    folder = folder_named(plan.out, name, "name")
    if name == RUNS:
        raise BadName(f"name must not be {RUNS!r}, the folder of the runs. Choose another.")
    path, text = folder / PLAN_NAME, _plan_text(plan.study, command)
    if path.exists():
        before = read_plan(path)
        missing = set(before["runs"]) - {run.identity for run in plan.study.runs}
        if missing or before["protocol"] != plan.study.protocol:
            raise RunRefused(
                f"{folder} holds another study: {_differences(before, plan.study)}. Give another --name, or --out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode())


def _execute(
    plan: StudyPlan, executor: ExecutorChoice, *, retries: int, observer: ExecutionObserver | None
) -> Execution:
    if not plan.left:
        return Execution({}, None)
    first = plan.left[0].specification
    with open_workplace(executor, device=first.device, threads=first.threads) as place:
        return execute(
            plan.units, place.executor, slots=place.slots, folder=plan.out, retries=retries, observer=observer
        )


def _unit(run: PlannedRun, out: Path) -> Unit:
    identity = run.specification.identity
    return Unit(
        identity=identity,
        folder=str(out / RUNS / identity),
        specification=run.specification.model_dump_json(),
        parents=tuple((branch.identity, branch.epoch) for branch in run.branches),
        keep=run.keep,
    )


def _remove_kept(plan: StudyPlan) -> None:
    """Remove the checkpoints at which runs branch; not while another driver may be about to use them."""
    try:
        with lock(plan.out):
            for run in plan.study.runs:
                remove_kept(plan.out / RUNS / run.identity)
    except RunRefused:
        return


def _plan_text(study: Study, command: str) -> str:
    arms = [
        {
            "label": arm.label,
            "group": arm.group,
            "value": arm.value,
            "control": arm.control,
            "runs": [run.identity for run in arm.runs],
        }
        for arm in study.arms
    ]
    runs = {run.identity: json.loads(run.model_dump_json()) for run in study.runs}
    plan = {
        "format": "fisherkit study plan",
        "schema": _SCHEMA,
        "protocol": study.protocol,
        "command": command,
        "axis": study.axis,
        "options": dict(study.options),
        "arms": arms,
        "runs": runs,
    }
    return json.dumps(plan, indent=1)


def read_plan(path: Path) -> dict[str, Any]:
    """Protocol, runs by identity, options and the command of the plan of a study.

    Raises:
        UnreadableFile: it is no such plan.
    """
    try:
        plan = json.loads(path.read_bytes())
        if not isinstance(plan["runs"], dict) or not isinstance(plan["options"], dict):
            raise TypeError
        if not all(map(_IDENTITY.fullmatch, plan["runs"])):
            raise ValueError
        text = {"protocol": str(plan["protocol"]), "command": str(plan.get("command", ""))}
        return {**text, "runs": plan["runs"], "options": plan["options"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableFile(path, "not the plan of a study. Move it away, or give another --name.") from error


def _differences(before: Mapping[str, Any], study: Study) -> str:
    """`seeds 5 (this command: 3)` for every option that differs."""
    now = _flat({"protocol": study.protocol, **json.loads(json.dumps(dict(study.options)))})
    then = _flat({"protocol": before["protocol"], **before["options"]})
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return "; ".join(f"{name} {then.get(name)} (this command: {now.get(name)})" for name in names) or "other runs"


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """`run.lr` for the options of the runs."""
    rest = {name: value for name, value in options.items() if name != "run"}
    return {**rest, **{f"run.{name}": value for name, value in dict(options.get("run") or {}).items()}}
