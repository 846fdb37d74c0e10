"""Intervals and differences as texts, and shortcuts to `bootstrap`."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instrlib.evaluation import bootstrap
from instrlib.evaluation.bootstrap import LEVEL, ends, mean_draws, over_seeds, p_value


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
