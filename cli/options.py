"""Options that several commands share."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from torch import nn

    from fisherkit.images import ImageSet

Command = TypeVar("Command", bound=Callable[..., Any])


def _bytes(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:  # without importing torch
        return None
    from fisherkit.fisher.memory import bytes_of

    try:
        return bytes_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("max_memory "), context, parameter) from error


def model_options(command: Command) -> Command:
    """--model, --width, --model-option, --data, --data-dir."""
    for option in reversed(
        [
            click.option(
                "--model",
                default="resnet18",
                show_default=True,
                help="resnet18, allcnn, mlp, linear, vit_tiny, or package.module:callable (which runs its code).",
            ),
            click.option(
                "--width", help="Width of the model: 64 (resnet18), 96 (allcnn), 512-256 (mlp), 192 (vit_tiny)."
            ),
            click.option(
                "--model-option", "model_option", multiple=True, metavar="NAME=VALUE", help="An option of the model."
            ),
            click.option(
                "--data",
                default="fashion-mini",
                show_default=True,
                help="fashion-mini (comes with fisherkit), cifar10, cifar100, svhn, mnist or fashion_mnist.",
            ),
            click.option("--data-dir", type=click.Path(), help="Folder of the image files; see `fisherkit data list`."),
        ]
    ):
        command = option(command)
    return command


def fisher_options(command: Command) -> Command:
    """--estimator, --engine, --draws, --batchnorm, --max-memory."""
    for option in reversed(
        [
            click.option(
                "--estimator",
                type=click.Choice(["propagated", "sampled", "exact"]),
                default="propagated",
                show_default=True,
                help="Which vectors estimate the true Fisher.",
            ),
            click.option(
                "--engine",
                type=click.Choice(["auto", "ghost", "vmap", "backpack", "batch"]),
                default="auto",
                show_default=True,
                help="How the norms are found.",
            ),
            click.option("--draws", type=int, default=1, show_default=True, help="Random vectors an image."),
            click.option(
                "--batchnorm",
                type=click.Choice(["eval", "train"]),
                default="eval",
                show_default=True,
                help="Running statistics, or each batch as one joint model.",
            ),
            click.option(
                "--max-memory",
                callback=_bytes,
                metavar="SIZE",
                help="What measuring may take beside model and images, such as 4GB.  [default: half of what is free]",
            ),
        ]
    ):
        command = option(command)
    return command


def device_options(command: Command) -> Command:
    """--device, --threads."""
    command = click.option("--threads", type=click.IntRange(min=1), help="CPU threads; part of what makes bits equal.")(
        command
    )
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")(command)


def probe_options(command: Command) -> Command:
    """--probe, --probe-images."""
    command = click.option("--probe-images", type=click.IntRange(min=1), default=1000, show_default=True)(command)
    return click.option(
        "--probe",
        multiple=True,
        type=click.Choice(["train", "test", "deficit"]),
        default=["train"],
        show_default=True,
        help="Images the Fisher is measured on; several may be given.",
    )(command)


def image_model(options: Mapping[str, Any]) -> "tuple[nn.Module, dict[str, ImageSet]]":
    """A freshly initialised model for the images that the options name, and the probe sets to measure it on."""
    from fisherkit.studies import load_sets, model_builder, probe_sets, specify
    from fisherkit.training import derive_seed

    named = ("model", "width", "data", "data_dir", "probe", "deficit", "probe_images", "seed")
    specification = specify(
        epochs=1,
        model_options=named_values(options["model_option"]),
        **{name: options[name] for name in named},
    )
    train, test = load_sets(specification, notice=lambda text: click.echo(f"note: {text}"))
    model = model_builder(specification, train)(derive_seed(specification.seed, "initialisation"))
    return model, probe_sets(specification, train, test)


def named_values(texts: tuple[str, ...]) -> dict[str, str]:
    """`("a=1", "b=2")` as a dictionary.

    Raises:
        click.BadParameter: a text without `=`.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"must be NAME=VALUE; got {text!r}.", param_hint="--model-option")
        values[name] = value
    return values


def resolve_device(name: str) -> str:
    """The device that `auto` means here; any other name must be usable.

    Raises:
        ValueError: torch cannot use that device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]} Use --device cpu.") from error
    return name
