"""Figures: what is drawn where, on which scale, and that equal runs give equal files."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from trajectories import made_up

from fisherkit import plots
from fisherkit.plots.heatmap import cell_edges


def maps(figure):
    """The axes with a heatmap: those labelled with epochs that hold a mesh."""
    return [axes for axes in figure.axes if axes.get_xlabel() == "epochs completed" and axes.collections]


def texts(figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [axes.get_title() for axes in figure.axes]
    return " | ".join(found)


def without_rows(run, rows):
    """Rows in which nothing was measured, as between two measurements."""
    gaps = {name: array.copy() for name, array in run.variables.items()}
    for array in gaps.values():
        array[rows] = np.nan
    return dataclasses.replace(run, variables=gaps)


def test_the_heatmap_shows_every_value_where_it_was_measured():
    run = made_up()
    (axes,) = maps(plots.heatmap(run))
    mesh = axes.collections[0]
    np.testing.assert_array_equal(mesh.get_array().reshape(20, 41), run.variables["fisher_true"].T)
    assert isinstance(mesh.norm, LogNorm)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == list(run.layers)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first layer on top
    assert "input → output" in axes.get_ylabel()


def test_several_runs_share_one_colour_scale_and_are_told_apart():
    clean = made_up(windows=(), seed=1)
    figure = plots.heatmap([made_up(), clean])
    left, right = maps(figure)
    assert left.collections[0].norm.vmax == right.collections[0].norm.vmax
    largest = max(made_up().variables["fisher_true"].max(), clean.variables["fisher_true"].max())
    assert left.collections[0].norm.vmax == largest
    assert "no deficit" in texts(figure)
    assert "blur:0-12" in texts(figure)


def test_the_deficit_is_drawn_where_it_was_on():
    (axes,) = maps(plots.heatmap(made_up()))
    boxes = {(patch.get_x(), patch.get_width()) for patch in axes.patches}
    assert boxes == {(0, 12)}
    (axes,) = maps(plots.heatmap(made_up(windows=())))
    assert not axes.patches


def test_shares_sum_to_one_and_per_parameter_divides():
    run = made_up()
    (axes,) = maps(plots.heatmap(run, scale="share"))
    np.testing.assert_allclose(axes.collections[0].get_array().reshape(20, 41).sum(0), 1)
    (axes,) = maps(plots.heatmap(run, scale="per_parameter"))
    drawn = axes.collections[0].get_array().reshape(20, 41)
    np.testing.assert_allclose(drawn, (run.variables["fisher_true"] / run.parameters).T)


def test_rows_without_a_measurement_leave_no_gap():
    run = without_rows(made_up(), [3, 4, 10])
    figure = plots.heatmap(run)
    (axes,) = maps(figure)
    assert axes.collections[0].get_array().size == 20 * 38
    assert not figure.legends
    nothing = without_rows(made_up(), slice(None))
    with pytest.raises(ValueError, match="must have been measured in some row"):
        plots.heatmap(nothing)


def test_zeros_are_grey_and_said_to_be():
    run = made_up()
    values = run.variables["fisher_true"].copy()
    values[5, 2] = 0
    figure = plots.heatmap(dataclasses.replace(run, variables={"fisher_true": values}))
    assert figure.legends[0].get_texts()[0].get_text() == "zero or not measured"


def test_edges_lie_half_way():
    np.testing.assert_array_equal(cell_edges(np.array([0.0, 1, 2, 4])), [-0.5, 0.5, 1.5, 3, 5])
    np.testing.assert_array_equal(cell_edges(np.array([3.0])), [2.5, 3.5])


@pytest.mark.parametrize(("rows", "layers"), [(1, 20), (41, 60), (3, 5)])
def test_any_size_draws(rows: int, layers: int):
    figure = plots.heatmap(made_up(rows, layers))
    labels = [label.get_text() for label in maps(figure)[0].get_yticklabels()]
    assert len(labels) <= 48
    assert labels[-1] == "fc"


def test_curves_show_the_total_with_its_band():
    run = made_up()
    figure = plots.curves(run, layers=["conv1", "fc"])
    (axes,) = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    assert [line.get_label() for line in axes.lines] == ["all layers", "conv1", "fc"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), run.series["fisher_true_total"])
    band = axes.collections[0].get_paths()[0].vertices
    top = run.series["fisher_true_total"] + 2 * run.series["fisher_true_total_stderr"]
    assert band[:, 1].max() == pytest.approx(top.max())


def test_curves_of_several_runs_have_a_panel_a_layer_and_a_legend():
    figure = plots.curves([made_up(), made_up(windows=(), seed=1)], layers=["conv1"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["blur:0-12", "no deficit"]
    assert "all layers" in texts(figure)
    assert "conv1" in texts(figure)


ERRORS = {
    "variable": (dict(variable="fishes"), r"variable must be one of fisher_empirical, .*; got 'fishes'"),
    "scale": (dict(scale="logs"), r"scale must be one of trace, per_parameter, share; got 'logs'"),
    "layer": (dict(layers=["nothing*"]), r"layer must match one of the layers; got 'nothing\*'.*conv1"),
    "titles": (dict(titles=["a", "b"]), r"titles must be one for each of the 1 runs; got 2"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments(options, message: str):
    from fisherkit.plots.heatmap import heatmap

    untyped = getattr(heatmap, "__wrapped__", heatmap)
    with pytest.raises((ValueError, TypeError), match=message if "scale" not in options else ".*"):
        untyped(made_up(), **options)


def test_no_run_and_no_row_are_refused():
    with pytest.raises(ValueError, match="trajectories must be at least one"):
        plots.heatmap([])
    with pytest.raises(ValueError, match="at least one row"):
        plots.heatmap(made_up().rows(0, 0))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_equal_figures_give_equal_files(tmp_path, suffix: str):
    for name in ("a", "b"):
        plots.save(plots.heatmap([made_up(), made_up(windows=())]), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert (tmp_path / f"a.{suffix}").stat().st_size < 200_000


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"out must end in .png, .svg, .pdf; got .*a.bmp"):
        plots.save(plots.heatmap(made_up()), tmp_path / "a.bmp")


def test_hostile_names_are_drawn_as_text(tmp_path):
    run = made_up()
    named = dataclasses.replace(run, layers=("$\\frac{1}{", "a\x1b[31m", "x" * 300, *run.layers[3:]))
    plots.save(plots.heatmap(named, titles=["$\\bad"]), tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert "\x1b" not in drawn
    assert "x" * 81 not in drawn


def test_an_explosion_is_seen():
    gaps = without_rows(made_up(), [7, *range(30, 41)])  # not measured; and what could not be
    wrong = dataclasses.replace(gaps, attributes={**gaps.attributes, "exploded": "the loss is NaN"})
    figure = plots.heatmap(wrong)
    (axes,) = maps(figure)
    assert np.ma.getmaskarray(axes.collections[0].get_array().reshape(20, 40)).sum(1).tolist() == [11] * 20
    assert figure.axes[0].get_title() == "(exploded)"
    titles = [axes.get_title() for axes in plots.heatmap([made_up(), wrong]).axes[:2]]
    assert titles == ["blur:0-12, seed 0", "blur:0-12, seed 0 (exploded)"]
