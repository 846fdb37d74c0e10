"""Errors that a user can cause, atomic writes, hashes, JSON and arrays without pickle, paths and names."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class InstrlibError(Exception):
    """Base class; the command line prints the message in one line and exits with status 2."""


class AudioError(InstrlibError):
    """A file that cannot be used as audio: unreadable, empty, silent, not finite."""


class CorpusError(InstrlibError):
    """A corpus that is missing, incomplete, altered or has another layout."""


class ConfigError(InstrlibError):
    """A setting that is unknown or out of range."""


class SplitError(InstrlibError):
    """A split that is impossible, for example because a class has too few groups."""


class LeakError(SplitError):
    """A group that occurs in more than one part of a split."""


class StoreError(InstrlibError):
    """A feature store that is damaged or belongs to another corpus or configuration."""


class RunError(InstrlibError):
    """A run, study, model or prediction that is missing, incomplete, invalid, in use, or stopped by a failed cell."""


class DiskError(InstrlibError):
    """A file that cannot be written: no space, no permission, a read-only disk."""


class WorkerError(InstrlibError):
    """Worker processes or a cluster that failed: killed, absent, or running other code."""


_REFUSED = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "ENOTDIR")}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise a `DiskError` that names `path` when the block fails on a full, read-only or forbidden disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        reason = (error.strerror or "refused").lower()
        raise DiskError(
            f"Cannot write {path}: {reason}; free some space or choose another folder, then run the same command again."
        ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, with the same suffix; move it to `path` when the block succeeds.

    Readers see the old or the new file, never a part; a killed process leaves the old one. Missing folders are created,
    and permissions follow the umask.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def aside(folder: Path) -> Path:
    """Where `atomic_folder` keeps the old folder for a moment; the only one after a kill in this moment."""
    return folder.with_name(f".{folder.name}.old")


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block succeeds; the next call repairs what a kill left."""
    new, old = folder.with_name(f".{folder.name}.new"), aside(folder)
    with disk_errors(folder):
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value`, converted by `to_jsonable`, as indented JSON, atomically."""
    write_text(path, json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise `InstrlibError` when it is missing or damaged."""
    return _read(path, "JSON", lambda: json.loads(Path(path).read_text(encoding="utf-8")))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file, without unpickling; raise `InstrlibError` when it is missing or damaged."""
    return _read(path, "npz", lambda: dict(np.load(path, allow_pickle=False)))


def _read(path: Path, kind: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except FileNotFoundError:
        raise InstrlibError(f"{path} is missing; run the step that writes it first.") from None
    except Exception as error:  # damage can cause any error
        raise InstrlibError(
            f"{path} is not a valid {kind} file ({error}); delete it and run the step that writes it again."
        ) from None


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays of numbers, booleans or strings to a compressed npz file, atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def to_jsonable(value: Any) -> Any:
    """Return `value` with plain values, strings as keys, tables as dictionaries of rows, and None for NaN."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "to_dict"):  # a table or a series of pandas
        value = value.to_dict("index") if hasattr(value, "columns") else value.to_dict()
    if isinstance(value, dict):
        keys = [" / ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in value]
        return dict(zip(keys, map(to_jsonable, value.values()), strict=True))
    if isinstance(value, list | tuple):
        return [to_jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def hash_bytes(*parts: bytes) -> str:
    """Return the SHA-256 of the parts, each preceded by its length, as 64 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, as 64 hex digits."""
    text = json.dumps(to_jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hash_bytes(text.encode())


def hash_file(path: Path, *, algorithm: str = "sha256") -> str:
    """Return the hash of a file's content in hex, read block by block."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def hash_tree(root: Path) -> str:
    """Return a hash of names, sizes and times of the files below a folder, except hidden and ".part" files."""
    rows, seen = [], set()
    for folder, names, files in os.walk(root, followlinks=True):
        above = os.path.realpath(folder) in seen  # a link to a folder that was visited already
        seen.add(os.path.realpath(folder))
        names[:] = [] if above else sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if not (name.startswith(".") or name.endswith(".part")):
                path = Path(folder, name)
                stat = path.stat() if path.exists() else path.lstat()
                rows.append((path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
    return hash_bytes(repr(rows).encode())  # repr, because names may not be valid UTF-8


def slug(name: str) -> str:
    """Return a name as a file name: lower-case letters and digits, "-" and "_".

    Two names can have the same slug; callers that use it for files check for duplicates.
    """
    return re.sub(r"\W+", "-", name.lower()).strip("-") or "unnamed"


def expanded(place: Path | str, variable: str = "") -> Path:
    """Return a path with the home folder in place of `~`; in an environment variable, only absolute paths are valid."""
    try:
        path = Path(place).expanduser()
    except RuntimeError:
        what = f"{variable}: {place}" if variable else place
        raise ConfigError(f"{what} begins with an unknown home folder; use an absolute path.") from None
    if variable and not path.is_absolute():
        raise ConfigError(f"{variable} is {place}, which is not absolute; use an absolute path.")
    return path


def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of different shapes along a new first axis, padded with NaN."""
    items = [np.asarray(array, dtype=float) for array in arrays]
    stacked = np.full((len(items), *np.max([item.shape for item in items], axis=0)), np.nan)
    for place, item in zip(stacked, items, strict=True):
        place[tuple(slice(size) for size in item.shape)] = item
    return stacked


def in_parts(items: Sequence[Any], size: int) -> list[Any]:
    """Split a sequence into parts of `size`, in order."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def listed(names: Iterable[str]) -> str:
    """Return names joined as in a sentence: "a, b and c"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def spaced(name: object) -> str:
    """Return a name with spaces: "acoustic guitar" for "acoustic_guitar"."""
    return str(name).replace("_", " ")
