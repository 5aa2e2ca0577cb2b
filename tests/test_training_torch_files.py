"""Checkpoints of other programs: what torch.save writes is read as torch reads it; the rest is refused before torch."""

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from reliability.corpus_weights import archive, bombs, calls, damaged, good, saved, tensors
from torch import Tensor, nn

from fisherkit.errors import UnreadableFile
from fisherkit.training import save_checkpoint
from fisherkit.training.torch_files import load_foreign
from fisherkit.training.weights import read_weights


def trained() -> dict[str, Any]:
    """What people put into a checkpoint."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model[0](torch.ones(1, 1, 3, 3)).sum().backward()
    optimizer.step()
    shared = torch.arange(12.0)
    return {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "epoch": 3,
        "best": 0.1,
        "big": 10**30,
        "args": {"lr": [0.1, None, True], "data": b"\xff\x00", "size": torch.Size([1, 2]), "name": "größer"},
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "rng": torch.get_rng_state(),
        "half": torch.ones(2, dtype=torch.float16),
        "views": OrderedDict(a=shared[::2], b=shared.view(3, 4).T),
        "parameter": nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
        3: (1, (2, 3)),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and not isinstance(a, torch.Size):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def test_what_torch_save_writes_is_read_as_torch_reads_it() -> None:
    data = saved(trained())
    assert same(load_foreign(Path("x.pt"), data), torch.load(io.BytesIO(data), weights_only=True))


def test_checkpoints_of_runs_are_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, {"model": dict(good()), "rows": torch.zeros(3, dtype=torch.uint8)})
    assert same(read_weights(path), dict(good()))


def test_an_empty_archive_of_torch_is_read() -> None:
    assert load_foreign(Path("x.pt"), archive(b"\x80\x02}.")) == {}


HOSTILE = {**calls(), **bombs(), **damaged()}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    path = tmp_path / "epoch_3.pt"
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=message) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize("name", ["more numbers than there are", "fewer than none", "numbers that are not there"])
def test_numbers_are_looked_for_before_torch_reads_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fisherkit.training.torch_files.load_safely", None)
    data, message = tensors()[name]
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(UnreadableFile, match=message):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_format_before_torch_1_6_is_named(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "old.pt"
    torch.save(good(), path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    with pytest.raises(UnreadableFile, match=r"format of torch.save before torch 1\.6.*save it again.*safetensors"):
        read_weights(path)
