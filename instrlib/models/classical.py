"""Traditional features and classifiers on the stored spectrograms, tuned by cross-validation over groups."""

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import mel_edges_hz, sounding
from instrlib.core.cache import code_hash, versions
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError
from instrlib.core.io import hash_json, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation.predictions import Predictions, join_folds
from instrlib.models.answers import answer_test
from instrlib.models.experiments import run_folder
from instrlib.models.training import part_segments

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

N_MFCC = 20
ROLL_OFF = 0.85
"""Share of the amplitude that lies below the roll-off, as in librosa."""

N_TREES = 200
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
"""The classifiers by name, with the settings that are tried; the slowest first, so that work spreads evenly."""

UNSEEDED = ("logistic regression", "naive Bayes", "linear SVM", "RBF SVM", "k nearest neighbours")
"""Those that give the same answers whatever the seed."""

RECORD = "metrics.json"

_BLOCK = 256
_WEIGHTS = ("support_vectors_", "dual_coef_", "coefs_", "intercepts_", "coef_", "intercept_", "theta_", "var_")


def summaries(store: FeatureStore, segments: pd.DataFrame) -> np.ndarray:
    """Sum up each segment by the statistics of its frames; see `statistics`.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms.
    segments : pandas.DataFrame
        Rows of `store.segments`.

    Returns
    -------
    np.ndarray of float32 [shape=(n_segments, n_statistics)]
        In the order of `segments`; read block by block.
    """
    rows = segments.row.to_numpy()
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return np.concatenate([statistics(store.features[block], store.config) for block in blocks])


def statistics(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Mean and deviation over time of what describes the timbre of a frame.

    Mel-frequency cepstral coefficients (Davis and Mermelstein, 1980, doi:10.1109/TASSP.1980.1163420), spectral
    centroid, bandwidth, roll-off and flatness as librosa defines them, on the mel amplitudes, and spectral flux: the
    mean rise of a band from one frame to the next. Frames at the floor are left out, so padding does not count.

    Parameters
    ----------
    level_db : np.ndarray [shape=(n, n_mels, n_frames)]
        Log-mel spectrograms as they are stored.
    config : FeatureConfig
        Their settings, of the kind "log_mel".

    Returns
    -------
    np.ndarray of float32 [shape=(n, 2 * (N_MFCC + 5))]
        Means, then deviations, in the order of `statistic_names`.
    """
    level_db = np.asarray(level_db, dtype=np.float32)
    series = np.concatenate([_coefficients(level_db), *_spectral(level_db, config), _flux(level_db)], axis=1)
    counts = np.repeat(sounding(level_db, config)[:, None], series.shape[1], axis=1)
    counts[:, -1, 1:] &= counts[:, 0, :-1]  # flux needs the frame before
    counts[:, -1, 0] = False
    n = np.maximum(counts.sum(axis=2), 1)
    mean = np.where(counts, series, 0).sum(axis=2, dtype=np.float64) / n
    square = np.where(counts, series - mean[..., None], 0) ** 2
    deviation = np.sqrt(square.sum(axis=2, dtype=np.float64) / n)
    return np.concatenate([mean, deviation], axis=1).astype(np.float32)


def statistic_names() -> list[str]:
    """Return the names of the columns of `statistics`."""
    series = [f"MFCC {number}" for number in range(N_MFCC)]
    series += ["centroid (Hz)", "bandwidth (Hz)", "roll-off (Hz)", "flatness", "flux (dB)"]
    return [f"{kind} of {name}" for kind in ("mean", "deviation") for name in series]


def estimator(name: str, seed: int) -> "BaseEstimator":
    """Make an untrained classifier: a scikit-learn pipeline of the steps "scale" and "model".

    Features are standardised where distances or step sizes depend on their units, and left alone for trees. Classes
    weigh alike where the model can weigh them, as in the training of the networks.

    Parameters
    ----------
    name : str
        A name of `GRIDS`.
    seed : int
        Decides what is drawn: trees, first weights, order.

    Returns
    -------
    sklearn.pipeline.Pipeline

    Raises
    ------
    ConfigError
        When there is none of that name; the message lists those there are.
    """
    if name not in GRIDS:
        raise ConfigError(f"Unknown classifier {name!r}; there is: {', '.join(GRIDS)}.")
    from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    alike = {"class_weight": "balanced"}
    trees = {
        "decision tree": lambda: DecisionTreeClassifier(random_state=seed, **alike),
        "random forest": lambda: RandomForestClassifier(N_TREES, random_state=seed, n_jobs=1, **alike),
        "AdaBoost": lambda: AdaBoostClassifier(
            DecisionTreeClassifier(), n_estimators=100, learning_rate=0.3, random_state=seed
        ),
        "gradient boosting": lambda: HistGradientBoostingClassifier(
            max_iter=30,
            max_leaf_nodes=4,
            min_samples_leaf=5,
            max_bins=63,
            early_stopping=False,
            random_state=seed,
            **alike,
        ),
    }
    others = {
        "logistic regression": lambda: LogisticRegression(max_iter=5000, **alike),
        "naive Bayes": GaussianNB,
        "linear SVM": lambda: LinearSVC(dual=False, max_iter=5000, **alike),
        "RBF SVM": lambda: SVC(**alike),
        "k nearest neighbours": lambda: KNeighborsClassifier(weights="distance"),
        "multilayer perceptron": lambda: MLPClassifier((64,), max_iter=300, random_state=seed),
    }
    model = (trees | others)[name]()
    return Pipeline([("scale", "passthrough" if name in trees else StandardScaler()), ("model", model)])


def tune(name: str, x: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> tuple[dict[str, Any], float]:
    """Choose the settings of a classifier by cross-validation over the groups of the training part.

    Parameters
    ----------
    name : str
        A name of `GRIDS`.
    x : np.ndarray [shape=(n, n_features)]
        Training rows.
    targets, groups : np.ndarray [shape=(n,)]
        Their classes and groups; no group is on both sides of a fold.

    Returns
    -------
    settings : dict
        The best of the grid by macro F1 over the rows; the first where they are equal, or where the training part
        has too few rows of a class to try.
    score : float
        Its macro F1, NaN where it was not tried.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    n_folds = min(N_FOLDS, int(np.unique(targets, return_counts=True)[1].min()), len(np.unique(groups)))
    if n_folds < 2:
        return {setting: values[0] for setting, values in GRIDS[name].items()}, np.nan
    folds = list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=0).split(x, targets, groups))
    grid = {f"model__{setting}": list(values) for setting, values in GRIDS[name].items()}
    search = GridSearchCV(estimator(name, 0), grid, scoring="f1_macro", cv=folds, refit=False, error_score="raise")
    with _without_notes():
        search.fit(x, targets)
    best = {setting.removeprefix("model__"): value for setting, value in search.best_params_.items()}
    return best, float(search.best_score_)


