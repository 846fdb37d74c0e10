"""Scores of probabilities, for clips with one label or several.

Scores are functions of clip weights: ones give the score, the draws of a bootstrap give its distribution.
"""

import numpy as np
import pandas as pd

from instrlib.core.io import EvaluationError

SCORES = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "top3_accuracy",
    "map_at_3",
    "log_loss",
    "expected_calibration_error",
)
"""Scores of clips with one label each, in the order of the tables."""

LABEL_SCORES = (
    "mean_average_precision",
    "macro_f1",
    "micro_f1",
    "roc_auc",
    "hamming_loss",
    "log_loss",
    "brier",
    "expected_calibration_error",
)
"""Scores of clips that may have several labels, in the order of the tables."""

LOWER_IS_BETTER = ("hamming_loss", "log_loss", "brier", "expected_calibration_error")
CLASS_SCORES = ("precision", "recall", "f1")
LABEL_CLASS_SCORES = ("average_precision", "roc_auc", *CLASS_SCORES)
DEFAULT_THRESHOLD = 0.5
N_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Lower bound of a probability before its logarithm is taken: networks answer in float32."""

Terms = dict[str, np.ndarray]
Thresholds = np.ndarray | float


def scores(
    truth: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds = DEFAULT_THRESHOLD
) -> dict[str, float]:
    """Compute all scores of one model on one set of clips: those in `SCORES` or `LABEL_SCORES`.

    `truth` is the class of each clip, int [shape=(n_clips,)], or the labels [shape=(n_clips, n_classes)]: 1 present, 0
    absent, NaN not observed. With one label per clip, the top class is the prediction; with several, each class from
    its threshold on [shape=(n_classes,) or (n_clips, n_classes)].

    Macro scores are means over classes that occur (with several labels: observed both present and absent); a class that
    is never predicted has precision 0. `log_loss` is in nats, `expected_calibration_error` has 15 bins of equal width
    [1]_, and `map_at_3` follows DCASE 2018 [2]_.

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks", ICML 2017. arXiv:1706.04599
    .. [2] E. Fonseca et al., "General-purpose tagging of Freesound audio with AudioSet labels", DCASE 2018.
       arXiv:1807.09902

    Examples
    --------
    >>> found = scores(np.array([0, 1]), np.array([[0.7, 0.2, 0.1, 0.0], [0.4, 0.3, 0.2, 0.1]]))
    >>> found["accuracy"], found["map_at_3"]
    (0.5, 0.75)
    """
    terms = clip_terms(truth, probabilities, thresholds)
    found = weighted_scores(terms, np.ones((1, len(terms["n"]))))
    return {name: float(values[0]) for name, values in found.items()}


def per_class(
    truth: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], thresholds: Thresholds = DEFAULT_THRESHOLD
) -> pd.DataFrame:
    """Compute the scores of each class, `support` (clips with the class) and `observed`; NaN for absent classes."""
    terms = clip_terms(truth, probabilities, thresholds)
    found = weighted_class_scores(terms, np.ones((1, len(terms["n"]))))
    check_names(classes, terms["present"].shape[1])
    table = pd.DataFrame({name: values[0] for name, values in found.items()}, index=pd.Index(classes, name="class"))
    return table.assign(support=terms["present"].sum(axis=0), observed=terms["observed"].sum(axis=0))


def clip_terms(truth: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds = DEFAULT_THRESHOLD) -> Terms:
    """Check truth and probabilities, and return the contribution of each clip to the scores; see `scores`.

    `observed`, `present`, `decided` and `probabilities` have shape (n_clips, n_classes), `gap` (n_clips, N_BINS), and
    the others, such as `n` (observed labels) and `loss`, (n_clips,).
    """
    if np.ndim(truth) == 2:
        return _label_terms(truth, probabilities, thresholds)
    targets, answers = checked(truth, probabilities)
    n_clips, n_classes = answers.shape
    clips, confidence, answered = np.arange(n_clips), answers.max(axis=1), answers.argmax(axis=1)
    true = answers[clips, targets][:, None]
    first = np.arange(n_classes) < targets[:, None]  # among equal probabilities, the first class is the prediction
    place = 1 + ((answers > true) | ((answers == true) & first)).sum(axis=1)
    gap = np.zeros((n_clips, N_BINS))
    gap[clips, _bins(confidence, N_BINS)] = (place == 1) - confidence
    return {
        "probabilities": answers,
        "observed": np.ones(answers.shape, bool),
        "present": targets[:, None] == np.arange(n_classes),
        "decided": answered[:, None] == np.arange(n_classes),
        "n": np.ones(n_clips),
        "loss": -np.log(np.maximum(true[:, 0], SMALLEST_PROBABILITY)),
        "gap": gap,
        "correct": (place == 1).astype(float),
        "top3": (place <= 3).astype(float),
        "reciprocal_rank": np.where(place <= 3, 1 / place, 0.0),
    }


def weighted_scores(terms: Terms, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score [n_draws] for each row of weights [n_draws, n_clips]."""
    by_class = weighted_class_scores(terms, weights)
    n = weights @ terms["n"]
    n = np.where(n > 0, n, np.nan)
    shared = {
        "macro_f1": _macro(by_class["f1"]),
        "log_loss": weights @ terms["loss"] / n,
        "expected_calibration_error": np.abs(weights @ terms["gap"]).sum(axis=1) / n,
    }
    if "correct" in terms:
        recall = _macro(by_class["recall"])
        means = {
            "accuracy": weights @ terms["correct"] / n,
            "balanced_accuracy": recall,
            "macro_precision": _macro(by_class["precision"]),
            "macro_recall": recall,
            "top3_accuracy": weights @ terms["top3"] / n,
            "map_at_3": weights @ terms["reciprocal_rank"] / n,
        }
        return {name: (shared | means)[name] for name in SCORES}
    observed, present, decided = terms["observed"], terms["present"], terms["decided"] & terms["observed"]
    hits, n_decided, n_present = (weights @ one.sum(axis=1) for one in (decided & present, decided, present))
    means = {
        "mean_average_precision": _macro(by_class["average_precision"]),
        "micro_f1": _ratio(2 * hits, n_decided + n_present),
        "roc_auc": _macro(by_class["roc_auc"]),
        "hamming_loss": weights @ ((decided != present) & observed).sum(axis=1) / n,
        "brier": weights @ terms["square"] / n,
    }
    return {name: (shared | means)[name] for name in LABEL_SCORES}


