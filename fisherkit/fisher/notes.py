"""What a reader must know before trusting a measurement's numbers, as sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .layers import frozen_parameters
from .passes import Reduced
from .tally import Summary, Tally, skewness_note
from .undisturbed import hooked_modules, hooked_parameters
from .vectors import Estimator

FEW_RARE_DRAWS = 100  # fewer draws of unlikely labels than this: the label-sampled error bar is not to be trusted
FEW_GROUPS = 8
CERTAIN = (
    "every prediction is certain: softmax or sigmoid is saturated, every probability is 0 or 1 at this precision, so "
    "that all scores and the trace are 0. Look for weights or images that are too large."
)
HALF = {dtype: torch.finfo(dtype).eps / 2 for dtype in (torch.float16, torch.bfloat16)}  # relative rounding


@dataclass(frozen=True, eq=False)
class Observed:
    """What the notes are made from."""

    model: nn.Module
    estimator: Estimator
    tally: Tally
    joint: str | None  # why the images of a batch depend on each other
    batchnorm: str
    rare_draws: float  # expected number of drawn labels that are not the likeliest
    dtype: torch.dtype  # of the parameters
    surveyed: tuple[str, ...] = ()  # what the survey of the model adds
    reduced: Reduced | None = None
    rel_se: float | None = None  # what was asked for
    rel_se_above: float | None = None


def notes(observed: Observed, layers: Sequence[Summary], total: Summary) -> tuple[str, ...]:
    """All that apply."""
    skewed = skewness_note(layers, total)
    missed = _not_reached(observed, layers, total)
    return (*missed, *_drawn(observed), *_about_model(observed), *([skewed] if skewed else []))


def _not_reached(observed: Observed, layers: Sequence[Summary], total: Summary) -> Iterator[str]:
    """On a relative standard error that was asked for when the images ended before."""
    if observed.rel_se is None:
        return
    share = observed.rel_se_above
    named = {f"layer {name!r}": layer for name, layer in zip(observed.tally.columns, layers, strict=True)}
    watched = {"the total": total} | {
        name: layer for name, layer in named.items() if share is not None and layer.mean > share * total.mean
    }
    missed = {name: s for name, s in watched.items() if not s.stderr <= observed.rel_se * s.mean}
    if missed:
        name, worst = max(missed.items(), key=lambda one: one[1].relative_stderr)
        others = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
        yield (
            f"rel_se={observed.rel_se:g} was not reached: the relative standard error of {name}{others} is "
            f"{worst.relative_stderr:.2g} after {observed.tally.images} images. Give more images"
            f"{', or more draws.' if observed.estimator.stochastic else '.'}"
        )


def _drawn(observed: Observed) -> Iterator[str]:
    """On what the standard errors rest."""
    estimator, tally = observed.estimator, observed.tally
    groups = len(tally.total.means)
    if estimator.name == "sampled" and observed.rare_draws < FEW_RARE_DRAWS:
        yield (
            f"only about {observed.rare_draws:.2g} of {tally.images * estimator.draws} drawn labels were expected to "
            "differ from the predicted class, and they carry the trace: the standard error is too small to be "
            "trusted. Use estimator='propagated'."
        )
    if tally.joint and groups < FEW_GROUPS:
        yield f"the batch engine's standard errors rest on {groups} batches; use smaller batches or more images."


def _about_model(observed: Observed) -> Iterator[str]:
    columns = observed.tally.columns
    zero = [name for name, column in columns.items() if not any(bool(mean.any()) for mean in column.means)]
    certain = len(zero) == len(columns) and _scores_vanish(observed)
    if certain:
        yield CERTAIN
    yield from about_parameters(observed.model, [] if certain else zero)
    if observed.batchnorm == "train":
        yield "batchnorm='train': each batch is one joint model, so its size is part of the quantity."
    elif observed.joint:
        yield f"{observed.joint}: measured by batch, each batch as one joint model."
    if observed.batchnorm == "eval":
        yield from about_statistics(observed.model)
    for dtype in sorted({p.dtype for p in observed.model.parameters()} & set(HALF), key=str):
        yield (
            f"parameters in {str(dtype).removeprefix('torch.')}: every operation of the forward and backward passes "
            f"rounds to {HALF[dtype]:.2%}; model.float() is measured without that."
        )
    yield from observed.surveyed
    if observed.reduced is not None:
        yield (
            f"memory ran out in a pass of {observed.reduced.failed} images: it was measured again in parts, and later "
            f"passes hold {observed.reduced.limit} images at most. Nothing was lost; give a batch_size or max_memory "
            "that fits to save the time."
        )
    yield from _hooked(observed.model)


def _scores_vanish(observed: Observed) -> bool:
    """Whether the predictions are so certain that the squares of the scores are 0, whatever the layers do."""
    tiny = torch.finfo(observed.dtype).tiny
    # with q = 1 - max p the squares are about q, those of a score at the likeliest label q^2
    vanishing = tiny if observed.estimator.name in ("exact", "propagated") else tiny**0.5
    return observed.rare_draws < vanishing * observed.tally.images * observed.estimator.draws


def about_parameters(model: nn.Module, unused: Sequence[str]) -> Iterator[str]:
    """On layers with trace 0 and on frozen parameters."""
    if unused:
        yield f"the outputs do not depend on {', '.join(unused)}, or only through weights that are zero: trace 0."
    frozen = frozen_parameters(model)
    if frozen:
        yield f"{frozen:,} frozen parameters (requires_grad=False) are not measured."


def about_statistics(model: nn.Module) -> Iterator[str]:
    """On BatchNorm in evaluation mode before any training."""
    counts = (getattr(module, "num_batches_tracked", None) for module in model.modules())
    if any(count is not None and int(count) == 0 for count in counts):
        yield (
            "BatchNorm statistics were never updated (mean 0, variance 1): train first, or pass some images "
            "through the model in training mode."
        )


def _hooked(model: nn.Module) -> Iterator[str]:
    for hooked, how in (
        (hooked_parameters(model), "register_hook"),
        (hooked_modules(model), "backward hooks of modules"),
    ):
        if hooked:
            yield (
                f"hooks on the gradient of {', '.join(hooked)} ({how}) change what training does with it, not the "
                "Fisher information: they were not applied."
            )
