"""The Fisher penalty: keep the squared norm of the mean score of a batch small, with labels drawn from the model.

Jastrzebski et al., Catastrophic Fisher Explosion (ICML 2021, arXiv 2012.14193). Drawing the labels is apart from
computing with them.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fisherkit.training.seeds import derive_seed

EVERY = 10  # steps, as in the paper
_FORM = re.compile(r"(?P<alpha>[^:]+)(:(?P<every>[0-9]{1,9}))?(?P<held>:held)?")
_NOT_TWICE = ("is not implemented", "once_differentiable", "does not require grad")  # torch's words for it


@dataclass(frozen=True)
class FisherPenalty:
    """alpha P(theta) in the loss of every `every`-th step of the run, the first one included.

        P = ||(1/B) sum_i grad_theta log p(yhat_i | x_i)||^2,   yhat_i ~ p(. | x_i), independently

    over the B images of the step's batch, as they are trained on, and all trained parameters (nats^2). Over the draws
    E[P] = tr F / B where images do not act on one another (scores have mean 0), so alpha is for one batch size; with
    batch-norm P is that of the batch as it goes through the network, statistics and all.

    The steps in between train on the loss alone. With `held` the gradient of alpha P is computed as often, and added in
    the steps in between too, as it was: a penalty as strong as in every step, at the cost of one in `every`.
    """

    alpha: float
    every: int = EVERY
    held: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(
                f"alpha of fisher_penalty must be finite and above 0; got {self.alpha!r}. "
                "To train without a penalty, leave the option out."
            )
        if self.every < 1:
            raise ValueError(f"every of fisher_penalty must be a whole number of steps >= 1; got {self.every!r}.")

    @classmethod
    def parse(cls, text: str) -> "FisherPenalty":
        """From `0.1`, `0.1:10` or `0.1:10:held`; raises ValueError."""
        match = _FORM.fullmatch(text)
        try:
            alpha = float(match["alpha"]) if match else None
        except ValueError:
            alpha = None
        if match is None or alpha is None:
            raise ValueError(
                "fisher_penalty must be ALPHA, ALPHA:EVERY or ALPHA:EVERY:held, a number and a whole number of steps, "
                f"for example 0.1:10; got {text!r}."
            )
        return cls(alpha, int(match["every"] or EVERY), match["held"] is not None)

    def __str__(self) -> str:
        return f"{self.alpha!r}:{self.every}" + (":held" if self.held else "")

    def due(self, step: int) -> bool:
        """Whether it is computed in the step after so many."""
        return step % self.every == 0


def label_noise(images: int, classes: int, *, seed: int) -> Float[Tensor, "images classes"]:
    """Independent Gumbel noise, -log of an exponential variable; drawn on the CPU, the same for any device."""
    generator = torch.Generator().manual_seed(seed)
    exponential = torch.empty(images, classes, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.log()


def labels_given(
    logits: Float[Tensor, "images classes"], noise: Float[Tensor, "images classes"]
) -> Int64[Tensor, "images"]:
    """Labels from the model's own distribution: argmax(logits + noise) has the probabilities softmax(logits)."""
    return (logits.detach() + noise.to(logits)).argmax(1)


def penalty_given(
    logits: Float[Tensor, "images classes"], labels: Int64[Tensor, "images"], parameters: Sequence[Tensor]
) -> tuple[Float[Tensor, ""], tuple[Tensor | None, ...]]:
    """P and its gradient, by differentiating twice; None where a parameter does not act on the logits.

    The graph of the logits stays, for the gradient of the loss.

    Raises:
        ValueError: an operation of the model cannot be differentiated twice; torch's own words name it.
    """
    mean_score = F.cross_entropy(logits, labels)  # minus the mean of log p(yhat | x): the sign goes in the square
    try:
        scores = torch.autograd.grad(mean_score, parameters, create_graph=True, allow_unused=True)
        _refuse_hidden_errors(scores)
        value = torch.stack([_real(score).square().sum() for score in scores if score is not None]).sum()
        gradient = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        if not any(words in str(error) for words in _NOT_TWICE):
            raise
        raise ValueError(
            "model must be made of operations that can be differentiated twice, for fisher_penalty differentiates a "
            f"gradient; got one that cannot: {str(error).splitlines()[0]} Write that operation out in plain tensor "
            "operations, or train without --fisher-penalty."
        ) from error
    return value.detach(), gradient


def _refuse_hidden_errors(scores: Sequence[Tensor | None]) -> None:
    """Raise RuntimeError where the graph has a function that was marked to be differentiated once.

    torch puts an error node in its place, off the way to the parameters: torch.autograd.grad does not come by it, and
    would leave out, without a word, what flows through the function.
    """
    todo = [score.grad_fn for score in scores if score is not None and score.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function marked with @once_differentiable.")
        following = {other for other, _ in node.next_functions if other is not None} - seen
        seen |= following
        todo += following


def _real(score: Tensor) -> Tensor:
    """A complex parameter is two real ones."""
    return torch.view_as_real(score) if score.is_complex() else score


def add_to_gradients(parameters: Sequence[Tensor], gradient: Sequence[Tensor | None], *, alpha: float) -> None:
    """parameter.grad += alpha gradient."""
    for parameter, part in zip(parameters, gradient, strict=True):
        if part is None:
            continue
        if parameter.grad is None:
            parameter.grad = part * alpha
        else:
            parameter.grad.add_(part, alpha=alpha)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention in its written-out form: the fused kernels have no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


class PenaltyTerm:
    """A penalty in a training, or none: what it adds to the gradients of each step.

    `gradient` is that of P at the last step that computed it, while it is still to be added.
    """

    def __init__(self, penalty: FisherPenalty | None, parameters: Sequence[Tensor], *, seed: int) -> None:
        self.penalty, self.parameters, self.seed = penalty, tuple(parameters), seed
        self.gradient: Sequence[Tensor | None] | None = None

    def due(self, step: int) -> bool:
        """Whether the penalty is computed in the step after so many."""
        return self.penalty is not None and self.penalty.due(step)

    def forward(self, step: int) -> AbstractContextManager[None]:
        """The context of the step's forward pass."""
        return twice_differentiable() if self.due(step) else nullcontext()

    def compute(self, logits: Float[Tensor, "images classes"], step: int) -> Float[Tensor, ""] | None:
        """P of the step's batch from its logits, whose graph stays; None in the steps in between."""
        if not self.due(step):
            return None
        noise = label_noise(*logits.shape, seed=derive_seed(self.seed, "penalty", step))
        value, self.gradient = penalty_given(logits, labels_given(logits, noise), self.parameters)
        return value

    def apply(self) -> None:
        """Add the penalty's gradient to that of the loss."""
        if self.penalty is not None and self.gradient is not None:
            add_to_gradients(self.parameters, self.gradient, alpha=self.penalty.alpha)
            self.gradient = self.gradient if self.penalty.held else None

    def restore(self, gradient: Sequence[Tensor | None] | None) -> None:
        """Put back the gradient that is still to be added."""
        held = self.penalty is not None and self.penalty.held and gradient is not None
        self.gradient = (
            [None if part is None else part.to(own.device) for part, own in zip(gradient, self.parameters, strict=True)]
            if held and gradient is not None
            else None
        )
