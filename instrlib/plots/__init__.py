"""Every figure of the study: functions of plain arrays, so that each can be drawn again from what a run saved.

One module for each kind; all their figures are called from here, as `plots.<name>`.
"""

from instrlib.plots.base import DPI, FIGURES, WIDTH, draw_stored, save
from instrlib.plots.condition import accuracy_by_severity, measures_by_condition
from instrlib.plots.domains import domain_matrix, embedding_map
from instrlib.plots.experiments import paired_differences, recipes_by_domain
from instrlib.plots.pictures import spectrogram_grid
from instrlib.plots.references import scores_by_kind
from instrlib.plots.scores import (
    confusion_matrix,
    model_comparison,
    per_class_scores,
    reliability_diagram,
)
from instrlib.plots.transfer import clips_curve

__all__ = [
    "DPI",
    "FIGURES",
    "WIDTH",
    "accuracy_by_severity",
    "clips_curve",
    "confusion_matrix",
    "domain_matrix",
    "draw_stored",
    "embedding_map",
    "measures_by_condition",
    "model_comparison",
    "paired_differences",
    "per_class_scores",
    "recipes_by_domain",
    "reliability_diagram",
    "save",
    "scores_by_kind",
    "spectrogram_grid",
]
