"""Scores of probabilities, for clips with one label or several.

Scores are functions of clip weights: ones give the score, the draws of a bootstrap give its distribution.
"""

import numpy as np
import pandas as pd

from instrlib.core.io import RunError

LOWER_IS_BETTER = ("hamming_loss", "log_loss", "brier", "expected_calibration_error")
CLASS_SCORES = ("precision", "recall", "f1")
DEFAULT_THRESHOLD = 0.5
N_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)  # before a logarithm: networks answer in float32

Terms = dict[str, np.ndarray]


def scores(
    truth: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray | float = DEFAULT_THRESHOLD
) -> dict[str, float]:
    """Compute all scores of one model on one set of clips; see `weighted_scores` for their names.

    `truth` is the class of each clip, int [shape=(n_clips,)], or the labels [shape=(n_clips, n_classes)]: 1 present, 0
    absent, NaN not observed. With one label per clip, the top class is the prediction; with several, each class from
    its threshold on [shape=(n_classes,) or (n_clips, n_classes)].

    Macro scores are means over classes that occur (with several labels: observed both present and absent); a class that
    is never predicted has precision 0. `log_loss` is in nats, `expected_calibration_error` has 15 bins of equal width
    (Guo et al., 2017, arXiv:1706.04599), and `map_at_3` follows DCASE 2018 (Fonseca et al., arXiv:1807.09902).

    Examples
    --------
    >>> found = scores(np.array([0, 1]), np.array([[0.7, 0.2, 0.1, 0.0], [0.4, 0.3, 0.2, 0.1]]))
    >>> found["accuracy"], found["map_at_3"]
    (0.5, 0.75)
    """
    terms = clip_terms(truth, probabilities, thresholds)
    found = weighted_scores(terms, np.ones((1, len(terms["n"]))))
    return {name: float(values[0]) for name, values in found.items()}


def clip_terms(
    truth: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray | float = DEFAULT_THRESHOLD
) -> Terms:
    """Check truth and probabilities, and return the contribution of each clip to the scores; see `scores`.

    `observed`, `present`, `decided` and `probabilities` have shape (n_clips, n_classes), `gap` (n_clips, N_BINS),
    `confidence` and `correct` (n_clips,) or one value per observed label, and the others (n_clips,).
    """
    truth, answers = np.asarray(truth), np.asarray(probabilities, dtype=np.float64)
    single = truth.ndim == 1
    if answers.ndim != 2 or truth.shape != answers.shape[: truth.ndim] or not answers.size:
        raise RunError(f"Truth of shape {truth.shape} does not match probabilities of shape {answers.shape}.")
    n_clips, n_classes = answers.shape
    if single and (truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= n_classes):
        raise RunError(f"Targets must be integers from 0 to {n_classes - 1}.")
    labels = truth[:, None] == np.arange(n_classes) if single else truth.astype(float)
    observed, present = np.isfinite(labels), labels == 1
    if not single and (not observed.any() or not np.isin(labels[~np.isnan(labels)], (0, 1)).all()):
        raise RunError("Labels must be 1 (present), 0 (absent) or NaN (not observed), with one at least observed.")
    valid = ((answers >= 0) & (answers <= 1)).all(axis=1)
    if single:  # predictions may be stored in half precision; a sum over 41 classes is then exact to about 0.01
        valid = (answers >= 0).all(axis=1) & (np.abs(answers.sum(axis=1) - 1) < 0.01)
    if not valid.all():
        raise RunError(
            f"{(~valid).sum()} of {n_clips} clips have invalid probabilities, the first in row {valid.argmin()}; "
            "if a network diverged in training, lower its learning rate."
        )
    terms = {"probabilities": answers, "observed": observed, "present": present}
    if single:
        order = np.argsort(-answers, axis=1, kind="stable")  # among equal ones, the first class is the prediction
        place = 1 + (order == truth[:, None]).argmax(axis=1)
        terms |= {"decided": order[:, :1] == np.arange(n_classes), "n": np.ones(n_clips), "place": place}
        terms["loss"] = -np.log(np.maximum(answers[present], SMALLEST_PROBABILITY))
        row, confidence, correct = np.arange(n_clips), answers.max(axis=1), place == 1
    else:
        terms |= {"decided": (answers >= thresholds) & observed, "n": observed.sum(axis=1).astype(float)}
        likely = np.maximum(np.where(present, answers, 1 - answers), SMALLEST_PROBABILITY)
        terms["loss"] = np.where(observed, -np.log(likely), 0).sum(axis=1)
        terms["square"] = np.where(observed, (answers - present) ** 2, 0).sum(axis=1)
        row, confidence, correct = np.nonzero(observed)[0], answers[observed], present[observed]
    gap = np.zeros((n_clips, N_BINS))
    np.add.at(gap, (row, bins(confidence)), correct - confidence)
    return terms | {"gap": gap, "confidence": confidence, "correct": correct}


