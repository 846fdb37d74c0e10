"""From a finished run to what is shown: the notebook's page, results.json, arrays, figures, the model given away."""

import functools
import importlib.metadata
import json
import platform
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from instrlib.core.config import folders
from instrlib.core.errors import RunError
from instrlib.core.io import atomic_path, hash_json, read_json, write_text
from instrlib.core.parallel import parallel_map
from instrlib.models.published import FILES, RECORD
from instrlib.runner import run as runs
from instrlib.runner.notebooks import strip_volatile

DRAWING = ("matplotlib", "seaborn", "pillow")
"""The packages that, with numpy, decide the bytes of a figure."""

ITS_CODE = "its code"
"""What the code of a notebook's own cells is called, among the modules that they use."""

_N_DIGITS = 16

_DIGITS = 8

# Not the hidden files beside them: a kill leaves half-written ones under such names.
_NPZ = "[!.]*.npz"
_ANY = "[!.]*.*"

# Everything that nbconvert's page fetches from other hosts: require.js, MathJax, Mermaid and widgets.
_OFFLINE = """\
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""


def write_page(executed: Path) -> None:
    """Write an executed notebook as a page beside it, one file that asks no other host for anything.

    Formulas between dollar signs stay as they are written, because what would draw them is fetched from elsewhere.

    Parameters
    ----------
    executed : Path
        The executed notebook.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nbformat
        from nbconvert import HTMLExporter

        raw = strip_volatile(read_json(executed))
        notebook = nbformat.reads(json.dumps(raw), as_version=4)
        page, _ = HTMLExporter(raw_template=_OFFLINE).from_notebook_node(
            notebook, {"metadata": {"name": executed.stem, "path": ""}}
        )
    write_text(executed.with_suffix(".html"), page)


@functools.cache
def drawing_versions() -> dict[str, str]:
    """Return what decides the bytes of a figure: the system, its processor, and the packages in `DRAWING`."""
    found = {"system": f"{platform.system()} {platform.machine()}"}
    return found | {name: importlib.metadata.version(name) for name in DRAWING}


