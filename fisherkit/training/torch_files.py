"""Checkpoints of torch that anybody may have made: looked through before torch loads them.

torch loads no code with `weights_only`, but a small file can still keep it busy for ever (a key of nested tuples is
hashed in 2^n steps), grow when it is unpacked, or hold tensors that are not what they seem. So the archive is taken
apart by Python's `zipfile`, which checks every checksum; its pickle is gone through by an unpickler that makes nothing;
and torch gets an archive made anew of the parts.
"""

import io
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fisherkit.errors import UnreadableFile
from fisherkit.images.pickles import DataUnpickler, counted
from fisherkit.training.checkpoints import load_safely

_MOST_RECORDS, _MOST_STEPS = 100_000, 500_000  # 10,000 tensors take 350,000 steps
_LARGEST_TUPLE = 1_000  # with all that is in it, counted as often as it is there
_LARGEST_PICKLE = 2**28
_DAMAGE = (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError, struct.error, zlib.error, MemoryError)
_REBUILDERS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"}
_LEGACY = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # a pickled number, with which files before torch 1.6 begin
_SAFER = "Save model.state_dict(), or use safetensors."


def load_foreign(path: Path, data: bytes) -> Any:
    """What `torch.save` wrote, tensors on the CPU; nothing is run, and time and memory are those of a honest file.

    Raises:
        UnreadableFile: It is no such file, is damaged, or holds other than dense tensors, numbers, texts and
            dictionaries, lists and tuples of them.
    """
    records = _records(path, data)
    pickled = [name for name in records if name.endswith("/data.pkl")]
    if len(pickled) != 1 or len(records[pickled[0]]) > _LARGEST_PICKLE:
        raise UnreadableFile(path, f"not a checkpoint: it has {len(pickled)} parts data.pkl of a usual size, not one.")
    folder = pickled[0].removesuffix("data.pkl") + "data/"
    sizes = {name.removeprefix(folder): len(content) for name, content in records.items() if name.startswith(folder)}
    try:
        _Screen(records[pickled[0]], sizes).load()
    except pickle.UnpicklingError as error:
        raise UnreadableFile(path, f"not a checkpoint that is safe to load: {error}. {_SAFER}") from error
    except KeyError as error:
        problem = f"it uses an instruction or a value ({error}) that no tensor needs"
        raise UnreadableFile(path, f"not a checkpoint that is safe to load: {problem}. {_SAFER}") from error
    except Exception as error:  # damaged data make the unpickler fail in every way
        problem = f"it is damaged ({type(error).__name__}). Use a copy, if there is one."
        raise UnreadableFile(path, f"not a checkpoint that is safe to load: {problem}") from error
    return load_safely(path, _archive(records))


def _records(path: Path, data: bytes) -> dict[str, bytes]:
    """The parts of the archive, each stored as it is and with the right checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise UnreadableFile(path, "not a checkpoint of torch.save: it is compressed.", dataset=packed[0][:80])
            sizes = sum(entry.file_size for entry in entries)
            if len(entries) > _MOST_RECORDS or len(set(archive.namelist())) < len(entries) or sizes > len(data):
                raise UnreadableFile(path, "not a checkpoint: parts of the archive are there several times.")
            return {entry.filename: archive.read(entry) for entry in entries}
    except _DAMAGE as error:
        if _LEGACY in data[:32]:
            raise UnreadableFile(
                path,
                "is in the format of torch.save before torch 1.6, which is not read. Load it and save it again with "
                "torch.save (without _use_new_zipfile_serialization=False), or as safetensors.",
            ) from error
        if not data.startswith(b"PK"):
            raise UnreadableFile(path, "not a checkpoint: not in the format of torch.save.") from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UnreadableFile(
            path, f"is damaged, or was saved without checksums: {reason}. Use a copy, if any, or safetensors."
        ) from error


def _archive(records: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return out.getvalue()


class _Inert:
    """Stands for whatever torch would make."""

    def __init__(self, *_: Any) -> None:
        pass


class _Storage(type):
    """Stands for a type of storage."""

    itemsize: int


def _dtype_of_storage(kind: Any) -> torch.dtype | None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch means to replace these types
        dtype = getattr(kind, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _mapping(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise pickle.UnpicklingError("it makes a dictionary in another way than torch.save")
    return {}


def _bytes(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something other than bytes")
    return text.encode("latin1")


class _Screen(DataUnpickler):
    """Goes through a pickle of torch.save as torch does, and makes only plain values."""

    def __init__(self, data: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(data, steps=_MOST_STEPS)
        self.encoding = "utf-8"
        self._sizes = sizes  # of the storages
        self._tuples: dict[int, tuple[int, Any]] = {}  # size, and the tuple, that its id stays its own

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _mapping
        if (module, name) == ("_codecs", "encode"):
            return _bytes
        found = vars(torch).get(name) if module == "torch" else None  # getattr would import what it is asked for
        dtype = _dtype_of_storage(found) if name.endswith("Storage") else None
        if dtype is not None:
            return _Storage(name, (), {"itemsize": dtype.itemsize})
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return _Storage(name, (), {"itemsize": 1})
        if isinstance(found, torch.dtype):
            return None
        if found in (torch.Size, torch.device) or (module == "torch._utils" and name in _REBUILDERS):
            return _Inert
        raise pickle.UnpicklingError(f"it asks for {module[:60]}.{name[:60]}")

    def persistent_load(self, pid: Any) -> Any:
        kinds = (str, _Storage, str, str, int)
        if type(pid) is not tuple or len(pid) != 5 or not all(map(isinstance, pid, kinds)):
            raise pickle.UnpicklingError("it names the numbers of a tensor in another way than torch.save")
        _, kind, key, _, count = pid
        if not 0 <= count * kind.itemsize <= self._sizes.get(key, -1):
            raise pickle.UnpicklingError("it has a tensor whose numbers are not in it")
        return _Inert()

    def load_build(self) -> None:
        self.stack.pop()  # type: ignore[attr-defined]  # attributes of a dictionary of layers: not needed
        if not isinstance(self.stack[-1], dict):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("it sets attributes of something other than a dictionary")

    def _is_key(self, key: Any) -> bool:
        plain = (str, bytes, int, float, type(None))
        return isinstance(key, plain) or (type(key) is tuple and all(isinstance(part, plain) for part in key))

    def measure_tuple(self) -> None:
        """Refuse a tuple that repeats itself into a huge one."""
        made = self.stack[-1]  # type: ignore[attr-defined]
        size = 1 + sum(self._tuples.get(id(part), (1,))[0] for part in made)
        if size > _LARGEST_TUPLE:
            raise pickle.UnpicklingError("it has a tuple larger than any shape")
        self._tuples[id(made)] = size, made


_MORE = ("BINFLOAT", "BINPERSID", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BUILD")
_CODES = {code.name: ord(code.code) for code in pickletools.opcodes}


def _with_size(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def step(unpickler: _Screen) -> None:
        load(unpickler)
        unpickler.measure_tuple()

    return step


def _instruction(name: str) -> Callable[[Any], None]:
    if name == "BUILD":
        return counted(_Screen.load_build)
    plain = pickle._Unpickler.dispatch[_CODES[name]]
    return counted(_with_size(plain) if "TUPLE" in name else plain)


_Screen.dispatch = {**DataUnpickler.dispatch, **{_CODES[name]: _instruction(name) for name in _MORE}}
