"""What a user may pass as images, turned into batches; and how a model is called on one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fisherkit.images import ImageSet

Inputs = Tensor | dict[str, Tensor]  # what the model is called on: f(images) or f(**batch)

DEFAULT_BATCH = 64
JOINT_BATCHES = 32  # number of batches wanted when a layer has one value a batch, for its standard error


@dataclass(frozen=True, eq=False)
class Batch:
    """Model inputs and, where known, labels."""

    inputs: Inputs
    labels: Tensor | None

    def __len__(self) -> int:
        return len(first_tensor(self.inputs))

    def head(self, count: int) -> "Batch":
        """The first `count` images."""
        return self.between(0, count)

    def between(self, start: int, stop: int) -> "Batch":
        """Images start to stop."""
        return Batch(sliced(self.inputs, start, stop), None if self.labels is None else self.labels[start:stop])


def first_tensor(inputs: Inputs) -> Tensor:
    """The tensor whose first dimension counts the images."""
    return inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))


def sliced(inputs: Inputs, start: int, stop: int | None) -> Inputs:
    """Images start to stop of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[start:stop]
    return {name: value[start:stop] for name, value in inputs.items()}


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    """The model's outputs [images, ...]: the returned tensor, or its `.logits`.

    Raises:
        ValueError: the model returned something else, or not one row for each image.
    """
    try:
        outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "images: a batch of a single image cannot be normalised with its own statistics (batchnorm='train', or a "
            "BatchNorm without running statistics); choose batch_size so that none is left over, or batchnorm='eval'."
        ) from error
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model must return a tensor of outputs, or an object with .logits; got {type(outputs).__name__}. "
            "Wrap it in a module that returns the logits."
        )
    images = len(first_tensor(inputs))
    if outputs.dim() == 0 or outputs.shape[0] != images:
        raise ValueError(
            f"model must return one row of outputs for each image; got shape {list(outputs.shape)} for {images} images."
        )
    if not outputs.is_floating_point():
        raise ValueError(f"model must return floating-point outputs; got {outputs.dtype}.")
    return outputs


def layer_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer is called on, images first, however it is passed; of an attention the query."""
    if type(module) is not nn.MultiheadAttention:
        return args[0] if args else kwargs.get("input", kwargs.get("x"))
    query: Tensor = args[0] if args else kwargs["query"]
    if query.dim() != 3:
        return None  # one image without its dimension
    return query if module.batch_first else query.transpose(0, 1)


def known_length(images: Any, max_images: int | None) -> int | None:
    """The number of images that will be used, when it can be told without reading them."""
    if isinstance(images, Tensor | ImageSet):
        count = len(images)
    elif isinstance(images, Mapping):
        count = len(next(iter(images.values())))
    else:
        return None
    return count if max_images is None else min(count, max_images)


def batches(
    images: Any,
    labels: Tensor | None,
    *,
    size: int | None,
    max_images: int | None,
    device: torch.device,
) -> Iterator[Batch]:
    """Cut a tensor, an ImageSet, one dictionary or an iterable of batches into batches on the device.

    Labels come on the CPU, where checking them does not wait for the device.
    """
    left = max_images
    for batch in _raw_batches(images, labels, size or DEFAULT_BATCH):
        taken = batch if left is None or len(batch) <= left else batch.head(left)
        yield Batch(_moved(taken.inputs, device), None if taken.labels is None else taken.labels.cpu())
        if left is not None:
            left -= len(taken)
            if left == 0:
                return


def _raw_batches(images: Any, labels: Tensor | None, size: int) -> Iterator[Batch]:
    if isinstance(images, ImageSet):
        if labels is not None:
            raise ValueError("labels must be left out when images is an ImageSet, which has its own.")
        known = images.labels.cpu()
        for start in range(0, len(images), size):
            rows = torch.arange(start, min(start + size, len(images)), device=images.images.device)
            yield Batch(images.normalised(rows), known[start : start + size])
    elif isinstance(images, Tensor | Mapping):
        whole = _as_batch(images if labels is None else (images, labels), 0)
        own = None if whole.labels is None else whole.labels.cpu()
        for start in range(0, len(whole), size):
            part = None if own is None else own[start : start + size]
            yield Batch(sliced(whole.inputs, start, start + size), part)
    elif _is_pair(images):
        raise ValueError(
            "images must not be a tuple of two tensors, which may be a batch with its labels or two batches; "
            "give a list: [(images, labels)] for the one, [first, second] for the other."
        )
    elif isinstance(images, Iterable):
        if labels is not None:
            raise ValueError("labels must be left out when images is an iterable of batches: yield (images, labels).")
        for index, item in enumerate(images):
            yield _as_batch(item, index)
    else:
        raise ValueError(
            f"images must be a tensor, an ImageSet or an iterable of batches; got {type(images).__name__}."
        )


def _is_pair(images: Any) -> bool:
    return isinstance(images, tuple) and len(images) == 2 and all(isinstance(value, Tensor) for value in images)


def _as_batch(item: Any, index: int) -> Batch:
    """A tensor, an (images, labels) pair, or a dictionary (its "labels" are the labels)."""
    labels = None
    if isinstance(item, list | tuple) and len(item) == 2:
        item, labels = item
    if isinstance(item, Mapping):
        named = {str(name): value for name, value in item.items()}
        labels = named.pop("labels", labels)
        item = named
    if labels is not None and not isinstance(labels, Tensor):
        raise ValueError(
            f"labels of batch {index} must be a tensor; got {type(labels).__name__}. Use torch.as_tensor(labels)."
        )
    tensors = list(item.values()) if isinstance(item, dict) else [item]
    tensors += [] if labels is None else [labels]
    if not tensors or not all(isinstance(value, Tensor) and value.dim() > 0 for value in tensors):
        raise ValueError(
            f"images: batch {index} must be a tensor, an (images, labels) pair or a dictionary of tensors; "
            f"got {type(item).__name__}."
        )
    lengths = {len(value) for value in tensors}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"images: batch {index} must have as many labels as images, and at least one; "
            f"got lengths {sorted(len(value) for value in tensors)}."
        )
    _check_values(tensors[0], index)
    return Batch(item, labels)


def _check_values(images: Tensor, index: int) -> None:
    """uint8 pixels given raw would be measured at a scale the network never saw."""
    if images.dtype == torch.uint8:
        raise ValueError(
            f"images: batch {index} must be normalised floating-point images; got uint8 pixels. "
            "Use an ImageSet, which carries its normalisation, or normalise as in training."
        )


def _moved(inputs: Inputs, device: torch.device) -> Inputs:
    if isinstance(inputs, Tensor):
        return _plain(inputs).to(device, non_blocking=True)
    return {name: _plain(value).to(device, non_blocking=True) for name, value in inputs.items()}


def _plain(value: Tensor) -> Tensor:
    """Without a graph of its own; tensors made in inference mode cannot enter one, a copy can."""
    return value.clone() if value.is_inference() else value.detach()


def peeked(iterator: Iterator[Batch]) -> tuple[Batch, Iterator[Batch]]:
    """The first batch, and an iterator that still begins with it.

    Raises:
        ValueError: there is no image at all.
    """
    first = next(iterator, None)
    if first is None:
        raise ValueError("images must hold at least one image; got none.")
    return first, chain([first], iterator)
