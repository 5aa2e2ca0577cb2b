"""Engines that build each image's gradient: vmap (torch.func, chunked) and loop (one image at a time)."""

import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from .batch import batch
from .inputs import Inputs, call, first_tensor, sliced
from .layers import Layer, real
from .vectors import Vectors, backward_passes

CHUNK_BYTES = 256 * 2**20  # of per-image gradients held at once


def vmapped(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layers: Sequence[Layer]
) -> dict[str, Tensor]:
    """Squared norms || J_l^T v ||^2, float64 [vectors, images], by vmap over images of the vector-Jacobian product.

    The gradients of one chunk of images are squared and summed inside the mapped function. Only the parameters
    of `layers` are differentiated; tied parameters stay tied.
    """

    def norms(grads: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            layer.name: torch.stack(
                [real(grads[layer.qualified(n)]).double().square().sum() for n in layer.parameters]
            ).sum()
            for layer in layers
        }

    rows = _mapped(model, inputs, vectors, layers, norms)
    return {layer.name: torch.stack([row[layer.name] for row in rows]) for layer in layers}


def _mapped(
    model: nn.Module,
    inputs: Inputs,
    vectors: Callable[[Tensor], Vectors],
    layers: Sequence[Layer],
    reduce: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """For each vector, `reduce` of one image's gradients (by qualified name), stacked over the images."""
    parameters = {layer.qualified(name): p.detach() for layer in layers for name, p in layer.parameters.items()}
    given = vectors(outputs_alone(model, inputs))

    def reduced(one: Inputs, v: Tensor) -> dict[str, Tensor]:
        """One image without its batch dimension, one vector for its outputs."""
        single = _batch_of_one(one)

        def outputs_of(values: dict[str, Tensor]) -> Tensor:
            returned = functional_call(model, values, *_arguments(single))
            outputs: Tensor = getattr(returned, "logits", returned)
            return outputs.squeeze(0)

        pullback = vjp(outputs_of, parameters)[1]
        (grads,) = pullback(v)
        return reduce(grads)

    mapped = vmap(reduced, chunk_size=chunk_size(parameters))
    # no_grad: else the parameters that are not mapped over record a second graph, which every row would keep alive
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # a rule torch.func lacks
        rows = [mapped(inputs, v) for v in given]
    return rows


def mapped_gradients(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layer: Layer
) -> Float[Tensor, "images vectors numbers"]:
    """The gradients J_l^T v themselves, of one layer, by vmap."""

    def flat(grads: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"": torch.cat([real(grads[layer.qualified(n)]).flatten() for n in layer.parameters])}

    return torch.stack([row[""] for row in _mapped(model, inputs, vectors, [layer], flat)], 1)


def outputs_alone(model: nn.Module, inputs: Inputs) -> Tensor:
    """The outputs alone, without a graph unless the model needs one to ask for gradients in its forward."""
    try:
        with torch.no_grad():
            return call(model, inputs)
    except RuntimeError:
        return call(model, inputs).detach()


def chunk_size(parameters: dict[str, Tensor]) -> int:
    """How many images' gradients fit into `CHUNK_BYTES`, at least one."""
    return max(1, CHUNK_BYTES // max(1, sum(p.numel() * p.element_size() for p in parameters.values())))


def _batch_of_one(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.unsqueeze(0)
    return {name: value.unsqueeze(0) for name, value in inputs.items()}


def _arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    return ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})


def looped(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layers: Sequence[Layer]
) -> dict[str, Tensor]:
    """The same as `vmapped` by one ordinary backward pass for each image and vector: slow, right for any model."""
    given = vectors(outputs_alone(model, inputs))

    def alone(i: int) -> dict[str, Tensor]:
        """The batch engine on a batch of one: || J^T v ||^2 itself."""
        own = Vectors(len(given), lambda k: given[k][i : i + 1])
        return batch(model, sliced(inputs, i, i + 1), lambda _: own, layers)

    parts = [alone(i) for i in range(len(first_tensor(inputs)))]
    return {layer.name: torch.cat([part[layer.name] for part in parts], 1) for layer in layers}


def looped_gradients(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layer: Layer
) -> Float[Tensor, "images vectors numbers"]:
    """The same as `mapped_gradients` by one ordinary backward pass for each image and vector."""
    given = vectors(outputs_alone(model, inputs))
    parameters = list(layer.parameters.values())

    def alone(i: int) -> Tensor:
        outputs = call(model, sliced(inputs, i, i + 1))
        own = Vectors(len(given), lambda k: given[k][i : i + 1])
        return torch.stack([_flat(grads, parameters) for grads in backward_passes(outputs, parameters, own)])

    return torch.stack([alone(i) for i in range(len(first_tensor(inputs)))])


def _flat(grads: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    """One row of numbers; zeros for parameters that the outputs do not depend on."""
    dense = [torch.zeros_like(p) if g is None else g.to_dense() for g, p in zip(grads, parameters, strict=True)]
    return torch.cat([real(g.detach()).flatten() for g in dense])
