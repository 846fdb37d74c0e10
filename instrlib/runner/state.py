"""The state of a study: its parameters, its lock, the inputs of each run, and what has changed since."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from instrlib.core.cache import code_hash, source_hash, versions
from instrlib.core.config import folders, get_profile
from instrlib.core.io import (
    ConfigError,
    CorpusError,
    InstrlibError,
    RunError,
    disk_errors,
    expanded,
    hash_file,
    hash_json,
    hash_tree,
    read_json,
)
from instrlib.data import corpora
from instrlib.runner.notebooks import Notebook, numbered_notebooks

RECORD = "study.json"
"""File in the folder of a run with its inputs. Runs outside a study have none, so a study repeats them."""

SEVERAL_LABELS = ("01_preprocessing", "02_baseline_cnn", "03_cutmix", "09_transfer_learning", "14_report")
"""The notebooks for corpora with several instruments per clip."""

HELD = "INSTRLIB_STUDY"
"""Environment variable with the name of the study whose lock the parent process holds."""

_FAILED, _FINISHED = {"failed"}, {"parts", "key", "text", "files", "keeps", "drawn"}


def checked(*, corpus: str, data: Any, profile: str, seeds: int) -> dict[str, Any]:
    """Return the parameters of a study, `data` as an absolute path; raise if corpus, folder or profile is unknown."""
    known = corpora.info(corpus)
    get_profile(profile)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds must be a whole number of at least 1, not {seeds!r}.")
    place = str(expanded(str(data)).absolute()) if data not in ("", None) else ""
    root = Path(place) if place else folders().data / corpus
    made_here = corpus == "rendered"  # its folder need not exist yet
    if root.is_file() or (not made_here and not (root.is_dir() and any(root.iterdir()))):
        raise CorpusError(f"No clips of {corpus!r} in {root}. {known.how_to_get}")
    return {"corpus": corpus, "data": place, "profile": profile, "seeds": seeds}


def why_unsuited(corpus: str, notebook: str) -> str:
    """Return why a notebook is not run for a corpus, or ""."""
    several = corpus in corpora.NAMES and corpora.info(corpus).multilabel
    return "it needs clips of one instrument" if several and notebook not in SEVERAL_LABELS else ""


@dataclass(frozen=True)
class State:
    """State of a notebook in a study, with what changed, how it failed, or why it is left out in `detail`.

    `state` is done, changed (it would be executed again), failed, running, stopped, never run, left out or unknown.
    """

    study: str
    notebook: str
    state: str
    detail: str = ""
    when: datetime | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class Current:
    """What a notebook depends on, and why it has to be executed ("" if it need not)."""

    parts: dict[str, Any]
    why: str


class Look:
    """Compares the notebooks of a study with their records, in order: each may depend on earlier ones."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], dict[str, str]] = {}
        self._keys: dict[str, str] = {}

    def at(self, study: str, notebook: Notebook, parameters: dict[str, Any]) -> Current:
        """Return the state of a notebook; call it for the notebooks in order."""
        place = parameters["corpus"], parameters["data"]
        if place not in self._files:
            self._files[place] = _files(*place)
        parts = {
            "code": {"its code": hash_json([source_hash(text) for text in notebook.code])},
            "library": {"the library": code_hash("studies")},
            "parameters": parameters,
            "versions": versions(),
            "files": self._files[place],
        }
        record = read_record(folder_of(study) / notebook.name)
        uses = {name: self._keys.get(name, "") for name in record.get("parts", {}).get("uses", {})}
        self._keys[notebook.name] = hash_json(parts | {"uses": uses})
        return Current(parts, _why(record, parts | {"uses": uses}, folder_of(study)))


def _files(corpus: str, data: str) -> dict[str, str]:
    """Return fingerprints of the corpus and of the other files that notebooks use."""
    from instrlib.models.embeddings import available, weights_folder
    from instrlib.studies.domains import on_this_machine

    # The rendered corpus depends on code and a seed only; its files are a cache.
    files = {"files of the corpus": hash_tree(Path(data or folders().data / corpus))} if corpus != "rendered" else {}
    if available():  # downloads now, otherwise the files would count as changed after the run
        files[f"networks in {weights_folder()}"] = hash_tree(weights_folder())
    logs = {path.name: hash_file(path) for path in sorted(folders().notebooks.glob("[0-9][0-9]_*.json"))}
    return files | logs | on_this_machine()


