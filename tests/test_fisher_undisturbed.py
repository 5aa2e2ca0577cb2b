"""Measuring changes nothing: flags, buffers, gradients, hooks, random states, and the training that follows."""

import copy
import gc

import pytest
import torch
from cases import CASES, Case
from torch import nn

from fisherkit.fisher import fisher_spectrum, fisher_trace

WAYS = {
    "ghost": dict(engine="ghost"),
    "vmap": dict(engine="vmap"),
    "backpack": dict(engine="backpack"),
    "batch": dict(engine="batch"),
    "train_mode": dict(engine="batch", batchnorm="train"),
    "exact": dict(estimator="exact"),
    "empirical": dict(estimator="empirical"),
    "sampled": dict(estimator="sampled", draws=2),
}


class Net(nn.Module):
    """BatchNorm, dropout, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.relu1, self.relu2 = nn.Dropout(0.3), nn.ReLU(), nn.ReLU()
        self.flatten, self.fc = nn.Flatten(), nn.Linear(64, 3)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.fc(self.drop(self.flatten(self.relu2(self.bn2(self.conv2(x))) + x)))


def state(model: nn.Module):
    """Everything a measurement could disturb, and the objects it must not replace."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict(keep_vars=False).items()},
        "flags": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad_ids": [id(p.grad) if p.grad is not None else None for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "tensor_ids": [id(t) for t in [*model.parameters(), *model.buffers()]],
        "attributes": [sorted(vars(p)) for p in model.parameters()],
        "hooks": [
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            for module in model.modules()
        ],
        "rng": torch.get_rng_state(),
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def check_unchanged(before, after):
    changed = [key for key in before if not same(before[key], after[key])]
    assert not changed, changed


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_state_is_as_before(options, training: bool):
    model = Net().train(training)
    model.bn2.eval()
    model.conv1.bias.requires_grad_(False)
    nn.functional.cross_entropy(model(torch.randn(4, 1, 4, 4)), torch.tensor([0, 1, 2, 0])).backward()
    before = state(model)
    fisher_trace(model, torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), LABELS, **options)
    check_unchanged(before, state(model))


LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_state_is_as_before_on_every_architecture(case: Case):
    model, inputs = case.build()
    before = state(model.train())
    fisher_trace(model, [inputs] if isinstance(inputs, dict) else inputs, loss=case.loss)
    check_unchanged(before, state(model))


def test_state_is_as_before_after_an_error():
    model = Net().train()
    good, bad = torch.randn(6, 1, 4, 4), torch.randn(6, 2, 4, 4)
    before = state(model)
    with pytest.raises(RuntimeError, match="channels"):
        fisher_trace(model, [good, bad])
    with pytest.raises(FloatingPointError, match="not finite"):
        fisher_trace(model, torch.full((6, 1, 4, 4), torch.inf))
    check_unchanged(before, state(model))


def test_measuring_between_forward_and_backward_breaks_nothing():
    model, inputs = Net().eval(), torch.randn(6, 1, 4, 4)
    loss = nn.functional.cross_entropy(model(inputs), LABELS)
    expected = torch.autograd.grad(loss, model.conv1.weight, retain_graph=True)[0]
    fisher_trace(model, inputs)
    assert torch.equal(torch.autograd.grad(loss, model.conv1.weight)[0], expected)


def test_buffers_that_the_forward_replaces_come_back():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("sums", torch.zeros(()))

        def forward(self, x):
            self.calls = self.calls + 1
            self.sums.add_(x.sum())
            return self.fc(x)

    model, inputs = Counting(), torch.randn(6, 4)
    before = state(model)
    fisher_trace(model, inputs)
    check_unchanged(before, state(model))


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
def test_training_is_bit_identical_with_measurements_in_between(options, autocast: bool):
    def train(measured: bool):
        torch.manual_seed(7)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        images = torch.randn(12, 1, 4, 4)
        for _ in range(5):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                if measured:
                    fisher_trace(model, images[:6], LABELS, **options)
                rows = torch.randperm(12)[:6]
                loss = nn.functional.cross_entropy(model(images[rows]).float(), LABELS[rows % 6])
            optimizer.zero_grad()
            loss.backward()
            if measured:  # also between backward and step
                fisher_trace(model, images[:6], LABELS, **options)
            optimizer.step()
        return {**model.state_dict(), "rng": torch.get_rng_state()}

    assert same(train(measured=False), train(measured=True))


def test_surroundings_do_not_change_the_numbers():
    model, inputs = Net().eval(), torch.randn(6, 1, 4, 4)
    plain = fisher_trace(model, inputs).trace
    with torch.no_grad():
        assert (fisher_trace(model, inputs).trace == plain).all()
    with torch.inference_mode():
        assert (fisher_trace(model, inputs.clone()).trace == plain).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (fisher_trace(model, inputs).trace == plain).all()
    assert (fisher_trace(model.train(), inputs.requires_grad_()).trace == plain).all()


def test_measuring_twice_gives_the_same_numbers_and_another_seed_others():
    model, inputs = Net(), torch.randn(6, 1, 4, 4)
    first, second = fisher_trace(model, inputs, seed=1), fisher_trace(model, inputs, seed=1)
    assert (first.trace == second.trace).all()
    assert (fisher_trace(model, inputs, seed=2).trace != first.trace).any()


def test_a_copy_can_be_measured_after_the_original():
    """BackPACK leaves nothing behind that deepcopy, torch.func or a second engine would trip over."""
    model, inputs = Net(), torch.randn(6, 1, 4, 4)
    for engine in ("backpack", "vmap", "ghost", "backpack"):
        fisher_trace(copy.deepcopy(model), inputs, engine=engine)
        fisher_trace(model, inputs, engine=engine)
    exact = [
        fisher_trace(model, inputs.double(), estimator="exact", engine=e).total
        for e in ("vmap", "backpack", "ghost")
        if model.double()
    ]
    assert exact == pytest.approx([exact[0]] * 3, rel=1e-10)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")
def test_a_compiled_model_is_measured_as_its_module():
    model, inputs = Net(), torch.randn(6, 1, 4, 4)
    compiled = torch.compile(model)  # compiles on the first call, which never comes
    result = fisher_trace(compiled, inputs)
    assert result.layers == fisher_trace(model, inputs).layers
    assert (result.trace == fisher_trace(model, inputs).trace).all()


class Attending(nn.Module):
    """Nodes that keep their own output (softmax, tanh) and a layer whose input follows from another's hooked output."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.attention = nn.Linear(4, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.out, self.bare = nn.Linear(8, 3), nn.Parameter(torch.ones(3, 3))

    def forward(self, x):
        x = torch.tanh(self.into(x))
        return self.out(x + self.attention(x, x, x)[0]).mean(1) @ self.bare


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("measure", [fisher_trace, fisher_spectrum])
def test_nothing_of_a_measurement_is_kept(measure):
    """A graph that holds itself is never freed: a tracker measures thousands of times."""
    model, inputs = Attending(), torch.randn(6, 5, 4)
    measure(model, inputs)
    before = tensors()
    for _ in range(3):
        measure(model, inputs)
    assert tensors() <= before
