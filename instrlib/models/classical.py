"""Traditional classifiers on statistics of the stored spectrograms, tuned by grouped cross-validation."""

import contextlib
import json
import pickle
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import mel_edges_hz, sounding
from instrlib.core.cache import cached, key
from instrlib.core.config import FeatureConfig
from instrlib.core.io import ConfigError, slug
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation.predictions import Predictions, join_folds
from instrlib.models.trained import part_segments

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

N_MFCC = 20
N_FOLDS = 3
"""Folds over groups, inside the training part, that choose the settings."""

GRIDS: dict[str, dict[str, tuple]] = {
    "gradient boosting": {"learning_rate": (0.1, 0.3)},
    "random forest": {"max_features": ("sqrt", 0.3)},
    "AdaBoost": {"estimator__max_depth": (1, 3)},
    "multilayer perceptron": {"alpha": (0.01, 1.0)},
    "logistic regression": {"C": (0.01, 0.1, 1.0)},
    "RBF SVM": {"C": (1.0, 10.0), "gamma": (0.003, 0.01, 0.03)},
    "decision tree": {"max_depth": (5, 10, None), "min_samples_leaf": (1, 5)},
    "linear SVM": {"C": (0.001, 0.01, 0.1, 1.0)},
    "k nearest neighbours": {"n_neighbors": (1, 5, 15)},
    "naive Bayes": {"var_smoothing": (1e-9, 1e-2, 1e-1)},
}
"""The classifiers by name with the settings tried, the slowest first."""

UNSEEDED = ("logistic regression", "naive Bayes", "linear SVM", "RBF SVM", "k nearest neighbours")
"""Those that give the same answers whatever the seed."""

_BLOCK = 256


