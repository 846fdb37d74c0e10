"""A run is a folder: what a notebook made, with a manifest that says from what; notebooks hand each other these."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrlib.core.cache import commit, versions
from instrlib.core.config import Profile, folders, get_profile
from instrlib.core.errors import ConfigError, RunError
from instrlib.core.io import read_arrays, read_json, write_arrays, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD = "study.json"
"""Beside the manifest: what the study runner knows of the run; a run opened by hand loses it."""


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
    used : set of str
        The notebooks whose runs this one has opened; the manifest lists them, and a change in one of them makes this
        run stale.
    kept : set of str
        Folders and files under `data/` that belong to this run, such as a feature store; when one is gone, the
        notebook runs again.
    """

    notebook: str
    parameters: dict[str, Any]
    folder: Path
    used: set[str] = field(default_factory=set, repr=False, compare=False)
    kept: set[str] = field(default_factory=set, repr=False, compare=False)

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
        self.used.add(notebook)
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

    def near_record(self, value: float, *path: str, tolerance: float) -> str:
        """Compare a number with the committed one of the same study; for cells whose output is checked.

        Parameters
        ----------
        value : float
            The number at hand.
        *path : str
            Where it stands in this notebook's metrics of `results.json`, key by key.
        tolerance : float
            Largest difference that still counts as the same.

        Returns
        -------
        str
            "yes", "no, <new> against <recorded>", or "nothing is recorded yet".
        """
        results = folders().reports / self.study / "results.json"
        if not results.is_file():
            return "nothing is recorded yet"
        recorded = read_json(results)["notebooks"].get(self.notebook, {}).get("metrics", {})
        for key in path:
            recorded = recorded.get(key) if isinstance(recorded, dict) else None
        if not isinstance(recorded, int | float):  # a number that is not finite stands there as null
            return "nothing is recorded yet"
        return "yes" if abs(value - recorded) <= tolerance else f"no, {value:.3f} against {recorded:.3f}"

    def save_arrays(self, name: str, **arrays: Any) -> None:
        """Keep named arrays as `<name>.npz` in the folder."""
        write_arrays(self.folder / f"{name}.npz", **arrays)

    def arrays(self, name: str) -> dict[str, Any]:
        """Return what `save_arrays` kept."""
        return read_arrays(self.folder / f"{name}.npz")

    def keep(self, path: Path) -> None:
        """Tell that a folder or file under `data/`, which later notebooks will read, belongs to this run."""
        self.kept.add(Path(path).absolute().relative_to(folders().data.absolute()).as_posix())

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
            "uses": sorted(self.used),
            "keeps": sorted(self.kept),
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
    ConfigError
        When a parameter is unknown or out of range.
    """
    get_profile(profile)
    if not (isinstance(seeds, int) and seeds >= 1):
        raise ConfigError(f"seeds must be a whole number of at least 1, not {seeds!r}.")
    folder = folders().runs / study_name(corpus, profile) / notebook
    run = Run(notebook, {"corpus": corpus, "data": data, "profile": profile, "seeds": seeds}, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("manifest.json", "metrics.json", RECORD):
        (folder / name).unlink(missing_ok=True)
    for kind in ("arrays", "figures"):
        for path in (folder / kind).glob("*"):
            path.unlink()
    return run
