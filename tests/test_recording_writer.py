"""A run in progress: what it accepts, when it publishes, and what survives a full disk."""

import errno
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from trajectories import made_up

from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.recording import RunFile, read, to_bytes, writer
from fisherkit.recording.layout import versions

LAYERS = ("conv", "fc")


class FakeClock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeDisk:
    """Stands for `atomic_write`: takes `cost_s` seconds, is full when `full`."""

    def __init__(self, monkeypatch, clock, *, cost_s=0.0):
        self.clock, self.cost_s, self.full, self.writes = clock, cost_s, False, 0
        self.real = writer.atomic_write
        monkeypatch.setattr(writer, "atomic_write", self)

    def __call__(self, path, data):
        self.clock.now += self.cost_s
        if self.full:
            raise OSError(errno.ENOSPC, f"No space left on device; {len(data):,} bytes are needed", str(path))
        self.writes += 1
        self.real(path, data)


def opened(path, **changes) -> RunFile:
    fields = {"layers": LAYERS, "parameters": np.array([3, 4]), "attributes": {"seed": 1}, "clock": FakeClock()}
    return RunFile(path, **(fields | changes))


def add(run, step, value=1.0, **series):
    trace = np.array([value, 2 * value])
    run.append(variables={"fisher_true": trace}, series={"epoch": step / 10, "step": step, **series})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


def test_what_was_appended_is_what_is_read(path):
    run = opened(path)
    for step in range(200):  # beyond the first capacity
        add(run, step, step + 0.5, deficit_active=step < 50, train_loss=1 / (step + 1))
    run.update_attributes(finished=True, engines={"conv": "ghost"})
    run.close()
    found = read(path)
    assert found.differences(run.trajectory, ignore=()) == []
    assert found.series["step"].tolist() == list(range(200))
    assert found.series["deficit_active"].sum() == 50
    assert np.array_equal(found.variables["fisher_true"][:, 1], 2 * (np.arange(200) + 0.5))
    assert found.attributes["finished"] is True
    assert found.attributes["seed"] == 1


def test_an_array_that_is_changed_later_does_not_change_the_row(path):
    run, trace = opened(path), np.ones(2)
    run.append(variables={"fisher_true": trace}, series={"epoch": 0, "step": 0})
    trace[:] = 9
    assert run.trajectory.variables["fisher_true"].tolist() == [[1, 1]]


def test_names_that_come_or_go_are_nan_in_the_other_rows(path):
    run = opened(path)
    add(run, 0)
    add(run, 1, test_loss=0.5, deficit_active=1)
    run.append(variables={"weight_norm": np.ones(2)}, series={"epoch": 1, "step": 2})
    found = run.trajectory
    assert np.array_equal(found.series["test_loss"], [np.nan, 0.5, np.nan], equal_nan=True)
    assert found.series["deficit_active"].tolist() == [0, 1, 0]
    assert np.isnan(found.variables["weight_norm"]).tolist() == [[True] * 2, [True] * 2, [False] * 2]
    assert np.isnan(found.variables["fisher_true"]).tolist() == [[False] * 2, [False] * 2, [True] * 2]


@pytest.mark.parametrize(
    ("variables", "series", "message"),
    [
        (
            {"fisher_true": np.ones(3)},
            {},
            r"fisher_true must have one value for each of the 2 layers; got .*\(3,\) at step 7",
        ),
        (
            {"fisher_true": np.array([1, np.nan])},
            {},
            "fisher_true must be finite and not negative; got nan in layer fc, step 7",
        ),
        ({"fisher_true": np.array([np.inf, 1])}, {}, "got inf in layer conv, step 7"),
        ({"fisher_empirical_test": np.array([1, -1])}, {}, "fisher_empirical_test must .* got -1.0 in layer fc"),
        ({"fisher_true_stderr": np.array([1, np.inf])}, {}, "fisher_true_stderr must be finite"),
        ({}, {"fisher_true_total": np.nan}, "fisher_true_total must be finite and not negative; got nan in step 7"),
        ({}, {"train_loss": "low"}, "train_loss must be one real number; got 'low' at step 7"),
        ({}, {"train_loss": np.ones(2)}, "train_loss must be one real number"),
        ({}, {"deficit_active": 0.5}, "deficit_active must be a whole number that fits uint8; got 0.5"),
        ({}, {"deficit_active": 256}, "deficit_active must be a whole number that fits uint8; got 256"),
        ({}, {"step": 7.5}, "step must be a whole number that fits int64; got 7.5"),
        ({}, {"step": 3}, "step must be larger than 3, that of the row before; got 3"),
        ({}, {"epoch": np.nan}, "epoch must be finite and not negative; got nan at step 7"),
        ({}, {"epoch": 0.2}, r"epoch must be at least 0\.3, that of the row before; got 0\.2"),
        ({}, {"fisher_true": 1.0}, "variables and series must have different names; got 'fisher_true' in both"),
        ({"epoch": np.ones(2)}, {}, "variables and series must have different names; got 'epoch' in both"),
        ({"loss": np.ones(2)}, {"loss": 1.0}, "got 'loss' in both"),
        ({}, {"a b": 1.0}, "series name must be 1 to 64 letters"),
    ],
)
def test_a_row_that_means_nothing_is_refused_and_leaves_no_trace(path, variables, series, message):
    run = opened(path)
    add(run, 3)
    before = to_bytes(run.trajectory)
    with pytest.raises(ValueError, match=message):
        run.append(variables=variables, series={"epoch": 1, "step": 7, **series})
    assert to_bytes(run.trajectory) == before
    add(run, 7)


