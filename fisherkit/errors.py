"""The errors a user can meet that Python has no name for."""

from pathlib import Path


class UnreadableFile(Exception):  # noqa: N818  (a state of the file, not of the program)
    """A file that cannot be used; the message names the file, the place in it, what is wrong and the remedy.

    The command line prints it as one line and exits with status 65 (EX_DATAERR).
    """

    def __init__(self, path: str | Path, problem: str, *, dataset: str | None = None) -> None:
        self.path = Path(path)
        self.problem = problem
        self.dataset = dataset
        super().__init__(path, problem, dataset)

    def __str__(self) -> str:
        place = f"{self.path}" if self.dataset is None else f"{self.path}, {self.dataset}"
        return f"{place}: {self.problem}"


class BadName(ValueError):  # noqa: N818
    """A name that no run or study can have; the command line exits with status 64 (EX_USAGE)."""


class RunRefused(Exception):  # noqa: N818
    """A run folder that this command must not write into: it holds another run, or another process has it."""


class FolderInUse(RunRefused):
    """Another process writes into the folder or the file now; the command line exits with status 75 (EX_TEMPFAIL)."""
