"""When something holds: a window of epochs, and a value with its window."""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

_WINDOW = re.compile(r"(?P<start>[0-9]{1,9})-(?P<stop>[0-9]{1,9})?")


@dataclass(frozen=True)
class Window:
    """The epochs start <= epoch < stop; without a stop, every epoch from start on."""

    start: int
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0:
            raise ValueError(f"start of a window must be an epoch >= 0; got {self.start!r}.")
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(
                f"stop of a window must be after its start, for the stop is excluded; got '{self.start}-{self.stop}'."
            )

    @classmethod
    def parse(cls, text: str) -> "Window":
        """The window that `start-stop` or `start-` names; raises ValueError."""
        match = _WINDOW.fullmatch(text)
        if match is None:
            raise ValueError(
                "window must be start-stop or start- in whole epochs >= 0 (start included, stop excluded); "
                f"got {text!r}."
            )
        stop = match["stop"]
        return cls(int(match["start"]), None if stop is None else int(stop))

    def __str__(self) -> str:
        return f"{self.start}-" if self.stop is None else f"{self.start}-{self.stop}"

    def __contains__(self, epoch: int) -> bool:
        return self.start <= epoch and (self.stop is None or epoch < self.stop)

    def overlap(self, other: "Window") -> "Window | None":
        """The epochs in both windows."""
        start = max(self.start, other.start)
        stops = [stop for stop in (self.stop, other.stop) if stop is not None]
        stop = min(stops, default=None)
        return None if stop is not None and stop <= start else Window(start, stop)


WHOLE_RUN = Window(0)


@dataclass(frozen=True)
class Windowed(Generic[Value]):
    """A value that holds in a window of epochs."""

    value: Value
    window: Window = WHOLE_RUN

    def __str__(self) -> str:
        return f"{_text(self.value)}:{self.window}"


def _text(value: object) -> str:
    """A value as the grammar writes it: `crop+flip`, `none`, 0.0005, blur(4)."""
    if isinstance(value, tuple):
        return "+".join(value) or "none"
    return repr(value) if isinstance(value, float) else str(value)
