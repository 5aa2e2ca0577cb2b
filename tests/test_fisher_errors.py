"""Every engine that cannot do it right says so, naming the layer, the reason and an engine that can."""

import copy

import numpy as np
import pytest
import torch
from cases import BY_NAME, Energy, Residual, patched
from reference import exact_per_image, given_per_batch, given_per_image
from torch import nn

from fisherkit.fisher import fisher_spectrum, fisher_trace, fisher_traces
from fisherkit.fisher.losses import find_loss
from fisherkit.fisher.noise import ImageNoise
from fisherkit.fisher.vectors import Estimator

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # a note on its speed


def build(name: str):
    return BY_NAME[name].build()


REFUSED_BY_GHOST = {
    "tied_weights": r"layer 'embed'.*tied to another module.*engine='auto'",
    "module_called_twice": r"layer 'shared'.*called 2 times.*engine='auto'",
    "functional_use": r"layer 'outside' \(and 1 more\).*used outside its own forward",
    "bare_parameters": r"layer '\(model\)'.*no closed form for Bare with parameters scale, shift",
    "attention_bias_kv": r"layer 'attention'.*no closed form for MultiheadAttention with parameters bias_k, bias_v",
    "cross_attention_sizes": r"layer 'attention'.*parameters k_proj_weight, q_proj_weight, v_proj_weight",
    "attention_projected_twice": r"layer 'attention.out_proj'.*also used outside its own forward",
    "attention_unbatched": r"layer 'attention' \(and 1 more\): its input has no dimension for the images",
    "folded_batch": r"layer 'frame'.*called with 6 rows for 3 images",
    "lstm": r"layer 'lstm'.*no closed form for LSTM",
}


@pytest.mark.parametrize(("name", "message"), REFUSED_BY_GHOST.items(), ids=REFUSED_BY_GHOST)
def test_ghost_refuses(name: str, message: str):
    model, inputs = build(name)
    with pytest.raises(ValueError, match=message):
        fisher_trace(model, inputs, engine="ghost")


REFUSED_BY_BACKPACK = {  # BackPACK 1.7.1 is silently wrong on these, or computes nothing
    "conv2d_grouped": r"layer '0'.*wrong for grouped convolutions \(groups=2\).*engine='auto'",
    "conv2d_depthwise": r"layer '0'.*wrong for grouped convolutions \(groups=4\)",
    "conv2d_reflect": r"layer '0'.*wrong for padding_mode='reflect'",
    "conv2d_same": r"layer '0'.*wrong for padding='same'",
    "tied_weights": r"layer 'embed'.*tied",
    "module_called_twice": r"layer 'shared'.*called 2 times",
    "functional_use": r"layer 'outside'.*outside its own forward",
    "layer_norm": r"layer '0'.*no BatchL2Grad for LayerNorm",
    "group_norm": r"layer '0'.*no BatchL2Grad for GroupNorm",
    "multihead_attention": r"layer 'attention'.*no BatchL2Grad for MultiheadAttention",
    "bare_parameters": r"layer '\(model\)'.*no BatchL2Grad for Bare",
}


@pytest.mark.parametrize(("name", "message"), REFUSED_BY_BACKPACK.items(), ids=REFUSED_BY_BACKPACK)
def test_backpack_refuses(name: str, message: str):
    model, inputs = build(name)
    with pytest.raises(ValueError, match=message):
        fisher_trace(model, inputs, engine="backpack")


def test_a_model_that_backpack_cannot_run_is_refused_with_the_reason():
    model, inputs = build("residual_in_place")  # `out += x` inside the forward
    with pytest.raises(ValueError, match=r"engine='backpack' failed.*in place.*engine='auto'"):
        fisher_trace(model, inputs, engine="backpack")


@pytest.mark.parametrize("engine", ["ghost", "vmap", "backpack"])
def test_train_mode_batchnorm_has_no_per_image_gradients(engine: str):
    model, inputs = build("residual")
    with pytest.raises(ValueError, match=r"per-image gradients, but layer 'bn1'.*engine='batch', or batchnorm='eval'"):
        fisher_trace(model, inputs, engine=engine, batchnorm="train")


