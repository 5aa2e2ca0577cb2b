"""The examples run as they stand."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import fisherkit

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(example: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_training_loop(tmp_path):
    output_of("own_training_loop.py", str(tmp_path))
    assert len(fisherkit.read(tmp_path / "run.h5")) == 8
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")


def test_why_not_sample_labels(tmp_path):
    picture = tmp_path / "why.png"
    rows = [
        line.split() for line in output_of("why_not_sample_labels.py", "--quick", "--out", str(picture)).split("\n")
    ]
    errors = {
        name: [float(row[4].rstrip("%")) for row in rows[1:] if name in row] for name in ("sampled", "propagated")
    }
    assert len(errors["sampled"]) == len(errors["propagated"]) == 5
    assert max(errors["propagated"]) < 25
    assert errors["sampled"][-1] > errors["propagated"][-1]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_deep_linear(tmp_path):
    lines = output_of("deep_linear.py", str(tmp_path)).split("\n")  # ends with an error where it disagrees
    assert sum(line.endswith(": agrees") for line in lines) == 7
    for name, deficit in (("control.h5", 0), ("deficit.h5", 24)):  # rows in the deficit
        run = fisherkit.read(tmp_path / name)
        closed = np.stack([run.series[f"closed_form_{layer}"] for layer in range(3)], axis=1)
        np.testing.assert_allclose(run.variable("fisher_true"), closed, rtol=1e-10)
        assert run.series["deficit_active"].sum() == deficit
        assert closed.max() > 10 * closed[0].max()
    assert (tmp_path / "deep_linear.png").read_bytes().startswith(b"\x89PNG")


def test_matrix_completion(tmp_path):
    output_of("matrix_completion.py", str(tmp_path), "--quick")
    with (tmp_path / "matrix_completion.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    errors = {
        (row["setting"].split(",")[0], int(row["seed"]), int(row["t0"])): float(row["unobserved_error"]) for row in rows
    }
    assert len(errors) == 18  # depth, seed, t0
    for seed in (1, 2):
        assert errors["depth 1", seed, 0] == errors["depth 1", seed, 1000] == errors["depth 1", seed, 40_000]
        for depth in ("depth 2", "depth 3"):
            assert errors[depth, seed, 40_000] > errors[depth, seed, 0] + 0.1
    assert (tmp_path / "matrix_completion.png").read_bytes().startswith(b"\x89PNG")
