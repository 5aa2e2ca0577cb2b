from collections import Counter

import pytest
import torch
from torch import nn

from fisherkit.models import MODELS, build_model

SMALL = {"resnet18": "4", "allcnn": "6", "mlp": "20-10", "linear": None, "vit_tiny": "24"}


def small_model(name: str, *, channels: int = 3, image_size: int = 32, **options: str) -> nn.Module:
    return build_model(name, classes=10, channels=channels, image_size=image_size, width=SMALL[name], options=options)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_model_is_tested_here() -> None:
    assert tuple(SMALL) == MODELS


def test_resnet18_has_its_known_size() -> None:
    model = build_model("resnet18", classes=10, channels=3, image_size=32)
    assert count(model) == 11_173_962
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20  # 17 and 3 shortcuts
    assert sum(convolution.weight.numel() for convolution in convolutions) == 11_159_232
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())
    assert (model.conv1.kernel_size, model.conv1.stride) == ((3, 3), (1, 1))


def test_resnet18_names_are_those_of_common_checkpoints() -> None:
    names = set(small_model("resnet18").state_dict())
    assert {"conv1.weight", "bn1.running_mean", "linear.weight", "linear.bias"} <= names
    assert {"layer1.0.conv1.weight", "layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_var"} <= names
    assert "layer1.0.shortcut.0.weight" not in names


@pytest.mark.parametrize("width", ["1", "16", "20"])
def test_resnet18_width(width: str) -> None:
    model = build_model("resnet18", classes=7, channels=1, image_size=32, width=width)
    assert model.conv1.weight.shape == (int(width), 1, 3, 3)
    assert model.linear.weight.shape == (7, 8 * int(width))


def test_resnet18_block_is_its_equation() -> None:
    block = small_model("resnet18").eval().layer2[0]
    features = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = torch.relu(block.bn1(block.conv1(features)))
    expected = torch.relu(block.bn2(block.conv2(inner)) + block.shortcut(features))
    assert torch.equal(block(features), expected)
    assert block(features).shape == (2, 8, 4, 4)


@pytest.mark.parametrize("last_bn_relu", ["false", "true"])
def test_allcnn_has_the_convolution_weights_of_the_paper(last_bn_relu: str) -> None:
    options = {"last_bn_relu": last_bn_relu}
    model = build_model("allcnn", classes=10, channels=3, image_size=32, options=options)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sum(convolution.weight.numel() for convolution in convolutions) == 1_617_312
    shapes = [(each.out_channels, each.kernel_size[0], each.stride[0]) for each in convolutions]
    assert shapes == [
        *[(96, 3, 1)] * 2,
        (192, 3, 2),
        *[(192, 3, 1)] * 2,
        (192, 3, 2),
        (192, 3, 1),
        (192, 1, 1),
        (10, 1, 1),
    ]


def test_allcnn_last_layer_switch() -> None:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, literal = (small_model("allcnn", last_bn_relu=value) for value in ("false", "true"))
    assert [type(module).__name__ for module in plain][-3:] == ["Conv2d", "AdaptiveAvgPool2d", "Flatten"]
    assert [type(module).__name__ for module in literal][-4:-2] == ["BatchNorm2d", "ReLU"]
    assert plain(images).min() < 0
    assert literal(images).min() >= 0
    assert plain.conv9.bias is not None
    assert literal.conv9.bias is None


def test_allcnn_width_scales_both() -> None:
    model = build_model("allcnn", classes=10, channels=1, image_size=32, width="5")
    assert (model.conv1.out_channels, model.conv3.out_channels, model.conv8.out_channels) == (5, 10, 10)


def test_mlp_default_is_the_network_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_model("mlp", classes=10, channels=1, image_size=28)
    linears = [module for module in model if isinstance(module, nn.Linear)]
    assert [(each.in_features, each.out_features) for each in linears] == [
        (784, 2500),
        (2500, 2000),
        (2000, 1500),
        (1500, 1000),
        (1000, 500),
        (500, 10),
    ]
    assert [type(module).__name__ for module in model] == [
        "Flatten",
        *["Linear", "BatchNorm1d", "ReLU"] * 5,
        "Linear",
    ]


@pytest.mark.parametrize("width", ["100-50", "100,50", " 100 , 50 "])
def test_mlp_widths(width: str) -> None:
    model = build_model("mlp", classes=10, channels=3, image_size=32, width=width)
    assert count(model) == 3072 * 100 + 2 * 100 + 100 * 50 + 2 * 50 + 50 * 10 + 10


