"""A run that branches off another one comes to the bits of the run that trained alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from observers import Notices
from runs import small

import fisherkit
from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.studies import run as run_module
from fisherkit.studies import track
from fisherkit.studies.folder import read_specification
from fisherkit.training import kept_epochs, newest_checkpoint

IGNORED = ("elapsed_s", "option_sources")
CONTROL = dict(deficit=(), event=(), probe=("train",), every="1")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TRACK = [sys.executable, "-m", "fisherkit_cli", "track"]


def removal(t0: int, **changes):
    """Blur for t0 epochs of 4."""
    deficit = (f"blur(4):0-{t0}",) if t0 else ()
    return small(**{**CONTROL, "epochs": 4, "deficit": deficit, "augment": ("crop+flip",), **changes})


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """Blur for three epochs; what came after the first and the second is kept."""
    folder = tmp_path_factory.mktemp("trunk")
    assert track(removal(3), folder, keep=(1, 2)).finished
    assert kept_epochs(folder) == (1, 2)
    return folder


def weights(folder):
    return newest_checkpoint(folder).contents["training"]["model"]


def assert_the_same_run(one, other):
    """Every row, attribute and weight."""
    assert fisherkit.read(one / "run.h5").differences(fisherkit.read(other / "run.h5"), ignore=IGNORED) == []
    mine, theirs = weights(one), weights(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("t0", [1, 2])
def test_a_branch_is_bit_identical_to_a_run_of_its_own(trunk, tmp_path, t0: int):
    track(removal(t0), tmp_path / "alone")
    branched = track(removal(t0), tmp_path / "branched", branch=(trunk, t0))
    assert branched.finished
    assert_the_same_run(tmp_path / "branched", tmp_path / "alone")


def test_with_adam_dropout_free_bf16_and_a_schedule(tmp_path):
    changes = dict(optimizer="adam", precision="bf16", lr_schedule="step(0.5,1)", model="mlp", width="8")
    track(removal(3, **changes), tmp_path / "trunk", keep=(2,))
    track(removal(2, **changes), tmp_path / "alone")
    track(removal(2, **changes), tmp_path / "branched", branch=(tmp_path / "trunk", 2))
    assert_the_same_run(tmp_path / "branched", tmp_path / "alone")


def test_a_branch_that_has_begun_does_without_the_other_run(trunk, tmp_path):
    specification = tmp_path / "specification.json"
    specification.write_text(removal(2).model_dump_json())
    branch = ["--branch-from", str(trunk), "--branch-epoch", "2"]
    command = [*TRACK, "--specification", str(specification), "--out", str(tmp_path / "run")]
    with subprocess.Popen([*command, *branch], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        while "epoch   3/4" not in line:
            line = process.stdout.readline()
            assert line, "the run ended without an epoch"
        process.kill()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch" in done.stdout
    track(removal(2), tmp_path / "alone")
    assert_the_same_run(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize(
    ("specification", "epoch", "problem"),
    [
        (removal(1), 2, "is the same up to"),
        (removal(0), 1, "is the same up to"),
        (removal(2, seed=1), 2, "is the same up to"),
        (removal(2, augment=("none",)), 2, "is the same up to"),
        (removal(3), 3, r"holds a kept checkpoint of \(1, 2\); got 3"),
    ],
)
def test_a_branch_that_is_no_beginning_of_the_run_is_refused(trunk, tmp_path, specification, epoch, problem):
    with pytest.raises(RunRefused, match=problem):
        track(specification, tmp_path / "run", branch=(trunk, epoch))
    assert not (tmp_path / "run" / "run.h5").exists()
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_damaged_branch_is_refused(trunk, tmp_path):
    for path in trunk.glob("kept-1-*.pt"):
        (tmp_path / "other").mkdir()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "other" / path.name).write_bytes(bytes(data))
    with pytest.raises((UnreadableFile, RunRefused), match="kept"):
        track(removal(1), tmp_path / "run", branch=(tmp_path / "other", 1))


def test_a_run_whose_loss_explodes_says_so_in_its_file(tmp_path):
    with pytest.raises(FloatingPointError):
        track(removal(0, lr=1e30), tmp_path)
    attributes = fisherkit.read(tmp_path / "run.h5").attributes
    assert attributes["finished"] is False
    assert "not finite" in attributes["exploded"] or "infinite" in attributes["exploded"]


def test_the_specification_may_be_the_config_of_a_run(trunk, tmp_path):
    assert read_specification(trunk / "config.json") == removal(3)
    plain = tmp_path / "plain.json"
    plain.write_text(removal(1).model_dump_json())
    assert read_specification(plain) == removal(1)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"epochs": 0}', '{"configuration": []}', "{" * 5000, '{"lr": "x"}'])
def test_a_file_that_is_no_specification_is_refused(tmp_path, text: str):
    path = tmp_path / "specification.json"
    path.write_text(text)
    with pytest.raises(UnreadableFile, match="not the specification of a run"):
        read_specification(path)


def test_options_beside_a_specification_are_refused(trunk):
    command = [*TRACK, "--specification", str(trunk / "config.json"), "--lr", "0.1", "--seed", "3"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--lr, --seed must not be given beside it" in done.stderr


def test_a_run_stops_cleanly_when_its_parent_dies(tmp_path):
    options = json.loads(removal(0, epochs=100_000).model_dump_json())
    path = tmp_path / "specification.json"
    path.write_text(json.dumps(options))
    process = subprocess.Popen(
        [*TRACK, "--specification", str(path), "--out", str(tmp_path / "run")],
        env={**ENVIRONMENT, "FISHERKIT_PARENT_PIPE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        while "epoch " not in process.stdout.readline():
            pass
        closed = time.monotonic()
        process.stdin.close()
        process.stdout.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - closed < 20
    assert len(fisherkit.read(tmp_path / "run" / "run.h5")) > 1


def test_a_branch_on_other_images_is_refused(trunk, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "identity_of", lambda *_: {"configuration": {}, "images": {"train": "another"}})
    with pytest.raises(RunRefused, match="same images"):
        track(removal(1), tmp_path / "run", branch=(trunk, 1))


def test_a_branch_with_other_numerics_is_trained_anew(trunk, tmp_path):
    notices = Notices()
    track(removal(1, threads=2), tmp_path / "alone")
    track(removal(1, threads=2), tmp_path / "branched", branch=(trunk, 1), observer=notices)
    assert any("Epochs 1 to 1 are trained again" in text for text in notices.texts)
    assert_the_same_run(tmp_path / "branched", tmp_path / "alone")
