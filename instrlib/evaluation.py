"""The one place where the test part is read: each model answers it once, and its answers are kept and scored."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib import baselines
from instrlib.corpora.base import Corpus
from instrlib.errors import RunError
from instrlib.files import read_arrays, read_json, write_arrays
from instrlib.intervals import Interval, bootstrap_mean, class_intervals, compare_over_seeds, mcnemar, score_intervals
from instrlib.metrics import confusion, most_confused, reliability, scores
from instrlib.parallel import fan_out
from instrlib.splits import Split, load_split
from instrlib.store import FeatureStore, open_store
from instrlib.training import COMPLETE, load_model, part_segments, predict_clips

if TYPE_CHECKING:
    from instrlib.runs import Run

N_CHANCE = 50
"""Draws of chance: one alone can be lucky."""

Predictions = dict[str, Any]
"""`clip_id`, `group`, `targets` [shape=(n_clips,)] and `probabilities` [shape=(n_clips, n_classes)], or with several
seeds [shape=(n_seeds, n_clips, n_classes)]."""


def open_inputs(preprocessing: "Run") -> tuple[FeatureStore, Path, str]:
    """Return the feature store, the path of the split and its fingerprint, as notebook 01 handed them on."""
    handed = preprocessing.arrays("inputs")
    store, path = open_store(Path(str(handed["store"]))), preprocessing.folder / "split.json"
    return store, path, load_split(path, store.segments).fingerprint


def read_test(folder: Path, store_folder: Path, split_path: Path) -> Predictions:
    """Let a trained network answer the test part, once; asked again, it gives the answers that were kept.

    Parameters
    ----------
    folder : Path
        A finished run folder of `training.train_model`; `predictions.npz` is written there.
    store_folder, split_path : Path
        Features and split that it was trained with.

    Returns
    -------
    dict
        See `Predictions`.

    Raises
    ------
    RunError
        When it was trained with another split or other features: its test part could hold clips that it learned from.
    """
    path, trained = folder / "predictions.npz", read_json(folder / COMPLETE)
    key = trained["key"]
    _check_trained_with(folder, "split", trained["split"], read_json(split_path)["fingerprint"])
    if path.is_file():
        kept = read_arrays(path)
        if str(kept.pop("key")) == key:
            return kept
    store = open_store(store_folder)
    _check_trained_with(folder, "feature store", trained["store"], store.fingerprint)
    split = load_split(split_path, store.segments)
    model, scaler = load_model(folder)
    predicted = predict_clips(model, store, scaler, part_segments(store, split, "test"))
    write_arrays(path, key=key, **predicted)
    return predicted


def read_test_seeds(
    folders: list[Path], *, store: FeatureStore, split_path: Path, workers: int | None = None
) -> Predictions:
    """Read the test part with the networks of several seeds.

    Parameters
    ----------
    folders : list of Path
        A finished run folder for each seed.
    store, split_path
        Features and split that they were trained with.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict
        See `Predictions`; `probabilities` [shape=(n_seeds, n_clips, n_classes)].

    Raises
    ------
    RunError
        See `read_test`.
    """
    tasks = [(folder, store.folder, split_path) for folder in folders]
    answers = list(fan_out(read_test, tasks, workers=workers, describe="reading the test part", isolate=True))
    return answers[0] | {"probabilities": np.stack([answer["probabilities"] for answer in answers])}


def trivial_baselines(store: FeatureStore, split_path: Path, *, seed: int) -> dict[str, np.ndarray]:
    """Answer the test part with what needs no learning worth the name, fitted on the training part alone.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms.
    split_path : Path
        The parts.
    seed : int
        Decides the draws of chance.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_clips, n_classes) or, for chance, (N_CHANCE, n_clips, n_classes)]
        By name; clips in the order of `read_test`.
    """
    split = load_split(split_path, store.segments)
    spectra, targets = zip(*(_mean_spectra(store, split, part) for part in ("train", "test")), strict=True)
    n_classes, n_test = len(store.classes), len(targets[1])
    return {
        "majority class": baselines.majority(targets[0], n_test, n_classes),
        "chance by class share": np.stack(
            [baselines.stratified_chance(targets[0], n_test, n_classes, seed=seed + draw) for draw in range(N_CHANCE)]
        ),
        "nearest mean spectrum": baselines.nearest_mean_spectrum(
            *spectra[:1], targets[0], spectra[1], n_classes=n_classes
        ),
    }


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


def _check_trained_with(folder: Path, what: str, trained: str, given: str) -> None:
    if trained != given:
        raise RunError(
            f"{folder} was trained with the {what} {trained}, not with {given}; run the notebook that trains it again."
        )


def _mean_spectra(store: FeatureStore, split: Split, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean spectrum in dB of each clip of a part, and its class; clips in alphabetical order."""
    segments = part_segments(store, split, part)
    spectra = np.stack([store.features[row].mean(axis=1, dtype=np.float32) for row in segments.row])
    table = pd.DataFrame(spectra).assign(clip_id=segments.clip_id.to_numpy(), target=segments.target.to_numpy())
    clips = table.groupby("clip_id", sort=True).mean()
    return clips.drop(columns="target").to_numpy(), clips.target.to_numpy(np.int64)
