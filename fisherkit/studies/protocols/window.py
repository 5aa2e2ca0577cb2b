"""Window: a deficit of fixed length at different onsets.

Achille, Rovere, Soatto, Critical Learning Periods in Deep Networks (ICLR 2019), sliding-window deficits.
"""

from collections.abc import Sequence
from itertools import product

from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import (
    StudyOptions,
    for_each_seed,
    merged,
    scaled_run,
    window_text,
    with_conditions,
)
from fisherkit.studies.protocols.removal import CLEAN_EPOCHS, check_names

ONSETS = (0, 10, 20, 30, 40, 60, 80, 100, 120)
LENGTH = 40


def window(options: StudyOptions, *, deficits: Sequence[str] = ("blur",), length: int = LENGTH) -> Study:
    """Deficit in [onset, onset + length) of a run of `clean_epochs` (160) + length epochs, for each onset (the arms).

    Every arm trains for the same number of epochs, as many of them under the deficit, at the same learning rates;
    only the onset differs. The control has no deficit. Of the default onsets those are left out after which no clean
    epoch would follow.

    Raises:
        ValueError: A deficit has a window or is none; or an onset that was asked for leaves no clean epoch after it.
    """
    check_names(deficits)
    if length < 1:
        raise ValueError(f"length of the window must be a whole number of epochs >= 1; got {length!r}.")
    run, span = scaled_run(options), options.epochs(length)
    total = options.epochs(options.clean_epochs or CLEAN_EPOCHS) + span
    notes: list[str] = []
    arms = [PlannedArm("control", "control", None, for_each_seed(options, run, epochs=total), control=True)]
    onsets = _onsets(options, last=total - span - 1)
    for deficit, onset in product(deficits, onsets):
        impaired = with_conditions(run, deficit=(window_text(deficit, onset, onset + span),))
        runs = for_each_seed(options, impaired, epochs=total)
        arms.append(PlannedArm(f"{deficit} from epoch {onset}", deficit, float(onset), runs))
    distinct = merged(arms, notice=notes.append)
    asked = options.record(deficits=list(deficits), length=length, length_run=span, epochs_run=total, notes=notes)
    return Study("window", "onset of the deficit (epoch)", distinct, asked)


def _onsets(options: StudyOptions, *, last: int) -> list[int]:
    """The onsets in epochs as they are run, up to the last that leaves a clean epoch."""
    onsets = [options.epochs(value) for value in options.whole_arms(ONSETS)]
    if options.arms is not None and max(onsets) > last:
        scale = "" if options.time_scale == 1 else f" (at time scale {options.time_scale:g})"
        raise ValueError(
            f"arms must start at epoch {last} or before{scale}, so that clean epochs follow; got {max(onsets)}. "
            "Give more --clean-epochs, or leave out the last arms."
        )
    return [onset for onset in onsets if onset <= last]
