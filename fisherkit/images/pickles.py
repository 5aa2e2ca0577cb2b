"""Reads the CIFAR pickles as data: dictionaries, lists, integers, bytes and uint8 arrays, and nothing else.

A pickle is a program. Here it may use only the instructions in `_INSTRUCTIONS` and the five names in `_NAMES`,
which stand for inert values of this module, not for numpy's functions; the number of steps is limited. So a
hostile file can neither call anything nor take much time or memory. The pure Python unpickler is the one that
can be restricted so far: its memo is a dictionary (the C one allocates whatever index a file claims).
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

_INSTRUCTIONS = {
    "PROTO", "FRAME", "STOP", "MARK",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BINUNICODE", "SHORT_BINUNICODE",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip
_CODES = {code.name: ord(code.code) for code in pickletools.opcodes}


class PickledArray:
    """An array as the pickle describes it: (version, shape, dtype, is it Fortran order, bytes)."""

    def __init__(self) -> None:
        self.state: Any = None

    def as_uint8(self) -> UInt8[np.ndarray, "..."]:
        """The array.

        Raises:
            ValueError: It is not uint8, or its bytes do not fill its shape.
        """
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("an array has no contents")
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _PickledDtype) or dtype.name not in ("u1", b"u1", "|u1", b"|u1"):
            raise ValueError("an array is not uint8")
        if not isinstance(data, bytes) or not isinstance(shape, tuple):
            raise ValueError("an array has no bytes")
        if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) != len(data):
            raise ValueError("the bytes of an array do not fill its shape")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _PickledDtype:
    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name if isinstance(name, str | bytes) else None
        self.state: Any = None


def _reconstruct(*_: Any) -> PickledArray:
    return PickledArray()


def _encode(text: Any, encoding: Any) -> bytes:
    """What Python 3 writes for bytes in a protocol that knows none."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it encodes something other than bytes")
    return text.encode("latin-1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): None,  # only an argument of _reconstruct, which ignores it
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode,
}


class DataUnpickler(pickle._Unpickler):
    """The standard unpickler with most of its instructions taken away."""

    def __init__(self, data: bytes, *, steps: int) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.steps_left = steps

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the name."""
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module[:60]}.{name[:60]}, which no CIFAR file needs")
        return _NAMES[module, name]

    def load_build(self) -> None:
        """Take the state of an array."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(target, PickledArray | _PickledDtype):
            raise pickle.UnpicklingError("it sets attributes of something other than an array")
        target.state = state

    def load_setitem(self) -> None:
        """Take one item of a dictionary."""
        value = self.stack.pop()  # type: ignore[attr-defined]
        key = self.stack.pop()  # type: ignore[attr-defined]
        self._store([key, value])

    def load_setitems(self) -> None:
        """Take several items of a dictionary."""
        self._store(self.pop_mark())  # type: ignore[attr-defined]

    def _store(self, items: list[Any]) -> None:
        target = self.stack[-1]  # type: ignore[attr-defined]
        # plain keys only: the hash of nested tuples can take for ever
        if type(target) is not dict or not all(map(self._is_key, items[::2])):
            raise pickle.UnpicklingError("a dictionary has a key that is not text")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _is_key(self, key: Any) -> bool:
        return isinstance(key, str | bytes)


def counted(instruction: Callable[[Any], None]) -> Callable[[Any], None]:
    """The instruction, which then takes one of the unpickler's steps."""

    def step(unpickler: DataUnpickler) -> None:
        unpickler.steps_left -= 1
        if unpickler.steps_left < 0:
            raise pickle.UnpicklingError("it has more parts than an official file")
        instruction(unpickler)

    return step


_OWN = {
    "BUILD": DataUnpickler.load_build,
    "SETITEM": DataUnpickler.load_setitem,
    "SETITEMS": DataUnpickler.load_setitems,
}
DataUnpickler.dispatch = {
    _CODES[name]: counted(_OWN.get(name, pickle._Unpickler.dispatch[_CODES[name]])) for name in _INSTRUCTIONS
}


def load_data(data: bytes, *, steps: int) -> dict[str, Any]:
    """The dictionary that the pickle holds, with text keys; arrays come as `PickledArray`.

    Raises:
        ValueError: It holds anything else, uses a forbidden name or instruction, or is damaged.
    """
    try:
        value = DataUnpickler(data, steps=steps).load()
    except KeyError as error:
        raise ValueError(f"it uses an instruction or a value that no CIFAR file needs ({error})") from error
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # damaged data make the unpickler fail in every way
        raise ValueError(f"it is damaged or cut off ({type(error).__name__})") from error
    if type(value) is not dict:
        raise ValueError(f"it holds a {type(value).__name__}, not a dictionary")
    return {key.decode("latin-1") if isinstance(key, bytes) else key: item for key, item in value.items()}
