"""Traditional classifiers on statistics of the stored spectrograms, tuned by grouped cross-validation."""

import functools
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from librosa import feature
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from instrlib.audio.features import mel_edges_hz, sounding
from instrlib.core.cache import cached, key
from instrlib.core.config import FeatureConfig
from instrlib.core.io import in_parts, slug
from instrlib.core.parallel import parallel_map
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore, Inputs
from instrlib.evaluation.metrics import clip_probabilities
from instrlib.evaluation.predictions import Predictions, join_folds
from instrlib.models.trained import of_clips, part_segments

N_MFCC = 20
N_FOLDS = 3  # over groups, inside the training part, that choose the settings


def statistics(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Return mean and standard deviation over time of timbre descriptors [n, 2 * (N_MFCC + 5)], float32.

    `level_db` are stored log-mel spectrograms [n, n_mels, n_frames] in dB. The descriptors are those of librosa on mel
    bands, and spectral flux (dB), the mean rise of a band between frames. Silent frames are excluded.
    """
    level_db = np.asarray(level_db, dtype=np.float32)
    spectrum = {"S": 10 ** (level_db / 20), "freq": mel_edges_hz(config)[1:-1]}
    rise = np.maximum(np.diff(level_db, axis=2, prepend=level_db[..., :1]), 0)
    series = [
        feature.mfcc(S=level_db, n_mfcc=N_MFCC),
        feature.spectral_centroid(**spectrum),
        feature.spectral_bandwidth(**spectrum),
        feature.spectral_rolloff(**spectrum),
        feature.spectral_flatness(S=spectrum["S"]),
        rise.mean(axis=1, keepdims=True),
    ]
    values = np.concatenate(series, axis=1, dtype=np.float64)
    silent = np.repeat(~sounding(level_db, config)[:, None], values.shape[1], axis=1)
    silent[:, -1, 1:] |= silent[:, 0, :-1]  # flux requires the previous frame
    silent[:, -1, 0] = True
    counted = np.ma.array(values, mask=silent)
    return np.ma.concatenate([counted.mean(axis=2), counted.std(axis=2)], axis=1).filled(0).astype(np.float32)


def tune(
    estimator: BaseEstimator, grid: Mapping[str, list], x: np.ndarray, targets: np.ndarray, groups: np.ndarray
) -> tuple[dict[str, Any], float]:
    """Return settings with the best grouped macro F1, and that score; the first and NaN for too few rows or groups."""
    n_folds = min(N_FOLDS, int(np.unique(targets, return_counts=True)[1].min()), len(np.unique(groups)))
    if n_folds < 2:
        return {setting: values[0] for setting, values in grid.items()}, np.nan
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=0)
    settings = {"scoring": "f1_macro", "cv": folds, "refit": False, "error_score": "raise"}
    search = GridSearchCV(_seeded(estimator, 0), dict(grid), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes that a fold lacks, and fits that do not converge
        search.fit(x, targets, groups=groups)
    return search.best_params_, float(search.best_score_)


def fit(estimator: BaseEstimator, settings: dict[str, Any], x: np.ndarray, targets: np.ndarray, seed: int) -> Any:
    """Return a copy of a classifier, fitted with the settings from `tune`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _seeded(estimator, seed).set_params(**settings).fit(x, targets)


def probabilities(fitted: Any, x: np.ndarray, n_classes: int) -> np.ndarray:
    """Return class probabilities [n, n_classes]; 0 for classes without training rows."""
    if hasattr(fitted, "predict_proba"):
        known = fitted.predict_proba(x)
    else:  # support vector machines
        values = fitted.decision_function(x)  # for two classes one value, that of the second
        known = softmax(np.stack([-values, values], axis=1) if values.ndim == 1 else values, axis=1)
    found = np.zeros((len(x), n_classes))
    found[:, fitted.classes_] = known
    return found


def answer_all(
    folder: Path,
    inputs: Inputs,
    classifiers: Mapping[str, tuple[BaseEstimator, Mapping[str, list]]],
    *,
    seeds: Sequence[int],
    workers: int | None = None,
) -> tuple[dict[str, Predictions], pd.DataFrame]:
    """Tune and fit classifiers on the training parts and predict the test parts; results are cached in `folder`.

    `classifiers` are estimators of scikit-learn with the grid of their settings, by name. Also returns a table of the
    `settings` of the first fold and the means over folds of `cross_validated_macro_f1` and `training_s`, by name.
    """
    store, tasks = inputs.store, []
    blocks = in_parts(store.segments.row.to_numpy(), 256)
    x = np.concatenate([statistics(store.features[rows], store.config) for rows in blocks])
    for name, classifier in classifiers.items():
        for number, path in enumerate(inputs.splits):
            split = load_split(path, store.segments)
            made_of = key("models", inputs=[store.fingerprint, split.fingerprint, repr(classifier), seeds])
            make = functools.partial(_answer, *classifier, x, store, split, seeds)
            tasks.append((folder / f"{slug(name)}-{number}.npz", made_of, make))
    found = list(parallel_map(cached, tasks, workers=workers, describe="traditional classifiers"))
    predictions, rows = {}, {}
    for name, folds in zip(classifiers, in_parts(found, len(inputs.splits)), strict=True):
        chosen = pd.DataFrame([json.loads(str(fold["chosen"])) for fold in folds])
        predictions[name] = join_folds(folds)
        rows[name] = {"settings": chosen.settings[0], **chosen.drop(columns="settings").astype(float).mean()}
    return predictions, pd.DataFrame.from_dict(rows, orient="index")


def _answer(
    estimator: BaseEstimator,
    grid: Mapping[str, list],
    x: np.ndarray,
    store: FeatureStore,
    split: Split,
    seeds: Sequence[int],
) -> dict[str, Any]:
    train, test = (part_segments(store, split, part) for part in ("train", "test"))
    known = x[train.row], train.target.to_numpy()
    settings, score = tune(estimator, grid, *known, train.group.to_numpy(str))
    began = time.monotonic()
    fitted = [fit(estimator, settings, *known, seed) for seed in seeds]
    training_s = (time.monotonic() - began) / len(seeds)
    by_segment = (probabilities(one, x[test.row], len(store.classes)) for one in fitted)
    means = np.stack([clip_probabilities(one, test.clip_id) for one in by_segment])
    chosen = {"settings": settings, "cross_validated_macro_f1": score, "training_s": training_s}
    return of_clips(store, test, means) | {"chosen": json.dumps(chosen)}


def _seeded(estimator: BaseEstimator, seed: int) -> Any:
    states = [name for name in estimator.get_params() if name.endswith("random_state")]
    return clone(estimator).set_params(**dict.fromkeys(states, seed))
