"""The committed notebooks: one form, short cells, executed to the end, guarded, and free of what the library lacks."""

import ast
import importlib
import inspect
import types
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
MAX_CELL_LINES, MAX_LINES, MAX_WORDS, MAX_BYTES = 25, 250, 1_000, 1_500_000
PARAMETERS = {"corpus": "rendered", "data": "", "profile": "quick", "seeds": 3}


def read(path):
    """Return a notebook and its code cells."""
    notebook = nbformat.read(path, as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


each = pytest.mark.parametrize("path", [*NOTEBOOKS, FOLDER / "demo.ipynb"], ids=lambda path: path.stem)
numbered = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_the_notebooks_are_numbered_from_one_without_gaps():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


@each
def test_it_is_valid_and_small_and_explains_its_code(path):
    notebook, code = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    lengths = [len(cell.source.strip().splitlines()) for cell in code]
    assert max(lengths) <= MAX_CELL_LINES and sum(lengths) <= MAX_LINES
    assert sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown") <= MAX_WORDS
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert "cccc" not in kinds, "more than three code cells in a row"


@numbered
def test_it_opens_with_its_question_and_parameters_that_are_literals(path):
    notebook, code = read(path)
    lines = [line for line in notebook.cells[0].source.splitlines() if line]
    assert lines[0].startswith(f"# {path.name[:2]} · ") and lines[1].startswith("**") and lines[1].endswith("?**")
    assert all(what in notebook.cells[0].source.lower() for what in ("| reads |", "| writes |"))
    assert [cell for cell in code if "parameters" in cell.metadata.get("tags", [])] == code[:1]
    found = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(code[0].source).body}
    assert found == PARAMETERS


@each
def test_it_was_executed_in_order_to_its_end_without_errors_or_stderr(path):
    _, code = read(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.source
            data = output.get("data", {})
            assert "image/png" in data or "<Figure size" not in data.get("text/plain", ""), "a figure without a picture"


@numbered
def test_its_figures_are_in_it_and_nbval_compares_a_number_with_the_published_one(path):
    _, code = read(path)
    drawn = [cell for cell in code if "run.figure(" in cell.source]
    images = [output for cell in drawn for output in cell.outputs if "image/png" in output.get("data", {})]
    assert drawn and len(images) >= len(drawn)
    checked = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert path.stem == "14_report" or any("run.near_record(" in cell.source for cell in checked)
    for cell in checked:
        said = "".join(output.get("text", "") for output in cell.outputs)
        assert said.strip() and "nothing is recorded" not in said


@each
def test_it_uses_names_and_keywords_that_the_library_has(path):
    tree = ast.parse("\n".join(cell.source for cell in read(path)[1]))
    known: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("instrlib"):
            for one in node.names:
                module = importlib.import_module(node.module)
                found = getattr(module, one.name, None) or importlib.import_module(f"{node.module}.{one.name}")
                known[one.asname or one.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.pop(node.id, None)

    def looked_up(node: ast.expr) -> object:
        if isinstance(node, ast.Attribute) and isinstance(known.get(getattr(node.value, "id", "")), types.ModuleType):
            return getattr(known[node.value.id], node.attr)
        return known.get(getattr(node, "id", ""))

    for node in ast.walk(tree):
        found = looked_up(node.func if isinstance(node, ast.Call) else node)
        is_error = isinstance(found, type) and issubclass(found, Exception)
        if isinstance(node, ast.Call) and callable(found) and not is_error:
            inspect.signature(found).bind_partial(**{one.arg: 0 for one in node.keywords if one.arg})
