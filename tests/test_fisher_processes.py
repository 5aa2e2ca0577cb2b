"""Several processes measure together and get what one process gets; an error in one stops all."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from fisherkit_cli.main import fisherkit as fisherkit_command
from torch import Tensor, nn

import fisherkit
from fisherkit.fisher import FisherTrace, fisher_spectrum, fisher_trace, fisher_traces
from fisherkit.fisher.processes import Processes, in_order
from fisherkit.models import build_model
from fisherkit.recording import FisherTracker

WORLD = 2


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


class Odd(nn.Module):
    """Does something else for the images numbered `special` in their first feature, in one process or everywhere."""

    def __init__(self, what: str, special: float) -> None:
        super().__init__()
        self.what, self.special = what, special
        self.extra = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.extra(x)
        if len(x) > 3 and bool((x[:, 0] == self.special).any()):
            if self.what == "path":
                return self.extra(y)
            if self.what == "memory" and len(x) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            if self.what == "error":
                raise ArithmeticError("the model does not like this image")
        return y


def network(*first: nn.Module, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        middle = [nn.BatchNorm1d(6)] if norm else []
        model = nn.Sequential(*first, nn.Linear(4, 6), *middle, nn.Tanh(), nn.Linear(6, 3)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model.eval()


def inputs(n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (n,), generator=generator)


X, LABELS = inputs()
LATE = float(X[12, 0])  # of the second batch of eight, which the second process measures


def numbers(result: FisherTrace) -> dict[str, Any]:
    """Everything that must not differ."""
    names = ("trace", "stderr", "stderr_draws", "skewness")
    plain = ("total", "total_stderr", "total_stderr_draws", "images", "groups", "entropy", "batch_size")
    return {
        **{name: getattr(result, name).tolist() for name in names},
        **{name: getattr(result, name) for name in plain},
        "engines": dict(result.engines),
        "reasons": dict(result.reasons),
        "notes": list(result.notes),
    }


def propagated() -> Any:
    return numbers(fisher_trace(network(), X, draws=2, batch_size=8))


def exact() -> Any:
    return numbers(fisher_trace(network(), X, estimator="exact", engine="vmap", batch_size=8))


def together() -> Any:
    found = fisher_traces(network(), X, LABELS, estimators=("empirical", "sampled"), draws=3, batch_size=8)
    return {name: numbers(result) for name, result in found.items()}


def batches() -> Any:
    return numbers(fisher_trace(network(), ((x, y) for x, y in zip(X.split(7), LABELS.split(7), strict=True))))


def planned() -> Any:
    return numbers(fisher_trace(network(), X))


def one_batch_for_two() -> Any:
    return numbers(fisher_trace(network(), X[:5], batch_size=8, projections=2))


def joint() -> Any:
    return numbers(fisher_trace(network(), X, engine="batch", batch_size=8))


def stopped() -> Any:
    x, _ = inputs(400)
    return numbers(fisher_trace(network(), x, rel_se=0.1, batch_size=12))


def memory() -> Any:
    return numbers(fisher_trace(network(Odd("memory", LATE)), X, batch_size=8))


def path() -> Any:
    """In one process the layer is measured by batch from the second batch on, here in the second process only."""
    return numbers(fisher_trace(network(Odd("path", LATE)), X[:24], batch_size=8))


def population() -> Any:
    return numbers(fisher_trace(network(), X, draws=2, population=60, batch_size=8))


SAME = (propagated, exact, together, batches, planned, one_batch_for_two, joint, stopped, memory, path, population)


def replicas() -> Any:
    """Each replica has normalised other images; the measurement is of the first one, and leaves each as it is."""
    model = network(norm=True)
    model[1].running_mean.fill_(0.1 * rank())
    mine = model[1].running_mean
    wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=True) if dist.is_initialized() else model
    model[1].running_mean.fill_(0.1 * rank())
    found = numbers(fisher_trace(wrapped, X, batch_size=8))
    assert model[1].running_mean is mine
    assert torch.equal(mine, torch.full_like(mine, 0.1 * rank()))
    return found


def alone() -> Any:
    """Each process measures what it is given."""
    return numbers(fisher_trace(network(), X[: 10 + rank()], distributed=False)) if rank() else "nothing"


def spectrum() -> Any:
    """Every process computes all of it."""
    found = fisher_spectrum(network(), X[:10], k=2)
    return found.eigenvalues.tolist()


def failed(work: Callable[[], Any]) -> list[str]:
    try:
        work()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing"]


def error_in_the_model() -> Any:
    return failed(lambda: fisher_trace(network(Odd("error", LATE)), X, batch_size=8))


def error_while_others_stop_early() -> Any:
    return failed(lambda: fisher_trace(network(Odd("error", LATE)), X, batch_size=8, rel_se=0.01))


def error_at_the_start() -> Any:
    return failed(lambda: fisher_trace(network(), X if rank() == 0 else X.float(), batch_size=8))


def error_in_the_images() -> Any:
    def stream() -> Iterator[Tensor]:
        yield X[:8]
        if rank() == 1:
            raise OSError("the disk is gone")
        yield X[8:16]

    return failed(lambda: fisher_trace(network(), stream()))


def other_images() -> Any:
    return failed(lambda: fisher_trace(network(), X[rank() :: 2], batch_size=8))


def other_weights() -> Any:
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] += 0.01 * rank()
    return failed(lambda: fisher_trace(model, X, batch_size=8))


def other_options() -> Any:
    return failed(lambda: fisher_trace(network(), X, seed=rank(), batch_size=8))


def fewer_batches() -> Any:
    return failed(lambda: fisher_trace(network(), [X[:8]] * (3 + rank())))


def tracked(folder: Path) -> Any:
    images = fisherkit.load_images("fashion-mini")[0].subset(20, seed=0)
    model = build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=0)
    with FisherTracker(folder / "run.h5", model, images, batch_size=6, attributes={"writer": rank()}) as tracker:
        tracker.record(0)
        tracker.record(1, loss=0.5)
        return tracker.trajectory.variables["fisher_true"].tolist()


APART = (
    *(replicas, alone, spectrum, error_in_the_model, error_while_others_stop_early, error_at_the_start),
    *(error_in_the_images, other_images, other_weights, other_options, fewer_batches),
)


def member(number: int, folder: Path) -> None:
    """What every process of the group does."""
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=WORLD)
    try:
        found = {work.__name__: work() for work in (*SAME, *APART)}
        found["tracked"] = tracked(folder)
    finally:
        dist.destroy_process_group()
    (folder / f"{number}.json").write_text(json.dumps(found))


@dataclass(frozen=True)
class Group:
    folder: Path
    found: list[dict[str, Any]]  # of each process


@pytest.fixture(scope="module")
def group(tmp_path_factory) -> Group:
    folder = tmp_path_factory.mktemp("group")
    started = [
        subprocess.Popen([sys.executable, __file__, str(number), str(folder)], stderr=subprocess.PIPE, text=True)
        for number in range(WORLD)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(said)
    return Group(folder, [json.loads((folder / f"{number}.json").read_text()) for number in range(WORLD)])


@pytest.mark.parametrize("work", SAME, ids=lambda work: work.__name__)
def test_all_processes_get_what_one_process_gets_to_the_last_bit(group: Group, work: Callable[[], Any]):
    """NaN is written as NaN, and text is compared."""
    first, second = (json.dumps(found[work.__name__]) for found in group.found)
    assert first == second
    if work is not path:
        assert first == json.dumps(work())


def test_a_layer_that_takes_another_path_in_one_process_has_left_for_all(group: Group):
    found, one = group.found[0]["path"], path()
    assert found["engines"] == one["engines"] == {"0.extra": "batch", "1": "ghost", "3": "ghost"}
    assert found["reasons"] == one["reasons"]
    assert found["trace"][1:] == pytest.approx(one["trace"][1:], rel=1e-12)
    assert found["trace"][0] == pytest.approx(one["trace"][0], rel=1)  # the third batch was measured by ghost here


def test_a_stop_by_standard_error_is_where_one_process_stops(group: Group):
    assert 100 <= group.found[0]["stopped"]["images"] < 400
    assert group.found[0]["stopped"]["images"] % 12 == 0


def test_memory_that_ran_out_in_one_process_is_in_all_results(group: Group):
    for found in group.found:
        assert found["memory"]["batch_size"] == 4
        assert any("memory ran out in a pass of 8 images" in note for note in found["memory"]["notes"])


def test_replicas_are_measured_with_the_statistics_of_the_first(group: Group):
    assert group.found[0]["replicas"] == group.found[1]["replicas"]
    assert json.dumps(group.found[0]["replicas"]) == json.dumps(replicas())


def test_a_process_may_measure_alone(group: Group):
    assert group.found[0]["alone"] == "nothing"
    assert group.found[1]["alone"]["images"] == 11


def test_spectra_are_computed_by_every_process(group: Group):
    assert group.found[0]["spectrum"] == group.found[1]["spectrum"] == spectrum()


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("error_in_the_model", "ArithmeticError", "the model does not like this image"),
        ("error_while_others_stop_early", "ArithmeticError", "the model does not like this image"),
        ("error_at_the_start", "ValueError", "images must have the dtype"),
        ("error_in_the_images", "OSError", "the disk is gone"),
    ],
)
def test_an_error_in_one_process_stops_the_others_with_its_name(group: Group, name: str, kind: str, text: str):
    (other_kind, other), (own_kind, own) = (found[name] for found in group.found)
    assert own_kind == kind
    assert text in own
    assert other_kind == "RuntimeError"
    assert other.startswith(f"process 1 of 2 failed, so this one stops too: {kind}: ")
    assert text in other


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other_images", "the norm of the first images must be the same in every process"),
        ("other_weights", "the norm of the model's parameters must be the same in every process"),
        ("other_options", "seed must be the same in every process; got 0 in process 0 and 1 in process 1."),
        ("fewer_batches", "images must give every process the same batches; got 3, 4 of them."),
    ],
)
def test_processes_that_would_measure_different_things_are_refused(group: Group, name: str, text: str):
    for kind, message in (found[name] for found in group.found):
        assert kind == "ValueError"
        assert text in message
        assert "DistributedSampler" in message


def test_the_tracker_writes_in_the_first_process(group: Group, tmp_path: Path):
    run = fisherkit.read(group.folder / "run.h5")
    assert run.attributes["writer"] == 0
    assert group.found[0]["tracked"] == group.found[1]["tracked"] == run.variables["fisher_true"].tolist()
    assert run.variables["fisher_true"].tolist() == tracked(tmp_path)


# ---- the exchange itself, with threads for processes


class Threads(Processes):
    """Processes that are threads of this one."""

    def __init__(self, number: int, answers: list[Any], barrier: threading.Barrier) -> None:
        object.__setattr__(self, "rank", number)
        object.__setattr__(self, "count", len(answers))
        self.__dict__.update(answers=answers, barrier=barrier)

    def run(self, work: Callable[[], Any]) -> list[Any]:
        self.answers[self.rank] = work()
        self.barrier.wait()
        found = list(self.answers)
        self.barrier.wait()
        return found


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("items", [1, 3, 6, 7])
@pytest.mark.parametrize(("often", "stop"), [(False, None), (True, None), (True, 2), (True, 5)])
def test_every_process_sees_all_items_in_order(count: int, items: int, often: bool, stop: int | None):
    answers, barrier, seen = [None] * count, threading.Barrier(count), [[] for _ in range(count)]

    def go(number: int) -> None:
        together = Threads(number, answers, barrier)
        own = (f"item {k}" if k % count == number else None for k in range(items))
        for item in in_order(own, together, often=often, send=lambda item: item):
            seen[number].append(item)
            if len(seen[number]) == stop:
                return

    threads = [threading.Thread(target=go, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert seen == [[f"item {k}" for k in range(min(items, stop or items))]] * count


# ---- the command line


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for number in (1, 2):
        model = build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=number)
        torch.save(model.state_dict(), folder / f"epoch_{number}.pt")
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "fisherkit_cli", *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_measure_shares_images_and_one_process_speaks(checkpoints: Path, tmp_path: Path):
    paths = [str(path) for path in sorted(checkpoints.glob("*.pt"))]
    arguments = ["measure", *paths, "--model", "mlp", "--width", "8", "--probe-images", "90", "--batch-size", "16"]
    done = torchrun(*arguments, "--threads", "1", "--out", str(tmp_path / "two.h5"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch_1.pt  tr F") == 1
    one = CliRunner().invoke(fisherkit_command, [*arguments, "--threads", "1", "--out", str(tmp_path / "one.h5")])
    assert done.stdout == one.stdout.replace("one.h5", "two.h5")
    together, alone = fisherkit.read(tmp_path / "two.h5"), fisherkit.read(tmp_path / "one.h5")
    assert together.attributes["finished"]
    assert set(together.variables) == set(alone.variables)
    for name, values in alone.variables.items():
        np.testing.assert_array_equal(together.variables[name], values, err_msg=name)


def test_track_is_one_process():
    done = torchrun("track", "--epochs", "1")
    assert done.returncode != 0
    assert "`fisherkit track` runs in one process; torchrun started 2." in done.stderr
    assert "FisherTracker" in done.stderr


if __name__ == "__main__":
    member(int(sys.argv[1]), Path(sys.argv[2]))
