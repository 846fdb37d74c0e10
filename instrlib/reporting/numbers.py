"""One way to write a number, and the sentence for a comparison, for findings, report, README and cards."""

import math
from collections.abc import Mapping
from typing import Any

VERDICTS = ("better", "worse", "equivalent", "inconclusive")

FIELDS = ("difference", "low", "high", "p", "margin", "detectable", "verdict")
"""What a comparison holds; see `evaluation.statistics.compare`."""


def is_known(value: float | None) -> bool:
    """Return whether a number is neither None nor infinite nor NaN."""
    return value is not None and math.isfinite(value)


def difference(value: float | None) -> str:
    """Return a difference with its sign and three decimals, or a dash if it is unknown."""
    return f"{value:+.3f}".replace("-0.000", "0.000").replace("+0.000", "0.000") if is_known(value) else "–"


def interval(low: float | None, high: float | None) -> str:
    """Return the ends of the interval of a difference: "-0.096 to +0.051"."""
    return f"{difference(low)} to {difference(high)}"


def p_value(value: float | None) -> str:
    """Return "p = 0.012", or "p < 0.001"."""
    if not is_known(value):
        return "no p-value"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def rounded(value: float | None) -> str:
    """Return a margin or detectable difference with one significant digit, two below 0.02."""
    return f"{value:.{2 if value >= 0.02 else 3}f}".rstrip("0").rstrip(".") if is_known(value) else "–"


def sentence(row: Mapping[str, Any]) -> str:
    """Return the verdict on `first` against `second` in Markdown. Absence of evidence is never worded as absence.

    `row` has `first`, `second`, `score` and the fields of `evaluation.statistics.compare`; where it has a p-value after
    Holm's correction, that counts.
    """
    known = is_known(row["low"]) and is_known(row["high"])
    ends = f"95 % CI {interval(row['low'], row['high'])}" if known else "too few groups for an interval"
    able = f" This study can detect differences of {rounded(row['detectable'])} or more."
    after = {
        "equivalent": f"({ends}), within the margin of {rounded(row['margin'])}.",
        "inconclusive": f"({ends}).{able if is_known(row['detectable']) else ''}",
    }.get(row["verdict"], f"({ends}, {p_value(row.get('p_holm', row['p']))}).")
    first, score = (row[name][:1].upper() + row[name][1:] for name in ("first", "score"))
    changed = f"{score} changed by {difference(row['difference'])} against {row['second']}"
    return f"**{first}: {row['verdict']}.** {changed} {after}"
