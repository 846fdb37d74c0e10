"""The one place where the test part is read: each model answers it once, and its answers are kept and scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib import baselines
from instrlib.config import FeatureConfig
from instrlib.corpora.base import Corpus
from instrlib.errors import EvaluationError
from instrlib.features import Scaler, sounding
from instrlib.files import read_arrays, write_arrays
from instrlib.intervals import Interval, bootstrap_mean, class_intervals, compare_over_seeds, mcnemar, score_intervals
from instrlib.metrics import confusion, most_confused, reliability, scores
from instrlib.splits import Split, fingerprint_of, load_split
from instrlib.store import FeatureStore, open_store
from instrlib.training import load_model, load_scaler, open_trained, part_segments, predict_clips

if TYPE_CHECKING:
    from instrlib.runs import Run

N_CHANCE = 50
"""Draws of chance: one alone can be lucky."""

Predictions = dict[str, Any]
"""`clip_id`, `group`, `targets` [shape=(n_clips,)] and `probabilities` [shape=(n_clips, n_classes)], or with several
seeds [shape=(n_seeds, n_clips, n_classes)]."""


@dataclass(frozen=True)
class Inputs:
    """What notebook 01 hands on.

    Attributes
    ----------
    store : FeatureStore
        The features.
    splits : tuple of Path
        One split, or those of a cross-validation in which each clip is tested once.
    fingerprint : str
        Of the splits.
    """

    store: FeatureStore
    splits: tuple[Path, ...]
    fingerprint: str


def open_inputs(preprocessing: "Run") -> Inputs:
    """Return the features and the splits as notebook 01 handed them on.

    Parameters
    ----------
    preprocessing : Run
        The finished run of notebook 01.

    Returns
    -------
    Inputs
    """
    store = open_store(Path(str(preprocessing.arrays("inputs")["store"])))
    splits = tuple(sorted(preprocessing.folder.glob("splits/fold-*.json")))
    return Inputs(store, splits, fingerprint_of([load_split(path, store.segments) for path in splits]))


def answer_test(
    path: Path,
    key: str,
    load: Callable[[], Callable[[np.ndarray], np.ndarray]],
    *,
    store: FeatureStore,
    scaler: Scaler | None,
    split: Split,
) -> Predictions:
    """Let a model answer the test part, once; asked again with the same key, it gives the answers that were kept.

    Parameters
    ----------
    path : Path
        An npz file to keep the answers in.
    key : str
        What the model was made of: with another key it answers anew.
    load : callable
        Loads the model, if it is needed: returns what `training.predict_clips` takes as `predict`.
    store, scaler
        See `training.predict_clips`.
    split : Split
        The parts.

    Returns
    -------
    dict
        See `Predictions`; no axis of seeds.
    """
    if path.is_file():
        kept = read_arrays(path)
        if str(kept.pop("key", "")) == key:
            return kept
    predicted = predict_clips(load(), store, scaler, part_segments(store, split, "test"))
    write_arrays(path, key=key, **predicted)
    return predicted


def read_test(folder: Path, store_folder: Path, split_path: Path) -> Predictions:
    """Let a trained network answer the test part, once; the answers are kept in its folder.

    Parameters
    ----------
    folder : Path
        A finished run folder of `training.train_model`; `predictions.npz` is written there.
    store_folder, split_path : Path
        Features and split that it was trained with.

    Returns
    -------
    dict
        See `Predictions`; no axis of seeds.

    Raises
    ------
    RunError
        When it was trained with another split or other features: its test part could hold clips that it learned from.
    """
    trained, store, split = open_trained(folder, store_folder, split_path)

    def load() -> Callable[[np.ndarray], np.ndarray]:
        return load_model(folder)[0].predict_on_batch

    scaler = load_scaler(folder)
    return answer_test(folder / "predictions.npz", trained["key"], load, store=store, scaler=scaler, split=split)


def join_folds(answers: Sequence[Predictions]) -> Predictions:
    """Join what the models of several folds answered, each on its own test part.

    Parameters
    ----------
    answers : sequence of dict
        `Predictions`, with or without an axis of seeds.

    Returns
    -------
    dict
        See `Predictions`; clips sorted.

    Raises
    ------
    EvaluationError
        When a clip was tested twice.
    """
    clip_id = np.concatenate([answer["clip_id"] for answer in answers])
    order = np.argsort(clip_id, kind="stable")
    if len(np.unique(clip_id)) < len(clip_id):
        raise EvaluationError("A clip was tested in two folds; make the folds again with splits.k_folds.")
    joined = {
        name: np.concatenate([answer[name] for answer in answers])[order] for name in ("clip_id", "group", "targets")
    }
    probabilities = np.concatenate([answer["probabilities"] for answer in answers], axis=-2)
    return joined | {"probabilities": probabilities[..., order, :]}


def join_seeds(answers: Sequence[Sequence[Predictions]]) -> Predictions:
    """Join what the models of several seeds and folds answered.

    Parameters
    ----------
    answers : sequence of sequence of dict
        `Predictions` of each model without an axis of seeds, first by seed, then by fold.

    Returns
    -------
    dict
        See `Predictions`; with an axis of seeds.

    Raises
    ------
    EvaluationError
        When a clip was tested twice.
    """
    by_seed = [join_folds(by_fold) for by_fold in answers]
    return by_seed[0] | {"probabilities": np.stack([one["probabilities"] for one in by_seed])}


def trivial_baselines(store: FeatureStore, splits: Sequence[Path], *, seed: int) -> dict[str, np.ndarray]:
    """Answer the test part with what needs no learning worth the name, fitted on the training part alone.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms.
    splits : sequence of Path
        One split, or those of a cross-validation.
    seed : int
        Decides the draws of chance.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_clips, n_classes) or, for chance, (N_CHANCE, n_clips, n_classes)]
        By name; clips sorted, as in `Predictions`.
    """
    folds = [_trivial(store, load_split(path, store.segments), seed) for path in splits]
    return {name: join_folds([fold[name] for fold in folds])["probabilities"] for name in folds[0]}


def compare_models(
    predictions: Predictions, models: dict[str, np.ndarray], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Score several models on the same clips.

    Parameters
    ----------
    predictions : dict
        Gives the clips' `targets` and `group`.
    models : dict of str to np.ndarray
        Probabilities of each model [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)].
    n_resamples, seed : int
        Of the bootstrap over groups.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low`, `high`; one row for each pair.
    """
    tables = [
        score_intervals(
            predictions["targets"], probabilities, predictions["group"], n_resamples=n_resamples, seed=seed
        ).assign(model=name)
        for name, probabilities in models.items()
    ]
    return pd.concat(tables).reset_index()[["model", "score", "estimate", "low", "high"]]


