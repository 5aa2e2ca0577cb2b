"""log.txt beside a run: what track prints, with the time; and the notes that are shown once."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fisherkit_cli.log import Log
from fisherkit_cli.progress import Progress
from runs import ARGUMENTS, small
from test_cli_runs import call

import fisherkit
from fisherkit.storage import lock

STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} UTC  ")


def log_of(folder) -> list[str]:
    """The lines without their times, which all have."""
    lines = (folder / "log.txt").read_text().splitlines()
    assert all(map(STAMP.match, lines))
    return [STAMP.sub("", line) for line in lines]


def test_the_log_is_what_was_printed_in_every_session(tmp_path):
    status, first = call(*ARGUMENTS, "--out", str(tmp_path))
    assert status == 0
    assert log_of(tmp_path) == first.splitlines()
    status, text = call(*ARGUMENTS, "--out", str(tmp_path))
    assert "nothing to do" in text
    assert log_of(tmp_path) == first.splitlines()  # a finished run is left alone


def test_the_log_says_why_a_run_ended(tmp_path):
    status, text = call(*ARGUMENTS, "--lr", "1e30", "--out", str(tmp_path))
    assert status == 1
    assert log_of(tmp_path)[-1] == text.splitlines()[-1]
    assert log_of(tmp_path)[-1].startswith("fisherkit: training loss became infinite or NaN at step 2, in epoch 1")


def test_the_run_of_a_study_keeps_no_second_log(tmp_path, monkeypatch):
    monkeypatch.setenv("FISHERKIT_PARENT_PIPE", "1")
    monkeypatch.setattr("fisherkit.studies.signals.stop_with_parent", lambda: None)
    assert call(*ARGUMENTS, "--out", str(tmp_path))[0] == 0
    assert not (tmp_path / "log.txt").exists()


def test_a_run_that_is_refused_writes_nothing_into_the_folder_of_another(tmp_path):
    with lock(tmp_path / "busy"):
        assert call(*ARGUMENTS, "--out", str(tmp_path / "busy"))[0] == 75
    assert not (tmp_path / "busy" / "log.txt").exists()


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_where_the_log_cannot_be_written_the_run_goes_on(tmp_path, kind: str):
    (tmp_path / "run").mkdir()
    (tmp_path / "other.txt").write_text("other")
    path = tmp_path / "run" / "log.txt"
    make = {
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(tmp_path / "other.txt"),
        "dangling link": lambda: path.symlink_to(tmp_path / "nothing.txt"),
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    status, text = call(*ARGUMENTS, "--every", "1", "--out", str(path.parent))
    assert status == 0, text
    assert text.count("log.txt could not be written") == 1
    assert (tmp_path / "other.txt").read_text() == "other"
    assert not (tmp_path / "nothing.txt").exists()


def test_lines_wait_until_the_run_holds_its_folder(tmp_path):
    log = Log(tmp_path / "log.txt", tell=pytest.fail)
    log.add("before\nand more")
    assert not (tmp_path / "log.txt").exists()
    log.open()
    log.add("after \udcff")
    assert log_of(tmp_path) == ["before", "and more", "after \\udcff"]


def shown(capsys, *notes: str) -> list[str]:
    progress = Progress(small(), Path("folder"))
    for note in notes:
        progress.measured(None, SimpleNamespace(total=1.0, total_stderr=0.1, notes=(note,)))
    return [line.removeprefix("note: ") for line in capsys.readouterr().out.splitlines()]


def test_each_note_is_shown_once_whatever_its_numbers(capsys, tmp_path):
    skewed = "a few images carry the total (skewness {} over {}): use more images, or result.total_interval()"
    two = ("the outputs do not depend on conv1: trace 0.", "the outputs do not depend on conv2: trace 0.")
    other = "hooks on the gradient of a: they were not applied, result.total_interval()"  # the same last word
    first, second, third = (skewed.format(*pair) for pair in (("5.2", "1000"), ("1.7e+02", "900"), ("3", "8")))
    assert shown(capsys, first, second, *two, other, two[0], third) == [first, *two, other]


def test_layers_that_are_numbers_are_told_apart(capsys):
    assert len(shown(capsys, "not finite for layer '0'", "not finite for layer '2'", "in layer1.0.conv1")) == 3


def test_notes_do_not_flood(capsys):
    assert len(shown(capsys, *(f"layer a{number} has trace 0" for number in range(100)))) == 20


def test_an_epoch_without_a_measurement_shows_none(tmp_path):
    status, text = call(*ARGUMENTS[:-4], "--every", "2", "--threads", "1", "--out", str(tmp_path / "run"))
    assert status == 0, text
    shown = re.findall(r"^epoch .*  tr F (\S+)", text, re.MULTILINE)
    traces = fisherkit.read(tmp_path / "run" / "run.h5").total("fisher_true")
    assert shown == ["-", f"{traces[2]:.3g}", f"{traces[3]:.3g}"]  # the last epoch is always measured


def test_a_run_that_went_wrong_shows_no_old_trace(tmp_path):
    status, text = call(*ARGUMENTS, "--lr", "1e30", "--on-nonfinite", "continue", "--out", str(tmp_path / "run"))
    assert status == 0, text
    assert re.findall(r"^epoch .*  tr F (\S+)", text, re.MULTILINE) == ["-"] * 3
    assert "in epoch 0, the last measured (0% below" in text


@pytest.mark.parametrize("gone", ["a closed pipe", "a full device"])
def test_where_nobody_reads_what_it_prints_the_run_goes_on(tmp_path, gone: str):
    reading, writing = os.pipe()
    os.close(reading)
    output = writing if gone == "a closed pipe" else os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-m", "fisherkit_cli", *ARGUMENTS, "--out", str(tmp_path)]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert fisherkit.read(tmp_path / "run.h5").attributes["finished"]
    log = log_of(tmp_path)
    assert sum("standard output cannot be written" in line for line in log) == 1
    assert log[-1].startswith("picture ")
