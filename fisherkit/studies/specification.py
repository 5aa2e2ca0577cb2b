"""A run as a value: every choice that decides its numbers, checked, hashed, stored with its file."""

import hashlib
import re
from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fisherkit.conditions import Conditions
from fisherkit.fisher import ENGINES
from fisherkit.fisher.undisturbed import BATCHNORM_POLICIES
from fisherkit.fisher.vectors import Estimator
from fisherkit.images.catalogue import source_named
from fisherkit.studies.cadence import Cadence
from fisherkit.training import TrainingOptions, check_phases, derive_seed, paper_defaults

PROBES = ("train", "test", "deficit")
# where the images lie, of which the file has digests; memory, which decides nothing but the images in a pass, of which
# the file has the number
OF_THE_MACHINE = {"data_dir", "max_memory"}
_OF_THE_SPECTRUM = ("spectrum", "spectrum_every", "spectrum_images")
# options that came later, in groups: while all of a group are at their defaults, a run is what it was before them
_LATER = (
    _OF_THE_SPECTRUM,
    *(("held_out",), ("fisher_penalty",), ("stop_accuracy",), ("gradient_norms",), ("on_nonfinite",)),
)

MOST_EIGENVALUES = 1000  # of a layer; each is a variable of the run file
Texts = tuple[str, ...]
Count = Annotated[int, Field(ge=1)]
MOST_EPOCHS, MOST_THREADS = 10**6, 1024


class RunSpecification(BaseModel):
    """One run of `fisherkit track`; field names are the options of the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "resnet18"
    width: str | None = None
    model_options: dict[str, str] = {}
    data: str = "fashion-mini"
    data_dir: str | None = None
    train_images: Count | None = None
    test_images: Count | None = None
    held_out: float | None = None
    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    batch_size: Count = 128
    optimizer: str = "sgd"
    lr: float
    lr_schedule: str
    momentum: float
    deficit: Texts = ()
    weight_decay: Texts = ()
    augment: Texts = ()
    fraction: Texts = ()
    event: Texts = ()
    fisher_penalty: str | None = None
    stop_accuracy: float | None = None
    gradient_norms: bool = False
    on_nonfinite: str = "stop"
    seed: Annotated[int, Field(ge=0)] = 0
    probe: Annotated[Texts, Field(min_length=1)] = ("train",)
    probe_images: Count = 1000
    every: str = "1"
    estimator: str = "propagated"
    engine: str = "auto"
    draws: Count = 1
    batchnorm: str = "eval"
    spectrum: Annotated[int, Field(ge=1, le=MOST_EIGENVALUES)] | None = None
    spectrum_every: Count = 1
    spectrum_images: Count = 100
    precision: str = "fp32"
    channels_last: bool = True
    refresh_batchnorm: bool = False
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    max_memory: Count | None = None

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that two runs share only when they are the same run."""
        unused = [name for group in _LATER if not any(map(self._chosen, group)) for name in group]
        text = self.model_dump_json(exclude={*OF_THE_MACHINE, *unused})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _chosen(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def name(self) -> str:
        """A readable folder name: model, data, deficits, and the start of the identity."""
        parts = [self.model, self.data, *self.deficit, self.identity[:8]]
        return re.sub(r"[^A-Za-z0-9.]+|[.]{2,}", "-", "-".join(parts)).strip("-.")[-100:].lstrip("-.")

    def conditions(self) -> Conditions:
        """The windows, parsed."""
        return Conditions.parse(
            deficits=self.deficit,
            weight_decay=self.weight_decay,
            augment=self.augment,
            fraction=self.fraction,
            events=self.event,
        )

    def training(self) -> TrainingOptions:
        """The choices that stay the same through the run."""
        return TrainingOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            lr_schedule=self.lr_schedule,
            momentum=self.momentum,
            precision=self.precision,
            channels_last=self.channels_last,
            refresh_batchnorm=self.refresh_batchnorm,
            seed=self.seed,
            fisher_penalty=self.fisher_penalty,
            stop_accuracy=self.stop_accuracy,
            gradient_norms=self.gradient_norms,
            on_nonfinite=self.on_nonfinite,
        )

    def fisher_options(self) -> dict[str, Any]:
        """The arguments of `fisher_trace`; the draws have a seed of their own, the same for every row."""
        return {
            "estimator": self.estimator,
            "engine": self.engine,
            "draws": self.draws,
            "batchnorm": self.batchnorm,
            "max_memory": self.max_memory,
            "seed": derive_seed(self.seed, "fisher") % 2**31,
        }

    def spectrum_options(self) -> dict[str, Any] | None:
        """The arguments of `fisher_spectrum`, where spectra are recorded."""
        return None if self.spectrum is None else {"k": self.spectrum, "max_images": self.spectrum_images}

    def differing_options(self, other: "RunSpecification") -> list[str]:
        """`--lr 0.1 (here 0.05)` for every option in which another run differs."""
        mine, theirs = self.model_dump(exclude=OF_THE_MACHINE), other.model_dump(exclude=OF_THE_MACHINE)
        return [
            f"--{name.replace('_', '-')} {_shown(theirs[name])} (this command: {_shown(mine[name])})"
            for name in mine
            if mine[name] != theirs[name]
        ]


