"""What `doctor` looks at: each check gives a line, and sentences on what is wrong with the remedy."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

LEAST_SPACE = 200_000_000  # bytes on the disk of the runs: two checkpoints of a ResNet-18
LEAST_MEMORY = 1_000_000_000
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    text: str
    problems: tuple[str, ...] = ()


def examine(data_dir: Path | None, out: Path) -> Iterator[Finding]:
    """All checks in turn; one that fails is a finding too."""
    checks: dict[str, Callable[[], Finding]] = {
        "versions": versions,
        "optional": optional_packages,
        "system": system,
        "torch": torch_build,
        "processor": processor,
        "threads": threads,
        "device": devices,
        "memory": memory,
        "images": lambda: image_sets(data_dir),
        "HDF5": hdf5,
        "run folder": lambda: run_folder(out),
        "measuring": measuring,
    }
    for name, check in checks.items():
        try:
            yield check()
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            yield Finding(name, "could not be told", (f"{problem} Install fisherkit anew, or report this.",))


def versions() -> Finding:
    """Of fisherkit, Python and every package that it needs; each must be there, and not too old."""
    found, problems = [], []
    for name, version, wanted in _required(extra=None):
        found.append(f"{name} {version or 'missing'}")
        if wanted is not None:
            got = f"got {version}" if version else "it is missing"
            problems.append(f"{wanted} is needed; {got}. Mend it with `pip install '{wanted}'`.")
    text = f"fisherkit {metadata.version('fisherkit')}, Python {platform.python_version()}, {', '.join(found)}"
    return Finding("versions", text, tuple(problems))


def optional_packages() -> Finding:
    """Of the packages that only parts of fisherkit need."""
    extras = {name: version for extra in ("xarray", "dask") for name, version, _ in _required(extra=extra)}
    return Finding("optional", ", ".join(f"{name} {version or 'not installed'}" for name, version in extras.items()))


def _required(extra: str | None) -> Iterator[tuple[str, str | None, str | None]]:
    """Name, version if installed, and the requirement where it is not met; of fisherkit itself, or of one extra."""
    from packaging.requirements import Requirement

    for text in metadata.requires("fisherkit") or ():
        needed = Requirement(text)
        always = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if always if extra is not None else not always:
            continue
        if extra is not None and not (needed.marker and needed.marker.evaluate({"extra": extra})):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            version = None
        met = version is not None and needed.specifier.contains(version, prereleases=True)
        yield needed.name, version, None if met else f"{needed.name}{needed.specifier}"


def system() -> Finding:
    """The operating system; not the name of the machine."""
    library = " ".join(platform.libc_ver()).strip() or "unknown C library"
    return Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}, {library}")


def torch_build() -> Finding:
    """What torch was built with."""
    import torch

    parts = [
        f"CUDA {torch.version.cuda or 'no'}",
        f"cuDNN {torch.backends.cudnn.version() or 'no'}",
        f"MKL {_yes(torch.backends.mkl.is_available())}",
        f"oneDNN {_yes(torch.backends.mkldnn.is_available())}",
        f"OpenMP {_yes(torch.backends.openmp.is_available())}",
    ]
    return Finding("torch", ", ".join(parts))


def processor() -> Finding:
    """What the bits of a run depend on beside the number of threads."""
    from fisherkit.training import numerics

    found = numerics()
    return Finding("processor", f"{found['device_name']}; {found['cpu_capability']}; {found['instruction_set']}")


def threads() -> Finding:
    """How many torch uses, how many processors this process may use, and the settings."""
    import torch

    used, there = torch.get_num_threads(), processors()
    given = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    text = f"{used} of {there} processors; {', '.join(given) or 'no settings in the environment'}"
    many = f"torch computes with {used} threads on {there} processors, which is slow: set OMP_NUM_THREADS={there}."
    return Finding("threads", text, (*([many] if used > there else []), *_odd_settings(used, there)))


def _odd_settings(used: int, there: int) -> Iterator[str]:
    """Of the two numbers of threads that torch looks at: what is no number, and which of two that differ counts."""
    counts = {}
    for name in THREAD_VARIABLES[:2]:
        text = os.environ.get(name)
        first = text.strip().partition(",")[0] if text else ""  # OpenMP takes a list, a number for each level
        if first.isdecimal() and int(first) > 0:
            counts[name] = int(first)
        elif text is not None:
            remedy = f"Set {name}={there}, or fewer, or unset it."
            yield f"{name}={text} is no number of threads and is ignored: torch computes with {used}. {remedy}"
    if len(set(counts.values())) > 1:
        shown = " and ".join(f"{name}={count}" for name, count in counts.items())
        why = "the second counts, up to the number of processors" if _has_mkl() else "the first counts"
        yield f"{shown} differ, and torch computes with {used} ({why}). Set both alike, or unset one."


def _has_mkl() -> bool:
    import torch

    return bool(torch.backends.mkl.is_available())


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> Finding:
    """Those that torch can compute on; each GPU must be able to add two numbers."""
    import torch

    found, problems = ["cpu"], []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
        try:
            torch.ones(2, device=f"cuda:{index}").sum().item()
        except RuntimeError as error:
            problems.append(f"cuda:{index} cannot compute ({str(error).splitlines()[0]}). Use --device cpu.")
    if torch.backends.mps.is_available():
        found.append("mps")
    if len(found) == 1 and Path("/proc/driver/nvidia/version").exists():
        problems.append("an NVIDIA driver is here, but torch cannot use it. Install torch as https://pytorch.org says.")
    return Finding("device", "; ".join(found), tuple(problems))


def memory() -> Finding:
    """What is free: measuring plans its passes within half of it."""
    import torch

    from fisherkit.fisher.memory import free_memory

    free = free_memory(torch.device("cpu"))
    problem = f"only {free / 1e9:.1f} GB are free. End other programs, or give --max-memory and a smaller --batch-size."
    return Finding("memory", f"{free / 1e9:.1f} GB free", (problem,) if free < LEAST_MEMORY else ())


def image_sets(data_dir: Path | None) -> Finding:
    """Where image sets are looked for, and which are there; their contents are not read."""
    from fisherkit.images.catalogue import CATALOGUE
    from fisherkit.images.locate import ENVIRONMENT, data_folders, locate

    folders = data_folders(data_dir)
    there = [each.name for each in CATALOGUE if each.embedded or locate(each, folders) is not None]
    places = ", ".join(f"{folder}{'' if folder.is_dir() else ' (not there)'}" for folder in folders)
    named = [Path(text) for text in (data_dir, os.environ.get(ENVIRONMENT)) if text]
    problems = [
        f"{folder} is no folder: give the one of the image files by --data-dir or {ENVIRONMENT}."
        for folder in named[:1]
        if not folder.expanduser().is_dir()
    ]
    return Finding("images", f"{', '.join(there)}; looked in {places}", tuple(problems))


def hdf5() -> Finding:
    """The version, and whether a run file can be made in memory and read back."""
    import h5py
    import numpy as np

    from fisherkit.recording import Trajectory, from_bytes, to_bytes

    series = {"epoch": np.array([0.0, 1.0]), "step": np.array([0, 9])}
    values = {"fisher_true": np.array([[1.0, 2.0], [3.0, np.nan]])}
    made = Trajectory(("a", "b"), np.array([3, 4]), values, series, {})
    same = from_bytes(to_bytes(made)).equals(made)
    text = f"{h5py.version.hdf5_version}, h5py {h5py.__version__}; a file in memory {_works(same)}"
    problem = "a run file made in memory is not read back as it was. Install h5py anew from PyPI."
    return Finding("HDF5", text, () if same else (problem,))


def run_folder(out: Path) -> Finding:
    """Whether runs can be written, locked and renamed where they are to be, and how much space there is."""
    from fisherkit.storage import atomic_write, lock

    place = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        problem = f"{place} is there and is no folder, so that no run can be written to {out}. Give another --out."
        return Finding("run folder", f"{place} is no folder", (problem,))
    try:
        with tempfile.TemporaryDirectory(prefix=".fisherkit-doctor-", dir=place) as name, lock(Path(name)):
            atomic_write(Path(name) / "run.h5", b"x")
    except (OSError, NotImplementedError) as error:
        problem = f"{place} cannot be written to ({getattr(error, 'strerror', None) or error}). Give another --out."
        return Finding("run folder", f"{place} cannot be written to", (problem,))
    free = shutil.disk_usage(place).free
    few = f"only {free / 1e6:,.0f} MB are free in {place}, and a run keeps two checkpoints. Give another --out."
    text = f"{place} can be written to and locked, {free / 1e9:,.1f} GB free"
    return Finding("run folder", text, (few,) if free < LEAST_SPACE else ())


def measuring() -> Finding:
    """A small network measured by fisherkit's own forms and by BackPACK, and compared with brute force."""
    import torch
    from torch import nn

    from fisherkit.fisher import verify

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        images = torch.randn(2, 1, 4, 4)
    results, problems = [], []
    for engine, remedy in (("auto", "Report this."), ("backpack", "Install backpack-for-pytorch anew.")):
        try:
            right = verify(model, images, engine=engine).passed
            why = "differs from brute force"
        except Exception as error:
            right, why = False, f"{type(error).__name__}: {str(error).splitlines()[0]}"
        results.append(f"{'BackPACK' if engine == 'backpack' else engine} {_works(right)}")
        problems += [] if right else [f"engine {engine}: {why}. {remedy} The other engines do not need it."]
    return Finding("measuring", f"{', '.join(results)} (compared with brute force)", tuple(problems))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _works(value: bool) -> str:
    return "works" if value else "does not work"