def fit(name: str, settings: dict[str, Any], x: np.ndarray, targets: np.ndarray, *, seed: int) -> "BaseEstimator":
    """Fit a classifier.

    Parameters
    ----------
    name : str
        A name of `GRIDS`.
    settings : dict
        From `tune`.
    x, targets : np.ndarray [shape=(n, n_features)], [shape=(n,)]
        Training rows and their classes.
    seed : int
        See `estimator`.

    Returns
    -------
    sklearn.pipeline.Pipeline
    """
    model = estimator(name, seed).set_params(**{f"model__{setting}": value for setting, value in settings.items()})
    with _without_notes():
        return model.fit(x, targets)


def probabilities(fitted: "BaseEstimator", x: np.ndarray, n_classes: int) -> np.ndarray:
    """Score rows.

    A support vector machine has no probabilities: the softmax of its decision values stands for them. It ranks the
    classes as they do, and says little of how sure the answer is.

    Parameters
    ----------
    fitted : sklearn.pipeline.Pipeline
        From `fit`.
    x : np.ndarray [shape=(n, n_features)]
        Rows.
    n_classes : int
        Number of classes; one that was not among the training rows gets probability 0.

    Returns
    -------
    np.ndarray [shape=(n, n_classes)]
    """
    from scipy.special import softmax

    if hasattr(fitted, "predict_proba"):
        known = fitted.predict_proba(x)
    else:
        values = fitted.decision_function(x)
        # Of two classes there is one value, that of the second.
        known = softmax(np.stack([-values, values], axis=1) if values.ndim == 1 else values, axis=1)
    found = np.zeros((len(x), n_classes))
    found[:, fitted.classes_] = known
    return found