def specify(*, epochs: int | None = None, clean_epochs: int | None = None, **options: Any) -> RunSpecification:
    """A specification in which everything left out is the paper's default for the model.

    `epochs` is the length of the run; or `clean_epochs` the length after the last deficit ends.

    Raises:
        ValueError: a choice is out of range (pydantic lists all of them), or both or no length is given.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    defaults = paper_defaults(given.get("model", "resnet18"), given.get("optimizer", "sgd"))
    defaults["weight_decay"] = (f"{defaults['weight_decay']:g}",)
    defaults["augment"] = (defaults["augment"],)
    merged = {**defaults, **given}
    length = _length(epochs, clean_epochs, Conditions.parse(deficits=merged.get("deficit", ())))
    specification = RunSpecification(epochs=length, **merged)
    check_choices(specification)
    return specification


def check_choices(specification: RunSpecification) -> None:
    """Refuse choices that do not fit together, or texts that mean nothing.

    Raises:
        ValueError: naming the first of them.
    """
    source_named(specification.data)
    if specification.engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {specification.engine!r}.")
    if specification.batchnorm not in BATCHNORM_POLICIES:
        raise ValueError(f"batchnorm must be one of {', '.join(BATCHNORM_POLICIES)}; got {specification.batchnorm!r}.")
    check_phases(specification.conditions(), specification.training())
    Cadence.parse(specification.every)
    Estimator(specification.estimator, specification.draws)
    _check_windows(specification)
    _check_held_out(specification)
    _check_probes(specification)
    _check_spectrum(specification)


def check_kept(specification: RunSpecification, keep: Collection[int]) -> None:
    """Refuse epochs to keep a checkpoint of that the run does not have.

    Raises:
        ValueError: naming the last of them.
    """
    if keep and max(keep) > specification.epochs:
        raise ValueError(
            f"keep_checkpoint must be an epoch of the run, 1 to {specification.epochs}; got {max(keep)}. "
            "Give an earlier one, or more --epochs."
        )


def _length(epochs: int | None, clean_epochs: int | None, conditions: Conditions) -> int:
    if epochs is not None and clean_epochs is not None:
        raise ValueError("epochs and clean_epochs must not both be given: clean_epochs counts from the deficit's end.")
    if clean_epochs is None:
        if epochs is None:
            raise ValueError("epochs (or clean_epochs, after the deficit's end) must be given.")
        return epochs
    stops = [windowed.window.stop for windowed in conditions.deficits]
    if None in stops:
        raise ValueError("clean_epochs needs deficits that end, for example blur:0-40; or give epochs.")
    return clean_epochs + max((stop for stop in stops if stop is not None), default=0)


def _check_windows(specification: RunSpecification) -> None:
    """A window after the end would change nothing without a word."""
    conditions = specification.conditions()
    for name in ("deficits", "weight_decay", "augment", "fraction"):
        for windowed in getattr(conditions, name):
            if windowed.window.start >= specification.epochs:
                raise ValueError(
                    f"{name.removesuffix('s')} {str(windowed)!r} must start before the run ends after "
                    f"{specification.epochs} epochs; it would change nothing. Give more --epochs."
                )


def _check_held_out(specification: RunSpecification) -> None:
    share = specification.held_out
    if share is not None and not 0 < share < 1:
        raise ValueError(
            f"held_out must be above 0 and below 1, a share of the official training images; got {share!r}."
        )


def _check_probes(specification: RunSpecification) -> None:
    for probe in specification.probe:
        if probe not in PROBES:
            raise ValueError(f"probe must be one of {', '.join(PROBES)}; got {probe!r}.")
    if "deficit" in specification.probe and not specification.deficit:
        raise ValueError("probe 'deficit' needs a deficit: the probe images are shown under it.")


def _check_spectrum(specification: RunSpecification) -> None:
    """Options that would change nothing."""
    for name in _OF_THE_SPECTRUM[1:] if specification.spectrum is None else ():
        if specification._chosen(name):
            raise ValueError(f"{name} needs spectrum, the number of eigenvalues of each layer to record; got None.")


def _shown(value: Any) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
