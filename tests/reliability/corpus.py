"""The hostile corpus: files and texts that somebody may hand to fisherkit, with what it should say.

Each is a command line with the files that it names; the modules corpus_<kind>.py list them by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# never to be read: its text must not appear in what a command prints, nor its time of access change
SECRET = "the text of another file of this user"
# made by code that a hostile file asks for
EXECUTED = "executed"


def nothing(folder: Path) -> None:
    """Makes no file."""


class Call:
    """Pickled as a call of the function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


@dataclass(frozen=True)
class Case:
    """A command line; `{}` in its arguments is the folder in which `make` writes the files that it names.

    `says` is a regular expression that the message holds, `file` the name of the file that it names. Status 0: the
    command does its work, and what it prints is harmless. `may`: what it may do nevertheless, as regular expression.
    """

    name: str
    arguments: tuple[str, ...]
    make: Callable[[Path], object] = nothing
    says: str = ""
    status: int = 65
    file: str = ""
    may: str = "nothing"


def write(name: str, data: bytes | str) -> Callable[[Path], object]:
    """Writes a file of that name."""
    contents = data.encode() if isinstance(data, str) else data
    return lambda folder: (folder / name).write_bytes(contents)
