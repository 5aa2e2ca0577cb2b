"""plot and show as a user types them."""

import json

import pytest
from test_cli_runs import call
from trajectories import made_up

from fisherkit.recording import read, to_bytes
from fisherkit.storage import atomic_write


@pytest.fixture
def runs(tmp_path):
    for name, options in {"blur": {}, "clean": dict(windows=(), seed=1)}.items():
        (tmp_path / name).mkdir()
        atomic_write(tmp_path / name / "run.h5", to_bytes(made_up(**options)))
    return tmp_path


def test_plot_takes_files_and_folders_and_says_what_it_wrote(runs):
    status, text = call("plot", str(runs / "blur"), str(runs / "clean" / "run.h5"))
    assert (status, text.strip()) == (0, str(runs / "blur" / "heatmap.png"))
    assert (runs / "blur" / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    status, text = call("plot", str(runs / "blur"), "--curves", "--layer", "fc", "--out", str(runs / "c.pdf"))
    assert status == 0, text
    assert (runs / "c.pdf").read_bytes().startswith(b"%PDF")
    status, text = call("plot", str(runs / "blur"), "--scale", "share", "--variable", "fisher_empirical")
    assert status == 0, text


ERRORS = {
    "nothing": (["nowhere"], 2, "run must be a run file or the folder of a run; got 'nowhere', which does not exist"),
    "several": (["{}"], 2, "a folder of several; name the runs in it: blur, clean."),
    "variable": (["{}/blur", "--variable", "x"], 2, "variable must be one of fisher_empirical, fisher_true"),
    "layer": (["{}/blur", "--layer", "q*"], 2, "layer must match one of the layers; got 'q*'"),
    "suffix": (["{}/blur", "--out", "{}/a.bmp"], 2, "out must end in .png, .svg, .pdf"),
    "folder": (["{}/blur", "--out", "{}/no/a.png"], 2, "out must be in a folder that exists"),
    "titles": (["{}/blur", "--title", "a", "--title", "b"], 2, "titles must be one for each"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments(runs, arguments, status: int, message: str):
    got, text = call("plot", *(argument.format(runs) for argument in arguments))
    assert got == status, text
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize("command", ["plot", "show"])
def test_a_file_that_is_no_run_is_one_line(tmp_path, command: str):
    (tmp_path / "run.h5").write_text("hello")
    status, text = call(command, str(tmp_path))
    assert status == 65
    assert str(tmp_path / "run.h5") in text
    assert len(text.strip().splitlines()) == 1


def test_show_says_what_is_in_a_run(runs):
    status, text = call("show", str(runs / "blur"), str(runs / "clean"))
    assert status == 0
    assert "whole (checksum ok), schema 1" in text
    assert "resnet18 on fashion-mini, deficit blur:0-12, seed" in text
    assert "41, epochs 0 to 40" in text
    assert "20 by ghost" in text
    assert "total peaked at" in text
    status, text = call("show", "--json", str(runs / "blur"))
    facts = json.loads(text)
    assert facts["whole"] is True
    assert facts["rows"] == 41
    assert facts["attributes"]["estimator"] == "propagated"


def test_a_changed_byte_is_noticed_or_changes_nothing(runs):
    path, noticed = runs / "blur" / "run.h5", 0
    data = path.read_bytes()
    for place in range(100, len(data), len(data) // 40):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        status, text = call("show", str(runs / "blur"))
        assert status in (0, 65), text
        noticed += status == 65
        assert status == 65 or read(path).equals(made_up(), ignore=())
    assert noticed > 10
