"""kill -9 of `track` at random steps of training: the same command goes on to the bytes of the uninterrupted run."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from forked_runs import checkpoint_often, forked
from runs import small
from torch import Tensor

import fisherkit
from fisherkit.recording import Trajectory, from_bytes, to_bytes
from fisherkit.training import newest_checkpoint

SETTINGS = [(1, 0), (1, 2), (2, 0), (2, 2)]  # threads, windows of the data fraction
FRACTIONS = ("0.5:0-2", "0.8:3-5")
KILLS_A_RUN = 3


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


@dataclasses.dataclass(frozen=True)
class Whole:
    """The uninterrupted run: its command, its bytes, and what was done to training when."""

    arguments: tuple[str, ...]
    file: bytes
    state: dict[str, object]
    schedule: list[dict]
    step_s: float
    start_s: float

    def moment(self, step: int) -> tuple[str, str]:
        """Of the step after so many: whether under a deficit, and whether before the event."""
        epoch = next(number for number, found in enumerate(self.schedule) if found["step"] > step)
        after = any(found["events"] for found in self.schedule[: epoch + 1])
        return ("deficit on" if self.schedule[epoch]["deficits"] else "off", "after the event" if after else "before")

    def differences(self, folder: Path) -> list[str]:
        """Of the run in a folder, from this one."""
        found = result(folder)
        return [
            name for name, same in (("run.h5", found[0] == self.file), ("weights", found[1] == self.state)) if not same
        ]


def result(folder: Path) -> tuple[bytes, dict[str, object]]:
    """The file and the last checkpoint of a run, both without times."""
    saved = newest_checkpoint(folder).contents
    rows = from_bytes(saved.pop("rows").numpy().tobytes())
    return timeless(fisherkit.read(folder / "run.h5")), {**bits(saved), "rows": timeless(rows)}


def whole_run(folder: Path, threads: int, windows: int) -> Whole:
    folder.mkdir()
    specification = small(
        epochs=6,
        deficit=("blur:0-2", "noise:4-5"),
        event=("shrink_perturb(0.5,0.1):3",),
        fraction=FRACTIONS[:windows],
        threads=threads,
    )
    (folder / "run.json").write_text(specification.model_dump_json())
    arguments = ("track", "--specification", str(folder / "run.json"))
    began = time.monotonic()
    with forked(*arguments, "--out", str(folder / "whole"), output=folder / "log") as run:
        assert run.end() == 0, run.text()
    file, state = result(folder / "whole")
    schedule = fisherkit.read(folder / "whole" / "run.h5").attributes["schedule"]
    first, last = run.steps[0], run.steps[-1]
    step_s = (last.time_s - first.time_s) / (last.number - first.number)
    return Whole(arguments, file, state, schedule, step_s, start_s=first.time_s - began)


def kill_once(whole: Whole, folder: Path, rng: random.Random) -> int | None:
    """Start, and kill -9 after a step drawn at random of those left, or before the first; None: it was too quick."""
    saved = max((int(path.name.split("-")[1]) for path in folder.glob("ckpt-*.pt")), default=0)
    target = rng.randint(saved, whole.schedule[-1]["step"] - 1)
    often = rng.choice([0.03, 1e9])  # checkpoints as usual, or at every epoch
    out = ("--out", str(folder))
    with forked(
        *whole.arguments, *out, output=folder.with_suffix(".log"), prepare=checkpoint_often, given=(often,)
    ) as run:
        longest_s = 1.5 * whole.step_s if target > saved and run.wait_for_step(target) else whole.start_s
        time.sleep(rng.uniform(0, longest_s))
        run.process.kill()
        status = run.end()
        assert status in (0, -signal.SIGKILL), run.text()
    if (folder / "run.h5").exists():
        fisherkit.read(folder / "run.h5")  # always whole
    return None if status == 0 else run.steps[-1].number if run.steps else saved


def finish(whole: Whole, folder: Path) -> list[str]:
    with forked(*whole.arguments, "--out", str(folder), output=folder.with_suffix(".log")) as run:
        assert run.end() == 0, run.text()
    return whole.differences(folder)


@pytest.mark.parametrize(("threads", "windows"), SETTINGS, ids=str)
def test_killed_at_random_steps_a_run_goes_on_to_the_same_bytes(tmp_path, count, publish, threads: int, windows: int):
    goal, rng = count(short=3, full=50), random.Random(f"{threads} {windows}")
    whole = whole_run(tmp_path / "whole", threads, windows)
    kills: list[tuple[str, str]] = []
    different, runs = [], 0
    while len(kills) < goal:
        folder = tmp_path / f"run{runs}"
        for _ in range(min(KILLS_A_RUN, goal - len(kills))):
            step = kill_once(whole, folder, rng)
            if step is None:
                break
            kills.append(whole.moment(step))
        different += finish(whole, folder)
        runs += 1
    counts = Counter(word for moment in kills for word in moment)
    publish(
        f"3 kill -9 of `track` in training, {threads} threads, {windows} windows of the data fraction",
        f"{len(kills):,} kills ({', '.join(f'{counts[name]} {name}' for name in sorted(counts))}) of {runs} runs: "
        f"{len(different)} files or weights differ from the uninterrupted run's",
    )
    assert different == []
    assert whole.moment(0) == ("deficit on", "before")


def test_the_command_killed_at_random_instants_goes_on_to_the_same_bytes(tmp_path, count, publish):
    goal, rng, environment = count(short=1, full=20), random.Random(1), {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = whole_run(tmp_path / "whole", 1, 2)
    killed, runs, different = 0, 0, []
    longest_s = 3.0
    while killed < goal:
        folder, finished, before = tmp_path / f"run{runs}", False, killed
        command = [sys.executable, "-m", "fisherkit_cli", *whole.arguments, "--out", str(folder)]
        while not finished:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            wait_s = rng.uniform(0.3, longest_s) if killed - before < KILLS_A_RUN and killed < goal else None
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            _, error = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), error.decode()
            finished = process.returncode == 0
        different += whole.differences(folder)
        runs += 1
    publish(
        "3 kill -9 of the command `fisherkit track` at random instants",
        f"{killed} kills of {runs} runs: {len(different)} files or weights differ",
    )
    assert different == []
