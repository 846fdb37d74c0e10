"""Notebook files: code, parameters, title and question, the executed copy and the HTML page."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.core.io import RunError, hash_json, read_json, write_text
from instrlib.reporting.cards import title_and_question

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_CHECKED = "nbval-check-output"
_COMPARED = re.compile(r"no, \S+ against \S+|nothing is recorded yet")

# nbconvert's page would load require.js, MathJax, Mermaid and widgets from other hosts.
_OFFLINE = """\
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""


@dataclass(frozen=True)
class Notebook:
    """A notebook; `text` is a hash of all cells, `parameters` are the default values."""

    path: Path
    name: str
    code: tuple[str, ...]
    text: str
    parameters: dict[str, Any]
    title: str
    question: str


def read_notebook(path: Path) -> Notebook:
    """Read a notebook; raise `RunError` if the file is no notebook or its parameters are not literals."""
    raw = read_json(path)
    if not (isinstance(raw, dict) and isinstance(raw.get("cells"), list)):
        raise RunError(f"{path} is not a notebook; restore it from the repository.")
    cells = [(cell["cell_type"], "".join(cell.get("source", "")), _tags(cell)) for cell in raw["cells"]]
    declared = [source for kind, source, tags in cells if kind == "code" and "parameters" in tags]
    title, question = title_and_question("\n\n".join(source for kind, source, _ in cells if kind == "markdown"))
    return Notebook(
        path=path,
        name=path.stem,
        code=tuple(source for kind, source, _ in cells if kind == "code"),
        text=hash_json([(kind, source) for kind, source, _ in cells]),
        parameters=_parameters(path.name, declared[0]) if declared else {},
        title=title,
        question=question,
    )


def numbered_notebooks() -> list[Notebook]:
    """Read the notebooks of the study, `notebooks/NN_*.ipynb`, in order; raise `RunError` if there are none."""
    folder = folders().notebooks
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise RunError(f"No numbered notebooks in {folder}; restore the folder or set INSTRLIB_ROOT.")
    numbers = [path.name[:2] for path in paths]
    if twins := [path.name for path in paths if numbers.count(path.name[:2]) > 1]:
        raise RunError(f"{' and '.join(twins)} have the same number; rename one of them.")
    return [read_notebook(path) for path in paths]


def take_outputs(path: Path, executed: Path) -> None:
    """Copy the outputs of the executed copy into a notebook, without times, paths, versions and progress bars.

    Cells that compare a number with the published one print "yes", because this copy is then the published one.
    """
    raw = read_json(path)
    cells = _with_outputs(raw["cells"], read_json(executed)["cells"])
    for count, cell in enumerate((cell for cell in cells if cell.get("execution_count")), 1):
        cell["outputs"] = [part for part in cell["outputs"] if not is_progress(part)]
        for part in [cell, *cell["outputs"]]:
            if "execution_count" in part:
                part["execution_count"] = count
            if _CHECKED in _tags(cell) and "text" in part:
                part["text"] = _COMPARED.sub("yes", "".join(part["text"])).splitlines(keepends=True)
    text = json.dumps(stripped(raw | {"cells": cells}), indent=1, sort_keys=True, ensure_ascii=False)
    write_text(path, text + "\n")


def is_progress(output: dict[str, Any]) -> bool:
    """Return whether an output is nothing but tqdm's progress bars, or its note that it draws them as text."""
    lines = re.split(r"[\r\n]", "".join(output.get("text", "")))
    return output.get("name") == "stderr" and all(
        not line.strip() or "%|" in line or "tqdm" in line.lower() for line in lines
    )


def stripped(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a notebook (as JSON) without times, paths and versions."""
    raw = json.loads(json.dumps(raw))
    for part in [raw, *raw["cells"]]:
        for name in ("papermill", "execution", "widgets"):
            part.get("metadata", {}).pop(name, None)
    for cell in raw["cells"]:
        if not cell["metadata"].get("tags", True):
            del cell["metadata"]["tags"]  # papermill adds an empty list
    raw["metadata"] |= {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    return raw


def write_page(path: Path, executed: Path) -> None:
    """Write the notebook with the outputs of its executed copy as an HTML page that works offline."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nbformat
        from nbconvert import HTMLExporter

        raw, old = read_json(path), read_json(executed)
        cells = _with_outputs(raw["cells"], old["cells"])
        place = next((number for number, cell in enumerate(cells, 1) if "parameters" in _tags(cell)), 0)
        cells[place:place] = [cell for cell in old["cells"] if _is_injected(cell)]
        shown = stripped(raw | {"cells": cells})
        names = {"metadata": {"name": path.stem, "path": ""}}
        exporter = HTMLExporter(raw_template=_OFFLINE)
        page, _ = exporter.from_notebook_node(nbformat.reads(json.dumps(shown), as_version=4), names)
    write_text(executed.with_suffix(".html"), page)


def _with_outputs(cells: list[dict[str, Any]], executed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ran = (cell for cell in executed if cell["cell_type"] == "code" and not _is_injected(cell))
    empty = {"outputs": [], "execution_count": None}  # for a cell that was added while the notebook ran
    return [
        cell | {name: run[name] for run in [next(ran, empty)] for name in ("outputs", "execution_count")}
        if cell["cell_type"] == "code"
        else cell
        for cell in cells
    ]


def _is_injected(cell: dict[str, Any]) -> bool:
    return "injected-parameters" in _tags(cell)


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _parameters(name: str, source: str) -> dict[str, Any]:
    found = {}
    try:
        for statement in ast.parse(source).body:
            if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
                raise ValueError
            found[statement.targets[0].id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError, TypeError):
        message = f"{name}: the parameters cell may only hold lines `name = literal`; compute values in the next cell."
        raise RunError(message) from None
    return found
