"""The restricted unpickler: data come out, nothing is executed, time and memory stay bounded."""

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_releases as small
from hypothesis import given, settings
from hypothesis import strategies as st
from reliability import hostile_pickles as corpus

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


@pytest.mark.parametrize(
    ("function", "arguments", "name"), [pytest.param(*rest, id=name) for name, *rest in corpus.CALLS]
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused_and_not_made(
    function: Any, arguments: tuple[str, ...], name: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "made"
    data = corpus.calling(function, arguments, str(path), protocol=protocol)
    with pytest.raises(
        UnreadableFile, match="some/test_batch: it is not a readable CIFAR pickle: it asks for"
    ) as caught:
        cifar.decode_python([content(data)], label_key="labels", classes=10)
    module, _, attribute = name.rpartition(".")
    assert attribute in str(caught.value)
    assert module.split(".")[0].removeprefix("_") in str(caught.value) or protocol == 2
    assert not path.exists()


@pytest.mark.parametrize(("data", "message"), [pytest.param(*rest, id=name) for name, *rest in corpus.NOT_DATA])
def test_everything_but_data_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(data, steps=1000)


@pytest.mark.parametrize(("data", "message"), [pytest.param(*rest, id=name) for name, *rest in corpus.PICKLE_BOMBS])
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
