"""An arm layer by layer, its table, and that none of this needs torch."""

import csv
import io
import subprocess
import sys

import numpy as np
import pytest
from analysis_cases import pieces, run
from trajectories import made_up

from fisherkit.analysis import Arm, phases, ratio_to_control
from fisherkit.analysis.layers import analyse_layers, csv_rows

EPOCHS = np.arange(1.0, 31.0)


def made(count=3, *, start=0):
    return Arm("x", "g", 1.0, False, tuple(range(count)), tuple(made_up(41, 6, seed=start + k) for k in range(count)))


def test_all_layers_and_each():
    ours, theirs = made(), made(start=10)
    found = analyse_layers(ours, theirs)
    assert [row.layer for row in found.rows] == ["all layers", *ours.trajectories[0].layers]
    assert found.rows[0].runs[1] == phases(ours.trajectories[1])
    assert found.rows[3].runs[2] == phases(ours.trajectories[2], layer=ours.trajectories[0].layers[2])
    whole = ratio_to_control(ours, theirs, layer=ours.trajectories[0].layers[2])
    assert found.rows[3].final_ratio.value == whole.ratio[-1]
    assert len(found.confounds) == 3
    assert found.undertrained  # 0.91 at the end


def test_concentration_at_start_peak_and_end():
    early, late = pieces(EPOCHS, (1, 0), (5, 2), (30, 0)), pieces(EPOCHS, (1, -1), (15, 3), (30, 2))
    arm = Arm("x", "g", 1.0, False, (0,), (run(np.stack([early, late], axis=1), layers=("p", "q")),))
    found = analyse_layers(arm).concentration
    assert [found[place]["epoch"].value for place in ("start", "peak", "end")] == [1, 15, 30]
    assert found["end"]["centre"].value == pytest.approx(late[-1] / (early[-1] + late[-1]))
    assert found["start"]["last_quarter"].value == pytest.approx(late[0] / (early[0] + late[0]))


def test_other_variables_have_phases_only():
    found = analyse_layers(made(1), variable="weight_norm")
    assert found.concentration == {}
    assert found.confounds == ()
    assert found.rows[0].phases.verdict == "never forgets"


def test_the_table_has_a_row_for_each_layer():
    found = analyse_layers(made(), made(start=10))
    rows = list(csv.DictReader(io.StringIO(csv_rows([found, analyse_layers(made(1))]))))
    assert len(rows) == 2 * 7
    assert [row["layer"] for row in rows[:7]] == [row.layer for row in found.rows]
    first = found.rows[0]
    assert float(rows[0]["peak_epoch"]) == pytest.approx(first.phases.peak_epoch.value, rel=1e-5)
    assert float(rows[0]["forgotten_high"]) == pytest.approx(first.phases.forgotten.high, rel=1e-5)
    assert float(rows[0]["ratio_to_control"]) == pytest.approx(first.final_ratio.value, rel=1e-5)
    assert rows[0]["forgotten_stderr"] == ""
    assert rows[7]["ratio_to_control"] == rows[7]["peak_epoch_low"] == ""
    assert float(rows[7]["forgotten_stderr"]) > 0


def test_exploded_runs_are_verdicts_and_nothing_else():
    gone = run([1.0, 2.0], attributes={"exploded": "loss inf"})
    found = analyse_layers(Arm("x", "g", 1.0, False, (0,), (gone,)), Arm("c", "c", 0.0, True, (0,), (gone,)))
    assert found.rows[0].phases.verdict == "explodes"
    assert found.rows[0].ratio is None
    assert found.concentration == {}
    assert found.confounds == ()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="arm must have a run with rows; got 'x' without"):
        analyse_layers(Arm("x", "g", 1.0, False, (), ()))
    with pytest.raises(ValueError, match="variable must be one of fisher_true; got 'y'"):
        analyse_layers(Arm("x", "g", 1.0, False, (0,), (run([1.0]),)), variable="y")
    mixed = (run([1.0]), run([1.0], layers=("b",)))
    with pytest.raises(ValueError, match="runs of an arm must have the same layers; those of 'x' have not"):
        analyse_layers(Arm("x", "g", 1.0, False, (0, 1), mixed))


def test_analysis_does_not_need_torch():
    code = "import sys, fisherkit.analysis, fisherkit.analysis.layers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
