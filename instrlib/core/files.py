"""Files that are either whole or not there: atomic writes, hashes, JSON and array files without pickle."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.core.errors import DiskError, InstrlibError

_WAY_OUT = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file grew over the size that is allowed; raise the limit",
    errno.EACCES: "there is no permission to write; choose another folder or change the permissions",
    errno.EPERM: "there is no permission to write; choose another folder or change the permissions",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into one sentence.

    Parameters
    ----------
    path : Path
        What was being written; named in the message.

    Raises
    ------
    DiskError
        When the block raises an `OSError` of a full, read-only or forbidden disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _WAY_OUT:
            raise
        message = f"Cannot write {path}: {_WAY_OUT[error.errno]}, then run the same command again."
        raise DiskError(message) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well, it is moved into place.

    A reader sees the old file or the new one, never a part; a kill leaves the old one.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made when missing.

    Yields
    ------
    Path
        The temporary name to write to, with the same ending as `path`.

    Raises
    ------
    DiskError
        When the disk is full, read-only or forbidden.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Numpy values and dataclasses become plain ones, and a number that is not finite becomes null.
    """
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InstrlibError
        When the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InstrlibError(f"{path} is missing; run the step that writes it first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InstrlibError(f"{path} is not readable as JSON ({error}); delete it and run that step again.") from None


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays (numbers, booleans, strings; no objects) to one compressed npz, whole or not at all."""
    whole = {name: np.asarray(value) for name, value in arrays.items()}
    objects = [name for name, value in whole.items() if value.dtype == object]
    if objects:
        raise TypeError(f"arrays of objects are not stored: {', '.join(objects)}")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **whole)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; nothing is unpickled.

    Raises
    ------
    InstrlibError
        When the file is missing or is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise InstrlibError(f"{path} is missing; run the step that writes it first.") from None
    except Exception as error:
        raise InstrlibError(f"{path} is not readable as arrays ({error}); delete it and run that step again.") from None


def kept_arrays(path: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
    """Make named arrays once: asked again with the same key, give those that were kept.

    Parameters
    ----------
    path : Path
        Where they are kept; see `write_arrays`.
    key : str
        A hash of all that decides them. With another key they are made anew.
    make : callable
        Makes them.

    Returns
    -------
    dict of str to np.ndarray
    """
    if path.is_file():
        kept = read_arrays(path)
        if str(kept.pop("key", "")) == key:
            return kept
    made = {name: np.asarray(value) for name, value in make().items()}
    write_arrays(path, key=key, **made)
    return made


def hash_bytes(*parts: bytes) -> str:
    """SHA-256 of the parts, each preceded by its length, as 64 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as 64 hex digits."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hash_bytes(text.encode())


def hash_file(path: Path, *, algorithm: str = "sha256") -> str:
    """Hash of a file's content in hex, read block by block."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def plain(value: Any) -> Any:
    """Make numpy values and dataclasses plain ones, for JSON; a number that is not finite becomes None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    return str(value) if isinstance(value, Path) else value
