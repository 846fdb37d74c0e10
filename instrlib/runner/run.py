"""The results that a notebook declares and publishes, in the folder of its run."""

import math
import os
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import Markdown

from instrlib.core import cache
from instrlib.core.cache import commit, versions
from instrlib.core.config import Profile, folders, get_profile, study_name
from instrlib.core.io import hash_json, read_arrays, read_json, to_jsonable, write_arrays, write_json
from instrlib.reporting.numbers import FIELDS, sentence
from instrlib.runner.notebooks import read_notebook
from instrlib.runner.study import HELD, RECORD, checked, locked, make

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECLARED = "declared.json"
"""The declarations: title, question, facts, methods, primary, findings, figures, models, cards and numbers."""


@dataclass
class Run:
    """The run of one notebook in one study.

    `parameters` are `corpus`, `data`, `profile` and `seeds`; `folder` is `runs/<study>/<notebook>`. Its `manifest.json`
    is written last; without it the run is not finished.
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
        """Draw a chart of `instrlib.charts` and store its arrays, so that `make figures` can redraw it.

        `key` figures are part of the report's summary; `arrays` are the arguments of the chart: numbers, strings and
        arrays of them.
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

    def primary(self, *, question: str, first: str, second: str, score: str, comparison: Mapping[str, Any]) -> Markdown:
        """Declare the notebook's primary comparison, a row of `evaluation.statistics.compare`; return its sentence."""
        row = {"question": question, "first": first, "second": second, "score": score}
        self._add("primary", row | {name: comparison[name] for name in FIELDS}, "question")
        return Markdown(sentence({**comparison, **row}))

    def finding(self, text: str, *, key: bool = False, **numbers: Any) -> Markdown:
        """Declare a finding of at most three sentences, such as "Accuracy is {accuracy:.3f}.", and return it.

        `key` findings are part of the report's summary and of README. The numbers fill the fields of the text and are
        saved with it; those that are not finite are written as a dash.
        """
        said = {"text": _Texts().format(text, **numbers), "key": bool(key), "numbers": numbers}
        self._add("findings", said, "text")
        return Markdown(said["text"])

    def method(self, text: str, **numbers: Any) -> Markdown:
        """Declare a paragraph on methods and return it; `[@key]` cites `templates/references.bib`."""
        said = _Texts().format(text, **numbers)
        self._declare("methods", [*(one for one in self.declared.get("methods", []) if one != said), said])
        return Markdown(said)

    def facts(self, **facts: Any) -> None:
        """Declare the facts at the top of report and cards, such as `clips=600, groups=123`."""
        self._declare("facts", self.declared.get("facts", {}) | facts)

    def card(self, card: str, heading: str, content: Any) -> None:
        """Declare a section of the "data" or the "model" card: Markdown, or a table (DataFrame or dict of rows)."""
        self._add("cards", {"card": card, "heading": heading, "content": content}, "card", "heading")

    def models(self, table: Any, *, score: str, clips: Any) -> None:
        """Declare the models that the notebook tested: estimate, low, high, and optionally baseline and multiply_adds.

        `clips` are the clips that every model predicted; only scores on the same clips are compared.
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

    def findings(self) -> Markdown:
        """Return the primary verdicts and the findings as a Markdown list."""
        said = [sentence(row) for row in self.declared.get("primary", [])]
        said += [one["text"] for one in self.declared.get("findings", [])]
        return Markdown("\n".join(f"- {text}" for text in said))

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
        """Return whether a run is finished, has these parameters and the current code, and its files are kept."""
        path = folder / "manifest.json"
        found = read_json(path) if path.is_file() else {}
        made = (found.get("parameters"), found.get("library")) == (self._recorded(), cache.key("studies"))
        return made and all((folders().data / kept).exists() for kept in found["keeps"])

    def _recorded(self) -> dict[str, Any]:
        """Return the parameters for the manifest, without paths of this machine."""
        return {**self.parameters, "data": Path(self.parameters["data"]).name}

    def _add(self, section: str, entry: dict[str, Any], *same: str) -> None:
        """Add an entry to a section, in place of an earlier one with the same values of these keys."""
        known = [one for one in self.declared.get(section, []) if any(one[key] != entry[key] for key in same)]
        self._declare(section, [*known, entry])

    def _declare(self, what: str, value: Any) -> None:
        self._begin()
        self.declared[what] = to_jsonable(value)
        write_json(self.folder / DECLARED, self.declared)

    def near_record(self, value: float, *path: str, tolerance: float) -> str:
        """Compare a number with the published one, for cells whose output is checked.

        `path` gives the keys of the number in this notebook's entry of `results.json`. Returns "yes" if both differ by
        at most `tolerance`, otherwise "no, <new> against <published>" or "nothing is recorded yet".
        """
        results = folders().reports / self.study / "results.json"
        if not results.is_file():
            return "nothing is recorded yet"
        recorded = read_json(results)["notebooks"].get(self.notebook, {}).get("numbers", {})
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

    `data` is the folder of the corpus ("" for `data/<corpus>`), `profile` "smoke", "quick" or "full". An invalid
    parameter raises `ConfigError`, a corpus without clips `CorpusError`.
    """
    parameters = checked(corpus=corpus, data=data, profile=profile, seeds=seeds)
    run = Run(notebook, parameters, folders().runs / study_name(corpus, profile, parameters["data"]) / notebook)
    source = folders().notebooks / f"{notebook}.ipynb"
    if source.is_file():
        known = read_notebook(source)
        run.declared |= {"title": known.title, "question": known.question}
    return run


class _Texts(string.Formatter):
    """Formats numbers that are not finite as a dash."""

    def format_field(self, value: Any, format_spec: str) -> str:
        missing = value is None or (isinstance(value, float | np.floating) and not math.isfinite(value))
        return "–" if missing else super().format_field(value, format_spec)
