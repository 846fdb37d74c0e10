"""The results that a notebook declares and publishes, in the folder of its run."""

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
from instrlib.core.io import ConfigError, hash_json, read_arrays, read_json, to_jsonable, write_arrays, write_json
from instrlib.reporting.numbers import FIELDS, VERDICTS, sentence
from instrlib.runner.notebooks import read_notebook
from instrlib.runner.state import HELD, RECORD, checked, locked
from instrlib.runner.study import make

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure

DECLARED = "declared.json"
"""The declarations: title, question, facts, methods, primary, findings, figures, models, cards and numbers."""


@dataclass
class Run:
    """The run of one notebook in one study.

    Attributes
    ----------
    notebook : str
        Name of the notebook, such as "02_baseline_cnn".
    parameters : dict
        The notebook's parameters: `corpus`, `data`, `profile`, `seeds`.
    folder : Path
        `runs/<study>/<notebook>`, with `declared.json`, `arrays/`, `figures/` and `manifest.json`. The manifest is
        written last; without it the run is not finished.
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
        """Return the run of another notebook of the study; the notebook is run first if that run is missing or old."""
        folder = self.folder.parent / notebook
        if not self._is_current(folder):
            make(notebook, self.parameters)
        self.used.add(notebook)
        declared = read_json(folder / DECLARED) if (folder / DECLARED).is_file() else {}
        return Run(notebook, self.parameters, folder, declared=declared)

    def figure(
        self, name: str, chart: Callable[..., "Figure"], /, *, caption: str, key: bool = False, **arrays: Any
    ) -> "Figure":
        """Draw a chart and store its arrays, so that `make figures` can redraw it.

        Parameters
        ----------
        name, chart : str, callable
            Name of the figure, and a function of `instrlib.charts`.
        caption : str
            Caption in the report.
        key : bool
            Whether the figure belongs in the summary of the report.
        **arrays
            Arguments of the chart: numbers, strings and arrays of them.

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
        self._add("figures", {"name": stem, "caption": caption, "key": bool(key)}, "name")
        return figure

    def primary(
        self, *, question: str, first: str, second: str, score: str, comparison: Mapping[str, Any]
    ) -> "Markdown":
        """Declare the notebook's primary comparison and return its sentence.

        Parameters
        ----------
        question : str
            Such as "Does CutMix help?".
        first, second, score : str
            Names of the compared models and of the score.
        comparison : mapping
            A row of `evaluation.statistics.compare`: difference, low, high, p, margin, detectable, verdict.
        """
        missing = [name for name in FIELDS if name not in comparison]
        if missing or comparison["verdict"] not in VERDICTS:
            raise ConfigError(
                f"The comparison of {question!r} lacks {', '.join(missing) or 'one of the four verdicts'}."
            )
        row = {"question": question, "first": first, "second": second, "score": score}
        self._add("primary", row | {name: comparison[name] for name in FIELDS}, "question")
        return _markdown(sentence(comparison, first=first, second=second, score=score))

    def finding(self, text: str, *, key: bool = False, **numbers: Any) -> "Markdown":
        """Declare a finding of at most three sentences and return it.

        Parameters
        ----------
        text : str
            Markdown with fields as in `str.format`, such as "Accuracy is {accuracy:.3f}."
        key : bool
            Whether it belongs in the summary of the report and in README.
        **numbers
            Values of the fields, saved with the finding. Values that are not finite are written as a dash.
        """
        said = {"text": _filled(self.notebook, text, numbers), "key": bool(key), "numbers": numbers}
        self._add("findings", said, "text")
        return _markdown(said["text"])

    def method(self, text: str, **numbers: Any) -> "Markdown":
        """Declare a paragraph on methods and return it; `[@key]` cites `templates/references.bib`."""
        said = _filled(self.notebook, text, numbers)
        self._declare("methods", [*(one for one in self.declared.get("methods", []) if one != said), said])
        return _markdown(said)

    def facts(self, **facts: Any) -> None:
        """Declare the facts at the top of report and cards, such as `clips=600, groups=123`."""
        self._declare("facts", self.declared.get("facts", {}) | facts)

    def card(self, card: str, heading: str, content: Any) -> None:
        """Declare a section of the "data" or the "model" card: Markdown, or a table (DataFrame or dict of rows)."""
        if card not in ("data", "model"):
            raise ConfigError(f"There is no {card!r} card; choose data or model.")
        self._add("cards", {"card": card, "heading": heading, "content": content}, "card", "heading")

    def models(self, table: Any, *, score: str, clips: Any) -> None:
        """Declare the models that the notebook tested.

        Parameters
        ----------
        table : DataFrame
            One row per model: estimate, low, high, and optionally baseline (bool) and multiply_adds.
        score : str
            Name of the score.
        clips : array of str
            The clips that every model predicted; only scores on the same clips are compared.
        """
        answered = hash_json(sorted(map(str, clips)))[:16]
        self._declare("models", {"score": score, "clips": answered, "n_clips": len(clips), "rows": table})

    def declarations(self) -> dict[str, dict[str, Any]]:
        """Return the declarations of the other finished notebooks, by name.

        Outside a study, published results with the same parameters are used for notebooks that are not finished.
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
        """Declare numbers, lists, arrays or tables for `results.json`."""
        self._declare("numbers", self.declared.get("numbers", {}) | numbers)

    def findings(self) -> "Markdown":
        """Return the primary verdicts and the findings as a Markdown list."""
        said = [
            sentence(row, **{name: row[name] for name in ("first", "second", "score")})
            for row in self.declared.get("primary", [])
        ]
        said += [one["text"] for one in self.declared.get("findings", [])]
        return _markdown("\n".join(f"- {text}" for text in said))

    def _begin(self) -> None:
        """Remove the results of an earlier run before the first result is written; the study must not be running."""
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
        """Return whether a run is finished and was made with these parameters and the current code."""
        path = folder / "manifest.json"
        found = read_json(path) if path.is_file() else {}
        return (found.get("parameters"), found.get("library")) == (self._recorded(), cache.key("studies"))

    def _recorded(self) -> dict[str, Any]:
        """Return the parameters for the manifest, without paths of this machine."""
        return {**self.parameters, "data": Path(self.parameters["data"]).name}

    def _add(self, section: str, entry: dict[str, Any], *same: str) -> None:
        """Add an entry to a section, in place of an earlier one with the same values of these keys."""
        known = [one for one in self.declared.get(section, []) if any(one[key] != entry[key] for key in same)]
        self._declare(section, [*known, entry])

    def _declare(self, what: str, value: Any) -> None:
        self._begin()
        self.declared[what] = to_jsonable(_plain(value))
        write_json(self.folder / DECLARED, self.declared)

    def near_record(self, value: float, *path: str, tolerance: float) -> str:
        """Compare a number with the published one, for cells whose output is checked.

        `path` gives the keys of the number in this notebook's entry of `results.json`. Returns "yes" if both differ by
        at most `tolerance`, otherwise "no, <new> against <published>" or "nothing is recorded yet".
        """
        results = folders().reports / self.study / "results.json"
        if not results.is_file():
            return "nothing is recorded yet"
        entry = read_json(results)["notebooks"].get(self.notebook, {})
        recorded = entry.get("metrics", {}) | entry.get("numbers", {})
        for key in path:
            recorded = recorded.get(key) if isinstance(recorded, dict) else None
        if not isinstance(recorded, int | float):  # null if it was not finite
            return "nothing is recorded yet"
        return "yes" if abs(value - recorded) <= tolerance else f"no, {value:.3f} against {recorded:.3f}"

    def save_arrays(self, name: str, **arrays: Any) -> None:
        """Save arrays as `<name>.npz` in the folder."""
        self._begin()
        write_arrays(self.folder / f"{name}.npz", **arrays)

    def arrays(self, name: str) -> dict[str, Any]:
        """Return arrays that `save_arrays` saved."""
        return read_arrays(self.folder / f"{name}.npz")

    def keep(self, path: Path) -> None:
        """Record that later notebooks need this file or folder under `data/`."""
        self.kept.add(Path(path).absolute().relative_to(folders().data.absolute()).as_posix())

    def finish(self, **inputs: str) -> list[str]:
        """Write the manifest, which completes the run, with fingerprints of the inputs; return the files of the run."""
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
    """Open the run of a notebook.

    Parameters
    ----------
    notebook : str
        Name of the notebook.
    corpus, data : str
        Name of the corpus and its folder ("" for `data/<corpus>`).
    profile : str
        "smoke", "quick" or "full".
    seeds : int
        Number of seeds, at least 1.

    Raises
    ------
    ConfigError
        If a parameter is unknown or out of range.
    CorpusError
        If no clips of the corpus are found.
    """
    parameters = checked(corpus=corpus, data=data, profile=profile, seeds=seeds)
    run = Run(notebook, parameters, folders().runs / study_name(corpus, profile, parameters["data"]) / notebook)
    source = folders().notebooks / f"{notebook}.ipynb"
    if source.is_file():
        known = read_notebook(source)
        run.declared |= {"title": known.title, "question": known.question}
    return run


def _plain(value: Any) -> Any:
    """Return tables as dictionaries of rows, with strings as keys."""
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
    """Formats numbers that are not finite as a dash."""

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
