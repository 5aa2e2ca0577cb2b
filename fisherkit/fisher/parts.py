"""What one pass gave, and where it goes: the tally of each estimator."""

from dataclasses import dataclass, replace

from torch import Tensor

from .passes import Reduced
from .plan import Plan
from .tally import Tally
from .vectors import Estimator


@dataclass
class Part:
    """One estimator's share of the measurement."""

    estimator: Estimator
    plan: Plan  # of this process's passes from now on
    tally: Tally
    tallied: Plan  # of all that is in the tally

    def moved(self, plan: Plan, layer: str, reason: str) -> Plan:
        """The plan with a layer that leaves ghost."""
        return plan.moved(layer, "batch" if self.estimator.stochastic else "loop", reason)

    def add(self, measured: "Measured", values: dict[str, Tensor]) -> None:
        """What one pass gave; a layer that left ghost in it has left for good."""
        for layer, reason in measured.moves.items():
            if self.tallied.engines[layer] == "ghost":
                self.tallied = self.moved(self.tallied, layer, reason)
        self.tally.joint = self.tallied.joint
        self.tally.add(values, measured.images)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one pass gave, on its way to the tallies, in another process perhaps; left on the device until then."""

    images: int
    values: list[dict[str, Tensor]]  # of each estimator and layer: float64 [draws, groups]
    entropy: Tensor  # sums over the images
    rare: Tensor
    counted: Tensor  # positions whose label counts
    moves: dict[str, str]  # layers that left ghost in this process so far, and why
    projected: frozenset[str]  # layers so far
    reduced: Reduced | None = None

    def cpu(self) -> "Measured":
        """To be sent to another process."""
        values = [{name: value.cpu() for name, value in found.items()} for found in self.values]
        return replace(
            self, values=values, entropy=self.entropy.cpu(), rare=self.rare.cpu(), counted=self.counted.cpu()
        )
