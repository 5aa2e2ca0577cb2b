"""The folder of a run: which run it holds, and whether that run is finished."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fisherkit.errors import RunRefused, UnreadableFile
from fisherkit.images import ImageSet
from fisherkit.recording import Trajectory, read
from fisherkit.storage import atomic_write, lock
from fisherkit.studies.specification import MOST_THREADS, RunSpecification, check_choices


def identity_of(specification: RunSpecification, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """The choices of the run and which images it is on, JSON-able."""
    return {
        "configuration": json.loads(specification.model_dump_json()),
        "images": {"train": train.digest, "test": test.digest},
    }


def write_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Write config.json, once: only a run that could be set up claims the folder.

    The folder of the images is written in full, so that `track --specification` goes on from any place.
    """
    path = folder / "config.json"
    if path.exists():
        return
    configuration = identity["configuration"]
    if configuration["data_dir"] is not None:
        place = str(Path(configuration["data_dir"]).expanduser().absolute())
        identity = {**identity, "configuration": {**configuration, "data_dir": place}}
    atomic_write(path, json.dumps(identity, indent=1).encode())


def check_identity(folder: Path, identity: dict[str, Any], specification: RunSpecification) -> None:
    """Compare with the config.json that is there, if there is one.

    Raises:
        RunRefused: the folder holds another run; the message shows the differing options.
    """
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())
        before = RunSpecification.model_validate(found["configuration"])
        images = dict(found["images"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableFile(path, "not the configuration of a run. Choose another --out folder.") from error
    differing = specification.differing_options(before)
    if differing:
        raise RunRefused(f"{folder} holds another run: {'; '.join(differing)}. Choose another --out folder.")
    if images != identity["images"]:
        raise RunRefused(
            f"{folder} holds a run on other {specification.data} images than those that were read now. "
            "Give the same --data-dir, or choose another --out folder."
        )


def read_specification(path: Path) -> RunSpecification:
    """The run that a JSON file names: its specification alone, or the config.json of a run folder.

    Raises:
        UnreadableFile: the file is neither.
    """
    try:
        found = json.loads(path.read_bytes())
        specification = RunSpecification.model_validate(found.get("configuration", found))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UnreadableFile(path, f"not the specification of a run: {first['msg']}.", dataset=place or None) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableFile(path, "not the specification of a run, which is a JSON object.") from error
    try:
        check_choices(specification)
    except ValueError as error:
        raise UnreadableFile(path, f"not the specification of a run: {error}") from error
    return specification


def recorded_run(folder: Path) -> Trajectory | None:
    """What the folder holds of its run, if anything."""
    path = folder / "run.h5"
    return read(path) if path.exists() else None


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder for writing; a finished run that lies where nothing can be written is only read.

    Raises:
        FolderInUse: another process, or another part of this one, holds the folder.
        OSError: the folder cannot be written to, and its run is not finished.
    """
    return nullcontext() if _is_finished_for_good(folder) else lock(folder)


def _is_finished_for_good(folder: Path) -> bool:
    if not folder.is_dir() or os.access(folder, os.W_OK):
        return False
    recorded = recorded_run(folder)
    return recorded is not None and bool(recorded.attributes.get("finished"))


def threads_of(recorded: Trajectory | None) -> int | None:
    """How many threads a run was begun with: its bits depend on them."""
    found = None if recorded is None else recorded.attributes.get("numerics")
    threads = found.get("threads") if isinstance(found, dict) else None
    return threads if isinstance(threads, int) and 1 <= threads <= MOST_THREADS else None
