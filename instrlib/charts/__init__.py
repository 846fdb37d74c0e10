"""Generic charts: plain functions of arrays, so that each figure can be drawn again from what a run saved."""

from instrlib.charts.curves import histogram, lines, pareto, reliability
from instrlib.charts.rows import bars, box, dots, heat_map
from instrlib.charts.special import parallel_coordinates, scatter, timeline
from instrlib.charts.spectrograms import spectrograms
from instrlib.charts.style import CHARTS, DPI, WIDTH, draw_stored, save, store, svg

__all__ = [
    "CHARTS",
    "DPI",
    "WIDTH",
    "bars",
    "box",
    "dots",
    "draw_stored",
    "heat_map",
    "histogram",
    "lines",
    "parallel_coordinates",
    "pareto",
    "reliability",
    "save",
    "scatter",
    "spectrograms",
    "store",
    "svg",
    "timeline",
]
