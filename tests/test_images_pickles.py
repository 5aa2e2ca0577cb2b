"""The restricted unpickler: data come out, nothing is executed, time and memory stay bounded."""

import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_releases as small
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherkit.errors import UnreadableFile
from fisherkit.images import cifar, pickles
from fisherkit.images.contents import Content
from fisherkit.images.pickles import PickledArray, load_data
from fisherkit.images.releases import OfficialFile

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3])


def content(data: bytes) -> Content:
    return Content(OfficialFile("test_batch", 4, len(data), "sha256:0", exact=False), data, Path("some/test_batch"))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_out_as_they_went_in(protocol: int, order: str) -> None:
    array = np.asarray(IMAGES.reshape(4, -1), order=order)  # type: ignore[call-overload]
    value = load_data(pickle.dumps({b"data": array}, protocol=protocol), steps=1000)["data"]
    assert isinstance(value, PickledArray)
    assert np.array_equal(value.as_uint8(), array)


def test_numpy_1_names_are_known() -> None:
    data = pickle.dumps({"data": IMAGES}, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(load_data(data, steps=1000)["data"].as_uint8(), IMAGES)


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        pytest.param(os.system, ("touch {path}",), "posix.system", id="os.system"),
        pytest.param(eval, ("open({path!r}, 'w')",), "builtins.eval", id="eval"),
        pytest.param(open, ("{path}", "w"), "io.open", id="open"),
        pytest.param(getattr, ("abc", "upper"), "builtins.getattr", id="getattr"),
        pytest.param(np.fromfile, ("/etc/passwd",), "numpy.fromfile", id="numpy.fromfile"),
        pytest.param(np.load, ("/etc/passwd",), "numpy.load", id="numpy.load"),
        pytest.param(OrderedDict, (), "collections.OrderedDict", id="OrderedDict"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused_and_not_made(
    function: Any, arguments: tuple[str, ...], name: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "made"
    hostile = Calls(function, *(argument.format(path=str(path)) for argument in arguments))
    data = pickle.dumps({b"data": IMAGES.reshape(4, -1), b"labels": hostile}, protocol=protocol)
    with pytest.raises(
        UnreadableFile, match="some/test_batch: it is not a readable CIFAR pickle: it asks for"
    ) as caught:
        cifar.decode_python([content(data)], label_key="labels", classes=10)
    module, _, attribute = name.rpartition(".")
    assert attribute in str(caught.value)
    assert module.split(".")[0].removeprefix("_") in str(caught.value) or protocol == 2
    assert not path.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"cos\nsystem\n(S'true'\ntR.", "asks for os.system", id="protocol 0"),
        pytest.param(b"(S'true'\nios\nsystem\n.", "instruction", id="INST"),
        pytest.param(b"\x80\x02\x8c\x05posix\x8c\x06system\x93.", "asks for posix.system", id="STACK_GLOBAL"),
        pytest.param(b"\x80\x02cnumpy\ndtype\n)\x81.", "instruction", id="NEWOBJ"),
        pytest.param(b"\x80\x02\x82\x01.", "instruction", id="extension registry"),
        pytest.param(b"\x80\x02U\x01aQ.", "instruction", id="persistent id"),
        pytest.param(b"\x80\x02X\x05\x00\x00\x00hello.", "it holds a str, not a dictionary", id="text"),
        pytest.param(b"\x80\x02].", "it holds a list, not a dictionary", id="list"),
        pytest.param(b"\x80\x02}(K\x01K\x02u.", "key that is not text", id="number as key"),
        pytest.param(b"\x80\x02}))K\x02s.", "key that is not text|damaged", id="tuple as key"),
        pytest.param(b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.", "sets attributes", id="attributes of a function"),
        pytest.param(b"\x80\x02cnumpy\ndtype\n}U\x01aK\x01sb.", "sets attributes", id="attributes of a class"),
        pytest.param(b"\x80\x04c_codecs\nencode\n\x8c\x02ab\x8c\x03rot\x86R.", "encodes something other", id="codec"),
        pytest.param(b"\x80\x02}h\x05s.", "Memo value not found", id="unknown memo"),
        pytest.param(b"\x80\x09.", "damaged|protocol", id="protocol 9"),
        pytest.param(b"", "damaged or cut off", id="empty"),
        pytest.param(b"\x80\x02}", "damaged or cut off", id="no end"),
        pytest.param(b"\x80\x02e.", "damaged or cut off", id="empty stack"),
    ],
)
def test_everything_but_data_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(data, steps=1000)


def nested_keys() -> bytes:
    """A dictionary whose key is a tuple of tuples: hashing it would take 2 ** 200 steps."""
    return b"\x80\x02}K\x01\x85" + b"q\x00h\x00\x86" * 200 + b"K\x02s."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(nested_keys(), "key that is not text", id="tuple that takes for ever to hash"),
        pytest.param(b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", None, id="memo index of 4 billion"),
        pytest.param(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.", "damaged", id="2 ** 62 bytes claimed"),
        pytest.param(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.", None, id="frame of 2 ** 62 bytes"),
        pytest.param(b"\x80\x02" + b"]" * 1_000_000 + b".", "more parts than an official file", id="a million lists"),
        pytest.param(b"\x80\x02" + b"]" + b"]a" * 400 + b".", "holds a list", id="nested lists"),
    ],
)
def test_time_and_memory_stay_bounded(data: bytes, message: str | None) -> None:
    tracemalloc.start()
    try:
        if message is None:
            assert load_data(data, steps=1000) == {}
        else:
            with pytest.raises(ValueError, match=message):
                load_data(data, steps=1000)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "no contents"),
        ((1, (2, 3), "u1", False), "no contents"),
        ((1, (2, 3), pickles._PickledDtype("f8"), False, bytes(48)), "not uint8"),
        ((1, (2, 3), pickles._PickledDtype("O8"), False, []), "not uint8"),
        ((1, (2, 3), pickles._PickledDtype("u1"), False, "text"), "no bytes"),
        ((1, (2, 3), pickles._PickledDtype("u1"), False, bytes(7)), "do not fill its shape"),
        ((1, (2**40, 2**40), pickles._PickledDtype("u1"), False, bytes(7)), "do not fill its shape"),
        ((1, (-1, -6), pickles._PickledDtype("u1"), False, bytes(6)), "do not fill its shape"),
        ((1, (2.0, 3), pickles._PickledDtype("u1"), False, bytes(6)), "do not fill its shape"),
    ],
)
def test_arrays_that_are_not_plain_bytes(state: Any, message: str) -> None:
    array = PickledArray()
    array.state = state
    with pytest.raises(ValueError, match=message):
        array.as_uint8()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"data": IMAGES.reshape(4, -1)[:3]}, r"shape of 'data' must be \(4, 3072\); it is \(3, 3072\)"),
        ({b"data": IMAGES}, r"it is \(4, 3, 32, 32\)"),
        ({b"data": IMAGES.reshape(4, -1).astype(np.int64)}, "not uint8"),
        ({b"data": [1, 2]}, "no array 'data'"),
        ({b"labels": [0, 1, 2]}, "'labels' must have 4 labels; it has 3"),
        ({b"labels": [0, 1, 2, True]}, "no list of integers 'labels'"),
        ({b"labels": [0, 1, 2, b"3"]}, "no list of integers 'labels'"),
        ({b"labels": b"0123"}, "no list of integers 'labels'"),
        ({b"labels": [0, 1, 2, 10]}, "labels must be from 0 to 9; that of image 3 is 10"),
        ({b"labels": [0, -1, 2, 3]}, "labels must be from 0 to 9; that of image 1 is -1"),
        ({b"labels": [0, 10**30, 2, 3]}, "numbers that are no labels"),
    ],
)
def test_contents_that_do_not_fit(changes: dict[bytes, Any], message: str) -> None:
    values = {b"data": IMAGES.reshape(4, -1), b"labels": LABELS.tolist()} | changes
    with pytest.raises(UnreadableFile, match=message):
        cifar.decode_python([content(pickle.dumps(values, protocol=2))], label_key="labels", classes=10)


def test_missing_labels() -> None:
    data = small.python2_pickle(IMAGES, LABELS)
    with pytest.raises(UnreadableFile, match="no list of integers 'fine_labels'"):
        cifar.decode_python([content(data)], label_key="fine_labels", classes=100)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_pickles_raise_only_value_errors(data: st.DataObject) -> None:
    original = small.python2_pickle(IMAGES[:1, :, :1, :1], LABELS[:1])
    position = data.draw(st.integers(0, len(original)))
    new, cut = data.draw(st.binary(max_size=6)), data.draw(st.integers(0, 6))
    changed = original[:position] + new + original[position + cut :]
    try:
        value = load_data(changed, steps=1000)
    except ValueError:
        return
    assert isinstance(value, dict)
