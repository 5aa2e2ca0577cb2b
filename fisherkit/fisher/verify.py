"""Compare what fisherkit measures with brute force, layer by layer, on the user's own model."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .estimate import fisher_trace
from .inputs import Inputs, batches, call, first_tensor, sliced
from .layers import Layer, real, trainable_layers, unwrapped
from .losses import LOSSES, BinaryCrossEntropy, CrossEntropy, SquaredError, find_loss
from .noise import ImageNoise
from .undisturbed import undisturbed
from .vectors import Estimator

TOLERANCE = 1e-8  # relative; float64 engines agree to about 1e-12


@dataclass(frozen=True)
class Row:
    """One layer measured by one engine."""

    layer: str
    parameters: int
    engine: str
    value: float
    reference: float

    @property
    def difference(self) -> float:
        """Relative difference from brute force; absolute where the reference is zero."""
        return abs(self.value - self.reference) / (abs(self.reference) or 1.0)

    @property
    def agrees(self) -> bool:
        """Whether the difference is within `TOLERANCE`."""
        return self.difference <= TOLERANCE


@dataclass(frozen=True)
class Verification:
    """Every layer's value beside its brute-force reference; prints as a table."""

    rows: tuple[Row, ...]
    images: int

    @property
    def passed(self) -> bool:
        """Whether every layer agrees."""
        return all(row.agrees for row in self.rows)

    def __str__(self) -> str:
        width = max(5, *(len(row.layer) for row in self.rows))
        head = f"{'layer':{width}}  {'parameters':>10}  {'engine':8}  {'measured':>14}  {'brute force':>14}  difference"
        lines = [
            f"{row.layer:{width}}  {row.parameters:10,}  {row.engine:8}  {row.value:14.8g}  {row.reference:14.8g}  "
            f"{row.difference:10.1e}{'' if row.agrees else '  WRONG'}"
            for row in self.rows
        ]
        wrong = [row.layer for row in self.rows if not row.agrees]
        verdict = f"WRONG: {', '.join(wrong)}" if wrong else f"all {len(self.rows)} rows agree to {TOLERANCE:g}"
        return "\n".join([head, *lines, f"{verdict} (float64, {self.images} images, one at a time)"])


def verify(
    model: nn.Module, images: Any, *, loss: Any = "cross_entropy", engine: str = "auto", max_images: int = 8
) -> Verification:
    """Measure a float64 copy of the model on the CPU and compare each layer with a loop of one image.

    The reference is the definition, E_y || d log p(y|x) / d theta_l ||^2 with every outcome y enumerated. Layers
    that `auto` gives to the batch engine are also compared, for the same vectors, with
    || sum_i J_i^T v_i ||^2 / images. The model itself is not touched.

    Raises:
        ValueError: `loss` is not one of the named ones, whose outcomes can be enumerated.
    """
    given = find_loss(loss)
    if not isinstance(given, CrossEntropy | BinaryCrossEntropy | SquaredError):
        raise ValueError(
            f"loss must be one of {', '.join(named.name for named in LOSSES)} for verify, which enumerates outcomes; "
            f"got {given.name}. Layers do not depend on the loss: loss='squared_error' fits any outputs."
        )
    private = _in_double(unwrapped(model))
    stream = batches(images, None, size=max_images, max_images=max_images, device=torch.device("cpu"))
    inputs = doubled(next(stream).inputs)
    layers = trainable_layers(private)
    exact = fisher_trace(private, _as_images(inputs), loss=loss, estimator="exact", engine=_exact_engine(engine))
    drawn = fisher_trace(private, _as_images(inputs), loss=loss, engine=engine, batch_size=max_images)
    with undisturbed(private):
        truth = brute_force(private, inputs, layers, loss=given.name)
        joint = joint_reference(private, inputs, layers, loss=loss, seed=drawn.seed)
    rows = [
        Row(layer.name, layer.size, exact.engines[layer.name], exact[layer.name], truth[layer.name]) for layer in layers
    ] + [
        Row(layer.name, layer.size, "batch", drawn[layer.name], joint[layer.name])
        for layer in layers
        if drawn.engines[layer.name] == "batch"
    ]
    return Verification(tuple(rows), len(first_tensor(inputs)))


