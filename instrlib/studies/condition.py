"""Condition of an instrument (healthy, aged or broken), classified from acoustic measures.

The model is a logistic regression that needs neither scikit-learn nor TensorFlow; notebook 12 trains it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from instrlib.core.io import RunError
from instrlib.evaluation.calibration import softmax
from instrlib.studies.measures import MEASURES, SOUNDING_DB, measure

CONDITIONS = ("healthy", "aged", "broken")

LOGGED = (
    *("spectral_flatness", "treble_flatness", "decay_variance", "level_flutter_db", "modulation_depth_db"),
    *("fundamental_hz", "roll_off_hz", "treble_kurtosis", "treble_burstiness_db"),
)
"""Positive measures that span several powers of ten: models see their logarithm."""

FORMAT = 2
"""Version of the plain model; raised whenever `measure` or `inputs` changes."""

MAX_SEGMENTS = 20
"""Segments of a long recording that are measured, spread evenly over it."""

_FARTHEST = 4.0


def inputs(values: np.ndarray, preparation: Mapping[str, Any]) -> np.ndarray:
    """Return model inputs for measures [n, n_measures]: standardised, squared, and indicators of missing values.

    Missing measures are replaced by the median of the training part; `preparation` comes from `fit_inputs`.
    """
    told = _logged(values)
    missing = ~np.isfinite(told)
    filled = np.where(missing, numbers(preparation["median"]), told)
    scaled = (filled - numbers(preparation["mean"])) / numbers(preparation["deviation"])
    # Clip outliers to the range of the training part.
    scaled = np.clip(scaled, -_FARTHEST, _FARTHEST)
    return np.concatenate(
        [scaled, np.square(scaled), missing[:, numbers(preparation["indicators"]).astype(int)]], axis=1
    )


def fit_inputs(values: np.ndarray) -> dict[str, str]:
    """Return median, mean, standard deviation (after the logarithm) and the indices of incomplete measures."""
    told = _logged(values)
    missing = ~np.isfinite(told)
    known = ~missing.all(axis=0)
    median = np.zeros(told.shape[1])
    median[known] = np.nanmedian(np.where(missing, np.nan, told)[:, known], axis=0)
    filled = np.where(missing, median, told)
    deviation = filled.std(axis=0)
    return {
        "median": line(median),
        "mean": line(filled.mean(axis=0)),
        "deviation": line(np.where(deviation > 1e-9, deviation, 1.0)),
        "indicators": line(np.flatnonzero(missing.any(axis=0))),
    }


def plain_model(estimator: Any, preparation: dict[str, str], temperature: float = 1.0) -> dict[str, Any]:
    """Return a scikit-learn pipeline of `scale` and `model` (logistic regression) as numbers."""
    scale, model = estimator.named_steps["scale"], estimator.named_steps["model"]
    weights = model.coef_.T / scale.scale_[:, None]
    bias = model.intercept_ - scale.mean_ @ weights
    return {
        "preparation": preparation,
        "weights": line(weights),
        "bias": line(bias),
        "temperature": temperature,
    }


def probabilities(values: np.ndarray, model: Mapping[str, Any]) -> np.ndarray:
    """Return the probability of each condition [n, 3] for measures [n, n_measures] and a `plain_model`."""
    x = inputs(np.asarray(values, dtype=np.float64), model["preparation"])
    weights = numbers(model["weights"]).reshape(-1, len(CONDITIONS))
    return softmax(x @ weights + numbers(model["bias"]), model["temperature"])


def verdict(
    signal: np.ndarray, sample_rate_hz: int, model: Mapping[str, Any]
) -> tuple[str, dict[str, float], dict[str, float]]:
    """Classify the condition of the instrument in a mono recording with the model in `condition.json`.

    A long recording is measured in up to `MAX_SEGMENTS` segments. Returns the most probable of `CONDITIONS`, the
    calibrated probabilities (mean over the segments), and the measures (median over the segments, NaN where undefined).
    Show `model["about"]` with every verdict: the model was trained on simulated damage.
    """
    rate_hz = int(check_model(model)["sample_rate_hz"])
    signal = np.asarray(signal, dtype=np.float32)
    if sample_rate_hz != rate_hz:
        import soxr

        signal = soxr.resample(signal, sample_rate_hz, rate_hz, quality="HQ")
    values = np.array([list(measure(one, rate_hz).values()) for one in _segments(signal, model["segment_s"], rate_hz)])
    answered = probabilities(values, model).mean(axis=0)
    told = np.isfinite(values)
    measures = {
        name: float(np.median(column[known])) if known.any() else math.nan
        for name, column, known in zip(MEASURES, values.T, told.T, strict=True)
    }
    by_condition = dict(zip(CONDITIONS, map(float, answered), strict=True))
    return CONDITIONS[int(answered.argmax())], by_condition, measures


def line(values: np.ndarray) -> str:
    """Return numbers as one string with five significant digits, which is one line of JSON."""
    return " ".join(f"{value:.5g}" for value in np.ravel(values))


def numbers(text: str) -> np.ndarray:
    """Return the numbers in a string of `line` [shape=(n,)]."""
    return np.array(text.split(), dtype=np.float64)


def check_model(model: Any) -> dict[str, Any]:
    """Return the model if it uses these measures; otherwise raise `RunError`."""
    known = isinstance(model, dict) and model.get("format") == FORMAT and model.get("measures") == " ".join(MEASURES)
    if not known:
        raise RunError("condition.json was made by another version; re-run notebook 12_instrument_condition.")
    return model


def _logged(values: np.ndarray) -> np.ndarray:
    columns = [list(MEASURES).index(name) for name in LOGGED]
    values = np.array(values, dtype=np.float64)
    values[:, columns] = np.log10(np.maximum(values[:, columns], 1e-6))
    place = list(MEASURES).index("inharmonicity")
    # From 1e-5 (none) to 1e-2 (a short piano string): close to the logarithm, but also defined around 0.
    values[:, place] = np.arcsinh(values[:, place] / 1e-4)
    return values


def _segments(signal: np.ndarray, segment_s: float, rate_hz: int) -> list[np.ndarray]:
    """Cut a long recording into evenly spaced segments; silent ones are left out if there are others."""
    n = round(segment_s * rate_hz)
    count = min(MAX_SEGMENTS, max(1, len(signal) // n))
    starts = np.linspace(0, max(0, len(signal) - n), count).round().astype(int)
    parts = [signal[start : start + n] for start in starts]
    peaks = np.array([np.abs(part).max(initial=0.0) for part in parts])
    return [part for part, peak in zip(parts, peaks, strict=True) if peak >= peaks.max() * 10 ** (-SOUNDING_DB / 20)]
