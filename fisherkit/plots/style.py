"""How figures look and how they are saved: one style, no global state, the same bytes every time."""

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from fisherkit.storage import atomic_write

_STYLE = Path(__file__).with_name("fisherkit.mplstyle")
_LONGEST_LABEL = 80
DECADES = 6  # on one logarithmic scale; more hides the differences that matter
# without dates and versions, so that the same figure gives the same file
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with fisherkit's style over them, whatever the user's settings are."""
    with matplotlib.rc_context(fname=_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, that no pyplot knows of."""
    return Figure(figsize=(width, height), layout="constrained")


def set_gaps(figure: Figure, *, h_pad: float, w_pad: float, wspace: float = 0.0) -> None:
    """Set the room between the axes of a figure from `new_figure`, in inches and as a share of an axis."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(h_pad=h_pad, w_pad=w_pad, hspace=0.0, wspace=wspace)


def label_epochs(axes: Axes) -> None:
    """Name the axis of epochs, with ticks at whole epochs."""
    axes.set_xlabel("epochs completed")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG, SVG or PDF by the suffix of `path`, atomically; equal figures give equal bytes.

    Raises:
        ValueError: Another suffix.
    """
    path = Path(path)
    kind = check_suffix(path)
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    data = buffer.getvalue()
    atomic_write(path, _numbered_clips(data) if kind == "svg" else data)


def _numbered_clips(svg: bytes) -> bytes:
    """The same picture with its clip paths numbered: matplotlib names some after their address in memory."""
    names = list(dict.fromkeys(re.findall(rb'<clipPath id="(p[0-9a-f]{10})">', svg)))
    for number, name in enumerate(names):
        svg = svg.replace(name, b"clip%d" % number)
    return svg


def check_suffix(path: Path) -> str:
    """The format that the suffix stands for."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise ValueError(f"out must end in .{', .'.join(FORMATS)}; got {str(path)!r}.")
    return kind


def label(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Text from a file made fit for a figure: printable, at most `longest` letters (the end is kept).

    Draw it with `parse_math=False`, so that a $ stays a $.
    """
    shown = _printable(text)
    return shown if len(shown) <= longest else f"…{shown[1 - longest :]}"


def title(text: str, width: int) -> str:
    """Text over a panel of `width` letters, on two lines if need be."""
    return "\n".join(textwrap.wrap(_printable(text), width, max_lines=2, placeholder=" …"))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
