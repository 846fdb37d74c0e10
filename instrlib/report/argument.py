"""A study's argument, section by section, as plain values that the page and the PDF set alike."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from instrlib import corpora, freshness, overview
from instrlib.cards import DATA_CARD
from instrlib.config import folders
from instrlib.errors import StudyError
from instrlib.files import read_json
from instrlib.findings import overview as study_findings
from instrlib.notebooks import read_notebook
from instrlib.overview import Notebooks
from instrlib.profiles import get_profile
from instrlib.publish import figures_folder, model_folder, results_path
from instrlib.published import CARD
from instrlib.report import methods
from instrlib.report.bibliography import Citations, Piece
from instrlib.report.keys import OVERVIEW, key_figures, key_table
from instrlib.report.tables import NONE, Table, difference_of, metric_tables, p_of
from instrlib.words import begin, listed, spaced

TITLE = "Musical instrument recognition"

Block = dict[str, Any]
"""What stands in a section: `kind` is "text", "question", "list", "code", "figure", "table" or "source"."""

_MOST_NAMES = 3


def argument(study: str) -> dict[str, Any]:
    """Lay out what was asked, how it was answered, what was found and what bounds it.

    Parameters
    ----------
    study : str
        Name of the study, such as "rendered-quick".

    Returns
    -------
    dict
        `title`, `study`, `notice` (pieces; empty when nothing is stale), `lead` (pieces), `sections`, `appendix` (all
        other figures and the full tables of each notebook) and `works`. Figures are named by their stems.

    Raises
    ------
    StudyError
        When the study has no results.
    """
    path = results_path(study)
    if not path.is_file():
        raise StudyError(f"{path} is missing; run `instrlib study` for this corpus and profile first.")
    return _Writer(study, read_json(path)["notebooks"]).document()


class _Writer:
    """Numbers figures, tables and works in the order in which they are written."""

    def __init__(self, study: str, notebooks: Notebooks) -> None:
        self.study = study
        self.notebooks = notebooks
        self.told = {name: entry for name, entry in notebooks.items() if name[:2] != OVERVIEW}
        self.parameters = next(iter(notebooks.values()))["manifest"]["parameters"]
        self.profile = get_profile(self.parameters["profile"])
        self.about = {name: _about(name) for name in notebooks}
        self.stems = {name: _stems(study, name) for name in notebooks}
        self.cited = Citations()
        self.n_figures = self.n_tables = 0

    def document(self) -> dict[str, Any]:
        lead = self.cited.pieces(self._lead())
        sections = [
            _section("asked", "What was asked", self._asked()),
            _section("data", "The data", list(self._data())),
            _section("methods", "Methods", self._methods()),
            _section("results", "Results", [], [self._overview(), *map(self._notebook, self.told)]),
            _section("found", "What was found", self._found()),
            _section("limits", "Limits", self._limits()),
            _section("reproduce", "How to reproduce it", list(self._reproduce())),
        ]
        for number, section in enumerate(sections, 1):
            section["number"] = f"{number}"
            for inner, part in enumerate(section["sections"], 1):
                part["number"] = f"{number}.{inner}"
        return {
            "title": TITLE,
            "study": self.study,
            "notice": _stale(self.study),
            "lead": lead,
            "sections": sections,
            "appendix": [self._appendix(name) for name in self.notebooks],
            "works": self.cited.works(),
        }

    def _lead(self) -> str:
        title = corpora.info(self.parameters["corpus"]).title
        scored = overview.models(self.told)
        best = f" {study_findings.best_sentence(scored)}" if len(scored) else ""
        starts = self.parameters["seeds"]
        return (
            f"{len(self.told)} {'notebook' if len(self.told) == 1 else 'notebooks'}, each with one question; corpus: "
            f"{title}; profile “{self.profile.name}”, {starts} {'seed' if starts == 1 else 'seeds'}.{best} Every "
            "number is read from `results.json`; a range in brackets is the 95 % interval."
        )

    def _asked(self) -> list[Block]:
        questions = [
            [
                {"text": f"{self._number_of(name)} ", "url": f"#{name}"},
                *self.cited.pieces(question or self.about[name][0]),
            ]
            for name, (_, question) in self.about.items()
            if name in self.told
        ]
        return [
            self._text(
                "Which instrument is heard in a recording, how surely can a small network tell, what makes it better "
                "or cheaper, and where does it fail? Each notebook asks one part of it:"
            ),
            {"kind": "list", "items": questions},
        ]

    def _number_of(self, name: str) -> str:
        """Return the number of the section of a notebook; the first is the overview's."""
        return f"4.{list(self.told).index(name) + 2}"

    def _data(self) -> Iterator[Block]:
        corpus = self.parameters["corpus"]
        known = corpora.info(corpus)
        yield {
            "kind": "text",
            "pieces": [
                *self.cited.pieces(f"The corpus is **{known.title}** {methods.CORPUS_WORKS.get(corpus, '')}".strip()),
                *([{"text": ", "}, {"text": known.url, "url": known.url}] if known.url else []),
                {"text": "."},
            ],
        }
        cards = {
            "data card": results_path(self.study).with_name(DATA_CARD),
            "model card": model_folder(self.study) / CARD,
        }
        links = [{"text": what, "url": self._from_here(path)} for what, path in cards.items() if path.is_file()]
        if links:
            more = [piece for link in links for piece in ({"text": ", "}, link)][1:]
            yield {
                "kind": "text",
                "pieces": [{"text": "More stands in files beside this report: "}, *more, {"text": "."}],
            }
        rows = {"licence": known.licence, "cite as": known.citation, "how to get it": known.how_to_get}
        made = next((name for name in self.told if name.startswith("01_")), next(iter(self.notebooks)))
        table = Table(
            "What is used, and on what terms.", (), tuple((key, value) for key, value in rows.items() if value)
        )
        yield self._table(table, made)
        metrics = self.notebooks[made]["metrics"]
        counts = {
            "Clips": metrics.get("n_clips"),
            "Groups": metrics.get("n_groups"),
            "Segments": metrics.get("n_segments"),
            **{f"Clips for {part}": count for part, count in metrics.get("parts", {}).items()},
        }
        found = [(name, f"{count:,}") for name, count in counts.items() if isinstance(count, int)]
        if found:
            names, numbers = zip(*found, strict=True)
            yield self._table(Table("Counts, and the first split.", ("", *names), (("number", *numbers),)), made)

    def _methods(self) -> list[Block]:
        several = corpora.info(self.parameters["corpus"]).multilabel
        words = methods.paragraphs(self.told, self.profile, self.parameters["seeds"], several=several)
        return [self._text(paragraph) for paragraph in words]

    def _overview(self) -> dict[str, Any]:
        blocks: list[Block] = [
            self._text(
                "Each notebook has one main comparison, fixed in the code, whatever the numbers are. Here p is "
                "corrected over all of them (Holm [@holm1979]); in parentheses stands how many comparisons within the "
                "notebook it was corrected for before."
            )
        ]
        compared = overview.comparisons(self.told)
        if len(compared):
            rows = tuple(
                (
                    name[:2],
                    f"{row['first']} − {row['second']}",
                    row.score,
                    difference_of(row.difference, row.low, row.high),
                    p_of(row.p) + (f" ({row.family})" if row.family > 1 else ""),
                    p_of(row.p_holm),
                    "yes" if row.shown else "no",
                )
                for name, row in compared.iterrows()
            )
            header = ("", "Compared", "Score", "Difference", "p", "p (Holm)", "Shown")
            blocks.append(self._table(Table("The main comparisons.", header, rows), *compared.index))
        name = next((name for name in self.notebooks if name[:2] == OVERVIEW), None)
        if name:
            blocks += self._figures(name)
        return _section(name or "overview", "Side by side", blocks)

    def _notebook(self, name: str) -> dict[str, Any]:
        metrics = self.notebooks[name]["metrics"]
        title, question = self.about[name]
        blocks: list[Block] = [{"kind": "question", "pieces": self.cited.pieces(question)}] if question else []
        blocks.append({"kind": "source", "pieces": self._source(name)})
        blocks += [self._list(metrics.get("findings", ()))] if metrics.get("findings") else []
        table = key_table(name[:2], metrics)
        blocks += [self._table(table, name)] if table else []
        return _section(name, title, [*blocks, *self._figures(name)])

    def _found(self) -> list[Block]:
        return [
            self._text(
                "Over the whole study, computed from the numbers above; what each notebook found stands in its section."
            ),
            self._list(study_findings.study_sentences(self.told)),
        ]

    def _limits(self) -> list[Block]:
        every = [path.stem for path in sorted(folders().notebooks.glob("[0-9][0-9]_*.ipynb"))]
        missing = [name for name in every if name not in self.notebooks and name[:2] != OVERVIEW]
        facts = overview.facts(self.told or self.notebooks, missing)
        return [self._list(study_findings.limit_sentences(facts, overview.comparisons(self.told)))]

    def _reproduce(self) -> Iterator[Block]:
        manifests = {name: entry["manifest"] for name, entry in self.notebooks.items()}
        commits = list(dict.fromkeys(_commit(manifest) for manifest in manifests.values()))
        yield self._text(
            f"In a clone of the repository at commit {listed(commits)}; the first command sets up the environment and "
            "runs what is missing, the others draw the figures and write this report again from the committed numbers:"
        )
        corpus, profile = self.parameters["corpus"], self.parameters["profile"]
        yield {
            "kind": "code",
            "text": f"{_command(self.parameters)}\nmake figures CORPUS={corpus} PROFILE={profile}\n"
            f"make report CORPUS={corpus} PROFILE={profile}",
        }
        rows = tuple(
            (
                name,
                _commit(manifest),
                ", ".join(f"{key} {value}" for key, value in manifest["inputs"].items()),
                ", ".join(used[:2] for used in manifest["uses"]) or NONE,
            )
            for name, manifest in manifests.items()
        )
        header = ("Notebook", "Commit", "Made from", "Uses")
        yield self._table(Table("What made each notebook's numbers.", header, rows), *manifests)
        versions = [manifest["versions"] for manifest in manifests.values()]
        packages = dict.fromkeys(name for found in versions for name in found)
        named = (f"{name} {listed(dict.fromkeys(found.get(name, 'none') for found in versions))}" for name in packages)
        yield self._text(f"These versions decide the numbers: {', '.join(named)}.")

    def _appendix(self, name: str) -> dict[str, Any]:
        metrics = {key: value for key, value in self.notebooks[name]["metrics"].items() if key != "findings"}
        keys = key_figures(name[:2], self.stems[name])
        return {
            "id": f"{name}-all",
            "title": self.about[name][0],
            "source": self._source(name),
            "figures": [
                {"stem": f"{name[:2]}_{stem}", "alt": begin(spaced(stem)), "source": self._source(name, stem)}
                for stem in self.stems[name]
                if stem not in keys
            ],
            "tables": [vars(table) for table in metric_tables(metrics)],
        }

    def _figures(self, name: str) -> list[Block]:
        blocks = []
        for stem, caption in key_figures(name[:2], self.stems[name]).items():
            self.n_figures += 1
            blocks.append(
                {
                    "kind": "figure",
                    "number": self.n_figures,
                    "stem": f"{name[:2]}_{stem}",
                    "alt": caption,
                    "caption": self.cited.pieces(caption),
                    "source": self._source(name, stem),
                }
            )
        return blocks

    def _table(self, table: Table, *names: str) -> Block:
        self.n_tables += 1
        return {
            "kind": "table",
            "number": self.n_tables,
            "caption": self.cited.pieces(table.caption or "Numbers."),
            "header": table.header,
            "rows": table.rows,
            "source": self._source(names[0]) if len(names) == 1 else self._sources(names),
        }

    def _text(self, words: str) -> Block:
        return {"kind": "text", "pieces": self.cited.pieces(words)}

    def _list(self, sentences: Sequence[str]) -> Block:
        return {"kind": "list", "items": [self.cited.pieces(sentence) for sentence in sentences]}

    def _source(self, name: str, stem: str = "") -> list[Piece]:
        """Name the notebook, the run and the commit that made something, with links."""
        pieces = [
            {"text": "Notebook "},
            {"text": name, "url": self._from_here(folders().notebooks / f"{name}.ipynb")},
            {"text": f", run runs/{self.study}/{name}, commit {_commit(self.notebooks[name]['manifest'])}; "},
            {"text": "numbers", "url": "results.json"},
        ]
        if stem:
            pieces += [{"text": ", "}, {"text": "arrays", "url": f"arrays/{name[:2]}_{stem}.npz"}]
        return [*pieces, {"text": "."}]

    def _sources(self, names: Sequence[str]) -> list[Piece]:
        """Name several notebooks, their runs and their commits."""
        by_commit: dict[str, list[str]] = {}
        for name in names:
            by_commit.setdefault(_commit(self.notebooks[name]["manifest"]), []).append(name)
        pieces: list[Piece] = [{"text": f"Runs runs/{self.study}/ of the notebooks "}]
        for number, (commit, together) in enumerate(by_commit.items()):
            pieces += [{"text": "; "}] if number else []
            for place, name in enumerate(together):
                pieces += [{"text": ", "}] if place else []
                pieces.append({"text": name[:2], "url": self._from_here(folders().notebooks / f"{name}.ipynb")})
            pieces.append({"text": f" (commit {commit})"})
        return [*pieces, {"text": "; "}, {"text": "numbers", "url": "results.json"}, {"text": "."}]

    def _from_here(self, path: Path) -> str:
        return Path(os.path.relpath(path, results_path(self.study).parent)).as_posix()