def nested(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the table of `compare_models` as model -> score -> estimate, low, high; for `results.json`."""
    return {
        model: rows.set_index("score")[["estimate", "low", "high"]].to_dict("index")
        for model, rows in table.groupby("model", sort=False)
    }


def compare_pair(
    predictions: Predictions, first: np.ndarray, second: np.ndarray, *, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Compare two models on the same clips.

    Parameters
    ----------
    predictions : dict
        Gives the clips' `targets` and `group`.
    first, second : np.ndarray [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)]
        Their probabilities; one without seeds is compared with every seed of the other.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    dict
        `difference` (an `intervals.Difference` of accuracy, first minus second) and, for the first seed, McNemar's
        `first_alone`, `second_alone` (clips that just one of the two has right) and `mcnemar_p`.
    """
    targets, groups = predictions["targets"], predictions["group"]
    a, b = (np.atleast_2d(model.argmax(axis=-1) == targets) for model in (first, second))
    a, b = np.broadcast_arrays(a, b)
    test = mcnemar(a[0], b[0])
    return {
        "difference": compare_over_seeds(a, b, groups, n_resamples=n_resamples, seed=seed),
        "first_alone": test["only_a"],
        "second_alone": test["only_b"],
        "mcnemar_p": test["p"],
    }


def class_table(predictions: Predictions, classes: tuple[str, ...], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score each class over the seeds, with intervals over groups.

    Parameters
    ----------
    predictions : dict
        Of several seeds.
    classes : tuple of str
        Name of each class.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        See `intervals.class_intervals`. Two or three groups of a class span little of what other groups would show:
        such intervals are too narrow.
    """
    return class_intervals(
        predictions["targets"],
        predictions["probabilities"],
        predictions["group"],
        classes,
        n_resamples=n_resamples,
        seed=seed,
    )


def confusion_over_seeds(predictions: Predictions) -> np.ndarray:
    """Sum of the seeds' confusion matrices, int [shape=(n_classes, n_classes)]; rows are the true classes."""
    return sum(confusion(predictions["targets"], one) for one in predictions["probabilities"])


def reliability_over_seeds(predictions: Predictions) -> dict[str, Any]:
    """Arrays of the reliability diagram over the answers of all seeds; see `metrics.reliability`.

    `ece` is the mean of the seeds' calibration errors, as in `compare_models`: pooled, the seeds' errors would cancel.
    """
    targets, by_seed = predictions["targets"], predictions["probabilities"]
    pooled = reliability(np.tile(targets, len(by_seed)), np.concatenate(list(by_seed)))
    return pooled | {"ece": np.mean([reliability(targets, one)["ece"] for one in by_seed])}


def confidence_gap(predictions: Predictions, *, n_resamples: int, seed: int) -> Interval:
    """Mean confidence minus accuracy, over the seeds, with its interval over groups; above 0 is too sure."""
    confidence = predictions["probabilities"].max(axis=-1)
    correct = predictions["probabilities"].argmax(axis=-1) == predictions["targets"]
    gap = (confidence - correct).mean(axis=0)
    return bootstrap_mean(gap, predictions["group"], n_resamples=n_resamples, seed=seed)


def by_seed(predictions: Predictions) -> pd.DataFrame:
    """Score the networks one by one: a column for each seed, a row for each score."""
    columns = [scores(predictions["targets"], one) for one in predictions["probabilities"]]
    return pd.DataFrame({f"seed {number}": column for number, column in enumerate(columns)})


def confident_errors(predictions: Predictions, corpus: Corpus, *, n: int) -> pd.DataFrame:
    """Find, for each of the most confused pairs of classes, the clip whose wrong answer was surest.

    Parameters
    ----------
    predictions : dict
        Of several seeds; their mean decides.
    corpus : Corpus
        The clips.
    n : int
        At most so many pairs.

    Returns
    -------
    pandas.DataFrame
        The clips' rows of the manifest with `true`, `predicted` and `confidence`; empty when nothing is wrong.
    """
    mean = predictions["probabilities"].mean(axis=0)
    pairs = most_confused(confusion(predictions["targets"], mean), corpus.classes, n)
    classes = np.array(corpus.classes)
    answers = pd.DataFrame(
        {
            "clip_id": predictions["clip_id"],
            "true": classes[predictions["targets"]],
            "predicted": classes[mean.argmax(axis=1)],
            "confidence": mean.max(axis=1).round(2),
        }
    )
    wrong = answers.merge(pairs[["true", "predicted"]], on=["true", "predicted"])
    surest = wrong.sort_values(["confidence", "clip_id"], ascending=[False, True]).drop_duplicates(
        ["true", "predicted"]
    )
    return surest.merge(corpus.manifest, on="clip_id")


def _trivial(store: FeatureStore, split: Split, seed: int) -> dict[str, Predictions]:
    (spectra, train), (test_spectra, test) = (_mean_spectra(store, split, part) for part in ("train", "test"))
    targets, n_test, n_classes = train["targets"], len(test["targets"]), len(store.classes)
    chance = [baselines.stratified_chance(targets, n_test, n_classes, seed=seed + draw) for draw in range(N_CHANCE)]
    answers = {
        "majority class": baselines.majority(targets, n_test, n_classes),
        "chance by class share": np.stack(chance),
        "nearest mean spectrum": baselines.nearest_mean_spectrum(spectra, targets, test_spectra, n_classes=n_classes),
    }
    return {name: test | {"probabilities": probabilities} for name, probabilities in answers.items()}


def _mean_spectra(store: FeatureStore, split: Split, part: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean spectrum in dB of each clip of a part, while it sounds, and the clips in alphabetical order."""
    segments = part_segments(store, split, part)
    spectra = np.stack([_mean_spectrum(store.features[row].astype(np.float32), store.config) for row in segments.row])
    clips = segments.groupby("clip_id", sort=True).first()
    means = pd.DataFrame(spectra).groupby(segments.clip_id.to_numpy(), sort=True).mean().to_numpy()
    return means, {
        "clip_id": clips.index.to_numpy(str),
        "group": clips.group.to_numpy(str),
        "targets": clips.target.to_numpy(np.int64),
    }


def _mean_spectrum(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    return level_db[:, sounding(level_db, config)].mean(axis=1)
