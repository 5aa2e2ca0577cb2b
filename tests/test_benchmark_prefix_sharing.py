"""What the papers' plans save by sharing, against arithmetic by hand."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# the control of a removal study trains 160 epochs; each of the seven t0 = 20, 40, ..., 140 the 20 epochs of deficit
# that its predecessor has not, and 160 clean ones
REMOVAL = 160 + 7 * (20 + 160)
REMOVAL_ALONE = 160 + sum(t0 + 160 for t0 in (20, 40, 60, 80, 100, 120, 140))
# with the rate reset at t0 a run is that without it up to t0; the control is the same
RESET, RESET_ALONE = 7 * 160, REMOVAL_ALONE - 160
# restarted at t0 and 40, 80, 120 epochs later: that of `reset` up to t0 + 40; the control up to 40
RESTART = 120 + 7 * 120
# a run of a window study has 40 + 160 epochs and is the control up to its onset
ONSETS = (0, 10, 20, 30, 40, 60, 80, 100, 120)
WINDOW = 200 + sum(200 - onset for onset in ONSETS)

BY_HAND = {
    "removal, blur": (8, REMOVAL, REMOVAL_ALONE),
    "removal, blur; lr not reset and reset": (8 + 7, REMOVAL + RESET, REMOVAL_ALONE + RESET_ALONE),
    "removal, blur; lr not reset, reset, constant, restart": (
        8 + 7 + 8 + 8,
        2 * REMOVAL + RESET + RESTART,  # a constant rate shares nothing with the others
        3 * REMOVAL_ALONE + RESET_ALONE,
    ),
    "removal, blur and flip": (1 + 2 * 7, 2 * REMOVAL - 160, 2 * REMOVAL_ALONE - 160),
    # a cosine over another number of epochs is another rate from the second epoch on: 1 epoch shared with the run of
    # t0 = 20, by the other six
    "removal, blur; lr by cosine": (8, REMOVAL_ALONE - 6, REMOVAL_ALONE),
    "window of 40, blur": (1 + 9, WINDOW, 10 * 200),
    "window of 40, blur and flip": (1 + 2 * 9, 2 * WINDOW - 200, 19 * 200),
}


def test_hand_arithmetic_in_numbers() -> None:
    assert (REMOVAL, REMOVAL_ALONE, WINDOW) == (1420, 1840, 1540)
    assert (RESET, RESTART) == (1120, 960)


def test_the_planner_saves_what_can_be_saved_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from prefix_sharing import plans, saving

    found = [saving(name, study) for name, study in plans(seeds=1).items()]
    assert {row.plan: (row.runs, row.shared, row.alone) for row in found} == BY_HAND
    by_name = {row.plan: row.share for row in found}
    assert by_name["removal, blur"] == pytest.approx(420 / 1840)
    assert by_name["window of 40, blur"] == pytest.approx(460 / 2000)


def test_runs_of_different_seeds_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from prefix_sharing import plans, saving

    row = saving("window of 40, blur", plans(seeds=2)["window of 40, blur"])
    assert (row.runs, row.shared, row.alone) == (20, 2 * WINDOW, 2 * 10 * 200)
