"""Evaluation, and batch-norm statistics taken anew for it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_cases import assert_same_weights, conv_net, dropout_net, image_set, numbers, same_weights, training

from fisherkit.training import evaluate, refreshed_batchnorm
from fisherkit.training.evaluation import EVALUATION_BATCH


def test_evaluation_is_the_mean_over_all_images_in_evaluation_mode() -> None:
    images = image_set(EVALUATION_BATCH + 7)
    model = dropout_net().train()
    loss, accuracy = evaluate(model, images)
    model.eval()
    with torch.no_grad():
        logits = model(images.normalised())
    assert loss == pytest.approx(float(F.cross_entropy(logits.double(), images.labels)), rel=1e-6)
    assert accuracy == float((logits.argmax(1) == images.labels).double().mean())


def test_evaluation_leaves_flags_buffers_and_gradients_as_they_were() -> None:
    model = conv_net().train()
    model[1].eval()
    before = copy.deepcopy(model)
    evaluate(model, image_set(20))
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    assert_same_weights(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_refreshed_statistics_are_those_of_the_inputs_weighted_by_images() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3))
    model[0].running_mean.fill_(float("inf"))
    inputs = image_set(40).normalised()
    batches = inputs.split(17)  # 17, 17, 6
    with refreshed_batchnorm(model, iter(batches)):
        first = model[0].running_mean.clone(), model[0].running_var.clone()
        second = model[2].running_mean.clone()
    variances = torch.stack([batch.var(dim=(0, 2, 3)) for batch in batches])
    weights = torch.tensor([17.0, 17.0, 6.0]) / 40
    torch.testing.assert_close(first[0], inputs.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first[1], weights @ variances, rtol=1e-5, atol=1e-6)
    # dropout would make it another number: what the first layer gives has mean 0
    torch.testing.assert_close(second, torch.zeros(3), rtol=0, atol=1e-6)


def test_refreshing_puts_everything_back_also_after_an_error() -> None:
    model = conv_net().train()
    model(image_set(20).normalised())
    before, momentum = copy.deepcopy(model), model[1].momentum
    with refreshed_batchnorm(model, [image_set(20, seed=2).normalised()]):
        assert not same_weights(model, before)
    with pytest.raises(RuntimeError, match="size"), refreshed_batchnorm(model, [torch.zeros(2, 5, 8, 8)]):
        pass
    assert_same_weights(model, before)
    assert model[1].momentum == momentum
    assert all(module.training for module in model.modules())


def test_refreshing_changes_the_evaluation_and_not_the_training() -> None:
    conditions = {"deficits": ["noise"], "fraction": ["0.5"]}
    plain, refreshed = (training(dropout_net, conditions=conditions, refresh_batchnorm=on) for on in (False, True))
    plain_reports, refreshed_reports = list(plain.epochs()), list(refreshed.epochs())
    assert_same_weights(plain.model, refreshed.model)
    for report, other in zip(plain_reports, refreshed_reports, strict=True):
        assert report.test_loss != other.test_loss
        test_names = {"test_loss": 0.0, "test_accuracy": 0.0}
        assert {**numbers(report), **test_names} == {**numbers(other), **test_names}


def test_refreshed_evaluation_uses_the_clean_images_of_the_epochs_fraction() -> None:
    made = training(
        conv_net,
        conditions={"deficits": ["noise"], "fraction": ["0.5"], "augment": ["crop+flip"]},
        refresh_batchnorm=True,
        epochs=1,
        batch_size=20,
    )
    used = made._start_epoch().order
    (report,) = made.epochs()
    with refreshed_batchnorm(made.model, [made.train_images.normalised(used)]):
        expected = evaluate(made.model, made.test_images)
    assert (report.test_loss, report.test_accuracy) == pytest.approx(expected, rel=1e-6)
