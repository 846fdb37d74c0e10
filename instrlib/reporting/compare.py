"""Two studies side by side, or two versions of one: what differs, by how much, and how sure that is.

All is computed from two `results.json`. The answers to single clips are not in them, so a difference cannot be paired:
its interval is put together from the two that the studies give [1]_ [2]_, as if neither knew of the other.

References
----------
.. [1] G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures: a general approach", Statistics
   in Medicine 27, 2008, pp. 1693-1702, doi:10.1002/sim.3095 (MOVER: method of variance estimates recovery).
.. [2] R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine
   17, 1998, pp. 873-890 (the same idea for two proportions).
"""

import base64
import json
import math
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.config import folders
from instrlib.core.errors import RunError
from instrlib.core.io import expanded, read_json, write_text
from instrlib.core.words import begin, listed, spaced
from instrlib.evaluation.intervals import Difference, Interval
from instrlib.evaluation.statistics import LEVEL, holm
from instrlib.reporting.overview import TRIVIAL, score_name
from instrlib.runner.notebooks import read_notebook
from instrlib.runner.publish import results_path

PRIMARY = {
    "scores": ("accuracy", "mean_average_precision"),
    "timeline": ("frame_micro_f1",),
    "published": ("accuracy",),
}
"""The scores that are asked for first, by the section of a notebook's results: the main one of each model that is no
trivial answer. Holm's correction is over these."""

_NO_MODEL = (*TRIVIAL, "always on", "never on", "the list found, always", "its instruments, always")
"""The trivial answers, those of notebook 11 to timelines included."""

COLUMNS = ("notebook", "model", "score", "first", "second", "difference", "p")
"""Of `terminal_rows`."""

_KEY = ["notebook", "section", "row", "score"]
_SIDES = ("first", "second")
_COUNTS = ("n", "n_clips", "n_groups", "n_ensembles")
_ENDS = {"estimate", "low", "high"}
_LONGEST_LIST = 6
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
METHOD = (
    "A difference is the second minus the first. Its 95 % interval is put together from the two intervals of the "
    "results (MOVER; Zou and Donner 2008, doi:10.1002/sim.3095), which takes the two as independent."
)
"""What a reader must know of the intervals."""


@dataclass(frozen=True)
class Results:
    """What one `results.json` holds.

    Attributes
    ----------
    label : str
        What tables and files call it.
    notebooks : dict
        `metrics` and `manifest` by notebook.
    """

    label: str
    notebooks: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Two studies side by side.

    Attributes
    ----------
    first, second : str
        What they are called.
    table : pandas.DataFrame
        See `compare`.
    settings : tuple of tuple of str
        What they were made with: name, first, second.
    only : dict of str to list of str
        Label of a study and what it alone has, a phrase for each notebook.
    findings : list of str
        What the numbers say.
    """

    first: str
    second: str
    table: pd.DataFrame
    settings: tuple[tuple[str, str, str], ...]
    only: dict[str, list[str]]
    findings: list[str]

    @property
    def differing(self) -> tuple[tuple[str, str, str], ...]:
        """The settings that are not the same."""
        return tuple(row for row in self.settings if row[1] != row[2])

    @property
    def same(self) -> tuple[tuple[str, str, str], ...]:
        """The settings that are the same."""
        return tuple(row for row in self.settings if row[1] == row[2])

    @property
    def primary(self) -> pd.DataFrame:
        """The rows of `table` that Holm's correction is over, in the order of the notebooks."""
        return self.table[self.table.primary]


def compare(first: Path | str, second: Path | str) -> pd.DataFrame:
    """Compare every score that two studies have in common.

    Parameters
    ----------
    first, second : Path or str
        See `read_results`.

    Returns
    -------
    pandas.DataFrame
        One row a score: `notebook`, `section` and `row` of its results, `score`; `first`, `first_low`, `first_high`,
        `second`, `second_low`, `second_high`; `difference` (second minus first), `low`, `high` and `p` (see `mover`);
        `primary` (see `PRIMARY`) and `p_holm`, which is corrected for the number of primary ones and NaN for the rest.

    Raises
    ------
    RunError
        When one is not found or holds no results.
    """
    return _table(read_results(first), read_results(second))


