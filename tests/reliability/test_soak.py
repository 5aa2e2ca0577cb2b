"""Runs side by side for a long time, killed at random: memory does not grow, and every file is whole."""

import random
import signal
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forked_runs import Forked, forked

import fisherkit
from fisherkit.training import newest_checkpoint

ARGUMENTS = (
    "track",
    *("--model", "allcnn", "--width", "4", "--test-images", "100", "--batch-size", "50"),
    *("--epochs", "100000", "--deficit", "blur:0-3", "--probe-images", "50", "--threads", "1"),
)
IGNORED = ("elapsed_s", "option_sources", "schedule")
PAGE, BATCH = 4096, 50
WARM_UP = 20  # epochs, in which libraries are loaded and room is made for the largest arrays
SAMPLES = 5  # of which the median is taken

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")


@dataclass
class Session:
    """A process of a run, from its start until it is killed."""

    run: Forked
    kill_at: float | None
    steps: int = 0
    resident: list[tuple[int, int]] = field(default_factory=list)  # steps since it began, bytes

    def look(self) -> None:
        """Take what it tells, and its memory."""
        while self.run.pipe.poll(0):
            self.run.pipe.recv()
            self.steps += 1
        if self.steps:
            pages = int(Path(f"/proc/{self.run.pid}/statm").read_text().split()[1])
            self.resident.append((self.steps, pages * PAGE))

    def growth(self, warm_up: int) -> float | None:
        """By how much its memory grew after so many steps; None where it did not last."""
        later = [size for steps, size in self.resident if steps > warm_up]
        if len(later) < 2 * SAMPLES:
            return None
        return statistics.median(later[-SAMPLES:]) / statistics.median(later[:SAMPLES]) - 1


class Runner:
    """One run, started again whenever it was killed; without `rng` it is left alone."""

    def __init__(self, folder: Path, images: int, rng: random.Random | None, mean_s: float) -> None:
        self.folder, self.rng, self.mean_s = folder, rng, mean_s
        self.arguments = (*ARGUMENTS, "--train-images", str(images), "--out", str(folder))
        self.sessions: list[Session] = []
        self.unreadable = self.kills = 0
        self.start()

    def start(self) -> None:
        self.stack = ExitStack()
        output = self.folder.with_suffix(f".{len(self.sessions)}.log")
        run = self.stack.enter_context(forked(*self.arguments, output=output))
        kill_at = None if self.rng is None else time.monotonic() + self.rng.uniform(0.3, 1.7) * self.mean_s
        self.sessions.append(Session(run, kill_at))

    def look(self) -> None:
        session = self.sessions[-1]
        assert session.run.process.is_alive(), session.run.text()
        session.look()
        if session.kill_at is not None and time.monotonic() > session.kill_at:
            session.run.process.kill()
            self.kills += 1
            self.stack.close()
            self.check()
            self.start()

    def check(self) -> None:
        """The file, if it was begun, and the newest checkpoint are whole."""
        try:
            if (self.folder / "run.h5").exists():
                fisherkit.read(self.folder / "run.h5")
            saved = newest_checkpoint(self.folder)
            self.unreadable += bool(saved and saved.notices)
        except fisherkit.errors.UnreadableFile:
            self.unreadable += 1

    def stop(self) -> int:
        session = self.sessions[-1]
        session.run.process.terminate()
        status = session.run.end()
        self.stack.close()
        self.check()
        return 128 - status if status < 0 else status


def test_runs_side_by_side_killed_at_random(tmp_path, count, publish):
    runs, seconds, images = count(short=2, full=8), count(short=15, full=1200), count(short=200, full=1000)
    warm_up, mean_s = WARM_UP * images // BATCH, count(short=8, full=240)
    rngs = [None, *(random.Random(number) for number in range(1, runs))]  # the first is not killed
    runners = [Runner(tmp_path / f"run{number}", images, rng, mean_s) for number, rng in enumerate(rngs)]
    watched, end = runners[0].sessions[0], time.monotonic() + seconds
    while time.monotonic() < end or watched.steps < 2 * warm_up or not all(runner.kills for runner in runners[1:]):
        for runner in runners:
            runner.look()
        time.sleep(0.1)
    statuses = [runner.stop() for runner in runners]
    sessions = [session for runner in runners for session in runner.sessions]
    growths = [growth for session in sessions if (growth := session.growth(warm_up)) is not None]
    found = [fisherkit.read(runner.folder / "run.h5") for runner in runners]
    differing = sum(not agree(found[0], other) for other in found[1:])
    kills, unreadable = (sum(getattr(runner, name) for runner in runners) for name in ("kills", "unreadable"))
    publish(
        f"15 {runs} runs side by side for {seconds:,} s, killed at random",
        f"{kills} kills, {sum(map(len, found)):,} rows: memory grew by {max(growths):.2%} at most after the first "
        f"{WARM_UP} epochs ({len(growths)} of {len(sessions)} sessions lasted beyond, the longest "
        f"{watched.steps * BATCH // images:,} epochs); {unreadable} files not whole; {differing} of {runs - 1} runs "
        "differ from the one that was not killed",
    )
    assert statuses == [128 + signal.SIGTERM] * runs
    assert (unreadable, differing) == (0, 0)
    assert max(growths) < count(short=5, full=1) / 100  # seconds after the warm-up a page more or less counts


def agree(run: fisherkit.recording.Trajectory, other: fisherkit.recording.Trajectory) -> bool:
    """Whether the rows that both have are the same."""
    rows = min(len(run), len(other))
    return run.rows(0, rows).differences(other.rows(0, rows), ignore=IGNORED) == []
