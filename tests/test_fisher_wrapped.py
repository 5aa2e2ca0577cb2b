"""Wrapped, hooked, reparametrised and otherwise unusual models: right numbers, or refused with the reason."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import BasicBlock, ResNet
from cases import BY_NAME
from reference import exact_per_image
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from fisherkit.fisher import fisher_trace, trainable_layers, verify
from fisherkit.fisher.layers import unwrapped
from fisherkit.recording.tracker import FisherTracker, weight_norms

RTOL, TINY = 1e-10, 1e-14
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ENGINES = ["ghost", "vmap", "batch", "backpack"]


def small(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def check_exact(model: nn.Module, inputs: Tensor = X, **options):
    result = fisher_trace(model, inputs, estimator="exact", **options)
    reference = exact_per_image(model.eval(), inputs)
    assert set(result.layers) == set(reference)
    for layer, values in reference.items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=RTOL, abs=TINY), (layer, result.engines[layer])
    return result


def check_same(model: nn.Module, plain: nn.Module, inputs: Tensor = X):
    """Names, engines and numbers are those of the plain model."""
    for options in (dict(estimator="exact"), dict(seed=1)):
        result, expected = fisher_trace(model, inputs, **options), fisher_trace(plain, inputs, **options)
        assert result.layers == expected.layers
        assert result.engines == expected.engines
        assert (result.trace == expected.trace).all()


# --- torch.compile: what is compiled is measured eagerly, since hooks are not seen inside --------------------------


def never(graph, example_inputs):
    raise AssertionError("a measurement must not compile")


class CompiledInside(nn.Module):
    """A submodule and a function that are compiled."""

    def __init__(self, backend) -> None:
        super().__init__()
        body = small()
        self.first, self.block, self.out = body[0], torch.compile(body[1:4], backend=backend), body[4]
        self.square = torch.compile(lambda x: x * x, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.square(self.block(self.first(x))))


def test_a_compiled_model_has_the_plain_names_and_numbers():
    plain = small()
    check_same(torch.compile(plain, backend=never), plain)
    assert verify(torch.compile(plain, backend=never), X).passed


def test_a_model_compiled_in_place_is_measured_eagerly():
    plain, compiled = small(), small()
    compiled.compile(backend=never)
    check_same(compiled, plain)


def test_a_compiled_submodule_leaves_no_trace_in_the_names():
    model = CompiledInside(never)
    result = check_exact_by_plain_names(model)
    assert result.layers == ("first", "block.2", "out")
    assert set(result.engines.values()) == {"ghost"}
    assert verify(model, X).passed
    by_vmap = fisher_trace(model, X, estimator="exact", engine="vmap")
    assert by_vmap.trace == pytest.approx(result.trace, rel=RTOL)


def check_exact_by_plain_names(model: nn.Module):
    with torch.compiler.set_stance("force_eager"):
        reference = exact_per_image(model.eval(), X)
    result = fisher_trace(model, X, estimator="exact")
    for layer, values in reference.items():
        assert result[layer.replace("_orig_mod.", "")] == pytest.approx(float(values.mean()), rel=RTOL)
    return result


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # from torch's own tracing
def test_a_submodule_compiled_and_called_before_is_measured_eagerly_and_stays_compiled():
    compilations = []

    def counting(graph, example_inputs):
        compilations.append(graph)
        return graph

    model = CompiledInside(counting)
    before = model(X)
    assert compilations
    count = len(compilations)
    check_exact_by_plain_names(model)
    assert torch.equal(model(X), before)
    assert len(compilations) == count


# --- parallel wrappers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributed():
    script = Path(__file__).with_name("distributed_models.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_data_parallel_has_the_plain_names_and_numbers():
    plain = small()
    check_same(nn.DataParallel(plain), plain)
    assert verify(nn.DataParallel(plain), X).passed


def test_averaged_model_has_the_plain_names_and_numbers():
    plain = small()
    check_same(torch.optim.swa_utils.AveragedModel(plain), plain)


def train_step(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(X).logsumexp(1).sum().backward()
    return [p.grad.clone() for p in model.parameters()]


def test_distributed_data_parallel_is_measured_without_communication_and_trains_on(distributed):
    assert distributed["whole_model"] == {"same_exact": True, "same_drawn": True, "trains_on": True}


def test_a_distributed_data_parallel_submodule_is_measured_without_communication(distributed):
    assert distributed["submodule"] == {"same": True, "silent": True, "trains_on": True, "sends": True}


def test_sharded_parameters_are_refused(distributed):
    message = distributed["sharded"]["error"]
    assert re.search(r"'0.weight' is a sharded DTensor; whole parameters.*full state dict", message)


def test_modules_sharded_by_the_older_wrapper_are_refused():
    from torch.distributed.fsdp import FullyShardedDataParallel

    class Sharded(FullyShardedDataParallel):  # making a real one needs an accelerator
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self._fsdp_wrapped_module = module

    with pytest.raises(ValueError, match=r"layer '1' is sharded by FullyShardedDataParallel; whole parameters"):
        fisher_trace(nn.Sequential(nn.Linear(4, 4), Sharded(nn.Linear(4, 3))), X)


def test_hooks_on_a_wrapper_are_refused():
    model = nn.DataParallel(small())
    model.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(ValueError, match=r"hooks on the plain module.*DataParallel wrapper.*model\.module"):
        fisher_trace(model, X)


# --- activation checkpointing ---------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """The middle of the network is recomputed in the backward pass."""

    def __init__(self, *, reentrant: bool, marks_input: bool = False) -> None:
        super().__init__()
        body = small()
        self.first, self.middle, self.out = body[0], body[1:4], body[4]
        self.reentrant, self.marks_input = reentrant, marks_input

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.requires_grad_() if self.marks_input else x)
        return self.out(checkpoint(self.middle, x, use_reentrant=self.reentrant))


RECOMPUTED = "it is recomputed in the backward pass (activation checkpointing)"


def test_checkpointed_layers_are_measured_by_other_engines():
    model = Checkpointed(reentrant=False)
    result = check_exact(model)
    assert result.engines == {"first": "ghost", "middle.2": "loop", "out": "ghost"}
    assert result.reasons["middle.2"].startswith(RECOMPUTED)
    drawn = fisher_trace(model, X, batch_size=5)
    assert drawn.engines == {"first": "ghost", "middle.2": "batch", "out": "ghost"}
    assert drawn.reasons == {"middle.2": RECOMPUTED}
    plain = fisher_trace(model, X, batch_size=5, engine="batch")
    assert drawn["middle.2"] == pytest.approx(plain["middle.2"], rel=RTOL)
    assert verify(model, X).passed


def test_ghost_refuses_checkpointed_layers_with_the_reason():
    with pytest.raises(ValueError, match=r"layer 'middle.2': it is recomputed in the backward pass.*engine='auto'"):
        fisher_trace(Checkpointed(reentrant=False), X, engine="ghost")


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("where", ["middle", "start", "start_marked"])
def test_reentrant_checkpointing_is_refused(where: str):
    """Also where no input of the checkpoint requires a gradient, so that it leaves no node in the graph."""
    model = Checkpointed(reentrant=True, marks_input=where == "start_marked")
    if where != "middle":
        model.middle, model.first = nn.Sequential(model.first, model.middle), nn.Identity()
    with pytest.raises(ValueError, match=r"use_reentrant=True, which hides its layers.*set use_reentrant=False"):
        fisher_trace(model, X)


def test_a_checkpoint_wrapper_leaves_no_trace_in_the_names():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model, plain = small(), small()
    model[2] = checkpoint_wrapper(model[2])
    result, expected = fisher_trace(model, X, estimator="exact"), fisher_trace(plain, X, estimator="exact")
    assert result.layers == expected.layers
    assert result.trace == pytest.approx(expected.trace, rel=RTOL)


def test_saved_tensors_on_the_cpu_are_not_recomputed():
    with torch.autograd.graph.save_on_cpu():
        assert set(check_exact(small()).engines.values()) == {"ghost"}


class Recomputing(torch.autograd.Function):
    """Runs a module without a graph and again in the backward pass, as reversible networks do."""

    @staticmethod
    def forward(ctx, module, x, *parameters):
        ctx.module, ctx.parameters = module, parameters
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx, g):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            grads = torch.autograd.grad(ctx.module(x), [x, *ctx.parameters], g)
        return None, *grads


def test_layers_inside_an_autograd_function_are_measured_by_other_engines():
    class Reversible(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = small()
            self.first, self.middle, self.out = body[0], body[1:4], body[4]

        def forward(self, x: Tensor) -> Tensor:
            return self.out(Recomputing.apply(self.middle, self.first(x), *self.middle.parameters()))

    result = check_exact(Reversible())
    assert set(result.engines.values()) == {"loop"}
    assert "an autograd.Function runs layer 'middle.2' out of sight" in result.reasons["out"]
    assert set(fisher_trace(Reversible(), X, batch_size=5).engines.values()) == {"batch"}


# --- reparametrised weights -----------------------------------------------------------------------------------------


def reparametrised(how) -> nn.Sequential:
    model = small()
    how(model[2])
    return model.double()


def trained_once(model: nn.Module) -> nn.Module:
    """As after a step of training: spectral norm has iterated, old-style hooks have left their weight behind."""
    model.train()(X).sum().backward()
    model.zero_grad()
    return model


REPARAMETRISED = {
    "weight_norm": (nn.utils.parametrizations.weight_norm, {"2", "2.parametrizations.weight"}),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm, {"2", "2.parametrizations.weight"}),
    "orthogonal": (nn.utils.parametrizations.orthogonal, {"2", "2.parametrizations.weight"}),
    "old_weight_norm": (nn.utils.weight_norm, {"2"}),
    "old_spectral_norm": (nn.utils.spectral_norm, {"2"}),
    "pruned": (lambda module: prune.l1_unstructured(module, "weight", 0.5), {"2"}),
}


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.*is deprecated")
@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.spectral_norm.*is deprecated")
@pytest.mark.parametrize(("how", "moved"), REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_reparametrised_weights(how, moved: set[str]):
    model = trained_once(reparametrised(how))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    weight = vars(model[2]).get("weight")
    fisher_trace(model, X)
    assert vars(model[2]).get("weight") is weight
    result = check_exact(model)
    assert {layer for layer, engine in result.engines.items() if engine != "ghost"} == moved == set(result.reasons)
    drawn = fisher_trace(model, X, batch_size=5)
    whole = fisher_trace(model, X, batch_size=5, engine="batch")
    for layer in moved:
        assert drawn.engines[layer] == "batch"
        assert drawn[layer] == pytest.approx(whole[layer], rel=RTOL)
    assert verify(model, X).passed
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# --- subclasses -----------------------------------------------------------------------------------------------------


class Initialised(nn.Linear):
    """Only its weights begin otherwise."""

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.weight)
        nn.init.zeros_(self.bias)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Standardised(nn.Conv1d):
    """Weight standardisation, in the method that the forward of a convolution calls."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean((1, 2), keepdim=True), bias)


