"""Collects the results of finished runs in `results.json`, and copies a study to `reports/` and `figures/`."""

import json
import platform
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from instrlib.core.cache import code_hash
from instrlib.core.config import folders
from instrlib.core.io import InstrlibError, RunError, atomic_path, disk_errors, hash_json, read_json
from instrlib.core.parallel import parallel_map

_DIGITS = 8


def collect(study: Path, notebooks: Iterable[str]) -> None:
    """Collect the results of notebooks in the folder `runs/<study>`; unchanged files are not written.

    `results.json` holds the primary comparisons, and the other declarations and the manifest of each notebook. Arrays,
    figures and model files of earlier runs are removed.
    """
    runs = [study / name for name in notebooks]
    primary, entries = [], {}
    for run in runs:
        declared = read_json(run / "declared.json") if (run / "declared.json").is_file() else {}
        primary += [{"notebook": run.name, **row} for row in declared.pop("primary", [])]
        entries[run.name] = declared | {"manifest": read_json(run / "manifest.json")}
    text = json.dumps({"study": study.name, "primary": primary, "notebooks": entries})
    # Digits beyond the precision that machines share make the file a third larger; NaN is not JSON.
    shorter = json.loads(text, parse_constant=lambda _: None, parse_float=lambda x: float(f"{float(x):.{_DIGITS}g}"))
    for kind in ("arrays", "figures", "model"):
        _mirror([path for run in runs for path in (run / kind).glob("[!.]*.*")], study / kind)
    _write_changed(study / "results.json", (json.dumps(shorter, indent=1, ensure_ascii=False) + "\n").encode())


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


def publish(study: str) -> list[Path]:
    """Copy a finished study to `reports/` and `figures/`, and return these folders; both are replaced atomically."""
    source = folders().runs / study
    if not (source / "results.json").is_file():
        raise RunError(f"No results in {source}; run the study first.")
    files = [path for path in source.glob("[!.]*") if path.is_file() and not path.name[:2].isdigit()]
    made = [
        (folders().reports / study, [*files, source / "arrays", source / "model"]),
        (folders().figures / study, sorted((source / "figures").glob("[!.]*"))),
    ]
    for folder, parts in made:
        with disk_errors(folder):
            _replace(folder, [path for path in parts if path.exists()])
    return [folder for folder, _ in made]


def _replace(folder: Path, parts: Iterable[Path]) -> None:
    """Replace a folder by copies of files and folders, also after an earlier call was killed."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # an earlier call was killed between the two renames below
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    for path in parts:
        if path.is_dir():
            shutil.copytree(path, new / path.name, ignore=shutil.ignore_patterns(".*"))
        else:
            shutil.copyfile(path, new / path.name)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _redraw(arrays: Path, folder: Path) -> bool:
    from instrlib import charts

    try:
        figure = charts.draw_stored(arrays)
    except InstrlibError:
        return False  # made by another version
    charts.save(figure, folder, arrays.stem)
    return True


def _mirror(sources: Iterable[Path], folder: Path) -> None:
    wanted = {path.name: path for path in sources}
    for name, path in sorted(wanted.items()):
        _write_changed(folder / name, path.read_bytes())
    for path in folder.glob("*"):
        if path.name not in wanted and path.is_file():
            path.unlink()


def _write_changed(path: Path, content: bytes) -> None:
    if not (path.is_file() and path.read_bytes() == content):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
