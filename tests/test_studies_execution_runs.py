"""Runs by a thread pool, with a stand-in for `track`: order, branches, retries, poison, stopping."""

import json
import os
import signal
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import stand_in_run
from studies_to_run import Events, log, results, starts, trained, unit

import fisherkit
from fisherkit.errors import RunRefused
from fisherkit.storage import lock
from fisherkit.studies.execution import (
    Attempt,
    ClusterSlots,
    Ending,
    LocalSlots,
    Slot,
    execute,
    run_unit,
    state_on_disk,
)
from fisherkit.studies.execution import driver as driver_module
from fisherkit.studies.execution import process as process_module
from fisherkit.studies.execution.lease import hold_lease

SLOTS = (Slot("one"), Slot("two"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(driver_module, "POLL_S", 0.05)
    monkeypatch.setattr(process_module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(process_module, "LOCK_WAIT_S", 0.2)


def run(units, folder, *, slots=SLOTS, retries=2, observer=None, command=stand_in_run.COMMAND):
    with ThreadPoolExecutor(len(slots)) as pool:
        return execute(
            units, pool, slots=LocalSlots(slots), folder=folder, retries=retries, observer=observer, command=command
        )


def endings(execution) -> dict[str, str]:
    return {name: outcome.ending.value for name, outcome in execution.outcomes.items()}


def test_branches_begin_at_the_kept_checkpoint_while_the_parent_runs_on(tmp_path):
    units = [
        unit(tmp_path, "early", parents=[("trunk", 2)]),
        unit(tmp_path, "alone", seed=1),
        unit(tmp_path, "late", parents=[("trunk", 3), ("trunk", 2)]),
        unit(tmp_path, "trunk", epochs=5, keep=(2, 3), hold=4),  # does not end before `early` has
    ]
    observer = Events()
    ended = observer.ended

    def release(outcome) -> None:
        ended(outcome)
        if outcome.unit.identity == "early":
            Path(tmp_path, "runs", "trunk", "go").touch()

    observer.ended = release
    execution = run(units, tmp_path, observer=observer)
    assert endings(execution) == dict.fromkeys(["early", "alone", "late", "trunk"], "finished")
    assert list(execution.outcomes) == ["early", "alone", "late", "trunk"]
    assert execution.signal is None
    assert observer.texts[0] == "trunk started 1"  # most waits on it
    assert observer.origins == {"trunk": None, "alone": None, "early": ("trunk", 2), "late": ("trunk", 3)}
    assert observer.texts.index("early finished") < observer.texts.index("trunk finished")
    rows = {name: run.variables["fisher_true"][:, 0].tolist() for name, run in results(units).items()}
    assert rows["early"] == rows["late"] == rows["trunk"][:4]
    assert sorted(trained(units[0])) == [3, 4]
    assert sorted(trained(units[2])) == [4]
    assert f"branching off {units[3].folder} at epoch 3" in log(units[2])


def test_a_branch_whose_parents_fail_begins_at_the_next_or_from_scratch(tmp_path):
    units = [
        unit(tmp_path, "trunk", keep=(1, 3), fail=2),
        unit(tmp_path, "exploding", keep=(2,), explode=1),
        unit(tmp_path, "next", parents=[("trunk", 3), ("exploding", 2), ("trunk", 1)]),
        unit(tmp_path, "scratch", parents=[("trunk", 3)]),
    ]
    observer = Events()
    execution = run(units, tmp_path, observer=observer)
    expected = {"trunk": "failed", "exploding": "exploded", "next": "finished", "scratch": "finished"}
    assert endings(execution) == expected
    assert observer.origins["next"] == ("trunk", 1)
    assert observer.origins["scratch"] is None
    assert (sorted(trained(units[2])), sorted(trained(units[3]))) == ([2, 3, 4], [1, 2, 3, 4])
    poison = execution.outcomes["trunk"]
    assert (poison.attempts, poison.text) == (1, "fisherkit: lr must be positive; got -1.")
    assert "epoch   2/4" in poison.log
    assert "started by process" not in poison.log


def test_what_is_done_is_never_started_again(tmp_path):
    units = [unit(tmp_path, "whole"), unit(tmp_path, "exploding", explode=1), unit(tmp_path, "poison", fail=1)]
    run(units, tmp_path)
    observer = Events()
    execution = run(units, tmp_path, observer=observer)
    assert endings(execution) == {"whole": "finished", "exploding": "exploded", "poison": "failed"}
    assert observer.texts == ["poison started 1", "poison failed"]
    assert [starts(unit) for unit in units] == [1, 1, 2]
    assert [execution.outcomes[unit.identity].attempts for unit in units] == [0, 0, 1]


def test_a_run_file_of_another_run_is_not_taken_for_this_one(tmp_path):
    run([unit(tmp_path, "a", seed=1)], tmp_path)
    observer = Events()
    run([unit(tmp_path, "a", seed=2)], tmp_path, observer=observer)
    assert observer.texts[0] == "a started 1"


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path):
    whole, killed = unit(tmp_path / "whole", "a", epochs=6), unit(tmp_path, "a", epochs=6, die_once=5)
    run([whole], tmp_path / "whole")
    observer = Events()
    execution = run([killed], tmp_path, observer=observer)
    assert observer.texts[1].startswith("a retried: killed by SIGKILL (out of memory?")
    assert (execution.outcomes["a"].ending, execution.outcomes["a"].attempts) == (Ending.FINISHED, 2)
    assert trained(killed) == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 1}  # the fourth has a checkpoint, the fifth had none
    assert results([killed])["a"].equals(results([whole])["a"], ignore=("configuration",))


def test_a_run_that_always_dies_is_given_up(tmp_path):
    units = [unit(tmp_path, "a", die=3), unit(tmp_path, "b")]
    execution = run(units, tmp_path, retries=1)
    outcome = execution.outcomes["a"]
    assert (outcome.ending, outcome.attempts) == (Ending.FAILED, 2)
    assert outcome.text == "killed by SIGKILL (out of memory? fewer slots need less) (2 attempts)"
    assert "epoch   3/4" in outcome.log
    assert execution.outcomes["b"].ending is Ending.FINISHED


def test_a_folder_in_use_is_waited_for_and_its_holder_named(tmp_path):
    busy, free = unit(tmp_path, "busy"), unit(tmp_path, "free")
    with lock(Path(busy.folder)):
        execution = run([busy, free], tmp_path, retries=0)
    assert endings(execution) == {"busy": "failed", "free": "finished"}
    assert f"is in use by process {os.getpid()} on" in execution.outcomes["busy"].text
    assert not (Path(busy.folder) / "log.txt").exists()  # no process was started for nothing


def test_the_process_itself_may_find_its_folder_in_use(tmp_path):
    """Between the look at the lock and the process's own, another may take it."""
    command = (*stand_in_run.COMMAND[:1], "-c", "print('fisherkit: in use by process 7 on earth'); exit(75)")
    observer = Events()
    execution = run([unit(tmp_path, "a")], tmp_path, retries=1, observer=observer, command=command)
    assert observer.texts[1] == "a retried: fisherkit: in use by process 7 on earth"
    assert execution.outcomes["a"].text == "fisherkit: in use by process 7 on earth (2 attempts)"


def test_a_worker_that_dies_costs_an_attempt(tmp_path, monkeypatch):
    class Dying(ThreadPoolExecutor):
        deaths = 1

        def submit(self, function, *args, **kwargs):
            if self.deaths:
                self.deaths -= 1
                return super().submit(self.die)
            return super().submit(function, *args, **kwargs)

        @staticmethod
        def die():
            raise RuntimeError("the worker died")

    observer = Events()
    with Dying(1) as pool:
        slots = LocalSlots(SLOTS[:1])
        execution = execute(
            [unit(tmp_path, "a")],
            pool,
            slots=slots,
            folder=tmp_path,
            observer=observer,
            command=stand_in_run.COMMAND,
        )
    assert observer.texts[1:3] == ["a retried: RuntimeError: the worker died", "a started 2"]
    assert execution.outcomes["a"].ending is Ending.FINISHED


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit status 0, but its run.h5 is not that of a finished run"), (3, "fisherkit: hello")],
)
def test_a_process_that_ends_without_a_result_has_failed(tmp_path, status: int, text: str):
    command = (*stand_in_run.COMMAND[:1], "-c", f"print('fisherkit: hello'); print('Run again'); exit({status})")
    outcome = run([unit(tmp_path, "a")], tmp_path, command=command).outcomes["a"]
    assert (outcome.ending, outcome.attempts, outcome.text) == (Ending.FAILED, 1, text)
    assert outcome.log == "fisherkit: hello\nRun again"


