"""`fisherkit verify`: every layer of a model against brute force."""

from typing import Any

import click

from .options import image_model, model_options


@click.command()
@model_options
@click.option("--engine", type=click.Choice(["auto", "ghost", "vmap", "backpack"]), default="auto", show_default=True)
@click.option(
    "--images",
    "probe_images",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Real images to verify on.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights and images.")
@click.pass_context
def verify(context: click.Context, /, engine: str, **options: Any) -> None:
    """Compare the Fisher trace of every layer with a float64 loop over single images and classes.

    \b
    fisherkit verify --model resnet18 --width 16
    fisherkit verify --model my_package.models:build --data cifar10 --data-dir DIR

    Exit status 1 when a layer is wrong.
    """
    from fisherkit.fisher import verify as compare

    model, probes = image_model({**options, "probe": ("train",), "deficit": ()})
    verification = compare(model, probes["train"], engine=engine, max_images=options["probe_images"])
    click.echo(str(verification))
    if not verification.passed:
        context.exit(1)
