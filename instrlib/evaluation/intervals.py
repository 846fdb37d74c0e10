"""How sure a score is, and whether two models differ: bootstrap over groups, McNemar's test.

Clips of one group (a recording session, a performer, an instrument) resemble each other, so groups are drawn, not
clips; drawing clips would give intervals that are too narrow. With several training seeds, the seeds are drawn as well.
A test part with a single group says nothing about other groups: its intervals are NaN.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.errors import EvaluationError
from instrlib.evaluation.metrics import CLASS_SCORES, SCORES, class_scores_from_sums, clip_terms, scores_from_sums
from instrlib.evaluation.multilabel import (
    DEFAULT_THRESHOLD,
    LABEL_CLASS_SCORES,
    LABEL_SCORES,
    class_scores_from_counts,
    decisions,
    prepare,
    scores_from_counts,
)

LEVEL = 0.95
_BLOCK = 500

Terms = dict[str, np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A number and the interval around it.

    Attributes
    ----------
    estimate : float
        The number on the clips at hand.
    low, high : float or None
        Ends of the interval; NaN, or None as JSON has it, where there is only one group.

    Examples
    --------
    >>> print(Interval(0.8, 0.7, 0.9))
    0.800 [0.700, 0.900]
    >>> print(Interval(0.8, float("nan"), float("nan")))
    0.800 [no interval]
    """

    estimate: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.estimate:.3f} {self._ends()}"

    def signed(self) -> str:
        """Return it as it is read where both signs are possible: "+0.100 [-0.020, +0.220]"."""
        return f"{self.estimate:+.3f} {self._ends('+')}"

    def _ends(self, sign: str = "") -> str:
        if self.low is None or self.high is None or math.isnan(self.low):
            return "[no interval]"
        return f"[{self.low:{sign}.3f}, {self.high:{sign}.3f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """A difference, first model minus second, with its interval.

    Attributes
    ----------
    p : float
        Two-sided bootstrap p-value of no difference, at least 2 / (n_resamples + 1); NaN where there is only one
        group.
    """

    p: float

    def __str__(self) -> str:
        return f"{self.signed()}, {p_text(self.p)}"


def p_text(p: float | None) -> str:
    """Write a p-value as a paper does: with three decimals, and as "p < 0.001" where these would be zeros.

    Parameters
    ----------
    p : float or None
        From 0 to 1; NaN, or None as JSON has it, where it cannot be told.

    Returns
    -------
    str

    Examples
    --------
    >>> p_text(0.0312), p_text(0.0002), p_text(None)
    ('p = 0.031', 'p < 0.001', 'p unknown')
    """
    if p is None or math.isnan(p):
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def corrected(row: Any) -> Difference:
    """Read a row of a table of comparisons, with the p-value that is corrected for their number.

    Parameters
    ----------
    row : pandas.Series or namedtuple
        With `difference`, `low`, `high` and `p_holm`.

    Returns
    -------
    Difference

    Examples
    --------
    >>> print(corrected(pd.Series({"difference": 0.1, "low": 0.05, "high": 0.2, "p": 0.01, "p_holm": 0.03})))
    +0.100 [+0.050, +0.200], p = 0.030
    """
    return Difference(row.difference, row.low, row.high, row.p_holm)


def bootstrap_groups(
    statistic: Callable[[np.ndarray], float],
    groups: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """Percentile bootstrap of any statistic, drawing groups with replacement.

    A resample holds as many groups as there are, each with all its rows. This calls `statistic` once for each
    resample; `bootstrap_mean` and `score_intervals` do the same draws for means and scores in one matrix product.

    Parameters
    ----------
    statistic : callable
        Takes row numbers (with repetitions) and returns a number.
    groups : np.ndarray [shape=(n_rows,)]
        Group of each row, numbers or strings.
    n_resamples : int
        Number of resamples; 1,000 or more for a 95 % interval.
    seed : int
        Seed of the draws.
    level : float
        Coverage aimed at, between 0 and 1. With fewer than about 20 groups the true coverage is lower [1]_.

    Returns
    -------
    Interval

    Raises
    ------
    EvaluationError
        When there are no rows or no resamples.

    References
    ----------
    .. [1] C. A. Field, A. H. Welsh, "Bootstrapping clustered data", J. R. Stat. Soc. B 69(3), 2007.
       doi:10.1111/j.1467-9868.2007.00593.x

    Examples
    --------
    >>> values = np.arange(10.0)
    >>> bootstrap_groups(lambda rows: values[rows].mean(), np.arange(10) // 2, n_resamples=1000, seed=0).estimate
    4.5
    """
    codes, n_groups = _codes(groups)
    rows = np.arange(len(codes))
    samples = [
        statistic(np.repeat(rows, count[codes]))
        for counts in _draws(n_groups, n_resamples=n_resamples, seed=seed)
        for count in counts.astype(int)
    ]
    return Interval(float(statistic(rows)), *_ends(np.asarray(samples, dtype=float), n_groups, level))


def bootstrap_mean(
    values: np.ndarray, groups: np.ndarray, *, n_resamples: int, seed: int, level: float = LEVEL
) -> Interval:
    """Mean of one number a clip, such as right or wrong, with its interval over groups.

    Parameters
    ----------
    values : np.ndarray [shape=(n_clips,) or (n_seeds, n_clips)]
        The numbers; with several seeds, groups and seeds are drawn.
    groups : np.ndarray [shape=(n_clips,)]
        Group of each clip.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    Interval

    Raises
    ------
    EvaluationError
        When the shapes do not agree, or there are no clips.

    Examples
    --------
    >>> bootstrap_mean(np.array([1.0, 1.0, 0.0, 1.0]), np.array(["a", "a", "b", "b"]), n_resamples=100, seed=0)
    Interval(estimate=0.75, low=0.5, high=1.0)
    """
    estimate, samples, n_groups = _bootstrap_means(values, groups, n_resamples, seed)
    return Interval(estimate, *_ends(samples, n_groups, level))


def score_intervals(
    targets: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Every score of `metrics.scores`, with its interval over groups.

    A resample may lack a class; its macro averages run over the classes that it has.

    Parameters
    ----------
    targets : np.ndarray of int [shape=(n_clips,)]
        True class of each clip.
    probabilities : np.ndarray [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)]
        A model's answers, or those of one training after another: then the estimate is the mean of the seeds' scores,
        and the interval covers the choice of groups and of seeds.
    groups : np.ndarray [shape=(n_clips,)]
        Group of each clip.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    pandas.DataFrame
        Indexed by `score`, in the order of `metrics.SCORES`: `estimate`, `low`, `high`.

    Raises
    ------
    EvaluationError
        As for `metrics.scores`, and when the groups do not fit the clips.
    """
    estimate, samples, n_groups = _bootstrap_scores(
        scores_from_sums, targets, probabilities, groups, n_resamples=n_resamples, seed=seed
    )
    rows = {name: (float(estimate[name]), *_ends(samples[name], n_groups, level)) for name in SCORES}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high"])
    return table.rename_axis("score")


def class_intervals(
    targets: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: tuple[str, ...],
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Precision, recall and F1 of each class, with their intervals over groups.

    Parameters
    ----------
    targets, probabilities, groups
        As for `score_intervals`.
    classes : tuple of str
        Name of each class.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    pandas.DataFrame
        `metrics.per_class` with the columns `precision_low`, `precision_high` and so on, and `n_groups`, the class's
        groups. With fewer than two of them the ends are NaN: how another group would fare is not known.

    Raises
    ------
    EvaluationError
        As for `score_intervals`, and when the names do not fit the columns.
    """
    if len(classes) != np.shape(probabilities)[-1]:
        raise EvaluationError(f"There are {len(classes)} class names for {np.shape(probabilities)[-1]} columns.")
    estimate, samples, _ = _bootstrap_scores(
        class_scores_from_sums, targets, probabilities, groups, n_resamples=n_resamples, seed=seed
    )
    targets, groups = np.asarray(targets), np.asarray(groups)
    n_groups = [len(np.unique(groups[targets == number])) for number in range(len(classes))]
    table = pd.DataFrame(index=pd.Index(classes, name="class"))
    for name in CLASS_SCORES:
        ends = [_ends(samples[name][:, number], n, level) for number, n in enumerate(n_groups)]
        table[name] = estimate[name]
        table[[f"{name}_low", f"{name}_high"]] = ends
    table["support"] = np.bincount(targets, minlength=len(classes))
    table["n_groups"] = n_groups
    return table


def label_intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    thresholds: np.ndarray | float = DEFAULT_THRESHOLD,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Every score of `multilabel.label_scores`, with its interval over groups.

    Average precision and the area under the ROC curve are no sums over clips: they are worked out anew for each
    resample, from the same order of the clips. A resample may lack a class; its means run over those that it has.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_classes)]
        1 present, 0 absent, NaN not observed.
    probabilities : np.ndarray [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)]
        As for `score_intervals`.
    groups : np.ndarray [shape=(n_clips,)]
        Group of each clip.
    thresholds : float or np.ndarray
        See `multilabel.decisions`.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    pandas.DataFrame
        Indexed by `score`, in the order of `multilabel.LABEL_SCORES`: `estimate`, `low`, `high`.

    Raises
    ------
    EvaluationError
        As for `multilabel.label_scores`, and when the groups do not fit the clips.
    """
    estimate, samples, n_groups = _bootstrap_labels(
        scores_from_counts, labels, probabilities, groups, thresholds, n_resamples=n_resamples, seed=seed
    )
    rows = {name: (float(estimate[name]), *_ends(samples[name], n_groups, level)) for name in LABEL_SCORES}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high"])
    return table.rename_axis("score")


def label_class_intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: tuple[str, ...],
    thresholds: np.ndarray | float = DEFAULT_THRESHOLD,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Score each class on the clips in which it was observed, with intervals over groups.

    Parameters
    ----------
    labels, probabilities, groups, thresholds
        As for `label_intervals`.
    classes : tuple of str
        Name of each class.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    pandas.DataFrame
        The scores of `multilabel.per_label`, each followed by its `_low` and `_high`, then `support`, `observed` and
        `n_groups`, the groups in which the class is present. With fewer than two of them the ends are NaN.

    Raises
    ------
    EvaluationError
        As for `label_intervals`, and when the names do not fit the columns.
    """
    if len(classes) != np.shape(labels)[-1]:
        raise EvaluationError(f"There are {len(classes)} class names for {np.shape(labels)[-1]} columns.")
    estimate, samples, _ = _bootstrap_labels(
        class_scores_from_counts, labels, probabilities, groups, thresholds, n_resamples=n_resamples, seed=seed
    )
    labels, groups = np.asarray(labels, dtype=float), np.asarray(groups)
    n_groups = [len(np.unique(groups[column == 1])) for column in labels.T]
    table = pd.DataFrame(index=pd.Index(classes, name="class"))
    for name in LABEL_CLASS_SCORES:
        table[name] = estimate[name]
        ends = [
            _ends(samples[name][:, number], n if np.isfinite(estimate[name][number]) else 0, level)
            for number, n in enumerate(n_groups)
        ]
        table[[f"{name}_low", f"{name}_high"]] = ends
    return table.assign(support=(labels == 1).sum(axis=0), observed=np.isfinite(labels).sum(axis=0), n_groups=n_groups)


def label_differences(
    labels: np.ndarray,
    first: tuple[np.ndarray, np.ndarray | float],
    second: tuple[np.ndarray, np.ndarray | float],
    groups: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> dict[str, Difference]:
    """Difference of every score between two models on the same clips, over the same draws of groups and seeds.

    Parameters
    ----------
    labels, groups
        As for `label_intervals`.
    first, second : tuple of np.ndarray
        Probabilities and thresholds of each. With several seeds, seed i of one is paired with seed i of the other; a
        model without seeds is compared with every seed of the other.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    dict of str to Difference
        First minus second, for each of `multilabel.LABEL_SCORES`.

    Raises
    ------
    EvaluationError
        As for `label_intervals`; when the shapes do not fit.
    """
    sides = [_by_seed(*side) for side in (first, second)]
    n_seeds = max(len(by_seed) for by_seed, _ in sides)
    found = []
    for by_seed, bars in sides:
        if len(by_seed) not in (1, n_seeds):
            raise EvaluationError(f"There are {len(by_seed)} seeds of one model and {n_seeds} of the other.")
        shape = (n_seeds, *by_seed.shape[1:])
        found.append(
            _bootstrap_labels(
                scores_from_counts,
                labels,
                np.broadcast_to(by_seed, shape),
                groups,
                np.broadcast_to(bars, shape),
                n_resamples=n_resamples,
                seed=seed,
            )
        )
    (estimate_a, samples_a, n_groups), (estimate_b, samples_b, _) = found
    return {
        name: _difference(
            float(estimate_a[name] - estimate_b[name]), samples_a[name] - samples_b[name], n_groups, level
        )
        for name in LABEL_SCORES
    }


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, float]:
    """McNemar's exact test of whether two models are right equally often on the same clips.

    Only clips on which one is right and the other wrong count; without a difference, either is the right one with
    probability 1/2, so the p-value is a binomial test's, exact for any number of clips. The test takes clips for
    independent; where groups are large, go by `paired_bootstrap`.

    Parameters
    ----------
    correct_a, correct_b : np.ndarray of bool [shape=(n_clips,)]
        Whether each model is right, clip by clip.

    Returns
    -------
    dict of str to float
        `only_a`, `only_b` (clips on which only that model is right) and `p`, two-sided (1 when there are none).

    Raises
    ------
    EvaluationError
        When the shapes do not agree, or there are no clips.

    References
    ----------
    .. [1] Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
       Psychometrika 12(2), 1947. doi:10.1007/BF02295996

    Examples
    --------
    >>> mcnemar(np.array([1, 1, 1, 1, 0]), np.array([1, 0, 0, 0, 0]))
    {'only_a': 3, 'only_b': 0, 'p': 0.25}
    """
    from scipy.stats import binomtest

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise EvaluationError(f"Both models must be judged on the same clips: shapes {a.shape} and {b.shape}.")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p": p}


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p-values for their number, so that one false finding among all is as rare as it would be in one [1]_.

    Parameters
    ----------
    p : np.ndarray [shape=(n,)]
        From 0 to 1; NaN (no test was possible) stays and does not count.

    Returns
    -------
    np.ndarray [shape=(n,)]

    References
    ----------
    .. [1] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
       1979. https://www.jstor.org/stable/4615733

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def is_shown(p: Any) -> Any:
    """Say whether a difference is shown: whether chance alone would seldom bring it about.

    Parameters
    ----------
    p : float, np.ndarray or pandas.Series
        After `holm` where there are several.

    Returns
    -------
    bool, or one for each
        Below 1 - `LEVEL`; never where no test was possible.

    Examples
    --------
    >>> is_shown(0.01), is_shown(float("nan"))
    (True, False)
    """
    return p < 1 - LEVEL


def paired_bootstrap(
    targets: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    groups: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    metric: str = "accuracy",
    level: float = LEVEL,
) -> Difference:
    """Difference of a score between two models on the same clips, over the same draws of groups.

    Parameters
    ----------
    targets, groups
        As for `score_intervals`.
    probabilities_a, probabilities_b : np.ndarray [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)]
        Answers of the two models. With several seeds there are as many of each, and seed i of one is paired with seed
        i of the other.
    metric : str
        One of `metrics.SCORES`.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    Difference
        Score of a minus score of b.

    Raises
    ------
    EvaluationError
        As for `score_intervals`; when the shapes differ or there is no such score.
    """
    if metric not in SCORES:
        raise EvaluationError(f"Unknown score {metric!r}; there is: {', '.join(SCORES)}.")
    _same_shape(probabilities_a, probabilities_b)
    # The same seed draws the same groups and the same training seeds for both.
    (estimate_a, samples_a, n_groups), (estimate_b, samples_b, _) = (
        _bootstrap_scores(scores_from_sums, targets, answers, groups, n_resamples=n_resamples, seed=seed)
        for answers in (probabilities_a, probabilities_b)
    )
    return _difference(
        float(estimate_a[metric] - estimate_b[metric]), samples_a[metric] - samples_b[metric], n_groups, level
    )


def compare_over_seeds(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    groups: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> Difference:
    """Difference of accuracy between two models trained with several seeds, drawing groups and seeds together.

    How a network does depends on the clips it is tested on and on the seed it was trained with [1]_; both are drawn,
    in pairs: seed i of one model with seed i of the other. Other numbers a clip (loss, reciprocal rank) do as well. A
    handful of seeds shows part of their spread: with n seeds, their share of the variance is (n - 1) / n of its size.

    Parameters
    ----------
    correct_a, correct_b : np.ndarray [shape=(n_seeds, n_clips)]
        Whether each model is right, for each seed and clip.
    groups : np.ndarray [shape=(n_clips,)]
        Group of each clip.
    n_resamples, seed, level
        As for `bootstrap_groups`.

    Returns
    -------
    Difference
        Mean over seeds and clips of a minus that of b.

    Raises
    ------
    EvaluationError
        When the shapes do not agree, or there are no clips.

    References
    ----------
    .. [1] X. Bouthillier et al., "Accounting for variance in machine learning benchmarks", MLSys 2021.
       arXiv:2103.03098
    """
    _same_shape(correct_a, correct_b)
    difference = np.asarray(correct_a, dtype=float) - np.asarray(correct_b, dtype=float)
    estimate, samples, n_groups = _bootstrap_means(difference, groups, n_resamples, seed)
    return _difference(estimate, samples, n_groups, level)


def unpaired_difference(
    a: np.ndarray,
    groups_a: np.ndarray,
    b: np.ndarray,
    groups_b: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> Difference:
    """Difference of two means over different rows of the same groups, drawing the groups for both together.

    For scores from two test parts that overlap: a group that stands in both is drawn for both.

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_a,), (n_b,)]
        The numbers, such as right or wrong.
    groups_a, groups_b : np.ndarray [shape=(n_a,), (n_b,)]
        Group of each.
    n_resamples, seed, level
        As for `bootstrap_groups`. A resample without a group of one of the two is left out.

    Returns
    -------
    Difference
        Mean of a minus mean of b.

    Raises
    ------
    EvaluationError
        When the shapes do not agree, or one has no rows.

    Examples
    --------
    >>> found = unpaired_difference([1, 1, 0, 1], list("wxyz"), [0, 1], list("yz"), n_resamples=100, seed=0)
    >>> found.estimate
    0.25
    """
    sides = [np.asarray(values, dtype=float) for values in (a, b)]
    for values, groups in zip(sides, (groups_a, groups_b), strict=True):
        if values.ndim != 1 or values.shape != np.shape(groups) or not len(values):
            raise EvaluationError(f"One group is needed for each number: {np.shape(groups)} for {values.shape}.")
    first = np.arange(len(sides[0]) + len(sides[1])) < len(sides[0])
    whole = np.concatenate(sides)
    terms = {"a": whole * first, "n_a": first, "b": whole * ~first, "n_b": ~first}

    def difference(sums: Terms) -> Terms:
        both = (sums["n_a"] > 0) & (sums["n_b"] > 0)
        means = [sums[name] / np.where(both, sums[f"n_{name}"], np.nan) for name in ("a", "b")]
        return {"difference": means[0] - means[1]}

    estimate, samples, n_groups = _bootstrap(
        difference,
        {name: np.asarray(term, dtype=float)[None] for name, term in terms.items()},
        np.concatenate([np.asarray(groups_a, dtype=str), np.asarray(groups_b, dtype=str)]),
        n_resamples=n_resamples,
        seed=seed,
    )
    kept = samples["difference"][np.isfinite(samples["difference"])]
    return _difference(float(estimate["difference"]), kept, n_groups if len(kept) else 1, level)


def balanced_difference(
    first: tuple[np.ndarray, np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    n_resamples: int,
    seed: int,
) -> Difference:
    """Balanced accuracy on one set of clips minus that on another, each with groups of its own that are drawn apart.

    `unpaired_difference` is of plain means, in which a resample with more groups of a hard class than the whole has
    counts as a worse one.

    Parameters
    ----------
    first, second : tuple
        Right or wrong [shape=(n_networks, n_clips)], whose mean over the networks counts; class of each clip
        [shape=(n_clips,)], from 0; group of each [shape=(n_clips,)].
    n_resamples, seed
        As for `bootstrap_groups`. A class that a resample lacks does not count in it.

    Returns
    -------
    Difference
        Of the first minus the second; without an interval where one has a single group.

    Examples
    --------
    >>> right, wrong = np.ones((1, 4)), np.zeros((1, 4))
    >>> classes, groups = np.array([0, 0, 1, 1]), np.array(list("wxyz"))
    >>> balanced_difference((right, classes, groups), (wrong, classes, groups), n_resamples=100, seed=0).estimate
    1.0
    """
    rng = np.random.default_rng(seed)
    estimates, samples, fewest = [], [], []
    for right, classes, groups in (first, second):
        codes, n_groups = _codes(groups)
        sums = np.zeros((2, n_groups, classes.max() + 1))
        np.add.at(sums[0], (codes, classes), right.mean(axis=0))
        np.add.at(sums[1], (codes, classes), 1)
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
        drawn = np.concatenate([np.ones((1, n_groups)), counts])
        hits, asked = drawn @ sums[0], drawn @ sums[1]
        recall = np.divide(hits, asked, out=np.full(hits.shape, np.nan), where=asked > 0)
        balanced = np.nanmean(recall, axis=1)
        estimates.append(balanced[0])
        samples.append(balanced[1:])
        fewest.append(n_groups)
    return _difference(float(estimates[0] - estimates[1]), samples[0] - samples[1], min(fewest), LEVEL)


def leave_out(holds: np.ndarray) -> np.ndarray:
    """Return weights for a jackknife over groups, where a clip may belong to several: a mixture, a piece.

    The groups in turn are left out, each with every clip that it plays in. For averages over combinations of drawn
    items the variance that results is right up to being a little too wide [1]_ [2]_.

    Parameters
    ----------
    holds : np.ndarray of bool [shape=(n_clips, n_groups)]
        Which groups each clip has a part of.

    Returns
    -------
    np.ndarray [shape=(1 + n_groups, n_clips)]
        1 for what is kept, 0 for what is left out. In the first row nothing is; groups without a clip have no row.

    References
    ----------
    .. [1] J. N. Arvesen, "Jackknifing U-statistics", Ann. Math. Statist. 40(6), 1969. doi:10.1214/aoms/1177697287
    .. [2] B. Efron, C. Stein, "The jackknife estimate of variance", Ann. Statist. 9(3), 1981.
       doi:10.1214/aos/1176345462

    Examples
    --------
    >>> leave_out(np.array([[True, False], [True, True]])).tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    """
    own = holds[:, holds.any(axis=0)]
    return np.concatenate([np.ones((1, len(own))), (~own.T).astype(float)])


def jackknife_interval(values: np.ndarray, *, highest: float = 1.0) -> Interval:
    """Interval of a score from its values with each group left out; the spread of the seeds is added.

    Parameters
    ----------
    values : np.ndarray [shape=(n_seeds, 1 + n_groups)]
        The score under each row of `leave_out`; NaN where it cannot be told without that group.
    highest : float
        The interval, Student's, is cut at 0 and at this.

    Returns
    -------
    Interval
    """
    estimate, error, n_groups = _spread(values)
    half = error * _student(n_groups)
    return Interval(estimate, *(float(end) for end in np.clip([estimate - half, estimate + half], 0, highest)))


def jackknife_difference(values: np.ndarray) -> Difference:
    """Difference of two scores from its values with each group left out; see `jackknife_interval`.

    Parameters
    ----------
    values : np.ndarray [shape=(n_seeds, 1 + n_groups)]
        First score minus second.

    Returns
    -------
    Difference
        `p` is that of Student's test; NaN where nothing varies.
    """
    from scipy.stats import t

    estimate, error, n_groups = _spread(values)
    half = error * _student(n_groups)
    p = 2 * t.sf(abs(estimate) / error, n_groups - 1) if error > 0 else np.nan
    return Difference(estimate, estimate - half, estimate + half, float(p))


def enough_resamples(n_resamples: int, n_comparisons: int) -> int:
    """Return how many resamples comparisons need: the least p that they can find must stay below the level after Holm.

    Examples
    --------
    >>> enough_resamples(1000, 3), enough_resamples(100, 9)
    (1000, 800)
    """
    return max(n_resamples, math.ceil(4 * (n_comparisons + 1) / (1 - LEVEL)))


def jackknife_pairs(
    values_of: Callable[[str], dict[str, np.ndarray]], pairs: Sequence[tuple[str, str]], scores: Sequence[str]
) -> pd.DataFrame:
    """Compare models two by two; see `jackknife_difference`.

    Parameters
    ----------
    values_of : callable
        From the name of a model to its values by score, as `jackknife_interval` takes them [shape=(n_seeds,
        1 + n_groups)]; called once for each model.
    pairs : sequence of (str, str)
        Names of two models each.
    scores : sequence of str
        Which scores.

    Returns
    -------
    pandas.DataFrame
        One row a pair and score, indexed by `first`, `second` and `score`: `difference`, first minus second, `low`,
        `high`, `p`, and `p_holm`, which is corrected for the number of rows.
    """
    values = {name: values_of(name) for name in {name for pair in pairs for name in pair}}
    found = {
        (first, second, score): jackknife_difference(values[first][score] - values[second][score])
        for first, second in pairs
        for score in scores
    }
    index = pd.MultiIndex.from_tuples(found, names=["first", "second", "score"])
    table = pd.DataFrame([vars(one) for one in found.values()], index).rename(columns={"estimate": "difference"})
    return table.assign(p_holm=holm(table.p.to_numpy()))


def _spread(values: np.ndarray) -> tuple[float, float, int]:
    """Estimate, standard error and groups, of one statistic [n_seeds, 1 + n_groups]."""
    of_all, without = values[:, 0], values[:, 1:].mean(axis=0)
    without = without[np.isfinite(without)]
    n_groups, n_seeds = len(without), len(values)
    if n_groups < 2:
        return float(of_all.mean()), np.nan, n_groups
    variance = (n_groups - 1) * without.var() + (of_all.var(ddof=1) / n_seeds if n_seeds > 1 else 0.0)
    return float(of_all.mean()), float(np.sqrt(variance)), n_groups


@functools.cache
def _student(n_groups: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, n_groups - 1)) if n_groups > 1 else np.nan


def _bootstrap_scores(
    function: Callable[[Terms], Terms],
    targets: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
) -> tuple[Terms, Terms, int]:
    answers = np.asarray(probabilities)
    by_seed = [clip_terms(targets, one) for one in (answers if answers.ndim == 3 else answers[None])]
    terms = {name: np.stack([one[name] for one in by_seed]) for name in by_seed[0]} if by_seed else {}
    return _bootstrap(function, terms, groups, n_resamples=n_resamples, seed=seed)


def _by_seed(probabilities: np.ndarray, thresholds: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return answers and thresholds, both [n_seeds, n_clips, n_classes]."""
    answers, bars = np.asarray(probabilities), np.asarray(thresholds, dtype=float)
    decisions(answers, bars)  # raises when they do not fit
    if bars.ndim == 2 and answers.ndim == 3:
        bars = bars[:, None, :]
    bars = np.broadcast_to(bars, answers.shape)
    return (answers, bars) if answers.ndim == 3 else (answers[None], bars[None])


