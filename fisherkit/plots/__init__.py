"""Figures of trajectories and studies: heatmaps, curves, spectra, results; for papers and for the terminal."""

from fisherkit.plots.curves import curves
from fisherkit.plots.heatmap import heatmap
from fisherkit.plots.spectra import spectrum
from fisherkit.plots.study import study
from fisherkit.plots.style import save

__all__ = ["curves", "heatmap", "save", "spectrum", "study"]
