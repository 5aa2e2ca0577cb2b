"""`fisherkit study` as a user types it: plan, run, interrupt, resume, all done, failures."""

import json
import os
import signal
import subprocess
import sys

import pytest
from test_cli_runs import call

import fisherkit
from fisherkit.studies import track
from fisherkit.studies.folder import read_specification

TINY = [
    *("--model", "linear", "--train-images", "40", "--test-images", "20", "--probe-images", "10"),
    *("--batch-size", "20", "--seeds", "2"),
]
REMOVAL = ["study", "removal", *TINY, "--arms", "0,1,2", "--clean-epochs", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
RESULTS = {"plan.json", "study.h5", "summary.csv", "summary.txt", "figure.png", "figure.pdf", "figure.svg"}


def fisherkit_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fisherkit_cli", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that is through: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("studies")
    status, text = call(*REMOVAL, "--out", str(out))
    assert status == 0, text
    return out, text


def test_every_protocol_has_help_with_its_options_first():
    for name in ("removal", "window", "regularization", "warm-start", "early-fisher", "custom"):
        status, text = call("study", name, "--help")
        assert status == 0
        assert "--time-scale" in text
        assert "--lr-schedule" in text
        assert "--epochs" not in text.replace("--clean-epochs", "").replace("--warm-epochs", "")
    _, text = call("study", "removal", "--help")
    assert text.index("--deficit") < text.index("--seeds") < text.index("--model")


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(tmp_path):
    status, text = call(*REMOVAL, "--out", str(tmp_path / "out"), "--dry-run", "--executor", "local:2")
    assert status == 0, text
    assert "removal: 3 arms, 6 runs, 0 of them done" in text
    assert "blur until epoch 2                            4     2" in text
    # a seed: the longest run 4, the one until epoch 1 two more, the control 2
    assert "epochs   16 to train (18 without training common beginnings once, 11.1% fewer)" in text
    assert "with 2 runs at a time" in text
    assert "s an epoch here" in text
    assert "MB" in text
    assert not (tmp_path / "out").exists()


def test_a_study_ends_with_its_summary_and_its_files(done):
    out, text = done
    assert {path.name for path in (out / "removal").iterdir()} == RESULTS
    assert "Study removal (removal)" in text
    assert "runs     6 of 6 finished; seeds 0, 1" in text
    assert "Undertrained" in text
    assert str(out / "removal" / "figure.png") in text
    record = fisherkit.read_study(out / "removal" / "study.h5")
    assert [arm.label for arm in record.arms] == ["control", "blur until epoch 1", "blur until epoch 2"]
    assert len(list((out / "runs").iterdir())) == 6
    assert not list((out / "runs").glob("*/kept-*"))


def test_runs_that_branched_are_those_that_train_alone(done, tmp_path):
    out, _ = done
    branched = [path for path in (out / "runs").iterdir() if "branching off" in (path / "log.txt").read_text()]
    assert len(branched) == 2
    for number, folder in enumerate(branched):
        track(read_specification(folder / "specification.json"), tmp_path / str(number))
        alone = fisherkit.read(tmp_path / str(number) / "run.h5")
        ignored = ("elapsed_s", "option_sources")
        assert fisherkit.read(folder / "run.h5").differences(alone, ignore=ignored) == []


def test_the_same_command_again_says_that_all_is_done(done):
    out, _ = done
    before = {path: path.read_bytes() for path in (out / "removal").iterdir()}
    status, text = call(*REMOVAL, "--out", str(out))
    assert status == 0, text
    assert "All 6 runs are done." in text
    assert "starts" not in text
    assert [path.name for path, data in before.items() if path.read_bytes() != data] == []


def test_two_studies_in_one_folder_share_their_runs(done):
    out, _ = done
    status, text = call(
        *REMOVAL, "--out", str(out), "--name", "more", "--arms", "0,2", "--deficit", "flip", "--dry-run"
    )
    assert status == 0, text
    assert "removal: 2 arms, 4 runs, 2 of them done" in text


def test_another_study_of_the_same_name_is_refused(done):
    out, _ = done
    before = (out / "removal" / "summary.txt").read_bytes()
    status, text = call(*REMOVAL, "--out", str(out), "--lr", "0.2")
    assert status == 1
    assert "holds another study: run.lr None (this command: 0.2)." in text
    assert "Give another --name, or --out" in text
    assert (out / "removal" / "summary.txt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--arms", "0,x"], "arms must be epochs"),
        (["--arms", "0,,2"], "must be values with commas"),
        (["--time-scale", "0"], "time_scale must be above 0"),
        (["--executor", "slurm"], "executor must be local"),
        (["--deficit", "blur:0-2"], "deficit must have no window"),
        (["--lr", "-1"], "lr must be"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(tmp_path, arguments, problem):
    status, text = call(*REMOVAL, *arguments, "--out", str(tmp_path / "out"))
    assert status == 2, text
    assert problem in text
    assert "Traceback" not in text
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("name", ["../up", "runs", ".", "a.", "-x"])
def test_a_name_that_is_no_folder_of_results_is_refused(tmp_path, name):
    status, text = call(*REMOVAL, f"--name={name}", "--out", str(tmp_path / "out"))
    assert status == 64, text
    assert "name must" in text
    assert not (tmp_path / "out" / "runs").exists()


def test_interrupted_and_resumed_it_comes_to_the_same(done, tmp_path):
    out, _ = done
    command = [sys.executable, "-m", "fisherkit_cli", *REMOVAL, "--out", str(tmp_path), "--executor", "local:1"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.rstrip().endswith("finished"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
        assert process.wait() == 130
    assert "nothing is lost" in rest
    assert not (tmp_path / "removal" / "study.h5").exists()
    again = fisherkit_command(*REMOVAL, "--out", str(tmp_path), "--executor", "local:2")
    assert again.returncode == 0, again.stderr
    for path in (out / "runs").iterdir():
        mine, theirs = fisherkit.read(path / "run.h5"), fisherkit.read(tmp_path / "runs" / path.name / "run.h5")
        assert mine.differences(theirs, ignore=("elapsed_s", "option_sources")) == []


def test_a_run_that_fails_is_reported_and_the_others_are_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # modules of the current directory are found
    module = tmp_path / "poison.py"
    module.write_text("def dark(*_):\n    raise RuntimeError('no light')\n")
    file = tmp_path / "grid.toml"
    file.write_text('[run]\nclean_epochs = 1\n[grid]\ndeficit = ["", "poison:dark:0-1"]\n')
    status, text = call("study", "custom", str(file), *TINY, "--out", str(tmp_path / "out"))
    plan = json.loads((tmp_path / "out" / "custom" / "plan.json").read_text())
    assert len(plan["runs"]) == 4
    assert status == 1, text
    assert "2 runs did not finish" in text
    summary = (tmp_path / "out" / "custom" / "summary.txt").read_text()
    assert "failed: RuntimeError: no light." in " ".join(summary.split())
