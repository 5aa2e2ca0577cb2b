"""Running many runs, its pure parts: order, slots, what --executor says, the driver's lease, progress."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies_to_run import unit

from fisherkit.studies.execution import ExecutorChoice, LocalSlots, Origin, Slot, local_places, open_workplace
from fisherkit.studies.execution.lease import TOUCH_EVERY_S, hold_lease
from fisherkit.studies.execution.progress import Pace, RunLog, Started, last_epoch, time_left
from fisherkit.studies.execution.schedule import by_urgency, check_units, startable

HERE = Path("/study")


def start(*units, coming=(), kept=None, begun=()):
    """The names and origins of what can start."""
    kept = kept or {}
    found = startable(
        units,
        coming=set(coming),
        kept=lambda folder: kept.get(folder.name, ()),
        begun=lambda unit: unit.identity in begun,
    )
    return {unit.identity: origin for unit, origin in found}


CHILD = unit(HERE, "child", parents=[("best", 3), ("second", 2)])


def at(name: str, epoch: int) -> Origin:
    return Origin(f"/study/runs/{name}", epoch)


@pytest.mark.parametrize(
    ("coming", "kept", "begun", "expected"),
    [
        ((), {}, (), {"child": None}),
        (("best",), {}, (), {}),
        (("best",), {"best": (2,)}, (), {}),
        (("best",), {"best": (3,)}, (), {"child": at("best", 3)}),
        (("best",), {"second": (2,)}, (), {}),
        ((), {"best": (3,), "second": (2,)}, (), {"child": at("best", 3)}),
        ((), {"second": (2,)}, (), {"child": at("second", 2)}),
        (("second",), {}, (), {}),
        ((), {"best": (2,), "second": (3,)}, (), {"child": None}),
        (("best",), {"best": (3,)}, ("child",), {"child": None}),
    ],
    ids=[
        "both ended without",
        "the best is coming",
        "the best has passed another epoch",
        "the best is there and runs on",
        "the best is waited for even where the second is there",
        "both are there",
        "the best ended without",
        "the second is coming",
        "other epochs are no use",
        "its own checkpoint comes first",
    ],
)
def test_where_a_branch_begins(coming, kept, begun, expected):
    assert start(CHILD, coming=coming, kept=kept, begun=begun) == expected


def test_runs_without_parents_start_in_the_order_given():
    assert list(start(*(unit(HERE, name) for name in "bac"))) == ["b", "a", "c"]


def test_what_most_epochs_wait_on_comes_first():
    units = [
        unit(HERE, "alone", epochs=90),
        unit(HERE, "leaf", epochs=10, parents=[("branch", 4)]),
        unit(HERE, "branch", epochs=10, parents=[("trunk", 2)], keep=(4,)),  # 6 wait on it
        unit(HERE, "other", epochs=9, keep=(3,)),  # 17 wait on it
        unit(HERE, "twig", epochs=20, parents=[("other", 3), ("trunk", 2)]),
        unit(HERE, "trunk", epochs=10, keep=(2,)),  # 8 + 6
    ]
    assert [unit.identity for unit in by_urgency(units)] == ["other", "trunk", "branch", "alone", "leaf", "twig"]


def test_units_that_could_never_all_run_are_refused():
    trunk = unit(HERE, "trunk", keep=(2,))
    check_units([trunk, unit(HERE, "a", parents=[("trunk", 2), ("elsewhere", 7)])])
    with pytest.raises(ValueError, match=r"parents of a must be kept epochs; got epoch 3 of trunk, which keeps 2\."):
        check_units([trunk, unit(HERE, "a", parents=[("trunk", 3)])])
    with pytest.raises(ValueError, match="different identities"):
        check_units([trunk, trunk])
    circle = [unit(HERE, "a", parents=[("b", 1)], keep=(1,)), unit(HERE, "b", parents=[("a", 1)], keep=(1,)), trunk]
    with pytest.raises(ValueError, match=r"in a circle; got a, b\."):
        check_units(circle)
    for folder in ("runs/trunk", "/study/runs/other"):
        with pytest.raises(
            ValueError, match=rf"folder must be absolute and end in the identity 'trunk'; got '{folder}'"
        ):
            check_units([replace(trunk, folder=folder)])


def test_a_unit_is_the_same_on_another_machine():
    job = unit(HERE, "a", epochs=7, threads=2, parents=[("b", 1)], keep=(3,))
    assert (job.epochs, job.threads) == (7, 2)
    assert pickle.loads(pickle.dumps(job)) == job
    assert unit(HERE, "a", threads=None).threads is None


@st.composite
def forests(draw):
    """Each unit's parents, all earlier ones; an order; those that fail before any checkpoint."""
    count = draw(st.integers(1, 8))
    parents = [draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3)) if n else [] for n in range(count)]
    return parents, draw(st.permutations(range(count))), draw(st.sets(st.integers(0, count - 1)))


