"""Which runs, layers and quantities a figure is about, and what they are called in it."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fisherkit.plots.style import label
from fisherkit.recording import Trajectory
from fisherkit.recording.layout import describe, window_text


def several(trajectories: Trajectory | Sequence[Trajectory]) -> list[Trajectory]:
    """One or several trajectories as a list; none is a ValueError."""
    runs = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not runs:
        raise ValueError("trajectories must be at least one; got none.")
    return runs


def matching_layers(run: Trajectory, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers with one of the names or matching one of the patterns (`layer1.*`), in the model's order.

    Raises:
        ValueError: A pattern that matches no layer; lists the layers.
    """
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in run.layers):
            few = run.layers if len(run.layers) <= 30 else (*run.layers[:20], "...", *run.layers[-5:])
            shown = ", ".join(few)
            raise ValueError(f"layer must match one of the layers; got {pattern!r}. The layers are: {shown}.")
    return tuple(name for name in run.layers if any(_matches(name, pattern) for pattern in patterns))


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def quantity(variable: str) -> tuple[str, str]:
    """The name and the unit (with a blank before it) of a variable, short enough for an axis."""
    for prefix, name in (("fisher_true", "tr F"), ("fisher_empirical", "empirical tr F")):
        if variable == prefix or variable.startswith(f"{prefix}_"):
            rest = variable[len(prefix) + 1 :].split("_") if variable != prefix else []
            error = "standard error of " if "stderr" in rest else ""
            probe = " ".join(part for part in rest if part != "stderr")
            return f"{error}{name}" + (f" ({label(probe)})" if probe else ""), " (nats²)"
    return label(describe(variable)["long_name"].removesuffix(" of the layer")), ""


def run_titles(runs: Sequence[Trajectory], titles: Sequence[str] | None) -> list[str]:
    """The titles given, or for several runs their deficits, with the seed where that alone tells them apart.

    A run whose numbers went wrong has the word after it.

    Raises:
        ValueError: A number of titles that is not the number of runs.
    """
    if titles is not None:
        if len(titles) != len(runs):
            raise ValueError(f"titles must be one for each of the {len(runs)} runs; got {len(titles)}.")
        return list(titles)
    names = [_deficits(run) for run in runs] if len(runs) > 1 else [""]
    if len(set(names)) < len(names):
        names = [f"{name}, seed {_seed(run)}" for name, run in zip(names, runs, strict=True)]
    return [f"{name} (exploded)".strip() if exploded(run) else name for name, run in zip(names, runs, strict=True)]


def exploded(run: Trajectory) -> bool:
    """Whether a loss or trace of the run became infinite or NaN."""
    return bool(run.attributes.get("exploded"))


def _deficits(run: Trajectory) -> str:
    texts = [window_text(window) for window in run.attributes.get("deficit_windows") or []]
    return ", ".join(texts) if texts else "no deficit"


def _seed(run: Trajectory) -> object:
    seeds = run.attributes.get("seeds")
    return seeds.get("run", "?") if isinstance(seeds, dict) else run.attributes.get("seed", "?")
