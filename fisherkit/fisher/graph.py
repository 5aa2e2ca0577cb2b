"""The autograd graph of some outputs: where parameters enter it, where else it begins, what it keeps."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

RESHAPING = frozenset(
    f"{name}Backward0" for name in ("T", "Transpose", "Permute", "View", "UnsafeView", "ToCopy", "Expand", "Alias")
)


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes behind some outputs."""

    parents: dict[Any, list[Any]]  # node -> the nodes that use what it stands for, once for each use
    nodes: frozenset[Any]
    leaves: dict[int, Any]  # id of a tensor that requires a gradient -> its node
    foreign: bool  # whether some leaf is not a parameter of the model
    unregistered: int  # number of values in foreign leaves that are nn.Parameter

    def uses(self, leaf: Tensor) -> int:
        """How often it enters the graph.

        Several operations may share one node that only reshapes or casts a weight (the transpose of a Linear
        that a gradient inside the forward uses again; autocast's cache): each edge into such a node is a use.
        """
        node = self.leaves.get(id(leaf))
        return 0 if node is None else self._uses(node)

    def _uses(self, node: Any) -> int:
        parents = self.parents.get(node)
        if parents is None:  # the outputs themselves
            return 1
        return sum(self._uses(parent) if parent.name() in RESHAPING else 1 for parent in parents)

    def has(self, kind: str) -> bool:
        """Whether some node's name contains `kind`."""
        return any(kind in node.name() for node in self.nodes)


def read_graph(outputs: Tensor, parameters: Iterable[nn.Parameter]) -> Graph:
    """Walk from the outputs to the leaves."""
    parents: dict[Any, list[Any]] = {}
    nodes, stack = set(), [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for child, _ in node.next_functions:
            if child is not None:
                parents.setdefault(child, []).append(node)
                stack.append(child)
    variables = ((node, getattr(node, "variable", None)) for node in nodes)  # AccumulateGrad nodes hold a leaf
    leaves = {id(variable): (node, variable) for node, variable in variables if variable is not None}
    known = set(map(id, parameters))
    foreign = [variable for key, (_, variable) in leaves.items() if key not in known]
    return Graph(
        parents,
        frozenset(nodes),
        {key: node for key, (node, _) in leaves.items()},
        bool(foreign),
        sum(variable.numel() for variable in foreign if isinstance(variable, nn.Parameter)),
    )


class Kept:
    """Bytes in distinct tensors that a graph keeps, without those that are there anyway."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        self._known = {_address(tensor) for tensor in known}
        self._found: dict[int, int] = {}

    def see(self, tensor: Tensor) -> Tensor:
        """One tensor that is kept."""
        address = _address(tensor)
        if address is not None and address not in self._known:
            self._found[address] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # a node that keeps its own output would hold itself, for ever

    @property
    def bytes(self) -> int:
        """Of all tensors seen."""
        return sum(self._found.values())


def _address(tensor: Tensor) -> int | None:
    plain = tensor.layout is torch.strided and not tensor.is_nested
    return tensor.untyped_storage().data_ptr() if plain else None


@contextmanager
def kept_by_graph(known: Sequence[Tensor]) -> Iterator[Kept]:
    """What the graph that is made here keeps, beside `known` tensors. Nothing of torch.func runs under it."""
    kept = Kept(known)
    with torch.autograd.graph.saved_tensors_hooks(kept.see, lambda tensor: tensor):
        yield kept
