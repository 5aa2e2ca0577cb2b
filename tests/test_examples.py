"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

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
