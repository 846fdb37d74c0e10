"""Predictions of models on test clips, and how those of several seeds and folds are joined."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import RunError
from instrlib.evaluation import metrics

Predictions = dict[str, Any]
"""`clip_id`, `group`, `targets` [shape=(n_clips,)] and `probabilities` [shape=(n_clips, n_classes)], or with several
seeds [shape=(n_seeds, n_clips, n_classes)].

Where a clip may have several labels also `labels` [shape=(n_clips, n_classes)], 1 present, 0 absent, NaN not observed,
and `thresholds` [shape=(n_classes,) or (n_seeds, n_classes) or that of `probabilities`], from which probability on a
class counts as present.
"""


def several_labels(predictions: Predictions) -> bool:
    """Return whether the clips may have several labels."""
    return "labels" in predictions


def main_score(predictions: Predictions) -> str:
    """Return the primary score: "accuracy", or "mean_average_precision" with several labels."""
    return "mean_average_precision" if several_labels(predictions) else "accuracy"


def truth(predictions: Predictions) -> np.ndarray:
    """Return the classes of the clips, or their labels where several are possible; see `metrics.scores`."""
    return predictions["labels" if several_labels(predictions) else "targets"]


def thresholds(predictions: Predictions) -> np.ndarray:
    """Return from which probability on a class counts as present, shaped like the probabilities."""
    shape = np.shape(predictions["probabilities"])
    bars = np.asarray(predictions.get("thresholds", metrics.DEFAULT_THRESHOLD), dtype=float)
    return np.broadcast_to(bars[:, None] if bars.ndim == 2 and len(shape) == 3 else bars, shape)


def terms_of_seeds(predictions: Predictions) -> list[metrics.Terms]:
    """Return `metrics.clip_terms` of each seed."""
    both = np.asarray(predictions["probabilities"]), thresholds(predictions)
    of_seeds = zip(*(one if one.ndim == 3 else one[None] for one in both), strict=True)
    return [metrics.clip_terms(truth(predictions), *one) for one in of_seeds]


def by_seed(predictions: Predictions) -> pd.DataFrame:
    """Return scores as a table with one row per score and one column per seed."""
    ones = np.ones((1, len(truth(predictions))))
    columns = [metrics.weighted_scores(terms, ones) for terms in terms_of_seeds(predictions)]
    return pd.DataFrame({f"seed {number}": pd.DataFrame(one).loc[0] for number, one in enumerate(columns)})


def confusion(predictions: Predictions) -> np.ndarray:
    """Count predictions over all seeds: rows are true classes, columns predicted ones.

    With several labels, a cell counts the clips with the class of the row present and the class of the column
    predicted, but observed as absent; the diagonal counts present and predicted classes.
    """
    counts = 0
    for terms in terms_of_seeds(predictions):
        present, decided = terms["present"].astype(np.int64), terms["decided"]
        counts = counts + present.T @ (decided & ~terms["present"]) + np.diag((present * decided).sum(axis=0))
    return counts


def reliability(predictions: Predictions) -> dict[str, Any]:
    """Return accuracy against confidence, in bins of equal width, over the predictions of all seeds.

    With several labels, each observed label counts, with its probability and presence. `confidence` and `accuracy` of
    empty bins are NaN; `share` is that of all predictions; `ece` is the expected calibration error, the mean over
    seeds, because pooling would cancel errors of opposite sign.
    """
    terms = terms_of_seeds(predictions)
    columns = (np.concatenate([one[name] for one in terms]).astype(float) for name in ("confidence", "correct"))
    pooled = pd.DataFrame(dict(zip(("confidence", "accuracy"), columns, strict=True)))
    in_bins = pooled.groupby(metrics.bins(pooled.confidence.to_numpy()))
    means = in_bins.mean().assign(share=in_bins.size() / len(pooled)).reindex(range(metrics.N_BINS))
    ece = by_seed(predictions).loc["expected_calibration_error"].mean()
    return {name: column.to_numpy() for name, column in means.fillna({"share": 0}).items()} | {"ece": ece}


def check_same_clips(predictions: dict[str, Predictions]) -> None:
    """Raise `RunError` unless all models were tested on the same clips with the same truth."""
    name, first = next(iter(predictions.items()))
    for other, answer in predictions.items():
        same = np.array_equal(answer["clip_id"], first["clip_id"]) and several_labels(answer) == several_labels(first)
        if not same or not np.array_equal(truth(answer), truth(first), equal_nan=several_labels(first)):
            raise RunError(f"{other!r} and {name!r} have different test clips or labels; test both on the same split.")


def join_folds(answers: Sequence[Predictions]) -> Predictions:
    """Join the predictions of several folds, each on its own test part; clips are sorted by id."""
    clip_id = np.concatenate([answer["clip_id"] for answer in answers])
    order = np.argsort(clip_id, kind="stable")
    if len(np.unique(clip_id)) < len(clip_id):
        raise RunError("A clip was tested in two folds; make the folds again with `splits.k_folds`.")
    joined = {
        name: np.concatenate([answer[name] for answer in answers])[order]
        for name in ("clip_id", "group", "targets", "labels")
        if name in answers[0]
    }
    of_seed = {"probabilities": [answer["probabilities"] for answer in answers]}
    if "thresholds" in answers[0]:
        of_seed["thresholds"] = [thresholds(answer) for answer in answers]
    return joined | {name: np.concatenate(by_fold, axis=-2)[..., order, :] for name, by_fold in of_seed.items()}


def join_seeds(answers: Sequence[Sequence[Predictions]]) -> Predictions:
    """Join the predictions of several seeds and folds (first by seed, then by fold) along a first axis of seeds."""
    joined = [join_folds(by_fold) for by_fold in answers]
    of_seed = [name for name in ("probabilities", "thresholds") if name in joined[0]]
    return joined[0] | {name: np.stack([one[name] for one in joined]) for name in of_seed}
