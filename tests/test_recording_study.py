"""The study file: round trips, the tools that others open it with, foreign and damaged files."""

import dataclasses
import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import study_records
from reliability.corpus_hdf5 import change_name
from reliability.hdf5_studies import STUDY_CHANGES
from study_records import arm, removal, run, trajectory

import fisherkit
from fisherkit.errors import UnreadableFile
from fisherkit.recording import ArmRecord, RunRecord, StudyRecord, read_study, study_to_bytes, to_bytes
from fisherkit.recording.study_file import study_from_bytes

NAN = float("nan")


def incomplete() -> StudyRecord:
    """Every state, two models, seeds that differ between arms, runs of other lengths."""
    runs = {
        0: run(20, 0.7, epochs=8, layers=10),
        1: run(21, None, state="exploded", message="loss inf at step 7", layers=10),
        7: run(22, state="failed", message="außer Speicher\0"),
        9: run(23, state="missing"),
    }
    unfinished = run(30, state="unfinished", message="stopped after 2 of 20 epochs")
    arms = (
        arm(1, "control", "control", NAN, 0.8, control=True, seeds=2, epochs=12),
        ArmRecord("blur until epoch 8", "blur", 8.0, False, runs),
        ArmRecord("nichts: Größe 0", "blur", 9.0, False, {0: unfinished}),
    )
    return StudyRecord("removal", "deficit removed at epoch", arms, {"arms": [8, None], "seeds": 2}, {"command": "x"})


def nothing() -> StudyRecord:
    """Planned, and no run of it started."""
    return StudyRecord("custom", "arm", (ArmRecord("a", "g", NAN, True, {0: run(0, state="missing")}),), {})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.h5"
    path.write_bytes(study_to_bytes(incomplete()))
    return path


RECORDS = {"incomplete": incomplete, "no run": nothing, **study_records.PROTOCOLS}


@pytest.mark.parametrize("make", RECORDS.values(), ids=RECORDS)
def test_round_trip(make):
    record = make()
    data = study_to_bytes(record)
    again = study_from_bytes(data)
    assert record.differences(again) == []
    assert study_to_bytes(again) == data


def test_every_difference_is_named():
    record = removal(seeds=2)
    control = record.arms[0]
    other = {**control.runs, 1: dataclasses.replace(control.runs[1], final={"test_accuracy": 0.1}, identity="b")}
    changed = dataclasses.replace(
        record,
        axis="t",
        arms=(dataclasses.replace(control, value=3.0, control=False, runs=other), *record.arms[1:]),
    )
    found = record.differences(changed)
    assert "axis: 'deficit removed at epoch' and 't'" in found
    assert "control: value: 0.0 and 3.0" in found
    assert "control: control: True and False" in found
    assert "control: seed 1: identity: '0000000000000001' and 'b'" in found
    assert "control: seed 1: final_test_accuracy: 0.805 and 0.1" in found
    assert "control: seed 1: final_train_accuracy: 0.99 and nan" in found
    fewer = dataclasses.replace(control, runs={0: control.runs[0]})
    assert record.differences(dataclasses.replace(record, arms=(fewer, *record.arms[1:]))) == [
        "control: seeds: [0, 1] and [0]"
    ]
    assert record.differences(dataclasses.replace(record, arms=record.arms[1:])) == ["arms: other labels"]


def test_the_run_of_the_file_is_the_run_without_schedule_and_eigenvalues():
    full = trajectory(5)
    eigenvalues = {"fisher_eigenvalue_1": full.variables["fisher_true"]}
    full = dataclasses.replace(full, variables={**full.variables, **eigenvalues})
    record = RunRecord("a", {}, "finished", trajectory=full)
    again = study_from_bytes(study_to_bytes(StudyRecord("p", "x", (ArmRecord("a", "g", 1.0, False, {3: record}),), {})))
    found = again.arm("a").runs[3].trajectory
    expected = dataclasses.replace(
        full,
        variables={name: array for name, array in full.variables.items() if name != "fisher_eigenvalue_1"},
        attributes={name: value for name, value in full.attributes.items() if name != "schedule"},
    )
    assert found.differences(expected, ignore=()) == []
    assert found.series["step"].dtype == np.int64
    assert found.series["deficit_active"].dtype == np.uint8


