"""Spectra in run files: by FisherTracker, by track, resumed; shown and drawn."""

import io
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from runs import ARGUMENTS, small
from test_cli_runs import call
from test_recording_tracker import network, train
from test_studies_run import IGNORED, StopsAfter
from trajectories import made_up

import fisherkit
from fisherkit import plots
from fisherkit.fisher import fisher_spectrum
from fisherkit.recording import FisherTracker, Trajectory, to_bytes
from fisherkit.storage import atomic_write
from fisherkit.studies import specify, track

SPECTRUM = dict(spectrum=3, spectrum_images=6, spectrum_every=2)
RANKS = ("fisher_effective_rank", "fisher_effective_rank_corrected", "fisher_effective_rank_stderr")


@pytest.fixture(scope="module")
def probe():
    return fisherkit.load_images("fashion-mini")[0].subset(12, seed=0)


def test_a_row_is_the_spectrum(probe, tmp_path):
    model = network()
    with FisherTracker(tmp_path / "run.h5", model, probe, spectrum=3) as tracker:
        tracker.record(0)
        tracker.record(1, spectrum=False)
        tracker.record(2, measure=False)
        tracker.record(3, measure=False, spectrum=True)
    run, found = fisherkit.read(tmp_path / "run.h5"), fisher_spectrum(model, probe, k=3)
    for index in range(3):
        values = run.variables[f"fisher_eigenvalue_{index + 1}"]
        np.testing.assert_array_equal(values[[0, 3]], np.stack([found.eigenvalues[:, index]] * 2))
        assert np.isnan(values[[1, 2]]).all()
    for name, values in (("fisher_spectrum_trace", found.trace), (RANKS[0], found.effective_rank)):
        np.testing.assert_array_equal(run.variables[name][0], values)
    np.testing.assert_array_equal(run.variables[RANKS[1]][0], found.effective_rank_corrected)
    np.testing.assert_array_equal(run.variables[RANKS[2]][0], found.effective_rank_stderr)
    assert np.isfinite(run.variables["fisher_true"]).all(axis=1).tolist() == [True, True, False, False]
    facts = run.attributes["spectrum"]
    assert (facts["k"], facts["images"], facts["vectors"], facts["estimator"]) == (3, 12, 108, "exact")


def test_options_of_the_spectrum_and_of_the_tracker(probe, tmp_path):
    """The loss and the seed are the tracker's; everything else its own."""
    model, options = network(), dict(k=1, max_images=5, estimator="propagated", draws=2)
    with FisherTracker(tmp_path / "run.h5", model, probe, spectrum=options, draws=3, seed=9) as tracker:
        tracker.record(0)
    run, found = fisherkit.read(tmp_path / "run.h5"), fisher_spectrum(model, probe, seed=9, **options)
    np.testing.assert_array_equal(run.variables["fisher_eigenvalue_1"][0], found.top)
    assert "fisher_eigenvalue_2" not in run.variables
    assert run.attributes["spectrum"]["draws"] == 2


def test_one_image_has_no_corrected_rank_and_is_recorded(probe, tmp_path):
    with FisherTracker(tmp_path / "run.h5", network(), probe, spectrum={"k": 2, "max_images": 1}) as tracker:
        tracker.record(0)
    variables = fisherkit.read(tmp_path / "run.h5").variables
    assert np.isnan(variables[RANKS[1]]).all()
    assert (variables[RANKS[0]] >= 1).all()


def test_other_tools_see_names_and_units(probe, tmp_path):
    with FisherTracker(tmp_path / "run.h5", network(), probe, spectrum=2) as tracker:
        tracker.record(0)
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["fisher_eigenvalue_2"].attrs["units"] == "nats^2"
        assert file["fisher_eigenvalue_2"].attrs["long_name"].startswith("eigenvalue 2 (1 is the largest)")
        assert file["fisher_effective_rank"].attrs["units"] == "1"
        assert file["fisher_effective_rank"].shape == (1, 3)


def test_training_with_spectra_is_bit_identical(probe, tmp_path, monkeypatch):
    sets = fisherkit.load_images("fashion-mini")
    sets = (sets[0].subset(40, seed=0), sets[1].subset(10, seed=0))
    plain = train(sets)
    tracker = FisherTracker.__init__
    monkeypatch.setattr(FisherTracker, "__init__", lambda self, *a, **o: tracker(self, *a, **o, spectrum=2))
    tracked = train(sets, tmp_path / "run.h5")
    assert all(torch.equal(plain[name], tracked[name]) for name in plain)
    assert np.isfinite(fisherkit.read(tmp_path / "run.h5").variables["fisher_eigenvalue_2"]).all()