def weighted_class_scores(terms: Terms, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return class scores [n_draws, n_classes] for each row of weights; NaN for a class that does not occur."""
    present, observed = terms["present"], terms["observed"]
    decided = terms["decided"] & observed
    n_present, n_decided, hits = weights @ present, weights @ decided, weights @ (decided & present)
    found = {
        "precision": _ratio(hits, n_decided),
        "recall": _ratio(hits, n_present),
        "f1": _ratio(2 * hits, n_decided + n_present),
    }
    known = n_present > 0
    if "correct" not in terms:
        known &= n_present < weights @ observed - 1e-9
        ranked = [
            _ranking(terms["probabilities"][seen, number], present[seen, number], weights[:, seen])
            for number, seen in enumerate(observed.T)
        ]
        precision, area = (np.stack(one, axis=1) for one in zip(*ranked, strict=True))
        found = {"average_precision": precision, "roc_auc": area} | found
    return {name: np.where(known, values, np.nan) for name, values in found.items()}


def clip_probabilities(segment_probabilities: np.ndarray, clip_index: np.ndarray) -> np.ndarray:
    """Average the probabilities over the segments of each clip; rows in ascending order of `clip_index`."""
    segments, index = np.asarray(segment_probabilities, dtype=np.float64), np.asarray(clip_index)
    if segments.ndim != 2 or index.shape != segments.shape[:1] or not len(index):
        raise EvaluationError(f"Segments of shape {segments.shape} do not match a clip index of shape {index.shape}.")
    clips, row, n_segments = np.unique(index, return_inverse=True, return_counts=True)
    total = np.zeros((len(clips), segments.shape[1]))
    np.add.at(total, row, segments)
    return total / n_segments[:, None]


def confusion(truth: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds = DEFAULT_THRESHOLD) -> np.ndarray:
    """Count predictions: rows are true classes, columns predicted ones.

    With several labels, a cell counts the clips with the class of the row present and the class of the column
    predicted, but observed as absent; the diagonal counts present and predicted classes.
    """
    terms = clip_terms(truth, probabilities, thresholds)
    present, decided = terms["present"], terms["decided"]
    counts = present.T.astype(np.int64) @ (decided & terms["observed"] & ~present).astype(np.int64)
    np.fill_diagonal(counts, (present & decided).sum(axis=0))
    return counts


def most_confused(counts: np.ndarray, classes: tuple[str, ...], n: int) -> pd.DataFrame:
    """Pairs of classes that are confused most often: `true`, `predicted`, `count`, `share` of the true class.

    Examples
    --------
    >>> most_confused(np.array([[8, 2, 0], [1, 9, 0], [3, 0, 7]]), ("cello", "flute", "organ"), 2)
        true predicted  count  share
    0  organ     cello      3    0.3
    1  cello     flute      2    0.2
    """
    counts, names = np.asarray(counts), np.asarray(classes, dtype=object)
    true, predicted = np.nonzero(counts * (1 - np.eye(len(counts), dtype=int)))
    found = pd.DataFrame({"true": names[true], "predicted": names[predicted], "count": counts[true, predicted]})
    found["share"] = found["count"] / counts.sum(axis=1)[true]
    return found.sort_values(["count", "share"], ascending=False, kind="stable", ignore_index=True).head(n)


def reliability(truth: np.ndarray, probabilities: np.ndarray, *, n_bins: int = N_BINS) -> dict[str, np.ndarray]:
    """Return accuracy against confidence, in bins of equal width that include their upper edge.

    With several labels, each observed label counts, with its probability and presence. `confidence` and `accuracy` of
    empty bins are NaN; `share` is that of all predictions; `ece` is the expected calibration error.
    """
    terms = clip_terms(truth, probabilities)
    if "correct" in terms:
        confidence, correct = terms["probabilities"].max(axis=1), terms["correct"]
    else:
        confidence, correct = terms["probabilities"][terms["observed"]], terms["present"][terms["observed"]]
    bins = _bins(confidence, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    filled = np.where(n > 0, n, np.nan)
    means = {
        "confidence": np.bincount(bins, confidence, n_bins) / filled,
        "accuracy": np.bincount(bins, correct, n_bins) / filled,
        "share": n / len(bins),
    }
    gap = np.nan_to_num(np.abs(means["accuracy"] - means["confidence"]))
    return means | {"ece": np.asarray((gap * means["share"]).sum())}


def decisions(probabilities: np.ndarray, thresholds: Thresholds = DEFAULT_THRESHOLD) -> np.ndarray:
    """Return which classes count as present (bool); thresholds are one, per class, per seed and class, or per value."""
    answers, bars = np.asarray(probabilities), np.asarray(thresholds, dtype=float)
    if bars.ndim == answers.ndim - 1 and bars.ndim == 2:
        bars = bars[:, None, :]
    try:
        return answers >= np.broadcast_to(bars, answers.shape)
    except ValueError:
        raise EvaluationError(
            f"Thresholds of shape {bars.shape} do not match probabilities of shape {answers.shape}."
        ) from None


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the threshold of each class with the best F1 on its observed validation clips [n_classes].

    A threshold lies halfway between two occurring probabilities; of equal ones, the nearest to 0.5 is chosen (it is
    below 0.5 for rare classes, see arXiv:1402.1892). Also returns the indices of the classes that were not observed
    both present and absent; their threshold is 0.5.
    """
    terms = clip_terms(np.asarray(labels, dtype=float), probabilities)
    thresholds, unknown = np.full(terms["present"].shape[1], DEFAULT_THRESHOLD), []
    for number, (observed, present) in enumerate(zip(terms["observed"].T, terms["present"].T, strict=True)):
        if not 0 < present.sum() < observed.sum():
            unknown.append(number)
            continue
        answers, hits = terms["probabilities"][observed, number], present[observed]
        values = np.unique(answers)
        between = (values + np.concatenate([[0.0], values[:-1]])) / 2
        decided = answers >= between[:, None]
        f1 = 2 * (decided & hits).sum(axis=1) / (decided.sum(axis=1) + hits.sum())
        best = between[f1 >= f1.max() - 1e-12]
        thresholds[number] = best[np.abs(best - DEFAULT_THRESHOLD).argmin()]
    return thresholds, np.array(unknown, dtype=int)


def checked(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return targets (int) and probabilities (float64) of clips with one label; raise `EvaluationError` if invalid."""
    targets, answers = np.asarray(targets), np.asarray(probabilities, dtype=np.float64)
    if answers.ndim != 2 or targets.shape != answers.shape[:1] or not answers.size:
        raise EvaluationError(f"Targets of shape {targets.shape} do not match probabilities of shape {answers.shape}.")
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= answers.shape[1]:
        raise EvaluationError(f"Targets must be integers from 0 to {answers.shape[1] - 1}.")
    # Predictions may be stored in half precision; a sum over 41 classes is then exact to about 0.01.
    valid = np.isfinite(answers).all(axis=1) & (answers >= 0).all(axis=1) & (np.abs(answers.sum(axis=1) - 1) < 0.01)
    return targets, _all_valid(answers, valid)


def check_names(classes: tuple[str, ...], n_classes: int) -> None:
    """Raise `EvaluationError` unless there is one name per column."""
    if len(classes) != n_classes:
        raise EvaluationError(f"{len(classes)} class names do not match {n_classes} columns; pass one name per column.")


def _label_terms(truth: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds) -> Terms:
    labels, answers = np.asarray(truth, dtype=float), np.asarray(probabilities, dtype=np.float64)
    if labels.shape != answers.shape or not labels.size:
        raise EvaluationError(f"Labels of shape {labels.shape} do not match probabilities of shape {answers.shape}.")
    observed, present = ~np.isnan(labels), labels == 1
    if not observed.any() or not np.isin(labels[observed], (0, 1)).all():
        raise EvaluationError(
            "Labels must be 1 (present), 0 (absent) or NaN (not observed), with at least one observed."
        )
    _all_valid(answers, ((answers >= 0) & (answers <= 1)).all(axis=1))
    likely = np.clip(np.where(present, answers, 1 - answers), SMALLEST_PROBABILITY, 1)
    gap = np.zeros((len(answers), N_BINS))
    np.add.at(gap, (np.nonzero(observed)[0], _bins(answers[observed], N_BINS)), (present - answers)[observed])
    return {
        "probabilities": answers,
        "observed": observed,
        "present": present,
        "decided": decisions(answers, thresholds),
        "n": observed.sum(axis=1).astype(float),
        "loss": np.where(observed, -np.log(likely), 0).sum(axis=1),
        "gap": gap,
        "square": np.where(observed, (answers - present) ** 2, 0).sum(axis=1),
    }


def _all_valid(answers: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if not valid.all():
        raise EvaluationError(
            f"{(~valid).sum()} of {len(valid)} clips have invalid probabilities, the first in row {valid.argmin()}; "
            "if a network diverged in training, lower its learning rate."
        )
    return answers


def _ranking(answers: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and ROC AUC of one class in each draw; ties count as one step."""
    if not len(answers):
        return np.zeros(len(weights)), np.zeros(len(weights))
    order = np.argsort(-answers, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(answers[order]) != 0, True))
    ordered = weights[:, order]
    hits = np.cumsum(ordered * present[order], axis=1)[:, ends]
    above = np.cumsum(ordered, axis=1)[:, ends]
    new_hits, misses = np.diff(hits, axis=1, prepend=0), above - hits
    area = (np.diff(misses, axis=1, prepend=0) * (hits - new_hits / 2)).sum(axis=1)
    average_precision = _ratio((new_hits * _ratio(hits, above)).sum(axis=1), hits[:, -1])
    return average_precision, _ratio(area, hits[:, -1] * misses[:, -1])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=~(whole <= 0))


def _macro(by_class: np.ndarray) -> np.ndarray:
    n = np.isfinite(by_class).sum(axis=1)
    return np.where(n > 0, np.nansum(by_class, axis=1) / np.maximum(n, 1), np.nan)


def _bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    return np.clip(np.ceil(values * n_bins).astype(int) - 1, 0, n_bins - 1)