def test_train_mode_batchnorm_goes_to_batch_and_only_for_drawn_vectors():
    model, inputs = build("residual")
    assert set(fisher_trace(model, inputs, batchnorm="train", batch_size=5).engines.values()) == {"batch"}
    with pytest.raises(ValueError, match=r"one joint model.*estimator='propagated'.*batchnorm='eval'"):
        fisher_trace(model, inputs, estimator="exact", batchnorm="train")


def test_batchnorm_without_running_statistics_is_joint_in_eval_mode_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    result = fisher_trace(model, torch.randn(6, 4), batch_size=3)
    assert set(result.engines.values()) == {"batch"}
    with pytest.raises(ValueError, match=r"engine='ghost' needs per-image gradients, but layer '1'.*engine='batch'"):
        fisher_trace(model, torch.randn(6, 4), engine="ghost")


@pytest.mark.parametrize("estimator", ["exact", "empirical"])
def test_batch_engine_needs_vectors_with_mean_zero(estimator: str):
    model, inputs = build("mlp")
    with pytest.raises(ValueError, match=r"engine='batch' needs score vectors with mean zero.*'propagated'"):
        fisher_trace(model, inputs, torch.zeros(5, dtype=torch.long), estimator=estimator, engine="batch")


def test_vmap_that_cannot_map_is_an_error_when_asked_for_and_a_loop_under_auto():
    model, inputs = build("lstm")
    with pytest.raises(ValueError, match=r"engine='vmap' cannot map layer 'lstm'.*engine='auto'"):
        fisher_trace(model, inputs, estimator="exact", engine="vmap")
    assert fisher_trace(model, inputs, estimator="exact").engines == {"lstm": "loop", "out": "ghost"}


def test_embedding_that_renormalises_its_weights_is_refused():
    model = nn.Sequential(nn.Embedding(4, 3, max_norm=1.0), nn.Flatten(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"layer '0': Embedding\(max_norm=...\) rewrites its weights.*max_norm=None"):
        fisher_trace(model, torch.zeros(2, 2, dtype=torch.long))


def test_reentrant_checkpointing_is_refused():
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.second(torch.utils.checkpoint.checkpoint(self.first, x.requires_grad_(), use_reentrant=True))

    with pytest.raises(ValueError, match=r"activation checkpointing with use_reentrant=True.*use_reentrant=False"):
        fisher_trace(Checkpointed(), torch.randn(3, 4))


class Sometimes(nn.Module):
    """Calls a layer twice for images that the survey does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.fc(x)) if x[0, 0] > 100 else self.fc(x)


class Skips(nn.Module):
    """Leaves a layer out for images that the survey does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(x if x[0, 0] > 100 else self.fc(x))


OTHER_PATHS = {
    "called_twice": (Sometimes, "was called twice on this batch"),
    "closes": (Skips, "had no gradient on this batch, though the outputs depended on it for the first images"),
}


@pytest.mark.parametrize(("kind", "what"), OTHER_PATHS.values(), ids=OTHER_PATHS)
def test_another_path_on_later_batches_is_refused_by_ghost(kind, what: str):
    inputs = torch.zeros(4, 4)
    inputs[2:] = 101
    with pytest.raises(ValueError, match=rf"layer 'fc' {what}.*different paths.*engine='auto'"):
        fisher_trace(kind(), inputs, batch_size=2, engine="ghost")


@pytest.mark.parametrize(("kind", "what"), OTHER_PATHS.values(), ids=OTHER_PATHS)
def test_another_path_on_later_batches_is_measured_by_another_engine_from_there_on(kind, what: str):
    model = kind().double()
    inputs = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs[3:, 0] = 101
    result = fisher_trace(model, inputs, batch_size=3, estimator="exact")
    reference = exact_per_image(model, inputs)
    for layer, values in reference.items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=1e-10)
        assert result.stderr[result.layers.index(layer)] == pytest.approx(float(values.std()) / 6**0.5, rel=1e-10)
    assert result.engines["fc"] == "loop"
    assert what in result.reasons["fc"]
    drawn = fisher_trace(model, inputs, batch_size=3, seed=3)
    z = torch.cat([model(inputs[:3]), model(inputs[3:])]).detach()
    likelihood = find_loss("cross_entropy").likelihood(z, None)
    uniforms = ImageNoise(3).uniforms(0, (6, likelihood.noise))
    v = Estimator("propagated").vectors(likelihood, lambda _: uniforms, z)[0]
    single, joint = given_per_image(model, inputs[:3], v[:3]), given_per_batch(model, inputs[3:], v[3:])
    assert drawn["fc"] == pytest.approx((float(single["fc"].mean()) + joint["fc"]) / 2, rel=1e-10)
    assert drawn.engines["fc"] == "batch"


