"""What probabilities are worth where a clip may hold several instruments, and some of them nobody looked for.

Only observed pairs of clip and class count. Every score is a function of how often each clip stands in a resample, so
one definition serves the score itself (once each) and its bootstrap (`intervals.label_intervals`); the tests hold it
against scikit-learn.
"""

import numpy as np
import pandas as pd

from instrlib.core.errors import EvaluationError
from instrlib.evaluation.metrics import N_BINS, SMALLEST_PROBABILITY

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
"""Names of the scores, in the order of the tables. The last four are better when lower."""

LOWER_IS_BETTER = LABEL_SCORES[4:]

LABEL_CLASS_SCORES = ("average_precision", "roc_auc", "precision", "recall", "f1")

DEFAULT_THRESHOLD = 0.5
"""From which probability on a class counts as present where nothing says otherwise."""

Scores = dict[str, np.ndarray]


def label_scores(
    labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray | float = DEFAULT_THRESHOLD
) -> dict[str, float]:
    """Every score of one model on one set of clips.

    Means over classes leave out a class that was observed to be present in every clip, or absent in every one.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_classes)]
        1 present, 0 absent, NaN not observed.
    probabilities : np.ndarray [shape=(n_clips, n_classes)]
        A model's answers, each from 0 to 1.
    thresholds : float or np.ndarray [shape=(n_classes,) or (n_clips, n_classes)]
        From which probability on a class counts as present.

    Returns
    -------
    dict of str to float
        `mean_average_precision` (over classes), `macro_f1`, `micro_f1`, `roc_auc` (mean over classes), from 0 to 1;
        `hamming_loss`: share of observed labels decided wrongly; `log_loss`: mean binary cross entropy of the observed
        labels, in nats; `brier`: mean square of probability minus label [1]_; `expected_calibration_error`: mean
        distance of the share present from the probability over 15 bins of equal width. The macro scores are NaN when no
        class was observed both present and absent.

    Raises
    ------
    EvaluationError
        When the shapes do not agree, there is nothing observed, or a number is out of range.

    References
    ----------
    .. [1] G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78(1),
       1950. doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2

    Examples
    --------
    >>> labels = np.array([[1, 0], [0, np.nan], [1, 1]])
    >>> found = label_scores(labels, np.array([[0.9, 0.2], [0.6, 0.1], [0.8, 0.7]]))
    >>> found["mean_average_precision"], found["hamming_loss"], round(found["macro_f1"], 2)
    (1.0, 0.2, 0.9)
    """
    prepared = prepare(labels, probabilities, thresholds)
    found = scores_from_counts(prepared, np.ones((1, len(prepared["labels"]))))
    return {name: float(values[0]) for name, values in found.items()}


def per_label(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    thresholds: np.ndarray | float = DEFAULT_THRESHOLD,
) -> pd.DataFrame:
    """Score each class on the clips in which it was observed.

    Parameters
    ----------
    labels, probabilities, thresholds
        As for `label_scores`.
    classes : tuple of str
        Name of each column.

    Returns
    -------
    pandas.DataFrame
        Indexed by class: `average_precision`, `roc_auc`, `precision`, `recall`, `f1` (NaN for a class with one kind of
        label only), `support` (clips in which it is present) and `observed`.

    Examples
    --------
    >>> labels = np.array([[1, 0], [0, np.nan], [1, 1]])
    >>> per_label(labels, np.array([[0.9, 0.2], [0.6, 0.1], [0.8, 0.7]]), ("flute", "piano")).f1.round(2).to_dict()
    {'flute': 0.8, 'piano': 1.0}
    """
    prepared = prepare(labels, probabilities, thresholds)
    if len(classes) != prepared["labels"].shape[1]:
        raise EvaluationError(f"There are {len(classes)} class names for {prepared['labels'].shape[1]} columns.")
    found = class_scores_from_counts(prepared, np.ones((1, len(prepared["labels"]))))
    table = pd.DataFrame({name: values[0] for name, values in found.items()}, index=pd.Index(classes, name="class"))
    table["support"] = prepared["present"].sum(axis=0).astype(int)
    table["observed"] = prepared["observed"].sum(axis=0).astype(int)
    return table


