"""Writing a run: rows are kept in memory and published as whole files, so that no reader ever meets a part.

What a publication costs and how a full disk is met: see `RunFile`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np

from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.recording import hdf5, layout
from fisherkit.recording.reader import read
from fisherkit.recording.rows import Rows
from fisherkit.recording.trajectory import Trajectory
from fisherkit.storage import atomic_write

_LARGEST_SHARE = 0.01  # of the run's time that publications may take
_NOTICE_EVERY_S = 60.0
_CLOSE_RETRIES_S = 60.0


def to_bytes(trajectory: Trajectory) -> bytes:
    """The run file of a trajectory, an image made in memory; equal trajectories give equal bytes."""
    with hdf5.new_image() as file:
        _write_scales(file, trajectory)
        _write_array(file, "parameters", trajectory.parameters, ("layer",))
        for name, array in sorted(trajectory.series.items()):
            _write_array(file, name, array, ("time",))
        present = [name for name in layout.COORDINATES if name in trajectory.series]
        for name, array in sorted(trajectory.variables.items()):
            _write_array(file, name, array, ("time", "layer"))
            file[name].attrs["coordinates"] = " ".join(present)
        file.attrs["Conventions"] = layout.CONVENTIONS
        hdf5.write_attributes(file, layout.encode_attributes(trajectory.attributes))
        arrays = {**trajectory.variables, **trajectory.series}
        file.attrs["sha256"] = layout.digest(trajectory.layers, trajectory.parameters, arrays, trajectory.attributes)
        return hdf5.image_bytes(file)


def _write_scales(file: h5py.File, trajectory: Trajectory) -> None:
    hdf5.write_dimension(file, "time", len(trajectory), unlimited=True)
    names = hdf5.write_text(file, "layer", trajectory.layers)
    names.attrs["long_name"] = layout.describe("layer")["long_name"]
    names.make_scale("layer")


def _write_array(file: h5py.File, name: str, array: np.ndarray, axes: tuple[str, ...]) -> None:
    chunks = (max(1, min(array.shape[0], hdf5.ROWS_PER_CHUNK)), *array.shape[1:])
    described = layout.describe(name)
    hdf5.write_numbers(file, name, array, axes, chunks=chunks, unlimited=("time",), attributes=described)


@runtime_checkable
class Clock(Protocol):
    """What `RunFile` takes from the module `time`."""

    def monotonic(self) -> float:
        """Seconds that never run backwards."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class RunFile:
    """The file of a run in progress: rows in memory, published as whole files.

    A publication takes place when 100 times the time of the last one has passed, so that all of them together
    take at most 1 % of the run; with `force` at once. When the disk is full (or gone) the rows stay in memory,
    a notice is given at most once a minute, and the next publication tries again.

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
        self._notice = notice or self.notices.append
        self._clock = clock
        self._accept = accept_different_numerics
        self._rows = Rows(layers, parameters)
        self._attributes = layout.normalise_attributes({**(trajectory.attributes if trajectory else {}), **attributes})
        self._on_disk = _read_existing(self.path, self._rows)
        self.earlier: Mapping[str, Any] = self._on_disk.attributes if self._on_disk else {}  # of the file as it was
        self._reproduced = 0  # rows that are on disk and came out the same
        self._unpublished = True
        self._image: bytes | None = None
        self._last_end, self._last_cost = clock.monotonic(), 0.0
        self._bytes_needed = 0
        self._last_notice: float | None = None
        if trajectory is not None:
            self._rows.extend(trajectory)
            self._check_against_disk()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes as they will be written."""
        return self._attributes

    @property
    def trajectory(self) -> Trajectory:
        """Everything recorded so far."""
        return self._rows.trajectory(self._attributes)

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
        self._attributes |= layout.normalise_attributes(attributes)
        self._unpublished, self._image = True, None

    def image(self) -> bytes:
        """The run file of everything recorded so far; made once for each change."""
        if self._image is None:
            self._image = to_bytes(self.trajectory)
        return self._image

    def publish(self, *, force: bool = False) -> bool:
        """Put the rows on disk if it is time to; whether the file now holds every row recorded so far."""
        if not self._unpublished or self._catching_up:
            return True
        due = self._clock.monotonic() - self._last_end >= self._last_cost / _LARGEST_SHARE
        return (force or due) and self._try_to_publish() is None

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
                problem = f"{error.strerror}; {self._bytes_needed:,} bytes are needed for the last rows"
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
        image = self.image()
        self._bytes_needed = len(image)
        try:
            atomic_write(self.path, image)
        except OSError as error:
            self._tell(
                f"{self.path} could not be written ({error.strerror}; {len(image):,} bytes are needed). "
                "The rows are kept in memory, and it is tried again."
            )
            return error
        finally:
            self._last_end = self._clock.monotonic()
            self._last_cost = self._last_end - start
        self._unpublished, self._on_disk = False, None
        return None

    def _tell(self, text: str) -> None:
        now = self._clock.monotonic()
        if self._last_notice is None or now - self._last_notice >= _NOTICE_EVERY_S:
            self._last_notice = now
            self._notice(text)

    def _check_against_disk(self) -> None:
        """Compare the rows not compared yet with those that the file held when the run was opened."""
        if self._on_disk is None:
            return
        start, stop = self._reproduced, min(len(self._rows), len(self._on_disk))
        if start < stop and not self._accept:
            mine = self._rows.trajectory(self._on_disk.attributes, start, stop)
            differences = _without_empty(mine).differences(_without_empty(self._on_disk.rows(start, stop)))
            if differences:
                raise RunRefused(
                    f"{self.path} holds rows that this run does not reproduce bit for bit ({differences[0]}): other "
                    "images, options, code, threads or instruction set. Use those of the first part, or another file."
                )
        self._reproduced = stop


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
