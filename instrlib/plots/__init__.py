"""Every figure of the study: functions of plain arrays, so that each can be drawn again from what a run saved.

One module for each kind; all their figures are called from here, as `plots.<name>`.
"""

from instrlib.plots.base import DPI, FIGURES, WIDTH, draw_stored, save
from instrlib.plots.corpus import class_balance, duration_histogram, split_overview
from instrlib.plots.pictures import feature_settings, spectrogram_grid
from instrlib.plots.scores import (
    confusion_matrix,
    leak,
    learning_curves,
    model_comparison,
    per_class_scores,
    reliability_diagram,
)

__all__ = [
    "DPI",
    "FIGURES",
    "WIDTH",
    "class_balance",
    "confusion_matrix",
    "draw_stored",
    "duration_histogram",
    "feature_settings",
    "leak",
    "learning_curves",
    "model_comparison",
    "per_class_scores",
    "reliability_diagram",
    "save",
    "spectrogram_grid",
    "split_overview",
]