def test_bytes_are_the_same_in_another_process(tmp_path):
    code = "import sys; sys.path[:0] = sys.argv[2:]; from study_records import window; "
    code += "from fisherkit.recording import study_to_bytes; open(sys.argv[1], 'wb').write(study_to_bytes(window()))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s"), *sys.path], check=True)
    assert (tmp_path / "s").read_bytes() == study_to_bytes(study_records.window())


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_it(path, engine):
    xarray = pytest.importorskip("xarray")
    record = incomplete()
    with xarray.open_dataset(path, engine=engine) as data:
        assert dict(data.sizes) == {"arm": 3, "seed": 4, "time": 13, "layer": 20}
        assert data.arm.values.tolist() == ["control", "blur until epoch 8", "nichts: Größe 0"]
        assert data.seed.values.tolist() == [0, 1, 7, 9]
        assert set(data.coords) == {"arm", "seed", "layer", "epoch", "step", "value", "group", "control"}
        trace = data.fisher_true.sel(arm="control", seed=1, layer="fc")
        expected = record.arms[0].runs[1].trajectory.variables["fisher_true"][:, -1]
        np.testing.assert_array_equal(trace.values, expected)
        np.testing.assert_array_equal(trace.epoch.values, np.arange(13))
        short = data.sel(arm="blur until epoch 8", seed=0)
        assert np.isfinite(short.test_accuracy.values).sum() == 9
        assert np.isnan(short.fisher_true.values[9:]).all()
        assert np.isnan(short.epoch.values[9:]).all()
        assert short.rows.item() == 9
        assert data.state.values.tolist()[1] == ["finished", "exploded", "failed", "missing"]
        assert data.state.values.tolist()[0] == ["finished", "finished", "", ""]
        assert data.message.sel(arm="blur until epoch 8", seed=7).item() == "außer Speicher\N{REPLACEMENT CHARACTER}"
        assert data.final_test_accuracy.sel(arm="control").values[:2].tolist() == [0.805, 0.795]
        assert json.loads(data.attrs["options"]) == {"arms": [8, None], "seeds": 2}
        assert data.fisher_true.attrs["units"] == "nats^2"
        assert json.loads(data.specification.values[0, 0])["model"] == "resnet18"


def test_layers_of_another_model_are_missing_not_zero(path):
    with h5py.File(path) as file:
        layers = file["layer"].asstr()[()].tolist()
        own = incomplete().arms[1].runs[0].trajectory.layers
        for name, place, count in zip(layers, file["layer_index"][1], file["parameters"][1], strict=True):
            assert place == (own.index(name) if name in own else -1)
            assert (count == -1) == (name not in own)
        assert (file["layer_index"][2] == -1).all()


@pytest.mark.parametrize("make", [incomplete, nothing])
def test_netcdf_and_ncdump_open_it(tmp_path, make):
    netcdf = pytest.importorskip("netCDF4")
    path = tmp_path / "study.h5"
    path.write_bytes(study_to_bytes(make()))
    with netcdf.Dataset(path) as file:
        assert list(file["arm"][:]) == [arm.label for arm in make().arms]
        assert file["fisher_true" if "fisher_true" in file.variables else "epoch"].dimensions[:3] == (
            "arm",
            "seed",
            "time",
        )
    if shutil.which("ncdump"):
        done = subprocess.run(["ncdump", str(path)], capture_output=True, text=True, check=True)
        assert "final_" in done.stdout or make is nothing


def test_every_axis_has_its_scale_and_texts_have_variable_length(path):
    with h5py.File(path) as file:
        for name, dataset in file.items():
            if name not in ("arm", "seed", "time", "layer"):
                assert all(len(dataset.dims[axis]) == 1 for axis in range(dataset.ndim)), name
            kind = h5py.check_string_dtype(dataset.dtype)
            assert kind is None or (kind.length is None and kind.encoding == "utf-8")
            assert kind is not None or dataset.dtype.str in ("<f8", "<i8", "|u1", "<f4"), name
        assert all(np.ndim(value) == 0 for value in file.attrs.values())


def test_losses_are_of_the_same_seed_and_the_control_of_the_same_kind():
    arms = [
        arm(0, "control, lr reset", "control, lr reset", 0.0, 0.7, control=True),
        arm(1, "control, lr constant", "control, lr constant", 0.0, 0.6, control=True),
        arm(2, "blur, lr constant", "blur, lr constant", 5.0, 0.5),
        arm(3, "blur(a, b), lr reset", "blur(a, b), lr reset", 5.0, 0.6),
        arm(4, "something else", "something else", 5.0, 0.5),
    ]
    record = StudyRecord("removal", "x", tuple(arms), {})
    labels = [control and control.label for control in map(record.control_of, record.arms)]
    assert labels == [None, None, "control, lr constant", "control, lr reset", "control, lr reset"]
    # the control ended at 0.61, 0.59, 0.60, the arm at 0.50, 0.51, 0.49
    np.testing.assert_allclose(record.losses(record.arms[2]), [0.11, 0.08, 0.11])
    assert record.losses(record.arms[0]) == ()
    shifted = dataclasses.replace(arms[2], runs={1: run(9, 0.55), 2: run(8, state="failed"), 5: run(7, 0.1)})
    record = dataclasses.replace(record, arms=(*arms[:2], shifted))
    np.testing.assert_allclose(record.losses(shifted), [0.04])  # the control's seed 1 ended at 0.59


