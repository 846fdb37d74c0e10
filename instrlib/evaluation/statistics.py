"""Intervals and comparisons: one bootstrap over groups and training seeds.

Clips of one group (a recording, performer or instrument) resemble each other, so groups are drawn, not clips. Every
score is a function of clip weights: ones give the estimate, the draws of the groups its distribution. Draws are
stratified by class; of the n groups of a stratum n - 1 are drawn, each with weight n / (n - 1), so that the variance is
right where a stratum has few groups [1]_. Training seeds are drawn in the same way; see `over_seeds`. With a single
group the ends of an interval are NaN: nothing is known of other groups.

References
----------
.. [1] J. N. K. Rao, C. F. J. Wu, "Resampling inference with complex survey data", JASA 83(401), 1988.
   doi:10.1080/01621459.1988.10478591
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.errors import EvaluationError
from instrlib.evaluation import metrics
from instrlib.evaluation.predictions import (
    Predictions,
    check_same_clips,
    each_seed,
    main_score,
    several_labels,
    truth,
)  # fmt: skip

LEVEL = 0.95
POWER = 0.8
MARGIN = 0.05
"""Differences of a score up to this do not matter, where a study states no other margin."""

NO_INTERVAL = ("expected_calibration_error",)
"""The bootstrap's draws of this score are biased upwards, so that no interval of theirs is valid."""

_BLOCK = 500

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights [shape=(n_draws, n_clips)] to values by name, each with a first axis of draws."""


def score_table(predictions: dict[str, Predictions], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score several models, with 95 % intervals over groups and seeds.

    Parameters
    ----------
    predictions : dict of str to dict
        By the models' names; see `predictions.Predictions`.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low`, `high`, one row for each pair. The expected calibration error has
        no interval: its bootstrap is biased.

    Raises
    ------
    EvaluationError
        When the models were not tested on the same clips.
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
    """Compare models two by two, paired by clip and seed.

    Parameters
    ----------
    predictions : dict of str to dict
        By the models' names; see `predictions.Predictions`. A model with one seed is compared with every seed of the
        other.
    against : str, optional
        Compare every other model with this one.
    pairs : sequence of (str, str), optional
        The comparisons, if `against` is not given. Together they are one family.
    margin : float
        Largest difference that does not matter, stated before the run.
    score : str, optional
        One of `metrics.SCORES` or `metrics.LABEL_SCORES`; by default accuracy or mean average precision.
    n_resamples, seed : int
        Of the bootstrap; there are more resamples where the number of comparisons requires it.

    Returns
    -------
    pandas.DataFrame
        One row a comparison; see `comparison_table`.

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
        raise EvaluationError(f"Models cannot be compared by {score!r}; use {main_score(first)!r}.")
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
    """Compare any score two by two from its draws over the same weights.

    Parameters
    ----------
    draws : dict of str to np.ndarray [shape=(n_seeds, 1 + n_resamples)]
        By name: the estimate of each seed, then its values in the resamples, which are the same for all; see `draw`.
    pairs : sequence of (str, str)
        The comparisons: one family, corrected once by `holm`.
    margin : float
        Largest difference that does not matter.
    n_groups : int
        Independent groups behind the draws.
    lower_is_better : bool
        Whether a negative difference is the better one.
    seed : int
        Of the draws of seeds.

    Returns
    -------
    pandas.DataFrame
        Indexed by `first` and `second`: `difference` (first minus second), `low` and `high` (95 %), `p` (two-sided),
        `p_holm`, `margin`, `detectable` (smallest difference found with a power of 80 % at the corrected level) and
        `verdict`: better, worse (p_holm below .05), equivalent (the difference is within the margin, by two one-sided
        tests, corrected as well) or inconclusive.
    """
    differences = [over_seeds(_paired(draws, first, second), seed) for first, second in pairs]
    index = pd.MultiIndex.from_tuples(list(pairs), names=["first", "second"])
    found = [(float(one[0]), *ends(one), p_value(one)) for one in differences]
    table = pd.DataFrame(found, index, columns=["difference", "low", "high", "p"])
    table["p_holm"] = holm(table.p.to_numpy())
    table["margin"] = margin
    errors = np.array([standard_error(one) for one in differences], dtype=float)
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

    Returns
    -------
    dict
        `difference`, `bound` (one-sided 95 % bound of the loss: not larger than this), `p` and `shown`. Few groups in
        which the models differ prove little, so the standard error is at least that of one further group won by each
        side: see `p_within`.
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
    error = max(standard_error(difference), smallest_error(n_groups))
    p = p_within(difference, margin, n_groups)
    bound = _normal_quantile(LEVEL) * error - float(difference[0])
    return {"difference": sign * float(difference[0]), "bound": bound, "p": p, "shown": bool(p < 1 - LEVEL)}


