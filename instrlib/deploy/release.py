"""Release of a model: the network is chosen on validation, converted, calibrated and tested.

The result is a model folder for `models.published`.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import extract
from instrlib.core.cache import commit, versions
from instrlib.core.config import FeatureConfig, folders
from instrlib.core.io import ConfigError, RunError, hash_json, slug, to_jsonable, write_text
from instrlib.core.parallel import parallel_map
from instrlib.data import corpora, rendered
from instrlib.data.rendered.sources import FONTS
from instrlib.data.splits import Split, fingerprint_of, load_split, save_splits
from instrlib.data.store import Inputs, build_store
from instrlib.deploy.convert import FILE, convert
from instrlib.evaluation import statistics
from instrlib.evaluation.calibration import is_named, refusals
from instrlib.evaluation.metrics import CLASS_SCORES
from instrlib.evaluation.predictions import Predictions
from instrlib.models import published
from instrlib.models.published import CARD, FILES, FORMAT, RECORD, PublishedModel
from instrlib.models.trained import COMPLETE, read_manifest, summary
from instrlib.models.variants import Variant, run_variants

if TYPE_CHECKING:
    from instrlib.runner.run import Run

MAX_BYTES = 200_000
"""Largest size of a committed model folder, without its card."""

MAX_PARAMETERS = 90_000
"""Largest network that can be chosen: two of them with one byte per weight fit into `MAX_BYTES`."""

NOISES = ("white noise", "pink noise", "brown noise", "mains hum", "clicks")
N_NOISES = 20
"""Segments of each kind of noise."""

MORE_CLIPS = "compact CNN, more clips"
MORE_CLIPS_SEEDS = 2
"""Number of networks trained on more rendered clips, of which one is released."""


@dataclass(frozen=True)
class Candidate:
    """Networks of one kind that can be released: their notebook, name, and run folders by seed and fold.

    `inputs` are their features and splits, if these are not the study's; see `more_clips`.
    """

    notebook: str
    name: str
    folders: tuple[tuple[Path, ...], ...]
    inputs: Inputs | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen network, and a table of all candidates, the best first.

    Columns: `notebook`, `name`, `parameters`, `networks` (their number), the mean validation score, and `fits` (small
    enough).
    """

    candidate: Candidate
    seed: int
    fold: int
    folder: Path
    table: pd.DataFrame


@dataclass(frozen=True)
class Release:
    """A model folder, test predictions and scores of the network (`before`) and the calibrated file (`after`).

    `validation` has one row for each network "as trained" and "calibrated"; for `noises` see `noise_rejection`.
    """

    model: PublishedModel
    before: Predictions
    after: Predictions
    scores: pd.DataFrame
    validation: pd.DataFrame
    noises: pd.DataFrame


# -- the choice --------------------------------------------------------------------------------------------------------


def candidates(run: "Run", notebooks: Sequence[str], inputs: Inputs) -> list[Candidate]:
    """List the models declared by other notebooks (`run.models`) that can be released.

    These have a network for each seed and split, trained on the study's features. `RunError` if there are none.
    """
    fold_of = {load_split(path, inputs.store.segments).fingerprint: fold for fold, path in enumerate(inputs.splits)}
    found = []
    for notebook in notebooks:
        other = run.other(notebook)
        for name in other.declared.get("models", {}).get("rows", {}):
            trained = {}
            for path in sorted(other.folder.glob(f"**/{slug(name)}/fold-*/seed-*/{COMPLETE}")):
                made = read_manifest(path.parent)
                if made["store"] == inputs.store.fingerprint:
                    trained[made["seed"], fold_of.get(made["split"])] = path.parent
            grid = [[trained.get((seed, fold)) for fold in range(len(inputs.splits))] for seed in run.seeds]
            if all(None not in by_fold for by_fold in grid):
                found.append(Candidate(notebook, name, tuple(map(tuple, grid))))
    if not found:
        raise RunError(f"{', '.join(notebooks)}: no network of every seed and split is declared by `run.models`.")
    return found


