"""The report: one page that shows a study's numbers, figures and origin, and asks no other host for anything."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib import corpora
from instrlib.config import folders
from instrlib.errors import StudyError
from instrlib.files import read_json, write_text
from instrlib.notebooks import Notebook, read_notebook
from instrlib.publish import figures_folder, results_path
from instrlib.words import begin, spaced

_TITLE = "Musical instrument recognition"
_LONGEST_LIST = 24
_NONE = "–"


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


def write_report(study: str) -> Path:
    """Write `reports/<study>/report.html` from the study's `results.json` and figures.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StudyError
        When the study has no results.
    """
    import jinja2

    path = results_path(study)
    if not path.is_file():
        raise StudyError(f"{path} is missing; run `instrlib study` for this corpus and profile first.")
    notebooks = read_json(path)["notebooks"]
    manifests = {name: entry["manifest"] for name, entry in notebooks.items()}
    parameters = next(iter(manifests.values()))["parameters"]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instrlib"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=_TITLE,
        study=study,
        parts=[_part(study, name, entry["metrics"]) for name, entry in notebooks.items()],
        data=_data(parameters["corpus"]),
        command=_command(parameters),
        provenance=list(_provenance(manifests)),
    )
    report = path.with_name("report.html")
    write_text(report, page + "\n")
    return report


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
        yield Table(caption, (), tuple((spaced(name), _text(value)) for name, value in single.items()))
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
                (spaced(key), *(_text(row[column]) if column in row else "" for column in columns))
                for key, row in rows.items()
            ]
            yield Table(inner, ("", *map(spaced, columns)), tuple(body))
        else:
            yield from metric_tables(rows, inner)


def _part(study: str, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    notebook = _notebook(name)
    figures = [
        {
            "base64": base64.b64encode(path.read_bytes()).decode(),
            "caption": begin(spaced(path.stem.partition("_")[2])),
        }
        for path in sorted(figures_folder(study).glob(f"{name[:2]}_*.png"))
    ]
    return {
        "name": name,
        "title": (notebook and notebook.title) or begin(spaced(name.partition("_")[2])),
        "question": notebook.question if notebook else "",
        "findings": [sentence.replace("`", "") for sentence in metrics.get("findings", ())],
        "tables": list(metric_tables({name: value for name, value in metrics.items() if name != "findings"})),
        "figures": figures,
    }


def _notebook(name: str) -> Notebook | None:
    path = folders().notebooks / f"{name}.ipynb"
    return read_notebook(path) if path.is_file() else None


def _data(corpus: str) -> Table:
    known = corpora.info(corpus)
    rows = {
        "corpus": known.title,
        "licence": known.licence,
        "cite as": known.citation,
        "found at": known.url,
        "how to get it": known.how_to_get,
    }
    return Table("", (), tuple((name, value) for name, value in rows.items() if value))


def _command(parameters: dict[str, Any]) -> str:
    data = f" DATA=path/to/{parameters['data']}" if parameters["data"] else ""
    return f"make study CORPUS={parameters['corpus']}{data} PROFILE={parameters['profile']} SEEDS={parameters['seeds']}"


def _provenance(manifests: dict[str, dict[str, Any]]) -> Iterator[Table]:
    rows = [
        (
            name,
            manifest["commit"] or "not in a clone",
            ", ".join(f"{key} = {value!r}" for key, value in manifest["parameters"].items()),
            ", ".join([*manifest["uses"], *(f"{key} {value}" for key, value in manifest["inputs"].items())]),
        )
        for name, manifest in manifests.items()
    ]
    yield Table(
        "Notebooks (a + after the commit: with changes that were not committed)",
        ("", "commit", "parameters", "inputs"),
        tuple(rows),
    )
    versions = [manifest["versions"] for manifest in manifests.values()]
    packages = dict.fromkeys(name for found in versions for name in found)
    yield Table(
        "Versions",
        (),
        tuple((name, " and ".join(_distinct(found.get(name, "none") for found in versions))) for name in packages),
    )


def _distinct(values: Iterator[str]) -> Sequence[str]:
    return list(dict.fromkeys(values))


def _is_single(value: Any) -> bool:
    if isinstance(value, dict):
        return {"estimate", "low", "high"} <= set(value)
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return True


def _text(value: Any) -> str:
    if isinstance(value, dict):
        estimate, low, high = (_text(value[name]) for name in ("estimate", "low", "high"))
        ends = "" if _NONE in (low, high) else f" [{low}, {high}]"
        return estimate + ends + (f", p = {_text(value['p'])}" if "p" in value else "")
    if isinstance(value, list):
        return ", ".join(map(_text, value)) if len(value) <= _LONGEST_LIST else f"{len(value):,} values"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else _NONE if value is None else str(value)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return _NONE
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