@given(forests(), st.integers(1, 3))
def test_every_unit_starts_once_whatever_fails_and_a_slot_is_idle_only_when_nothing_can_start(forest, slots: int):
    parents, order, failing = forest
    units = [unit(HERE, str(n), parents=[(str(parent), 1) for parent in parents[n]], keep=(1,)) for n in order]
    check_units(units)
    waiting, running, kept, begun = list(by_urgency(units)), [], {}, []
    while waiting or running:
        coming = {unit.identity for unit in waiting + running}
        ready = startable(waiting, coming=coming, kept=lambda f: kept.get(f.name, ()), begun=lambda unit: False)
        for unit_, origin in ready[: slots - len(running)]:
            assert origin is None or 1 in kept[Path(origin.folder).name]
            waiting.remove(unit_)
            running.append(unit_)
            begun.append(unit_.identity)
        assert running
        ended = running.pop(0)
        kept[ended.identity] = () if int(ended.identity) in failing else (1,)
    assert sorted(begun) == sorted(unit.identity for unit in units)


PLACES = {
    "cores": (dict(count=None, device="cpu", threads=2, cores=7, gpus=0), ["cpu slot 0", "cpu slot 1", "cpu slot 2"]),
    "all cores": (dict(count=None, device="cpu", threads=None, cores=7, gpus=0), ["cpu slot 0"]),
    "few cores": (dict(count=None, device="cpu", threads=8, cores=2, gpus=0), ["cpu slot 0"]),
    "asked for": (dict(count=2, device="cpu", threads=8, cores=2, gpus=0), ["cpu slot 0", "cpu slot 1"]),
    "gpus": (dict(count=None, device="cuda", threads=1, cores=9, gpus=2), ["GPU 0", "GPU 1"]),
    "shared gpus": (dict(count=3, device="cuda", threads=1, cores=9, gpus=2), ["GPU 0", "GPU 1", "GPU 0"]),
    "one of the gpus": (dict(count=None, device="cuda:1", threads=1, cores=9, gpus=2), ["cuda:1 slot 0"]),
}


@pytest.mark.parametrize(("options", "names"), PLACES.values(), ids=PLACES)
def test_places_of_a_machine(options, names):
    places = local_places(**options, environment={})
    assert [place.name for place in places] == names
    for place in places:
        numbers = {"CUDA_VISIBLE_DEVICES": place.name[4:]} if place.name.startswith("GPU") else {}
        assert place.environment == numbers


def test_a_batch_system_may_have_given_some_gpus_only():
    options = dict(count=None, device="cuda", threads=1, cores=9)
    places = local_places(gpus=2, environment={"CUDA_VISIBLE_DEVICES": "3, GPU-5a"}, **options)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["3", "GPU-5a"]
    with pytest.raises(ValueError, match="must be cpu where no GPU is visible"):
        local_places(gpus=0, environment={}, **options)


def test_a_slot_is_taken_by_one_run_at_a_time():
    first, second = places = [Slot("a"), Slot("b")]
    slots = LocalSlots(places)
    assert (slots.take(), slots.take(), slots.take()) == (first, second, None)
    slots.give_back(second)
    assert (slots.take(), slots.take()) == (second, None)
    with pytest.raises(ValueError, match="at least one; got none"):
        LocalSlots([])


EXECUTORS = {
    "local": ExecutorChoice("local"),
    "local:4": ExecutorChoice("local", slots=4),
    "dask": ExecutorChoice("dask"),
    "dask:tcp://node-1:8786": ExecutorChoice("dask", address="tcp://node-1:8786"),
    "dask:10.0.0.1:8786": ExecutorChoice("dask", address="10.0.0.1:8786"),
    "dask:tls://[fe80::1]:8786": ExecutorChoice("dask", address="tls://[fe80::1]:8786"),
    "dask:/shared/scheduler.json": ExecutorChoice("dask", address="/shared/scheduler.json"),
}