def side_by_side(first: Path | str, second: Path | str) -> Comparison:
    """Compare two studies: their scores, what they were made with, and what only one of them has.

    Parameters
    ----------
    first, second : Path or str
        See `read_results`.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        See `compare`.
    """
    one, other = read_results(first), read_results(second)
    names = (one.label, other.label)
    if one.label == other.label:
        names = (f"{one.label} (first)", f"{other.label} (second)")
    table, settings = _table(one, other), tuple(_settings(one, other))
    only = {names[0]: list(_only(one, other)), names[1]: list(_only(other, one))}
    return Comparison(*names, table, settings, only, list(_findings(names, table, one, other)))


def write_comparison(comparison: Comparison) -> Path:
    """Write the page of a comparison, `reports/compare/<first>--<second>.html`.

    Parameters
    ----------
    comparison : Comparison
        From `side_by_side`.

    Returns
    -------
    Path
        One file that asks no other host for anything.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instrlib"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("compare.html").render(
        comparison=comparison,
        primary=[_shown(row) for row in comparison.primary.itertuples()],
        parts=list(_parts(comparison)),
        method=METHOD,
    )
    file = f"{_as_file(comparison.first)}--{_as_file(comparison.second)}.html"
    path = folders().reports / "compare" / file
    write_text(path, page + "\n")
    return path


def terminal_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the primary scores as texts: notebook, model, score, first, second, difference, p after Holm.

    Parameters
    ----------
    comparison : Comparison
        From `side_by_side`.

    Returns
    -------
    list of tuple of str
        By notebook; in each, what rose most comes first.
    """
    ordered = comparison.primary.sort_values(["notebook", "difference"], ascending=[True, False], kind="stable")
    shown = [_shown(row) for row in ordered.itertuples()]
    return [tuple(row[name] for name in COLUMNS) for row in shown]


def read_results(given: Path | str) -> Results:
    """Read the results of a study.

    Parameters
    ----------
    given : Path or str
        Name of a study under `reports/`, a folder with a `results.json`, such a file, or `STUDY@REVISION`: the results
        as they were committed at that revision of git.

    Returns
    -------
    Results

    Raises
    ------
    ConfigError
        When it names a home folder that is not known.
    RunError
        When there is none, or it is not what a study writes.
    """
    text = os.fspath(given)
    path, (study, _, revision) = expanded(text), text.rpartition("@")
    path = path / "results.json" if path.is_dir() else path
    if Path(text).name == text and results_path(text).is_file():
        path = results_path(text)
    if path.is_file():
        whole, label = read_json(path), ""
    elif study:
        whole, label = _committed(study, revision), f"@{revision}"
    else:
        raise RunError(
            f"There are no results of {text}: give a study of {folders().reports}, a folder with results.json or that "
            "file, or STUDY@REVISION; `instrlib study` makes results."
        )
    if not (_has(whole, "notebooks") and all(_is_entry(entry) for entry in whole["notebooks"].values())):
        raise RunError(f"{text} does not hold the results of a study; give the results.json that one wrote.")
    return Results(f"{whole.get('study', path.parent.name)}{label}", whole["notebooks"])


def _is_entry(entry: Any) -> bool:
    """Tell whether this is what a study writes of a notebook."""
    return _has(entry, "metrics", "manifest") and _has(entry["manifest"], "parameters", "versions")


def _has(whole: Any, *parts: str) -> bool:
    return isinstance(whole, dict) and all(isinstance(whole.get(name), dict) for name in parts)


