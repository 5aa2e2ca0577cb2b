"""One seed for a run, and from it an independent one for every purpose."""

import hashlib
from typing import Literal

Purpose = Literal[
    "initialisation",
    "order",
    "augmentation",
    "deficits",
    "fraction",
    "perturb",
    "step",
    "statistics",
    "fisher",
    "subset",
    "penalty",
    "held_out",
    "gradient_norms",
]


def derive_seed(seed: int, purpose: Purpose, index: int | None = None) -> int:
    """The seed of one purpose (and of one epoch or step of it): 63 bits of sha256 of "seed/purpose/index".

    Random numbers are functions of (seed, purpose, index) and never of what was drawn before: another
    deficit leaves the order alone, and a run can go on, or branch off, anywhere.
    """
    text = f"{seed}/{purpose}" if index is None else f"{seed}/{purpose}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