def test_without_a_spectrum_a_run_is_the_run_it_was():
    """The identity of a folder made before there were spectra."""
    assert small().identity == "c0468dd182b951f2"
    assert specify(model="resnet18", epochs=3, seed=5).identity == "f2b18399b7412712"
    assert len({small(**options).identity for options in ({}, dict(spectrum=3), SPECTRUM)}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(spectrum_every=2), "spectrum_every needs spectrum, the number of eigenvalues"),
        (dict(spectrum_images=50), "spectrum_images needs spectrum"),
        (dict(spectrum=0), "greater than or equal to 1"),
        (dict(spectrum=1001), "less than or equal to 1000"),
    ],
)
def test_wrong_choices(options, message: str):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Trajectory:
    return track(small(**SPECTRUM), tmp_path_factory.mktemp("whole")).trajectory


def test_track_records_spectra_at_the_ends_of_epochs(whole: Trajectory):
    measured = np.isfinite(whole.variables["fisher_eigenvalue_3"]).all(axis=1)
    assert whole.series["epoch"][measured].tolist() == [0, 2, 3]  # every second, and the last
    assert whole.attributes["spectrum"]["images"] == 6


@pytest.mark.parametrize("steps", [3, 8])
def test_a_resumed_run_has_the_same_spectra(whole: Trajectory, tmp_path, steps: int):
    stopped = track(small(**SPECTRUM), tmp_path, observer=StopsAfter(steps))
    assert not stopped.finished
    resumed = track(small(**SPECTRUM), tmp_path)
    assert resumed.trajectory.differences(whole, ignore=IGNORED) == []


def test_track_show_and_plot_as_a_user_types_them(tmp_path):
    folder = str(tmp_path / "run")
    status, text = call(
        *ARGUMENTS, "--spectrum", "12", "--spectrum-every", "3", "--spectrum-images", "5", "--out", folder
    )
    assert status == 0, text
    status, text = call("show", folder)
    assert "spectrum 12 eigenvalues of each layer in 2 rows, exact estimator, 5 images, 45 score vectors" in text
    assert "fisher_eigenvalue_1 to 12, fisher_empirical," in text
    status, text = call("plot", folder, "--spectrum", "--layer", "conv1")
    assert (status, text.strip()) == (0, f"{folder}/spectrum.png")
    assert (tmp_path / "run" / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    status, text = call("plot", folder, "--variable", "fisher_effective_rank")
    assert status == 0, text
    status, text = call("plot", folder, "--spectrum", "--curves")
    assert (status, "spectrum must be drawn of one run" in text) == (2, True)


def with_spectra(k: int = 4, **options) -> Trajectory:
    """A made-up run whose eigenvalues fall by powers of the depth, measured in every second row."""
    run = made_up(**options)
    trace = run.variables["fisher_true"] * np.where(np.arange(len(run)) % 2, np.nan, 1)[:, None]
    shares = {f"fisher_eigenvalue_{j + 1}": trace * 0.5 ** (j + 1) for j in range(k)}
    rank = trace / trace.max(axis=1, keepdims=True) * 5 + 1
    ranks = dict(zip(RANKS, (0.8 * rank, rank, 0.1 * rank), strict=True))
    return replace(run, variables={**run.variables, **shares, **ranks, "fisher_spectrum_trace": trace})


def drawn(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def test_the_picture_shows_the_largest_layers_or_those_named():
    run = with_spectra()
    figure = plots.spectrum(run)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    largest = np.argsort(-np.nanmean(run.variables["fisher_spectrum_trace"], 0))[:6]
    assert titles == [run.layers[index] for index in sorted(largest)]
    panel = figure.axes[1]
    assert panel.get_yscale() == "log"
    assert len(panel.lines) == 5  # the trace and four eigenvalues
    column = run.layers.index(titles[0])
    np.testing.assert_array_equal(panel.lines[1].get_ydata(), run.variables["fisher_eigenvalue_1"][::2, column])
    np.testing.assert_array_equal(panel.lines[0].get_xdata(), run.series["epoch"][::2])
    assert figure.axes[-1].get_ylabel() == "effective rank"
    assert drawn(figure) == drawn(plots.spectrum(run))
    assert [axes.get_title() for axes in plots.spectrum(run, layers=["fc", "conv1"]).axes][::2] == ["conv1", "fc", ""]


@pytest.mark.parametrize(
    ("options", "layers"), [(dict(rows=1), ["fc"]), (dict(k=1), ["conv1", "fc"]), (dict(windows=(), layers=12), ["*"])]
)
def test_pictures_of_little_and_of_much(options, layers):
    assert drawn(plots.spectrum(with_spectra(**options), layers=layers)).startswith(b"\x89PNG")


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"trajectory must hold spectra; got none\. Record them: `fisherkit track"):
        plots.spectrum(made_up())
    run = with_spectra()
    with pytest.raises(ValueError, match="layer must match one of the layers; got 'q'"):
        plots.spectrum(run, layers=["q"])
    zero = {name: values * 0 for name, values in run.variables.items()}
    with pytest.raises(ValueError, match="layers must have an eigenvalue above zero somewhere"):
        plots.spectrum(replace(run, variables=zero))
    atomic_write(tmp_path / "run.h5", to_bytes(made_up()))
    status, text = call("plot", str(tmp_path), "--spectrum")
    assert (status, "must hold spectra" in text) == (2, True)
