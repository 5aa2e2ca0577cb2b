"""A measurement changes nothing: what it switches, it switches back, bit for bit."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCHNORM_POLICIES = ("eval", "train")


@contextmanager
def undisturbed(model: nn.Module, *, batchnorm: str = "eval") -> Iterator[None]:
    """Evaluation mode, gradients on, autocast and TF32 off, the global random numbers set aside; then all as before.

    `batchnorm="train"` puts BatchNorm modules, and only them, into training mode. Train/eval flags,
    `requires_grad`, buffers and the states of the random number generators are restored on leaving, also after
    an error. `.grad` is never touched: engines use `torch.autograd.grad`.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [_Buffer(module, name) for module in model.modules() for name in module._buffers]
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in {"cpu", device_of(model).type}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(_full_precision(device_of(model)))
            stack.enter_context(_random_states(device_of(model)))
            for module, _ in modes:
                module.training = batchnorm == "train" and isinstance(module, _BatchNorm)
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
        for buffer in buffers:
            buffer.restore(written=batchnorm == "train")


class _Buffer:
    """One buffer and its values, to be put back whether it was written into or replaced."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.tensor = module._buffers[name]
        self.version = None if self.tensor is None else self.tensor._version
        self.values = None if self.tensor is None else self.tensor.detach().clone()

    def restore(self, *, written: bool) -> None:
        """Put the tensor back, and its values if they were written into.

        BatchNorm updates its statistics without counting a version: `written` says so. Otherwise values are left
        alone, since a copy would count as a change to a graph that the caller has not yet gone back through.
        """
        self.module._buffers[self.name] = self.tensor
        if self.tensor is None or self.values is None:
            return
        if written or self.tensor._version != self.version:
            with torch.no_grad():
                self.tensor.copy_(self.values)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def _random_states(device: torch.device) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """TF32 would change norms by 1e-3 without a word; it has no effect on the CPU."""
    if device.type != "cuda":
        yield
        return
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
