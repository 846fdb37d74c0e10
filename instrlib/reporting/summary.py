"""What a study's `results.json` declares; report, README, cards and comparisons read nothing else."""

import json
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import instrlib
from instrlib.core.config import folders
from instrlib.core.io import RunError, expanded, read_json

TEMPLATES = Path(instrlib.__file__).parent / "templates"


@dataclass(frozen=True)
class Study:
    """The declarations of a study.

    `label` is its name, followed by "@revision" where the results are those of a commit. `folder` holds `results.json`,
    and gets reports and cards. `notebooks` has declarations and manifest of each notebook, `primary` the primary
    comparisons; both are in order of the notebooks.
    """

    label: str
    folder: Path
    figures: Path
    notebooks: dict[str, dict[str, Any]]
    primary: list[dict[str, Any]]

    def declared(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Return notebook and entry of all "findings", "figures" or "cards"."""
        return [(name, one) for name, entry in self.notebooks.items() for one in entry.get(kind, [])]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the first notebook; raise `RunError` if another one has other parameters."""
        manifests = {name: entry["manifest"] for name, entry in self.notebooks.items()}
        first, *_ = manifests.values()
        mixed = [name for name, one in manifests.items() if one["parameters"] != first["parameters"]]
        if mixed:
            raise RunError(f"{', '.join(mixed)} of {self.label} have other parameters than {next(iter(manifests))}.")
        return first

    def commits(self) -> str:
        """Return the commits that made the notebooks' results."""
        return ", ".join(dict.fromkeys(one["manifest"].get("commit") or "unknown" for one in self.notebooks.values()))

    def facts(self) -> dict[str, str]:
        """Return the facts that the notebooks declare, such as the number of clips, as texts."""
        facts = {name: value for entry in self.notebooks.values() for name, value in entry.get("facts", {}).items()}
        texts = {name.replace("_", " "): text_of(value) for name, value in facts.items()}
        released = about_corpus(self.manifest()["parameters"]["corpus"]).get("clips", 0)
        if 0 < facts.get("clips", 0) < released:
            texts["clips"] += f" of {released:,}"
        return texts

    def about(self) -> dict[str, str]:
        """Return corpus, facts, profile, seeds and commits."""
        manifest = self.manifest()
        parameters, title = manifest["parameters"], manifest.get("corpus", {}).get("title", "")
        return {
            "corpus": f"{title} ({parameters['corpus']})" if title else parameters["corpus"],
            **self.facts(),
            "profile": parameters["profile"],
            "seeds": str(parameters["seeds"]),
            "commit": self.commits(),
        }


def open_study(place: str | Path) -> Study:
    """Open a study by the name of a published one, a folder, a `results.json`, or "NAME@REVISION" of git.

    `RunError` if there are no results.
    """
    text, reports = str(place), folders().reports
    path = expanded(text)
    if Path(text).name == text and (reports / text / "results.json").is_file():
        path = reports / text
    path = path / "results.json" if path.is_dir() else path
    name, _, revision = text.rpartition("@")
    if path.is_file():
        results, revision = read_json(path), ""
    elif name:
        path = reports / name / "results.json"
        command = ["git", "show", "--end-of-options", f"{revision}:./{name}/results.json"]
        try:
            shown = subprocess.run(command, cwd=reports, check=True, capture_output=True, text=True, timeout=60)
            results = json.loads(shown.stdout)
        except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
            raise RunError(
                f"git has no results of {name} at {revision}; `git log -- reports/{name}` lists the revisions."
            ) from error
    else:
        raise RunError(f"No results of {text!r} in {reports}. Run `make study`, or name a results.json.")
    if not (isinstance(results, dict) and isinstance(results.get("notebooks"), dict) and results["notebooks"]):
        raise RunError(f"{text} has no results of a study. Give the path of a results.json.")
    study = results.get("study", path.parent.name)
    own = path.parent / "figures"
    return Study(
        label=f"{study}@{revision}" if revision else study,
        folder=path.parent,
        figures=own if own.is_dir() else folders().figures / study,
        notebooks=dict(sorted(results["notebooks"].items())),
        primary=results.get("primary", []),
    )


def filled(name: str, values: dict[str, Any], **settings: Any) -> str:
    """Return a filled template of Jinja; `settings` are those of `jinja2.Environment`."""
    import jinja2

    loader, strict = jinja2.PackageLoader("instrlib"), jinja2.StrictUndefined
    return jinja2.Environment(loader=loader, undefined=strict, **settings).get_template(name).render(values)


def about_corpus(name: str) -> dict[str, Any]:
    """Return the texts on a corpus in `templates/corpora.toml`."""
    known = tomllib.loads((TEMPLATES / "corpora.toml").read_text(encoding="utf-8"))
    return known.get(name, known["unknown"])


def text_of(value: Any) -> str:
    """Return a declared value as text for a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) if len(value) <= 12 else f"{len(value)} values"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text_of(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
