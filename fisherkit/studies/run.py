"""One run: train under conditions, measure, record, checkpoint; interrupted anywhere, it goes on to the same bits.

<folder>/.lock        held while the run writes
<folder>/config.json  the specification and the images' digests, written once
<folder>/run.h5       always a complete file
<folder>/ckpt-*.pt    the last two checkpoints; each holds the rows recorded up to its step
<folder>/kept-*.pt    checkpoints of the ends of epochs that other runs branch off
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fisherkit.images import ImageSet
from fisherkit.notices import OnceAMinute
from fisherkit.recording import Trajectory
from fisherkit.recording.tracker import FisherTracker
from fisherkit.studies.cadence import Cadence
from fisherkit.studies.folder import check_identity, held, identity_of, recorded_run, threads_of, write_identity
from fisherkit.studies.observer import Observer, Outcome
from fisherkit.studies.plan import Branch
from fisherkit.studies.resume import beginning, contents
from fisherkit.studies.rows import epoch_record, row_numbers
from fisherkit.studies.sets import load_buildable, load_sets, probe_sets, training_of
from fisherkit.studies.signals import StopRequest, stop_on_signals
from fisherkit.studies.specification import RunSpecification, check_kept
from fisherkit.training import (
    EpochReport,
    StepReport,
    derive_seed,
    deterministic,
    keep_checkpoint,
    kept_epochs,
    numerics,
    refreshed_batchnorm,
    save_checkpoint,
)

STATISTICS_IMAGES = 2048  # for the BatchNorm statistics of the row before training
CHECKPOINT_SHARE = 0.03  # of a run's time that checkpoints between its start and end may take


def track(
    specification: RunSpecification,
    folder: Path,
    *,
    observer: Observer | None = None,
    branch: tuple[Path, int] | None = None,
    keep: Collection[int] = (),
    accept_different_numerics: bool = False,
    option_sources: dict[str, str] | None = None,
) -> Outcome:
    """Run a specification in a folder, or go on with it where it stopped.

    Args:
        branch: the folder of a run that is the same up to an epoch, and that epoch: a run that has not begun goes on
            from the checkpoint kept there, to the bits that it would have come to by itself.
        keep: epochs at whose end a checkpoint is kept for other runs to branch off.

    Raises:
        RunRefused: the folder holds another run, or is in use, or this machine does not reproduce its numbers.
        UnreadableFile: a file of the folder cannot be used.
        FloatingPointError: loss or trace are not finite; what was recorded is on disk, with the message as attribute
            `exploded`. Not with on_nonfinite="continue": the run goes on to its end, and has the attribute too.
    """
    observer = observer or Observer()
    check_kept(specification, keep)
    sets = None if folder.exists() else load_buildable(specification, notice=observer.notice)
    with held(folder):
        train, test = sets or load_sets(specification, notice=observer.notice)
        identity = identity_of(specification, train, test)
        check_identity(folder, identity, specification)
        recorded = recorded_run(folder)
        if recorded is not None and recorded.attributes.get("finished"):
            step = int(recorded.series["step"][-1])
            return Outcome(folder, recorded, finished=True, step=step, already_finished=True)
        threads = specification.threads or (None if accept_different_numerics else threads_of(recorded))
        with deterministic(threads), stop_on_signals() as request:
            run = Run(
                specification,
                folder,
                train=train,
                test=test,
                observer=observer,
                facts={**identity, "option_sources": option_sources or {}},
                branch=branch,
                keep=keep,
                accept_different_numerics=accept_different_numerics,
            )
            write_identity(folder, identity)
            return run.go(request)


@dataclass
class _Clock:
    """Time spent, over all sessions of the run."""

    before_s: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.started


class Run:
    """A run in progress: its training, its tracker, its checkpoints."""

    def __init__(
        self,
        specification: RunSpecification,
        folder: Path,
        *,
        train: ImageSet,
        test: ImageSet,
        observer: Observer,
        facts: dict[str, Any],
        branch: tuple[Path, int] | None = None,
        keep: Collection[int] = (),
        accept_different_numerics: bool = False,
    ) -> None:
        self.specification, self.folder, self.observer = specification, folder, observer
        self.conditions = specification.conditions()
        self.cadence = Cadence.parse(specification.every)
        self.training = training_of(specification, train, test)
        self.numerics = numerics(specification.device)
        self.clock = _Clock()
        self.keep = frozenset(keep)
        self.branch: Branch | None = None
        saved = self._restore(branch, facts["images"], accept_different_numerics)
        self.tracker = FisherTracker(
            folder / "run.h5",
            self.training.model,
            probe_sets(specification, self.training.train_images, self.training.test_images),
            empirical=specification.batchnorm == "eval",  # data labels have no meaning for joint batches
            attributes={**facts, **self._facts(), "schedule": [], **_so_far(saved), "finished": False},
            rows=saved,
            accept_different_numerics=accept_different_numerics,
            notice=observer.notice,
            spectrum=specification.spectrum_options(),
            **specification.fisher_options(),
        )
        self.resumed_at = None if saved is None else self.training.step
        self._last_checkpoint, self._checkpoint_cost = time.monotonic(), 0.0
        self._full = OnceAMinute(observer.notice)

    def _facts(self) -> dict[str, Any]:
        return {
            "deficit_windows": self.conditions.deficit_windows(),
            "numerics": self.numerics,
            "epoch_0_batchnorm": f"statistics of the first {STATISTICS_IMAGES} training images, for that row only",
            "seeds": {
                "run": self.specification.seed,
                "initialisation": derive_seed(self.specification.seed, "initialisation"),
                "fisher": self.specification.fisher_options()["seed"],
            },
        }

    def go(self, request: StopRequest) -> Outcome:
        """Train to the end, or until asked to stop."""
        self.observer.started(self, resumed_at=self.resumed_at)
        try:
            if len(self.tracker.file) == 0:
                self._record_untrained()
                self.checkpoint()
            elif self.branch is not None:
                self.checkpoint()  # the run's own: from here on it does without the other run's
            self._keep()
            for step in self.training.steps():
                self._after(step)
                if request.signal is not None:
                    self.checkpoint()
                    return self._outcome(finished=False, signal=request.signal)
            self.tracker.file.update_attributes(finished=True)
            self.checkpoint()
        except FloatingPointError as error:
            self.tracker.file.update_attributes(exploded=str(error))
            raise
        finally:
            self.tracker.close()
        return self._outcome(finished=True)

    def _outcome(self, *, finished: bool, signal: int | None = None) -> Outcome:
        step = self.training.step
        return Outcome(self.folder, self.tracker.trajectory, finished=finished, step=step, signal=signal)

    def _record_untrained(self) -> None:
        """The row before training, with BatchNorm statistics of training images: it has none of its own yet.

        Running mean 0 and variance 1 would describe a network that nobody trains; its trace came out 2.6 times
        the largest of the run that followed (ResNet-18 of width 16, CIFAR-10).
        """
        images = self.training.train_images
        rows = torch.arange(min(len(images), STATISTICS_IMAGES), device=images.images.device)
        inputs = (images.normalised(part) for part in rows.split(256))
        with refreshed_batchnorm(self.training.model, inputs, precision=self.specification.precision):
            self._record(0.0, measure=True, spectrum=True)

    def _after(self, step: StepReport) -> None:
        """Record what is due after a step; checkpoint when it is time to."""
        self.observer.stepped(self, step)
        if self.training.nonfinite is not None:
            self._went_wrong(str(self.training.nonfinite), self.training.nonfinite)
        report = step.report
        done = None if report is None else report.epoch + 1
        ends = self.training.epoch == self.specification.epochs or (report is not None and report.skipped_epochs > 0)
        due = self.cadence.due(step=step.step, finished_epochs=done) or ends
        if report is not None:
            self.tracker.file.extend_attribute("schedule", [epoch_record(report)])
            spectrum = ends or (report.epoch + 1) % self.specification.spectrum_every == 0
            self._record(float(report.epoch + 1), measure=due, spectrum=spectrum, report=report)
            self.observer.epoch_ended(self, report)
            self._keep()
            wait_s = max(self._checkpoint_cost / CHECKPOINT_SHARE, self.tracker.file.pause_s)
            if time.monotonic() - self._last_checkpoint >= wait_s:
                self.checkpoint()
        elif due:
            self._record(step.epoch + step.step_in_epoch / step.steps_in_epoch, measure=True)

    def _record(
        self, epoch: float, *, measure: bool, spectrum: bool = False, report: EpochReport | None = None
    ) -> None:
        """One row: the numbers of the epoch that ended, or of the moment within one."""
        training = self.training
        now = report.conditions if report else self.conditions.at(min(training.epoch, self.specification.epochs - 1))
        rate = report.lr if report else training.lr
        numbers = row_numbers(now, lr=rate, elapsed_s=self.clock.elapsed_s, report=report)
        try:
            result = self.tracker.record(epoch, step=training.step, measure=measure, spectrum=spectrum, **numbers)
        except FloatingPointError as error:
            self._went_wrong(f"At step {training.step} (epoch {epoch:g}): {error}", error)
            self.tracker.record(epoch, step=training.step, measure=False, spectrum=False, **numbers)
            return
        if result is not None:
            self.observer.measured(self, result)

    def _went_wrong(self, text: str, error: FloatingPointError) -> None:
        """Numbers are not finite: end, or note it the first time and go on, as the specification says."""
        if self.specification.on_nonfinite == "stop":
            raise FloatingPointError(text) from error
        if not self.tracker.file.attributes.get("exploded"):
            self.tracker.file.update_attributes(exploded=text)
            self.observer.notice(f"{text} The run goes on to record what it can; what cannot be measured is NaN.")

    def checkpoint(self) -> None:
        """Publish run.h5, then write a checkpoint that holds the rows too."""
        start = time.monotonic()
        self.tracker.file.publish(force=True)
        self._to_disk(lambda contents: save_checkpoint(self.folder, self.training.step, contents))
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - start

    def _keep(self) -> None:
        """Keep the state between two epochs for other runs, where that was asked for and is not done."""
        training = self.training
        due = training.step_in_epoch == 0 and training.epoch in self.keep
        if due and training.epoch not in kept_epochs(self.folder):
            self._to_disk(lambda contents: keep_checkpoint(self.folder, training.epoch, training.step, contents))

    def _to_disk(self, save: Callable[[dict[str, Any]], Path]) -> None:
        rows, state = self.tracker.file.image(), self.training.state_dict()
        try:
            save(contents(state, rows, numerics=self.numerics, elapsed_s=self.clock.elapsed_s))
        except OSError as error:
            what = f"{error.filename} could not be written ({error.strerror})"
            self._full(f"{what}. Training goes on, and it is tried again.")

    def _restore(
        self, branch: tuple[Path, int] | None, images: dict[str, str], accept_different_numerics: bool
    ) -> Trajectory | None:
        """Load the state and the rows to go on from, if there are any."""
        found = beginning(
            self.folder,
            self.specification,
            self.numerics,
            images=images,
            branch=branch,
            accept_different_numerics=accept_different_numerics,
            notice=self.observer.notice,
        )
        if found is None:
            return None
        self.training.load_state_dict(found.training)
        self.clock.before_s = found.elapsed_s
        self.branch = found.branch
        return found.rows


def _so_far(rows: Trajectory | None) -> dict[str, Any]:
    """The schedule of the epochs before this session."""
    return {} if rows is None else {"schedule": rows.attributes["schedule"]}
