"""show: the folders of runs and of studies, their states, and commands that go on with them."""

import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from runs import small
from study_records import removal as record
from test_cli_runs import call

import fisherkit
from fisherkit.recording import study_to_bytes
from fisherkit.studies import Observer, track
from fisherkit.studies.conduct import claim, plan_study
from fisherkit.studies.protocols import StudyOptions, removal


class Dead(Exception):  # noqa: N818
    """In place of a kill."""


class Dies(Observer):
    """In the step after so many."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def stepped(self, run, step) -> None:
        if step.step > self.steps:
            raise Dead


def cut(specification, folder: Path, steps: int) -> None:
    with pytest.raises(Dead):
        track(specification, folder, observer=Dies(steps))


def test_a_run_that_was_cut_is_shown_with_a_command_that_finishes_it(tmp_path):
    folder = tmp_path / "run"
    cut(small(), folder, 5)
    status, text = call("show", str(folder))
    assert status == 0, text
    assert "not finished" in text
    assert "of 3\n" in text
    assert "it still runs" in text  # the writer is this process
    command = text.splitlines()[-1].strip()
    assert text.splitlines()[-2].startswith("goes on  from step ")
    facts = json.loads(call("show", "--json", str(folder))[1])
    assert (facts["state"], facts["resume"]) == ("unfinished", command)
    assert facts["resumes_at_step"] == int(text.splitlines()[-2].split()[-1])
    program, *arguments = shlex.split(command)
    assert program == "fisherkit"
    assert call(*arguments)[0] == 0
    text = call("show", str(folder))[1]
    assert ", finished" in text
    assert "goes on" not in text
    assert f"log      {folder / 'log.txt'}" in text


def test_a_run_without_a_row_and_one_without_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"configuration": json.loads(small().model_dump_json())}))
    status, text = call("show", str(tmp_path))
    assert status == 0, text
    assert "a run that has not written a row yet" in text
    assert "goes on  there is no checkpoint: it begins anew" in text
    (tmp_path / ".lock").write_text("process 999999999 on nowhere, started 2026-01-01 00:00:00 UTC\n")
    assert "whether it still runs can only be told there" in call("show", str(tmp_path))[1]


def test_a_run_that_exploded_says_where_and_that_it_would_come_to_the_same(tmp_path):
    for name, choice in {"stop": "stop", "continue": "continue"}.items():
        try:
            track(small(lr=1e30, event=(), on_nonfinite=choice), tmp_path / name)
        except FloatingPointError as error:
            message = str(error)
    text = call("show", str(tmp_path / "stop"))[1]
    assert f"exploded {message}" in text
    assert "it would come to the same" in text
    text = call("show", str(tmp_path / "continue"))[1]
    assert f"exploded {message}" in text
    assert ", finished" in text
    assert "goes on" not in text


def test_a_study_file_is_shown_arm_by_arm(tmp_path):
    made = record()
    (tmp_path / "study.h5").write_bytes(study_to_bytes(made))
    for path in (tmp_path, tmp_path / "study.h5"):
        status, text = call("show", str(path))
        assert status == 0, text
        assert "whole (checksum ok), schema 1" in text
        assert f"{len(made.arms)} arms over deficit removed at epoch, seeds 0, 1, 2" in text
        assert f"runs     {3 * len(made.arms)} finished" in text
        assert all(arm.label in text for arm in made.arms)
    facts = json.loads(call("show", "--json", str(tmp_path))[1])
    assert (facts["protocol"], facts["whole"], len(facts["arms"])) == ("removal", True, len(made.arms))
    data = bytearray((tmp_path / "study.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "study.h5").write_bytes(data)
    status, text = call("show", str(tmp_path))
    assert (status, len(text.splitlines())) == (65, 1)


@pytest.fixture
def planned(tmp_path):
    """A study of three runs under tmp_path/out: one finished, one cut, one not begun."""
    run = dict(model="linear", train_images=20, test_images=10, probe_images=5, batch_size=10, threads=1, every="1")
    study = removal(StudyOptions(run, seeds=1, arms=("0", "1", "2"), clean_epochs=2), deficits=("blur",))
    plan = plan_study(study, tmp_path / "out")
    claim(plan, "early", command="fisherkit study removal --arms 0,1,2")
    first, second, _ = study.runs
    track(first, tmp_path / "out" / "runs" / first.identity)
    cut(second, tmp_path / "out" / "runs" / second.identity, 2)
    return tmp_path / "out"


def test_a_study_in_progress_is_shown_with_the_states_of_its_runs(planned):
    status, text = call("show", str(planned / "early"))
    assert status == 0, text
    assert "a study that has not written its results yet" in text
    assert "on disk  1 finished, 1 unfinished, 1 missing" in text
    assert text.splitlines()[-1] == "goes on  fisherkit study removal --arms 0,1,2"
    facts = json.loads(call("show", "--json", str(planned / "early"))[1])
    assert sorted(facts["runs_on_disk"].values()) == ["finished", "missing", "unfinished"]


def test_the_folder_of_several_studies_is_shown_study_by_study(planned):
    status, text = call("show", str(planned))
    assert status == 0, text
    assert text.splitlines()[0] == f"{planned}: 2 runs"
    assert "study    early (removal): 1 finished, 1 unfinished, 1 missing; fisherkit show " in text
    assert list(json.loads(call("show", "--json", str(planned))[1])["studies"]) == ["early"]


@pytest.mark.parametrize("runs", [{"../../x": {}}, {"0" * 15: {}}, [], 3])
def test_a_plan_by_another_program_is_refused(planned, runs):
    plan = json.loads((planned / "early" / "plan.json").read_text())
    (planned / "early" / "plan.json").write_text(json.dumps({**plan, "runs": runs}))
    status, text = call("show", str(planned / "early"))
    assert status == 65
    assert "plan.json: not the plan of a study" in text


def test_a_folder_of_runs_of_studies_and_of_other_folders_is_shown_part_by_part(planned, tmp_path):
    track(small(epochs=1, event=(), deficit=("blur:0-1",)), tmp_path / "done")
    (tmp_path / "done" / "more").mkdir()
    for name, data in {"bad.h5": b"hello", "note.txt": b"", "empty/note.txt": b"", "damaged/run.h5": b"hello"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "study.d").mkdir()
    (tmp_path / "study.d" / "study.h5").write_bytes(study_to_bytes(record()))
    (tmp_path / "deep" / "runs").mkdir(parents=True)
    (tmp_path / "deep" / "runs2").symlink_to(tmp_path / "done")
    status, text = call("show", str(tmp_path))
    assert status == 0, text
    first, *lines, last = text.splitlines()
    assert first == f"{tmp_path}: holds 6 runs, studies or folders of them"
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert {name: shown[name] for name in ("deep", "done", "out", "study.d")} == {
        **{"deep": "folder of runs or studies", "done": "finished, 3 rows", "out": "studies", "study.d": "study"}
    }
    assert all(shown[name].startswith("unreadable: ") for name in ("bad.h5", "damaged"))
    assert last == f"each     fisherkit show {tmp_path}/NAME"
    assert json.loads(call("show", "--json", str(tmp_path))[1])["holds"] == shown
    runs = call("show", str(planned / "runs"))[1].splitlines()
    assert sorted(line.split(maxsplit=1)[1] for line in runs[1:-1])[0].startswith("finished, ")


NOTHING = {
    "missing": (lambda path: None, "which does not exist"),
    "empty": (lambda path: path.mkdir(), "which is an empty folder"),
    "foreign": (lambda path: (path / "x").mkdir(parents=True), "a folder that holds none"),
    "pipe": (os.mkfifo, "which is neither a file nor a folder"),
    "link": (lambda path: path.symlink_to("nowhere"), "a link to what does not exist"),
}


@pytest.mark.parametrize(("make", "message"), NOTHING.values(), ids=NOTHING)
def test_what_is_none_of_these_is_refused_saying_what_it_is(tmp_path, make, message: str):
    make(tmp_path / "x")
    status, text = call("show", str(tmp_path / "x"))
    assert status == 2
    assert "run must be a run file, a study file, or the folder of a run, a study or several of them; got" in text
    assert f"x', {message}.\n" in text


def test_a_file_of_measure_says_nothing_of_going_on(tmp_path):
    track(small(epochs=2, deficit=("blur:0-1",), event=(), every="1"), tmp_path / "run")
    run = fisherkit.read(tmp_path / "run" / "run.h5")
    (tmp_path / "copy.h5").write_bytes((tmp_path / "run" / "run.h5").read_bytes())
    text = call("show", str(tmp_path / "copy.h5"))[1]
    assert len(run) == 3
    assert "log " not in text
    assert "goes on" not in text


def test_a_file_of_a_tracker_is_not_said_to_be_unfinished_or_of_an_unknown_model(tmp_path):
    with fisherkit.FisherTracker(tmp_path / "own.h5", torch.nn.Linear(3, 2), torch.ones(4, 3)) as tracker:
        tracker.record(0, measure=False)
        tracker.close()
    text = call("show", str(tmp_path / "own.h5"))[1]
    assert text.splitlines()[1:4] == [
        "run      rows recorded by FisherTracker",
        "rows     1, epochs 0 to 0",
        "layers   1, 8 parameters",
    ]
    assert "measured not yet, probe train (4 images)" in text
    assert "unknown" not in text
    assert "finished" not in text