def _bootstrap_labels(
    function: Callable[[Terms, np.ndarray], Terms],
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    thresholds: np.ndarray | float,
    *,
    n_resamples: int,
    seed: int,
) -> tuple[Terms, Terms, int]:
    """Apply `function` to how often each clip stands in each resample; the draws are those of `_bootstrap`."""
    codes, n_groups = _codes(groups)
    by_seed = [prepare(labels, *one) for one in zip(*_by_seed(probabilities, thresholds), strict=True)]
    if not by_seed or len(by_seed[0]["labels"]) != len(codes):
        raise EvaluationError(
            f"One group is needed for each clip: {len(codes)} groups for probabilities of shape "
            f"{np.shape(probabilities)}."
        )
    once = [function(prepared, np.ones((1, len(codes)))) for prepared in by_seed]
    estimate = {name: np.mean([found[name][0] for found in once], axis=0) for name in once[0]}
    seed_draws = _draws(len(by_seed), n_resamples=n_resamples, seed=(seed, len(by_seed)))
    blocks = []
    for counts, seed_counts in zip(_draws(n_groups, n_resamples=n_resamples, seed=seed), seed_draws, strict=True):
        block: Terms = {}
        for number, prepared in enumerate(by_seed):
            for name, values in function(prepared, counts[:, codes]).items():
                share = seed_counts[:, number].reshape(-1, *[1] * (values.ndim - 1)) / len(by_seed)
                block[name] = block.get(name, 0.0) + share * values
        blocks.append(block)
    return estimate, {name: np.concatenate([block[name] for block in blocks]) for name in estimate}, n_groups


