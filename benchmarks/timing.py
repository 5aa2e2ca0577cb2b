"""What the benchmarks share: interleaved rounds, ratios to a baseline with n and spread, and the environment."""

import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def interleaved(work: dict[str, Callable[[], Any]], *, rounds: int, baseline: str) -> dict[str, list[float]]:
    """Time every function once a round, in turn, the baseline beside each; ratios of neighbours in time."""
    for run in work.values():
        run()
    ratios: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            reference = seconds(work[baseline])
            ratios[name].append(seconds(run) / reference)
    return ratios


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, with the GPU's work finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_memory(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int:
    """Peak resident bytes that one call adds, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_bytes, (make, *arguments))


def _peak_bytes(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int:
    """From the kernel's high-water mark, set back just before the call (ru_maxrss is inherited across exec)."""
    run = make(*arguments)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def spread(values: list[float]) -> dict[str, float]:
    """Median with the range."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


# what rows may have beside the ratio: heading, format
EXTRAS = {
    "memory": ("extra memory", "{:.2f}"),
    "images_per_s": ("images/s", "{:,.0f}"),
    "outside": ("% outside the model", "{:.2f}"),
}


def table_lines(table: dict[str, Any]) -> list[str]:
    """A table (title, environment, rows) as lines of text."""
    width = max(len(row["name"]) for row in table["rows"])
    lines = [table["title"]]
    for row in table["rows"]:
        ratio = f"{row['name']:{width}}  {row['median']:7.2f}  [{row['min']:.2f}, {row['max']:.2f}]  n={row['n']}"
        extras = [f"{heading} {form.format(row[key])}" for key, (heading, form) in EXTRAS.items() if key in row]
        lines.append("  ".join([ratio, *extras]))
    return [*lines, json.dumps(table["environment"])]


def report(title: str, rows: list[dict[str, Any]], out: Path | None) -> None:
    """Print the rows as a table and write them as JSON with the environment beside them."""
    table = {"title": title, "environment": environment(), "rows": rows}
    print("\n".join(table_lines(table)))
    if out is not None:
        out.write_text(json.dumps(table, indent=1))
