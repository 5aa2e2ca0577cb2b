"""Squared norms of convolutions' per-image weight gradients by the library's own weight gradient, images as groups."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from .form import squares

# Numbers in the gradients of one call. A call for each image costs up to 3.5 times as much where weights are small, and
# much larger gradients leave the cache: 2.5 times at 192 x 192 x 9 (one core; benchmarks/convolution_forms.py).
AT_ONCE = 2**18


def weight_gradient_squares(
    module: _ConvNd, a: Tensor, g: Tensor, *, padding: Sequence[int], output_padding: Sequence[int] | None = None
) -> Tensor:
    """||grad W||^2 [images] of a convolution; of a transposed one where `output_padding` is given.

    A convolution whose channels are those of n images, in n times as many groups, has the n images' gradients.
    """
    step = max(1, AT_ONCE // module.weight.numel())
    none = [0] * len(module.kernel_size)
    total = []
    for some_a, some_g in zip(a.split(step), g.split(step), strict=True):
        images = len(some_a)
        settings = (module.stride, padding, module.dilation, output_padding is not None, output_padding or none)
        shape = (images * module.weight.shape[0], *module.weight.shape[1:])
        gradient = torch.ops.aten.convolution_backward(
            _side_by_side(some_g),
            _side_by_side(some_a),
            a.new_empty(shape),  # of which only the shape is used
            None,
            *settings,
            images * module.groups,
            [False, True, False],
        )[1]
        total.append(squares(gradient.unflatten(0, (images, -1))))
    return torch.cat(total)


def _side_by_side(x: Tensor) -> Tensor:
    """[images, channels, *sizes] -> [1, images * channels, *sizes]."""
    return x if len(x) == 1 else x.reshape(1, -1, *x.shape[2:])
