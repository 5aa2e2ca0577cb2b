"""Whatever dies, all runs of a study end as if nothing had, and none trains an epoch for nothing."""

import json
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import stand_in_run
import study_driver
from dask_cluster import Cluster, alive, kill, parent, wait_until
from studies_to_run import Events, log, results, starts, trained, unit

from fisherkit.studies.execution import (
    ClusterSlots,
    Ending,
    ExecutorChoice,
    LocalSlots,
    Slot,
    Workplace,
    execute,
    open_workplace,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def study(folder: Path):
    """A trunk with a branch, a run beside them, and poison; each waits at epoch 3 until it is let go."""
    return [
        unit(folder, "trunk", epochs=6, keep=(3,), every=1, hold=3),
        unit(folder, "branch", epochs=6, seed=0, parents=[("trunk", 3)]),
        unit(folder, "alone", epochs=6, seed=1, every=1, hold=3),
        unit(folder, "poison", epochs=6, seed=2, fail=2),
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The runs of the study, each alone and from scratch."""
    folder = tmp_path_factory.mktemp("undisturbed")
    units = [unit(folder, name, epochs=6, seed=seed) for name, seed in (("trunk", 0), ("branch", 0), ("alone", 1))]
    with ThreadPoolExecutor(1) as pool:
        execute(units, pool, slots=LocalSlots([Slot("")]), folder=folder, command=stand_in_run.COMMAND)
    return results(units)


def check(units, undisturbed) -> None:
    """All ended right, none twice; the poison is in nobody's way."""
    whole = units[:3]
    for name, run in results(whole).items():
        assert run.equals(undisturbed[name], ignore=("configuration",)), name
    for found in whole:
        first = 4 if found.identity == "branch" else 1
        assert trained(found) == dict.fromkeys(range(first, 7), 1), found.identity
    assert not (Path(units[3].folder) / "run.h5").exists()


def let_go(units) -> None:
    for found in units:
        Path(found.folder).mkdir(parents=True, exist_ok=True)
        Path(found.folder, "go").touch()


def waits(found) -> bool:
    """Whether the run has come to the epoch at which it is held."""
    return Path(found.folder, "log.txt").exists() and "epoch   3/" in log(found)


def pid(found) -> int:
    """Of the run's process."""
    return json.loads(Path(found.folder, "environment.json").read_text())["pid"]


def worker(found) -> int:
    """The process that started the run's last."""
    return int(re.findall(r": started by process ([0-9]+) on", log(found))[-1])


class Once(Events):
    """Kills the `victims` once the trunk and the run beside it wait; lets all go on when one of them has died."""

    def __init__(self, units, victims) -> None:
        super().__init__()
        self.units, self.victims, self.before = units, victims, []

    def looked(self, snapshot) -> None:
        held = self.units[0], self.units[2]
        if not self.before and all(map(waits, held)):
            self.before = [pid(found) for found in held]
            kill(*self.victims(self.units))
        elif self.before and not all(map(alive, self.before)):
            let_go(held)


def run(units, folder: Path, place: Workplace, victims):
    """Execute, and kill."""
    observer = Once(units, victims)
    execution = execute(
        units, place.executor, slots=place.slots, folder=folder, observer=observer, command=stand_in_run.COMMAND
    )
    endings = {name: outcome.ending.value for name, outcome in execution.outcomes.items()}
    assert endings == dict(trunk="finished", branch="finished", alone="finished", poison="failed")
    assert execution.outcomes["poison"].text == "fisherkit: lr must be positive; got -1."
    assert execution.outcomes["poison"].attempts == 1
    return execution, observer.texts


def test_a_run_is_killed(tmp_path, undisturbed):
    units = study(tmp_path)
    with open_workplace(ExecutorChoice.parse("local:2"), device="cpu", threads=1) as place:
        execution, texts = run(units, tmp_path, place, lambda units: [pid(units[0])])
    assert "trunk retried: killed by SIGKILL (out of memory? fewer slots need less)" in texts
    assert execution.outcomes["trunk"].attempts == 2
    check(units, undisturbed)


@contextmanager
def driver(folder: Path, executor: str):
    """The driver as a process; killed at the end if it still runs."""
    command = [sys.executable, study_driver.__file__, str(folder), executor]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)
    with process:
        yield process
        process.kill()


def kill_driver_and_run_again(folder: Path, executor: str):
    """All processes of the first call end before the second may go on."""
    units = study(folder)
    (folder / "units").write_bytes(pickle.dumps(units))
    held = units[0], units[2]
    with driver(folder, executor) as process:
        wait_until(lambda: process.poll() is not None or all(map(waits, held)))
    assert process.returncode == -9, process.stderr
    before = [pid(found) for found in held]
    with driver(folder, executor) as process:
        wait_until(lambda: process.poll() is not None or not any(map(alive, before)))
        let_go(units)
        wait_until(lambda: process.poll() is not None)
        assert process.returncode == 0, process.stderr.read().decode()
    return units, json.loads((folder / "endings.json").read_text())


def test_the_driver_is_killed_and_started_again(tmp_path, undisturbed):
    units, endings = kill_driver_and_run_again(tmp_path, "local:2")
    finished, failed = ["finished", 1, ""], ["failed", 1, "fisherkit: lr must be positive; got -1."]
    assert endings == dict(trunk=finished, branch=finished, alone=finished, poison=failed)
    assert [starts(found) for found in units[:3]] == [2, 1, 2]
    assert log(units[0]).count("Stopped") == 1  # with the driver, after a checkpoint, not in the middle of an epoch
    check(units, undisturbed)


# dask


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler, and two workers with nannies."""
    pytest.importorskip("distributed", reason="needs dask")
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    found.add_worker()
    found.add_worker()
    yield found
    found.close()


def run_on(cluster, folder: Path, victims):
    units = study(folder)
    choice = ExecutorChoice.parse(f"dask:{cluster.address}")
    with open_workplace(choice, device="cpu", threads=1) as place:
        assert isinstance(place.slots, ClusterSlots)
        execution, texts = run(units, folder, place, victims)
    return units, execution, texts


def test_a_worker_of_a_cluster_is_killed(cluster, tmp_path, undisturbed):
    units, execution, _ = run_on(cluster, tmp_path, lambda units: [worker(units[0])])
    assert execution.outcomes["trunk"].attempts == 1  # dask itself gave it to another worker
    assert starts(units[0]) == 2
    check(units, undisturbed)


def test_a_worker_of_a_cluster_and_its_nanny_are_killed(cluster, tmp_path, undisturbed):
    cluster.add_worker()  # for the one that goes
    units, _, _ = run_on(cluster, tmp_path, lambda units: [parent(worker(units[0])), worker(units[0])])
    assert starts(units[0]) == 2
    check(units, undisturbed)


def test_a_run_on_a_cluster_is_killed(cluster, tmp_path, undisturbed):
    units, execution, texts = run_on(cluster, tmp_path, lambda units: [pid(units[2])])
    assert "alone retried: killed by SIGKILL (out of memory? fewer slots need less)" in texts
    assert execution.outcomes["alone"].attempts == 2
    check(units, undisturbed)


def test_runs_on_gpus_go_to_the_workers_that_have_one(cluster, tmp_path):
    cluster.add_worker("--resources", "GPU=1", MARK="has a GPU")
    units = [unit(tmp_path, str(seed), epochs=1, seed=seed) for seed in range(3)]
    choice = ExecutorChoice.parse(f"dask:{cluster.file}")
    with open_workplace(choice, device="cuda", threads=1) as place:
        assert place.description.endswith("each run waits for a worker started with --resources GPU=1")
        execution = execute(units, place.executor, slots=place.slots, folder=tmp_path, command=stand_in_run.COMMAND)
    assert len(execution.of(Ending.FINISHED)) == 3
    seen = [json.loads(Path(found.folder, "environment.json").read_text()) for found in units]
    assert [see.get("MARK") for see in seen] == ["has a GPU"] * 3


def test_the_driver_of_a_cluster_is_killed_and_started_again(cluster, tmp_path, undisturbed):
    """The runs outlive it, and end when the next driver comes."""
    units, endings = kill_driver_and_run_again(tmp_path, f"dask:{cluster.file}")
    assert {name: ending for name, (ending, *_) in endings.items()} == dict(
        trunk="finished", branch="finished", alone="finished", poison="failed"
    )
    check(units, undisturbed)


def test_the_worker_of_a_local_dask_cluster_is_killed(tmp_path, undisturbed):
    pytest.importorskip("distributed", reason="needs dask")
    alone = study(tmp_path)[2]
    with open_workplace(ExecutorChoice("dask", slots=1), device="cpu", threads=1) as place:
        observer = Once([alone, None, alone], lambda units: [worker(alone)])
        execution = execute(
            [alone],
            place.executor,
            slots=place.slots,
            folder=tmp_path,
            observer=observer,
            command=stand_in_run.COMMAND,
        )
    assert execution.outcomes["alone"].ending is Ending.FINISHED
    assert starts(alone) == 2
    assert trained(alone) == dict.fromkeys(range(1, 7), 1)
    assert results([alone])["alone"].equals(undisturbed["alone"], ignore=("configuration",))
