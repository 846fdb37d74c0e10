"""Compares two studies, or two versions of one: settings, primary comparisons and numbers that differ.

`results.json` has no single predictions, so changes are not paired. Their intervals are computed from those of the two
studies as if these were independent (MOVER; Zou and Donner, Statistics in Medicine 27, 2008, doi:10.1002/sim.3095).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.core.io import slug
from instrlib.reporting import numbers
from instrlib.reporting.document import Document
from instrlib.reporting.render import write_html
from instrlib.reporting.summary import Study, open_study, text_of

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """Differences between two studies; each table is a list of rows of texts.

    Attributes
    ----------
    first, second : Study
        The studies.
    settings : list of (name, first, second)
        Corpus, facts, parameters, commits and versions that differ.
    primary : list of (question, first, second, change, verdicts)
        Every primary comparison of either study; "–" where one lacks it.
    numbers : list of (notebook, number, first, second)
        Declared numbers that differ.
    """

    first: Study
    second: Study
    settings: Rows
    primary: Rows
    numbers: Rows

    def headers(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the columns of each table."""
        both = (self.first.label, self.second.label)
        return {
            "settings": ("Setting", *both),
            "primary": ("Question", *both, "Change (95 % CI)", "Verdicts"),
            "numbers": ("Notebook", "Number", *both),
        }


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare two studies; for their names see `summary.open_study`."""
    one, other = open_study(first), open_study(second)
    return Comparison(one, other, _settings(one, other), list(_primary(one, other)), _numbers(one, other))


def agreement(first: Study, second: Study) -> str:
    """Return in one sentence how many primary verdicts of two studies agree; a missing comparison does not agree."""
    one, other = (_by_question(study) for study in (first, second))
    every = {**one, **other}
    same = [key for key in every if key in one and key in other and one[key]["verdict"] == other[key]["verdict"]]
    changes = [abs(_change(one[key], other[key])) for key in every if key in one and key in other]
    known = [change for change in changes if math.isfinite(change)]
    largest = f"; the largest change of a difference is {numbers.rounded(max(known))}" if known else ""
    return f"{len(same)} of {len(every)} primary verdicts agree with {second.label}{largest}."


def write_page(comparison: Comparison) -> Path:
    """Write the comparison as `reports/compare/<first>--<second>.html`."""
    names = (comparison.first.label, comparison.second.label)
    document = Document("Two studies side by side", " and ".join(names))
    document.section("agreement", "Agreement", [document.text(agreement(comparison.first, comparison.second))])
    for name, header in comparison.headers().items():
        rows = getattr(comparison, name)
        blocks = [document.table(f"{name.capitalize()} that differ.", header, rows)] if rows else []
        if name == "primary" and rows:
            blocks = [document.table("All primary comparisons.", header, rows)]
        document.section(name, name.capitalize(), blocks or [document.text("Nothing differs.")])
    file = f"{'--'.join(map(slug, names))}.html"
    return write_html(document.plain(), folders().reports / "compare" / file)


def mover(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval of second minus first, given difference, low and high of each (MOVER).

    Examples
    --------
    >>> ends = mover({"difference": 0.5, "low": 0.4, "high": 0.6}, {"difference": 0.8, "low": 0.7, "high": 0.9})
    >>> [round(end, 3) for end in ends]
    [0.159, 0.441]
    """
    values = [row[name] for row in (first, second) for name in ("difference", "low", "high")]
    if not all(map(numbers.is_known, values)):
        return math.nan, math.nan
    d1, low1, high1, d2, low2, high2 = values
    return d2 - d1 - math.hypot(d2 - low2, high1 - d1), d2 - d1 + math.hypot(high2 - d2, d1 - low1)


def _by_question(study: Study) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["notebook"], row["question"]): row for row in study.primary}


def _change(one: dict[str, Any], other: dict[str, Any]) -> float:
    known = [row["difference"] for row in (one, other)]
    return math.nan if None in known else known[1] - known[0]


def _primary(first: Study, second: Study) -> Iterator[tuple[str, ...]]:
    one, other = _by_question(first), _by_question(second)
    for key in sorted({**one, **other}):
        rows = [known.get(key) for known in (one, other)]
        texts = [
            "–"
            if row is None
            else f"{numbers.score(row['difference'], signed=True)} ({_ends(row['low'], row['high'])})"
            for row in rows
        ]
        change = "–"
        if all(rows):
            change = f"{numbers.score(_change(*rows), signed=True)} ({_ends(*mover(*rows))})"
        verdicts = " / ".join(dict.fromkeys("missing" if row is None else row["verdict"] for row in rows))
        yield f"{key[0][:2]}: {key[1]}", *texts, change, verdicts


def _ends(low: float | None, high: float | None) -> str:
    return f"{numbers.score(low, signed=True)} to {numbers.score(high, signed=True)}"


def _settings(first: Study, second: Study) -> Rows:
    found = []
    for study in (first, second):
        known = study.about()
        for name, entry in study.notebooks.items():
            manifest = entry["manifest"]
            known |= {f"version of {package}": text for package, text in manifest.get("versions", {}).items()}
            known |= {f"{name}: {what}": str(text) for what, text in manifest.get("inputs", {}).items()}
        found.append(known | {"notebooks": ", ".join(name[:2] for name in study.notebooks)})
    return _differing(*found)


def _numbers(first: Study, second: Study) -> Rows:
    one, other = (
        {
            (name, path): text
            for name, entry in study.notebooks.items()
            for path, text in _leaves(entry.get("numbers", {}))
        }
        for study in (first, second)
    )
    # If a study lacks a notebook, all its numbers would differ; the settings list the notebooks.
    both = set(first.notebooks) & set(second.notebooks)
    return [(*key, *texts) for key, *texts in _differing(one, other) if key[0] in both]


def _differing(one: dict[Any, str], other: dict[Any, str]) -> list[tuple[Any, str, str]]:
    pairs = [(key, one.get(key, "–"), other.get(key, "–")) for key in {**one, **other}]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path} / {name}" if path else str(name))
    else:
        yield path, text_of(value)
