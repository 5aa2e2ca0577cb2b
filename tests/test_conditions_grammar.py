import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fisherkit.conditions import (
    Blur,
    Conditions,
    CustomDeficit,
    Event,
    Flip,
    Grayscale,
    LrRestart,
    LrScale,
    Noise,
    Occlude,
    Permute,
    ShrinkPerturb,
    Shuffle,
    Window,
    Windowed,
)

DEFICITS = {
    "blur": Windowed(Blur(4), Window(0)),
    "blur:0-40": Windowed(Blur(4), Window(0, 40)),
    "blur():0-40": Windowed(Blur(4), Window(0, 40)),
    "blur(8):0-40": Windowed(Blur(8), Window(0, 40)),
    " blur ( 8 ) : 5- ": Windowed(Blur(8), Window(5)),
    "flip:3-4": Windowed(Flip(), Window(3, 4)),
    "noise:20-60": Windowed(Noise(), Window(20, 60)),
    "permute": Windowed(Permute(), Window(0)),
    "shuffle": Windowed(Shuffle(), Window(0)),
    "grayscale": Windowed(Grayscale(), Window(0)),
    "occlude": Windowed(Occlude(16), Window(0)),
    "occlude(8)": Windowed(Occlude(8), Window(0)),
    "my.deficits:rotate": Windowed(CustomDeficit("my.deficits:rotate"), Window(0)),
    "my:rotate:0-40": Windowed(CustomDeficit("my:rotate"), Window(0, 40)),
    "my:rotate(90, -1e-3):7-": Windowed(CustomDeficit("my:rotate", (90, -0.001)), Window(7)),
}


@pytest.mark.parametrize("text", DEFICITS)
def test_deficit_text_means(text: str) -> None:
    assert Conditions.parse(deficits=[text]).deficits == (DEFICITS[text],)


OTHERS = {
    ("weight_decay", "5e-4:0-100"): Windowed(5e-4, Window(0, 100)),
    ("weight_decay", "0"): Windowed(0.0, Window(0)),
    ("fraction", "0.5:0-350"): Windowed(0.5, Window(0, 350)),
    ("fraction", "1"): Windowed(1.0, Window(0)),
    ("augment", "crop+flip:50-"): Windowed(("crop", "flip"), Window(50)),
    ("augment", "flip + crop"): Windowed(("crop", "flip"), Window(0)),
    ("augment", "crop:0-3"): Windowed(("crop",), Window(0, 3)),
    ("augment", "none:0-3"): Windowed((), Window(0, 3)),
    ("events", "shrink_perturb(0.4,0.1):350"): ShrinkPerturb(350, 0.4, 0.1),
    ("events", "shrink_perturb:350"): ShrinkPerturb(350, 0.4, 0.1),
    ("events", "shrink_perturb(0.6):350"): ShrinkPerturb(350, 0.6, 0.1),
    ("events", "lr_restart:40"): LrRestart(40),
    ("events", "lr_scale(0.1):40"): LrScale(40, 0.1),
}


@pytest.mark.parametrize(("field", "text"), OTHERS)
def test_text_means(field: str, text: str) -> None:
    assert getattr(Conditions.parse(**{field: [text]}), field) == (OTHERS[field, text],)


