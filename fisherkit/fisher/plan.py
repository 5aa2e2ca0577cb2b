"""Which engine measures which layer, and why: the only place where engines are chosen or refused."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten

from torch import Tensor, nn

from .backpack_engine import backpack, why_not_backpack
from .batch import batch
from .forms.table import why_no_form
from .ghost import Respond, ghost
from .inputs import Inputs
from .layers import Layer, is_complex
from .per_image import looped, vmapped
from .survey import Survey
from .vectors import Vectors

ENGINES = ("auto", "ghost", "vmap", "backpack", "batch")
Engine = Callable[[nn.Module, Inputs, Callable[[Tensor], Vectors], Sequence[Layer]], dict[str, Tensor]]
PER_IMAGE: dict[str, Engine] = {"vmap": vmapped, "loop": looped, "backpack": backpack}


@dataclass(frozen=True)
class Plan:
    """The engine of every layer, by name, in the order of the layers."""

    layers: tuple[Layer, ...]
    engines: dict[str, str]
    reasons: dict[str, str] = field(default_factory=dict)  # layer -> why not by the first choice, where it is not

    def measured_by(self, engine: str) -> list[Layer]:
        """The layers that one engine measures."""
        return [layer for layer in self.layers if self.engines[layer.name] == engine]

    @property
    def joint(self) -> bool:
        """Whether some layer has one value a batch rather than one an image."""
        return "batch" in self.engines.values()

    def moved(self, layer: str, engine: str, reason: str) -> "Plan":
        """One layer to another engine."""
        return replace(self, engines=self.engines | {layer: engine}, reasons=self.reasons | {layer: reason})


def measure_together(
    plans: Sequence[Plan],
    model: nn.Module,
    inputs: Inputs,
    vectors: Callable[[Tensor], Sequence[Vectors]],
    *,
    respond: Respond | None = None,
) -> list[dict[str, Tensor]]:
    """Squared norms of every layer on one batch, for each plan: [vectors, images], or [vectors, 1] by `batch`.

    Plans that leave the same layers to ghost share one forward pass. `vectors` gives each plan's from the outputs;
    plans whose vectors have mean zero come first. `respond` as for `ghost`.
    """
    values: list[dict[str, Tensor]] = [{} for _ in plans]
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, plan in enumerate(plans):
        alike.setdefault(tuple(layer.name for layer in plan.measured_by("ghost")), []).append(index)
    for members in alike.values():
        _measure_by_one_pass(plans, members, values, model=model, inputs=inputs, vectors=vectors, respond=respond)
    for index, plan in enumerate(plans):
        for name, engine in PER_IMAGE.items():
            layers = plan.measured_by(name)
            if layers:
                values[index] |= engine(model, inputs, of_plan(vectors, index), layers)
    return [{layer.name: found[layer.name] for layer in plan.layers} for plan, found in zip(plans, values, strict=True)]


def of_plan(vectors: Callable[[Tensor], Sequence[Vectors]], index: int) -> Callable[[Tensor], Vectors]:
    """One plan's vectors as a function of the outputs."""
    return lambda outputs: vectors(outputs)[index]


def _measure_by_one_pass(
    plans: Sequence[Plan],
    members: Sequence[int],
    values: list[dict[str, Tensor]],
    *,
    model: nn.Module,
    inputs: Inputs,
    vectors: Callable[[Tensor], Sequence[Vectors]],
    respond: Respond | None,
) -> None:
    """Ghost and batch for plans that leave the same layers to ghost."""
    counts: list[int] = []

    def chained(outputs: Tensor) -> Vectors:
        parts = [vectors(outputs)[index] for index in members]
        counts[:] = map(len, parts)
        return Vectors.chained(parts)

    first = plans[members[0]]
    ghosts, joint = first.measured_by("ghost"), first.measured_by("batch")
    if ghosts:
        mixed = bool(joint) and not all(plans[index].joint for index in members)
        found = ghost(model, inputs, chained, ghosts, joint=joint, mixed=mixed, respond=respond)
    elif joint:
        found = batch(model, inputs, chained, joint)
    else:
        return
    start = 0
    for index, count in zip(members, counts, strict=True):
        names = [name for name in found if plans[index].engines[name] in ("ghost", "batch")]
        values[index] |= {name: found[name][start : start + count] for name in names}
        start += count


