"""Reading TOML files that somebody else may have written."""

import tomllib
from pathlib import Path
from typing import Any

_LARGEST = 2**20
_MOST_DOTS = 1_000  # of a line: `tomllib` takes quadratic time and memory for a key of many parts


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of the file.

    Raises:
        ValueError: It is not TOML, or larger or deeper than any configuration; the message begins with the path.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} must be a TOML file of at most {_LARGEST:,} bytes; it is larger.")
    data = path.read_bytes()
    if any(line.count(b".") > _MOST_DOTS for line in data.splitlines()):
        raise ValueError(f"{path} must have at most {_MOST_DOTS:,} dots in a line; it has more.")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # lists in lists in lists
        raise ValueError(f"{path} must be a TOML file; it is not: {error}") from error
