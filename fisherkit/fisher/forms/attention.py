"""nn.MultiheadAttention: its projections, which are not modules that are called.

The attention multiplies query, key and value by the rows of one matrix, in_proj_weight [3 E, E], and what comes out
of its heads by out_proj, all through torch.nn.functional. While it is measured, torch's own code runs with another
meaning of the name `linear`, which shows these maps; their inputs and output gradients are all that the form of a
Linear needs. Nothing is computed otherwise: masks, attention weights, causal hints and heads are torch's.

Query, key and value that are one tensor are projected at once. Otherwise each part of them meets its own rows of
the weight: one Linear over the positions of all parts, with output gradients that are zero outside a part's rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Layer
from .affine import over_positions, over_positions_blocks
from .form import Form, SquaredNorms


def in_projection(layer: Layer, a: Tensor) -> SquaredNorms:
    """A Linear over positions: a [images, positions, E], g [images, positions, 3 E]."""
    return over_positions(a, weight="in_proj_weight" in layer.parameters, bias="in_proj_bias" in layer.parameters)


def in_projection_blocks(layer: Layer, a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """W [images, 3 E, E], by rows where it is large; b [images, 3 E]."""
    has = {"weight": "in_proj_weight" in layer.parameters, "bias": "in_proj_bias" in layer.parameters}
    return over_positions_blocks(a, g, **has)


IN_PROJECTION = Form(in_projection, in_projection_blocks, parameters=("in_proj_weight", "in_proj_bias"))


@runtime_checkable
class Tap(Protocol):
    """Takes the input of one layer's linear map and the gradient of its output, images first."""

    layer: Layer

    def enter(self, a: Tensor) -> None:
        """The input, once in a forward pass."""

    def receive(self, g: Tensor) -> None:
        """The output gradient, once in a backward pass."""


Attach = Callable[[Layer, Tensor, Callable[[Tensor], None]], Tensor]  # layer, output, receive -> output to go on with


@contextmanager
def tapped(attention: nn.MultiheadAttention, taps: Mapping[nn.Module, Tap], attach: Attach) -> Iterator[None]:
    """Show `taps`, by the module that owns the parameters, the projections of every call of the attention."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = [args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key", "value"))]
        by_image = given if attention.batch_first else [x.transpose(0, 1) for x in given]
        projections = _Projections(attention, taps, attach, len(by_image[0]))
        returned = _with_linear(projections.linear)(attention, *args, **kwargs)
        projections.close(by_image, returned[0] if attention.batch_first else returned[0].transpose(0, 1))
        return returned

    attention.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del attention.forward


def _with_linear(linear: Callable[..., Tensor]) -> Callable[..., Any]:
    """torch's forward of the attention, in which `linear` is the one given."""
    packed = _rebound(vars(F)["_in_projection_packed"], linear=linear)
    heads = _rebound(F.multi_head_attention_forward, linear=linear, _in_projection_packed=packed)
    functional = SimpleNamespace(**{**vars(F), "multi_head_attention_forward": heads})
    return _rebound(nn.MultiheadAttention.forward, F=functional)


def _rebound(function: Any, **names: Any) -> Callable[..., Any]:
    """The same code with other meanings of some global names."""
    code, given = function.__code__, {**function.__globals__, **names}
    clone = FunctionType(code, given, function.__name__, function.__defaults__, function.__closure__)
    clone.__kwdefaults__ = function.__kwdefaults__
    return clone


class _Projections:
    """The linear maps of one call: [positions, images, E], and [positions * images, E] after the heads."""

    def __init__(
        self, attention: nn.MultiheadAttention, taps: Mapping[nn.Module, Tap], attach: Attach, images: int
    ) -> None:
        self.attention, self.attach, self.images = attention, attach, images
        self.into, self.out = taps.get(attention), taps.get(attention.out_proj)
        self.inputs: list[Tensor] = []  # of the parts, [images, positions, E]
        self.rows: list[slice] = []  # of in_proj_weight, that the parts are multiplied by
        self.gradients: dict[int, Tensor] = {}
        self.output: Tensor | None = None

    def linear(self, a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """F.linear, shown to the taps."""
        return self._seen(a, weight, F.linear(a, weight, bias))

    def _seen(self, a: Tensor, weight: Tensor, output: Tensor) -> Tensor:
        if weight is self.attention.out_proj.weight and self.out is not None:
            tap = self.out
            tap.enter(self._by_image(a))
            self.output = self.attach(tap.layer, output, lambda g: tap.receive(self._by_image(g)))
            return self.output
        rows = _rows(weight, self.attention.in_proj_weight)
        if rows is not None and self.into is not None:
            part = len(self.rows)
            self.rows.append(rows)
            self.inputs.append(self._by_image(a))
            return self.attach(self.into.layer, output, lambda g: self._arrived(part, self._by_image(g)))
        return output

    def _by_image(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.images, x.shape[-1]).transpose(0, 1)

    def _arrived(self, part: int, g: Tensor) -> None:
        """The gradient of one part's projection; the last one completes the layer's."""
        self.gradients[part] = g
        if len(self.gradients) == len(self.rows):
            assert self.into is not None
            parts = [self.gradients.pop(index) for index in range(len(self.rows))]
            self.into.receive(_joined(parts, self.rows))

    def close(self, given: Sequence[Tensor], returned: Tensor) -> None:
        """After the forward: the input of all parts; and whether this torch lays out its tensors as is assumed here."""
        if self.into is not None:
            whole = sum(rows.stop - rows.start for rows in self.rows) == 3 * self.attention.embed_dim
            known = whole and all(any(_same(a, x) for x in given) for a in self.inputs)
        else:
            known = True
        if self.out is not None:
            known = known and self.output is not None and _same(self._by_image(self.output), returned)
        if not known:
            raise ValueError(
                f"nn.MultiheadAttention of torch {torch.__version__} makes its projections in a way that is not known "
                "here; use engine='batch' or 'vmap'."
            )
        self.output = None
        if self.into is not None:
            self.into.enter(self.inputs[0] if len(self.inputs) == 1 else torch.cat(self.inputs, 1))


def _rows(weight: Tensor, whole: Tensor | None) -> slice | None:
    """Which rows of a matrix a view of it holds, or None."""
    if whole is None or weight.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        return None
    start = (weight.storage_offset() - whole.storage_offset()) // whole.stride(0)
    rows = slice(start, start + len(weight))
    return rows if rows.start >= 0 and rows.stop <= len(whole) else None


def _joined(parts: Sequence[Tensor], rows: Sequence[slice]) -> Tensor:
    """Output gradients [images, all positions, 3 E] of parts [images, positions, rows], zero outside their rows."""
    if len(parts) == 1:
        return parts[0]
    images, positions = len(parts[0]), sum(part.shape[1] for part in parts)
    whole, start = parts[0].new_zeros(images, positions, max(rows.stop for rows in rows)), 0
    for part, own in zip(parts, rows, strict=True):
        whole[:, start : start + part.shape[1], own] = part
        start += part.shape[1]
    return whole


def _same(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors are views of the same numbers in the same order."""
    strides = [(s, t) for s, t, size in zip(x.stride(), y.stride(), x.shape, strict=True) if size > 1]
    return x.shape == y.shape and x.data_ptr() == y.data_ptr() and all(s == t for s, t in strides)
