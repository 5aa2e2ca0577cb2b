"""`fisherkit measure`: what becomes of the names given, of a file that is there already, and of places to write to."""

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
