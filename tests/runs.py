"""A small run for tests: a width-2 network, 60 images, deficit, augmentation and an event, two epochs."""

from fisherkit.studies import RunSpecification, specify

ARGUMENTS = [
    "track",
    *("--model", "allcnn", "--width", "2", "--train-images", "60", "--test-images", "20", "--batch-size", "16"),
    *("--epochs", "3", "--deficit", "blur:0-1", "--deficit", "noise:2-3", "--event", "shrink_perturb(0.5,0.1):1"),
    *("--weight-decay", "1e-3:0-2", "--probe", "train", "--probe", "deficit", "--probe-images", "10"),
    *("--every", "3steps", "--threads", "1"),
]


def small(**changes) -> RunSpecification:
    """The specification that `ARGUMENTS` stand for."""
    options = dict(
        model="allcnn",
        width="2",
        train_images=60,
        test_images=20,
        batch_size=16,
        epochs=3,
        deficit=("blur:0-1", "noise:2-3"),
        event=("shrink_perturb(0.5,0.1):1",),
        weight_decay=("1e-3:0-2",),
        probe=("train", "deficit"),
        probe_images=10,
        every="3steps",
        threads=1,
    )
    return specify(**{**options, **changes})
