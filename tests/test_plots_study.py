"""Figures of studies: what is drawn where for each protocol, and what they say of it."""

import dataclasses

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from study_records import PROTOCOLS, arm, custom, early_fisher, regularization, removal, run, warm_start, window

from fisherkit.analysis import mean_interval
from fisherkit.plots import save
from fisherkit.plots.study import caption, study
from fisherkit.plots.study_data import curves, mean_trajectory, series_trace, spread, trace
from fisherkit.plots.study_scatter import early_correlation, early_points, early_trace, early_until
from fisherkit.recording import ArmRecord, StudyRecord


def axes_of(figure, ylabel: str):
    return [axes for axes in figure.axes if axes.get_ylabel().startswith(ylabel)]


def line(axes, label: str):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return found


def labels(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def maps(figure):
    return [
        axes for axes in figure.axes if any(isinstance(c, QuadMesh) for c in axes.collections) and axes.get_xlabel()
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_draws_and_equal_studies_give_equal_files(tmp_path, protocol):
    record = PROTOCOLS[protocol]()
    for name in "ab":
        save(study(record), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    assert "mean over seeds, 95 % interval" in text.replace("\n", " ")


def test_removal_shows_accuracy_against_the_end_of_the_deficit():
    record = removal()
    figure = study(record)
    (axes,) = axes_of(figure, "final test accuracy")
    assert axes.get_xlabel() == "deficit removed at epoch"
    blur, flip = line(axes, "blur"), line(axes, "flip")
    np.testing.assert_array_equal(blur.get_xdata(), [2, 4, 6, 8, 10])
    np.testing.assert_allclose(blur.get_ydata(), [0.76, 0.72, 0.68, 0.64, 0.60])
    np.testing.assert_allclose(flip.get_ydata(), 0.8)
    assert blur.get_color() != flip.get_color()
    assert blur.get_marker() != flip.get_marker()
    np.testing.assert_allclose(line(axes, "control").get_ydata(), 0.8)
    assert labels(axes) == ["blur", "flip", "control"]
    expected = mean_interval(record.arm("blur until epoch 4").finals("test_accuracy"))
    bands = [c for c in axes.collections if isinstance(c, PolyCollection)]
    heights = bands[0].get_paths()[0].vertices
    drawn = heights[heights[:, 0] == 4][:, 1]
    assert {drawn.min(), drawn.max()} == {expected.low, expected.high}


def test_removal_shows_traces_by_group_and_heatmaps_along_the_axis():
    figure = study(removal())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["blur", "flip", "control", "blur until epoch 2", "blur until epoch 6", "blur until epoch 10"]
    shown = [axes for axes in figure.axes if axes.get_title() in ("blur", "flip")]
    assert [len(axes.lines) for axes in shown] == [6, 6]  # five arms and the control
    control = removal().arms[0]
    np.testing.assert_array_equal(line(shown[0], "control").get_ydata(), trace(control).mean)
    assert shown[0].get_yscale() == "log"
    heat = maps(figure)
    assert len(heat) == 4
    logs = [np.log(each.trajectory.variables["fisher_true"]) for each in control.runs.values()]
    drawn = heat[0].collections[0].get_array().reshape(20, 17)
    np.testing.assert_allclose(drawn, np.exp(np.mean(logs, axis=0)).T)
    assert len({axes.collections[0].norm.vmax for axes in heat}) == 1
    boxes = [{(patch.get_x(), patch.get_width()) for patch in axes.patches} for axes in heat]
    assert boxes == [set(), {(0, 2)}, {(0, 6)}, {(0, 10)}]


def test_window_shows_the_loss_above_the_clean_trace_on_one_axis():
    record = window()
    figure = study(record)
    (losses,), (traces,) = axes_of(figure, "loss of final test accuracy"), axes_of(figure, "tr F, all layers")
    np.testing.assert_allclose(
        line(losses, "blur").get_ydata(), [0.12 * np.exp(-abs(t - 2) / 4) for t in (0, 2, 4, 6, 8, 12)]
    )
    assert losses.get_shared_x_axes().joined(losses, traces)
    np.testing.assert_array_equal(line(traces, "control").get_ydata(), trace(record.arms[0]).mean)
    assert "same seed" in losses.get_ylabel()


def test_regularization_shows_a_curve_for_each_sweep_between_two_lines():
    (axes,) = axes_of(study(regularization()), "final test accuracy")
    assert labels(axes) == [
        "on until t",
        "on from t",
        "on for 5 epochs from t",
        "weight decay always on",
        "weight decay never on",
    ]
    np.testing.assert_allclose(line(axes, "on from t").get_ydata(), [0.765, 0.75, 0.735])
    np.testing.assert_allclose(line(axes, "weight decay never on").get_ydata(), 0.7)


def test_warm_start_shows_lambda_accuracies_and_gradient_norms():
    figure = study(warm_start())
    (axes,) = axes_of(figure, "final test accuracy")
    np.testing.assert_array_equal(line(axes, "shrink-perturb").get_xdata(), [0.2, 0.4, 0.6, 0.8])
    assert labels(axes) == ["shrink-perturb", "fresh start", "warm start"]
    (through,) = axes_of(figure, "test accuracy")
    assert len(through.lines) == 6
    np.testing.assert_allclose(line(through, "warm start").get_ydata()[-1], 0.51)
    (norms,) = axes_of(figure, "gradient norm")
    assert [each.get_linestyle() for each in norms.lines] == ["-"] * 6 + [":"] * 6
    np.testing.assert_allclose(norms.lines[0].get_ydata(), 1 / (1 + np.arange(21)))
    np.testing.assert_allclose(norms.lines[6].get_ydata(), 0.1)
    assert norms.get_title() == "new images solid, old images dotted"


def test_early_fisher_shows_a_mark_for_each_arm_and_the_correlation():
    record = early_fisher()
    (axes,) = axes_of(study(record), "final test accuracy")
    marks = [each for each in axes.lines if each.get_marker() in ("o", "s")]
    assert [each.get_marker() for each in marks] == ["o"] * 5 + ["s"] * 5
    points = early_points(record)
    np.testing.assert_allclose([each.get_xdata()[0] for each in marks], [point.early for point in points])
    np.testing.assert_allclose([each.get_ydata()[0] for each in marks], [point.accuracy.value for point in points])
    assert len({each.get_color() for each in marks}) == 5  # a rate has one colour under both penalties
    found = early_correlation(record)
    assert (
        axes.get_title() == f"Spearman correlation {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] over 10 arms"
    )
    assert axes.get_xlabel() == "largest tr F of all layers in the first 2 epochs (nats²)"


def test_the_early_trace_is_the_largest_in_the_first_epochs_after_the_start():
    record = early_fisher()
    rows = record.arms[0].runs[0].trajectory
    total = rows.series["fisher_true_total"]
    assert early_trace(rows, 2.0) == total[1:3].max()
    assert early_trace(rows, 0.5) != early_trace(rows, 0.5)  # nothing measured: NaN
    shorter = dataclasses.replace(record, options={"time_scale": 0.1})
    assert early_until(shorter) == 1
    (axes,) = axes_of(study(shorter), "final test accuracy")
    assert axes.get_xlabel().startswith("largest tr F of all layers in the first epoch (")


def test_custom_shows_every_arm_with_its_train_accuracy():
    record = custom(30)
    figure = study(record)
    (axes,) = [axes for axes in figure.axes if axes.get_xlabel() == "final accuracy"]
    assert [text.get_text() for text in axes.get_yticklabels()] == [each.label for each in record.arms]
    assert labels(axes) == ["train", "test"]
    tests = [each for each in axes.lines if each.get_marker() == "o"]
    np.testing.assert_allclose([each.get_xdata()[0] for each in tests], 0.5 + 0.02 * np.arange(30))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["batch 1", "batch 2", "batch 0"]
    assert "Of groups with many arms some are traced, evenly." in caption(record)


def test_eight_groups_have_a_panel_and_a_look_each():
    names = ("blur", "flip", "noise", "permute", "shuffle", "grayscale", "occlude", "blur(8)")
    record = removal(deficits=names, times=(2, 8), seeds=2)
    figure = study(record)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[:8] == list(names)
    (axes,) = axes_of(figure, "final test accuracy")
    looks = {
        (each.get_color(), each.get_marker(), each.get_linestyle())
        for each in axes.lines
        if each.get_marker() != "None"
    }
    assert len(looks) == 8
    assert not [c for c in axes.collections if isinstance(c, PolyCollection)]  # bars: bands would hide each other
    more = removal(deficits=(*names, "a", "b"), times=(2,), seeds=1)
    assert "Traces of 2 more groups are in study.h5." in caption(more)


def test_one_seed_has_no_band_and_says_so():
    record = removal(seeds=1, deficits=("blur",))
    figure = study(record)
    (axes,) = axes_of(figure, "final test accuracy")
    assert not [c for c in axes.collections if isinstance(c, PolyCollection)]
    assert "1 seed." in caption(record)
    assert "none where one seed has finished" in caption(record)


def test_incomplete_studies_draw_what_is_there_and_count_the_rest():
    record = removal(deficits=("blur",), times=(2, 4))
    broken = dataclasses.replace(
        record.arms[1],
        runs={
            0: run(90, 0.7),
            1: run(91, None, state="exploded", message="x"),
            2: run(92, state="failed", message="x"),
        },
    )
    gone = dataclasses.replace(record.arms[2], runs={0: run(93, state="missing")})
    record = dataclasses.replace(record, arms=(record.arms[0], broken, gone))
    figure = study(record)
    (axes,) = axes_of(figure, "final test accuracy")
    assert line(axes, "blur").get_xdata().tolist() == [2]
    assert line(axes, "blur").get_ydata().tolist() == [0.7]
    assert "Not among the accuracies: 1 exploded, 1 failed, 1 missing of 7 runs." in caption(record)
    assert "1 to 3 seeds" in caption(record)


def test_nothing_finished_is_an_error():
    record = StudyRecord("removal", "x", (ArmRecord("a", "g", 1.0, False, {0: run(0, state="missing")}),), {})
    with pytest.raises(ValueError, match="study must have a finished run with a test accuracy to draw; got none"):
        study(record)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_traces_the_result_is_drawn_all_the_same(protocol):
    record = PROTOCOLS[protocol]()

    def bare(found):
        rows = dataclasses.replace(found.trajectory, variables={})
        return dataclasses.replace(found, trajectory=rows)

    arms = tuple(dataclasses.replace(a, runs={s: bare(r) for s, r in a.runs.items()}) for a in record.arms)
    figure = study(dataclasses.replace(record, arms=arms))
    assert not axes_of(figure, "tr F")
    assert not maps(figure)
    assert "Traces" not in caption(dataclasses.replace(record, arms=arms))


def test_a_trace_is_a_geometric_mean_over_the_seeds_that_are_so_long():
    long, short = run(1, epochs=6).trajectory, run(2, epochs=4).trajectory
    found = series_trace([long, short], lambda r: r.total())
    np.testing.assert_array_equal(found.epoch, np.arange(7))
    a, b = long.total(), short.total()
    np.testing.assert_allclose(found.mean[:5], np.sqrt(a[:5] * b))
    np.testing.assert_allclose(found.mean[5:], a[5:])
    np.testing.assert_allclose(found.low[:5], np.minimum(a[:5], b))
    np.testing.assert_allclose(found.high[:5], np.maximum(a[:5], b))
    gaps = dataclasses.replace(
        long, series={**long.series, "fisher_true_total": np.where(np.arange(7) == 2, np.nan, a)}
    )
    assert 2 not in series_trace([gaps, short], lambda r: r.total()).epoch
    assert series_trace([], lambda r: r.total()) is None


def test_means_leave_out_what_not_all_runs_have():
    both = arm(1, "a", "g", 1.0, 0.8, seeds=2, epochs=5)
    shorter = dataclasses.replace(both, runs={**both.runs, 2: run(9, epochs=3)})
    assert len(mean_trajectory(shorter)) == 4
    exploded = dataclasses.replace(both, runs={**both.runs, 2: run(9, None, state="exploded", message="x")})
    assert len(mean_trajectory(exploded)) == 6
    assert mean_trajectory(ArmRecord("a", "g", 1.0, False, {})) is None


def test_curves_ascend_and_leave_out_arms_without_numbers():
    arms = (arm(1, "b", "g", 5.0, 0.5), arm(2, "a", "g", 1.0, 0.6), ArmRecord("c", "g", 3.0, False, {}))
    (curve,) = curves(StudyRecord("removal", "x", arms, {}), lambda a: a.finals("test_accuracy"))
    assert [point.arm.label for point in curve.points] == ["a", "b"]


def test_spread_keeps_both_ends():
    assert spread([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert spread([1, 2], 3) == [1, 2]
    assert spread([], 3) == []


def test_hostile_labels_are_drawn_as_text(tmp_path):
    arms = (
        arm(0, "$\\frac{1}{", "control", 0.0, 0.8, control=True),
        arm(1, "a\x1b[31m" + "x" * 200, "$\\bad{" + "y" * 200, 5.0, 0.7, until=5),
    )
    for protocol in PROTOCOLS:
        save(study(StudyRecord(protocol, "$\\axis{", arms, {})), tmp_path / "a.svg")
        drawn = (tmp_path / "a.svg").read_text()
        assert "\x1b" not in drawn
        assert "x" * 81 not in drawn
