"""kill -9 of a run that does nothing but write, at random instants: nothing is lost, torn or stuck."""

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from forked_calls import DEADLINE_S, forked_call, told_by
from writing_run import ROWS_A_CHECKPOINT, expected, write

from fisherkit.errors import UnreadableFile
from fisherkit.recording import read, to_bytes
from fisherkit.training import newest_checkpoint

ROWS = 120  # of a run; then the next begins
LONGEST_S = 0.15


@dataclass
class Found:
    """What was counted; `told` are the last row and checkpoint of the run in progress that were said to be on disk."""

    kills: int = 0
    rows: int = 0
    lost: int = 0
    unreadable: int = 0
    torn: int = 0
    not_resumed: int = 0
    finished: int = 0
    told: dict[str, int] = field(default_factory=lambda: {"row": -1, "checkpoint": -1})

    def __str__(self) -> str:
        return (
            f"{self.kills:,} kills, {self.rows:,} rows published: {self.lost} rows lost, {self.unreadable} files "
            f"unreadable, {self.torn} torn, {self.not_resumed} not resumed; {self.finished} runs finished"
        )


def session(folder: Path, found: Found, wait_s: float | None, *, from_start: bool) -> bool:
    """Start the run and kill it after so long, counted from its start or its first word; whether it was killed."""
    with forked_call(write, folder, ROWS) as (process, pipe):
        if wait_s is not None:
            if not from_start:
                assert pipe.poll(DEADLINE_S), "the run does not begin"
            time.sleep(wait_s)
            process.kill()
        told = list(told_by(pipe))
        process.join(DEADLINE_S)
    for what, step in told:
        found.rows += what == "row" and step > found.told["row"]
        found.told[what] = max(found.told.get(what, -1), step)
    killed = process.exitcode == -signal.SIGKILL
    found.not_resumed += not (process.exitcode == 0 or (killed and (told or from_start)))
    return killed


def check(folder: Path, found: Found) -> None:
    """Everything that was said to be on disk is there, whole."""
    if found.told["row"] >= 0 or (folder / "run.h5").exists():
        try:
            run = read(folder / "run.h5")
        except (UnreadableFile, OSError):
            found.unreadable += 1
        else:
            found.lost += max(0, found.told["row"] + 1 - len(run))
            found.torn += run.differences(expected(len(run)), ignore=()) != []
    try:
        saved = newest_checkpoint(folder)
    except UnreadableFile:
        found.unreadable += 1
        return
    found.torn += bool(saved and saved.notices)
    found.lost += (saved.step if saved else -1) < found.told["checkpoint"]


def test_kill_9_of_a_writing_run_loses_nothing(tmp_path, count, publish):
    goal, rng, found, runs = count(short=25, full=1000), random.Random(1), Found(), 0
    whole = to_bytes(expected(ROWS))
    while found.kills < goal:
        folder, killed = tmp_path / f"run{runs}", True
        found.told = {"row": -1, "checkpoint": -1}
        runs += 1
        while killed:
            wait_s = rng.uniform(0, LONGEST_S) if found.kills < goal else None
            killed = session(folder, found, wait_s, from_start=rng.random() < 0.2)
            found.kills += killed
            check(folder, found)
        found.finished += (folder / "run.h5").read_bytes() == whole
        left = sorted(path.name.split("-")[0] for path in folder.iterdir())
        assert left == [".lock", "ckpt", "ckpt", "run.h5"], "leftovers of the killed"
    publish("1 kill -9 of a writing run at random instants", str(found))
    assert found.kills == goal
    assert (found.lost, found.unreadable, found.torn, found.not_resumed) == (0, 0, 0, 0)
    assert found.finished == runs
    assert ROWS > 2 * ROWS_A_CHECKPOINT
