"""Transfer learning: probes on frozen embeddings, and fine-tuning of networks from another corpus."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler
from instrlib.core import cache
from instrlib.core.io import EvaluationError, StoreError, hash_bytes, read_json
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.splits import UNUSED, Split, load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation.calibration import sigmoid, softmax
from instrlib.evaluation.metrics import best_thresholds
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.layers import Layer, output_of
from instrlib.models.trained import load_model, load_scaler, read_manifest

if TYPE_CHECKING:
    import keras

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse strengths C of the probe's penalty; the one with the least validation loss is taken."""

_BATCH = 256
_ABSENT_LOGIT = -30.0

Vectors = tuple[np.ndarray, np.ndarray]
"""Clip ids [n] and one vector a clip [n, dimension]."""


@dataclass(frozen=True)
class Probe:
    """A logistic regression as a dense layer: kernel [dimension, n_classes], bias [n_classes], penalty C."""

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
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
    from sklearn.preprocessing import MinMaxScaler

    scaler = MinMaxScaler().fit(x)
    scaled, fit = scaler.transform(x), _regressions if several else _regression
    probes = []
    for penalty in PENALTIES:
        kernel, bias = fit(scaled, labels, penalty)
        probes.append(Probe(scaler.scale_[:, None] * kernel, bias + scaler.min_ @ kernel, penalty, several))
    return min(probes, key=lambda probe: cross_entropy(held_labels, probe.predict(held_x), several=several))


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray, *, several: bool = False) -> float:
    """Return the loss in nats: the mean over observed labels, or over equally weighted classes.

    Examples
    --------
    >>> round(cross_entropy(np.eye(2), np.full((2, 2), 0.5)), 3)
    0.693
    """
    likely = np.clip(probabilities, 1e-7, 1 - 1e-7)
    if several:
        return float(-np.nanmean(labels * np.log(likely) + (1 - labels) * np.log(1 - likely)))
    targets = labels.argmax(axis=1)
    weights = 1 / np.bincount(targets)[targets]
    return float(-np.average(np.log(likely[np.arange(len(targets)), targets]), weights=weights))


def reduced(split: Split, clips: pd.DataFrame, size: int, *, seed: int) -> Split:
    """Return the split with at most `size` training clips per class; all others become `UNUSED`.

    Clips (`clip_id`, `label`, `group`) are drawn group by group in turn. Smaller draws are subsets of larger ones with
    the same seed.
    """
    train = clips[clips.clip_id.map(split.parts) == "train"]
    ranked = train.assign(
        rank=[hash_bytes(str(seed).encode(), one.encode()) for one in train.clip_id],
        group_rank=[hash_bytes(str(seed).encode(), one.encode()) for one in train.group],
    ).sort_values("rank")
    ranked["turn"] = ranked.groupby(["label", "group"]).cumcount()
    ranked = ranked.sort_values(["turn", "group_rank"])
    dropped = ranked.clip_id[ranked.groupby("label").cumcount() >= size]
    return Split(split.parts.where(~split.parts.index.isin(set(dropped)), UNUSED), split.seed)