def _bootstrap_means(
    values: np.ndarray, groups: np.ndarray, n_resamples: int, seed: int
) -> tuple[float, np.ndarray, int]:
    values = np.atleast_2d(np.asarray(values, dtype=float))
    terms = {"clips": np.ones_like(values), "value": values}
    estimate, samples, n_groups = _bootstrap(
        lambda sums: {"mean": sums["value"] / sums["clips"]}, terms, groups, n_resamples=n_resamples, seed=seed
    )
    return float(estimate["mean"]), samples["mean"], n_groups


def _bootstrap(
    function: Callable[[Terms], Terms], terms: Terms, groups: np.ndarray, *, n_resamples: int, seed: int
) -> tuple[Terms, Terms, int]:
    """Apply `function` to sums of `terms` [n_seeds, n_clips, ...], once over all clips and once for each resample."""
    codes, n_groups = _codes(groups)
    if not terms or any(len(term) == 0 or term.shape[1] != len(codes) for term in terms.values()):
        shapes = sorted({term.shape[:2] for term in terms.values()})
        raise EvaluationError(
            f"One group is needed for each clip: {len(codes)} groups for arrays of (n_seeds, n_clips) {shapes}."
        )
    by_group = {name: _sum_by_group(term, codes, n_groups) for name, term in terms.items()}
    n_seeds = len(next(iter(by_group.values())))
    whole = function({name: sums.sum(axis=1) for name, sums in by_group.items()})
    estimate = {name: values.mean(axis=0) for name, values in whole.items()}
    # A stream of its own for the seeds: the draws of groups are those of `bootstrap_groups`, whatever n_seeds is.
    seed_draws = _draws(n_seeds, n_resamples=n_resamples, seed=(seed, n_seeds))
    blocks = []
    for counts, seed_counts in zip(_draws(n_groups, n_resamples=n_resamples, seed=seed), seed_draws, strict=True):
        block: Terms = {}
        for number in range(n_seeds):
            sums = {name: np.tensordot(counts, values[number], axes=1) for name, values in by_group.items()}
            for name, values in function(sums).items():
                share = seed_counts[:, number].reshape(-1, *[1] * (values.ndim - 1)) / n_seeds
                block[name] = block.get(name, 0.0) + share * values
        blocks.append(block)
    samples = {name: np.concatenate([block[name] for block in blocks]) for name in estimate}
    return estimate, samples, n_groups


