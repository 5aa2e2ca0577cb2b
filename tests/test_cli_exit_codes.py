"""The exit status of every ending, as docs/exit-codes.md says."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from fisherkit_cli import failure
from fisherkit_cli.main import EPILOG
from fisherkit_cli.progress import Progress
from runs import ARGUMENTS
from test_cli_runs import call, report
from trajectories import made_up

from fisherkit.errors import BadName, FolderInUse, RunRefused, UnreadableFile
from fisherkit.names import check_name, check_new_folder, folder_named
from fisherkit.recording import to_bytes
from fisherkit.storage import atomic_write, lock

TABLE = Path(__file__).parents[1] / "docs" / "exit-codes.md"
ERRORS = {
    "failure": (RuntimeError("x"), 1, "fisherkit: RuntimeError: x\nRun again with `fisherkit --debug ...`"),
    "numbers": (FloatingPointError("loss became NaN"), 1, "fisherkit: loss became NaN\n"),
    "memory": (MemoryError("for one image"), 1, "fisherkit: for one image\n"),
    "disk full": (OSError(28, "No space left on device; 7 bytes", "a/run.h5"), 1, "fisherkit: a/run.h5: No space left"),
    "no access": (
        *(PermissionError(13, "Permission denied", "a/.lock"), 1),
        "fisherkit: a/.lock: Permission denied. Change the permissions there, or choose another place, such as another",
    ),
    "read only": (OSError(30, "Read-only file system", "a"), 1, "fisherkit: a: Read-only file system. Choose another"),
    "said by who met it": (
        OSError(13, "Permission denied: it is so", "a"),
        1,
        "fisherkit: a: Permission denied: it is so\n",
    ),
    "another run": (RunRefused("a holds another run"), 1, "fisherkit: a holds another run\n"),
    "value": (ValueError("lr must be above 0"), 2, "fisherkit: lr must be above 0\n"),
    "name": (BadName("name must be short"), 64, "fisherkit: name must be short\n"),
    "file": (UnreadableFile("a", "is cut."), 65, "fisherkit: a: is cut.\n"),
    "in use": (FolderInUse("a is in use"), 75, "fisherkit: a is in use\n"),
    "Ctrl-C": (click.Abort(), 130, "Stopped.\n"),
    "bidi": (ValueError("\u202ename\x1b[2J"), 2, "fisherkit: \\u202ename\\x1b[2J\n"),
}


@pytest.mark.parametrize(("error", "status", "text"), ERRORS.values(), ids=ERRORS)
def test_every_error_has_a_status_and_a_line(error: Exception, status: int, text: str):
    assert report(error)[0] == status
    assert report(error)[1].startswith(text)


def test_the_table_names_every_status_and_no_other():
    named = {int(number) for number in re.findall(r"^\| ([0-9]+) \|", TABLE.read_text(), re.MULTILINE)}
    here = {failure.FAILURE, failure.USAGE, failure.BAD_NAME, failure.BAD_DATA, failure.IN_USE, failure.INTERRUPTED}
    assert {int(number) for number in re.findall(r"[0-9]+", EPILOG)} == named
    assert named == {0, 128 + signal.SIGTERM, *here} == {0, 1, 2, 64, 65, 75, 130, 143}


def test_done_wrong_usage_bad_name_bad_file_and_in_use(tmp_path):
    assert call("data", "list")[0] == 0
    assert call("track", "--no-such-option")[0] == 2
    status, text = call(*ARGUMENTS, "--out", str(tmp_path / "a run"))
    assert (status, "the last part of --out must be 1 to 100 letters" in text) == (64, True)
    status, text = call(
        "study", "removal", "--name", "../x", "--arms", "0", "--seeds", "1", "--out", str(tmp_path / "s")
    )
    assert (status, "got '../x'" in text) == (64, True)
    assert not (tmp_path / "x").exists()
    (tmp_path / "run.h5").write_bytes(b"hello")
    assert call("show", str(tmp_path / "run.h5"))[0] == 65
    with lock(tmp_path / "busy"):
        assert call(*ARGUMENTS, "--out", str(tmp_path / "busy"))[0] == 75


def test_a_failure(tmp_path):
    status, text = call(*ARGUMENTS, "--lr", "1e30", "--out", str(tmp_path / "run"))
    assert status == 1
    assert "became infinite or NaN at step 2, in epoch 1" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(tmp_path, monkeypatch, number: signal.Signals):
    monkeypatch.setattr(Progress, "stepped", lambda *_: os.kill(os.getpid(), number))
    status, text = call(*ARGUMENTS, "--out", str(tmp_path / "run"))
    assert status == 128 + number
    assert "Stopped after step 1; nothing is lost." in text


NAMES = {
    **{"empty": "", "dots": "..", "dot": ".", "hidden": ".git", "path": "a/b", "up": "a..b", "last dot": "a."},
    **{"space": "a b", "long": "a" * 101, "option": "-a", "letters": "ä", "control": "a\n", "backslash": "a\\b"},
    **{"device": "CON", "device with an ending": "nul.txt"},
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_that_no_folder_may_have(tmp_path, name: str):
    with pytest.raises(BadName, match=r"^name must "):
        check_name(name, "name")
    with pytest.raises(BadName):
        folder_named(tmp_path, name, "name")


@pytest.mark.parametrize("name", ["a", "7", "resnet18-cifar10-blur-0-40-1234abcd", "a.b_c-d", "console", "a" * 100])
def test_names_that_are_fine(tmp_path, name: str):
    assert folder_named(tmp_path, check_name(name, "name"), "name") == tmp_path / name
    assert check_new_folder(tmp_path / name, "--out") == tmp_path / name


def test_a_name_must_not_lead_out_of_its_folder(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "out").symlink_to(tmp_path)
    (tmp_path / "studies" / "beside").symlink_to(tmp_path / "studies" / "real")
    with pytest.raises(BadName, match=r"name must be that of a folder in .*/studies; .*/studies/out is a link to"):
        folder_named(tmp_path / "studies", "out", "name")
    assert folder_named(tmp_path / "studies", "beside", "name").name == "beside"


def test_a_folder_that_is_there_may_have_any_name(tmp_path):
    (tmp_path / "a run").mkdir()
    assert check_new_folder(tmp_path / "a run", "--out") == tmp_path / "a run"
    with pytest.raises(BadName, match="the last part of --out must be"):
        check_new_folder(tmp_path / "b run", "--out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_standard_output_that_takes_nothing_is_said_to_be_that():
    command = [sys.executable, "-m", "fisherkit_cli", "data", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    why = "standard output could not be written (No space left on device)"
    assert done.stderr == f"fisherkit: {why}. Send it to a place that takes it.\n"


def test_show_ends_well_where_its_reader_has_had_enough(tmp_path):
    path = tmp_path / "run.h5"
    atomic_write(path, to_bytes(made_up()))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fisherkit_cli", "show", str(path)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
