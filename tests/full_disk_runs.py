"""Runs on disks that are full, for a process of their own; what became of each is told."""

from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path

import forked_runs
from fisherkit_cli.failure import report
from full_disks import KINDS, own_mounts
from runs import small

from fisherkit.recording import Trajectory, read, writer
from fisherkit.studies import Observer, track

SPACE_RETURNS_AFTER = 3  # epochs, of 4
IGNORED = ("elapsed_s", "option_sources")


@dataclass(frozen=True)
class Told:
    """What became of a run on a disk of `size` bytes."""

    size: int
    full: bool  # whether a write failed
    epochs: int
    notices: tuple[str, ...]
    differences: tuple[str, ...]  # of the file in the end, from that of a run that had space
    status: int = 0  # of the command, where space did not return in time
    error: str = ""


class Watches(Observer):
    """Counts epochs, keeps the notices, and makes space when it is time to."""

    def __init__(self, make_space=None) -> None:
        self.make_space, self.epochs, self.notices = make_space, 0, []

    def epoch_ended(self, run, report) -> None:
        self.epochs += 1
        if self.make_space is not None and self.epochs == SPACE_RETURNS_AFTER:
            self.make_space()

    def notice(self, text: str) -> None:
        self.notices.append(text)


def specification():
    return small(epochs=4, every="1", deficit=("blur:0-1",))


def space_needed(folder: Path, told: Connection) -> None:
    """Tells the bytes that a run needs, on either kind of disk, before space returns."""
    forked_runs.publish_always()
    sizes: list[int] = []
    track(specification(), folder, observer=Watches(lambda: sizes.extend(p.stat().st_size for p in folder.iterdir())))
    told.send({"tmpfs": sum(sizes) + max(sizes), "file size limit": max(sizes)})


def _differences(folder: Path, whole: Trajectory) -> tuple[str, ...]:
    return tuple(read(folder / "run.h5").differences(whole, ignore=IGNORED))


def _space_returns(kind: str, folder: Path, size: int, whole: Trajectory) -> Told:
    with KINDS[kind](folder, size) as make_space:
        observer = Watches(make_space)
        track(specification(), folder / "run", observer=observer)
        return Told(
            size,
            bool(observer.notices),
            observer.epochs,
            tuple(observer.notices),
            _differences(folder / "run", whole),
        )


def _space_returns_too_late(kind: str, folder: Path, size: int, whole: Trajectory) -> Told:
    with KINDS[kind](folder, size) as make_space:
        observer, status, error = Watches(), 0, StringIO()
        try:
            track(specification(), folder / "run", observer=observer)
        except OSError as failed:
            with redirect_stderr(error):
                status = report(failed)
        make_space()
        track(specification(), folder / "run")  # the same command
        return Told(
            size,
            bool(observer.notices),
            observer.epochs,
            tuple(observer.notices),
            _differences(folder / "run", whole),
            status,
            error.getvalue(),
        )


def runs_on_full_disks(
    kind: str, folder: Path, sizes: list[int], whole: Trajectory, told: Connection, *, in_time: bool
) -> None:
    """A run on a disk of each size; space returns in time, or after the run has given up."""
    forked_runs.publish_always()
    writer._CLOSE_RETRIES_S = 0.1
    if kind == "tmpfs":
        own_mounts()
    for size in sizes:
        place = folder / f"{size}"
        place.mkdir()
        told.send((_space_returns if in_time else _space_returns_too_late)(kind, place, size, whole))