SUBCLASSES = {
    "initialised": (lambda: Initialised(5, 4), "ghost"),
    "scaled": (lambda: Scaled(5, 4), "vmap"),
    "standardised": (lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), Standardised(1, 4, 5), nn.Flatten()), "vmap"),
}


@pytest.mark.parametrize(("make", "engine"), SUBCLASSES.values(), ids=SUBCLASSES)
def test_subclasses(make, engine: str):
    model = small()
    model[2] = make().double()
    result = check_exact(model)
    assert {result.engines[layer] for layer in result.layers if layer.startswith("2")} == {engine}


# --- hooks on gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_hooks_on_weights_change_training_and_not_the_fisher(engine: str):
    plain, model = small(), small()
    calls = []
    model[2].weight.register_hook(lambda g: calls.append(g) or 10 * g)
    result, expected = fisher_trace(model, X, engine=engine), fisher_trace(plain, X, engine=engine)
    assert (result.trace == expected.trace).all()
    assert not calls
    assert any("2.weight" in note and "register_hook" in note for note in result.notes)
    assert not any("register_hook" in note for note in expected.notes)
    ours, theirs = train_step(model), train_step(plain)
    assert torch.equal(ours[2], 10 * theirs[2])
    assert len(calls) == 1


def test_a_hook_on_a_weight_can_still_be_removed():
    model = small()
    handle = model[2].weight.register_hook(lambda g: 10 * g)
    fisher_trace(model, X)
    handle.remove()
    assert all(map(torch.equal, train_step(model), train_step(small())))


