"""The Fisher penalty: its value and gradient against dense ones, its expectation, and what it does to a training."""

import io
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import jacobians
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from training_cases import assert_same_weights, conv_net, dropout_net, linear_net, numbers, same_weights, training

from fisherkit.training import FisherPenalty, Training, derive_seed, deterministic, epoch_order
from fisherkit.training.penalty import label_noise, labels_given, penalty_given


def _net(*modules: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(*modules)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model.double()


NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: _net(nn.Flatten(), nn.Linear(16, 3)),
    "tanh": lambda: _net(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 3)),
    "convolution": lambda: _net(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3)),
    "batchnorm": lambda: _net(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)),
}


def inputs(count: int = 3) -> Tensor:
    return torch.randn(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def mean_log_likelihood(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """As a function of all parameters in one vector."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def function(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        log_p = functional_call(model, weights, (x,)).log_softmax(1)
        return log_p[torch.arange(len(labels)), labels].mean()

    return function


@pytest.mark.parametrize("name", NETS)
def test_value_and_gradient_are_the_dense_ones(name: str) -> None:
    """P = ||g||^2 and grad P = 2 H g, with the gradient g and the Hessian H of the mean log-likelihood."""
    model, x, labels = NETS[name](), inputs(), torch.tensor([2, 0, 2])
    parameters = list(model.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    function = mean_log_likelihood(model, x, labels)
    g = torch.autograd.functional.jacobian(function, flat)
    hessian = torch.autograd.functional.hessian(function, flat)
    value, gradient = penalty_given(model(x), labels, parameters)
    assert value.item() == pytest.approx(float(g @ g), rel=1e-10)
    assert not value.requires_grad
    found = torch.cat(
        [torch.zeros_like(p).flatten() if h is None else h.flatten() for p, h in zip(parameters, gradient, strict=True)]
    )
    torch.testing.assert_close(found, 2 * hessian @ g, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "tanh", "convolution"])
def test_its_expectation_over_all_labels_is_the_trace_over_the_batch_size(name: str) -> None:
    model, x = NETS[name](), inputs()
    p = model(x).softmax(1).detach()
    trace = (
        sum(
            float(p[i, y]) * float((J.T @ (F.one_hot(torch.tensor(y), 3).double() - p[i])).square().sum())
            for i in range(3)
            for J in [torch.cat(list(jacobians(model, x, i).values()), 1)]
            for y in range(3)
        )
        / 3
    )
    expected = 0.0
    for labels in product(range(3), repeat=3):
        probability = float(p[torch.arange(3), list(labels)].prod())
        expected += probability * float(penalty_given(model(x), torch.tensor(labels), list(model.parameters()))[0])
    assert expected == pytest.approx(trace / 3, rel=1e-10)


def test_labels_have_the_probabilities_of_the_model() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]], dtype=torch.float64).expand(40_000, 4)
    p = logits[0].softmax(0)
    found = torch.bincount(labels_given(logits, label_noise(40_000, 4, seed=7)), minlength=4) / 40_000
    stderr = (p * (1 - p) / 40_000).sqrt()
    assert stderr.max() < 0.003
    assert ((found - p).abs() < 4 * stderr).all()


def test_noise_is_a_function_of_the_seed_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(label_noise(5, 3, seed=1), label_noise(5, 3, seed=1))
    assert not torch.equal(label_noise(5, 3, seed=1), label_noise(5, 3, seed=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_complex_parameter_is_two_real_ones() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(
                torch.randn(16, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
            )

        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1).to(self.weight.dtype) @ self.weight).abs()

    class Real(nn.Module):
        def __init__(self, parts: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(parts.clone())

        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1).to(torch.complex128) @ torch.view_as_complex(self.weight)).abs()

    model, labels = Complex(), torch.tensor([0, 1, 2])
    twin = Real(torch.view_as_real(model.weight.detach()))
    value, gradient = penalty_given(model(inputs()), labels, [model.weight])
    expected, expected_gradient = penalty_given(twin(inputs()), labels, [twin.weight])
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(torch.view_as_real(gradient[0]), expected_gradient[0])


# in a training


def with_penalty(text: str, make_model: Any = conv_net, **options: Any) -> Training:
    return training(make_model, epochs=2, fisher_penalty=text, **options)


def by_autograd(penalty: FisherPenalty, *, steps: int) -> nn.Module:
    """The same training written by hand: one backward pass of loss + alpha P where it is computed."""
    made = training(linear_net, epochs=2, lr=0.05, lr_schedule="constant")
    model, images = made.model, made.train_images
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = [indices for epoch in range(2) for indices in epoch_order(40, seed=0, epoch=epoch).split(8)]
    held: list[Tensor] = []
    for step, indices in enumerate(batches[:steps]):
        logits = model(images.normalised(indices))
        loss = F.cross_entropy(logits, images.labels[indices])
        if penalty.due(step):
            labels = labels_given(logits, label_noise(8, 3, seed=derive_seed(0, "penalty", step)))
            g = torch.autograd.grad(F.cross_entropy(logits, labels), list(model.parameters()), create_graph=True)
            term = penalty.alpha * sum(part.square().sum() for part in g)
            held = list(torch.autograd.grad(term, list(model.parameters()), retain_graph=True))
            loss = loss + term
        optimizer.zero_grad()
        loss.backward()
        if penalty.held and not penalty.due(step):
            for parameter, part in zip(model.parameters(), held, strict=True):
                parameter.grad += part
        optimizer.step()
    return model


@pytest.mark.parametrize("text", ["0.1:1", "0.1:3", "0.1:3:held"])
def test_training_follows_the_gradient_of_loss_and_penalty(text: str) -> None:
    made = with_penalty(text, linear_net, lr_schedule="constant")
    list(made.steps())
    expected = by_autograd(FisherPenalty.parse(text), steps=10)
    for parameter, other in zip(made.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)
    without = training(linear_net, lr_schedule="constant")
    list(without.steps())
    assert not all(
        torch.allclose(a, b, rtol=1e-2, atol=1e-4)
        for a, b in zip(made.model.parameters(), without.model.parameters(), strict=True)
    )


def test_between_two_penalties_a_step_is_the_plain_one() -> None:
    plain, penalised = training(conv_net), with_penalty("0.1:4")
    steps = penalised.steps()
    next(steps)
    plain.load_state_dict({**penalised.state_dict(), "fisher_penalty": ""})
    others = plain.steps()
    for _ in range(3):
        next(steps), next(others)
        assert_same_weights(penalised.model, plain.model)
    next(steps), next(others)
    assert not same_weights(penalised.model, plain.model)


def test_batchnorm_sees_each_batch_once() -> None:
    plain, penalised = training(conv_net), with_penalty("0.1:1")
    next(plain.steps()), next(penalised.steps())
    for buffer, other in zip(plain.model.buffers(), penalised.model.buffers(), strict=True):
        assert torch.equal(buffer, other)
    list(penalised.steps())
    assert penalised.model[1].num_batches_tracked == 10


def test_the_report_holds_the_mean_of_the_epoch() -> None:
    made = with_penalty("0.2:2", linear_net, lr=0.05)
    values, reports = [], []
    for step in made.steps():
        values.append(made._tally.penalties.get((step.step - 1) % 5))
        reports += [step.report] if step.report else []
    assert [value is not None for value in values] == [step % 2 == 0 for step in range(10)]
    for report, mine in zip(reports, (values[:5], values[5:]), strict=True):
        assert report.fisher_penalty == pytest.approx(torch.stack([v for v in mine if v is not None]).mean().item())
    assert [report.fisher_penalty for report in with_penalty("0.2:7").epochs()][1] is not None  # step 7
    assert [report.fisher_penalty for report in with_penalty("0.2:10").epochs()][1] is None
    assert next(training().epochs()).fisher_penalty is None


def test_a_penalty_keeps_what_it_penalises_small() -> None:
    free, kept = (training(linear_net, epochs=6, fisher_penalty=text, lr=0.02) for text in ("1e-6:1", "0.3:1"))
    late = [list(made.epochs())[-1].fisher_penalty for made in (free, kept)]
    assert late[1] < 0.8 * late[0]


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


RESUMED = {
    "every third": {"fisher_penalty": "0.1:3"},
    "held": {"fisher_penalty": "0.1:4:held"},
    "held-bf16-adam": {"fisher_penalty": "0.1:4:held", "precision": "bf16", "optimizer": "adam", "lr": 0.01},
}


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
def test_resuming_at_every_step_ends_in_the_same_bits(options: dict[str, Any]) -> None:
    conditions = {"events": ["shrink_perturb(0.5,0.2):1"], "augment": ["crop+flip"]}
    with deterministic(1):
        whole = training(dropout_net, conditions=conditions, **options)
        states, reports = [through_file(whole.state_dict())], []
        for step in whole.steps():
            states.append(through_file(whole.state_dict()))
            reports += [step.report] if step.report else []
        assert all(report.fisher_penalty > 0 for report in reports)
        for state in states:
            resumed = training(dropout_net, conditions=conditions, model_seed=9, **options)
            resumed.load_state_dict(state)
            rest = list(resumed.epochs())
            assert list(map(numbers, rest)) == list(map(numbers, reports[state["epoch"] :]))
            assert_same_weights(resumed.model, whole.model)


def states(text: str, steps: int) -> dict[str, Any]:
    made = with_penalty(text)
    iterator = made.steps()
    for _ in range(steps):
        next(iterator)
    return made.state_dict()


def test_what_is_held_and_what_was_measured_matter() -> None:
    state, end = states("0.1:4:held", 2), with_penalty("0.1:4:held")
    first, _ = end.epochs()
    for part in ("penalty_gradient", "penalties"):
        other = with_penalty("0.1:4:held", model_seed=9)
        other.load_state_dict({name: value for name, value in state.items() if name != part})
        report = next(other.epochs())
        list(other.epochs())
        assert numbers(report) != numbers(first)
        assert same_weights(other.model, end.model) == (part == "penalties")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fisher_penalty": ""},
            r"fisher_penalty must be '', as in the saved training, until epoch 0 ends; got '0.1:4",
        ),
        ({"penalties": {7: torch.tensor(1.0)}}, "penalties of the state must be a number for some of the 2 steps"),
        ({"penalties": {0: torch.zeros(2)}}, "penalties of the state must be a number for some of the 2 steps"),
        ({"penalties": []}, "penalties of the state must be of type dict; got list"),
        ({"penalty_gradient": [None]}, "penalty_gradient of the state must have the shapes of the parameters"),
        ({"penalty_gradient": [torch.zeros(1)] * 6}, "penalty_gradient of the state must have the shapes"),
    ],
    ids=str,
)
def test_a_state_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    made = with_penalty("0.1:4:held")
    with pytest.raises(ValueError, match=message):
        made.load_state_dict({**states("0.1:4:held", 2), **changes})
    assert made.step == 0


def test_between_epochs_a_penalty_may_begin_or_end() -> None:
    plain = training()
    next(plain.epochs())
    begun = with_penalty("0.1:2")
    begun.load_state_dict(plain.state_dict())
    assert next(begun.epochs()).fisher_penalty is not None
    ended = training()
    ended.load_state_dict(states("0.1:4:held", 5))
    assert next(ended.epochs()).fisher_penalty is None
    list(plain.epochs())
    assert not same_weights(ended.model, plain.model)


# models


class Attends(nn.Module):
    """Fused attention has no second derivative; written out it has."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)[:, :, :24]
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_fused_attention_is_written_out() -> None:
    with deterministic(1):
        assert all(report.fisher_penalty > 0 for report in with_penalty("0.1:2", lambda seed: Attends()).epochs())


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


class Opaque(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.operation = nn.Linear(192, 3), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("operation", "words"),
    [(Once.apply, "once_differentiable"), (lambda z: torch.cdist(z, torch.eye(3)), "_cdist_backward")],
    ids=["once differentiable", "no derivative"],
)
def test_an_operation_without_a_second_derivative_is_named(operation: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"operations that can be differentiated twice.*{words}.*--fisher-penalty"):
        next(with_penalty("0.1", lambda seed: Opaque(operation)).steps())


def test_frozen_and_unused_parameters_stay_as_they_are() -> None:
    def half_frozen(seed: int) -> nn.Module:
        model = linear_net(seed)
        model[1].requires_grad_(False)
        model[1].register_parameter("spare", nn.Parameter(torch.ones(2)))
        return model

    made = with_penalty("0.1:1", half_frozen)
    list(made.steps())
    assert torch.equal(made.model[1].weight, linear_net()[1].weight)
    assert torch.equal(made.model[1].spare, torch.ones(2))


# the text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1", FisherPenalty(0.1, 10)),
        ("1e-3:1", FisherPenalty(0.001, 1)),
        ("2:7:held", FisherPenalty(2.0, 7, held=True)),
        ("0.5:held", FisherPenalty(0.5, 10, held=True)),
    ],
)
def test_texts(text: str, expected: FisherPenalty) -> None:
    assert FisherPenalty.parse(text) == expected
    assert FisherPenalty.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "fisher_penalty must be ALPHA, ALPHA:EVERY or ALPHA:EVERY:held, .* for example 0.1:10; got 'much'"),
        ("0.1:x", "fisher_penalty must be ALPHA, .*; got '0.1:x'"),
        ("", "fisher_penalty must be ALPHA, .*; got ''"),
        ("0", "alpha of fisher_penalty must be finite and above 0; got 0.0.* leave the option out"),
        ("-1:2", "alpha of fisher_penalty must be finite and above 0; got -1.0"),
        ("nan", "alpha of fisher_penalty must be finite and above 0; got nan"),
        ("inf", "alpha of fisher_penalty must be finite and above 0; got inf"),
        ("1:0", "every of fisher_penalty must be a whole number of steps >= 1; got 0"),
    ],
)
def test_wrong_texts(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_penalty(text)