def class_sizes(clips: pd.DataFrame, classes: tuple[str, ...], labels: np.ndarray | None = None) -> pd.DataFrame:
    """Count in how many clips and groups each class is present.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `label` and `group`.
    classes : tuple of str
        The classes.
    labels : np.ndarray [shape=(n_clips, n_classes)], optional
        Of clips with several labels: 1 present, 0 absent, NaN not observed.

    Returns
    -------
    pandas.DataFrame
        Indexed by class: `n_clips`, `n_groups`.

    Examples
    --------
    >>> clips = pd.DataFrame({"label": ["flute", "piano"], "group": ["a", "a"]})
    >>> class_sizes(clips, ("flute", "piano"), np.array([[1, np.nan], [1, 1]])).n_clips.to_dict()
    {'flute': 2, 'piano': 1}
    """
    present = clips.label.to_numpy()[:, None] == np.array(classes) if labels is None else labels == 1
    n_groups = [clips.group[column].nunique() for column in present.T]
    return pd.DataFrame({"n_clips": present.sum(axis=0), "n_groups": n_groups}, index=pd.Index(classes, name="label"))


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose for each class the threshold with the best F1 on its observed clips; to be done on validation.

    Parameters
    ----------
    labels, probabilities
        As for `label_scores`.

    Returns
    -------
    thresholds : np.ndarray [shape=(n_classes,)]
        Halfway between two probabilities that occurred; of equally good ones the nearest to .5, for a class that was
        nowhere observed present or nowhere absent .5.
    unknown : np.ndarray of int
        Numbers of those classes.

    Notes
    -----
    Thresholds that maximise F1 lie at half of the F1 reached, lower than .5 for a rare class [1]_.

    References
    ----------
    .. [1] Z. C. Lipton, C. Elkan, B. Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure",
       ECML PKDD 2014. arXiv:1402.1892

    Examples
    --------
    >>> best_thresholds(np.array([[1, 0], [0, 0], [1, 0]]), np.array([[0.4, 0.2], [0.1, 0.1], [0.3, 0.3]]))
    (array([0.2, 0.5]), array([1]))
    """
    prepared = prepare(labels, probabilities, DEFAULT_THRESHOLD)
    thresholds = np.full(prepared["labels"].shape[1], DEFAULT_THRESHOLD)
    unknown = []
    for number, (observed, present) in enumerate(zip(prepared["observed"].T, prepared["present"].T, strict=True)):
        if not (0 < present.sum() < observed.sum()):
            unknown.append(number)
            continue
        answers, hits = prepared["probabilities"][observed, number], present[observed]
        values = np.unique(answers)
        between = (values + np.concatenate([[0.0], values[:-1]])) / 2
        decided = answers >= between[:, None]
        f1 = 2 * (decided & hits).sum(axis=1) / (decided.sum(axis=1) + hits.sum())
        best = between[f1 >= f1.max() - 1e-12]
        thresholds[number] = best[np.abs(best - DEFAULT_THRESHOLD).argmin()]
    return thresholds, np.array(unknown, dtype=int)


def decisions(probabilities: np.ndarray, thresholds: np.ndarray | float = DEFAULT_THRESHOLD) -> np.ndarray:
    """Say which classes count as present.

    Parameters
    ----------
    probabilities : np.ndarray [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)]
        A model's answers.
    thresholds : float or np.ndarray
        For each class [shape=(n_classes,)], for each seed and class [shape=(n_seeds, n_classes)], or, where folds have
        their own, of the shape of `probabilities`.

    Returns
    -------
    np.ndarray of bool [shape of probabilities]

    Raises
    ------
    EvaluationError
        When the thresholds do not fit.

    Examples
    --------
    >>> decisions(np.array([[0.3, 0.4]]), np.array([0.2, 0.5])).tolist()
    [[True, False]]
    """
    answers, bars = np.asarray(probabilities), np.asarray(thresholds, dtype=float)
    if bars.ndim == answers.ndim - 1 and bars.ndim == 2:
        bars = bars[:, None, :]
    try:
        return answers >= np.broadcast_to(bars, answers.shape)
    except ValueError:
        raise EvaluationError(
            f"Thresholds of shape {np.shape(thresholds)} do not fit probabilities of shape {answers.shape}."
        ) from None


def label_reliability(labels: np.ndarray, probabilities: np.ndarray, *, n_bins: int = N_BINS) -> dict[str, np.ndarray]:
    """Share of observed labels that are present against their probability, in bins of it.

    Parameters
    ----------
    labels, probabilities
        As for `label_scores`.
    n_bins : int
        Bins of equal width; a bin holds its upper edge and not its lower one.

    Returns
    -------
    dict of str to np.ndarray
        `confidence` (mean probability), `accuracy` (share present) and `share` (of the observed labels)
        [shape=(n_bins,)], NaN where a bin is empty, and `ece` [shape=()]; see `metrics.reliability`.
    """
    prepared = prepare(labels, probabilities, DEFAULT_THRESHOLD)
    observed = prepared["observed"]
    answers, present = prepared["probabilities"][observed], prepared["present"][observed]
    bins = _bins(answers, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    filled = np.where(n > 0, n, np.nan)
    sums = {
        "confidence": np.bincount(bins, answers, n_bins) / filled,
        "accuracy": np.bincount(bins, present, n_bins) / filled,
        "share": n / len(answers),
    }
    gap = np.nan_to_num(np.abs(sums["accuracy"] - sums["confidence"]))
    return sums | {"ece": np.asarray((gap * sums["share"]).sum())}


def prepare(labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray | float) -> dict[str, np.ndarray]:
    """Check labels and answers, and work out what all resamples have in common.

    Parameters
    ----------
    labels, probabilities, thresholds
        As for `label_scores`.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_clips, n_classes)]
        `labels`, `probabilities` (float64), `observed`, `present`, `decided` (bool).

    Raises
    ------
    EvaluationError
        As `label_scores` says.
    """
    labels, answers = np.asarray(labels, dtype=float), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim != 2 or labels.shape != answers.shape or not labels.size:
        raise EvaluationError(
            f"One row of labels and of probabilities is needed for each clip: shapes {labels.shape} and "
            f"{answers.shape}."
        )
    observed = ~np.isnan(labels)
    if not observed.any() or not np.isin(labels[observed], (0, 1)).all():
        raise EvaluationError("Labels must be 1 (present), 0 (absent) or NaN (not observed), and some observed.")
    wrong = ~((answers >= 0) & (answers <= 1)).all(axis=1)
    if wrong.any():
        raise EvaluationError(
            f"{wrong.sum()} of {len(wrong)} clips have no valid probabilities (from 0 to 1), the first in row "
            f"{wrong.argmax()}; when they come from a network, its training has diverged: lower the learning rate."
        )
    decided = decisions(answers, thresholds)
    return {
        "labels": labels, "probabilities": answers, "observed": observed, "present": labels == 1, "decided": decided
    }  # fmt: skip


def scores_from_counts(prepared: dict[str, np.ndarray], counts: np.ndarray) -> Scores:
    """Score resamples of the clips.

    Parameters
    ----------
    prepared : dict
        See `prepare`.
    counts : np.ndarray [shape=(n_resamples, n_clips)]
        How often each clip stands in each resample.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_resamples,)]
        The scores named in `LABEL_SCORES`.
    """
    observed, present, decided = (prepared[name] for name in ("observed", "present", "decided"))
    answers = prepared["probabilities"]
    by_class = class_scores_from_counts(prepared, counts)
    n_observed = counts @ observed.sum(axis=1)
    hits, wrong, positive = (
        counts @ (observed & one).sum(axis=1) for one in (decided & present, decided != present, decided)
    )
    n_present = counts @ present.sum(axis=1)
    likely = np.clip(np.where(present, answers, 1 - answers), SMALLEST_PROBABILITY, 1)
    losses = np.where(observed, -np.log(likely), 0).sum(axis=1)
    squares = np.where(observed, (answers - present) ** 2, 0).sum(axis=1)
    gap = np.zeros((len(answers), N_BINS))
    np.add.at(gap, (np.nonzero(observed)[0], _bins(answers[observed], N_BINS)), (present - answers)[observed])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "mean_average_precision": _macro(by_class["average_precision"]),
            "macro_f1": _macro(by_class["f1"]),
            "micro_f1": 2 * hits / np.maximum(positive + n_present, 1),
            "roc_auc": _macro(by_class["roc_auc"]),
            "hamming_loss": wrong / n_observed,
            "log_loss": counts @ losses / n_observed,
            "brier": counts @ squares / n_observed,
            "expected_calibration_error": np.abs(counts @ gap).sum(axis=1) / n_observed,
        }


def class_scores_from_counts(prepared: dict[str, np.ndarray], counts: np.ndarray) -> Scores:
    """Score each class in resamples of the clips.

    Parameters
    ----------
    prepared, counts
        As for `scores_from_counts`.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_resamples, n_classes)]
        The scores named in `LABEL_CLASS_SCORES`; NaN where a class is present, or absent, in no clip of the resample.
    """
    observed, present = prepared["observed"], prepared["present"]
    decided = prepared["decided"] & observed
    n_present = counts @ present
    known = (n_present > 0) & (n_present < counts @ observed)
    hits, n_decided = counts @ (decided & present), counts @ decided
    ranked = [
        _ranking(prepared["probabilities"][seen, number], present[seen, number], counts[:, seen])
        for number, seen in enumerate(observed.T)
    ]
    found = {
        "average_precision": np.stack([one for one, _ in ranked], axis=1),
        "roc_auc": np.stack([one for _, one in ranked], axis=1),
        "precision": hits / np.maximum(n_decided, 1),
        "recall": hits / np.maximum(n_present, 1),
        "f1": 2 * hits / np.maximum(n_decided + n_present, 1),
    }
    return {name: np.where(known, values, np.nan) for name, values in found.items()}


def _ranking(answers: np.ndarray, present: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve of one class in each resample; ties count as one step."""
    if not len(answers):
        return np.zeros(len(counts)), np.zeros(len(counts))
    order = np.argsort(-answers, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(answers[order]) != 0, True))
    ordered = counts[:, order]
    hits = np.cumsum(ordered * present[order], axis=1)[:, ends]
    above = np.cumsum(ordered, axis=1)[:, ends]
    more_hits = np.diff(hits, axis=1, prepend=0)
    misses = above - hits
    n_hits, n_misses = np.maximum(hits[:, -1], 1), np.maximum(misses[:, -1], 1)
    precision = hits / np.maximum(above, 1)
    area = (np.diff(misses, axis=1, prepend=0) * (hits - more_hits / 2)).sum(axis=1)
    return (more_hits * precision).sum(axis=1) / n_hits, area / (n_hits * n_misses)


def _macro(by_class: np.ndarray) -> np.ndarray:
    n = np.isfinite(by_class).sum(axis=1)
    return np.where(n > 0, np.nansum(by_class, axis=1) / np.maximum(n, 1), np.nan)


def _bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    return np.clip(np.ceil(values * n_bins).astype(int) - 1, 0, n_bins - 1)
