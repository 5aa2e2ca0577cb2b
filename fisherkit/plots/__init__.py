"""Figures of trajectories: heatmaps and curves, for papers and for the terminal."""

from fisherkit.plots.curves import curves
from fisherkit.plots.heatmap import heatmap
from fisherkit.plots.style import save

__all__ = ["curves", "heatmap", "save"]
