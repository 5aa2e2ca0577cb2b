"""Loads an image set by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from . import cifar, fashion_mini, idx, svhn
from .catalogue import CATALOGUE, Source, source_named
from .contents import Content, read_archive, read_folder
from .image_set import ImageSet
from .locate import Found, data_folders, locate, not_found
from .releases import Format, Split

Decoded = tuple[UInt8[np.ndarray, "images channels height width"], Int64[np.ndarray, "images"]]


def load_images(name: str, *, data_dir: str | Path | None = None) -> tuple[ImageSet, ImageSet]:
    """The training and the test images of a set in `SOURCES`.

    `fashion-mini` is part of the package. The others are read from `data_dir`, by default from the folder that
    $FISHERKIT_DATA names or else from the user's cache folder; nothing is downloaded. Files whose checksum
    differs from the official release are used, with a notice in `ImageSet.notices`.

    Raises:
        ValueError: There is no set of this name, or its files are not there.
        UnreadableFile: A file is damaged, or of another format or set.
    """
    source = source_named(name)
    if source.embedded:
        return (
            _image_set(source, "train", fashion_mini.read("train")),
            _image_set(source, "test", fashion_mini.read("test")),
        )
    folders = data_folders(data_dir)
    found = locate(source, folders)
    if found is None:
        raise not_found(source, folders)
    return load_found(found)


def load_found(found: Found) -> tuple[ImageSet, ImageSet]:
    """The training and the test images of a release that was located."""
    layout = found.layout
    if found.archived:
        contents = read_archive(found.place, layout.folders[0], layout.files)
    else:
        contents = read_folder(found.place, layout.files, layout.suffixes)
    train, test = contents[: len(layout.train)], contents[len(layout.train) :]
    return _load_split(found, "train", train), _load_split(found, "test", test)


def _load_split(found: Found, split: Split, contents: Sequence[Content]) -> ImageSet:
    differing = [content for content in contents if not content.matches(content.file.checksum)]
    for content in differing:
        _refuse_other_set(content, found.source)
    decoded = _decode(found.layout.format, contents, classes=len(found.source.classes))
    return _image_set(found.source, split, decoded, notices=_notices(found, split, differing))


def _decode(format_: Format, contents: Sequence[Content], *, classes: int) -> Decoded:
    match format_:
        case "cifar10-binary":
            return cifar.decode_binary(contents, label_bytes=1, classes=classes)
        case "cifar100-binary":
            return cifar.decode_binary(contents, label_bytes=2, classes=classes)
        case "cifar10-python":
            return cifar.decode_python(contents, label_key="labels", classes=classes)
        case "cifar100-python":
            return cifar.decode_python(contents, label_key="fine_labels", classes=classes)
        case "idx":
            return idx.decode(contents, classes=classes)
        case "svhn":
            return svhn.decode(contents)
        case _:
            assert_never(format_)


def _image_set(source: Source, split: Split, decoded: Decoded, *, notices: tuple[str, ...] = ()) -> ImageSet:
    images, labels = decoded
    return ImageSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        classes=source.classes,
        name=f"{source.name} {split}",
        mean=source.mean,
        std=source.std,
        notices=notices,
    )


def _refuse_other_set(content: Content, source: Source) -> None:
    """Raise if the file is an official one of another set: MNIST and Fashion-MNIST have the same file names."""
    for other in CATALOGUE:
        files = (file for layout in other.layouts for file in layout.files)
        if other.name != source.name and any(
            file.size == len(content.data) and content.matches(file.checksum) for file in files
        ):
            raise content.unreadable(
                f"this is a file of {other.name}, not of {source.name}. Ask for {other.name}, or put the files "
                f"of {source.name} into a folder of their own, {source.layouts[0].folders[0]}/."
            )


def _notices(found: Found, split: Split, differing: Sequence[Content]) -> tuple[str, ...]:
    if not differing:
        return ()
    names = ", ".join(content.file.name for content in differing)
    return (
        f"{found.source.name} {split}: {names} in {found.place} differ from the official release (checksum); "
        "results may differ from those on the official images.",
    )
