"""Freed memory stays with the process where it is asked to, and no number changes."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# page faults of 30 buffers of 40 MB, each freed before the next is made, after the first ones
FAULTS = """
import resource, sys, torch
from fisherkit.training import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else "not asked")
for _ in range(3):
    torch.ones(10 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.ones(10 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
WEIGHTS = """
import sys, torch
from fisherkit.training import deterministic, keep_freed_memory
from training_cases import dropout_net, training
if sys.argv[1] == "kept":
    keep_freed_memory()
with deterministic(1):
    made = training(dropout_net, conditions={"augment": ["crop+flip"]}, images=400, batch_size=64)
    reports = list(made.epochs())
print([report.train_loss for report in reports], [tensor.double().sum().item() for tensor in made.model.parameters()])
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")


def printed(program: str, how: str, **environment: str) -> list[str]:
    """What a program prints in a process of its own, whose allocator the environment does not set."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", program, how],
        env={**plain, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@on_glibc
def test_freed_memory_is_used_again_without_page_faults() -> None:
    said, kept = printed(FAULTS, "kept")
    _, given_back = printed(FAULTS, "not kept")
    assert said == "True"
    assert int(kept) < 30 * 10_240 / 1000  # of as many pages
    assert int(given_back) > 10 * int(kept)


@on_glibc
@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_own_setting_of_the_allocator_is_left(variable: str) -> None:
    value = "glibc.malloc.perturb=0" if variable == "GLIBC_TUNABLES" else "131072"
    assert printed(FAULTS, "kept", **{variable: value})[0] == "False"


def test_training_gives_the_same_numbers() -> None:
    assert printed(WEIGHTS, "kept") == printed(WEIGHTS, "not kept")
