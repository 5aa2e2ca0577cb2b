"""The batch engine: one ordinary backward pass, one value for each batch and layer, for every architecture.

For independent v_i with mean zero given x_i,  E || sum_i J_i^T v_i ||^2 = sum_i E || J_i^T v_i ||^2,  because the
cross terms vanish; divided by the number of images this is an unbiased value of the mean trace. It is invalid
for data labels, whose scores do not have mean zero, and for the columns of a square root.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .inputs import Inputs, call, first_tensor
from .layers import Layer, real
from .vectors import Vectors, backward_passes


def batch(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layers: Sequence[Layer]
) -> dict[str, Tensor]:
    """|| sum over the batch of J_l^T v ||^2 / images, float64 [vectors, 1] for each layer."""
    parameters = [p for layer in layers for p in layer.parameters.values()]
    outputs, images = call(model, inputs), len(first_tensor(inputs))
    rows = [joint_squares(layers, grads, images) for grads in backward_passes(outputs, parameters, vectors(outputs))]
    return {layer.name: torch.stack([row[layer.name] for row in rows]) for layer in layers}


def joint_squares(layers: Sequence[Layer], grads: Sequence[Tensor | None], images: int) -> dict[str, Tensor]:
    """|| sum over the batch of J_l^T v ||^2 / images, float64 [1], from the gradients of an ordinary backward."""
    values, left = {}, iter(grads)
    for layer in layers:
        total = torch.zeros(1, dtype=torch.float64, device=next(iter(layer.parameters.values())).device)
        for _ in layer.parameters:
            grad = next(left)
            if grad is not None:
                dense = grad.coalesce().values() if grad.is_sparse else grad
                total = total + real(dense).double().square().sum()
        values[layer.name] = total / images
    return values