WINDOW_RULE = "window must be start-stop or start- in whole epochs >= 0"
WRONG = {
    ("deficits", "blurr:0-40"): "name must be one of blur, flip, noise, permute, shuffle, grayscale, occlude or "
    "package.module:callable; got 'blurr'. Did you mean 'blur'?",
    ("deficits", "fog"): "or package.module:callable; got 'fog'.",
    ("deficits", ""): "got ''.",
    ("deficits", "blur:40-0"): "stop of a window must be after its start, for the stop is excluded; got '40-0'.",
    ("deficits", "blur:40-40"): "got '40-40'.",
    ("deficits", "blur:-3-5"): f"{WINDOW_RULE} (start included, stop excluded); got '-3-5'.",
    ("deficits", "blur:0--5"): "got '0--5'.",
    ("deficits", "blur:40"): "got '40'.",
    ("deficits", "blur:-40"): "got '-40'.",
    ("deficits", "blur:"): "got ''.",
    ("deficits", "blur:all"): "got 'all'.",
    ("deficits", "blur:0.5-3"): "got '0.5-3'.",
    ("deficits", "blur:0-40:50-60"): "after the name must come at most one colon; got 'blur:0-40:50-60'.",
    ("deficits", "blur(4:0-40"): "arguments must end with a closing bracket; got '(4:0-40'.",
    ("deficits", "blur(4)0-40"): "after the arguments must come nothing or a colon; got '0-40'.",
    ("deficits", "blur(4,8)"): "arguments of blur must be at most 1 (factor); got 2.",
    ("deficits", "noise(3)"): "arguments of noise must be none; got 1.",
    ("deficits", "blur(x)"): "factor of blur must be a whole number; got 'x'.",
    ("deficits", "blur(4.0)"): "factor of blur must be a whole number; got '4.0'.",
    ("deficits", "blur(4,)"): "arguments of blur must be at most 1 (factor); got 2.",
    ("deficits", "blur(1)"): "factor of blur must be a whole number >= 2; got 1.",
    ("deficits", "occlude(0)"): "size of occlude must be a whole number >= 1; got 0.",
    ("deficits", "my:rotate(x)"): "argument of my:rotate must be a number; got 'x'.",
    ("deficits", "my:rotate(1e999)"): "argument of my:rotate must be finite; got '1e999'.",
    ("deficits", f"my:rotate({2**63})"): f"arguments of my:rotate must be finite numbers; got {2**63}.",
    ("weight_decay", "-1e-4"): "weight decay must be finite and >= 0; got -0.0001.",
    ("weight_decay", "nan"): "weight decay must be a number; got 'nan'.",
    ("weight_decay", "1_0"): "weight decay must be a number; got '1_0'.",
    ("weight_decay", "1e999"): "weight decay must be finite; got '1e999'.",
    ("weight_decay", "5e-4:0"): "got '0'.",
    ("fraction", "0"): "fraction must be above 0 and at most 1; got 0.0.",
    ("fraction", "1.5"): "fraction must be above 0 and at most 1; got 1.5.",
    ("fraction", "half"): "fraction must be a number; got 'half'.",
    ("augment", "cutout"): "augmentation must be crop, flip, crop+flip or none, each name once; got 'cutout'.",
    ("augment", "crop+none"): "got 'crop+none'.",
    ("augment", "crop+crop"): "got 'crop+crop'.",
    ("events", "lr_restrt:3"): "name must be one of shrink_perturb, lr_restart, lr_scale; got 'lr_restrt'. "
    "Did you mean 'lr_restart'?",
    ("events", "lr_restart"): "lr_restart must name its epoch after a colon; got none.",
    ("events", "lr_restart:-3"): "epoch of lr_restart must be a whole number >= 0; got '-3'.",
    ("events", "lr_restart:0-40"): "epoch of lr_restart must be a whole number >= 0; got '0-40'.",
    ("events", "lr_scale:3"): "arguments of lr_scale must be (factor); got no factor.",
    ("events", "lr_scale(0):3"): "factor of lr_scale must be finite and > 0; got 0.0.",
    ("events", "lr_restart(1):3"): "arguments of lr_restart must be none; got 1.",
    ("events", "shrink_perturb(2):3"): "shrink of shrink_perturb must be from 0 to 1; got 2.0.",
    ("events", "shrink_perturb(0.4,-1):3"): "perturb of shrink_perturb must be finite and >= 0; got -1.0.",
    ("events", "shrink_perturb(1,1,1):3"): "arguments of shrink_perturb must be at most 2 (shrink, perturb); got 3.",
}
EXAMPLES = {
    "deficits": "blur(4):0-40",
    "weight_decay": "5e-4:0-100",
    "fraction": "0.5:0-350",
    "augment": "crop+flip:50-",
    "events": "shrink_perturb(0.4,0.1):350",
}


@pytest.mark.parametrize(("field", "text"), WRONG)
def test_wrong_text_is_shown_with_the_problem_and_an_example(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(WRONG[field, text])) as caught:
        Conditions.parse(**{field: [text]})
    kind = {"deficits": "deficit", "events": "event"}.get(field, field.replace("_", " "))
    assert str(caught.value).startswith(f"{kind} {text!r}: ")
    assert str(caught.value).endswith(f" For example: {EXAMPLES[field]!r}.")


@pytest.mark.parametrize("field", EXAMPLES)
def test_the_example_in_a_message_works(field: str) -> None:
    assert getattr(Conditions.parse(**{field: [EXAMPLES[field]]}), field)


