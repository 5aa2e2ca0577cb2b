"""The uninterrupted run that an interrupted one must equal, byte for byte, times aside."""

import bisect
import dataclasses
import time
from pathlib import Path

import numpy as np
from forked_runs import forked
from runs import small
from torch import Tensor

import fisherkit
from fisherkit.recording import Trajectory, from_bytes, to_bytes
from fisherkit.training import newest_checkpoint


def timeless(trajectory: Trajectory) -> bytes:
    """The run file, had it taken no time."""
    series = {**trajectory.series, "elapsed_s": np.zeros(len(trajectory))}
    return to_bytes(dataclasses.replace(trajectory, series=series))


def bits(value, place: str = "") -> dict[str, object]:
    """Every tensor and number of a state, by place; tensors as bytes. Not the times."""
    if isinstance(value, dict):
        inner = [bits(part, f"{place}/{name}") for name, part in value.items() if name != "elapsed_s"]
        return {name: found for part in inner for name, found in part.items()}
    if isinstance(value, Tensor):
        return {place: (str(value.dtype), tuple(value.shape), value.numpy().tobytes())}
    return {place: value}


def result(folder: Path) -> tuple[bytes, dict[str, object]]:
    """The file and the last checkpoint of a run, both without times."""
    saved = newest_checkpoint(folder).contents
    rows = from_bytes(saved.pop("rows").numpy().tobytes())
    return timeless(fisherkit.read(folder / "run.h5")), {**bits(saved), "rows": timeless(rows)}


@dataclasses.dataclass(frozen=True)
class Whole:
    """The uninterrupted run: its command, its bytes, and what was done to training when."""

    arguments: tuple[str, ...]
    trajectory: Trajectory
    file: bytes
    state: dict[str, object]
    step_s: float
    start_s: float

    @property
    def schedule(self) -> list[dict]:
        """What was done in each epoch, and the step after which it ended."""
        return self.trajectory.attributes["schedule"]

    @property
    def steps(self) -> int:
        return self.schedule[-1]["step"]

    def moment(self, step: int) -> tuple[str, str]:
        """Of the step after so many: whether under a deficit, and whether before the event."""
        ends = [found["step"] for found in self.schedule]
        epoch = min(bisect.bisect_right(ends, step), len(ends) - 1)  # the last one, also after its last step
        after = any(found["events"] for found in self.schedule[: epoch + 1])
        return ("deficit on" if self.schedule[epoch]["deficits"] else "off", "after the event" if after else "before")

    def differences(self, folder: Path) -> list[str]:
        """Of the run in a folder, from this one."""
        file, state = result(folder)
        return [name for name, same in (("run.h5", file == self.file), ("weights", state == self.state)) if not same]

    def finish(self, folder: Path) -> list[str]:
        """Run the command to its end; the differences then."""
        with forked(*self.arguments, "--out", str(folder), output=folder.with_suffix(".log")) as run:
            assert run.end() == 0, run.text()
        return self.differences(folder)


def whole_run(folder: Path, **changes) -> Whole:
    """Six epochs: a deficit that goes and comes, an event between; done in `folder`, which is made."""
    folder.mkdir()
    options = dict(epochs=6, deficit=("blur:0-2", "noise:4-5"), event=("shrink_perturb(0.5,0.1):3",))
    (folder / "run.json").write_text(small(**{**options, **changes}).model_dump_json())
    arguments = ("track", "--specification", str(folder / "run.json"))
    began_s = time.monotonic()
    with forked(*arguments, "--out", str(folder / "whole"), output=folder / "log") as run:
        assert run.end() == 0, run.text()
    file, state = result(folder / "whole")
    start, first, last = run.steps[0], run.steps[1], run.steps[-1]
    return Whole(
        arguments,
        fisherkit.read(folder / "whole" / "run.h5"),
        file,
        state,
        step_s=(last.time_s - first.time_s) / (last.number - first.number),
        start_s=start.time_s - began_s,
    )


def saved_step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("ckpt-*.pt")), default=0)
