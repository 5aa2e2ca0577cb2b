"""A measurement changes nothing: what it switches, it switches back, bit for bit."""

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .layers import ROOT

BATCHNORM_POLICIES = ("eval", "train")
PRECISIONS = ("full", "tf32", "bf16")


@contextmanager
def undisturbed(model: nn.Module, *, batchnorm: str = "eval", precision: str = "full") -> Iterator[None]:
    """Evaluation mode, gradients on, autocast and TF32 off, the global random numbers set aside; then all as before.

    `precision="tf32"` and `"bf16"` put TF32 and autocast to bfloat16 on instead, whatever the caller has.

    `batchnorm="train"` puts BatchNorm modules, and only them, into training mode. Code runs as written: nothing
    compiled (hooks are not seen inside), no fast path of nn.Transformer (it skips modules), no hooks on parameters
    and no backward hooks on modules (they change what training does with a gradient, not the Fisher information).
    Train/eval flags, `requires_grad`, buffers, tensors that modules keep as attributes and the states of the random
    number generators are restored on leaving, also after an error. `.grad` is never touched: engines use
    `torch.autograd.grad`.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [_Buffer(module, name) for module in model.modules() for name in module._buffers]
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in {"cpu", device_of(model).type}:
                stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"))
            stack.enter_context(_single_precision(tf32=precision == "tf32"))
            stack.enter_context(_random_states(device_of(model)))
            stack.enter_context(_as_written())
            stack.enter_context(_without_gradient_hooks(model))
            for module, _ in modes:
                module.training = batchnorm == "train" and isinstance(module, _BatchNorm)
            stack.enter_context(_differentiable_in_evaluation(model))
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
        for buffer in buffers:
            buffer.restore(written=batchnorm == "train")
        for module, before in attributes:
            _restore_tensors(module, before)


def _restore_tensors(module: nn.Module, before: dict[str, Any]) -> None:
    """Plain attributes that became another tensor in a forward: caches, weights made by a hook (old weight_norm)."""
    for name, value in list(vars(module).items()):
        if isinstance(value, Tensor) and value is not before.get(name):
            if name in before:
                vars(module)[name] = before[name]
            else:
                del vars(module)[name]


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
def _as_written() -> Iterator[None]:
    """Eager code: torch.compile'd submodules and functions run as they are, nn.Transformer without its fast path."""
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        with ExitStack() as stack:
            torch.backends.mha.set_fastpath_enabled(False)
            if "torch._dynamo" in sys.modules:  # otherwise nothing is compiled, and the import takes a second
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def hooked_parameters(model: nn.Module) -> list[str]:
    """The parameters with a hook on their gradient (`register_hook`)."""
    return [name for name, parameter in model.named_parameters() if parameter._backward_hooks]


def hooked_modules(model: nn.Module) -> list[str]:
    """The modules with a hook in the backward pass (`register_full_backward_hook` and the like)."""
    hooked = ((name, module._backward_hooks or module._backward_pre_hooks) for name, module in model.named_modules())
    return [name or ROOT for name, hooks in hooked if hooks]


@contextmanager
def _without_gradient_hooks(model: nn.Module) -> Iterator[None]:
    hooked = [(p, p._backward_hooks) for p in model.parameters() if p._backward_hooks]
    modules = [(module, module._backward_hooks, module._backward_pre_hooks) for module in model.modules()]
    everywhere = torch.nn.modules.module
    of_all = everywhere._global_backward_hooks, everywhere._global_backward_pre_hooks
    try:
        everywhere._global_backward_hooks, everywhere._global_backward_pre_hooks = OrderedDict(), OrderedDict()
        for parameter, _ in hooked:
            parameter._backward_hooks = None
        for module, *_ in modules:
            module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        yield
    finally:
        for parameter, hooks in hooked:
            parameter._backward_hooks = hooks
        for module, after, before in modules:
            module._backward_hooks, module._backward_pre_hooks = after, before
        everywhere._global_backward_hooks, everywhere._global_backward_pre_hooks = of_all


@contextmanager
def _differentiable_in_evaluation(model: nn.Module) -> Iterator[None]:
    """Modules whose backward pass needs more than evaluation mode.

    cuDNN differentiates recurrent layers in training mode only: they get it, with their dropout at 0. A
    DistributedDataParallel submodule must not take part in communication, nor wait for gradients to all arrive.
    """
    recurrent = [(module, module.dropout) for module in model.modules() if isinstance(module, nn.RNNBase)]
    parallel = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    synced = [(module, module.require_backward_grad_sync, module.require_forward_param_sync) for module in parallel]
    try:
        for module, _ in recurrent:
            module.training, module.dropout = True, 0.0
        for replica in parallel:
            replica.require_backward_grad_sync = replica.require_forward_param_sync = False
        yield
    finally:
        for module, dropout in recurrent:
            module.dropout = dropout
        for replica, backward, forward in synced:
            replica.require_backward_grad_sync, replica.require_forward_param_sync = backward, forward


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
def _single_precision(*, tf32: bool) -> Iterator[None]:
    """TF32, or bfloat16 inside products on a CPU, would change norms by 1e-3 without a word: only where asked for.

    Switched by torch's older names, which set the newer ones too; put back by both, to the letter: the older know
    fewer settings, and refuse to be read after the newer were used.
    """
    each = [(backend, backend.fp32_precision) for backend in _rounding_backends()]
    products, cudnn = _readable(torch.get_float32_matmul_precision), _readable(lambda: torch.backends.cudnn.allow_tf32)
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        for backend in _rounding_backends():
            # what the older names leave open comes from torch.backends.fp32_precision
            if not tf32:
                backend.fp32_precision = "ieee"
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for backend, precision in each:
            backend.fp32_precision = precision


def _rounding_backends() -> list[Any]:
    on_gpu = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]
    return [*on_gpu, *(getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn"))]


def _readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # set by the newer names
        return None
