"""What every protocol of a study does: scale its lengths in time, and make one run for each seed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fisherkit.conditions import Conditions, Event, Window, Windowed
from fisherkit.conditions.window import WHOLE_RUN
from fisherkit.studies.arms import PlannedArm
from fisherkit.studies.specification import RunSpecification, specify
from fisherkit.training.defaults import paper_defaults
from fisherkit.training.schedules import Exponential, Step, parse_schedule

LISTS = ("deficit", "weight_decay", "augment", "fraction", "event")  # options of a run that may be given several times


@dataclass(frozen=True)
class StudyOptions:
    """What every protocol is asked for.

    `run` holds options of `specify` for all runs, without their length; only those that were asked for, since some
    protocols have defaults of their own. Lengths, in `run` as elsewhere, are the protocol's own epochs; every one of
    them, and the decay of the learning rate, is scaled by `time_scale`, so that a protocol of 200 epochs runs in
    200 x time_scale. Cadences (`every`) are not. `arms` are the values of the axis, as text.
    """

    run: Mapping[str, Any]
    seeds: int = 3
    time_scale: float = 1.0
    arms: tuple[str, ...] | None = None
    clean_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be a whole number >= 1; got {self.seeds!r}.")
        if not 0 < self.time_scale <= 100:
            raise ValueError(f"time_scale must be above 0 and at most 100; got {self.time_scale!r}.")
        if self.clean_epochs is not None and self.clean_epochs < 1:
            raise ValueError(f"clean_epochs must be a whole number >= 1; got {self.clean_epochs!r}.")
        if self.arms is not None and not self.arms:
            raise ValueError(
                "arms must be at least one value, such as 0,20,40; got none. Leave it out for the default."
            )
        lengths = [name for name in ("epochs", "clean_epochs") if self.run.get(name) is not None]
        if lengths:
            raise ValueError(f"{lengths[0]} must not be among the options of all runs: the protocol sets their length.")

    def epochs(self, length: int) -> int:
        """A length of the protocol in epochs as they are run, rounded to the nearest; at least 1, 0 stays 0."""
        return scaled(length, self.time_scale)

    def whole_arms(self, default: Sequence[int]) -> tuple[int, ...]:
        """The arms as epochs >= 0 of the protocol, ascending, each once; `default` where none were given.

        Raises:
            ValueError: An arm is not a whole number.
        """
        texts = tuple(map(str, default)) if self.arms is None else self.arms
        for text in texts:
            if not (text.isascii() and text.isdigit() and len(text) < 10):
                raise ValueError(f"arms must be epochs >= 0, such as 0,20,40; got {text!r}.")
        return tuple(sorted({int(text) for text in texts}))

    def record(self, **more: Any) -> dict[str, Any]:
        """The same as JSON-able values, for the files of a study."""
        return {**dataclasses.asdict(self), "run": {name: _plain(value) for name, value in self.run.items()}, **more}


def scaled(length: int, time_scale: float) -> int:
    """length x time_scale, rounded to the nearest whole number; at least 1, except that 0 stays 0."""
    return max(1, int(length * time_scale + 0.5)) if length else 0


def scaled_schedule(text: str, time_scale: float) -> str:
    """The schedule whose decay over epochs that are `time_scale` times as many is the same.

    exponential(d) -> exponential(d ** (1 / time_scale)); step(d, n) -> step(d, n x time_scale); others have no
    length of their own.
    """
    schedule = parse_schedule(text)
    if isinstance(schedule, Exponential):
        schedule = Exponential(schedule.decay ** (1 / time_scale))
    elif isinstance(schedule, Step):
        schedule = Step(schedule.decay, scaled(schedule.every, time_scale))
    return str(schedule)


def given_options(run: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given: not None and not an empty list."""
    return {name: value for name, value in run.items() if value is not None and value not in ((), [])}


def scaled_run(options: StudyOptions, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options of a run with the paper's schedule filled in, windows, events and decay scaled in time.

    They are those of all runs of the study, unless others are given.
    """
    run = dict(options.run if run is None else run)
    defaults = paper_defaults(run.get("model") or "resnet18", run.get("optimizer") or "sgd")
    run["lr_schedule"] = scaled_schedule(run.get("lr_schedule") or defaults["lr_schedule"], options.time_scale)
    texts = {name: tuple(run.get(name) or ()) for name in LISTS}
    conditions = Conditions.parse(
        deficits=texts["deficit"],
        weight_decay=texts["weight_decay"],
        augment=texts["augment"],
        fraction=texts["fraction"],
        events=texts["event"],
    )
    for name, values in zip(LISTS, conditions.texts(), strict=True):
        run[name] = tuple(_scaled_condition(value, options.time_scale) for value in getattr(conditions, values))
    return run


def for_each_seed(options: StudyOptions, run: Mapping[str, Any], *, epochs: int) -> tuple[RunSpecification, ...]:
    """One run for each seed, from the run's own seed (0 unless given) upwards; epochs as they are run.

    Raises:
        ValueError: A choice is out of range, or an event is not before the end.
    """
    for event in Conditions.parse(events=run.get("event", ())).events:
        if event.epoch >= epochs:
            raise ValueError(f"event {str(event)!r} must be before the end of every run; one ends at epoch {epochs}.")
    first = run.get("seed") or 0
    rest = {name: value for name, value in run.items() if name != "seed"}
    return tuple(specify(epochs=epochs, seed=first + k, **rest) for k in range(options.seeds))


def with_conditions(run: Mapping[str, Any], **more: Sequence[str]) -> dict[str, Any]:
    """The run with further windows or events beside its own."""
    return {**run, **{name: (*run.get(name, ()), *texts) for name, texts in more.items()}}


def window_text(name: str, start: int, stop: int | None) -> str:
    """`blur(8):0-40`; without a stop, to the end."""
    return f"{name}:{Window(start, stop)}"


def merged(arms: Sequence[PlannedArm], *, notice: Callable[[str], None] | None = None) -> tuple[PlannedArm, ...]:
    """The arms without those that scaling made equal to an earlier one of the same group; `notice` is told of them."""
    kept: dict[tuple[str, float | None], PlannedArm] = {}
    for arm in arms:
        place = (arm.group, arm.value)
        if place not in kept:
            kept[place] = arm
        elif notice is not None:
            notice(f"{arm.label} ({arm.group}) appears more than once at this time scale; it is run once.")
    return tuple(kept.values())


def once_each(name: str, values: Sequence[Any]) -> None:
    """Raise ValueError unless there are values, and no two the same."""
    repeated = [value for k, value in enumerate(values) if value in values[:k]]
    if not values or repeated:
        got = f"{repeated[0]!r} twice" if repeated else "none"
        raise ValueError(f"{name} must be given at least once, and each of them once; got {got}.")


def _scaled_condition(value: Any, time_scale: float) -> str:
    """The text of a window or event at the time scale; as short as one types it where it holds for the whole run."""
    if isinstance(value, Event):
        return str(dataclasses.replace(value, epoch=scaled(value.epoch, time_scale)))
    window: Window = value.window
    stop = None if window.stop is None else scaled(window.stop, time_scale)
    start = scaled(window.start, time_scale)
    moved = Window(start, stop if stop is None else max(stop, start + 1))
    return str(Windowed(value.value, moved)).removesuffix(f":{WHOLE_RUN}" if moved == WHOLE_RUN else "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
