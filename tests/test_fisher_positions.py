"""Losses over positions, distributions and square roots, from the model to the trace."""

import pytest
import torch
from reference import jacobians
from torch import distributions as D
from torch import nn

from fisherkit.fisher import fisher_trace, verify
from fisherkit.fisher.losses import LOSSES, CrossEntropy


class Language(nn.Module):
    """Tokens [images, positions] -> logits [images, positions, classes]; position t sees tokens up to t."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, tokens):
        x = self.embed(tokens).cumsum(1)
        return self.head(torch.tanh(self.mix(x)))


def language():
    torch.manual_seed(0)
    return Language().double().eval(), torch.randint(0, 5, (3, 4))


def segmentation():
    """Images [images, 2, 3, 2] -> logits [images, 3 classes, 3, 2]."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1))
    return model.double().eval(), torch.randn(3, 2, 3, 2, dtype=torch.float64)


def regression():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return model.double().eval(), torch.randn(4, 3, dtype=torch.float64)


BUILT = {
    "token_cross_entropy": language,
    "next_token_cross_entropy": language,
    "pixel_cross_entropy": segmentation,
    "binary_cross_entropy": segmentation,
    "squared_error": segmentation,
    "cross_entropy": regression,
}


def classes_rows(name: str, z):
    """Indices [positions, classes] into one image's flattened outputs z, of the positions that predict something."""
    where = torch.arange(z.numel()).reshape(z.shape)
    if name in ("cross_entropy", "pixel_cross_entropy"):
        return where.reshape(len(z), -1).T
    return where.reshape(-1, z.shape[-1])[: -1 if name == "next_token_cross_entropy" else None]


def dense(name: str, model, inputs, counts=None):
    """Mean over images of the sum over positions of tr(J_t^T (diag(p) - p p^T) J_t), by layer."""
    total = {}
    for i in range(len(inputs)):
        z = model(inputs[i : i + 1])[0].detach()
        for layer, j in jacobians(model, inputs, i).items():
            for t, rows in enumerate(classes_rows(name, z)):
                if counts is None or counts[i][t]:
                    p = torch.softmax(z.reshape(-1)[rows], 0)
                    value = torch.einsum("kp,kl,lp->", j[rows], torch.diag(p) - torch.outer(p, p), j[rows])
                    total[layer] = total.get(layer, 0.0) + float(value) / len(inputs)
    return total


CATEGORICAL = [name for name in BUILT if name.endswith("cross_entropy") and name != "binary_cross_entropy"]


@pytest.mark.parametrize("name", CATEGORICAL)
@pytest.mark.parametrize("engine", ["auto", "vmap"])
def test_exact_traces_are_sums_over_positions(name: str, engine: str):
    model, inputs = BUILT[name]()
    result = fisher_trace(model, inputs, loss=name, estimator="exact", engine=engine, batch_size=2)
    for layer, value in dense(name, model, inputs).items():
        assert result[layer] == pytest.approx(value, rel=1e-10)
    assert result.loss == name


@pytest.mark.parametrize("name", CATEGORICAL)
@pytest.mark.parametrize("estimator", ["propagated", "sampled"])
def test_drawn_traces_agree_with_exact_ones(name: str, estimator: str):
    model, inputs = BUILT[name]()
    result = fisher_trace(model, inputs, loss=name, estimator=estimator, engine="ghost", draws=200, batch_size=2)
    exact = sum(dense(name, model, inputs).values())
    assert abs(result.total - exact) < 4 * result.total_stderr_draws
    assert result.total_stderr_draws < 0.2 * exact


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_verify_enumerates_the_outcomes_of_every_named_loss(loss):
    model, inputs = BUILT[loss.name]()
    result = verify(model, inputs, loss=loss.name)
    assert result.passed
    assert {row.layer for row in result.rows} == {
        name for name, m in model.named_modules() if list(m.parameters(False))
    }


def test_verify_says_which_losses_it_enumerates():
    with pytest.raises(
        ValueError, match=r"loss must be one of cross_entropy, .*got <lambda>.*'squared_error' fits any"
    ):
        verify(*regression(), loss=lambda z: D.Normal(z, 1.0))


@pytest.mark.parametrize("estimator", ["exact", "propagated", "sampled"])
def test_ignored_labels_leave_their_positions_out_of_the_true_fisher(estimator: str):
    model, tokens = language()
    labels = tokens.clone()
    labels[0, 1:3], labels[1] = -100, -100  # the second image has no position that counts, and adds zero
    counts = [[True, False, False, True], [False] * 4, [True] * 4]
    draws = 1 if estimator == "exact" else 200
    result = fisher_trace(
        model, tokens, labels, loss="token_cross_entropy", estimator=estimator, draws=draws, batch_size=2
    )
    expected = dense("token_cross_entropy", model, tokens, counts)
    if estimator == "exact":
        for layer, value in expected.items():
            assert result[layer] == pytest.approx(value, rel=1e-10)
    else:
        assert abs(result.total - sum(expected.values())) < 4 * result.total_stderr_draws
    padding = fisher_trace(
        model,
        tokens,
        labels.masked_fill(labels == -100, 4),
        loss=CrossEntropy("token_cross_entropy", ignore_index=4),
        estimator="exact",
    )
    counts = (labels != -100) & (labels != 4)
    for layer, value in dense("token_cross_entropy", model, tokens, counts.tolist()).items():
        assert padding[layer] == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("name", CATEGORICAL)
