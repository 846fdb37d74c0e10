"""The committed notebooks read as pages and can be trusted: one form, executed, no logic of their own."""

import ast
import importlib
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from committed import results

from instrlib.core.words import bullets

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MAX_LINES = 15
MAX_BYTES = 1_500_000
PARAMETERS = {"corpus": "rendered", "data": "", "profile": "quick", "seeds": 3}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def test_the_notebooks_are_numbered_from_one_without_gaps():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


def test_it_is_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES


def test_it_opens_with_number_title_question_and_what_goes_in_and_out(path, notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    lines = [line for line in first.source.splitlines() if line]
    assert lines[0].startswith(f"# {path.name[:2]} · ")
    assert lines[1].startswith("**") and lines[1].endswith("?**")
    assert "| reads |" in first.source and "| writes |" in first.source


def test_its_parameters_are_flat_literals_with_the_defaults_of_the_quick_study(code):
    tagged = [cell for cell in code if "parameters" in tags(cell)]
    assert len(tagged) == 1 and tagged[0] is code[0]
    assignments = ast.parse(tagged[0].source).body
    assert all(isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) for node in assignments)
    assert {node.targets[0].id: node.value.value for node in assignments} == PARAMETERS


def test_a_cell_is_a_call_a_table_or_a_figure(code):
    for cell in code:
        assert len(cell.source.strip().splitlines()) <= MAX_LINES, cell.source
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, definitions)], cell.source


def test_every_second_code_cell_at_most_stands_without_a_reason_before_it(notebook):
    bare = 0
    for before, cell in pairwise(notebook.cells):
        bare = bare + 1 if before.cell_type == cell.cell_type == "code" else 0
        assert bare <= 2, f"three code cells in a row without a word before: {cell.source}"


def test_it_was_executed_in_order_to_its_end_without_errors_or_stderr(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source


def test_at_least_three_cells_are_checked_and_each_says_something(code):
    checked = [cell for cell in code if "nbval-check-output" in tags(cell)]
    assert len(checked) >= 3
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in checked]
    assert all(text.strip() for text in said)
    assert not any("nothing is recorded" in text for text in said), "execute it again: it was compared with nothing"


def test_what_it_found_is_computed_and_the_last_cell_prints_the_versions(notebook, code):
    titles = [cell.source.splitlines()[0] for cell in notebook.cells if cell.cell_type == "markdown"]
    assert titles.index("## What we found") < titles.index("## What was written")
    found = notebook.cells[[cell.source.splitlines()[0] for cell in notebook.cells].index("## What we found") + 1]
    assert found.cell_type == "code" and "findings." in found.source
    assert "versions()" in code[-1].source
    assert "tensorflow" in code[-1].outputs[0].data["text/plain"]


def test_what_it_found_is_word_for_word_what_the_results_hold(path, notebook):
    titles = [cell.source.splitlines()[0] for cell in notebook.cells]
    shown = notebook.cells[titles.index("## What we found") + 1].outputs
    entries = [numbers[path.stem] for numbers in results("rendered-quick") if path.stem in numbers]
    said = [output.data["text/markdown"] for output in shown if "text/markdown" in output.get("data", {})]
    assert "\n".join(said) in [bullets(entry["metrics"]["findings"]) for entry in entries]


def test_its_figures_are_in_it(code):
    drawn = [cell for cell in code if "run.figure(" in cell.source]
    assert drawn
    for cell in drawn:
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(images) == 1, cell.source


@pytest.mark.parametrize("path", sorted(NOTEBOOKS[0].parent.glob("*.ipynb")), ids=lambda path: path.stem)
def test_all_that_it_calls_in_the_library_is_there(path):
    """A name that was changed in the library alone is told in seconds, before the notebooks are executed."""
    cells = nbformat.read(path, as_version=4).cells
    nodes = list(ast.walk(ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("instrlib")]
    found = {name.asname or name.name: _found(node.module, name.name) for node in imports for name in node.names}
    asked = [(node.value.id, node.attr) for node in nodes if isinstance(node, ast.Attribute) and _named(node.value)]
    missing = [f"{name}.{what}" for name, what in asked if name in found and not hasattr(found[name], what)]
    assert imports
    assert not missing


def _named(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def _found(module: str, name: str):
    within = importlib.import_module(module)
    return getattr(within, name) if hasattr(within, name) else importlib.import_module(f"{module}.{name}")
