"""`fisherkit show`: what is in a run file, and is it whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .failure import printable
from .files import RUNS, run_file

if TYPE_CHECKING:
    from fisherkit.recording import Trajectory


@click.command()
@RUNS
@click.option("--json", "as_json", is_flag=True, help="Print everything but the arrays as JSON.")
def show(runs: tuple[Path, ...], as_json: bool) -> None:
    """Say what is in RUNS (run files or run folders), and whether each is whole."""
    import json

    from fisherkit.recording import read

    for run in runs:
        file = run_file(run)
        trajectory = read(file)
        if as_json:
            click.echo(json.dumps({"file": str(file), **_facts(trajectory), "attributes": dict(trajectory.attributes)}))
        else:
            click.echo(printable("\n".join(_lines(file, trajectory))))


def _facts(trajectory: "Trajectory") -> dict[str, Any]:
    """Names and counts."""
    return {
        "rows": len(trajectory),
        "layers": list(trajectory.layers),
        "parameters": trajectory.parameters.tolist(),
        "variables": sorted(trajectory.variables),
        "series": sorted(trajectory.series),
        "whole": True,  # read() has checked the checksum over everything, or raised
    }


def _lines(file: Path, trajectory: "Trajectory") -> list[str]:
    from fisherkit.recording.layout import window_text

    from .summary import run_summary

    attributes = trajectory.attributes
    configuration = attributes.get("configuration") or {}
    epochs = trajectory.series["epoch"]
    until = f", epochs {epochs[0]:g} to {epochs[-1]:g}" if len(epochs) else ""
    engines = list((attributes.get("engines") or {}).values())
    counted = ", ".join(f"{engines.count(engine)} by {engine}" for engine in sorted(set(engines)))
    deficits = ", ".join(window_text(window) for window in attributes.get("deficit_windows") or []) or "none"
    spectrum = attributes.get("spectrum")
    lines = [
        f"{file}: whole (checksum ok), schema {attributes['schema_version']}, "
        f"fisherkit {attributes['fisherkit_version']}, torch {attributes.get('torch_version', 'unknown')}",
        f"run      {configuration.get('model', 'unknown model')} on {configuration.get('data', 'unknown images')}, "
        f"deficit {deficits}, seed {configuration.get('seed', 'unknown')}, "
        f"{'finished' if attributes.get('finished') else 'not finished'}",
        f"rows     {len(trajectory)}{until}",
        f"layers   {len(trajectory.layers)}, {int(trajectory.parameters.sum()):,} parameters; {counted}",
        f"measured {attributes.get('estimator', 'unknown')} estimator, draws {attributes.get('draws', '?')}, "
        f"batchnorm={attributes.get('batchnorm', 'unknown')}, {_probes(attributes.get('probes'))}",
        *([f"spectrum {_spectrum(spectrum, trajectory)}"] if isinstance(spectrum, dict) else []),
        f"holds    {', '.join(_names(trajectory))}",
    ]
    summary = run_summary(trajectory) if "fisher_true" in trajectory.variables else ""
    return [*lines, *summary.splitlines()]


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
    return "probe " + ", ".join(f"{name} ({probe.get('images')} images)" for name, probe in probes.items())
