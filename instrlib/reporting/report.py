"""The report of a study, written as HTML and as PDF from one document; both work offline."""

import base64
import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.core.io import InstrlibError, RunError, atomic_path, write_text
from instrlib.reporting import numbers
from instrlib.reporting.summary import TEMPLATES, Study, filled, text_of

Piece = dict[str, str]  # `text`, and at most one of `code`, `strong`, `emphasis` (each "yes"), `url`, `cite`
Block = dict[str, Any]  # part of a section; `kind` is "text", "question", "list", "code", "figure" or "table"
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # header and rows

PRIMARY: dict[str, Callable[[dict[str, Any]], str]] = {
    "Question": lambda row: f"{row['notebook'][:2]}: {row['question']}",
    "Comparison": lambda row: f"{row['first']} against {row['second']} ({row['score']})",
    "Difference": lambda row: numbers.difference(row["difference"]),
    "95 % CI": lambda row: numbers.interval(row["low"], row["high"]),
    "p": lambda row: numbers.p_value(row["p"]).removeprefix("p ").removeprefix("= "),
    "Margin": lambda row: numbers.rounded(row["margin"]),
    "Detectable": lambda row: numbers.rounded(row["detectable"]),
    "Verdict": lambda row: row["verdict"],
}
"""Columns of the table of primary comparisons."""

_MOST_COLUMNS = 8
_MARKED = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<cite>@[\w; @-]+)\]|\[(?P<link>[^\]]+)\]\((?P<url>[^)]+)\)"
)
_NEGATIVE = re.compile(r"(?<![\w./-])-(?=\.?\d)")  # not within words, dates, hashes and paths
_PERCENT = re.compile(r"(?<=\d) ?%")


def write_report(study: Study) -> list[Path]:
    """Write `report.html` and `report.pdf` into the folder of the study."""
    document, paths = report(study), [study.folder / "report.html", study.folder / "report.pdf"]
    picture = {"picture": lambda figure: base64.b64encode(_drawn(figure, ".png")).decode()}
    write_text(paths[0], filled("report.html", document | picture, autoescape=True) + "\n")
    figures = {block["stem"]: _drawn(block["path"], ".svg").decode() for block in _blocks(document, "figure")}
    # Without tags, which are a third of the file; screen readers can use the HTML. Equal documents give equal bytes.
    settings = {"timestamp": datetime(1980, 1, 1, tzinfo=UTC), "pdf_tags": False}
    with atomic_path(paths[1]) as temporary:
        temporary.write_bytes(compiled("report.typ", document | {"drawn": figures}, **settings))
    return paths


def compiled(name: str, data: dict[str, Any], **settings: Any) -> Any:
    """Return a template of typst, filled and compiled."""
    import typst

    source, inputs = (TEMPLATES / name).read_bytes(), {"data": json.dumps(data)}
    return typst.compile(source, sys_inputs=inputs, ignore_system_fonts=True, **settings)


def _drawn(path: str, suffix: str) -> bytes:
    if not Path(path + suffix).is_file():
        raise RunError(f"{path}{suffix} not found. Run `instrlib figures` for this study first.")
    return Path(path + suffix).read_bytes()


