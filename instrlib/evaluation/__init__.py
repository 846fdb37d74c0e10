"""Scores, intervals, calibration and baselines, computed from arrays of predictions."""
