"""The options that decide what a run is: those of `track`, and of every run of a study."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from .options import device_options, fisher_options, model_options, named_values, probe_options, resolve_device

REPEATED = {
    "deficit": "blur:0-40, blur(8):0-40, noise:20-60, flip, permute, shuffle, grayscale, occlude, module:callable.",
    "weight_decay": "5e-4 or 5e-4:0-100.",
    "augment": "crop+flip, crop+flip:50-, or none.",
    "fraction": "Share of the training images: 0.5:0-350.",
    "event": "shrink_perturb(0.4,0.1):350, lr_restart:40, lr_scale(0.1):60.",
}


def _read_config(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """Use a TOML file's values as defaults of the options."""
    if path is None:
        return None
    from fisherkit.toml_file import read_toml

    try:
        values = read_toml(Path(path))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    known = {parameter.name or "": parameter for parameter in context.command.params if parameter.name != "config"}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise click.BadParameter(
            f"{path}: unknown options {', '.join(unknown)}; the options are {', '.join(sorted(known))}."
        )
    for name, value in values.items():
        _check_value(context, known[name], value, path)
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _check_value(context: click.Context, parameter: click.Parameter, value: Any, path: str) -> None:
    """Refuse a value that the option would not take, naming the file."""
    several = isinstance(value, list)
    parts = value if several else [value]
    if several != parameter.multiple or not all(isinstance(part, str | int | float) for part in parts):
        kind = "a list of values" if parameter.multiple else "one value"
        raise click.BadParameter(f"{path}: {parameter.name} must be {kind}; got {value!r}.")
    try:
        parameter.process_value(context, value)
    except (click.BadParameter, OverflowError) as error:  # infinity as a whole number
        raise click.BadParameter(f"{path}: {parameter.name}: {error}") from error


def _repeated(command: Any) -> Any:
    for name, text in reversed(REPEATED.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, multiple=True, metavar="WINDOW", help=text)(command)
    return command


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--config",
        is_eager=True,
        callback=_read_config,
        type=click.Path(exists=True, dir_okay=False),
        help="TOML file with option values.",
    ),
    model_options,
    click.option("--train-images", type=click.IntRange(min=1), help="Use so many training images, class-balanced."),
    click.option("--test-images", type=click.IntRange(min=1), help="Use so many test images, class-balanced."),
    click.option(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="Test on this share of the training images (0.3333), the same for every seed, instead of the test set; "
        "they are not trained on.",
    ),
    click.option("--epochs", type=click.IntRange(min=1), help="Length of the run.  [default: 20 after the deficit]"),
    click.option("--clean-epochs", type=click.IntRange(min=1), help="Length after the last deficit ends."),
    _repeated,
    click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True),
    click.option("--optimizer", type=click.Choice(["sgd", "adam"]), default="sgd", show_default=True),
    click.option("--lr", type=float, help="Learning rate.  [default: the paper's for the model]"),
    click.option("--lr-schedule", help="exponential(0.97), step(0.1,30), cosine, constant.  [default: the paper's]"),
    click.option("--momentum", type=float, help="[default: the paper's]"),
    click.option(
        "--fisher-penalty",
        metavar="ALPHA[:EVERY[:held]]",
        help="Add ALPHA times the squared norm of the batch's mean score, with labels drawn from the model, to the "
        "loss of every 10th step, or EVERY-th; with held its gradient is added in the steps between too.",
    ),
    click.option(
        "--stop-accuracy",
        type=float,
        metavar="A",
        help="End a phase, the epochs between two starts or stops of --fraction, once an epoch's training accuracy "
        "reaches A (0.99): the next phase follows at once, or the run ends.",
    ),
    click.option(
        "--gradient-norms",
        is_flag=True,
        help="Record the loss gradient's norm on old and on new images while --fraction has brought in new ones.",
    ),
    click.option(
        "--on-nonfinite",
        type=click.Choice(["stop", "continue"]),
        default="stop",
        show_default=True,
        help="When a loss or trace becomes infinite or NaN: end with what was recorded, or record on to the end.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    probe_options,
    click.option("--every", default="1", show_default=True, help="When to measure: epochs (1), 50steps, or log."),
    fisher_options,
    click.option(
        "--spectrum",
        type=click.IntRange(min=1),
        metavar="K",
        help="Also record the K largest eigenvalues of each layer's Fisher and its effective rank. Costs a backward "
        "pass for every class but one, and (images x classes)^2 multiply-adds a parameter, at most: see "
        "`fisher_spectrum`.",
    ),
    click.option(
        "--spectrum-every", type=click.IntRange(min=1), default=1, show_default=True, help="Epochs between two spectra."
    ),
    click.option(
        "--spectrum-images",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="Images of a spectrum at most, the first of the probe.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Of training; measuring is in fp32.",
    ),
    click.option("--refresh-batchnorm", is_flag=True, help="Refresh BatchNorm statistics before each test."),
    device_options,
)


def run_options(*, without: Collection[str] = ()) -> Callable[[Any], Any]:
    """All options that decide what a run is, from --config and --model to --threads, but those named."""

    def decorate(function: Any) -> Any:
        others = getattr(function, "__click_params__", [])
        before = len(others)
        for option in reversed(_OPTIONS):
            function = option(function)
        known: list[click.Parameter] = function.__click_params__
        known[before:] = [parameter for parameter in known[before:] if parameter.name not in without]
        return function

    return decorate


def run_option_names() -> frozenset[str]:
    """The names of their values."""

    def nothing() -> None:
        """Stands for a command."""

    return frozenset(parameter.name or "" for parameter in run_options()(nothing).__click_params__)


def for_specify(options: dict[str, Any]) -> dict[str, Any]:
    """The values of the options as `fisherkit.studies.specify` takes them."""
    choices = {name: value for name, value in options.items() if name != "config"}
    _note_threads(choices.get("threads"))
    if "model_option" in choices:
        choices["model_options"] = named_values(choices.pop("model_option"))
    if "device" in choices:
        choices["device"] = resolve_device(choices["device"])
    return choices


def _note_threads(threads: int | None) -> None:
    from .checks import processors

    if threads is not None and threads > (there := processors()):
        click.echo(f"note: --threads {threads} is more than the {there} processors here, which is slower.")


def given_options(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given, on the command line, in the environment or in a file: not left at their defaults."""
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in options.items() if context.get_parameter_source(name) is not default}
