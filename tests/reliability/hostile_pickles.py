"""Pickles in place of CIFAR's: calls, other values, and small ones that would take long."""

import os
import pickle
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
from reliability.corpus import Call

CALLS: list[tuple[str, Any, tuple[str, ...], str]] = [
    ("os.system", os.system, ("touch {path}",), "posix.system"),
    ("eval", eval, ("open({path!r}, 'w')",), "builtins.eval"),
    ("open", open, ("{path}", "w"), "io.open"),
    ("getattr", getattr, ("abc", "upper"), "builtins.getattr"),
    ("numpy.fromfile", np.fromfile, ("/etc/passwd",), "numpy.fromfile"),
    ("numpy.load", np.load, ("/etc/passwd",), "numpy.load"),
    ("OrderedDict", OrderedDict, (), "collections.OrderedDict"),
]


def calling(function: Any, arguments: tuple[str, ...], path: str, *, protocol: int = 2) -> bytes:
    """A CIFAR pickle of four images whose labels are a call."""
    hostile = Call(function, *(argument.format(path=path) for argument in arguments))
    return pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": hostile}, protocol=protocol)


NOT_DATA: list[tuple[str, bytes, str]] = [
    ("protocol 0", b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
    ("INST", b"(S'true'\nios\nsystem\n.", "instruction"),
    ("STACK_GLOBAL", b"\x80\x02\x8c\x05posix\x8c\x06system\x93.", "asks for posix.system"),
    ("NEWOBJ", b"\x80\x02cnumpy\ndtype\n)\x81.", "instruction"),
    ("extension registry", b"\x80\x02\x82\x01.", "instruction"),
    ("persistent id", b"\x80\x02U\x01aQ.", "instruction"),
    ("text", b"\x80\x02X\x05\x00\x00\x00hello.", "it holds a str, not a dictionary"),
    ("list", b"\x80\x02].", "it holds a list, not a dictionary"),
    ("number as key", b"\x80\x02}(K\x01K\x02u.", "key that is not text"),
    ("tuple as key", b"\x80\x02}))K\x02s.", "key that is not text|damaged"),
    ("attributes of a function", b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.", "sets attributes"),
    ("attributes of a class", b"\x80\x02cnumpy\ndtype\n}U\x01aK\x01sb.", "sets attributes"),
    ("codec", b"\x80\x04c_codecs\nencode\n\x8c\x02ab\x8c\x03rot\x86R.", "encodes something other"),
    ("unknown memo", b"\x80\x02}h\x05s.", "Memo value not found"),
    ("protocol 9", b"\x80\x09.", "damaged|protocol"),
    ("empty", b"", "damaged or cut off"),
    ("no end", b"\x80\x02}", "damaged or cut off"),
    ("empty stack", b"\x80\x02e.", "damaged or cut off"),
]


def nested_keys() -> bytes:
    """A dictionary whose key is a tuple of tuples: hashing it would take 2 ** 200 steps."""
    return b"\x80\x02}K\x01\x85" + b"q\x00h\x00\x86" * 200 + b"K\x02s."


PICKLE_BOMBS: list[tuple[str, bytes, str | None]] = [
    ("tuple that takes for ever to hash", nested_keys(), "key that is not text"),
    ("memo index of 4 billion", b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", None),
    ("2 ** 62 bytes claimed", b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.", "damaged"),
    ("frame of 2 ** 62 bytes", b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.", None),
    ("a million lists", b"\x80\x02" + b"]" * 1_000_000 + b".", "more parts than an official file"),
    ("nested lists", b"\x80\x02" + b"]" + b"]a" * 400 + b".", "holds a list"),
]
