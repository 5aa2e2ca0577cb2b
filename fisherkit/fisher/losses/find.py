"""`find_loss`: what a user gives as `loss=`, as a Loss."""

from collections.abc import Sequence
from typing import Any

from .callables import CallableLoss
from .cross_entropy import LAYOUTS, CrossEntropy
from .independent import BinaryCrossEntropy, SquaredError
from .likelihood import Loss
from .modules import is_torch_loss, loss_of_module

LOSSES: Sequence[Loss] = (*(CrossEntropy(name) for name in LAYOUTS), BinaryCrossEntropy(), SquaredError())


def find_loss(loss: Any) -> Loss:
    """The loss that `loss=` means.

        a name in LOSSES             that loss
        a Loss                       itself, for example CrossEntropy("token_cross_entropy", ignore_index=0)
        a loss module of torch.nn    CrossEntropyLoss, BCEWithLogitsLoss; others are refused with the reason
        a callable of the outputs    the distribution, or the square root of the Fisher, that it returns

    Raises:
        ValueError: it is none of these; the message lists the names.
    """
    for named in LOSSES:
        if isinstance(loss, str) and named.name == loss:
            return named
    if isinstance(loss, type):
        raise ValueError(
            f"loss must be a name, a loss or a function of the outputs, not a class; got {loss.__name__}. "
            f"Write {loss.__name__}() for a loss, loss=lambda outputs: {loss.__name__}(...) for a distribution."
        )
    if isinstance(loss, Loss):
        return loss
    if is_torch_loss(loss):
        return loss_of_module(loss)
    if callable(loss):
        return CallableLoss(loss)
    raise ValueError(f"loss must be one of {', '.join(named.name for named in LOSSES)}; got {loss!r}.")
