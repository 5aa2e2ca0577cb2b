"""Where a run goes on: its own newest checkpoint, or that of another run which was the same run so far."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.recording import Trajectory, from_bytes
from fisherkit.studies.plan import Branch
from fisherkit.studies.prefix import Course
from fisherkit.studies.specification import RunSpecification
from fisherkit.training import FoundCheckpoint, differing_numerics, kept_checkpoint, kept_epochs, newest_checkpoint


@dataclass(frozen=True)
class Beginning:
    """The state in which a run goes on; `branch` where it is another run's."""

    training: dict[str, Any]
    rows: Trajectory
    elapsed_s: float
    branch: Branch | None = None


_PARTS = {"training": dict, "rows": Tensor, "numerics": dict, "elapsed_s": float}  # of a run's checkpoint


def contents(training: dict[str, Any], rows: bytes, *, numerics: dict[str, Any], elapsed_s: float) -> dict[str, Any]:
    """What a checkpoint of a run holds: the training, the rows recorded so far, what their bits depend on."""
    image = torch.from_numpy(np.frombuffer(rows, dtype=np.uint8).copy())
    return {"training": training, "rows": image, "numerics": numerics, "elapsed_s": elapsed_s}


def beginning(
    folder: Path,
    specification: RunSpecification,
    numerics: dict[str, Any],
    *,
    images: dict[str, str],
    branch: tuple[Path, int] | None = None,
    accept_different_numerics: bool = False,
    notice: Callable[[str], None],
) -> Beginning | None:
    """The newest whole checkpoint of the folder; where there is none, that of the branch; None: from the start.

    `images` are the digests of the images that the run is on, which a branch must be on too.

    Raises:
        RunRefused: the branch is no beginning of this run, or not there; or this machine would not go on with the
            run's own checkpoint to the same bits. (A branch with other numerics is not used, with a notice.)
        UnreadableFile: a checkpoint cannot be used.
    """
    found = newest_checkpoint(folder)
    if found is not None:
        for text in found.notices:
            notice(text)
        _check_parts(found, folder)
        _check_numerics(found, folder, numerics, accept=accept_different_numerics)
        return _read(found, folder)
    if branch is None:
        return None
    parent, epoch = branch
    kept = kept_checkpoint(parent, epoch)
    if kept is None:
        there = ", ".join(map(str, kept_epochs(parent))) or "none"
        raise RunRefused(f"branch_epoch must be one that {parent} holds a kept checkpoint of ({there}); got {epoch}.")
    _check_parts(kept, parent)
    differing = differing_numerics(kept.contents["numerics"], numerics)
    if differing and not accept_different_numerics:
        notice(
            f"Epochs 1 to {epoch} are trained again, for {parent} was run with other numerics "
            f"({'; '.join(differing)}): to go on from there would not give the bits of a run of its own."
        )
        return None
    start = _read(kept, parent)
    same = _same_run(start.rows, specification, parent, epoch)
    if start.rows.attributes.get("images") != images:
        raise RunRefused(f"branch_from must be a run on the same images; {parent} is on others. Give its --data-dir.")
    return dataclasses.replace(start, branch=same)


def _check_parts(found: FoundCheckpoint, folder: Path) -> None:
    wrong = [name for name, kind in _PARTS.items() if not isinstance(found.contents.get(name), kind)]
    if wrong:
        raise UnreadableFile(
            _described(found, folder), f"not a checkpoint of a run: it has no {', '.join(wrong)}. Move it away."
        )


def _described(found: FoundCheckpoint, folder: Path) -> Path:
    return folder / f"checkpoint of step {found.step}"


def _check_numerics(found: FoundCheckpoint, folder: Path, numerics: dict[str, Any], *, accept: bool) -> None:
    differing = differing_numerics(found.contents["numerics"], numerics)
    if differing and not accept:
        raise RunRefused(
            f"{folder} was run with other numerics ({'; '.join(differing)}), so it would not continue to the "
            "same bits. Continue as before, or accept that with --accept-different-numerics."
        )


def _read(found: FoundCheckpoint, folder: Path) -> Beginning:
    saved = found.contents
    rows: Tensor = saved["rows"]
    trajectory = from_bytes(rows.numpy().tobytes(), _described(found, folder))
    return Beginning(saved["training"], trajectory, float(saved["elapsed_s"]))


def _same_run(rows: Trajectory, specification: RunSpecification, parent: Path, epoch: int) -> Branch:
    """The branch, when the parent was the same run up to it."""
    try:
        before = RunSpecification.model_validate(rows.attributes["configuration"])
    except (KeyError, ValueError) as error:
        raise UnreadableFile(parent, "its checkpoint does not say which run it is of.") from error
    shared = Course.of(before).shared(Course.of(specification))
    if shared < epoch:
        differing = "; ".join(specification.differing_options(before)) or "nothing"
        raise RunRefused(
            f"branch_from must be a run that is the same up to epoch {epoch}; {parent} is so up to epoch {shared}. "
            f"They differ in {differing}."
        )
    return Branch(before.identity, epoch)
