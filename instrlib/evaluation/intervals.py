"""Intervals and differences as texts, and shortcuts to `bootstrap`."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instrlib.evaluation import bootstrap
from instrlib.evaluation.bootstrap import LEVEL, ends, mean_draws, over_seeds, p_value
from instrlib.evaluation.statistics import holm


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


def difference_arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Arguments of `plots.paired_differences` from a table with `difference`, `low`, `high` and `p_holm`."""
    return {
        "names": table.index.to_numpy(dtype=str),
        "differences": table.difference.to_numpy(),
        "low": table.low.to_numpy(),
        "high": table.high.to_numpy(),
        "shown": is_shown(table.p_holm.to_numpy()),
    }


def bootstrap_mean(values: np.ndarray, groups: np.ndarray, *, n_resamples: int, seed: int) -> Interval:
    """Mean of one number a clip [shape=(n_clips,) or (n_seeds, n_clips)]; see `bootstrap.mean_draws`."""
    draws = over_seeds(mean_draws(values, groups, n_resamples=n_resamples, seed=seed), seed)
    return Interval(float(draws[0]), *ends(draws))


def compare_over_seeds(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray, *, n_resamples: int, seed: int
) -> Difference:
    """Difference of the means of one number a clip, paired by seed and clip."""
    both = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return difference_of(over_seeds(mean_draws(both, groups, n_resamples=n_resamples, seed=seed), seed))


def unpaired_difference(
    a: np.ndarray, groups_a: np.ndarray, b: np.ndarray, groups_b: np.ndarray, *, n_resamples: int, seed: int
) -> Difference:
    """Difference of two means over different clips; a group that has clips of both is drawn for both."""
    values = np.concatenate([np.asarray(one, dtype=float) for one in (a, b)])
    first = np.arange(len(values)) < len(a)
    groups = np.concatenate([np.asarray(one, dtype=str) for one in (groups_a, groups_b)])

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [weights @ (values * side) / (weights @ side.astype(float)) for side in (first, ~first)]
        return {"difference": means[0] - means[1]}

    return difference_of(bootstrap.draw([statistic], groups, n_resamples=n_resamples, seed=seed)["difference"][0])


def balanced_difference(
    first: tuple[np.ndarray, np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    n_resamples: int,
    seed: int,
) -> Difference:
    """Balanced accuracy on one set of clips minus that on another, each (right, classes, groups)."""
    draws = []
    for number, (correct, classes, groups) in enumerate((first, second)):
        right, present = np.mean(correct, axis=0), np.asarray(classes)[:, None] == np.unique(classes)

        def statistic(weights: np.ndarray, right: np.ndarray = right, present: np.ndarray = present) -> dict:
            with np.errstate(invalid="ignore", divide="ignore"):
                recall = (weights @ (present * right[:, None])) / (weights @ present)
            n = np.isfinite(recall).sum(axis=1)
            return {"balanced": np.where(n > 0, np.nansum(recall, axis=1) / np.maximum(n, 1), np.nan)}

        drawn = bootstrap.draw([statistic], groups, classes, n_resamples=n_resamples, seed=2 * seed + number)
        draws.append(drawn["balanced"][0])
    return difference_of(draws[0] - draws[1])


def difference_of(draws: np.ndarray) -> Difference:
    """Return the difference of draws of it."""
    return Difference(float(draws[0]), *ends(draws), p_value(draws))


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