def predictor(fitted: "BaseEstimator", config: FeatureConfig, n_classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from pictures, as a store scaled "fixed" gives them, to probabilities.

    Parameters
    ----------
    fitted : sklearn.pipeline.Pipeline
        From `fit`.
    config : FeatureConfig
        Of the store.
    n_classes : int
        Number of classes.

    Returns
    -------
    callable
        From [shape=(n, n_mels, n_frames, 1)] to [shape=(n, n_classes)].
    """

    def predict(x: np.ndarray) -> np.ndarray:
        return probabilities(fitted, statistics((x[..., 0] - 1) * config.top_db, config), n_classes)

    return predict


def answer(folder: Path, store_folder: Path, split_path: Path, name: str, seeds: Sequence[int]) -> Predictions:
    """Tune a classifier, fit it from every seed and let it answer the test part; what is there already is kept.

    All fitting and choosing is done on the training part. The networks choose their epoch on the validation part; a
    classifier has no use for it, and does not get it as more to learn from either.

    Parameters
    ----------
    folder : Path
        Where to: `metrics.json` (settings, times, size) and the answers of each seed.
    store_folder, split_path : Path
        Log-mel features and split.
    name : str
        A name of `GRIDS`.
    seeds : sequence of int
        One that does not depend on the seed is fitted once, and its answers stand for all of them.

    Returns
    -------
    dict
        See `evaluation.Predictions`; `probabilities` [shape=(n_seeds, n_clips, n_classes)].
    """
    store = open_store(store_folder)
    split = load_split(split_path, store.segments)
    key = hash_json(
        {
            "code": code_hash("models"),
            "inputs": [store.fingerprint, split.fingerprint],
            "settings": [name, GRIDS[name], list(seeds)],
            "versions": versions(),
        }
    )
    used = list(seeds[:1]) if name in UNSEEDED else list(seeds)
    fitted = functools.cache(lambda: _fit_seeds(folder, key, store, split, name, used))
    pictures = replace(store, config=replace(store.config, scaling="fixed"))

    def answer_from(seed: int) -> Predictions:
        def load() -> Callable[[np.ndarray], np.ndarray]:
            return predictor(fitted()[seed], store.config, len(store.classes))

        return answer_test(folder / f"seed-{seed}.npz", key, load, store=pictures, scaler=None, split=split)

    answers = [answer_from(seed) for seed in used]
    by_seed = np.stack([one["probabilities"] for one in answers])
    return answers[0] | {"probabilities": np.repeat(by_seed, len(seeds) // len(used), axis=0)}


def answer_all(
    folder: Path, inputs: dict[str, Inputs], *, seeds: Sequence[int], workers: int | None = None
) -> dict[str, dict[str, Predictions]]:
    """Let every classifier answer the test part of one or more sets of features and splits, in several processes.

    Parameters
    ----------
    folder : Path
        Where to; see `place`.
    inputs : dict of str to Inputs
        By name.
    seeds : sequence of int
        See `answer`.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to dict of str to dict
        Predictions by the name of the inputs and of the classifier, the folds joined.
    """
    todo = [(kind, name) for name in GRIDS for kind in inputs]
    tasks = [
        (place(folder, kind, name, fold=fold), inputs[kind].store.folder, split, name, tuple(seeds))
        for kind, name in todo
        for fold, split in enumerate(inputs[kind].splits)
    ]
    found = iter(list(parallel_map(answer, tasks, workers=workers, describe="traditional classifiers", isolate=True)))
    answers: dict[str, dict[str, Predictions]] = {kind: {} for kind in inputs}
    for kind, name in todo:
        answers[kind][name] = join_folds([next(found) for _ in inputs[kind].splits])
    return answers


def place(folder: Path, kind: str, name: str, *, fold: int) -> Path:
    """Return where `answer_all` keeps what a classifier answered: a run folder's name, without the seed."""
    return run_folder(folder, f"{kind} {name}", fold=fold, seed=0).parent


def describe(folder: Path, kind: str, n_folds: int) -> pd.DataFrame:
    """Say what each classifier is: the chosen settings, its size and its times.

    Parameters
    ----------
    folder : Path
        Of `answer_all`.
    kind : str
        Name of the inputs.
    n_folds : int
        Number of splits.

    Returns
    -------
    pandas.DataFrame
        One row a classifier: `settings` (of the first fold), `cross_validated_macro_f1`, `parameters` (see
        `count_numbers`), `tuning_s` and `training_s`, the means over the folds.
    """
    rows = {}
    for name in GRIDS:
        kept = pd.DataFrame([read_json(place(folder, kind, name, fold=fold) / RECORD) for fold in range(n_folds)])
        numbers = kept[["cross_validated_macro_f1", "parameters", "tuning_s", "training_s"]].astype(float).mean()
        chosen = ", ".join(f"{setting} {value}" for setting, value in kept.settings[0].items())
        rows[name] = {"settings": chosen, **numbers}
    return pd.DataFrame.from_dict(rows, orient="index")


def refit(folder: Path, store: FeatureStore, split: Split, name: str, *, seed: int) -> "BaseEstimator":
    """Fit a classifier again with the settings that `answer` chose; the fitted models themselves are not kept.

    Parameters
    ----------
    folder : Path
        Of `answer`.
    store, split
        Features and split that it was tuned on.
    name : str
        A name of `GRIDS`.
    seed : int
        See `estimator`.

    Returns
    -------
    sklearn.pipeline.Pipeline
    """
    train = part_segments(store, split, "train")
    settings = read_json(folder / RECORD)["settings"]
    return fit(name, settings, summaries(store, train), train.target.to_numpy(), seed=seed)


def count_numbers(fitted: "BaseEstimator") -> int:
    """Count the numbers that a fitted classifier answers with: what parameters are to a network.

    Weights, means and variances; of a tree two for each question (statistic and threshold) and one for each leaf and
    class (of boosted ones, one for each leaf); of a support vector machine with a kernel its vectors and their weights;
    of nearest neighbours the whole training part. The standardisation before it is left out.

    Parameters
    ----------
    fitted : sklearn.pipeline.Pipeline
        From `fit`.

    Returns
    -------
    int
    """
    model = fitted.named_steps["model"]
    if hasattr(model, "n_samples_fit_"):
        return model.n_samples_fit_ * (model.n_features_in_ + 1)
    if hasattr(model, "_predictors"):  # scikit-learn shows the trees of its histogram boosting nowhere else
        nodes = [tree.nodes["is_leaf"] for trees in model._predictors for tree in trees]
        return sum(2 * int((one == 0).sum()) + int((one == 1).sum()) for one in nodes)
    if hasattr(model, "tree_") or hasattr(model, "estimators_"):
        trees = [one.tree_ for one in getattr(model, "estimators_", [model])]
        return sum(2 * (tree.node_count - tree.n_leaves) + tree.n_leaves * len(model.classes_) for tree in trees)
    weights = [getattr(model, name, ()) for name in _WEIGHTS]
    return sum(np.size(part) for value in weights for part in (value if isinstance(value, list) else [value]))


def _fit_seeds(
    folder: Path, key: str, store: FeatureStore, split: Split, name: str, seeds: Sequence[int]
) -> dict[int, "BaseEstimator"]:
    train = part_segments(store, split, "train")
    x, targets, groups = summaries(store, train), train.target.to_numpy(), train.group.to_numpy(str)
    began = time.monotonic()
    settings, score = tune(name, x, targets, groups)
    tuned = time.monotonic()
    fitted = {seed: fit(name, settings, x, targets, seed=seed) for seed in seeds}
    found = {
        "key": key,
        "settings": settings,
        "cross_validated_macro_f1": score,
        "tuning_s": round(tuned - began, 3),
        "training_s": round((time.monotonic() - tuned) / len(seeds), 4),
        "parameters": count_numbers(fitted[seeds[0]]),
    }
    write_json(folder / RECORD, found)
    return fitted


def _coefficients(level_db: np.ndarray) -> np.ndarray:
    from scipy.fft import dct

    return dct(level_db, axis=1, norm="ortho")[:, :N_MFCC]


def _spectral(level_db: np.ndarray, config: FeatureConfig) -> list[np.ndarray]:
    """Centroid, bandwidth, roll-off (Hz) and flatness of each frame, four times [shape=(n, 1, n_frames)]."""
    frequencies_hz = mel_edges_hz(config)[1:-1].astype(np.float32)[:, None]
    amplitude = 10 ** (level_db / 20)
    share = amplitude / amplitude.sum(axis=1, keepdims=True)
    centroid = (frequencies_hz * share).sum(axis=1, keepdims=True)
    bandwidth = np.sqrt(((frequencies_hz - centroid) ** 2 * share).sum(axis=1, keepdims=True))
    below = np.cumsum(share, axis=1, dtype=np.float64) >= ROLL_OFF
    roll_off = frequencies_hz[:, 0][np.argmax(below, axis=1)][:, None]
    power = amplitude**2
    flatness = np.exp(np.log(power).mean(axis=1, keepdims=True)) / power.mean(axis=1, keepdims=True)
    return [centroid, bandwidth, roll_off, flatness]


def _flux(level_db: np.ndarray) -> np.ndarray:
    rise = np.maximum(np.diff(level_db, axis=2, prepend=level_db[..., :1]), 0)
    return rise.mean(axis=1, keepdims=True)


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Silence notes that a training did not settle or that a fold lacks a class: the folds' score has the last word."""
    from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning

    with warnings.catch_warnings():
        for kind in (ConvergenceWarning, UndefinedMetricWarning):
            warnings.simplefilter("ignore", kind)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield


def forest_probabilities(
    train_x: np.ndarray, train_targets: np.ndarray, test_x: np.ndarray, n_classes: int, seed: int
) -> np.ndarray:
    """Fit a random forest (Breiman, 2001, doi:10.1023/A:1010933404324) and score other rows.

    Parameters
    ----------
    train_x, test_x : np.ndarray [shape=(n, n_features)]
        Features of the rows to fit and to score.
    train_targets : np.ndarray of int [shape=(n_train,)]
        Classes of the rows to fit.
    n_classes : int
        Number of classes; one that is not among `train_targets` gets probability 0.
    seed : int
        Decides the trees.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]
    """
    return probabilities(fit("random forest", {}, train_x, train_targets, seed=seed), test_x, n_classes)
