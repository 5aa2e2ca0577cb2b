"""Hostile HDF5 as command lines: run files, study files, and other programs' files."""

import io
import os
import pickle
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import study_records
from reliability import hdf5_contents as contents
from reliability import hdf5_objects as objects
from reliability.corpus import SECRET, Case
from reliability.hdf5_contents import CHECKSUM, SCHEMA
from reliability.hdf5_objects import OBJECT, Change
from reliability.hdf5_studies import STUDY_CHANGES
from trajectories import made_up

from fisherkit.recording import study_to_bytes, to_bytes

RUN = to_bytes(made_up(rows=6, layers=8))
STUDY = study_to_bytes(study_records.removal(deficits=("blur",), times=(2, 4), seeds=2, clean=4))

RUN_CHANGES: list[tuple[Change, str]] = [
    (objects.external_storage, "run.h5, stolen: is not a run file of fisherkit: data in another file"),
    (objects.external_link, "stolen: .* a link to another place"),
    (objects.external_link_to_a_device, "stolen: .* a link to another place"),
    (objects.soft_link, "alias: .* a link to another place"),
    (objects.soft_link_to_itself, "round: .* a link to another place"),
    (objects.dangling_link, "alias: .* a link to another place"),
    (objects.virtual, "stolen: .* a virtual array"),
    (objects.virtual_of_itself, "stolen: .* a virtual array"),
    (objects.cycle, f"again: .* {OBJECT}"),
    (objects.group, f"inner: .* {OBJECT}"),
    (objects.deep_groups, f"g: .* {OBJECT}"),
    (objects.named_type, f"kind: .* {OBJECT}"),
    (objects.many_objects, "it holds too many objects"),
    (objects.ragged, "ragged: .* the type object"),
    (objects.references, "references: .* the type object"),
    (objects.region_references, "references: .* the type object"),
    (objects.compound, "compound: .* the type"),
    (objects.enumeration, "flags: .* the type bool"),
    (objects.opaque, "blob: .* the type"),
    (objects.complex_numbers, "loss: .* the type complex128"),
    (objects.array_type, "loss: .* the type"),
    (objects.text, "notes: .* the type object"),
    (objects.single_precision, "loss: .* the type float32"),
    (objects.big_endian, "loss: .* the type >f8"),
    (objects.other_shape, r"loss: .* the shape \(7,\)"),
    (objects.three_axes, r"loss: .* the shape \(6, 8, 2\)"),
    (objects.scalar, r"loss: .* the shape \(\)"),
    (objects.no_space, "loss: .* the shape None"),
    (objects.bad_name, "loss : .* a name that no run has"),
    (objects.long_name, "a name that no run has"),
    (objects.name_of_control_characters, "a name that no run has"),
    (objects.name_from_right_to_left, "a name that no run has"),
    (objects.missing, "it holds no step"),
    (objects.fixed_length_names, "layer: .* names that are not text"),
    (objects.no_layers, "its layers and rows are not one axis each"),
    (objects.names_that_are_not_utf8, "layer: is damaged"),
    (contents.unknown_filter, "loss: .* an unknown compression"),
    (contents.scale_offset_filter, "loss: .* an unknown compression"),
    (contents.large_chunk, "loss: .* too large chunks"),
    (contents.huge_claim, r"claims [0-9,]+ bytes of data in a file of [0-9,]+"),
    (contents.absurd_claim, r"claims [0-9,]+ bytes of data in a file of [0-9,]+"),
    (contents.chunk_that_inflates, "run.h5, loss: is damaged|cannot be read: it takes too"),
    (contents.chunk_that_inflates_again_and_again, "run.h5, loss: is damaged|cannot be read: it takes too"),
    (contents.chunk_of_noise, "loss: is damaged"),
    (contents.one_text_in_many_places, "layer: is damaged .*(letters of text|Memory)|cannot be read: it takes too"),
    (contents.text_outside_the_file, "layer: is damaged"),
    (contents.no_schema, SCHEMA),
    (contents.newer, r"has schema 2; fisherkit .* reads up to 1. It needs fisherkit 9.1 or newer"),
    (contents.newer_by_a_liar, "It needs a newer fisherkit"),
    (contents.schema_by_reference, SCHEMA),
    (contents.set_attribute("schema_version", "1"), SCHEMA),
    (contents.set_attribute("schema_version", 1.0), SCHEMA),
    (contents.set_attribute("schema_version", -1), SCHEMA),
    (contents.set_attribute("schema_version", np.uint64(2**64 - 1)), "has schema 18446744073709551615"),
    (contents.set_attribute("schema_version", np.ones(3, int)), SCHEMA),
    (contents.set_attribute("content", "study"), "whole study; read it with fisherkit.read_study"),
    (contents.no_checksum, CHECKSUM),
    (contents.set_attribute("sha256", "0" * 64), CHECKSUM),
    (contents.set_attribute("sha256", 0), CHECKSUM),
    (contents.set_attribute("seed", 7), CHECKSUM),
    (contents.set_attribute("json_attributes", "seed nowhere"), "is damaged"),
    (contents.many_attributes, "it holds too many objects"),
    (contents.deep_json, "is damaged"),
    (partial(contents.resealed, configuration="1" * 5_000), "is damaged"),
    (partial(contents.resealed, configuration="3"), "attribute configuration must be a dictionary; got 3"),
    (partial(contents.resealed, engines="[]"), "attribute engines must be a dictionary"),
    (partial(contents.resealed, deficit_windows='[{"text": 3}]'), "attribute deficit_windows must be"),
    (
        partial(contents.resealed, deficit_windows='[{"text": "a", "start": "b", "stop": null}]'),
        "deficit_windows must be",
    ),
    (partial(contents.resealed, deficit_windows='[{"text": "a", "start": 1e308, "stop": 1e309}]'), "must be JSON-able"),
    (contents.steps_back, "step must increase from row to row"),
    (contents.epochs_of_nan, "epoch must be finite"),
    (contents.same_layers, r"layers must be at least one name, each once; got \['x'\]"),
    (contents.empty_layer, "layers must be names of 1 to 1000"),
    (contents.long_layers, "layers must be names of 1 to 1000"),
]

