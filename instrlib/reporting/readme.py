"""Updates the list of notebooks and the results in README.md: `python -m instrlib.reporting.readme`.

Comments mark both parts. The one of the results names a published study and one of its figures:
`<!-- results: rendered-quick 08_honest_and_leaky -->`.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from instrlib.core.config import folders
from instrlib.core.io import InstrlibError, read_json, write_text
from instrlib.reporting.summary import open_study, verdict

_MOST_FINDINGS = 5


def renewed(text: str) -> str:
    """Return the text of README with both parts updated; raise `InstrlibError` if a mark or the figure is missing."""
    text = _between(text, "notebooks", notebooks_table)
    return _between(text, "results", results)


def notebooks_table() -> str:
    """Return the notebooks with their questions as a Markdown table."""
    lines = ["| Notebook | Question |", "|---|---|"]
    for path in sorted(folders().notebooks.glob("[0-9]*.ipynb")):
        cells = read_json(path)["cells"]
        words = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        title, question = title_and_question(words)
        if title:
            lines.append(f"| [{title}](notebooks/{path.name}) | {question} |")
    return "\n".join(lines)


def title_and_question(words: str) -> tuple[str, str]:
    """Return the first heading and the first paragraph below it."""
    _, mark, after = f"\n{words}".partition("\n# ")
    if not mark:
        return "", ""
    title, _, rest = after.partition("\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", rest))
    first = next((text for text in paragraphs if text and not text.startswith(("#", "|", "<"))), "")
    return title.strip(), re.sub(r"^\W*question\W+", "", re.sub(r"\*\*|`", "", first), flags=re.IGNORECASE).strip()


def results(name: str, figure: str) -> str:
    """Return figure and at most five findings of a published study: key findings, then primary verdicts."""
    study = open_study(name)
    captions = {one["name"]: one["caption"] for entry in study.notebooks.values() for one in entry.get("figures", [])}
    if figure not in captions:
        raise InstrlibError(f"The study {name} has no figure {figure}. Correct the mark of the results in README.md.")
    about = study.about()
    facts = ", ".join(f"{about[fact.replace('_', ' ')]} {fact.replace('_', ' ')}" for fact in study.facts)
    seeds = f"{about['seeds']} seed{'s' if about['seeds'] != '1' else ''}"
    found = study.key_findings() + [(row["notebook"], verdict(row)) for row in study.primary]
    bullets = [f"- {text} ([{name[:2]}](notebooks/{name}.ipynb))" for name, text in found[:_MOST_FINDINGS]]
    return "\n".join(
        [
            f"![{captions[figure]}](figures/{name}/{figure}.png)",
            "",
            f"*{captions[figure]}*",
            "",
            f"[`{name}`](reports/{name}/report.pdf): {facts + ', ' if facts else ''}{seeds}, commit {about['commit']}.",
            "",
            *bullets,
        ]
    )


def _between(text: str, mark: str, make: Callable[..., str]) -> str:
    pattern = re.compile(rf"(<!-- {mark}:? ?([^>]*?) ?-->\n).*?(\n<!-- end of {mark} -->)", re.DOTALL)
    found = pattern.search(text)
    if not found:
        raise InstrlibError(f"README.md lacks the marks of its {mark}: <!-- {mark} --> and <!-- end of {mark} -->.")
    return text[: found.end(1)] + make(*found[2].split()) + text[found.start(3) :]


def main() -> None:
    """Update both parts of README.md."""
    path = Path(folders().notebooks).parent / "README.md"
    write_text(path, renewed(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    try:
        main()
    except InstrlibError as error:
        sys.exit(str(error))
