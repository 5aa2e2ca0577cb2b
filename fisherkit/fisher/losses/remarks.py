"""What can be told from a model's first outputs before anything is measured: that they do not fit, or look odd."""

from torch import Tensor

from .cross_entropy import CrossEntropy
from .likelihood import Loss

SUMS_TO_ONE = 1e-3


def examined(loss: Loss, outputs: Tensor) -> tuple[str, ...]:
    """Notes on outputs that fit the loss.

    Raises:
        ValueError: they do not.
    """
    loss.check(outputs)
    if isinstance(loss, CrossEntropy) and _are_probabilities(outputs.detach().movedim(loss.class_dim, -1).double()):
        return (
            f"the outputs look like probabilities, in [0, 1] with sum 1, and loss={loss.name!r} takes their "
            "softmax once more, so that the trace is much too small: return logits, without a softmax at the end.",
        )
    return ()


def _are_probabilities(rows: Tensor) -> bool:
    within = ((rows >= 0) & (rows <= 1)).all()
    return bool(within & ((rows.sum(-1) - 1).abs() <= SUMS_TO_ONE).all())
