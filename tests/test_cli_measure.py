"""`fisherkit measure`: what becomes of the names given, of a file that is there already, and of places to write to."""

import errno
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fisherkit_cli.main import fisherkit as command
from test_cli_runs import call

import fisherkit
from fisherkit.models import build_model

OPTIONS = ("--model", "mlp", "--width", "8", "--probe-images", "20", "--threads", "1")
SEEDS = {"epoch_10": 1, "epoch_20": 2, "epoch_30": 3, "best": 4, "last": 5}


def state(seed: int) -> dict[str, torch.Tensor]:
    return build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=seed).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made: Path = tmp_path_factory.mktemp("checkpoints")
    for name, seed in SEEDS.items():
        torch.save(state(seed), made / f"{name}.pt")
    return made


def measure(folder: Path, out: Path, *names: str) -> tuple[int, str]:
    return call("measure", *(str(folder / f"{name}.pt") for name in names), *OPTIONS, "--out", str(out))


def test_a_name_without_a_number_among_others_ends_before_measuring(folder: Path, tmp_path: Path):
    status, text = measure(folder, tmp_path / "m.h5", "epoch_10", "epoch_20", "best")
    assert status == 2, text
    assert "best.pt' without one, and 2 with" in text
    assert "tr F" not in text
    assert not (tmp_path / "m.h5").exists()


def test_names_without_numbers_count_in_the_order_given_and_a_note_says_so(folder: Path, tmp_path: Path):
    status, text = measure(folder, tmp_path / "m.h5", "last", "best")
    assert status == 0, text
    assert "note: no checkpoint has a number in its name: they are 0, 1, 2, ... in the order given" in text
    run = fisherkit.read(tmp_path / "m.h5")
    assert run.series["epoch"].tolist() == [0, 1]
    assert run.attributes["checkpoints"] == ["last.pt", "best.pt"]
    assert "note: no checkpoint" not in measure(folder, tmp_path / "n.h5", "epoch_10", "epoch_20")[1]


def test_help_says_what_becomes_of_names():
    text = " ".join(CliRunner().invoke(command, ["measure", "--help"]).output.split())
    assert "Where no name has a number they are 0, 1, 2, ... in the order given" in text
    assert "two with the same, are refused" in text


def same_rows(a: Path, b: Path) -> bool:
    return fisherkit.read(a).equals(fisherkit.read(b), ignore=("elapsed_s", "configuration"))


def test_checkpoints_before_between_and_after_those_of_the_file_are_added(folder: Path, tmp_path: Path):
    measure(folder, tmp_path / "m.h5", "epoch_20")
    status, text = measure(folder, tmp_path / "m.h5", "epoch_10", "epoch_20", "epoch_30")
    assert status == 0, text
    measure(folder, tmp_path / "whole.h5", "epoch_10", "epoch_20", "epoch_30")
    assert same_rows(tmp_path / "m.h5", tmp_path / "whole.h5")
    assert fisherkit.read(tmp_path / "m.h5").series["epoch"].tolist() == [10, 20, 30]


def test_a_checkpoint_of_the_file_that_changed_is_still_refused(folder: Path, tmp_path: Path):
    measure(folder, tmp_path / "m.h5", "epoch_20")
    before = (tmp_path / "m.h5").read_bytes()
    for name in ("epoch_10", "epoch_20"):
        torch.save(state(9), tmp_path / f"{name}.pt")
    status, text = measure(tmp_path, tmp_path / "m.h5", "epoch_10", "epoch_20")
    assert status == 1, text
    assert "does not reproduce bit for bit" in text
    assert (tmp_path / "m.h5").read_bytes() == before


def test_a_file_with_other_checkpoints_is_refused_before_measuring(folder: Path, tmp_path: Path):
    measure(folder, tmp_path / "m.h5", "epoch_10", "epoch_20")
    before = (tmp_path / "m.h5").read_bytes()
    status, text = measure(folder, tmp_path / "m.h5", "epoch_20", "epoch_30")
    assert status == 1, text
    assert "m.h5 holds epoch_10.pt, which is not among the checkpoints given. Give it too, or choose another" in text
    assert "tr F" not in text
    assert (tmp_path / "m.h5").read_bytes() == before


def test_names_without_numbers_are_added_after_those_of_the_file(folder: Path, tmp_path: Path):
    measure(folder, tmp_path / "m.h5", "last")
    status, text = measure(folder, tmp_path / "m.h5", "best", "last")
    assert status == 1, text
    assert "holds last.pt as number 0, which is now best.pt: names without a number count in the order given" in text
    assert "tr F" not in text
    status, text = measure(folder, tmp_path / "m.h5", "last", "best")
    assert status == 0, text
    assert len(fisherkit.read(tmp_path / "m.h5")) == 2


def test_without_a_checkpoint_that_is_nan_the_rest_is_measured(folder: Path, tmp_path: Path):
    bad = {name: v * float("nan") if v.is_floating_point() else v for name, v in state(7).items()}
    torch.save(bad, tmp_path / "epoch_20.pt")
    ends = [str(folder / "epoch_10.pt"), str(folder / "epoch_30.pt")]
    out = ("--out", str(tmp_path / "m.h5"))
    status, text = call("measure", *ends, str(tmp_path / "epoch_20.pt"), *OPTIONS, *out)
    assert status == 65, text
    assert "NaN or infinite" in text
    assert fisherkit.read(tmp_path / "m.h5").series["epoch"].tolist() == [10]
    status, text = call("measure", *ends, *OPTIONS, *out)
    assert status == 0, text
    assert fisherkit.read(tmp_path / "m.h5").series["epoch"].tolist() == [10, 30]


def test_a_place_that_cannot_be_written_is_told_before_measuring(folder: Path, tmp_path: Path, monkeypatch):
    def refused(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/tmp123")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # chmod does not stop root
    status, text = measure(folder, tmp_path / "m.h5", "epoch_10")
    assert status == 1, text
    assert f"{tmp_path / 'm.h5'}: Permission denied: no file can be written in this folder" in text
    assert "nothing was measured. Choose another place" in text
    assert "tr F" not in text


def test_a_saturated_softmax_is_named_and_nothing_is_nan_percent(tmp_path: Path):
    model = build_model("linear", classes=10, channels=1, image_size=32, seed=1)
    torch.save({name: value * 1e30 for name, value in model.state_dict().items()}, tmp_path / "epoch_1.pt")
    arguments = (str(tmp_path / "epoch_1.pt"), "--model", "linear", "--probe-images", "20")
    status, text = call("measure", *arguments, "--out", str(tmp_path / "m.h5"))
    assert status == 0, text
    assert "note: every prediction is certain" in text
    assert "share by layer at the end: none, the total is 0" in text
    assert "nan" not in text