def choose(found: Sequence[Candidate], *, score: str = "accuracy", fold: int | None = None) -> Choice:
    """Choose a network on validation: the candidate with the best mean score, then its best network.

    Parameters
    ----------
    found : sequence of Candidate
        Of equally good ones the first is chosen. Networks above `MAX_PARAMETERS` are chosen only if all are.
    score : str
        A validation score; higher is better.
    fold : int, optional
        Choose among the networks of this fold, so that two released networks have the same test part.
    """
    column = f"validation_{score}"
    networks = pd.DataFrame(
        summary(folder) | {"candidate": number, "seed": seed, "fold": at, "folder": folder}
        for number, one in enumerate(found)
        for seed, by_fold in enumerate(one.folders)
        for at, folder in enumerate(by_fold)
    )
    by_candidate = networks.groupby("candidate")
    table = pd.DataFrame({"notebook": [one.notebook for one in found], "name": [one.name for one in found]})
    table["parameters"], table["networks"] = by_candidate.parameters.max(), by_candidate.size()
    table[column] = by_candidate[column].mean()
    table["fits"] = table.parameters <= max(MAX_PARAMETERS, table.parameters.min())
    best = table[column][table.fits].idxmax()
    own = networks[(networks.candidate == best) & (True if fold is None else networks.fold == fold)]
    chosen = own.loc[own[column].idxmax()]
    ordered = table.sort_values(column, ascending=False, kind="stable", ignore_index=True)
    return Choice(found[best], int(chosen.seed), int(chosen.fold), chosen.folder, ordered)


def more_clips(run: "Run", inputs: Inputs) -> Candidate:
    """Train the baseline network on more rendered clips of the same groups; the profile gives their number."""
    profile = run.profile
    more = enlarge(inputs, run.folder / "more_clips", clips_per_class=profile.released_clips_per_class)
    variant = Variant(MORE_CLIPS, "compact", profile.released, more.store.folder)
    seeds = run.seeds[:MORE_CLIPS_SEEDS]
    trained = run_variants(run.folder, [variant], splits=more.splits, seeds=seeds)
    return Candidate(run.notebook, MORE_CLIPS, trained[MORE_CLIPS].folders, more)


def enlarge(inputs: Inputs, folder: Path, *, clips_per_class: int) -> Inputs:
    """Add rendered clips to a study of the rendered corpus, each to the part of its group.

    Groups that the study lacks are added to the training part. The splits are saved in `folder`. `ConfigError` if the
    enlarged corpus lacks a clip of the study.
    """
    data, known = folders().data, inputs.store.clips
    corpus = rendered.load(data / "rendered", clips_per_class=clips_per_class, classes=inputs.store.classes)
    store = build_store(corpus, inputs.store.config, root=data / "features")
    groups = store.clips.set_index("clip_id").group
    if lost := sorted(set(known.clip_id) - set(groups.index)):
        raise ConfigError(f"{clips_per_class} rendered clips a class do not include {lost[0]}; render more of them.")
    splits = []
    for path in inputs.splits:
        split = load_split(path, inputs.store.segments)
        part_of = dict(zip(known.group, known.clip_id.map(split.parts), strict=True))
        splits.append(Split(groups.map(part_of).fillna("train").rename(None).sort_index(), split.seed))
    return Inputs(store, tuple(save_splits(splits, folder)), fingerprint_of(splits))


# -- the model folder --------------------------------------------------------------------------------------------------