def mover(first: Interval, second: Interval) -> Difference:
    """Put the interval of a difference together from the intervals of its two sides (MOVER).

    Each side's interval tells how far its number may be off, up and down, and the squares of these distances add up as
    variances do [1]_. This keeps the skew of intervals near 0 and 1, and it takes the two sides as independent: for
    scores on the same clips, which rise and fall together, it is wider than need be.

    Parameters
    ----------
    first, second : Interval
        At the level `intervals.LEVEL`. An estimate that its own interval leaves out counts as its end.

    Returns
    -------
    Difference
        Second minus first. `p` follows from the interval: as the distance from the difference to the end on the side
        of 0 grows with the normal quantile, so it tells at which level that end would be 0. Without an interval (NaN)
        where one side has none, or one of no width: all resamples gave the same number, so nothing is known of how it
        varies.

    References
    ----------
    .. [1] See the top of this module.

    Examples
    --------
    >>> print(mover(Interval(0.5, 0.4, 0.6), Interval(0.8, 0.7, 0.9)))
    +0.300 [+0.159, +0.441], p < 0.001
    """
    difference = second.estimate - first.estimate
    down = math.hypot(_over(second.estimate, second.low), _over(first.high, first.estimate))
    up = math.hypot(_over(second.high, second.estimate), _over(first.estimate, first.low))
    toward_zero = down if difference > 0 else up
    if math.isnan(down + up) or toward_zero == 0 or first.low == first.high or second.low == second.high:
        return Difference(difference, math.nan, math.nan, math.nan)
    p = math.erfc(_Z * abs(difference) / toward_zero / math.sqrt(2))
    return Difference(difference, difference - down, difference + up, p)


def _over(above: float, below: float) -> float:
    return math.nan if math.isnan(above) or math.isnan(below) else max(above - below, 0.0)


def _committed(study: str, revision: str) -> Any:
    # By way of the folder, so that it is the clone's own repository wherever the command runs.
    command = ["git", "show", "--end-of-options", f"{revision}:./{study}/results.json"]
    try:
        shown = subprocess.run(command, cwd=folders().reports, check=True, capture_output=True, text=True, timeout=60)
        return json.loads(shown.stdout)
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise RunError(
            f"git has no results of {study} at {revision or 'no revision'}"
            f"{f' ({reason[-1]})' if reason else ''}; `git log -- reports/{study}` lists the revisions that have."
        ) from None


# -- scores ------------------------------------------------------------------------------------------------------------


def _scores(results: Results) -> dict[tuple[str, ...], Interval]:
    found: dict[tuple[str, ...], Interval] = {}
    twice = set()
    for notebook, entry in results.notebooks.items():
        for path, interval in _walk(entry["metrics"], ()):
            section = path[0] if len(path) > 1 else ""
            row = ", ".join(spaced(name) for name in path[1:-1] if name != "scores")
            key = (notebook, section, row, path[-1])
            twice |= {key} & set(found)
            found[key] = interval
    return {key: interval for key, interval in found.items() if key not in twice}  # which is which would be a guess


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Interval]]:
    """Yield every interval with its place: in dicts by their keys, in lists of records by what names a record."""
    if isinstance(value, list):
        for record in value:
            if _is_interval(record):
                named = [f"{name}" for key, name in record.items() if key not in {*_ENDS, *_COUNTS, "score"}]
                yield (*path, *named, record.get("score", path[-1])), _interval(record)
    elif _is_interval(value):
        yield path, _interval(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, (*path, name))


def _is_interval(value: Any) -> bool:
    return isinstance(value, dict) and set(value) >= _ENDS and isinstance(value["estimate"], int | float)


def _interval(value: dict[str, Any]) -> Interval:
    return Interval(*(math.nan if value[name] is None else float(value[name]) for name in ("estimate", "low", "high")))


def _table(one: Results, other: Results) -> pd.DataFrame:
    sides = _scores(one), _scores(other)
    rows = []
    for key in (key for key in sides[0] if key in sides[1]):
        pair = [side[key] for side in sides]
        found = mover(*pair)
        numbers = {
            column: value
            for name, side in zip(_SIDES, pair, strict=True)
            for column, value in zip(_columns(name), vars(side).values(), strict=True)
        }
        rows.append(
            dict(zip(_KEY, key, strict=True))
            | numbers
            | {"difference": found.estimate, "low": found.low, "high": found.high, "p": found.p}
        )
    if not rows:
        raise RunError(f"{one.label} and {other.label} have no score in common.")
    table = pd.DataFrame(rows).sort_values("notebook", kind="stable", ignore_index=True)
    asked = [score in PRIMARY.get(section, ()) for section, score in zip(table.section, table.score, strict=True)]
    table["primary"] = np.array(asked) & ~table.row.isin(_NO_MODEL) & ~_told_before(table)
    table["p_holm"] = holm(table.p.where(table.primary).to_numpy(float))
    return table


