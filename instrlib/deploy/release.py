"""Release of a model: choice on validation, conversion, calibration, one test; for `models.published`."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.signal

from instrlib.audio.effects import coloured_noise
from instrlib.audio.features import extract
from instrlib.core import io
from instrlib.core.cache import commit, versions
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig, folders
from instrlib.core.io import ConfigError, RunError
from instrlib.core.parallel import load_keras
from instrlib.data import corpora, rendered
from instrlib.data.rendered.sources import FONTS
from instrlib.data.splits import Split, fingerprint_of, load_split, save_splits
from instrlib.data.store import FeatureStore, Inputs, build_store
from instrlib.evaluation import calibration, metrics, statistics
from instrlib.evaluation.predictions import Predictions
from instrlib.models import compression, published, trained
from instrlib.models.published import FILES, RECORD, Network, PublishedModel
from instrlib.models.train import validation_examples
from instrlib.reporting.summary import filled
from instrlib.studies import saliency

if TYPE_CHECKING:
    from instrlib.runner.run import Run

MAX_BYTES = 200_000
"""Largest size of a committed model folder, without its card."""

MAX_PARAMETERS = 90_000
"""Largest network that can be chosen: two of them with one byte per weight fit into `MAX_BYTES`."""

MIN_AGREEMENT, NEARLY = 0.9, 0.05
"""A file must agree with its network on this share of the validation examples: the network's probabilities for both
predictions differ by at most `NEARLY`, because 8-bit weights can break ties."""

NOISES = {"white noise": 0.0, "pink noise": 1.0, "brown noise": 2.0, "mains hum": None, "clicks": None}
N_NOISES = 20
"""Kinds of noise, with the slope of coloured noise (see `audio.effects.coloured_noise`), and segments of each kind."""


@dataclass(frozen=True)
class Candidate:
    """Networks that can be released, with run folders by seed and fold, and their inputs if not the study's."""

    notebook: str
    name: str
    folders: tuple[tuple[Path, ...], ...]
    inputs: Inputs | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen network, and a table of all candidates, the best first; `fits` marks those that are small enough."""

    candidate: Candidate
    seed: int
    fold: int
    folder: Path
    table: pd.DataFrame


@dataclass(frozen=True)
class Release:
    """A model folder, with test predictions and scores of the network (`before`) and the calibrated file (`after`)."""

    model: PublishedModel
    before: Predictions
    after: Predictions
    scores: pd.DataFrame
    validation: pd.DataFrame
    noises: pd.DataFrame


def candidates(run: "Run", notebooks: Sequence[str], inputs: Inputs) -> list[Candidate]:
    """List the models declared by other notebooks (`run.models`) that can be released.

    These have a network for each seed and split, trained on the study's features. `RunError` if there are none.
    """
    fold_of = {load_split(path, inputs.store.segments).fingerprint: fold for fold, path in enumerate(inputs.splits)}
    found = []
    for notebook in notebooks:
        other = run.other(notebook)
        for name in other.declared.get("models", {}).get("rows", {}):
            runs = {}
            for path in sorted(other.folder.glob(f"**/{io.slug(name)}/fold-*/seed-*/{trained.COMPLETE}")):
                made = trained.read_manifest(path.parent)
                if made["store"] == inputs.store.fingerprint:
                    runs[made["seed"], fold_of.get(made["split"])] = path.parent
            grid = [[runs.get((seed, fold)) for fold in range(len(inputs.splits))] for seed in run.seeds]
            if all(None not in by_fold for by_fold in grid):
                found.append(Candidate(notebook, name, tuple(map(tuple, grid))))
    if not found:
        raise RunError(f"{', '.join(notebooks)}: no network of every seed and split is declared by `run.models`.")
    return found


def choose(found: Sequence[Candidate], *, score: str = "accuracy", fold: int | None = None) -> Choice:
    """Choose a network on validation: the candidate with the best (highest) mean score, then its best network.

    Networks above `MAX_PARAMETERS` are chosen only if all are. With `fold`, the network is one of this fold, so that
    two released networks have the same test part.
    """
    column = f"validation_{score}"
    networks = pd.DataFrame(
        {"notebook": one.notebook, "name": one.name, "candidate": number, **trained.summary(folder)}
        | {"seed": seed, "fold": at, "folder": folder}
        for number, one in enumerate(found)
        for seed, by_fold in enumerate(one.folders)
        for at, folder in enumerate(by_fold)
    )
    means = {"parameters": ("parameters", "max"), "networks": ("seed", "size"), column: (column, "mean")}
    table = networks.groupby(["candidate", "notebook", "name"]).agg(**means).reset_index(["notebook", "name"])
    table["fits"] = table.parameters <= max(MAX_PARAMETERS, table.parameters.min())
    best = table[column][table.fits].idxmax()
    own = networks[(networks.candidate == best) & (True if fold is None else networks.fold == fold)]
    chosen = own.loc[own[column].idxmax()]
    table = table.sort_values(column, ascending=False, kind="stable", ignore_index=True)
    return Choice(found[best], int(chosen.seed), int(chosen.fold), chosen.folder, table)


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
        raise ConfigError(f"{clips_per_class} rendered clips per class do not include {lost[0]}; render more of them.")
    splits = []
    for path in inputs.splits:
        split = load_split(path, inputs.store.segments)
        part_of = dict(zip(known.group, known.clip_id.map(split.parts), strict=True))
        splits.append(Split(groups.map(part_of).fillna("train").rename(None).sort_index(), split.seed))
    return Inputs(store, tuple(save_splits(splits, folder)), fingerprint_of(splits))


def convert(file: Path, network: Path, store_folder: Path, split_path: Path) -> dict[str, Any]:
    """Write a network with one-byte weights to a TFLite file and calibrate it on the validation part.

    Returns the `network`, its `settings` for the record, its `validation` scores "as trained" and "calibrated", and its
    `agreement`, the share of the predictions that are those of the original network.
    """
    _, store, split = trained.open_trained(network, store_folder, split_path)
    load_keras().utils.clear_session()  # names in the file are counted; equal networks give equal bytes
    model, scaler = trained.load_model(network)
    both = compression.with_maps(model)
    file.write_bytes(compression.convert_model(both, ("dynamic int8",))["dynamic int8"])
    grid = saliency.cell_grid(model, saliency.picture_layers(model)[-1]) if "maps" in both.output else None
    output, thresholds = model.layers[-1].activation.__name__, np.zeros(len(store.classes))
    plain = Network(file, store.config, scaler, output, 1.0, thresholds, grid)
    decision, fit = _calibrated(plain, store, split, network)
    # Float32 numbers with as few digits as distinguish them halve the record.
    kept = {name: [float(str(one)) for one in np.float32(getattr(scaler, name))] for name in ("mean", "deviation")}
    settings = {"sha256": io.hash_file(file), "output": plain.output, **decision, "grid": grid, "scaler": kept}
    return {"network": dataclasses.replace(plain, **decision), "settings": settings, **fit}


def _calibrated(plain: Network, store: FeatureStore, split: Split, network: Path) -> tuple[dict, dict]:
    """Fit temperature and thresholds on the validation examples of the network: clips, or mixtures for sigmoid outputs.

    Raises `RunError` if the network was validated on others, or if the file does not agree with it.
    """
    run_file, known = published.load_tflite(plain.file), io.read_arrays(network / "validation.npz")
    segments, expected = trained.part_segments(store, split, "validation"), known["probabilities"]
    if plain.output == "softmax":
        logits = run_file(store.read(segments.row.to_numpy(), plain.scaler))[2]
        clips, index = np.unique(segments.clip_id.to_numpy(str), return_inverse=True)
        targets = segments.groupby("clip_id", sort=True).target.first().to_numpy()
        same = np.array_equal(known["clip_id"], clips)
        temperature = calibration.fit_temperature(logits, targets, index)
        found = [metrics.clip_probabilities(calibration.softmax(logits, one), index) for one in (1.0, temperature)]
        thresholds = calibration.answer_thresholds(targets, found[1])
        validation = [metrics.scores(targets, one) for one in found]
    else:
        recipe = trained.read_manifest(network)["train"]
        recipe = TrainConfig.from_dict(recipe | {"augment": AugmentConfig.from_dict(recipe["augment"])})
        held_out = validation_examples(store, segments, plain.scaler, recipe)
        logits, targets = held_out.answers(lambda x: run_file(x)[2]), held_out.labels
        same = np.array_equal(known["labels"], targets, equal_nan=True)
        temperature = calibration.fit_label_temperature(logits, targets)
        found = [calibration.sigmoid(logits, one) for one in (1.0, temperature)]
        thresholds, _ = metrics.best_thresholds(targets, found[1])
        validation = [metrics.scores(targets, found[0]), metrics.scores(targets, found[1], thresholds)]
    if not same:
        raise RunError(f"{network} was validated on other examples; run the notebook that trains it again.")
    if plain.output == "softmax":
        both = [one.argmax(axis=1) for one in (expected, found[0])]
        agreement, apart = both[0] == both[1], expected.max(axis=1) - expected[np.arange(len(expected)), both[1]]
    else:
        agreement, apart = (expected >= 0.5) == (found[0] >= 0.5), np.abs(expected - found[0])
    if (share := (apart <= NEARLY).mean()) < MIN_AGREEMENT:
        raise RunError(f"{network}: its file gives only {share:.0%} of its answers; release another network.")
    validation = dict(zip(("as trained", "calibrated"), validation, strict=True))
    decision = {"temperature": temperature, "thresholds": thresholds}
    return decision, {"agreement": float(agreement.mean()), "validation": validation}


def publish(
    folder: Path, single: Choice, several: Choice | None = None, *, run: "Run", inputs: Inputs, n_resamples: int
) -> Release:
    """Make or replace a model folder with the networks for one and, trained on mixtures, for several instruments.

    Temperature and thresholds are fitted on the validation part, where the files must agree with their networks. The
    calibrated file for one instrument predicts the test part of its split once.
    """
    if several is not None and several.fold != single.fold:
        raise RunError("The networks are of two folds; one may be trained on test clips of the other. Choose one fold.")
    with io.atomic_folder(folder) as partial:
        made, origins = {}, {}
        for name, choice in {"single": single, "several": several}.items():
            if choice is not None:
                own = choice.candidate.inputs or inputs
                place = own.store.folder, own.splits[choice.fold]
                made[name] = one = convert(partial / FILES[name], choice.folder, *place)
                origins[name] = {"notebook": choice.candidate.notebook, "network": choice.candidate.name}
                origins[name] |= {"seed": choice.seed, "agreement": one["agreement"]}
                origins[name] |= {"validation": one["validation"]["calibrated"]}
        own, network = single.candidate.inputs or inputs, made["single"]["network"]
        split, file = own.splits[single.fold], published.load_tflite(network.file)
        test = trained.part_segments(own.store, load_split(split, own.store.segments), "test")
        before = trained.read_test(single.folder, own.store.folder, split)
        after = trained.predict_clips(lambda x: network.probabilities(file(x)[2]), own.store, network.scaler, test)
        both = {"network as trained": before, "file, calibrated": after}
        table = statistics.score_table(both, n_resamples=n_resamples, seed=0)
        classes = statistics.class_table(after, inputs.store.classes, n_resamples=n_resamples, seed=0)
        noises = noise_rejection(network, inputs.store.classes)
        info = corpora.info(run.parameters["corpus"])
        about = {
            "study": run.study,
            "id": io.hash_json([one["settings"] for one in made.values()])[:8],
            "corpus": {name: getattr(info, name) for name in ("name", "title", "licence", "citation")},
            "profile": run.profile.name,
            **origins["single"],
            "fold": single.fold,
            "n_folds": len(inputs.splits),
            "commit": commit(),
            "versions": versions(),
            "split": load_split(inputs.splits[single.fold], inputs.store.segments).fingerprint,
            "features": inputs.store.fingerprint,
            "n_tested": len(after["targets"]),
            "n_groups": len(set(after["group"])),
            "scores": statistics.nested(table)["file, calibrated"],
            "by_class": {
                name: {"n": int(row.support), "n_groups": int(row.n_groups)}
                | {
                    one: dict(zip(("estimate", "low", "high"), row.loc[one : f"{one}_high"], strict=True))
                    for one in metrics.CLASS_SCORES
                }
                for name, row in classes.round(3).iterrows()  # rounded to keep the record small
            },
            "refusals": calibration.refusals(after["targets"], after["probabilities"], network.thresholds),
            "several": origins.get("several"),
            "noises": noises.abstained.to_dict(),
            "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with contextlib.suppress(RunError, KeyError, TypeError):  # equal releases have equal bytes
            earlier = published.read_sealed(folder / RECORD)["about"]
            if earlier["id"] == about["id"]:
                about["published_at"] = earlier["published_at"]
        networks = {name: one["settings"] for name, one in made.items()}
        shared = {"classes": inputs.store.classes, "features": inputs.store.config.to_dict(), "about": about}
        _write_record(partial, {"format": published.FORMAT, **dict.fromkeys(FILES), **networks, **shared})
    validation = pd.concat({name: pd.DataFrame(one["validation"]).T for name, one in made.items()})
    return Release(published.open_model(folder), before, after, table, validation, noises)


def note(folder: Path, **sections: Any) -> None:
    """Add or replace sections of `about` in a model folder, such as `timeline`, and update its card."""
    record = published.read_sealed(folder / RECORD)
    _write_record(folder, record | {"about": record["about"] | sections})


def noise_rejection(network: Network, classes: Sequence[str], *, n: int = N_NOISES) -> pd.DataFrame:
    """Return a table by kind of noise: share `abstained`, mean `confidence`, and the most frequent class `answer`."""
    config, predict, rng, rows = network.features, published.predictor(network), np.random.default_rng(0), {}
    for kind in NOISES:
        found = predict(np.stack([extract(_noise(kind, config, rng), config) for _ in range(n)]))[0]
        rows[kind] = {
            "abstained": 1 - calibration.is_named(found, network.thresholds).mean(),
            "confidence": found.max(axis=1).mean(),
            "answer": classes[np.bincount(found.argmax(axis=1)).argmax()],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _noise(kind: str, config: FeatureConfig, rng: np.random.Generator) -> np.ndarray:
    """Return one segment of noise, with a peak of 0.3."""
    n = config.segment_samples
    if kind == "mains hum":
        sound = scipy.signal.sawtooth(2 * np.pi * (50 * np.arange(n) / config.sample_rate_hz + rng.uniform()))
    elif kind == "clicks":
        sound = np.zeros(n)
        sound[rng.integers(0, n, 12)] = rng.uniform(0.3, 1, 12)
    else:
        sound = coloured_noise(n, config.sample_rate_hz, rng, slope=NOISES[kind])
    return 0.3 * sound / np.abs(sound).max()


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record, and the model card in Markdown, to which `reporting.cards` adds what notebooks declare."""
    sealed = published.sealed(io.to_jsonable(record))
    lines = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in sealed.items())
    io.write_text(folder / RECORD, "{\n" + ",\n".join(lines) + "\n}\n")  # compact: one line per entry
    licence = sealed["about"]["corpus"]["licence"]
    fonts = [{"name": name, **font} for name, font in FONTS.items() if name in licence]
    values = sealed | {"fonts": fonts, "n_noises": N_NOISES}
    card = filled("model_card.md", values, trim_blocks=True, lstrip_blocks=True)
    io.write_text(folder / published.CARD, card + "\n")