def publish(
    folder: Path,
    single: Choice,
    several: Choice | None = None,
    *,
    run: "Run",
    inputs: Inputs,
    n_resamples: int,
    workers: int | None = None,
) -> Release:
    """Make a model folder from the chosen networks.

    Networks are converted to one-byte weights. Temperature and thresholds are fitted on the validation part, where the
    files must agree with their networks. The calibrated file for one instrument predicts the test part of its split
    once.

    Parameters
    ----------
    folder : Path
        The model folder, which is replaced. Working files are kept in `published/` next to it.
    single : Choice
        A network with softmax outputs, for one instrument.
    several : Choice, optional
        A network with sigmoid outputs, trained on mixtures, of the same fold.
    run : Run
        The run that releases.
    inputs : Inputs
        Features and splits of the study, on which the file is tested.
    n_resamples : int
        Bootstrap samples.

    Raises
    ------
    RunError
        If a run folder is unfinished, damaged or of another split, or the networks are of different folds.
    EvaluationError
        If a file does not agree with its network.
    """
    if several is not None and several.fold != single.fold:
        raise RunError(
            f"The networks are of folds {single.fold} and {several.fold}, so that one may have been trained on test "
            "clips of the other; choose both from one fold."
        )
    work = folder.with_name("published")
    chosen = {"single": single} | ({} if several is None else {"several": several})
    tasks = []
    for name, one in chosen.items():
        given = one.candidate.inputs or inputs
        tasks.append((work / name, one.folder, given.store.folder, given.splits[one.fold]))
    results = parallel_map(convert, tasks, workers=workers, describe="converting the networks", isolate=True)
    made = dict(zip(chosen, results, strict=True))
    before, after = made["single"]["predictions"]
    predictions = {"network as trained": before, "file, calibrated": after}
    table = statistics.score_table(predictions, n_resamples=n_resamples, seed=0)
    thresholds = np.array(made["single"]["settings"]["thresholds"])
    info = corpora.info(run.parameters["corpus"])
    about = {
        "study": run.study,
        "id": hash_json([[one["settings"], one["scaler"]] for one in made.values()])[:8],
        "corpus": {name: getattr(info, name) for name in ("name", "title", "licence", "citation")},
        "profile": run.profile.name,
        **_origin(single, made["single"]),
        "fold": single.fold,
        "n_folds": len(inputs.splits),
        "commit": commit(),
        "versions": versions(),
        "split": load_split(inputs.splits[single.fold], inputs.store.segments).fingerprint,
        "features": inputs.store.fingerprint,
        "n_tested": len(after["targets"]),
        "n_groups": len(set(after["group"])),
        "scores": statistics.nested(table)["file, calibrated"],
        "by_class": _by_class(after, inputs.store.classes, n_resamples),
        "refusals": refusals(after["targets"], after["probabilities"], thresholds),
        "several": None if several is None else _origin(several, made["several"]),
    }
    about["published_at"] = _published_before(folder, about["id"]) or datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "format": FORMAT,
        "classes": list(inputs.store.classes),
        "features": inputs.store.config.to_dict(),
        "scaler": made["single"]["scaler"],
        **{name: _settings(made[name], made["single"]) if name in made else None for name in FILES},
        "about": about,
    }
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in made:
        shutil.copyfile(work / name / FILE, partial / FILES[name])
    _write_record(partial, record)
    noises = noise_rejection(published.open_model(partial))
    note(partial, noises=noises.abstained.to_dict())
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    validation = pd.concat({name: pd.DataFrame(one["validation"]).T for name, one in made.items()})
    return Release(published.open_model(folder), before, after, table, validation, noises)


def note(folder: Path, **sections: Any) -> None:
    """Add or replace sections of `about` in a model folder, such as `timeline`, and update its card."""
    record = published.read_sealed(folder / RECORD)
    _write_record(folder, record | {"about": record["about"] | sections})


def size_bytes(folder: Path) -> pd.Series:
    """Return the size of each file of a model folder in bytes, without hidden files."""
    return pd.Series({path.name: path.stat().st_size for path in sorted(folder.glob("[!.]*"))}, name="bytes")


