"""The loop: equal to a plain PyTorch loop to the bit, and what it reports."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_cases import assert_same_weights, conv_net, dropout_net, image_set, linear_net, numbers, training

from fisherkit.conditions import Conditions, Deficit, Windowed
from fisherkit.images import ImageSet
from fisherkit.training import NonFiniteLossError, StepReport, Training, TrainingOptions, derive_seed, epoch_order


def plain_loop(model: nn.Module, optimizer: torch.optim.Optimizer, *, epochs: int, decay: float) -> Iterator[float]:
    """What everybody writes by hand: batches of 8 from 42 images, exponential learning rate."""
    images, base = image_set(42), optimizer.param_groups[0]["lr"]
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = base * decay**epoch
        for indices in epoch_order(42, seed=5, epoch=epoch).split(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.normalised(indices)), images.labels[indices])
            loss.backward()
            optimizer.step()
            yield float(loss.detach())


OPTIMIZERS: dict[str, tuple[dict[str, Any], Any]] = {
    "sgd": (
        {"optimizer": "sgd", "momentum": 0.9},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "sgd without momentum": ({"momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01)),
    "adam": ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("make_model", [linear_net, conv_net])
def test_training_equals_a_plain_loop_to_the_bit(name: str, make_model: Any) -> None:
    options, make_optimizer = OPTIMIZERS[name]
    made = training(
        make_model,
        images=42,
        conditions={"weight_decay": ["0.01"]},
        epochs=3,
        lr=0.1,
        lr_schedule="exponential(0.9)",
        seed=5,
        channels_last=False,
        **options,
    )
    model = make_model(0)
    reports = list(made.epochs())
    losses = list(plain_loop(model, make_optimizer(list(model.parameters())), epochs=3, decay=0.9))
    assert_same_weights(made.model, model)
    assert len(losses) == 3 * 6
    sizes = [8] * 5 + [2]
    for report in reports:
        mine = losses[6 * report.epoch : 6 * report.epoch + 6]
        assert report.train_loss == pytest.approx(sum(map(float.__mul__, mine, map(float, sizes))) / 42, rel=1e-12)


def test_reports_hold_what_happened() -> None:
    conditions = {"weight_decay": ["0.01:0-1"], "deficits": ["flip:1-"], "fraction": ["0.5:1-"]}
    made = training(linear_net, conditions=conditions, lr=0.1, lr_schedule="step(0.5,1)", epochs=2)
    first, second = made.epochs()
    assert (first.epoch, first.step, first.images, first.lr, first.weight_decay) == (0, 5, 40, 0.1, 0.01)
    assert (second.epoch, second.step, second.images, second.lr, second.weight_decay) == (1, 8, 20, 0.05, 0.0)
    assert second.conditions == made.conditions.at(1)
    assert 0 < first.elapsed_s < second.elapsed_s == made.elapsed_s
    with torch.no_grad():
        logits = made.model(made.test_images.normalised())
    assert second.test_accuracy == float((logits.argmax(1) == made.test_images.labels).double().mean())
    expected = F.cross_entropy(logits.double(), made.test_images.labels)
    assert second.test_loss == pytest.approx(float(expected), rel=1e-6)


def test_training_accuracy_counts_the_answers_before_each_step() -> None:
    made = training(linear_net, epochs=1, seed=3)
    model, right = linear_net(), 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images = made.train_images
    for indices in epoch_order(40, seed=3, epoch=0).split(8):
        logits = model(images.normalised(indices))
        right += int((logits.argmax(1) == images.labels[indices]).sum())
        optimizer.zero_grad()
        F.cross_entropy(logits, images.labels[indices]).backward()
        optimizer.step()
    (report,) = made.epochs()
    assert report.train_accuracy == right / 40


def test_training_learns() -> None:
    reports = list(training(linear_net, epochs=12, lr=0.02).epochs())
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    assert reports[-1].test_accuracy > 0.9


def test_steps_count_and_state_is_in_the_training_at_every_yield() -> None:
    made = training(linear_net)
    seen = []
    for step in made.steps():
        seen.append((step.epoch, step.step, step.step_in_epoch, step.steps_in_epoch, step.report is not None))
        ended = step.report is not None
        assert (made.step, made.epoch) == (step.step, step.epoch + ended)
        assert made.step_in_epoch == (0 if ended else step.step_in_epoch)
    assert seen == [(k // 5, k + 1, k % 5 + 1, 5, k % 5 == 4) for k in range(10)]
    assert list(made.steps()) == []


def test_steps_and_epochs_train_alike_and_can_be_mixed() -> None:
    by_steps, by_epochs, mixed = (training(dropout_net) for _ in range(3))
    reports = [step.report for step in by_steps.steps() if step.report is not None]
    for _ in range(3):
        next(mixed.steps())
    mixed_reports = list(mixed.epochs())
    epoch_reports = list(by_epochs.epochs())
    assert_same_weights(by_steps.model, by_epochs.model)
    assert_same_weights(mixed.model, by_epochs.model)
    assert list(map(numbers, reports)) == list(map(numbers, epoch_reports)) == list(map(numbers, mixed_reports))


def test_what_a_consumer_does_between_steps_changes_nothing() -> None:
    quiet, disturbed = (training(dropout_net, conditions={"deficits": ["noise:1-"]}) for _ in range(2))
    list(quiet.steps())
    for step in disturbed.steps():
        torch.manual_seed(step.step)
        torch.rand(17)
        disturbed.model.eval()
        disturbed.model(disturbed.test_images.normalised())
        for parameter in disturbed.model.parameters():
            parameter.grad = torch.ones_like(parameter)
    assert_same_weights(quiet.model, disturbed.model)


def test_training_works_in_a_consumer_without_gradients() -> None:
    with torch.no_grad():
        made = training(linear_net)
        list(made.steps())
    reference = training(linear_net)
    list(reference.steps())
    assert_same_weights(made.model, reference.model)


def test_global_random_numbers_are_untouched() -> None:
    conditions = {
        "deficits": ["noise:0-1", "shuffle"],
        "augment": ["crop+flip"],
        "fraction": ["0.5:1-"],
        "events": ["shrink_perturb:1"],
    }
    before = torch.get_rng_state()
    made = training(dropout_net, conditions=conditions)
    list(made.steps())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_decides_order_augmentation_and_dropout() -> None:
    same, again, other = (training(dropout_net, conditions={"augment": ["crop+flip"]}, seed=seed) for seed in (0, 0, 1))
    for made in (same, again, other):
        list(made.steps())
    assert_same_weights(same.model, again.model)
    assert not torch.equal(same.model[0].weight, other.model[0].weight)


def test_modules_put_into_evaluation_mode_by_the_user_stay_there() -> None:
    made = training(conv_net)
    made.model[1].eval()
    list(made.steps())
    assert made.model.training
    assert not made.model[1].training
    assert torch.equal(made.model[1].running_mean, torch.zeros(4))


# conditions


def trained_images(made: Training) -> list[int]:
    """The images of the current epoch, in order."""
    return made._start_epoch().order.tolist()


def test_deficits_and_augmentation_leave_the_order_alone() -> None:
    plain = training(linear_net)
    deficient = training(linear_net, conditions={"deficits": ["noise", "permute"], "augment": ["crop+flip"]})
    assert trained_images(plain) == trained_images(deficient)


def test_a_fraction_keeps_the_order_of_its_images() -> None:
    whole, half = trained_images(training()), trained_images(training(conditions={"fraction": ["0.5"]}))
    assert half == [image for image in whole if image in set(half)]
    assert len(half) == 20


def test_the_network_sees_the_images_under_the_deficit_and_is_tested_on_clean_ones() -> None:
    made = training(linear_net, conditions={"deficits": ["blur(2)", "permute"]}, seed=9)
    clean, seed = made.train_images, derive_seed(9, "deficits")
    expected = clean
    for deficit in made.conditions.all_deficits():
        expected = deficit.apply(expected, seed=seed)
    batches = made._start_epoch()
    indices = batches.order[8:16]
    inputs, labels = batches.batch(1)
    assert torch.equal(inputs, expected.normalised(indices))
    assert torch.equal(labels, expected.labels[indices])
    assert not torch.equal(labels, clean.labels[indices])
    assert torch.equal(made.test_images.images, image_set(30, seed=1).images)


@dataclass(frozen=True)
class Counted(Deficit):
    """Inverts the images, and counts how often it is asked to."""

    calls: ClassVar[list[int]] = []
    name = "counted"

    def apply(self, images: ImageSet, *, seed: int, epoch: int = 0) -> ImageSet:
        self.calls.append(len(images))
        return replace(images, images=255 - images.images)


@dataclass(frozen=True)
class CountedNoise(Counted):
    """Another set of images every epoch."""

    redrawn = True
    name = "counted_noise"


@pytest.mark.parametrize(("deficit", "times"), [(Counted(), 1), (CountedNoise(), 4)], ids=["fixed", "redrawn"])
def test_a_deficit_is_computed_once_and_a_redrawn_one_once_per_epoch(deficit: Counted, times: int) -> None:
    conditions = Conditions(deficits=(Windowed(deficit),))
    made = Training(linear_net(), image_set(), image_set(9), TrainingOptions(epochs=4, batch_size=8), conditions)
    deficit.calls.clear()
    list(made.steps())
    assert deficit.calls == [40] * times


def test_weight_decay_follows_its_windows() -> None:
    made = training(linear_net, conditions={"weight_decay": ["0.5:1-2"]}, epochs=3)
    seen = [(step.epoch, made.optimizer.param_groups[0]["weight_decay"]) for step in made.steps()]
    assert set(seen) == {(0, 0.0), (1, 0.5), (2, 0.0)}


def test_noise_drops_augmentation() -> None:
    made = training(conditions={"augment": ["crop+flip"], "deficits": ["noise:0-1"]})
    assert made._start_epoch().draws is None
    made.epoch = 1
    assert made._start_epoch().draws is not None


def test_shrink_perturb_mixes_in_a_fresh_network_at_the_start_of_its_epoch() -> None:
    made = training(conv_net, conditions={"events": ["shrink_perturb(0.5,0.25):1"]}, seed=4)
    next(made.epochs())
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made._start_epoch()
    fresh = conv_net(derive_seed(4, "perturb", 1))
    for name, parameter in made.model.named_parameters():
        expected = 0.5 * before[name] + 0.25 * fresh.get_parameter(name)
        assert torch.allclose(parameter, expected, rtol=1e-6, atol=0)
    assert torch.equal(made.model[1].running_mean, torch.zeros(4))
    assert not made.optimizer.state


def test_arms_that_agree_up_to_an_epoch_share_it_and_branch_from_its_state() -> None:
    trunk = training(dropout_net, conditions={"deficits": ["blur(2)"], "augment": ["crop+flip"]}, epochs=3)
    next(trunk.epochs())
    arm = {"deficits": ["blur(2):0-1"], "augment": ["crop+flip"], "events": ["lr_restart:1"]}
    branch, separate = (training(dropout_net, conditions=arm, epochs=3, model_seed=seed) for seed in (7, 0))
    branch.load_state_dict(trunk.state_dict())
    later, reports = list(branch.epochs()), list(separate.epochs())
    assert_same_weights(branch.model, separate.model)
    assert list(map(numbers, later)) == list(map(numbers, reports[1:]))


# precision and layout


def test_channels_last_changes_layout_and_no_more_than_rounding() -> None:
    last, first = (training(conv_net, channels_last=channels_last) for channels_last in (True, False))
    weight = last.model[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    list(last.steps())
    list(first.steps())
    assert last.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(weight, first.model[0].weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("net", "laid_out"), [(conv_net, True), (linear_net, False)])
def test_images_are_channels_last_only_for_a_model_with_convolutions(
    net: Callable[[int], nn.Module], laid_out: bool
) -> None:
    seen = []

    def with_a_witness(seed: int) -> nn.Module:
        model = net(seed)
        model.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        return model

    list(training(with_a_witness, epochs=1, refresh_batchnorm=True).steps())
    assert len(seen) == 5 + 5 + 1  # steps, batch-norm statistics, evaluation
    assert set(seen) == {laid_out}


def test_channels_last_takes_a_model_with_five_dimensional_parameters() -> None:
    class WithVolume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.volume, self.net = nn.Conv3d(3, 3, 1), linear_net()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(self.volume(images.unsqueeze(2)).squeeze(2))

    (report, _) = training(lambda seed: WithVolume()).epochs()
    assert report.train_loss > 0


def test_bf16_trains_under_autocast_with_parameters_in_fp32() -> None:
    low, full = (training(conv_net, precision=precision, epochs=8) for precision in ("bf16", "fp32"))
    seen = []
    low.model[6].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    low_reports, full_reports = list(low.epochs()), list(full.epochs())
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}
    assert low_reports[-1].train_loss != full_reports[-1].train_loss
    assert low_reports[-1].train_loss == pytest.approx(full_reports[-1].train_loss, rel=0.1)


def test_fp32_stays_fp32_inside_the_consumers_autocast() -> None:
    made, reference = training(conv_net), training(conv_net)
    list(reference.steps())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        list(made.steps())
    assert_same_weights(made.model, reference.model)


# what goes wrong


class Failing(nn.Module):
    """A network whose logits become NaN at the given training step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.net, self.step, self.calls = linear_net(), step, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += self.training
        return self.net(images) * (float("nan") if self.training and self.calls == self.step else 1.0)


