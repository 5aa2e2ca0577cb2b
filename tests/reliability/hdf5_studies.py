"""What a study file does not hold: changes of a good one."""

from functools import partial
from typing import Any

import h5py
import numpy as np
from reliability.hdf5_contents import CHECKSUM, newer, set_attribute
from reliability.hdf5_objects import OBJECT, Change


def changed_number(file):
    file["final_test_accuracy"][0, 0] += 0.1


def changed_text(file):
    file["message"][1, 1] = "it was fine"


def study_without_state(file):
    del file["state"]


def study_with_fixed_length(file):
    del file["group"]
    file["group"] = np.array([b"x"] * file["arm"].shape[0])


def _lr(file, *, less: int = 0, more: tuple[int, ...] = (), dtype: Any = np.float64) -> None:
    """An array called lr, of a shape that is wrong by so much."""
    arms, seeds, rows = file["epoch"].shape
    file["lr"] = np.zeros((arms, seeds, rows - less, *more), dtype)


def study_with_a_link(file):
    file["lr"] = h5py.SoftLink("/epoch")


def study_with_an_external_link(file):
    file["lr"] = h5py.ExternalLink("secret.txt", "/epoch")


def study_with_external_storage(file):
    file.create_dataset("lr", shape=file["epoch"].shape, dtype="f8", external=[("secret.txt", 0, h5py.h5f.UNLIMITED)])


def study_with_a_group(file):
    file.create_group("lr")


def study_of_objects(file):
    for number in range(2_001):
        file.create_dataset(f"a{number}", shape=(1,), dtype="f8")


def study_of_many_runs(file):
    for axis, length in (("arm", 200), ("seed", 200)):
        kind = file[axis].dtype
        del file[axis]
        file.create_dataset(axis, shape=(length,), dtype=kind)


def study_of_long_labels(file):
    del file["arm"]
    file.create_dataset("arm", shape=(100_001,), dtype=h5py.string_dtype(), chunks=(1000,))


STUDY_CHANGES: list[tuple[Change, str]] = [
    (newer, r"has schema 2; fisherkit .* reads up to 1. It needs fisherkit 9.1 or newer"),
    (changed_number, CHECKSUM),
    (changed_text, CHECKSUM),
    (set_attribute("protocol", "window"), CHECKSUM),
    (study_without_state, "is not a study file of fisherkit: it holds no state"),
    (study_with_fixed_length, "study.h5, group: .* labels that are not text"),
    (partial(_lr, less=1), r"study.h5, lr: .* the shape \("),
    (partial(_lr, dtype=np.float32), "study.h5, lr: .* the type float32"),
    (partial(_lr, more=(3, 1)), r"study.h5, lr: .* the shape"),
    (study_with_a_link, "study.h5, lr: .* a link to another place"),
    (study_with_an_external_link, "study.h5, lr: .* a link to another place"),
    (study_with_external_storage, "study.h5, lr: .* data in another file"),
    (study_with_a_group, f"study.h5, lr: .* {OBJECT}"),
    (study_of_objects, "it holds too many objects"),
    (study_of_many_runs, "it has too many runs"),
    (study_of_long_labels, "its labels are not one axis each"),
]
