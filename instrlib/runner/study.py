"""Runs the numbered notebooks in order, each only if something that its results depend on has changed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from instrlib.core.cache import code_hash
from instrlib.core.config import folders, get_profile, study_name
from instrlib.core.io import (
    InstrlibError,
    RunError,
    disk_errors,
    hash_file,
    hash_json,
    read_json,
    write_json,
    write_text,
)
from instrlib.runner import publish
from instrlib.runner.notebooks import Notebook, numbered_notebooks, take_outputs, write_page
from instrlib.runner.state import (
    HELD,
    RECORD,
    Current,
    Look,
    checked,
    copy_of,
    folder_of,
    locked,
    read_record,
    sizes_of,
    states_of,
    why_unsuited,
)

_DEMO_LIMIT_S = 600.0


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
    pretrained networks, other corpora on this machine, or runs that it uses have changed. Returns the notebooks that
    were executed; `say` receives the progress as lines of text.

    Raises
    ------
    ConfigError, CorpusError
        If a parameter is invalid; existing results are kept.
    RunError
        If the study is already running, a notebook is unknown or lacks a parameter, or a cell fails.
    """
    parameters = checked(corpus=corpus, data=data, profile=profile, seeds=seeds)
    everything = numbered_notebooks()
    suited = [notebook for notebook in everything if not why_unsuited(corpus, notebook.name)]
    chosen = _chosen(everything, notebooks)
    for notebook in chosen:
        if notebook not in suited:
            say(f"{notebook.name}: left out, because {why_unsuited(corpus, notebook.name)}")
        elif missing := sorted(set(parameters) - set(notebook.parameters)):
            raise RunError(f"{notebook.path.name} lacks {', '.join(missing)} in the cell tagged `parameters`.")
    study = study_name(corpus, profile, parameters["data"])
    executed = []
    with locked(study):
        look = Look()
        for notebook in suited:
            current = look.at(study, notebook, parameters)
            if notebook not in chosen:
                continue
            if current.why:
                say(f"{notebook.name}: executed, because {current.why}")
                duration_s = _execute(study, notebook, current)
                say(f"{notebook.name}: done in {duration(duration_s)}")
                look.at(study, notebook, parameters)
                executed.append(notebook.name)
            else:
                say(f"{notebook.name}: unchanged")
            _show(study, notebook)
            _collect(study, suited, parameters)
    return tuple(executed)


def make(notebook: str, parameters: dict[str, Any]) -> None:
    """Run one notebook of a study in a new process, for `run.other`."""
    options = [f"--{name}={value}" for name, value in parameters.items()]
    command = [sys.executable, "-m", "instrlib.runner.cli", "study", f"--only={notebook}", *options]
    run = subprocess.run(command, env=os.environ | _environment(), capture_output=True, text=True, check=False)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"it ended with status {run.returncode}"]
        raise RunError(f"{notebook}, whose results are needed, failed. {lines[-1].removeprefix('Error: ')}")


def publish_study(study: str) -> list[Path]:
    """Publish a finished study, and show it in the notebooks if it was run with their own parameters."""
    with locked(study):
        states = [state for state in states_of(study, numbered_notebooks()) if state.state != "left out"]
        if unfinished := [f"{state.notebook} ({state.state})" for state in states if state.state != "done"]:
            raise RunError(f"The study {study} is not finished: {', '.join(unfinished)}. Run `instrlib study` first.")
        written = publish.publish(study)
        own = [one for one in numbered_notebooks() if _shows(one, study)]
        for notebook in own:
            take_outputs(notebook.path, copy_of(study, notebook.name))
        demo = folders().notebooks / "demo.ipynb"
        if own and demo.is_file():
            _execute_demo(demo)
    return [*written, *(notebook.path for notebook in own)]


def write_reports(folder: Path) -> list[Path]:
    """Write the report and the cards of a study next to its results."""
    from instrlib.reporting.cards import write_cards
    from instrlib.reporting.report import write_report
    from instrlib.reporting.summary import open_study

    found = open_study(folder)
    return [*write_cards(found), *write_report(found)]


def write_changed_reports(folder: Path) -> str:
    """Write the reports of a local study if anything changed; return how far it agrees with the published one."""
    from instrlib.reporting.compare import agreement
    from instrlib.reporting.summary import open_study

    mark = folder / ".report"
    key = hash_json([hash_file(folder / "results.json"), code_hash("reporting")])
    if not (mark.is_file() and mark.read_text() == key):
        write_reports(folder)
        write_text(mark, key)
    published = (folders().reports / folder.name / "results.json").is_file()
    return agreement(open_study(folder), open_study(folder.name)) if published else ""