# the checksum is right and the structure too: whatever these say, the commands must not stumble over it
ODD_BUT_WHOLE: dict[str, dict[str, Any]] = {
    "probes that are numbers": {"probes": '{"train": 3}'},
    "probes in a list": {"probes": "[[], {}]"},
    "a spectrum that was not recorded": {"spectrum": '{"k": 3}'},
    "engines that are lists": {"engines": '{"conv1": [1, 2], "bn1": {}}'},
    "engines that are no text": {"engines": '{"conv1": 1, "bn1": "a"}'},
    "a model of control characters": {"configuration": '{"model": "\\u001b[2J\\u0007", "data": "\\u202e"}'},
    "a configuration of nulls": {"configuration": '{"model": null, "seed": null, "epochs": null}'},
    "a configuration of lists": {"configuration": '{"model": [[]], "seed": [1], "data": {"a": 1}}'},
    "a seed that is a dictionary": {"seed": "[]", "configuration": '{"seed": {"a": []}}'},
    "a window before the start": {"deficit_windows": '[{"text": "a", "start": -5, "stop": -7}]'},
    "a window of control characters": {"deficit_windows": '[{"text": "\\u001b[2J\\n", "start": 0, "stop": null}]'},
    "a window of mathematics": {"deficit_windows": '[{"text": "$\\\\frac{1}{$", "start": 0, "stop": 4}]'},
    "a schedule of numbers": {"schedule": "[1, 2]"},
    "numerics that are text": {"numerics": '{"threads": [], "cpu_capability": {}}'},
    "an estimator of a megabyte": {"estimator": "x" * 60_000},
    "an explosion in a list": {"exploded": "[1]"},
}
HOSTILE_LAYERS: dict[str, tuple[str, ...]] = {
    "layers of control characters": ("\x1b[2J\x07\r\n", *"abcdefg"),
    "layers from right to left": ("\u202egnp.exe\u2066", *"abcdefg"),
    "layers of mathematics": ("$\\frac{1}{0}$", "$", "$$", "\\input{secret.txt}", *"abcd"),
    "long layers": ("x" * 1_000, *"abcdefg"),
    "layers of markup": ("<script>alert(1)</script>", "%s%n", "{0}", "{x!r}", *"abcd"),
}


# ---------------------------------------------------------------- other files