def test_a_plain_control_comes_before_one_of_another_kind():
    arms = (
        arm(0, "a", "control, lr reset", 0.0, 0.7, control=True),
        arm(1, "b", "control", 0.0, 0.6, control=True),
        arm(2, "c", "blur", 5.0, 0.5),
    )
    assert StudyRecord("removal", "x", arms, {}).control_of(arms[2]) is arms[1]
    assert StudyRecord("removal", "x", arms[2:], {}).control_of(arms[2]) is None


def test_wrong_values_are_refused():
    untyped = getattr(RunRecord.__post_init__, "__wrapped__", RunRecord.__post_init__)
    wrong = object.__new__(RunRecord)
    for name, value in {"identity": "a", "state": "done", "trajectory": None, "final": {}}.items():
        object.__setattr__(wrong, name, value)
    with pytest.raises(ValueError, match=r"state must be one of finished, exploded, .*; got 'done'"):
        untyped(wrong)
    with pytest.raises(ValueError, match=r"trajectory must be given .*; finished, got none"):
        RunRecord("a", {}, "finished")
    with pytest.raises(ValueError, match=r"trajectory must be given .*; failed, got one"):
        RunRecord("a", {}, "failed", trajectory=trajectory(2))
    with pytest.raises(ValueError, match=r"identity must be that of the run"):
        RunRecord("", {}, "missing")
    with pytest.raises(ValueError, match=r"label must be one of control, blur until epoch 8, .*; got 'x'"):
        incomplete().arm("x")
    twice = (ArmRecord("a", "g", 1.0, False, {}), ArmRecord("a", "g", 2.0, False, {}))
    with pytest.raises(ValueError, match=r"arms must be at least one name, each once; got \['a'\]"):
        StudyRecord("p", "x", twice, {})
    mixed = ArmRecord("a", "g", 1.0, False, {0: run(0), 1: run(1, layers=10)})
    with pytest.raises(ValueError, match=r"runs of an arm must have the same layers; those of 'a' have not"):
        study_to_bytes(StudyRecord("p", "x", (mixed,), {}))
    rows = trajectory(3)
    taken = dataclasses.replace(rows, series={**rows.series, "rows": rows.series["epoch"]})
    named = ArmRecord("a", "g", 1.0, False, {0: RunRecord("a", {}, "finished", trajectory=taken)})
    with pytest.raises(ValueError, match=r"must not be called like an array of the study; got 'rows'"):
        study_to_bytes(StudyRecord("p", "x", (named,), {}))


@pytest.fixture
def copy(path, tmp_path):
    return shutil.copy(path, tmp_path / "study.h5")


@pytest.mark.parametrize(
    ("change", "message"), [pytest.param(change, says, id=change_name(change)) for change, says in STUDY_CHANGES]
)
def test_refuses_what_is_not_whole(copy, change, message):
    with h5py.File(copy, "r+") as file:
        change(file)
    with pytest.raises(UnreadableFile, match=message):
        read_study(copy)


def test_run_and_study_are_told_apart(tmp_path, copy):
    (tmp_path / "run.h5").write_bytes(to_bytes(trajectory(2)))
    with pytest.raises(UnreadableFile, match=r"run.h5: is not a study file .* it holds no study. .* fisherkit.read"):
        fisherkit.read_study(tmp_path / "run.h5")
    with pytest.raises(UnreadableFile, match=r"is not a run file .* whole study; read it with fisherkit.read_study"):
        fisherkit.read(copy)
    with pytest.raises(UnreadableFile, match=r"is a folder, not a study file. Name the file in it \(study.h5\)"):
        read_study(tmp_path)
    (tmp_path / "text").write_text("x")
    with pytest.raises(UnreadableFile, match=r"is not a study file of fisherkit: it is not HDF5"):
        read_study(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        read_study(tmp_path / "none.h5")


def test_a_bit_that_flips_never_changes_a_number(path):
    good, rng, refused = path.read_bytes(), np.random.default_rng(3), 0
    expected = incomplete()
    for position in rng.integers(0, len(good), 60):
        damaged = bytearray(good)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_study(path)
        except UnreadableFile:
            refused += 1
        else:
            assert expected.differences(found) == []
    assert refused > 20