@pytest.mark.parametrize("text", EXECUTORS)
def test_executors_as_a_person_writes_them(text: str):
    assert ExecutorChoice.parse(text) == EXECUTORS[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slurm", r"executor must be local, local:SLOTS, dask, or dask:ADDRESS .*; got 'slurm'"),
        ("", r"executor must be local.*; got ''"),
        ("local:", r"executor must be local.*; got 'local:'"),
        ("local:0", r"at least one slot and at most 9999, such as local:4; got 'local:0'"),
        ("local:four", "at least one slot"),
        ("dask:4", r"got 'dask:4'. For 4 runs at a time on this machine give local:4"),
        ("dask:node-1", "HOST:PORT"),
        ("dask:tcp://node 1:8786", "HOST:PORT"),
    ],
)
def test_executors_that_are_none(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        ExecutorChoice.parse(text)


def test_dask_is_asked_for_only_when_it_is_chosen(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with open_workplace(ExecutorChoice("local", slots=3), device="cpu", threads=1) as place:
        assert place.description == "3 at a time on this machine"
    for text in ("dask", "dask:tcp://localhost:1"):
        choice = ExecutorChoice.parse(text)
        with (
            pytest.raises(ModuleNotFoundError, match=r"--executor dask needs dask: pip install 'fisherkit\[dask\]'"),
            open_workplace(choice, device="cpu", threads=1),
        ):
            pass


def test_a_gpu_machine_has_a_slot_for_each_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with open_workplace(ExecutorChoice("local"), device="cuda", threads=1) as place:
        assert place.description == "2 at a time on this machine"
        slots = [place.slots.take() for _ in range(3)]
    assert slots == [Slot(f"GPU {name}", {"CUDA_VISIBLE_DEVICES": name}) for name in "47"] + [None]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with (
        pytest.raises(ValueError, match="where no GPU is visible; got 'cuda'"),
        open_workplace(ExecutorChoice("local"), device="cuda", threads=1),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_named(tmp_path):
    dask = pytest.importorskip("dask", reason="needs dask")
    pytest.importorskip("distributed")  # else the setting below would take all its defaults away with it
    missing = f"{tmp_path}/scheduler.json"
    messages = {"127.0.0.1:9": "no dask scheduler answers at 127.0.0.1:9", missing: f"{missing} is not there"}
    for address, message in messages.items():
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
            pytest.raises(ConnectionError, match=message),
            open_workplace(ExecutorChoice("dask", address=address), device="cpu", threads=1),
        ):
            pass


def test_a_lease_ends_with_its_driver(tmp_path):
    with hold_lease(tmp_path) as held:
        watch = pickle.loads(pickle.dumps(held.lease)).watch()
        assert not watch.ended()
    assert watch.ended()


def test_a_lease_ends_when_another_driver_takes_the_study(tmp_path):
    with hold_lease(tmp_path) as first:
        watch = first.lease.watch()
        with hold_lease(tmp_path) as second:
            assert watch.ended()
            assert not second.lease.watch().ended()


def test_a_lease_ends_after_long_silence_by_the_watchers_clock(tmp_path):
    now = 0.0
    with hold_lease(tmp_path) as held:
        watch = held.lease.watch(patience_s=100, clock=lambda: now)
        assert not watch.ended()
        now = 99.0
        assert not watch.ended()
        os.utime(held.lease.path, (5, 5))  # the driver's clock may say anything
        assert not watch.ended()
        now = 198.0
        assert not watch.ended()
        now = 200.0
        assert watch.ended()


def test_the_driver_touches_its_lease_now_and_then(tmp_path):
    with hold_lease(tmp_path) as held:
        path = Path(held.lease.path)
        os.utime(path, (5, 5))
        held.touch()
        assert path.stat().st_mtime == 5
        held._touched -= TOUCH_EVERY_S
        held.touch()
        assert path.stat().st_mtime > 5


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        (b"", None),
        (b"run starts: 3 epochs of 60 training images on cpu\n", None),
        (b"epoch   1/3  train 2.345\nepoch   2/3  train 2.1\nnote: epoch 9/9 is not this\n", 2),
        (b"epoch   1/3  train 2.345\nepoch  12", 1),  # a line that is being written
        (b"epoch   1/3  train 2.345\nepoch   2/3  tr", 1),
        (b"epoch 100/160  train 2.345\n-- started again\nepoch  99/160  train 2\n", 99),
        (b"epoch 7/3  train\n", None),
        (b"\xff\xfe\nepoch   2/3  train\n\x00", 2),
    ],
)
def test_the_last_epoch_of_a_log(text: bytes, epoch):
    assert last_epoch(text) == epoch


def test_a_log_is_read_from_its_end_and_keeps_what_it_said(tmp_path):
    log = RunLog(tmp_path)
    assert (log.size, log.epoch()) == (0, 0)
    path = tmp_path / "log.txt"
    path.write_bytes(b"epoch   3/9  train\n")
    assert log.epoch() == 3
    with path.open("ab") as file:
        file.write(b"warning\n" * 20_000)  # longer than what is read
    assert log.epoch() == 3
    with path.open("ab") as file:
        file.write(b"epoch   4/9  train\n")
    assert log.epoch() == 4


def test_a_run_has_begun_when_its_log_grows(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"epoch   3/9  train\n")
    started = Started(RunLog(tmp_path), 3)
    assert not started.look()
    with path.open("ab") as file:
        file.write(b"-- started\nepoch   4/9  train\nepoch   5/9  train\n")
    assert started.look(now=0.0)
    assert started.done == 5
    pace = Pace()
    started.add_to(pace)
    assert pace.epochs == 2


def test_the_pace_is_unknown_before_the_first_epoch():
    pace = Pace()
    pace.add(0, 3.0)
    assert pace.epoch_s is None
    pace.add(4, 5.0)
    assert pace.epoch_s == 2


def test_time_left_is_that_of_the_slots_or_of_the_longest_run():
    assert time_left([10, 10, 10, 10], epoch_s=2, at_once=2) == 40
    assert time_left([30, 2], epoch_s=2, at_once=2) == 60
    assert time_left([], epoch_s=2, at_once=0) == 0
    assert time_left([5], epoch_s=2, at_once=0) == 10
