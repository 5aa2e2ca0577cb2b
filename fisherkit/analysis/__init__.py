"""What a trajectory says, as pure functions of it; no torch."""

from fisherkit.analysis.summary import Peak, final_row, peak, shares

__all__ = ["Peak", "final_row", "peak", "shares"]
