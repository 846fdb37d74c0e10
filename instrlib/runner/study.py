"""The study: runs the numbered notebooks in order, each only when something that it depends on has changed."""

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from instrlib.core.cache import code_hash, source_hash, versions
from instrlib.core.config import folders, get_profile
from instrlib.core.errors import ConfigError, InstrlibError, RunError
from instrlib.core.io import disk_errors, expanded, hash_file, hash_json, hash_tree, read_json, write_json
from instrlib.data import corpora
from instrlib.runner.notebooks import Notebook, numbered_notebooks, renew_words, take_outputs
from instrlib.runner.publish import drawing_versions, figures_folder, publish, results_path, write_page
from instrlib.runner.run import RECORD, study_name

SEVERAL_LABELS = ("01_preprocessing", "02_baseline_cnn", "03_cutmix", "09_transfer_learning", "14_report")
"""The notebooks that know several instruments a clip; a corpus of such clips is run through these alone."""

_HUB = "INSTRLIB_HUB"
_LOCK = ".lock"
_DEMO_LIMIT_S = 600.0
_FAILED, _FINISHED = {"failed"}, {"parts", "key", "text", "files", "keeps"}


class Watcher:
    """Told what a study does while it runs; does nothing with it. Subclasses show it."""

    def unchanged(self, notebook: str) -> None:
        """Tell that a notebook is skipped."""

    def left_out(self, notebook: str, why: str) -> None:
        """Tell that a notebook is not made for this corpus, and why."""

    def started(self, notebook: str, why: str) -> None:
        """Tell that a notebook is executed, and why."""

    def cell(self, notebook: str, done: int, total: int) -> None:
        """Tell how many cells of a notebook are done."""

    def finished(self, notebook: str, duration_s: float) -> None:
        """Tell that a notebook is done."""

    def stopped(self, notebook: str) -> None:
        """Tell that a notebook came to no good end."""


@dataclass(frozen=True)
class Outcome:
    """Where a study's results are.

    Attributes
    ----------
    study : str
        Its name, "<corpus>-<profile>".
    executed : tuple of str
        The notebooks that were executed; the others were unchanged.
    results, figures, pages : Path
        The file of numbers, the folder of figures, the folder of executed notebooks and their pages.
    """

    study: str
    executed: tuple[str, ...]
    results: Path
    figures: Path
    pages: Path


@dataclass(frozen=True)
class State:
    """How a notebook stands in a study.

    Attributes
    ----------
    study, notebook : str
        Which one.
    state : {"done", "changed", "failed", "running", "stopped", "never run", "left out"}
        "changed": it is done, but would be executed again. "left out": it is not made for the corpus.
    detail : str
        What changed, how it failed, or why it is left out.
    when : datetime or None
        When it ended.
    duration_s : float or None
        How long it took.
    """

    study: str
    notebook: str
    state: str
    detail: str = ""
    when: datetime | None = None
    duration_s: float | None = None


