"""What the README tells of notebooks and results: read from the committed files, never written by hand.

`python -m instrlib.reporting.readme` brings all of it up to date; so does `make notebooks`.
"""

import re
import sys
from pathlib import Path
from typing import Any

from instrlib.core.config import PROFILES, folders
from instrlib.core.errors import InstrlibError
from instrlib.core.io import read_json, write_text
from instrlib.core.words import spaced
from instrlib.report.asides import shown_study
from instrlib.reporting.cards import part_of_whole
from instrlib.reporting.overview import main_score
from instrlib.runner.notebooks import read_notebook

QUESTIONS = "<!-- questions: written by `python -m instrlib.reporting.readme` from notebooks/, do not edit -->"
QUESTIONS_END = "<!-- end of questions -->"
RESULTS = "<!-- results: written by `python -m instrlib.reporting.readme` from reports/ and figures/, do not edit -->"
RESULTS_END = "<!-- end of results -->"

MAIN = "02_baseline_cnn"
MODEL = "compact CNN"

TOLD = (
    ("14_report", r"^Of the \d+ main comparisons"),
    ("01_preprocessing", r"^The same random forest scores"),
    (MAIN, r"^Compact CNN (is|beats|does)|between compact CNN and"),
    ("03_cutmix", r"^CutMix (is not shown to help|helps|does harm)"),
    ("05_pruning", r"^Chosen on validation"),
    ("06_class_activation_maps", r"the loudest points within the map"),
    ("13_domain_shift", r"^Trained on one domain and tested on another|^No two domains"),
    ("13_domain_shift", r"^Pretraining on"),
)
"""The findings that tell most: a notebook, and what marks the sentence among its findings, whatever the verdict."""

FIGURES = {
    "01_leak": "the leak",
    "06_right": "what it listens to",
    "07_paired_differences": "what each part is worth",
    "13_domain_matrix": "trained on one, tested on another",
}
"""The figures that tell most, and what they show."""


def results_section() -> str:
    """Return what the committed studies found, as Markdown: the main scores, the findings and the figures."""
    return "\n\n".join(filter(None, (results_table(), findings_list(), figure_table())))


def results_table() -> str:
    """Return the main result of every committed study as a Markdown table, with intervals.

    Returns
    -------
    str
        One row a study: the network, and the best of the trivial answers beside it.
    """
    lines = [
        f"| study | clips tested | score | {MODEL} | best trivial answer | made at commit |",
        "|---|---|---|---|---|---|",
    ]
    for study, notebooks in studies().items():
        metrics = notebooks.get(MAIN, {}).get("metrics")
        if metrics:
            score = main_score(metrics["scores"][MODEL])
            by_model = {name: scores[score] for name, scores in metrics["scores"].items()}
            reached = _interval(by_model.pop(MODEL))
            best = max(by_model, key=lambda name: by_model[name]["estimate"])
            cells = (spaced(score), reached, f"{best} {_interval(by_model[best])}")
            commit = notebooks[MAIN].get("manifest", {}).get("commit") or "unknown"
            lines.append(f"| [{study}](reports/{study}) | {metrics['n_tested']} | {' | '.join(cells)} | {commit} |")
    return "\n".join(lines)


def findings_list() -> str:
    """Return the findings that tell most, each from the largest study that has it, word for word.

    Returns
    -------
    str
        For each study a line and a Markdown list; each sentence links to the notebook that computed it or, where that
        shows another study, to the report, which names notebook, run and commit.
    """
    parts, missing = [], list(TOLD)
    for study, notebooks in studies().items():
        told = {(name, mark): finding(notebooks, name, mark) for name, mark in missing}
        bullets = [
            f"- [{name[:2]}]({_shown(study, name)}): {sentence}" for (name, _), sentence in told.items() if sentence
        ]
        missing = [one for one in missing if not told[one]]
        if bullets:
            part = part_of_whole(study.rpartition("-")[0], notebooks)
            parts.append("\n".join([f"Found in `{study}`{f' ({part})' if part else ''}:", "", *bullets]))
    return "\n\n".join(parts)


def figure_table() -> str:
    """Return the figures that tell most, each from the largest study that has it, two in a row of a Markdown table.

    Above each stands what it shows, with a link to the report that names what made it.
    """
    found = [(study, name) for name in FIGURES if (study := _with_figure(name))]
    cells = [f"![{FIGURES[name]}](figures/{study}/{name}.png)" for study, name in found]
    captions = [f"[{FIGURES[name]}](reports/{study}/report.pdf) (`{study}`)" for study, name in found]
    rows = [one[first : first + 2] for first in range(0, len(found), 2) for one in (captions, cells)]
    lines = [f"| {' | '.join([*row, ''][:2])} |" for row in rows]
    return "\n".join([*lines[:1], *["|---|---|"][: len(lines)], *lines[1:]])


def questions_table() -> str:
    """Return the notebooks, each with its link and its question, as a Markdown table."""
    lines = ["| notebook | its question |", "|---|---|"]
    for path in sorted(folders().notebooks.glob("[0-9]*.ipynb")):
        notebook = read_notebook(path)
        lines.append(f"| [{notebook.title}](notebooks/{path.name}) | {notebook.question} |")
    return "\n".join(lines)


def studies() -> dict[str, dict[str, Any]]:
    """Return what `results.json` holds of every committed study, by name; the largest profile first.

    Returns
    -------
    dict of str to dict
        Of each study its notebooks, by name. Those whose name ends in no profile come last.
    """
    found = {path.parent.name: read_json(path)["notebooks"] for path in folders().reports.glob("*/results.json")}
    sizes = {name: number for number, name in enumerate(PROFILES, 1)}
    return dict(sorted(found.items(), key=lambda one: (-sizes.get(one[0].rpartition("-")[2], 0), one[0])))


def finding(notebooks: dict[str, Any], name: str, mark: str) -> str:
    """Return the sentence of a notebook that a mark of `TOLD` stands for; "" where the study has none."""
    sentences = notebooks.get(name, {}).get("metrics", {}).get("findings", ())
    return next((one for one in sentences if re.search(mark, one)), "")


def renewed(text: str) -> str:
    """Return the README's text with all between its marks replaced.

    Raises
    ------
    InstrlibError
        When the marks are not there.
    """
    text = _between(text, QUESTIONS, QUESTIONS_END, questions_table())
    return _between(text, RESULTS, RESULTS_END, results_section())


def renew(path: Path) -> None:
    """Write all between the marks of the README at `path`."""
    write_text(path, renewed(path.read_text(encoding="utf-8")))


def _with_figure(name: str) -> str:
    """Return the largest study that has a figure; "" where none has."""
    return next((study for study in studies() if (folders().figures / study / f"{name}.png").is_file()), "")


def _shown(study: str, notebook: str) -> str:
    return f"notebooks/{notebook}.ipynb" if shown_study(notebook) == study else f"reports/{study}/report.pdf"


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


if __name__ == "__main__":
    try:
        renew(folders().notebooks.parent / "README.md")
    except InstrlibError as error:
        sys.exit(str(error))
