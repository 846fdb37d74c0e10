"""The results table of the README, written from the committed numbers and never by hand."""

from pathlib import Path
from typing import Any

from instrlib.config import folders
from instrlib.errors import InstrlibError
from instrlib.files import read_json, write_text

BEGIN = "<!-- results: written by `make notebooks` from reports/, do not edit -->"
END = "<!-- end of results -->"
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


def renewed(text: str) -> str:
    """Return the README's text with the table between its marks replaced.

    Raises
    ------
    InstrlibError
        When the marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InstrlibError(f"README.md lacks the marks {BEGIN} and {END}; put them where the table belongs.")
    return f"{before}{BEGIN}\n{results_table()}\n{END}{after}"


def renew(path: Path) -> None:
    """Write the table into the README at `path`."""
    write_text(path, renewed(path.read_text(encoding="utf-8")))


def _interval(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['estimate']:.2f}"
    return f"{score['estimate']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
