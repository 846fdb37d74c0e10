"""Run folders of trained networks: writing, checking, reading, and predicting clips."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler, sounding
from instrlib.core.cache import cached, versions
from instrlib.core.io import RunError, atomic_path, in_parts, padded, read_json, write_arrays, write_json
from instrlib.core.parallel import load_keras
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation import baselines
from instrlib.evaluation.metrics import DEFAULT_THRESHOLD, best_thresholds, clip_probabilities, scores
from instrlib.evaluation.predictions import Predictions, join_folds, truth
from instrlib.models.layers import count_multiply_adds

if TYPE_CHECKING:
    import keras

COMPLETE = "manifest.json"  # written last: a folder without it holds no finished training


def write_network(
    folder: Path,
    model: "keras.Model",
    scaler: Scaler,
    store: FeatureStore,
    split: Split,
    metrics: dict[str, Any],
    made_of: dict[str, Any],
    predicted: dict[str, Any],
    history: pd.DataFrame | None = None,
) -> None:
    """Write a trained network and its predictions of the validation part to a run folder, the manifest last.

    With `labels` (sigmoid outputs), thresholds are chosen on validation; classes that validation does not have both
    present and absent get 0.5 and are listed as `no_threshold`. `made_of` goes into the manifest.
    """
    (folder / COMPLETE).unlink(missing_ok=True)
    with atomic_path(folder / "model.keras") as path:
        model.save(path)
    if history is not None:
        with atomic_path(folder / "history.csv") as path:
            history.to_csv(path, index=False)
    preprocessing = {"features": store.config.to_dict(), "scaler": scaler.to_dict(), "classes": store.classes}
    if "labels" in predicted:
        thresholds, unknown = best_thresholds(predicted["labels"], predicted["probabilities"])
        preprocessing["thresholds"] = thresholds.tolist()
        metrics = metrics | {"no_threshold": [store.classes[number] for number in unknown]}
        predicted = predicted | {"thresholds": thresholds}
    validation = scores(truth(predicted), predicted["probabilities"], predicted.get("thresholds", DEFAULT_THRESHOLD))
    sizes = {"parameters": model.count_params(), "multiply_adds": count_multiply_adds(model)}
    metrics = {"validation": validation, **metrics, **sizes}
    write_json(folder / "preprocessing.json", preprocessing)
    write_arrays(folder / "validation.npz", **predicted)
    write_json(folder / "metrics.json", metrics)
    fingerprints = {"store": store.fingerprint, "split": split.fingerprint}
    write_json(folder / COMPLETE, {**made_of, **fingerprints, "versions": versions()})


def is_finished(folder: Path, key: str) -> bool:
    """Return whether a run folder holds the finished training of this key; damaged manifests raise `RunError`."""
    return (folder / COMPLETE).is_file() and read_manifest(folder)["key"] == key


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished training: `key`, `seed`, fingerprints `store` and `split`, and more."""
    if not (folder / COMPLETE).is_file():
        raise RunError(f"{folder} contains no finished training; re-run the notebook that trains it.")
    with _reading(folder, COMPLETE):
        manifest = read_json(folder / COMPLETE)
        _ = [manifest[name] for name in ("key", "seed", "store", "split")]
    return manifest


def open_trained(folder: Path, store_folder: Path, split_path: Path) -> tuple[dict[str, Any], FeatureStore, Split]:
    """Return manifest, features and split of a trained network; `RunError` if they differ from its training."""
    trained, store = read_manifest(folder), open_store(store_folder)
    split = load_split(split_path, store.segments)
    for what, given in (("split", split.fingerprint), ("store", store.fingerprint)):
        if trained[what] != given:
            raise RunError(
                f"{folder} was trained with the {what} {trained[what]}, not {given}; re-run the notebook that "
                "trains it."
            )
    return trained, store, split


def load_model(folder: Path) -> tuple["keras.Model", Scaler]:
    """Load a network and its input scaling from a run folder; damaged files raise `RunError`."""
    scaler = load_scaler(folder)
    with _reading(folder, "model.keras"):
        return load_keras().saving.load_model(folder / "model.keras", compile=False), scaler


def load_scaler(folder: Path) -> Scaler:
    """Load the input scaling of a network from its run folder; see `load_model`."""
    read_manifest(folder)
    with _reading(folder, "preprocessing.json"):
        return Scaler.from_dict(read_json(folder / "preprocessing.json")["scaler"])


@contextlib.contextmanager
def _reading(folder: Path, name: str) -> Iterator[None]:
    """Turn the errors of a reader into a `RunError`."""
    try:
        yield
    except Exception as error:  # Keras passes on any error
        raise RunError(
            f"{name} in {folder} is missing, damaged or of another kind; delete that folder and run the notebook that "
            "trains it again."
        ) from error


