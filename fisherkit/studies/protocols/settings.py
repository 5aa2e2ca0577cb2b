"""Options of a run as a file writes them: checked, and as `specify` takes them."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from fisherkit.studies.protocols.base import LISTS
from fisherkit.studies.specification import RunSpecification

# None is an option left out; else what `specify` takes
Setting = Any

LENGTHS = ("epochs", "clean_epochs")
_TEXTS = (*LISTS, "probe", "model_option")  # one text or several
_MACHINE = ("device", "threads")  # the command line has them, whether or not they were typed
_NOT_HERE = ("model_options", *_MACHINE)
_KINDS: Mapping[str, Any] = {
    **{name: field.annotation for name, field in RunSpecification.model_fields.items() if name not in _NOT_HERE},
    **dict.fromkeys(LENGTHS, Annotated[int, Field(ge=1)]),
    **dict.fromkeys(_TEXTS, list[str]),
}
# of these, being left out means that there is none
_OFF = ("deficit", "fraction", "event", "fisher_penalty", "stop_accuracy", "held_out", "spectrum")
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read_setting(where: str, name: str, value: Any) -> Setting:
    """The value of an option; "" is an option left out, and a number will do where a text is wanted.

    Raises:
        ValueError: There is no such option, or its value has another type; the message begins with `where`.
    """
    if name in _MACHINE:
        raise ValueError(f"{where} is of the machine; give it on the command line, as --{name}.")
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{where} is no option of a run; the options are {', '.join(sorted(_KINDS))}.{hint}")
    if value == "":
        return None
    wanted = _as_texts(name, value)
    try:
        checked = TypeAdapter(_KINDS[name]).validate_python(wanted, strict=True)
    except ValidationError as error:
        raise ValueError(f"{where} must be {_kind(name)}; got {value!r}.") from error
    if name == "model_option":
        return tuple(_named(where, text) for text in checked)
    return tuple(checked) if name in _TEXTS else checked


def for_specify(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The settings under the names that `specify` has, without those left out."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "model_option" in given:
        given["model_options"] = dict(given.pop("model_option"))
    return given


def shown(name: str, setting: Setting) -> str:
    """The setting of an option in a label."""
    if setting is None:
        return "none" if name in _OFF else "default"
    if isinstance(setting, tuple):
        return "+".join("=".join(part) if isinstance(part, tuple) else part for part in setting)
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def explained(error: ValueError) -> str:
    """The message of an error; of pydantic's, one sentence for each option."""
    if not isinstance(error, ValidationError):
        return str(error)
    found: Sequence[Any] = error.errors()
    return " ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}; got {one['input']!r}." for one in found)


def _as_texts(name: str, value: Any) -> Any:
    """Numbers as texts where texts are wanted, such as a width of 16; one text as a list where several may be given."""
    if name not in _TEXTS and str not in (_KINDS[name], *_flat(_KINDS[name])):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [repr(part) if type(part) in (int, float) else part for part in parts]
    return texts if name in _TEXTS or isinstance(value, list) else texts[0]


def _named(where: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{where} must be NAME=VALUE; got {text!r}.")
    return name, value


def _kind(name: str) -> str:
    """What a value of the option is, in words."""
    if name in LENGTHS:
        return "a whole number >= 1"
    if name in _TEXTS:
        return "a text or a list of texts"
    annotation = _KINDS[name]
    plain = [kind for kind in (annotation, *_flat(annotation)) if kind in _NAMES]
    return _NAMES[plain[0]]


def _flat(annotation: Any) -> list[Any]:
    """The types within an annotation, such as int in `Annotated[int, ...] | None`."""
    parts = get_args(annotation)
    return [inner for part in parts for inner in (part, *_flat(part)) if isinstance(inner, type)]
