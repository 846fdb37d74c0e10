"""Predictions of models on test clips, and how those of several seeds and folds are joined."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import EvaluationError
from instrlib.evaluation import metrics

Predictions = dict[str, Any]
"""`clip_id`, `group`, `targets` [shape=(n_clips,)] and `probabilities` [shape=(n_clips, n_classes)], or with several
seeds [shape=(n_seeds, n_clips, n_classes)].

Where a clip may have several labels also `labels` [shape=(n_clips, n_classes)], 1 present, 0 absent, NaN not observed,
and `thresholds` [shape=(n_classes,) or (n_seeds, n_classes)], from which probability on a class counts as present;
where every fold has its own, of the shape of `probabilities`.
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


def each_seed(predictions: Predictions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield probabilities [shape=(n_clips, n_classes)] and thresholds for each seed."""
    answers = np.asarray(predictions["probabilities"])
    bars = np.asarray(predictions.get("thresholds", metrics.DEFAULT_THRESHOLD), dtype=float)
    metrics.decisions(answers, bars)  # raises if they do not match
    if answers.ndim == 2:
        answers, bars = answers[None], bars[None]
    for number, one in enumerate(answers):
        yield one, bars[number if len(bars) > 1 else 0] if bars.ndim > 1 else bars


def check_same_clips(predictions: dict[str, Predictions]) -> None:
    """Raise `EvaluationError` unless all models were tested on the same clips with the same truth."""
    name, first = next(iter(predictions.items()))
    for other, answer in predictions.items():
        same = np.array_equal(answer["clip_id"], first["clip_id"]) and several_labels(answer) == several_labels(first)
        if not same or not np.array_equal(truth(answer), truth(first), equal_nan=several_labels(first)):
            raise EvaluationError(
                f"{other!r} and {name!r} have different test clips or labels; test both on the same split."
            )


def join_folds(answers: Sequence[Predictions]) -> Predictions:
    """Join the predictions of several folds, each on its own test part; clips are sorted by id."""
    clip_id = np.concatenate([answer["clip_id"] for answer in answers])
    order = np.argsort(clip_id, kind="stable")
    if len(np.unique(clip_id)) < len(clip_id):
        raise EvaluationError("A clip was tested in two folds; make the folds again with `splits.k_folds`.")
    names = ("clip_id", "group", "targets", *(["labels"] if several_labels(answers[0]) else []))
    joined = {name: np.concatenate([answer[name] for answer in answers])[order] for name in names}
    probabilities = np.concatenate([answer["probabilities"] for answer in answers], axis=-2)
    joined["probabilities"] = probabilities[..., order, :]
    if "thresholds" in answers[0]:
        joined["thresholds"] = _joined_thresholds(answers, order)
    return joined


def join_seeds(answers: Sequence[Sequence[Predictions]]) -> Predictions:
    """Join the predictions of several seeds and folds (first by seed, then by fold) along a first axis of seeds."""
    by_seed = [join_folds(by_fold) for by_fold in answers]
    of_seed = [name for name in ("probabilities", "thresholds") if name in by_seed[0]]
    return by_seed[0] | {name: np.stack([one[name] for one in by_seed]) for name in of_seed}


def by_seed(predictions: Predictions) -> pd.DataFrame:
    """Return scores as a table with one row per score and one column per seed."""
    columns = [metrics.scores(truth(predictions), *one) for one in each_seed(predictions)]
    return pd.DataFrame({f"seed {number}": column for number, column in enumerate(columns)})


def confusion_over_seeds(predictions: Predictions) -> np.ndarray:
    """Return the sum of the confusion matrices of all seeds; see `metrics.confusion`."""
    return sum(metrics.confusion(truth(predictions), *one) for one in each_seed(predictions))


def reliability_over_seeds(predictions: Predictions) -> dict[str, Any]:
    """Return the reliability diagram over the predictions of all seeds; see `metrics.reliability`.

    `ece` is the mean over seeds, because pooling would cancel errors of opposite sign. `several` is True with several
    labels per clip, and otherwise missing.
    """
    known, answers = truth(predictions), [one for one, _ in each_seed(predictions)]
    pooled = metrics.reliability(np.concatenate([known] * len(answers)), np.concatenate(answers))
    ece = np.mean([metrics.reliability(known, one)["ece"] for one in answers])
    return pooled | {"ece": ece} | ({"several": True} if several_labels(predictions) else {})


def _joined_thresholds(answers: Sequence[Predictions], order: np.ndarray) -> np.ndarray:
    """Return the thresholds of several folds as one row per clip; those of a single fold stay as they are."""
    if len(answers) == 1:
        return answers[0]["thresholds"]
    of_clip = [
        np.broadcast_to(np.asarray(answer["thresholds"])[..., None, :], answer["probabilities"].shape)
        for answer in answers
    ]
    return np.concatenate(of_clip, axis=-2)[..., order, :]


def by_clip(predictions: Predictions) -> Predictions:
    """Average the predictions of segments "<clip>#<number>" over each clip."""
    clip_id = pd.Series(predictions["clip_id"]).str.rsplit("#", n=1).str[0].to_numpy(str)
    clips, first, index = np.unique(clip_id, return_index=True, return_inverse=True)
    return {
        "clip_id": clips,
        "group": predictions["group"][first],
        "targets": predictions["targets"][first],
        "probabilities": np.stack([metrics.clip_probabilities(one, index) for one in predictions["probabilities"]]),
    }
