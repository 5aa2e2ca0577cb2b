"""The same bits again: settings for deterministic training, and the numerics on which the bits depend."""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_memory: Any = torch.utils.deterministic  # a module whose properties type checkers do not see
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(threads: int | None = None) -> Iterator[None]:
    """Deterministic algorithms, no cuDNN benchmark, and this number of threads, while the context lasts.

    Without it training on two threads of a CPU does not repeat to the bit. cuBLAS reads its setting when it
    is first used: enter the context before the first computation on a GPU. An operation that has no
    deterministic form raises a RuntimeError that names it.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be a whole number >= 1; got {threads!r}.")
    saved = _settings()
    torch.use_deterministic_algorithms(True)
    # filling every new tensor with NaN finds uses of memory nobody wrote: no part of repeatability, and slow
    _memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    os.environ.setdefault(_CUBLAS, ":4096:8")
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        _put_back(saved)


def _settings() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": _memory.fill_uninitialized_memory,
        "benchmark": torch.backends.cudnn.benchmark,
        "cublas": os.environ.get(_CUBLAS),
        "threads": torch.get_num_threads(),
    }


def _put_back(saved: Mapping[str, Any]) -> None:
    torch.use_deterministic_algorithms(saved["deterministic"], warn_only=saved["warn_only"])
    _memory.fill_uninitialized_memory = saved["fill"]
    torch.backends.cudnn.benchmark = saved["benchmark"]
    torch.set_num_threads(saved["threads"])
    if saved["cublas"] is None:
        os.environ.pop(_CUBLAS, None)
    else:
        os.environ[_CUBLAS] = saved["cublas"]


def numerics(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What the bits of a training depend on besides the options; JSON-able, to be recorded and compared at resume."""
    device = torch.device(device)
    found: dict[str, Any] = {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instruction_set": _instruction_set(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "device": device.type,
        "device_name": _device_name(device),
    }
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["matmul_precision"] = torch.get_float32_matmul_precision()
        convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        found["convolution_precision"] = convolutions.fp32_precision  # TF32, unless the caller has switched it off
    return found


def differing_numerics(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line, "threads: 1 before, 2 now", for every entry that differs; empty where the bits repeat."""
    return [
        f"{key}: {before.get(key, 'unknown')} before, {now.get(key, 'unknown')} now"
        for key in {**before, **now}
        if before.get(key, "unknown") != now.get(key, "unknown")
    ]


def _capabilities() -> Mapping[str, Any]:
    # torch.cpu.get_capabilities came after 2.10, the oldest torch we accept
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def _instruction_set() -> str:
    """The vector and matrix extensions that oneDNN and MKL choose their kernels by, finer than the capability."""
    families = ("avx", "amx", "fma", "sve", "neon", "bf16", "i8mm")
    found = sorted(name for name, has in _capabilities().items() if has is True and name.startswith(families))
    return " ".join(found) or "unknown"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(_capabilities().get("cpu_name") or platform.processor() or platform.machine())


@contextmanager
def own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Global random numbers that depend on the seed alone, for code such as dropout that takes no generator.

    The global generators of the CPU and of this device are put back afterwards.
    """
    on_gpu = device.type == "cuda"
    index = (torch.cuda.current_device() if device.index is None else device.index) if on_gpu else 0
    with torch.random.fork_rng(devices=[index] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
