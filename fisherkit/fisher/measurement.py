"""One measurement in progress: a model surveyed, its layers planned, its values tallied batch after batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from .agreement import Offer, buffers_of, facts_of
from .ghost import PathError
from .inputs import Batch
from .layers import Layer, frozen_parameters, trainable_layers
from .losses.remarks import examined
from .losses.softmax import counted
from .noise import ImageNoise
from .notes import Observed, notes
from .parts import Measured, Part
from .passes import Passes, Reduced, out_of_memory
from .plan import Plan, make_plan, measure_together, of_plan, settle_vmap
from .processes import Processes, in_order
from .request import Request
from .result import FisherTrace
from .sizes import Asked, need_of, sizes, why_too_large
from .sketch import PROJECTED, Sketch
from .survey import Survey, survey
from .tally import Tally, check_population
from .vectors import Estimator, Vectors

SURVEYED_IMAGES = 3
MIN_IMAGES_TO_STOP = 100  # a standard error from fewer images is too uncertain to stop by
MIN_GROUPS_TO_STOP = 20  # likewise for batches
ROUNDED = {"full": "", "tf32": " in TF32", "bf16": " under bf16 autocast"}


@dataclass
class Measurement:
    """The state of one call; `prepare` first, then `run`, then `result` for each part."""

    model: nn.Module
    request: Request
    together: Processes
    layers: tuple[Layer, ...] = ()
    parts: list[Part] = field(default_factory=list)
    entropy: list[Tensor] = field(default_factory=list)  # sums over a pass, left on the device
    rare: list[Tensor] = field(default_factory=list)
    counted: list[Tensor] = field(default_factory=list)
    images: int = 0
    largest: int = 0  # images of a pass
    reduced: Reduced | None = None
    projected: frozenset[str] = frozenset()  # layers
    moves: dict[str, str] = field(default_factory=dict)  # layers that left ghost in this process, and why
    found: Survey = field(init=False)
    sketch: Sketch | None = None

    def prepare(self, first: Batch) -> None:
        """Survey the model on a few images and choose the engines."""
        request, sample = self.request, first.head(SURVEYED_IMAGES)
        self.layers = trainable_layers(self.model)
        try:
            self.found = survey(self.model, sample.inputs, self.layers, partial(examined, request.loss))
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise MemoryError(why_too_large(len(sample))) from error
            raise
        check_population(request.population, joint=self.found.joint)
        if request.projections is not None:
            numbers = {layer.name: number for number, layer in enumerate(self.layers)}
            self.sketch = Sketch(request.seed, request.projections, numbers)
        plans = [self._plan(estimator) for estimator in request.estimators]
        for index, (estimator, plan) in enumerate(zip(request.estimators, plans, strict=True)):
            _need_labels(estimator, first)
            vectors = of_plan(_BatchVectors(self, sample, 0), index)
            settled = settle_vmap(plan, self.model, sample.inputs, vectors, asked=request.engine == "vmap")
            tally = Tally([layer.name for layer in self.layers], joint=plan.joint)
            self.parts.append(Part(estimator, settled, tally, tallied=settled))

    def _plan(self, estimator: Estimator) -> Plan:
        return make_plan(
            self.layers,
            self.found,
            engine=self.request.engine_for(estimator),
            stochastic=estimator.stochastic,
            batchnorm=self.request.batchnorm,
        )

    def offer(self, first: Batch, *, images: int | None, batch_size: int | None) -> Offer:
        """What this process is about to measure, and in passes of how many images; `images` in all, where known."""
        request, alone = self.request, self.together.count == 1
        asked = Asked(images, batch_size, request.max_memory, self.together.local)
        planned = sizes(asked, self.found, [part.plan for part in self.parts], request.estimators)
        facts = {} if alone else {**request.facts(), **facts_of(self.model, first.head(SURVEYED_IMAGES), images)}
        buffers = buffers_of(self.model) if self.together.rank == 0 and not alone else {}
        return Offer(facts, planned, fixed=batch_size is not None, buffers=buffers)

    def run(self, stream: Iterator[Batch], *, limit: int | None = None) -> None:
        """Measure batch after batch until the images end or the standard error is reached."""
        divisible = self.found.joint is None
        passes = Passes(self._measured, limit, divisible=divisible, explain=self._why_too_large)
        own, often = self._own(stream, passes), self.request.rel_se is not None
        for measured in in_order(own, self.together, often=often, send=lambda done: [one.cpu() for one in done]):
            for one in measured:
                self._add(one)
            if self._enough():
                return

    def _own(self, stream: Iterator[Batch], passes: Passes[Measured]) -> Iterator[list[Measured] | None]:
        """What this process's batches gave, each in one pass or several; None for those of other processes."""
        start = 0
        for number, batch in enumerate(stream):
            for part in self.parts:
                _need_labels(part.estimator, batch)
            own = number % self.together.count == self.together.rank
            yield [replace(one, reduced=passes.reduced) for one in passes.over(batch, start)] if own else None
            start += len(batch)

    def _measured(self, batch: Batch, start: int) -> Measured:
        vectors = _BatchVectors(self, batch, start)
        found = zip(self.parts, self._values(batch, vectors), strict=True)
        return Measured(
            images=len(batch),
            values=[{name: part.estimator.combine(v) for name, v in values.items()} for part, values in found],
            entropy=vectors.entropy[0],
            rare=vectors.rare[0],
            counted=vectors.counted[0],
            moves=dict(self.moves),
            projected=frozenset(self.sketch.layers if self.sketch else ()),
        )

    def _why_too_large(self, images: int) -> str:
        """What to say where memory ran out for a pass that cannot be divided."""
        need = need_of(self.found, [part.plan for part in self.parts], self.request.estimators)
        exact = any(estimator.name == "exact" for estimator in self.request.estimators)
        return why_too_large(images, need, joint=self.found.joint, exact=exact)

    def _add(self, measured: Measured) -> None:
        for part, values in zip(self.parts, measured.values, strict=True):
            part.add(measured, values)
        self.entropy.append(measured.entropy)
        self.rare.append(measured.rare)
        self.counted.append(measured.counted)
        self.images += measured.images
        self.largest = max(self.largest, measured.images)
        self.projected |= measured.projected
        self.reduced = min(filter(None, (self.reduced, measured.reduced)), default=None)

    def _values(self, batch: Batch, vectors: "_BatchVectors") -> list[dict[str, Tensor]]:
        """Of one batch; under `auto`, a layer that turns out to take another path than at first leaves ghost."""
        while True:
            try:
                respond = self.sketch.respond(vectors.start) if self.sketch else None
                plans = [part.plan for part in self.parts]
                return measure_together(plans, self.model, batch.inputs, vectors, respond=respond)
            except PathError as change:
                if self.request.engine != "auto":
                    raise
                self.moves[change.layer] = change.reason
                for part in self.parts:
                    part.plan = part.moved(part.plan, change.layer, change.reason)

    def _enough(self) -> bool:
        """Whether every estimator is known as well as was asked for."""
        request = self.request
        if request.rel_se is None or self.images < MIN_IMAGES_TO_STOP:
            return False
        groups = min(len(p.tally.total.means) if p.tallied.joint else self.images for p in self.parts)
        return groups >= MIN_GROUPS_TO_STOP and all(
            part.tally.reached(
                request.rel_se, part.estimator.draws, layers_above=request.rel_se_above, population=request.population
            )
            for part in self.parts
        )

    def result(self, part: Part) -> FisherTrace:
        """The frozen result of one estimator."""
        estimator, tally, request = part.estimator, part.tally, self.request
        tally.check_finite()
        self._check_counted()
        summaries = [tally.columns[layer.name].summary(estimator.draws, request.population) for layer in self.layers]
        total = tally.total.summary(estimator.draws, request.population)
        parameter = next(iter(self.layers[0].parameters.values()))
        projected = self.projected & {layer.name for layer in part.tallied.measured_by("ghost")}
        return FisherTrace(
            layers=tuple(layer.name for layer in self.layers),
            trace=np.array([s.mean for s in summaries]),
            stderr=np.array([s.stderr for s in summaries]),
            stderr_draws=np.array([s.stderr_draws for s in summaries]),
            skewness=np.array([s.skewness for s in summaries]),
            total=total.mean,
            total_stderr=total.stderr,
            total_stderr_draws=total.stderr_draws,
            total_skewness=total.skewness,
            images=tally.images,
            groups=total.groups,
            draws=estimator.draws,
            engines=part.tallied.engines | dict.fromkeys(projected, PROJECTED),
            parameters={layer.name: layer.size for layer in self.layers},
            coverage=1.0,
            frozen_parameters=frozen_parameters(self.model),
            estimator=estimator.name,
            loss=request.loss.name,
            batchnorm=request.batchnorm,
            dtype=str(parameter.dtype).removeprefix("torch.") + ROUNDED[request.precision],
            device=str(parameter.device),
            seed=request.seed,
            entropy=float(torch.stack(self.entropy).sum()) / self.images,
            population=request.population,
            batch_size=min(self.largest, self.reduced.limit) if self.reduced else self.largest,
            reasons=part.tallied.reasons,
            notes=notes(self._observed(part), summaries, total),
        )

    def _check_counted(self) -> None:
        if not any(map(bool, self.counted)):
            raise ValueError(
                "labels must leave at least one position that counts; got labels that are all ignore_index. Leave the "
                "labels out to measure every position."
            )

    def _observed(self, part: Part) -> Observed:
        return Observed(
            model=self.model,
            estimator=part.estimator,
            tally=part.tally,
            joint=self.found.joint if part.tallied.joint else None,
            batchnorm=self.request.batchnorm,
            rare_draws=float(torch.stack(self.rare).sum()) * part.estimator.draws,
            dtype=next(iter(self.layers[0].parameters.values())).dtype,
            surveyed=self.found.notes,
            reduced=self.reduced,
            rel_se=self.request.rel_se,
            rel_se_above=self.request.rel_se_above,
        )


def _need_labels(estimator: Estimator, batch: Batch) -> None:
    if estimator.name == "empirical" and batch.labels is None:
        raise ValueError("labels must be given with every batch for estimator='empirical'; got None.")


class _BatchVectors:
    """Each estimator's vectors for one batch as a function of the outputs: the same for every engine that asks."""

    def __init__(self, measurement: Measurement, batch: Batch, start: int) -> None:
        self.measurement, self.batch, self.start = measurement, batch, start
        self.entropy: list[Tensor] = []  # of the images, once the outputs were seen
        self.rare: list[Tensor] = []
        self.counted: list[Tensor] = []

    def __call__(self, outputs: Tensor) -> Sequence[Vectors]:
        measurement = self.measurement
        likelihood = measurement.request.loss.likelihood(outputs.detach(), self.batch.labels)
        if not self.entropy:
            self.entropy.append(likelihood.entropy().sum())
            self.rare.append(likelihood.rare_draws().sum())
            self.counted.append(counted(likelihood))
        shape = (len(outputs), likelihood.noise)
        uniforms = ImageNoise.draws(measurement.request.seed, self.start, shape, outputs.device)
        return [estimator.vectors(likelihood, uniforms, outputs) for estimator in measurement.request.estimators]
