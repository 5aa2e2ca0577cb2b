"""Run files as a user names them: the file, or the folder of the run."""

from pathlib import Path

import click

RUNS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))


def run_file(path: Path) -> Path:
    """The file itself, or `run.h5` in the folder.

    Raises:
        ValueError: there is neither.
    """
    file = path / "run.h5" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"run must be a run file or the folder of a run; got {str(path)!r}, which is neither.")
    return file
