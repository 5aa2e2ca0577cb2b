"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import fisherkit

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_own_training_loop(tmp_path):
    script = EXAMPLES / "own_training_loop.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(fisherkit.read(tmp_path / "run.h5")) == 8
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")
