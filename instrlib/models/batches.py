"""What a network is fed while it is trained: batches read from the store, augmented, scaled, with their weights."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from instrlib.audio.augment import augment
from instrlib.audio.features import Scaler, mel_edges_hz, scale, silence
from instrlib.core.backend import load_keras
from instrlib.core.config import TrainConfig
from instrlib.data.copies import draw_copies, rows_of_copies
from instrlib.data.store import FeatureStore

if TYPE_CHECKING:
    import keras

VALIDATION_BATCH = 64

LAYERS_SEED = 0
"""Decides the layered examples that networks are validated on: they are the same for all trainings."""

UNOBSERVED = -1.0
"""Stands in targets for a class that was not observed: Keras would make every loss NaN."""


def training_batches(
    store: FeatureStore,
    scaler: Scaler,
    segments: pd.DataFrame,
    *,
    weights: np.ndarray | None,
    config: TrainConfig,
    seed: int,
    copied: FeatureStore | None = None,
) -> "keras.utils.PyDataset":
    """Return the training examples as batches of one size, in another order every epoch.

    Batches of one size are compiled once; the rows left over change with every shuffle and wait for the next epoch.
    They are read from the memory-mapped store, so no part of the corpus is held in memory.

    Parameters
    ----------
    store, scaler
        Features and their scaling.
    segments : pandas.DataFrame
        Rows of `store.segments`: the training part.
    weights : np.ndarray [shape=(n_classes,)] or None
        Weight of each class in the loss; a mixed example weighs as its classes do, by their shares. None for sigmoid
        outputs: an example then weighs as many observed labels as it has.
    config : TrainConfig
        Its `batch_size` and `augment`.
    seed : int
        Decides the order and the augmentation.
    copied : FeatureStore, optional
        Augmented copies of the same clips; for each segment, in each epoch, the original or one of them is drawn.

    Returns
    -------
    keras.utils.PyDataset
        Features [shape=(batch, n_bins, n_frames, 1)], targets [shape=(batch, n_classes)] (for sigmoid outputs with
        `UNOBSERVED`), weights [shape=(batch,)].
    """
    keras = load_keras()
    rows, labels = segments.row.to_numpy(), store.label_matrix(segments)
    n_observed = np.isfinite(labels).sum(axis=1).mean()
    edges_hz = mel_edges_hz(store.config)
    n_batches = max(1, len(rows) // config.batch_size)
    floor = silence(store.config)
    copies = None if copied is None else rows_of_copies(segments, copied)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self._epoch = -1
            self.on_epoch_end()

        def __len__(self) -> int:
            return n_batches

        def on_epoch_end(self) -> None:
            self._epoch += 1
            chosen = np.random.default_rng((seed, self._epoch)).permutation(len(rows))
            self._parts = np.array_split(chosen[: n_batches * config.batch_size], n_batches)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            # Of its own for each batch: Keras asks for some twice.
            rng = np.random.default_rng((seed, self._epoch, index))
            chosen = np.sort(self._parts[index])  # ascending rows read the disk in order; the batch is the same set
            x = store.features[rows[chosen]].astype(np.float32)
            if copies is not None:
                x = draw_copies(x, copied, copies[chosen], rng)
            y = labels[chosen]
            settings = {"floor": floor, "hop_s": store.config.hop_s, "edges_hz": edges_hz}
            x, y = augment(x, y, config.augment, **settings, rng=rng)
            return scale(x, store.config, scaler)[..., None], *weighed(y, weights, n_observed)

    return Batches()


def validation_batches(
    store: FeatureStore, scaler: Scaler, segments: pd.DataFrame, *, weights: np.ndarray | None, config: TrainConfig
) -> "keras.utils.PyDataset":
    """Return the validation examples as batches as equal as can be, every row once, untouched.

    A network that is trained on layered examples is validated on such: each row once as the first of a mixture, and
    the same mixtures in every epoch and for every seed. By single instruments it would be chosen for what it is not
    asked.

    Parameters
    ----------
    store, scaler, segments, weights
        See `training_batches`.
    config : TrainConfig
        Its `augment` says whether examples are layered.

    Returns
    -------
    keras.utils.PyDataset
    """
    keras = load_keras()
    rows, labels = segments.row.to_numpy(), store.label_matrix(segments)
    n_observed = np.isfinite(labels).sum(axis=1).mean()
    layered = dataclasses.replace(config.augment, share=1.0, time_masks=0, frequency_masks=0, retake=0.0)
    settings = {"floor": silence(store.config), "hop_s": store.config.hop_s, "edges_hz": mel_edges_hz(store.config)}
    order = np.arange(len(rows))
    if config.augment.mix == "layers":  # partners come from the same batch, so each must hold several classes
        order = np.random.default_rng(LAYERS_SEED).permutation(len(rows))
    parts = np.array_split(order, -(-len(rows) // VALIDATION_BATCH))

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(parts)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            chosen = parts[index]
            if config.augment.mix != "layers":
                return store.read(rows[chosen], scaler), *weighed(labels[chosen], weights, n_observed)
            x = store.features[rows[chosen]].astype(np.float32)
            x, y = augment(x, labels[chosen], layered, **settings, rng=np.random.default_rng((LAYERS_SEED, index)))
            return scale(x, store.config, scaler)[..., None], *weighed(y, weights, n_observed)

    return Batches(workers=1, use_multiprocessing=False)


def weighed(y: np.ndarray, weights: np.ndarray | None, n_observed: float) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and weights as Keras takes them.

    Parameters
    ----------
    y : np.ndarray [shape=(n, n_classes), float32]
        Shares of the classes, or 1 present, 0 absent, NaN not observed.
    weights : np.ndarray [shape=(n_classes,)] or None
        See `training_batches`.
    n_observed : float
        Labels that an example of weight 1 has observed.

    Returns
    -------
    targets : np.ndarray [shape=(n, n_classes), float32]
    weights : np.ndarray [shape=(n,), float32]
    """
    if weights is not None:
        return y, (y @ weights).astype(np.float32)
    observed = np.isfinite(y)
    return np.where(observed, y, np.float32(UNOBSERVED)), (observed.sum(axis=1) / n_observed).astype(np.float32)
