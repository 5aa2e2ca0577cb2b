"""A run that stops between any two calls of the operating system, or with the power: nothing that counted is lost."""

import random
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from disk_model import Call, Disk, Recorder, after_kill, after_power_loss
from runs import small

import fisherkit
from fisherkit.errors import UnreadableFile
from fisherkit.recording import from_bytes, writer
from fisherkit.studies import run as run_module
from fisherkit.studies import track
from fisherkit.studies.folder import read_specification
from fisherkit.training import checkpoints, newest_checkpoint

IGNORED = ("elapsed_s", "option_sources")
RUN = "runs/one"  # neither folder is there at the start
SPECIFICATION = small(every="1")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[list[Call], fisherkit.recording.Trajectory]:
    """The calls of a short run with a checkpoint at every epoch, and what it recorded."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "CHECKPOINT_SHARE", 1e9)
        patch.setattr(writer, "_LARGEST_SHARE", 1e9)
        recorder = Recorder(patch, folder)
        for module in (writer, checkpoints):
            patch.setattr(module, "atomic_write", partial(promising, recorder, module.atomic_write))
        outcome = track(SPECIFICATION, folder / RUN)
    return recorder.calls, outcome.trajectory


def promising(recorder: Recorder, write, path: Path, data) -> None:
    """Write; when that has returned, the run relies on it."""
    write(path, data)
    if path.name == "run.h5":
        recorder.promise(("rows", len(from_bytes(bytes(data)))))
    else:
        recorder.promise(("step", int(path.name.split("-")[1])))


def problems(disk: Disk, folder: Path, promised: dict[str, int]) -> Counter[str]:
    """What is wrong with the run of a disk that was put below the folder."""
    disk.put(folder)
    found, run, rows = Counter(), folder / RUN, 0
    try:
        rows = len(fisherkit.read(run / "run.h5")) if (run / "run.h5").exists() else 0
        saved = newest_checkpoint(run)
        if (run / "config.json").exists():
            read_specification(run / "config.json")
    except UnreadableFile:
        found["bad"] += 1
        return found
    found["rows lost"] += max(0, promised["rows"] - rows)
    found["bad"] += bool(saved and saved.notices) or (saved.step if saved else -1) < promised["step"]
    return found


def promises(calls: list[Call]) -> dict[str, int]:
    return {"rows": 0, "step": -1} | dict(call.data for call in calls if call.what == "promise")


def resumes(folder: Path, whole) -> bool:
    """Whether the same command finishes the run to the same rows."""
    track(SPECIFICATION, folder / RUN)
    return fisherkit.read(folder / RUN / "run.h5").differences(whole, ignore=IGNORED) == []


def test_every_boundary_between_two_calls(recorded, tmp_path, count, publish):
    calls, whole = recorded
    ends = [end for end in range(len(calls) + 1) if end == 0 or calls[end - 1].what != "promise"]
    resumed = set(random.Random(0).sample(ends, count(short=3, full=len(ends))))
    found, went_on = Counter(), 0
    for end in ends:
        folder = tmp_path / "disk"
        folder.mkdir()
        found += problems(after_kill(calls[:end]), folder, promises(calls[:end]))
        went_on += end in resumed and resumes(folder, whole)
        shutil.rmtree(folder)
    writes = sum(call.what == "replace" for call in calls)
    publish(
        "2 every system-call boundary of a short run with checkpoints",
        f"{len(ends)} boundaries of {writes} files written: {found['bad']} bad states, {found['rows lost']} rows lost; "
        f"{went_on} of {len(resumed)} resumed to the same rows",
    )
    assert writes >= 9
    assert any(call.what == "unlink" and "ckpt" in call.name for call in calls)
    assert not found
    assert went_on == len(resumed)


def test_power_loss(recorded, tmp_path, count, publish):
    calls, whole = recorded
    rng, found, states = random.Random(1), Counter(), count(short=100, full=1000)
    resumed, went_on = count(short=2, full=100), 0
    for state in range(states):
        folder, end = tmp_path / "disk", rng.randint(0, len(calls))
        folder.mkdir()
        found += problems(after_power_loss(calls[:end], rng), folder, promises(calls[:end]))
        went_on += state < resumed and resumes(folder, whole)
        shutil.rmtree(folder)
    publish(
        "2 modelled power loss: unsynced writes lost or torn, renames lost or in another order",
        f"{states:,} states: {found['bad']} bad states, {found['rows lost']} rows lost; "
        f"{went_on} of {resumed} resumed to the same rows",
    )
    assert not found
    assert went_on == resumed


@pytest.mark.parametrize("left_out", ["sync", "sync folder"])
def test_the_model_sees_a_writer_that_does_not_sync(recorded, tmp_path, left_out: str):
    calls, rng, found = [call for call in recorded[0] if call.what != left_out], random.Random(2), Counter()
    for state in range(20):
        folder, end = tmp_path / str(state), rng.randint(len(calls) // 2, len(calls))
        folder.mkdir()
        found += problems(after_power_loss(calls[:end], rng), folder, promises(calls[:end]))
    assert found
