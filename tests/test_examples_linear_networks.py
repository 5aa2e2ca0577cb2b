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


def test_one_layer_ends_with_the_same_unobserved_error_after_every_deficit(linear):
    """Entries that are not observed have no gradient in a single layer: equal bit for bit, not nearly."""
    deficit, task = linear.random_matrices(12, ranks=(3, 1), seeds=2)
    weights = linear.small_identity(1, 12)[:, None].expand(-1, 2, -1, -1)
    done = linear.remove(weights, deficit, task, [0.0, 1.0, 5.0], clean=20, rate=0.05)
    assert not torch.equal(done.at_end[:, 0], done.at_end[:, 2])
    errors = task.unobserved_error(linear.product(done.final))
    assert torch.equal(errors, errors[:1].expand_as(errors))


def test_deeper_networks_end_with_a_larger_error_after_a_longer_deficit(linear):
    deficit, task = linear.random_matrices(16, ranks=(3, 1), seeds=2)
    for depth in (2, 3):
        weights = linear.small_identity(depth, 16)[:, None].expand(-1, 2, -1, -1)
        done = linear.remove(weights, deficit, task, [0.0, 30.0], clean=60, rate=0.05)
        none, long = task.unobserved_error(linear.product(done.final))
        assert (long > 1.5 * none).all()


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
