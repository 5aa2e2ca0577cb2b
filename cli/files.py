"""Run files as a user names them: the file, or the folder of the run."""

import os
import stat
from pathlib import Path

import click

RUNS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
RUN = "run.h5"


def run_file(path: Path) -> Path:
    """The file itself, or `run.h5` in the folder.

    Raises:
        ValueError: there is neither; says what there is.
    """
    file = path / RUN if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"run must be a run file or the folder of a run; got {str(path)!r}, {what_is(path)}.")
    return file


def what_is(path: Path) -> str:
    """What is there that holds no run: "which does not exist", "an empty folder", ..."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode):
            return "which is neither a file nor a folder"
        names = os.listdir(path)
    except FileNotFoundError:
        return "a link to what does not exist" if path.is_symlink() else "which does not exist"
    except OSError as error:
        return f"which cannot be read ({error.strerror})"
    runs = sorted(name for name in names if (path / name / RUN).is_file())
    if runs:
        return f"a folder of several; name the runs in it: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}"
    return "a folder that holds none" if names else "which is an empty folder"
