"""`fisherkit measure`: the Fisher information of checkpoints from any training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import device_options, fisher_options, image_model, model_options, probe_options
from .processes import together

if TYPE_CHECKING:
    from fisherkit.fisher import FisherTrace
    from fisherkit.recording import Trajectory


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_options
@probe_options
@click.option(
    "--deficit", multiple=True, metavar="NAME", help="What the probe 'deficit' is shown under: blur, noise, ..."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the probe's choice and the draws."
)
@fisher_options
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images in one pass.  [default: as many as are fast and fit]"
)
@device_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("measured.h5"), show_default=True)
def measure(checkpoints: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Measure CHECKPOINTS (state dicts saved by torch, or safetensors) of any training.

    \b
    fisherkit measure epoch_*.pt --model resnet18 --width 16 --data cifar10 --data-dir DIR
    fisherkit plot measured.h5

    One row for each file, ordered by the last number in its name, which becomes its epoch. Where no name has a number
    they are 0, 1, 2, ... in the order given; names with and without one together, and two with the same, are refused.

    \b
    torchrun --nproc-per-node 4 -m fisherkit_cli measure epoch_*.pt ...

    shares the images between processes, a GPU each where there are some; the numbers are those of one process.
    """
    import torch

    from fisherkit.training import keep_freed_memory

    from .summary import run_summary

    keep_freed_memory()
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    if not out.parent.is_dir():
        raise ValueError(f"out must be in a folder that exists; got {str(out)!r}.")
    with together(options["device"]) as device:
        trajectory = _measured(checkpoints, out, options, device)
        click.echo(run_summary(trajectory))
        click.echo(f"file     {out}")
        click.echo(f"picture  fisherkit plot {out}")


def _measured(checkpoints: tuple[Path, ...], out: Path, options: dict[str, Any], device: str) -> "Trajectory":
    from fisherkit.studies import measure_checkpoints

    model, probes = image_model(options)
    asked = {name: value for name, value in options.items() if name != "data_dir"}

    def say(number: int, path: Path, result: "FisherTrace") -> None:
        click.echo(f"{number:6}  {path}  tr F {result.total:.4g} ± {result.total_stderr:.2g}")
        for note in result.notes:
            click.echo(f"note: {note}")

    return measure_checkpoints(
        checkpoints,
        model.to(device),
        probes,
        out,
        attributes={"configuration": asked},
        measured=say,
        notice=lambda text: click.echo(f"note: {text}"),
        batch_size=options["batch_size"],
        **{name: options[name] for name in ("estimator", "engine", "draws", "batchnorm", "seed", "max_memory")},
    )
