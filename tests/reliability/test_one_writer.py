"""A second `track` into the same folder is refused, naming the first; a kill frees the folder."""

import random
import signal
import time
from pathlib import Path

import pytest
from forked_runs import DEADLINE_S, Forked, command, forked
from runs import small

from fisherkit.errors import FolderInUse
from fisherkit.storage import lock

IN_USE_STATUS = 75


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A run that does not end by itself."""
    path = tmp_path_factory.mktemp("run") / "run.json"
    path.write_text(small(epochs=10_000).model_dump_json())
    return ("track", "--specification", str(path))


def begin(arguments, folder: Path, number: int):
    return forked(*arguments, "--out", str(folder), output=folder.with_name(f"log{number}"))


def refused_naming(run: Forked, *, holder: Forked) -> bool:
    return run.end() == IN_USE_STATUS and f"is in use by process {holder.pid} on" in run.text()


def free_after_s(folder: Path) -> float:
    """Seconds until the folder can be had."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + DEADLINE_S:
        try:
            with lock(folder):
                return time.monotonic() - began_s
        except FolderInUse:
            time.sleep(0.002)
    raise AssertionError(f"{folder} is still held {DEADLINE_S:.0f} s after a kill")


def test_a_second_run_is_refused_naming_the_first_and_a_kill_frees_the_folder(arguments, tmp_path, count, publish):
    goal, rng = count(short=4, full=200), random.Random(0)
    folder, refused, waits_s = tmp_path / "run", 0, []
    for _ in range(goal):
        with begin(arguments, folder, 1) as holder:
            assert holder.wait_for_step(0), holder.text()
            time.sleep(rng.uniform(0, 0.1))
            with begin(arguments, folder, 2) as second:
                refused += refused_naming(second, holder=holder)
            assert holder.process.is_alive()
            holder.process.kill()
            waits_s.append(free_after_s(folder))
    publish(
        "8 a second `track` into the same folder",
        f"{refused} of {goal} refused, naming the holder; after a kill -9 of the holder the folder was free within "
        f"{max(waits_s):.3f} s",
    )
    assert refused == goal
    assert max(waits_s) < 1 or count(short=1, full=0)  # of a full form on a machine that does nothing else


def test_of_two_runs_that_start_at_once_one_is_refused_naming_the_other(arguments, tmp_path, count, publish):
    goal, right = count(short=2, full=100), 0
    for number in range(goal):
        folder = tmp_path / f"run{number}"
        with begin(arguments, folder, 1) as first, begin(arguments, folder, 2) as second:
            holder, other = (first, second) if second.ends_first(first) else (second, first)
            right += holder.process.is_alive() and refused_naming(other, holder=holder)
    publish("8 two `track` started at once into the same folder", f"{right} of {goal}: one went on, one was refused")
    assert right == goal


def test_the_command_is_refused_while_another_runs(arguments, tmp_path):
    with begin(arguments, tmp_path / "run", 1) as holder:
        assert holder.wait_for_step(0), holder.text()
        with command(*arguments, "--out", str(tmp_path / "run")) as second:
            _, error = second.communicate()
    assert second.returncode == IN_USE_STATUS
    assert f"process {holder.pid} on" in error
    assert "Traceback" not in error
    assert holder.process.exitcode == -signal.SIGKILL
