"""Notebook files: code, parameters and heading, execution with papermill, and outputs."""

import ast
import json
import logging
import os
import re
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.core.cache import source_hash
from instrlib.core.config import folders
from instrlib.core.io import RunError, disk_errors, hash_json, read_json, write_text
from instrlib.reporting.cards import title_and_question

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

_QUIET = {  # keeps warnings and progress bars out of notebooks
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm misses ipywidgets even if it shows nothing
}


@dataclass(frozen=True)
class Notebook:
    """A notebook: the hash of its code, the default values of its parameters, and its heading."""

    path: Path
    code: str
    parameters: dict[str, Any]
    title: str
    question: str


def read_notebook(path: Path) -> Notebook:
    """Read a notebook; raise `RunError` if it is none or its parameters are not lines `name = literal`."""
    try:
        cells = [(cell["cell_type"], "".join(cell["source"]), _tags(cell)) for cell in read_json(path)["cells"]]
        lines = [ast.parse(source).body for kind, source, tags in cells if kind == "code" and "parameters" in tags]
        parameters = {line.targets[0].id: ast.literal_eval(line.value) for cell in lines for line in cell}
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError) as error:
        raise RunError(f"{path.name} is no notebook whose parameters are lines `name = literal` ({error}).") from None
    code = hash_json([source_hash(source) for kind, source, _ in cells if kind == "code"])
    words = "\n\n".join(source for kind, source, _ in cells if kind == "markdown")
    return Notebook(path, code, parameters, *title_and_question(words))


def numbered_notebooks() -> dict[str, Notebook]:
    """Read the notebooks of the study, `notebooks/NN_*.ipynb`, in order; raise `RunError` if there are none."""
    paths = sorted(folders().notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise RunError(f"No numbered notebooks in {folders().notebooks}; restore the folder or set INSTRLIB_ROOT.")
    return {path.stem: read_notebook(path) for path in paths}


def execute(
    notebook: Path, output: Path, *, parameters: dict[str, Any], limit_s: float, environment: dict[str, str]
) -> None:
    """Execute a notebook in a new kernel, in the notebook's folder, and write the executed copy to `output`.

    `RunError` names notebook and cell if a cell raises, the kernel dies or does not start, or `limit_s` has passed.
    """
    import papermill
    from jupyter_client import AsyncKernelManager
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:
            variables = os.environ | environment | _QUIET
            await super().start_kernel(stderr=subprocess.DEVNULL, env=variables, **options)  # its log on the terminal

    for name in ("papermill", "asyncio"):  # asyncio reports tasks that waited for an interrupted kernel
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    deadline, started = time.monotonic() + limit_s, []
    with warnings.catch_warnings(), disk_errors(output):
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                notebook,
                output,
                parameters,
                kernel_name="python3",
                language="python",
                cwd=notebook.parent.absolute(),
                progress_bar=sys.stderr.isatty(),
                on_cell_start=lambda cell, cell_index: started.append(cell_index),
                kernel_manager_class=Manager,
                timeout_func=lambda cell: max(deadline - time.monotonic(), 0.01),
            )
        except PapermillExecutionError as error:
            where, last = f"{notebook.stem}: cell {started[-1] + 1} (In [{error.exec_count}])", error.evalue.strip()
            line = f": {last.splitlines()[-1]}" if last else ""
            raise RunError(f"{where} failed: {error.ename}{line}; see {output}.") from None
        except (CellTimeoutError, RuntimeError) as error:
            if not started:
                raise RunError(f"{notebook.stem}: the notebook's kernel did not start: {error}") from error
            reason = f"was stopped: the notebook's limit is {limit_s:g} s"
            if not isinstance(error, CellTimeoutError):
                reason = "lost its kernel, usually for lack of memory; use a smaller profile or INSTRLIB_WORKERS=1"
            raise RunError(f"{notebook.stem}: cell {started[-1] + 1} {reason}; see {output}.") from None


def take_outputs(path: Path, executed: Path) -> None:
    """Copy the outputs of the executed copy into a notebook, without times, paths and versions.

    Cells that compare a number with the published one print "yes", because this copy is then the published one.
    """
    raw, ran = read_json(path), read_json(executed)
    code = [cell for cell in raw["cells"] if cell["cell_type"] == "code"]
    made = [cell for cell in ran["cells"] if cell["cell_type"] == "code" and "injected-parameters" not in _tags(cell)]
    for count, (cell, other) in enumerate(zip(code, made, strict=True), 1):
        cell |= {"outputs": other["outputs"], "execution_count": count}
        for part in cell["outputs"]:
            part.get("metadata", {}).pop("widgets", None)
            if "execution_count" in part:
                part["execution_count"] = count
            if "nbval-check-output" in _tags(cell) and "text" in part:
                text = re.sub(r"no, \S+ against \S+|nothing is recorded yet", "yes", "".join(part["text"]))
                part["text"] = text.splitlines(keepends=True)
    raw["metadata"] = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    write_text(path, json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])