def make_plan(layers: Iterable[Layer], found: Survey, *, engine: str, stochastic: bool, batchnorm: str) -> Plan:
    """Choose an engine for every layer.

    Raises:
        ValueError: the engine asked for cannot measure a layer rightly; the message names the layer, the reason
            and an engine that can.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}.")
    seen = tuple(_as_seen(layer, found) for layer in layers)
    _refuse_joint(found, engine=engine, stochastic=stochastic, batchnorm=batchnorm)
    if found.joint is not None:
        return _one_engine(seen, "batch", {layer.name: found.joint for layer in seen} if engine == "auto" else {})
    reasons = {layer.name: why_not_ghost(layer, found) for layer in seen}
    if engine == "auto":
        rest = "batch" if stochastic else "vmap"
        engines = {name: "ghost" if reason is None else rest for name, reason in reasons.items()}
        return Plan(seen, engines, {name: reason for name, reason in reasons.items() if reason})
    if engine == "ghost":
        _refuse(reasons, engine, "engine='auto' or 'batch'" if stochastic else "engine='auto' or 'vmap'")
    if engine == "backpack":
        _refuse({layer.name: _why_not_backpack(layer, found) for layer in seen}, engine, "engine='auto'")
    return _one_engine(seen, engine)


def _as_seen(layer: Layer, found: Survey) -> Layer:
    usage = found.usage[layer.name]
    return replace(layer, overwritten=usage.overwritten, broadcast=usage.broadcast, foreign=found.foreign)


def _one_engine(layers: tuple[Layer, ...], engine: str, reasons: dict[str, str] | None = None) -> Plan:
    return Plan(layers, {layer.name: engine for layer in layers}, reasons or {})


def _refuse_joint(found: Survey, *, engine: str, stochastic: bool, batchnorm: str) -> None:
    """Per-image gradients do not exist where the images of a batch depend on each other."""
    if found.opaque:
        raise ValueError(
            f"model uses {found.opaque}, which hides its layers from autograd; set use_reentrant=False, or measure "
            "without checkpointing."
        )
    if engine == "batch" and not stochastic:
        raise ValueError(
            "engine='batch' needs score vectors with mean zero: estimator='propagated' or 'sampled'. "
            "For exact and empirical Fisher use engine='auto', 'ghost' or 'vmap'."
        )
    if found.joint is None:
        return
    if engine not in ("auto", "batch"):
        raise ValueError(
            f"engine={engine!r} needs per-image gradients, but {found.joint}; use engine='batch'"
            + (", or batchnorm='eval'." if batchnorm == "train" else ".")
        )
    if not stochastic:
        raise ValueError(
            f"{found.joint}, so the images of a batch form one joint model, for which only estimator='propagated' "
            "or 'sampled' is defined here" + ("; or use batchnorm='eval'." if batchnorm == "train" else ".")
        )


def why_not_ghost(layer: Layer, found: Survey) -> str | None:
    """Why a closed form would be wrong for this layer in this model, or None when it is right."""
    if is_complex(layer):
        return "its parameters are complex"
    if found.hides:
        return f"an autograd.Function runs layer {found.hides!r} out of sight, and needs all parameters as in training"
    if layer.broadcast:
        return None
    return why_no_form(layer) or _why_not_once(layer, found)


def _why_not_backpack(layer: Layer, found: Survey) -> str | None:
    return _why_not_once(layer, found) or why_not_backpack(layer)


def _why_not_once(layer: Layer, found: Survey) -> str | None:
    """The parameters must enter the graph once, through their own module's forward on one row an image."""
    usage = found.usage[layer.name]
    if layer.name in found.tied:
        return "its weights are tied to another module's"
    if not usage.differentiable:
        return "gradients are disabled in its forward"
    if not usage.reached:
        return "the outputs for the first images do not depend on it"
    if usage.calls == 0:
        return "its parameters are used outside its own forward"
    if usage.calls > 1:
        return f"it is called {usage.calls} times in a forward pass"
    if usage.recomputed:
        return "it is recomputed in the backward pass (activation checkpointing)"
    if not usage.arrives:
        return "its parameters are used outside its own forward, whose output is not used"
    if not set(usage.uses.values()) <= {0, 1}:
        return "its parameters are also used outside its own forward"
    if usage.rows is None:
        return "its input has no dimension for the images"
    if usage.rows != found.images:
        return f"it is called with {usage.rows} rows for {found.images} images"
    if not usage.follows:
        return "the rows of its input are not the images"
    return None


def _refuse(reasons: dict[str, str | None], engine: str, instead: str) -> None:
    refused = {name: reason for name, reason in reasons.items() if reason}
    if not refused:
        return
    name, reason = next(iter(refused.items()))
    others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    raise ValueError(f"engine={engine!r} cannot measure layer {name!r}{others}: {reason}. Use {instead}.")


def settle_vmap(
    plan: Plan, model: nn.Module, inputs: Inputs, vectors: Callable[[Tensor], Vectors], *, asked: bool
) -> Plan:
    """Try `vmap` on a few images; where torch.func cannot map this model (an LSTM, say) take `loop` instead.

    Raises:
        ValueError: `vmap` was asked for and cannot do it.
    """
    layers = plan.measured_by("vmap")
    if not layers:
        return plan
    try:
        vmapped(model, inputs, vectors, layers)
    except Exception as error:  # of any kind: the model's own code meets mapped tensors
        said = shorten(str(error).strip().partition("\n")[0] or type(error).__name__, 120, placeholder=" ...")
        if asked:
            raise ValueError(f"engine='vmap' cannot map layer {layers[0].name!r}: {said} Use engine='auto'.") from error
        names = {layer.name for layer in layers}
        engines = {name: "loop" if name in names else engine for name, engine in plan.engines.items()}
        slow = {name: f"{reason}; torch.func.vmap: {said}" for name, reason in plan.reasons.items() if name in names}
        return replace(plan, engines=engines, reasons=plan.reasons | slow)
    return plan
