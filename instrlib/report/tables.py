"""Numbers as tables of texts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from instrlib.core.words import spaced
from instrlib.evaluation.intervals import p_text
from instrlib.report.typography import typeset

NONE = "–"
_LONGEST_LIST = 24


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    caption : str
        What it shows; "" for none.
    header : tuple of str
        Names of the columns; empty for none.
    rows : tuple of tuple of str
        The first cell of each row names it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def typeset_table(table: Table) -> Table:
    """Return a table whose numbers have their signs; see `typography.typeset`."""
    rows = tuple(tuple(map(typeset, row)) for row in table.rows)
    return Table(table.caption, tuple(map(typeset, table.header)), rows)


def metric_tables(metrics: dict[str, Any], caption: str = "") -> Iterator[Table]:
    """Lay a tree of numbers out as tables.

    Single values share one table. A dict of values becomes a table of its own, a dict of such dicts one with a row
    for each, and so does a list of dicts; deeper dicts are taken apart. A long list is told by its length.

    Parameters
    ----------
    metrics : dict
        Numbers, texts, intervals ({"estimate", "low", "high"}), and dicts and lists of these.
    caption : str
        Caption of the first table.

    Yields
    ------
    Table

    Examples
    --------
    >>> next(metric_tables({"n_clips": 1200, "accuracy": {"estimate": 0.9, "low": 0.85, "high": 0.93}})).rows
    (('n clips', '1,200'), ('accuracy', '0.900 [0.850, 0.930]'))
    """
    single = {name: value for name, value in metrics.items() if _is_single(value)}
    if single:
        yield Table(caption, (), tuple((spaced(name), text_of(value)) for name, value in single.items()))
    for name, value in metrics.items():
        inner = f"{caption}: {spaced(name)}" if caption else spaced(name)
        if name in single or not value:
            continue
        rows = value if isinstance(value, dict) else dict(enumerate(value, 1))
        if all(isinstance(row, dict) and all(map(_is_single, row.values())) for row in rows.values()) and not any(
            map(_is_single, rows.values())
        ):
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            body = [
                (spaced(key), *(text_of(row[column]) if column in row else "" for column in columns))
                for key, row in rows.items()
            ]
            yield Table(inner, ("", *map(spaced, columns)), tuple(body))
        else:
            yield from metric_tables(rows, inner)


def _is_single(value: Any) -> bool:
    if isinstance(value, dict):
        return {"estimate", "low", "high"} <= set(value)
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return True


def text_of(value: Any) -> str:
    """Return a number, an interval or a list of them as it is read.

    Examples
    --------
    >>> text_of({"estimate": 0.5, "low": 0.25, "high": 0.75, "p": 0.01})
    '0.500 [0.250, 0.750], p = 0.010'
    """
    if isinstance(value, dict):
        estimate, low, high = (text_of(value[name]) for name in ("estimate", "low", "high"))
        ends = "" if NONE in (low, high) else f" [{low}, {high}]"
        return estimate + ends + (f", {p_text(value['p'])}" if "p" in value else "")
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) if len(value) <= _LONGEST_LIST else f"{len(value):,} values"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else NONE if value is None else str(value)


def difference_of(difference: float | None, low: float | None, high: float | None) -> str:
    """Return a difference with its sign and its interval.

    Examples
    --------
    >>> difference_of(-0.25, -0.5, 0.0)
    '−0.250 [−0.500, +0.000]'
    """
    if difference is None or not math.isfinite(difference):
        return NONE
    ends = "" if low is None or high is None or math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
    return f"{difference:+.3f}{ends}".replace("-", "−")


def p_of(p: float | None) -> str:
    """Return a p-value as it is read.

    Examples
    --------
    >>> p_of(0.0002), p_of(0.04), p_of(None)
    ('< .001', '.040', '–')
    """
    if p is None or math.isnan(p):
        return NONE
    return "< .001" if p < 0.001 else "1" if p >= 0.9995 else f"{p:.3f}".lstrip("0")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
