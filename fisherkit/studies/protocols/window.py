"""Window: a deficit of fixed length at different onsets.

Achille, Rovere, Soatto, Critical Learning Periods in Deep Networks (ICLR 2019), sliding-window deficits.
"""

from collections.abc import Sequence

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
    """Deficit in [onset, onset + length) of a run of `clean_epochs` + length epochs, for each onset.

    Every arm trains for the same number of epochs, as many of them under the deficit, at the same learning rates;
    only the onset differs. The control has no deficit.

    Raises:
        ValueError: A deficit has a window; or an onset leaves no clean epoch after it.
    """
    check_names(deficits)
    run = scaled_run(options)
    span = options.epochs(length)
    total = options.epochs(options.clean_epochs or CLEAN_EPOCHS) + span
    arms = [PlannedArm("control", "control", None, for_each_seed(options, run, epochs=total), control=True)]
    for deficit in deficits:
        for onset in dict.fromkeys(options.epochs(value) for value in options.whole_arms(ONSETS)):
            if onset + span >= total:
                raise ValueError(
                    f"arms must start so early that clean epochs follow: {onset} + {span} epochs of deficit end with "
                    f"the run, at epoch {total}. Give more --clean-epochs, or leave out the last arms."
                )
            impaired = with_conditions(run, deficit=(window_text(deficit, onset, onset + span),))
            runs = for_each_seed(options, impaired, epochs=total)
            arms.append(PlannedArm(f"{deficit} from epoch {onset}", deficit, float(onset), runs))
    asked = options.record(deficits=list(deficits), length=length, length_run=span)
    return Study("window", "onset of the deficit (epoch)", merged(arms), asked)
