"""Robustness of the released model, as `instrlib predict` runs it, to degraded recordings and other corpora."""

import contextlib
import tempfile
from collections.abc import Iterable, Sequence
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

CLIPS_PER_CLASS = {"smoke": 1, "quick": 8, "full": 40}  # test clips that are degraded; each is predicted 40 times
UNTOUCHED = "untouched"
UNKNOWN = -1  # target of a clip whose class the model does not have

_BATCH = 4
_SCORES = ("accuracy", "log_loss", "expected_calibration_error")  # that `scores` takes from `metrics.scores`


def choose_clips(model: PublishedModel, corpus: Corpus, split: Split, *, per_class: int | None = None) -> list[str]:
    """Choose up to `per_class` clips of each class from the test part, from as many groups as possible; sorted."""
    unseen = _unseen(model, corpus, corpus, split) & corpus.manifest.clip_id.map(split.parts).eq("test")
    drawn = corpus.manifest[unseen].sample(frac=1, random_state=0)
    turn = drawn.groupby(["label", "group"]).cumcount().sort_values(kind="stable")
    chosen = drawn.loc[turn.index].groupby("label").head(len(drawn) if per_class is None else per_class)
    return sorted(chosen.clip_id)


def name_of(degradation: str, level: float) -> str:
    """Return the name of a degradation at a level, such as "pink noise at 10 dB SNR"."""
    return f"{DEGRADATIONS[degradation].label} at {level:g} {DEGRADATIONS[degradation].unit}"


def predict_degraded(
    folder: Path, model: PublishedModel, corpus: Corpus, clips: Sequence[str], split: Split
) -> dict[str, Predictions]:
    """Predict test clips `UNTOUCHED`, then under every degradation (`name_of`), from mild to severe; cached.

    `corpus` and `split` are those of the model's training; possible training clips raise `LeakError`. Noise and rooms
    differ between clips, but not between levels.
    """
    if seen := sorted(set(clips) - set(corpus.manifest.clip_id[_unseen(model, corpus, corpus, split)])):
        raise LeakError(f"{model.folder} may have been trained on the clip {seen[0]!r} or its group; leave it out.")
    found = {UNTOUCHED: _predictions(folder / f"{UNTOUCHED}.npz", model, corpus, clips)[0]}
    for name, degradation in DEGRADATIONS.items():
        by_level = _predictions(folder / f"{name}.npz", model, corpus, clips, name)
        found |= {name_of(name, level): one for level, one in zip(degradation.levels, by_level, strict=True)}
    return found


def predict_domain(path: Path, model: PublishedModel, corpus: Corpus, *, study: Corpus, split: Split) -> Predictions:
    """Predict the clips of another corpus whose groups are outside the training, or the test part of the study's own.

    The result also has `label`, the class in the corpus; see `class_of`. A corpus without classes of the model raises
    `EvaluationError`.
    """
    meaning = class_of(model, corpus)
    table = corpus.manifest[_unseen(model, corpus, study, split) & corpus.manifest.label.isin(list(meaning))]
    if not any(meaning[label] for label in table.label):
        raise EvaluationError(f"{corpus.name} in {corpus.root} has no class of the model; choose another corpus.")
    return _predictions(path, model, corpus, table.clip_id)[0]


def class_of(model: PublishedModel, corpus: Corpus) -> dict[str, str | None]:
    """Return the model's class for each class of a corpus, None if it lacks it; wider classes are left out."""
    trained_on = model.about["corpus"]["name"]
    if corpus.name == trained_on:
        return {label: label if label in model.classes else None for label in corpus.classes}
    known = taxonomy.common_classes(corpus.name, trained_on, classes_a=corpus.classes, classes_b=model.classes)
    back = taxonomy.common_classes(trained_on, corpus.name, classes_a=model.classes, classes_b=corpus.classes)
    wider = set(back.values()) - set(known)
    return {label: known.get(label) for label in corpus.classes if label not in wider}


def _unseen(model: PublishedModel, corpus: Corpus, study: Corpus, split: Split) -> np.ndarray:
    """Return for each clip of a corpus whether its group is outside the training [n_clips]."""
    if split.fingerprint != model.about["split"]:
        raise LeakError(f"{model.folder} was trained with another split; use that of its fold ({model.about['fold']}).")
    table, theirs = corpus.manifest, study.manifest.set_index("clip_id")
    shared = table.clip_id.isin(theirs.index)
    if CONTENT in table and CONTENT in theirs:  # files in two folders can have the same name
        shared &= table[CONTENT] == table.clip_id.map(theirs[CONTENT])
    if not shared.any():  # other recordings, whose groups can have the same names
        return np.ones(len(table), dtype=bool)
    trained = theirs.group[theirs.index.map(split.parts).isin(["train", "validation"])]
    return ~table.group.isin(set(trained)).to_numpy()


