"""What a specification names: the images, the model, the training, the probe sets."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from fisherkit.conditions import apply_deficits
from fisherkit.images import ImageSet, load_images
from fisherkit.models import build_model
from fisherkit.studies.specification import RunSpecification
from fisherkit.training import Training, derive_seed, fraction_members


def load_sets(specification: RunSpecification, *, notice: Callable[[str], None]) -> tuple[ImageSet, ImageSet]:
    """Training and test images, cut to the counts asked for.

    With `held_out` the test images are that share of the official training images, classes in proportion, and the
    others are those to train on: the same for every run, whatever its seed, so that runs that differ in the seed, and
    the arms of a study, are tested on the same images and none of them has trained on these.
    """
    train, test = load_images(specification.data, data_dir=specification.data_dir)
    for text in dict.fromkeys((*train.notices, *test.notices)):
        notice(text)
    if specification.held_out is not None:
        train, test = _split(train, specification.held_out)
    seed = derive_seed(specification.seed, "subset")
    if specification.train_images is not None:
        train = train.subset(specification.train_images, seed=seed)
    if specification.test_images is not None:
        test = test.subset(specification.test_images, seed=seed)
    _say_how_many_are_probed(specification, train, test, notice)
    return train, test


def _say_how_many_are_probed(
    specification: RunSpecification, train: ImageSet, test: ImageSet, notice: Callable[[str], None]
) -> None:
    """More images asked for than there are means all of them; the default, which nobody asked for, is no news."""
    asked, default = specification.probe_images, RunSpecification.model_fields["probe_images"].default
    for images, probes in ((train, {"train", "deficit"}), (test, {"test"})):
        if asked > max(len(images), default) and probes & set(specification.probe):
            notice(
                f"probe_images {asked:,} is more than there are: all {len(images):,} images of {images.name} are used."
            )


def _split(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """The images without that share of them, and the share."""
    if not 0 < math.floor(share * len(images) + 0.5) < len(images):
        raise ValueError(
            f"held_out must take at least 1 of the {len(images):,} training images, and leave 1; got {share!r}."
        )
    seed = derive_seed(0, "held_out")
    held_out = fraction_members(images.labels, share, classes=len(images.classes), seed=seed)
    rest, kept = (images.select(torch.nonzero(members).flatten()) for members in (~held_out, held_out))
    return rest, replace(kept, name=f"{images.name}, held out")


def load_buildable(specification: RunSpecification, *, notice: Callable[[str], None]) -> tuple[ImageSet, ImageSet]:
    """As `load_sets`, once model and deficits can be made: a run that cannot begin leaves no folder behind."""
    train, test = load_sets(specification, notice=notice)
    specification.conditions().check(train)
    model_builder(specification, train)(0)
    return train, test


def model_builder(specification: RunSpecification, images: ImageSet) -> Callable[[int], torch.nn.Module]:
    """A function of the seed that makes a freshly initialised model for these images."""

    def build(seed: int) -> torch.nn.Module:
        return build_model(
            specification.model,
            classes=len(images.classes),
            channels=images.images.shape[1],
            image_size=images.images.shape[2],
            width=specification.width,
            options=specification.model_options,
            seed=seed,
        )

    return build


def training_of(specification: RunSpecification, train: ImageSet, test: ImageSet) -> Training:
    """The training that a specification sets, on these images.

    Raises:
        ValueError: images, conditions and model do not fit together.
    """
    conditions = specification.conditions()
    conditions.check(train)
    build = model_builder(specification, train)
    return Training(
        build(derive_seed(specification.seed, "initialisation")),
        train,
        test,
        specification.training(),
        conditions,
        fresh_model=build,
        device=specification.device,
    )


def probe_sets(specification: RunSpecification, train: ImageSet, test: ImageSet) -> dict[str, ImageSet]:
    """The probe images by name, the same for the whole run: clean training images, test images, or the first
    under all deficits of the run, whatever their windows."""
    seed = derive_seed(specification.seed, "subset")

    def some(images: ImageSet) -> ImageSet:
        return images.subset(min(specification.probe_images, len(images)), seed=seed)

    def impaired() -> ImageSet:
        deficits = specification.conditions().all_deficits()
        return apply_deficits(some(train), deficits, seed=derive_seed(specification.seed, "deficits"))

    made = {"train": lambda: some(train), "test": lambda: some(test), "deficit": impaired}
    return {name: made[name]() for name in specification.probe}
