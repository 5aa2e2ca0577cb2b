"""Regularization: weight decay or augmentation in a part of the training only, the other one throughout.

Golatkar, Achille, Soatto, Time Matters in Regularizing Deep Networks (NeurIPS 2019).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fisherkit.conditions import Conditions
from fisherkit.conditions.window import WHOLE_RUN
from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import (
    StudyOptions,
    for_each_seed,
    merged,
    scaled_run,
    window_text,
)
from fisherkit.training.defaults import paper_defaults

EPOCHS = 200  # of every arm
# parts of the epochs of a run: the paper's sliding window of 50 epochs, and ours, 25 epochs between two default arms
WINDOWS, STEPS = 4, 8
SWEEPS = ("until", "from", "window")
# what the command line calls it -> the option of a run, what a text calls it, the text that switches it off
REGULARIZERS: Mapping[str, tuple[str, str, str]] = {
    "weight-decay": ("weight_decay", "weight decay", "0"),
    "augment": ("augment", "augmentation", "none"),
}


def regularization(
    options: StudyOptions,
    *,
    regularizer: str = "weight-decay",
    length: int | None = None,
    sweeps: Sequence[str] = SWEEPS,
) -> Study:
    """One regularizer in a part of a run of `clean_epochs` (200) epochs; the other one as it is without a study.

    Sweeps, for each t of the arms: `until`, it is on in [0, t); `from`, from t on; `window`, in [t, t + length), where
    the length is a quarter of the run (50) unless given. Controls: always on, and never on. A sweep's arm that would be
    one of the two is left out, and so is a window that would reach past the end: `options["notes"]` of the study says
    so. Its strength is that of the run's options, else the paper's for the model.

    Raises:
        ValueError: The regularizer has a window, or is off; an arm is past the end; a sweep is not one of those.
    """
    field, called, off = _checked(regularizer, sweeps)
    total, length, times = _lengths(options, length=length, sweeps=sweeps)
    run, strength = scaled_run(options), _strength(options.run, field, called)
    epochs = options.epochs(total)

    def arm(label: str, group: str, value: float | None, texts: tuple[str, ...] | None) -> PlannedArm:
        settings = run if texts is None else {**run, field: texts}
        return PlannedArm(label, group, value, for_each_seed(options, settings, epochs=epochs), control=value is None)

    notes: list[str] = []
    arms = [arm(f"{called} always on", "always on", None, None), arm(f"{called} never on", "never on", None, (off,))]
    for sweep in sweeps:
        group = {"until": "on until t", "from": "on from t", "window": f"on for {options.epochs(length)} epochs from t"}
        for t, start, stop in _windows(options, sweep, times[sweep], total=total, length=length, notice=notes.append):
            label = {"until": f"until epoch {t}", "from": f"from epoch {t}", "window": f"in epochs {start}-{stop}"}
            text = window_text(strength, start, stop if stop != epochs else None)  # the same run as `from` start
            arms.append(arm(f"{called} {label[sweep]}", group[sweep], float(t), (text,)))
    asked = options.record(
        regularizer=regularizer, strength=strength, length=length, sweeps=list(sweeps), epochs_run=epochs, notes=notes
    )
    distinct = merged(arms, notice=notes.append)
    return Study("regularization", f"epoch t ({called})", distinct, {**asked, "notes": notes})


def _checked(regularizer: str, sweeps: Sequence[str]) -> tuple[str, str, str]:
    if regularizer not in REGULARIZERS:
        raise ValueError(f"regularizer must be one of {', '.join(REGULARIZERS)}; got {regularizer!r}.")
    for sweep in sweeps:
        if sweep not in SWEEPS:
            raise ValueError(f"sweep must be one of {', '.join(SWEEPS)}; got {sweep!r}.")
    if not sweeps or len(set(sweeps)) < len(sweeps):
        raise ValueError(f"sweeps must be some of {', '.join(SWEEPS)}, each once; got {list(sweeps)!r}.")
    return REGULARIZERS[regularizer]


def _lengths(
    options: StudyOptions, *, length: int | None, sweeps: Sequence[str]
) -> tuple[int, int, Mapping[str, tuple[int, ...]]]:
    """Epochs of a run, those of the sliding window and the t of each sweep, before scaling."""
    total = EPOCHS if options.clean_epochs is None else options.clean_epochs
    length = max(1, total // WINDOWS) if length is None else length
    if "window" in sweeps and not 1 <= length < total:
        raise ValueError(f"length of the window must be at least 1 and below the {total} epochs; got {length!r}.")
    step = max(1, total // STEPS)
    inner = options.whole_arms(range(step, total, step))
    times = {"until": inner, "from": inner, "window": options.whole_arms(range(0, max(total - length, 0) + 1, step))}
    late = [t for sweep in sweeps for t in times[sweep] if t > total]
    if late:
        raise ValueError(f"arms must be at most {total}, the epochs of a run; got {late[0]}. Give more --clean-epochs.")
    return total, length, times


def _strength(run: Mapping[str, Any], field: str, called: str) -> str:
    """The regularizer as the grammar writes it, without a window: `0.0005`, `crop+flip`."""
    default = paper_defaults(run.get("model") or "resnet18", run.get("optimizer") or "sgd")[field]
    texts = tuple(run.get(field) or (str(default),))
    option = "--" + field.replace("_", "-")
    (windowed,) = getattr(Conditions.parse(**{field: texts}), field) if len(texts) == 1 else (None,)
    if windowed is None or windowed.window != WHOLE_RUN:
        raise ValueError(f"{called} must have no window here, for the study gives it; got {option} {' '.join(texts)}.")
    if not windowed.value:
        raise ValueError(f"{called} must be on to be studied; got {texts[0]!r} for this model. Give it with {option}.")
    return str(windowed).rpartition(":")[0]


def _windows(
    options: StudyOptions,
    sweep: str,
    times: Sequence[int],
    *,
    total: int,
    length: int,
    notice: Callable[[str], None],
) -> Iterator[tuple[int, int, int | None]]:
    """t, start and stop of each arm of a sweep, in epochs as they are run."""
    end, span = options.epochs(total), options.epochs(length)
    for time in times:
        t = options.epochs(time)
        if sweep == "window":
            if time + length > total or span >= end:
                notice(f"window from epoch {t}: it would reach past the end of the run at epoch {end}; left out.")
                continue
            t = min(t, end - span)  # rounding may have moved it past the end
            yield t, t, t + span
        elif t == 0 or t >= end:
            always = (t == 0) == (sweep == "from")
            notice(f"{sweep} epoch {t} is the control '{'always' if always else 'never'} on'; it is run once.")
        else:
            yield (t, 0, t) if sweep == "until" else (t, t, None)
