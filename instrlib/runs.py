"""A run is a folder: what a notebook made, with a manifest that says from what; notebooks hand each other these."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrlib.config import Profile, folders, get_profile
from instrlib.errors import RunError
from instrlib.files import read_arrays, read_json, write_arrays, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSIONED = ("instrlib", "tensorflow", "keras", "librosa", "numpy", "scipy", "scikit-learn", "soundfile", "soxr")


@dataclass(frozen=True)
class Run:
    """The folder of one notebook in one study.

    Attributes
    ----------
    notebook : str
        Name of the notebook, without ending, such as "02_baseline_cnn".
    parameters : dict
        The notebook's parameters: `corpus`, `data`, `profile`, `seeds`.
    folder : Path
        `runs/<study>/<notebook>`: `metrics.json`, `arrays/` (what the figures are drawn from), `figures/`, model
        folders, and `manifest.json`, written last: a folder without it is not finished.
    """

    notebook: str
    parameters: dict[str, Any]
    folder: Path

    @property
    def study(self) -> str:
        """Name of the study, corpus and profile."""
        return study_name(self.parameters["corpus"], self.parameters["profile"])

    @property
    def profile(self) -> Profile:
        """The profile's settings."""
        return get_profile(self.parameters["profile"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds 0, 1, ..."""
        return tuple(range(self.parameters["seeds"]))

    def other(self, notebook: str) -> "Run":
        """Return the finished run of an earlier notebook of the same study.

        Raises
        ------
        RunError
            When it has not been run to its end; the message says how to.
        """
        folder = self.folder.parent / notebook
        if not (folder / "manifest.json").is_file():
            raise RunError(
                f"{folder} is not finished; run notebook {notebook} first (`make study` runs them all in order)."
            )
        return Run(notebook, self.parameters, folder)

    def figure(self, draw: Callable[..., "Figure"], name: str | None = None, **arrays: Any) -> "Figure":
        """Draw a figure from arrays and keep both, so that `make figures` can draw it again without the run.

        Parameters
        ----------
        draw : callable
            A function of `instrlib.plots`.
        name : str, optional
            The figure's name; the function's own when it is left out.
        **arrays
            The function's arguments: numbers, strings and arrays of them.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from instrlib import plots

        stem = f"{self.notebook[:2]}_{name or draw.__name__}"
        path = self.folder / "arrays" / f"{stem}.npz"
        write_arrays(path, figure=draw.__name__, **arrays)
        figure = plots.draw_stored(path)
        plots.save(figure, self.folder / "figures", stem)
        return figure

    def save_metrics(self, **metrics: Any) -> None:
        """Add named numbers to `metrics.json`; `results.json` is made of these."""
        path = self.folder / "metrics.json"
        known = read_json(path) if path.is_file() else {}
        write_json(path, known | metrics)

    def metrics(self) -> dict[str, Any]:
        """Return the numbers saved so far."""
        return read_json(self.folder / "metrics.json")

    def save_arrays(self, name: str, **arrays: Any) -> None:
        """Keep named arrays as `<name>.npz` in the folder."""
        write_arrays(self.folder / f"{name}.npz", **arrays)

    def arrays(self, name: str) -> dict[str, Any]:
        """Return what `save_arrays` kept."""
        return read_arrays(self.folder / f"{name}.npz")

    def finish(self, **inputs: str) -> list[str]:
        """Write the manifest, which marks the run as whole.

        Parameters
        ----------
        **inputs : str
            Fingerprints of what went in.

        Returns
        -------
        list of str
            The files of the run, relative to its folder, for the notebook's last table.
        """
        manifest = {
            "notebook": self.notebook,
            "study": self.study,
            "parameters": {**self.parameters, "data": Path(self.parameters["data"]).name},
            "inputs": inputs,
            "versions": versions(),
            "commit": commit(),
        }
        write_json(self.folder / "manifest.json", manifest)
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def study_name(corpus: str, profile: str) -> str:
    """Return the name of a study, "<corpus>-<profile>"."""
    return f"{corpus}-{profile}"


def open_run(notebook: str, *, corpus: str, data: str, profile: str, seeds: int) -> Run:
    """Open the folder of a notebook for writing; what an earlier run left is unfinished from here on.

    Parameters
    ----------
    notebook : str
        Name of the notebook, without ending.
    corpus, data : str
        Corpus and where it lies ("" for its default place).
    profile : str
        "smoke", "quick" or "full".
    seeds : int
        Number of seeds, at least 1.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError, RunError
        When a parameter is unknown or out of range.
    """
    get_profile(profile)
    if not (isinstance(seeds, int) and seeds >= 1):
        raise RunError(f"seeds must be a whole number of at least 1, not {seeds!r}.")
    folder = folders().runs / study_name(corpus, profile) / notebook
    run = Run(notebook, {"corpus": corpus, "data": data, "profile": profile, "seeds": seeds}, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("manifest.json", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    for kind in ("arrays", "figures"):
        for path in (folder / kind).glob("*"):
            path.unlink()
    return run


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONED}


def commit() -> str:
    """Return the commit of the clone that this package lies in, with "+" when files differ; "" outside a clone."""
    here = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()