def test_a_command_that_cannot_be_started_is_given_up(tmp_path):
    outcome = run([unit(tmp_path, "a")], tmp_path, retries=1, command=["/nonexistent/python"]).outcomes["a"]
    assert outcome.ending is Ending.FAILED
    assert outcome.text.startswith("FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/python' (2")


def test_each_run_sees_the_environment_of_its_slot(tmp_path, monkeypatch):
    monkeypatch.setenv("FISHERKIT_TRACK_LR", "3")
    units = [unit(tmp_path, str(number), epochs=1, threads=number + 1, hold=0) for number in range(2)]
    slots = [Slot(f"GPU {name}", {"CUDA_VISIBLE_DEVICES": name}) for name in ("3", "GPU-5a")]
    observer = Events()

    def both_run(snapshot) -> None:
        if snapshot.count("running") == 2:
            for unit in units:
                Path(unit.folder, "go").touch()

    observer.looked = both_run
    run(units, tmp_path, slots=slots, observer=observer)
    seen = [json.loads(Path(unit.folder, "environment.json").read_text()) for unit in units]
    assert {see["CUDA_VISIBLE_DEVICES"] for see in seen} == {"3", "GPU-5a"}
    assert [see["OMP_NUM_THREADS"] for see in seen] == ["1", "2"]
    assert all(see["FISHERKIT_PARENT_PIPE"] == "1" and see["cwd"] == os.getcwd() for see in seen)
    assert not any("FISHERKIT_TRACK_LR" in see for see in seen)
    assert ", GPU GPU-5a\n" in log(units[0]) + log(units[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_runs_after_a_checkpoint_and_the_same_call_goes_on(tmp_path, number: int):
    units = [
        unit(tmp_path, "a", epochs=400, epoch_s=0.02, every=1000, keep=(399,)),
        unit(tmp_path, "b", epochs=3),
        unit(tmp_path, "c", parents=[("a", 399)]),
    ]
    observer = Events()

    def stop(snapshot) -> None:
        if snapshot.units[0].state == "running" and snapshot.units[0].done >= 3 and snapshot.count("finished"):
            os.kill(os.getpid(), number)

    observer.looked = stop
    execution = run(units, tmp_path, observer=observer)
    assert execution.signal == number
    assert endings(execution) == {"a": "stopped", "b": "finished", "c": "not started"}
    done = max(trained(units[0]))
    assert 3 <= done < 400
    assert not (tmp_path / ".driver").exists()
    short = {**json.loads(units[0].specification), "epochs": done + 1}
    again = type(units[0])("a", units[0].folder, json.dumps(short))
    assert endings(run([again], tmp_path)) == {"a": "finished"}
    assert set(trained(again).values()) == {1}  # none twice


def test_one_driver_per_study(tmp_path):
    with lock(tmp_path), pytest.raises(RunRefused, match=rf"{tmp_path} is in use by process {os.getpid()} on"):
        run([unit(tmp_path, "a")], tmp_path)


def test_without_its_driver_a_run_stops(tmp_path):
    """As on a cluster, where the worker outlives the driver."""
    job = unit(tmp_path, "a", epochs=400, epoch_s=0.02)
    with ThreadPoolExecutor(1) as pool:
        with hold_lease(tmp_path) as held:
            future = pool.submit(run_unit, job, None, SLOTS[0], lease=held.lease, command=stand_in_run.COMMAND)
            while not (Path(job.folder, "log.txt").exists() and "epoch   1/" in log(job)):
                assert not future.done(), future.result()
        assert future.result() == Attempt(Ending.STOPPED)
    assert run_unit(job, None, SLOTS[0], lease=held.lease) == Attempt(Ending.STOPPED, "the driver has stopped")
    assert starts(job) == 1


def test_a_worker_without_the_file_system_of_the_study_says_so(tmp_path):
    with hold_lease(tmp_path) as held:
        lease = type(held.lease)(str(tmp_path / "elsewhere" / ".driver"), held.lease.token)
        attempt = run_unit(unit(tmp_path, "a"), None, SLOTS[0], lease=lease)
    assert attempt.ending is Ending.FAILED
    assert "elsewhere is not there on" in attempt.text
    assert "share the file system" in attempt.text


def test_nothing_to_do(tmp_path):
    assert run([], tmp_path).outcomes == {}


def test_retries_must_not_be_negative(tmp_path):
    with pytest.raises(ValueError, match="retries must be at least 0; got -1"):
        run([], tmp_path, retries=-1)


def test_the_snapshots_count_every_epoch_and_end_complete(tmp_path):
    units = [unit(tmp_path, "trunk", keep=(2,)), unit(tmp_path, "child", parents=[("trunk", 2)])]
    observer = Events()
    run(units, tmp_path, observer=observer)
    first, last = observer.snapshots[0], observer.snapshots[-1]
    assert (first.total, first.units[1].state, first.units[1].to_train) == (8, "waiting", 2)
    assert (last.done, last.total, last.left_s) == (8, 8, 0)
    assert [unit.state for unit in last.units] == ["finished", "finished"]
    assert fisherkit.read(Path(units[1].folder) / "run.h5").attributes["finished"] is True


def test_threads_that_look_at_once_each_see_their_own_run(tmp_path):
    """HDF5 may take two files in memory for one."""
    units = [unit(tmp_path, str(seed), epochs=1, seed=seed) for seed in range(3)]
    run(units, tmp_path)
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(state_on_disk, units * 40)) == {Ending.FINISHED}


class LostCluster(ClusterSlots):
    """Lost from the second look on; its runs never come back."""

    def __init__(self) -> None:
        super().__init__("tcp://node-1:8786", connected=lambda: self.looks < 2)
        self.looks = 0

    def lost(self):
        self.looks += 1
        return super().lost()


class Silent(Executor):
    def submit(self, *_, **__):
        return Future()


def test_a_lost_cluster_ends_the_driver_and_nothing_is_waited_for(tmp_path):
    message = "the connection to the dask scheduler at tcp://node-1:8786 is lost, .* the same command goes on"
    with pytest.raises(ConnectionError, match=message):
        execute([unit(tmp_path, "a")], Silent(), slots=LostCluster(), folder=tmp_path)
    assert not (tmp_path / ".driver").exists()


def test_a_cluster_that_is_lost_after_a_signal_is_not_waited_for(tmp_path):
    class Interrupting(Silent):
        def submit(self, *_, **__):
            os.kill(os.getpid(), signal.SIGINT)
            Path(job.folder).mkdir(parents=True)
            Path(job.folder, "log.txt").write_text("-- started\n")  # so that it is not only cancelled
            return Future()

    job = unit(tmp_path, "a")
    outcome = execute([job], Interrupting(), slots=LostCluster(), folder=tmp_path).outcomes["a"]
    assert (outcome.ending, outcome.attempts) == (Ending.STOPPED, 1)
    assert "is lost" in outcome.text
