"""analyze as a user types it."""

import csv
import dataclasses

import pytest
import study_records
from test_cli_runs import call
from trajectories import made_up

from fisherkit.recording import study_to_bytes, to_bytes
from fisherkit.storage import atomic_write


@pytest.fixture
def runs(tmp_path):
    """Three seeds under blur, two clean ones, and a folder without a run."""
    for seed in range(3):
        write(tmp_path / "blur" / str(seed), made_up(seed=seed))
    for seed in range(2):
        write(tmp_path / "clean" / str(seed), clean(seed))
    (tmp_path / "empty").mkdir()
    return tmp_path


def clean(seed):
    run = made_up(seed=seed, windows=())
    configuration = {**run.attributes["configuration"], "deficit": []}
    return dataclasses.replace(run, attributes={**run.attributes, "configuration": configuration})


def write(folder, run):
    folder.mkdir(parents=True)
    atomic_write(folder / "run.h5", to_bytes(run))


def test_one_run(runs):
    status, text = call("analyze", str(runs / "blur" / "0"))
    assert status == 0, text
    lines = text.splitlines()
    assert lines[0] == f"{runs / 'blur' / '0' / 'run.h5'}: fisher_true"
    assert lines[1].startswith("undertrained")
    table = [line.split("  ")[0] for line in lines]
    assert "all layers" in table
    assert "layer4.1.conv1" in table
    assert "memorizes, then forgets" in text
    assert "±" in text
    for word in ("over depth", "start", "peak", "end", "confidence", "entropy      not recorded", "weight norm  rises"):
        assert word in text
    assert "x control" not in text


def test_seeds_are_taken_together_and_compared(runs):
    table = runs / "table.csv"
    status, text = call("analyze", str(runs / "blur"), "--control", str(runs / "clean"), "--csv", str(table))
    assert status == 0, text
    assert "and 2 more: fisher_true; 3 runs that differ in their seed: means over seeds [95 % interval]" in text
    assert "x control, end" in text
    assert "all layers, 2 seeds" in text
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert rows[0]["layer"] == "all layers"
    assert len(rows) == 21
    assert {row["runs"] for row in rows} == {"3"}
    assert float(rows[0]["ratio_to_control"]) == pytest.approx(1, abs=0.3)
    assert text.strip().endswith(str(table))


def test_other_configurations_stay_apart(runs):
    status, text = call("analyze", str(runs / "blur"), str(runs / "clean"))
    assert status == 0, text
    assert text.count("over depth") == 2


def test_a_study_is_summed_up(tmp_path):
    record = study_records.removal()
    (tmp_path / "removal").mkdir()
    atomic_write(tmp_path / "removal" / "study.h5", study_to_bytes(record))
    status, text = call("analyze", str(tmp_path / "removal"), "--csv", str(tmp_path / "arms.csv"))
    assert status == 0, text
    assert "Study removal (removal)" in text
    assert "blur: losses against the noise of one run over seeds, all arms tested together" in text
    assert "flip, critical period: no arm loses" in text
    assert len(list(csv.DictReader((tmp_path / "arms.csv").read_text().splitlines()))) == 11
    status, text = call("analyze", str(tmp_path / "removal" / "study.h5"), "--arm", "blur until epoch 4")
    assert status == 0, text
    assert text.startswith("blur until epoch 4: fisher_true; 3 runs that differ")
    assert "x control (control), all layers, 3 seeds" in text


ERRORS = {
    "nowhere": (["{}/nowhere"], 2, "run must be a run file, a study file, or a folder that holds run.h5, study.h5"),
    "empty": (["{}/empty"], 2, "run must be a run file, a study file, or a folder"),
    "variable": (["{}/blur", "--variable", "x"], 2, "variable must be one of fisher_empirical, fisher_true"),
    "arm": (["{}/blur", "--arm", "x"], 2, "arm must be given with a study; got 'x' with runs"),
    "twice": (["{}/blur/0", "{}/blur/0/run.h5", "{}/copy"], 2, "run must differ in its seed from"),
    "controls": (
        ["{}/blur", "--control", "{}/blur", "--control", "{}/clean"],
        2,
        "control must be runs that differ only",
    ),
    "study": (["{}/study.h5", "{}/blur"], 2, "a study must be analysed alone, without --control; got 4 files"),
    "label": (["{}/study.h5", "--arm", "x"], 2, "label must be one of control, blur until epoch 2"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments(runs, arguments, status, message):
    write(runs / "copy", made_up(seed=0))
    atomic_write(runs / "study.h5", study_to_bytes(study_records.removal(deficits=("blur",), times=(2,))))
    got, text = call("analyze", *(argument.format(runs) for argument in arguments))
    assert got == status, text
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["run.h5", "study.h5"])
@pytest.mark.parametrize("content", [b"hello", b"", b"\x89HDF\r\n\x1a\n" + b"x" * 100])
def test_a_file_that_is_neither_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    status, text = call("analyze", str(tmp_path))
    assert status == 65
    assert str(tmp_path / name) in text
    assert len(text.strip().splitlines()) == 1


def test_hostile_names_do_not_reach_the_terminal(tmp_path):
    run = made_up(layers=4)
    names = ("a\x1b[31m", "b\nc", "d" * 300, "e\u202e")
    write(tmp_path / "x", dataclasses.replace(run, layers=names))
    status, text = call("analyze", str(tmp_path / "x"))
    assert status == 0
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert max(map(len, text.splitlines())) < 300
