"""Bootstrap over groups and training seeds, the basis of all intervals and comparisons.

Clips of one group (recording, performer or instrument) are correlated, so groups are drawn instead of clips. Every
score is a function of clip weights: ones give the estimate, draws give its distribution. Draws are stratified by class.
Of the n groups of a stratum, n - 1 are drawn, each with weight n / (n - 1), which keeps the variance unbiased for few
groups [1]_. With a single group, the ends of an interval are NaN.

References
----------
.. [1] J. N. K. Rao, C. F. J. Wu, "Resampling inference with complex survey data", JASA 83(401), 1988.
   doi:10.1080/01621459.1988.10478591
"""

from collections.abc import Callable, Sequence

import numpy as np

from instrlib.core.io import EvaluationError

LEVEL = 0.95

_BLOCK = 500

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights [shape=(n_draws, n_clips)] to values by name, each with a first axis of draws."""


def draw(
    statistics: Sequence[Statistic],
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    n_resamples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Draw groups and evaluate the statistics, one per training seed, under each draw.

    Parameters
    ----------
    groups : np.ndarray of str [shape=(n_clips,) or (n_clips, k)]
        Group of each clip; for a mixture the groups of its sources, "" where it has fewer. The weight of a mixture is
        the product of their weights, which makes intervals slightly too wide [1]_.
    strata : np.ndarray [shape=(n_clips,)], optional
        Class of each clip. A group belongs to the most frequent class of its clips; classes with one group are pooled.
    n_resamples, seed : int
        Number and seed of the draws; models on the same clips share the draws of a seed.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_seeds, 1 + n_resamples, ...)]
        The first column is the estimate.

    References
    ----------
    .. [1] A. B. Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1(2), 2007. doi:10.1214/07-AOAS122
    """
    groups = np.asarray(groups)
    if groups.ndim not in (1, 2) or not len(groups) or n_resamples < 1 or not len(statistics):
        raise EvaluationError("An interval requires a group for every clip, a training seed and at least one resample.")
    codes, weights = group_weights(groups, strata, n_resamples=n_resamples, seed=seed)
    blocks = []
    for start in range(0, len(weights), _BLOCK):
        of_clips = weights[start : start + _BLOCK][:, codes]
        of_clips = of_clips.prod(axis=2) if codes.ndim > 1 else of_clips
        by_seed = [statistic(of_clips) for statistic in statistics]
        blocks.append({name: np.stack([one[name] for one in by_seed]) for name in by_seed[0]})
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def mean_draws(
    values: np.ndarray, groups: np.ndarray, strata: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> np.ndarray:
    """Return draws [n_seeds, 1 + n_resamples] of the mean of one number per clip [n_clips] or [n_seeds, n_clips]."""
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.shape[1] != len(groups):
        raise EvaluationError(f"{values.shape[1]} values do not match {len(groups)} groups; pass one value per clip.")
    statistics = [lambda weights, one=one: {"mean": weights @ one / weights.sum(axis=1)} for one in values]
    return draw(statistics, groups, strata, n_resamples=n_resamples, seed=seed)["mean"]


def over_seeds(values: np.ndarray, seed: int) -> np.ndarray:
    """Draw the seeds as well, and return the draws of their mean [shape=(1 + n_resamples, ...)]; see `draw`.

    If groups and seeds are both drawn, their interaction counts three times instead of once [1]_. The draws are
    therefore scaled to the variance over groups, plus that over seeds, minus that of the interaction.

    References
    ----------
    .. [1] A. B. Owen, 2007; see `draw`.
    """
    n_seeds, groups = len(values), values.mean(axis=0)
    if n_seeds == 1:
        return groups
    rng = np.random.default_rng((seed, n_seeds))
    weights = _weights(np.zeros(n_seeds, int), values.shape[1] - 1, rng) / n_seeds
    seeds, both = np.tensordot(weights, values[:, 0], axes=1), np.einsum("rs,sr...->r...", weights, values)
    of_groups, of_seeds, of_both = (_variance(one[1:]) for one in (groups, seeds, both))
    interaction = np.maximum(of_both - of_groups - of_seeds, 0)
    wanted = np.maximum(of_groups + of_seeds - interaction, np.maximum(of_groups, of_seeds))
    scale = np.sqrt(np.divide(wanted, of_both, out=np.ones_like(of_both), where=~(of_both <= 0)))
    return np.concatenate([groups[:1], groups[0] + (both[1:] - groups[0]) * scale])


def group_weights(
    groups: np.ndarray, strata: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return group numbers of clips and weights [1 + n_resamples, n_groups]: ones, then draws (NaN for one group)."""
    names, codes = np.unique(groups, return_inverse=True)
    codes = codes.reshape(np.shape(groups))
    if codes.ndim > 1:
        none = names == ""
        weights = _weights(-none.astype(int), n_resamples, np.random.default_rng(seed))
        return codes, np.where(none, 1.0, weights)
    of_group = np.zeros(len(names), int)
    if strata is not None and len(names) > 1:
        classes, numbers = np.unique(strata, return_inverse=True)
        clips = np.zeros((len(names), len(classes)), int)
        np.add.at(clips, (codes, numbers), 1)
        of_group = clips.argmax(axis=1)
        sizes = np.bincount(of_group, minlength=len(classes))
        alone = sizes[of_group] == 1
        of_group[alone] = len(classes)
        if alone.sum() == 1:  # merge it with the smallest other stratum
            of_group[alone] = of_group[~alone][sizes[of_group[~alone]].argmin()]
    return codes, _weights(of_group, n_resamples, np.random.default_rng(seed))


def ends(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return both ends of the percentile interval of draws; NaN if all draws are NaN."""
    if np.isnan(draws[1:]).all():
        return np.nan, np.nan
    low, high = np.nanquantile(draws[1:], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def standard_error(draws: np.ndarray) -> float:
    """Return the standard deviation of draws; NaN if all draws are NaN."""
    return float(np.sqrt(_variance(draws[1:])))


def p_value(draws: np.ndarray) -> float:
    """Return the two-sided p-value of draws of a difference, at least 2 / (n_resamples + 1)."""
    known = draws[1:][np.isfinite(draws[1:])]
    if not len(known):
        return np.nan
    signs = np.where(np.abs(known) < 1e-12, 0, np.sign(known))  # rounding leaves about 1e-17
    tail = (1 + min((signs <= 0).sum(), (signs >= 0).sum())) / (1 + len(known))
    return min(1.0, 2 * float(tail))


def _weights(strata: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n - 1 of the n members of each stratum, with weight n / (n - 1); NaN for a stratum of one."""
    weights = np.ones((1 + n_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        drawn = rng.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples)
        weights[1:, members] = drawn * (n / (n - 1)) if n > 1 else np.nan
    return weights


def _variance(draws: np.ndarray) -> np.ndarray:
    """Return the variance over the draws that are not NaN; draws without clips of a class are NaN."""
    known = np.isfinite(draws)
    n = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    mean = np.where(known, draws, 0).sum(axis=0) / n
    return np.where(known, (draws - mean) ** 2, 0).sum(axis=0) / n
