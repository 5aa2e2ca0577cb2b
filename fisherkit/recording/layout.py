"""The layout of a run file: names, types, units, the coding of attributes, and the checksum over it all.

Dimensions `time` (one per recorded row, unlimited) and `layer`. Variables are float64 [time, layer], series
[time], `parameters` int64 [layer], `layer` the names as variable-length UTF-8. Every axis carries its
dimension scale, so that xarray, netCDF and HDF5 tools know the axes by name.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

import fisherkit

SCHEMA_VERSION = 1
STUDY_SCHEMA_VERSION = 1
STUDY_CONTENT = "study"  # the attribute `content` of a study file
CONVENTIONS = "CF-1.11"
# how netCDF marks a dimension that has no variable of its own; the length follows, 10 wide
NOT_A_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
RESERVED_NAMES = frozenset({"time", "layer", "parameters"})
RESERVED_ATTRIBUTES = frozenset({"Conventions", "json_attributes", "sha256"})
REQUIRED_SERIES = ("epoch", "step")
COORDINATES = ("epoch", "step", "deficit_active")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
EIGENVALUE = "fisher_eigenvalue_"  # and its number: 1 is the largest
_EIGENVALUE = re.compile(EIGENVALUE + "([0-9]+)")
_LONGEST_LAYER = 1000
_DESCRIPTIONS = {
    "parameters": ("number of parameters of the layer", "1"),
    "layer": ("module path of the layer", None),
    "weight_norm": ("Euclidean norm of the parameters of the layer", "1"),
    "epoch": ("completed passes over the training data", "1"),
    "step": ("completed optimiser steps", "1"),
    "train_loss": ("mean loss over the epoch's training images", "nats"),
    "train_accuracy": ("share of the epoch's training images classified right", "1"),
    "test_loss": ("mean loss on the test images", "nats"),
    "test_accuracy": ("share of the test images classified right", "1"),
    "entropy": ("mean entropy of the predictive distribution on the probe images", "nats"),
    "deficit_active": ("whether a deficit was on when the row was recorded", None),
    "lr": ("learning rate", "1"),
    "weight_decay": ("weight decay", "1"),
    "fisher_spectrum_trace": ("trace of the Fisher information on the images of the spectrum of the layer", "nats^2"),
    "fisher_effective_rank": ("effective rank of the Fisher information of the layer", "1"),
    "fisher_effective_rank_corrected": ("effective rank, corrected for the number of images, of the layer", "1"),
    "fisher_effective_rank_stderr": ("standard error of the corrected effective rank of the layer", "1"),
    "fisher_penalty": ("mean squared norm of the batches' mean score, labels drawn from the model", "nats^2"),
    "gradient_norm_old": ("norm of the loss gradient at the epoch's start on images of the phase before", "nats"),
    "gradient_norm_new": ("norm of the loss gradient at the epoch's start on images new in this phase", "nats"),
    "elapsed_s": ("time since the run started", "s"),
}
_FISHER = {"fisher_true": "true", "fisher_empirical": "empirical"}


def check_name(name: str, kind: str) -> None:
    """Refuse a variable, series or attribute name that other tools could not use as an identifier."""
    reserved = RESERVED_ATTRIBUTES if kind == "attribute" else RESERVED_NAMES
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind} name must be 1 to 64 letters, digits and _, a letter first; got {name!r}.")
    if name in reserved:
        raise ValueError(f"{kind} name must not be one of {', '.join(sorted(reserved))}; got {name!r}.")


def check_labels(labels: Iterable[str], kind: str = "layers") -> tuple[str, ...]:
    """The names of layers (or arms) as a tuple: different, not empty, and text that a file can hold."""
    names = tuple(labels)
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_LAYER or not _is_plain_text(name):
            raise ValueError(f"{kind} must be names of 1 to {_LONGEST_LAYER} UTF-8 characters; got {name!r}.")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated or not names:
        raise ValueError(f"{kind} must be at least one name, each once; got {repeated or names!r}.")
    return names


def series_dtype(name: str) -> np.dtype[Any]:
    """int64 for `step`, uint8 for flags (`..._active`), float64 for everything else."""
    if name == "step":
        return np.dtype("<i8")
    return np.dtype("u1") if name.endswith("_active") else np.dtype("<f8")


def describe(name: str) -> dict[str, Any]:
    """The CF attributes of an array: `long_name`, `units` where they are known, the meaning of a flag."""
    long_name, units = _DESCRIPTIONS.get(name) or _describe_fisher(name)
    attributes: dict[str, Any] = {"long_name": long_name}
    if units:
        attributes["units"] = units
    if name.endswith("_active"):
        attributes |= {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "off on"}
    return attributes


def eigenvalue_names(names: Iterable[str]) -> list[str]:
    """Those of the variables that are eigenvalues, the largest first."""
    numbered = [(int(match[1]), name) for name in names if (match := _EIGENVALUE.fullmatch(name))]
    return [name for _, name in sorted(numbered)]


def _describe_entropy(name: str) -> tuple[str, str | None]:
    long_name, units = _DESCRIPTIONS["entropy"]
    return f"{long_name} ({name.removeprefix('entropy_').replace('_', ' ')})", units


def _describe_fisher(name: str) -> tuple[str, str | None]:
    if match := _EIGENVALUE.fullmatch(name):
        return f"eigenvalue {match[1]} (1 is the largest) of the Fisher information of the layer", "nats^2"
    for prefix, kind in _FISHER.items():
        if name == prefix or name.startswith(f"{prefix}_"):
            parts = [part for part in name[len(prefix) :].split("_") if part]
            error = "standard error of the " if "stderr" in parts else ""
            scope = "all layers together" if "total" in parts else "each layer"
            rest = " ".join(part for part in parts if part not in ("stderr", "total"))
            long_name = f"{error}trace of the {kind} Fisher information of {scope}"
            return long_name + (f" ({rest})" if rest else ""), "nats^2"
    return _describe_entropy(name) if name.startswith("entropy_") else (name.replace("_", " "), None)


def dimension_name(length: int) -> str:
    """The NAME that netCDF gives a dimension without a variable."""
    return f"{NOT_A_VARIABLE}{length:10d}"


def versions() -> dict[str, Any]:
    """The attributes that say what a file was written by."""
    return {"schema_version": SCHEMA_VERSION, "fisherkit_version": fisherkit.__version__}


def normalise_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as JSON gives them back (tuples become lists), so that writing and reading change nothing.

    Raises:
        ValueError: A value that JSON cannot hold, naming the attribute.
    """
    normal = {}
    for name, value in attributes.items():
        check_name(name, "attribute")
        try:
            normal[name] = json.loads(json.dumps(value, sort_keys=True, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"attribute {name} must be JSON-able; got {value!r} ({error}).") from None
    return normal


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Refuse values of well-known attributes that readers could make nothing of."""
    for name in ("configuration", "engines", "seeds"):
        if not isinstance(attributes.get(name, {}), dict | None):
            raise ValueError(f"attribute {name} must be a dictionary; got {attributes[name]!r}.")
    windows = attributes.get("deficit_windows")
    if windows is None:
        return
    if not isinstance(windows, list) or not all(isinstance(w, dict) and _is_window(w) for w in windows):
        raise ValueError(f"attribute deficit_windows must be a list of text, start and stop each; got {windows!r}.")


def _is_window(window: Mapping[str, Any]) -> bool:
    start, stop = window.get("start"), window.get("stop", "missing")
    numbers = all(isinstance(end, int | float) for end in (start, 0 if stop is None else stop))
    return isinstance(window.get("text"), str) and numbers


def window_text(window: Mapping[str, Any]) -> str:
    """A window of `deficit_windows` as it was asked for: "blur(4):0-40", "noise:20-"."""
    stop = "" if window["stop"] is None else f"{window['stop']:g}"
    return f"{window['text']}:{window['start']:g}-{stop}"


def encode_attributes(
    attributes: Mapping[str, Any], text: Callable[[str], str] | None = None
) -> dict[str, str | int | float]:
    """Normalised attributes as HDF5 scalars: text and numbers plain, everything else as JSON text.

    `json_attributes` names those that are JSON, separated by blanks. `text` gives the JSON text of the attribute of a
    name, where it is there already.
    """
    encoded: dict[str, str | int | float] = {}
    as_json = []
    for name, value in sorted(attributes.items()):
        if _is_plain(value):
            encoded[name] = value
        else:
            encoded[name] = text(name) if text else json.dumps(value, sort_keys=True, allow_nan=False)
            as_json.append(name)
    return encoded | {"json_attributes": " ".join(as_json)}


def decode_attributes(encoded: Mapping[str, str | int | float]) -> dict[str, Any]:
    """The inverse of `encode_attributes`; reserved attributes are left out."""
    as_json = frozenset(str(encoded.get("json_attributes", "")).split())
    return {
        name: json.loads(str(value)) if name in as_json else value
        for name, value in encoded.items()
        if name not in RESERVED_ATTRIBUTES
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) or (isinstance(value, str) and value != "" and _is_plain_text(value))


def plain_text(text: str) -> str:
    """The text without what HDF5 cannot hold."""
    return "".join(letter if _is_plain_text(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain_text(text: str) -> bool:
    """Whether HDF5 can hold it: no NUL, and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def digest(
    layers: tuple[str, ...],
    parameters: Int64[np.ndarray, " layer"],
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> str:
    """Sha256 (hex) over layer names, arrays by name (name, type, shape, bytes) and attributes as sorted JSON."""
    return digest_given(layers, parameters, arrays, json.dumps(dict(attributes), sort_keys=True))


def digest_given(
    layers: tuple[str, ...],
    parameters: Int64[np.ndarray, " layer"],
    arrays: Mapping[str, np.ndarray],
    attributes: str,
) -> str:
    """`digest`, given the sorted JSON of the attributes."""
    total = hashlib.sha256(f"[{json.dumps(list(layers))}, {attributes}]".encode())
    for name, array in sorted({**arrays, "parameters": parameters}.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
