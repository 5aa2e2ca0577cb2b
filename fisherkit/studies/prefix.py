"""How far two runs are the same run: up to there one of them need not be trained.

The state of a run after epoch e, and its rows up to there, follow from what stays the same through the run and from
the conditions and the learning rate of each epoch before e. Runs that agree in those are bit for bit equal so far.
"""

import json
from dataclasses import dataclass

from fisherkit.conditions import Conditions
from fisherkit.studies.specification import OF_THE_MACHINE, RunSpecification
from fisherkit.training import learning_rate

# they act through the epochs, which are compared one by one
_OF_THE_EPOCHS = {"epochs", "lr", "lr_schedule", "deficit", "weight_decay", "augment", "fraction", "event"}


@dataclass(frozen=True)
class Course:
    """What decides the bits of a run: what stays the same, and what holds in each of its epochs, as JSON."""

    constant: str
    epochs: tuple[str, ...]

    @classmethod
    def of(cls, specification: RunSpecification) -> "Course":
        """The course that a specification sets."""
        conditions = specification.conditions()
        epochs = range(specification.epochs)
        return cls(
            _constant(specification, conditions), tuple(_epoch(specification, conditions, epoch) for epoch in epochs)
        )

    def shared(self, other: "Course") -> int:
        """The largest epoch, below the end of both, up to which the two are the same run; 0 if they never are.

        Not the end itself: the last epoch of a run is measured even where the other's is not due.
        """
        if self.constant != other.constant:
            return 0
        last = min(len(self.epochs), len(other.epochs)) - 1
        return next((epoch for epoch in range(last) if self.epochs[epoch] != other.epochs[epoch]), last)


def _constant(specification: RunSpecification, conditions: Conditions) -> str:
    constant = json.loads(specification.model_dump_json(exclude={*OF_THE_MACHINE, *_OF_THE_EPOCHS}))
    if "deficit" in specification.probe:  # the probe is shown under all deficits of the run, whenever they hold
        constant["probe_deficits"] = [str(deficit) for deficit in conditions.all_deficits()]
    return json.dumps(constant, sort_keys=True)


def _epoch(specification: RunSpecification, conditions: Conditions, epoch: int) -> str:
    options = specification.training()
    rate = learning_rate(options.lr, options.schedule, epoch=epoch, epochs=options.epochs, events=conditions.events)
    return json.dumps({**conditions.at(epoch).record(), "lr": rate, "phase": _phase_end(conditions, epoch)})


def _phase_end(conditions: Conditions, epoch: int) -> int | None:
    """Where training goes on when a phase ends early: the next start or stop of a fraction."""
    ends = (end for windowed in conditions.fraction for end in (windowed.window.start, windowed.window.stop))
    return min((end for end in ends if end is not None and end > epoch), default=None)
