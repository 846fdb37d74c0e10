"""Training of every network: what it learns from, epoch by epoch, and which weights are kept."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from instrlib.audio.augment import augment
from instrlib.audio.features import Scaler, mel_edges_hz, scale, silence
from instrlib.core.backend import load_keras
from instrlib.core.cache import key as cache_key
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError, RunError, SplitError
from instrlib.core.io import atomic_path
from instrlib.data.copies import rows_of_copies
from instrlib.data.splits import check_classes, load_split
from instrlib.data.store import FeatureStore, fit_scaler, open_store
from instrlib.models.answers import read_test
from instrlib.models.graph import UNOBSERVED, Graph, compiled, draw
from instrlib.models.layers import Layer, get_spec
from instrlib.models.trained import COMPLETE, is_finished, part_segments, write_network

if TYPE_CHECKING:
    import keras

CHUNK_BYTES = 2**28
"""Larger training parts are brought into memory in chunks of this size; the result is the same."""

CURVE_POINTS = 10
"""Validations of a training that does not need one after each epoch; it costs a tenth of the training."""

PLATEAU_EPOCHS = 3
"""Epochs without a better validation loss before the schedule "plateau" halves the learning rate."""

TIES = 1e-6
"""Weight of the loss beside the accuracy when an epoch is chosen: it decides between equal accuracies."""

_PREDICTED_AT_ONCE = 256


class Initialisation(Protocol):
    """First weights of a training that does not begin with random ones, such as `finetune.Pretrained`.

    `rates` are factors of the learning rate for each row of the table, the last one for the scores; with `frozen_norm`
    batch normalisation keeps its statistics, scale and shift; `fingerprint` hashes what decides the weights.
    """

    rates: tuple[float, ...]
    frozen_norm: bool

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the scaling of features that the weights go with."""
        ...

    def begin(
        self, model: "keras.Model", store: FeatureStore, scaler: Scaler, train: pd.DataFrame, validation: pd.DataFrame
    ) -> None:
        """Set the weights of a network that was just built."""
        ...