def _told_before(table: pd.DataFrame) -> pd.Series:
    """Mark what was counted before: one model under several names has the same numbers to the last digit."""
    return table.drop(columns=["notebook", "section", "row"]).duplicated()


# -- words -------------------------------------------------------------------------------------------------------------


def _findings(names: tuple[str, str], table: pd.DataFrame, one: Results, other: Results) -> Iterator[str]:
    primary = table[table.primary]
    sure, alone = primary.p_holm < 1 - LEVEL, (primary.low > 0) | (primary.high < 0)
    sides = (table[_columns(side)].to_numpy() for side in _SIDES)
    equal = int(np.isclose(*sides, rtol=0, atol=0, equal_nan=True).all(axis=1).sum())
    if equal == len(table):
        yield f"All {equal} scores that stand in both are the same to the last digit."
        return
    yield f"{len(table)} scores stand in both, {equal or 'none'} with the same numbers to the last digit."
    if len(primary):
        yield (
            f"{len(primary)} are primary, the main score of each model: {int(sure.sum())} of these are shown to differ "
            f"(p after Holm's correction below .05). Taken one by one, {int(alone.sum())} of their intervals leave 0 "
            f"out; where nothing differs, luck alone gives about {(1 - LEVEL) * len(primary):.1f}."
        )
    for word, rows in (
        ("higher", primary[sure & (primary.difference > 0)]),
        ("lower", primary[sure & (primary.difference < 0)]),
    ):
        if len(rows):
            told = [f"{_name(row)} in {row.notebook[:2]} ({_difference(row)})" for row in rows.itertuples()]
            yield f"{begin(word)} in {names[1]}: {'; '.join(_cut(told))}."
    if not sure.all():
        yield f"For {int((~sure).sum())} primary scores no difference is shown, which is not to say that there is none."
    clips, split = (_shared(one, other, name) for name in ("corpus", "split"))
    if clips and split:
        yield (
            "Both tested the same clips (the fingerprints of corpus and split are equal). Scores on the same clips "
            "rise and fall together, which these intervals cannot know: they are wider than need be, and a difference "
            "that is not shown may well be there."
        )
    elif clips:
        yield "Both are of the same clips, split in another way, so they did not test the same ones."
    else:
        yield (
            "They did not hear the same clips. A difference between them is then one of the clips, their number and "
            "their classes as much as of the models."
        )
        trivial = table[table.row.isin(TRIVIAL) & (table.section == "scores") & table.score.isin(PRIMARY["scores"])]
        if len(trivial):
            best = trivial[trivial.notebook == trivial.notebook.iloc[0]][list(_SIDES)].max()
            of = zip(best, names, strict=True)
            yield f"The best trivial answer scores {listed(f'{reached:.2f} in {name}' for reached, name in of)}."
    code = [
        f"{notebook[:2]}: {', '.join(_cut(changed))}"
        for notebook in one.notebooks
        if notebook in other.notebooks and (changed := _changed_code(one, other, notebook))
    ]
    if code:
        yield f"The code differs in {'; '.join(code)}."


def _columns(side: str) -> list[str]:
    return [side, f"{side}_low", f"{side}_high"]


def _shared(one: Results, other: Results, name: str) -> bool:
    """Tell whether notebook 01 wrote the same fingerprint in both."""
    marks = [side.notebooks.get("01_preprocessing", {}).get("manifest", {}) for side in (one, other)]
    values = [mark.get("inputs", {}).get(name) for mark in marks]
    return values[0] is not None and values[0] == values[1]


