"""The README's tables: results from the committed numbers, questions from the notebooks, never written by hand."""

from pathlib import Path
from typing import Any

from instrlib.config import folders
from instrlib.errors import InstrlibError
from instrlib.files import read_json, write_text
from instrlib.notebooks import read_notebook

BEGIN = "<!-- results: written by `make notebooks` from reports/, do not edit -->"
END = "<!-- end of results -->"
QUESTIONS_BEGIN = "<!-- questions: written by `make notebooks` from notebooks/, do not edit -->"
QUESTIONS_END = "<!-- end of questions -->"
SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1", "map_at_3": "MAP@3"}


def results_table() -> str:
    """Return the scores of every committed study as a Markdown table, with intervals.

    Returns
    -------
    str
        One row for each study and model, in the order of `results.json`.
    """
    lines = [
        f"| study | clips tested | model | {' | '.join(SCORES.values())} |",
        f"|---|---|---|{'---|' * len(SCORES)}",
    ]
    for path in sorted(folders().reports.glob("*/results.json")):
        notebooks = read_json(path)["notebooks"]
        n_tested = notebooks["02_baseline_cnn"]["metrics"]["n_tested"]
        for model, scores in notebooks["02_baseline_cnn"]["metrics"]["scores"].items():
            cells = [_interval(scores[name]) for name in SCORES]
            lines.append(f"| {path.parent.name} | {n_tested} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def questions_table() -> str:
    """Return the notebooks, each with its link and its question, as a Markdown table."""
    lines = ["| notebook | its question |", "|---|---|"]
    for path in sorted(folders().notebooks.glob("[0-9]*.ipynb")):
        notebook = read_notebook(path)
        lines.append(f"| [{notebook.title}](notebooks/{path.name}) | {notebook.question} |")
    return "\n".join(lines)


def renewed(text: str) -> str:
    """Return the README's text with the tables between its marks replaced.

    Raises
    ------
    InstrlibError
        When the marks are not there.
    """
    text = _between(text, QUESTIONS_BEGIN, QUESTIONS_END, questions_table())
    return _between(text, BEGIN, END, results_table())


def renew(path: Path) -> None:
    """Write the tables into the README at `path`."""
    write_text(path, renewed(path.read_text(encoding="utf-8")))


def _between(text: str, begin: str, end: str, table: str) -> str:
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InstrlibError(f"README.md lacks the marks {begin} and {end}; put them where the table belongs.")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _interval(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['estimate']:.2f}"
    return f"{score['estimate']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
