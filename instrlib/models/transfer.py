"""Transfer learning: probes on frozen embeddings, and fine-tuning of networks from another corpus."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler

from instrlib.audio.features import Scaler
from instrlib.core.cache import cached, key
from instrlib.core.io import EvaluationError, StoreError, in_parts, read_json
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore
from instrlib.evaluation.calibration import sigmoid, softmax
from instrlib.evaluation.metrics import best_thresholds, scores
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.layers import Layer
from instrlib.models.trained import load_model, load_scaler, of_clips, read_manifest

if TYPE_CHECKING:
    import keras

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse strengths C of the probe's penalty; the one with the least validation loss is taken."""

RATE = 1 / 3
"""Learning rate of fine-tuning, as a share of that of a training from scratch."""


@dataclass(frozen=True)
class Probe:
    """A logistic regression as a dense layer: kernel [dimension, n_classes] and bias [n_classes]."""

    kernel: np.ndarray
    bias: np.ndarray
    several: bool

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities [n, n_classes] of embeddings [n, dimension]."""
        return (sigmoid if self.several else softmax)(x @ self.kernel + self.bias)


def fit_probe(
    x: np.ndarray, labels: np.ndarray, held_x: np.ndarray, held_labels: np.ndarray, *, several: bool = False
) -> Probe:
    """Fit a logistic regression on embeddings [n, dimension] scaled to 0 to 1; validation selects the penalty.

    `labels` [n, n_classes] are 1 present, 0 absent, NaN not observed; `held_x` and `held_labels` are the validation
    clips. With `several`, each class gets a regression on the clips that observe it.
    """
    scaler = MinMaxScaler().fit(x)
    probes = []
    for penalty in PENALTIES:
        kernel, bias = _regression(scaler.transform(x), labels, penalty, several=several)
        probes.append(Probe(scaler.scale_[:, None] * kernel, bias + scaler.min_ @ kernel, several))
    truth = held_labels if several else held_labels.argmax(axis=1)
    return min(probes, key=lambda probe: scores(truth, probe.predict(held_x))["log_loss"])


def probe_predictions(
    vectors: tuple[np.ndarray, np.ndarray],
    store: FeatureStore,
    splits: Sequence[Sequence[Path]],
    *,
    workers: int | None = None,
) -> Predictions:
    """Fit a probe on each split, first by seed, then by fold, and predict the test parts.

    `vectors` are clip ids [n] and embeddings [n, dimension], at least those of the store.
    """
    clips = store.clips.sort_values("clip_id", ignore_index=True)
    x = pd.DataFrame(vectors[1], vectors[0]).reindex(clips.clip_id)
    if len(bad := x.index[~np.isfinite(x).all(axis=1)]):
        raise EvaluationError(f"The clip {bad[0]!r} has no finite embedding; exclude the clip or embed it again.")
    parts = [clips.clip_id.map(load_split(path, store.segments).parts).to_numpy() for one in splits for path in one]
    tasks = [(x.to_numpy(), store, clips, one) for one in parts]
    found = list(parallel_map(_predict_fold, tasks, workers=workers, describe="probes"))
    return join_seeds(in_parts(found, len(splits[0])))


def embed_network(run: Path, store: FeatureStore, *, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return clip ids and embeddings by a trained network: the mean over segments of the input of its last layer.

    The store must have the feature settings of the training. Embeddings are cached in `root`.
    """
    Pretrained(run).scaler(store)  # checks the settings
    network = read_manifest(run)["key"]
    path = Path(root) / "embeddings" / f"{store.fingerprint}-{network[:16]}.npz"
    task = path, key("models", network=network, store=store.fingerprint), functools.partial(_embed_store, run, store)
    [made] = parallel_map(cached, [task], workers=1, describe="embedding", isolate=True)
    return made["clip_id"], made["mean"]