def _settings(one: Results, other: Results) -> Iterator[tuple[str, str, str]]:
    sides = [_made_with(side) for side in (one, other)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        yield name, *(side.get(name, "none") for side in sides)


def _changed_code(one: Results, other: Results, notebook: str) -> list[str]:
    before, after = (side.notebooks[notebook]["manifest"].get("code", {}) for side in (one, other))
    return sorted(name for name in {*before, *after} if before and after and before.get(name) != after.get(name))


def _made_with(results: Results) -> dict[str, str]:
    manifests = [entry["manifest"] for entry in results.notebooks.values()]
    first = results.notebooks.get("01_preprocessing", {"metrics": {}, "manifest": {}})
    tested = results.notebooks.get("02_baseline_cnn", {"metrics": {}})["metrics"]
    made = {
        name: _joined(manifest["parameters"].get(name) for manifest in manifests)
        for name in ("corpus", "data", "profile", "seeds")
    }
    made |= {
        "clips": first["metrics"].get("n_clips"),
        "groups": first["metrics"].get("n_groups"),
        "clips tested by 02": tested.get("n_tested"),
        **{
            f"fingerprint of {what}": first["manifest"].get("inputs", {}).get(name)
            for name, what in (("corpus", "the clips"), ("features", "the features"), ("split", "the split"))
        },
        "notebooks": _joined(name[:2] for name in results.notebooks),
        "commit": _joined(manifest.get("commit") or "not in a clone" for manifest in manifests),
    }
    for package in dict.fromkeys(name for manifest in manifests for name in manifest["versions"]):
        made[package] = _joined(manifest["versions"].get(package) for manifest in manifests)
    return {name: f"{value:,}" if isinstance(value, int) else value for name, value in made.items() if value}


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _only(one: Results, other: Results) -> Iterator[str]:
    """Say for each notebook which scores the first study alone has."""
    theirs = _scores(other)
    alone: dict[str, list[tuple[str, ...]]] = {}
    for key in _scores(one):
        if key not in theirs:
            alone.setdefault(key[0], []).append(key)
    for notebook, keys in sorted(alone.items()):
        count = f"{len(keys)} {'score' if len(keys) == 1 else 'scores'}"
        if notebook not in other.notebooks:
            yield f"{notebook} as a whole, with {count}"
            continue
        rows = dict.fromkeys(
            spaced((row if section == "scores" else section) or score) for _, section, row, score in keys
        )
        yield f"{notebook}: {count}, of {'; '.join(_cut(list(rows)))}"


def _cut(names: list[str]) -> list[str]:
    rest = len(names) - _LONGEST_LIST
    return names if rest <= 1 else [*names[:_LONGEST_LIST], f"{rest} more"]


def _parts(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Lay out each notebook: a figure of its primary scores, and all of its scores in a table."""
    from instrlib import plots

    for notebook, rows in comparison.table.groupby("notebook", sort=False):
        primary = rows[rows.primary]
        figure = None
        if len(primary):
            drawn = plots.main_differences(
                names=np.array([_name(row) for row in primary.itertuples()]),
                differences=primary.difference.to_numpy(),
                low=primary.low.to_numpy(),
                high=primary.high.to_numpy(),
                shown=(primary.p_holm < 1 - LEVEL).to_numpy(),
            )
            figure = {
                "base64": base64.b64encode(plots.svg(drawn).encode()).decode(),
                "caption": f"{begin(listed(dict.fromkeys(map(score_name, primary.score))))}: "
                f"{comparison.second} minus {comparison.first}.",
            }
        yield {
            "name": notebook,
            "title": _title(notebook),
            "figure": figure,
            "rows": [_shown(row) for row in rows.itertuples()],
        }


def _title(notebook: str) -> str:
    path = folders().notebooks / f"{notebook}.ipynb"
    return read_notebook(path).title.partition("· ")[2] if path.is_file() else begin(spaced(notebook.partition("_")[2]))


def _shown(row: Any) -> dict[str, Any]:
    p = row.p_holm if row.primary else row.p
    return {
        "notebook": row.notebook[:2],
        "model": _name(row),
        "score": score_name(row.score),
        "first": _bracketed(row.first, row.first_low, row.first_high),
        "second": _bracketed(row.second, row.second_low, row.second_high),
        "difference": _difference(row),
        "p": "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
        "shown": row.p_holm < 1 - LEVEL,
    }


def _name(row: Any) -> str:
    section = "" if row.section == "scores" else spaced(row.section)
    return ": ".join(filter(None, (section, row.row))) or spaced(row.score)


def _difference(row: Any) -> str:
    return _bracketed(row.difference, row.low, row.high, sign="+")


def _bracketed(estimate: float, low: float, high: float, *, sign: str = "") -> str:
    ends = "" if math.isnan(low) or math.isnan(high) else f" [{low:{sign}.2f}, {high:{sign}.2f}]"
    return f"{estimate:{sign}.2f}{ends}"


def _as_file(label: str) -> str:
    return re.sub(r"[^\w.@-]+", "-", label).strip("-")
