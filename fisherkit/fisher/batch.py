"""The batch engine: one ordinary backward pass, one value for each batch and layer, for every architecture.

For independent v_i with mean zero given x_i,  E || sum_i J_i^T v_i ||^2 = sum_i E || J_i^T v_i ||^2,  because the
cross terms vanish; divided by the number of images this is an unbiased value of the mean trace. It is invalid
for data labels, whose scores do not have mean zero, and for the columns of a square root.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .ghost import joint_squares
from .inputs import Inputs, call, first_tensor
from .layers import Layer
from .vectors import Vectors


def batch(
    model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], layers: Sequence[Layer]
) -> dict[str, Tensor]:
    """|| sum over the batch of J_l^T v ||^2 / images, float64 [vectors, 1] for each layer."""
    parameters = [p for layer in layers for p in layer.parameters.values()]
    outputs = call(model, inputs)
    given = vectors(outputs)
    rows = []
    for k, v in enumerate(given):
        last = k + 1 == len(given)
        grads = torch.autograd.grad(outputs, parameters, v, retain_graph=not last, allow_unused=True)
        rows.append(joint_squares(layers, grads, len(first_tensor(inputs))))
    return {layer.name: torch.stack([row[layer.name] for row in rows]) for layer in layers}
