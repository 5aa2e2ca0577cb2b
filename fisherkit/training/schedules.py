"""The learning rate of an epoch, as a pure function of the schedule, the epoch and the events."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fisherkit.conditions.events import Event, LrRestart, LrScale
from fisherkit.conditions.grammar import dataclass_arguments, split_term, unknown_name

SCHEDULES: tuple[str, ...] = ("constant", "exponential(DECAY)", "step(DECAY,EVERY)", "cosine")


@dataclass(frozen=True)
class Constant:
    """The same learning rate in every epoch."""

    def factor(self, clock: int, horizon: int) -> float:
        """1."""
        return 1.0

    def __str__(self) -> str:
        return "constant"


@dataclass(frozen=True)
class Exponential:
    """decay^clock: the papers' schedule, with decay = 0.97."""

    decay: float

    def __post_init__(self) -> None:
        _check_decay("decay of exponential", self.decay)

    def factor(self, clock: int, horizon: int) -> float:
        """decay^clock."""
        return self.decay**clock

    def __str__(self) -> str:
        return f"exponential({self.decay!r})"


@dataclass(frozen=True)
class Step:
    """decay^floor(clock / every)."""

    decay: float
    every: int

    def __post_init__(self) -> None:
        _check_decay("decay of step", self.decay)
        if self.every < 1:
            raise ValueError(f"every of step must be a whole number of epochs >= 1; got {self.every!r}.")

    def factor(self, clock: int, horizon: int) -> float:
        """decay^floor(clock / every)."""
        return self.decay ** (clock // self.every)

    def __str__(self) -> str:
        return f"step({self.decay!r},{self.every})"


@dataclass(frozen=True)
class Cosine:
    """(1 + cos(pi clock / horizon)) / 2, from 1 down to almost 0 in the last epoch."""

    def factor(self, clock: int, horizon: int) -> float:
        """(1 + cos(pi clock / horizon)) / 2."""
        return (1 + math.cos(math.pi * clock / horizon)) / 2

    def __str__(self) -> str:
        return "cosine"


Schedule = Constant | Exponential | Step | Cosine

_KINDS: Mapping[str, type[Schedule]] = {
    "constant": Constant,
    "exponential": Exponential,
    "step": Step,
    "cosine": Cosine,
}


def parse_schedule(text: str) -> Schedule:
    """The schedule that a text such as `exponential(0.97)` names."""
    try:
        term = split_term(text, known=_KINDS)
        if term.name not in _KINDS:
            raise unknown_name("name", term.name, tuple(_KINDS))
        if term.place is not None:
            raise ValueError(f"a schedule holds for the whole run and has no window; got {':' + term.place!r}.")
        kind = _KINDS[term.name]
        return kind(**dataclass_arguments(kind, term.arguments, name=term.name))
    except ValueError as error:
        raise ValueError(f"lr_schedule {text!r}: {error} Choose from {', '.join(SCHEDULES)}.") from None


def learning_rate(base: float, schedule: Schedule, *, epoch: int, epochs: int, events: Sequence[Event] = ()) -> float:
    """base x schedule(clock) x all scales so far.

    The clock is the epoch, counted from the last `lr_restart` at or before it. The cosine's horizon is the
    epochs from there to the end of training: it does not look ahead to a later restart, so that two runs that
    differ in their future have the same past. `lr_scale` multiplies from its epoch on, also past a restart.
    """
    restart = max((event.epoch for event in events if isinstance(event, LrRestart) and event.epoch <= epoch), default=0)
    scales = (event.factor for event in events if isinstance(event, LrScale) and event.epoch <= epoch)
    return base * schedule.factor(epoch - restart, epochs - restart) * math.prod(scales)


def _check_decay(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1; got {value!r}.")