class Document:
    """Sections whose figures, tables and cited works are numbered in order."""

    def __init__(self) -> None:
        self.cited: dict[str, int] = {}  # number of each cited work
        self.sections: list[dict[str, Any]] = []

    def section(self, name: str, title: str, blocks: list[Block]) -> None:
        """Add a section."""
        number = str(len(self.sections) + 1)
        self.sections.append({"id": name, "number": number, "title": typeset(title), "blocks": blocks})

    def text(self, words: str, kind: str = "text") -> Block:
        """Return a paragraph."""
        return {"kind": kind, "pieces": self.pieces(words)}

    def bullets(self, sentences: list[str]) -> Block:
        """Return a list of sentences."""
        return {"kind": "list", "items": [self.pieces(one) for one in sentences]}

    def table(self, caption: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Block:
        """Return a table."""
        cells = {"header": list(map(typeset, header)), "rows": [list(map(typeset, row)) for row in rows]}
        return {"kind": "table", "caption": self.pieces(caption), **cells}

    def pieces(self, text: str) -> list[Piece]:
        """Split Markdown (code, strong, links, `[@key; @other]`); raise `InstrlibError` if a cited work is unknown."""
        found: list[Piece] = []
        end = 0
        for match in _MARKED.finditer(text):
            found.append({"text": typeset(text[end : match.start()])})
            end = match.end()
            if match["cite"]:
                for key in re.findall(r"[\w-]+", match["cite"]):
                    if key not in _works():
                        raise InstrlibError(f"{key!r} is cited but missing in templates/references.bib. Add it there.")
                    number = self.cited.setdefault(key, len(self.cited) + 1)
                    found.append({"text": f"[{number}]", "cite": key})
            elif match["link"]:
                found.append({"text": typeset(match["link"]), "url": match["url"]})
            else:
                words, kind = match[match.lastgroup], match.lastgroup
                found.append({"text": words if kind == "code" else typeset(words), kind: "yes"})
        found.append({"text": typeset(text[end:])})
        return [piece for piece in found if piece["text"]]

    def plain(self) -> dict[str, Any]:
        """Return sections and works as plain values."""
        works = [{"number": n, "key": key, "pieces": _works()[key]} for key, n in self.cited.items()]
        document = {"sections": self.sections, "works": works}
        for kind in ("figure", "table"):
            for number, block in enumerate(_blocks(document, kind), start=1):
                block["number"] = number
        return document


def typeset(text: str) -> str:
    r"""Return a text with minus signs and with fixed spaces before per cent signs."""
    return _PERCENT.sub("\N{NO-BREAK SPACE}%", _NEGATIVE.sub("\N{MINUS SIGN}", text))


def _blocks(document: dict[str, Any], kind: str) -> Iterator[Block]:
    yield from (block for section in document["sections"] for block in section["blocks"] if block["kind"] == kind)


@functools.cache
def _works() -> dict[str, list[Piece]]:
    """Return all works in BibTeX's plain style."""
    from pybtex.database import parse_string
    from pybtex.richtext import HRef, String, Symbol, Tag
    from pybtex.style.formatting.unsrt import Style

    def pieces(part: Any) -> Iterator[Piece]:
        if isinstance(part, String):
            yield {"text": str(part)}
        elif isinstance(part, Symbol):
            yield {"text": {"nbsp": "\N{NO-BREAK SPACE}", "ndash": "–"}.get(part.name, " ")}
        else:
            marks = {"url": str(part.url)} if isinstance(part, HRef) else {}
            marks |= {"emphasis": "yes"} if isinstance(part, Tag) else {}
            yield from (piece | marks for inner in part.parts for piece in pieces(inner))

    source = (TEMPLATES / "references.bib").read_text(encoding="utf-8")
    works = Style().format_entries(list(parse_string(source, "bibtex").entries.values()))
    return {work.key: list(pieces(work.text)) for work in works}


def report(study: Study) -> dict[str, Any]:
    """Return the report of a study: summary, a section for each notebook, how to reproduce it, references."""
    document = Document()
    document.section("abstract", "Summary", list(_summary(document, study)))
    for name, entry in study.notebooks.items():
        if blocks := list(_notebook(document, study, name, entry)):
            title = (entry.get("title") or name.partition("_")[2].replace("_", " ")).rpartition(" · ")[2]
            document.section(name, title[:1].upper() + title[1:], blocks)
    document.section("reproduce", "How to reproduce this report", list(_reproduce(document, study)))
    about = [[typeset(name), typeset(text)] for name, text in study.about().items()]
    return {"title": "Musical instrument recognition", "study": study.label, "about": about, **document.plain()}


def _summary(document: Document, study: Study) -> Iterator[Block]:
    findings = [f"{one['text']} ({name[:2]})" for name, one in study.declared("findings") if one["key"]]
    if findings:
        yield document.bullets(findings)
    if study.primary:
        found = [row["verdict"] for row in study.primary]
        counts = ", ".join(f"{found.count(name)} {name}" for name in numbers.VERDICTS if name in found)
        yield document.text(
            f"Of {len(found)} primary comparisons: {counts}. Each question, comparison and margin was fixed before the "
            "run. A difference is the first minus the second; p is not corrected across the questions. Inconclusive "
            "does not mean equal."
        )
        rows = [tuple(cell(row) for cell in PRIMARY.values()) for row in study.primary]
        yield document.table("Primary comparisons.", tuple(PRIMARY), rows)
    yield from (_figure(document, study, name, one) for name, one in study.declared("figures") if one["key"])


def _notebook(document: Document, study: Study, name: str, entry: dict[str, Any]) -> Iterator[Block]:
    findings = [numbers.sentence(row) for row in study.primary if row["notebook"] == name]
    findings += [one["text"] for one in entry.get("findings", [])]
    methods, figures = entry.get("methods", []), [one for one in entry.get("figures", []) if not one["key"]]
    if not (findings or methods or figures):
        return
    if entry.get("question"):
        yield document.text(entry["question"], "question")
    yield from map(document.text, methods)
    if findings:
        yield document.bullets(findings)
    for caption, table in entry.get("numbers", {}).items():
        if grid := as_table(table):
            yield document.table(f"{caption[:1].upper()}{caption[1:].replace('_', ' ')}.", *grid)
    yield from (_figure(document, study, name, one) for one in figures)


def _figure(document: Document, study: Study, notebook: str, declared: dict[str, Any]) -> Block:
    link = Path(os.path.relpath(folders().notebooks / f"{notebook}.ipynb", study.folder)).as_posix()
    stem = declared["name"]
    caption = declared["caption"] or stem.replace("_", " ")
    block = {"kind": "figure", "path": str(study.figures / stem), "stem": stem, "alt": caption}
    source = [{"text": "Notebook "}, {"text": notebook, "url": link}, {"text": f", {stem}"}]
    return block | {"caption": document.pieces(caption), "source": source}


def as_table(value: Any, *, most_rows: int = 24) -> Table | None:
    """Return header and rows of a declared table, or None if it is no table or too large for a page."""
    if not (isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values())):
        return None
    columns = list(dict.fromkeys(column for row in value.values() for column in row))
    nested = any(isinstance(cell, dict | list) for row in value.values() for cell in row.values())
    if nested or len(value) > most_rows or len(columns) >= _MOST_COLUMNS:
        return None
    rows = [(name.replace("_", " "), *(text_of(row.get(column)) for column in columns)) for name, row in value.items()]
    return ("", *(column.replace("_", " ") for column in columns)), rows


def _reproduce(document: Document, study: Study) -> Iterator[Block]:
    manifest = study.manifest()
    parameters, corpus = manifest["parameters"], manifest.get("corpus", {})
    data = f" DATA=path/to/{parameters['data']}" if parameters["data"] else ""
    command = f"make study CORPUS={parameters['corpus']}{data} PROFILE={parameters['profile']}"
    yield document.text(
        "The same commit, corpus and packages give the same numbers. All numbers are in `results.json`."
    )
    yield {"kind": "code", "text": f"{command} SEEDS={parameters['seeds']}"}
    yield document.table("Corpus.", (), [(name.replace("_", " "), text) for name, text in corpus.items() if text])
    rows = []
    for name, made in ((name, entry["manifest"]) for name, entry in study.notebooks.items()):
        inputs = ", ".join(f"{what} {str(value)[:16]}" for what, value in made.get("inputs", {}).items())
        rows.append((name, made.get("commit") or "unknown", inputs))
    yield document.table("Commit and inputs of each notebook.", ("Notebook", "Commit", "Inputs"), rows)
