"""Loss modules of torch.nn as losses: those that are the -log p of a distribution, and why the others are not."""

from torch import nn
from torch.nn.modules.loss import _Loss

from .cross_entropy import CrossEntropy
from .independent import BinaryCrossEntropy
from .likelihood import Loss

REMEDIES: dict[type[nn.Module], str] = {
    nn.MSELoss: (
        "say loss='squared_error': the Fisher is that of a Gaussian of variance 1 around the outputs, whose -log p is "
        "half the squared error, summed over an image's outputs; a mean, or another factor, would be another variance."
    ),
    nn.NLLLoss: (
        "say loss='cross_entropy': softmax(log p) is p, so outputs that are log-probabilities have the same Fisher "
        "there as the logits they came from."
    ),
    nn.BCELoss: (
        "return the logits and say loss='binary_cross_entropy', or keep probabilities p with "
        "loss=lambda p: torch.distributions.Bernoulli(probs=p)."
    ),
    nn.GaussianNLLLoss: "say loss=lambda z: torch.distributions.Normal(mean, scale) with mean and scale made of z.",
    nn.PoissonNLLLoss: "say loss=lambda z: torch.distributions.Poisson(z.exp()), or Poisson(z) for log_input=False.",
    nn.L1Loss: "say loss=lambda z: torch.distributions.Laplace(z, 1.0), whose -log p is the absolute error.",
    nn.KLDivLoss: "say loss='cross_entropy' for outputs that are logits or log-probabilities of one class.",
    nn.MultiLabelSoftMarginLoss: "say loss='binary_cross_entropy', the same without the mean over the outputs.",
}


def loss_of_module(module: nn.Module) -> Loss:
    """The loss whose -log p a torch.nn loss module is, whatever its reduction.

    Raises:
        ValueError: it is not the -log p of a distribution; the message says why, and what to say instead.
    """
    if type(module) is nn.CrossEntropyLoss:
        _refuse_weight(module, "weight")
        if module.label_smoothing:
            raise ValueError(
                f"loss must be the -log p of a distribution; CrossEntropyLoss(label_smoothing="
                f"{module.label_smoothing:g}) is not: it averages -log p over labels that the network did not say, "
                "so it has no Fisher. The Fisher of the network's own p(y|x) is the same with and without smoothing: "
                "use nn.CrossEntropyLoss() or loss='cross_entropy'."
            )
        return CrossEntropy(ignore_index=module.ignore_index, any_positions=True)
    if type(module) is nn.BCEWithLogitsLoss:
        _refuse_weight(module, "weight")
        _refuse_weight(module, "pos_weight")
        return BinaryCrossEntropy()
    name = type(module).__name__
    remedy = REMEDIES.get(type(module), "give its distribution as loss=lambda outputs: torch.distributions...")
    raise ValueError(
        f"loss must be a name, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss or a callable of the outputs; got {name}. "
        f"Instead {remedy}"
    )


def is_torch_loss(value: object) -> bool:
    """Whether it is one of torch.nn's loss modules, or derived from one: called on outputs and labels."""
    return isinstance(value, _Loss)


def _refuse_weight(module: nn.Module, name: str) -> None:
    if getattr(module, name) is not None:
        raise ValueError(
            f"loss must be the -log p of a distribution; {type(module).__name__}({name}=...) is not: with the weights, "
            "exp(-loss) no longer sums to 1 over the labels, so there is no p(y|x) to take the Fisher of. The Fisher "
            f"of the network's own p(y|x) does not know the weights: use nn.{type(module).__name__}() without them."
        )