def test_an_input_changed_in_place_after_its_layer_is_noticed():
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = x + 1
            y = self.fc(x)
            x.mul_(2)
            return self.out(y + x)

    with pytest.raises(ValueError, match=r"layer 'fc': its input was changed in place"):
        fisher_trace(Overwrites(), torch.randn(3, 4))


ARGUMENTS = {
    "estimator": (
        dict(estimator="guess"),
        r"estimator must be one of exact, sampled, propagated, empirical; got 'guess'",
    ),
    "engine": (dict(engine="fast"), r"engine must be one of auto, ghost, vmap, backpack, batch; got 'fast'"),
    "loss": (dict(loss="hinge"), r"loss must be one of cross_entropy, .*; got 'hinge'"),
    "batchnorm": (dict(batchnorm="off"), r"batchnorm must be one of eval, train; got 'off'"),
    "draws": (dict(draws=0), r"draws must be at least 1; got 0"),
    "draws_exact": (dict(estimator="exact", draws=2), r"draws must be 1 for estimator='exact'.*got 2"),
    "max_images": (dict(max_images=0), r"max_images must be at least 1; got 0"),
    "batch_size": (dict(batch_size=-1), r"batch_size must be at least 1; got -1"),
    "rel_se": (dict(rel_se=5.0), r"rel_se must be between 0 and 1, for example 0.05; got 5.0"),
    "labels": (dict(estimator="empirical"), r"labels must be given with every batch for estimator='empirical'"),
}


