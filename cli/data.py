"""`fisherkit data`: list, fetch and check the image sets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fisherkit.images.catalogue import Source
    from fisherkit.images.image_set import ImageSet
    from fisherkit.images.releases import Download

DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the image sets. Default: $FISHERKIT_DATA, or else the user's cache folder.",
)


@click.group()
def data() -> None:
    """List, fetch and check the image sets."""


@data.command("list")
@DATA_DIR
def list_(data_dir: Path | None) -> None:
    """List the image sets, and where each was found."""
    from fisherkit.images.catalogue import CATALOGUE
    from fisherkit.images.locate import data_folders

    folders = data_folders(data_dir)
    rows = [("NAME", "CLASSES", "TRAIN", "TEST", "WHERE"), *(_row(source, folders) for source in CATALOGUE)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, *numbers, place in rows:
        cells = [name.ljust(widths[0])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        click.echo("  ".join([*cells, place]))
    click.echo(f"Searched: {', '.join(map(str, folders))}. Get one with `fisherkit data fetch NAME`.")


def _row(source: "Source", folders: tuple[Path, ...]) -> tuple[str, ...]:
    from fisherkit.images.locate import locate

    found = locate(source, folders)
    place = "in the package" if source.embedded else str(found.place) if found else "not found"
    counts = (len(source.classes), source.train_images, source.test_images)
    return (source.name, *(f"{count:,}" for count in counts), place)


@data.command()
@click.argument("name")
@DATA_DIR
def fetch(name: str, data_dir: Path | None) -> None:
    """Download the image set NAME; an interrupted download goes on where it stopped."""
    from fisherkit.images.catalogue import source_named
    from fisherkit.images.locate import data_folders, locate

    source = source_named(name)
    folders = data_folders(data_dir)
    found = locate(source, folders)
    if source.embedded:
        click.echo(f"{name} is in the package; there is nothing to fetch.")
    elif found is not None:
        click.echo(f"{name} is there already: {found.place}. `fisherkit data check {name}` reads it.")
    else:
        _fetch_files(source, folders[0])
        click.echo(f"{name} is in {folders[0]}. Use it with `fisherkit track --data {name}`.")


def _fetch_files(source: "Source", folder: Path) -> None:
    from fisherkit.images.download import DownloadFailed, fetch

    for download in source.downloads:
        with _progress(download) as progress:
            try:
                new = fetch(download, folder, progress=progress)
            except DownloadFailed as error:
                raise click.ClickException(_by_hand(str(error), source, folder)) from error
        click.echo(f"{folder / download.path}: {'fetched' if new else 'there already'}, checksum right")


def _by_hand(problem: str, source: "Source", folder: Path) -> str:
    """The problem, and how to do without the network."""
    from .failure import printable

    absent = [download for download in source.downloads if not (folder / download.path).exists()]
    lines = [
        printable(problem),
        "Run the same command again: it goes on where it stopped. Without a network, put these files here:",
    ]
    for download in absent:
        lines += [f"  {download.url}", f"    -> {folder / download.path}"]
        lines += [f"    {download.size:,} bytes, {download.checksum}"]
    return "\n".join(lines)


@contextmanager
def _progress(download: "Download") -> Iterator[Callable[["Download", int], None]]:
    """A bar on a terminal, one line elsewhere."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(f"Fetching {download.url} ({download.size / 1e6:.1f} MB)", err=True)
        yield lambda _, here: None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task(download.path, total=download.size)
        yield lambda _, here: bar.update(task, completed=here)


@data.command()
@click.argument("name")
@DATA_DIR
def check(name: str, data_dir: Path | None) -> None:
    """Read the image set NAME, verify it against the official release, and say what is in it."""
    from fisherkit.images.catalogue import source_named
    from fisherkit.images.load import load_found, load_images
    from fisherkit.images.locate import data_folders, locate, not_found

    source = source_named(name)
    state = "right: these are the official images"
    if source.embedded:
        place, (train, test), state = "the package", load_images(name), "none: part of the package"
    else:
        folders = data_folders(data_dir)
        found = locate(source, folders)
        if found is None:
            raise not_found(source, folders)
        place, (train, test) = f"{found.place} ({found.layout.format})", load_found(found)
    click.echo(f"{name}: {source.title}")
    click.echo(f"  read from  {place}")
    for split, images in (("train", train), ("test", test)):
        click.echo(f"  {split:<9}  {_contents(images)}")
    click.echo(f"  classes    {len(source.classes)}: {', '.join(source.classes[:10])}{_rest(source)}")
    click.echo(f"  mean, std  {_numbers(source.mean)}; {_numbers(source.std)}")
    notices = train.notices + test.notices
    click.echo(f"  checksums  {'differ' if notices else state}")
    for notice in notices:
        click.echo(f"Notice: {notice}")


def _contents(images: "ImageSet") -> str:
    shape = " x ".join(str(size) for size in images.images.shape[1:])
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    low, high = min(counts), max(counts)
    spread = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{len(images):,} images of {shape}; {spread} of every class; digest {images.digest[:16]}"


def _rest(source: "Source") -> str:
    return ", ..." if len(source.classes) > 10 else ""


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