def statistics(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Return mean and standard deviation over time of timbre descriptors [n, 2 * (N_MFCC + 5)], float32.

    `level_db` are stored log-mel spectrograms [n, n_mels, n_frames] in dB, `config` their settings. The descriptors are
    mel-frequency cepstral coefficients, centroid, bandwidth, roll-off (Hz) and flatness as in librosa, on mel bands,
    and spectral flux (dB), the mean rise of a band between frames. Silent frames are excluded.
    """
    from librosa import feature

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
    values = np.concatenate(series, axis=1)
    counted = np.repeat(sounding(level_db, config)[:, None], values.shape[1], axis=1)
    counted[:, -1, 1:] &= counted[:, 0, :-1]  # flux requires the previous frame
    counted[:, -1, 0] = False
    n = np.maximum(counted.sum(axis=2), 1)
    mean = np.where(counted, values, 0).sum(axis=2, dtype=np.float64) / n
    square = np.where(counted, values - mean[..., None], 0) ** 2
    return np.concatenate([mean, np.sqrt(square.sum(axis=2, dtype=np.float64) / n)], axis=1).astype(np.float32)


def summaries(store: FeatureStore, segments: pd.DataFrame) -> np.ndarray:
    """Return the statistics of each segment [shape=(n_segments, n_statistics)], computed block by block."""
    rows = segments.row.to_numpy()
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return np.concatenate([statistics(store.features[block], store.config) for block in blocks])


def estimator(name: str, seed: int) -> "BaseEstimator":
    """Return an untrained scikit-learn pipeline for a name in `GRIDS`, with the steps "scale" and "model".

    Features are standardised except for trees. Classes are weighted equally where the model supports it.
    """
    from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    balanced = {"class_weight": "balanced"}
    boosting = {"max_iter": 30, "max_leaf_nodes": 4, "min_samples_leaf": 5, "max_bins": 63, "early_stopping": False}
    stump = tree.DecisionTreeClassifier()
    trees = {
        "decision tree": tree.DecisionTreeClassifier(random_state=seed, **balanced),
        "random forest": ensemble.RandomForestClassifier(200, random_state=seed, n_jobs=1, **balanced),
        "AdaBoost": ensemble.AdaBoostClassifier(stump, n_estimators=100, learning_rate=0.3, random_state=seed),
        "gradient boosting": ensemble.HistGradientBoostingClassifier(random_state=seed, **boosting, **balanced),
    }
    others = {
        "logistic regression": linear_model.LogisticRegression(max_iter=5000, **balanced),
        "naive Bayes": naive_bayes.GaussianNB(),
        "linear SVM": svm.LinearSVC(dual=False, max_iter=5000, **balanced),
        "RBF SVM": svm.SVC(**balanced),
        "k nearest neighbours": neighbors.KNeighborsClassifier(weights="distance"),
        "multilayer perceptron": neural_network.MLPClassifier((64,), max_iter=300, random_state=seed),
    }
    if name not in GRIDS:
        raise ConfigError(f"Unknown classifier {name!r}; choose one of {', '.join(GRIDS)}.")
    scale = "passthrough" if name in trees else StandardScaler()
    return Pipeline([("scale", scale), ("model", (trees | others)[name])])


def tune(name: str, x: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> tuple[dict[str, Any], float]:
    """Return settings with the best grouped macro F1, and that score; the first and NaN for too few rows or groups."""
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    n_folds = min(N_FOLDS, int(np.unique(targets, return_counts=True)[1].min()), len(np.unique(groups)))
    if n_folds < 2:
        return {setting: values[0] for setting, values in GRIDS[name].items()}, np.nan
    folds = list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=0).split(x, targets, groups))
    grid = {f"model__{setting}": list(values) for setting, values in GRIDS[name].items()}
    search = GridSearchCV(estimator(name, 0), grid, scoring="f1_macro", cv=folds, refit=False, error_score="raise")
    with _quiet():
        search.fit(x, targets)
    settings = {setting.removeprefix("model__"): value for setting, value in search.best_params_.items()}
    return settings, float(search.best_score_)


def fit(name: str, settings: dict[str, Any], x: np.ndarray, targets: np.ndarray, *, seed: int) -> "BaseEstimator":
    """Fit a classifier of `GRIDS` with the settings from `tune`."""
    model = estimator(name, seed).set_params(**{f"model__{setting}": value for setting, value in settings.items()})
    with _quiet():
        return model.fit(x, targets)


def probabilities(fitted: "BaseEstimator", x: np.ndarray, n_classes: int) -> np.ndarray:
    """Return class probabilities [shape=(n, n_classes)]; 0 for classes without training rows.

    For support vector machines these are the softmax of the decision values, which has the same ranking.
    """
    from scipy.special import softmax

    if hasattr(fitted, "predict_proba"):
        known = fitted.predict_proba(x)
    else:
        values = fitted.decision_function(x)
        # For two classes there is one value, that of the second.
        known = softmax(np.stack([-values, values], axis=1) if values.ndim == 1 else values, axis=1)
    found = np.zeros((len(x), n_classes))
    found[:, fitted.classes_] = known
    return found


def answer(folder: Path, store_folder: Path, split_path: Path, name: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Tune and fit a classifier on the training part; return its test predictions and, as JSON, `chosen` settings.

    The validation part is unused. Classifiers of `UNSEEDED` are fitted once for all seeds. The result is cached.
    """
    store = open_store(store_folder)
    split = load_split(split_path, store.segments)
    used = seeds[:1] if name in UNSEEDED else seeds

    def make() -> dict[str, Any]:
        train, test = (part_segments(store, split, part) for part in ("train", "test"))
        x, test_x = summaries(store, train), summaries(store, test)
        targets, clip_id, n_classes = train.target.to_numpy(), test.clip_id.to_numpy(str), len(store.classes)
        began = time.monotonic()
        chosen, score = tune(name, x, targets, train.group.to_numpy(str))
        tuned = time.monotonic()
        fitted = [fit(name, chosen, x, targets, seed=seed) for seed in used]
        measured = {
            "settings": chosen,
            "cross_validated_macro_f1": score,
            "size_kb": len(pickle.dumps(fitted[0])) / 1000,
            "tuning_s": tuned - began,
            "training_s": (time.monotonic() - tuned) / len(used),
        }
        by_clip = [pd.DataFrame(probabilities(one, test_x, n_classes)).groupby(clip_id).mean() for one in fitted]
        clips = test.groupby("clip_id", sort=True).first()
        return {
            "clip_id": clips.index.to_numpy(str),
            "group": clips.group.to_numpy(str),
            "targets": clips.target.to_numpy(np.int64),
            "probabilities": np.repeat(by_clip, len(seeds) // len(used), axis=0),
            "chosen": json.dumps(measured),
        }

    path = folder / f"{slug(name)}-{split.fingerprint[:12]}.npz"
    inputs = [store.fingerprint, split.fingerprint, name, GRIDS[name], seeds]
    return cached(path, key("models", inputs=inputs), make)


def answer_all(
    folder: Path,
    inputs: Inputs,
    *,
    seeds: Sequence[int],
    names: Sequence[str] = tuple(GRIDS),
    workers: int | None = None,
) -> tuple[dict[str, Predictions], pd.DataFrame]:
    """Tune and test classifiers in several processes; results are cached in `folder`.

    Returns
    -------
    predictions : dict of str to dict
        Predictions by classifier, with the folds joined.
    chosen : pandas.DataFrame
        By classifier: `settings` of the first fold; means over folds of `cross_validated_macro_f1`, `size_kb`,
        `tuning_s` and `training_s`.
    """
    tasks = [(folder, inputs.store.folder, split, name, tuple(seeds)) for name in names for split in inputs.splits]
    found = iter(list(parallel_map(answer, tasks, workers=workers, describe="traditional classifiers")))
    predictions, rows = {}, {}
    for name in names:
        folds = [next(found) for _ in inputs.splits]
        chosen = pd.DataFrame([json.loads(str(fold.pop("chosen"))) for fold in folds])
        predictions[name] = join_folds(folds)
        rows[name] = {"settings": chosen.settings[0], **chosen.drop(columns="settings").astype(float).mean()}
    return predictions, pd.DataFrame.from_dict(rows, orient="index")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning

    with warnings.catch_warnings():
        for kind in (ConvergenceWarning, UndefinedMetricWarning):
            warnings.simplefilter("ignore", kind)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield
