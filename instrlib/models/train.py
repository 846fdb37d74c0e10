"""Training of every network, epoch by epoch."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler
from instrlib.core.cache import key as cache_key
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, RunError, SplitError, atomic_path
from instrlib.data.splits import check_classes, load_split
from instrlib.data.store import FeatureStore, fit_scaler, open_store, rows_of_copies
from instrlib.models.answers import read_test
from instrlib.models.examples import Examples, affine, examples, is_resident, plans, smoothed, validation_examples
from instrlib.models.graph import Graph, compiled
from instrlib.models.layers import Layer, get_spec
from instrlib.models.trained import COMPLETE, is_finished, part_segments, write_network

if TYPE_CHECKING:
    import keras

CURVE_POINTS = 10
"""Validations of a training that does not need one after each epoch; it costs a tenth of the training."""

PLATEAU_EPOCHS = 3
"""Epochs without a better validation loss before the schedule "plateau" halves the learning rate."""

TIES = 1e-6
"""Weight of the loss beside the accuracy when an epoch is chosen: it decides between equal accuracies."""


class Initialisation(Protocol):
    """Initial weights that are not random, such as `transfer.Pretrained`.

    `rates` are factors of the learning rate for each row of the table, the last one for the scores. With `frozen_norm`,
    batch normalisation keeps its statistics, scale and shift. `fingerprint` hashes what determines the weights.
    """

    rates: tuple[float, ...]
    frozen_norm: bool

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the feature scaling that belongs to the weights."""
        ...

    def begin(
        self, model: "keras.Model", store: FeatureStore, scaler: Scaler, train: pd.DataFrame, validation: pd.DataFrame
    ) -> None:
        """Set the weights of a new network."""
        ...


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
    """Train a network on the training part of a split and write it to a run folder, unless it is there already.

    `spec` is a name of `layers.SPECS` or a table. `seed` determines initial weights, order, augmentation and dropout.
    `copies` is a store of augmented copies; each epoch draws the original or a copy. `start` replaces random initial
    weights. With `test` the network also predicts the test part (see `answers.read_test`), which affects no choice.

    The optimizer is Adam (Kingma and Ba, 2015, arXiv:1412.6980), by default with cosine decay (Loshchilov and Hutter,
    2017, arXiv:1608.03983). Without `patience` the weights of the last epoch are kept; otherwise those of the best
    validation epoch, by accuracy and then loss, or by loss alone for sigmoid outputs.
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
    """Train a network on the examples `known` and validate it on `held_out`.

    `begin` sets initial weights; `moved` contains `rates` and `frozen_norm` of an `Initialisation`.

    Returns
    -------
    graph : Graph
        Its `model` is the trained network until another training of this process uses the same graph.
    history : pandas.DataFrame
        One row per epoch: `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy` (NaN without validation).
    best : int
        The epoch of the kept weights, from 1.
    """
    standardise = known.config is not None and known.config.scaling == "segment"
    dtype = known.versions[0][0].dtype.name
    graph = compiled(table, known.shape, dtype, known.labels.shape[1], config.output, standardise, *moved)
    graph.reset(seed)
    if begin:
        begin(graph.model)
    scaling, weights = affine(known), None
    if config.output == "softmax":
        weights = class_weights(known.labels.argmax(axis=1), known.labels.shape[1], balanced=config.class_weights)
    size = min(config.batch_size, len(known))
    n_steps = len(known) // size
    everything = np.arange(len(known.versions) * len(known))
    resident = known.read(everything) if is_resident(known, config) else None
    each_epoch, every = config.patience or config.schedule == "plateau", max(1, config.epochs // CURVE_POINTS)
    rows: list[dict[str, float]] = []
    rank, best, kept, halvings = -np.inf, 0, None, 0
    for epoch in range(config.epochs):
        rate = np.full(n_steps, config.learning_rate / 2**halvings, np.float32)
        if config.schedule == "cosine":
            rate *= 0.5 + 0.5 * np.cos(np.pi * (epoch + np.arange(n_steps, dtype=np.float32) / n_steps) / config.epochs)
        totals = np.zeros(3)
        for data, plan in plans(known, config, weights, resident, rate, (seed, epoch)):
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


def class_weights(targets: np.ndarray, n_classes: int, *, balanced: bool = True) -> np.ndarray:
    """Return class weights inverse to the shares, such that the weights of all examples sum to their number.

    Classes without examples have weight 0; without `balanced` all weights are 1.

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
    """Return the settings, with sigmoid outputs if clips may have several labels."""
    return dataclasses.replace(config, output="sigmoid") if store.multilabel else config


def check_labels(store: FeatureStore, segments: pd.DataFrame) -> None:
    """Raise `SplitError` unless each of several labels is present in some segments and absent in others."""
    labels = store.label_matrix(segments)
    for value, word in ((1, "present"), (0, "absent")):
        never = [name for name, column in zip(store.classes, labels.T, strict=True) if not (column == value).any()]
        if never:
            raise SplitError(
                f"{', '.join(never)} is observed {word} in no training clip; make the split again or leave it out."
            )


def _check_recipe(store: FeatureStore, config: TrainConfig) -> None:
    if store.multilabel and config.output != "sigmoid":
        raise ConfigError('Clips of these features may have several labels; train with output="sigmoid".')
    if store.config.kind != "log_mel" and (config.augment.mix == "layers" or config.augment.retake):
        raise ConfigError(f"Mixtures and recording augmentation require log-mel spectrograms, not {store.config.kind}.")


def _validation(held_out: Examples, graph: Graph, weights: np.ndarray | None, config: TrainConfig) -> dict[str, float]:
    targets, weighted = smoothed(held_out.labels, weights, config, held_out.labels)
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