def weighted_scores(terms: Terms, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score [n_draws] for each row of weights [n_draws, n_clips]."""
    present, decided, n = terms["present"], terms["decided"], weights @ terms["n"]
    n = np.where(n > 0, n, np.nan)
    by_class = weighted_class_scores(terms, weights)
    macro = {name: pd.DataFrame(values).mean(axis=1).to_numpy() for name, values in by_class.items()}
    log_loss, error = weights @ terms["loss"] / n, np.abs(weights @ terms["gap"]).sum(axis=1) / n
    if "place" in terms:
        place = terms["place"]
        return {
            "accuracy": weights @ (place == 1) / n,
            "balanced_accuracy": macro["recall"],
            **{f"macro_{name}": macro[name] for name in CLASS_SCORES},
            "top3_accuracy": weights @ (place <= 3) / n,
            "map_at_3": weights @ np.where(place <= 3, 1 / place, 0) / n,
            "log_loss": log_loss,
            "expected_calibration_error": error,
        }
    hits, n_decided, n_present = (weights @ one.sum(axis=1) for one in (decided & present, decided, present))
    return {
        "mean_average_precision": macro["average_precision"],
        "macro_f1": macro["f1"],
        "micro_f1": _ratio(2 * hits, n_decided + n_present),
        "roc_auc": macro["roc_auc"],
        "hamming_loss": weights @ ((decided != present) & terms["observed"]).sum(axis=1) / n,
        "log_loss": log_loss,
        "brier": weights @ terms["square"] / n,
        "expected_calibration_error": error,
    }


def weighted_class_scores(terms: Terms, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return class scores [n_draws, n_classes] for each row of weights; NaN for a class that does not occur."""
    present, observed, decided = terms["present"], terms["observed"], terms["decided"]
    n_present, n_decided, hits = weights @ present, weights @ decided, weights @ (decided & present)
    known, ranked = n_present > 0, {}
    if "place" not in terms:
        known &= n_present < weights @ observed - 1e-9
        pairs = [
            _ranking(terms["probabilities"][seen, number], present[seen, number], weights[:, seen])
            for number, seen in enumerate(observed.T)
        ]
        ranked = dict(zip(("average_precision", "roc_auc"), np.moveaxis(np.array(pairs), 0, 2), strict=True))
    counted = (_ratio(hits, n_decided), _ratio(hits, n_present), _ratio(2 * hits, n_decided + n_present))
    found = ranked | dict(zip(CLASS_SCORES, counted, strict=True))
    return {name: np.where(known, values, np.nan) for name, values in found.items()}


def _ranking(answers: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and ROC AUC of one class in each draw; ties count as one step."""
    order = np.argsort(-answers, kind="stable")
    ends = np.flatnonzero(np.diff(answers[order], append=np.nan) != 0)
    ordered = weights[:, order]
    hits = np.cumsum(ordered * present[order], axis=1)[:, ends]
    above = np.cumsum(ordered, axis=1)[:, ends]
    new_hits, misses = np.diff(hits, axis=1, prepend=0), above - hits
    area = (np.diff(misses, axis=1, prepend=0) * (hits - new_hits / 2)).sum(axis=1)
    n_hits, n_misses = (weights @ one for one in (present, ~present))
    return _ratio((new_hits * _ratio(hits, above)).sum(axis=1), n_hits), _ratio(area, n_hits * n_misses)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=~(whole <= 0))


def bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence: `N_BINS` of equal width, which include their upper edge."""
    return np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)


def clip_probabilities(segment_probabilities: np.ndarray, clip_index: np.ndarray) -> np.ndarray:
    """Average the probabilities over the segments of each clip; rows in ascending order of `clip_index`."""
    segments = np.asarray(segment_probabilities, dtype=np.float64)
    return pd.DataFrame(segments).groupby(np.asarray(clip_index)).mean().to_numpy()


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
