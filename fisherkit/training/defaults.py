"""The papers' training settings, by model.

Marks as in the literature notes of this project: [read] in a paper's own text or its authors' code, [other] in
third-party code or notes, [memory] not verified, [ours] no paper has it: our choice.
"""

from typing import Any

from fisherkit.training.options import OPTIMIZERS

_ALLCNN: dict[str, Any] = {
    "lr": 0.05,  # [other, three sources; read in the lab's later code]
    "lr_schedule": "exponential(0.97)",  # [other, three sources; read in the lab's later code]
    "momentum": 0.9,  # not stated in the paper: [read] 0.9 in the lab's later code; [other] two others use 0
    "weight_decay": 0.001,  # [other, three sources; read in the lab's later code]
    "augment": "crop+flip",  # translation up to 4 px and horizontal flip [memory; read]
}
_RESNET18: dict[str, Any] = {
    "lr": 0.1,  # [memory]
    "lr_schedule": "exponential(0.97)",  # [memory]
    "momentum": 0.9,  # [memory]
    "weight_decay": 5e-4,  # [memory]
    "augment": "crop+flip",  # [memory; read]
}
_MLP: dict[str, Any] = {
    "lr": 0.005,  # [memory]
    "lr_schedule": "constant",  # [memory]
    "momentum": 0.9,  # as for All-CNN
    "weight_decay": 0.0,  # [memory]
    "augment": "none",  # [ours]: no translation or flip of digits
}
_LINEAR: dict[str, Any] = _MLP  # [ours]: a fully connected net of one layer
_VIT_TINY: dict[str, Any] = {
    "lr": 0.02,  # [ours]
    "lr_schedule": "cosine",  # [ours]: usual for transformers
    "momentum": 0.9,  # [ours]
    "weight_decay": 1e-4,  # [ours]
    "augment": "crop+flip",  # [ours]: as for the convolutional nets
}
_CUSTOM: dict[str, Any] = {
    "lr": 0.05,  # [ours]: All-CNN's, the lower of the two convolutional nets'
    "lr_schedule": "exponential(0.97)",  # [ours]: the papers'
    "momentum": 0.9,  # [ours]
    "weight_decay": 5e-4,  # [ours]: ResNet-18's
    "augment": "crop+flip",  # [ours]: as for the convolutional nets
}
_BY_MODEL = {
    "allcnn": _ALLCNN,
    "resnet18": _RESNET18,
    "mlp": _MLP,
    "linear": _LINEAR,
    "vit_tiny": _VIT_TINY,
}
_ADAM: dict[str, Any] = {
    "lr": 1e-3,  # [memory]
    "lr_schedule": "constant",  # [ours]: the papers name no decay for Adam
    "momentum": 0.9,  # Adam's first beta, PyTorch's default [ours]
    "weight_decay": 1e-4,  # [memory]; coupled, added to the gradient
}


def paper_defaults(model: str, optimizer: str = "sgd") -> dict[str, Any]:
    """`lr`, `lr_schedule`, `momentum`, `weight_decay` (a number) and `augment` (a text) for a model.

    A model that is not one of fisherkit's (`package.module:callable`) gets settings of a convolutional net.
    Adam has its own lr, schedule and weight decay, the same for every model. The settings were made for
    CIFAR-10 and, for the mlp, MNIST; horizontal flips in particular suit neither digits nor letters.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {optimizer!r}.")
    settings = _BY_MODEL.get(model, _CUSTOM)
    return {**settings, **_ADAM} if optimizer == "adam" else dict(settings)
