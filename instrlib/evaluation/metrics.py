"""What a model's probabilities are worth on clips of known class.

Every score here is a function of sums over clips. So one definition serves the score itself and, with the clips' sums
taken by group, its bootstrap (`instrlib.evaluation.intervals`); the tests hold it against scikit-learn.
"""

import numpy as np
import pandas as pd

from instrlib.core.errors import EvaluationError

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
"""Names of the scores, in the order of the tables. The last two are better when lower."""

CLASS_SCORES = ("precision", "recall", "f1")
N_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Probabilities are raised to this (1.2e-7) before the logarithm: networks answer in float32."""


def clip_probabilities(segment_probabilities: np.ndarray, clip_index: np.ndarray) -> np.ndarray:
    """Mean of the probabilities of each clip's segments.

    Parameters
    ----------
    segment_probabilities : np.ndarray [shape=(n_segments, n_classes)]
        A model's answers.
    clip_index : np.ndarray of int [shape=(n_segments,)]
        The clip that each segment belongs to; any numbers, in any order.

    Returns
    -------
    np.ndarray [shape=(n_clips, n_classes)]
        One row for each number that occurs in `clip_index`, in ascending order of that number.

    Raises
    ------
    EvaluationError
        When there are no segments, or not one number for each.

    Examples
    --------
    >>> clip_probabilities(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), np.array([0, 0, 1]))
    array([[0.75, 0.25],
           [0.  , 1.  ]])
    """
    segments = np.asarray(segment_probabilities, dtype=np.float64)
    index = np.asarray(clip_index)
    if segments.ndim != 2 or index.shape != segments.shape[:1] or not len(index):
        raise EvaluationError(
            f"One clip number is needed for each segment: there are segments of shape {segments.shape} and clip "
            f"numbers of shape {index.shape}."
        )
    clips, row, n_segments = np.unique(index, return_inverse=True, return_counts=True)
    total = np.zeros((len(clips), segments.shape[1]))
    np.add.at(total, row, segments)
    return total / n_segments[:, None]


def scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every score of one model on one set of clips.

    The class of a clip is the one with the highest probability; of equal ones, the first. Macro averages run over
    the classes that occur in `targets`; a class that is never answered has precision 0. Macro recall and balanced
    accuracy [1]_ are therefore one number under its two names.

    Parameters
    ----------
    targets : np.ndarray of int [shape=(n_clips,)]
        True class of each clip, from 0 to n_classes - 1.
    probabilities : np.ndarray [shape=(n_clips, n_classes)]
        A model's answers; each row sums to 1.

    Returns
    -------
    dict of str to float
        `accuracy`, `balanced_accuracy`, `macro_precision`, `macro_recall`, `macro_f1`, all from 0 to 1;
        `top3_accuracy`: share of clips whose class is among the three most probable (1 with three classes or fewer);
        `map_at_3`: mean of 1, 1/2, 1/3 or 0 for a true class in the first, second, third or no place, the metric of
        DCASE 2018 Task 2 [2]_;
        `log_loss`: mean negative natural logarithm of the true class's probability, in nats;
        `expected_calibration_error`: mean distance of accuracy from confidence over 15 bins of equal width [3]_.

    Raises
    ------
    EvaluationError
        When the shapes do not agree, there are no clips, a target is not a class, or a row is not finite, not in
        [0, 1] or does not sum to 1.

    References
    ----------
    .. [1] K. H. Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010.
       doi:10.1109/ICPR.2010.764
    .. [2] E. Fonseca et al., "General-purpose tagging of Freesound audio with AudioSet labels: task description,
       dataset, and baseline", DCASE 2018 Workshop. arXiv:1807.09902
    .. [3] C. Guo et al., "On calibration of modern neural networks", ICML 2017. arXiv:1706.04599

    Examples
    --------
    >>> answers = np.array([[0.7, 0.2, 0.1, 0.0], [0.4, 0.3, 0.2, 0.1]])
    >>> found = scores(np.array([0, 1]), answers)
    >>> found["accuracy"], found["map_at_3"]
    (0.5, 0.75)
    """
    sums = {name: term.sum(axis=0) for name, term in clip_terms(targets, probabilities).items()}
    return {name: float(value) for name, value in scores_from_sums(sums).items()}