def other_program(**arrays: Any) -> bytes:
    """An HDF5 file with these arrays, groups with slashes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def matlab() -> bytes:
    """MATLAB 7.3 puts 512 bytes before the HDF5."""
    return b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + other_program(x=np.ones((2, 2)))


def sqlite() -> bytes:
    base = sqlite3.connect(":memory:")
    base.execute("create table runs (loss real)")
    return base.serialize()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, epoch=np.zeros(3))
    return buffer.getvalue()


def large_heap() -> bytes:
    """Two bytes that keep HDF5 2.0 busy for ever, found by fuzzing: the size of the heap of texts."""
    place = RUN.index(b"GCOL") + 8
    return RUN[:place] + b"\x00\x80" + RUN[place + 2 :]


NOT_HDF5, DAMAGED = "is not a run file of fisherkit: it is not HDF5", "is damaged"
CONTENTS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "run.h5: is not a run file of fisherkit: it is empty"),
    ("text", b"epoch,loss\n0,2.3\n", NOT_HDF5),
    ("picture", b"\x89PNG\r\n\x1a\n" + bytes(100), NOT_HDF5),
    ("signature only", RUN[:8], DAMAGED),
    ("1000 bytes", RUN[:1000], DAMAGED),
    ("half", RUN[: len(RUN) // 2], DAMAGED),
    ("last byte missing", RUN[:-1], DAMAGED),
    ("zeros", RUN[:48] + bytes(len(RUN) - 48), DAMAGED),
    ("signature and noise", RUN[:8] + np.random.default_rng(0).bytes(5000), DAMAGED),
    ("a superblock of the future", RUN[:8] + b"\xff" + RUN[9:], DAMAGED),
    ("a heap that is larger than it is", large_heap(), "cannot be read: it takes too long|is damaged"),
    ("twice", RUN + RUN, ""),
    ("pickle", pickle.dumps({"epoch": [0]}), NOT_HDF5),
    ("npz", npz(), NOT_HDF5),
    ("sqlite", sqlite(), NOT_HDF5),
    ("matlab 7.3", matlab(), NOT_HDF5),
    ("shell script", b"#!/bin/sh\ntouch executed\n", NOT_HDF5),
    ("another program's array", other_program(weights=np.ones(3)), SCHEMA),
    ("Keras", other_program(**{"model_weights/dense/kernel:0": np.ones((2, 2))}), SCHEMA),
    ("AnnData", other_program(**{"X": np.ones((2, 2)), "obs/index": ["a"], "var/index": ["b"]}), SCHEMA),
    ("PyTables", other_program(**{"table/data": np.zeros(2, [("a", "f8")])}), SCHEMA),
    ("no objects", other_program(), SCHEMA),
]


def changed(data: bytes, change: Change) -> bytes:
    """An HDF5 file after a change by h5py."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


# ---------------------------------------------------------------- as command lines


def with_run(data: bytes) -> Callable[[Path], object]:
    """Writes the run file, beside what it may not touch."""

    def make(folder: Path) -> None:
        (folder / "secret.txt").write_text(SECRET * 10)
        (folder / "run.h5").write_bytes(data)

    return make


def change_name(change: Change) -> str:
    """What it does, in a few words."""
    if isinstance(change, partial):
        return f"{change.func.__name__} {change.keywords}"[:60]
    return change.__name__.replace("_", " ").replace("<lambda>", "attribute")


def _changed_run(change: Change, data: bytes = RUN, name: str = "run.h5") -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / "secret.txt").write_text(SECRET * 10)
        (folder / name).write_bytes(changed(data, change))

    return make


def _special(kind: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = folder / "run.h5"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"link to itself": "run.h5", "link to nothing": "nowhere", "device": "/dev/zero"}[kind])

    return make


COMMANDS = (("show",), ("plot",), ("analyze",))
_FILE = "{}/run.h5"


def _run_cases() -> list[Case]:
    cases = []
    for number, (change, says) in enumerate(RUN_CHANGES):
        command = COMMANDS[number % 3]
        cases.append(
            Case(f"{number} {change_name(change)}", (*command, _FILE), _changed_run(change), says, file="run.h5")
        )
    for number, (name, data, says) in enumerate(CONTENTS):
        for command in (COMMANDS[number % 3], ("show", "--json")):
            status = 65 if says else 0
            cases.append(Case(f"{name}, {' '.join(command)}", (*command, _FILE), with_run(data), says, status))
    return cases


def _whole_cases() -> list[Case]:
    odd: dict[str, Change] = {
        name: partial(contents.resealed, **attributes) for name, attributes in ODD_BUT_WHOLE.items()
    }
    odd |= {name: partial(contents.resealed, layers=layers) for name, layers in HOSTILE_LAYERS.items()}
    return [
        Case(f"{name}, {' '.join(command)}", (*command, _FILE), _changed_run(change), status=0)
        for name, change in odd.items()
        for command in (*COMMANDS, ("plot", "--curves"), ("show", "--json"))
    ]


def _study_cases() -> list[Case]:
    return [
        Case(
            f"study {number} {change_name(change)}, {command}",
            (command, "{}/study.h5"),
            _changed_run(change, STUDY, "study.h5"),
            says,
            file="study.h5",
        )
        for number, (change, says) in enumerate(STUDY_CHANGES)
        for command in ("show", "analyze")
    ]


def _special_cases() -> list[Case]:
    kinds = ("pipe", "folder", "link to itself", "link to nothing", "device")
    return [Case(f"{kind}, {command}", (command, _FILE), _special(kind), "run.h5", status=2 if command != "x" else 65)
            for kind in kinds for command in ("show", "plot", "analyze")]  # fmt: skip


CASES = [*_run_cases(), *_whole_cases(), *_study_cases(), *_special_cases()]
