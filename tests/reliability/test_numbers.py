"""Numbers that go wrong: the step and the layer are named, what was recorded stays, and the run ends or goes on."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import small

import fisherkit
from fisherkit import plots
from fisherkit.analysis import phases
from fisherkit.images import ImageSet
from fisherkit.studies import Observer, Outcome, RunSpecification, track


def image_set(count: int, *, classes: int = 10, missing: int | None = None, constant: bool = False) -> ImageSet:
    """Random images of 8 x 8, or constant ones; a class may be missing."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.arange(count) % classes
    if missing is not None:
        labels[labels == missing] = (missing + 1) % classes
    if constant:
        images = images[:, :, :1, :1].expand(-1, -1, 8, 8).contiguous()
    names = tuple(map(str, range(classes)))
    return ImageSet(images, labels, names, "odd", mean=(0.5,), std=(0.25,))


class Asking(Observer):
    """Collects notices; stops a run after so many steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notices: list[str] = []
        self.stop_after = stop_after

    def stepped(self, run, step) -> None:
        if step.step == self.stop_after:
            raise Interrupted

    def notice(self, text: str) -> None:
        self.notices.append(text)


class Interrupted(Exception):  # noqa: N818
    """In place of a kill: nothing is written."""


def specification(**changes) -> RunSpecification:
    options = dict(model="mlp", width="4", event=(), deficit=("noise:0-1",), every="1", probe=("train",))
    options |= dict(train_images=None, test_images=None)
    return small(**{**options, **changes})


def wrong(step: str, **changes) -> RunSpecification:
    return specification(model=f"models_gone_wrong:{step}", width=None, **changes)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`on(train, test, specification, folder)`: a run on these images."""

    def run(
        train: ImageSet, test: ImageSet, specification: RunSpecification, folder: Path, watch: Observer | None = None
    ) -> Outcome:
        monkeypatch.setattr("fisherkit.studies.sets.load_images", lambda *_, **__: (train, test))
        return track(specification, folder, observer=watch or Asking())

    return run


EXPLODING = {
    "learning rate": (specification(lr=1e30), 3, "the weights of layer 'linear1' and of 2 more are not finite"),
    "with batchnorm": (specification(model="allcnn", width="2", lr=1e30), 2, "the outputs of layer 'conv2'"),
    "adam": (specification(optimizer="adam", lr=1e25), 3, "the weights of layer 'linear1'"),
    "loss is NaN": (wrong("nan_at_5"), 5, "the outputs of layer 'wrong'"),
    "loss is infinite": (wrong("infinite_at_5"), 5, "the outputs of layer 'wrong'"),
    "within an epoch": (wrong("nan_at_5", every="1steps"), 5, "the outputs of layer 'wrong'"),
    "penalty": (specification(lr=1e9, fisher_penalty="1e38:1"), None, ""),
}


@pytest.mark.parametrize("name", EXPLODING)
def test_a_run_says_at_which_step_and_layer_and_ends(on, tmp_path, name: str):
    chosen, step, place = EXPLODING[name]
    train, test = image_set(60), image_set(20)
    with pytest.raises(FloatingPointError) as caught:
        on(train, test, chosen, tmp_path)
    message = str(caught.value)
    assert f"at step {'' if step is None else step}" in message
    assert place in message
    run = fisherkit.read(tmp_path / "run.h5")
    assert (run.attributes["exploded"], run.attributes["finished"]) == (message, False)
    assert np.isfinite(run.total("fisher_true")).all()
    assert len(run) == (5 if name == "within an epoch" else 2 if step == 5 else 1)


@pytest.mark.parametrize("name", ["with batchnorm", "loss is infinite", "within an epoch", "penalty"])
def test_with_continue_it_goes_on_to_its_end(on, tmp_path, name: str):
    chosen, _, place = EXPLODING[name]
    chosen = chosen.model_copy(update={"on_nonfinite": "continue"})
    train, test = image_set(60), image_set(20)
    watch = Asking()
    outcome = on(train, test, chosen, tmp_path / "whole", watch)
    run = fisherkit.read(outcome.file)
    assert outcome.finished
    assert run.attributes["finished"] is True
    assert place in run.attributes["exploded"]
    assert len([text for text in watch.notices if "The run goes on" in text]) == 1
    assert run.series["epoch"][-1] == 3
    assert np.isnan(run.series["train_loss"][-1])
    assert np.isnan(run.total("fisher_true")[-1])
    assert np.isfinite(run.total("fisher_true")[0])
    assert phases(run).verdict == "explodes"
    assert on(train, test, chosen, tmp_path / "whole").already_finished


def test_runs_that_exploded_can_be_drawn(on, tmp_path):
    outcome = on(image_set(60), image_set(20), specification(lr=1e30, on_nonfinite="continue"), tmp_path)
    plots.save(plots.heatmap(outcome.trajectory), tmp_path / "heatmap.png")
    plots.save(plots.curves([outcome.trajectory]), tmp_path / "curves.png")


def test_it_resumes_to_the_same_bits_before_and_after(on, tmp_path):
    chosen = wrong("nan_at_5", on_nonfinite="continue", every="1steps")
    train, test = image_set(60), image_set(20)
    whole = on(train, test, chosen, tmp_path / "whole").trajectory
    for stop in (3, 6):  # before the fifth step, in which it happens, and after
        with pytest.raises(Interrupted):
            on(train, test, chosen, tmp_path / "cut", Asking(stop))
    resumed = on(train, test, chosen, tmp_path / "cut").trajectory
    assert whole.differences(resumed) == []
    assert whole.attributes["exploded"] == resumed.attributes["exploded"]


