"""What is done to training, and when: deficits, regularization, data fractions, events, and their windows."""

from fisherkit.conditions.blur import Blur
from fisherkit.conditions.custom import CustomDeficit
from fisherkit.conditions.deficit import Deficit
from fisherkit.conditions.events import Event, LrRestart, LrScale, ShrinkPerturb
from fisherkit.conditions.labels import Permute, Shuffle
from fisherkit.conditions.parse import AUGMENTATIONS, DEFICITS, EVENTS
from fisherkit.conditions.pixels import Flip, Grayscale, Noise, Occlude
from fisherkit.conditions.schedule import Conditions, EpochConditions, apply_deficits
from fisherkit.conditions.window import Window, Windowed

__all__ = [
    "AUGMENTATIONS",
    "DEFICITS",
    "EVENTS",
    "Blur",
    "Conditions",
    "CustomDeficit",
    "Deficit",
    "EpochConditions",
    "Event",
    "Flip",
    "Grayscale",
    "LrRestart",
    "LrScale",
    "Noise",
    "Occlude",
    "Permute",
    "ShrinkPerturb",
    "Shuffle",
    "Window",
    "Windowed",
    "apply_deficits",
]
