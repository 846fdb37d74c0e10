"""Runs the numbered notebooks in order, each only if something that its results depend on has changed; publishes."""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from instrlib.core.cache import code_hash, versions
from instrlib.core.config import folders, get_profile, study_name
from instrlib.core.io import (
    ConfigError,
    CorpusError,
    InstrlibError,
    RunError,
    atomic_folder,
    atomic_path,
    disk_errors,
    expanded,
    hash_file,
    hash_json,
    hash_tree,
    read_json,
    write_json,
)
from instrlib.core.parallel import parallel_map, shared_processes
from instrlib.data import corpora
from instrlib.reporting.cards import DECLARED, write_cards
from instrlib.reporting.report import write_report
from instrlib.reporting.summary import open_study
from instrlib.runner.notebooks import Notebook, execute, numbered_notebooks, take_outputs

RECORD = "study.json"  # in the folder of a run, with its inputs; a study repeats runs that have none
HELD = "INSTRLIB_STUDY"  # environment variable with the name of the study whose lock the parent process holds

SEVERAL_LABELS = ("01_preprocessing", "02_baseline_cnn", "03_cutmix", "09_transfer_learning", "14_report")
"""The notebooks for corpora with several instruments per clip."""


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


def _files(parameters: dict[str, Any]) -> dict[str, str]:
    """Return fingerprints of the corpus and of the other files that notebooks use."""
    from instrlib.models.transfer import available, weights_folder
    from instrlib.studies.domains import on_this_machine

    corpus, found = parameters["corpus"], {}
    if corpus != "rendered":  # which depends on code and a seed only; its files are a cache
        found["files of the corpus"] = hash_tree(Path(parameters["data"] or folders().data / corpus))
    if available():  # downloads now, otherwise the files would count as changed after the run
        found[f"networks in {weights_folder()}"] = hash_tree(weights_folder())
    logs = {path.name: hash_file(path) for path in sorted(folders().notebooks.glob("[0-9][0-9]_*.json"))}
    return found | logs | on_this_machine()


@dataclass(frozen=True)
class _Study:
    """A local study: what its runs depend on, and what has changed since."""

    name: str
    parameters: dict[str, Any]
    notebooks: dict[str, Notebook]
    files: dict[str, str]  # see `_files`

    @property
    def folder(self) -> Path:
        return folders().runs.absolute() / self.name

    def parts(self, name: str, uses: Iterable[str]) -> dict[str, Any]:
        """Return what a notebook depends on, with the keys of the runs that it uses."""
        own = {"its code": self.notebooks[name].code, "the library": code_hash("studies")}
        keys = {
            one: hash_json(self.parts(one, read_record(self.folder / one).get("uses", ())))
            for one in uses
            if one in self.notebooks and one < name
        }
        return own | self.parameters | versions() | self.files | keys

    def why(self, name: str) -> str:
        """Return why a notebook has to be executed, or ""."""
        record = read_record(self.folder / name)
        if "parts" not in record:
            return "it failed" if "failed" in record else "it has no finished run"
        now, before = self.parts(name, record["uses"]), record["parts"]
        if changed := sorted(part for part in {*now, *before} if now.get(part) != before.get(part)):
            return f"changed: {', '.join(changed)}"
        sizes = self.sizes(name)
        lost = [file for file, size in record["files"].items() if sizes.get(file) != size]
        lost += [str(folders().data / one) for one in record["keeps"] if not (folders().data / one).exists()]
        return f"missing or changed: {', '.join(lost)}" if lost else ""

    def sizes(self, name: str) -> dict[str, int]:
        """Return the size of each file of a run, and of its executed copy."""
        files = [*self.folder.glob(f"{name}.ipynb"), *(self.folder / name).rglob("*")]
        sizes = {str(one.relative_to(self.folder)): one.stat().st_size for one in sorted(files) if one.is_file()}
        return {file: size for file, size in sizes.items() if not file.endswith(RECORD)}

    def execute(self, name: str, environment: dict[str, str]) -> timedelta:
        """Execute a notebook and record its inputs; return the duration."""
        folder, copy = self.folder / name, self.folder / f"{name}.ipynb"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for left in (RECORD, "manifest.json"):
                (folder / left).unlink(missing_ok=True)
        began, limit_s = time.monotonic(), get_profile(self.parameters["profile"]).notebook_limit_s
        try:
            source, environment = self.notebooks[name].path, environment | _environment() | {HELD: self.name}
            execute(source, copy, parameters=self.parameters, limit_s=limit_s, environment=environment)
            if not (folder / "manifest.json").is_file():
                raise RunError(f"{name} ended without run.finish(); call it in the last cell.")
        except KeyboardInterrupt:
            raise RunError(f"Stopped in {name}; run the same command again to continue.") from None
        except InstrlibError as error:
            write_json(folder / RECORD, {"failed": str(error), **_times(began)})
            raise
        manifest = read_json(folder / "manifest.json")
        found = {"parameters": self.parameters, "parts": self.parts(name, manifest["uses"]), "drawn": drawing_key()}
        found |= {"uses": manifest["uses"], "keeps": manifest["keeps"], "files": self.sizes(name), **_times(began)}
        write_json(folder / RECORD, found)
        return timedelta(seconds=round(found["duration_s"]))

    def runs(self) -> Iterator[Path]:
        """Yield the folders of the finished runs with these parameters; figures of another version are redrawn."""
        for folder in (self.folder / name for name in self.notebooks):
            record = read_record(folder)
            if record.get("parameters") == self.parameters:
                if record["drawn"] != drawing_key():
                    redraw(folder / "arrays", folder / "figures")
                    write_json(folder / RECORD, record | {"drawn": drawing_key(), "files": self.sizes(folder.name)})
                yield folder


