"""The number of each checkpoint, by which a trajectory is ordered: the one in its name."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path


def numbered(paths: Sequence[Path]) -> list[tuple[int, Path]]:
    """Each checkpoint with the last number in its name (ckpt-1200-..., epoch_12.pt), in that order.

    Where no name has a number: 0, 1, 2, ... in the order given.

    Raises:
        ValueError: some names have a number and others have none, or two are the same file or have the same number.
    """
    _refuse_twice(paths)
    found = [(number_in(path), path) for path in paths]
    without = [path for number, path in found if number is None]
    if len(without) == len(paths):
        return list(enumerate(paths))
    if without:
        raise ValueError(
            f"checkpoints must have a number in every name, or in none; got {str(without[0])!r} without one, and "
            f"{len(paths) - len(without)} with. Give it one, as in epoch_12.pt, or leave it out."
        )
    ordered = sorted((number, path) for number, path in found if number is not None)
    for (number, path), (after, other) in pairwise(ordered):
        if number == after:
            raise ValueError(
                f"checkpoints must have different numbers in their names; got {number} in {str(path)!r} and "
                f"{str(other)!r}. Rename one of them, or measure it into another file."
            )
    return ordered


def without_numbers(paths: Sequence[Path]) -> bool:
    """Whether no name has a number, so that they count in the order given."""
    return all(number_in(path) is None for path in paths)


def number_in(path: Path) -> int | None:
    """The last number in the name; of fisherkit's own checkpoints the step. None where there is none."""
    own = re.fullmatch(r"ckpt-([0-9]+)-[0-9a-f]{16}", path.stem)
    found = [own[1]] if own else re.findall(r"[0-9]+", path.stem)
    return int(found[-1]) if found and len(found[-1]) < 16 else None


def _refuse_twice(paths: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in paths:
        real = path.resolve()
        if real in seen:
            raise ValueError(
                f"checkpoints must be different files; got {str(seen[real])!r} and {str(path)!r}, which are the same. "
                "Leave one out."
            )
        seen[real] = path
