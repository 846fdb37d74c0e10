"""Imports follow the order of `cache.FLOORS`, and modules do not import each other in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

from instrlib.core.cache import BELOW, PACKAGE


def modules() -> dict[str, Path]:
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}


def imports(path: Path, known: set[str]) -> set[str]:
    """Return the modules that a file imports when it runs, wherever the statement is."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            inside = name.removeprefix("instrlib.")
            if name.startswith("instrlib."):
                found.add(inside if inside in known else inside.rpartition(".")[0])
    return found & known


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    paths = modules()
    return {name: imports(path, set(paths)) for name, path in paths.items()}


def violations(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return the imports that do not run down, as pairs of modules."""

    def allowed(name: str, used: str) -> bool:
        floor, below = name.partition(".")[0], used.partition(".")[0]
        return floor == below or below in BELOW.get(floor, ())

    return {(name, used) for name, uses in graph.items() for used in uses if not allowed(name, used)}


def test_imports_run_down_the_floors_only(graph):
    assert not violations(graph)


def test_there_is_no_circle(graph):
    list(graphlib.TopologicalSorter(graph).static_order())


def test_every_subpackage_has_its_place(graph):
    assert {name.partition(".")[0] for name in graph if "." in name} <= set(BELOW)


def test_an_import_upwards_is_found():
    assert violations({"audio.decode": {"models.train", "core.io"}}) == {("audio.decode", "models.train")}
