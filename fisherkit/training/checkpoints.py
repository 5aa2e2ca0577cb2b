"""Checkpoints: whole files whose name proves their contents.

ckpt-<step>-<first 16 digits of the sha256 of the file>.pt    the last two of a run
kept-<epoch>-<first 16 digits of the sha256 of the file>.pt   those that were asked for, for other runs to branch off
"""

import hashlib
import io
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherkit.errors import UnreadableFile
from fisherkit.storage import atomic_write

SCHEMA = 1
_FORMAT = "fisherkit checkpoint"
_NAME = re.compile(r"(?P<kind>ckpt|kept)-(?P<number>[0-9]{1,18})-(?P<sha256>[0-9a-f]{16})\.pt")
_READABLE = {int, float, bool, str, bytes, type(None), torch.Size, torch.dtype}


class FoundCheckpoint(NamedTuple):
    """A checkpoint that was read; `notices` are sentences about newer ones that could not be."""

    step: int
    contents: dict[str, Any]
    notices: tuple[str, ...]


def save_checkpoint(folder: Path, step: int, contents: dict[str, Any]) -> Path:
    """Write a checkpoint atomically, then remove all others but the newest one of an earlier step.

    Contents are tensors, numbers, texts and None in dictionaries and lists: what `weights_only` loading reads.

    Raises:
        ValueError: The contents hold something that could not be read back.
        OSError: The file could not be written; the checkpoints that were there still are.
    """
    path = _write(folder, "ckpt", step, step, contents)
    _remove_others(folder, path, step)
    return path


def keep_checkpoint(folder: Path, epoch: int, step: int, contents: dict[str, Any]) -> Path:
    """Write a checkpoint of the end of an epoch that stays, beside the last two.

    Raises:
        ValueError, OSError: as `save_checkpoint`.
    """
    return _write(folder, "kept", epoch, step, contents)


def kept_checkpoint(folder: Path, epoch: int) -> FoundCheckpoint | None:
    """The whole checkpoint kept at that epoch; None where there is none.

    Raises:
        UnreadableFile: It is not ours, or newer than this version.
    """
    for number, path in _checkpoints(folder, "kept"):
        if number == epoch and _is_whole(path, data := path.read_bytes()):
            return _contents(path, data)
    return None


def kept_epochs(folder: Path) -> tuple[int, ...]:
    """The epochs of which a folder holds a kept checkpoint, ascending."""
    return tuple(sorted({number for number, _ in _checkpoints(folder, "kept")}))


def remove_kept(folder: Path) -> None:
    """Remove the kept checkpoints of a folder."""
    for _, path in _checkpoints(folder, "kept"):
        path.unlink(missing_ok=True)


def _write(folder: Path, kind: str, number: int, step: int, contents: dict[str, Any]) -> Path:
    _check_readable(contents, "contents")
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "schema": SCHEMA, "step": step, "contents": contents}, buffer)
    path = folder / f"{kind}-{number}-{_digest(buffer.getbuffer())}.pt"
    atomic_write(path, buffer.getbuffer())
    return path


def newest_checkpoint(folder: Path) -> FoundCheckpoint | None:
    """The newest whole checkpoint of a run folder, tensors on the CPU; None where there is none.

    A file whose contents do not match its name is passed over with a notice.

    Raises:
        UnreadableFile: There are checkpoints but none is whole; or the newest whole one is not ours, or newer
            than this version.
    """
    candidates = _checkpoints(folder)
    damaged: list[str] = []
    for step, path in candidates:
        data = path.read_bytes()
        if _is_whole(path, data):
            notices = tuple(f"{name} is damaged; {path.name} before it is used instead." for name in damaged)
            found = _contents(path, data)
            if found.step != step:
                raise UnreadableFile(path, "its contents are not those of a checkpoint of the step in its name.")
            return found._replace(notices=notices)
        damaged.append(path.name)
    if not candidates:
        return None
    problem = "the checkpoint is damaged (its contents do not match its name), and there is no whole one before it."
    raise UnreadableFile(candidates[0][1], f"{problem} Remove {', '.join(damaged)} to start the run anew.")


def _checkpoints(folder: Path, kind: str = "ckpt") -> list[tuple[int, Path]]:
    """Number (step or epoch) and path of all checkpoints of a kind in a folder, the newest first."""
    if not folder.is_dir():
        return []
    named = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    found = ((int(match["number"]), path) for match, path in named if match and match["kind"] == kind)
    return sorted(((number, path) for number, path in found if path.is_file()), reverse=True)


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _is_whole(path: Path, data: bytes) -> bool:
    """Whether the contents are those that the name promises."""
    match = _NAME.fullmatch(path.name)
    return match is not None and _digest(data) == match["sha256"]


def _remove_others(folder: Path, written: Path, step: int) -> None:
    # those at or after this step are of an earlier attempt that this run went back behind, so damaged
    others = [(other_step, path) for other_step, path in _checkpoints(folder) if path != written]
    keep = next((path for other_step, path in others if other_step < step), None)
    for _, path in others:
        if path != keep:
            path.unlink(missing_ok=True)


def _contents(path: Path, data: bytes) -> FoundCheckpoint:
    saved = load_safely(path, data)
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        raise UnreadableFile(path, "not a checkpoint of a fisherkit run. Move it out of the run folder.")
    schema = saved.get("schema")
    if schema != SCHEMA:
        raise UnreadableFile(
            path, f"written in schema {schema!r}; this version reads {SCHEMA}. Install the newer fisherkit."
        )
    step, contents = saved.get("step"), saved.get("contents")
    if not isinstance(step, int) or not isinstance(contents, dict):
        raise UnreadableFile(path, "its contents are not those of a checkpoint of the step in its name.")
    return FoundCheckpoint(step, dict(contents), ())


def load_safely(path: Path, data: bytes) -> Any:
    """What `torch.save` wrote, tensors on the CPU; a file that would run code or grow when read is refused."""
    _check_sizes(path, data)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run whatever the file says
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it asks for {named[1]}" if named else "it is not what torch.save writes for tensors"
        problem = f"not a checkpoint that is safe to load: {what}. Save model.state_dict(), or use safetensors."
        raise UnreadableFile(path, problem) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableFile(path, f"not a checkpoint that is safe to load: {reason}") from error


def _check_sizes(path: Path, data: bytes) -> None:
    """Refuse a file that would grow when it is unpacked: torch stores its records as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            grown = [entry.filename for entry in archive.infolist() if entry.file_size > entry.compress_size]
    except zipfile.BadZipFile as error:
        raise UnreadableFile(path, "not a checkpoint: not in the format of torch.save.") from error
    if grown:
        raise UnreadableFile(path, "not a checkpoint of fisherkit: it is compressed.", dataset=grown[0][:80])


def _check_readable(value: Any, place: str) -> None:
    if isinstance(value, Tensor) or type(value) in _READABLE:
        return
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            _check_readable(key, f"a key of {place}")
            _check_readable(part, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, part in enumerate(value):
            _check_readable(part, f"{place}[{index}]")
    else:
        raise ValueError(
            f"{place} must be a tensor, a number, a text, None, or a dictionary, list or tuple of these; "
            f"got a {type(value).__module__}.{type(value).__qualname__}, which could not be read back safely."
        )
