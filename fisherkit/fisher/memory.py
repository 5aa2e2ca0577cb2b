"""How many images a pass takes: from what the model keeps of an image and the memory that is there.

Peak memory of a pass on a CPU, measured on ResNet-18 (width 16, 64), All-CNN, a small ViT and an MLP, against what
autograd keeps of an image: 1.1 to 1.5 times (ghost, batch), 3.3 to 4.3 times (backpack); with what the C library's
allocator leaves unused up to 2.1 times.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .per_image import CHUNK_BYTES

SHARE_OF_FREE = 0.5  # of what is free, if max_memory does not say
UNKNOWN_FREE = 4 * 2**30  # where the system does not say
PEAK = {"ghost": 2.2, "batch": 2.2, "backpack": 4.5, "vmap": 2.2, "loop": 2.2}  # of what is kept of an image
PEAK_GRADIENTS = 4  # of the gradients that vmap holds: with their squares in float64
# Of activations kept at once on a CPU: a ResNet-18 of width 64 (5 MB an image) is up to 1.5 times as fast with 16 to 32
# images in a pass as with 64 (page faults of large buffers), one of width 16 (1.2 MB) fastest with 32 to 64.
CACHE_BYTES = 96 * 2**20
SHARE_ON_DEVICE = 0.25  # of the budget, elsewhere: kernels are long enough by then
LEAST, MOST, MOST_ON_DEVICE = 8, 128, 512  # images, where memory allows it


@dataclass(frozen=True)
class Need:
    """Bytes that a pass takes at its peak, beside the model."""

    kept: int  # of an image: what autograd keeps, its inputs
    image: int  # of an image in all
    gradients: int = 0  # of an image, where vmap builds them; it holds a chunk of them
    fixed: int = 0

    def of(self, images: int) -> int:
        """Of so many images."""
        chunk = max(1, CHUNK_BYTES // max(1, self.gradients))
        return self.fixed + images * self.image + PEAK_GRADIENTS * min(images, chunk) * self.gradients


def bytes_of(size: int | str | None) -> int | None:
    """`4GB` -> 4,000,000,000; `4GiB` -> 4 * 2**30; a number alone is bytes; None, no limit, stays None.

    Raises:
        ValueError: it is no such size, or less than a byte.
    """
    if size is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(i?)b?", str(size).strip().lower())
    found = float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " ") if match else 0
    if not 1 <= found < math.inf:
        raise ValueError(f"max_memory must be a number of bytes such as 4GB, 500MB or 2GiB; got {size!r}.")
    return int(found)


def images_within(need: Need, budget: int) -> int:
    """The largest power of two of images that takes at most `budget` bytes; 0 if one image takes more.

    A power of two, so that a little more or less free memory does not change the last bits of the numbers.
    """
    images = 0
    while need.of(max(1, 2 * images)) <= budget and images < 2**20:
        images = max(1, 2 * images)
    return images


def planned_images(need: Need, budget: int, device: str) -> int:
    """Images in one pass, a power of two: fast on this kind of device, within the budget, at least 1."""
    if device == "cpu":
        fast, most = CACHE_BYTES // max(1, need.kept), MOST
    else:
        fast, most = images_within(need, int(budget * SHARE_ON_DEVICE)), MOST_ON_DEVICE
    wanted = min(max(fast, LEAST), most)
    return max(1, min(1 << (wanted.bit_length() - 1), images_within(need, budget)))


def default_memory(device: torch.device, *, sharing: int = 1) -> int:
    """Half of the memory that is free, in bytes; `sharing` processes on this machine have a part each of the CPU's."""
    free = free_memory(device)
    return int(free * SHARE_OF_FREE / (sharing if device.type == "cpu" else 1))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated; a guess of 4 GiB where the system does not tell (macOS, Windows)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    known = [x for x in (_available(), *_left_in_groups()) if x is not None] if device.type == "cpu" else []
    return max(0, min(known)) if known else UNKNOWN_FREE


def _available(root: Path = Path("/")) -> int | None:
    """MemAvailable: free, or taken by files that can be read again."""
    return _field(root / "proc/meminfo", "MemAvailable:", unit=1024)


def _left_in_groups(root: Path = Path("/")) -> Iterator[int]:
    """What the limits of this process's control groups leave (containers, batch systems), for each group above it."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        second = controllers == ""  # version 2
        if not second and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("" if second else "memory")
        limit, used = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        inactive = "inactive_file" if second else "total_inactive_file"
        for folder in (Path(path), *Path(path).parents):
            group = base / folder.relative_to("/")
            most, now = _number(group / limit), _number(group / used)
            if most is not None and now is not None:
                yield most - now + (_field(group / "memory.stat", inactive) or 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _field(path: Path, name: str, *, unit: int = 1) -> int | None:
    return next((int(line.split()[1]) * unit for line in _lines(path) if line.split()[:1] == [name]), None)
