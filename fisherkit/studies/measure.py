"""The same measurement on checkpoints of any training, into the same kind of file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fisherkit.fisher import FisherTrace
from fisherkit.recording import Trajectory
from fisherkit.recording.tracker import FisherTracker
from fisherkit.training.weights import load_weights, numbered


def measure_checkpoints(
    paths: Sequence[Path],
    model: nn.Module,
    probe: Any,
    out: Path,
    *,
    attributes: Mapping[str, Any] | None = None,
    measured: Callable[[int, Path, FisherTrace], None] | None = None,
    **options: Any,
) -> Trajectory:
    """One row for each checkpoint, in the order of the numbers in their names, which become `epoch` and `step`.

    Args:
        paths: state dicts (torch, loaded with weights_only) or safetensors files that fit the model.
        model: is loaded with each of them in turn.
        probe: as for `FisherTracker`.
        out: the run file.
        measured: called after each.
        options: as for `fisher_trace`.

    Raises:
        UnreadableFile: a checkpoint cannot be read or does not fit; the rows before it are in the file.
    """
    facts = {"checkpoints": [path.name for _, path in numbered(list(paths))], **(attributes or {})}
    with FisherTracker(out, model, probe, attributes=facts, **options) as tracker:
        for number, path in numbered(list(paths)):
            load_weights(model, path)
            result = tracker.record(float(number), step=number)
            assert result is not None
            if measured is not None:
                measured(number, path, result)
        tracker.file.update_attributes(finished=True)
        return tracker.trajectory