def run_study(
    *,
    corpus: str,
    data: str = "",
    profile: str,
    seeds: int,
    notebooks: Collection[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[str, ...]:
    """Run the numbered notebooks, or those named, in order, and collect their results in `runs/<study>`.

    A finished notebook is skipped unless its code, the library, its parameters, package versions, the corpus,
    pretrained networks, other corpora on this machine, or runs that it uses have changed. Invalid parameters raise
    before existing results are touched. Returns the executed notebooks; `say` receives the progress as lines of text.
    """
    parameters, everything = checked(corpus=corpus, data=data, profile=profile, seeds=seeds), numbered_notebooks()
    if unknown := sorted(set(notebooks or ()) - set(everything)):
        raise RunError(f"Unknown notebook {', '.join(unknown)}; choose from: {', '.join(everything)}.")
    chosen, executed = [], []
    for name in everything if notebooks is None else sorted(notebooks):
        if why_not := why_unsuited(corpus, name):
            say(f"{name}: left out, because {why_not}")
        elif missing := sorted(set(parameters) - set(everything[name].parameters)):
            raise RunError(f"{name} lacks {', '.join(missing)} in the cell tagged `parameters`.")
        else:
            chosen.append(name)
    suited = {name: notebook for name, notebook in everything.items() if not why_unsuited(corpus, name)}
    study = _Study(study_name(corpus, profile, parameters["data"]), parameters, suited, _files(parameters))
    with locked(study.name), shared_processes() as processes:
        for name in chosen:
            if why := study.why(name):
                say(f"{name}: executed, because {why}")
                say(f"{name}: done in {study.execute(name, processes)}")
                executed.append(name)
            else:
                say(f"{name}: unchanged")
            collect(study.folder, study.runs())
    return tuple(executed)


def make(notebook: str, parameters: dict[str, Any]) -> None:
    """Run one notebook of a study in a new process, for `run.other`."""
    options = [f"--{name}={value}" for name, value in parameters.items()]
    command = [sys.executable, "-m", "instrlib.runner.cli", "study", f"--only={notebook}", *options]
    run = subprocess.run(command, env=os.environ | _environment(), capture_output=True, text=True, check=False)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"it ended with status {run.returncode}"]
        raise RunError(f"{notebook}, whose results are needed, failed. {lines[-1].removeprefix('Error: ')}")


def _environment() -> dict[str, str]:
    """Return the folders as absolute paths, because a kernel runs in the folder of its notebook."""
    places = {name: getattr(folders(), name).absolute() for name in ("data", "runs", "reports", "figures")}
    places["root"] = folders().notebooks.absolute().parent
    return {f"INSTRLIB_{name.upper()}": str(path) for name, path in places.items()}


class State(NamedTuple):
    """State of a notebook in a study, with what changed, how it failed, or why it is left out in `detail`.

    `state` is done, changed (it would be executed again), failed, running, stopped, never run or left out.
    """

    study: str
    notebook: str
    state: str
    when: str = ""
    took: str = ""
    detail: str = ""


def status() -> list[State]:
    """Return the state of every notebook in every local study, by study."""
    studies = sorted({path.parent.name for path in folders().runs.glob("[!.]*/[0-9][0-9]_*.ipynb")})
    return [state for study in studies for state in states_of(study)]


def states_of(study: str) -> Iterator[State]:
    """Yield the state of each notebook in one study."""
    notebooks, folder, looks = numbered_notebooks(), folders().runs.absolute() / study, {}
    records = {name: read_record(folder / name) for name in notebooks}
    corpus = next((one["parameters"]["corpus"] for one in records.values() if "parameters" in one), "")
    try:
        with locked(study):
            begun = "stopped"
    except RunError:
        begun = "running"
    for name, record in records.items():
        took = str(timedelta(seconds=round(record.get("duration_s", 0))))
        ended = (record["ended"][:16].replace("T", " "), took) if record else ()
        if why := why_unsuited(corpus, name):
            yield State(study, name, "left out", detail=why)
        elif "failed" in record:
            yield State(study, name, "failed", *ended, record["failed"])
        elif record:
            parameters, known = record["parameters"], hash_json(record["parameters"])
            looks[known] = looks.get(known) or _Study(study, parameters, notebooks, _files(parameters))
            why = looks[known].why(name)
            yield State(study, name, "changed" if why else "done", *ended, why.removeprefix("changed: "))
        else:
            yield State(study, name, begun if (folder / f"{name}.ipynb").is_file() else "never run")


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a run, or {} if it is missing or damaged, so that the notebook is run again."""
    try:
        record = read_json(folder / RECORD)
    except InstrlibError:
        return {}
    kinds = ({"failed"}, {"parameters", "parts", "uses", "keeps", "files", "drawn"})
    complete = isinstance(record, dict) and any({"ended", "duration_s"} | kind <= set(record) for kind in kinds)
    return record if complete else {}


@contextlib.contextmanager
def locked(study: str) -> Iterator[None]:
    """Hold the lock of a study; raise `RunError` if another process holds it. The lock ends with the process."""
    import filelock

    if os.environ.get(HELD) == study:  # the parent process holds it
        yield
        return
    path = folders().runs.absolute() / study / ".lock"
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


def collect(study: Path, runs: Iterable[Path]) -> None:
    """Collect the results of runs in the folder of their study; unchanged files are not written.

    `results.json` holds the primary comparisons, and the other declarations and the manifest of each notebook. Arrays,
    figures and model files of earlier runs are removed.
    """
    primary, entries, made = [], {}, []
    for run in runs:
        made += [path for kind in ("arrays", "figures", "model") for path in sorted((run / kind).glob("[!.]*.*"))]
        declared = read_json(run / "declared.json") if (run / "declared.json").is_file() else {}
        primary += [{"notebook": run.name, **row} for row in declared.pop("primary", [])]
        entries[run.name] = declared | {"manifest": read_json(run / "manifest.json")}
    text = json.dumps({"study": study.name, "primary": primary, "notebooks": entries})
    # Digits beyond the precision that machines share make the file a third larger; NaN is not JSON.
    shorter = json.loads(text, parse_constant=lambda _: None, parse_float=lambda x: float(f"{float(x):.8g}"))
    contents = {study / "results.json": (json.dumps(shorter, indent=1, ensure_ascii=False) + "\n").encode()}
    contents |= {study / path.parent.name / path.name: path.read_bytes() for path in made}
    for kind in ("arrays", "figures", "model"):
        for path in (study / kind).glob("*"):
            if path not in contents and path.is_file():
                path.unlink()
    for path, content in contents.items():
        known = path.read_bytes() if path.is_file() else b""
        if known.partition(DECLARED.encode())[0].rstrip() != content.rstrip():  # cards have added sections
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)


def drawing_key() -> str:
    """Return a hash of everything besides its arrays that a figure depends on."""
    packages = {name: version(name) for name in ("numpy", "matplotlib", "seaborn", "pillow")}
    return hash_json([code_hash("charts"), packages, platform.system(), platform.machine()])


def redraw(arrays: Path, figures: Path) -> list[bool]:
    """Redraw figures from their arrays, on all cores; return for each whether this version can draw it."""
    stored = sorted(arrays.glob("[!.]*.npz"))
    with disk_errors(figures):
        figures.mkdir(parents=True, exist_ok=True)
    return list(parallel_map(_redraw, [(path.absolute(), figures.absolute()) for path in stored], describe="drawing"))


def _redraw(arrays: Path, folder: Path) -> bool:
    from instrlib import charts

    try:
        figure = charts.draw_stored(arrays)
    except InstrlibError:
        return False  # made by another version
    charts.save(figure, folder, arrays.stem)
    return True


def write_reports(folder: Path, *, only_new: bool = False) -> list[Path]:
    """Write the report and the cards of a study next to its results; `only_new` skips a report that is newer."""
    report, made_of = folder / "report.pdf", ("results.json", "figures/*", "model/*")
    if only_new and report.is_file():
        newest_ns = max(path.stat().st_mtime_ns for pattern in made_of for path in folder.glob(pattern))
        if report.stat().st_mtime_ns > newest_ns:
            return []
    found = open_study(folder)
    return [*write_cards(found), *write_report(found)]


def publish(study: str) -> list[Path]:
    """Copy a finished study to `reports/` and `figures/`, and its outputs to the notebooks with its parameters."""
    with locked(study):
        states = [state for state in states_of(study) if state.state != "left out"]
        if unfinished := [f"{state.notebook} ({state.state})" for state in states if state.state != "done"]:
            raise RunError(f"The study {study} is not finished: {', '.join(unfinished)}. Run `instrlib study` first.")
        source = folders().runs.absolute() / study
        files = [path for path in source.glob("[!.]*") if path.is_file() and not path.name[:2].isdigit()]
        published = {
            folders().reports / study: [*files, *source.glob("arrays"), *source.glob("model")],
            folders().figures / study: list(source.glob("figures/[!.]*")),
        }
        for folder, parts in published.items():
            with atomic_folder(folder) as new:
                for path in parts:
                    if path.is_dir():
                        shutil.copytree(path, new / path.name, ignore=shutil.ignore_patterns(".*"))
                    else:
                        shutil.copyfile(path, new / path.name)
        written = list(published)
        for name, notebook in numbered_notebooks().items():
            record = read_record(source / name)
            if record and record["parameters"] == checked(**notebook.parameters):
                take_outputs(notebook.path, source / f"{name}.ipynb")
                written.append(notebook.path)
        demo = folders().notebooks / "demo.ipynb"
        if len(written) > 2 and demo.is_file():
            with TemporaryDirectory() as work:
                environment = _environment() | {"INSTRLIB_RUNS": work}
                execute(demo, Path(work, demo.name), parameters={}, limit_s=600.0, environment=environment)
                take_outputs(demo, Path(work, demo.name))
    return written


def _times(began: float) -> dict[str, Any]:
    ended = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"ended": ended, "duration_s": round(time.monotonic() - began, 1)}
