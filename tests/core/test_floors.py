"""Imports follow the order of `cache.BELOW`, and modules do not import each other in a circle."""

import ast
import graphlib
from pathlib import Path

from instrlib.core.cache import BELOW, PACKAGE


def imports(path: Path, known: set[str]) -> set[str]:
    """Return the modules that a file imports when it runs, wherever the statement is."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    inside = {name.removeprefix("instrlib.") for name in found}
    return {name if name in known else name.rpartition(".")[0] for name in inside} & known


def test_imports_run_down_the_layers_only_and_not_in_a_circle():
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    named = {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {name: imports(path, set(named)) - {name} for name, path in named.items()}
    layer = {name: name.partition(".")[0] for name in graph}
    pairs = {(name, used) for name, uses in graph.items() for used in uses}
    assert not {(a, b) for a, b in pairs if layer[b] not in (layer[a], *BELOW.get(layer[a], ()))}
    list(graphlib.TopologicalSorter(graph).static_order())
    assert {name.partition(".")[0] for name in graph if "." in name} <= set(BELOW)
