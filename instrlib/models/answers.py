"""Cached predictions of trained models on their test parts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler, sounding
from instrlib.core.io import read_arrays, write_arrays
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore
from instrlib.evaluation import baselines
from instrlib.evaluation.predictions import Predictions, join_folds
from instrlib.models.trained import (
    load_model,
    load_scaler,
    load_thresholds,
    open_trained,
    part_segments,
    predict_clips,
)


def answer_test(
    path: Path,
    key: str,
    load: Callable[[], Callable[[np.ndarray], np.ndarray]],
    *,
    store: FeatureStore,
    scaler: Scaler | None,
    split: Split,
    thresholds: np.ndarray | None = None,
) -> Predictions:
    """Return the predictions of a model on the test part, cached in `path` under `key`.

    `load` returns the `predict` argument of `trained.predict_clips`; `thresholds` [shape=(n_classes,)] are those of a
    sigmoid model, chosen on validation.
    """
    if path.is_file():
        kept = read_arrays(path)
        if str(kept.pop("key", "")) == key:
            return kept
    several = thresholds is not None
    predicted = predict_clips(load(), store, scaler, part_segments(store, split, "test"), several=several)
    if several:
        predicted["thresholds"] = thresholds
    write_arrays(path, key=key, **predicted)
    return predicted


def read_test(
    folder: Path, store_folder: Path, split_path: Path, predict: Callable[[np.ndarray], np.ndarray] | None = None
) -> Predictions:
    """Return the cached test predictions of a trained network; `RunError` if split or features are not its own."""
    trained, store, split = open_trained(folder, store_folder, split_path)

    def load() -> Callable[[np.ndarray], np.ndarray]:
        return predict or load_model(folder)[0].predict_on_batch

    kept = {"scaler": load_scaler(folder), "thresholds": load_thresholds(folder)}
    return answer_test(folder / "predictions.npz", trained["key"], load, store=store, split=split, **kept)


def trivial_baselines(store: FeatureStore, splits: Sequence[Path], *, seed: int) -> dict[str, Predictions]:
    """Return the predictions of `evaluation.baselines`, fitted on the training part of each split."""
    folds = [_trivial(store, load_split(path, store.segments), seed) for path in splits]
    return {name: join_folds([fold[name] for fold in folds]) for name in folds[0]}


def _trivial(store: FeatureStore, split: Split, seed: int) -> dict[str, Predictions]:
    part = store.clips.clip_id.map(split.parts)
    train, test = (store.clips[part == name].sort_values("clip_id") for name in ("train", "test"))
    table = {
        "clip_id": test.clip_id.to_numpy(str),
        "group": test.group.to_numpy(str),
        "targets": test.target.to_numpy(np.int64),
    }
    if store.multilabel:
        table["labels"] = store.label_matrix(test)
        answers = baselines.several_labels(store.label_matrix(train), len(test))
    else:
        spectra = [_mean_spectra(store, split, name) for name in ("train", "test")]
        known = [one.loc[clips.clip_id].to_numpy() for one, clips in zip(spectra, (train, test), strict=True)]
        answers = baselines.single_label(known[0], train.target.to_numpy(), known[1], len(store.classes), seed=seed)
    return {name: table | {"probabilities": probabilities} for name, probabilities in answers.items()}


def _mean_spectra(store: FeatureStore, split: Split, part: str) -> pd.DataFrame:
    """Return the mean spectrum in dB of each clip of a part over its sounding frames, indexed by clip."""
    segments = part_segments(store, split, part)
    levels = (store.features[row].astype(np.float32) for row in segments.row)
    spectra = np.stack([level[:, sounding(level, store.config)].mean(axis=1) for level in levels])
    return pd.DataFrame(spectra).groupby(segments.clip_id.to_numpy()).mean()
