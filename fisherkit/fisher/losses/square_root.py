"""A Fisher given by its square root: a callable that returns S for the outputs."""

from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .likelihood import signs


@dataclass(frozen=True, eq=False)
class SquareRootLikelihood:
    """H = S S^T for S [images, outputs, columns]; p(y | outputs) itself is not known."""

    outputs: Float[Tensor, "images *outputs"]
    root: Float[Tensor, "images flat columns"]

    @property
    def columns(self) -> int:
        """Those of S."""
        return self.root.shape[2]

    @property
    def noise(self) -> int:
        """One for each column of S."""
        return self.root.shape[2]

    def column(self, k: int) -> Tensor:
        """Column k of S."""
        return self.root[:, :, k].double().reshape(self.outputs.shape)

    def propagated(self, uniforms: Float64[Tensor, "images noise"]) -> Tensor:
        """S eps."""
        return torch.einsum("nij,nj->ni", self.root.double(), signs(uniforms)).reshape(self.outputs.shape)

    def sampled(self, uniforms: Float64[Tensor, "images noise"]) -> NoReturn:
        """Refused: S says nothing of the outcomes."""
        raise ValueError(_refusal("sampled"))

    def score(self) -> NoReturn:
        """Refused: S says nothing of the outcomes."""
        raise ValueError(_refusal("empirical"))

    def entropy(self) -> Float64[Tensor, " images"]:
        """Unknown: NaN."""
        return torch.full((len(self.outputs),), torch.nan, dtype=torch.float64, device=self.outputs.device)

    def rare_draws(self) -> Float64[Tensor, " images"]:
        """Nothing is drawn."""
        return torch.full((len(self.outputs),), torch.inf, dtype=torch.float64, device=self.outputs.device)


def square_root_likelihood(outputs: Tensor, root: Tensor) -> SquareRootLikelihood:
    """The likelihood whose Fisher in the outputs has the square root `root`.

    Raises:
        ValueError: its shape is not [images, outputs, columns].
    """
    images, flat = len(outputs), outputs[0].numel()
    fits = root.dim() == 3 and root.shape[:2] == (images, flat) and root.shape[2] > 0 and root.is_floating_point()
    if not fits:
        raise ValueError(
            f"loss must return a square root S of the Fisher in the outputs with shape [images, outputs, columns] = "
            f"[{images}, {flat}, any], outputs flattened; got {root.dtype} of shape {list(root.shape)}. A callable "
            "loss returns S, or a torch.distributions.Distribution, for the outputs; it never returns the loss itself."
        )
    return SquareRootLikelihood(outputs.detach(), root.detach())


def _refusal(estimator: str) -> str:
    return (
        f"estimator must be 'propagated' or 'exact' for a loss that returns a square root of the Fisher; got "
        f"{estimator!r}, which needs the distribution of the labels. Give a loss that returns a "
        "torch.distributions.Distribution."
    )