def test_a_row_needs_epoch_and_step(path):
    with pytest.raises(ValueError, match="series must hold epoch and step; step is missing"):
        opened(path).append(variables={}, series={"epoch": 1.0})


def test_length_and_attributes_are_there_without_the_arrays(path):
    run = opened(path)
    add(run, 0)
    run.update_attributes(finished=True)
    assert len(run) == 1
    assert run.attributes == {"seed": 1, "finished": True} | versions()


def test_nan_is_a_value_where_it_has_a_meaning(path):
    run = opened(path)
    variables = {"fisher_true_stderr": np.array([np.nan, 1]), "weight_norm": np.array([np.inf, np.nan])}
    run.append(variables=variables, series={"epoch": 0, "step": 0, "train_loss": np.nan})
    assert np.isnan(run.trajectory.series["train_loss"][0])


def test_publications_take_at_most_one_percent_of_the_time(path, monkeypatch):
    clock = FakeClock()
    disk, start = FakeDisk(monkeypatch, clock, cost_s=0.5), clock.now
    run = opened(path, clock=clock)
    for step in range(3000):
        clock.now += 1.0  # one epoch
        add(run, step)
        run.publish()
    assert 0.008 < disk.writes * disk.cost_s / (clock.now - start) <= 0.01


def test_publications_that_cannot_wait_are_made_up_for(path, monkeypatch):
    clock = FakeClock()
    disk, start = FakeDisk(monkeypatch, clock, cost_s=0.5), clock.now
    run = opened(path, clock=clock)
    for step in range(3000):
        clock.now += 1.0
        add(run, step)
        run.publish(force=step % 100 == 0)
    assert disk.writes * disk.cost_s / (clock.now - start) <= 0.01
    assert run.pause_s == pytest.approx(0.5 / 0.009)


def test_publish_says_whether_every_row_is_on_disk(path, monkeypatch):
    clock = FakeClock()
    FakeDisk(monkeypatch, clock, cost_s=1.0)
    run = opened(path, clock=clock)
    assert run.publish()
    add(run, 0)
    assert not run.publish()
    assert len(read(path)) == 0
    assert run.publish(force=True)
    assert len(read(path)) == 1
    assert run.publish()  # nothing new


def test_a_full_disk_keeps_the_rows_and_says_so_once_a_minute(path, monkeypatch):
    clock = FakeClock()
    disk, run = FakeDisk(monkeypatch, clock), opened(path, clock=clock)
    add(run, 0)
    assert run.publish(force=True)
    disk.full = True
    for step in range(1, 131):
        clock.now += 1.0
        add(run, step)
        assert not run.publish()
    assert len(run.notices) == 3
    assert "run.h5 could not be written (No space left on device; " in run.notices[0]
    assert "bytes are needed). The rows are kept in memory" in run.notices[0]
    assert len(read(path)) == 1
    disk.full = False
    assert run.publish()
    assert len(read(path)) == 131


def test_notices_go_where_they_are_wanted(path, monkeypatch):
    clock, told = FakeClock(), []
    run = opened(path, clock=clock, notice=told.append)
    FakeDisk(monkeypatch, clock).full = True
    run.publish(force=True)
    assert len(told) == 1
    assert run.notices == []


def test_close_tries_for_a_minute_and_then_names_path_and_bytes(path, monkeypatch):
    clock = FakeClock()
    disk, run, start = FakeDisk(monkeypatch, clock), opened(path, clock=clock), clock.now
    disk.full = True
    add(run, 0)
    with pytest.raises(OSError, match=r"No space left on device; [0-9,]+ bytes are needed.*run\.h5") as caught:
        run.close()
    assert caught.value.errno == errno.ENOSPC
    assert clock.now - start == 60
    disk.full = False
    run.close()
    assert len(read(path)) == 1


def test_close_asks_for_room_only_where_it_is_missing(path, monkeypatch):
    def refused(path, data):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    run = opened(path)
    add(run, 0)
    monkeypatch.setattr(writer, "atomic_write", refused)
    with pytest.raises(PermissionError, match=r"Permission denied for the last rows. Mend that; a run goes on"):
        run.close()


def test_close_succeeds_when_space_returns(path, monkeypatch):
    clock = FakeClock()
    disk, run = FakeDisk(monkeypatch, clock), opened(path, clock=clock)
    disk.full = True
    monkeypatch.setattr(clock, "sleep", lambda seconds: setattr(disk, "full", False))
    add(run, 0)
    run.close()
    assert len(read(path)) == 1