@pytest.mark.parametrize(("options", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_wrong_arguments(options, message: str):
    model, inputs = build("mlp")
    with pytest.raises(ValueError, match=message):
        fisher_trace(model, inputs, **options)


IMAGES = {
    "nothing": ([], r"images must hold at least one image; got none"),
    "a_number": (3, r"images must be a tensor, an ImageSet or an iterable of batches; got int"),
    "text": (["abc"], r"batch 0 must be a tensor, an \(images, labels\) pair or a dictionary of tensors; got str"),
    "pixels": (torch.zeros(2, 4, dtype=torch.uint8), r"batch 0 must be normalised floating-point images; got uint8"),
    "lengths": ([(torch.zeros(2, 4), torch.zeros(3))], r"batch 0 must have as many labels as images.*\[2, 3\]"),
}


@pytest.mark.parametrize(("images", "message"), IMAGES.values(), ids=IMAGES)
def test_wrong_images(images, message: str):
    model, _ = build("mlp")
    with pytest.raises(ValueError, match=message):
        fisher_trace(model, images)


def test_wrong_labels():
    model, inputs = build("mlp")
    with pytest.raises(ValueError, match=r"labels must be class indices from 0 to 2; got 0 to 7"):
        fisher_trace(model, inputs, torch.tensor([0, 1, 2, 7, 1]), estimator="empirical")
    with pytest.raises(ValueError, match=r"labels must be one class index an image"):
        fisher_trace(model, inputs, torch.zeros(5, 3), estimator="empirical")


def test_wrong_outputs():
    with pytest.raises(ValueError, match=r"at least 2 classes for loss='cross_entropy'.*binary_cross_entropy"):
        fisher_trace(nn.Linear(4, 1), torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"one row of outputs for each image; got shape \[\] for 3 images"):
        fisher_trace(nn.Sequential(nn.Linear(4, 3), Mean()), torch.randn(3, 4))
    with pytest.raises(
        ValueError, match=r"model must return a tensor of outputs, or an object with .logits; got tuple"
    ):
        fisher_trace(Pair(), torch.randn(3, 4))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x), x


def test_a_frozen_model_is_refused():
    model, inputs = build("mlp")
    with pytest.raises(ValueError, match=r"requires_grad=True; got none.*requires_grad_\(True\)"):
        fisher_trace(model.requires_grad_(False), inputs)


def test_values_that_are_not_finite_name_the_layer():
    model, inputs = build("mlp")
    inputs[3, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"Fisher trace is not finite for layer '0', '2'"):
        fisher_trace(model, inputs)


def test_frozen_and_unused_layers_are_named_in_the_result():
    model, inputs = build("partly_frozen")
    result = fisher_trace(model, inputs)
    assert result.layers == ("2", "4")
    assert result.frozen_parameters == 20 + 16 + 3
    assert any("39 frozen parameters" in note for note in result.notes)
    model, inputs = build("unused_layer")
    result = fisher_trace(model, inputs)
    assert result["unused"] == result["cut"] == 0
    assert any("do not depend on unused, cut" in note for note in result.notes)


def test_weights_used_again_by_a_gradient_inside_the_forward_are_counted():
    """A Linear's forward and a gradient through it share one transpose node; the closed form was 22 times too small."""
    model = Energy().double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    result = fisher_trace(model, inputs, loss="squared_error", batch_size=5)
    assert result.engines["energy"] == "batch"
    with pytest.raises(ValueError, match=r"layer 'energy'.*also used outside its own forward"):
        fisher_trace(model, inputs, loss="squared_error", engine="ghost")


def test_a_replaced_forward_is_left_to_another_engine():
    model, inputs = patched().double(), torch.randn(5, 4, dtype=torch.float64)
    result = fisher_trace(model, inputs, estimator="exact")
    assert result.engines == {"0": "vmap", "2": "ghost"}
    truth = sum(float(v.mean()) for v in exact_per_image(model, inputs).values())
    assert result.total == pytest.approx(truth, rel=1e-10)


def test_images_that_are_not_independent_are_noticed():
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = self.fc(x)
            return self.out(x - x.mean(0))

    with pytest.raises(ValueError, match="an image's outputs change with the other images of its batch"):
        fisher_trace(Centred(), torch.randn(6, 4), engine="ghost")
    result = fisher_trace(Centred(), torch.randn(6, 4), batch_size=3)
    assert set(result.engines.values()) == {"batch"}
    assert any("as one joint model" in note for note in result.notes)


class Mixing(nn.Module):
    """An image's outputs depend on other images as `mix` says."""

    def __init__(self, mix) -> None:
        super().__init__()
        self.fc, self.out, self.mix = nn.Linear(4, 4), nn.Linear(4, 3), mix

    def forward(self, x):
        return self.mix(self.out(torch.tanh(self.fc(x))))


@pytest.mark.parametrize(
    "mix",
    [
        lambda z: z.cumsum(0),  # those before it, as an LSTM without batch_first=True has them
        lambda z: z.flip(0).cumsum(0).flip(0),  # those after it
        lambda z: 300 + 10 * (z - z.mean(0)),  # small beside what all outputs share
    ],
    ids=["before", "after", "beside_an_offset"],
)
def test_images_that_depend_on_some_others_are_noticed(mix):
    with pytest.raises(ValueError, match="an image's outputs change with the other images of its batch"):
        fisher_trace(Mixing(mix), torch.randn(6, 4), loss="squared_error", estimator="exact")


def test_batches_whose_outputs_have_other_sizes_have_vectors_of_their_own():
    model = nn.Linear(4, 2).double()
    batches = [torch.randn(3, n, 4, dtype=torch.float64) for n in (1, 6)]
    exact = fisher_trace(model, batches, loss="squared_error", estimator="exact")
    drawn = fisher_trace(model, batches, loss="squared_error", draws=400)
    assert abs(drawn.total - exact.total) < 4 * drawn.total_stderr_draws


def test_the_result_prints_as_a_table():
    model, inputs = build("residual")
    text = str(fisher_trace(model, inputs, draws=2))
    assert "True Fisher trace, propagated, 2 draws, 5 images" in text
    assert all(name in text for name in dict(Residual().named_children()) if name != "relu")
    assert sum(line.startswith("total") for line in text.splitlines()) == 1


def test_an_unknown_layer_lists_the_layers():
    model, inputs = build("mlp")
    with pytest.raises(KeyError, match="no layer 'fc'; the layers are 0, 2"):
        fisher_trace(model, inputs)["fc"]


def test_a_joint_models_batches_do_not_depend_on_the_number_of_images():
    """The size of a batch is part of the quantity where its images are normalised together."""
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 4)]
    model, images = nn.Sequential(*layers), torch.randn(128, 6)
    few, many = fisher_trace(model, images[:64]), fisher_trace(model, images)
    assert few.batch_size == many.batch_size == 64


