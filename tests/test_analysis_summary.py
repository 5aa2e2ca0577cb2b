"""Peak, forgetting and shares, on trajectories made by hand."""

import numpy as np
import pytest
from trajectories import made_up

from fisherkit.analysis import final_row, peak, shares
from fisherkit.recording import Trajectory


def trajectory(totals, epochs=None) -> Trajectory:
    values = np.array([[total * 0.25, total * 0.75] for total in totals])
    return Trajectory(
        layers=("a", "b"),
        parameters=np.array([1, 1]),
        variables={"fisher_true": values},
        series={
            "epoch": np.arange(len(totals)) if epochs is None else np.array(epochs),
            "step": np.arange(len(totals)),
        },
        attributes={},
    )


def test_the_peak_and_what_was_forgotten_since():
    found = peak(trajectory([9, 1, 8, 4, 2]))
    assert (found.epoch, found.value, found.last_epoch, found.last_value) == (2, 8, 4, 2)
    assert found.forgotten == 0.75


def test_the_row_before_training_counts_only_alone():
    assert peak(trajectory([9.0])).epoch == 0
    assert peak(trajectory([9, 3])).epoch == 1


def test_rows_without_a_measurement_are_passed_over():
    found = peak(trajectory([1, 5, np.nan, 2, np.nan]))
    assert (found.epoch, found.last_epoch) == (1, 3)
    assert shares(trajectory([1, np.nan])).tolist() == [0.25, 0.75]
    assert peak(trajectory([np.nan])) is None
    assert np.isnan(shares(trajectory([np.nan]))).all()


def test_shares_sum_to_one():
    assert shares(made_up()).sum() == pytest.approx(1)
    assert np.isnan(shares(trajectory([0.0]))).all()


def test_the_last_finite_value_of_a_series():
    run = made_up()
    assert final_row(run, "test_accuracy") == run.series["test_accuracy"][-1]
    assert np.isnan(final_row(run, "nothing"))
