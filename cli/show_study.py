"""What `show` says of a study: its file, its folder, or the folder of several studies and their runs."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .show_run import last_writer, run_state

if TYPE_CHECKING:
    from fisherkit.recording import StudyRecord

STUDY, PLAN, RUNS = "study.h5", "plan.json", "runs"
_STATES = ("finished", "exploded", "failed", "unfinished", "missing")
_LABEL = 40


def is_study(path: Path) -> bool:
    """Whether that is a study file, the folder of a study, or one that holds studies."""
    from fisherkit.recording import holds_study

    if path.is_dir():
        return any((path / name).is_file() for name in (PLAN, STUDY)) or _holds_studies(path)
    return path.is_file() and holds_study(path)


def _holds_studies(folder: Path) -> bool:
    return (folder / RUNS).is_dir() and not (folder / "run.h5").is_file() and bool(_studies(folder))


def study_lines(path: Path) -> list[str]:
    """What is in the study, arm by arm; or a line for each study of the folder."""
    if path.is_dir() and not any((path / name).is_file() for name in (PLAN, STUDY)):
        return _of_all(path)
    file = path if path.is_file() else path / STUDY
    lines = _of_record(file) if file.is_file() else [f"{path}: a study that has not written its results yet"]
    return [*lines, *(_of_plan(path) if (path / PLAN).is_file() else [])]


def study_facts(path: Path) -> dict[str, Any]:
    """The same, JSON-able."""
    if path.is_dir() and not any((path / name).is_file() for name in (PLAN, STUDY)):
        return {"folder": str(path), "studies": {folder.name: study_facts(folder) for folder in _studies(path)}}
    file = path if path.is_file() else path / STUDY
    facts: dict[str, Any] = {"file": str(file) if file.is_file() else None}
    if file.is_file():
        facts |= _record_facts(_read(file))
    if (path / PLAN).is_file():
        plan = _plan(path)
        facts |= {"runs_on_disk": _states_on_disk(path, plan), "resume": plan.get("command")}
    return facts


def _of_record(file: Path) -> list[str]:
    record = _read(file)
    runs = {run.identity: run.state for arm in record.arms for run in arm.runs.values()}
    attributes = record.attributes
    lines = [
        f"{file}: whole (checksum ok), schema {attributes['schema_version']}, "
        f"fisherkit {attributes['fisherkit_version']}",
        f"study    {attributes.get('name', record.protocol)} ({record.protocol}), {len(record.arms)} arms over "
        f"{record.axis}, seeds {', '.join(map(str, record.seeds))}",
        *([f"command  {attributes['command']}"] if attributes.get("command") else []),
        f"runs     {_counted(runs.values())}",
    ]
    for arm in record.arms:
        states = Counter(run.state for run in arm.runs.values())
        messages = "; ".join(dict.fromkeys(run.message for run in arm.runs.values() if run.message))
        lines.append(
            f"         {arm.label:{_LABEL}} {_counted(states.elements())}" + (f": {messages}" if messages else "")
        )
    return lines


def _record_facts(record: "StudyRecord") -> dict[str, Any]:
    return {
        "whole": True,  # as for a run
        "protocol": record.protocol,
        "axis": record.axis,
        "seeds": list(record.seeds),
        "attributes": dict(record.attributes),
        "options": dict(record.options),
        "arms": {arm.label: {str(seed): run.state for seed, run in arm.runs.items()} for arm in record.arms},
    }


def _of_plan(folder: Path) -> list[str]:
    """How far the runs are now, and the command that goes on with them."""
    plan = _plan(folder)
    states = _states_on_disk(folder, plan)
    lines = [f"on disk  {_counted(states.values())}, in {folder.absolute().parent / RUNS}"]
    if all(state in ("finished", "exploded") for state in states.values()):
        return [*lines, "goes on  not: all runs are done"]
    writer = last_writer(folder.absolute().parent)
    lines += [f"writer   {writer}"] if writer else []
    command = plan.get("command") or f"the command that began it; its options are in {folder / PLAN}"
    return [*lines, f"goes on  {command}"]


def _of_all(folder: Path) -> list[str]:
    lines = [f"{folder}: {len(list((folder / RUNS).iterdir()))} runs"]
    for study in _studies(folder):
        plan = _plan(study)
        counted = _counted(_states_on_disk(study, plan).values())
        lines.append(f"study    {study.name} ({plan['protocol']}): {counted}; {_show(study)}")
    return lines


def _studies(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{PLAN}"))


def _show(folder: Path) -> str:
    return shlex.join(["fisherkit", "show", str(folder)])


def _states_on_disk(folder: Path, plan: Mapping[str, Any]) -> dict[str, str]:
    """The state of each run of the plan, by identity, as its file is now."""
    return {identity: _state(folder.absolute().parent / RUNS / identity / "run.h5") for identity in plan["runs"]}


def _state(file: Path) -> str:
    from fisherkit.errors import UnreadableFile
    from fisherkit.recording import read

    try:
        return run_state(read(file))
    except FileNotFoundError:
        return "missing"
    except UnreadableFile:
        return "unreadable"


def _plan(folder: Path) -> dict[str, Any]:
    from fisherkit.studies.conduct import read_plan

    return read_plan(folder / PLAN)


def _read(file: Path) -> "StudyRecord":
    from fisherkit.recording import read_study

    return read_study(file)


def _counted(states: Iterable[str]) -> str:
    """`12 finished, 1 missing`."""
    counts = Counter(states)
    named = [state for state in _STATES if counts[state]] + sorted(set(counts) - set(_STATES))
    return ", ".join(f"{counts[state]} {state}" for state in named) or "none"
