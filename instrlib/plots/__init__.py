"""Every figure of the study: functions of plain arrays, so that each can be drawn again from what a run saved.

One module for each kind; all their figures are called from here, as `plots.<name>`.
"""

from instrlib.plots.base import DPI, FIGURES, WIDTH, draw_stored, save
from instrlib.plots.condition import accuracy_by_severity, measures_by_condition
from instrlib.plots.corpus import class_balance, duration_histogram, split_overview
from instrlib.plots.domains import domain_matrix, embedding_map
from instrlib.plots.experiments import paired_differences, recipes_by_domain
from instrlib.plots.mixing import expected_and_named, recall_by_level, scores_by_number
from instrlib.plots.pictures import feature_settings, spectrogram_grid
from instrlib.plots.references import scores_by_kind
from instrlib.plots.scores import (
    confusion_matrix,
    model_comparison,
    per_class_scores,
    reliability_diagram,
)
from instrlib.plots.timeline import timeline
from instrlib.plots.transfer import clips_curve

__all__ = [
    "DPI",
    "FIGURES",
    "WIDTH",
    "accuracy_by_severity",
    "class_balance",
    "clips_curve",
    "confusion_matrix",
    "domain_matrix",
    "draw_stored",
    "duration_histogram",
    "embedding_map",
    "expected_and_named",
    "feature_settings",
    "measures_by_condition",
    "model_comparison",
    "paired_differences",
    "per_class_scores",
    "recall_by_level",
    "recipes_by_domain",
    "reliability_diagram",
    "save",
    "scores_by_kind",
    "scores_by_number",
    "spectrogram_grid",
    "split_overview",
    "timeline",
]
