"""A study whose workers, runs and driver are killed again and again: all arms are finished, none is lost or double."""

import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import counted_run
import pytest
import stand_in_run
from dask_cluster import parent
from studies_to_run import log, results, trained, unit

from fisherkit.studies.execution import Unit

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")

EPOCHS, SHARED = 5, 2
ORDER = ("run", "run", "worker", "run", "driver")  # of kills; on this machine alone the driver is the worker
PATIENCE_S = 7200.0


def study(folder: Path, arms: int) -> list[Unit]:
    """Families of a trunk and three branches that go on from its second epoch."""
    units = []
    for number in range(arms):
        family, place = divmod(number, 4)
        parents = [(f"arm{number - place}", SHARED)] if place else []
        keep = () if place else (SHARED,)
        units.append(
            unit(folder, f"arm{number}", epochs=EPOCHS, seed=family, parents=parents, keep=keep, every=1, epoch_s=0.05)
        )
    return units


def numbers(found: Unit) -> list[float]:
    """What the run records if nothing went wrong."""
    seed, rows = json.loads(found.specification)["seed"], []
    for epoch in range(EPOCHS):
        rows.append(stand_in_run.next_value(rows[-1] if rows else seed, epoch))
    return rows


@dataclass
class Disturber:
    """Kills what belongs to a study, until that has been done so many times."""

    folder: Path
    goal: int
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)

    def kill(self, driver: int) -> None:
        """One of: a run; whoever started it, where that is not the driver; the driver."""
        runs = list(self._runs())
        if self.kills.total() >= self.goal or not runs:
            return
        run = self.rng.choice(runs)
        with suppress(ProcessLookupError, FileNotFoundError):
            pids = {"run": run, "worker": parent(run), "driver": driver}
            what = ORDER[self.kills.total() % len(ORDER)]
            if pids[what] == 1:  # whoever started it is gone
                return
            os.kill(pids[what], signal.SIGKILL)
            self.kills["driver" if pids[what] == driver else what] += 1

    def _runs(self) -> Iterator[int]:
        """The processes of runs of the study."""
        mine = os.fsencode(str(self.folder / "runs"))
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"--specification\0" + mine in (path / "cmdline").read_bytes():
                    yield int(path.name)


def go(folder: Path, executor: str, disturber: Disturber) -> int:
    """Start the driver again and again until it says that all is finished; how often that took."""
    until_s = time.monotonic() + PATIENCE_S
    for times in itertools.count(1):
        command = [sys.executable, counted_run.__file__, str(folder), executor]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as driver:
            while driver.poll() is None:
                time.sleep(disturber.rng.uniform(0.05, 0.5))
                disturber.kill(driver.pid)
                assert time.monotonic() < until_s, f"not finished within {PATIENCE_S:.0f} s: {disturber.kills}"
            error = driver.stderr.read()
        assert driver.returncode in (0, -signal.SIGKILL), error
        if driver.returncode == 0:
            endings = json.loads((folder / "endings.json").read_text())
            if all(ending == "finished" for ending, *_ in endings.values()):
                return times
    raise AssertionError


def again(found: Unit) -> int:
    """Epochs trained after the run had finished."""
    return log(found).partition(counted_run.FINISHED)[2].count("\nepoch ")


@pytest.mark.parametrize("executor", ["local:2", "dask"], ids=["local", "dask"])
def test_every_arm_is_finished_once(tmp_path, count, publish, executor: str):
    arms = count(short=12 if executor == "local:2" else 0, full=200)
    if arms == 0:
        pytest.skip("only with --full; test_studies_execution_crashes.py kills each part of it once")
    if executor == "dask":
        pytest.importorskip("distributed", reason="needs dask")
    units = study(tmp_path, arms)
    (tmp_path / "units").write_bytes(pickle.dumps(units))
    disturber = Disturber(tmp_path, goal=count(short=arms // 2, full=300), rng=random.Random(executor))
    drivers = go(tmp_path, executor, disturber)
    found = results(units)
    wrong = [
        each.identity for each in units if found[each.identity].variable("fisher_true")[:, 0].tolist() != numbers(each)
    ]
    double = [each.identity for each in units if again(each)]
    spare = sum(times - 1 for each in units for times in trained(each).values())
    kills = disturber.kills
    publish(
        f"9 a study of short arms, --executor {executor}",
        f"{arms} arms; killed: {kills['run']} runs, {kills['worker']} workers, {kills['driver']} drivers "
        f"({drivers} started); {len(wrong)} arms lost or wrong, {len(double)} trained again when finished; "
        f"{spare} epochs trained a second time after a kill",
    )
    assert wrong == []
    assert double == []
    assert spare <= kills["run"]  # a checkpoint an epoch, and whoever loses its parent writes one
    assert kills.total() > 0