def test_mlp_without_batchnorm_has_biases() -> None:
    model = build_model("mlp", classes=10, channels=3, image_size=32, width="100-100", options={"batchnorm": "false"})
    assert not any(isinstance(module, nn.BatchNorm1d) for module in model)
    assert count(model) == 3072 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10


def test_linear_is_logistic_regression() -> None:
    model = build_model("linear", classes=10, channels=3, image_size=32)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weight, bias = model.parameters()
    torch.testing.assert_close(model(images), images.flatten(1) @ weight.T + bias)


def test_vit_tiny_has_its_size() -> None:
    model = build_model("vit_tiny", classes=10, channels=3, image_size=32)
    block = 2 * 2 * 192 + (192 + 1) * 3 * 192 + (192 + 1) * 192 + (192 + 1) * 768 + (768 + 1) * 192
    tokens = 192 + 65 * 192
    assert count(model) == 6 * block + tokens + (3 * 16 + 1) * 192 + 2 * 192 + 193 * 10
    bare = dict(model.named_parameters(recurse=False))
    assert {name: tuple(parameter.shape) for name, parameter in bare.items()} == {
        "cls_token": (1, 1, 192),
        "position_embedding": (1, 65, 192),
    }


def test_vit_tiny_options() -> None:
    model = small_model("vit_tiny", depth="2", heads="4", patch="8")
    assert len(model.blocks) == 2
    assert model.blocks[0].attention.heads == 4
    assert model.position_embedding.shape == (1, 17, 24)


def test_attention_is_torch_attention() -> None:
    attention = small_model("vit_tiny", heads="3").blocks[0].attention
    tokens = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    reference = nn.MultiheadAttention(24, 3, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.proj.weight,
            "out_proj.bias": attention.proj.bias,
        }
    )
    torch.testing.assert_close(attention(tokens), reference(tokens, tokens, tokens)[0])


def test_vit_tiny_sees_where_a_patch_is() -> None:
    model = small_model("vit_tiny").eval()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(model(images), model(images.flip(3)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "image_size"), [(1, 28), (3, 32), (1, 8)])
def test_logits_for_other_images(name: str, channels: int, image_size: int) -> None:
    model = small_model(name, channels=channels, image_size=image_size)
    images = torch.randn(3, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()
    assert 0.01 < logits.std() < 5


@pytest.mark.parametrize("name", MODELS)
def test_every_module_is_called_once_and_every_parameter_has_an_owner_that_is(name: str) -> None:
    model, calls = small_model(name), Counter()
    for path, module in model.named_modules():
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).sum().backward()
    containers = {path for path, module in model.named_modules() if isinstance(module, nn.Sequential)}
    assert set(calls.values()) == {1}
    assert {path for path, _ in model.named_modules()} - set(calls) <= containers
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_in_place_or_random(name: str) -> None:
    model = small_model(name)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_per_image_gradients_by_vmap_are_those_of_a_loop(name: str) -> None:
    model = small_model(name, image_size=8).double().eval()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    parameters = {path: parameter.detach() for path, parameter in model.named_parameters()}

    def output(weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, weights, image[None]).square().sum()

    together = torch.func.vmap(torch.func.grad(output), in_dims=(None, 0))(parameters, images)
    for index, image in enumerate(images):
        for path, gradient in torch.func.grad(output)(parameters, image).items():
            torch.testing.assert_close(together[path][index], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "allcnn"])
def test_convolutions_before_relu_have_he_variance(name: str) -> None:
    model = build_model(name, classes=10, channels=3, image_size=32, width="32")
    last = {"allcnn": ["conv9"], "resnet18": []}[name]
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and path not in last:
            variance = 2 / (module.out_channels * module.kernel_size[0] ** 2)
            weights = module.weight.detach()
            assert abs(weights.var() / variance - 1) < 5 * (2 / weights.numel()) ** 0.5
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_hidden_linear_layers_have_he_variance() -> None:
    model = build_model("mlp", classes=10, channels=1, image_size=28, width="200-100")
    for hidden in (model.linear1, model.linear2):
        weights = hidden.weight.detach()
        assert abs(weights.var() * hidden.in_features / 2 - 1) < 5 * (2 / weights.numel()) ** 0.5