def test_single_text_for_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"deficit must be a sequence of texts; got the single text 'blur'"):
        Conditions.parse(deficits="blur")


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (-1, None, "start of a window must be an epoch >= 0; got -1"),
        (3, 3, "stop of a window must be after its start"),
    ],
)
def test_window_checks_itself(start: int, stop: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Window(start, stop)


epochs = st.integers(0, 10**6)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(epochs)
    return Window(start, draw(st.none() | st.integers(start + 1, 2 * 10**6)))


positive = st.floats(0, 1e300, exclude_min=True)
identifiers = st.text("abcxyz_", min_size=1, max_size=6)
targets = st.builds(lambda *parts: f"{parts[0]}.{parts[1]}:{parts[2]}", identifiers, identifiers, identifiers)
arguments = st.lists(
    st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False), max_size=3
)
deficits = st.one_of(
    st.builds(Blur, st.integers(2, 10**6)),
    st.sampled_from([Flip(), Noise(), Permute(), Shuffle(), Grayscale()]),
    st.builds(Occlude, st.integers(1, 10**6)),
)
events = st.one_of(
    st.builds(ShrinkPerturb, epochs, st.floats(0, 1), st.floats(0, 1e300)),
    st.builds(LrRestart, epochs),
    st.builds(LrScale, epochs, positive),
)


@settings(deadline=None, max_examples=60)
@given(
    deficit=st.builds(Windowed, deficits, windows()),
    weight_decay=st.builds(Windowed, st.floats(0, 1e300), windows()),
    augment=st.builds(Windowed, st.sampled_from([(), ("crop",), ("flip",), ("crop", "flip")]), windows()),
    fraction=st.builds(Windowed, st.floats(0, 1, exclude_min=True), windows()),
    event=events,
)
def test_text_form_parses_back(
    deficit: Windowed, weight_decay: Windowed, augment: Windowed, fraction: Windowed, event: Event
) -> None:
    conditions = Conditions((deficit,), (weight_decay,), (augment,), (fraction,), (event,))
    again = Conditions.parse(**conditions.texts())
    assert again == conditions
    assert again.texts() == conditions.texts()


pieces = st.sampled_from(
    ["blur", "lr_scale", "crop", "+", "none", "(", ")", ":", ",", "-", "0", "40", "1e999", "٣", ".", "a", " ", "\n"]
)


@settings(deadline=None, max_examples=200)
@given(text=st.text() | st.lists(pieces, max_size=10).map("".join))
@example(text="9" * 5000)
@example(text="blur(" + "9" * 5000 + ")")
@example(text="a:b(" + "9" * 5000 + ")")
@example(text="blur:" + "9" * 5000 + "-")
def test_any_text_parses_or_raises_a_value_error_that_shows_it(text: str) -> None:
    for field in EXAMPLES:
        parsed, error = attempt(field, text)
        assert (parsed is None) == (repr(text) in error)
        assert parsed is None or Conditions.parse(**parsed.texts()) == parsed


def attempt(field: str, text: str) -> tuple[Conditions | None, str]:
    """The conditions or the message; anything but a ValueError escapes."""
    try:
        return Conditions.parse(**{field: [text]}), ""
    except ValueError as error:
        return None, str(error)


@settings(deadline=None, max_examples=100)
@given(first=windows(), second=windows())
def test_overlap_is_the_epochs_in_both_windows(first: Window, second: Window) -> None:
    shared = first.overlap(second)
    assert shared == second.overlap(first)
    edges = {
        edge + shift for window in (first, second) for edge in (window.start, window.stop or 0) for shift in (-1, 0, 1)
    }
    for epoch in edges:
        assert (epoch in first and epoch in second) == (shared is not None and epoch in shared)


@settings(deadline=None, max_examples=60)
@given(target=targets, arguments=arguments, window=windows())
def test_custom_text_form_parses_back(target: str, arguments: list[int | float], window: Window) -> None:
    conditions = Conditions((Windowed(CustomDeficit(target, tuple(arguments)), window),))
    assert Conditions.parse(**conditions.texts()) == conditions


def test_float_arguments_keep_every_bit() -> None:
    value = math.nextafter(0.1, 1)
    text = str(CustomDeficit("my:rotate", (value, 2)))
    assert Conditions.parse(deficits=[text]).deficits[0].value == CustomDeficit("my:rotate", (value, 2))