def class_table(predictions: Predictions, classes: tuple[str, ...], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score each class, with intervals over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        Indexed by class: each score of `metrics.per_class` followed by its `_low` and `_high`, then `support`,
        `observed` and `n_groups`. With fewer than two groups of a class the ends are NaN; with two or three the
        intervals are too narrow.
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
    """Every score of a model for each seed and draw [shape=(n_seeds, 1 + n_resamples) or (..., n_classes)]."""
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
    """Means of numbers a clip, with 95 % intervals over groups and seeds.

    Parameters
    ----------
    values : dict of str to np.ndarray [shape=(n_clips,) or (n_seeds, n_clips)]
        By name.
    groups, strata : np.ndarray [shape=(n_clips,)]
        See `draw`.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Indexed by name: `estimate`, `low`, `high`.
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
    """Compare means of numbers a clip (see `mean_table`) two by two, as `compare` does with scores."""
    if pairs is None:
        pairs = [(name, against) for name in values if name != against]
    n_resamples = enough_resamples(n_resamples, len(pairs))
    draws = {name: mean_draws(own, groups, strata, n_resamples=n_resamples, seed=seed) for name, own in values.items()}
    return comparison_table(draws, pairs, margin=margin, n_groups=len(np.unique(groups)), seed=seed)


def mean_draws(
    values: np.ndarray, groups: np.ndarray, strata: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> np.ndarray:
    """Return draws [n_seeds, 1 + n_resamples] of the mean of one number a clip [n_clips] or [n_seeds, n_clips]."""
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.shape[1] != len(groups):
        raise EvaluationError(f"{values.shape[1]} numbers do not fit {len(groups)} groups.")
    statistics = [lambda weights, one=one: {"mean": weights @ one / weights.sum(axis=1)} for one in values]
    return draw(statistics, groups, strata, n_resamples=n_resamples, seed=seed)["mean"]


def draw(
    statistics: Sequence[Statistic],
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    n_resamples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Draw groups, and return what the statistics give.

    Parameters
    ----------
    statistics : sequence of callable
        One for each training seed.
    groups : np.ndarray [shape=(n_clips,)]
        Group of each clip.
    strata : np.ndarray of int [shape=(n_clips,)], optional
        Class of each clip. A group belongs to the class of most of its clips; classes with one group are pooled.
    n_resamples, seed : int
        Number of draws, and the seed of them: with the same seed, models on the same clips see the same draws.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_seeds, 1 + n_resamples, ...)]
        The first column is the estimate.
    """
    groups = np.asarray(groups)
    if groups.ndim != 1 or not len(groups) or n_resamples < 1 or not len(statistics):
        raise EvaluationError("An interval needs clips with one group each, a seed, and at least one resample.")
    codes, weights = group_weights(groups, strata, n_resamples=n_resamples, seed=seed)
    blocks = []
    for start in range(0, len(weights), _BLOCK):
        of_clips = weights[start : start + _BLOCK][:, codes]
        by_seed = [statistic(of_clips) for statistic in statistics]
        blocks.append({name: np.stack([one[name] for one in by_seed]) for name in by_seed[0]})
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def over_seeds(values: np.ndarray, seed: int) -> np.ndarray:
    """Draw the seeds as well, and return the draws of their mean.

    Where groups and seeds are both drawn, what they do together (a clip that some seeds classify correctly) is counted
    three times instead of once [1]_. The draws are therefore scaled to the variance over groups, plus that over seeds,
    minus that of the interaction.

    Parameters
    ----------
    values : np.ndarray [shape=(n_seeds, 1 + n_resamples, ...)]
        See `draw`.
    seed : int
        Of the draws of seeds.

    Returns
    -------
    np.ndarray [shape=(1 + n_resamples, ...)]

    References
    ----------
    .. [1] A. B. Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1(2), 2007. doi:10.1214/07-AOAS122
    """
    n_seeds, groups = len(values), values.mean(axis=0)
    if n_seeds == 1:
        return groups
    rng = np.random.default_rng((seed, n_seeds))
    weights = _weights(np.zeros(n_seeds, int), values.shape[1] - 1, rng) / n_seeds
    seeds, both = np.tensordot(weights, values[:, 0], axes=1), np.einsum("rs,sr...->r...", weights, values)
    of_groups, of_seeds, of_both = (np.var(one[1:], axis=0) for one in (groups, seeds, both))
    interaction = np.maximum(of_both - of_groups - of_seeds, 0)
    wanted = np.maximum(of_groups + of_seeds - interaction, np.maximum(of_groups, of_seeds))
    scale = np.sqrt(np.divide(wanted, of_both, out=np.ones_like(of_both), where=~(of_both <= 0)))
    return np.concatenate([groups[:1], groups[0] + (both[1:] - groups[0]) * scale])


def group_weights(
    groups: np.ndarray, strata: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each clip's group [shape=(n_clips,)], and weights [shape=(1 + n_resamples, n_groups)].

    The first row holds ones; the others are draws, NaN where there is one group.
    """
    names, codes = np.unique(groups, return_inverse=True)
    of_group = np.zeros(len(names), int)
    if strata is not None and len(names) > 1:
        classes, numbers = np.unique(strata, return_inverse=True)
        clips = np.zeros((len(names), len(classes)), int)
        np.add.at(clips, (codes, numbers), 1)
        of_group = clips.argmax(axis=1)
        sizes = np.bincount(of_group, minlength=len(classes))
        alone = np.isin(of_group, np.flatnonzero(sizes == 1))
        of_group[alone] = len(classes)
        if alone.sum() == 1:  # it joins the smallest of the other classes
            of_group[alone] = of_group[~alone][sizes[of_group[~alone]].argmin()]
    return codes, _weights(of_group, n_resamples, np.random.default_rng(seed))


def ends(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return both ends of the percentile interval of draws; NaN where no draw has a value."""
    if np.isnan(draws[1:]).all():
        return np.nan, np.nan
    low, high = np.nanquantile(draws[1:], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def standard_error(draws: np.ndarray) -> float:
    """Return the standard deviation of draws; NaN where fewer than two have a value."""
    known = draws[1:][np.isfinite(draws[1:])]
    return float(known.std(ddof=1)) if len(known) > 1 else np.nan


def p_value(draws: np.ndarray) -> float:
    """Return the two-sided p of no difference from draws of it, at least 2 / (n_resamples + 1)."""
    known = draws[1:][np.isfinite(draws[1:])]
    if not len(known):
        return np.nan
    signs = np.where(np.abs(known) < 1e-12, 0, np.sign(known))  # sums that cancel leave about 1e-17
    tail = (1 + min((signs <= 0).sum(), (signs >= 0).sum())) / (1 + len(known))
    return min(1.0, 2 * float(tail))


def p_within(draws: np.ndarray, margin: float, n_groups: int) -> float:
    """Return the one-sided p of a difference of -margin or less, by a normal test.

    Models that differ in a few groups, or in none, have a bootstrap with next to no spread, which proves nothing about
    other groups. The standard error is therefore at least `smallest_error`.
    """
    error = standard_error(draws)
    if np.isnan(error) or not margin > 0:
        return np.nan
    z = (float(draws[0]) + margin) / max(error, smallest_error(n_groups))
    return 0.5 * math.erfc(z / math.sqrt(2))


def smallest_error(n_groups: int) -> float:
    """Return the standard error of a difference if each side won one further group: sqrt(2) / n_groups.

    The 95 % bound of a loss that never occurred is then 2.3 / n_groups, close to the "rule of three" [1]_.

    References
    ----------
    .. [1] J. A. Hanley, A. Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249(13), 1983.
    """
    return math.sqrt(2) / n_groups


def holm(p: np.ndarray) -> np.ndarray:
    """Correct the p-values of one family for their number; NaN stays and does not count [1]_.

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
    """Return how many resamples comparisons need: the least p that they can find must stay below the level after Holm.

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


def _paired(draws: dict[str, np.ndarray], first: str, second: str) -> np.ndarray:
    """First minus second, seed by seed; one seed is compared with every seed of the other."""
    n_first, n_second = len(draws[first]), len(draws[second])
    if 1 not in (n_first, n_second) and n_first != n_second:
        raise EvaluationError(
            f"{first!r} has {n_first} seeds, {second!r} has {n_second}; train both with the same ones."
        )
    return draws[first] - draws[second]


def _weights(strata: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n - 1 of the n members of each stratum, each with weight n / (n - 1); see the module's docstring."""
    weights = np.ones((1 + n_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        drawn = rng.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples)
        weights[1:, members] = drawn * (n / (n - 1)) if n > 1 else np.nan
    return weights


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
