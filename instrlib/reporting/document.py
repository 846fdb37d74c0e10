"""The report of a study as plain values, from which HTML and PDF are made."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.reporting import numbers
from instrlib.reporting.citations import Citations, Piece, typeset
from instrlib.reporting.summary import Study, text_of

TITLE = "Musical instrument recognition"

Block = dict[str, Any]
"""Part of a section; `kind` is "text", "question", "list", "code", "figure" or "table"."""

_MOST_COLUMNS = 8

PRIMARY_HEADER = ("Question", "Comparison", "Difference", "95 % CI", "p", "Margin", "Detectable", "Verdict")


class Document:
    """A document whose figures, tables and cited works are numbered in order."""

    def __init__(self, title: str, label: str, about: dict[str, str] | None = None) -> None:
        self.title, self.label, self.about = title, label, about or {}
        self.cited = Citations()
        self.sections: list[dict[str, Any]] = []
        self._n = {"figure": 0, "table": 0}

    def section(self, name: str, title: str, blocks: list[Block]) -> None:
        """Add a section."""
        number = str(len(self.sections) + 1)
        self.sections.append({"id": name, "number": number, "title": typeset(title), "blocks": blocks})

    def text(self, words: str, kind: str = "text") -> Block:
        """Return a paragraph."""
        return {"kind": kind, "pieces": self.cited.pieces(words)}

    def bullets(self, sentences: list[str]) -> Block:
        """Return a list of sentences."""
        return {"kind": "list", "items": [self.cited.pieces(one) for one in sentences]}

    def table(self, caption: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Block:
        """Return a table with its number."""
        return {
            "kind": "table",
            "number": self._count("table"),
            "caption": self.cited.pieces(caption),
            "header": [typeset(cell) for cell in header],
            "rows": [[typeset(cell) for cell in row] for row in rows],
        }

    def figure(self, path: Path, caption: str, source: list[Piece]) -> Block:
        """Return a figure with its number; `path` is that of its files without suffix."""
        return {
            "kind": "figure",
            "number": self._count("figure"),
            "path": str(path),
            "stem": path.name,
            "caption": self.cited.pieces(caption),
            "alt": caption,
            "source": source,
        }

    def plain(self) -> dict[str, Any]:
        """Return the document as plain values."""
        return {
            "title": self.title,
            "study": self.label,
            "about": [[typeset(name), typeset(text)] for name, text in self.about.items()],
            "sections": self.sections,
            "works": self.cited.works(),
        }

    def _count(self, kind: str) -> int:
        self._n[kind] += 1
        return self._n[kind]


def report(study: Study) -> dict[str, Any]:
    """Return the report of a study: abstract, a section for each notebook, how to reproduce it, references."""
    document = Document(TITLE, study.label, study.about())
    document.section("abstract", "Summary", list(_summary(document, study)))
    for name, entry in study.notebooks.items():
        blocks = list(_notebook(document, study, name, entry))
        if blocks:
            title = (entry.get("title") or name.partition("_")[2].replace("_", " ")).rpartition(" · ")[2]
            document.section(name, title[:1].upper() + title[1:], blocks)
    document.section("reproduce", "How to reproduce this report", list(_reproduce(document, study)))
    return document.plain()


def _summary(document: Document, study: Study) -> Iterator[Block]:
    findings = [f"{text} ({name[:2]})" for name, text in study.key_findings()]
    if findings:
        yield document.bullets(findings)
    if study.primary:
        yield document.text(
            f"{study.verdict_counts()} Each question, comparison and margin was fixed before the run. A difference is "
            "the first minus the second; p is not corrected across the questions. Inconclusive does not mean equal."
        )
        yield document.table("Primary comparisons.", PRIMARY_HEADER, [primary_row(row) for row in study.primary])
    for name, entry in study.notebooks.items():
        yield from (_figure(document, study, name, one) for one in entry.get("figures", []) if one["key"])


def primary_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a primary comparison as the cells of `PRIMARY_HEADER`."""
    return (
        f"{row['notebook'][:2]}: {row['question']}",
        f"{row['first']} against {row['second']} ({row['score']})",
        numbers.score(row["difference"], signed=True),
        f"{numbers.score(row['low'], signed=True)} to {numbers.score(row['high'], signed=True)}",
        numbers.p_value(row["p"]).removeprefix("p ").removeprefix("= "),
        numbers.rounded(row["margin"]),
        numbers.rounded(row["detectable"]),
        row["verdict"],
    )


def _notebook(document: Document, study: Study, name: str, entry: dict[str, Any]) -> Iterator[Block]:
    findings, methods = study.findings(name), entry.get("methods", [])
    figures = [one for one in entry.get("figures", []) if not one["key"]]
    if not (findings or methods or figures):
        return
    if entry.get("question"):
        yield document.text(entry["question"], "question")
    yield from (document.text(paragraph) for paragraph in methods)
    if findings:
        yield document.bullets(findings)
    for caption, table in entry.get("numbers", {}).items():
        if grid := as_table(table):
            yield document.table(f"{caption[:1].upper()}{caption[1:].replace('_', ' ')}.", *grid)
    yield from (_figure(document, study, name, one) for one in figures)


def _figure(document: Document, study: Study, notebook: str, declared: dict[str, Any]) -> Block:
    link = Path(os.path.relpath(folders().notebooks / f"{notebook}.ipynb", study.folder)).as_posix()
    source = [{"text": "Notebook "}, {"text": notebook, "url": link}, {"text": f", {declared['name']}"}]
    caption = declared["caption"] or declared["name"].replace("_", " ")
    return document.figure(study.figures / declared["name"], caption, source)


def as_table(value: Any, *, most_rows: int = 24) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Return header and rows of a declared table, or None if it is no table or too large for a page.

    Examples
    --------
    >>> as_table({"a": {"accuracy": 0.5}, "b": {"accuracy": 0.25}})
    (('', 'accuracy'), [('a', '0.500'), ('b', '0.250')])
    """
    if not (isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values())):
        return None
    columns = list(dict.fromkeys(column for row in value.values() for column in row))
    nested = any(isinstance(cell, dict | list) for row in value.values() for cell in row.values())
    if nested or len(value) > most_rows or len(columns) >= _MOST_COLUMNS:
        return None
    header = ("", *(str(column).replace("_", " ") for column in columns))
    return header, [
        (str(name).replace("_", " "), *(text_of(row.get(column)) for column in columns)) for name, row in value.items()
    ]


def _reproduce(document: Document, study: Study) -> Iterator[Block]:
    manifest = study.manifest()
    parameters = manifest["parameters"]
    data = f" DATA=path/to/{parameters['data']}" if parameters["data"] else ""
    command = f"make study CORPUS={parameters['corpus']}{data} PROFILE={parameters['profile']}"
    yield document.text(
        "The same commit, corpus and packages give the same numbers. All numbers are in `results.json`."
    )
    yield {"kind": "code", "text": f"{command} SEEDS={parameters['seeds']}"}
    corpus = manifest.get("corpus", {})
    yield document.table("Corpus.", (), [(name.replace("_", " "), text) for name, text in corpus.items() if text])
    rows = [
        (name, entry["manifest"].get("commit") or "unknown", ", ".join(map(" ".join, _inputs(entry["manifest"]))))
        for name, entry in study.notebooks.items()
    ]
    yield document.table("Commit and inputs of each notebook.", ("Notebook", "Commit", "Inputs"), rows)


def _inputs(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)[:16]) for name, value in manifest.get("inputs", {}).items()]
