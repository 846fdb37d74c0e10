"""Data card and model card of a study, from the declarations of its notebooks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instrlib.core.io import write_text
from instrlib.reporting.document import as_table
from instrlib.reporting.summary import Study, about_corpus, text_of

DATA_CARD, MODEL_CARD = "DATA_CARD.md", "MODEL_CARD.md"

_DECLARED = "<!-- From here on: declared by the notebooks of the study. -->"


def write_cards(study: Study) -> dict[str, Path]:
    """Write the data card, and add declared sections to the model card if the study has a model."""
    written = {"data card": study.folder / DATA_CARD}
    write_text(written["data card"], data_card(study))
    path = study.folder / "model" / MODEL_CARD
    if path.is_file():
        own = path.read_text(encoding="utf-8").partition(_DECLARED)[0].rstrip()
        sections = "\n\n".join(_declared(study, "model"))
        write_text(path, f"{own}\n\n{_DECLARED}\n\n{sections}\n" if sections else f"{own}\n")
        written["model card"] = path
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


def _declared(study: Study, card: str) -> Iterator[str]:
    for entry in study.notebooks.values():
        for section in entry.get("cards", []):
            if section["card"] == card:
                yield f"## {section['heading']}\n\n{_content(section['content'])}"


def _content(content: Any) -> str:
    if not isinstance(content, dict):
        return text_of(content)
    grid = as_table(content, most_rows=100)
    return markdown_table(*grid) if grid else markdown_table(("", ""), [(k, text_of(v)) for k, v in content.items()])
