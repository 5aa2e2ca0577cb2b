"""SIGINT and SIGTERM: none is ignored, the run ends within a step and goes on to the same bytes; a second ends it."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from dask_cluster import wait_until
from forked_runs import Forked, command, forked, hang, ignore_signals
from whole_runs import Whole, saved_step, whole_run

import fisherkit

KINDS = (signal.SIGINT, signal.SIGTERM)
SIGNALS_A_RUN = 6
LATE = "came after the last step"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("whole") / "run")


def send(run: Forked, rng: random.Random) -> tuple[int, float]:
    """Send one of the two; which, and a time by which it had arrived."""
    number = rng.choice(KINDS)
    os.kill(run.pid, number)
    return number, time.monotonic()


def is_finished(folder: Path) -> bool:
    return bool(fisherkit.read(folder / "run.h5").attributes["finished"])


def stop_once(whole: Whole, folder: Path, rng: random.Random) -> str:
    """Start, send a signal after a step drawn at random of those left; how it ended, in a word or two."""
    target = rng.randint(saved_step(folder), whole.steps - 1)
    prepare = rng.choice([None, ignore_signals])
    with forked(*whole.arguments, "--out", str(folder), output=folder.with_suffix(".log"), prepare=prepare) as run:
        assert run.wait_for_step(target), run.text()
        time.sleep(rng.uniform(0, 1.5 * whole.step_s))
        number, arrived_s = send(run, rng)
        second = None
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0, 2 * whole.step_s))
            with suppress(ProcessLookupError):  # it has ended already
                second, _ = send(run, rng)
        status = run.end()
        steps = sum(step.time_s > arrived_s for step in run.steps)
        text = run.text()
    if second is not None and status in (-number, -second):  # Python handles two that wait in an order of its own
        return "ended at once by the second"
    if is_finished(folder):
        return LATE
    if status != 128 + number or "nothing is lost" not in text or "Traceback" in text:
        return f"wrong: exit status {status} after signal {number} and {second}: {text}"
    return "stopped" if steps <= 1 else f"wrong: {steps} steps after the signal"


def test_a_signal_at_any_time_stops_the_run_within_a_step(whole, tmp_path, count, publish):
    goal, rng = count(short=8, full=600), random.Random(0)
    endings: Counter[str] = Counter()
    different, runs = [], 0
    while endings.total() - endings[LATE] < goal:
        folder = tmp_path / f"run{runs}"
        for _ in range(min(SIGNALS_A_RUN, goal - endings.total() + endings[LATE])):
            endings[stop_once(whole, folder, rng)] += 1
            if saved_step(folder) == whole.steps:
                break
        different += whole.finish(folder)
        runs += 1
    publish(
        "6 SIGINT and SIGTERM to `track`, at random steps",
        f"{', '.join(f'{number} {ending}' for ending, number in endings.most_common())}; "
        f"{len(different)} of {runs} runs differ when they have gone on to the end",
    )
    assert not [ending for ending in endings if ending.startswith("wrong")]
    assert different == []


def test_a_second_signal_of_either_kind_ends_a_run_in_the_middle_of_a_step(whole, tmp_path, count, publish):
    goal, at_once = count(short=4, full=40), 0
    for number in range(goal):
        first, second = KINDS[number % 2], KINDS[number // 2 % 2]
        folder = tmp_path / f"run{number}"
        log, noted = folder.with_suffix(".log"), tmp_path / f"noted{number}"
        with forked(*whole.arguments, "--out", str(folder), output=log, prepare=hang, given=(noted,)) as run:
            assert run.wait_for_step(1), run.text()  # the next thing that it does takes an hour
            os.kill(run.pid, first)
            wait_until(noted.exists)
            os.kill(run.pid, second)
            at_once += run.end() == -second
    different = whole.finish(folder)
    publish("6 a second signal during a step of an hour", f"{at_once} of {goal} ended at once")
    assert at_once == goal
    assert different == []


def test_the_command_stopped_at_random_instants(whole, tmp_path, count, publish):
    goal, rng = count(short=1, full=40), random.Random(1)
    endings: Counter[int] = Counter()
    different, folder = [], tmp_path / "run0"
    for number in range(goal):
        kind = rng.choice(KINDS)
        with command(*whole.arguments, "--out", str(folder)) as process:
            if number % 4 < 3:
                process.stdout.readline()  # training begins; otherwise it is stopped while it starts
            time.sleep(rng.uniform(0.1, whole.steps * whole.step_s))
            process.send_signal(kind)
            out, error = process.communicate()
        finished = (folder / "run.h5").exists() and is_finished(folder)
        right = (0, 128 + kind, -kind) if finished else (128 + kind, -kind)  # -N, before the run: nothing to be saved
        assert process.returncode in right, f"{process.returncode} after {kind}: {out} {error}"
        assert "Traceback" not in error
        endings["finished" if finished else process.returncode] += 1
        if saved_step(folder) == whole.steps or number % SIGNALS_A_RUN == 0 or number == goal - 1:
            different += whole.finish(folder)
            folder = tmp_path / f"run{number + 1}"
    publish(
        "6 SIGINT and SIGTERM to the command at random instants, its start included",
        f"{goal} signals; exit statuses {dict(endings)}; {len(different)} runs differ when they have gone on",
    )
    assert different == []