ODD = {
    "a class that never occurs": (dict(count=60, missing=3), {}),
    "images without variance": (dict(count=60, constant=True), dict(model="allcnn", width="2")),
    "one image": (dict(count=1), dict(model="allcnn", width="2")),
    "10,000 classes": (dict(count=60, classes=10_000), dict(probe_images=2)),
    "a layer without gradient": (dict(count=60), dict(model="models_gone_wrong:idle", width=None)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_and_layers_are_measured_all_the_same(on, tmp_path, count, name: str):
    images, changes = ODD[name]
    train = image_set(**images)
    for estimator in ("propagated", "sampled", "exact")[: count(short=1, full=2 if "10,000" in name else 3)]:
        outcome = on(train, train, specification(epochs=2, estimator=estimator, **changes), tmp_path / estimator)
        run = fisherkit.read(outcome.file)
        assert outcome.finished
        assert "exploded" not in run.attributes
        assert np.isfinite(run.total("fisher_true")).all()
        plots.save(plots.heatmap(run), tmp_path / "heatmap.png")


def test_one_class_is_refused_before_anything_is_written(on, tmp_path):
    train = image_set(60, classes=1)
    with pytest.raises(ValueError, match="train must have at least 2 classes, or there is nothing to learn; odd has 1"):
        on(train, train, specification(), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").glob("*")} <= {".lock"}


def test_layers_without_gradient_are_named(on, tmp_path):
    heard: list[str] = []

    class Listening(Asking):
        def measured(self, run, result) -> None:
            heard.extend(result.notes)

    outcome = on(image_set(60), image_set(20), wrong("idle"), tmp_path, Listening())
    run = fisherkit.read(outcome.file)
    assert run.layers == ("unused", "cut", "last")
    assert (run.variables["fisher_true"][:, :2] == 0).all()
    assert any("do not depend on unused, cut" in note for note in heard)
    assert any("frozen" in note for note in heard)


OF_THE_ENDING = ("configuration", "exploded", "finished", "schedule")  # attributes that say which of the two it is
MODELS = (("mlp", "4"), ("linear", None), ("allcnn", "2"), ("resnet18", "1"), ("vit_tiny", "12"))


def chosen_at_random(rng: random.Random) -> RunSpecification:
    """A run that explodes, or nearly."""
    model, width = rng.choice(MODELS)
    return small(
        model=model,
        width=width,
        event=(),
        deficit=("blur:0-1",),
        epochs=2,
        lr=10.0 ** rng.choice([2, 5, 10, 18, 25, 28, 30]),
        optimizer=rng.choice(["sgd", "adam"]),
        estimator=rng.choice(["propagated", "sampled", "exact"]),
        engine=rng.choice(["auto", "auto", "vmap", "ghost"]) if model in ("mlp", "linear") else "auto",
        every=rng.choice(["1", "2steps"]),
        batchnorm=rng.choice(["eval", "eval", "train"]) if model in ("allcnn", "resnet18") else "eval",
        probe=("train",),
        precision=rng.choice(["fp32", "bf16"]),
        spectrum=rng.choice([None, None, 2]),
        fisher_penalty=rng.choice([None, None, "0.1:2"]) if model in ("mlp", "linear") else None,
        probe_images=6,
        seed=rng.randrange(1000),
    )


def valid(rng: random.Random) -> RunSpecification:
    """The first that is not refused: some choices do not go together."""
    while True:
        made = chosen_at_random(rng)
        if made.batchnorm == "train" and (made.estimator == "exact" or made.spectrum):
            continue
        return made


def test_runs_that_explode_end_or_go_on_as_they_are_told(count, publish, tmp_path):
    rng = random.Random(14)
    tried = exploded = unnamed = stray = unequal = 0
    for number in range(count(short=3, full=300)):
        chosen = valid(rng)
        folder = tmp_path / str(number)
        tried += 1
        try:
            track(chosen, folder / "stop")
            message = ""
        except FloatingPointError as error:
            message = str(error)
        except Exception as error:
            print(chosen, repr(error))
            stray += 1
            continue
        kept = fisherkit.read(folder / "stop" / "run.h5")
        exploded += bool(message)
        unnamed += bool(message) and not ("step" in message and ("layer" in message or "trace" in message))
        if message and not ("step" in message and "layer" in message):
            print(chosen, message)
        try:
            outcome = track(chosen.model_copy(update={"on_nonfinite": "continue"}), folder / "continue")
        except Exception as error:
            print(chosen, repr(error))
            stray += 1
            continue
        whole = outcome.trajectory
        stray += not (outcome.finished and bool(whole.attributes.get("exploded")) == bool(message))
        rest = whole.rows(0, len(kept)) if message else whole
        differing = rest.differences(kept, ignore=("elapsed_s", *OF_THE_ENDING))
        differing = [text for text in differing if "only in the first" not in text]  # came in later rows
        if differing:
            print(chosen, differing)
        unequal += bool(differing)
    publish(
        "14 numbers that go wrong",
        f"{tried:,} runs at learning rates from 100 to 1e30, stopping and going on: {exploded:,} exploded, "
        f"{unnamed:,} without step and layer, {stray:,} stray errors, {unequal:,} with other rows than those recorded",
    )
    assert (unnamed, stray, unequal) == (0, 0, 0)
    assert exploded > 0
