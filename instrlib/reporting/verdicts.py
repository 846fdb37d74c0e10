"""A sentence for a comparison. Absence of evidence is never worded as absence."""

from collections.abc import Mapping
from typing import Any

from instrlib.core.io import ConfigError
from instrlib.reporting import numbers

VERDICTS = ("better", "worse", "equivalent", "inconclusive")

FIELDS = ("difference", "low", "high", "p", "margin", "detectable", "verdict")
"""What a comparison holds; see `evaluation.statistics.compare`."""


def sentence(row: Mapping[str, Any], *, first: str, second: str, score: str) -> str:
    """Return the verdict on `first` against `second` in Markdown.

    Parameters
    ----------
    row : mapping
        A row of `evaluation.statistics.compare`: difference, low, high, p (or p_holm, which then counts), margin,
        detectable, verdict.
    first, second : str
        What is compared.
    score : str
        Name of the score.

    Examples
    --------
    >>> row = dict(difference=-0.018, low=-0.096, high=0.051, p=0.6, margin=0.02, detectable=0.09)
    >>> sentence(row | {"verdict": "inconclusive"}, first="CutMix", second="none", score="accuracy")[:65]
    '**CutMix: inconclusive.** Accuracy changed by -0.018 against none'
    """
    verdict = row["verdict"]
    if verdict not in VERDICTS:
        raise ConfigError(f"The verdict on {first} is {verdict!r}; it must be one of {', '.join(VERDICTS)}.")
    change = numbers.score(row["difference"], signed=True)
    begin = f"**{_capital(first)}: {verdict}.** {_capital(score)} changed by {change} against {second}"
    known = numbers.is_known(row["low"]) and numbers.is_known(row["high"])
    ends = numbers.interval(row["low"], row["high"], signed=True) if known else "too few groups for an interval"
    if verdict == "equivalent":
        return f"{begin} ({ends}), within the margin of {numbers.rounded(row['margin'])}."
    if verdict == "inconclusive":
        least = numbers.rounded(row["detectable"])
        able = f" This study can detect differences of {least} or more." if numbers.is_known(row["detectable"]) else ""
        return f"{begin} ({ends}).{able}"
    return f"{begin} ({ends}, {numbers.p_value(row.get('p_holm', row['p']))})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