def _why(record: dict[str, Any], parts: dict[str, Any], study: Path) -> str:
    if "parts" not in record:
        return "it failed" if "failed" in record else "it has no finished run"
    changed = [
        name
        for kind, now in parts.items()
        for before in [record["parts"].get(kind, {})]
        for name in sorted({*now, *before})
        if now.get(name) != before.get(name)
    ]
    if changed:
        return f"changed: {', '.join(changed)}"
    lost = [name for name, size in record["files"].items() if _size(study / name) != size]
    lost += [str(folders().data / name) for name in record["keeps"] if not (folders().data / name).exists()]
    return f"missing or changed: {', '.join(lost)}" if lost else ""


def status() -> list[State]:
    """Return the state of every notebook in every local study, by study."""
    everything = numbered_notebooks()
    studies = sorted({path.parent.name for path in folders().runs.glob("[!.]*/[0-9][0-9]_*.ipynb")})
    return [state for study in studies for state in states_of(study, everything)]


def states_of(study: str, notebooks: Sequence[Notebook]) -> Iterator[State]:
    """Yield the state of each notebook in one study."""
    running, look = _is_locked(study), Look()
    records = {notebook.name: read_record(folder_of(study) / notebook.name) for notebook in notebooks}
    corpus = next((one["parts"]["parameters"]["corpus"] for one in records.values() if "parts" in one), "")
    for notebook in notebooks:
        name, record = notebook.name, records[notebook.name]
        ended = {"when": datetime.fromisoformat(record["ended"]), "duration_s": record["duration_s"]} if record else {}
        if why_not := why_unsuited(corpus, name):
            yield State(study, name, "left out", why_not)
        elif "failed" in record:
            yield State(study, name, "failed", record["failed"], **ended)
        elif record:
            try:
                why = look.at(study, notebook, record["parts"]["parameters"]).why
                yield State(study, name, "changed" if why else "done", why.removeprefix("changed: "), **ended)
            except (InstrlibError, KeyError, TypeError) as error:
                yield State(study, name, "unknown", str(error), **ended)
        elif copy_of(study, name).is_file():
            yield State(study, name, "running" if running else "stopped")
        else:
            yield State(study, name, "never run")


def published() -> list[tuple[str, str, int]]:
    """Return the published studies: name, the commits that made them, number of notebooks."""
    found = []
    for path in sorted(folders().reports.glob("[!.]*/results.json")):
        with contextlib.suppress(InstrlibError, KeyError, TypeError, AttributeError):
            entries = read_json(path)["notebooks"].values()
            commits = dict.fromkeys(entry["manifest"].get("commit") or "unknown" for entry in entries)
            found.append((path.parent.name, ", ".join(commits), len(entries)))
    return found


def folder_of(study: str) -> Path:
    """Return `runs/<study>`."""
    return folders().runs.absolute() / study


def copy_of(study: str, notebook: str) -> Path:
    """Return the path of the executed copy of a notebook."""
    return folder_of(study) / f"{notebook}.ipynb"


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def sizes_of(folder: Path, copy: Path) -> dict[str, int]:
    """Return the size of each file of a run, and of its executed copy."""
    files = [copy, *(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)]
    return {path.relative_to(folder.parent).as_posix(): path.stat().st_size for path in sorted(files)}


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a run, or {} if it is missing or damaged, so that the notebook is run again."""
    try:
        record = read_json(folder / RECORD)
    except InstrlibError:
        return {}
    ended = {"ended", "duration_s"}
    complete = isinstance(record, dict) and any(ended | kind <= set(record) for kind in (_FAILED, _FINISHED))
    return record if complete else {}


@contextlib.contextmanager
def locked(study: str) -> Iterator[None]:
    """Hold the lock of a study; raise `RunError` if another process holds it. The lock ends with the process."""
    import filelock

    if os.environ.get(HELD) == study:  # the parent process holds it
        yield
        return
    path = folder_of(study) / ".lock"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunError(f"The study {study} is already running; wait for it or stop it first.") from None
    try:
        yield
    finally:
        lock.release()


def _is_locked(study: str) -> bool:
    try:
        with locked(study):
            return False
    except RunError:
        return True
