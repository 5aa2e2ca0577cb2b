"""Dense, obvious, slow references in float64. Nothing here shares code with fisherkit."""

from itertools import product

import torch
from torch import Tensor, nn


def rows(inputs, i):
    """Image i as a batch of one."""
    return {k: v[i : i + 1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[i : i + 1]


def count(inputs) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)


def outputs(model, inputs) -> Tensor:
    z = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return getattr(z, "logits", z)


def layer_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by owning module; a shared one belongs to its first owner."""
    seen, layers = set(), {}
    for path, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen.update(map(id, own))
        if own:
            layers[path or "(model)"] = own
    return layers


def real(g: Tensor) -> Tensor:
    """A complex parameter is two real ones."""
    return torch.view_as_real(g) if g.is_complex() else g


def jacobians(model, inputs, i) -> dict[str, Tensor]:
    """d outputs / d theta_l for image i: [outputs, parameters of l]."""
    z = outputs(model, rows(inputs, i)).reshape(-1)
    layers = layer_parameters(model)
    dense = {name: [] for name in layers}
    for value in z:
        for name, parameters in layers.items():
            grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            flat = [
                real(torch.zeros_like(p) if g is None else g.to_dense()).reshape(-1)
                for g, p in zip(grads, parameters, strict=True)
            ]
            dense[name].append(torch.cat(flat))
    return {name: torch.stack(values) for name, values in dense.items()}


def hessian(z: Tensor, loss: str) -> Tensor:
    """H of -log p(y | z) in z by definition, for one image's outputs z, flattened."""
    if z.dim() > 1 and "cross_entropy" in loss and "binary" not in loss:
        return hessian_over_positions(z.detach(), loss)
    z = z.detach().reshape(-1)
    if loss == "cross_entropy":
        p = torch.softmax(z, 0)
        return torch.diag(p) - torch.outer(p, p)
    if loss == "binary_cross_entropy":
        p = torch.sigmoid(z)
        return torch.diag(p * (1 - p))
    return torch.eye(len(z), dtype=z.dtype)


def hessian_over_positions(z: Tensor, loss: str) -> Tensor:
    """Of softmax cross-entropy summed over positions: only log Z of each position is not linear in z."""
    dim = -1 if "token" in loss else 0  # of the classes

    def log_z(flat: Tensor) -> Tensor:
        values = torch.logsumexp(flat.reshape(z.shape), dim)
        return (values[:-1] if loss == "next_token_cross_entropy" else values).sum()

    return torch.autograd.functional.hessian(log_z, z.reshape(-1))


def exact_per_image(model, inputs, loss="cross_entropy") -> dict[str, Tensor]:
    """tr(J_l^T H J_l) for every image: {layer: [images]}."""
    values = {name: [] for name in layer_parameters(model)}
    for i in range(count(inputs)):
        h = hessian(outputs(model, rows(inputs, i))[0], loss)
        for name, j in jacobians(model, inputs, i).items():
            values[name].append(torch.einsum("kp,kl,lp->", j, h, j))
    return {name: torch.stack(v).detach() for name, v in values.items()}


def given_per_image(model, inputs, v) -> dict[str, Tensor]:
    """|| J_l^T v_i ||^2 for every image and the given v [images, ...]: {layer: [images]}."""
    values = {name: [] for name in layer_parameters(model)}
    for i in range(count(inputs)):
        for name, j in jacobians(model, inputs, i).items():
            values[name].append((v[i].reshape(-1) @ j).square().sum())
    return {name: torch.stack(x).detach() for name, x in values.items()}


def given_per_batch(model, inputs, v) -> dict[str, float]:
    """|| sum_i J_l^T v_i ||^2 / images: {layer: value}."""
    sums = {}
    for i in range(count(inputs)):
        for name, j in jacobians(model, inputs, i).items():
            sums[name] = sums.get(name, 0) + v[i].reshape(-1) @ j
    return {name: float(g.square().sum()) / count(inputs) for name, g in sums.items()}


def sign_vectors(n: int) -> Tensor:
    """All 2^n sign vectors [2^n, n]."""
    return torch.tensor(list(product((-1.0, 1.0), repeat=n)), dtype=torch.float64)
