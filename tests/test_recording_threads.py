"""Run files that are read at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fisherkit.recording import Trajectory, from_bytes, to_bytes


def run_file(number: int) -> bytes:
    """A run of one layer whose only value is its number."""
    series = {"epoch": np.array([1.0]), "step": np.array([1], dtype=np.int64)}
    values = {"fisher_true": np.array([[float(number)]])}
    return to_bytes(Trajectory(("a",), np.array([1], dtype=np.int64), values, series, {}))


def test_threads_that_read_at_once_get_their_own_runs():
    files = [run_file(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: from_bytes(files[k % 4]).variables["fisher_true"][0, 0], range(400)))
    assert found == [k % 4 for k in range(400)]
