"""Weights from anybody's training: a state dict saved by torch, or a safetensors file; never any code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fisherkit.errors import UnreadableFile
from fisherkit.training.torch_files import load_foreign

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "contents", "training")  # keys that hold a state dict
PREFIXES = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before names

_MOST_TENSORS, _MOST_WRAPPERS, _LONGEST_NAME = 10_000, 10, 200


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    A dictionary of tensors, or one that holds it under a usual key ("state_dict", "model", ...).

    Raises:
        UnreadableFile: not such a file; a pickle that would run code is refused.
    """
    if not path.is_file():
        raise UnreadableFile(path, "there is no such file.")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    found: Any = load_foreign(path, path.read_bytes())
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(found, Mapping) or _is_state(found):
            break
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            raise UnreadableFile(
                path,
                f"holds no state dict (its keys are {', '.join(repr(key)[:80] for key in list(found)[:8])}). "
                "Save model.state_dict(), or convert it to safetensors.",
            )
        found = inner
    if not isinstance(found, Mapping) or not _is_state(found):
        raise UnreadableFile(path, f"holds a {type(found).__name__}, not a state dict. Save model.state_dict().")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a checkpoint's tensors into a model; every name and shape must fit.

    Raises:
        UnreadableFile: they do not; the message names the first that differ.
    """
    wanted = model.state_dict()
    given = _without_prefixes(read_weights(path), wanted)
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    shapes = [
        f"{name} {list(given[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    kinds = [
        f"{name} {given[name].dtype} instead of {wanted[name].dtype}"
        for name in wanted
        if name in given and given[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    problems = [
        _listed("misses", missing),
        _listed("has in excess", extra),
        _listed("has other shapes:", shapes),
        _listed("has other types:", kinds),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise UnreadableFile(path, f"does not fit the model: it {found}. Check --model, --width and --data.")
    for name, tensor in given.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise UnreadableFile(path, f"{name} has numbers that are NaN or infinite. Measure an earlier checkpoint.")
    model.load_state_dict(given)


def _is_state(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = dict(load(path.read_bytes()))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UnreadableFile(path, f"not a safetensors file: {reason}. Get it again, or save it anew.") from error
    if len(found) > _MOST_TENSORS:
        raise UnreadableFile(path, f"has {len(found):,} tensors, more than {_MOST_TENSORS:,}. Save the model's alone.")
    return found


def _without_prefixes(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop a prefix that every name has, when the model's names do not have it."""
    for prefix in PREFIXES:
        if given and all(name.startswith(prefix) for name in given) and not all(n.startswith(prefix) for n in wanted):
            return _without_prefixes({name.removeprefix(prefix): value for name, value in given.items()}, wanted)
    return given


def _listed(verb: str, names: list[str]) -> str:
    names = [name[:_LONGEST_NAME] for name in names]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} {', '.join(names[:3])}{more}" if names else ""
