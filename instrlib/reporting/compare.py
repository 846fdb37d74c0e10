"""Compares two studies, or two versions of one: settings, primary comparisons and numbers that differ.

`results.json` has no single predictions, so changes are not paired. Their intervals are computed from those of the two
studies as if these were independent (MOVER; Zou and Donner, Statistics in Medicine 27, 2008, doi:10.1002/sim.3095).
"""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from instrlib.reporting import numbers
from instrlib.reporting.report import Table
from instrlib.reporting.summary import Study, text_of


def compare(first: Study, second: Study) -> dict[str, Table]:
    """Return three tables of two studies: settings that differ, all primary comparisons, and numbers that differ."""
    both = (first.label, second.label)
    return {
        "settings": (("Setting", *both), _differing(_settings(first), _settings(second))),
        "primary": (("Question", *both, "Change (95 % CI)", "Verdicts"), list(_primary(first, second))),
        "numbers": (("Number", *both), _differing(*_common_numbers(first, second))),
    }


def agreement(first: Study, second: Study) -> str:
    """Return in one sentence how many primary verdicts of two studies agree; a missing comparison does not agree."""
    pairs = list(_pairs(first, second).values())
    found = [(one, other) for one, other in pairs if one and other]
    same = [one for one, other in found if one["verdict"] == other["verdict"]]
    known = [abs(one) for one in (change(*pair)[0] for pair in found) if math.isfinite(one)]
    largest = f"; the largest change of a difference is {numbers.rounded(max(known))}" if known else ""
    return f"{len(same)} of {len(pairs)} primary verdicts agree with {second.label}{largest}."


def change(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, float, float]:
    """Return second minus first and its 95 % interval, given difference, low and high of each; NaN where unknown."""
    d1, low1, high1, d2, low2, high2 = (
        math.nan if row[name] is None else row[name]
        for row in (first, second)
        for name in ("difference", "low", "high")
    )
    found = d2 - d1
    return found, found - math.hypot(d2 - low2, high1 - d1), found + math.hypot(high2 - d2, d1 - low1)


def _pairs(first: Study, second: Study) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return the rows of both studies, or None, for every primary comparison of either."""
    one, other = ({(row["notebook"], row["question"]): row for row in study.primary} for study in (first, second))
    return {key: (one.get(key), other.get(key)) for key in sorted({**one, **other})}


def _primary(first: Study, second: Study) -> Iterator[tuple[str, ...]]:
    for (notebook, question), rows in _pairs(first, second).items():
        known = [None if row is None else (row["difference"], row["low"], row["high"]) for row in rows]
        known.append(change(*rows) if all(rows) else None)
        texts = [f"{numbers.difference(one[0])} ({numbers.interval(*one[1:])})" if one else "–" for one in known]
        verdicts = dict.fromkeys("missing" if row is None else row["verdict"] for row in rows)
        yield f"{notebook[:2]}: {question}", *texts, " / ".join(verdicts)


def _settings(study: Study) -> dict[str, str]:
    known = study.about() | {"notebooks": ", ".join(name[:2] for name in study.notebooks)}
    for name, entry in study.notebooks.items():
        manifest = entry["manifest"]
        known |= {f"version of {package}": text for package, text in manifest.get("versions", {}).items()}
        known |= {f"{name}: {what}": str(text) for what, text in manifest.get("inputs", {}).items()}
    return known


def _common_numbers(first: Study, second: Study) -> list[dict[str, str]]:
    """Return the declared numbers of both studies by path, for the notebooks that both have."""
    both = [name for name in first.notebooks if name in second.notebooks]
    nested = ({name: study.notebooks[name].get("numbers", {}) for name in both} for study in (first, second))
    flat = (pd.json_normalize(one, sep=" / ").to_dict("records")[0] for one in nested)
    return [{path: text_of(value) for path, value in row.items()} for row in flat]


def _differing(one: dict[str, str], other: dict[str, str]) -> list[tuple[str, ...]]:
    rows = [(key, one.get(key, "–"), other.get(key, "–")) for key in {**one, **other}]
    return [row for row in rows if row[1] != row[2]]
