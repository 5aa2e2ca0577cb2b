"""Deterministic settings come and go; numerics are recorded and compared; random numbers of one's own."""

import json
import os

import pytest
import torch

from fisherkit.training import deterministic, differing_numerics, numerics
from fisherkit.training.determinism import own_random_numbers


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def test_deterministic_sets_and_puts_back() -> None:
    before = settings()
    with deterministic(1):
        assert settings() == (True, False, False, 1, ":4096:8")
    assert settings() == before


def test_deterministic_puts_back_after_an_error() -> None:
    before = settings()
    with pytest.raises(KeyError), deterministic(1):
        raise KeyError
    assert settings() == before


def test_deterministic_keeps_the_users_cublas_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic():
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_deterministic_without_threads_leaves_their_number() -> None:
    threads = torch.get_num_threads()
    with deterministic():
        assert torch.get_num_threads() == threads


def test_deterministic_refuses_no_threads() -> None:
    with pytest.raises(ValueError, match="threads must be a whole number >= 1; got 0"), deterministic(0):
        pass


def test_numerics_hold_what_the_bits_depend_on_and_are_json() -> None:
    with deterministic(1):
        found = numerics()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert (found["threads"], found["deterministic"], found["device"]) == (1, True, "cpu")
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["device_name"]


def test_differences_in_numerics_are_named_and_equal_ones_are_not() -> None:
    now = numerics()
    assert differing_numerics(now, now) == []
    before = {**now, "threads": 77, "gone": "x"}
    del before["torch"]
    assert differing_numerics(before, now) == [
        f"threads: 77 before, {now['threads']} now",
        "gone: x before, unknown now",
        f"torch: unknown before, {torch.__version__} now",
    ]


def test_own_random_numbers_depend_on_the_seed_alone_and_leave_the_global_ones() -> None:
    drawn = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        with own_random_numbers(torch.device("cpu"), 5):
            drawn.append(torch.rand(4))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)
    with own_random_numbers(torch.device("cpu"), 6):
        assert not torch.equal(torch.rand(4), drawn[0])


@pytest.mark.gpu
def test_own_random_numbers_on_a_gpu() -> None:
    device = torch.device("cuda")
    drawn = []
    for outside in (1, 2):
        torch.cuda.manual_seed(outside)
        before = torch.cuda.get_rng_state()
        with own_random_numbers(device, 5):
            drawn.append(torch.rand(4, device=device))
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(*drawn)
