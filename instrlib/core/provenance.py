"""What a result was made from: the code with the modules it uses, the versions, the files, the commit."""

import ast
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from instrlib.core.files import hash_bytes, hash_json

VERSIONED = (
    "instrlib",
    "tensorflow",
    "keras",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "librosa",
    "numpy",
    "scipy",
    "scikit-learn",
    "soundfile",
    "soxr",
    "pretty-midi",
    "tinysoundfont",
)
"""The packages that decide the numbers."""

_PACKAGE = Path(__file__).resolve().parent.parent
_MAGIC = re.compile(r"^\s*[%!?].*$", re.MULTILINE)
_NAME = re.compile(r"\w+(\.\w+)+")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers; one that is not there is left out."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the clone that this package lies in, with "+" when the package differs; "" outside a clone.

    Notebooks and results differ while a study is being written; the hashes of a notebook's code tell what it was.
    """
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + "+" if _git("status", "--porcelain", "--", ".") else head
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*command: str) -> str:
    run = subprocess.run(["git", *command], cwd=_PACKAGE, capture_output=True, text=True, check=True, timeout=10)
    return run.stdout.strip()


def code_fingerprint(sources: Iterable[str], *, package: Path = _PACKAGE) -> str:
    """Hash source texts together with all modules of a package that they use, directly or through others.

    Parameters
    ----------
    sources, package
        See `code_hashes`.

    Returns
    -------
    str
        64 hex digits.

    Examples
    --------
    >>> code_fingerprint(["x = 1"]) == code_fingerprint(["x = 1  # one"])
    True
    >>> code_fingerprint(["x = 1"]) == code_fingerprint(["x = 2"])
    False
    """
    return hash_json(code_hashes(sources, package=package))


def code_hashes(sources: Iterable[str], *, package: Path = _PACKAGE) -> dict[str, str]:
    """Hash source texts, and one by one the modules of a package that they use, directly or through others.

    Comments, docstrings and layout do not count, and neither does a module that nothing here imports. Imports are
    found in the syntax tree, those inside functions and those given as a string ("instrlib.audio.decode") included.

    Parameters
    ----------
    sources : iterable of str
        Python texts, such as the code cells of a notebook. Lines of IPython magic are passed over when imports are
        looked for; a text that is not Python counts as it stands.
    package : Path
        Folder of the package whose modules are followed.

    Returns
    -------
    dict of str
        Hashes by name: "code" for the texts, dotted names for the modules.
    """
    sources = list(sources)
    texts = {name: _bare(_text(name, package)) for name in used_modules(sources, package=package)}
    return {"code": hash_json([_bare(source) for source in sources])} | {k: hash_json(v) for k, v in texts.items()}


def used_modules(sources: Iterable[str], *, package: Path = _PACKAGE) -> list[str]:
    r"""List the modules of a package that source texts use, directly or through others.

    Parameters
    ----------
    sources : iterable of str
        Python texts.
    package : Path
        Folder of the package.

    Returns
    -------
    list of str
        Dotted names, sorted.

    Examples
    --------
    >>> used_modules(["def f():\n    from instrlib.core import errors"])
    ['instrlib', 'instrlib.core', 'instrlib.core.errors']
    """
    seen: set[str] = set()
    waiting = [name for source in sources for name in _imports(source, "", package)]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_imports(_text(name, package), name, package))
    return sorted(seen)


def tree_fingerprint(root: Path) -> str:
    """Hash the names, sizes and times of change of all files under a folder, without reading them.

    Parameters
    ----------
    root : Path
        A folder; hidden files and folders in it do not count, and neither does a file that is still being downloaded
        (".part"). A folder that is missing has a hash, too.

    Returns
    -------
    str
        64 hex digits.
    """
    rows = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if not (name.startswith(".") or name.endswith(".part")):
                path = Path(folder, name)
                stat = path.stat() if path.exists() else path.lstat()
                rows.append((path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
    return hash_bytes(repr(rows).encode())  # repr, because a name need not be UTF-8


@functools.cache
def _bare(source: str) -> str:
    """Return the syntax of a text without what does not change its work."""
    tree = _parse(source)
    if tree is None:
        return source
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _text(name: str, package: Path) -> str:
    return _file(name, package).read_text(encoding="utf-8")


def _file(name: str, package: Path) -> Path:
    base = package.parent.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@functools.cache
def _imports(source: str, module: str, package: Path) -> tuple[str, ...]:
    """Name the package's modules that a text (of `module`) imports, each with the packages it lies in."""
    tree = _parse(source) or _parse(_MAGIC.sub("", source))
    found = set()
    for node in _run_nodes(tree) if tree else ():
        for dotted in _dotted(node, module, package):
            parts = dotted.split(".")
            names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
            if parts[0] == package.name:
                found.update(name for name in names if _file(name, package).is_file())
    return tuple(sorted(found))


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through all that is run: what is imported for type hints alone decides no number."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _run_nodes(child)


def _dotted(node: ast.AST, module: str, package: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            inside = module.split(".")
            is_package = _file(module, package).name == "__init__.py"
            above = inside[: len(inside) - node.level + is_package]
            base = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
        return [node.value]
    return []
