"""kill -9 of `track` at random steps of training: the same command goes on to the bytes of the uninterrupted run."""

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from forked_runs import checkpoint_often, command, forked
from whole_runs import Whole, saved_step, whole_run

import fisherkit

SETTINGS = [(1, 0), (1, 2), (2, 0), (2, 2)]  # threads, windows of the data fraction
FRACTIONS = ("0.5:0-2", "0.8:3-5")
KILLS_A_RUN = 3


def kill_once(whole: Whole, folder: Path, rng: random.Random) -> int | None:
    """Start, and kill -9 after a step drawn at random of those left, or before the first; None: it was too quick."""
    saved = saved_step(folder)
    target = rng.randint(saved, whole.steps - 1)
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


@pytest.mark.parametrize(("threads", "windows"), SETTINGS, ids=str)
def test_killed_at_random_steps_a_run_goes_on_to_the_same_bytes(tmp_path, count, publish, threads: int, windows: int):
    goal, rng = count(short=3, full=50), random.Random(f"{threads} {windows}")
    whole = whole_run(tmp_path / "whole", threads=threads, fraction=FRACTIONS[:windows])
    kills: list[tuple[str, str]] = []
    different, runs = [], 0
    while len(kills) < goal:
        folder = tmp_path / f"run{runs}"
        for _ in range(min(KILLS_A_RUN, goal - len(kills))):
            step = kill_once(whole, folder, rng)
            if step is not None:
                kills.append(whole.moment(step))
            if step is None or saved_step(folder) == whole.steps:
                break
        different += whole.finish(folder)
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
    goal, rng = count(short=1, full=20), random.Random(1)
    whole = whole_run(tmp_path / "whole", fraction=FRACTIONS)
    killed, runs, different = 0, 0, []
    while killed < goal:
        folder = tmp_path / f"run{runs}"
        for _ in range(min(KILLS_A_RUN, goal - killed)):
            killed += kill_command(whole, folder, rng)
        different += whole.finish(folder)
        runs += 1
    publish(
        "3 kill -9 of the command `fisherkit track` at random instants",
        f"{killed} kills of {runs} runs: {len(different)} files or weights differ",
    )
    assert different == []


def kill_command(whole: Whole, folder: Path, rng: random.Random) -> bool:
    """Start the command, and kill -9 it at some time; False: it was too quick."""
    with command(*whole.arguments, "--out", str(folder)) as process:
        if rng.random() < 0.75:
            process.stdout.readline()  # training begins; otherwise it is killed while it starts
        time.sleep(rng.uniform(0, whole.steps * whole.step_s))
        process.kill()
        _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode != 0
