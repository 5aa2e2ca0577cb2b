"""Reading a run in a loop while it is written: what is read is whole, and the writer is not disturbed."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from forked_runs import Forked, forked, publish_always
from test_cli_runs import call
from whole_runs import Whole, timeless, whole_run

import fisherkit
from fisherkit.recording import Trajectory

KINDS = ("read", "show", "xarray", "plot")


def good_rows(found: Trajectory, whole: Whole) -> int:
    """How many rows, which must be the first of the undisturbed run's, bit for bit."""
    rows = len(found)
    first = whole.trajectory.rows(0, rows)
    arrays = {**found.variables, **found.series}
    assert arrays.keys() <= {**first.variables, **first.series}.keys()
    for name, array in arrays.items():
        if name != "elapsed_s":
            truth = {**first.variables, **first.series}[name]
            assert np.array_equal(array, truth, equal_nan=array.dtype.kind == "f"), name
    return rows


def by_read(file: Path, whole: Whole) -> int:
    return good_rows(fisherkit.read(file), whole)


def by_show(file: Path, whole: Whole) -> int:
    status, text = call("show", str(file))
    assert status == 0, text
    assert "whole (checksum ok)" in text
    return int(text.partition("rows     ")[2].split(",")[0])


def by_xarray(file: Path, whole: Whole) -> int:
    """Not by fisherkit at all."""
    xarray = pytest.importorskip("xarray", reason="needs fisherkit[xarray]")
    with xarray.open_dataset(file, engine="h5netcdf") as found:
        rows = found.sizes["time"]
        first = whole.trajectory.rows(0, rows)
        for name in ("step", "epoch", "fisher_true", "weight_norm"):
            truth = {**first.variables, **first.series}[name]
            assert np.array_equal(found[name].values, truth, equal_nan=truth.dtype.kind == "f"), name
    return rows


def by_plot(file: Path, whole: Whole) -> int:
    picture = file.with_name("heatmap.png")
    status, text = call("plot", str(file), "--out", str(picture))
    assert status == 0, text
    assert picture.read_bytes().endswith(b"IEND\xaeB`\x82")
    return 0


WAYS = {"read": by_read, "show": by_show, "xarray": by_xarray, "plot": by_plot}


def read_in_a_loop(run: Forked, file: Path, whole: Whole, rng: random.Random, most: int) -> list[tuple[str, object]]:
    """Until the writer has ended; how each read went: how many rows, or the error. The rows never become fewer."""
    found: list[tuple[str, object]] = []
    rows = 0
    while run.process.is_alive() and len(found) < most:
        (kind,) = rng.choices(KINDS, (30, 50, 15, 5))
        try:
            seen = WAYS[kind](file, whole)
            assert kind == "plot" or seen >= rows, f"{seen} rows after {rows}"
            found.append((kind, max(seen, rows)))
            rows = max(seen, rows)
        except Exception as error:
            found.append((kind, error))
    return found


def test_reading_while_a_run_is_written(tmp_path, count, publish):
    goal, rng = count(short=60, full=10_000), random.Random(0)
    whole = whole_run(tmp_path / "whole", epochs=count(short=20, full=50))
    reads: list[tuple[str, object]] = []
    different, runs, notes, growing = [], 0, 0, 0
    while len(reads) < goal:
        folder = tmp_path / f"run{runs}"
        arguments = (*whole.arguments, "--out", str(folder))
        with forked(*arguments, output=tmp_path / "log", prepare=publish_always) as run:
            run.wait_for_step(1)  # there is a file
            part = read_in_a_loop(run, folder / "run.h5", whole, rng, goal - len(reads))
            assert run.end() == 0, run.text()
            notes += run.text().count("note: ") - (tmp_path / "whole" / "log").read_text().count("note: ")
        reads += part
        growing += len({rows for _, rows in part if isinstance(rows, int)})
        different += whole.differences(folder)
        runs += 1
    bad = [(kind, error) for kind, error in reads if isinstance(error, Exception)]
    kinds = Counter(kind for kind, _ in reads)
    publish(
        "7 reading in a loop while runs are written",
        f"{len(reads):,} reads ({', '.join(f'{kinds[kind]:,} by {kind}' for kind in KINDS)}) of {runs} runs in "
        f"{growing:,} states: {len(bad)} not good; {len(different)} files or weights differ from an undisturbed run's, "
        f"{notes} more notices by the writers",
    )
    assert bad == []
    assert different == []
    assert notes == 0
    assert growing > runs  # they were read while they grew


def test_the_comparison_notices_a_bit(tmp_path):
    whole = whole_run(tmp_path / "whole", epochs=2, deficit=("blur:0-1",), event=())
    assert good_rows(whole.trajectory, whole) == len(whole.trajectory)
    series = {**whole.trajectory.series, "lr": np.nextafter(whole.trajectory.series["lr"], 1)}
    other = Trajectory(**{**vars(whole.trajectory), "series": series})
    with pytest.raises(AssertionError, match="lr"):
        good_rows(other, whole)
    assert timeless(other) != whole.file
