"""What is to be run, where, and how it ended: values that mean the same on every machine that shares the folders."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Unit:
    """One run to do.

    `folder` is absolute and ends in the identity; those of all runs of a study are beside each other. `parents` are
    places to branch off, best first: the identity of another run, a unit or not, and an epoch. `keep` are the epochs of
    which to keep checkpoints, for others.
    """

    identity: str
    folder: str
    specification: str  # JSON of a RunSpecification
    parents: tuple[tuple[str, int], ...] = ()
    keep: tuple[int, ...] = ()

    @cached_property
    def _choices(self) -> Mapping[str, Any]:
        choices: Mapping[str, Any] = json.loads(self.specification)
        return choices

    @property
    def epochs(self) -> int:
        """The length of the run."""
        return int(self._choices["epochs"])

    @property
    def threads(self) -> int | None:
        """CPU threads that the run is to compute with; None: it decides."""
        return self._choices.get("threads")

    def folder_of(self, identity: str) -> Path:
        """Where another run of the same study lies."""
        return Path(self.folder).with_name(identity)


@dataclass(frozen=True)
class Origin:
    """The kept checkpoint that a run begins at: of the run in that folder, after so many epochs."""

    folder: str
    epoch: int


@dataclass(frozen=True)
class Slot:
    """A place that one run at a time occupies, and what its process finds in the environment there."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Ending(StrEnum):
    """How a run, or one attempt at it, ended."""

    FINISHED = "finished"
    EXPLODED = "exploded"  # its loss became infinite: done, and part of the analysis
    FAILED = "failed"
    KILLED = "killed"  # by a signal that the driver did not send
    IN_USE = "in use"  # another process held the folder all the time that was waited
    LOST = "lost"  # whoever was to run it died, or could not
    STOPPED = "stopped"  # because the driver stopped, or was not heard of for long
    NOT_STARTED = "not started"

    @property
    def done(self) -> bool:
        """Whether the run need never be started again."""
        return self in (Ending.FINISHED, Ending.EXPLODED)

    @property
    def passing(self) -> bool:
        """Whether another attempt may well end otherwise."""
        return self in (Ending.KILLED, Ending.IN_USE, Ending.LOST, Ending.STOPPED)


@dataclass(frozen=True)
class Attempt:
    """What came of starting a run once; `text` says in a line why it did not finish, `log` is the end of its log."""

    ending: Ending
    text: str = ""
    log: str = ""


@dataclass(frozen=True)
class UnitOutcome:
    """What came of a run; `attempts` of this call, 0 where it was done before; text and log of the last one."""

    unit: Unit
    ending: Ending
    attempts: int = 0
    text: str = ""
    log: str = ""


@dataclass(frozen=True)
class Execution:
    """What came of all runs, by identity; `signal` is the one that interrupted them, or None."""

    outcomes: Mapping[str, UnitOutcome]
    signal: int | None = None

    def of(self, *endings: Ending) -> tuple[UnitOutcome, ...]:
        """The outcomes with one of these endings."""
        return tuple(outcome for outcome in self.outcomes.values() if outcome.ending in endings)
