"""Whether the numbers that were published are those of the code as it stands: what has changed since is named."""

from typing import Any

from instrlib.core.errors import StudyError
from instrlib.core.files import read_json
from instrlib.runner.notebooks import numbered_notebooks
from instrlib.runner.publish import code_record, results_path
from instrlib.runner.study import code_of, why_unsuited

UNRECORDED = "made before code was recorded"
MISSING = "missing from the results"
GONE = "is no notebook of the study any more"


def stale(study: str) -> dict[str, list[str]]:
    """Name the notebooks of a study whose published results are older than the code that makes them.

    Comments, docstrings and layout do not count, and neither does the code that draws (`instrlib.plots`): it makes no
    number, and `instrlib figures` draws the published arrays anew when it has changed. Versions of packages and files
    of the corpus do not count, either, because results that were made on another machine are read here, too.
    `instrlib status` looks at all of these, of runs made here.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    dict of str to list of str
        By notebook, in order: what has changed since its results were made. That is "its code" for its own cells, the
        names of modules, and the names of notebooks whose results it reads and whose code has changed. A notebook
        without results, or with results that do not say which code made them, has one sentence that says so. Nothing
        when all is fresh.

    Raises
    ------
    StudyError
        When the study has no results.
    """
    path = results_path(study)
    if not path.is_file():
        raise StudyError(f"{path} is missing; run `instrlib study` for this corpus and profile first.")
    manifests = {name: entry["manifest"] for name, entry in read_json(path)["notebooks"].items()}
    corpus, _, profile = study.rpartition("-")
    suited = [notebook for notebook in numbered_notebooks() if not why_unsuited(corpus, notebook.name)]
    changed: dict[str, list[str]] = {}
    now: dict[str, dict[str, str]] = {}
    for notebook in suited:
        manifest = manifests.get(notebook.name, {})
        code = code_record(code_of(notebook, corpus=corpus, profile=profile), uses=manifest.get("uses", ()), codes=now)
        now[notebook.name] = _with_drawing_of(manifest.get("code", {}), code)
        changed[notebook.name] = _changed(manifest, now[notebook.name])
    gone = {name: [GONE] for name in manifests if name not in changed}
    return {name: what for name, what in sorted((changed | gone).items()) if what}


def _with_drawing_of(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """Leave the hashes of the modules that draw as they were recorded."""
    kept = {name: value for name, value in now.items() if not _draws(name)}
    drawing = {name: value for name, value in before.items() if _draws(name)}
    return kept | drawing


def _draws(module: str) -> bool:
    return module.split(".")[1:2] == ["plots"]


def _changed(manifest: dict[str, Any], now: dict[str, str]) -> list[str]:
    if not manifest:
        return [MISSING]
    if "code" not in manifest:
        return [UNRECORDED]
    before = manifest["code"]
    return sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