def noise_rejection(model: PublishedModel, *, n: int = N_NOISES) -> pd.DataFrame:
    """Predict `n` segments of each kind of noise.

    Returns a table by kind: `abstained` (share of the segments), mean `confidence`, and `answer`, the most frequent
    class.
    """
    config, predict = model.single.features, published.predictor(model.single)
    rng = np.random.default_rng(0)
    rows = {}
    for kind in NOISES:
        spectra = [extract(_noise(kind, config, rng), config) for _ in range(n)]
        found = predict(np.stack(spectra))[0]
        rows[kind] = {
            "abstained": 1 - is_named(found, model.single.thresholds).mean(),
            "confidence": found.max(axis=1).mean(),
            "answer": model.classes[np.bincount(found.argmax(axis=1)).argmax()],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _settings(made: dict[str, Any], single: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, with its own scaler if that differs from the first network's."""
    own = {} if made["scaler"] == single["scaler"] else {"scaler": made["scaler"]}
    return made["settings"] | own


def _origin(choice: Choice, made: dict[str, Any]) -> dict[str, Any]:
    origin = {"notebook": choice.candidate.notebook, "network": choice.candidate.name, "seed": choice.seed}
    return origin | {"validation": made["validation"]["calibrated"], "agreement": made["agreement"]}


def _published_before(folder: Path, identity: str) -> str:
    """Return the date of an earlier release of the same networks, or "", so that equal releases have equal bytes."""
    try:
        about = published.read_sealed(folder / RECORD)["about"]
        return about["published_at"] if about["id"] == identity else ""
    except (RunError, KeyError, TypeError):
        return ""


def _by_class(predictions: Predictions, classes: tuple[str, ...], n_resamples: int) -> dict[str, dict[str, Any]]:
    """Score each class, rounded to keep the record small."""
    table = statistics.class_table(predictions, classes, n_resamples=n_resamples, seed=0).round(3)
    ends = {"estimate": "", "low": "_low", "high": "_high"}
    return {
        name: {"n": int(row.support), "n_groups": int(row.n_groups)}
        | {score: {end: row[score + suffix] for end, suffix in ends.items()} for score in CLASS_SCORES}
        for name, row in table.iterrows()
    }


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    sealed = published.sealed(to_jsonable(record))
    lines = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in sealed.items())
    write_text(folder / RECORD, "{\n" + ",\n".join(lines) + "\n}\n")  # compact: one line an entry
    write_text(folder / CARD, _model_card(sealed))


def _model_card(record: dict[str, Any]) -> str:
    """Return the model card in Markdown; `reporting.cards` adds what notebooks declare for it."""
    import jinja2

    def interval(value: dict[str, float | None]) -> str:
        estimate, low, high = (
            "–" if value[end] is None else f"{value[end]:.2f}" for end in ("estimate", "low", "high")
        )
        return estimate if "–" in (low, high) else f"{estimate} [{low}, {high}]"

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.0f} %"

    loader, strict = jinja2.PackageLoader("instrlib"), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, undefined=strict, trim_blocks=True, lstrip_blocks=True)
    licence = record["about"]["corpus"]["licence"]
    fonts = [{"name": name, **vars(font)} for name, font in FONTS.items() if name in licence]
    card = environment.get_template("model_card.md")
    return card.render(record, fonts=fonts, interval=interval, share=share, n_noises=N_NOISES) + "\n"


def _noise(kind: str, config: FeatureConfig, rng: np.random.Generator) -> np.ndarray:
    """Return one segment of noise, with a peak of 0.3."""
    n = config.segment_samples
    if kind == "mains hum":
        time_s, partials = np.arange(n) / config.sample_rate_hz, np.arange(1, 9)
        phases = 2 * np.pi * 50 * partials[:, None] * time_s + rng.uniform(0, 2 * np.pi, (8, 1))
        sound = rng.uniform(0, 1, 8) / partials @ np.sin(phases)
    elif kind == "clicks":
        sound = np.zeros(n)
        sound[rng.integers(0, n, 12)] = rng.uniform(0.3, 1, 12)
    else:
        # The power falls with the frequency to the power of 0, 1 or 2.
        slope = {"white noise": 0.0, "pink noise": 0.5, "brown noise": 1.0}[kind]
        spectrum = np.fft.rfft(rng.standard_normal(n)) / np.maximum(np.arange(n // 2 + 1), 1) ** slope
        sound = np.fft.irfft(spectrum, n)
    return 0.3 * sound / np.abs(sound).max()
