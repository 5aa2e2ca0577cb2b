"""Names that become folders: what they may be made of, and that they stay where they belong."""

import re
from pathlib import Path

from fisherkit.errors import BadName

_RULE = "1 to 100 letters, digits and . _ -, the first a letter or digit and the last no dot"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # they are no files on Windows


def check_name(name: str, argument: str) -> str:
    """The name, if it can be that of a folder on every system, and is no way to another folder.

    Raises:
        BadName: it has other characters, is too long, or is the name of a device.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadName(f"{argument} must be {_RULE}; got {name[:120]!r}.")
    if _DEVICES.fullmatch(name):
        raise BadName(f"{argument} must not be the name of a device; got {name!r}. Choose another.")
    return name


def folder_named(parent: Path, name: str, argument: str) -> Path:
    """`parent/name`, whose name is as `check_name` says, and which is no link to somewhere else.

    Raises:
        BadName: the name cannot be used, or the folder is a link out of `parent`.
    """
    folder = parent / check_name(name, argument)
    if folder.is_symlink() and folder.resolve().parent != parent.resolve():
        raise BadName(f"{argument} must be that of a folder in {parent}; {folder} is a link to {folder.resolve()}.")
    return folder


def check_new_folder(folder: Path, argument: str) -> Path:
    """The folder as it is given, if it is there or its own name is one as `check_name` says.

    Raises:
        BadName: it would be made, and cannot have that name.
    """
    if not folder.is_dir():
        check_name(folder.name, f"the last part of {argument}")
    return folder
