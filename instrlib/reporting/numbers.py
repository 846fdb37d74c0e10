"""Formats numbers in findings, report, README and cards."""

import math


def is_known(value: float | None) -> bool:
    """Return whether a number is neither None nor infinite nor NaN."""
    return value is not None and math.isfinite(value)


def score(value: float | None, *, signed: bool = False) -> str:
    """Return a score or a difference with three decimals, or a dash if it is unknown.

    Examples
    --------
    >>> score(0.4567), score(-0.0181, signed=True), score(None)
    ('0.457', '-0.018', '–')
    """
    if not is_known(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.3f}"
    return text.replace("-0.000", "0.000").replace("+0.000", "0.000")


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return the 95 % confidence interval.

    Examples
    --------
    >>> interval(-0.096, 0.051, signed=True)
    '95 % CI -0.096 to +0.051'
    """
    return f"95 % CI {score(low, signed=signed)} to {score(high, signed=signed)}"


def p_value(value: float | None) -> str:
    """Return "p = 0.012", or "p < 0.001".

    Examples
    --------
    >>> p_value(0.0004), p_value(0.25)
    ('p < 0.001', 'p = 0.250')
    """
    if not is_known(value):
        return "no p-value"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def rounded(value: float | None) -> str:
    """Return a margin or detectable difference with one significant digit, two below 0.02.

    Examples
    --------
    >>> rounded(0.0912), rounded(0.0134), rounded(0.2)
    ('0.09', '0.013', '0.2')
    """
    if not is_known(value):
        return "–"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value >= 0.02 else f"{value:.3f}".rstrip("0").rstrip(".")


def count(value: float) -> str:
    """Return a whole number with commas: "12,345"."""
    return f"{value:,.0f}"
