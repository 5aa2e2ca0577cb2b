"""What `show` says of a folder that is no run and no study but holds some: a line for each."""

import shlex
from pathlib import Path
from typing import Any

from .files import RUN, what_is
from .show_run import RunFolder
from .show_study import RUNS, is_study


def is_run(path: Path) -> bool:
    """Whether that is a file, or the folder of a run."""
    return path.is_file() or any((path / name).is_file() for name in (RUN, "config.json"))


def parts_of(folder: Path) -> list[Path]:
    """The runs, the studies, and the folders of such, that lie in it.

    Raises:
        ValueError: there is none; says what there is.
    """
    found = [
        path for path in _inside(folder) if path.suffix == ".h5" or _shown(path) or any(map(_shown, _inside(path)))
    ]
    if not found:
        raise ValueError(
            "run must be a run file, a study file, or the folder of a run, a study or several of them; "
            f"got {str(folder)!r}, {what_is(folder)}."
        )
    return found


def folder_lines(folder: Path) -> list[str]:
    """The state of each."""
    parts = parts_of(folder)
    width = max(len(path.name) for path in parts)
    lines = [f"         {path.name:{width}}  {_state(path)}" for path in parts]
    return [
        f"{folder}: holds {len(parts)} runs, studies or folders of them",
        *lines,
        f"each     fisherkit show {shlex.quote(str(folder))}/NAME",
    ]


def folder_facts(folder: Path) -> dict[str, Any]:
    """The same, JSON-able."""
    return {"folder": str(folder), "holds": {path.name: _state(path) for path in parts_of(folder)}}


def _inside(folder: Path) -> list[Path]:
    """The folders and the HDF5 files in it; none where it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() or (path.suffix == ".h5" and path.is_file()))
    except OSError:
        return []


def _shown(folder: Path) -> bool:
    return folder.is_dir() and (is_run(folder) or is_study(folder))


def _state(path: Path) -> str:
    from fisherkit.errors import UnreadableFile

    try:
        if is_study(path):
            return "study" if path.is_file() or not (path / RUNS).is_dir() else "studies"
        if not is_run(path):
            return "folder of runs or studies"
        run = RunFolder.at(path)
        return f"{run.state}, {'no row yet' if run.trajectory is None else f'{len(run.trajectory)} rows'}"
    except UnreadableFile as error:
        return f"unreadable: {error.problem}"