def test_a_single_image_left_over_in_train_mode_is_named():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    with pytest.raises(ValueError, match="batch of a single image cannot be normalised with its own statistics"):
        fisher_trace(model, torch.randn(5, 6), batchnorm="train", batch_size=4)


def test_hooks_on_all_modules_do_not_change_the_fisher():
    model, images = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(5, 4)
    plain = fisher_trace(model, images)
    handle = nn.modules.module.register_module_full_backward_hook(lambda *_: (0.1 * torch.ones(5, 4),))
    try:
        assert (fisher_trace(model, images).trace == plain.trace).all()
        assert nn.modules.module._global_backward_hooks
    finally:
        handle.remove()


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"fisher_traces\(\) got an unexpected keyword argument 'draw'"):
        fisher_traces(nn.Linear(4, 3), torch.randn(5, 4), draw=2)


@pytest.mark.parametrize("measured", [fisher_trace, fisher_spectrum])
def test_labels_that_are_no_tensor_are_named(measured):
    model, inputs = build("mlp")
    with pytest.raises(ValueError, match=r"labels of batch 0 must be a tensor; got ndarray. Use torch.as_tensor"):
        measured(model, [(inputs, np.zeros(len(inputs), int))])
    with pytest.raises(ValueError, match=r"labels of batch 0 must be a tensor; got list"):
        measured(model, [(inputs, [0] * len(inputs))])


@pytest.mark.parametrize("measured", [fisher_trace, fisher_spectrum])
def test_a_model_that_fails_on_the_images_is_told_with_their_shape(measured):
    message = (
        r"model must run on the images; it fails on 3 of shape \[5\]. Check.* The model said: mat1 and mat2 shapes"
    )
    with pytest.raises(ValueError, match=message) as caught:
        measured(nn.Linear(4, 3), torch.zeros(6, 5))
    assert isinstance(caught.value.__cause__, RuntimeError)


class Embeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)

    def forward(self, tokens):
        return self.embed(tokens).mean(1)


def test_a_model_that_fails_on_named_images_is_told_with_their_shapes():
    with pytest.raises(ValueError, match=r"fails on 2 of shape tokens \[7\].* The model said: index out of range"):
        fisher_trace(Embeds(), {"tokens": torch.full((2, 7), 9)})


@pytest.mark.parametrize("measured", [fisher_trace, fisher_spectrum])
def test_a_model_of_inference_mode_is_refused(measured):
    with torch.inference_mode():
        model = nn.Linear(4, 3)
        with pytest.raises(ValueError, match=r"parameter 'weight' was made under torch.inference_mode\(\)"):
            measured(model, torch.randn(6, 4))
    assert measured(copy.deepcopy(model), torch.randn(6, 4)).images == 6  # the remedy
    normalised = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with torch.inference_mode():
        normalised[1].running_mean = torch.zeros(3)
    with pytest.raises(ValueError, match=r"buffer '1.running_mean' was made under torch.inference_mode\(\)"):
        measured(normalised, torch.randn(6, 4))


def test_sizes_of_memory_may_be_texts():
    model, inputs = build("mlp")
    expected = fisher_trace(model, inputs, max_memory=10**9).trace
    assert (fisher_trace(model, inputs, max_memory="1 GB").trace == expected).all()
    assert (
        fisher_traces(model, inputs, estimators=["propagated"], max_memory="1GB")["propagated"].trace == expected
    ).all()
    assert fisher_spectrum(model, inputs, max_memory="1GiB").images == len(inputs)
    for measured in (fisher_trace, fisher_spectrum):
        with pytest.raises(ValueError, match=r"max_memory must be at least .*; got 10"):
            measured(model, inputs, max_memory="10B")
        with pytest.raises(ValueError, match=r"max_memory must be a number of bytes such as 4GB, .*; got 'much'"):
            measured(model, inputs, max_memory="much")
    with pytest.raises(ValueError, match=r"max_memory must be a number of bytes such as 4GB, .*; got 'much'"):
        fisher_traces(model, inputs, estimators=["propagated"], max_memory="much")
