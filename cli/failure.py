"""Errors as a user sees them: one or two lines with the remedy, and an exit status."""

import os

import click

from fisherkit.errors import FolderInUse, RunRefused, UnreadableFile

USAGE, FAILURE, BAD_DATA, IN_USE = 2, 1, 65, 75


def report(error: Exception) -> int:
    """Print what went wrong to standard error and return the exit status."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):
        click.echo("Aborted.", err=True)
        return FAILURE
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, UnreadableFile):
        click.echo(f"fisherkit: {printable(str(error))}", err=True)
        return BAD_DATA
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # pydantic's, not imported for this
        for found in error.errors():
            option = "--" + str(found["loc"][0] if found["loc"] else "").replace("_", "-")
            click.echo(f"fisherkit: {option}: {printable(found['msg'])}; got {found['input']!r}.", err=True)
        return USAGE
    kind = (
        ""
        if isinstance(error, ValueError | RunRefused | ArithmeticError | MemoryError)
        else type(error).__name__ + ": "
    )
    rank = os.environ.get("RANK", "0")
    who = "fisherkit" if rank == "0" else f"fisherkit, process {rank}"
    click.echo(f"{who}: {kind}{printable(str(error))}", err=True)
    if kind:
        click.echo("Run again with `fisherkit --debug ...` for the traceback.", err=True)
    if isinstance(error, FolderInUse):
        return IN_USE
    return USAGE if isinstance(error, ValueError) else FAILURE


def printable(text: str) -> str:
    """The text with control and bidirectional characters escaped, so that a file cannot steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