def run_study(
    *,
    corpus: str,
    data: str,
    profile: str,
    seeds: int,
    notebooks: Collection[str] | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Execute the numbered notebooks in order and publish what they made.

    A corpus of several instruments a clip is run through the notebooks in `SEVERAL_LABELS`; the watcher is told which
    are left out.

    A notebook is skipped when its run folder is whole and nothing has changed of: its code, the modules of instrlib
    that it uses, its parameters, the versions that decide numbers, the files of the corpus, the published networks
    where it uses them, and the runs of other notebooks that it opened.

    Parameters
    ----------
    corpus : str
        One of `corpora.NAMES`.
    data : str
        Folder of the corpus; "" for `data/<corpus>`.
    profile : str
        "smoke", "quick" or "full".
    seeds : int
        Number of seeds, at least 1.
    notebooks : collection of str, optional
        Names of the notebooks to look at; all when left out.
    watcher : Watcher, optional
        Told how far the study is.

    Returns
    -------
    Outcome

    Raises
    ------
    ConfigError
        When the corpus or the profile is unknown, or the number of seeds is below 1.
    RunError
        When the study is running already, is interrupted, a notebook is unknown or does not declare a parameter.
    CellError
        When a cell fails. The partly run notebook stays in `runs/<study>/`, and the next run goes on there.
    InstrlibError
        What a cell raises of this library's own errors.
    """
    corpora.info(corpus)
    limit_s = get_profile(profile).notebook_limit_s
    if seeds < 1:
        raise ConfigError(f"seeds must be a whole number of at least 1, not {seeds!r}.")
    place = str(expanded(data).absolute()) if data else ""
    parameters = {"corpus": corpus, "data": place, "profile": profile, "seeds": seeds}
    study = study_name(corpus, profile)
    everything = numbered_notebooks()
    chosen = _choose(everything, notebooks)
    unsuited = {notebook.name: why for notebook in everything if (why := why_unsuited(corpus, notebook.name))}
    _check_parameters([notebook for notebook in chosen if notebook.name not in unsuited], parameters)
    names = [notebook.name for notebook in everything]
    watcher = watcher or Watcher()
    executed = []
    with _locked(study):
        _fetch_networks()
        look = _Look()
        for notebook in everything:
            if notebook.name in unsuited:
                if notebook in chosen:
                    watcher.left_out(notebook.name, unsuited[notebook.name])
                continue
            current = look.at(study, notebook, parameters)
            if notebook not in chosen:
                continue
            folder = _folder(study, notebook.name)
            if current.why:
                _execute(folder, notebook, current, limit_s=limit_s, watcher=watcher)
                look.at(study, notebook, parameters)
                executed.append(notebook.name)
            else:
                watcher.unchanged(notebook.name)
            _show(folder, notebook, names)
    return Outcome(study, tuple(executed), results_path(study), figures_folder(study), _folder(study))


def execute_in_place(notebooks: Collection[str] | None = None, *, watcher: Watcher | None = None) -> list[Path]:
    """Bring the committed notebooks' outputs up to date, each run with its own parameters.

    Parameters
    ----------
    notebooks : collection of str, optional
        Names; all numbered ones when left out.
    watcher : Watcher, optional
        Told how far it is.

    Returns
    -------
    list of Path
        The notebooks that were written. One that fails keeps its old outputs.
    """
    written = []
    for notebook in _choose(numbered_notebooks(), notebooks):
        outcome = run_study(**notebook.parameters, notebooks=[notebook.name], watcher=watcher)
        if outcome.executed:
            # It compared its numbers with those published before; now that its own are published, it does so again.
            (outcome.pages / notebook.name / RECORD).unlink()
            run_study(**notebook.parameters, notebooks=[notebook.name], watcher=watcher)
        take_outputs(notebook.path, outcome.pages / notebook.path.name)
        written.append(notebook.path)
    return written


def execute_demo() -> Path:
    """Bring the outputs of `demo.ipynb` up to date, which uses a study's model and is no part of any study.

    Returns
    -------
    Path
        The notebook; when it fails, it keeps its old outputs.
    """
    from instrlib.runner import engine

    path = folders().notebooks / "demo.ipynb"
    with TemporaryDirectory() as work:
        copy = Path(work) / path.name
        environment = _environment() | {"INSTRLIB_RUNS": work}
        engine.execute(path, copy, parameters={}, limit_s=_DEMO_LIMIT_S, environment=environment)
        take_outputs(path, copy)
    return path


def why_unsuited(corpus: str, notebook: str) -> str:
    """Say why a notebook is not made for a corpus; "" when it is."""
    several = corpus in corpora.NAMES and corpora.info(corpus).multilabel
    return "it is made for one instrument a clip" if several and notebook not in SEVERAL_LABELS else ""


def code_of(notebook: Notebook, *, corpus: str, profile: str) -> dict[str, str]:
    """Hash all that is written down and decides a notebook's results: cells, modules, a log that it shows, the profile.

    Of the profiles only the one that it is run with counts: a long study is not old because a short one has changed.

    Parameters
    ----------
    notebook : Notebook
        From `notebooks.read_notebook`.
    corpus : str
        Name of the corpus that it is run with.
    profile : str
        Name of the profile that it is run with.

    Returns
    -------
    dict of str to str
        Hashes by name.
    """
    code = {"code": hash_json([source_hash(text) for text in notebook.code]), "instrlib": code_hash("studies")}
    if any("trials" in text for text in notebook.code):
        from instrlib.studies.trials import log_path

        code["the log of recipes"] = hash_file(log_path()) if log_path().is_file() else ""
    return code


def status() -> list[State]:
    """Tell how every notebook stands in every study that has been begun.

    Returns
    -------
    list of State
        By study, then in the notebooks' order.
    """
    everything = numbered_notebooks()
    studies = sorted({path.parent.name for path in folders().runs.glob("[!.]*/*.ipynb")})
    return [state for study in studies for state in _states(study, everything)]


def _fetch_networks() -> None:
    """Fetch what `INSTRLIB_HUB` lists before any notebook does: its files would else count as changed after the run."""
    if os.environ.get(_HUB):
        from instrlib.models.embeddings import available

        available()


def _pretrained_networks() -> dict[str, str]:
    """Tell which published networks a notebook finds; nothing where there are none."""
    from instrlib.models.embeddings import weights_folder
    from instrlib.models.pretrained import find

    folder, handles = weights_folder(), os.environ.get(_HUB)
    files = {f"the networks in {folder}": hash_tree(folder)} if find(folder) else {}
    return files | ({_HUB: handles} if handles else {})


@dataclass(frozen=True)
class _Current:
    """What a notebook depends on now, and why it must be executed ("" when it need not)."""

    parts: dict[str, Any]
    why: str


def _key(parts: dict[str, Any], uses: dict[str, str]) -> str:
    return hash_json(parts | {"uses": uses})


class _Look:
    """Compares the notebooks of a study with their records, in order, since each may depend on those before it."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], str] = {}
        self._keys: dict[str, str] = {}

    def at(self, study: str, notebook: Notebook, parameters: dict[str, Any]) -> _Current:
        corpus, data = parameters["corpus"], parameters["data"]
        if (corpus, data) not in self._files:
            # The rendered corpus is made by code and a seed; its files are a cache.
            root = Path(data) if data else folders().data / corpus
            self._files[corpus, data] = "" if corpus == "rendered" else hash_tree(root)
        code = code_of(notebook, corpus=corpus, profile=parameters["profile"])
        files = {"the corpus's files": self._files[corpus, data]}
        files |= _pretrained_networks()
        from instrlib.studies.domains import on_this_machine

        files |= on_this_machine()
        installed = versions() | drawing_versions()
        parts = {"code": code, "parameters": parameters, "versions": installed, "files": files}
        folder = _folder(study, notebook.name)
        record = _read_record(folder)
        uses = {name: self._keys.get(name, "") for name in record.get("parts", {}).get("uses", {})}
        self._keys[notebook.name] = _key(parts, uses)
        return _Current(parts, _why(record, parts | {"uses": uses}, folder))


def _why(record: dict[str, Any], parts: dict[str, Any], folder: Path) -> str:
    if "parts" not in record:
        return "it failed" if "failed" in record else "it has no finished run"
    changed = [
        {"code": "its code"}.get(name, name)
        for kind, now in parts.items()
        for before in [record["parts"].get(kind, {})]
        for name in sorted({*now, *before})
        if now.get(name) != before.get(name)
    ]
    if changed:
        return f"changed: {', '.join(changed)}"
    lost = [name for name, size in record["files"].items() if _size(folder.parent / name) != size]
    lost += [str(folders().data / name) for name in record["keeps"] if not (folders().data / name).exists()]
    return f"lost or altered: {', '.join(lost)}" if lost else ""


def _execute(folder: Path, notebook: Notebook, current: _Current, *, limit_s: float, watcher: Watcher) -> None:
    from instrlib.runner import engine

    copy = _copy(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / RECORD, folder / "manifest.json", copy.with_suffix(".html")):
            path.unlink(missing_ok=True)
    watcher.started(notebook.name, current.why)
    began = time.monotonic()

    def tell(done: int, total: int) -> None:
        watcher.cell(notebook.name, done, total)

    try:
        engine.execute(
            notebook.path,
            copy,
            parameters=current.parts["parameters"],
            limit_s=limit_s,
            environment=_environment(),
            on_cell=tell,
        )
        if not (folder / "manifest.json").is_file():
            raise RunError(f"{notebook.name} ended without Run.finish(); call it in the notebook's last cell.")
    except KeyboardInterrupt:
        watcher.stopped(notebook.name)
        raise RunError(f"Stopped in {notebook.name}; the same command goes on there.") from None
    except InstrlibError as error:
        watcher.stopped(notebook.name)
        failed = {"message": str(error), "cell": getattr(error, "cell", None)}
        write_json(folder / RECORD, {"failed": failed, **_times(began)})
        raise
    manifest = read_json(folder / "manifest.json")
    uses = {name: _read_record(folder.parent / name).get("key", "") for name in manifest["uses"]}
    files = [copy, *(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)]
    record = {
        "parts": current.parts | {"uses": uses},
        "key": _key(current.parts, uses),
        "text": notebook.text,
        "files": {path.relative_to(folder.parent).as_posix(): path.stat().st_size for path in sorted(files)},
        "keeps": manifest["keeps"],
        **_times(began),
    }
    write_json(folder / RECORD, record)
    watcher.finished(notebook.name, record["duration_s"])


def _show(folder: Path, notebook: Notebook, names: Sequence[str]) -> None:
    """Bring the page and the published files of a finished notebook up to date; costs little when they are."""
    record, copy = _read_record(folder), _copy(folder)
    if record["text"] != notebook.text:
        renew_words(notebook.path, copy)
        copy.with_suffix(".html").unlink(missing_ok=True)
        size = {copy.name: copy.stat().st_size}
        write_json(folder / RECORD, record | {"text": notebook.text, "files": record["files"] | size})
    if not copy.with_suffix(".html").is_file():
        write_page(copy)
    publish(folder, known=names)


def _states(study: str, notebooks: Sequence[Notebook]) -> Iterator[State]:
    running = _is_locked(study)
    look = _Look()
    for notebook in notebooks:
        folder = _folder(study, notebook.name)
        record = _read_record(folder)
        ended = {"when": datetime.fromisoformat(record["ended"]), "duration_s": record["duration_s"]} if record else {}
        why_not = why_unsuited(study.rpartition("-")[0], notebook.name)
        if why_not:
            yield State(study, notebook.name, "left out", why_not)
        elif "failed" in record:
            yield State(study, notebook.name, "failed", record["failed"]["message"], **ended)
        elif record:
            why = look.at(study, notebook, record["parts"]["parameters"]).why
            yield State(study, notebook.name, "changed" if why else "done", why.removeprefix("changed: "), **ended)
        elif _copy(folder).is_file():
            yield State(study, notebook.name, "running" if running else "stopped")
        else:
            yield State(study, notebook.name, "never run")


def _choose(everything: Sequence[Notebook], names: Collection[str] | None) -> list[Notebook]:
    if names is None:
        return list(everything)
    unknown = sorted(set(names) - {notebook.name for notebook in everything})
    if unknown:
        there = ", ".join(notebook.name for notebook in everything)
        raise RunError(f"Unknown notebook {', '.join(unknown)}; there is: {there}.")
    return [notebook for notebook in everything if notebook.name in names]


def _check_parameters(notebooks: Sequence[Notebook], parameters: dict[str, Any]) -> None:
    for notebook in notebooks:
        unknown = sorted(set(parameters) - set(notebook.parameters))
        if unknown:
            raise RunError(
                f"{notebook.path.name} does not declare the parameter {', '.join(unknown)}; "
                "give it a value in the cell tagged `parameters`."
            )


def _environment() -> dict[str, str]:
    """Name the folders in force by absolute paths, since a kernel works in the folder of its notebook."""
    there = folders()
    moved = {name: getattr(there, name).absolute() for name in ("data", "runs", "reports", "figures")}
    moved["root"] = there.notebooks.absolute().parent
    return {f"INSTRLIB_{name.upper()}": str(path) for name, path in moved.items()}


def _times(began: float) -> dict[str, Any]:
    ended = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"ended": ended, "duration_s": round(time.monotonic() - began, 1)}


def _folder(study: str, *notebook: str) -> Path:
    return folders().runs.absolute().joinpath(study, *notebook)


def _copy(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.ipynb")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _read_record(folder: Path) -> dict[str, Any]:
    """Return what is known of a run; nothing when its record is missing or damaged, so that it is made again."""
    try:
        record = read_json(folder / RECORD)
    except InstrlibError:
        return {}
    ended = {"ended", "duration_s"}
    whole = isinstance(record, dict) and any(ended | kind <= set(record) for kind in (_FAILED, _FINISHED))
    return record if whole else {}


@contextlib.contextmanager
def _locked(study: str) -> Iterator[None]:
    """Refuse a second run on a study. The lock is the operating system's, so it ends with the process."""
    import filelock

    path = _folder(study) / _LOCK
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunError(f"The study {study} is running already; wait for it or stop it first.") from None
    try:
        yield
    finally:
        lock.release()


def _is_locked(study: str) -> bool:
    try:
        with _locked(study):
            return False
    except RunError:
        return True
