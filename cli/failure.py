"""Errors as a user sees them: one or two lines with the remedy, and an exit status (docs/exit-codes.md)."""

import errno
import io
import os
import signal
import traceback

import click

from fisherkit.errors import BadName, FolderInUse, RunRefused, UnreadableFile

FAILURE, USAGE = 1, 2
BAD_NAME, BAD_DATA, IN_USE = 64, 65, 75  # EX_USAGE, EX_DATAERR, EX_TEMPFAIL of sysexits.h
INTERRUPTED = 128 + signal.SIGINT
_NO_ACCESS = "Change the permissions there, or choose another place, such as another --out."
_REMEDIES = {
    os.strerror(errno.EACCES): _NO_ACCESS,
    os.strerror(errno.EPERM): _NO_ACCESS,
    os.strerror(errno.EROFS): "Choose another place, such as another --out.",
}
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
        discard_output()
        return FAILURE
    if isinstance(error, OSError) and error.filename is None and _in_printing(error):
        discard_output()
        why = f"standard output could not be written ({error.strerror})"
        click.echo(f"fisherkit: {why}. Send it to a place that takes it.", err=True)
        return FAILURE
    _say(error)
    if isinstance(error, FolderInUse):
        return IN_USE
    if isinstance(error, BadName):
        return BAD_NAME
    return USAGE if isinstance(error, ValueError) else FAILURE


def discard_output() -> None:
    """Let standard output go nowhere from now on, also what Python still holds back of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _in_printing(error: Exception) -> bool:
    """Whether it happened in what prints: errors of a file have its name, those of standard output have none."""
    places = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(places) and places[-1].partition(".")[0] in ("click", "rich")


def _say(error: Exception) -> None:
    rank = os.environ.get("RANK", "0")
    who = "fisherkit" if rank == "0" else f"fisherkit, process {rank}"
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        remedy = _REMEDIES.get(error.strerror)  # none where whoever raised it has said more than the system
        text = f"{error.filename}: {error.strerror}{f'. {remedy}' if remedy else ''}"
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
