"""What `show` says of a run: the file, and the folder that it goes on in."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import run_file

if TYPE_CHECKING:
    from fisherkit.recording import Trajectory

_WRITER_STATES = {
    "running": "; it still runs",
    "ended": "; it has ended",
    "elsewhere": "; whether it still runs can only be told there",
    "unknown": "",
}


@dataclass(frozen=True)
class RunFolder:
    """A run file, alone or in the folder of its run; `file` is None while no row has been published."""

    file: Path | None
    folder: Path | None

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """What the user names.

        Raises:
            ValueError: it is neither a file nor the folder of a run.
        """
        if path.is_dir() and not (path / "run.h5").is_file() and (path / "config.json").is_file():
            return cls(None, path)
        file = run_file(path)
        return cls(file, file.parent if file.name == "run.h5" and (file.parent / "config.json").is_file() else None)

    @cached_property
    def trajectory(self) -> "Trajectory | None":
        """The rows; whole, or `read` raises."""
        from fisherkit.recording import read

        return None if self.file is None else read(self.file)

    @property
    def state(self) -> str:
        """`run_state` of the file; "unfinished" without one."""
        return "unfinished" if self.trajectory is None else run_state(self.trajectory)

    @property
    def command(self) -> str | None:
        """What goes on with the run, where there is something left to do."""
        if self.folder is None or self.state != "unfinished":
            return None
        names = ("--specification", str(self.folder / "config.json"), "--out", str(self.folder))
        return shlex.join(["fisherkit", "track", *names])

    @cached_property
    def checkpoint(self) -> tuple[int | None, str]:
        """The step to go on from, and how that is known."""
        from fisherkit.errors import UnreadableFile
        from fisherkit.training import newest_checkpoint

        assert self.folder is not None
        try:
            found = newest_checkpoint(self.folder)
        except UnreadableFile as error:
            return None, f"no checkpoint can be used: {error}"
        if found is None:
            return None, "there is no checkpoint: it begins anew"
        return found.step, "; ".join((f"from step {found.step}", *found.notices))

    def facts(self) -> dict[str, Any]:
        """Names and counts, JSON-able."""
        facts: dict[str, Any] = {"file": None if self.file is None else str(self.file), "state": self.state}
        if self.command is not None:
            facts |= {"resumes_at_step": self.checkpoint[0], "resume": self.command}
        run = self.trajectory
        if run is None:
            return facts
        return {
            **facts,
            "rows": len(run),
            "layers": list(run.layers),
            "parameters": run.parameters.tolist(),
            "variables": sorted(run.variables),
            "series": sorted(run.series),
            "whole": True,  # read() has checked the checksum over everything, or raised
            "attributes": dict(run.attributes),
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        if self.trajectory is None or self.file is None:
            first = [f"{self.folder}: a run that has not written a row yet"]
        else:
            first = _file_lines(self.file, self.trajectory)
        return [*first, *self._how_it_goes_on()]

    def _how_it_goes_on(self) -> list[str]:
        if self.folder is None:
            return []
        lines = [f"writer   {text}"] if (text := last_writer(self.folder)) and self.state == "unfinished" else []
        log = self.folder / "log.txt"
        lines += [f"log      {log}"] if log.is_file() else []
        if self.command is not None:
            return [*lines, f"goes on  {self.checkpoint[1]}", f"         {self.command}"]
        if self.state == "exploded" and not (self.trajectory and self.trajectory.attributes.get("finished")):
            return [
                *lines,
                "goes on  not: it would come to the same; a lower --lr, or --on-nonfinite continue, is another run",
            ]
        return lines


def run_state(trajectory: "Trajectory") -> str:
    """ "exploded", "finished", "unfinished", or "recorded" for a file that no run of `track` wrote."""
    attributes = trajectory.attributes
    if attributes.get("exploded"):
        return "exploded"
    if "finished" not in attributes:
        return "recorded"
    return "finished" if attributes["finished"] else "unfinished"


def last_writer(folder: Path) -> str:
    """Who wrote in the folder last, and whether that process is still there; without touching the lock."""
    from fisherkit.storage import LOCK_NAME, last_holder

    text, state = last_holder(folder / LOCK_NAME)
    return f"{text}{_WRITER_STATES[state]}"


def _file_lines(file: Path, trajectory: "Trajectory") -> list[str]:
    from .summary import run_summary

    attributes = trajectory.attributes
    epochs = trajectory.series["epoch"]
    until = f", epochs {epochs[0]:g} to {epochs[-1]:g}" if len(epochs) else ""
    configuration = attributes.get("configuration") or {}
    of = f" of {configuration['epochs']}" if until and "epochs" in configuration else ""
    engines = [str(engine) for engine in (attributes.get("engines") or {}).values()]
    counted = ", ".join(f"{engines.count(engine)} by {engine}" for engine in sorted(set(engines)))
    spectrum = attributes.get("spectrum")
    lines = [
        f"{file}: whole (checksum ok), schema {attributes['schema_version']}, "
        f"fisherkit {attributes['fisherkit_version']}, torch {attributes.get('torch_version', 'unknown')}",
        f"run      {_run(trajectory)}",
        f"rows     {len(trajectory)}{until}{of}",
        f"layers   {len(trajectory.layers)}, {int(trajectory.parameters.sum()):,} parameters"
        + (f"; {counted}" if counted else ""),
        f"measured {_measured(attributes)}",
        *([f"numerics {_numerics(attributes['numerics'])}"] if isinstance(attributes.get("numerics"), dict) else []),
        *([f"spectrum {_spectrum(spectrum, trajectory)}"] if isinstance(spectrum, dict) else []),
        f"holds    {', '.join(_names(trajectory))}",
    ]
    summary = run_summary(trajectory) if "fisher_true" in trajectory.variables else ""
    return [*lines, *summary.splitlines()]


def _run(trajectory: "Trajectory") -> str:
    """What it is a run of, as far as the file says, and whether it is finished; a tracker does not know its end."""
    from fisherkit.recording.layout import window_text

    attributes = trajectory.attributes
    configuration = attributes.get("configuration") or {}
    of = [str(configuration[name]) for name in ("model", "data") if name in configuration]
    windows = attributes.get("deficit_windows")
    deficits = ", ".join(window_text(window) for window in windows or []) or "none"
    facts = [
        *([" on ".join(of)] if of else []),
        *([f"deficit {deficits}"] if windows is not None else []),
        *([f"seed {configuration['seed']}"] if "seed" in configuration else []),
    ]
    recorded = run_state(trajectory) == "recorded"
    ending = "finished" if attributes.get("finished") else "not finished"
    return ", ".join([*facts, "rows recorded by FisherTracker" if recorded else ending])


def _measured(attributes: Mapping[str, Any]) -> str:
    how = [
        f"{attributes[name]} estimator" if name == "estimator" else f"{name}{sign}{attributes[name]}"
        for name, sign in (("estimator", ""), ("draws", " "), ("batchnorm", "="))
        if name in attributes
    ]
    return ", ".join([*(how or ["not yet"]), _probes(attributes.get("probes"))])


def _numerics(facts: dict[str, Any]) -> str:
    """What the bits depend on."""
    shown = (facts.get(name, "?") for name in ("cpu_capability", "device_name"))
    return f"threads {facts.get('threads', '?')}, {', '.join(map(str, shown))}"


def _names(trajectory: "Trajectory") -> list[str]:
    """The variables; eigenvalues, which may be many, as one."""
    from fisherkit.recording.layout import eigenvalue_names

    numbered = eigenvalue_names(trajectory.variables)
    together = [f"{numbered[0]} to {len(numbered)}"] if len(numbered) > 1 else numbered
    return sorted([*together, *(name for name in trajectory.variables if name not in numbered)])


def _spectrum(facts: dict[str, Any], trajectory: "Trajectory") -> str:
    import numpy as np

    rows = int(np.isfinite(trajectory.variable("fisher_spectrum_trace")).any(axis=1).sum())
    return (
        f"{facts.get('k')} eigenvalues of each layer in {rows} rows, {facts.get('estimator')} estimator, "
        f"{facts.get('images')} images, {facts.get('vectors')} score vectors"
    )


def _probes(probes: Any) -> str:
    if not isinstance(probes, dict):
        return "probe unknown"
    return "probe " + ", ".join(
        f"{name} ({probe.get('images')} images)" for name, probe in probes.items() if isinstance(probe, dict)
    )
