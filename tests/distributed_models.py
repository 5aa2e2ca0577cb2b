"""Run as a script: models under torch.distributed in a process of its own, whose outcome is printed as JSON.

Not in the process of the tests: the end of a gloo group can wait for ever for a thread that waits for Python.
"""

import copy
import json
import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from fisherkit.fisher import FisherTrace, fisher_trace

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def same(a: FisherTrace, b: FisherTrace) -> bool:
    return a.layers == b.layers and a.engines == b.engines and bool((a.trace == b.trace).all())


def train_step(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(X).logsumexp(1).sum().backward()
    return [p.grad.clone() for p in model.parameters()]


def trains_on(model: nn.Module, plain: nn.Module) -> bool:
    """Whether steps with measurements in between give the gradients of the plain model."""
    expected, gradients = train_step(plain), []
    for _ in range(2):
        fisher_trace(model, X)
        gradients.append(train_step(model))
    return all(torch.equal(a, b) for step in gradients for a, b in zip(step, expected, strict=True))


def whole_model() -> dict[str, bool]:
    plain = small()
    model = DistributedDataParallel(copy.deepcopy(plain))
    exact = [fisher_trace(m, X, estimator="exact") for m in (model, plain)]
    drawn = [fisher_trace(m, X, seed=1) for m in (model, plain)]
    return {"same_exact": same(*exact), "same_drawn": same(*drawn), "trains_on": trains_on(model, plain)}


def submodule() -> dict[str, bool]:
    """With buffers, which its forward would send round to the other processes, who may not be measuring."""
    model, plain = small(), small()
    for net in (model, plain):
        net[2] = nn.Sequential(net[2], nn.BatchNorm1d(4).double())
        net.eval()
    parallel = model[2] = DistributedDataParallel(model[2])
    sent, send = [], parallel._sync_buffers
    parallel._sync_buffers = lambda: sent.append(True) or send()
    measured = fisher_trace(model, X), fisher_trace(plain, X)
    silent = not sent
    return {"same": same(*measured), "silent": silent, "trains_on": trains_on(model, plain), "sends": bool(sent)}


def sharded() -> dict[str, str]:
    model = small()
    fully_shard(model)
    try:
        fisher_trace(model, X)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": "none"}


CASES: dict[str, Callable[[], dict]] = {"whole_model": whole_model, "submodule": submodule, "sharded": sharded}

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    print(json.dumps({name: case() for name, case in CASES.items()}), flush=True)
    os._exit(0)  # without taking the group apart
