"""Old place of `train` and `trained`."""

from instrlib.models.train import Initialisation as Start
from instrlib.models.train import check_labels, class_weights, config_for, make_deterministic, train_model
from instrlib.models.trained import (
    COMPLETE,
    check_trained_with,
    is_finished,
    load_model,
    load_scaler,
    load_thresholds,
    open_trained,
    part_segments,
    predict_clips,
    read_history,
    read_manifest,
    summary,
    write_network,
)

__all__ = [
    "COMPLETE",
    "Start",
    "check_labels",
    "check_trained_with",
    "class_weights",
    "config_for",
    "is_finished",
    "load_model",
    "load_scaler",
    "load_thresholds",
    "make_deterministic",
    "open_trained",
    "part_segments",
    "predict_clips",
    "read_history",
    "read_manifest",
    "summary",
    "train_model",
    "write_network",
]
