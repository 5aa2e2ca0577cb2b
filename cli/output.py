"""Printing while work is in progress, which goes on where nobody reads it."""

import click

from .failure import discard_output, printable


def say(text: str) -> str | None:
    """Print a line; why not, the first time that standard output takes nothing (its reader has gone, a disk is full).

    From then on what is printed goes nowhere.
    """
    try:
        click.echo(printable(text))
    except OSError as error:
        discard_output()
        return error.strerror or "unknown error"
    return None