def _shows(notebook: Notebook, study: str) -> bool:
    """Return whether a study was run with the notebook's own parameters."""
    record = read_record(folder_of(study) / notebook.name)
    return bool(record) and record["parts"]["parameters"] == checked(**notebook.parameters)


def _execute_demo(path: Path) -> None:
    from instrlib.runner.execute import execute

    with TemporaryDirectory() as work:
        copy = Path(work) / path.name
        environment = _environment() | {"INSTRLIB_RUNS": work}
        execute(path, copy, parameters={}, limit_s=_DEMO_LIMIT_S, environment=environment)
        take_outputs(path, copy)


def _execute(study: str, notebook: Notebook, current: Current) -> float:
    from tqdm.auto import tqdm

    from instrlib.runner.execute import execute

    folder, copy = folder_of(study) / notebook.name, copy_of(study, notebook.name)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / RECORD, folder / "manifest.json", copy.with_suffix(".html")):
            path.unlink(missing_ok=True)
    began, parameters = time.monotonic(), current.parts["parameters"]
    environment = _environment() | {HELD: study}
    try:
        with tqdm(desc=notebook.name, unit="cell", leave=False, disable=None) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            limit_s = get_profile(parameters["profile"]).notebook_limit_s
            execute(
                notebook.path, copy, parameters=parameters, limit_s=limit_s, environment=environment, on_cell=advance
            )
        if not (folder / "manifest.json").is_file():
            raise RunError(f"{notebook.name} ended without run.finish(); call it in the last cell.")
    except KeyboardInterrupt:
        raise RunError(f"Stopped in {notebook.name}; run the same command again to continue.") from None
    except InstrlibError as error:
        write_json(folder / RECORD, {"failed": str(error), **_times(began)})
        raise
    manifest = read_json(folder / "manifest.json")
    uses = {name: read_record(folder.with_name(name)).get("key", "") for name in manifest["uses"]}
    parts = current.parts | {"uses": uses}
    record = {
        "parts": parts,
        "key": hash_json(parts),
        "text": notebook.text,
        "drawn": publish.drawing_key(),
        "files": sizes_of(folder, copy),
        "keeps": manifest["keeps"],
        **_times(began),
    }
    write_json(folder / RECORD, record)
    return record["duration_s"]


def _show(study: str, notebook: Notebook) -> None:
    """Update the page and the figures of a finished notebook without running it."""
    folder, copy = folder_of(study) / notebook.name, copy_of(study, notebook.name)
    record, drawn = read_record(folder), publish.drawing_key()
    if record["drawn"] != drawn:
        publish.redraw(folder / "arrays", folder / "figures")
    if record["text"] != notebook.text or not copy.with_suffix(".html").is_file():
        write_page(notebook.path, copy)
    if (record["text"], record["drawn"]) != (notebook.text, drawn):
        write_json(folder / RECORD, record | {"text": notebook.text, "drawn": drawn, "files": sizes_of(folder, copy)})


def _collect(study: str, notebooks: Sequence[Notebook], parameters: dict[str, Any]) -> None:
    """Collect the results of the notebooks that were run with these parameters."""
    records = {notebook.name: read_record(folder_of(study) / notebook.name) for notebook in notebooks}
    done = [name for name, one in records.items() if one.get("parts", {}).get("parameters") == parameters]
    publish.collect(folder_of(study), done)


def _chosen(everything: Sequence[Notebook], names: Collection[str] | None) -> list[Notebook]:
    known = [notebook.name for notebook in everything]
    if unknown := sorted(set(names or ()) - set(known)):
        raise RunError(f"Unknown notebook {', '.join(unknown)}; choose from: {', '.join(known)}.")
    return [notebook for notebook in everything if names is None or notebook.name in names]


def _environment() -> dict[str, str]:
    """Return the folders as absolute paths, because a kernel runs in the folder of its notebook."""
    places = {name: getattr(folders(), name).absolute() for name in ("data", "runs", "reports", "figures")}
    places["root"] = folders().notebooks.absolute().parent
    return {f"INSTRLIB_{name.upper()}": str(path) for name, path in places.items()}


def duration(seconds: float) -> str:
    """Return a duration as text.

    Examples
    --------
    >>> duration(7.4), duration(125), duration(7_260)
    ('7 s', '2 min 5 s', '2 h 1 min')
    """
    minutes, left_s = divmod(round(seconds), 60)
    hours, left_min = divmod(minutes, 60)
    return f"{hours} h {left_min} min" if hours else f"{minutes} min {left_s} s" if minutes else f"{left_s} s"


def _times(began: float) -> dict[str, Any]:
    ended = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"ended": ended, "duration_s": round(time.monotonic() - began, 1)}