@pytest.mark.parametrize("engine", ENGINES)
def test_backward_hooks_of_modules_change_training_and_not_the_fisher(engine: str):
    """A hook that scales a gradient by 0.1 made the traces below it 100 times too small."""
    plain, model, calls = small(), small(), []
    model[1].register_full_backward_hook(lambda module, into, out: calls.append(out) or (0.1 * into[0],))
    model[2].register_full_backward_pre_hook(lambda module, out: calls.append(out))
    result, expected = fisher_trace(model, X, engine=engine), fisher_trace(plain, X, engine=engine)
    assert (result.trace == expected.trace).all()
    assert not calls
    assert any("gradient of 1, 2 (backward hooks" in note for note in result.notes)
    ours, theirs = train_step(model), train_step(plain)
    assert torch.allclose(ours[0], 0.1 * theirs[0])
    assert len(calls) == 2


# --- parameters and leaves ------------------------------------------------------------------------------------------


class Foreign(nn.Module):
    """A trained tensor that is not registered, in front of a layer and behind another."""

    def __init__(self, kind) -> None:
        super().__init__()
        body = small()
        self.first, self.second, self.out = body[0], body[2], body[4]
        self.scales = [kind(torch.ones(5, dtype=torch.float64))]

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.first(x) * self.scales[0])
        return self.out(torch.tanh(self.second(y)) * self.scales[0][:4])


