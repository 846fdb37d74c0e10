"""What a network is fed while it is trained: batches read from the store, augmented, scaled, with their weights."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from instrlib.augment import augment
from instrlib.backend import load_keras
from instrlib.config import TrainConfig
from instrlib.features import Scaler, scale, silence
from instrlib.store import FeatureStore
from instrlib.waveform import draw_copies, rows_of_copies

if TYPE_CHECKING:
    import keras

VALIDATION_BATCH = 64


def training_batches(
    store: FeatureStore,
    scaler: Scaler,
    segments: pd.DataFrame,
    *,
    weights: np.ndarray,
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
    weights : np.ndarray [shape=(n_classes,)]
        Weight of each class in the loss; a mixed example weighs as its classes do, by their shares.
    config : TrainConfig
        Its `batch_size` and `augment`.
    seed : int
        Decides the order and the augmentation.
    copied : FeatureStore, optional
        Augmented copies of the same clips; for each segment, in each epoch, the original or one of them is drawn.

    Returns
    -------
    keras.utils.PyDataset
        Features [shape=(batch, n_bins, n_frames, 1)], targets [shape=(batch, n_classes)], weights [shape=(batch,)].
    """
    keras = load_keras()
    rows, targets = segments.row.to_numpy(), segments.target.to_numpy()
    one_hot = np.eye(len(store.classes), dtype=np.float32)
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
            y = one_hot[targets[chosen]]
            x, y = augment(x, y, config.augment, floor=floor, hop_s=store.config.hop_s, rng=rng)
            return scale(x, store.config, scaler)[..., None], y, (y @ weights).astype(np.float32)

    return Batches()


def validation_batches(
    store: FeatureStore, scaler: Scaler, segments: pd.DataFrame, *, weights: np.ndarray
) -> "keras.utils.PyDataset":
    """Return the validation examples as batches as equal as can be, every row once, untouched.

    Parameters
    ----------
    store, scaler, segments, weights
        See `training_batches`.

    Returns
    -------
    keras.utils.PyDataset
    """
    keras = load_keras()
    rows, targets = segments.row.to_numpy(), segments.target.to_numpy()
    one_hot = np.eye(len(store.classes), dtype=np.float32)
    parts = np.array_split(np.arange(len(rows)), -(-len(rows) // VALIDATION_BATCH))

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(parts)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            chosen = parts[index]
            return (
                store.read(rows[chosen], scaler),
                one_hot[targets[chosen]],
                weights[targets[chosen]].astype(np.float32),
            )

    return Batches(workers=1, use_multiprocessing=False)