def learning_curves(folders: list[Path]) -> dict[str, Any]:
    """Return the learning curves of run folders as arguments of `charts.lines`."""
    tables = [pd.read_csv(folder / "history.csv").interpolate(limit_area="inside") for folder in folders]
    columns = (("loss", "val_loss"), ("accuracy", "val_accuracy"))
    values = np.stack([padded([table[name] for name in pair for table in tables]) for pair in columns])
    return {
        "x": np.arange(1, values.shape[2] + 1),
        "values": values,
        "names": [*["training"] * len(folders), *["validation"] * len(folders)],
        "panels": ["loss", "accuracy"],
        "xlabel": "epoch",
        "ylabel": ["loss (nats)", "accuracy"],
        "columns": 2,
    }


def summary(folder: Path) -> dict[str, Any]:
    """Return one flat row about a trained network: split, seed, epochs, time, validation scores and size."""
    kept, manifest = read_json(folder / "metrics.json"), read_manifest(folder)
    names, validation = ("accuracy", "mean_average_precision", "macro_f1", "log_loss"), kept.pop("validation")
    kept.pop("no_threshold", None)
    shown = {f"validation_{name}": validation[name] for name in names if name in validation}
    return {"split": manifest["split"], "seed": manifest["seed"], **kept, **shown}


def part_segments(store: FeatureStore, split: Split, part: str) -> pd.DataFrame:
    """Return the segments of one part of the split, in the order of the store."""
    return store.segments[store.segments.clip_id.map(split.parts) == part]


def predict_clips(
    predict: Callable[[np.ndarray], Any],
    store: FeatureStore,
    scaler: Scaler | None,
    segments: pd.DataFrame,
    *,
    several: bool = False,
) -> Predictions:
    """Predict clips, sorted by id, by averaging the probabilities of their segments.

    `predict` maps features [shape=(n, n_bins, n_frames, 1)] to probabilities [shape=(n, n_classes)]. `several` adds
    `labels` even if the corpus has one label per clip, as for sigmoid outputs.
    """
    parts = in_parts(segments.row.to_numpy(), 256)
    by_segment = np.concatenate([np.asarray(predict(store.read(rows, scaler))) for rows in parts])
    means = clip_probabilities(by_segment, segments.clip_id.to_numpy(str))
    return of_clips(store, segments, means, several=several)


def of_clips(
    store: FeatureStore, segments: pd.DataFrame, probabilities: np.ndarray, *, several: bool = False
) -> Predictions:
    """Return probabilities of the clips of `segments`, sorted by id, as predictions; see `predict_clips`."""
    clips = segments.drop_duplicates("clip_id").sort_values("clip_id")
    known = {"clip_id": clips.clip_id.to_numpy(str), "group": clips.group.to_numpy(str)}
    known |= {"targets": clips.target.to_numpy(np.int64), "probabilities": probabilities}
    return known | ({"labels": store.label_matrix(clips)} if several or store.multilabel else {})


def read_test(
    folder: Path, store_folder: Path, split_path: Path, predict: Callable[[np.ndarray], np.ndarray] | None = None
) -> Predictions:
    """Return the cached test predictions of a trained network; `RunError` if split or features are not its own."""
    trained, store, split = open_trained(folder, store_folder, split_path)
    scaler = load_scaler(folder)

    def make() -> Predictions:
        thresholds = read_json(folder / "preprocessing.json").get("thresholds")
        answer, segments = predict or load_model(folder)[0].predict_on_batch, part_segments(store, split, "test")
        predicted = predict_clips(answer, store, scaler, segments, several=thresholds is not None)
        return predicted | ({"thresholds": np.asarray(thresholds)} if thresholds else {})

    return cached(folder / "predictions.npz", trained["key"], make)


def trivial_baselines(store: FeatureStore, splits: Sequence[Path], *, seed: int) -> dict[str, Predictions]:
    """Return the predictions of `evaluation.baselines`, fitted on the training part of each split."""
    folds = []
    for path in splits:
        split = load_split(path, store.segments)
        train, test = (part_segments(store, split, part) for part in ("train", "test"))
        clips = train.drop_duplicates("clip_id").sort_values("clip_id")
        if store.multilabel:
            answers = baselines.several_labels(store.label_matrix(clips), test.clip_id.nunique())
        else:
            spectra, targets = [_mean_spectra(store, one) for one in (train, test)], clips.target.to_numpy()
            answers = baselines.single_label(spectra[0], targets, spectra[1], len(store.classes), seed=seed)
        folds.append({name: of_clips(store, test, values) for name, values in answers.items()})
    return {name: join_folds([fold[name] for fold in folds]) for name in folds[0]}


def _mean_spectra(store: FeatureStore, segments: pd.DataFrame) -> np.ndarray:
    """Return the mean spectrum in dB of each clip over its sounding frames [n_clips, n_bins], sorted by id."""
    levels = (store.features[row].astype(np.float32) for row in segments.row)
    spectra = np.stack([level[:, sounding(level, store.config)].mean(axis=1) for level in levels])
    return pd.DataFrame(spectra).groupby(segments.clip_id.to_numpy(str)).mean().to_numpy()