def _draws(n: int, *, n_resamples: int, seed: int | tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield blocks [n_block, n] of how often each of n items stands in each resample; blocks bound the memory."""
    if n_resamples < 1:
        raise EvaluationError(f"At least one resample is needed, not {n_resamples}.")
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, _BLOCK):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(_BLOCK, n_resamples - start)).astype(float)


def _codes(groups: np.ndarray) -> tuple[np.ndarray, int]:
    groups = np.asarray(groups)
    if groups.ndim != 1 or not len(groups):
        raise EvaluationError(f"One group is needed for each clip, and at least one clip: shape {groups.shape}.")
    names, codes = np.unique(groups, return_inverse=True)
    return codes, len(names)


def _sum_by_group(term: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    sums = np.zeros((len(term), n_groups, *term.shape[2:]))
    np.add.at(sums, (slice(None), codes), term)
    return sums


def _ends(samples: np.ndarray, n_groups: int, level: float) -> tuple[float, float]:
    if n_groups < 2:
        return np.nan, np.nan
    if np.isnan(samples).all():
        return np.nan, np.nan
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _difference(estimate: float, samples: np.ndarray, n_groups: int, level: float) -> Difference:
    low, high = _ends(samples, n_groups, level)
    samples = samples[np.isfinite(samples)]  # a resample in which the score has no value says nothing of its sign
    # Sums of floats that should cancel leave about 1e-17; that is no difference.
    signs = np.where(np.abs(samples) < 1e-12, 0, np.sign(samples))
    tail = (1 + min((signs <= 0).sum(), (signs >= 0).sum())) / (1 + len(samples))
    return Difference(estimate, low, high, min(1.0, 2 * float(tail)) if n_groups > 1 else np.nan)


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if np.shape(a) != np.shape(b):
        raise EvaluationError(f"Both models must be judged on the same clips and seeds: {np.shape(a)}, {np.shape(b)}.")