@dataclass(frozen=True)
class Examples:
    """Examples to train or to validate on.

    Attributes
    ----------
    versions : sequence of (features, rows)
        Features [shape=(n_rows, n_bins, n_frames)] before scaling, float16 or float32, perhaps memory-mapped, and the
        row of each example [shape=(n,)]. Of several versions of the examples one is drawn in each epoch.
    labels : np.ndarray [shape=(n, n_classes), float32]
        Shares of the classes, which may be soft; or 1 present, 0 absent, NaN not observed.
    config, scaler : FeatureConfig, Scaler
        Settings and scaling of the features; without them they stay as they are.
    """

    versions: tuple[tuple[np.ndarray, np.ndarray], ...]
    labels: np.ndarray
    config: FeatureConfig | None = None
    scaler: Scaler | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_bins, n_frames)."""
        return self.versions[0][0].shape[1:]

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return features before scaling; place `version * len(self) + number` is a version of an example."""
        features = np.empty((len(places), *self.shape), self.versions[0][0].dtype)
        for version, (stored, rows) in enumerate(self.versions):
            chosen = places // len(self) == version
            features[chosen] = stored[rows[places[chosen] % len(self)]]
        return features

    def scaled(self, features: np.ndarray) -> np.ndarray:
        """Return features as the network sees them, without its axis of channels."""
        return scale(features, self.config, self.scaler) if self.config else np.asarray(features, np.float32)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield all examples as the network sees them [shape=(batch, n_bins, n_frames, 1)], in order."""
        for part in np.array_split(np.arange(len(self)), -(-len(self) // _PREDICTED_AT_ONCE)):
            yield self.scaled(self.read(part))[..., None]

    def answers(self, predict: Callable[[np.ndarray], Any]) -> np.ndarray:
        """Return the probabilities of all examples [shape=(n, n_classes)]."""
        return np.concatenate([np.asarray(predict(x)) for x in self.batches()])


def train_model(
    folder: Path,
    store_folder: Path,
    split_path: Path,
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    seed: int,
    copies: Path | None = None,
    start: Initialisation | None = None,
    *,
    test: bool = False,
) -> Path:
    """Train a network on the training part of a split and write it to a run folder, once.

    Parameters
    ----------
    folder : Path
        Run folder; see `trained.write_network`. One that holds the same training already is left as it is.
    store_folder, split_path : Path
        Features and split.
    spec : str or tuple of Layer
        The network: a name of `layers.SPECS` or a table.
    config : TrainConfig
        How it is trained.
    seed : int
        Decides the first weights, the order of the examples, the augmentation and the dropout.
    copies : Path, optional
        A store of augmented copies of the same clips; in each epoch the original or one of them is drawn.
    start : Initialisation, optional
        First weights in the place of random ones.
    test : bool
        Whether it also answers the test part; see `answers.read_test`. Nothing is chosen by these answers.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    ConfigError
        When the settings do not fit the features.
    SplitError
        When a class is missing in a part of the split.
    RunError
        When the training diverges.

    Notes
    -----
    Adam (Kingma and Ba, 2015, arXiv:1412.6980), by default with cosine decay (Loshchilov and Hutter, 2017,
    arXiv:1608.03983). Without `patience` the weights of the last epoch are kept; otherwise those of the best epoch on
    validation, by accuracy and, among equals, loss, or by loss alone for sigmoid outputs.
    """
    store = open_store(store_folder)
    split = load_split(split_path, store.segments)
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    _check_recipe(store, config)
    if store.multilabel:
        check_labels(store, train)
    else:
        check_classes(store.segments, split.parts, store.classes)
    copied = open_store(copies) if copies else None
    table = get_spec(spec) if isinstance(spec, str) else spec
    inputs = [store.fingerprint, split.fingerprint, copied and copied.fingerprint, start and start.fingerprint]
    key = cache_key("models", inputs=inputs, settings=[table, config, store.config, seed])
    if is_finished(folder, key):
        return folder
    (folder / COMPLETE).unlink(missing_ok=True)
    began = time.monotonic()
    scaler = start.scaler(store) if start else fit_scaler(store, train.row.to_numpy())
    known, held_out = examples(store, train, scaler), validation_examples(store, validation, scaler, config)
    if copied is not None:
        changed = ((copied.features, rows) for rows in rows_of_copies(train, copied).T)
        known = dataclasses.replace(known, versions=(*known.versions, *changed))
    begin, moved = None, ()
    if start:
        begin = functools.partial(start.begin, store=store, scaler=scaler, train=train, validation=validation)
        moved = (start.rates, start.frozen_norm)
    graph, history, best = fit(table, known, held_out, config, seed, begin=begin, moved=moved)
    metrics = {"best_epoch": best, "epochs": len(history), "training_s": round(time.monotonic() - began, 1)}
    predicted = None
    if config.augment.mix == "layers":
        predicted = {"probabilities": held_out.answers(graph.predict).astype(float), "labels": held_out.labels}
    with atomic_path(folder / "history.csv") as path:
        history.to_csv(path, index=False)
    write_network(
        folder,
        graph.model,
        scaler,
        store=store,
        split=split,
        metrics=metrics,
        made_of={"key": key, "spec": table, "seed": seed, "train": config},
        predict=graph.predict,
        predicted=predicted,
    )
    if test:
        read_test(folder, store_folder, split_path, predict=graph.predict)
    return folder


def fit(
    table: tuple[Layer, ...],
    known: Examples,
    held_out: Examples,
    config: TrainConfig,
    seed: int,
    *,
    begin: Callable[["keras.Model"], None] | None = None,
    moved: tuple[Any, ...] = (),
) -> tuple[Graph, pd.DataFrame, int]:
    """Train a network on examples.

    Parameters
    ----------
    table : tuple of Layer
        The network.
    known, held_out : Examples
        What it is trained and validated on.
    config : TrainConfig
        How it is trained.
    seed : int
        Decides all that is random.
    begin : callable, optional
        Sets the first weights of the network that it is given.
    moved : (tuple of float, bool), optional
        `rates` and `frozen_norm` of an `Initialisation`.

    Returns
    -------
    graph : Graph
        Its `model` is the trained one until another training of this process uses the same graph.
    history : pandas.DataFrame
        One row an epoch: `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy` (NaN where it was not validated).
    best : int
        The epoch whose weights were kept, from 1.
    """
    standardise = known.config is not None and known.config.scaling == "segment"
    dtype = known.versions[0][0].dtype.name
    graph = compiled(table, known.shape, dtype, known.labels.shape[1], config.output, standardise, *moved)
    graph.reset(seed)
    if begin:
        begin(graph.model)
    scaling, weights = _scaling(known), None
    if config.output == "softmax":
        weights = class_weights(known.labels.argmax(axis=1), known.labels.shape[1], balanced=config.class_weights)
    size = min(config.batch_size, len(known))
    n_steps = len(known) // size
    everything = np.arange(len(known.versions) * len(known))
    resident = known.read(everything) if _is_resident(known, config) else None
    each_epoch, every = config.patience or config.schedule == "plateau", max(1, config.epochs // CURVE_POINTS)
    rows: list[dict[str, float]] = []
    rank, best, kept, halvings = -np.inf, 0, None, 0
    for epoch in range(config.epochs):
        rate = np.full(n_steps, config.learning_rate / 2**halvings, np.float32)
        if config.schedule == "cosine":
            rate *= 0.5 + 0.5 * np.cos(np.pi * (epoch + np.arange(n_steps, dtype=np.float32) / n_steps) / config.epochs)
        totals = np.zeros(3)
        for data, plan in _plans(known, config, weights, resident, rate, (seed, epoch)):
            totals += graph.epoch(data, plan, scaling).numpy()
        row = {"epoch": epoch + 1, "loss": totals[0] / (n_steps * size), "accuracy": totals[1] / totals[2]}
        rows.append(row)
        if not np.isfinite(row["loss"]):
            break
        if each_epoch or epoch % every == (config.epochs - 1) % every:
            row |= _validation(held_out, graph, weights, config)
            found = -row["val_loss"] if config.output == "sigmoid" else row["val_accuracy"] - TIES * row["val_loss"]
            if not config.patience or found > rank:
                rank, best, kept = found, epoch + 1, graph.model.get_weights()
            if config.patience and epoch + 1 - best >= config.patience:
                break
        if config.schedule == "plateau":
            since = epoch - int(np.argmin([one["val_loss"] for one in rows]))
            halvings += since > 0 and since % PLATEAU_EPOCHS == 0
    finite = kept and all(np.isfinite(one).all() for one in (*kept, *graph.model.get_weights()))
    if not finite:
        raise RunError(
            f"Training with seed {seed} diverged in epoch {len(rows)}; lower the learning rate "
            f"({config.learning_rate:g})."
        )
    graph.model.set_weights(kept)
    return graph, pd.DataFrame(rows, columns=["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]), best


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow and ask for deterministic operations: for trainings outside `fit`."""
    keras = load_keras()
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def class_weights(targets: np.ndarray, n_classes: int, *, balanced: bool = True) -> np.ndarray:
    """Weight of each class: the inverse of its share, so that the weights of all examples sum to their number.

    A class without examples has weight 0; without `balanced` all weights are 1.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    if not balanced:
        return np.ones(n_classes)
    counts = np.bincount(targets, minlength=n_classes)
    present = counts > 0
    return np.where(present, len(targets) / (present.sum() * np.maximum(counts, 1)), 0.0)


def config_for(store: FeatureStore, config: TrainConfig) -> TrainConfig:
    """Return the settings, with sigmoid outputs where a clip may have several labels."""
    return dataclasses.replace(config, output="sigmoid") if store.multilabel else config


def check_labels(store: FeatureStore, segments: pd.DataFrame) -> None:
    """Raise `SplitError` unless every class of several labels is present in some segments and absent in others."""
    labels = store.label_matrix(segments)
    for value, word in ((1, "present"), (0, "absent")):
        never = [name for name, column in zip(store.classes, labels.T, strict=True) if not (column == value).any()]
        if never:
            raise SplitError(
                f"{', '.join(never)} is observed {word} in no training clip; make the split again or leave it out."
            )


def _check_recipe(store: FeatureStore, config: TrainConfig) -> None:
    if store.multilabel and config.output != "sigmoid":
        raise ConfigError('A clip of these features may have several labels: train with output="sigmoid".')
    if store.config.kind != "log_mel" and (config.augment.mix == "layers" or config.augment.retake):
        raise ConfigError(f"Mixtures and recording augmentation need log-mel spectrograms, not {store.config.kind}.")


def examples(store: FeatureStore, segments: pd.DataFrame, scaler: Scaler) -> Examples:
    """Return segments of a store as examples."""
    versions = ((store.features, segments.row.to_numpy()),)
    return Examples(versions, store.label_matrix(segments), store.config, scaler)


def validation_examples(store: FeatureStore, segments: pd.DataFrame, scaler: Scaler, config: TrainConfig) -> Examples:
    """Return the examples that a network is validated on: segments, or for mixtures always the same mixtures of them.

    Each segment is the first of one mixture.
    """
    plain = examples(store, segments, scaler)
    if config.augment.mix != "layers":
        return plain
    always = dataclasses.replace(config, augment=dataclasses.replace(config.augment, share=1.0, retake=0.0))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(plain))  # partners come from the same batch, which must hold several classes
    x, y = plain.read(order).astype(np.float32), plain.labels[order]
    for part in np.array_split(np.arange(len(order)), -(-len(order) // 64)):
        x[part], y[part] = _augmented(plain, x[part], y[part], always, rng)
    return dataclasses.replace(plain, versions=((x, np.arange(len(x))),), labels=y)


def _in_numpy(config: TrainConfig) -> bool:
    """Return whether `audio.augment` has work that the graph does not do: mixtures and recording augmentation."""
    return config.augment.mix == "layers" or config.augment.retake > 0


def _is_resident(known: Examples, config: TrainConfig) -> bool:
    row_bytes = known.read(np.zeros(1, int)).nbytes
    return not _in_numpy(config) and len(known.versions) * len(known) * row_bytes <= CHUNK_BYTES


def _plans(
    known: Examples,
    config: TrainConfig,
    weights: np.ndarray | None,
    resident: np.ndarray | None,
    rate: np.ndarray,
    seed: tuple[int, int],
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield data and plan of each call of `Graph.epoch`: one for resident data, otherwise one for each chunk."""
    n, n_steps = len(known), len(rate)
    size = min(config.batch_size, n)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)[: n_steps * size].reshape(n_steps, size)
    order = order + n * rng.integers(len(known.versions), size=order.shape)
    at_once = n_steps if resident is not None else max(1, CHUNK_BYTES // known.read(order[0]).nbytes)
    for first in range(0, n_steps, at_once):
        places = order[first : first + at_once]
        labels = known.labels[places % n]
        generators = [np.random.default_rng((*seed, first + number)) for number in range(len(places))]
        data, rows = resident, places
        if resident is None:
            data, rows = known.read(places.ravel()), np.arange(places.size).reshape(places.shape)
        if _in_numpy(config):
            for batch, one, rng in zip(rows, range(len(rows)), generators, strict=True):
                data[batch], labels[one] = _augmented(known, data[batch], labels[one], config, rng)
        drawn: dict[str, list[np.ndarray]] = {}
        hop_s = known.config.hop_s if known.config else 1.0
        for number, rng in enumerate(generators):
            one, labels[number] = draw(config.augment, labels[number], known.shape, hop_s, rng)
            for name, value in one.items():
                drawn.setdefault(name, []).append(value)
        plan = {name: np.stack(values) for name, values in drawn.items()}
        targets, weighted = _targets(labels, weights, config, known.labels)
        plan |= {"rows": rows, "partners": np.take_along_axis(rows, plan.pop("partner"), axis=1)}
        plan = {name: value.astype(np.int32) if value.dtype == np.int64 else value for name, value in plan.items()}
        plan |= {
            "targets": targets,
            "weights": weighted,
            "rate": rate[first : first + at_once],
            "seed": np.int32(seed[0]),
        }
        yield data, plan


def _augmented(
    known: Examples, x: np.ndarray, y: np.ndarray, config: TrainConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply what the graph does not do; the generator goes on with what it does."""
    mix = "layers" if config.augment.mix == "layers" else "none"
    settings = dataclasses.replace(config.augment, mix=mix, time_masks=0, frequency_masks=0)
    about = {"floor": silence(known.config), "hop_s": known.config.hop_s, "edges_hz": mel_edges_hz(known.config)}
    return augment(x.astype(np.float32), y, settings, **about, rng=rng)


def _scaling(examples: Examples) -> dict[str, np.ndarray]:
    """Return `features.scale` as slope and offset of each bin, and the level of silence [shape=(n_bins, 1)]."""
    ends = np.stack([np.zeros((examples.shape[0], 1)), np.ones((examples.shape[0], 1))]).astype(np.float32)
    config, floor = examples.config, ends[0]
    if config:
        floor = silence(config)[:, None]
    if config and config.scaling != "segment":  # which the graph does, after mixing
        ends = examples.scaled(ends)
    return {"slope": ends[1] - ends[0], "offset": ends[0], "floor": floor.astype(np.float32)}


def _targets(
    labels: np.ndarray, weights: np.ndarray | None, config: TrainConfig, all_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return smoothed targets and the weight of each example, of the shape of `labels` without its last axis."""
    smoothing = config.label_smoothing
    if weights is not None:
        return (1 - smoothing) * labels + np.float32(smoothing / labels.shape[-1]), (labels @ weights).astype(
            np.float32
        )
    observed = np.isfinite(labels)
    targets = np.where(observed, (1 - smoothing) * labels + np.float32(smoothing / 2), np.float32(UNOBSERVED))
    n_observed = np.isfinite(all_labels).sum(axis=1).mean()  # every observed label weighs the same
    return targets, (observed.sum(axis=-1) / n_observed).astype(np.float32)


def _validation(held_out: Examples, graph: Graph, weights: np.ndarray | None, config: TrainConfig) -> dict[str, float]:
    """Loss and accuracy, weighted as in training."""
    targets, weighted = _targets(held_out.labels, weights, config, held_out.labels)
    likely = np.clip(held_out.answers(graph.predict).astype(float), 1e-7, 1 - 1e-7)
    if weights is not None:
        losses = -(targets * np.log(likely)).sum(axis=1)
        right = targets.argmax(axis=1) == likely.argmax(axis=1)
    else:
        observed = targets >= 0
        each = -(targets * np.log(likely) + (1 - targets) * np.log1p(-likely))
        n_observed = np.maximum(observed.sum(axis=1), 1)
        losses = np.where(observed, each, 0).sum(axis=1) / n_observed
        right = (observed & ((targets > 0.5) == (likely > 0.5))).sum(axis=1) / n_observed
    return {"val_loss": float((weighted * losses).mean()), "val_accuracy": float(np.average(right, weights=weighted))}
