"""One cache for all results: a key identifies the inputs, code and versions of a result."""

import ast
import contextlib
import functools
import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.core.io import (
    InstrlibError,
    hash_bytes,
    hash_file,
    hash_json,
    read_arrays,
    read_json,
    to_jsonable,
    write_arrays,
    write_json,
)

LAYERS = ("core", "audio", "data", "evaluation", "models", "studies")
"""The subpackages that make numbers; each may import those before it."""

ABOVE = {
    "charts": ("core",),
    "reporting": ("core", "charts"),
    "deploy": (*LAYERS, "charts", "reporting"),
    "runner": (*LAYERS, "charts", "reporting", "deploy"),
}
"""The subpackages that show numbers, and what each may import; no key of a number contains their code."""

BELOW = {layer: LAYERS[:number] for number, layer in enumerate(LAYERS)} | ABOVE

PACKAGE = Path(__file__).resolve().parents[1]

_SHOWING = (
    "jupyterlab papermill nbformat nbclient jupyter-client ipykernel ipython nbconvert nbval jupytext matplotlib "
    "seaborn pillow jinja2 pybtex gradio typst filelock requests typer rich tqdm"
)
"""Direct dependencies that change no number."""


def key(layer: str, **inputs: Any) -> str:
    """Return the key of a result: a hash of its inputs, of the code up to a layer, and of the installed versions.

    The code of `layer`, one of `LAYERS`, and of those before it counts, without comments, docstrings and messages.
    The inputs are everything else that determines the result: settings, keys of other results, hashes of files.
    """
    return hash_json({"inputs": inputs, "code": code_hash(layer), "versions": versions()})


def cached(path: Path, key: str, make: Callable[[], Any]) -> Any:
    """Return the result stored at `path` under this `key`, or compute it with `make` and store it atomically.

    `path` ends with ".npz" (`make` returns named arrays) or ".json" (`make` returns JSON values). A damaged result, or
    one with another key, is recomputed.
    """
    arrays = path.suffix == ".npz"
    try:
        stored = read_arrays(path) if arrays else read_json(path)
        if str(stored.pop("key", "")) == key:
            return stored if arrays else stored["value"]
    except (InstrlibError, AttributeError, KeyError, TypeError):  # missing, damaged or of another kind
        pass
    made = make()
    if arrays:
        made = {name: np.asarray(value) for name, value in made.items()}
        write_arrays(path, **made, key=key)
        return made
    write_json(path, {"key": key, "value": made})
    return to_jsonable(made)


def code_hash(layer: str) -> str:
    """Return the hash of the code of a subpackage and of those before it."""
    return hash_json({name: _package_hash(PACKAGE / name) for name in (*BELOW[layer], layer)})


@functools.cache
def _package_hash(folder: Path) -> str:
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            own = source_hash(path.read_text("utf-8")) if path.suffix == ".py" else hash_file(path)
            hashes[path.relative_to(folder).as_posix()] = own
    return hash_json(hashes)


def source_hash(source: str) -> str:
    """Return the hash of Python source, without comments, docstrings, layout and error messages."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # IPython magics
        return hash_bytes(source.encode())
    return hash_bytes(repr(_syntax(tree)).encode())


def _syntax(node: Any) -> Any:
    """Return a syntax tree as tuples that are the same in every version of Python."""
    if isinstance(node, list):
        return [_syntax(one) for one in node if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        fields["exc"] = node.exc.func
    if isinstance(node, ast.Call):
        fields["keywords"] = [one for one in fields["keywords"] if one.arg != "describe"]
        if getattr(node.func, "id", getattr(node.func, "attr", "")).endswith("Error"):
            fields["args"] = fields["keywords"] = []
    if isinstance(node, ast.Constant):
        fields["value"] = repr(node.value)
    skipped = ("ctx", "kind", "type_comment", "type_ignores")
    filled = {name: one for name, one in fields.items() if name not in skipped and one not in (None, [])}
    return type(node).__name__, [(name, _syntax(one)) for name, one in filled.items()]


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that can change a number, and of their dependencies."""
    found = {"python": platform.python_version()}
    waiting = [name for name in _needs("instrlib") if name not in _SHOWING.split()]
    if not waiting:  # the package is used without being installed
        waiting = [_plain_name(one.name) for one in importlib.metadata.distributions()]
    while waiting:
        name = waiting.pop()
        if name not in found:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # optional or of another platform
                found[name] = importlib.metadata.version(name)
                waiting += _needs(name)
    return dict(sorted(found.items()))


def _needs(name: str) -> list[str]:
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [_plain_name(re.match(r"[\w.-]+", line)[0]) for line in lines if "extra ==" not in line]


def _plain_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def commit() -> str:
    """Return the commit of the clone of this package, with "+" if the package was edited; else "unknown"."""

    def git(*command: str) -> str:
        run = subprocess.run(["git", *command], cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=10)
        return run.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != PACKAGE.parent:
            return "unknown"  # a virtual environment inside another repository
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
