"""When to measure: every so many epochs, every so many steps, or dense early and sparse late."""

import math
import re
from dataclasses import dataclass

LOG_RATIO = 1.3  # consecutive measured steps of `log`: about nine a decade


@dataclass(frozen=True)
class Cadence:
    """`every` epochs, or `every` steps, or (neither) steps in geometric progression."""

    text: str
    epochs: int | None = None
    steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Cadence":
        """From `3` (epochs), `50steps` or `log`."""
        match = re.fullmatch(r"([1-9][0-9]{0,8})(steps?)?", text.strip())
        if text.strip() == "log":
            return cls("log")
        if match is None:
            raise ValueError(f"every must be a number of epochs (1), of steps (50steps), or log; got {text!r}.")
        number = int(match[1])
        return cls(text, steps=number) if match[2] else cls(text, epochs=number)

    def due(self, *, step: int, finished_epochs: int | None) -> bool:
        """Whether to measure after this optimiser step; `finished_epochs` is None within an epoch."""
        if self.epochs is not None:
            return finished_epochs is not None and finished_epochs % self.epochs == 0
        if self.steps is not None:
            return step % self.steps == 0
        return step in _near_powers(step)


def _near_powers(step: int) -> set[int]:
    """The members of round(LOG_RATIO ** k) near a step."""
    k = round(math.log(max(step, 1)) / math.log(LOG_RATIO))
    return {round(LOG_RATIO**j) for j in (k - 1, k, k + 1)}
