"""The deficit in a figure, and that figures are alone in the world: no pyplot, no settings of the user's."""

import dataclasses
import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import LogNorm
from trajectories import made_up

from fisherkit import plots
from fisherkit.plots.windows import Span, bars, spans

LIMITS, WIDTH = (-0.5, 40.5), 2.9


def windowed(*windows: dict) -> list[Span]:
    return spans(made_up(windows=windows))


def window(start, stop, text="blur(4)") -> dict:
    return {"name": "blur", "text": text, "start": start, "stop": stop}


def test_windows_end_with_the_run_and_carry_the_text_of_the_option():
    found = windowed(window(0, 12), window(20, None, "noise"), window(30, 99, "flip"), window(50, 60))
    assert found == [Span("blur(4):0-12", 0, 12), Span("noise:20-", 20, 40), Span("flip:30-99", 30, 40)]


def test_without_windows_the_flag_tells_when_a_deficit_was_on():
    run = made_up(windows=(window(0, 12), window(20, 25)))
    attributes = {name: value for name, value in run.attributes.items() if name != "deficit_windows"}
    flagged = dataclasses.replace(run, attributes=attributes)
    assert spans(flagged) == [Span("deficit", 0, 12), Span("deficit", 20, 25)]
    unknown = {name: array for name, array in run.series.items() if name != "deficit_active"}
    assert spans(dataclasses.replace(flagged, series=unknown)) == []


def test_a_text_stands_in_its_bar_or_beside_it():
    in_bar, right, left = bars(
        [Span("noise:1-20", 1, 20), Span("blur:0-2", 0, 2), Span("flip:36-", 36, 40)], LIMITS, WIDTH
    )
    assert (in_bar.side, in_bar.anchor) == ("center", 10.5)
    assert right.side == "left"
    assert right.anchor > 2
    assert left.side == "right"
    assert left.anchor < 36
    assert (in_bar.lane, right.lane, left.lane) == (0, 1, 0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 39), st.integers(1, 40), st.integers(1, 60)), max_size=6))
def test_nothing_in_a_lane_overlaps_and_no_text_leaves_a_panel_with_room(windows):
    asked = [Span("x" * letters, start, min(start + length, 40)) for start, length, letters in windows]
    placed = bars(asked, LIMITS, WIDTH)
    for index, bar in enumerate(placed):
        for other in placed[:index]:
            assert bar.lane != other.lane or bar.extent[1] <= other.extent[0] or other.extent[1] <= bar.extent[0]
        beside = max(40.5 - bar.span.stop, bar.span.start + 0.5)
        if bar.side == "center" or beside > 12:  # room for ten letters
            assert bar.extent[0] >= LIMITS[0] - 1e-9
            assert bar.extent[1] <= LIMITS[1] + 1e-9


def test_drawn_texts_do_not_collide():
    windows = (window(0, 2), window(1, 20, "noise"), window(36, None, "package.module:something_long(0.5)"))
    figure = plots.heatmap(made_up(windows=windows))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    names = [label.get_window_extent() for label in figure.axes[-2].get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(names))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in (*boxes, *names))


@pytest.mark.parametrize("layers", [20, 48, 60, 200])
def test_layer_names_do_not_collide(layers):
    figure = plots.heatmap([made_up(layers=layers), made_up(layers=layers, windows=())])
    figure.draw_without_rendering()
    for axes in figure.axes:
        if "input" in axes.get_ylabel():
            boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
            assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
            assert not any(axes.yaxis.label.get_window_extent().overlaps(box) for box in boxes)


def test_runs_with_other_deficits_have_bars_in_their_colours_and_no_common_shade():
    both = plots.curves([made_up(), made_up(windows=(window(20, 30),))])
    strip, panel = both.axes
    assert [text.get_text() for text in strip.texts] == ["blur:0-12", "blur(4):20-30"]
    assert len({text.get_color() for text in strip.texts}) == 2
    assert not panel.patches
    same = plots.curves([made_up(), made_up(windows=())])
    assert [text.get_text() for text in same.axes[0].texts] == ["blur:0-12"]
    assert len(same.axes[1].patches) == 1


def test_runs_with_equal_deficits_are_told_apart_by_their_seed():
    figure = plots.curves([made_up(), made_up(seed=1)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["blur:0-12, seed 0", "blur:0-12, seed 1"]


def test_a_share_that_cannot_be_told_is_grey():
    run = made_up()
    values = run.variables["fisher_true"].copy()
    values[7, 3] = np.nan  # a layer not measured: no total
    figure = plots.heatmap(dataclasses.replace(run, variables={"fisher_true": values}), scale="share")
    mesh = next(axes.collections[0] for axes in figure.axes if "input" in axes.get_ylabel())
    assert np.ma.getmaskarray(mesh.get_array()).reshape(20, 41)[:, 7].all()
    assert figure.legends[0].get_texts()[0].get_text() == "zero or not measured"


def test_the_colour_scale_spans_six_decades_and_says_that_there_is_more_below():
    run = made_up()
    values = run.variables["fisher_true"].copy()
    values[0, 0] = 1e-20
    figure = plots.heatmap(dataclasses.replace(run, variables={"fisher_true": values}))
    mesh = next(axes.collections[0] for axes in figure.axes if "input" in axes.get_ylabel())
    assert isinstance(mesh.norm, LogNorm)
    assert mesh.norm.vmax / mesh.norm.vmin == pytest.approx(1e6)
    assert mesh.colorbar.extend == "min"


def test_uneven_times_and_a_single_layer_draw(tmp_path):
    run = made_up(rows=5, layers=5)
    early = dataclasses.replace(run, series={**run.series, "epoch": np.array([0, 0.02, 0.1, 1, 4])})
    for name, figure in {
        "map": plots.heatmap(early, layers=["fc"]),
        "curves": plots.curves(early, layers=["*"]),
    }.items():
        plots.save(figure, tmp_path / f"{name}.png")


def test_the_settings_of_the_user_change_nothing_and_stay(tmp_path):
    plots.save(plots.heatmap(made_up()), tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "svg.fonttype": "path"}):
        plots.save(plots.heatmap(made_up()), tmp_path / "b.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("absent", ["matplotlib.pyplot", "torch"])
def test_drawing_needs_neither_pyplot_nor_torch(absent):
    code = "import sys, fisherkit.plots, fisherkit.recording\nfrom trajectories import made_up\n"
    code += f"fisherkit.plots.heatmap(made_up()); assert {absent!r} not in sys.modules"
    environment = {"PYTHONPATH": str(made_up.__code__.co_filename).rsplit("/", 1)[0]}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)
