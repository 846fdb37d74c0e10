"""Scores with intervals, comparisons with verdicts, and corrections for multiple comparisons; see `bootstrap`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import EvaluationError
from instrlib.evaluation import metrics
from instrlib.evaluation.bootstrap import LEVEL, draw, ends, mean_draws, over_seeds, p_value, standard_error
from instrlib.evaluation.predictions import (
    Predictions,
    check_same_clips,
    each_seed,
    main_score,
    several_labels,
    truth,
)  # fmt: skip

POWER = 0.8
MARGIN = 0.05
"""Differences of a score up to this do not matter, where a study states no other margin."""

NO_INTERVAL = ("expected_calibration_error",)
"""The bootstrap's draws of this score are biased upwards, so that no interval of theirs is valid."""


def score_table(predictions: dict[str, Predictions], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score several models, with 95 % intervals over groups and seeds.

    `predictions` are those of `predictions.Predictions` by model name; models with different test clips raise
    `EvaluationError`.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low`, `high`, one row per model and score. The expected calibration error
        has no interval, because its bootstrap is biased.
    """
    check_same_clips(predictions)
    rows = []
    for model, answer in predictions.items():
        for score, values in score_draws(answer, n_resamples=n_resamples, seed=seed).items():
            draws = over_seeds(values, seed)
            rows.append((model, score, float(draws[0]), *(ends(draws) if score not in NO_INTERVAL else (np.nan,) * 2)))
    return pd.DataFrame(rows, columns=["model", "score", "estimate", "low", "high"])


def compare(
    predictions: dict[str, Predictions],
    *,
    against: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    margin: float = MARGIN,
    score: str | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare models in pairs on the same clips and seeds.

    Parameters
    ----------
    predictions : dict of str to dict
        Predictions by name of the model; see `predictions.Predictions`. A model with one seed is compared with every
        seed of the other.
    against : str, optional
        Compare every other model with this one.
    pairs : sequence of (str, str), optional
        The comparisons, if `against` is not given. Together they are one family.
    margin : float
        Largest irrelevant difference, stated before the run.
    score : str, optional
        One of `metrics.SCORES` or `metrics.LABEL_SCORES`; default: accuracy or mean average precision.
    n_resamples, seed : int
        Number and seed of the bootstrap draws; many comparisons increase the number.

    Returns
    -------
    pandas.DataFrame
        One row per comparison; see `comparison_table`.

    Raises
    ------
    EvaluationError
        When two models were not tested on the same clips, or have different numbers of seeds.
    """
    if pairs is None:
        pairs = [(name, against) for name in predictions if name != against]
    models = {name: predictions[name] for pair in pairs for name in pair}
    if not models:
        return comparison_table({}, [], margin=margin, n_groups=0)
    check_same_clips(models)
    first = next(iter(models.values()))
    score = score or main_score(first)
    if score in NO_INTERVAL or score not in (metrics.LABEL_SCORES if several_labels(first) else metrics.SCORES):
        raise EvaluationError(f"Unknown score {score!r} for a comparison; use {main_score(first)!r}.")
    n_resamples = enough_resamples(n_resamples, len(pairs))
    draws = {name: score_draws(answer, n_resamples=n_resamples, seed=seed)[score] for name, answer in models.items()}
    n_groups, lower = len(np.unique(first["group"])), score in metrics.LOWER_IS_BETTER
    return comparison_table(draws, pairs, margin=margin, n_groups=n_groups, lower_is_better=lower, seed=seed)


def comparison_table(
    draws: dict[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    *,
    margin: float = MARGIN,
    n_groups: int,
    lower_is_better: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare any score in pairs, from its draws over the same weights.

    Parameters
    ----------
    draws : dict of str to np.ndarray [shape=(n_seeds, 1 + n_resamples)]
        By name: the estimate of each seed, then its values under the draws, which all names share; see `draw`.
    pairs : sequence of (str, str)
        The comparisons: one family, corrected once by `holm`.
    margin : float
        Largest irrelevant difference.
    n_groups : int
        Independent groups behind the draws.
    lower_is_better : bool
        Whether a negative difference is an improvement.
    seed : int
        Seed for the draws of training seeds.

    Returns
    -------
    pandas.DataFrame
        Indexed by `first` and `second`: `difference` (first minus second), `low` and `high` (95 %), `p` (two-sided),
        `p_holm`, `margin`, `detectable` (difference with a power of 80 % at the corrected level) and `verdict`: better
        or worse (p_holm below 0.05), equivalent (within the margin by two one-sided tests, also corrected) or
        inconclusive.
    """
    differences = [over_seeds(_paired(draws, first, second), seed) for first, second in pairs]
    index = pd.MultiIndex.from_tuples(list(pairs), names=["first", "second"])
    differences = [np.where(np.abs(one) < 1e-12, 0.0, one) for one in differences]  # rounding errors
    found = [(float(one[0]), *ends(one), p_value(one)) for one in differences]
    table = pd.DataFrame(found, index, columns=["difference", "low", "high", "p"])
    table["p_holm"] = holm(table.p.to_numpy())
    table["margin"] = margin
    errors = np.array([standard_error(one) or _error(one, n_groups) for one in differences], dtype=float)
    level = (1 - LEVEL) / max(table.p.notna().sum(), 1)
    table["detectable"] = errors * (_normal_quantile(1 - level / 2) + _normal_quantile(POWER))
    p_margin = [max(p_within(one, margin, n_groups), p_within(-one, margin, n_groups)) for one in differences]
    sign = -1 if lower_is_better else 1
    shown, equivalent = (table.p_holm < 1 - LEVEL).to_numpy(), holm(np.array(p_margin)) < 1 - LEVEL
    better = np.where(sign * table.difference > 0, "better", "worse")
    table["verdict"] = np.where(shown, better, np.where(equivalent, "equivalent", "inconclusive"))
    return table


def non_inferiority(
    predictions: dict[str, Predictions],
    first: str,
    second: str,
    *,
    margin: float,
    score: str | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Test whether the first model loses at most `margin` of a score against the second.

    Returns `difference`, `bound` (one-sided 95 % bound of the loss), `p` and `shown`.
    """
    models = {name: predictions[name] for name in (first, second)}
    check_same_clips(models)
    score = score or main_score(models[first])
    sign = -1 if score in metrics.LOWER_IS_BETTER else 1
    draws = {name: score_draws(one, n_resamples=n_resamples, seed=seed)[score] for name, one in models.items()}
    difference, n_groups = (
        sign * over_seeds(_paired(draws, first, second), seed),
        len(np.unique(models[first]["group"])),
    )
    p = p_within(difference, margin, n_groups)
    bound = _normal_quantile(LEVEL) * _error(difference, n_groups) - float(difference[0])
    return {"difference": sign * float(difference[0]), "bound": bound, "p": p, "shown": bool(p < 1 - LEVEL)}


def class_table(predictions: Predictions, classes: tuple[str, ...], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score each class, with intervals over groups and seeds.

    Returns a table by class: each score of `metrics.per_class`, its `_low` and `_high`, then `support`, `observed` and
    `n_groups`. Intervals are NaN for fewer than two groups, and too narrow for two or three.
    """
    known = truth(predictions)
    present = known == 1 if several_labels(predictions) else known[:, None] == np.arange(len(classes))
    metrics.check_names(classes, np.shape(predictions["probabilities"])[-1])
    n_groups = np.array([len(np.unique(predictions["group"][column])) for column in present.T])
    drawn = score_draws(predictions, by_class=True, n_resamples=n_resamples, seed=seed)
    table = pd.DataFrame(index=pd.Index(classes, name="class"))
    for name, values in drawn.items():
        draws = over_seeds(values, seed)
        table[name] = draws[0]
        interval = [ends(column) if n > 1 else (np.nan, np.nan) for column, n in zip(draws.T, n_groups, strict=True)]
        table[[f"{name}_low", f"{name}_high"]] = interval
    observed = np.isfinite(known).sum(axis=0) if several_labels(predictions) else len(known)
    return table.assign(support=present.sum(axis=0), observed=observed, n_groups=n_groups)


def score_draws(
    predictions: Predictions, *, by_class: bool = False, n_resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return every score for each seed and draw [shape=(n_seeds, 1 + n_resamples) or (..., n_classes)]."""
    known, groups = truth(predictions), np.asarray(predictions["group"])
    strata = None if several_labels(predictions) else known
    weigh = metrics.weighted_class_scores if by_class else metrics.weighted_scores
    terms = [metrics.clip_terms(known, *one) for one in each_seed(predictions)]
    statistics = [lambda weights, one=one: weigh(one, weights) for one in terms]
    return draw(statistics, groups, strata, n_resamples=n_resamples, seed=seed)


def mean_table(
    values: dict[str, np.ndarray],
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return means of one number per clip, with 95 % intervals over groups and seeds.

    `values` are arrays [shape=(n_clips,) or (n_seeds, n_clips)] by name; `groups` and `strata` are those of `draw`. The
    table has `estimate`, `low` and `high` by name.
    """
    rows = {}
    for name, own in values.items():
        draws = over_seeds(mean_draws(own, groups, strata, n_resamples=n_resamples, seed=seed), seed)
        rows[name] = (float(draws[0]), *ends(draws))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high"])


def compare_means(
    values: dict[str, np.ndarray],
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    against: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    margin: float = MARGIN,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Compare means of one number per clip (see `mean_table`) in pairs, as `compare` does for scores."""
    if pairs is None:
        pairs = [(name, against) for name in values if name != against]
    n_resamples = enough_resamples(n_resamples, len(pairs))
    draws = {name: mean_draws(own, groups, strata, n_resamples=n_resamples, seed=seed) for name, own in values.items()}
    return comparison_table(draws, pairs, margin=margin, n_groups=len(np.unique(groups)), seed=seed)


def p_within(draws: np.ndarray, margin: float, n_groups: int) -> float:
    """Return the one-sided p-value of a difference of -margin or less, from a normal test; see `_error`."""
    error = _error(draws, n_groups)
    if np.isnan(error) or not margin > 0:
        return np.nan
    return 0.5 * math.erfc((float(draws[0]) + margin) / error / math.sqrt(2))


def holm(p: np.ndarray) -> np.ndarray:
    """Correct the p-values of one family for multiple comparisons; NaN is kept and not counted [1]_.

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


def enough_resamples(n_resamples: int, n_comparisons: int) -> int:
    """Return the number of resamples whose smallest p-value is below the level after Holm's correction.

    Examples
    --------
    >>> enough_resamples(1000, 3), enough_resamples(100, 9)
    (1000, 800)
    """
    return max(n_resamples, math.ceil(4 * (n_comparisons + 1) / (1 - LEVEL)))


def nested(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return a `score_table` as model -> score -> estimate, low, high."""
    return {
        model: rows.set_index("score")[["estimate", "low", "high"]].to_dict("index")
        for model, rows in table.groupby("model", sort=False)
    }


def _error(draws: np.ndarray, n_groups: int) -> float:
    """Return the standard error of a difference, at least that of one further group won by each side.

    The bootstrap of models that differ in few groups has almost no spread, which is no evidence about other groups.
    With the minimum of sqrt(2) / n_groups, the bound of a loss that never occurred is 2.3 / n_groups, close to the
    "rule of three" (Hanley and Lippman-Hand, JAMA 249(13), 1983).
    """
    return max(standard_error(draws), math.sqrt(2) / n_groups)


def _paired(draws: dict[str, np.ndarray], first: str, second: str) -> np.ndarray:
    """Return first minus second for each seed; a single seed is compared with every seed of the other."""
    n_first, n_second = len(draws[first]), len(draws[second])
    if 1 not in (n_first, n_second) and n_first != n_second:
        raise EvaluationError(
            f"{first!r} has {n_first} seeds, {second!r} has {n_second}; train both with the same seeds."
        )
    return draws[first] - draws[second]


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
