"""Markdown from the declarations of a study: data card, model card, and two parts of README.

Comments mark both parts of README. The one of the results names a published study and one of its figures:
`<!-- results: rendered-quick 08_honest_and_leaky -->`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.core.io import InstrlibError, read_json, write_text
from instrlib.reporting.numbers import sentence
from instrlib.reporting.report import as_table
from instrlib.reporting.summary import Study, about_corpus, open_study, text_of

DECLARED = "<!-- From here on: declared by the notebooks of the study. -->"


def write_cards(study: Study) -> list[Path]:
    """Write the data card, and add declared sections to the model card if the study has a model."""
    written = [study.folder / "DATA_CARD.md"]
    write_text(written[0], data_card(study))
    path = study.folder / "model" / "MODEL_CARD.md"
    if path.is_file():
        own = path.read_text(encoding="utf-8").partition(DECLARED)[0].rstrip()
        sections = _declared(study, "model")
        write_text(path, "\n\n".join([own, DECLARED, *sections] if sections else [own]) + "\n")
        written.append(path)
    return written


def data_card(study: Study) -> str:
    """Return the data card: contents, source, groups, intended use and limits."""
    about, corpus = study.about(), study.manifest().get("corpus", {})
    known = about_corpus(study.manifest()["parameters"]["corpus"])
    commit = about.pop("commit")
    parts = [
        f"# Data card: {corpus.get('title') or about['corpus']}",
        f"The clips of the study {study.label}, commit {commit}. `instrlib report` writes this card from the results.",
        f"## Contents\n\n{known['what']}",
        markdown_table(("", ""), list(about.items())),
        "## Source\n\n"
        + markdown_table(("", ""), [(key.replace("_", " "), text) for key, text in corpus.items() if text]),
        f"## Groups\n\nA group is {known['groups']}. No group is split between training, validation and test. "
        f"{known['blind']}",
        *_declared(study, "data"),
        f"## Intended use\n\n{known['use']}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in known["limits"]),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _declared(study: Study, card: str) -> list[str]:
    own = [section for _, section in study.declared("cards") if section["card"] == card]
    return [f"## {section['heading']}\n\n{_content(section['content'])}" for section in own]


def _content(content: Any) -> str:
    if not isinstance(content, dict):
        return text_of(content)
    grid = as_table(content, most_rows=100)
    return markdown_table(*grid or (("", ""), [(key, text_of(value)) for key, value in content.items()]))


def renewed(text: str) -> str:
    """Return the text of README with both parts updated; raise `InstrlibError` if a mark or the figure is missing."""
    return _between(_between(text, "notebooks", lambda _: notebooks_table()), "results", results)


def notebooks_table() -> str:
    """Return the notebooks with their questions as a Markdown table."""
    rows = []
    for path in sorted(folders().notebooks.glob("[0-9]*.ipynb")):
        cells = read_json(path)["cells"]
        words = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        title, question = title_and_question(words)
        if title:
            rows.append((f"[{title}](notebooks/{path.name})", question))
    return markdown_table(("Notebook", "Question"), rows).replace("| --- | --- |", "|---|---|")


def title_and_question(words: str) -> tuple[str, str]:
    """Return the first heading and the first paragraph below it."""
    title, _, rest = f"\n{words}".partition("\n# ")[2].partition("\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", rest))
    first = next((text for text in paragraphs if text and not text.startswith(("#", "|", "<"))), "")
    return title.strip(), re.sub(r"^\W*question\W+", "", re.sub(r"\*\*|`", "", first), flags=re.IGNORECASE).strip()


def results(named: str) -> str:
    """Return a published study's figure and at most five findings: key findings, then primary verdicts."""
    name, _, figure = named.partition(" ")
    study = open_study(name)
    captions = {one["name"]: one["caption"] for _, one in study.declared("figures")}
    if figure not in captions:
        raise InstrlibError(f"The study {name} has no figure {figure!r}. Correct the mark of the results in README.md.")
    about = study.about()
    facts = [f"{text} {fact}" for fact, text in study.facts().items()]
    facts += [f"{about['seeds']} seed{'s' if about['seeds'] != '1' else ''}", f"commit {about['commit']}"]
    found = [(notebook, one["text"]) for notebook, one in study.declared("findings") if one["key"]]
    found += [(row["notebook"], sentence(row)) for row in study.primary]
    bullets = [f"- {text} ([{name[:2]}](notebooks/{name}.ipynb))" for name, text in found[:5]]
    picture = f"![{captions[figure]}](figures/{name}/{figure}.png)\n\n*{captions[figure]}*"
    return "\n".join([picture, "", f"[`{name}`](reports/{name}/report.pdf): {', '.join(facts)}.", "", *bullets])


def _between(text: str, mark: str, make: Callable[[str], str]) -> str:
    pattern = re.compile(rf"(<!-- {mark}:? ?([^>]*?) ?-->\n).*?(\n<!-- end of {mark} -->)", re.DOTALL)
    found = pattern.search(text)
    if not found:
        raise InstrlibError(f"README.md lacks the marks of its {mark}: <!-- {mark} --> and <!-- end of {mark} -->.")
    return text[: found.end(1)] + make(found[2]) + text[found.start(3) :]
