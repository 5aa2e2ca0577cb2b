"""Loss and accuracy of the steps of an epoch, kept on the device so that no step waits for a number."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


class Tally:
    """Mean loss and count of right answers of every step so far; the Fisher penalty of those that computed it."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.losses: Float32[Tensor, "steps"] = torch.zeros(steps, device=device)
        self.correct: Int64[Tensor, "steps"] = torch.zeros(steps, dtype=torch.int64, device=device)
        self.penalties: dict[int, Float32[Tensor, ""]] = {}

    def add(
        self,
        step: int,
        loss: Float32[Tensor, ""],
        correct: Int64[Tensor, ""],
        penalty: Float32[Tensor, ""] | None = None,
    ) -> None:
        """Note the mean loss, the count of right answers and, where there is one, the penalty of one step."""
        self.losses[step] = loss
        self.correct[step] = correct
        if penalty is not None:
            self.penalties[step] = penalty

    def restore(
        self,
        losses: Float32[Tensor, "done"],
        correct: Int64[Tensor, "done"],
        penalties: Mapping[int, Float32[Tensor, ""]],
    ) -> None:
        """Put in the steps that were done before."""
        self.losses[: len(losses)] = losses
        self.correct[: len(correct)] = correct
        self.penalties.update(penalties)

    def first_non_finite(self) -> int | None:
        """The first step whose loss is infinite or NaN."""
        bad = torch.nonzero(~torch.isfinite(self.losses.cpu()))
        return int(bad[0]) if len(bad) else None

    def mean_penalty(self) -> float | None:
        """The mean over the steps that computed it; None where none did."""
        values = list(self.penalties.values())
        return float(torch.stack(values).cpu().double().mean()) if values else None

    def means(self, sizes: Sequence[int]) -> tuple[float, float]:
        """Mean loss and accuracy over the images, from the number of images in every step; summed in float64."""
        weights = torch.tensor(sizes, dtype=torch.float64)
        images = sum(sizes)
        loss = float(self.losses.cpu().double() @ weights) / images
        return loss, int(self.correct.sum()) / images
