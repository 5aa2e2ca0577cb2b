"""`fisherkit doctor`: all is well here; what is wrong is named with its remedy."""

import os
import re
import subprocess
import sys

import pytest
import torch
from fisherkit_cli import checks
from test_cli_runs import call

NAMES = (
    *("versions", "optional", "system", "torch", "processor", "threads", "device", "memory", "images", "HDF5"),
    *("run folder", "measuring", "verdict"),
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """A machine on which all is well, whatever this one is."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "FISHERKIT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "alice"))
    monkeypatch.setattr(checks, "processors", lambda: 64)
    monkeypatch.setattr("fisherkit.fisher.memory.free_memory", lambda device: 8 * 10**9)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda place: checks.shutil._ntuple_diskusage(9e12, 0, 9e12))


def doctor(*arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit status, the lines by name, what is wrong."""
    status, text = call("doctor", *arguments)
    lines = dict(re.fullmatch(r"(.{12}) (.*)", line).groups() for line in text.splitlines())
    assert all(text.isprintable() for text in lines.values())
    return status, {name.strip(): line for name, line in lines.items()}, lines.get("WRONG       ", "")


def test_all_is_well_here(tmp_path):
    (tmp_path / "home" / "alice").mkdir(parents=True)
    status, lines, wrong = doctor("--out", str(tmp_path / "home" / "alice" / "runs"))
    assert (status, wrong) == (0, ""), lines
    assert tuple(lines) == NAMES
    assert lines["verdict"] == "all is well"
    assert f"torch {torch.__version__}" in lines["versions"]
    assert "h5py" in lines["versions"]
    assert "xarray" in lines["optional"]
    assert "ruff" not in lines["versions"]
    assert lines["images"].startswith("fashion-mini; looked in ~/")
    assert lines["run folder"].startswith("~ can be written to and locked")
    assert lines["measuring"] == "auto works, BackPACK works (compared with brute force)"
    assert "alice" not in str(lines)
    assert not list((tmp_path / "home" / "alice").iterdir())  # nothing is left


def test_settings_that_matter_are_shown(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert checks.threads().text.endswith("OMP_NUM_THREADS=3")


SETTINGS = {
    "no number": (
        {"OMP_NUM_THREADS": "abc"},
        "OMP_NUM_THREADS=abc is no number of threads and is ignored: torch computes",
    ),
    "zero": ({"OMP_NUM_THREADS": "0"}, "Set OMP_NUM_THREADS=64, or fewer, or unset it."),
    "none": ({"MKL_NUM_THREADS": ""}, "MKL_NUM_THREADS= is no number of threads"),
    "two": (
        {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "9"},
        "OMP_NUM_THREADS=1 and MKL_NUM_THREADS=9 differ, and torch",
    ),
}


@pytest.mark.parametrize(("settings", "problem"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_do_not_do_what_they_say(monkeypatch, settings: dict[str, str], problem: str):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (found,) = checks.threads().problems
    assert problem in found
    assert f"computes with {torch.get_num_threads()}" in found


def test_settings_that_agree_and_lists_are_no_problem(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert checks.threads().problems == ()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="says what MKL does")
def test_of_two_numbers_of_threads_the_second_counts():
    """What `doctor` says of the two together is true of this torch."""
    program = "import torch; print(torch.get_num_threads())"
    for first, second, found in (("1", "2", "2"), ("2", "1", "1")):
        environment = {**os.environ, "OMP_NUM_THREADS": first, "MKL_NUM_THREADS": second}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(min(int(found), len(os.sched_getaffinity(0))))


def test_a_run_folder_that_is_a_file_or_below_one(tmp_path):
    (tmp_path / "x").touch()
    for out in (tmp_path / "x", tmp_path / "x" / "y" / "z"):
        (problem,) = checks.run_folder(out).problems
        assert problem == f"{tmp_path}/x is there and is no folder, so that no run can be written to {out}. " + (
            "Give another --out."
        )


def full(*_, **__):
    raise OSError(28, "No space left on device")


def broken(*_, **__):
    raise RuntimeError("no such operator\nmore")


class Wrong:
    passed = False


VERIFY = "fisherkit.fisher.verify"
WRONG = {
    "threads": ("processors", lambda: 0, checks.threads, r"on 0 processors, which is slow: set OMP_NUM_THREADS=0"),
    "few bytes": ("LEAST_SPACE", 10**14, lambda: checks.run_folder(checks.Path()), r"only 9,000,000 MB are free"),
    "little memory": ("LEAST_MEMORY", 10**14, checks.memory, r"only 8.0 GB are free. End other programs, or give"),
    "no writing": ("tempfile.TemporaryDirectory", full, lambda: checks.run_folder(checks.Path()), r"\(No space left"),
    "backpack": (VERIFY, broken, checks.measuring, r"engine backpack: RuntimeError: no such operator. "),
    "measuring": (VERIFY, lambda *_, **__: Wrong, checks.measuring, "engine auto: differs from brute force"),
}


@pytest.mark.parametrize(("place", "value", "check", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_remedy(monkeypatch, place: str, value, check, problem: str):
    monkeypatch.setattr(place if place.startswith("fisherkit") else f"fisherkit_cli.checks.{place}", value)
    assert any(re.search(problem, text) for text in check().problems), check().problems


def test_a_data_folder_that_is_not_there(monkeypatch, tmp_path):
    assert "x is no folder" in checks.image_sets(tmp_path / "x").problems[0]
    monkeypatch.setenv("FISHERKIT_DATA", str(tmp_path / "y"))
    assert "y is no folder: give the one of the image files by --data-dir or FISHERKIT_DATA" in str(
        checks.image_sets(None).problems
    )
    (tmp_path / "y").mkdir()
    assert checks.image_sets(None).problems == ()


def test_a_package_that_is_missing_or_too_old(monkeypatch):
    wanted = ["torch>=99", "no-such-package>=1", "numpy>=1", 'xarray>=1; extra == "xarray"', "x; python_version < '3'"]
    monkeypatch.setattr(checks.metadata, "requires", lambda name: wanted)
    found = checks.versions()
    assert found.problems == (
        f"torch>=99 is needed; got {torch.__version__}. Mend it with `pip install 'torch>=99'`.",
        "no-such-package>=1 is needed; it is missing. Mend it with `pip install 'no-such-package>=1'`.",
    )
    assert "no-such-package missing" in found.text
    assert "xarray" not in found.text
    assert checks.optional_packages().text.startswith("xarray 2")


def test_a_check_that_fails_is_a_finding_and_the_status_is_1(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "hdf5", broken)
    status, lines, wrong = doctor("--out", str(tmp_path))
    assert status == 1
    assert lines["HDF5"] == "could not be told"
    assert wrong.startswith("HDF5: RuntimeError: no such operator")
    assert lines["verdict"] == "1 wrong, see above"
