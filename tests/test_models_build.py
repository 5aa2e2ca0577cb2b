import re

import pytest
import torch
from torch import nn

from fisherkit.models import MODELS, build_model

SIZES = {"classes": 10, "channels": 3, "image_size": 32}
SMALL = {"resnet18": "4", "allcnn": "6", "mlp": "20-10", "linear": None, "vit_tiny": "24"}


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_alone_decides_and_the_global_state_is_left_alone(name: str) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    first = weights(build_model(name, **SIZES, width=SMALL[name], seed=7))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(456)
    again = weights(build_model(name, **SIZES, width=SMALL[name], seed=7))
    other = weights(build_model(name, **SIZES, width=SMALL[name], seed=8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


WRONG = {
    "unknown name": (
        {"name": "resnet"},
        "model must be one of resnet18, allcnn, mlp, linear, vit_tiny or package.module:callable; got 'resnet'. "
        "Did you mean 'resnet18'?",
    ),
    "empty name": ({"name": ""}, "or package.module:callable; got ''."),
    "width text": ({"name": "resnet18", "width": "wide"}, "width of resnet18 must be a whole number; got 'wide'."),
    "width zero": ({"name": "allcnn", "width": "0"}, "width of allcnn must be at least 1; got '0'."),
    "width fraction": ({"name": "allcnn", "width": "0.5"}, "width of allcnn must be a whole number; got '0.5'."),
    "widths for one": ({"name": "resnet18", "width": "8-8"}, "width of resnet18 must be a whole number; got '8-8'."),
    "mlp widths": (
        {"name": "mlp", "width": "300--100"},
        "width of mlp must be whole numbers with dashes or commas, as in 300-100; got '300--100'.",
    ),
    "mlp width zero": ({"name": "mlp", "width": "300-0"}, "width of mlp must be at least 1; got '0'."),
    "width of linear": ({"name": "linear", "width": "3"}, "width must be left out, for linear has none; got '3'."),
    "option where none": (
        {"name": "resnet18", "options": {"depth": "3"}},
        "options must be empty, for resnet18 has none; got 'depth'.",
    ),
    "unknown option": (
        {"name": "vit_tiny", "options": {"dept": "3"}},
        "option of vit_tiny must be one of depth, heads, patch; got 'dept'. Did you mean 'depth'?",
    ),
    "boolean": (
        {"name": "allcnn", "options": {"last_bn_relu": "maybe"}},
        "last_bn_relu of allcnn must be true or false; got 'maybe'.",
    ),
    "depth": ({"name": "vit_tiny", "options": {"depth": "0"}}, "depth of vit_tiny must be at least 1; got '0'."),
    "heads": ({"name": "vit_tiny", "options": {"heads": "5"}}, "heads must divide the width, 192; got 5."),
    "patch": ({"name": "vit_tiny", "options": {"patch": "5"}}, "patch must divide the image size, 32; got 5."),
    "classes": ({"name": "linear", "classes": 0}, "classes must be at least 1; got 0."),
    "channels": ({"name": "linear", "channels": -1}, "channels must be at least 1; got -1."),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case: str) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(**(SIZES | arguments))


def test_options_are_read_in_any_case() -> None:
    model = build_model("allcnn", **SIZES, width="4", options={"last_bn_relu": "True"})
    assert hasattr(model, "relu9")