def test_empirical_traces_are_squared_gradients_of_the_summed_loss(name: str):
    """The gradient of an image's summed loss, not the sum of squared gradients of its positions."""
    model, inputs = BUILT[name]()
    shape = model(inputs).movedim(-1 if "token" in name else 1, -1).shape[:-1]
    labels = torch.randint(0, 2, shape)
    result = fisher_trace(model, inputs, labels, loss=name, estimator="empirical")
    total = 0.0
    for i in range(len(inputs)):
        z = model(inputs[i : i + 1])
        if name == "next_token_cross_entropy":
            loss = nn.functional.cross_entropy(z[0, :-1], labels[i, 1:], reduction="sum")
        elif name == "token_cross_entropy":
            loss = nn.functional.cross_entropy(z[0], labels[i], reduction="sum")
        else:
            loss = nn.functional.cross_entropy(z, labels[i : i + 1], reduction="sum")
        grads = torch.autograd.grad(loss, list(model.parameters()))
        total += sum(float(grad.square().sum()) for grad in grads) / len(inputs)
    assert result.total == pytest.approx(total, rel=1e-10)


def test_dictionaries_of_tokens_bring_their_labels():
    model, tokens = language()

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids):
            return self.inner(input_ids)

    labels = tokens.clone()
    labels[:, -1] = -100
    whole = fisher_trace(
        Named(), {"input_ids": tokens, "labels": labels}, loss="next_token_cross_entropy", estimator="exact"
    )
    counts = [[True, True, False]] * 3
    assert whole.total == pytest.approx(sum(dense("next_token_cross_entropy", model, tokens, counts).values()))


def test_torch_losses_are_the_named_ones():
    for build, module, name in (
        (regression, nn.CrossEntropyLoss(), "cross_entropy"),
        (segmentation, nn.CrossEntropyLoss(reduction="sum"), "pixel_cross_entropy"),
        (segmentation, nn.BCEWithLogitsLoss(), "binary_cross_entropy"),
    ):
        model, inputs = build()
        assert fisher_trace(model, inputs, loss=module).total == fisher_trace(model, inputs, loss=name).total


def gaussian(z):
    return D.Normal(z[:, 0], z[:, 1].exp())


def gaussian_root(z):
    """The Fisher of N(z_0, exp(z_1)^2) in z is diag(exp(-2 z_1), 2)."""
    return torch.diag_embed(torch.stack([(-z[:, 1]).exp(), torch.full_like(z[:, 1], 2**0.5)], 1))


def test_a_distribution_and_its_square_root_have_the_same_trace():
    model, inputs = regression()
    expected = dict.fromkeys(("0", "2"), 0.0)
    for i in range(len(inputs)):
        h = gaussian_root(model(inputs[i : i + 1])).detach()[0] ** 2
        for layer, j in jacobians(model, inputs, i).items():
            expected[layer] += float(torch.einsum("kp,kl,lp->", j, h, j)) / len(inputs)
    for loss in (gaussian, gaussian_root):
        exact = fisher_trace(model, inputs, loss=loss, estimator="exact", batch_size=3)
        assert exact.loss == loss.__name__
        for layer, value in expected.items():
            assert exact[layer] == pytest.approx(value, rel=1e-10)
        drawn = fisher_trace(model, inputs, loss=loss, draws=150)
        assert abs(drawn.total - exact.total) < 4 * drawn.total_stderr_draws
    sampled = fisher_trace(model, inputs, loss=gaussian, estimator="sampled", draws=150, batch_size=3)
    assert abs(sampled.total - exact.total) < 4 * sampled.total_stderr_draws
    assert sampled.total_stderr_draws < 0.2 * exact.total


def test_sampled_outcomes_do_not_depend_on_how_images_are_cut_into_batches():
    model, inputs = regression()
    one, two = (
        fisher_trace(model, inputs, loss=gaussian, estimator="sampled", engine="ghost", draws=2, batch_size=size)
        for size in (1, 4)
    )
    assert one.total == pytest.approx(two.total, rel=1e-12)


REFUSED = {
    "root_sampled": (regression, gaussian_root, "sampled", "'propagated' or 'exact' for a loss that returns a square"),
    "student_t": (
        regression,
        lambda z: D.StudentT(3.0, z[:, 0], z[:, 1].exp()),
        "propagated",
        "'sampled' or 'empirical' for the distribution StudentT; got 'propagated'",
    ),
    "weights": (regression, nn.CrossEntropyLoss(torch.ones(2)), "propagated", "CrossEntropyLoss(weight=...) is not"),
    "positions": (language, "cross_entropy", "propagated", "loss='token_cross_entropy'"),
}


@pytest.mark.parametrize(("build", "loss", "estimator", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_loss_cannot_do_is_refused(build, loss, estimator: str, message: str):
    model, inputs = build()
    with pytest.raises((ValueError, TypeError)) as refused:
        fisher_trace(model, inputs, loss=loss, estimator=estimator)
    error = refused.value
    while not isinstance(error, ValueError):  # the type checker of the tests makes a vector, and reports in its way
        error = error.__cause__ or error.__context__
    assert message in str(error)
