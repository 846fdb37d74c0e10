"""The committed notebooks: one form, short cells, executed to the end, guarded, and free of what the library lacks."""

import ast
import importlib
import inspect
import types
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
MAX_CELL_LINES, MAX_LINES, MAX_WORDS, MAX_BYTES = 25, 250, 1_000, 1_500_000
PARAMETERS = {"corpus": "rendered", "data": "", "profile": "quick", "seeds": 3}


@pytest.fixture(params=[*NOTEBOOKS, FOLDER / "demo.ipynb"], ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def numbered(path):
    if path not in NOTEBOOKS:
        pytest.skip("the demo is no part of a study")


def test_the_notebooks_are_numbered_from_one_without_gaps():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


def test_it_is_valid_and_small(path, notebook, code):
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    lengths = [len(cell.source.strip().splitlines()) for cell in code]
    assert max(lengths) <= MAX_CELL_LINES and sum(lengths) <= MAX_LINES
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    assert words <= MAX_WORDS


def test_it_opens_with_number_title_question_and_what_goes_in_and_out(path, notebook):
    numbered(path)
    lines = [line for line in notebook.cells[0].source.splitlines() if line]
    assert lines[0].startswith(f"# {path.name[:2]} · ")
    assert lines[1].startswith("**") and lines[1].endswith("?**")
    assert "| reads |" in notebook.cells[0].source.lower() and "| writes |" in notebook.cells[0].source.lower()


def test_its_parameters_are_literals_with_the_defaults_of_the_quick_study(path, code):
    numbered(path)
    (tagged,) = [cell for cell in code if "parameters" in tags(cell)]
    assert tagged is code[0]
    found = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged.source).body}
    assert found == PARAMETERS


def test_at_most_two_code_cells_follow_each_other_without_a_reason_before(notebook):
    bare = 0
    for before, cell in pairwise(notebook.cells):
        bare = bare + 1 if before.cell_type == cell.cell_type == "code" else 0
        assert bare <= 2, cell.source


def test_it_was_executed_in_order_to_its_end_without_errors_or_stderr(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.source
            data = output.get("data", {})
            assert "image/png" in data or "<Figure size" not in data.get("text/plain", ""), "a figure without a picture"


def test_its_figures_are_in_it(path, code):
    numbered(path)
    drawn = [cell for cell in code if "run.figure(" in cell.source]
    images = [output for cell in drawn for output in cell.outputs if "image/png" in output.get("data", {})]
    assert drawn and len(images) >= len(drawn)


def test_its_checked_cells_compare_numbers_with_the_published_ones(path, code):
    """nbval compares the outputs of these cells; one of them compares a number with the published one."""
    numbered(path)
    checked = [number for number, cell in enumerate(code) if "nbval-check-output" in tags(cell)]
    if path.stem != "14_report":
        assert any("run.near_record(" in code[number].source for number in checked)
    for number in checked:
        said = "".join(output.get("text", "") for output in code[number].outputs)
        assert said.strip() and "nothing is recorded" not in said


def test_it_uses_names_and_keywords_that_the_library_has(code):
    tree = ast.parse("\n".join(cell.source for cell in code))
    known: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("instrlib"):
            for one in node.names:
                module = importlib.import_module(node.module)
                found = getattr(module, one.name, None) or importlib.import_module(f"{node.module}.{one.name}")
                known[one.asname or one.name] = found
    known = {name: one for name, one in known.items() if name not in {node.id for node in ast.walk(tree) if
             isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}}  # fmt: skip

    def looked_up(node: ast.expr) -> object:
        if isinstance(node, ast.Attribute) and isinstance(known.get(getattr(node.value, "id", "")), types.ModuleType):
            return getattr(known[node.value.id], node.attr)
        return known.get(getattr(node, "id", ""))

    for node in ast.walk(tree):
        found = looked_up(node.func if isinstance(node, ast.Call) else node)
        is_error = isinstance(found, type) and issubclass(found, Exception)
        if isinstance(node, ast.Call) and callable(found) and not is_error:
            inspect.signature(found).bind_partial(**{one.arg: 0 for one in node.keywords if one.arg})