def _predictions(
    path: Path, model: PublishedModel, corpus: Corpus, clips: Iterable[str], name: str = ""
) -> list[Predictions]:
    """Return the predictions of clips under each level of a degradation, or without one if unnamed."""
    table, network = corpus.manifest.set_index("clip_id").loc[sorted(clips)], model.single
    levels = DEGRADATIONS[name].levels if name else (np.nan,)

    def make() -> dict[str, np.ndarray]:
        rows = [(one.Index, corpus.root / one.path, one.start_s, one.duration_s) for one in table.itertuples()]
        tasks = [(model, part, name, levels) for part in in_parts(rows, _BATCH)]
        return {"probabilities": np.concatenate(list(parallel_map(_predict_batch, tasks, describe="predicting")))}

    settings = [network.temperature, network.features.to_dict(), network.scaler.to_dict()]
    made_of = {"clips": [corpus.fingerprint, list(table.index)], "degradation": [name, levels]}
    answers = cached(path, key("studies", model=[hash_file(network.file), *settings], **made_of), make)["probabilities"]
    meaning = class_of(model, corpus)
    targets = [model.classes.index(meaning[one]) if meaning[one] else UNKNOWN for one in table.label]
    known = {"clip_id": table.index.to_numpy(str), "targets": np.array(targets)}
    known |= {column: table[column].to_numpy(str) for column in ("group", "label")}
    return [known | {"probabilities": answers[:, number]} for number in range(len(levels))]


def _predict_batch(
    model: PublishedModel, rows: list[tuple[str, Path, float, float]], name: str, levels: tuple[float, ...]
) -> np.ndarray:
    rate_hz = model.single.features.sample_rate_hz
    # Where all analysed parts are silent, probabilities are uniform.
    answers = np.full((len(rows), len(levels), len(model.classes)), 1 / len(model.classes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        for row, (clip_id, file, start_s, duration_s) in enumerate(rows):
            signal = decode.load(file, sample_rate_hz=rate_hz, start_s=start_s, duration_s=duration_s)
            for number, level in enumerate(levels):
                rng = generator(0, clip_id, name)
                changed = degrade(signal, rate_hz, name, level, rng) if name else signal
                with disk_errors(path):
                    path.write_bytes(encode(changed, rate_hz, format="WAV", subtype="FLOAT").getvalue())
                with contextlib.suppress(AudioError):
                    answers[row, number] = predict_file(path, model).probabilities
    return answers


def scores(predictions: dict[str, Predictions], model: PublishedModel, *, n_resamples: int) -> pd.DataFrame:
    """Return a `statistics.score_table` of several predictions on the clips of known classes.

    It adds `confidence_gap`, the mean confidence minus the accuracy, which unlike the calibration error has no bias in
    small samples; `abstained`; and `accuracy_of_answers`, without abstentions, where answers to unknown classes are
    wrong.
    """
    tables = []
    for name, every in predictions.items():
        known, confidence = every["targets"] != UNKNOWN, every["probabilities"].max(axis=1)
        named = is_named(every["probabilities"], model.single.thresholds)
        right = every["probabilities"].argmax(axis=1) == every["targets"]
        means = {"confidence_gap": (confidence - right, known), "abstained": (~named, known)}
        drawn = _means(every, means | {"accuracy_of_answers": (right, named)}, n_resamples)
        own = statistics.intervals(drawn).rename_axis("score").reset_index().assign(model=name)
        of_known = {name: {field: values[known] for field, values in every.items()}}
        table = statistics.score_table(of_known, n_resamples=n_resamples, seed=0)
        table = pd.concat([table[table.score.isin(_SCORES)], own], ignore_index=True)
        tables.append(table.assign(n=known.sum(), n_groups=len(np.unique(every["group"][known]))))
    return pd.concat(tables, ignore_index=True)


def abstentions(domains: dict[str, Predictions], model: PublishedModel, *, n_resamples: int) -> pd.DataFrame:
    """Compare abstentions on unknown and known classes, in the domains with both; "better" is more on unknown ones.

    `known` and `unknown` are shares of abstentions; `auroc` is how often a known clip has a higher top probability than
    an unknown one.
    """
    draws, rows, n_resamples = {}, {}, statistics.enough_resamples(n_resamples, len(domains))
    for domain, every in domains.items():
        known = every["targets"] != UNKNOWN
        if known.all() or not known.any():
            continue
        abstained = ~is_named(every["probabilities"], model.single.thresholds)
        drawn = _means(every, {"known": (abstained, known), "unknown": (abstained, ~known)}, n_resamples)
        draws |= {(domain, part): values for part, values in drawn.items()}
        ranked = {name: every[name] for name in ("clip_id", "group")} | {
            "labels": known[:, None].astype(float),
            "probabilities": every["probabilities"].max(axis=1)[:, None],
        }
        area = statistics.score_table({"": ranked}, n_resamples=n_resamples, seed=0).set_index("score").loc["roc_auc"]
        rows[domain] = {"n_known": known.sum(), "n_unknown": (~known).sum()}
        rows[domain] |= {part: values[0, 0] for part, values in drawn.items()}
        rows[domain] |= {"auroc": area.estimate, "auroc_low": area.low, "auroc_high": area.high}
    if not rows:
        return pd.DataFrame()
    pairs = [((domain, "unknown"), (domain, "known")) for domain in rows]
    n_groups = min(len(np.unique(domains[domain]["group"])) for domain in rows)
    compared = statistics.comparison_table(draws, pairs, n_groups=n_groups)
    return pd.DataFrame.from_dict(rows, orient="index").join(compared.set_axis(list(rows)))


def _means(
    predictions: Predictions, parts: dict[str, tuple[np.ndarray, np.ndarray]], n_resamples: int
) -> dict[str, np.ndarray]:
    """Return draws [1, 1 + n_resamples] of the means of values over the clips of a mask, by name; NaN if empty."""

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {name: weights @ (values * own) / (weights @ own) for name, (values, own) in parts.items()}

    return statistics.draw([means], predictions["group"], predictions["targets"], n_resamples=n_resamples, seed=0)
