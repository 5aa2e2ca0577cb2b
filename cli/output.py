"""Printing while work is in progress, which goes on where nobody reads it."""

import os
import sys

import click

from .failure import printable


def say(text: str) -> str | None:
    """Print a line; why not, the first time that standard output takes nothing (its reader has gone, a disk is full).

    From then on what is printed goes nowhere.
    """
    try:
        click.echo(printable(text))
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return error.strerror or "unknown error"
    return None