@pytest.mark.parametrize("kind", [nn.Parameter, lambda x: x.requires_grad_()], ids=["parameter", "tensor"])
def test_tensors_that_require_gradients_and_are_not_parameters(kind):
    result = check_exact(Foreign(kind))
    assert set(result.engines.values()) == {"ghost"}
    named = any("5 parameters that the outputs depend on are not registered" in note for note in result.notes)
    assert named == (kind is nn.Parameter)


def test_a_leaf_made_in_the_forward_behind_frozen_layers():
    """As `enable_input_require_grads` of transformers makes one behind a frozen embedding."""
    model = small()
    model[0].requires_grad_(False)
    model[0].register_forward_hook(lambda module, args, output: output.requires_grad_())
    result = check_exact(model)
    assert result.engines == {"2": "ghost", "4": "ghost"}


def test_a_weight_used_only_outside_a_forward_whose_output_is_not_used():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = small()
            self.first, self.second, self.out = body[0], body[2], body[4]

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.first(x))
            self.second(y)
            return self.out(torch.tanh(nn.functional.linear(y, self.second.weight, self.second.bias)))

    result = check_exact(Odd())
    assert result.engines == {"first": "ghost", "second": "vmap", "out": "ghost"}
    assert "whose output is not used" in result.reasons["second"]


def test_a_recurrent_network_is_measured_without_its_dropout():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(4, 3, num_layers=2, dropout=0.5), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x[None])[0][0])

    model = Net().double().train()
    first = fisher_trace(model, X, estimator="exact")
    assert model.rnn.training
    assert model.rnn.dropout == 0.5
    assert (check_exact(model).trace == first.trace).all()


def test_attributes_that_a_forward_writes_come_back():
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3).double()
            self.last = None

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.features = self.fc(x)
            return self.last

    model = Caching()
    fisher_trace(model, X)
    assert model.last is None
    assert not hasattr(model, "features")
    kept = model(X)
    fisher_trace(model, X)
    assert model.last is model.features is kept


# --- half precision -------------------------------------------------------------------------------------------------

HALF = {torch.bfloat16: 0.02, torch.float16: 0.003}


