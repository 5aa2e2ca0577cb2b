"""`fisherkit plot`: the per-layer heatmap, or the curves, of one or several runs; the spectra of one."""

from pathlib import Path
from typing import Literal

import click

from .files import RUNS, run_file


@click.command()
@RUNS
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PNG, SVG or PDF.  [default: heatmap.png, curves.png or spectrum.png beside the first run]",
)
@click.option("--curves", is_flag=True, help="The total and chosen layers over the epochs, with +-2 standard errors.")
@click.option(
    "--spectrum", is_flag=True, help="Eigenvalues and effective rank over the epochs, of a run made with --spectrum."
)
@click.option(
    "--layer", "layers", multiple=True, metavar="PATTERN", help="Only these layers: conv1, 'layer4.*'; may be repeated."
)
@click.option(
    "--variable", default="fisher_true", show_default=True, help="fisher_true, fisher_empirical, weight_norm, ..."
)
@click.option(
    "--scale",
    type=click.Choice(["trace", "per_parameter", "share"]),
    default="trace",
    show_default=True,
    help="Of the heatmap.",
)
@click.option("--title", "titles", multiple=True, help="Of each run, in order.")
def plot(
    *,
    runs: tuple[Path, ...],
    out: Path | None,
    curves: bool,
    spectrum: bool,
    layers: tuple[str, ...],
    variable: str,
    scale: Literal["trace", "per_parameter", "share"],
    titles: tuple[str, ...],
) -> None:
    """Draw RUNS (run files or run folders): a panel each, on one colour scale, the deficit drawn on it.

    \b
    fisherkit plot runs/a/run.h5
    fisherkit plot runs/a runs/b --out figure.pdf --scale share
    fisherkit plot runs/a runs/b --curves --layer 'layer4.*'
    fisherkit plot runs/a --spectrum
    """
    from fisherkit import plots
    from fisherkit.plots.style import check_suffix
    from fisherkit.recording import read

    if spectrum and (curves or len(runs) > 1 or titles):
        raise ValueError("spectrum must be drawn of one run, without --curves and --title; give them separately.")
    files = [run_file(run) for run in runs]
    kind = "spectrum" if spectrum else "curves" if curves else "heatmap"
    target = out or files[0].with_name(f"{kind}.png")
    check_suffix(target)
    if not target.parent.is_dir():
        raise ValueError(f"out must be in a folder that exists; got {str(target)!r}.")
    trajectories = [read(file) for file in files]
    if spectrum:
        figure = plots.spectrum(trajectories[0], layers=layers)
    elif curves:
        figure = plots.curves(trajectories, layers=layers, variable=variable, titles=titles or None)
    else:
        figure = plots.heatmap(trajectories, layers=layers, variable=variable, scale=scale, titles=titles or None)
    plots.save(figure, target)
    click.echo(str(target))
