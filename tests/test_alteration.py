"""Every guard of a committed notebook looks at a result: what it prints is computed, and a record is among it.

That the guards fail when a result is another is shown in test_smoke_study.py, which has trained networks at hand: for
three notebooks nbval is run over altered results. Here the same is made sure of, as far as the text of a cell tells it,
for all of them, and it is shown that this test tells a constant from a result.
"""

import ast

import nbformat
import pytest
from alteration import checked_cells
from committed import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def names_in(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def bound_by(statement: ast.stmt) -> tuple[set[str], ast.AST | None]:
    """Return the names that a statement assigns, and what it computes them from."""
    if isinstance(statement, ast.Assign):
        return set().union(*map(names_in, statement.targets)), statement.value
    if isinstance(statement, ast.AugAssign | ast.AnnAssign):
        return names_in(statement.target), statement.value
    return set(), None


def constant_prints(cells: list[str], checked: list[int]) -> list[str]:
    """Return what the checked cells print that no computation decides.

    A name is computed when what it was assigned comes from a call or from a computed name; settings, constants and
    what is imported are not. What is printed holds such a name or a call of its own.
    """
    computed: set[str] = set()
    found = []
    for number, source in enumerate(cells):
        for statement in ast.parse(source).body:
            names, value = bound_by(statement)
            if value is not None and is_computed(value, computed):
                computed |= names
            if number in checked:
                prints = [node for node in ast.walk(statement) if is_call(node) and names_in(node.func) == {"print"}]
                found += [ast.unparse(node) for node in prints if not is_computed(ast.Tuple(node.args), computed)]
    return found


def is_computed(node: ast.AST, computed: set[str]) -> bool:
    return bool(names_in(node) & computed) or any(map(is_call, ast.walk(node)))


def is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


def sources(path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def test_a_constant_is_told_from_a_result():
    cells = ["seeds = 3\nlimit = 2 * seeds", "score = measure()\nbest = score + 1", "print('all is well: yes')"]
    cells += ["print(f'{limit} at most')\nprint(f'{best:.2f}')", "print('right:', 'yes' if best > 1 else 'no')"]
    assert constant_prints(cells, [2, 3, 4]) == ["print('all is well: yes')", "print(f'{limit} at most')"]
    assert constant_prints(cells, [4]) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_guard_prints_is_computed(path):
    checked = checked_cells(path)
    assert len(checked) >= 3
    assert constant_prints(sources(path), checked) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_guard_at_least_compares_a_number_with_the_published_one(path):
    cells = sources(path)
    compared = [cells[number] for number in checked_cells(path) if "run.near_record(" in cells[number]]
    assert compared
    assert all("tolerance=" in cell for cell in compared)
