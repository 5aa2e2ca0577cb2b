"""FisherTracker in a user's own loop: rows, resuming, non-interference."""

import gc
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import fisherkit
from fisherkit.errors import FolderInUse, RunRefused, UnreadableFile
from fisherkit.fisher import fisher_trace
from fisherkit.recording import FisherTracker

ENGINES = ("auto", "ghost", "vmap", "backpack", "batch")


@pytest.fixture(scope="module")
def sets():
    train, test = fisherkit.load_images("fashion-mini")
    return train.subset(40, seed=0), test.subset(20, seed=0)


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=4),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(256, 10),
        )


def train(sets, tracker_at=None, engine: str = "auto"):
    """Three epochs of a user's loop; returns weights, buffers and the state of the random numbers."""
    torch.manual_seed(1)
    model, (images, probe) = network(), sets
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    tracker = tracker_at and FisherTracker(tracker_at, model, {"train": images, "test": probe}, engine=engine)
    for epoch in range(3):
        for rows in torch.randperm(40).split(10):
            loss = nn.functional.cross_entropy(model(images.normalised(rows)), images.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if tracker:
            tracker.record(epoch + 1, step=4 * (epoch + 1), train_loss=float(loss.detach()))
    if tracker:
        tracker.close()
    return {**model.state_dict(), "rng": torch.get_rng_state()}


@pytest.mark.parametrize("engine", ENGINES)
def test_training_with_the_tracker_is_bit_identical(sets, tmp_path, engine: str):
    plain, tracked = train(sets), train(sets, tmp_path / "run.h5", engine)
    assert all(torch.equal(plain[name], tracked[name]) for name in plain)
    trajectory = fisherkit.read(tmp_path / "run.h5")
    assert len(trajectory) == 3
    assert np.isfinite(trajectory.variables["fisher_true_test"]).all()


def test_a_row_is_the_measurement(sets, tmp_path):
    model, (images, _) = network(), sets
    with FisherTracker(tmp_path / "run.h5", model, images, draws=2, seed=5) as tracker:
        tracker.record(0, learning_rate=0.1)
    true = fisher_trace(model, images, draws=2, seed=5)
    given = fisher_trace(model, images, estimator="empirical", seed=5)
    run = fisherkit.read(tmp_path / "run.h5")
    assert run.layers == true.layers
    np.testing.assert_array_equal(run.variables["fisher_true"][0], true.trace)
    np.testing.assert_array_equal(run.variables["fisher_true_stderr_draws"][0], true.stderr_draws)
    np.testing.assert_array_equal(run.variables["fisher_empirical_stderr"][0], given.stderr)
    assert run.series["fisher_true_total_stderr"][0] == true.total_stderr
    assert run.series["entropy"][0] == true.entropy
    assert run.series["learning_rate"][0] == 0.1
    norm = model[5].weight.double().square().sum() + model[5].bias.double().square().sum()
    assert run.variables["weight_norm"][0, -1] == pytest.approx(float(norm.detach().sqrt()))
    assert run.attributes["engines"] == dict(true.engines)
    assert run.attributes["probes"]["train"]["digest"] == images.digest


def test_a_probe_without_labels_records_the_true_fisher_only(sets, tmp_path):
    images = sets[0].normalised()
    with FisherTracker(tmp_path / "run.h5", network(), images) as tracker:
        tracker.record(0)
    assert "fisher_empirical" not in fisherkit.read(tmp_path / "run.h5").variables


def test_a_script_run_again_reproduces_its_file_or_is_refused(sets, tmp_path):
    train(sets, tmp_path / "run.h5")
    train(sets, tmp_path / "run.h5")
    before = (tmp_path / "run.h5").read_bytes()
    with (
        pytest.raises(RunRefused, match="does not reproduce bit for bit"),
        FisherTracker(tmp_path / "run.h5", network(), sets[0]) as tracker,
    ):
        tracker.record(1, step=4)
    assert (tmp_path / "run.h5").read_bytes() == before


def test_rows_that_are_not_finite_are_refused_and_the_earlier_ones_kept(sets, tmp_path):
    model = network()
    with FisherTracker(tmp_path / "run.h5", model, sets[0]) as tracker:
        tracker.record(0)
        with torch.no_grad():
            model[5].weight[0, 0] = torch.inf
        with pytest.raises(FloatingPointError, match="not finite for layer"):
            tracker.record(1)
    assert len(fisherkit.read(tmp_path / "run.h5")) == 1


def test_the_empirical_fisher_is_not_an_estimator_of_the_true_one(sets, tmp_path):
    with pytest.raises(ValueError, match="estimator must be exact, sampled or propagated"):
        FisherTracker(tmp_path / "run.h5", network(), sets[0], estimator="empirical")


def test_a_second_tracker_of_a_file_is_refused_naming_the_first(sets, tmp_path):
    path = tmp_path / "new" / "run.h5"
    with FisherTracker(path, network(), sets[0]) as tracker:
        with pytest.raises(FolderInUse, match=rf"new/run.h5 is in use by process {os.getpid()} on .*\. Close it there"):
            FisherTracker(path, network(), sets[1])
        with FisherTracker(tmp_path / "new" / "other.h5", network(), sets[1]) as other:
            other.record(0)
        tracker.record(0)
    with FisherTracker(path, network(), sets[0], rows=fisherkit.read(path)) as tracker:
        tracker.record(1)
    assert len(fisherkit.read(path)) == 2


def test_a_closed_tracker_records_no_more(sets, tmp_path):
    tracker = FisherTracker(tmp_path / "run.h5", network(), sets[0])
    tracker.record(0)
    tracker.close()
    with FisherTracker(tmp_path / "run.h5", network(), sets[0]), pytest.raises(RunRefused, match=r"is closed. Make an"):
        tracker.record(1)
    tracker.close()
    assert len(fisherkit.read(tmp_path / "run.h5")) == 1


def test_a_tracker_that_could_not_be_made_or_is_forgotten_holds_nothing(sets, tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(b"hello")
    with pytest.raises(UnreadableFile) as caught:
        FisherTracker(path, network(), sets[0])
    path.unlink()
    forgotten = FisherTracker(path, network(), sets[0])
    del forgotten
    gc.collect()
    FisherTracker(path, network(), sets[0]).close()
    assert caught.value.path == path


def test_a_tracker_that_could_not_write_its_last_rows_still_holds_the_file(sets, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "run.h5")

    tracker = FisherTracker(tmp_path / "run.h5", network(), sets[0])
    with monkeypatch.context() as patch:
        patch.setattr("fisherkit.recording.writer.atomic_write", full)
        patch.setattr("fisherkit.recording.writer._CLOSE_RETRIES_S", 0.0)
        tracker.record(0)
        with pytest.raises(OSError, match="for the last rows"):
            tracker.close()
        with pytest.raises(FolderInUse):
            FisherTracker(tmp_path / "run.h5", network(), sets[0])
    tracker.close()
    assert len(fisherkit.read(tmp_path / "run.h5")) == 1


FORKING = """
import os, sys
from pathlib import Path
import fisherkit, torch
from fisherkit.errors import RunRefused

path, model = Path(sys.argv[1]), torch.nn.Linear(3, 2)
tracker = fisherkit.FisherTracker(path, model, torch.ones(4, 3))
tracker.record(0)
child = os.fork()
if child == 0:
    try:
        tracker.record(1)
    except RunRefused as error:
        assert "of which this one is a fork" in str(error)
        tracker.close()
        del tracker  # as when the process ends by and by
        os._exit(0)
    os._exit(1)
print(os.waitpid(child, 0)[1], flush=True)
sys.stdin.read()
"""


def test_a_fork_neither_writes_nor_frees_the_file_and_a_kill_does(sets, tmp_path):
    path = tmp_path / "run.h5"
    command = [sys.executable, "-c", FORKING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "0\n"
        with pytest.raises(FolderInUse, match=f"process {holder.pid} on"):
            FisherTracker(path, nn.Linear(3, 2), torch.ones(4, 3))
        holder.send_signal(signal.SIGKILL)
    FisherTracker(path, nn.Linear(3, 2), torch.ones(4, 3)).close()
    assert len(fisherkit.read(path)) == 1
