"""Generic charts: plain functions of arrays, so that each figure can be drawn again from what a run saved."""

from instrlib.charts.pictures import scatter, spectrograms, timeline
from instrlib.charts.plots import bars, box, dots, heat_map, histogram, lines, pareto, reliability
from instrlib.charts.style import CHARTS, draw_stored, save, store, svg

__all__ = ["CHARTS", "bars", "box", "dots", "draw_stored", "heat_map", "histogram", "lines", "pareto"]
__all__ += ["reliability", "save", "scatter", "spectrograms", "store", "svg", "timeline"]
