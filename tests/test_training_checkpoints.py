"""Checkpoints: whole, the last two, proven by their names; damaged and foreign ones."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_cases import assert_same_weights, dropout_net, training

from fisherkit.errors import UnreadableFile
from fisherkit.training import newest_checkpoint, save_checkpoint
from fisherkit.training.checkpoints import SCHEMA

CONTENTS = {"rows": torch.arange(3.0), "text": "a", "nested": [{"none": None, "flag": True}, (1, 2.5)]}


def names(folder: Path) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in folder.iterdir())


def put(folder: Path, step: int, data: bytes) -> Path:
    """A file whose name does prove its contents."""
    path = folder / f"ckpt-{step}-{hashlib.sha256(data).hexdigest()[:16]}.pt"
    path.write_bytes(data)
    return path


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_saved_is_found(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 12, CONTENTS)
    assert path.parent == tmp_path
    assert path.name == f"ckpt-12-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt"
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.notices) == (12, ())
    assert torch.equal(found.contents.pop("rows"), CONTENTS["rows"])
    assert found.contents == {"text": "a", "nested": [{"none": None, "flag": True}, (1, 2.5)]}


def test_there_is_none_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_bytes(b"x")
    (tmp_path / "ckpt-7-0123456789abcdef.pt.tmp").write_bytes(b"x")
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None


def test_the_last_two_are_kept_by_number_not_by_text(tmp_path: Path) -> None:
    for step in (5, 9, 10, 100):
        save_checkpoint(tmp_path, step, {"step": step})
    assert names(tmp_path) == ["ckpt-10", "ckpt-100"]
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 100


def test_saving_the_same_step_again_keeps_the_one_before_it(tmp_path: Path) -> None:
    for value in ("a", "b", "c"):
        save_checkpoint(tmp_path, 4 if value == "a" else 8, {"value": value})
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.contents == {"value": "c"}
    assert names(tmp_path) == ["ckpt-4", "ckpt-8"]


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:-100])], ids=["bit", "cut"])
def test_a_damaged_newest_one_is_passed_over_with_a_notice(tmp_path: Path, harm: Any) -> None:
    save_checkpoint(tmp_path, 5, {"step": 5})
    newest = save_checkpoint(tmp_path, 9, {"step": 9})
    harm(newest)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.contents) == (5, {"step": 5})
    (notice,) = found.notices
    assert newest.name in notice
    assert "damaged" in notice
    assert "ckpt-5-" in notice


def test_a_run_that_went_back_behind_a_damaged_checkpoint_keeps_two_whole_ones(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {"step": 5})
    damage(save_checkpoint(tmp_path, 9, {"step": 9}))
    save_checkpoint(tmp_path, 7, {"step": 7})
    assert names(tmp_path) == ["ckpt-5", "ckpt-7"]
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.notices) == (7, ())


def test_when_all_are_damaged_the_run_does_not_silently_start_anew(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path, step, {"step": step}) for step in (5, 9)]
    for path in paths:
        damage(path)
    with pytest.raises(UnreadableFile, match=r"no whole one before it\. Remove .* to start the run anew") as caught:
        newest_checkpoint(tmp_path)
    assert caught.value.path == paths[1]
    assert all(path.name in str(caught.value) for path in paths)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 3, CONTENTS)
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        with pytest.raises(UnreadableFile, match="damaged"):
            newest_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (5, 9):
        save_checkpoint(tmp_path, step, {"step": step})

    def full(path: Path, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fisherkit.training.checkpoints.atomic_write", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 12, {"step": 12})
    assert names(tmp_path) == ["ckpt-5", "ckpt-9"]


class Payload:
    """Runs code when an unsafe reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def compressed() -> bytes:
    source, target = zipfile.ZipFile(io.BytesIO(saved({"zeros": torch.zeros(100_000)}))), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, source.read(entry))
    return target.getvalue()


OURS = {"format": "fisherkit checkpoint", "schema": SCHEMA, "step": 3, "contents": {}}
FOREIGN = {
    "text": (b"hello", "not in the format of torch.save"),
    "pickle": (pickle.dumps({"a": 1}), "not in the format of torch.save"),
    "compressed": (compressed(), "it is compressed"),
    "code": (saved({**OURS, "contents": Payload()}), "not a checkpoint that is safe to load"),
    "another program's": (saved({"epoch": 3, "state_dict": {}}), "not a checkpoint of a fisherkit run"),
    "a tensor": (saved(torch.zeros(3)), "not a checkpoint of a fisherkit run"),
    "newer": (saved({**OURS, "schema": SCHEMA + 1}), f"written in schema {SCHEMA + 1}; this version reads {SCHEMA}"),
    "renamed": (saved({**OURS, "step": 4}), "not those of a checkpoint of the step in its name"),
    "no contents": (saved({**OURS, "contents": 3}), "not those of a checkpoint of the step in its name"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_under_a_checkpoints_name_is_refused(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, message = FOREIGN[kind]
    save_checkpoint(tmp_path, 2, {})
    path = put(tmp_path, 3, data)
    with pytest.raises(UnreadableFile, match=message) as caught:
        newest_checkpoint(tmp_path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_the_template_of_the_foreign_files_is_itself_read(tmp_path: Path) -> None:
    put(tmp_path, 3, saved(OURS))
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.contents == {}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"rows": np.zeros(3)}, r"contents\['rows'\] must be a tensor, .*; got a numpy.ndarray"),
        ({"a": [1, np.float64(2.0)]}, r"contents\['a'\]\[1\] must be .*; got a numpy.float64"),
        ({"a": {Path("x"): 1}}, r"a key of contents\['a'\] must be .*; got a pathlib"),
    ],
    ids=["array", "scalar", "key"],
)
def test_contents_that_could_not_be_read_back_are_refused_before_writing(
    tmp_path: Path, value: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValueError, match=place):
        save_checkpoint(tmp_path, 1, value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path, optimizer: str) -> None:
    made = training(dropout_net, optimizer=optimizer, conditions={"augment": ["crop+flip"]})
    for step in made.steps():
        if step.step == 7:
            save_checkpoint(tmp_path, made.step, {"training": made.state_dict()})
    found = newest_checkpoint(tmp_path)
    assert found is not None
    resumed = training(dropout_net, optimizer=optimizer, conditions={"augment": ["crop+flip"]}, model_seed=5)
    resumed.load_state_dict(found.contents["training"])
    assert resumed.step == found.step == 7
    list(resumed.steps())
    assert_same_weights(resumed.model, made.model)
