"""A run is a folder: what a notebook publishes, declared by the notebook, with a manifest that is written last."""

import math
import os
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.core import cache
from instrlib.core.cache import commit, versions
from instrlib.core.config import Profile, folders, get_profile, study_name
from instrlib.core.errors import ConfigError
from instrlib.core.io import hash_json, read_arrays, read_json, to_jsonable, write_arrays, write_json
from instrlib.reporting.verdicts import FIELDS, VERDICTS, sentence
from instrlib.runner.notebooks import read_notebook
from instrlib.runner.state import HELD, RECORD, checked, locked
from instrlib.runner.study import make

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure

DECLARED = "declared.json"
"""What the notebook publishes; see `SECTIONS`."""

SECTIONS = ("title", "question", "facts", "methods", "findings", "figures", "models", "cards", "numbers")
"""What `results.json` holds of a notebook's declarations, beside the manifest and the list of primary comparisons."""


@dataclass
class Run:
    """The folder of one notebook in one study.

    Attributes
    ----------
    notebook : str
        Name of the notebook, without ending, such as "02_baseline_cnn".
    parameters : dict
        The notebook's parameters: `corpus`, `data`, `profile`, `seeds`.
    folder : Path
        `runs/<study>/<notebook>`: `declared.json`, `arrays/` (what the figures are drawn from), `figures/`, and
        `manifest.json`, written last: a folder without it is not finished.
    """

    notebook: str
    parameters: dict[str, Any]
    folder: Path
    used: set[str] = field(default_factory=set, repr=False, compare=False)
    kept: set[str] = field(default_factory=set, repr=False, compare=False)
    declared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    begun: bool = field(default=False, repr=False, compare=False)

    @property
    def study(self) -> str:
        """Name of the study, corpus and profile."""
        return study_name(self.parameters["corpus"], self.parameters["profile"], self.parameters["data"])

    @property
    def profile(self) -> Profile:
        """The profile's settings."""
        return get_profile(self.parameters["profile"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds 0, 1, ..."""
        return tuple(range(self.parameters["seeds"]))

    def other(self, notebook: str) -> "Run":
        """Return the run of another notebook of the same study; it is made now where there is none of this code."""
        folder = self.folder.parent / notebook
        if not self._is_current(folder):
            make(notebook, self.parameters)
        self.used.add(notebook)
        declared = read_json(folder / DECLARED) if (folder / DECLARED).is_file() else {}
        return Run(notebook, self.parameters, folder, declared=declared)

    def figure(
        self, name: str, chart: Callable[..., "Figure"], /, *, caption: str, key: bool = False, **arrays: Any
    ) -> "Figure":
        """Draw a chart and keep its arrays, from which `make figures` draws it again without the run.

        Parameters
        ----------
        name, chart : str, callable
            The figure's name, and a function of `instrlib.charts`.
        caption : str
            What the figure shows; it stands below it in the report.
        key : bool
            Whether the figure belongs in the report's abstract.
        **arrays
            The chart's arguments: numbers, strings and arrays of them.

        Examples
        --------
        >>> run.figure("scores", charts.dots, caption="Accuracy.", names=["a"], values=[0.5])  # doctest: +SKIP
        """
        from instrlib import charts

        self._begin()
        stem = f"{self.notebook[:2]}_{name}"
        path = self.folder / "arrays" / f"{stem}.npz"
        charts.store(path, chart, **arrays)
        figure = charts.draw_stored(path)
        charts.save(figure, self.folder / "figures", stem)
        known = [one for one in self.declared.get("figures", []) if one["name"] != stem]
        self._declare("figures", [*known, {"name": stem, "caption": caption, "key": bool(key)}])
        return figure

    def primary(
        self, *, question: str, first: str, second: str, score: str, comparison: Mapping[str, Any]
    ) -> "Markdown":
        """Declare the notebook's primary comparison and return its sentence.

        Parameters
        ----------
        question : str
            What it answers, such as "Does CutMix help?".
        first, second, score : str
            What is compared, and in which score.
        comparison : mapping
            A row of `evaluation.statistics.compare`: difference, low, high, p, margin, detectable, verdict.
        """
        missing = [name for name in FIELDS if name not in comparison]
        if missing or comparison["verdict"] not in VERDICTS:
            raise ConfigError(
                f"The comparison of {question!r} lacks {', '.join(missing) or 'one of the four verdicts'}."
            )
        row = {"question": question, "first": first, "second": second, "score": score}
        known = [one for one in self.declared.get("primary", []) if one["question"] != question]
        self._declare("primary", [*known, row | {name: comparison[name] for name in FIELDS}])
        return _markdown(sentence(comparison, first=first, second=second, score=score))

    def finding(self, text: str, *, key: bool = False, **numbers: Any) -> "Markdown":
        """Declare a finding: at most three sentences, with a field for each number, and return it.

        Parameters
        ----------
        text : str
            Markdown with fields as in `str.format`, such as "Accuracy is {accuracy:.3f}."
        key : bool
            Whether it belongs in the report's abstract and in README.
        **numbers
            The fields' values, saved with the finding. One that is not finite is written as a dash.
        """
        said = {"text": _filled(self.notebook, text, numbers), "key": bool(key), "numbers": numbers}
        known = [one for one in self.declared.get("findings", []) if one["text"] != said["text"]]
        self._declare("findings", [*known, said])
        return _markdown(said["text"])

    def method(self, text: str, **numbers: Any) -> "Markdown":
        """Declare a paragraph on how something was done and return it; `[@key]` cites `templates/references.bib`."""
        known = self.declared.get("methods", [])
        said = _filled(self.notebook, text, numbers)
        self._declare("methods", [*(one for one in known if one != said), said])
        return _markdown(said)

    def facts(self, **facts: Any) -> None:
        """Declare what the report and the cards begin with, such as `clips=600, groups=123`."""
        self._declare("facts", self.declared.get("facts", {}) | facts)

    def card(self, card: str, heading: str, content: Any) -> None:
        """Declare a section of the "data" or the "model" card: Markdown, or a table (DataFrame or dict of rows)."""
        if card not in ("data", "model"):
            raise ConfigError(f"There is no {card!r} card; choose data or model.")
        known = [one for one in self.declared.get("cards", []) if (one["card"], one["heading"]) != (card, heading)]
        self._declare("cards", [*known, {"card": card, "heading": heading, "content": _plain(content)}])

    def models(self, table: Any, *, score: str, clips: Any) -> None:
        """Declare the models that the notebook tested, for tables of all models of the study.

        Parameters
        ----------
        table : DataFrame
            A row a model: estimate, low, high, and where they are known baseline (bool) and multiply_adds.
        score : str
            Name of the score.
        clips : array of str
            The clips that every model answered; only scores on the same clips are put side by side.
        """
        answered = hash_json(sorted(map(str, clips)))[:16]
        self._declare("models", {"score": score, "clips": answered, "n_clips": len(clips), "rows": table})

    def declarations(self) -> dict[str, dict[str, Any]]:
        """Return what the finished notebooks of the study declare, by name; this one is left out.

        Outside a study, what was published with the same parameters stands in for notebooks that are not finished.
        """
        published, found = folders().reports / self.study / "results.json", {}
        if published.is_file() and not os.environ.get(HELD):
            results = read_json(published)
            found = {
                name: {**entry, "primary": [row for row in results.get("primary", []) if row["notebook"] == name]}
                for name, entry in results["notebooks"].items()
                if name != self.notebook and entry["manifest"]["parameters"] == self._recorded()
            }
        for path in sorted(self.folder.parent.glob("*/manifest.json")):
            name = path.parent.name
            if name != self.notebook and self._is_current(path.parent):
                found[name] = {**self.other(name).declared, "manifest": read_json(path)}
        return dict(sorted(found.items()))

    def numbers(self, **numbers: Any) -> None:
        """Declare named numbers, lists, arrays or tables for `results.json`."""
        self._declare("numbers", self.declared.get("numbers", {}) | numbers)

    def findings(self) -> "Markdown":
        """Return the primary verdicts and the findings so far as a Markdown list."""
        said = [
            sentence(row, **{name: row[name] for name in ("first", "second", "score")})
            for row in self.declared.get("primary", [])
        ]
        said += [one["text"] for one in self.declared.get("findings", [])]
        return _markdown("\n".join(f"- {text}" for text in said))

    def _begin(self) -> None:
        """Discard what an earlier run left, before the first thing is written; opening a run discards nothing.

        A study that runs in another process keeps its runs: it is refused here.
        """
        if self.begun:
            return
        with locked(self.study):
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in ("manifest.json", DECLARED, RECORD):
                (self.folder / name).unlink(missing_ok=True)
            for kind in ("arrays", "figures"):
                for path in (self.folder / kind).glob("*"):
                    path.unlink()
        self.begun = True

    def _is_current(self, folder: Path) -> bool:
        """Return whether a run is finished, of these parameters and of the library's present code."""
        path = folder / "manifest.json"
        found = read_json(path) if path.is_file() else {}
        return (found.get("parameters"), found.get("library")) == (self._recorded(), cache.key("studies"))

    def _recorded(self) -> dict[str, Any]:
        """Return the parameters as a manifest holds them, without a folder of this machine."""
        return {**self.parameters, "data": Path(self.parameters["data"]).name}

    def _declare(self, what: str, value: Any) -> None:
        self._begin()
        self.declared[what] = to_jsonable(_plain(value))
        write_json(self.folder / DECLARED, self.declared)

    def near_record(self, value: float, *path: str, tolerance: float) -> str:
        """Compare a number with the committed one of the same study; for cells whose output is checked.

        Parameters
        ----------
        value : float
            The number at hand.
        *path : str
            Where it stands in this notebook's numbers of `results.json`, key by key.
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
        entry = read_json(results)["notebooks"].get(self.notebook, {})
        recorded = entry.get("metrics", {}) | entry.get("numbers", {})
        for key in path:
            recorded = recorded.get(key) if isinstance(recorded, dict) else None
        if not isinstance(recorded, int | float):  # a number that is not finite stands there as null
            return "nothing is recorded yet"
        return "yes" if abs(value - recorded) <= tolerance else f"no, {value:.3f} against {recorded:.3f}"

    def save_arrays(self, name: str, **arrays: Any) -> None:
        """Keep named arrays as `<name>.npz` in the folder."""
        self._begin()
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
        from instrlib.data import corpora

        self._begin()
        known = corpora.info(self.parameters["corpus"])
        manifest = {
            "corpus": {name: getattr(known, name) for name in ("title", "licence", "citation", "url", "how_to_get")},
            "notebook": self.notebook,
            "study": self.study,
            "parameters": self._recorded(),
            "library": cache.key("studies"),
            "inputs": inputs,
            "uses": sorted(self.used),
            "keeps": sorted(self.kept),
            "versions": versions(),
            "commit": commit(),
        }
        write_json(self.folder / "manifest.json", manifest)
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


def open_run(notebook: str, *, corpus: str, data: str, profile: str, seeds: int) -> Run:
    """Open the folder of a notebook for writing.

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
    CorpusError
        When there is no clip of the corpus.
    """
    parameters = checked(corpus=corpus, data=data, profile=profile, seeds=seeds)
    run = Run(notebook, parameters, folders().runs / study_name(corpus, profile, parameters["data"]) / notebook)
    source = folders().notebooks / f"{notebook}.ipynb"
    if source.is_file():
        known = read_notebook(source)
        run.declared |= {"title": known.title, "question": known.question}
    return run


def _plain(value: Any) -> Any:
    """Return tables as dictionaries by row, and keys as strings; of several index levels the names are joined."""
    if isinstance(value, dict):
        return {
            " / ".join(map(str, key)) if isinstance(key, tuple) else str(key): _plain(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "columns"):
        return _plain(value.to_dict("index"))
    return _plain(value.to_dict()) if hasattr(value, "to_dict") else value


class _Texts(string.Formatter):
    """Fills texts; a number that is not finite becomes a dash."""

    def format_field(self, value: Any, format_spec: str) -> str:
        missing = value is None or (isinstance(value, float | np.floating) and not math.isfinite(value))
        return "–" if missing else super().format_field(value, format_spec)


def _filled(notebook: str, text: str, numbers: dict[str, Any]) -> str:
    try:
        return _Texts().format(text, **numbers)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{notebook}: {text!r} and its numbers {sorted(numbers)} do not fit: {error}.") from error


def _markdown(text: str) -> "Markdown":
    from IPython.display import Markdown

    return Markdown(text)