@pytest.mark.parametrize(("step", "epoch"), [(1, 0), (3, 0), (5, 0), (8, 1)])
def test_a_non_finite_loss_names_the_first_step_it_appeared_in(step: int, epoch: int) -> None:
    made = training(lambda seed: Failing(step), lr=0.25, lr_schedule="step(0.5,1)")
    rate = {0: "0.25", 1: "0.125"}[epoch]
    message = f"training loss became infinite or NaN at step {step}, in epoch {epoch + 1}. .* {rate}: try a lower lr"
    seen: list[StepReport] = []
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        seen.extend(made.steps())
    assert (caught.value.epoch, caught.value.step) == (epoch, step)
    assert made.epoch == epoch
    with pytest.raises(FloatingPointError, match=message):
        next(made.steps())


def test_a_learning_rate_far_too_high_is_reported() -> None:
    with pytest.raises(NonFiniteLossError, match="loss became infinite or NaN at step 2, in epoch 1"):
        list(training(linear_net, lr=1e30).steps())


class Wide(nn.Module):
    """As many logits as asked for."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape, self.scale = shape, nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * torch.ones(len(images), *self.shape)


@pytest.mark.parametrize("shape", [(5,), (2,), (), (3, 4)], ids=str)
def test_a_model_with_the_wrong_number_of_logits_is_refused(shape: tuple[int, ...]) -> None:
    made = training(lambda seed: Wide(*shape))
    with pytest.raises(ValueError, match=r"model must give \[images, 3\] logits for the 3 classes of tiny; got shape"):
        next(made.steps())


def test_a_model_that_gives_no_tensor_is_refused() -> None:
    class Pair(Wide):
        def forward(self, images: Tensor) -> Any:
            return images, super().forward(images)

    with pytest.raises(ValueError, match=r"model must give \[images, 3\] logits .*; got a tuple"):
        next(training(lambda seed: Pair(3)).steps())


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="model must have a parameter with requires_grad=True"):
        training(lambda seed: nn.Flatten())


def test_frozen_parameters_stay_as_they_are() -> None:
    def half_frozen(seed: int) -> nn.Module:
        model = linear_net(seed)
        model[1].requires_grad_(False)
        return model

    made = training(half_frozen, conditions={"weight_decay": ["0.1"]})
    list(made.steps())
    assert torch.equal(made.model[1].weight, linear_net()[1].weight)
    assert not torch.equal(made.model[3].weight, linear_net()[3].weight)


def test_shrink_perturb_needs_a_maker_of_fresh_models() -> None:
    conditions = Conditions.parse(events=["shrink_perturb:1"])
    with pytest.raises(ValueError, match=r"fresh_model must be given for the event 'shrink_perturb.*:1'; got None"):
        Training(linear_net(), image_set(), image_set(9), TrainingOptions(epochs=2), conditions)


def test_an_event_after_the_end_is_refused() -> None:
    with pytest.raises(
        ValueError, match="event 'lr_restart:2' must be at an epoch before the end of training, epoch 2"
    ):
        training(conditions={"events": ["lr_restart:2"]})


def test_a_deficit_that_cannot_be_applied_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="grayscale must have images of 3 channels"):
        Training(
            linear_net(),
            image_set(channels=1),
            image_set(9, channels=1),
            TrainingOptions(epochs=2),
            Conditions.parse(deficits=["grayscale:1-"]),
        )


@pytest.mark.parametrize(
    ("test_images", "message"),
    [
        (image_set(9, size=12), "test must have the image shape of train"),
        (replace(image_set(9), classes=("a", "b", "c")), "test must have the classes of train"),
        (replace(image_set(9), std=(0.1, 0.2, 0.3)), "test must have the mean and std of train"),
    ],
    ids=["shape", "classes", "normalisation"],
)
def test_test_images_of_another_kind_are_refused(test_images: ImageSet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(linear_net(), image_set(), test_images, TrainingOptions(epochs=2), Conditions())
