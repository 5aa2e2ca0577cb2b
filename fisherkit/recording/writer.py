"""Writing a run: rows are kept in memory and published as whole files, so that no reader ever meets a part.

What a publication costs and how a full disk is met: see `RunFile`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.notices import OnceAMinute
from fisherkit.recording import layout
from fisherkit.recording.attributes import Attributes
from fisherkit.recording.image import image_of
from fisherkit.recording.reader import read
from fisherkit.recording.rows import Rows
from fisherkit.recording.trajectory import Trajectory
from fisherkit.storage import NO_SPACE, atomic_write

_LARGEST_SHARE = 0.009  # of a run's time; the first and the last publication, which do not wait, make it up to 0.01
_CLOSE_RETRIES_S = 60.0


@runtime_checkable
class Clock(Protocol):
    """What `RunFile` takes from the module `time`."""

    def monotonic(self) -> float:
        """Seconds that never run backwards."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class RunFile:
    """The file of a run in progress: rows in memory, published as whole files.

    A publication takes place when 111 times the time of those before has passed, so that all of them together take
    at most 1 % of the run; with `force` at once, and the next waits the longer. When the disk is full (or gone) the
    rows stay in memory, a notice is given at most once a minute, and the next publication tries again.

    A resumed run recomputes the rows that the file already holds beyond its checkpoint. They must come out bit
    for bit the same, and until the run has caught up, the file is left as it is.

    Args:
        path: The file; its folder must exist.
        layers: Module paths, in the model's order.
        parameters: Number of parameters of each layer.
        attributes: JSON-able description of the run.
        trajectory: Rows to continue from.
        accept_different_numerics: Do not compare recomputed rows with those in the file.
        notice: Receives each notice; without it they are collected in `notices`.
        clock: Tells the time and waits (only `close` waits).
        writes: Whether this process writes the file; the others of several keep the same rows and compare them.

    Raises:
        RunRefused: The file holds rows that this run does not reproduce.
        UnreadableFile: There is a file at `path` that cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        layers: Sequence[str],
        parameters: np.ndarray,
        attributes: Mapping[str, Any],
        trajectory: Trajectory | None = None,
        accept_different_numerics: bool = False,
        notice: Callable[[str], None] | None = None,
        clock: Clock = time,
        writes: bool = True,
    ) -> None:
        self.path = Path(path)
        self._writes = writes
        self.notices: list[str] = []
        self._tell = OnceAMinute(notice or self.notices.append, clock.monotonic)
        self._clock = clock
        self._accept = accept_different_numerics
        self._rows = Rows(layers, np.ascontiguousarray(parameters, "<i8"))
        earlier = trajectory.attributes if trajectory else {}
        self._attributes = Attributes({**layout.versions(), **earlier, **attributes})
        self._on_disk = _read_existing(self.path, self._rows)
        self.earlier: Mapping[str, Any] = self._on_disk.attributes if self._on_disk else {}  # of the file as it was
        self._reproduced = 0  # rows that are on disk and came out the same
        self._accept_between, self._inserted = False, 0  # new rows before some of those on disk
        self._unpublished = True
        self._image: bytes | None = None
        self._due, self._last_cost = clock.monotonic(), 0.0
        if trajectory is not None:
            self._rows.extend(trajectory)
            self._check_against_disk()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes as they will be written."""
        return self._attributes.values

    @property
    def trajectory(self) -> Trajectory:
        """Everything recorded so far."""
        return self._rows.trajectory(self._attributes.values)

    @property
    def held(self) -> Trajectory | None:
        """What the file held when it was opened, until it is written."""
        return self._on_disk

    def accept_rows_between(self) -> None:
        """From here on a row whose step is not in the file may come before those of the file."""
        self._accept_between = True

    def append(self, *, variables: Mapping[str, np.ndarray], series: Mapping[str, float | int | np.generic]) -> None:
        """Add a row; names that were not there before are NaN (flags: 0) in the earlier rows.

        Raises:
            ValueError: A wrong shape, or a Fisher value that is not finite, naming layer and step. The rows
                recorded before are untouched.
            RunRefused: The file has this row already, with other numbers.
        """
        self._rows.append(variables, series)
        self._unpublished, self._image = True, None
        self._check_against_disk()

    def update_attributes(self, **attributes: Any) -> None:
        """Set attributes of the run, such as `finished`."""
        self._attributes.update(attributes)
        self._unpublished, self._image = True, None

    def extend_attribute(self, name: str, entries: Iterable[Any]) -> None:
        """Add entries to an attribute that is a list, such as the schedule, which grows by an entry an epoch."""
        self._attributes.extend(name, entries)
        self._unpublished, self._image = True, None

    def image(self) -> bytes:
        """The run file of everything recorded so far; made once for each change."""
        if self._image is None:
            variables, series = self._rows.views()
            self._image = image_of(self._rows.layers, self._rows.parameters, variables, series, self._attributes)
        return self._image

    def publish(self, *, force: bool = False) -> bool:
        """Put the rows on disk if it is time to; whether the file now holds every row recorded so far."""
        if not self._unpublished or self._catching_up:
            return True
        return (force or self._clock.monotonic() >= self._due) and self._try_to_publish() is None

    @property
    def pause_s(self) -> float:
        """The time from one publication to the next in which they keep to their share of the run."""
        return self._last_cost / _LARGEST_SHARE

    def close(self) -> None:
        """Publish; on a full disk try again for a minute.

        Raises:
            OSError: The last rows could not be written; names the file and the bytes needed.
        """
        give_up_at = self._clock.monotonic() + _CLOSE_RETRIES_S
        while self._unpublished and not self._catching_up:
            error = self._try_to_publish()
            if error is None:
                return
            if self._clock.monotonic() >= give_up_at:
                remedy = "Make room" if error.errno in NO_SPACE else "Mend that"
                problem = f"{error.strerror} for the last rows. {remedy}; a run goes on from its last checkpoint"
                raise OSError(error.errno, problem, str(self.path)) from error
            self._clock.sleep(1.0)

    @property
    def _catching_up(self) -> bool:
        """Whether the file has rows that are not reproduced yet, or never will be: it stays as it is."""
        return self._on_disk is not None and self._reproduced < len(self._on_disk)

    def _try_to_publish(self) -> OSError | None:
        if not self._writes:
            self._unpublished, self._on_disk = False, None
            return None
        start = self._clock.monotonic()
        try:
            atomic_write(self.path, self.image())
        except OSError as error:
            self._tell(
                f"{self.path} could not be written ({error.strerror}). The rows are kept in memory, and it is tried "
                "again."
            )
            return error
        finally:
            end = self._clock.monotonic()
            self._last_cost = end - start
            self._due = max(self._due, end) + self.pause_s
        self._unpublished, self._on_disk = False, None
        return None

    def _check_against_disk(self) -> None:
        """Compare the rows not compared yet with those that the file held when the run was opened."""
        if self._on_disk is None:
            return
        if self._comes_between(self._on_disk):
            self._inserted += 1
            return
        before = self._inserted
        start, stop = self._reproduced, min(len(self._rows) - before, len(self._on_disk))
        if start < stop and not self._accept:
            mine = self._rows.trajectory(self._on_disk.attributes, start + before, stop + before)
            differences = _without_empty(mine).differences(_without_empty(self._on_disk.rows(start, stop)))
            if differences:
                raise RunRefused(
                    f"{self.path} holds rows that this run does not reproduce bit for bit ({differences[0]}): other "
                    "images, options, code, threads or instruction set. Use those of the first part, or another file."
                )
        self._reproduced = stop

    def _comes_between(self, on_disk: Trajectory) -> bool:
        """Whether the last row is a new one before the next of the file."""
        if not self._accept_between or self._reproduced == len(on_disk):
            return False
        _, last = self._rows.views(len(self._rows) - 1)
        return bool(last["step"][0] < on_disk.series["step"][self._reproduced])


def _read_existing(path: Path, rows: Rows) -> Trajectory | None:
    """The file that a run continues, if there is one."""
    if not path.exists():
        return None
    try:
        existing = read(path)
    except UnreadableFile as error:
        remedy = f"{error.problem} Move it away to write a new one."
        raise UnreadableFile(path, remedy, dataset=error.dataset) from None
    if existing.layers != rows.layers or not np.array_equal(existing.parameters, rows.parameters):
        raise RunRefused(
            f"{path} holds a run of another model ({len(existing.layers)} layers, the first {existing.layers[0]}). "
            "Choose another file, or move that one away."
        )
    return existing


def _without_empty(trajectory: Trajectory) -> Trajectory:
    """Without the names that hold nothing here: they came in a later row, and were filled up."""
    series = {n: a for n, a in trajectory.series.items() if n in layout.REQUIRED_SERIES or not _is_empty(a)}
    variables = {n: a for n, a in trajectory.variables.items() if not _is_empty(a)}
    return replace(trajectory, variables=variables, series=series)


def _is_empty(array: np.ndarray) -> bool:
    return bool(np.isnan(array).all()) if array.dtype.kind == "f" else not array.any()
