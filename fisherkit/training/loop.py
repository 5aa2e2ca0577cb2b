"""The training loop: an iterator over steps and epochs that writes no files and leaves global state alone."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fisherkit.conditions import Conditions, EpochConditions, ShrinkPerturb
from fisherkit.images.image_set import ImageSet
from fisherkit.training.batches import EpochBatches, batch_bounds, used_images
from fisherkit.training.determinism import own_random_numbers
from fisherkit.training.epoch_data import EpochData
from fisherkit.training.evaluation import autocast, checked_logits, evaluate, refreshed_batchnorm
from fisherkit.training.gradient_norms import GradientNorms, norms_at_start
from fisherkit.training.nonfinite import first_non_finite
from fisherkit.training.options import TrainingOptions
from fisherkit.training.penalty import PenaltyTerm
from fisherkit.training.preparation import (
    check_conditions,
    check_images,
    lay_out_channels_last,
    make_optimizer,
    trained_parameters,
)
from fisherkit.training.reports import EpochReport, NonFiniteLossError, StepReport
from fisherkit.training.schedules import learning_rate
from fisherkit.training.seeds import derive_seed
from fisherkit.training.state import (
    check_course,
    check_model_state,
    check_optimizer_state,
    check_optional_parts,
    check_parts,
    snapshot,
)
from fisherkit.training.tally import Tally


class Training:
    """A training run in memory: iterate over `steps()` or `epochs()`, stop at any yield, go on from there.

    Everything random is a function of (seed, epoch or step, image): order, augmentation, deficits, the fresh
    network of `shrink_perturb`, dropout. So a state restored at any step continues to the same bits, and what
    a consumer does between the steps changes nothing; global random numbers stay untouched. (The same bits
    also need the same `numerics()` and the context `deterministic()`.)

    The model is moved to the device, and trained in place. `fresh_model(seed)` makes a freshly initialised
    model of the same kind; the event `shrink_perturb` needs it, and after it the optimizer starts afresh too.

    Raises:
        ValueError: Images, conditions and model do not fit together; the message says how.
        NonFiniteLossError: From `steps()` and `epochs()`, when a loss has become infinite or NaN: on a CPU before the
            step that would ruin the weights, on other devices, where looking would slow every step down, at the end
            of the epoch. With on_nonfinite="continue" it is not raised: `nonfinite` is then the first one, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        train: ImageSet,
        test: ImageSet,
        options: TrainingOptions,
        conditions: Conditions,
        *,
        fresh_model: Callable[[int], nn.Module] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.options = options
        self.conditions = conditions
        self.device = torch.device(device)
        check_images(train, test)
        check_conditions(conditions, train, options, fresh_model)
        self.train_images = train.to(self.device)
        self.test_images = test.to(self.device)
        self.model = model.to(self.device)
        self._fresh_model = fresh_model
        # without convolutions the images would be laid out for nothing, and again for the first linear layer
        self._channels_last = options.channels_last and lay_out_channels_last(self.model)
        self.optimizer = make_optimizer(self.model, options)
        self._penalty = PenaltyTerm(options.penalty, trained_parameters(self.model), seed=options.seed)
        self._gradient_norms: GradientNorms | None = None
        self.epoch = 0
        self.step = 0
        self.step_in_epoch = 0
        self.elapsed_s = 0.0
        self._batches: EpochBatches | None = None
        self._tally = Tally(0, self.device)
        self._data = EpochData(
            self.train_images,
            batch_size=options.batch_size,
            seed=options.seed,
            channels_last=self._channels_last,
        )
        self.nonfinite: NonFiniteLossError | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the current epoch (of the last one, after the end)."""
        return learning_rate(
            self.options.lr,
            self.options.schedule,
            epoch=min(self.epoch, self.options.epochs - 1),
            epochs=self.options.epochs,
            events=self.conditions.events,
        )

    def steps(self) -> Iterator[StepReport]:
        """Train, and report after every optimiser step; all state is then in `self`."""
        while self.epoch < self.options.epochs:
            yield self._advance()

    def epochs(self) -> Iterator[EpochReport]:
        """Train, and report after every epoch."""
        for step in self.steps():
            if step.report is not None:
                yield step.report

    def _advance(self) -> StepReport:
        """One optimiser step and, after the last of an epoch, what ends the epoch."""
        if self.nonfinite is not None and self.options.on_nonfinite == "stop":
            raise self.nonfinite
        started = time.perf_counter()
        with self._own_settings():
            if self._batches is None:
                self._batches = self._start_epoch()
            batches = self._batches
            if self.step_in_epoch < len(batches):
                self._optimise(batches)
            report = self._end_epoch(batches) if self.step_in_epoch == len(batches) else None
        self.elapsed_s += time.perf_counter() - started
        done = StepReport(self.epoch, self.step, self.step_in_epoch, len(batches))
        if report is not None:
            done = replace(done, report=replace(report, elapsed_s=self.elapsed_s))
            self.epoch, self.step_in_epoch, self._batches = report.next_epoch, 0, None
        return done

    @contextmanager
    def _own_settings(self) -> Iterator[None]:
        """Gradients on, autocast off, random numbers of this step: whatever the consumer has set around the loop."""
        seed = derive_seed(self.options.seed, "step", self.step)
        with torch.enable_grad(), autocast(self.device, "fp32"), own_random_numbers(self.device, seed):
            yield

    def _start_epoch(self) -> EpochBatches:
        """Events, rates and batches of the epoch; in an epoch resumed in its middle the events were before."""
        plan = self.conditions.at(self.epoch)
        if self.step_in_epoch == 0:
            self._apply_events(plan)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
            group["weight_decay"] = plan.weight_decay
        batches = self._data.batches(plan)
        done, self._tally = self._tally, Tally(len(batches), self.device)
        if self.step_in_epoch > 0:
            self._tally.restore(done.losses, done.correct, done.penalties)
        elif self.options.gradient_norms:
            seed, labels = self.options.seed, self.train_images.labels
            with own_random_numbers(self.device, derive_seed(seed, "gradient_norms", self.epoch)):
                self._gradient_norms = norms_at_start(
                    self.model, batches, self.conditions, plan, labels=labels, seed=seed
                )
        return batches

    def _apply_events(self, plan: EpochConditions) -> None:
        for event in plan.events:
            if isinstance(event, ShrinkPerturb):
                assert self._fresh_model is not None  # checked at construction
                event.apply(self.model, self._fresh_model(derive_seed(self.options.seed, "perturb", self.epoch)))
                self.optimizer.state.clear()  # momenta of weights that are no more
                self._penalty.gradient = None

    def _optimise(self, batches: EpochBatches) -> None:
        inputs, labels = batches.batch(self.step_in_epoch)
        if not self.model.training:
            self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.options.precision), self._penalty.forward(self.step):
            logits = checked_logits(self.model(inputs), self.train_images)
        loss = F.cross_entropy(logits.float(), labels)
        penalty = self._penalty.compute(logits.float(), self.step)
        if self.device.type == "cpu":
            self._look_at(inputs, {"training loss": loss, "Fisher penalty": penalty})
        loss.backward()
        self._penalty.apply()
        self.optimizer.step()
        self._tally.add(self.step_in_epoch, loss.detach(), (logits.argmax(1) == labels).sum(), penalty)
        self.step += 1
        self.step_in_epoch += 1

    def _end_epoch(self, batches: EpochBatches) -> EpochReport:
        bad = self._tally.first_non_finite()
        if bad is not None:
            self._note_non_finite("training loss", self.step - len(batches) + bad + 1)
        train_loss, train_accuracy = self._tally.means(batches.sizes)
        test_loss, test_accuracy = self._evaluate(batches)
        if not math.isfinite(test_loss):
            self._note_non_finite("test loss", self.step, forward=lambda: self._evaluate(batches))
        plan = self.conditions.at(self.epoch)
        return EpochReport(
            epoch=self.epoch,
            step=self.step,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            lr=self.lr,
            weight_decay=plan.weight_decay,
            conditions=plan,
            images=len(batches.order),
            elapsed_s=self.elapsed_s,
            next_epoch=self._next_epoch(train_accuracy),
            fisher_penalty=self._tally.mean_penalty(),
            gradient_norms=self._gradient_norms,
        )

    def _next_epoch(self, train_accuracy: float) -> int:
        """The epoch after, or where the phase ends when its images are learned."""
        wanted = self.options.stop_accuracy
        if wanted is None or train_accuracy < wanted:
            return self.epoch + 1
        phase = self.conditions.next_phase(self.epoch)
        return self.options.epochs if phase is None else min(phase, self.options.epochs)

    def _look_at(self, inputs: Tensor, values: Mapping[str, Tensor | None]) -> None:
        """Stop, or note the first time, where a value of the step in progress is not finite."""
        bad = [name for name, value in values.items() if value is not None and not math.isfinite(value.item())]
        if not bad or self.nonfinite is not None:
            return

        def forward() -> None:
            seed = derive_seed(self.options.seed, "step", self.step)
            with autocast(self.device, self.options.precision), own_random_numbers(self.device, seed):
                self.model(inputs)

        self._note_non_finite(bad[0], self.step + 1, forward=forward)

    def _note_non_finite(self, which: str, step: int, *, forward: Callable[[], object] | None = None) -> None:
        """Keep the first, with where it came from; raise it where the training is to stop."""
        if self.nonfinite is None:
            where = first_non_finite(self.model, forward)
            self.nonfinite = NonFiniteLossError(which, epoch=self.epoch, step=step, lr=self.lr, where=where)
        if self.options.on_nonfinite == "stop":
            raise self.nonfinite

    def _evaluate(self, batches: EpochBatches) -> tuple[float, float]:
        options = self.options
        statistics: AbstractContextManager[None] = nullcontext()
        if options.refresh_batchnorm:
            clean = replace(batches, images=self.train_images, draws=None)
            inputs = (clean.batch(number)[0] for number in range(len(clean)))
            statistics = refreshed_batchnorm(self.model, inputs, precision=options.precision)
        with statistics:
            return evaluate(
                self.model,
                self.test_images,
                precision=options.precision,
                channels_last=self._channels_last,
            )

    def state_dict(self) -> dict[str, Any]:
        """A snapshot that continues to the same bits, also from the middle of an epoch.

        Order, augmentation, deficits, learning rate and weight decay are not in it: they follow from options,
        conditions, epoch and step. Tensors are copies on the CPU; `torch.load(weights_only=True)` reads it.
        """
        done = self.step_in_epoch
        return {
            "model": snapshot(self.model.state_dict()),
            "optimizer": snapshot(self.optimizer.state_dict()["state"]),
            "epoch": self.epoch,
            "step": self.step,
            "step_in_epoch": done,
            "losses": snapshot(self._tally.losses[:done]),
            "correct": snapshot(self._tally.correct[:done]),
            "elapsed_s": self.elapsed_s,
            "optimizer_name": self.options.optimizer,
            **self._course(),
            **self._optional_parts(),
        }

    def _optional_parts(self) -> dict[str, Any]:
        done = self.step_in_epoch
        parts: dict[str, Any] = {}
        if self._penalty.penalty is not None:
            parts["penalties"] = snapshot(self._tally.penalties) if done else {}
        if self._penalty.gradient is not None:
            parts["penalty_gradient"] = snapshot(self._penalty.gradient)
        if done and self._gradient_norms is not None:
            parts["gradient_norms"] = list(self._gradient_norms)
        return parts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a snapshot back; nothing has changed when an error is raised.

        Options and conditions are those of this training. Between epochs they may differ from the snapshot's
        (a run branches off, with another seed, lr, batch size or deficit); within an epoch seed, batch size,
        images and the conditions of the epoch must be the same, or the rest of the epoch would be another one's.

        Raises:
            ValueError: The state does not fit; the message says in what.
        """
        check_parts(state)
        check_model_state(state["model"], self.model)
        used = used_images(len(self.train_images), self.conditions.at(state["epoch"]).fraction)
        steps = len(batch_bounds(used, self.options.batch_size))
        check_course(state, self.options, self._course(state["epoch"]), steps=steps)
        check_optional_parts(state, self._penalty.parameters)
        check_optimizer_state(state["optimizer"], self.optimizer, name=self.options.optimizer)
        self.model.load_state_dict(state["model"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": snapshot(state["optimizer"]), "param_groups": groups})
        self.epoch, self.step, self.step_in_epoch = state["epoch"], state["step"], state["step_in_epoch"]
        self.elapsed_s = state["elapsed_s"]
        self._batches, self.nonfinite = None, None
        self._tally = Tally(self.step_in_epoch, self.device)
        self._tally.restore(state["losses"], state["correct"], state.get("penalties", {}))
        self._penalty.restore(state.get("penalty_gradient"))
        norms = state.get("gradient_norms")
        self._gradient_norms = None if norms is None else GradientNorms(*norms)

    def _course(self, epoch: int | None = None) -> dict[str, Any]:
        """What the steps of an epoch, the current one unless given, are made of; must not change within it."""
        return {
            "seed": self.options.seed,
            "batch_size": self.options.batch_size,
            "train_images": self.train_images.digest,
            "conditions": self.conditions.at(self.epoch if epoch is None else epoch).record(),
            "fisher_penalty": str(self.options.penalty or ""),
        }
