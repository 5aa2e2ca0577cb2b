"""`fisher_trace`: vectors x engine over batches of images, with standard errors."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any

from torch import Tensor, nn

from .agreement import Offer, agreed, take_buffers
from .inputs import Batch, batches, known_length, peeked
from .layers import unwrapped
from .losses import find_loss
from .measurement import Measurement
from .memory import bytes_of
from .processes import processes
from .request import Request
from .result import FisherTrace
from .tally import check_population
from .undisturbed import device_of, undisturbed
from .vectors import STOCHASTIC, Estimator


def fisher_trace(  # noqa: PLR0913  (one call is the whole interface)
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    loss: Any = "cross_entropy",
    estimator: str = "propagated",
    engine: str = "auto",
    draws: int = 1,
    max_images: int | None = None,
    rel_se: float | None = None,
    rel_se_above: float | None = None,
    population: int | None = None,
    projections: int | None = None,
    batch_size: int | None = None,
    max_memory: int | str | None = None,
    precision: str = "full",
    batchnorm: str = "eval",
    seed: int = 0,
    distributed: bool = True,
) -> FisherTrace:
    """The trace of the Fisher information of each layer's parameters, with standard errors.

        true:       tr F_l = E_x E_{y ~ p(.|x)} || d log p(y|x) / d theta_l ||^2 = E_x tr(J_l^T H J_l)
        empirical:  tr E_l = E_{(x, y)}         || d log p(y|x) / d theta_l ||^2

    J_l = d outputs / d theta_l for one image, H the Hessian of -log p in the outputs. Sum over the layer's
    parameters, mean over images, natural logarithm: nats^2; independent of batch size and loss reduction.
    Measuring changes nothing: flags, buffers, `.grad`, hooks and random states are as before.

    Args:
        model: any module that returns one row of outputs an image (a tensor, or an object with `.logits`).
        images: a normalised float tensor, an ImageSet, or an iterable of batches (a tensor, an (images, labels)
            pair, or a dictionary of tensors passed by name, whose "labels" are the labels).
        labels: class indices [images], when `images` is a tensor; needed by the empirical Fisher, and where
            they say which positions of an image's outputs count (`ignore_index`).
        loss: -log p(y | outputs): cross_entropy, token_cross_entropy, next_token_cross_entropy, pixel_cross_entropy,
            binary_cross_entropy, squared_error; a loss module of torch.nn; a callable of the outputs that returns a
            torch.distributions.Distribution, or a square root S [images, outputs, columns] of H. `find_loss` in
            losses/ has the details.
        estimator: propagated (curvature propagation, one backward a draw; Martens, Sutskever, Swersky 2012),
            sampled (labels drawn from the model), exact (all outputs), or empirical (given labels).
        engine: auto (ghost; what has no closed form by batch or vmap), ghost, vmap, backpack or batch.
        draws: random vectors an image, for propagated and sampled.
        max_images: use the first so many images at most.
        rel_se: stop after at least 100 images once the total's relative standard error is at most this.
        rel_se_above: with it, also every layer's whose share of the total is above this (0.01, say).
        population: the images are a sample without replacement of so many, which are the whole question; standard
            errors are those of the mean over them. Stochastic estimators then need draws >= 2.
        projections: estimate the norms of large layers from so many random projections of each image's gradient
            (4, say; forms/projection.py): cheaper, and with noise that the standard errors contain.
        batch_size: images in one pass, at most so many of an iterable's batches. By default as many as are fast and
            fit into `max_memory`; the result says how many. Where memory runs out all the same, the batch is halved
            and measured again; nothing is lost.
        max_memory: bytes, or a text such as "4GB", that a pass may take beside the model and the images, as far as
            that can be told beforehand, where `batch_size` is not given; by default half of what is free.
        precision: full (the parameters' own; TF32 off), tf32 (CUDA), or bf16 (autocast): cheaper, and rounded;
            squares are taken in float32 and summed in float64 in all of them, and the result says which.
        batchnorm: eval (running statistics) or train (each batch as one joint model; batch engine only).
        seed: of the draws. The same seed gives the same draws for the same image positions.
        distributed: under an initialised torch.distributed share the batches between all processes, which must all
            make the call, with the same model and all images; every process gets the whole result, that of one
            process for the same batch size. Buffers are those of process 0. False: this process alone.

    Raises:
        ValueError: an argument or the model does not fit; the message names it and the remedy.
        FloatingPointError: a trace is not finite; the message names the layers.
        MemoryError: memory ran out for a single image.
        RuntimeError: another process failed; the message names it.
    """
    request = Request(
        estimators=(Estimator(estimator, draws),),
        loss=find_loss(loss),
        engine=engine,
        batchnorm=batchnorm,
        seed=seed,
        rel_se=rel_se,
        rel_se_above=rel_se_above,
        population=population,
        projections=projections,
        max_memory=bytes_of(max_memory),
        precision=precision,
        distributed=distributed,
    )
    (result,) = _measured(model, images, labels, request, max_images=max_images, batch_size=batch_size)
    return result


def fisher_traces(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    estimators: Iterable[str] = ("propagated", "empirical"),
    loss: Any = "cross_entropy",
    draws: int = 1,
    max_images: int | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> dict[str, FisherTrace]:
    """Several estimators of the same images in one pass: {estimator: result}.

    The forward pass is shared, each estimator adds its own backward passes; each result is what `fisher_trace` gives.

    Args:
        model: as for `fisher_trace`, like all other arguments.
        images: read once.
        labels: needed where `estimators` has empirical.
        estimators: names of different estimators.
        loss: -log p(y | outputs).
        draws: for those that draw.
        max_images: use the first so many images at most.
        batch_size: images in one pass.
        options: engine (where batch is asked for, exact and empirical go to auto), rel_se (until all are that
            well known), rel_se_above, population, projections, batchnorm, seed, max_memory,
            precision, distributed.

    Raises:
        ValueError: as for `fisher_trace`; or an estimator is there twice, or none is.
    """
    unknown = sorted(set(options) - {known.name for known in fields(Request)})
    if unknown:
        raise TypeError(f"fisher_traces() got an unexpected keyword argument {unknown[0]!r}")
    names = list(estimators)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"estimators must be different names, at least one; got {names!r}.")
    if draws > 1 and not set(names) & set(STOCHASTIC):
        raise ValueError(f"draws must be 1 for estimators {names!r}, which draw nothing; got {draws!r}.")
    options["max_memory"] = bytes_of(options.get("max_memory"))
    ordered = sorted(names, key=lambda name: name not in STOCHASTIC)  # those with mean zero first
    request = Request(
        estimators=tuple(Estimator(name, draws if name in STOCHASTIC else 1) for name in ordered),
        loss=find_loss(loss),
        **options,
    )
    results = _measured(model, images, labels, request, max_images=max_images, batch_size=batch_size)
    found = dict(zip(ordered, results, strict=True))
    return {name: found[name] for name in names}


def _measured(
    model: nn.Module,
    images: Any,
    labels: Tensor | None,
    request: Request,
    *,
    max_images: int | None,
    batch_size: int | None,
) -> list[FisherTrace]:
    for name, value in (("max_images", max_images), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value!r}.")
    model, together = unwrapped(model), processes(distributed=request.distributed)
    measurement = Measurement(model, request, together)
    if request.precision == "tf32" and device_of(model).type != "cuda":
        raise ValueError(f"precision='tf32' needs a CUDA device; the model is on {device_of(model)}. Use 'full'.")
    with undisturbed(model, batchnorm=request.batchnorm, precision=request.precision):
        stream = partial(batches, images, labels, max_images=max_images, device=device_of(model))
        begun: list[Iterator[Batch]] = []

        def begin() -> Offer:
            first, rest = peeked(stream(size=batch_size))
            begun.append(rest)
            measurement.prepare(first)
            length = known_length(images, max_images)
            check_population(request.population, images=length or 0)
            return measurement.offer(first, images=length, batch_size=batch_size)

        offers = together.run(begin)
        sizes = agreed(offers)
        if together.rank > 0:
            take_buffers(model, offers[0].buffers)
        rest = begun[0] if known_length(images, max_images) is None else stream(size=sizes.batch)
        measurement.run(rest, limit=sizes.limit)
    return [measurement.result(part) for part in measurement.parts]