def _section(name: str, title: str, blocks: list[Block], sections: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"id": name, "title": title, "blocks": blocks, "sections": list(sections)}


def _about(name: str) -> tuple[str, str]:
    """Return a notebook's title without its number, and its question; "" where the notebook is gone."""
    path = folders().notebooks / f"{name}.ipynb"
    known = read_notebook(path) if path.is_file() else None
    title = known.title.rpartition(" · ")[2] if known else ""
    return title or begin(spaced(name.partition("_")[2])), known.question if known else ""


def _stems(study: str, name: str) -> list[str]:
    return sorted(path.stem[3:] for path in figures_folder(study).glob(f"{name[:2]}_*.png"))


def _stale(study: str) -> list[Piece]:
    """Say which results are older than the code that makes them."""
    changed = freshness.stale(study)
    if not changed:
        return []
    alike: dict[str, list[str]] = {}
    for name, what in changed.items():
        alike.setdefault(_shortened(what), []).append(name[:2])
    named = "; ".join(f"{listed(names)} ({what})" for what, names in alike.items())
    way_out = "Run the first command under “How to reproduce it”."
    return [
        {"text": f"Not up to date; of these notebooks something has changed since, or is not known: {named}. {way_out}"}
    ]


def _shortened(names: list[str]) -> str:
    left = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {left} more" if left > 0 else "")


def _commit(manifest: dict[str, Any]) -> str:
    return manifest["commit"] or "not in a clone"


def _command(parameters: dict[str, Any]) -> str:
    data = f" DATA=path/to/{parameters['data']}" if parameters["data"] else ""
    return f"make study CORPUS={parameters['corpus']}{data} PROFILE={parameters['profile']} SEEDS={parameters['seeds']}"
