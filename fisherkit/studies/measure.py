"""The same measurement on checkpoints of any training, into the same kind of file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fisherkit.fisher import FisherTrace
from fisherkit.recording import Trajectory
from fisherkit.recording.tracker import FisherTracker
from fisherkit.studies.numbering import numbered, without_numbers
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
        UnreadableFile: a checkpoint cannot be read or does not fit; the rows before it are in the file.
    """
    checkpoints = numbered(paths)
    if without_numbers(paths) and len(paths) > 1 and notice is not None:
        notice("no checkpoint has a number in its name: they are 0, 1, 2, ... in the order given, not epochs.")
    facts = {"checkpoints": [path.name for _, path in checkpoints], **(attributes or {})}
    with FisherTracker(out, model, probe, attributes=facts, notice=notice, **options) as tracker:
        for number, path in checkpoints:
            load_weights(model, path)
            result = tracker.record(float(number), step=number)
            assert result is not None
            if measured is not None:
                measured(number, path, result)
        tracker.file.update_attributes(finished=True)
        return tracker.trajectory
