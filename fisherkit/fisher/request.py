"""What one call asks for, checked before anything is measured."""

from dataclasses import dataclass

from .losses import Loss
from .tally import check_population
from .undisturbed import BATCHNORM_POLICIES, PRECISIONS
from .vectors import Estimator


@dataclass(frozen=True)
class Request:
    """What to measure and how, checked; the estimators whose vectors have mean zero come first."""

    estimators: tuple[Estimator, ...]
    loss: Loss
    engine: str = "auto"
    batchnorm: str = "eval"
    seed: int = 0
    rel_se: float | None = None
    rel_se_above: float | None = None
    population: int | None = None
    projections: int | None = None
    precision: str = "full"
    max_memory: int | None = None
    distributed: bool = True

    def __post_init__(self) -> None:
        if self.batchnorm not in BATCHNORM_POLICIES:
            raise ValueError(f"batchnorm must be one of {', '.join(BATCHNORM_POLICIES)}; got {self.batchnorm!r}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if self.projections is not None and self.projections < 1:
            raise ValueError(f"projections must be at least 1, for example 4; got {self.projections!r}.")
        if self.rel_se is not None and not 0 < self.rel_se < 1:
            raise ValueError(f"rel_se must be between 0 and 1, for example 0.05; got {self.rel_se!r}.")
        if self.rel_se_above is not None and not 0 < self.rel_se_above < 1:
            raise ValueError(
                "rel_se_above must be a share of the total between 0 and 1, for example 0.01; "
                f"got {self.rel_se_above!r}."
            )
        if self.rel_se_above is not None and self.rel_se is None:
            raise ValueError("rel_se_above needs rel_se, the relative standard error to stop at; got None.")
        if self.population is not None:
            for estimator in self.estimators:
                check_population(
                    self.population,
                    drawn=estimator.stochastic,
                    draws=estimator.draws,
                    projections=self.projections,
                )

    def facts(self) -> dict[str, object]:
        """What several processes that measure together must have in common."""
        names = ("engine", "batchnorm", "seed", "rel_se", "rel_se_above", "population", "projections", "precision")
        estimators = [(estimator.name, estimator.draws) for estimator in self.estimators]
        return {"estimator": estimators, "loss": self.loss.name} | {name: getattr(self, name) for name in names}

    def engine_for(self, estimator: Estimator) -> str:
        """The engine asked for; beside others, an estimator for which `batch` is not valid goes to `auto`."""
        alone = len(self.estimators) == 1
        return "auto" if self.engine == "batch" and not estimator.stochastic and not alone else self.engine
