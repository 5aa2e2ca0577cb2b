"""The same numbers as other libraries on common ground, and their known faults as regression tests."""

import pytest
import torch
from cases import BY_NAME
from torch import nn

from fisherkit.fisher import fisher_trace
from fisherkit.fisher.backpack_engine import backpack
from fisherkit.fisher.layers import trainable_layers
from fisherkit.fisher.undisturbed import undisturbed
from fisherkit.fisher.vectors import Vectors

LABELS = torch.tensor([0, 2, 1, 1, 0])


def sequential() -> tuple[nn.Sequential, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Sigmoid(), nn.Flatten(), nn.Linear(27, 3)]
        return nn.Sequential(*layers).double().eval(), torch.randn(5, 2, 5, 5, dtype=torch.float64)


def by_layer(model, values):
    return {name: sum(float(values(p)) for p in layer.parameters()) for name, layer in model.named_children()}


def compare(result, expected):
    for layer in result.layers:
        assert result[layer] == pytest.approx(expected[layer], rel=1e-10), layer


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exact_equals_backpacks_exact_ggn_diagonal():
    from backpack import backpack as context
    from backpack import extend
    from backpack.extensions import DiagGGNExact

    model, x = sequential()
    result = fisher_trace(model, x, estimator="exact")
    extended, loss = extend(model), extend(nn.CrossEntropyLoss(reduction="sum"))
    with context(DiagGGNExact()):
        loss(extended(x), LABELS).backward()
    compare(result, by_layer(model, lambda p: p.diag_ggn_exact.sum() / 5))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_empirical_equals_backpacks_sum_of_squared_gradients():
    from backpack import backpack as context
    from backpack import extend
    from backpack.extensions import SumGradSquared

    model, x = sequential()
    result = fisher_trace(model, x, LABELS, estimator="empirical")
    extended, loss = extend(model), extend(nn.CrossEntropyLoss(reduction="sum"))
    with context(SumGradSquared()):
        loss(extended(x), LABELS).backward()
    compare(result, by_layer(model, lambda p: p.sum_grad_squared.sum() / 5))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_equals_curvlinops(kind: str):
    """The trace of the whole operator, from its dense matrix; curvlinops averages over images."""
    from curvlinops import EFLinearOperator, GGNLinearOperator

    model, x = sequential()
    operator = {"exact": GGNLinearOperator, "empirical": EFLinearOperator}[kind]
    parameters = list(model.parameters())
    matrix = operator(model, nn.CrossEntropyLoss(), parameters, [(x, LABELS)], check_deterministic=False)
    dense = matrix @ torch.eye(matrix.shape[0], dtype=torch.float64)
    result = fisher_trace(model, x, LABELS, estimator=kind)
    assert result.total == pytest.approx(float(dense.detach().trace()), rel=1e-10)


@pytest.mark.parametrize("estimator", ["sampled", "propagated"])
def test_all_per_image_engines_agree_draw_by_draw(estimator: str):
    """One seed gives every engine the same vectors; a second draw needs no second model."""
    model, x = BY_NAME["residual"].build()
    options = dict(estimator=estimator, draws=3, seed=4)
    ghost = fisher_trace(model, x, engine="ghost", **options)
    for engine in ("vmap", "backpack"):
        other = fisher_trace(model, x, engine=engine, **options)
        assert other.trace == pytest.approx(ghost.trace, rel=1e-10)
        assert other.stderr == pytest.approx(ghost.stderr, rel=1e-9)
        assert other.stderr_draws == pytest.approx(ghost.stderr_draws, rel=1e-9)


def test_backpack_works_on_a_copy_and_leaves_inplace_flags_alone():
    model, x = BY_NAME["residual_in_place"].build()
    model.in_place = False  # `out += x` is refused elsewhere; the in-place ReLU module is copied without
    assert model.relu.inplace
    reference = fisher_trace(model, x, estimator="exact", engine="ghost")
    result = fisher_trace(model, x, estimator="exact", engine="backpack")
    assert model.relu.inplace
    assert result.trace == pytest.approx(reference.trace, rel=1e-10)
    assert not any(hasattr(p, "batch_l2") for p in model.parameters())


def test_a_model_that_cannot_be_copied_is_refused_by_backpack_alone():
    model, x = BY_NAME["mlp"].build()
    model.last = model(x)  # a tensor with a history, as a forward that caches leaves behind
    with pytest.raises(ValueError, match=r"works on a copy of the model, which cannot be made.*engine='ghost'"):
        fisher_trace(model, x, engine="backpack")
    assert fisher_trace(model, x, engine="ghost").total > 0


@pytest.mark.parametrize("name", ["conv2d_grouped", "conv2d_reflect", "tied_weights"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_backpack_is_still_wrong_where_it_is_refused(name: str):
    """When this fails, BackPACK has been mended and the refusal can go."""
    model, x = BY_NAME[name].build()
    z = model(x)
    v = torch.randn_like(z)
    with undisturbed(model):
        try:
            values = backpack(model, x, lambda _: Vectors(1, lambda _: v), trainable_layers(model))
        except (ValueError, NotImplementedError):
            return
    from reference import given_per_image

    right = given_per_image(model.eval(), x, v)
    assert any(not torch.allclose(values[layer][0], right[layer], rtol=1e-3) for layer in right)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_reduction_has_no_say(reduction: str):
    """The trap of summing gradients of a mean loss: batches of 2, 2 and 1 give the same number as one of 5."""
    model, x = BY_NAME["mlp"].build()
    squares = []
    for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4), slice(4, 5)):
        loss = nn.functional.cross_entropy(model(x[rows]), LABELS[rows], reduction=reduction)
        squares.append(sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(model.parameters()))))
    for size in (1, 2, 5):
        result = fisher_trace(model, x, LABELS, estimator="empirical", batch_size=size)
        assert result.total == pytest.approx(sum(squares) / 5, rel=1e-10)


def test_many_classes_need_no_copies_of_the_outputs():
    """1,000 classes: the columns are made one at a time, and C - 1 of them are enough."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = nn.Linear(3, 1000).double(), torch.randn(4, 3, dtype=torch.float64)
    p = torch.softmax(model(x), 1).detach()
    hessian_trace = (p * (1 - p)).sum(1)
    expected = float((hessian_trace * (1 + x.square().sum(1))).mean())
    assert fisher_trace(model, x, estimator="exact").total == pytest.approx(expected, rel=1e-10)
