"""A run resumes to the same bits from anywhere, refuses what it must, and loses nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from observers import Notices, StopsAfter
from runs import ARGUMENTS, small

import fisherkit
from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.studies import run as run_module
from fisherkit.studies import sets as sets_module
from fisherkit.studies import track
from fisherkit.studies.folder import read_specification
from fisherkit.studies.sets import load_sets

IGNORED = ("elapsed_s", "option_sources")
COMMAND = [sys.executable, "-m", "fisherkit_cli", *ARGUMENTS]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run, by the command line."""
    folder = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [*COMMAND, "--out", str(folder)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return fisherkit.read(folder / "run.h5")


def weights(folder):
    """The sha256 in the name of the last checkpoint proves its contents, times aside; compare the weights."""
    from fisherkit.training import newest_checkpoint

    return newest_checkpoint(folder).contents["training"]["model"]


def test_the_file_holds_what_a_paper_needs(whole):
    assert len(whole.layers) == 17
    assert set(whole.variables) >= {"fisher_true", "fisher_true_stderr", "fisher_empirical", "weight_norm"}
    assert set(whole.variables) >= {"fisher_true_deficit", "fisher_empirical_deficit_stderr"}
    assert whole.series["step"].tolist() == [0, 3, 4, 6, 8, 9, 12]
    assert whole.series["epoch"].tolist() == [0, 0.75, 1, 1.5, 2, 2.25, 3]
    assert whole.series["deficit_active"].tolist() == [1, 1, 1, 0, 0, 1, 1]
    attributes = whole.attributes
    assert attributes["finished"] is True
    assert attributes["configuration"] == json.loads(small().model_dump_json())
    assert [epoch["deficits"] for epoch in attributes["schedule"]] == [["blur(4)"], [], ["noise"]]
    assert [epoch["events"] for epoch in attributes["schedule"]] == [[], ["shrink_perturb(0.5,0.1)"], []]
    assert attributes["option_sources"]["width"] == "commandline"
    assert attributes["option_sources"]["lr"] == "default"
    assert attributes["engines"]["conv1"] == "ghost"
    assert attributes["probes"]["train"]["images"] == 10
    at_epoch_ends = np.isfinite(whole.series["test_accuracy"])
    assert whole.series["epoch"][at_epoch_ends].tolist() == [1, 2, 3]
    assert np.isnan(whole.variables["fisher_true"][2]).all()  # an epoch's end that 3steps does not measure
    assert np.isfinite(whole.variables["fisher_true"][[0, 1, 3, 5, 6]]).all()


@pytest.mark.parametrize("steps", [1, 3, 4, 6, 11])
def test_stopped_after_any_step_it_resumes_to_the_same_bits(whole, tmp_path, steps: int):
    stopped = track(small(), tmp_path, observer=StopsAfter(steps))
    assert (stopped.finished, stopped.signal, stopped.step) == (False, signal.SIGTERM, steps)
    assert fisherkit.read(tmp_path / "run.h5").attributes["finished"] is False
    resumed = track(small(), tmp_path)
    assert resumed.finished
    assert fisherkit.read(tmp_path / "run.h5").differences(whole, ignore=IGNORED) == []


def test_stopped_again_and_again(whole, tmp_path):
    sessions = 0
    while not track(small(), tmp_path, observer=StopsAfter(2)).finished:
        sessions += 1
    assert sessions == 6
    assert fisherkit.read(tmp_path / "run.h5").differences(whole, ignore=IGNORED) == []


def test_a_finished_run_says_so_and_is_left_alone(tmp_path):
    track(small(), tmp_path)
    before = (tmp_path / "run.h5").read_bytes()
    again = track(small(), tmp_path)
    assert again.already_finished
    assert (tmp_path / "run.h5").read_bytes() == before


def test_another_run_is_refused_with_the_differing_options(tmp_path):
    track(small(epochs=1, deficit=("blur:0-1",), event=()), tmp_path)
    with pytest.raises(RunRefused, match=r"holds another run: --epochs 1 \(this command: 3\); --deficit blur:0-1 "):
        track(small(), tmp_path)


def test_other_images_are_refused(tmp_path, monkeypatch):
    track(small(), tmp_path, observer=StopsAfter(2))
    load = sets_module.load_images

    def other(*args, **options):
        train, test = load(*args, **options)
        return train.select(train.labels.argsort(descending=True)), test

    monkeypatch.setattr(sets_module, "load_images", other)
    with pytest.raises(RunRefused, match="other fashion-mini images"):
        track(small(), tmp_path)


def test_other_numerics_are_refused_unless_accepted(tmp_path, monkeypatch):
    track(small(), tmp_path, observer=StopsAfter(2))
    real = run_module.numerics
    monkeypatch.setattr(run_module, "numerics", lambda device: {**real(device), "cpu_capability": "OTHER"})
    with pytest.raises(
        RunRefused, match=r"other numerics \(cpu_capability: .* OTHER now\).*--accept-different-numerics"
    ):
        track(small(), tmp_path)
    assert track(small(), tmp_path, accept_different_numerics=True).finished


def test_it_goes_on_with_the_threads_that_it_began_with(tmp_path):
    begun = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # as OMP_NUM_THREADS=2 would
        track(small(threads=None), tmp_path, observer=StopsAfter(2))
        torch.set_num_threads(1)
        assert track(small(threads=None), tmp_path).trajectory.attributes["numerics"]["threads"] == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(begun)


def test_the_folder_of_the_images_is_kept_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    track(small(data_dir="images"), tmp_path / "run", observer=StopsAfter(2))
    assert read_specification(tmp_path / "run" / "config.json").data_dir == str(tmp_path / "images")
    assert fisherkit.read(tmp_path / "run" / "run.h5").attributes["configuration"]["data_dir"] == "images"


def test_a_run_killed_between_publishing_and_checkpointing_never_shrinks_its_file(tmp_path):
    """Rows beyond the checkpoint stay on disk until the resumed run has recomputed them."""
    track(small(), tmp_path, observer=StopsAfter(4))
    checkpoint = next(tmp_path.glob("ckpt-4-*.pt"))
    kept = checkpoint.read_bytes()
    track(small(), tmp_path, observer=StopsAfter(5))
    for path in tmp_path.glob("ckpt-*.pt"):
        path.unlink()
    checkpoint.write_bytes(kept)
    rows = len(fisherkit.read(tmp_path / "run.h5"))
    track(small(), tmp_path, observer=StopsAfter(1))
    assert len(fisherkit.read(tmp_path / "run.h5")) == rows
    assert track(small(), tmp_path).finished


def test_a_damaged_checkpoint_is_passed_over_with_a_notice(whole, tmp_path):
    track(small(), tmp_path, observer=StopsAfter(4))
    track(small(), tmp_path, observer=StopsAfter(3))
    newest = next(tmp_path.glob("ckpt-7-*.pt"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    observer = Notices()
    assert track(small(), tmp_path, observer=observer).finished
    assert any(f"{newest.name} is damaged" in text for text in observer.texts)
    assert fisherkit.read(tmp_path / "run.h5").differences(whole, ignore=IGNORED) == []


def test_a_start_that_fails_does_not_claim_the_folder(tmp_path):
    with pytest.raises(ValueError, match="nosuch"):
        track(small(model="nosuch"), tmp_path)
    assert track(small(epochs=2, deficit=("blur:0-1",), event=()), tmp_path).finished


def test_batchnorm_in_training_mode_records_the_true_fisher_only(tmp_path):
    run = track(small(batchnorm="train", every="1", probe=("train",)), tmp_path).trajectory
    assert set(run.attributes["engines"].values()) == {"batch"}
    assert not any(name.startswith("fisher_empirical") for name in run.variables)


def test_a_foreign_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"hello": 1}')
    with pytest.raises(UnreadableFile, match=r"config.json: not the configuration of a run"):
        track(small(), tmp_path)


def test_weights_that_explode_are_named_and_the_rows_kept(tmp_path):
    with pytest.raises(FloatingPointError, match=r"(loss|Fisher trace).*"):
        track(small(lr=1e30, every="1", event=()), tmp_path)
    assert len(fisherkit.read(tmp_path / "run.h5")) >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_cleanly_with_the_resume_command(tmp_path, number: int):
    arguments = [*COMMAND, "--out", str(tmp_path), "--epochs", "500"]
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            process.send_signal(number)
            break
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert "nothing is lost" in out
    assert "fisherkit track --model allcnn" in out
    assert not error
    assert fisherkit.read(tmp_path / "run.h5").attributes["finished"] is False


def test_a_finished_run_where_nothing_can_be_written_is_only_read(tmp_path, monkeypatch):
    def no_access(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder / ".lock"))

    short = small(epochs=2, deficit=("blur:0-1",), event=())
    track(short, tmp_path / "done")
    track(short, tmp_path / "cut", observer=StopsAfter(2))
    monkeypatch.setattr("fisherkit.studies.folder.lock", no_access)
    monkeypatch.setattr("fisherkit.studies.folder.os.access", lambda *_: False)  # permissions do not stop root
    assert track(short, tmp_path / "done").already_finished
    with pytest.raises(PermissionError):
        track(short, tmp_path / "cut")


def test_epochs_that_a_run_does_not_have_cannot_be_kept(tmp_path):
    with pytest.raises(ValueError, match=r"keep_checkpoint must be an epoch of the run, 1 to 3; got 99\. Give"):
        track(small(), tmp_path / "run", keep=(1, 99))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("probes", "told"), {("train", "deficit"): 1, ("test",): 1, ("train", "test"): 2}.items())
def test_more_probe_images_than_there_are_is_noted(probes: tuple[str, ...], told: int):
    observer = Notices()
    load_sets(small(probe=probes, probe_images=9_999), notice=observer.notice)
    assert len(observer.texts) == told
    assert all(text.startswith("probe_images 9,999 is more than there are: all ") for text in observer.texts)
    load_sets(small(probe=probes, probe_images=1_000), notice=observer.notice)  # the default, of 60 images
    assert len(observer.texts) == told