@dataclass(frozen=True)
class Pretrained:
    """Initialisation for fine-tuning: the body of a trained network, and a probe as the head.

    A random head would distort the body by its first gradients (Kumar et al., 2022, arXiv:2202.10054). `decay` is a
    factor of the learning rate for each row away from the scores (Howard and Ruder, 2018, arXiv:1801.06146); 0 trains
    the head only. With `frozen_norm`, batch normalisation stays as it is.
    """

    folder: Path
    decay: float = 1.0
    frozen_norm: bool = False

    @property
    def spec(self) -> tuple[Layer, ...]:
        """Table of the network."""
        return tuple(Layer(**row) for row in read_manifest(self.folder)["spec"])

    @property
    def rates(self) -> tuple[float, ...]:
        """Factors of the learning rate of the rows; the last one is for the scores."""
        above = np.cumsum([row.units > 0 for row in self.spec][::-1])[::-1]
        return tuple(RATE * float(self.decay**number) for number in (*above, 0))

    @property
    def fingerprint(self) -> str:
        """Hash of the pretrained network and the settings."""
        return key("models", **dataclasses.asdict(self) | {"folder": read_manifest(self.folder)["key"]})

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the input scaling of the body; `StoreError` if it was trained with other feature settings."""
        if read_json(self.folder / "preprocessing.json")["features"] != store.config.to_dict():
            raise StoreError(
                f"{self.folder} was trained with other feature settings than {store.folder}; use one profile for both."
            )
        return load_scaler(self.folder)

    def begin(
        self, model: "keras.Model", store: FeatureStore, scaler: Scaler, train: pd.DataFrame, validation: pd.DataFrame
    ) -> None:
        """Set the weights of a new network."""
        body, _ = load_model(self.folder)
        for layer, learned in zip(model.layers[:-1], body.layers[:-1], strict=True):
            layer.set_weights(learned.get_weights())
        x, held_x = (_embed_segments(model, store, scaler, part) for part in (train, validation))
        labels, held = (store.label_matrix(part.drop_duplicates("clip_id")) for part in (train, validation))
        probe = fit_probe(x, labels, held_x, held, several=model.layers[-1].activation.__name__ == "sigmoid")
        model.layers[-1].set_weights([probe.kernel.astype(np.float32), probe.bias.astype(np.float32)])


def _regression(x: np.ndarray, labels: np.ndarray, penalty: float, *, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of one regression, or of one for each class."""
    kernel, bias = np.zeros((x.shape[1], labels.shape[1])), np.full(labels.shape[1], -30.0)  # next to no probability
    if not several:
        model = LogisticRegression(C=penalty, max_iter=5000, class_weight="balanced").fit(x, labels.argmax(axis=1))
        bias[model.classes_] = 0
        columns = model.classes_[-len(model.coef_) :]  # for two classes scikit-learn returns that of the second
        kernel[:, columns], bias[columns] = model.coef_.T, model.intercept_
        return kernel, bias
    for number, column in enumerate(labels.T):
        observed = np.isfinite(column)
        y = column[observed]
        if len(np.unique(y)) < 2:  # always or never present: its share
            bias[number] = logit((y.sum() + 1) / (len(y) + 2))
        else:
            model = LogisticRegression(C=penalty, max_iter=5000).fit(x[observed], y)
            kernel[:, number], bias[number] = model.coef_[0], model.intercept_[0]
    return kernel, bias


def _predict_fold(x: np.ndarray, store: FeatureStore, clips: pd.DataFrame, parts: np.ndarray) -> Predictions:
    labels = store.label_matrix(clips)
    train, held_out, test = (parts == name for name in ("train", "validation", "test"))
    probe = fit_probe(x[train], labels[train], x[held_out], labels[held_out], several=store.multilabel)
    found = of_clips(store, clips[test], probe.predict(x[test]))
    if store.multilabel:
        found["thresholds"], _ = best_thresholds(labels[held_out], probe.predict(x[held_out]))
    return found


def _embed_store(run: Path, store: FeatureStore) -> dict[str, np.ndarray]:
    model, scaler = load_model(run)
    segments = store.segments.sort_values("clip_id", kind="stable")
    vectors = _embed_segments(model, store, scaler, segments).astype(np.float32)
    return {"clip_id": segments.clip_id.drop_duplicates().to_numpy(str), "mean": vectors}


def _embed_segments(model: "keras.Model", store: FeatureStore, scaler: Scaler, segments: pd.DataFrame) -> np.ndarray:
    """Return the mean embedding of each clip [n_clips, dimension], in the order of their first segments."""
    body = load_keras().Model(model.input, model.layers[-1].input)
    parts = np.array_split(segments.row.to_numpy(), max(1, len(segments) // 256))
    # A call, because tracing a graph for `predict` takes longer than the few clips.
    vectors = np.concatenate([np.asarray(body(store.read(rows, scaler), training=False)) for rows in parts])
    return pd.DataFrame(vectors, dtype=float).groupby(segments.clip_id.to_numpy(), sort=False).mean().to_numpy()
