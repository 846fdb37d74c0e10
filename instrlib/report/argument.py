"""A study's argument, section by section, as plain values that the page and the PDF set alike."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from instrlib.core.config import folders, get_profile
from instrlib.core.errors import RunError
from instrlib.core.io import read_json
from instrlib.core.words import begin, listed, spaced
from instrlib.data import corpora
from instrlib.findings import overview as study_findings
from instrlib.models.published import CARD
from instrlib.report import asides, methods, released, worlds
from instrlib.report.bibliography import Citations, Piece
from instrlib.report.captions import appendix_caption
from instrlib.report.keys import OVERVIEW, key_figures, key_table, more_tables
from instrlib.report.tables import NONE, Table, difference_of, metric_tables, p_of, typeset_table
from instrlib.report.typography import typeset
from instrlib.reporting import overview
from instrlib.reporting.cards import CLIP_LIST, DATA_CARD, class_counts, part_of_whole, what_clips_are, what_groups_are
from instrlib.reporting.overview import Notebooks
from instrlib.runner.notebooks import read_notebook
from instrlib.runner.publish import figures_folder, model_folder, results_path

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
        `title`, `study`, `figures` (their folder, from the report), `notice` (pieces; empty when nothing is stale),
        `lead` (pieces), `sections`, `appendix` (all other figures and the full tables of each notebook) and `works`.
        Figures are named by their stems.

    Raises
    ------
    RunError
        When the study has no results.
    """
    path = results_path(study)
    if not path.is_file():
        raise RunError(f"{path} is missing; run `instrlib study` for this corpus and profile first.")
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
        self.worlds = worlds.used(self.parameters["corpus"], self.told)
        self.classes = class_counts(study)
        self.released = released.found_sentences(self.told, self.profile)
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
            "figures": self._from_here(figures_folder(self.study)),
            "notice": [],
            "lead": lead,
            "sections": sections,
            "appendix": [self._appendix(name) for name in self.notebooks],
            "works": self.cited.works(),
        }

    def _lead(self) -> str:
        title = corpora.info(self.parameters["corpus"]).title
        scored = overview.models(self.told)
        best = f" {study_findings.best_sentence(scored)}" if len(scored) else ""
        best += "".join(f" {sentence}" for sentence in self.released[:1])
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
        yield self._text(self._clips())
        if more := worlds.others_sentence(self.worlds, self._number_starting("13")):
            yield self._text(more)
        cards = {
            "list of the clips": results_path(self.study).with_name(CLIP_LIST),
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
        made = next((name for name in self.told if name.startswith("01_")), next(iter(self.notebooks)))
        compared = [name for name in self.told if name.startswith("13_") and len(self.worlds) > 1]
        yield self._table(worlds.table(self.worlds), made, *compared)
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

    def _clips(self) -> str:
        names = [one["name"] for one in self.classes]
        told_apart = f" The {len(names)} classes are {listed(names)}." if names else ""
        corpus = self.parameters["corpus"]
        part = part_of_whole(corpus, self.told)
        part = f" This study has {part}: its numbers are those of this part alone." if part else ""
        groups = f" A group is {what_groups_are(corpus)}."
        return what_clips_are(corpus) + part + told_apart + groups

    def _number_starting(self, number: str) -> str:
        """Return the number of the section of the notebook that begins with this one; "" where it was not run."""
        return next((self._number_of(name) for name in self.told if name[:2] == number), "")

    def _methods(self) -> list[Block]:
        several = corpora.info(self.parameters["corpus"]).multilabel
        words = methods.paragraphs(self.told, self.profile, self.parameters["seeds"], several=several)
        return [self._text(paragraph) for paragraph in words]

    def _overview(self) -> dict[str, Any]:
        blocks: list[Block] = [
            self._text(
                "Each notebook has one main comparison, fixed in the code by name, or by a rule that its p is "
                "corrected for: the least p of so many comparisons as stand in parentheses. In the last column but one "
                "p is corrected over all that stand here (Holm [@holm1979])."
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
        if asides.divided(name[:2], self.notebooks[name]):
            blocks.append(self._text(asides.task_sentence(metrics, self.classes)))
        found = [self._list(metrics["findings"])] if metrics.get("findings") else []
        table = key_table(name[:2], metrics)
        stem = asides.RECIPES[1] if name[:2] == asides.RECIPES[0] else ""
        shown = [self._table(table, name)] if table else []
        shown += [self._table(table, name, stem=stem) for table in more_tables(name[:2], metrics)]
        shown += self._figures(name)
        blocks += [{"kind": "text", "pieces": _pointers(shown)}] if shown else []
        return _section(name, title, [*blocks, *found, *self._recipes(name), *shown])

    def _recipes(self, name: str) -> list[Block]:
        """Say where a notebook's sentences on recipes come from."""
        if name[:2] != asides.RECIPES[0] or not self.notebooks[name]["metrics"].get("trials"):
            return []
        words: list[Piece] = [{"text": "What is said of recipes was not computed in this run but read: "}]
        log = self._log()
        return [{"kind": "source", "pieces": [*words, *log, {"text": "."}]}] if log else []

    def _log(self) -> list[Piece]:
        """Name the log of recipes, its commit and its seeds; nothing where there is no log."""
        path = asides.recipes_log()
        if not path:
            return []
        link = {"text": f"notebooks/{path.name}", "url": self._from_here(path)}
        return [{"text": "log "}, link, {"text": f", {asides.recipes_origin(path)}"}]

    def _found(self) -> list[Block]:
        return [
            self._text(
                "Over the whole study, computed from the numbers above; what each notebook found stands in its section."
            ),
            self._list(self._study_sentences()),
        ]

    def _study_sentences(self) -> list[str]:
        """Say what the whole study found; what is given away stands behind the best of those that were compared."""
        said = study_findings.study_sentences(self.told)
        scored = overview.models(self.told)
        best = said.index(study_findings.best_sentence(scored)) + 1 if len(scored) else len(said)
        logged = any(self._recipes(name) for name in self.told)
        return [*said[:best], *self.released, *said[best:], *([asides.unchecked_sentence()] if logged else [])]

    def _limits(self) -> list[Block]:
        every = [path.stem for path in sorted(folders().notebooks.glob("[0-9][0-9]_*.ipynb"))]
        missing = [name for name in every if name not in self.notebooks and name[:2] != OVERVIEW]
        facts = overview.facts(self.told or self.notebooks, missing)
        return [self._list(study_findings.limit_sentences(facts, overview.comparisons(self.told)))]

    def _reproduce(self) -> Iterator[Block]:
        manifests = {name: entry["manifest"] for name, entry in self.notebooks.items()}
        commits = list(dict.fromkeys(_commit(manifest) for manifest in manifests.values()))
        corpus, profile = self.parameters["corpus"], self.parameters["profile"]
        part = part_of_whole(corpus, self.told)
        if part and results_path(self.study).with_name(CLIP_LIST).is_file():
            yield self._text(
                f"The study has {part}. They are listed in `{CLIP_LIST}` beside this report: put them, and the "
                "release's tables cut down to them, into a folder of their own, and name that in the first command."
            )
        yield self._text(
            f"The runs were made at commit {listed(commits)}; their numbers were committed after it and stand in the "
            "repository's latest version. In a clone of that, the first command sets up the environment and runs what "
            "is missing, the others draw the figures and write this report again from the committed numbers:"
        )
        yield {
            "kind": "code",
            "text": f"{_command(self.parameters, part)}\nmake figures CORPUS={corpus} PROFILE={profile}\n"
            f"make report CORPUS={corpus} PROFILE={profile}",
        }
        shown = asides.shown_study(next(iter(self.notebooks)))
        if shown not in ("", self.study):
            yield self._text(f"The notebooks that are linked here show the numbers of another study, `{shown}`.")
        if needs := list(worlds.needs(self.worlds)):
            yield self._text(
                f"Section {self._number_starting('13')} needs these sounds, too, and without them leaves them out:"
            )
            yield self._list([f"{need}." for need in needs])
        rows = tuple(
            (
                name,
                _commit(manifest),
                _inputs(name, self.notebooks[name]),
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
                {
                    "stem": f"{name[:2]}_{stem}",
                    "alt": typeset(appendix_caption(name[:2], stem)),
                    "source": self._source(name, stem),
                }
                for stem in self.stems[name]
                if stem not in keys
            ],
            "tables": [vars(typeset_table(table)) for table in metric_tables(metrics)],
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

    def _table(self, table: Table, *names: str, stem: str = "") -> Block:
        self.n_tables += 1
        table = typeset_table(table)
        return {
            "kind": "table",
            "number": self.n_tables,
            "caption": self.cited.pieces(table.caption or "Numbers."),
            "header": table.header,
            "rows": table.rows,
            "source": self._source(names[0], stem) if len(names) == 1 else self._sources(names),
        }

    def _text(self, words: str) -> Block:
        return {"kind": "text", "pieces": self.cited.pieces(words)}

    def _list(self, sentences: Sequence[str]) -> Block:
        return {"kind": "list", "items": [self.cited.pieces(sentence) for sentence in sentences]}

    def _source(self, name: str, stem: str = "") -> list[Piece]:
        """Name the notebook, the run and the commit that made something, with links."""
        pieces: list[Piece] = [
            {"text": "Notebook "},
            {"text": name, "url": self._from_here(folders().notebooks / f"{name}.ipynb")},
            {"text": f", run runs/{self.study}/{name}, commit {_commit(self.notebooks[name]['manifest'])}; "},
            {"text": "numbers", "url": "results.json"},
        ]
        if stem:
            pieces += [{"text": ", "}, {"text": "arrays", "url": f"arrays/{name[:2]}_{stem}.npz"}]
        if (name[:2], stem) == asides.RECIPES and (log := self._log()):
            pieces += [{"text": "; all read from the "}, *log]
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


def _pointers(shown: list[Block]) -> list[Piece]:
    """Point at the tables and figures of a section: "Numbers: Table 3; drawn: Figures 4 and 5."."""
    pieces: list[Piece] = []
    for kind, one, several in (("table", "Table", "Tables"), ("figure", "Figure", "Figures")):
        blocks = [block for block in shown if block["kind"] == kind]
        for place, block in enumerate(blocks):
            before = " and " if place and place == len(blocks) - 1 else ", " if place else ""
            word = "" if place else f"{', ' if pieces else ''}{one if len(blocks) == 1 else several} "
            pieces += [{"text": word or before}]
            pieces += [{"text": f"{block['number']}", "url": f"#{kind}-{block['number']}"}]
    return [{"text": "Shown in "}, *pieces, {"text": "."}]


def _inputs(name: str, entry: dict[str, Any]) -> str:
    made_from = ", ".join(f"{key} {value}" for key, value in entry["manifest"]["inputs"].items())
    return f"{made_from}, of both only every second class is tested" if asides.divided(name[:2], entry) else made_from


def _about(name: str) -> tuple[str, str]:
    """Return a notebook's title without its number, and its question; "" where the notebook is gone."""
    path = folders().notebooks / f"{name}.ipynb"
    known = read_notebook(path) if path.is_file() else None
    title = known.title.rpartition(" · ")[2] if known else ""
    return title or begin(spaced(name.partition("_")[2])), known.question if known else ""


def _stems(study: str, name: str) -> list[str]:
    return sorted(path.stem[3:] for path in figures_folder(study).glob(f"{name[:2]}_*.png"))


def _commit(manifest: dict[str, Any]) -> str:
    return manifest["commit"] or "not in a clone"


def _command(parameters: dict[str, Any], part: str) -> str:
    folder = parameters["data"] or ("these-clips" if part else "")
    data = f" DATA=path/to/{folder}" if folder else ""
    return f"make study CORPUS={parameters['corpus']}{data} PROFILE={parameters['profile']} SEEDS={parameters['seeds']}"
