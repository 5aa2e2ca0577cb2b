"""The same measurement on checkpoints of any training, into the same kind of file."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fisherkit.errors import RunRefused
from fisherkit.fisher import FisherTrace
from fisherkit.fisher.processes import processes
from fisherkit.recording import Trajectory
from fisherkit.recording.tracker import FisherTracker
from fisherkit.studies.numbering import number_in, numbered, without_numbers
from fisherkit.training.weights import load_weights


def measure_checkpoints(
    paths: Sequence[Path],
    model: nn.Module,
    probe: Any,
    out: Path,
    *,
    attributes: Mapping[str, Any] | None = None,
    measured: Callable[[int, Path, FisherTrace], None] | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Trajectory:
    """One row for each checkpoint, in the order of the numbers in their names, which become `epoch` and `step`.

    Where no name has a number they are 0, 1, 2, ... in the order given.

    A file at `out` is gone on with: its checkpoints must be among those given, and their rows come out bit for bit the
    same; new ones may come anywhere between them. It is replaced once all of its rows are there again.

    Args:
        paths: state dicts (torch, loaded with weights_only) or safetensors files that fit the model.
        model: is loaded with each of them in turn.
        probe: as for `FisherTracker`.
        out: the run file.
        measured: called after each.
        notice: receives what a user should know.
        options: as for `fisher_trace`.

    Raises:
        ValueError: some names have a number and others have none, or two have the same.
        OSError: nothing can be written at `out`; found out before anything is measured.
        RunRefused: the file at `out` is of other checkpoints, or does not come out the same.
        UnreadableFile: a checkpoint cannot be read or does not fit; the rows before it are in the file.
    """
    checkpoints = numbered(paths)
    if without_numbers(paths) and len(paths) > 1 and notice is not None:
        notice("no checkpoint has a number in its name: they are 0, 1, 2, ... in the order given, not epochs.")
    load_weights(model, checkpoints[0][1])  # refused, if at all, before anything is written
    if processes(distributed=options.get("distributed", True)).rank == 0:
        _check_place(out)
    facts = {"checkpoints": [path.name for _, path in checkpoints], **(attributes or {})}
    with FisherTracker(out, model, probe, attributes=facts, notice=notice, **options) as tracker:
        if tracker.file.held is not None:
            _check_held(tracker.file.held, checkpoints, out)
        tracker.file.accept_rows_between()
        for place, (number, path) in enumerate(checkpoints):
            if place > 0:
                load_weights(model, path)
            result = tracker.record(float(number), step=number)
            assert result is not None
            if measured is not None:
                measured(number, path, result)
        tracker.file.update_attributes(finished=True)
        return tracker.trajectory


def _check_place(out: Path) -> None:
    """Whether a file can be made where the run file is to be.

    Raises:
        OSError: It cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        problem = f"{said}: no file can be written in this folder, so nothing was measured. Choose another place for it"
        raise OSError(error.errno, problem, str(out)) from error


def _check_held(held: Trajectory, checkpoints: Sequence[tuple[int, Path]], out: Path) -> None:
    """Whether the checkpoints that a file holds are among those given, under the same numbers.

    Raises:
        RunRefused: they are not.
    """
    given, names = dict(checkpoints), held.attributes.get("checkpoints", [])
    steps = held.series["step"].tolist()
    for place, step in enumerate(steps):
        name = names[place] if len(names) >= len(steps) else f"epoch {step}"
        if step not in given:
            raise RunRefused(
                f"{out} holds {name}, which is not among the checkpoints given. Give it too, or choose another file "
                "for these (--out)."
            )
        if number_in(given[step]) is None and name != given[step].name:
            raise RunRefused(
                f"{out} holds {name} as number {step}, which is now {given[step].name}: names without a number count "
                "in the order given. Give new ones after those, or choose another file (--out)."
            )
