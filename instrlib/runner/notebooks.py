"""A notebook as a file: its code, its parameters, its title and question, and what a runner may replace in it."""

import ast
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.core.errors import RunError
from instrlib.core.io import hash_json, read_json, write_text

_MARKS = re.compile(r"\*\*|`|^\W*question\W+", re.IGNORECASE)
_VOLATILE = ("papermill", "execution", "widgets")
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Notebook:
    """What there is to know of a notebook without running it.

    Attributes
    ----------
    path : Path
        Where it lies.
    name : str
        The file's name without ending, such as "02_baseline_cnn".
    code : tuple of str
        Texts of the code cells, in order.
    text : str
        Hash of all cells' texts, words and code.
    parameters : dict
        Names and values of the cell tagged `parameters`.
    title, question : str
        The first heading without its mark, and the first paragraph under it; "" when there is none.
    """

    path: Path
    name: str
    code: tuple[str, ...]
    text: str
    parameters: dict[str, Any]
    title: str
    question: str


def read_notebook(path: Path) -> Notebook:
    """Read a notebook and the parameters that it declares.

    Parameters
    ----------
    path : Path
        An ipynb file.

    Returns
    -------
    Notebook

    Raises
    ------
    RunError
        When the file is no notebook, or its parameters are not plain literals: a value that is computed in that cell
        would keep the default when the runner sets the others.
    """
    raw = read_json(path)
    if not (isinstance(raw, dict) and isinstance(raw.get("cells"), list)):
        raise RunError(f"{path} is not a notebook; restore it from the repository.")
    cells = [(cell["cell_type"], _source(cell), _tags(cell)) for cell in raw["cells"]]
    words = "\n\n".join(source for kind, source, _ in cells if kind == "markdown")
    title, question = _title_and_question(words)
    declared = [source for kind, source, tags in cells if kind == "code" and "parameters" in tags]
    return Notebook(
        path=path,
        name=path.stem,
        code=tuple(source for kind, source, _ in cells if kind == "code"),
        text=hash_json([(kind, source) for kind, source, _ in cells]),
        parameters=_parameters(path, declared[0]) if declared else {},
        title=title,
        question=question,
    )


def numbered_notebooks() -> list[Notebook]:
    """Read the notebooks of the study, `notebooks/NN_*.ipynb`, in order.

    Returns
    -------
    list of Notebook

    Raises
    ------
    RunError
        When there is none, or two carry one number.
    """
    folder = folders().notebooks
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise RunError(f"There is no numbered notebook in {folder}; restore the folder or set INSTRLIB_ROOT.")
    for first, second in itertools.pairwise(paths):
        if first.name[:2] == second.name[:2]:
            raise RunError(f"{first.name} and {second.name} carry one number; rename one of them.")
    return [read_notebook(path) for path in paths]


def renew_words(path: Path, executed: Path) -> None:
    """Bring the words and comments of an executed notebook up to date with its source; the outputs stay.

    Parameters
    ----------
    path : Path
        The notebook as it is now; its code must do what it did when it was executed.
    executed : Path
        The executed copy, which is replaced.
    """
    old = read_json(executed)
    cells = []
    for cell in _with_outputs(read_json(path)["cells"], old["cells"]):
        cells.append(cell)
        if "parameters" in _tags(cell):
            cells += filter(_is_injected, old["cells"])
    write_raw(executed, old | {"cells": cells})


def take_outputs(path: Path, executed: Path) -> None:
    """Replace a notebook by itself with the outputs of its executed copy, counted from 1 and without what varies.

    Parameters
    ----------
    path : Path
        The notebook, which is replaced.
    executed : Path
        The copy that papermill executed.
    """
    raw = read_json(path)
    cells = _with_outputs(raw["cells"], read_json(executed)["cells"])
    ran = [cell for cell in cells if cell.get("execution_count")]
    for count, cell in enumerate(ran, 1):
        for part in [cell, *cell["outputs"]]:
            if "execution_count" in part:
                part["execution_count"] = count
    write_raw(path, strip_volatile(raw | {"cells": cells}))


def strip_volatile(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook without what differs from run to run: times, paths, versions of the kernel.

    Parameters
    ----------
    raw : dict
        A notebook as JSON.

    Returns
    -------
    dict
        A copy; texts, outputs, tags and ids are kept.
    """
    raw = json.loads(json.dumps(raw))
    for part in [raw, *raw["cells"]]:
        for name in _VOLATILE:
            part.get("metadata", {}).pop(name, None)
    for cell in raw["cells"]:
        if not cell["metadata"].get("tags", True):
            del cell["metadata"]["tags"]  # papermill adds an empty list
    raw["metadata"] |= {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    return raw


def write_raw(path: Path, raw: dict[str, Any]) -> None:
    """Write a notebook as JSON in the layout that Jupyter writes, whole or not at all."""
    write_text(path, json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _with_outputs(cells: list[dict[str, Any]], executed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ran = (cell for cell in executed if cell["cell_type"] == "code" and not _is_injected(cell))
    return [
        cell | {name: run[name] for run in [next(ran)] for name in ("outputs", "execution_count")}
        if cell["cell_type"] == "code"
        else cell
        for cell in cells
    ]


def _is_injected(cell: dict[str, Any]) -> bool:
    return "injected-parameters" in _tags(cell)


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell.get("source", ""))


def _parameters(path: Path, source: str) -> dict[str, Any]:
    def refuse(line: int) -> RunError:
        return RunError(
            f"{path.name}: line {line} of the parameters cell is not a plain `name = literal`; "
            "compute derived values in the next cell."
        )

    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise refuse(error.lineno or 1) from None
    found = {}
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        try:
            (target,) = targets
            if not (isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name)):
                raise ValueError
            found[target.id] = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            raise refuse(statement.lineno) from None
    return found


def _title_and_question(words: str) -> tuple[str, str]:
    _, mark, after = f"\n{words}".partition("\n# ")
    if not mark:
        return "", ""
    title, _, rest = after.partition("\n")
    for paragraph in re.split(r"\n\s*\n", rest):
        text = " ".join(paragraph.split())
        if text and not text.startswith(("#", "|", "<")):
            return title.strip(), _MARKS.sub("", _MARKS.sub("", text)).strip()
    return title.strip(), ""
