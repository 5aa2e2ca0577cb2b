"""A disk that is full: training lives, says so once a minute, loses nothing, and goes on when there is space again."""

import re
from functools import partial

import pytest
from forked_calls import forked_call, told_by
from full_disk_runs import Told, runs_on_full_disks, space_needed
from full_disks import KINDS, is_permitted

from fisherkit.recording import Trajectory, read

SMALLEST = 8192  # bytes: lock and config.json, without which a run does not begin


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Trajectory, dict[str, int]]:
    """The run with space, and how much it needs."""
    folder = tmp_path_factory.mktemp("whole")
    with forked_call(space_needed, folder) as (_, pipe):
        needed = pipe.recv()
    return read(folder / "run.h5"), needed


@pytest.fixture(params=KINDS)
def kind(request, tmp_path) -> str:
    with forked_call(is_permitted, request.param, tmp_path) as (_, pipe):
        answer = pipe.recv()
    if answer is not True:
        pytest.skip(f"mount is not permitted here: {answer}")
    return request.param


def sizes(needed: int, number: int) -> list[int]:
    """From the smallest to one a little too small."""
    step = (0.9 * needed - SMALLEST) / number
    return [int(SMALLEST + step * (index + 0.5)) // 4096 * 4096 for index in range(number)]


def runs(kind: str, folder, whole, number: int, *, in_time: bool) -> list[Told]:
    trajectory, needed = whole
    chosen = sizes(needed[kind], number)
    work = partial(runs_on_full_disks, in_time=in_time)
    with forked_call(work, kind, folder, chosen, trajectory) as (process, pipe):
        found = list(told_by(pipe))
    assert process.exitcode == 0
    assert [run.size for run in found] == chosen
    return found


def summary(found: list[Told]) -> str:
    full, lived = sum(run.full for run in found), sum(run.epochs == 4 for run in found)
    whole = sum(not run.differences for run in found)
    notices = max(len(run.notices) for run in found)
    return (
        f"{len(found)} sizes from {found[0].size:,} to {found[-1].size:,} bytes, {full} of them full: {lived} trained "
        f"to the end, at most {notices} notices in the minute, {whole} with every row"
    )


def test_training_goes_on_and_writes_everything_when_space_returns(kind, tmp_path, whole, count, publish):
    found = runs(kind, tmp_path, whole, count(short=3, full=20), in_time=True)
    publish(f"5 disk full ({kind}), space returns", summary(found))
    assert all(run.full and run.epochs == 4 and run.differences == () for run in found)
    for run in found:
        about = [re.search(r"(run\.h5|ckpt)", text)[1] for text in run.notices]
        assert len(about) == len(set(about)), "each problem once a minute"
        assert all(
            re.search(r"(No space left on device|File too large); [0-9,]+ bytes are needed", text)
            for text in run.notices
        )


def test_without_space_it_ends_with_path_and_bytes_and_the_same_command_goes_on(kind, tmp_path, whole, count, publish):
    found = runs(kind, tmp_path, whole, count(short=2, full=20), in_time=False)
    ended = [run for run in found if run.status]
    publish(
        f"5 disk full ({kind}), space returns after the end",
        f"{summary(found)}, {len(ended)} ended with path and bytes needed, and all went on by the same command",
    )
    assert ended
    assert all(run.full and run.epochs == 4 and run.differences == () for run in found)
    for run in ended:
        assert re.search(r"run\.h5", run.error), run.error
        assert re.search(r"[0-9,]+ bytes are needed", run.error), run.error
        assert "Traceback" not in run.error
