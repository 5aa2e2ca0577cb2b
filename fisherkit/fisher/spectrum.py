"""`fisher_spectrum`: eigenvalues of each layer's Fisher on a sample, from the Gram matrix of its score vectors."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .forms.table import find_form
from .ghost import PathError
from .gram import Factors, gram, gram_of_gradients, moment_of_gradients
from .inputs import batches
from .layers import frozen_parameters, trainable_layers, unwrapped
from .losses import find_loss
from .losses.remarks import examined
from .memory import bytes_of
from .notes import about_parameters, about_statistics
from .plan import Plan, make_plan, settle_vmap
from .scores import Built, Piece, Sample, collect
from .spectrum_memory import divided, grouped
from .spectrum_result import FisherSpectrum
from .spectrum_values import LayerSpectrum, layer_spectrum
from .survey import Survey, survey
from .undisturbed import device_of, undisturbed
from .vectors import Estimator

ALL_ZERO = (
    "every trace is 0: every prediction is certain at this precision (a saturated softmax), or no label counts, or the "
    "outputs depend on the layers only through weights that are zero."
)
SPECTRUM_ENGINES = ("auto", "ghost", "vmap")


def fisher_spectrum(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    k: int = 10,
    loss: Any = "cross_entropy",
    estimator: str = "exact",
    engine: str = "auto",
    draws: int = 1,
    max_images: int | None = 100,
    batch_size: int | None = None,
    seed: int = 0,
    max_memory: int | str | None = None,
) -> FisherSpectrum:
    """The k largest eigenvalues of each layer's Fisher matrix on a sample of images, and its effective rank.

        F_l = 1/N sum_i J_l^T H J_l = 1/N sum_i sum_c u_ic u_ic^T,    u_ic = J_l^T s_ic,    sum_c s_ic s_ic^T = H

    for the N images. With the M = N * columns score vectors u as the rows of G, the eigenvalues of F_l = G^T G / N that
    are not zero are those of the Gram matrix G G^T / N [M, M], which is summed in float64 without holding G, a
    layer's gradients of every image, where that is large. Exact for the sample; see `FisherSpectrum` for what that
    says about the images' distribution. With estimator="propagated" or "sampled" it is the spectrum of the drawn
    sample, 1/(N draws) sum v v^T, whose mean over draws is F_l: for outputs so many that M columns would be too many.

    It costs one forward and `columns` backward passes for each group of layers that fits into `max_memory`, and
    M^2 multiply-adds for each parameter (fewer where inner products come without gradients), M^3 for the eigenvalues.
    Measuring changes nothing: flags, buffers, `.grad`, hooks and random states are as before. Under torch.distributed
    every process that makes the call computes all of it.

    Args:
        model: any module, as for `fisher_trace`; BatchNorm uses its running statistics.
        images: as for `fisher_trace`; all of them are held.
        labels: class indices [images], when `images` is a tensor; needed by the empirical Fisher only.
        k: how many eigenvalues of each layer.
        loss: as for `fisher_trace`.
        estimator: exact, propagated or sampled (of drawn vectors), empirical (the Fisher of the given labels).
        engine: auto (ghost; what has no closed form by vmap, or one image at a time), ghost or vmap.
        draws: random vectors an image, for propagated and sampled.
        max_images: use the first so many images at most.
        batch_size: images in one pass, for tensors and ImageSets; by default as memory allows.
        seed: of the draws.
        max_memory: bytes, or a text such as "4GB", to take at most, beside the model and the images, as far as that can
            be told beforehand; by default half of what is free. It decides how many images and layers a pass is for,
            and changes nothing but rounding.

    Raises:
        ValueError: an argument or the model does not fit; the message names it and the remedy.
        FloatingPointError: score vectors of a layer are not finite; the message names it.
    """
    _check(k=k, max_images=max_images, batch_size=batch_size, engine=engine)
    budget_bytes = bytes_of(max_memory)
    chosen, found_loss, model = Estimator(estimator, draws), find_loss(loss), unwrapped(model)
    with undisturbed(model):
        stream = batches(images, labels, size=batch_size, max_images=max_images, device=device_of(model))
        sample = Sample(model, list(stream), found_loss, chosen, seed)
        plan, found = _plan(sample, engine)
        sample, budget = divided(sample, found, plan, batch_size=batch_size, max_memory=budget_bytes)
        while True:
            try:
                groups = grouped(sample, plan, budget)
                spectra = _spectra(sample, groups, k=k)
                break
            except PathError as change:  # a layer is used otherwise than the first images showed
                if engine != "auto":
                    raise
                plan = plan.moved(change.layer, "loop", change.reason)
    return _result(sample, plan, spectra, passes=len(groups), surveyed=found.notes)


def _check(*, engine: str, **counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value!r}.")
    if engine not in SPECTRUM_ENGINES:
        raise ValueError(
            f"engine must be one of {', '.join(SPECTRUM_ENGINES)} for a spectrum, which needs the gradients of each "
            f"image; got {engine!r}."
        )


def _plan(sample: Sample, engine: str) -> tuple[Plan, Survey]:
    """Survey the model on a few images and choose the engines."""
    if not sample.batches:
        raise ValueError("images must hold at least one image; got none.")
    if sample.estimator.name == "empirical" and any(batch.labels is None for batch in sample.batches):
        raise ValueError("labels must be given for estimator='empirical'; got None.")
    few = sample.few
    layers = trainable_layers(sample.model)
    found = survey(sample.model, few.inputs, layers, partial(examined, sample.loss))
    if found.joint is not None:
        raise ValueError(
            f"{found.joint}, so that the images of a batch form one joint model, and the scores of single images, of "
            "which a spectrum is made, are not defined. Use a model whose BatchNorm has running statistics."
        )
    plan = make_plan(layers, found, engine=engine, stochastic=False, batchnorm="eval")
    vectors = sample.vectors(0, few.labels)
    return settle_vmap(plan, sample.model, few.inputs, vectors, asked=engine == "vmap"), found


def _spectra(sample: Sample, groups: Sequence[Sequence[Piece]], *, k: int) -> dict[str, LayerSpectrum]:
    """Layer after layer; a layer in several pieces is summed over them."""
    spectra: dict[str, LayerSpectrum] = {}
    total: Tensor | None = None
    weight = 1 / (sample.images * sample.estimator.draws)
    for group in groups:
        held = collect(sample, group)
        for piece in group:
            scores = held.pop(0)
            lower = _gram(piece, scores)
            total = lower if total is None else total.add_(lower)
            if piece.last:
                moment = _moment(piece, scores)
                spectra[piece.layer.name] = layer_spectrum(total, scores.image, moment=moment, k=k, weight=weight)
                total = None
    return spectra


def _gram(piece: Piece, scores: Built | Factors) -> Tensor:
    """The Gram matrix of the piece's score vectors, lower triangle.

    Raises:
        FloatingPointError: some are not finite.
    """
    form = find_form(piece.layer)
    if isinstance(scores, Built):
        lower = gram_of_gradients(scores.gradients)
    else:
        assert form is not None
        lower = gram(piece.layer, form, scores)
    if not bool(torch.isfinite(lower.diagonal()).all()):
        raise FloatingPointError(
            f"Fisher spectrum is not finite for layer {piece.layer.name!r}. "
            "Check the inputs and the weights for NaN, infinity and overflow."
        )
    return lower


def _moment(piece: Piece, scores: Built | Factors) -> Tensor | None:
    """G^T G where that is smaller than G G^T and G is at hand."""
    if not isinstance(scores, Built) or piece.pieces > 1 or scores.gradients.shape[1] >= len(scores.gradients):
        return None
    return moment_of_gradients(scores.gradients)


def _result(
    sample: Sample, plan: Plan, spectra: dict[str, LayerSpectrum], *, passes: int, surveyed: tuple[str, ...]
) -> FisherSpectrum:
    found = [spectra[layer.name] for layer in plan.layers]
    parameter = next(iter(plan.layers[0].parameters.values()))
    return FisherSpectrum(
        layers=tuple(layer.name for layer in plan.layers),
        eigenvalues=np.stack([one.eigenvalues for one in found]),
        trace=np.array([one.trace for one in found]),
        effective_rank=np.array([one.effective_rank for one in found]),
        effective_rank_corrected=np.array([one.corrected.value for one in found]),
        effective_rank_stderr=np.array([one.corrected.stderr for one in found]),
        images=sample.images,
        vectors=found[0].vectors,
        draws=sample.estimator.draws,
        engines=plan.engines,
        parameters={layer.name: layer.size for layer in plan.layers},
        frozen_parameters=frozen_parameters(sample.model),
        estimator=sample.estimator.name,
        loss=sample.loss.name,
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=str(parameter.device),
        seed=sample.seed,
        passes=passes,
        batch_size=max(map(len, sample.batches)),
        reasons=plan.reasons,
        notes=(*_notes(sample, spectra), *surveyed),
    )


def _notes(sample: Sample, spectra: dict[str, LayerSpectrum]) -> Iterator[str]:
    """What a reader must know before trusting the numbers."""
    if sample.estimator.stochastic:
        yield (
            f"eigenvalues and rank are those of {sample.estimator.draws} drawn vector(s) an image, not of the Fisher "
            "matrix itself (estimator='exact'); the corrected rank estimates the same for both."
        )
    zero = [name for name, spectrum in spectra.items() if spectrum.trace == 0]
    if len(zero) == len(spectra):
        yield ALL_ZERO
    yield from about_parameters(sample.model, zero if len(zero) < len(spectra) else [])
    yield from about_statistics(sample.model)
