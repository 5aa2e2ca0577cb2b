"""`find_loss`: what a user gives as `loss=`, as a Loss."""

from collections.abc import Sequence
from typing import Any

from .cross_entropy import LAYOUTS, CrossEntropy
from .independent import BinaryCrossEntropy, SquaredError
from .likelihood import Loss

LOSSES: Sequence[Loss] = (*(CrossEntropy(name) for name in LAYOUTS), BinaryCrossEntropy(), SquaredError())


def find_loss(loss: Any) -> Loss:
    """The loss that `loss=` means: a name, or a Loss itself.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    for named in LOSSES:
        if isinstance(loss, str) and named.name == loss:
            return named
    if isinstance(loss, Loss) and not isinstance(loss, type):
        return loss
    raise ValueError(f"loss must be one of {', '.join(named.name for named in LOSSES)}; got {loss!r}.")
