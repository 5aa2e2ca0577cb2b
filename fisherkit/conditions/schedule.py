"""Everything that changes during a training, and what of it holds in an epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from fisherkit.conditions.deficit import Deficit
from fisherkit.conditions.events import Event
from fisherkit.conditions.grammar import parse_each
from fisherkit.conditions.parse import (
    checked_augment,
    checked_fraction,
    checked_weight_decay,
    parse_augment,
    parse_deficit,
    parse_event,
    parse_fraction,
    parse_weight_decay,
)
from fisherkit.conditions.window import Value, Window, Windowed
from fisherkit.images.image_set import ImageSet

_CHECKED_IMAGES = 16

# field of Conditions -> what a user calls one of them, its parser, a text that works
_GRAMMAR: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "deficits": ("deficit", parse_deficit, "blur(4):0-40"),
    "weight_decay": ("weight decay", parse_weight_decay, "5e-4:0-100"),
    "augment": ("augment", parse_augment, "crop+flip:50-"),
    "fraction": ("fraction", parse_fraction, "0.5:0-350"),
    "events": ("event", parse_event, "shrink_perturb(0.4,0.1):350"),
}


@dataclass(frozen=True)
class EpochConditions:
    """What holds in one epoch (0-based).

    `augment` is what is in effect: empty under a deficit to which augmentation does not apply.
    """

    epoch: int
    deficits: tuple[Deficit, ...]
    weight_decay: float
    augment: tuple[str, ...]
    fraction: float
    events: tuple[Event, ...]

    def record(self) -> dict[str, Any]:
        """The same as JSON-able values, for the file of a run."""
        return {
            "epoch": self.epoch,
            "deficits": [str(deficit) for deficit in self.deficits],
            "weight_decay": self.weight_decay,
            "augment": list(self.augment),
            "fraction": self.fraction,
            "events": [event.call for event in self.events],
        }


@dataclass(frozen=True)
class Conditions:
    """What is done to a training, and when.

    Deficits compose in the order given. Outside every window: no deficit, weight decay 0, no augmentation,
    the whole training set. Raises ValueError where two of a kind hold in the same epoch.
    """

    deficits: tuple[Windowed[Deficit], ...] = ()
    weight_decay: tuple[Windowed[float], ...] = ()
    augment: tuple[Windowed[tuple[str, ...]], ...] = ()
    fraction: tuple[Windowed[float], ...] = ()
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        for windowed in self.weight_decay:
            checked_weight_decay(windowed.value)
        for windowed in self.fraction:
            checked_fraction(windowed.value)
        for augment in self.augment:
            checked_augment(augment.value)
        for field, texts in self.texts().items():
            _refuse_overlaps(_GRAMMAR[field][0], getattr(self, field), texts)

    @classmethod
    def parse(
        cls,
        *,
        deficits: Sequence[str] = (),
        weight_decay: Sequence[str] = (),
        augment: Sequence[str] = (),
        fraction: Sequence[str] = (),
        events: Sequence[str] = (),
    ) -> "Conditions":
        """From texts such as `blur(8):0-40`; a ValueError shows the text, what is wrong and an example."""
        given = {
            "deficits": deficits,
            "weight_decay": weight_decay,
            "augment": augment,
            "fraction": fraction,
            "events": events,
        }
        parsed: dict[str, tuple[Any, ...]] = {}
        for field, texts in given.items():
            kind, parse_one, example = _GRAMMAR[field]
            parsed[field] = parse_each(kind, texts, parse_one, example=example)
            _refuse_overlaps(kind, parsed[field], texts)
        return cls(**parsed)

    def texts(self) -> dict[str, list[str]]:
        """The arguments of `parse` that make the same conditions."""
        return {
            "deficits": [str(windowed) for windowed in self.deficits],
            "weight_decay": [str(windowed) for windowed in self.weight_decay],
            "augment": [str(windowed) for windowed in self.augment],
            "fraction": [str(windowed) for windowed in self.fraction],
            "events": [str(event) for event in self.events],
        }

    def at(self, epoch: int) -> EpochConditions:
        """What holds in this epoch."""
        deficits = tuple(windowed.value for windowed in self.deficits if epoch in windowed.window)
        augmented = all(deficit.augmentation for deficit in deficits)
        return EpochConditions(
            epoch=epoch,
            deficits=deficits,
            weight_decay=_holding(self.weight_decay, epoch, otherwise=0.0),
            augment=_holding(self.augment, epoch, otherwise=()) if augmented else (),
            fraction=_holding(self.fraction, epoch, otherwise=1.0),
            events=tuple(event for event in self.events if event.epoch == epoch),
        )

    @property
    def phase_starts(self) -> tuple[int, ...]:
        """The first epoch of each phase: of the stretches in which no `fraction` starts or stops."""
        bounds = (bound for fraction in self.fraction for bound in (fraction.window.start, fraction.window.stop))
        return tuple(sorted({0, *(bound for bound in bounds if bound is not None)}))

    def next_phase(self, epoch: int) -> int | None:
        """The first epoch of the phase after that of this epoch; None in the last one."""
        return next((start for start in self.phase_starts if start > epoch), None)

    def fraction_before(self, epoch: int) -> float | None:
        """The fraction in the phase before that of this epoch; None in the first one."""
        start = max(start for start in self.phase_starts if start <= epoch)
        return None if start == 0 else self.at(start - 1).fraction

    def all_deficits(self) -> tuple[Deficit, ...]:
        """The distinct deficits, in the order given."""
        return tuple(dict.fromkeys(windowed.value for windowed in self.deficits))

    def deficit_windows(self) -> list[dict[str, Any]]:
        """Name, text, start and stop of every deficit window, JSON-able; stop None is the end of the run."""
        return [
            {
                "name": windowed.value.name,
                "text": str(windowed.value),
                "start": windowed.window.start,
                "stop": windowed.window.stop,
            }
            for windowed in self.deficits
        ]

    def check(self, images: ImageSet) -> None:
        """Try every deficit on a few of the images, so that what cannot be applied fails early."""
        few = images.select(torch.arange(min(len(images), _CHECKED_IMAGES), device=images.labels.device))
        for deficit in self.all_deficits():
            deficit.apply(few, seed=0)


def apply_deficits(images: ImageSet, deficits: Sequence[Deficit], *, seed: int, epoch: int = 0) -> ImageSet:
    """The images under the deficits, the first one first; a pure function of its arguments."""
    for deficit in deficits:
        images = deficit.apply(images, seed=seed, epoch=epoch)
    return images


def _holding(values: Sequence[Windowed[Value]], epoch: int, *, otherwise: Value) -> Value:
    return next((windowed.value for windowed in values if epoch in windowed.window), otherwise)


def _refuse_overlaps(kind: str, values: Sequence[Windowed[Any] | Event], texts: Sequence[str]) -> None:
    """Raise ValueError where two of a kind hold in one epoch; deficits and events are a kind per name."""
    slots = [_slot(kind, value) for value in values]
    for (first, text), (second, other_text) in combinations(zip(slots, texts, strict=True), 2):
        shared = first[1].overlap(second[1]) if first[0] == second[0] else None
        if shared is not None:
            raise ValueError(
                f"{first[0]} must be given at most once for an epoch; got {text!r} and {other_text!r}, "
                f"which both hold in the epochs {shared}. Let one end where the other begins."
            )


def _slot(kind: str, value: Windowed[Any] | Event) -> tuple[str, Window]:
    """What a condition occupies: nothing else of the same name may hold in the same window."""
    if isinstance(value, Event):
        return value.name, Window(value.epoch, value.epoch + 1)
    return value.value.name if isinstance(value.value, Deficit) else kind, value.window
