"""What examples/linear_networks.py claims to know without training, against integration and gradient descent."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

import fisherkit

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("linear_networks")


def integrated(flow, start, stop):
    solution = solve_ivp(flow, (0, stop), start, method="LSODA", rtol=1e-11, atol=1e-14)
    assert solution.success
    return solution.y[:, -1]


@pytest.mark.parametrize("sigma", [1.0, 1.7])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_mode_is_learnt_as_the_flow_says(linear, depth, sigma):
    for time in (0.3, 2.0, 5.0, 9.0):
        (expected,) = integrated(lambda _, s: depth * s ** (2 - 2 / depth) * (sigma - s), [1e-3], time)
        assert linear.learnt(depth, 1e-3, time, sigma) == pytest.approx(expected, rel=1e-7)
        share = linear.learnt(depth, 1e-3, time, sigma) / sigma
        if share < 0.999:
            assert linear.time_to_learn(depth, 1e-3, share, sigma) == pytest.approx(time, rel=1e-10)


@pytest.mark.parametrize("before", [1e-3, 0.1, 0.9])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("size", [3, 6])
def test_error_of_the_hidden_diagonal_is_that_of_the_flow(linear, depth, size, before):
    """All singular values s, the matrix integrated entry by entry, not the two modes of the derivation."""
    off = 1 - np.eye(size)

    def flow(_, flat):
        layers = flat.reshape(depth, size, size)
        total = np.linalg.multi_dot(layers[::-1])
        gradient = off * (total - 1)
        below = [np.linalg.multi_dot([np.eye(size), np.eye(size), *layers[:k][::-1]]) for k in range(depth)]
        above = [np.linalg.multi_dot([np.eye(size), np.eye(size), *layers[k + 1 :][::-1]]) for k in range(depth)]
        return -np.stack([above[k].T @ gradient @ below[k].T for k in range(depth)]).ravel()

    start = np.stack([before ** (1 / depth) * np.eye(size)] * depth).ravel()
    final = np.linalg.multi_dot(integrated(flow, start, 25.0).reshape(depth, size, size)[::-1])
    error = float(np.mean((np.diag(final) - 1) ** 2))
    assert linear.hidden_diagonal_error(depth, before, size) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("depth", [2, 3])
def test_gradient_descent_comes_to_the_closed_form_as_the_steps_shrink(linear, depth):
    """The difference is of first order in the step: half the step, half the difference."""
    end = 4.0 if depth == 2 else 9.6
    known = linear.hidden_diagonal_error(depth, linear.learnt(depth, linear.START, end), 4)
    deficit, task = linear.hidden_diagonal(4)
    weights = linear.small_identity(depth, 4)
    differences = []
    for rate in (0.02, 0.01):
        done = linear.remove(weights, deficit, task, [end], clean=12, rate=rate)
        differences.append(float(task.unobserved_error(linear.product(done.final))) - known)
    assert abs(differences[1]) < 0.02
    assert differences[0] / differences[1] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_step_is_a_step_of_sgd(linear, depth):
    """Layers without structure, two networks at once, against autograd."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(depth, 2, 5, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    observed = (torch.rand(2, 5, 5, generator=generator) < 0.5).double()
    task = linear.Task(target, observed, 0.3)
    expected = weights.clone().requires_grad_()
    (0.3 / 2 * (observed * (linear.product(expected) - target) ** 2).sum()).backward()
    found = linear.descend(weights, task, 0.01, 0.01)
    torch.testing.assert_close(found, (expected - 0.01 * expected.grad).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("onset", [0.0, 2.0, 8.0])
@pytest.mark.parametrize("depth", [2, 3])
def test_share_of_a_pathway_is_that_of_the_flow(linear, depth, onset):
    """The flow of the factors, u^depth = a and v^depth = b, not of a and b as in the derivation."""

    def flow(learning):
        def of(_, factors):
            error = 1 - (factors**depth).sum()
            return learning * factors ** (depth - 1) * error

        return of

    factors = np.full(2, 1e-3 ** (1 / depth))
    for learning, duration in (([1, 1], onset), ([1, 0], 1.5), ([1, 1], 60.0)):
        if duration:
            factors = integrated(flow(np.array(learning)), factors, duration)
    assert linear.share_of_b(depth, onset, 1.5) == pytest.approx(factors[1] ** depth, rel=1e-6)


def test_a_late_deficit_of_a_pathway_does_nothing_and_an_early_one_takes_it(linear):
    for depth in (2, 3):
        length = linear.time_to_learn(depth, linear.START)
        assert linear.share_of_b(depth, 0, length) < 0.01
        assert linear.share_of_b(depth, 3 * length, length) == pytest.approx(0.5, abs=1e-3)


def test_a_pathway_that_cannot_learn_does_not_move_by_descent(linear):
    weights = linear.small_identity(3, 1)[:, None].expand(-1, 2, -1, -1)
    after = linear.descend(weights, linear.Pathways((1, 0)), 12, 0.01)
    assert torch.equal(after[:, 1], weights[:, 1])
    a, b = linear.product(after).flatten().tolist()
    assert a == pytest.approx(linear.learnt(3, linear.START, 12, 1 - b), abs=2e-3)


def test_a_deficit_on_the_same_entries_leaves_the_diagonal_problem_where_it_is(linear):
    """Off its diagonal the identity is what a small identity already is."""
    deficit, task = linear.hidden_diagonal(5)
    weights = linear.small_identity(3, 5)
    hidden = linear.Task(deficit.target, task.observed)
    assert torch.equal(linear.descend(weights, hidden, 5.0, 0.05), weights)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_exact_fisher_is_the_closed_form(linear, depth):
    """Also of layers without structure."""
    weights = torch.randn(depth, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = nn.Sequential(*(nn.Linear(7, 7, bias=False, dtype=torch.float64) for _ in range(depth)))
    for layer, values in zip(model, weights, strict=True):
        layer.weight = nn.Parameter(values)
    found = fisherkit.fisher_trace(model, torch.eye(7).double(), loss="squared_error", estimator="exact")
    np.testing.assert_allclose(found.trace, linear.fisher_closed_form(weights).numpy(), rtol=1e-10)
