"""Calibration of probabilities, and thresholds for abstaining, fitted on validation data; imports only NumPy."""

from collections.abc import Callable

import numpy as np

TEMPERATURES = (0.05, 20.0)  # range of the search: a network without an error on validation would want 0
KEPT_SHARE = 0.95  # share of the correct answers on validation that reach their threshold
MIN_RIGHT_CLIPS = 20  # a class with fewer correct answers gets the threshold of all classes together


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities that sum to 1; a temperature above 1 makes them more uniform."""
    return np.exp(_log_softmax(logits, temperature))


def sigmoid(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return an independent probability for each class; tanh, unlike exp, cannot overflow."""
    return 0.5 + 0.5 * np.tanh(np.asarray(logits, np.float64) / (2 * temperature))


def fit_temperature(logits: np.ndarray, targets: np.ndarray, clip_index: np.ndarray | None = None) -> float:
    """Return the temperature with the lowest log loss of softmax probabilities (Guo et al., 2017, arXiv:1706.04599).

    `logits` [n_segments, n_classes] and `targets` [n_clips] are those of validation clips; `clip_index` [n_segments] is
    the clip of each segment (default: each segment is a clip), over whose segments probabilities are averaged.
    """
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets)
    clip_index = np.arange(len(logits)) if clip_index is None else np.asarray(clip_index)
    n_segments = np.bincount(clip_index, minlength=len(targets))

    def log_loss(temperature: float) -> float:
        of_truth = _log_softmax(logits, temperature)[np.arange(len(logits)), targets[clip_index]]
        total = np.full(len(targets), -np.inf)
        np.logaddexp.at(total, clip_index, of_truth)  # finite for confident errors
        return float(np.mean(np.log(n_segments) - total))

    return _least(log_loss)


def fit_label_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the lowest binary log loss of sigmoid probabilities over the observed labels."""
    observed = np.isfinite(labels)
    signed = np.where(np.asarray(labels)[observed] == 1, -1, 1) * np.asarray(logits, np.float64)[observed]
    return _least(lambda temperature: float(np.logaddexp(0, signed / temperature).mean()))


def answer_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return for each class the probability that a share of its correct predictions on validation reaches.

    Only correct predictions count, because validation data lack unknown classes. Classes without any have threshold 0.
    """
    answered, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = answered == np.asarray(targets)

    def reached(values: np.ndarray) -> float:
        return float(np.quantile(values, 1 - KEPT_SHARE, method="lower")) if len(values) else 0.0

    of_class = [confidence[right & (answered == number)] for number in range(probabilities.shape[1])]
    return np.array([reached(own if len(own) >= MIN_RIGHT_CLIPS else confidence[right]) for own in of_class])


def is_named(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return whether the top class reaches its threshold; otherwise the model abstains.

    Examples
    --------
    >>> is_named(np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0.5, 0.8])).tolist()
    [True, False]
    """
    return probabilities.max(axis=-1) >= np.asarray(thresholds)[probabilities.argmax(axis=-1)]


def refusals(targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """Return the effect of abstaining on test clips; shares of empty sets are NaN.

    `named`: share of answered clips; `right_lost`, `wrong_refused`: abstentions among the correct and the wrong
    predictions; `accuracy` on all clips and `accuracy_of_named` on answered clips.
    """
    named = is_named(probabilities, thresholds)
    right = probabilities.argmax(axis=1) == np.asarray(targets)
    shares = {
        "named": named,
        "right_lost": ~named[right],
        "wrong_refused": ~named[~right],
        "accuracy": right,
        "accuracy_of_named": right[named],
    }
    return {name: float(flags.mean()) if flags.size else float("nan") for name, flags in shares.items()}


def _log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = np.asarray(logits, np.float64) / temperature
    below = scaled - scaled.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def _least(loss: Callable[[float], float]) -> float:
    """Return the temperature with the lowest loss."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda log: loss(np.exp(log)), bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))
