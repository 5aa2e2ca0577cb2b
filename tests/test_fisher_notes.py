"""What a result says where its numbers would mislead: certain predictions, a softmax too many, an error not reached."""

import re

import pytest
import torch
from torch import nn

from fisherkit.fisher import fisher_spectrum, fisher_trace, fisher_traces

IMAGES = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3


def linear(scale: float = 1.0, *, bias: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.mul_(scale)
        model[0].bias.copy_(torch.tensor([bias, 0.0, 0.0]))
    return model


@pytest.mark.parametrize("estimator", ["propagated", "exact"])
def test_certain_predictions_are_the_reason_for_a_trace_of_zero(estimator: str):
    result = fisher_trace(linear(1e30), IMAGES, estimator=estimator)
    assert result.total == 0
    assert [note for note in result.notes if "every probability is 0 or 1 at this precision" in note]
    assert not [note for note in result.notes if "do not depend on" in note]
    assert "nan" not in str(result)


def test_so_they_are_under_a_sigmoid_and_for_labels_that_are_met():
    model = linear(1e30)
    assert "every prediction is certain" in fisher_trace(model, IMAGES, loss="binary_cross_entropy").notes[0]
    met = model(IMAGES).argmax(1)
    assert "every prediction is certain" in fisher_trace(model, IMAGES, met, estimator="empirical").notes[0]


def test_scores_at_drawn_labels_vanish_earlier():
    """q = 1 - max p is about exp(-60): its square, that of the score, is 0 in float32."""
    sampled = fisher_trace(linear(0.0, bias=60.0), IMAGES, estimator="sampled")
    assert sampled.total == 0
    assert [note for note in sampled.notes if "every prediction is certain" in note]
    assert fisher_trace(linear(0.0, bias=60.0), IMAGES).total > 0


def test_weights_that_are_zero_are_still_the_reason_where_predictions_are_open():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3, bias=False).requires_grad_(False))
    nn.init.zeros_(model[1].weight)
    assert "do not depend on 0, or only through weights that are zero" in fisher_trace(model, IMAGES).notes[0]


def test_a_spectrum_of_zeros_names_the_possible_reasons():
    notes = fisher_spectrum(linear(1e30), IMAGES).notes
    assert [note for note in notes if "every prediction is certain" in note]
    assert not [note for note in notes if note.startswith("the outputs do not depend on")]


@pytest.mark.parametrize("estimator", ["propagated", "exact", "empirical"])
def test_labels_that_all_are_ignored_are_refused(estimator: str):
    with pytest.raises(ValueError, match=r"labels must leave at least one position that counts; .* all ignore_index"):
        fisher_trace(linear(), IMAGES, torch.full((30,), -100), estimator=estimator)


def test_a_batch_of_ignored_labels_beside_others_is_measured():
    labels = torch.cat([torch.full((20,), -100), LABELS[:10]])
    found = fisher_traces(linear(), IMAGES, labels, batch_size=10)
    assert all(result.total > 0 for result in found.values())


PROBABILITIES = r"the outputs look like probabilities.*return logits, without a softmax"


@pytest.mark.parametrize("measured", [fisher_trace, fisher_spectrum])
def test_a_softmax_at_the_end_is_noted(measured):
    found = measured(nn.Sequential(linear(), nn.Softmax(-1)), IMAGES)
    assert [note for note in found.notes if re.match(PROBABILITIES, note)]


def test_a_softmax_over_the_channels_of_an_image_is_noted():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Softmax(1))
    images = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    notes = fisher_trace(model, images, loss="pixel_cross_entropy").notes
    assert [note for note in notes if re.match(PROBABILITIES, note)]


@pytest.mark.parametrize(
    ("end", "loss"),
    [
        (nn.Identity(), "cross_entropy"),
        (nn.Sigmoid(), "cross_entropy"),
        (nn.LogSoftmax(-1), "cross_entropy"),
        (nn.Softmax(-1), "squared_error"),
    ],
)
def test_other_outputs_are_not(end: nn.Module, loss: str):
    notes = fisher_trace(nn.Sequential(linear(), end), IMAGES, loss=loss).notes
    assert not [note for note in notes if "probabilities" in note]


def missed(**options) -> list[str]:
    return [note for note in fisher_trace(linear(), IMAGES, **options).notes if note.startswith("rel_se")]


def test_a_standard_error_that_was_not_reached_is_noted_with_what_was():
    result = fisher_trace(linear(), IMAGES, rel_se=0.001)
    (note,) = missed(rel_se=0.001)
    assert "the relative standard error of the total is" in note
    assert f"{result.total_stderr / result.total:.2g} after 30 images" in note
    assert note.endswith("Give more images, or more draws.")
    (note,) = missed(rel_se=0.001, estimator="exact")
    assert note.endswith("Give more images.")
    (note,) = missed(rel_se=0.001, max_images=1)
    assert "of the total is inf after 1 images" in note
    assert missed() == missed(rel_se=0.9) == []


def test_a_layer_that_was_not_reached_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    plain = fisher_trace(model, IMAGES)
    relative = dict(zip(plain.layers, plain.stderr / plain.trace, strict=True))
    worst = max(relative, key=lambda name: relative[name])
    total = plain.total_stderr / plain.total
    assert relative[worst] > total
    between = (relative[worst] + max(total, *(r for name, r in relative.items() if name != worst))) / 2
    notes = fisher_trace(model, IMAGES, rel_se=between, rel_se_above=0.01).notes
    assert [note for note in notes if f"standard error of layer {worst!r} is {relative[worst]:.2g}" in note]
    assert not [note for note in fisher_trace(model, IMAGES, rel_se=between).notes if note.startswith("rel_se")]
