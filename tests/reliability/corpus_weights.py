"""Hostile checkpoints of torch and safetensors: what no state dict of the model is."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reliability.corpus import EXECUTED, Call, Case, write

from fisherkit.models import build_model

MODEL = ("--model", "mlp", "--width", "8", "--probe-images", "10")
SAFE, NOT_ONE, FIT = "is safe to load: ", "not a checkpoint", "does not fit the model"
ASKS, LARGE = f"{SAFE}it asks for ", "tuple larger than any shape"
NUMBERS = "whose numbers are not in it"


@cache
def good() -> dict[str, torch.Tensor]:
    """The state dict of the model."""
    return build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=0).state_dict()


def saved(contents: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(contents, buffer, **options)
    return buffer.getvalue()


def changed(**tensors: Any) -> dict[str, Any]:
    """The state dict with other tensors; dots of names are written as two underlines."""
    return {**good(), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


def archive(pickled: bytes, parts: dict[str, bytes] | None = None, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save makes it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/byteorder", b"little")
        for name, data in (parts or {}).items():
            made.writestr(f"archive/{name}", data)
        made.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def calls() -> dict[str, tuple[bytes, str]]:
    """Pickles that ask for code."""
    made = {
        "os.system": Call(os.system, f"touch {EXECUTED}"),
        "eval": Call(eval, f"open({EXECUTED!r}, 'w')"),
        "exec": Call(exec, f"open({EXECUTED!r}, 'w')"),
        "open": Call(open, EXECUTED, "w"),
        "getattr": Call(getattr, "abc", "upper"),
        "import": Call(__import__, "antigravity"),
        "numpy.fromfile": Call(np.fromfile, "/etc/passwd"),
        "torch.load": Call(torch.load, "secret.txt"),
        "torch.hub": Call(torch.hub.load, "a/b", "c"),
        "pickle.loads": Call(pickle.loads, b"cos\nsystem\n."),
        "bytearray": Call(bytearray, 10**12),
        "range": Call(list, range(10**12)),
        "set": {1, 2},
    }
    found = {name: (saved({**good(), "x": call}), f"{ASKS}|{SAFE}it uses") for name, call in made.items()}
    raw = {
        "protocol 0": b"cos\nsystem\n(S'touch executed'\ntR.",
        "INST": b"(S'touch executed'\nios\nsystem\n.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
        "NEWOBJ": b"\x80\x02ctorch\nTensor\n)\x81.",
        "OBJ": b"(cos\nsystem\nS'touch executed'\no.",
        "extension registry": b"\x80\x02\x82\x01.",
        "module of torch": b"\x80\x02ctorch\n_dynamo\n.",
        "module not imported": b"\x80\x02cantigravity\nfly\n)R.",
        "attribute of a class": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
        "dotted name": b"\x80\x04\x8c\x05torch\x8c\x11storage.os.system\x93.",
    }
    return found | {name: (archive(pickled), SAFE) for name, pickled in raw.items()}


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small files that take long, or grow."""
    doubled = b"\x80\x02}K\x01\x85" + b"q\x00h\x00\x86" * 200
    dictionary = b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s."
    return {
        "a million lists": (archive(b"\x80\x02" + b"]" * 1_500_000 + b"."), SAFE),
        "nested lists": (archive(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."), "holds a list"),
        "nested dictionaries": (archive(b"\x80\x02" + b"}K\x01" * 100_000 + b"N" + b"s" * 100_000 + b"."), "holds no"),
        "a key that takes for ever to hash": (archive(doubled + b"K\x02s."), LARGE),
        "a shape that takes for ever": (archive(doubled + b"\x85ctorch\nSize\nh\x00R."), LARGE),
        "a storage named by tuples": (archive(b"\x80\x02K\x01\x85" + b"q\x00h\x00\x86" * 200 + b"Q."), LARGE),
        "keys that are lists": (archive(b"\x80\x02}]K\x02s."), SAFE),
        "keys that are dictionaries": (archive(b"\x80\x02}}K\x02s."), SAFE),
        "a memo of four billion": (archive(b"\x80\x02}r\xff\xff\xff\xff."), "holds no state dict"),
        "2 ** 62 bytes claimed": (archive(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a."), SAFE),
        "2 ** 31 letters claimed": (archive(b"\x80\x02X" + struct.pack("<I", 2**31 - 1) + b"a."), SAFE),
        "a dictionary that holds itself": (archive(dictionary), "holds a dict"),
        "wrappers within wrappers": (saved(_wrapped(200)), "holds a dict"),
        "compressed": (
            archive(b"\x80\x02}.", {"data/0": bytes(2**26)}, compression=zipfile.ZIP_DEFLATED),
            "compressed",
        ),
        "compressed by bzip2": (archive(b"\x80\x02}.", {"data/0": b""}, compression=zipfile.ZIP_BZIP2), "compressed"),
        "one part in many places": (_overlapping(), f"{NOT_ONE}: parts of the archive"),
        "many parts": (archive(b"\x80\x02}.", {f"data/{n}": b"" for n in range(100_001)}), f"{NOT_ONE}: parts"),
    }


def _compressed(part: bytes, compression: int) -> bytes:
    return archive(b"\x80\x02}.", {"data/0": part}, compression=compression)


def _wrapped(times: int) -> Any:
    found: Any = good()
    for _ in range(times):
        found = {"state_dict": found, "epoch": 3}
    return found


def _overlapping() -> bytes:
    """A directory in which 1,000 names stand for the same 400 KB."""
    data = archive(b"\x80\x02}.", {"data/0": bytes(400_000)})
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, end + 16)[0]
    directory = data[start:end]
    entry = directory[directory.index(b"archive/data/0") - 46 :][: 46 + len("archive/data/0")]
    more = directory + b"".join(entry[:-1] + bytes([97 + n % 26]) for n in range(1_000))
    count = struct.pack("<HH", 1_004, 1_004)
    return data[:start] + more + data[end : end + 8] + count + struct.pack("<II", len(more), start) + b"\0\0"


def damaged() -> dict[str, tuple[bytes, str]]:
    """Parts of files, and files of other kinds."""
    whole = saved(good())
    flipped = bytearray(whole)
    flipped[whole.index(next(iter(good().values())).numpy().tobytes()[:64]) + 5] ^= 4
    return {
        "empty": (b"", f"{NOT_ONE}: not in the format of torch.save"),
        "text": (b"hello", f"{NOT_ONE}: not in the format of torch.save"),
        "page": (b"<html>404 not found</html>", f"{NOT_ONE}: not in the format of torch.save"),
        "pickle": (pickle.dumps({"a": 1}), f"{NOT_ONE}: not in the format of torch.save"),
        "old format": (
            saved(good(), _use_new_zipfile_serialization=False),
            "in the format of torch.save before torch 1.6",
        ),
        "half": (whole[: len(whole) // 2], "is damaged"),
        "last byte missing": (whole[:-1], "is damaged|" + NOT_ONE),
        "signature only": (whole[:4], "is damaged"),
        "a flipped bit": (bytes(flipped), "is damaged, .*Bad CRC-32"),
        "no pickle": (_zip({"archive/version": b"3"}), "it has 0 parts data.pkl"),
        "two pickles": (_zip({"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."}), "it has 2 parts data.pkl"),
        "the same name twice": (_twice(), f"{NOT_ONE}: parts of the archive are there several times"),
        "npz": (_zip({"a.npy": b"\x93NUMPY"}), "it has 0 parts data.pkl"),
        "office document": (_zip({"[Content_Types].xml": b"<xml>", "word/document.xml": b""}), "0 parts data.pkl"),
        "names that leave the folder": (_zip({"../../data.pkl": b"\x80\x02}."}), "holds a dict|" + SAFE),
        "encrypted": (_encrypted(), "is damaged"),
        "no end": (archive(b"\x80\x02}"), "it is damaged"),
        "empty pickle": (archive(b""), "it is damaged"),
        "empty stack": (archive(b"\x80\x02e."), "it is damaged"),
        "unknown memo": (archive(b"\x80\x02h\x05."), SAFE),
        "protocol 9": (archive(b"\x80\x09}."), SAFE),
        "noise": (archive(np.random.default_rng(0).bytes(2_000)), SAFE),
    }


def _zip(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in parts.items():
            made.writestr(name, data)
    return buffer.getvalue()


def _twice() -> bytes:
    data = _zip({"archive/data.pkl": b"\x80\x02}.", "archive/data.pkk": b"\x80\x02]."})
    return data.replace(b"data.pkk", b"data.pkl")


def _encrypted() -> bytes:
    data = bytearray(saved(good()))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def tensors() -> dict[str, tuple[bytes, str]]:
    """Archives whose tensors are not what they seem."""
    kinds, counter = f"{FIT}: .*types", torch.tensor(0.5)
    return {
        "more numbers than there are": (_tensor(count=10**9), NUMBERS),
        "fewer than none": (_tensor(count=-4), NUMBERS),
        "numbers that are not there": (_tensor(key="7"), NUMBERS),
        "numbers of another place": (_tensor(key="../../secret.txt"), NUMBERS),
        "larger than its numbers": (_tensor(size=(10**9,)), SAFE),
        "a huge stride": (_tensor(stride=(2**40,)), SAFE),
        "a negative size": (_tensor(size=(-4,)), SAFE),
        "a negative stride": (_tensor(stride=(-1,)), SAFE),
        "an offset outside": (_tensor(offset=2**40), SAFE),
        "a negative offset": (_tensor(offset=-8), SAFE),
        "sizes that overflow": (_tensor(size=(2**62, 8), stride=(0, 0)), f"{FIT}|{SAFE}"),
        "sizes that are text": (_tensor(size=("a",)), SAFE),
        "a million axes": (_tensor(size=(1,) * 900, stride=(0,) * 900), f"{FIT}|{SAFE}"),
        "expanded": (saved({"linear1.weight": torch.zeros(1).expand(10**9)}), FIT),
        "sparse": (saved(changed(linear1__weight=torch.eye(8).to_sparse())), ASKS),
        "on no device": (saved(changed(linear1__weight=torch.zeros(8, 1024, device="meta"))), ASKS),
        "complex": (saved(changed(linear1__weight=torch.zeros(8, 1024, dtype=torch.complex64))), kinds),
        "whole numbers": (saved(changed(linear1__weight=torch.zeros(8, 1024, dtype=torch.int64))), kinds),
        "true or false": (saved(changed(linear1__weight=torch.zeros(8, 1024, dtype=torch.bool))), kinds),
        "a counter that is not whole": (saved(changed(bn1__num_batches_tracked=counter)), kinds),
        "not a number": (
            saved(changed(linear1__weight=torch.full((8, 1024), torch.nan))),
            "linear1.weight has numbers",
        ),
        "infinite": (saved(changed(linear2__bias=torch.full((10,), torch.inf))), "linear2.bias has numbers that are"),
        "infinite buffers": (saved(changed(bn1__running_var=torch.full((8,), torch.inf))), "running_var has numbers"),
        "a wrong shape": (saved(changed(linear1__weight=torch.zeros(9, 1024))), f"{FIT}: it has other shapes"),
        "transposed": (saved(changed(linear1__weight=torch.zeros(1024, 8))), f"{FIT}: it has other shapes"),
        "a scalar": (saved(changed(linear1__weight=torch.tensor(1.0))), f"{FIT}: it has other shapes"),
        "a name missing": (saved({n: t for n, t in good().items() if n != "linear1.weight"}), f"{FIT}: it misses"),
        "a name too many": (saved({**good(), "extra": torch.zeros(1)}), f"{FIT}: it has in excess extra"),
        "hostile names": (saved({**good(), "\x1b[2J\u202e": torch.zeros(1)}), f"{FIT}: it has in excess"),
        "a name of a megabyte": (saved({**good(), "x" * 10**6: torch.zeros(1)}), f"{FIT}: it has in excess"),
        "100,000 names": (_many_tensors(), FIT),
        "numbers as names": (saved(dict(enumerate(good().values()))), FIT),
        "nothing": (saved({}), "holds a dict, not a state dict|holds no state dict"),
        "a tensor": (saved(torch.zeros(3)), "holds a Tensor, not a state dict"),
        "a list": (saved(list(good().values())), "holds a list, not a state dict"),
        "a number": (saved(3.0), "holds a float, not a state dict"),
        "none": (saved(None), "holds a NoneType, not a state dict"),
        "texts": (saved({"loss": 3.0, "model": "resnet"}), "holds no state dict"),
        "hostile keys": (saved({"\x1b[2J\u202e": 1, "x" * 10**6: 2}), "holds no state dict"),
        "an optimizer alone": (saved({"optimizer": {"state": {0: {"step": torch.tensor(1)}}}}), "holds no state dict"),
        "a module": (saved(torch.nn.Linear(2, 2)), ASKS),
    }


def _tensor(
    *, key: str = "0", count: int = 4, offset: int = 0, size: tuple[Any, ...] = (4,), stride: tuple[Any, ...] = (1,)
) -> bytes:
    """A state dict of one tensor of four numbers that says of itself what it is told to."""

    def put(value: Any) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]  # without its beginning and its end

    storage = b"(" + put("storage") + b"ctorch\nFloatStorage\n" + put(key) + put("cpu") + put(count) + b"tQ"
    rest = put(offset) + put(size) + put(stride) + b"\x89ccollections\nOrderedDict\n)Rt"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"R"
    return archive(b"\x80\x02}" + put("linear1.weight") + made + b"s.", {"data/0": bytes(16)})


def _many_tensors() -> bytes:
    one = torch.zeros(1)
    return saved(OrderedDict((f"t{number}", one) for number in range(30_000)))


# ---------------------------------------------------------------- as command lines


def _cases(kind: str, file: str, made: dict[str, tuple[bytes, str]]) -> list[Case]:
    command = ("measure", f"{{}}/{file}", *MODEL, "--out", "{}/m.h5")
    return [Case(f"{kind}: {n}", command, write(file, data), says, file=file) for n, (data, says) in made.items()]


def cases() -> list[Case]:
    """All of them; made when asked for."""
    from reliability import hostile_safetensors

    return [
        *_cases("calls", "epoch_3.pt", calls()),
        *_cases("bombs", "epoch_3.pt", bombs()),
        *_cases("damaged", "epoch_3.pt", damaged()),
        *_cases("tensors", "epoch_3.pt", tensors()),
        *_cases("safetensors", "epoch_3.safetensors", hostile_safetensors.safetensors()),
        *_places(),
    ]


def _places() -> list[Case]:
    """Paths that are no regular file."""
    makers: dict[str, Callable[[Path], object]] = {
        "folder": lambda folder: (folder / "epoch_3.pt").mkdir(),
        "pipe": lambda folder: os.mkfifo(folder / "epoch_3.pt"),
        "device": lambda folder: (folder / "epoch_3.pt").symlink_to("/dev/zero"),
        "link to nothing": lambda folder: (folder / "epoch_3.pt").symlink_to("nowhere"),
        "link to itself": lambda folder: (folder / "epoch_3.pt").symlink_to("epoch_3.pt"),
    }
    command = ("measure", "{}/epoch_3.pt", *MODEL, "--out", "{}/m.h5")
    return [Case(f"place: {name}", command, make, "", file="epoch_3.pt") for name, make in makers.items()]