def code_record(
    hashes: Mapping[str, str], *, uses: Iterable[str], codes: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Say in hashes which code a notebook's results come from, that of the notebooks before it included.

    Parameters
    ----------
    hashes : mapping of str to str
        Of the notebook's own cells ("code") and of the modules that they use.
    uses : iterable of str
        The notebooks whose runs it opened.
    codes : mapping of str to mapping
        Such records of other notebooks, by name.

    Returns
    -------
    dict of str to str
        A hash, 16 hex digits, for "its code", for each module, and for each notebook that it used.

    Examples
    --------
    >>> record = code_record({"code": "c0", "instrlib.audio.decode": "a1"}, uses=["01_first"], codes={"01_first": {}})
    >>> list(record)
    ['01_first', 'instrlib.audio.decode', 'its code']
    """
    named = {ITS_CODE if name == "code" else name: value for name, value in hashes.items()}
    named |= {name: hash_json(codes.get(name, {})) for name in uses}
    return {name: named[name][:_N_DIGITS] for name in sorted(named)}


def publish(run: Path, *, known: Collection[str]) -> None:
    """Bring the numbers, arrays, figures and model files of a finished run to `reports/` and `figures/`.

    What is there already is left alone, so that nothing changes when nothing changed. Arrays and figures of the same
    notebook that the run no longer has are removed, and so are the numbers of notebooks that no longer exist. The
    manifest is told which code made the run (`code_record`) and what its figures were drawn with, as far as the study
    that executed it has written that down.

    Parameters
    ----------
    run : Path
        The run's folder, `runs/<study>/<notebook>`.
    known : collection of str
        Names of all notebooks of the study.
    """
    study, notebook = run.parent.name, run.name
    metrics, record = run / "metrics.json", run / runs.RECORD
    results = results_path(study)
    old = read_json(results)["notebooks"] if results.is_file() else {}
    kept = {name: value for name, value in old.items() if name in known}
    manifest = read_json(run / "manifest.json")
    if record.is_file():
        parts = read_json(record)["parts"]
        codes = {name: value["manifest"].get("code", {}) for name, value in kept.items()}
        manifest["versions"] = parts["versions"]
        manifest["code"] = code_record(parts["code"], uses=manifest["uses"], codes=codes)
    entry = {"metrics": read_json(metrics) if metrics.is_file() else {}, "manifest": manifest}
    declared = read_json(run / runs.DECLARED) if (run / runs.DECLARED).is_file() else {}
    first_of = read_json(results).get("primary", []) if results.is_file() else []
    primary = [one for one in first_of if one["notebook"] in known and one["notebook"] != notebook]
    primary += [{"notebook": notebook, **one} for one in declared.get("primary", [])]
    entry |= {name: declared[name] for name in runs.SECTIONS if name in declared}
    # NaN is no JSON for other readers; and digits that no two machines share make the file a third larger.
    entry = json.loads(json.dumps(entry), parse_constant=lambda _: None, parse_float=_shortened)
    merged = kept | {notebook: entry}
    primary = json.loads(json.dumps(primary), parse_float=_shortened)
    primary.sort(key=lambda one: one["notebook"])
    whole = {"study": study, "primary": primary, "notebooks": dict(sorted(merged.items()))}
    _write_changed(results, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())
    mark = f"{notebook[:2]}_"
    _mirror((run / "arrays").glob(_NPZ), arrays_folder(study), mark)
    _mirror((run / "figures").glob(_ANY), figures_folder(study), mark)
    _mirror_model(run / "model", model_folder(study))


def redraw(study: str) -> list[Path]:
    """Draw every figure of a study again from its stored arrays, on all cores; nothing is trained.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    list of Path
        The arrays that were drawn.

    Raises
    ------
    RunError
        When the study has none.
    """
    stored = sorted(arrays_folder(study).glob(_NPZ))
    if not stored:
        raise RunError(f"There are no arrays in {arrays_folder(study)}; run `instrlib study` first.")
    folder = figures_folder(study).absolute()
    list(parallel_map(_redraw, [(path.absolute(), folder) for path in stored], describe="drawing"))
    return stored


def results_path(study: str) -> Path:
    """Return where the numbers of a study lie."""
    return folders().reports / study / "results.json"


def arrays_folder(study: str) -> Path:
    """Return where the arrays lie that a study's figures are drawn from."""
    return folders().reports / study / "arrays"


def figures_folder(study: str) -> Path:
    """Return where the figures of a study lie."""
    return folders().figures / study


def model_folder(study: str) -> Path:
    """Return where the model lies that a study gives away; see `published`."""
    return folders().reports / study / "model"


def _redraw(arrays: Path, folder: Path) -> None:
    from instrlib import charts, plots
    from instrlib.core.io import read_arrays

    drawing = charts if "chart" in read_arrays(arrays) else plots
    drawing.save(drawing.draw_stored(arrays), folder, arrays.stem)


def _shortened(text: str) -> float:
    return float(f"{float(text):.{_DIGITS}g}")


def _mirror_model(source: Path, folder: Path) -> None:
    """Copy what a run adds to the model folder; the record of the networks comes last, and with it go old ones."""
    files = sorted(source.glob(_ANY), key=lambda path: (path.name == RECORD, path.name))
    for path in files:
        _write_changed(folder / path.name, path.read_bytes())
        _remove_leftovers(folder, f"{path.stem}.")
    if (source / RECORD).is_file():
        for name in FILES.values():
            if not (source / name).is_file():
                (folder / name).unlink(missing_ok=True)


def _mirror(sources: Iterable[Path], folder: Path, mark: str) -> None:
    """Copy files whose names begin with `mark` into a folder and remove others that begin so."""
    wanted = {path.name: path for path in sources if path.name.startswith(mark)}
    for name, path in sorted(wanted.items()):
        _write_changed(folder / name, path.read_bytes())
    for path in folder.glob(f"{mark}*"):
        if path.name not in wanted:
            path.unlink()
    _remove_leftovers(folder, mark)


def _remove_leftovers(folder: Path, begin: str) -> None:
    """Remove the temporary files that a kill has left of files whose names begin so; see `files.atomic_path`."""
    for path in folder.glob(f".{begin}*"):
        path.unlink()


def _write_changed(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
