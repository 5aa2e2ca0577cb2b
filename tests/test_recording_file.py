"""The run file: round trips, and the tools that others open it with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import trajectories
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import made_up

from fisherkit.recording import Trajectory, from_bytes, read, to_bytes


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.h5"
    path.write_bytes(to_bytes(made_up()))
    return path


@pytest.mark.parametrize(
    "trajectory",
    [
        made_up(),
        made_up(rows=0),
        made_up(rows=1, layers=5),
        made_up(rows=2500, layers=6),
        Trajectory(("couche.é", "слой"), np.array([1, 2]), {}, {"epoch": np.array([]), "step": np.array([])}, {}),
    ],
    ids=["40 epochs", "no rows", "one row", "several chunks", "nothing but names"],
)
def test_round_trip(trajectory):
    again = from_bytes(to_bytes(trajectory))
    assert again.differences(trajectory, ignore=()) == []
    assert to_bytes(again) == to_bytes(trajectory)


texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8)
numbers = st.floats(width=64)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text("abc.0é", min_size=1, max_size=6), min_size=1, max_size=4, unique=True),
    rows=st.integers(0, 4),
    attributes=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), values, max_size=4),
    data=st.data(),
)
def test_round_trip_of_anything(names, rows, attributes, data):
    attributes = {f"x_{name}": value for name, value in attributes.items()}
    cells = data.draw(st.lists(numbers, min_size=rows * len(names), max_size=rows * len(names)))
    trajectory = Trajectory(
        tuple(names),
        np.arange(len(names)),
        {"fisher_true": np.array(cells).reshape(rows, len(names))},
        {"epoch": np.arange(rows) / 3, "step": np.arange(rows) * 7},
        attributes,
    )
    again = from_bytes(to_bytes(trajectory))
    assert again.differences(trajectory, ignore=()) == []
    assert again.attributes == trajectory.attributes


def test_bytes_are_the_same_in_another_process():
    code = "import sys; from trajectories import made_up; from fisherkit.recording import to_bytes;"
    code += "sys.stdout.buffer.write(to_bytes(made_up(rows=5)))"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(Path(trajectories.__file__).parent), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        assert done.stdout == to_bytes(made_up(rows=5))


def test_h5py_reads_names_units_and_attributes(run_file):
    with h5py.File(run_file) as file:
        trace = file["fisher_true"]
        assert trace.dtype == np.float64
        assert trace.fletcher32
        assert [trace.dims[axis][0].name for axis in (0, 1)] == ["/time", "/layer"]
        assert trace.attrs["units"] == "nats^2"
        assert trace.attrs["long_name"] == "trace of the true Fisher information of each layer"
        assert file["fisher_true_total_stderr"].attrs["long_name"].startswith("standard error of the trace")
        assert file["layer"].asstr()[-1] == "fc"
        assert file.attrs["Conventions"] == "CF-1.11"
        assert file.attrs["estimator"] == "propagated"
        assert file.attrs["seed"] == 0
        assert json.loads(file.attrs["configuration"])["model"] == "resnet18"
        assert "configuration" in file.attrs["json_attributes"].split()


def test_every_axis_has_its_scale_and_every_type_is_plain(run_file):
    with h5py.File(run_file) as file:
        for name, dataset in file.items():
            if name in ("time", "layer"):
                continue
            assert all(len(dataset.dims[axis]) == 1 for axis in range(dataset.ndim)), name
            assert dataset.dtype.str in ("<f8", "<i8", "|u1"), name
            assert dataset.fletcher32, name


def test_superblock_is_the_one_that_older_tools_read(run_file):
    assert run_file.read_bytes()[8] == 2


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_reads_it_labelled(run_file, engine):
    xarray = pytest.importorskip("xarray")
    expected = made_up()
    with xarray.open_dataset(run_file, engine=engine) as dataset:
        assert dict(dataset.sizes) == {"time": 41, "layer": 20}
        assert {"epoch", "step", "deficit_active", "layer"} == set(dataset.coords)
        assert np.array_equal(dataset.fisher_true.sel(layer="fc"), expected.variables["fisher_true"][:, -1])
        xarray.testing.assert_equal(dataset, expected.to_xarray())


def test_to_xarray_is_what_xarray_opens(run_file):
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(run_file, engine="h5netcdf") as dataset:
        opened = dataset.load()
    for only_in_the_file in ("sha256", "Conventions"):
        opened.attrs.pop(only_in_the_file)
    made = read(run_file).to_xarray()
    as_text = made.layer.astype(str)
    xarray.testing.assert_identical(opened.assign_coords(layer=as_text), made.assign_coords(layer=as_text))


def test_to_xarray_without_xarray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fisherkit\[xarray\]'"):
        made_up(rows=2).to_xarray()


def test_netcdf4_reads_it(run_file):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(run_file) as dataset:
        assert dataset.dimensions["time"].isunlimited()
        assert len(dataset.dimensions["time"]) == 41
        assert dataset["fisher_true"].dimensions == ("time", "layer")
        assert dataset["layer"][0] == "conv1"
        assert np.array_equal(dataset["fisher_true"][:], made_up().variables["fisher_true"])
        assert dataset.estimator == "propagated"


@pytest.mark.parametrize("command", ["ncdump", "h5dump"])
def test_command_line_tools_read_it(run_file, command):
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    shown = subprocess.run([command, run_file], capture_output=True, text=True, check=True).stdout
    assert "fisher_true" in shown
    assert '"layer4.1.conv1"' in shown
