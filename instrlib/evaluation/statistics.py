"""Scores with intervals and comparisons with verdicts, from a bootstrap over groups and training seeds.

Clips of one group (recording, performer or instrument) are correlated, so groups are drawn instead of clips, stratified
by class. Every score is a function of clip weights: ones give the estimate, draws give its distribution. Of the n
groups of a stratum, n - 1 are drawn, each with weight n / (n - 1), which keeps the variance unbiased for few groups
(Rao and Wu, JASA 83(401), 1988, doi:10.1080/01621459.1988.10478591). With a single group, the ends of an interval are
NaN.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import RunError
from instrlib.evaluation import metrics
from instrlib.evaluation.predictions import Predictions, check_same_clips, main_score, several_labels, terms_of_seeds

LEVEL, POWER = 0.95, 0.8
MARGIN = 0.05  # differences of a score up to this do not matter, where a study states no other margin
NO_INTERVAL = ("expected_calibration_error",)  # its draws are biased upwards, so that they give no valid interval
_BLOCK = 500

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights [n_draws, n_clips] to values by name, each with a first axis of draws."""


def score_table(predictions: dict[str, Predictions], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score models on the same clips, with 95 % intervals over groups and seeds.

    Returns the columns `model`, `score`, `estimate`, `low` and `high`, one row per model and score. The expected
    calibration error has no interval, because its bootstrap is biased.
    """
    check_same_clips(predictions)
    drawn = {name: score_draws(answer, n_resamples=n_resamples, seed=seed) for name, answer in predictions.items()}
    every = {(model, score): draws for model, of_model in drawn.items() for score, draws in of_model.items()}
    table = intervals(every, seed).rename_axis(["model", "score"]).reset_index()
    table.loc[table.score.isin(NO_INTERVAL), ["low", "high"]] = np.nan
    return table


def intervals(draws: dict[Any, np.ndarray], seed: int = 0) -> pd.DataFrame:
    """Return `estimate`, `low` and `high` (95 %) by name from draws [n_seeds, 1 + n_resamples]; see `mean_draws`."""
    means = {name: over_seeds(values, seed) for name, values in draws.items()}
    rows = [(float(mean[0]), *ends(mean)) for mean in means.values()]
    return pd.DataFrame(rows, pd.Index(list(means)), columns=["estimate", "low", "high"])


def nested(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return a `score_table` as model -> score -> estimate, low, high."""
    return {
        model: rows.set_index("score")[["estimate", "low", "high"]].to_dict("index")
        for model, rows in table.groupby("model", sort=False)
    }


def class_table(predictions: Predictions, classes: Sequence[str], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score each class, with intervals over groups and seeds.

    Returns a table by class: precision, recall, f1 and others, each with `_low` and `_high`, then `support` (clips with
    the class), `observed` and `n_groups`. Intervals are NaN for fewer than two groups, and too narrow for two or three.
    """
    terms = terms_of_seeds(predictions)[0]
    present, group = terms["present"], np.asarray(predictions["group"])
    n_groups = np.array([len(np.unique(group[column])) for column in present.T])
    table = pd.DataFrame(index=pd.Index(classes, name="class"))
    for name, values in score_draws(predictions, by_class=True, n_resamples=n_resamples, seed=seed).items():
        own = intervals(dict(zip(classes, np.moveaxis(values, 2, 0), strict=True)), seed)
        own.loc[n_groups < 2, ["low", "high"]] = np.nan
        table[[name, f"{name}_low", f"{name}_high"]] = own
    return table.assign(support=present.sum(axis=0), observed=terms["observed"].sum(axis=0), n_groups=n_groups)


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
    """Compare all models with one of them, or in pairs, on the same clips and seeds; see `comparison_table`.

    The comparisons are one family; many of them increase `n_resamples`. `margin` is the largest irrelevant difference,
    stated before the run, and `score` one of `metrics.scores` (default: accuracy or mean average precision). Models
    with different test clips, or with different numbers of seeds, raise `RunError`; one with a single seed is
    compared with every seed of the other.
    """
    if pairs is None:
        pairs = [(name, against) for name in predictions if name != against]
    models = {name: predictions[name] for pair in pairs for name in pair}
    if not models:
        return comparison_table({}, [], margin=margin, n_groups=0)
    check_same_clips(models)
    first = next(iter(models.values()))
    score, n_resamples = score or main_score(first), enough_resamples(n_resamples, len(pairs))
    drawn = {name: score_draws(answer, n_resamples=n_resamples, seed=seed) for name, answer in models.items()}
    if score in NO_INTERVAL or any(score not in one for one in drawn.values()):
        raise RunError(f"Unknown score {score!r} for a comparison; use {main_score(first)!r}.")
    draws = {name: one[score] for name, one in drawn.items()}
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
    """Compare any score in pairs, one family of comparisons, from draws over the same weights.

    `draws` [n_seeds, 1 + n_resamples] by name are the estimate of each seed, then its values under the draws; see
    `draw`. `margin` is the largest irrelevant difference, `n_groups` the number of independent groups, `seed` that of
    the draws of training seeds.

    Returns by `first` and `second`: `difference` (first minus second), `low` and `high` (95 %), `p` (two-sided),
    `p_holm`, `margin`, `detectable` (difference with a power of 80 % at the corrected level), `bound` (one-sided 95 %
    bound of the loss, uncorrected: the first is not inferior if it is below the margin) and `verdict`: better or worse
    (p_holm below 0.05), equivalent (within the margin by two one-sided tests, also corrected) or inconclusive.
    """
    normal, sign, rows, p_margin = NormalDist(), -1 if lower_is_better else 1, [], []
    for first, second in pairs:
        n_first, n_second = len(draws[first]), len(draws[second])
        if 1 not in (n_first, n_second) and n_first != n_second:
            raise RunError(f"{first!r} has {n_first} seeds, {second!r} has {n_second}; train both with the same seeds.")
        values = over_seeds(draws[first] - draws[second], seed)
        values = np.where(np.abs(values) < 1e-12, 0.0, values)  # rounding errors
        difference, spread = float(values[0]), float(np.sqrt(_variance(values[1:])))
        # The bootstrap of models that differ in few groups has almost no spread, which is no evidence about other
        # groups. The error is at least that of one further group won by each side; the bound of a loss that never
        # occurred is then 2.3 / n_groups, close to the "rule of three" (Hanley, Lippman-Hand, JAMA 249(13), 1983).
        error = max(spread, math.sqrt(2) / n_groups)
        p_margin.append(normal.cdf((abs(difference) - margin) / error) if margin > 0 else np.nan)
        bound = normal.inv_cdf(LEVEL) * error - sign * difference
        rows.append((difference, *ends(values), p_value(values), spread or error, bound))
    index = pd.MultiIndex.from_tuples(list(pairs), names=["first", "second"])
    table = pd.DataFrame(rows, index, columns=["difference", "low", "high", "p", "error", "bound"], dtype=float)
    table["p_holm"], table["margin"] = holm(table.p.to_numpy()), margin
    level = (1 - LEVEL) / max(table.p.notna().sum(), 1)
    table["detectable"] = table.error * (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER))
    better = np.where(sign * table.difference > 0, "better", "worse")
    equivalent = np.where(holm(np.array(p_margin)) < 1 - LEVEL, "equivalent", "inconclusive")
    table["verdict"] = np.where(table.p_holm < 1 - LEVEL, better, equivalent)
    return table[["difference", "low", "high", "p", "p_holm", "margin", "detectable", "bound", "verdict"]]


def score_draws(
    predictions: Predictions, *, by_class: bool = False, n_resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return every score for each seed and draw [shape=(n_seeds, 1 + n_resamples) or (..., n_classes)]."""
    weigh = metrics.weighted_class_scores if by_class else metrics.weighted_scores
    statistics = [lambda weights, one=one: weigh(one, weights) for one in terms_of_seeds(predictions)]
    strata = None if several_labels(predictions) else predictions["targets"]
    return draw(statistics, predictions["group"], strata, n_resamples=n_resamples, seed=seed)


def mean_draws(
    values: np.ndarray, groups: np.ndarray, strata: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> np.ndarray:
    """Return draws [n_seeds, 1 + n_resamples] of the mean of one number per clip [n_clips] or [n_seeds, n_clips]."""
    statistics = [
        lambda weights, one=one: {"mean": weights @ one / weights.sum(axis=1)}
        for one in np.atleast_2d(np.asarray(values, dtype=float))
    ]
    return draw(statistics, groups, strata, n_resamples=n_resamples, seed=seed)["mean"]


def draw(
    statistics: Sequence[Statistic],
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    n_resamples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Draw groups and evaluate the statistics, one per training seed, under each draw.

    `groups` [n_clips] are the groups of the clips or, for mixtures, those of their sources [n_clips, k], "" where there
    are fewer. The weight of a mixture is the product of their weights, which makes intervals slightly too wide (Owen,
    "The pigeonhole bootstrap", Ann. Appl. Stat. 1(2), 2007, doi:10.1214/07-AOAS122).
    `strata` [n_clips] are the classes of the clips. A group belongs to the most frequent class of its clips; classes
    with one group are pooled. Models on the same clips share the draws of a seed.

    Returns arrays [n_seeds, 1 + n_resamples, ...] by name, of which the first column is the estimate.
    """
    codes, weights = group_weights(groups, strata, n_resamples=n_resamples, seed=seed)
    blocks = []
    for start in range(0, len(weights), _BLOCK):
        of_clips = weights[start : start + _BLOCK][:, codes]
        of_clips = of_clips.prod(axis=2) if codes.ndim > 1 else of_clips
        by_seed = [statistic(of_clips) for statistic in statistics]
        blocks.append({name: np.stack([one[name] for one in by_seed]) for name in by_seed[0]})
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def group_weights(
    groups: np.ndarray, strata: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return group numbers of clips and weights [1 + n_resamples, n_groups]: ones, then draws (NaN for one group)."""
    names, codes = np.unique(groups, return_inverse=True)
    codes, of_group = codes.reshape(np.shape(groups)), np.zeros(len(names), int)
    if codes.ndim > 1:
        none = names == ""
        return codes, np.where(none, 1.0, _weights(-none.astype(int), n_resamples, np.random.default_rng(seed)))
    if strata is not None and len(names) > 1:
        of_group = pd.crosstab(codes, np.asarray(strata)).to_numpy().argmax(axis=1)
        sizes = np.bincount(of_group)
        alone = sizes[of_group] == 1
        of_group[alone] = len(sizes)
        if alone.sum() == 1:  # merge it with the smallest other stratum
            of_group[alone] = of_group[~alone][sizes[of_group[~alone]].argmin()]
    return codes, _weights(of_group, n_resamples, np.random.default_rng(seed))


def _weights(strata: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n - 1 of the n members of each stratum, with weight n / (n - 1); NaN for a stratum of one."""
    weights = np.ones((1 + n_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        drawn = rng.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples)
        weights[1:, members] = drawn * (n / (n - 1)) if n > 1 else np.nan
    return weights


def over_seeds(values: np.ndarray, seed: int) -> np.ndarray:
    """Draw the seeds as well, and return the draws of their mean [shape=(1 + n_resamples, ...)]; see `draw`.

    If groups and seeds are both drawn, their interaction counts three times instead of once (Owen, 2007). The draws
    are therefore scaled to the variance over groups, plus that over seeds, minus that of the interaction.
    """
    n_seeds, groups = len(values), values.mean(axis=0)
    if n_seeds == 1:
        return groups
    weights = _weights(np.zeros(n_seeds, int), values.shape[1] - 1, np.random.default_rng((seed, n_seeds))) / n_seeds
    seeds, both = np.tensordot(weights, values[:, 0], axes=1), np.einsum("rs,sr...->r...", weights, values)
    of_groups, of_seeds, of_both = (_variance(one[1:]) for one in (groups, seeds, both))
    interaction = np.maximum(of_both - of_groups - of_seeds, 0)
    wanted = np.maximum(of_groups + of_seeds - interaction, np.maximum(of_groups, of_seeds))
    scale = np.sqrt(np.divide(wanted, of_both, out=np.ones_like(of_both), where=~(of_both <= 0)))
    draws = groups[0] + (both[1:] - groups[0]) * scale
    low, high = (one.reduce(values, axis=(0, 1)) for one in (np.fmin, np.fmax))  # range of the score
    return np.concatenate([groups[:1], np.clip(draws, low, high)])


def _variance(draws: np.ndarray) -> np.ndarray:
    """Return the variance over the draws that are not NaN; draws without clips of a class are NaN."""
    return np.ma.filled(np.ma.masked_invalid(draws).var(axis=0), np.nan)


def ends(draws: np.ndarray) -> tuple[float, float]:
    """Return both ends of the 95 % percentile interval of draws; NaN if all draws are NaN."""
    low, high = pd.Series(draws[1:]).quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_value(draws: np.ndarray) -> float:
    """Return the two-sided p-value of draws of a difference, at least 2 / (n_resamples + 1)."""
    known = draws[1:][np.isfinite(draws[1:])]
    tail = (1 + min((known <= 0).sum(), (known >= 0).sum())) / (1 + len(known))
    return min(1.0, 2 * float(tail)) if len(known) else np.nan


def holm(p: np.ndarray) -> np.ndarray:
    """Correct the p-values of one family for multiple comparisons; NaN is kept and not counted.

    S. Holm, Scandinavian Journal of Statistics 6, 1979, https://www.jstor.org/stable/4615733.
    """
    corrected = np.array(p, dtype=float)
    order = np.argsort(corrected, kind="stable")[: np.isfinite(corrected).sum()]  # NaN comes last
    steps = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def enough_resamples(n_resamples: int, n_comparisons: int) -> int:
    """Return the number of resamples whose smallest p-value is below the level after Holm's correction."""
    return max(n_resamples, math.ceil(4 * (n_comparisons + 1) / (1 - LEVEL)))
