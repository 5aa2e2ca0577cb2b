"""`FisherTracker`: measure a model again and again while it trains, and keep every row."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from fisherkit.errors import RunRefused
from fisherkit.fisher import FisherTrace, fisher_spectrum, fisher_trace, fisher_traces, trainable_layers
from fisherkit.fisher.processes import processes
from fisherkit.images import ImageSet
from fisherkit.recording.spectra import spectrum_facts, spectrum_variables
from fisherkit.recording.trajectory import Trajectory
from fisherkit.recording.writer import RunFile
from fisherkit.storage import lock_file

MAIN_PROBE = "train"
BATCH_SIZES = "batch_sizes"  # attribute: images in a pass, planned at the first row


class FisherTracker:
    """Records the per-layer Fisher trace of a model in training, a row a call, into one run file.

        with FisherTracker("run.h5", model, probe) as tracker:
            for epoch in range(epochs):
                ...  # train
                tracker.record(epoch + 1, train_loss=..., test_accuracy=...)

    Each row holds, for every layer: `fisher_true` and its standard errors, `fisher_empirical` (when the probe
    has labels), `weight_norm`; and the totals, the mean predictive `entropy` and whatever numbers are given.
    The probe images and the draws (one seed) are the same in every row, so that the trajectory moves with the
    weights and not with the noise. Measuring leaves the training bit-identical. The images in a pass are planned at
    the first row and kept for all others, also when the run goes on with other memory: they change the last bits.

    Under an initialised torch.distributed every process makes the same calls; the images are shared out, and process 0
    writes the file. With distributed=False each process measures, and writes, what it is given.

    Until it is closed (or gone) the tracker holds its file, by a lock in `.<name>.lock` beside it; another tracker, in
    this process or another, is refused the file.

    With `spectrum`, rows also hold the k largest eigenvalues of each layer's Fisher on the first images of the first
    probe, `fisher_eigenvalue_1` to `_k`, its trace there, `fisher_spectrum_trace`, and `fisher_effective_rank`, also
    `_corrected` for the number of images with `fisher_effective_rank_stderr` (see `fisher_spectrum`, also for what it
    costs).

    Args:
        path: the run file; made if it is not there, with its folder. Rows that it already holds must be reproduced bit
            for bit.
        model: any module; its trainable parameters must not change in number.
        probe: an ImageSet, or anything `fisher_trace` takes that can be read again; or a dictionary of several
            by name, the first of which gives `fisher_true`, the others `fisher_true_<name>`.
        empirical: also record the empirical Fisher; by default when the first probe has labels.
        attributes: JSON-able facts to store with the file.
        rows: rows of an earlier part of the run to continue from.
        spectrum: how many eigenvalues of each layer to record; or options of `fisher_spectrum` (k, max_images,
            estimator, ...).
        options: as for `fisher_trace` (estimator, engine, draws, loss, batchnorm, batch_size, seed, ...).

    Raises:
        FolderInUse: another tracker has the file.
        RunRefused: the file holds rows of another model, or others than the `rows`.
        UnreadableFile: the file cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module,
        probe: Any,
        *,
        empirical: bool | None = None,
        attributes: Mapping[str, Any] | None = None,
        rows: Trajectory | None = None,
        accept_different_numerics: bool = False,
        notice: Callable[[str], None] | None = None,
        spectrum: int | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if options.get("estimator") == "empirical":
            raise ValueError(
                "estimator must be exact, sampled or propagated; the empirical Fisher is recorded beside it "
                "(empirical=True)."
            )
        self.model = model
        self.options = options
        self.spectrum: Mapping[str, Any] | None = {"k": spectrum} if isinstance(spectrum, int) else spectrum
        self.probes: dict[str, Any] = dict(probe) if _is_named(probe) else {MAIN_PROBE: probe}
        first = next(iter(self.probes.values()))
        labelled = isinstance(first, ImageSet) and options.get("batchnorm", "eval") == "eval"
        self.empirical = labelled if empirical is None else empirical
        facts = {"torch_version": str(torch.__version__), "probes": self._describe_probes(), **(attributes or {})}
        self.file = self._open(
            Path(path),
            attributes=facts,
            trajectory=rows,
            accept_different_numerics=accept_different_numerics,
            notice=notice,
        )
        self.batch_sizes: dict[str, int] = dict(
            self.file.attributes.get(BATCH_SIZES) or self.file.earlier.get(BATCH_SIZES, {})
        )

    def _open(self, path: Path, **options: Any) -> RunFile:
        """The run file, held from before it is read, by the process that writes it."""
        layers = trainable_layers(self.model)
        self.layers = tuple(layer.name for layer in layers)
        sizes = np.array([layer.size for layer in layers])
        writes = processes(distributed=self.options.get("distributed", True)).rank == 0
        with ExitStack() as held:
            if writes:
                held.enter_context(lock_file(path))
            file = RunFile(path, layers=self.layers, parameters=sizes, writes=writes, **options)
            self._held, self._process, self._closed = held.pop_all(), os.getpid(), False
        return file

    def record(
        self,
        epoch: float,
        *,
        step: int | None = None,
        measure: bool = True,
        spectrum: bool | None = None,
        **numbers: float,
    ) -> FisherTrace | None:
        """Measure and keep one row; returns the measurement of the first probe.

        Args:
            epoch: passes over the training data completed so far.
            step: optimiser steps so far; must increase. By default the number of the row.
            measure: without it the trace is not measured; weight norms and the given numbers are always kept.
            spectrum: whether to measure the spectrum, where the tracker was made with one; by default as `measure`.
            numbers: train_loss, test_accuracy, lr, ... each becomes a series of that name.

        Raises:
            FloatingPointError: a trace or spectrum is not finite; it names the layers. The earlier rows are safe.
            RunRefused: the tracker is closed, or was made in another process than this fork of it.
        """
        self._check_open()
        variables = {"weight_norm": weight_norms(self.model)}
        series: dict[str, float] = {
            "epoch": float(epoch),
            "step": len(self.file) if step is None else step,
        }
        main = None
        for name, images in self.probes.items() if measure else ():
            suffix = "" if main is None else f"_{name}"
            true, given = self._measured(name, images)
            self._add(variables, series, f"fisher_true{suffix}", true)
            series[f"entropy{suffix}"] = true.entropy
            if given is not None:
                self._add(variables, series, f"fisher_empirical{suffix}", given)
            main = main or true
        if measure if spectrum is None else spectrum:
            variables |= self._measured_spectrum()
        self.file.append(variables=variables, series={**series, **numbers})
        if main is not None:
            self._describe_measurement(main)
        self.file.publish()
        return main

    def _measured(self, probe: str, images: Any) -> tuple[FisherTrace, FisherTrace | None]:
        """The true Fisher of one probe and, if it is recorded, the empirical one, in one pass."""
        options = self._in_passes_as_before(f"probe {probe}", self.options)
        if not self.empirical:
            result, given = fisher_trace(self.model, images, **options), None
        else:
            true = options.pop("estimator", "propagated")
            found = fisher_traces(self.model, images, estimators=(true, "empirical"), **options)
            result, given = found[true], found["empirical"]
        self._remember_passes(f"probe {probe}", result.batch_size)
        return result, given

    def _in_passes_as_before(self, what: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, with the batch size of the earlier rows if the caller gives none."""
        given = options.get("batch_size")
        return {**options, "batch_size": self.batch_sizes.get(what) if given is None else given}

    def _remember_passes(self, what: str, size: int) -> None:
        self.batch_sizes[what] = size
        if self.file.attributes.get(BATCH_SIZES) != self.batch_sizes:
            self.file.update_attributes(**{BATCH_SIZES: self.batch_sizes})

    def _add(self, variables: dict[str, Any], series: dict[str, float], name: str, result: FisherTrace) -> None:
        variables[name], variables[f"{name}_stderr"] = result.trace, result.stderr
        series[f"{name}_total"], series[f"{name}_total_stderr"] = result.total, result.total_stderr
        if result.draws > 1:
            variables[f"{name}_stderr_draws"] = result.stderr_draws
            series[f"{name}_total_stderr_draws"] = result.total_stderr_draws

    def _measured_spectrum(self) -> dict[str, np.ndarray]:
        """The spectrum on the first probe, if there is to be one."""
        if self.spectrum is None:
            return {}
        options = {name: value for name, value in self.options.items() if name in ("loss", "seed", "max_memory")}
        options = self._in_passes_as_before("spectrum", {**options, **self.spectrum})
        found = fisher_spectrum(self.model, next(iter(self.probes.values())), **options)
        self._remember_passes("spectrum", found.batch_size)
        facts = spectrum_facts(found)
        if self.file.attributes.get("spectrum") != facts:
            self.file.update_attributes(spectrum=facts)
        return spectrum_variables(found)

    def _describe_measurement(self, result: FisherTrace) -> None:
        facts = {
            "estimator": result.estimator,
            "draws": result.draws,
            "loss": result.loss,
            "batchnorm": result.batchnorm,
            "engines": dict(result.engines),
            "measured_dtype": result.dtype,
            "device": result.device.partition(":")[0],
            "fisher_seed": result.seed,
            "normalisation": "sum over the layer's parameters, mean over images, natural logarithm: nats^2",
        }
        if any(self.file.attributes.get(name) != value for name, value in facts.items()):
            self.file.update_attributes(**facts)

    def _describe_probes(self) -> dict[str, Any]:
        return {
            name: {"images": len(images), "name": images.name, "digest": images.digest}
            if isinstance(images, ImageSet)
            else {"images": len(images) if hasattr(images, "__len__") else None, "name": type(images).__name__}
            for name, images in self.probes.items()
        }

    @property
    def trajectory(self) -> Trajectory:
        """Every row so far."""
        return self.file.trajectory

    def close(self) -> None:
        """Publish the rows, if there are any, and free the file for others; in a forked process nothing happens.

        Raises:
            OSError: the last rows could not be written. The file is still held, and `close` can be tried again.
        """
        if self._closed or os.getpid() != self._process:
            return
        if len(self.file):
            self.file.close()
        self._held.close()
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise RunRefused(
                f"{self.file.path} is closed. Make another FisherTracker to go on with it; rows=fisherkit.read(...) "
                "keeps the rows that it has."
            )
        if os.getpid() != self._process:
            raise RunRefused(
                f"{self.file.path} is held by process {self._process}, of which this one is a fork. Record there, or "
                "make a FisherTracker with another file here."
            )

    def __enter__(self) -> "FisherTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def weight_norms(model: nn.Module) -> np.ndarray:
    """Euclidean norm of each layer's trainable parameters, float64 [layer]."""
    with torch.no_grad():
        norms = [
            torch.stack([p.abs().double().square().sum() for p in layer.parameters.values()]).sum().sqrt()
            for layer in trainable_layers(model)
        ]
        return torch.stack(norms).cpu().numpy()


def _is_named(probe: Any) -> bool:
    """A dictionary of probes, and not one dictionary batch of tensors."""
    return isinstance(probe, Mapping) and not all(isinstance(value, torch.Tensor) for value in probe.values())
