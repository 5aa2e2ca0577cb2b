"""`fisherkit track`: train under conditions and record per-layer Fisher information."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import device_options, fisher_options, model_options, named_values, probe_options, resolve_device
from .processes import refuse_several

if TYPE_CHECKING:
    from fisherkit.studies import Outcome

REPEATED = {
    "deficit": "blur:0-40, blur(8):0-40, noise:20-60, flip, permute, shuffle, grayscale, occlude, module:callable.",
    "weight_decay": "5e-4 or 5e-4:0-100.",
    "augment": "crop+flip, crop+flip:50-, or none.",
    "fraction": "Share of the training images: 0.5:0-350.",
    "event": "shrink_perturb(0.4,0.1):350, lr_restart:40, lr_scale(0.1):60.",
}
NOT_OF_THE_RUN = {"out", "config", "accept_different_numerics", "device", "model_option"}


def _read_config(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """Use a TOML file's values as defaults of the options."""
    if path is None:
        return None
    import tomllib

    try:
        values = tomllib.loads(Path(path).read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not a TOML file: {error}") from error
    known = {parameter.name for parameter in context.command.params}
    unknown = sorted(set(values) - known)
    if unknown:
        raise click.BadParameter(
            f"{path}: unknown options {', '.join(unknown)}; the options are {', '.join(sorted(filter(None, known)))}."
        )
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _repeated(command: Any) -> Any:
    for name, text in reversed(REPEATED.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, multiple=True, metavar="WINDOW", help=text)(command)
    return command


@click.command(context_settings={"auto_envvar_prefix": "FISHERKIT_TRACK", "show_default": False})
@click.option(
    "--config",
    is_eager=True,
    callback=_read_config,
    type=click.Path(exists=True, dir_okay=False),
    help="TOML file with option values.",
)
@model_options
@click.option("--train-images", type=click.IntRange(min=1), help="Use so many training images, class-balanced.")
@click.option("--test-images", type=click.IntRange(min=1), help="Use so many test images, class-balanced.")
@click.option(
    "--held-out",
    type=float,
    metavar="SHARE",
    help="Test on this share of the training images (0.3333), the same for every seed, instead of the test set; they "
    "are not trained on.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Length of the run.  [default: 20 after the deficit]")
@click.option("--clean-epochs", type=click.IntRange(min=1), help="Length after the last deficit ends.")
@_repeated
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--optimizer", type=click.Choice(["sgd", "adam"]), default="sgd", show_default=True)
@click.option("--lr", type=float, help="Learning rate.  [default: the paper's for the model]")
@click.option("--lr-schedule", help="exponential(0.97), step(0.1,30), cosine, constant.  [default: the paper's]")
@click.option("--momentum", type=float, help="[default: the paper's]")
@click.option(
    "--fisher-penalty",
    metavar="ALPHA[:EVERY[:held]]",
    help="Add ALPHA times the squared norm of the batch's mean score, with labels drawn from the model, to the loss of "
    "every 10th step, or EVERY-th; with held its gradient is added in the steps between too.",
)
@click.option(
    "--stop-accuracy",
    type=float,
    metavar="A",
    help="End a phase, the epochs between two starts or stops of --fraction, once an epoch's training accuracy reaches "
    "A (0.99): the next phase follows at once, or the run ends.",
)
@click.option(
    "--gradient-norms",
    is_flag=True,
    help="Record the loss gradient's norm on old and on new images while --fraction has brought in new ones.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@probe_options
@click.option("--every", default="1", show_default=True, help="When to measure: epochs (1), 50steps, or log.")
@fisher_options
@click.option(
    "--spectrum",
    type=click.IntRange(min=1),
    metavar="K",
    help="Also record the K largest eigenvalues of each layer's Fisher and its effective rank. Costs a backward pass "
    "for every class but one, and (images x classes)^2 multiply-adds a parameter, at most: see `fisher_spectrum`.",
)
@click.option(
    "--spectrum-every", type=click.IntRange(min=1), default=1, show_default=True, help="Epochs between two spectra."
)
@click.option(
    "--spectrum-images",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Images of a spectrum at most, the first of the probe.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of training; measuring is in fp32.",
)
@click.option("--refresh-batchnorm", is_flag=True, help="Refresh BatchNorm statistics before each test.")
@device_options
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.  [default: runs/NAME]"
)
@click.option("--accept-different-numerics", is_flag=True, help="Resume with other threads, torch or processor.")
@click.pass_context
def track(context: click.Context, /, out: Path | None, accept_different_numerics: bool, **options: Any) -> None:
    """Train under a deficit and record the Fisher information of every layer, every epoch.

    \b
    fisherkit track --model resnet18 --deficit blur:0-40
    fisherkit track --data cifar10 --data-dir DIR --width 16 --train-images 10000 --epochs 20 --deficit blur:0-8

    Ctrl-C ends cleanly; the same command goes on where it stopped. The result is OUT/run.h5.
    """
    refuse_several(
        "track",
        "Train in several processes with a loop of your own and FisherTracker, or measure this run's checkpoints with "
        "`torchrun -m fisherkit_cli measure`.",
    )
    from fisherkit.studies import specify
    from fisherkit.studies import track as run
    from fisherkit.training import keep_freed_memory

    from .progress import Progress

    keep_freed_memory()
    sources = {
        name: source.name.lower()
        for name in options
        if (source := context.get_parameter_source(name)) is not None and name not in NOT_OF_THE_RUN
    }
    if options["epochs"] is None and options["clean_epochs"] is None:
        options["clean_epochs"] = 20
    options.pop("config")
    options["model_options"] = named_values(options.pop("model_option"))
    options["device"] = resolve_device(options["device"])
    specification = specify(**options)
    folder = out or Path("runs") / specification.name
    with Progress(specification, folder) as progress:
        outcome = run(
            specification,
            folder,
            observer=progress,
            accept_different_numerics=accept_different_numerics,
            option_sources=sources,
        )
    _say_how_it_ended(outcome)
    if outcome.signal is not None:
        context.exit(128 + outcome.signal)


def _say_how_it_ended(outcome: "Outcome") -> None:
    if outcome.signal is not None:
        click.echo(f"Stopped after step {outcome.step}; nothing is lost. The same command goes on from there:")
        click.echo(f"  {shlex.join(['fisherkit', *sys.argv[1:]])}")
        return
    if outcome.already_finished:
        click.echo(f"{outcome.folder} is finished: nothing to do.")
    from .summary import run_summary

    click.echo(run_summary(outcome.trajectory))
    click.echo(f"file     {outcome.file}")
    click.echo(f"picture  fisherkit plot {shlex.quote(str(outcome.file))}")