def _in_double(model: nn.Module) -> nn.Module:
    """A copy on the CPU; weights that a hook makes from parameters, which deepcopy refuses, are made anew in it."""
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    private = copy.deepcopy(model, {id(value): value.detach().clone() for value in kept if not value.is_leaf})
    private._apply(lambda x: x.to(torch.complex128) if x.is_complex() else x)
    return private.double().cpu()


def brute_force(model: nn.Module, inputs: Inputs, layers: tuple[Layer, ...], *, loss: str) -> dict[str, float]:
    """E_x E_y || d log p(y|x) / d theta_l ||^2, one image and one outcome at a time."""
    total = dict.fromkeys((layer.name for layer in layers), 0.0)
    images = len(first_tensor(inputs))
    for i in range(images):
        z = call(model, sliced(inputs, i, i + 1))[0]
        for weight, log_p in _outcomes(z, loss):
            for name, norm in _squared_gradients(log_p, layers).items():
                total[name] += weight * norm / images
    return total


def joint_reference(
    model: nn.Module, inputs: Inputs, layers: tuple[Layer, ...], *, loss: Any, seed: int
) -> dict[str, float]:
    """|| sum_i J_i^T v_i ||^2 / images for the propagated vectors of this seed."""
    outputs = call(model, inputs)
    likelihood = find_loss(loss).likelihood(outputs.detach(), None)
    images = len(outputs)
    uniforms = ImageNoise(seed).uniforms(0, (images, likelihood.noise))
    v = Estimator("propagated").vectors(likelihood, lambda _: uniforms, outputs)[0]
    return {name: norm / images for name, norm in _squared_gradients((outputs * v).sum(), layers).items()}


def _outcomes(z: Tensor, loss: str) -> Iterator[tuple[float, Tensor]]:
    """(probability, log p) of every outcome for one image's outputs z, one independent part y_t of y at a time.

    log p(y) = sum_t log p(y_t), and the scores g_t of the parts are independent with mean zero, so that
    E || sum_t g_t ||^2 = sum_t E || g_t ||^2.
    """
    if "token" in loss:  # [*positions, classes]; the last position predicts no next token
        positions = z[:-1] if loss == "next_token_cross_entropy" else z
        yield from _classes(positions.reshape(-1, z.shape[-1]))
    elif loss in ("cross_entropy", "pixel_cross_entropy"):  # [classes, *positions]
        yield from _classes(z.reshape(len(z), -1).T)
    elif loss == "binary_cross_entropy":
        for one in z.reshape(-1):
            for log_p in (torch.nn.functional.logsigmoid(one), torch.nn.functional.logsigmoid(-one)):
                yield float(log_p.detach().exp()), log_p
    else:
        assert loss == "squared_error"
        for one in z.reshape(-1):  # y = z +- 1 with equal weight has the Gaussian's mean and variance
            for y in (one.detach() - 1, one.detach() + 1):
                yield 0.5, -0.5 * (one - y).square()


def _classes(rows: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(probability, log p) of every class at every position [positions, classes]."""
    for logits in rows:
        for log_p in torch.log_softmax(logits, 0):
            yield float(log_p.detach().exp()), log_p


def _squared_gradients(scalar: Tensor, layers: tuple[Layer, ...]) -> dict[str, float]:
    parameters = [p for layer in layers for p in layer.parameters.values()]
    grads = iter(torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True))
    return {
        layer.name: sum(
            float(real(grad.to_dense()).square().sum())
            for grad in [next(grads) for _ in layer.parameters]
            if grad is not None
        )
        for layer in layers
    }


def doubled(inputs: Inputs) -> Inputs:
    """Floating-point inputs in float64; token indices as they are."""
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def _as_images(inputs: Inputs) -> Any:
    return inputs if isinstance(inputs, Tensor) else [inputs]


def _exact_engine(engine: str) -> str:
    return "auto" if engine == "batch" else engine
