"""`fisherkit study`, killed and started again, comes to the runs that train alone."""

import os
import subprocess
import sys
from pathlib import Path

from dask_cluster import wait_until
from studies_to_run import starts, trained

import fisherkit
from fisherkit.errors import FolderInUse
from fisherkit.storage import lock
from fisherkit.studies import track
from fisherkit.studies.execution import Unit
from fisherkit.studies.folder import read_specification, recorded_run

STUDY = [
    *(sys.executable, "-m", "fisherkit_cli", "study", "removal", "--arms", "1,2", "--clean-epochs", "10"),
    *("--model", "linear", "--train-images", "40", "--test-images", "20", "--probe-images", "10"),
    *("--batch-size", "20", "--seeds", "1", "--executor", "local:2", "--keep-checkpoints"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def started(out: Path) -> list[Unit]:
    """The runs that have a log."""
    return [Unit(path.parent.name, str(path.parent), "{}") for path in sorted(out.glob("runs/*/log.txt"))]


def free(folder: Path) -> bool:
    try:
        with lock(folder):
            return True
    except FolderInUse:
        return False


def test_a_killed_study_goes_on_to_the_same_runs(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([*STUDY, "--out", str(out)], env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or any(trained(unit)[2] for unit in started(out)))
        process.kill()
    before = started(out)
    wait_until(lambda: all(free(Path(unit.folder)) for unit in before))  # the runs end with their driver
    runs = [recorded_run(Path(unit.folder)) for unit in before]
    # else it was killed too late to show anything
    assert not all(run is not None and run.attributes["finished"] for run in runs)
    again = subprocess.run([*STUDY, "--out", str(out)], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    units = started(out)
    assert len(units) == 3  # with the control
    assert max(map(starts, units)) == 2
    branched = []
    for unit in units:
        folder = Path(unit.folder)
        assert set(trained(unit).values()) == {1}  # no epoch twice
        branched += [unit] if 1 not in trained(unit) else []
        track(read_specification(folder / "specification.json"), tmp_path / unit.identity)
        mine, alone = (fisherkit.read(place / "run.h5") for place in (folder, tmp_path / unit.identity))
        assert mine.equals(alone, ignore=("elapsed_s", "option_sources"))
    assert len(branched) == 1
