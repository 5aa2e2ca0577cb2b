"""Softmax cross-entropy, over one label an image or one at each of its positions (tokens, pixels)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .softmax import CategoricalLikelihood

LAYOUTS = {
    "cross_entropy": "[images, classes]",
    "token_cross_entropy": "[images, *positions, classes]",
    "pixel_cross_entropy": "[images, classes, *positions]",
    "next_token_cross_entropy": "[images, positions, classes]",
}


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy: H = diag(p) - p p^T at every position of an image's outputs.

        name                        outputs                           labels
        cross_entropy               [images, classes]                 [images]
        token_cross_entropy         [images, *positions, classes]     [images, *positions]
        pixel_cross_entropy         [images, classes, *positions]     [images, *positions]
        next_token_cross_entropy    [images, positions, classes]      [images, positions]

    Given the outputs, the labels at the positions are independent, so log p(y | outputs) of an image is the **sum**
    over its positions and so is its Fisher; the measured trace is the sum over positions and the mean over images.
    Divide by the number of positions for a mean a token or pixel. `next_token_cross_entropy` is for causal language
    models: outputs at position t predict labels[:, t + 1], and the last position predicts nothing.

    Positions whose label is `ignore_index` do not count, for no estimator: labels, where given, mask the true Fisher
    too. Without labels every position counts. An image none of whose positions count adds zero to the mean.

    `any_positions` lets `cross_entropy` be what nn.CrossEntropyLoss is: [images, classes], or
    [images, classes, *positions].
    """

    name: str = "cross_entropy"
    ignore_index: int = -100
    any_positions: bool = False

    def __post_init__(self) -> None:
        if self.name not in LAYOUTS:
            raise ValueError(f"name must be one of {', '.join(LAYOUTS)}; got {self.name!r}.")

    @property
    def class_dim(self) -> int:
        """The dimension of the outputs that runs over classes."""
        return -1 if "token" in self.name else 1

    def check(self, outputs: Tensor) -> None:
        """Outputs must have the layout of the name, at least two classes, and at least one position that counts."""
        got = f"got shape {list(outputs.shape)}"
        if not self._fits(outputs.dim()):
            raise ValueError(
                f"model outputs must be {LAYOUTS[self.name]} for loss={self.name!r}; {got}. {self._remedy(outputs)}"
            )
        if outputs.shape[self.class_dim] < 2:
            raise ValueError(
                f"model outputs must be {LAYOUTS[self.name]} with at least 2 classes for loss={self.name!r}; {got}. "
                "One output of a yes/no question: loss='binary_cross_entropy'."
            )
        if outputs.numel() == 0:
            raise ValueError(f"model outputs must have at least one image and position for loss={self.name!r}; {got}.")
        if self.name == "next_token_cross_entropy" and outputs.shape[1] < 2:
            raise ValueError(
                f"model outputs must have at least 2 positions for loss={self.name!r}, since the last predicts "
                f"nothing; {got}."
            )

    def likelihood(self, outputs: Tensor, labels: Tensor | None) -> CategoricalLikelihood:
        """A class at every position.

        Raises:
            ValueError: labels do not have the outputs' positions, or are neither a class nor `ignore_index`.
        """
        targets = None if labels is None else self._targets(outputs, labels)
        counts = None if targets is None else targets != self.ignore_index
        if self.name == "next_token_cross_entropy" and counts is None:
            counts = torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
            counts[:, -1] = False
        return CategoricalLikelihood(outputs.detach(), self.class_dim, targets, counts)

    def _fits(self, dims: int) -> bool:
        if self.name == "cross_entropy":
            return dims == 2 or (dims > 2 and self.any_positions)
        return dims == 3 if self.name == "next_token_cross_entropy" else dims > 2

    def _remedy(self, outputs: Tensor) -> str:
        if outputs.dim() == 2:
            return "One label an image: loss='cross_entropy'."
        if outputs.dim() < 2:
            return (
                "One output of a yes/no question: loss='binary_cross_entropy'. Otherwise return at least 2 classes, "
                "one row an image."
            )
        return (
            "Classes last, as language models have them: loss='token_cross_entropy', or 'next_token_cross_entropy' "
            "where position t predicts label t + 1. Classes second, as nn.CrossEntropyLoss has them: "
            "loss='pixel_cross_entropy'."
        )

    def _targets(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Labels [images, positions] as class indices at the position that predicts them."""
        shape = outputs.movedim(self.class_dim, -1).shape[:-1]
        if labels.shape != shape:
            where = "an image" if len(shape) == 1 else "a position"
            raise ValueError(
                f"labels must be one class index {where}, shape {list(shape)}, for loss={self.name!r}; "
                f"got shape {list(labels.shape)}."
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(
                f"labels must be class indices of an integer dtype for loss={self.name!r}; got {labels.dtype}. "
                "Use labels.long()."
            )
        targets = labels.long().reshape(len(labels), -1)
        if self.name == "next_token_cross_entropy":
            targets = torch.cat([targets[:, 1:], torch.full_like(targets[:, :1], self.ignore_index)], 1)
        self._check_range(targets, outputs.shape[self.class_dim])  # where the labels are: no wait for the outputs
        return targets.to(outputs.device, non_blocking=True)

    def _check_range(self, targets: Tensor, classes: int) -> None:
        given = targets[targets != self.ignore_index]
        if len(given) and not 0 <= int(given.min()) <= int(given.max()) < classes:
            low, high = int(given.min()), int(given.max())
            odd = low if low < 0 else high
            raise ValueError(
                f"labels must be class indices from 0 to {classes - 1}; got {low} to {high}. Check that the model has "
                f"one output for each class. If {odd} marks positions to leave out: "
                f"loss=CrossEntropy({self.name!r}, ignore_index={odd})."
            )
