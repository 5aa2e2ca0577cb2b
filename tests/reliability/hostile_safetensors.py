"""Safetensors files that lie, or do not fit the model."""

import json
import struct
from typing import Any

import torch
from reliability.corpus_weights import FIT, changed, good, saved
from safetensors.torch import save


def safe(header: Any, data: bytes = b"", *, size: int | None = None) -> bytes:
    """A safetensors file with this header, and any claim of its size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def _entry(dtype: str = "F32", shape: tuple[int, ...] = (4,), ends: tuple[int, int] = (0, 16)) -> dict[str, Any]:
    return {"linear1.weight": {"dtype": dtype, "shape": list(shape), "data_offsets": list(ends)}}


def safetensors() -> dict[str, tuple[bytes, str]]:
    """Safetensors files that lie, or do not fit."""
    whole, sixteen = save(dict(good())), bytes(16)
    file = "not a safetensors file: "
    return {
        "empty": (b"", file),
        "text": (b"hello world, this is text", file),
        "pickle": (saved(good()), file),
        "half": (whole[: len(whole) // 2], file),
        "last byte missing": (whole[:-1], file),
        "a byte too many": (whole + b"\0", file),
        "a header of 2 ** 63": (safe(_entry(), sixteen, size=2**63), file),
        "a header of 2 ** 40": (safe(_entry(), sixteen, size=2**40), file),
        "a header that is no JSON": (safe(b"{nothing}", sixteen), file),
        "a header that is a list": (safe([1, 2], sixteen), file),
        "a header nested deeply": (safe(b"[" * 100_000, sixteen), file),
        "a header that is not UTF-8": (safe(b"\xff\xfe{}", sixteen), file),
        "an unknown type": (safe(_entry("F99"), sixteen), file),
        "numbers outside": (safe(_entry(ends=(0, 32)), sixteen), file),
        "numbers that go backwards": (safe(_entry(ends=(16, 0)), sixteen), file),
        "negative numbers": (safe(_entry(shape=(-4,)), sixteen), file),
        "sizes that overflow": (safe(_entry(shape=(2**62, 2**62)), sixteen), file),
        "a shape that is larger": (safe(_entry(shape=(10**9,)), sixteen), file),
        "a hole": (safe(_entry(ends=(8, 24)), bytes(24)), file),
        "the same numbers twice": (safe({**_entry(), "b": _entry()["linear1.weight"]}, sixteen), file),
        "metadata that are numbers": (safe({**_entry(), "__metadata__": {"a": 1}}, sixteen), file),
        "no tensors": (safe({}), f"{FIT}: it misses"),
        "10,001 tensors": (save({f"t{n}": torch.zeros(1) for n in range(10_001)}), "has 10,001 tensors, more than"),
        "a wrong shape": (save(changed(linear1__weight=torch.zeros(9, 1024))), f"{FIT}: it has other shapes"),
        "a wrong type": (save(changed(linear1__weight=torch.zeros(8, 1024, dtype=torch.int64))), f"{FIT}: .*types"),
        "not a number": (save(changed(linear1__weight=torch.full((8, 1024), torch.nan))), "linear1.weight has numbers"),
        "a name too many": (save({**good(), "extra": torch.zeros(1)}), f"{FIT}: it has in excess extra"),
        "hostile names": (save({**good(), "\x1b[2J\u202e": torch.zeros(1)}), f"{FIT}: it has in excess"),
    }
