"""`fisher_trace`: vectors x engine over batches of images, with standard errors."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .inputs import JOINT_BATCHES, Batch, batches, known_length, peeked
from .layers import Layer, frozen_parameters, trainable_layers
from .losses import find_loss
from .plan import Plan, make_plan, settle_vmap
from .result import FisherTrace
from .survey import survey
from .tally import Tally, skewness_note
from .undisturbed import BATCHNORM_POLICIES, device_of, undisturbed
from .vectors import Estimator, Vectors

SURVEYED_IMAGES = 3
MIN_IMAGES_TO_STOP = 100  # a standard error from fewer images is too uncertain to stop by
MIN_GROUPS_TO_STOP = 20  # likewise for batches
FEW_RARE_DRAWS = 100  # fewer draws of unlikely labels than this: the label-sampled error bar is not to be trusted
FEW_GROUPS = 8


def fisher_trace(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    loss: str = "cross_entropy",
    estimator: str = "propagated",
    engine: str = "auto",
    draws: int = 1,
    max_images: int | None = None,
    rel_se: float | None = None,
    batch_size: int | None = None,
    batchnorm: str = "eval",
    seed: int = 0,
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
        labels: class indices [images], when `images` is a tensor; needed by the empirical Fisher only.
        loss: cross_entropy, binary_cross_entropy or squared_error (see losses.py for each p and H).
        estimator: propagated (curvature propagation, one backward a draw; Martens, Sutskever, Swersky 2012),
            sampled (labels drawn from the model), exact (all outputs), or empirical (given labels).
        engine: auto (ghost; what has no closed form by batch or vmap), ghost, vmap, backpack or batch.
        draws: random vectors an image, for propagated and sampled.
        max_images: use the first so many images at most.
        rel_se: stop after at least 100 images once the total's relative standard error is at most this.
        batch_size: images in one pass, for tensors and ImageSets.
        batchnorm: eval (running statistics) or train (each batch as one joint model; batch engine only).
        seed: of the draws. The same seed gives the same draws for the same image positions.

    Raises:
        ValueError: an argument or the model does not fit; the message names it and the remedy.
        FloatingPointError: a trace is not finite; the message names the layers.
    """
    request = _Request(Estimator(estimator, find_loss(loss), draws), engine, batchnorm, seed)
    for name, value in (("max_images", max_images), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value!r}.")
    if rel_se is not None and not 0 < rel_se < 1:
        raise ValueError(f"rel_se must be between 0 and 1, for example 0.05; got {rel_se!r}.")
    model = getattr(model, "_orig_mod", model)  # a compiled model: hooks do not see inside, its module does
    measurement = _Measurement(model, request)
    with undisturbed(model, batchnorm=batchnorm):
        stream = partial(batches, images, labels, max_images=max_images, device=device_of(model))
        first, rest = peeked(stream(size=batch_size))
        measurement.prepare(first)
        length = known_length(images, max_images)
        if measurement.plan.joint and batch_size is None and length is not None and batchnorm == "eval":
            rest = stream(size=min(max(1, length // JOINT_BATCHES), 64))
        measurement.run(rest, rel_se)
    return measurement.result()


@dataclass(frozen=True)
class _Request:
    """What to measure and how, checked."""

    estimator: Estimator
    engine: str
    batchnorm: str
    seed: int

    def __post_init__(self) -> None:
        if self.batchnorm not in BATCHNORM_POLICIES:
            raise ValueError(f"batchnorm must be one of {', '.join(BATCHNORM_POLICIES)}; got {self.batchnorm!r}.")


@dataclass
class _Measurement:
    """The state of one call: plan, random numbers, values so far."""

    model: nn.Module
    request: _Request
    layers: tuple[Layer, ...] = ()
    found_joint: str | None = None
    entropy: list[Tensor] = field(default_factory=list)  # sums over a batch, left on the device
    rare: list[Tensor] = field(default_factory=list)
    plan: Plan = field(init=False)
    tally: Tally = field(init=False)
    generator: torch.Generator = field(init=False)

    def prepare(self, first: Batch) -> None:
        """Survey the model on a few images and choose the engines."""
        request, sample = self.request, first.head(SURVEYED_IMAGES)
        self.layers = trainable_layers(self.model)
        found = survey(self.model, sample.inputs, self.layers, request.estimator.loss.check)
        self.found_joint = found.joint
        plan = make_plan(
            self.layers,
            found,
            engine=request.engine,
            stochastic=request.estimator.stochastic,
            batchnorm=request.batchnorm,
        )
        if request.estimator.name == "empirical" and first.labels is None:
            raise ValueError("labels must be given for estimator='empirical'; got None.")
        self.generator = torch.Generator().manual_seed(request.seed)
        vectors = _BatchVectors(self, sample)
        self.plan = settle_vmap(plan, self.model, sample.inputs, vectors, asked=request.engine == "vmap")
        self.tally = Tally([layer.name for layer in self.layers], joint=self.plan.joint)
        self.generator.manual_seed(request.seed)
        self.entropy, self.rare = [], []

    def run(self, stream: Iterator[Batch], rel_se: float | None) -> None:
        """Measure batch after batch until the images end or the standard error is reached."""
        estimator = self.request.estimator
        for batch in stream:
            if estimator.name == "empirical" and batch.labels is None:
                raise ValueError("labels must be given with every batch for estimator='empirical'.")
            values = self.plan.measure(self.model, batch.inputs, _BatchVectors(self, batch))
            combined = {name: estimator.combine(value) for name, value in values.items()}
            self.tally.add(combined, len(batch))
            groups = len(self.tally.total.means) if self.plan.joint else self.tally.images
            enough = self.tally.images >= MIN_IMAGES_TO_STOP and groups >= MIN_GROUPS_TO_STOP
            if rel_se is not None and enough and self.tally.reached(rel_se, estimator.draws):
                return

    def result(self) -> FisherTrace:
        """The frozen result."""
        estimator, tally = self.request.estimator, self.tally
        tally.check_finite()
        summaries = [tally.columns[layer.name].summary(estimator.draws) for layer in self.layers]
        total = tally.total.summary(estimator.draws)
        parameter = next(iter(self.layers[0].parameters.values()))
        return FisherTrace(
            layers=tuple(layer.name for layer in self.layers),
            trace=np.array([s.mean for s in summaries]),
            stderr=np.array([s.stderr for s in summaries]),
            stderr_draws=np.array([s.stderr_draws for s in summaries]),
            skewness=np.array([s.skewness for s in summaries]),
            total=total.mean,
            total_stderr=total.stderr,
            total_stderr_draws=total.stderr_draws,
            total_skewness=total.skewness,
            images=tally.images,
            groups=total.groups,
            draws=estimator.draws,
            engines=self.plan.engines,
            parameters={layer.name: layer.size for layer in self.layers},
            coverage=1.0,
            frozen_parameters=frozen_parameters(self.model),
            estimator=estimator.name,
            loss=estimator.loss.name,
            batchnorm=self.request.batchnorm,
            dtype=str(parameter.dtype).removeprefix("torch."),
            device=str(parameter.device),
            seed=self.request.seed,
            entropy=sum(map(float, self.entropy)) / tally.images,
            notes=tuple(note for note in (*self._notes(), skewness_note(summaries, total)) if note),
        )

    def _notes(self) -> Iterator[str]:
        """What a reader must know before trusting the numbers."""
        estimator, groups = self.request.estimator, len(self.tally.total.means)
        rare = sum(map(float, self.rare)) * estimator.draws
        if estimator.name == "sampled" and rare < FEW_RARE_DRAWS:
            yield (
                f"only about {rare:.2g} of {self.tally.images * estimator.draws} drawn labels were expected to differ "
                "from the predicted class, and they carry the trace: the standard error is too small to be trusted. "
                "Use estimator='propagated'."
            )
        if self.plan.joint and groups < FEW_GROUPS:
            yield f"the batch engine's standard errors rest on {groups} batches; use smaller batches or more images."
        unused = [name for name, column in self.tally.columns.items() if not any(bool(m.any()) for m in column.means)]
        if unused:
            yield f"the outputs do not depend on {', '.join(unused)}: trace 0."
        if self.request.batchnorm == "train":
            yield "batchnorm='train': each batch is one joint model, so its size is part of the quantity."
        elif self.found_joint:
            yield f"{self.found_joint}: measured by batch, each batch as one joint model."
        if self.request.batchnorm == "eval" and _has_unset_statistics(self.model):
            yield (
                "BatchNorm statistics were never updated (mean 0, variance 1): train first, or pass some images "
                "through the model in training mode."
            )
        if frozen_parameters(self.model):
            yield f"{frozen_parameters(self.model):,} frozen parameters (requires_grad=False) are not measured."


def _has_unset_statistics(model: nn.Module) -> bool:
    counts = (getattr(module, "num_batches_tracked", None) for module in model.modules())
    return any(count is not None and int(count) == 0 for count in counts)


class _BatchVectors:
    """The vectors of one batch as a function of the outputs: the same for every engine that asks."""

    def __init__(self, measurement: _Measurement, batch: Batch) -> None:
        self.measurement, self.batch, self.seen = measurement, batch, False
        self.noise: Tensor | None = None

    def __call__(self, outputs: Tensor) -> Vectors:
        estimator = self.measurement.request.estimator
        if not self.seen:
            self.seen = True
            z = outputs.detach().double().flatten(1)
            self.noise = estimator.noise(self.measurement.generator, len(z), z.shape[1])
            self.measurement.entropy.append(estimator.loss.entropy(z).sum())
            self.measurement.rare.append(estimator.loss.rare_draws(z).sum())
        return estimator.vectors_given(outputs, self.noise, self.batch.labels)
