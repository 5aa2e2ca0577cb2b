"""An arm of a study as analysis takes it: what was done, and its runs by seed."""

from collections.abc import Mapping
from dataclasses import dataclass

from fisherkit.recording import Trajectory


@dataclass(frozen=True, eq=False)
class Arm:
    """One point of a study's figure: its place on the axis (NaN if it has none) and a trajectory for each seed.

    Runs that exploded are among them, as far as they went.
    """

    label: str
    group: str
    value: float
    control: bool
    seeds: tuple[int, ...]
    trajectories: tuple[Trajectory, ...]

    def __post_init__(self) -> None:
        if len(self.seeds) != len(self.trajectories) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds must be different, one for each trajectory; got {self.seeds} for {len(self.trajectories)}."
            )

    @property
    def runs(self) -> Mapping[int, Trajectory]:
        """The trajectories by seed."""
        return dict(zip(self.seeds, self.trajectories, strict=True))

    @property
    def whole(self) -> Mapping[int, Trajectory]:
        """Those that did not explode."""
        return {seed: run for seed, run in self.runs.items() if not exploded(run)}


def exploded(trajectory: Trajectory) -> bool:
    """Whether the run ended because its loss became infinite."""
    return bool(trajectory.attributes.get("exploded"))
