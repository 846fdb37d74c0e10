"""Robustness of the released model to degraded recordings and other corpora.

Degraded recordings are written to files that `published.predict_file` reads, as `instrlib predict` does. Temperature
and thresholds are those of the model; nothing is tuned here.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.audio import decode
from instrlib.audio.effects import DEGRADATIONS, degrade, encode, generator
from instrlib.core.cache import cached, key
from instrlib.core.io import AudioError, EvaluationError, LeakError, disk_errors, hash_file, in_parts
from instrlib.core.parallel import parallel_map
from instrlib.data import taxonomy
from instrlib.data.corpora import Corpus
from instrlib.data.files import CONTENT
from instrlib.data.splits import Split
from instrlib.evaluation import statistics
from instrlib.evaluation.calibration import is_named
from instrlib.evaluation.predictions import Predictions
from instrlib.models.published import PublishedModel, predict_file

CLIPS_PER_CLASS = {"smoke": 1, "quick": 8, "full": 40}
"""Test clips of each class that are degraded, by profile: each is predicted some forty times."""

UNTOUCHED = "untouched"

UNKNOWN = -1
"""Target of a clip whose class the model does not have."""

SCORES = ("accuracy", "log_loss", "expected_calibration_error", "confidence_gap", "abstained", "accuracy_of_answers")
"""What `scores` returns. `confidence_gap` is the mean confidence minus the accuracy; unlike the calibration error it
has no bias in small samples. `accuracy_of_answers` leaves out abstentions; answers to unknown classes are wrong."""

_BATCH = 4


def choose_clips(
    model: PublishedModel, corpus: Corpus, split: Split, *, per_class: int | None = None, seed: int = 0
) -> list[str]:
    """Choose up to `per_class` clips of each class from the test part, from as many groups as possible; sorted."""
    table = corpus.manifest[corpus.manifest.clip_id.map(split.parts).eq("test")]
    _check_unseen(model, corpus, table.clip_id.to_list(), corpus, split)
    drawn = table.sample(frac=1, random_state=seed)
    turn = drawn.groupby(["label", "group"]).cumcount().sort_values(kind="stable")
    chosen = drawn.loc[turn.index].groupby("label").head(len(table) if per_class is None else per_class)
    return sorted(chosen.clip_id)


def name_of(degradation: str, level: float) -> str:
    """Return the name of a degradation at a level in tables and findings.

    Examples
    --------
    >>> name_of("noise", 10)
    'pink noise at 10 dB SNR'
    """
    return f"{DEGRADATIONS[degradation].label} at {level:g} {DEGRADATIONS[degradation].unit}"


def predict_degraded(
    folder: Path,
    model: PublishedModel,
    corpus: Corpus,
    clips: Sequence[str],
    split: Split,
    *,
    degradations: Sequence[str] = tuple(DEGRADATIONS),
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, Predictions]:
    """Predict test clips without degradation, and under every degradation at every level.

    `corpus` and `split` are those of the model's training; `clips` come from `choose_clips`, and possible training
    clips raise `LeakError`. Noise and rooms differ between clips, but not between levels. Each degradation has a file
    in `folder`. Returns predictions without an axis of seeds: first `UNTOUCHED`, then those of `name_of`, from mild to
    severe.
    """
    _check_unseen(model, corpus, clips, corpus, split)
    untouched = _predictions(folder / f"{UNTOUCHED}.npz", model, corpus, clips, workers)
    found = {UNTOUCHED: untouched}
    for name in degradations:
        levels, path = DEGRADATIONS[name].levels, folder / f"{name}.npz"
        answers = _probabilities(path, model, corpus, untouched["clip_id"], name, levels, seed, workers)
        for number, level in enumerate(levels):
            found[name_of(name, level)] = untouched | {"probabilities": answers[:, number]}
    return found


def predict_domain(
    path: Path,
    model: PublishedModel,
    corpus: Corpus,
    *,
    study: Corpus,
    split: Split,
    clips: Sequence[str] | None = None,
    workers: int | None = None,
) -> Predictions:
    """Predict clips of another corpus with one label per clip, or of the study's own; `path` is the cache.

    By default, these are all clips of groups outside the training, and of the study's own corpus the test part. The
    result also has `label`, the class in the corpus; `targets` is `UNKNOWN` if the model lacks it. Classes that are
    wider than one of the model are left out; see `class_of`. A corpus without classes of the model raises
    `EvaluationError`, possible training clips raise `LeakError`.
    """
    chosen = _unseen(corpus, study, split) if clips is None else corpus.manifest.clip_id.isin(set(clips))
    meaning = class_of(model, corpus)
    table = corpus.manifest[chosen & corpus.manifest.label.isin(list(meaning))]
    if not any(meaning[label] for label in table.label):
        raise EvaluationError(f"{corpus.name} in {corpus.root} has no class of the model; choose another corpus.")
    _check_unseen(model, corpus, table.clip_id.to_list(), study, split)
    return _predictions(path, model, corpus, table.clip_id.to_list(), workers)


def class_of(model: PublishedModel, corpus: Corpus) -> dict[str, str | None]:
    """Return the model's class for each class of a corpus, None if it lacks it; wider classes are left out."""
    trained_on = model.about["corpus"]["name"]
    if corpus.name == trained_on:
        return {label: label if label in model.classes else None for label in corpus.classes}
    known = taxonomy.common_classes(corpus.name, trained_on, classes_a=corpus.classes, classes_b=model.classes)
    back = taxonomy.common_classes(trained_on, corpus.name, classes_a=model.classes, classes_b=corpus.classes)
    wider = set(back.values()) - set(known)
    return {label: known.get(label) for label in corpus.classes if label not in wider}


