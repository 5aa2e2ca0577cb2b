"""Errors as a user sees them: one or two lines with the remedy, and an exit status (docs/exit-codes.md)."""

import io
import os
import signal

import click

from fisherkit.errors import BadName, FolderInUse, RunRefused, UnreadableFile

FAILURE, USAGE = 1, 2
BAD_NAME, BAD_DATA, IN_USE = 64, 65, 75  # EX_USAGE, EX_DATAERR, EX_TEMPFAIL of sysexits.h
INTERRUPTED = 128 + signal.SIGINT
_LONGEST = 1_000  # letters of a line


def report(error: Exception) -> int:
    """Print what went wrong to standard error and return the exit status."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):  # Ctrl-C where no run is in progress
        click.echo("Stopped.", err=True)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(file=shown)
        click.echo(_line(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    if isinstance(error, UnreadableFile):
        click.echo(f"fisherkit: {_line(str(error))}", err=True)
        return BAD_DATA
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # pydantic's, not imported for this
        for found in error.errors():
            option = "--" + str(found["loc"][0] if found["loc"] else "").replace("_", "-")
            click.echo(_line(f"fisherkit: {option}: {found['msg']}; got {found['input']!r}."), err=True)
        return USAGE
    if isinstance(error, BrokenPipeError):  # whoever read the output, `head`, say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still holds back
        return FAILURE
    _say(error)
    if isinstance(error, FolderInUse):
        return IN_USE
    if isinstance(error, BadName):
        return BAD_NAME
    return USAGE if isinstance(error, ValueError) else FAILURE


def _say(error: Exception) -> None:
    rank = os.environ.get("RANK", "0")
    who = "fisherkit" if rank == "0" else f"fisherkit, process {rank}"
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    expected = isinstance(error, ValueError | RunRefused | ArithmeticError | MemoryError) or text != str(error)
    click.echo(f"{who}: {'' if expected else type(error).__name__ + ': '}{_line(text)}", err=True)
    if not expected:
        click.echo("Run again with `fisherkit --debug ...` for the traceback.", err=True)


def _line(text: str) -> str:
    """The text, printable; of lines as long as a file can make them, the begin and the end, where the remedy is."""
    lines = (line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
             for line in printable(text).split("\n"))  # fmt: skip
    return "\n".join(lines)


def printable(text: str) -> str:
    """The text with control and bidirectional characters escaped, so that a file cannot steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