def per_class(targets: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """Precision, recall and F1 of each class.

    Parameters
    ----------
    targets, probabilities : np.ndarray
        As for `scores`.
    classes : tuple of str
        Name of each column of `probabilities`.

    Returns
    -------
    pandas.DataFrame
        Indexed by class, in the order of `classes`: `precision` (0 for a class that is never answered), `recall`,
        `f1`, `support` (clips of the class). A class without clips has NaN: nothing is known of it, and the means of
        the columns are the macro scores.

    Raises
    ------
    EvaluationError
        As for `scores`, and when the names do not fit the columns.

    Examples
    --------
    >>> table = per_class(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), ("flute", "piano"))
    >>> table["recall"].to_dict()
    {'flute': 0.5, 'piano': 1.0}
    """
    terms = clip_terms(targets, probabilities)
    sums = {name: term.sum(axis=0) for name, term in terms.items()}
    if len(classes) != len(sums["of_class"]):
        raise EvaluationError(f"There are {len(classes)} class names for {len(sums['of_class'])} columns.")
    table = pd.DataFrame(class_scores_from_sums(sums), index=pd.Index(classes, name="class"))
    table["support"] = sums["of_class"].astype(int)
    return table


def confusion(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count how often each class was answered for each true class.

    Parameters
    ----------
    targets, probabilities : np.ndarray
        As for `scores`.

    Returns
    -------
    np.ndarray of int [shape=(n_classes, n_classes)]
        Row: true class; column: the class answered.

    Examples
    --------
    >>> confusion(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]))
    array([[1, 1],
           [0, 1]])
    """
    from sklearn.metrics import confusion_matrix

    targets, probabilities = checked(targets, probabilities)
    return confusion_matrix(targets, probabilities.argmax(axis=1), labels=np.arange(probabilities.shape[1]))


def most_confused(counts: np.ndarray, classes: tuple[str, ...], n: int) -> pd.DataFrame:
    """Return the pairs of classes that are mixed up most often.

    Parameters
    ----------
    counts : np.ndarray of int [shape=(n_classes, n_classes)]
        What `confusion` counted.
    classes : tuple of str
        Name of each row.
    n : int
        At most so many pairs.

    Returns
    -------
    pandas.DataFrame
        `true`, `predicted`, `count`, `share` (of the true class's clips); the most frequent first, of equal ones the
        larger share, then in the order of the classes. Pairs that never occur are left out.

    Examples
    --------
    >>> most_confused(np.array([[8, 2, 0], [1, 9, 0], [3, 0, 7]]), ("cello", "flute", "organ"), 2)
        true predicted  count  share
    0  organ     cello      3    0.3
    1  cello     flute      2    0.2
    """
    counts = np.asarray(counts)
    true, predicted = np.nonzero(counts * (1 - np.eye(len(counts), dtype=int)))
    found = pd.DataFrame(
        {
            "true": np.asarray(classes, dtype=object)[true],
            "predicted": np.asarray(classes, dtype=object)[predicted],
            "count": counts[true, predicted],
            "share": counts[true, predicted] / counts.sum(axis=1)[true],
        }
    )
    return found.sort_values(["count", "share"], ascending=False, kind="stable", ignore_index=True).head(n)


def reliability(targets: np.ndarray, probabilities: np.ndarray, *, n_bins: int = N_BINS) -> dict[str, np.ndarray]:
    """Accuracy against confidence, in bins of confidence.

    Parameters
    ----------
    targets, probabilities : np.ndarray
        As for `scores`.
    n_bins : int
        Bins of equal width; a bin holds its upper edge and not its lower one.

    Returns
    -------
    dict of str to np.ndarray
        `confidence` (mean of the highest probabilities), `accuracy` and `share` (of all clips), each
        [shape=(n_bins,)], with NaN for confidence and accuracy where a bin is empty, and `ece` [shape=()], the
        expected calibration error of these bins. They are the arguments of `plots.reliability_diagram`.

    Examples
    --------
    >>> bins = reliability(np.array([0, 1]), np.array([[0.9, 0.1], [0.7, 0.3]]), n_bins=2)
    >>> bins["accuracy"], round(float(bins["ece"]), 3)
    (array([nan, 0.5]), 0.3)
    """
    targets, probabilities = checked(targets, probabilities)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    bins = _bins(confidence, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    filled = np.where(n > 0, n, np.nan)
    sums = {
        "confidence": np.bincount(bins, confidence, n_bins) / filled,
        "accuracy": np.bincount(bins, correct, n_bins) / filled,
        "share": n / len(targets),
    }
    gap = np.nan_to_num(np.abs(sums["accuracy"] - sums["confidence"]))
    return sums | {"ece": np.asarray((gap * sums["share"]).sum())}


def clip_terms(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each clip adds to the sums that the scores are made of.

    Parameters
    ----------
    targets, probabilities : np.ndarray
        As for `scores`.

    Returns
    -------
    dict of str to np.ndarray
        [shape=(n_clips,)]: `clips` (1), `correct`, `top3`, `reciprocal_rank`, `loss`; [shape=(n_clips, n_classes)]:
        `of_class`, `as_class`, `hits` (1 in the column of the true class, of the answered one, of both if they are
        the same); [shape=(n_clips, 15)]: `gap` (correct minus confidence, in the column of the confidence's bin).
    """
    targets, probabilities = checked(targets, probabilities)
    n_clips, n_classes = probabilities.shape
    clips = np.arange(n_clips)
    true = probabilities[clips, targets]
    ahead = (probabilities > true[:, None]) | (
        (probabilities == true[:, None]) & (np.arange(n_classes) < targets[:, None])
    )
    place = 1 + ahead.sum(axis=1)
    correct = (place == 1).astype(float)
    confidence = probabilities.max(axis=1)
    of_class, as_class = np.zeros((2, n_clips, n_classes))
    of_class[clips, targets] = 1.0
    as_class[clips, probabilities.argmax(axis=1)] = 1.0
    gap = np.zeros((n_clips, N_BINS))
    gap[clips, _bins(confidence, N_BINS)] = correct - confidence
    return {
        "clips": np.ones(n_clips),
        "correct": correct,
        "top3": (place <= 3).astype(float),
        "reciprocal_rank": np.where(place <= 3, 1 / place, 0.0),
        "loss": -np.log(np.maximum(true, SMALLEST_PROBABILITY)),
        "of_class": of_class,
        "as_class": as_class,
        "hits": of_class * as_class,
        "gap": gap,
    }


def scores_from_sums(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Make the scores from sums of `clip_terms` over clips.

    Parameters
    ----------
    sums : dict of str to np.ndarray [shape=(...) or (..., k)]
        The sums, with any leading axes, such as one for resamples.

    Returns
    -------
    dict of str to np.ndarray [shape=(...)]
        The scores named in `SCORES`.
    """
    by_class = class_scores_from_sums(sums)
    recall = np.nanmean(by_class["recall"], axis=-1)
    return {
        "accuracy": sums["correct"] / sums["clips"],
        "balanced_accuracy": recall,
        "macro_precision": np.nanmean(by_class["precision"], axis=-1),
        "macro_recall": recall,
        "macro_f1": np.nanmean(by_class["f1"], axis=-1),
        "top3_accuracy": sums["top3"] / sums["clips"],
        "map_at_3": sums["reciprocal_rank"] / sums["clips"],
        "log_loss": sums["loss"] / sums["clips"],
        "expected_calibration_error": np.abs(sums["gap"]).sum(axis=-1) / sums["clips"],
    }


def class_scores_from_sums(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Make precision, recall and F1 of each class from sums of `clip_terms`; NaN for a class without clips.

    Parameters
    ----------
    sums : dict of str to np.ndarray [shape=(...) or (..., k)]
        As for `scores_from_sums`.

    Returns
    -------
    dict of str to np.ndarray [shape=(..., n_classes)]
        The scores named in `CLASS_SCORES`.
    """
    of_class = np.where(sums["of_class"] > 0, sums["of_class"], np.nan)
    # A class that is never answered has 0 hits, over 1 instead of 0.
    precision = sums["hits"] / np.maximum(sums["as_class"], 1)
    return {
        "precision": np.where(sums["of_class"] > 0, precision, np.nan),
        "recall": sums["hits"] / of_class,
        "f1": 2 * sums["hits"] / (of_class + sums["as_class"]),
    }


def checked(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays (int, float64), or raise `EvaluationError` as `scores` documents it."""
    targets = np.asarray(targets)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1] or not probabilities.size:
        raise EvaluationError(
            f"One row of probabilities is needed for each clip, and at least one clip: there are targets of shape "
            f"{targets.shape} and probabilities of shape {probabilities.shape}."
        )
    n_classes = probabilities.shape[1]
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= n_classes:
        raise EvaluationError(f"Targets must be whole numbers from 0 to {n_classes - 1}, the number of a class.")
    # Half precision, in which predictions may be stored, keeps a sum of 41 to within about 0.01.
    wrong = ~(np.isfinite(probabilities) & (probabilities >= 0)).all(axis=1)
    wrong |= ~(np.abs(probabilities.sum(axis=1) - 1) < 0.01)
    if wrong.any():
        raise EvaluationError(
            f"{wrong.sum()} of {len(wrong)} clips have no valid probabilities (finite, not below 0, sum 1), the first "
            f"in row {wrong.argmax()}; when they come from a network, its training has diverged: lower the learning "
            "rate."
        )
    return targets, probabilities


def _bins(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