# -- scores ------------------------------------------------------------------------------------------------------------


def scores(
    predictions: dict[str, Predictions], model: PublishedModel, *, n_resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Score several predictions on the clips of known classes.

    Returns columns `model` (name of the predictions), `score`, `estimate`, `low`, `high`, `n`, `n_groups`; see
    `SCORES`.
    """
    draws = {"n_resamples": n_resamples, "seed": seed}
    tables = []
    for name, every in predictions.items():
        known = {field: values[every["targets"] != UNKNOWN] for field, values in every.items()}
        table = statistics.score_table({name: known}, **draws)
        table = table[table.score.isin(SCORES)].reset_index(drop=True)
        confidence, named = (
            known["probabilities"].max(axis=1),
            is_named(known["probabilities"], model.single.thresholds),
        )
        answered = is_named(every["probabilities"], model.single.thresholds)
        drawn = {
            "confidence_gap": _mean(known, confidence - _right(known), **draws),
            "abstained": _mean(known, ~named, **draws),
            "accuracy_of_answers": _mean(every, _right(every), answered, **draws),
        }
        for score, values in drawn.items():
            table.loc[len(table)] = [name, score, values[0], *statistics.ends(values)]
        tables.append(table.assign(n=len(confidence), n_groups=len(np.unique(known["group"]))))
    return pd.concat(tables, ignore_index=True)


def abstentions(
    domains: dict[str, Predictions], model: PublishedModel, *, n_resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Compare abstentions on unknown and known classes, in the domains with both.

    Returns
    -------
    pandas.DataFrame
        Indexed by domain: `n_known`, `n_unknown`, `known` and `unknown` (shares of abstentions); of their difference
        the columns of `statistics.compare` ("better": more often on unknown classes); and `auroc`, `auroc_low`,
        `auroc_high`: how often a known clip has a higher top probability than an unknown one (chance = 0.5).
    """
    draws, rows = {}, {}
    settings = {"n_resamples": statistics.enough_resamples(n_resamples, len(domains)), "seed": seed}
    for domain, every in domains.items():
        known = every["targets"] != UNKNOWN
        if known.all() or not known.any():
            continue
        abstained = ~is_named(every["probabilities"], model.single.thresholds)
        for part, own in (("known", known), ("unknown", ~known)):
            draws[domain, part] = _mean(every, abstained, own, **settings)[None]
        ranked = {name: every[name] for name in ("clip_id", "group")} | {
            "labels": known[:, None].astype(float),
            "probabilities": every["probabilities"].max(axis=1)[:, None],
        }
        area = statistics.score_table({"": ranked}, **settings).set_index("score").loc["roc_auc"]
        rows[domain] = {
            "n_known": known.sum(),
            "n_unknown": (~known).sum(),
            "known": draws[domain, "known"][0, 0],
            "unknown": draws[domain, "unknown"][0, 0],
            "auroc": area.estimate,
            "auroc_low": area.low,
            "auroc_high": area.high,
        }
    if not rows:
        return pd.DataFrame()
    pairs = [((domain, "unknown"), (domain, "known")) for domain in rows]
    n_groups = min(len(np.unique(domains[domain]["group"])) for domain in rows)
    compared = statistics.comparison_table(draws, pairs, n_groups=n_groups, seed=seed)
    return pd.DataFrame.from_dict(rows, orient="index").join(compared.set_axis(list(rows)))


# -- parts -------------------------------------------------------------------------------------------------------------


def _check_unseen(model: PublishedModel, corpus: Corpus, clips: Sequence[str], study: Corpus, split: Split) -> None:
    """Raise for clips that the model may have been trained on, and for other splits than its own."""
    if corpus.multilabel:
        raise EvaluationError(f"{corpus.name} has several labels per clip; choose a corpus with one.")
    if split.fingerprint != model.about["split"]:
        raise LeakError(f"{model.folder} was trained with another split; use that of its fold ({model.about['fold']}).")
    table = corpus.manifest[corpus.manifest.clip_id.isin(set(clips)) & ~_unseen(corpus, study, split)]
    if len(table):
        raise LeakError(
            f"The model in {model.folder} may have been trained on the clip {table.clip_id.iloc[0]!r} or its group, "
            "which is not in the test part of its split; leave it out."
        )


def _unseen(corpus: Corpus, study: Corpus, split: Split) -> np.ndarray:
    """Return for each clip of a corpus whether its group is outside the training [n_clips]."""
    table, theirs = corpus.manifest, study.manifest.set_index("clip_id")
    shared = table.clip_id.isin(theirs.index)
    if CONTENT in table and CONTENT in theirs:  # files in two folders can have the same name
        shared &= table[CONTENT] == table.clip_id.map(theirs[CONTENT])
    if not shared.any():  # other recordings, whose groups can have the same names
        return np.ones(len(table), dtype=bool)
    trained = theirs.group[theirs.index.map(split.parts).isin(["train", "validation"])]
    return ~table.group.isin(set(trained)).to_numpy()


def _predictions(
    path: Path, model: PublishedModel, corpus: Corpus, clips: Sequence[str], workers: int | None
) -> Predictions:
    meaning = class_of(model, corpus)
    table = corpus.manifest.set_index("clip_id").loc[sorted(clips)]
    number = {name: place for place, name in enumerate(model.classes)}
    return {
        "clip_id": table.index.to_numpy(str),
        "group": table.group.to_numpy(str),
        "label": table.label.to_numpy(str),
        "targets": np.array([number.get(meaning[label], UNKNOWN) for label in table.label]),
        "probabilities": _probabilities(path, model, corpus, table.index, "", (np.nan,), 0, workers)[:, 0],
    }


def _probabilities(
    path: Path,
    model: PublishedModel,
    corpus: Corpus,
    clips: Sequence[str],
    name: str,
    levels: tuple[float, ...],
    seed: int,
    workers: int | None,
) -> np.ndarray:
    """Return probabilities [n_clips, n_levels, n_classes] under a degradation, or without one if unnamed."""
    network, table = model.single, corpus.manifest.set_index("clip_id").loc[list(clips)]
    rows = [(one.Index, corpus.root / one.path, one.start_s, one.duration_s) for one in table.itertuples()]
    settings = [network.temperature, network.features.to_dict(), network.scaler.to_dict()]
    made_from = key(
        "studies",
        model=[hash_file(network.file), *settings],
        clips=[corpus.fingerprint, list(clips)],
        degradation=[name, levels, seed],
    )

    def make() -> dict[str, np.ndarray]:
        tasks = [(model, part, name, levels, seed) for part in in_parts(rows, _BATCH)]
        described = DEGRADATIONS[name].label if name else UNTOUCHED
        parts = parallel_map(_predict_batch, tasks, workers=workers, describe=f"predicting, {described}")
        return {"probabilities": np.concatenate(list(parts))}

    return cached(path, made_from, make)["probabilities"]


def _predict_batch(
    model: PublishedModel, rows: list[tuple[str, Path, float, float]], name: str, levels: tuple[float, ...], seed: int
) -> np.ndarray:
    rate_hz = model.single.features.sample_rate_hz
    answers = np.empty((len(rows), len(levels), len(model.classes)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        for row, (clip_id, file, start_s, duration_s) in enumerate(rows):
            signal = decode.load(file, sample_rate_hz=rate_hz, start_s=start_s, duration_s=duration_s)
            for number, level in enumerate(levels):
                rng = generator(seed, clip_id, name)
                changed = degrade(signal, rate_hz, name, level, rng) if name else signal
                with disk_errors(path):
                    path.write_bytes(encode(changed, rate_hz, format="WAV", subtype="FLOAT").getvalue())
                answers[row, number] = _predict(path, model)
    return answers


def _predict(path: Path, model: PublishedModel) -> np.ndarray:
    try:
        return predict_file(path, model).probabilities
    except AudioError:  # all analysed parts are silent: uniform probabilities
        return np.full(len(model.classes), 1 / len(model.classes))


def _right(predictions: Predictions) -> np.ndarray:
    return predictions["probabilities"].argmax(axis=1) == predictions["targets"]


def _mean(
    predictions: Predictions, values: np.ndarray, own: np.ndarray | None = None, *, n_resamples: int, seed: int
) -> np.ndarray:
    """Return draws [1 + n_resamples] of the mean of values over all clips, or over those in `own`; NaN if empty."""
    counts = np.ones(len(values)) if own is None else own.astype(float)

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {"mean": weights @ (values * counts) / (weights @ counts)}

    group, classes = predictions["group"], predictions["targets"]
    return statistics.draw([mean], group, classes, n_resamples=n_resamples, seed=seed)["mean"][0]
