"""Images in a pass: planned at a run's first row, and the same for all its rows, whatever memory there is later."""

import numpy as np
import pytest
import torch
from runs import ARGUMENTS, small
from test_cli_runs import call
from test_recording_tracker import network
from test_studies_run import IGNORED, StopsAfter

import fisherkit
from fisherkit.errors import RunRefused
from fisherkit.fisher import memory
from fisherkit.recording import FisherTracker
from fisherkit.studies import track


@pytest.fixture(scope="module")
def probe():
    return fisherkit.load_images("fashion-mini")[0].subset(100, seed=0)


def there_are(monkeypatch, size: int) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: size)


def row(path, probe, **options):
    with FisherTracker(path, network(), probe, **options) as tracker:
        tracker.record(0)
        return dict(tracker.file.attributes["batch_sizes"])


def test_a_script_run_again_with_other_memory_takes_the_same_passes(probe, tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    there_are(monkeypatch, 10**6)
    first = row(path, probe)
    assert 1 <= first["probe train"] < 64
    there_are(monkeypatch, 10**10)
    assert row(path, probe) == first
    assert row(path, probe, max_memory=10**9) == first
    assert row(tmp_path / "other.h5", probe) == {"probe train": 100}
    with pytest.raises(RunRefused, match="does not reproduce bit for bit"):
        row(path, probe, batch_size=1)


def test_a_batch_size_that_is_given_comes_first(probe, tmp_path, monkeypatch):
    there_are(monkeypatch, 10**6)
    assert row(tmp_path / "run.h5", probe, batch_size=50) == {"probe train": 50}
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        row(tmp_path / "zero.h5", probe, batch_size=0)


def test_batches_of_an_iterable_are_divided_as_before(probe, tmp_path, monkeypatch):
    path, batches = tmp_path / "run.h5", [probe.normalised()[:70], probe.normalised()[70:]]
    there_are(monkeypatch, 10**6)
    first = row(path, batches)
    there_are(monkeypatch, 10**10)
    assert row(path, batches) == first


def test_a_run_goes_on_in_the_same_passes(tmp_path, monkeypatch):
    options = dict(spectrum=2, spectrum_images=6)
    there_are(monkeypatch, 2_500_000)
    whole = track(small(**options), tmp_path / "whole").trajectory
    track(small(**options), tmp_path / "run", observer=StopsAfter(5))
    there_are(monkeypatch, 10**10)
    resumed = track(small(max_memory=10**9, **options), tmp_path / "run").trajectory
    assert whole.attributes["batch_sizes"] == {"probe train": 8, "probe deficit": 8, "spectrum": 4}
    assert resumed.attributes["batch_sizes"] == whole.attributes["batch_sizes"]
    for name in whole.variables:
        np.testing.assert_array_equal(resumed.variables[name], whole.variables[name], err_msg=name)
    assert all(
        np.array_equal(resumed.series[n], whole.series[n], equal_nan=True) for n in whole.series if n not in IGNORED
    )


def test_memory_is_no_part_of_a_runs_identity():
    assert small(max_memory=10**9).identity == small().identity
    assert small(max_memory=10**9).differing_options(small()) == []
    assert small(max_memory=10**9).fisher_options()["max_memory"] == 10**9


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("2000000", 2_000_000)]
)
def test_sizes_on_the_command_line(text: str, size: int, tmp_path):
    small_run = ("--model", "linear", "--epochs", "1", "--train-images", "20", "--probe-images", "10")
    status, output = call("track", *small_run, "--max-memory", text, "--out", str(tmp_path / "run"))
    assert status == 0, output
    assert fisherkit.read(tmp_path / "run" / "run.h5").attributes["configuration"]["max_memory"] == size


@pytest.mark.parametrize("text", ["much", "4 apples", "-1", "0", "0.1"])
def test_sizes_that_are_none(text: str):
    status, output = call(*ARGUMENTS, "--max-memory", text)
    assert status == 2
    assert "must be a number of bytes such as 4GB, 500MB or 2GiB; got" in output


def test_too_little_memory_ends_in_one_line(tmp_path):
    checkpoint = tmp_path / "epoch_1.pt"
    model = fisherkit.models.build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=0)
    torch.save(model.state_dict(), checkpoint)
    arguments = ("measure", str(checkpoint), "--model", "mlp", "--width", "8", "--out", str(tmp_path / "m.h5"))
    status, output = call(*arguments, "--max-memory", "1KB")
    assert status == 2
    assert "max_memory must be at least" in output
    status, output = call(*arguments, "--max-memory", "100MB")
    assert status == 0, output