class Autocast(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(x)


@pytest.mark.parametrize("name", ["residual", "multihead_attention", "conv2d_strided_gram", "embedding", "group_norm"])
def test_half_precision_is_right_to_its_rounding(name: str):
    model, inputs = BY_NAME[name].build()
    exact = exact_per_image(model.eval(), inputs)
    truth = np.array([float(values.mean()) for values in exact.values()])
    for dtype, rtol in HALF.items():
        half, images = copy.deepcopy(model).to(dtype), inputs.to(dtype) if inputs.is_floating_point() else inputs
        result = fisher_trace(half, images, estimator="exact")
        assert set(result.engines.values()) == {"ghost"}
        assert result.trace == pytest.approx(truth, rel=rtol)
        assert any(f"parameters in {str(dtype)[6:]}" in note for note in result.notes)
    images = inputs.float() if inputs.is_floating_point() else inputs
    result = fisher_trace(Autocast(copy.deepcopy(model).float()), images, estimator="exact")
    assert set(result.engines.values()) == {"ghost"}
    assert result.trace == pytest.approx(truth, rel=0.02)


def test_squares_of_small_gradients_do_not_underflow():
    """In float16 the squares of these scores are all below the smallest number there is, 6e-8."""
    model = nn.Linear(4, 3).double()
    model.weight.data.zero_()
    model.bias.data = torch.tensor([9.0, 0.0, 0.0], dtype=torch.float64)
    result = fisher_trace(model.half(), X.half(), estimator="empirical", labels=torch.zeros(5, dtype=torch.long))
    model.double()
    score = torch.softmax(model.bias.detach(), 0) - torch.tensor([1.0, 0.0, 0.0])
    expected = float((score.square().sum() * (1 + X.square().sum(1))).mean())
    assert expected < 1e-6
    assert result.total == pytest.approx(expected, rel=0.01)


# --- models and images that cannot be measured ----------------------------------------------------------------------


class NoGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.body(x)


class Inference(NoGradient):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.body(x)


class Hidden(nn.Module):
    """Its only registered parameter is not used; the one that is used is in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.used = nn.Linear(4, 3).double(), [small()]

    def forward(self, x: Tensor) -> Tensor:
        return self.used[0](x)


UNMEASURABLE = {
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(3)),
        r"parameter '0.weight' has no shape yet \(LazyLinear\); call the model on a batch once",
    ),
    "meta": (lambda: nn.Linear(4, 3, device="meta"), r"parameter 'weight' is on the meta device.*to_empty"),
    "no_gradient": (NoGradient, r"outputs that depend on its trainable parameters.*torch.no_grad"),
    "detached": (lambda: nn.Sequential(small(), Detach()), r"outputs that depend on its trainable parameters.*detach"),
    "hidden": (Hidden, r"outputs that depend on its trainable parameters.*not registered in the model"),
    "scripted": (
        lambda: nn.Sequential(torch.jit.script(small())),
        r"layer '0' is compiled by torch.jit \(RecursiveScriptModule\).*measure the module that it was made from",
    ),
    "inference": (Inference, r"outputs that depend on its trainable parameters.*torch.no_grad"),
    "bfloat16": (
        lambda: small().bfloat16(),
        r"images must have the dtype of the model's parameters, torch.bfloat16; got torch.float64. Pass images.to",
    ),
}


class Detach(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


@pytest.mark.parametrize(("make", "message"), UNMEASURABLE.values(), ids=UNMEASURABLE)
@pytest.mark.parametrize("estimator", ["exact", "propagated"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_models_that_cannot_be_measured(make, message: str, estimator: str):
    with pytest.raises(ValueError, match=message):
        fisher_trace(make(), X, estimator=estimator)


def test_a_function_is_not_a_model():
    with pytest.raises(ValueError, match=r"model must be a torch.nn.Module; got method. Wrap it"):
        unwrapped(small().forward)


def test_an_error_of_the_model_itself_is_told_with_the_images_and_kept_as_the_cause():
    with pytest.raises(ValueError, match=r"of shape \[3\]\..*cannot be multiplied") as caught:
        fisher_trace(small(), X[:, :3])
    assert type(caught.value.__cause__) is RuntimeError


def test_integers_for_a_model_of_numbers_are_told_as_such():
    with pytest.raises(
        ValueError, match=r"parameters, torch.float64; got torch.int64. Pass images.to\(torch.float64\)"
    ):
        fisher_trace(small(), torch.ones(5, 4, dtype=torch.long))


def test_a_pair_in_place_of_images_is_refused():
    labels = torch.tensor([0, 1, 2, 0, 1])
    with pytest.raises(ValueError, match=r"images must not be a tuple of two tensors.*\[\(images, labels\)\]"):
        fisher_trace(small(), (X, labels))
    assert fisher_trace(small(), [(X, labels)], estimator="empirical").images == 5


def test_names_are_the_same_for_every_caller():
    plain = ResNet(BasicBlock(4, 4), features=4)
    names = [layer.name for layer in trainable_layers(plain)]
    compiled = torch.compile(plain, backend=never)
    for wrapped in (nn.DataParallel(plain), compiled, nn.DataParallel(compiled)):
        assert [layer.name for layer in trainable_layers(wrapped)] == names


def test_a_tracker_of_a_wrapped_model_has_the_plain_names(tmp_path):
    plain = small()
    with FisherTracker(tmp_path / "run.h5", nn.DataParallel(plain), X, loss="squared_error") as tracker:
        tracker.record(0)
    assert tracker.trajectory.layers == ("0", "2", "4")
    assert weight_norms(nn.DataParallel(plain)) == pytest.approx(weight_norms(plain))


def test_the_norm_of_complex_weights_has_both_parts():
    layer = nn.Linear(1, 1, bias=False, dtype=torch.cdouble)
    layer.weight.data.fill_(3 + 4j)
    assert weight_norms(layer) == pytest.approx([5.0])
