"""Objects, types, shapes and names that no run file has: changes of a good one."""

from collections.abc import Callable

import h5py
import numpy as np

Change = Callable[[h5py.File], object]
OBJECT = "not an array"


# ---------------------------------------------------------------- objects that no file of ours has


def external_storage(file):
    file.create_dataset("stolen", shape=(6,), dtype="f8", external=[("secret.txt", 0, 48)])


def external_link(file):
    file["stolen"] = h5py.ExternalLink("secret.txt", "/x")


def external_link_to_a_device(file):
    file["stolen"] = h5py.ExternalLink("/dev/zero", "/x")


def soft_link(file):
    file["alias"] = h5py.SoftLink("/epoch")


def soft_link_to_itself(file):
    file["round"] = h5py.SoftLink("/round")


def dangling_link(file):
    file["alias"] = h5py.SoftLink("/nowhere")


def virtual(file):
    sources = h5py.VirtualLayout(shape=(6,), dtype="f8")
    sources[:] = h5py.VirtualSource("other.h5", "epoch", shape=(6,))
    file.create_virtual_dataset("stolen", sources)


def virtual_of_itself(file):
    sources = h5py.VirtualLayout(shape=(6,), dtype="f8")
    sources[:] = h5py.VirtualSource(".", "stolen", shape=(6,))
    file.create_virtual_dataset("stolen", sources)


def cycle(file):
    file["again"] = file["/"]


def group(file):
    file.create_group("inner")


def deep_groups(file):
    place = file
    for _ in range(300):
        place = place.create_group("g")


def named_type(file):
    file["kind"] = np.dtype("f8")


def many_objects(file):
    for number in range(2_001):
        file.create_dataset(f"a{number}", shape=(6,), dtype="f8")


# ---------------------------------------------------------------- types, shapes and names


def ragged(file):
    file.create_dataset("ragged", shape=(6,), dtype=h5py.vlen_dtype(np.float64))


def references(file):
    file.create_dataset("references", data=[file["epoch"].ref] * 6, dtype=h5py.ref_dtype)


def region_references(file):
    file.create_dataset("references", data=[file["epoch"].regionref[:2]] * 6, dtype=h5py.regionref_dtype)


def compound(file):
    file.create_dataset("compound", shape=(6,), dtype=[("a", "f8"), ("b", "i8")])


def enumeration(file):
    file["flags"] = np.zeros(6, bool)


def opaque(file):
    file.create_dataset("blob", shape=(6,), dtype=np.dtype("V16"))


def complex_numbers(file):
    file["loss"] = np.zeros(6, complex)


def array_type(file):
    file.create_dataset("loss", shape=(6,), dtype=np.dtype(("f8", (1000,))))


def text(file):
    file["notes"] = ["x"] * 6


def single_precision(file):
    file["loss"] = np.zeros(6, np.float32)


def big_endian(file):
    file.create_dataset("loss", data=np.zeros(6), dtype=">f8")


def other_shape(file):
    file["loss"] = np.zeros(7)


def three_axes(file):
    file["loss"] = np.zeros((6, 8, 2))


def scalar(file):
    file["loss"] = 1.0


def no_space(file):
    file["loss"] = h5py.Empty("f8")


def bad_name(file):
    file["loss "] = np.zeros(6)


def long_name(file):
    file["a" * 60_000] = np.zeros(6)


def name_of_control_characters(file):
    file["\x1b[2J\x07"] = np.zeros(6)


def name_from_right_to_left(file):
    file["\u202egnp.exe"] = np.zeros(6)


def missing(file):
    del file["step"]


def fixed_length_names(file):
    del file["layer"]
    file["layer"] = np.array([b"x"] * 8)


def no_layers(file):
    del file["layer"]
    file.create_dataset("layer", shape=(0,), dtype=h5py.string_dtype())


def names_that_are_not_utf8(file):
    del file["layer"]
    file.create_dataset("layer", data=[b"\xff\xfe"] * 8, dtype=h5py.string_dtype("ascii"))
