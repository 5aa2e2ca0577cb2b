"""Units for the tests of running them, and what must hold afterwards."""

import re
from collections import Counter
from pathlib import Path

import fisherkit
from fisherkit.recording import Trajectory
from fisherkit.studies import specify
from fisherkit.studies.execution import ExecutionObserver, Unit


def unit(folder: Path, name: str, *, epochs=4, seed=0, parents=(), keep=(), threads=1, **does) -> Unit:
    """A unit for the stand-in, in `folder/runs/name`."""
    options = {key: str(value) for key, value in does.items()}
    specification = specify(model="linear", epochs=epochs, seed=seed, threads=threads, model_options=options)
    return Unit(name, str(folder / "runs" / name), specification.model_dump_json(), tuple(parents), tuple(keep))


def results(units) -> dict[str, Trajectory]:
    """The run files."""
    return {unit.identity: fisherkit.read(Path(unit.folder) / "run.h5") for unit in units}


def trained(unit: Unit) -> Counter:
    """How often each epoch was trained, by the log."""
    found = re.findall(r"^epoch +([0-9]+)/", log(unit), re.MULTILINE)
    return Counter(map(int, found))


def log(unit: Unit) -> str:
    """All that was printed."""
    return (Path(unit.folder) / "log.txt").read_text()


def starts(unit: Unit) -> int:
    """How often its process was started."""
    return log(unit).count(": started by process ")


class Events(ExecutionObserver):
    """Keeps what it is told, in order; `reactions` are called at the first look after a run's epoch was reached."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.snapshots = []
        self.origins = {}

    def started(self, unit, *, origin, slot, attempt) -> None:
        self.texts.append(f"{unit.identity} started {attempt}")
        self.origins[unit.identity] = None if origin is None else (Path(origin.folder).name, origin.epoch)

    def retried(self, unit, *, reason, attempts_left) -> None:
        self.texts.append(f"{unit.identity} retried: {reason}")

    def ended(self, outcome) -> None:
        self.texts.append(f"{outcome.unit.identity} {outcome.ending.value}")

    def looked(self, snapshot) -> None:
        self.snapshots.append(snapshot)
