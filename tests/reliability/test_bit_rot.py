"""Bit rot: whatever happens to the bytes of a file, it is refused, or read to exactly the same contents."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from reliability.corpus_hdf5 import RUN, STUDY
from reliability.corpus_weights import good, saved
from torch import Tensor

from fisherkit.errors import UnreadableFile
from fisherkit.recording import from_bytes, read, read_study
from fisherkit.recording.study_file import study_from_bytes
from fisherkit.training.checkpoints import newest_checkpoint, save_checkpoint
from fisherkit.training.weights import read_weights


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flips(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(2, 20)):
        _flip(data, rng)


def _erase(data: bytearray, rng: random.Random) -> None:
    place, length = rng.randrange(len(data)), rng.choice((1, 8, 512, 4096))
    data[place : place + length] = bytes([rng.choice((0, 255))]) * len(data[place : place + length])


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _drop(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice((1, 2, 512))]


def _insert(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    data[place:place] = rng.randbytes(rng.choice((1, 2, 512)))


def _move(data: bytearray, rng: random.Random) -> None:
    """A block of the disk in the place of another one."""
    length = rng.choice((8, 64, 512, 4096))
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    block = data[source : source + length]
    data[target : target + len(block)] = block


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _flips, _erase, _cut, _drop, _insert, _move)


def _damaged(data: bytes, number: int) -> bytes:
    """The data with the damage of that number, which is always the same."""
    changed, rng = bytearray(data), random.Random(number)
    DAMAGE[number % len(DAMAGE)](changed, rng)
    return bytes(changed)


def _tally(times: int, data: bytes, differences: Callable[[bytes], bool]) -> tuple[int, list[int]]:
    """How many damaged files were refused, and which were read to something else."""
    refused, silent = 0, []
    for number in range(times):
        try:
            if differences(_damaged(data, number)):
                silent.append(number)
        except UnreadableFile:
            refused += 1
    return refused, silent


def test_run_and_study_files(count: Any, publish: Any, tmp_path: Path) -> None:
    times = count(short=200, full=5_000)
    run, study, path = from_bytes(RUN), study_from_bytes(STUDY), tmp_path / "file.h5"

    def run_differs(data: bytes) -> bool:
        path.write_bytes(data)
        return bool(read(path).differences(run, ignore=()))

    def study_differs(data: bytes) -> bool:
        path.write_bytes(data)
        return bool(read_study(path).differences(study))

    refused, silent = _tally(times, RUN, run_differs)
    of_studies, silent_studies = _tally(times // 5, STUDY, study_differs)
    publish(
        "11 bit rot, files",
        f"{times:,} mutated run files and {times // 5:,} study files: {refused + of_studies:,} refused, "
        f"{len(silent) + len(silent_studies)} silent changes",
    )
    assert (silent, silent_studies) == ([], [])
    assert refused > times // 2  # the damage is damage


def test_checkpoints(count: Any, publish: Any, tmp_path: Path) -> None:
    times = count(short=140, full=2_000)
    contents = {"weights": dict(good()), "step": 7, "texts": ["a", None, 0.5]}
    (tmp_path / "run").mkdir()
    own = save_checkpoint(tmp_path / "run", 7, contents)
    foreign = tmp_path / "epoch_3.pt"

    def own_differs(data: bytes) -> bool:
        own.write_bytes(data)
        found = newest_checkpoint(tmp_path / "run")
        assert found is not None
        return not _same(found.contents["weights"], good()) or found.contents["texts"] != contents["texts"]

    def foreign_differs(data: bytes) -> bool:
        foreign.write_bytes(data)
        return not _same(read_weights(foreign), good())

    refused, silent = _tally(times, own.read_bytes(), own_differs)
    of_others, silent_others = _tally(times, saved(dict(good())), foreign_differs)
    publish(
        "11 bit rot, checkpoints",
        f"{times:,} mutated checkpoints of runs and {times:,} of other programs: {refused + of_others:,} refused, "
        f"{len(silent) + len(silent_others)} silent changes",
    )
    assert (silent, silent_others) == ([], [])
    assert refused > times * 0.9
    assert of_others > times // 2


def _same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)
