"""Shared set-up: jaxtyping shapes and types are enforced on every public tensor boundary during the tests."""

import os

from jaxtyping import install_import_hook

install_import_hook("fisherkit", "typechecking.strict")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def pytest_addoption(parser: pytest.Parser) -> None:
    """--full: the proofs of tests/reliability in full, not in the short form."""
    parser.addoption("--full", action="store_true", help="tests/reliability: as often as docs/reliability.md says")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out `gpu` and `slow` tests unless -m asks for them."""
    if config.getoption("-m"):
        return
    for item in items:
        for mark in ("gpu", "slow"):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"run with -m {mark}"))
