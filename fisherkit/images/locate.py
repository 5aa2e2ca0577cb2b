"""Where an image set is on this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .catalogue import Source
from .contents import resolve
from .releases import Layout

ENVIRONMENT = "FISHERKIT_DATA"


@dataclass(frozen=True)
class Found:
    """A complete release of the source: all files in the folder `place`, or the tar archive `place`."""

    source: Source
    layout: Layout
    place: Path
    archived: bool


def data_folders(data_dir: str | Path | None = None) -> tuple[Path, ...]:
    """The folders to search, in order; the first is where downloads go.

    `data_dir` alone if it is given; otherwise the one that $FISHERKIT_DATA names, then the user's cache folder.
    """
    from platformdirs import user_cache_path

    if data_dir is not None:
        return (Path(data_dir).expanduser(),)
    named = os.environ.get(ENVIRONMENT)
    return (*((Path(named).expanduser(),) if named else ()), user_cache_path("fisherkit"))


def locate(source: Source, folders: Sequence[Path]) -> Found | None:
    """The first complete release of the source in the folders, if any; the contents are not looked at."""
    for folder in folders:
        for layout in source.layouts:
            for place in _places(folder, layout):
                if not _missing(place, layout):
                    return Found(source, layout, place, archived=False)
        for layout in source.layouts:
            if layout.archive and (folder / layout.archive).is_file():
                return Found(source, layout, folder / layout.archive, archived=True)
    return None


def not_found(source: Source, folders: Sequence[Path]) -> ValueError:
    """The error that says what was looked for, where, and what to do."""
    lines = [f"{source.name} was not found. Looked in"]
    lines += [f"  {folder}{'' if folder.is_dir() else ' (there is no such folder)'}" for folder in folders]
    lines.append("for one of")
    for layout in source.layouts:
        names = ", ".join(f"{file.name}{'[.gz]' if '.gz' in layout.suffixes else ''}" for file in layout.files)
        places = ", ".join(f"{name}/" for name in layout.folders)
        lines.append(f"  {names} (in the folder itself or in {places})")
        lines += [f"  {layout.archive}"] if layout.archive else []
    for folder in folders:
        lines += [f"Incomplete: {text}" for layout in source.layouts for text in _incomplete(folder, layout)]
    lines.append(
        f"Get it with `fisherkit data fetch {source.name}`, or name the folder that has it: data_dir in Python, "
        f"--data-dir on the command line, or the environment variable {ENVIRONMENT}."
    )
    return ValueError("\n".join(lines))


def _places(folder: Path, layout: Layout) -> tuple[Path, ...]:
    return (*(folder / name for name in layout.folders), folder)


def _missing(place: Path, layout: Layout) -> list[str]:
    return [file.name for file in layout.files if resolve(place, file.name, layout.suffixes) is None]


def _incomplete(folder: Path, layout: Layout) -> list[str]:
    """Sentences about places that have some of the files."""
    states = ((place, _missing(place, layout)) for place in _places(folder, layout))
    return [f"{place} lacks {', '.join(missing)}." for place, missing in states if 0 < len(missing) < len(layout.files)]