def probe_predictions(
    vectors: Vectors,
    store: FeatureStore,
    splits: Sequence[Path],
    *,
    seeds: Sequence[int] = (0,),
    size: int | None = None,
    workers: int | None = None,
) -> Predictions:
    """Fit a probe on every fold and predict the test parts.

    `vectors` are clip ids [n] and embeddings [n, dimension], at least those of the store. With a `size`, each seed
    draws that many training clips per class (see `reduced`); otherwise the probe is fitted once.
    """
    place = pd.Series(np.arange(len(vectors[0])), vectors[0])
    clips = store.clips.sort_values("clip_id", ignore_index=True)
    lost = clips.clip_id[~clips.clip_id.isin(place.index)]
    if len(lost):
        raise EvaluationError(
            f"The clip {lost.iloc[0]!r} has no embedding; exclude the clip or recompute its embedding."
        )
    x, labels = vectors[1][place[clips.clip_id].to_numpy()], store.label_matrix(clips)
    if not np.isfinite(x).all():
        bad = clips.clip_id[int((~np.isfinite(x).all(axis=1)).argmax())]
        raise EvaluationError(f"The embedding of the clip {bad!r} is not finite; recompute it.")
    used = seeds if size else seeds[:1]
    tasks = []
    for seed in used:
        for path in splits:
            split = load_split(path, store.segments)
            split = reduced(split, clips, size, seed=seed) if size else split
            tasks.append((x, labels, clips.assign(part=clips.clip_id.map(split.parts)), store.multilabel))
    found = list(parallel_map(_predict_fold, tasks, workers=workers, describe="probes"))
    joined = join_seeds([found[start : start + len(splits)] for start in range(0, len(found), len(splits))])
    of_seed = [name for name in ("probabilities", "thresholds") if name in joined]
    return joined | {name: np.repeat(joined[name], len(seeds) // len(used), axis=0) for name in of_seed}


def embed_network(run: Path, store: FeatureStore, *, root: Path) -> Vectors:
    """Embed the clips of a store by a trained network: the mean over segments of the input of its last layer.

    The store must have the feature settings of the training, but may belong to another corpus. Embeddings are cached in
    `root`.
    """
    _check_features(run, store)
    network = read_manifest(run)["key"]
    path = Path(root) / "embeddings" / f"{store.fingerprint}-{network[:16]}.npz"

    def make() -> dict[str, np.ndarray]:
        tasks = [(run, store.folder)]
        return next(iter(parallel_map(_embed_store, tasks, workers=1, describe="embedding", isolate=True)))

    made = cache.cached(path, cache.key("models", network=network, store=store.fingerprint), make)
    return made["clip_id"], made["mean"]


@dataclass(frozen=True)
class Pretrained:
    """Initialisation for fine-tuning: the body of a trained network, and a probe fitted on it as the head.

    A random head would distort the body by its first gradients [1]_.

    Attributes
    ----------
    folder : Path
    rate : float
        Factor of the learning rate of all rows.
    decay : float
        Further factor for each row away from the scores [2]_; 0 trains the head only.
    frozen_norm : bool
        Whether batch normalisation keeps its statistics, scale and shift.

    References
    ----------
    .. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang, "Fine-tuning can distort pretrained features and
       underperform out-of-distribution", ICLR 2022. arXiv:2202.10054
    .. [2] J. Howard, S. Ruder, "Universal language model fine-tuning for text classification", ACL 2018.
       arXiv:1801.06146
    """

    folder: Path
    rate: float = 1 / 3
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
        return tuple(self.rate * float(self.decay**number) for number in (*above, 0))

    @property
    def fingerprint(self) -> str:
        """Hash of the pretrained network and the settings."""
        settings = dataclasses.asdict(self) | {"folder": read_manifest(self.folder)["key"]}
        return cache.key("models", **settings)

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the input scaling of the body."""
        _check_features(self.folder, store)
        return load_scaler(self.folder)

    def begin(
        self, model: "keras.Model", store: FeatureStore, scaler: Scaler, train: pd.DataFrame, validation: pd.DataFrame
    ) -> None:
        """Set the weights of a new network."""
        body, _ = load_model(self.folder)
        for layer, learned in zip(model.layers[:-1], body.layers[:-1], strict=True):
            layer.set_weights(learned.get_weights())
        known, held_out = (_embed_segments(model, store, scaler, part) for part in (train, validation))
        probe = fit_probe(*known, *held_out, several=output_of(model) == "sigmoid")
        model.layers[-1].set_weights([probe.kernel.astype(np.float32), probe.bias.astype(np.float32)])


def _regression(x: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, max_iter=5000, class_weight="balanced").fit(x, labels.argmax(axis=1))
    kernel, bias = np.zeros((x.shape[1], labels.shape[1])), np.full(labels.shape[1], _ABSENT_LOGIT)
    if len(model.classes_) == 2:  # scikit-learn returns one column for two classes
        kernel[:, model.classes_[1]] = model.coef_[0]
        bias[model.classes_] = 0.0, model.intercept_[0]
    else:
        kernel[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return kernel, bias


def _regressions(x: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit one regression per class; for a class that is always or never present, only its share."""
    from sklearn.linear_model import LogisticRegression

    kernel, bias = np.zeros((x.shape[1], labels.shape[1])), np.zeros(labels.shape[1])
    for number, column in enumerate(labels.T):
        observed = np.isfinite(column)
        y = column[observed]
        if len(np.unique(y)) < 2:
            share = (y.sum() + 1) / (len(y) + 2)
            bias[number] = np.log(share / (1 - share))
        else:
            model = LogisticRegression(C=penalty, max_iter=5000).fit(x[observed], y)
            kernel[:, number], bias[number] = model.coef_[0], model.intercept_[0]
    return kernel, bias


def _predict_fold(x: np.ndarray, labels: np.ndarray, clips: pd.DataFrame, several: bool) -> Predictions:
    train, held_out, test = ((clips.part == name).to_numpy() for name in ("train", "validation", "test"))
    probe = fit_probe(x[train], labels[train], x[held_out], labels[held_out], several=several)
    found = {
        "clip_id": clips.clip_id[test].to_numpy(str),
        "group": clips.group[test].to_numpy(str),
        "targets": clips.target[test].to_numpy(np.int64),
        "probabilities": probe.predict(x[test]),
    }
    if several:
        thresholds, _ = best_thresholds(labels[held_out], probe.predict(x[held_out]))
        found |= {"labels": labels[test], "thresholds": thresholds}
    return found


def _check_features(run: Path, store: FeatureStore) -> None:
    if read_json(run / "preprocessing.json")["features"] != store.config.to_dict():
        raise StoreError(
            f"{run} was trained with other feature settings than {store.folder}; use one profile for both."
        )


def _embed_store(run: Path, store_folder: Path) -> dict[str, np.ndarray]:
    model, scaler = load_model(run)
    store = open_store(store_folder)
    segments = store.segments.sort_values("clip_id", kind="stable")
    vectors, _ = _embed_segments(model, store, scaler, segments)
    return {"clip_id": segments.drop_duplicates("clip_id").clip_id.to_numpy(str), "mean": vectors.astype(np.float32)}


def _embed_segments(
    model: "keras.Model", store: FeatureStore, scaler: Scaler, segments: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean embedding of each clip [n_clips, dimension] and its labels; a clip's segments are adjacent."""
    body = load_keras().Model(model.input, model.layers[-1].input)
    parts = np.array_split(segments.row.to_numpy(), max(1, len(segments) // _BATCH))
    # A call, because tracing a graph for `predict` takes longer than the few clips.
    vectors = np.concatenate([np.asarray(body(store.read(rows, scaler), training=False)) for rows in parts])
    clips = segments.drop_duplicates("clip_id")
    number = pd.Series(np.arange(len(clips)), index=clips.clip_id)[segments.clip_id].to_numpy()
    sums = np.zeros((len(clips), vectors.shape[1]))
    np.add.at(sums, number, vectors)
    return sums / np.bincount(number)[:, None], store.label_matrix(clips)