def interrupted(path, rows=10, kept=4):
    """A file of some rows, and the first of them as a checkpoint would hold them."""
    run = opened(path)
    for step in range(rows):
        add(run, step, elapsed_s=step * 1.0, **({"late": 1.0} if step >= 7 else {}))
    run.close()
    return run.trajectory.up_to_step(kept - 1)


def test_a_resumed_run_catches_up_before_it_writes(path):
    run = opened(path, trajectory=interrupted(path))
    before = path.read_bytes()
    for step in range(4, 9):
        add(run, step, elapsed_s=99.0, **({"late": 1.0} if step >= 7 else {}))
        assert run.publish(force=True)  # the file holds it already
        assert path.read_bytes() == before
    run.close()
    assert path.read_bytes() == before
    add(run, 9, late=1.0)
    add(run, 10)
    run.update_attributes(finished=True)
    run.close()
    assert len(read(path)) == 11
    assert read(path).attributes["finished"] is True


@pytest.mark.parametrize("from_checkpoint", [True, False], ids=["from a checkpoint", "from the start"])
def test_a_resumed_run_must_reproduce_the_rows(path, from_checkpoint):
    rows = interrupted(path)
    run = opened(path, trajectory=rows if from_checkpoint else None)
    step = 4 if from_checkpoint else 0
    with pytest.raises(
        RunRefused, match=rf"not reproduce bit for bit \(fisher_true: 1.0000001 and 1.0 at step {step}, layer conv"
    ):
        add(run, step, 1.0000001)


def test_rows_to_continue_from_must_be_those_of_the_file(path):
    rows = interrupted(path)
    other = replace(rows, variables={"fisher_true": rows.variables["fisher_true"] * 2})
    with pytest.raises(RunRefused, match="does not reproduce"):
        opened(path, trajectory=other)


def test_different_numerics_can_be_accepted(path):
    run = opened(path, trajectory=interrupted(path), accept_different_numerics=True)
    for step in range(4, 10):
        add(run, step, 1.5)
    run.close()
    assert read(path).variables["fisher_true"][:, 0].tolist() == [1.0] * 4 + [1.5] * 6


def test_continued_file_equals_the_uninterrupted_one(path, tmp_path):
    whole = opened(tmp_path / "whole.h5")
    for step in range(12):
        add(whole, step, **({"late": 1.0} if step >= 7 else {}))
    whole.close()
    first = opened(path)
    for step in range(8):
        add(first, step, **({"late": 1.0} if step >= 7 else {}))
    first.close()
    second = opened(path, trajectory=first.trajectory.up_to_step(4))
    for step in range(5, 12):
        add(second, step, **({"late": 1.0} if step >= 7 else {}))
    second.close()
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_file_of_another_model_is_not_overwritten(path):
    path.write_bytes(to_bytes(made_up(rows=3)))
    with pytest.raises(RunRefused, match=r"holds a run of another model \(20 layers, the first conv1\)"):
        opened(path)


def test_a_damaged_file_is_not_overwritten(path):
    path.write_bytes(b"precious, perhaps")
    with pytest.raises(UnreadableFile, match=r"it is not HDF5\. Move it away to write a new one"):
        opened(path)
    assert path.read_bytes() == b"precious, perhaps"


def test_rows_of_another_model_cannot_be_continued(path):
    with pytest.raises(ValueError, match="trajectory must have the layers and parameter counts of the run"):
        opened(path, trajectory=made_up(rows=3))


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from fisherkit.recording import RunFile, read
run = RunFile(Path(sys.argv[1]), layers=("conv", "fc"), parameters=np.array([3, 4]), attributes={})
rng, published = np.random.default_rng(0), 0
soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (35_000, -1))
for step in range(1000):
    run.append(variables={"fisher_true": rng.random(2)}, series={"epoch": 0, "step": step})
    if step % 100 == 99:
        published += run.publish(force=True)
print(published, len(run.notices), len(read(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, -1))
run.close()
print(len(read(sys.argv[1])), read(sys.argv[1]).equals(run.trajectory))
"""


def test_a_file_size_limit_loses_no_row(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "run.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    during, after = done.stdout.splitlines()
    published, notices, rows = map(int, during.split())
    assert 0 < published < 10
    assert rows == 100 * published
    assert notices == 1
    assert after == "1000 True"
    assert os.listdir(tmp_path) == ["run.h5"]


def test_new_rows_come_between_those_of_the_file_where_that_is_accepted(path):
    first = opened(path)
    for step in (10, 30):
        add(first, step, value=step)
    first.close()
    with pytest.raises(RunRefused, match="does not reproduce"):
        add(opened(path), 5)
    run = opened(path)
    run.accept_rows_between()
    for step in (5, 10, 20):
        add(run, step, value=step)
        assert run.publish(force=True)
        assert read(path).series["step"].tolist() == [10, 30]  # not before all of its rows are there again
    with pytest.raises(RunRefused, match="does not reproduce"):
        add(run, 30, value=31)
    again = opened(path)
    again.accept_rows_between()
    for step in (5, 10, 20, 30, 40):
        add(again, step, value=step)
    again.close()
    assert read(path).variables["fisher_true"][:, 0].tolist() == [5, 10, 20, 30, 40]
