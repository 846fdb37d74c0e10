"""Train a network on the training part, choose its epoch on the validation part; the test part is never read here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.arrays import padded
from instrlib.backend import load_keras
from instrlib.config import TrainConfig
from instrlib.errors import RunError
from instrlib.features import Scaler
from instrlib.files import atomic_path, hash_json, read_json, write_arrays, write_json
from instrlib.metrics import clip_probabilities, scores
from instrlib.models import build, count_multiply_adds, get_spec
from instrlib.parallel import fan_out
from instrlib.provenance import code_fingerprint, versions
from instrlib.splits import Split, load_split
from instrlib.store import FeatureStore, fit_scaler, open_store

if TYPE_CHECKING:
    import keras

COMPLETE = "manifest.json"


def make_deterministic(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and ask for operations that give the same bits in every run.

    Parameters
    ----------
    seed : int
        From 0.
    """
    keras = load_keras()
    import tensorflow as tf

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def class_weights(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Weight of each class: the inverse of its share, so that the weights of all rows sum to their number.

    Parameters
    ----------
    targets : np.ndarray [shape=(n,)]
        Class of each training row.
    n_classes : int
        Number of classes; one that has no row gets weight 0.

    Returns
    -------
    np.ndarray [shape=(n_classes,)]

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(targets, minlength=n_classes)
    present = counts > 0
    return np.where(present, len(targets) / (present.sum() * np.maximum(counts, 1)), 0.0)


def train_model(
    folder: Path, store_folder: Path, split_path: Path, spec_name: str, config: TrainConfig, seed: int
) -> Path:
    """Train one network and keep it in a run folder; a folder that already holds the same run is left as it is.

    Parameters
    ----------
    folder : Path
        Where to: `model.keras`, `preprocessing.json`, `history.csv`, `validation.npz`, `metrics.json` and, last,
        `manifest.json`.
    store_folder, split_path : Path
        Features and split.
    spec_name : str
        A name of `models.SPECS`.
    config : TrainConfig
        Epochs, batch, learning rate and so on.
    seed : int
        Decides the first weights, the order of the batches and the dropout.

    Returns
    -------
    Path
        `folder`.

    Notes
    -----
    Adam (Kingma and Ba, 2015, arXiv:1412.6980) with cosine decay (Loshchilov and Hutter, 2017, arXiv:1608.03983).
    """
    store = open_store(store_folder)
    split = load_split(split_path, store.segments)
    key = hash_json(
        {
            "code": code_fingerprint([Path(__file__).read_text(encoding="utf-8")]),
            "inputs": [store.fingerprint, split.fingerprint],
            "settings": [spec_name, vars(config), store.config.to_dict(), seed],
            "versions": versions(),
        }
    )
    if (folder / COMPLETE).is_file() and read_json(folder / COMPLETE).get("key") == key:
        return folder
    (folder / COMPLETE).unlink(missing_ok=True)
    make_deterministic(seed)
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    scaler = fit_scaler(store, train.row.to_numpy())
    model, history = _fit(store, scaler, train, validation, spec_name, config, seed)

    with atomic_path(folder / "model.keras") as path:
        model.save(path)
    with atomic_path(folder / "history.csv") as path:
        history.to_csv(path, index=False)
    preprocessing = {"features": store.config.to_dict(), "scaler": scaler.to_dict(), "classes": store.classes}
    write_json(folder / "preprocessing.json", preprocessing)
    predicted = predict_clips(model, store, scaler, validation)
    write_arrays(folder / "validation.npz", **predicted)
    write_json(
        folder / "metrics.json",
        {
            "validation": scores(predicted["targets"], predicted["probabilities"]),
            "best_epoch": int(history.val_loss.idxmin()) + 1,
            "epochs": len(history),
            "parameters": model.count_params(),
            "multiply_adds": count_multiply_adds(model),
        },
    )
    write_json(
        folder / COMPLETE,
        {
            "key": key,
            "spec": spec_name,
            "seed": seed,
            "train": vars(config),
            "store": store.fingerprint,
            "split": split.fingerprint,
            "versions": versions(),
        },
    )
    return folder


def train_seeds(
    folder: Path,
    *,
    store: FeatureStore,
    split_path: Path,
    spec_name: str,
    config: TrainConfig,
    seeds: tuple[int, ...],
    workers: int | None = None,
) -> list[Path]:
    """Train the same network from several seeds, in several processes.

    Parameters
    ----------
    folder : Path
        The run folders `seed-0`, `seed-1`, ... are made in it.
    store, split_path, spec_name, config
        See `train_model`.
    seeds : tuple of int
        One network for each.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    list of Path
        A run folder for each seed.
    """
    tasks = [(folder / f"seed-{seed}", store.folder, split_path, spec_name, config, seed) for seed in seeds]
    return list(fan_out(train_model, tasks, workers=workers, describe=f"training {spec_name}", isolate=True))


def load_model(folder: Path) -> tuple["keras.Model", Scaler]:
    """Load a network and the scaling that belongs to it from a run folder.

    Raises
    ------
    RunError
        When the folder is not a finished run.
    """
    if not (folder / COMPLETE).is_file():
        raise RunError(f"{folder} holds no finished training run; run the notebook that trains it again.")
    keras = load_keras()

    scaler = Scaler.from_dict(read_json(folder / "preprocessing.json")["scaler"])
    return keras.saving.load_model(folder / "model.keras", compile=False), scaler


def read_history(folders: list[Path]) -> dict[str, np.ndarray]:
    """Read the learning curves of several run folders into one set of arrays.

    Returns
    -------
    dict of str to np.ndarray
        `epoch` [shape=(n_epochs,)]; `train_loss`, `validation_loss`, `train_accuracy`, `validation_accuracy`
        [shape=(n_seeds, n_epochs)], NaN after an early stop; `best_epoch` [shape=(n_seeds,)].
    """
    tables = [pd.read_csv(folder / "history.csv") for folder in folders]
    n_epochs = max(len(table) for table in tables)

    def stack(column: str) -> np.ndarray:
        return padded([table[column] for table in tables])

    return {
        "epoch": np.arange(1, n_epochs + 1),
        "train_loss": stack("loss"),
        "validation_loss": stack("val_loss"),
        "train_accuracy": stack("accuracy"),
        "validation_accuracy": stack("val_accuracy"),
        "best_epoch": np.array([table.val_loss.idxmin() + 1 for table in tables]),
    }


def summary(folder: Path) -> dict[str, Any]:
    """Return what a run folder says of its network, in one flat row: seed, epochs, validation scores, size."""
    kept, manifest = read_json(folder / "metrics.json"), read_json(folder / COMPLETE)
    validation = {f"validation_{name}": kept["validation"][name] for name in ("accuracy", "macro_f1", "log_loss")}
    return {
        "seed": manifest["seed"],
        **{name: value for name, value in kept.items() if name != "validation"},
        **validation,
    }


def part_segments(store: FeatureStore, split: Split, part: str) -> pd.DataFrame:
    """Return the segments of one part of the split, in the order of the store."""
    return store.segments[store.segments.clip_id.map(split.parts) == part]


def predict_clips(model: "keras.Model", store: FeatureStore, scaler: Scaler, segments: pd.DataFrame) -> dict[str, Any]:
    """Score clips: the mean of the probabilities of their segments.

    Parameters
    ----------
    model, store, scaler
        See `load_model` and `store.open_store`.
    segments : pandas.DataFrame
        Rows of `store.segments`, all segments of a clip together.

    Returns
    -------
    dict
        `clip_id`, `group` (str), `targets` (int) [shape=(n_clips,)] and `probabilities`
        [shape=(n_clips, n_classes)], sorted by clip.
    """
    by_segment = np.concatenate(
        [
            model.predict_on_batch(store.read(rows, scaler))
            for rows in np.array_split(segments.row.to_numpy(), max(1, len(segments) // 128))
        ]
    )
    clips = segments.groupby("clip_id", sort=True).first()
    clip_index = np.searchsorted(clips.index.to_numpy(str), segments.clip_id.to_numpy(str))
    return {
        "clip_id": clips.index.to_numpy(str),
        "group": clips.group.to_numpy(str),
        "targets": clips.target.to_numpy(np.int64),
        "probabilities": clip_probabilities(by_segment, clip_index),
    }


def _fit(
    store: FeatureStore,
    scaler: Scaler,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    spec_name: str,
    config: TrainConfig,
    seed: int,
) -> tuple["keras.Model", pd.DataFrame]:
    keras = load_keras()

    n_classes = len(store.classes)
    weights = class_weights(train.target.to_numpy(), n_classes) if config.class_weights else np.ones(n_classes)
    batches = _batches(store, scaler, train, weights, config, shuffle_seed=seed)
    # Validation is weighed alike, so that the epoch is chosen by all classes and not by the largest.
    held_out = _batches(store, scaler, validation, weights, config, shuffle_seed=None)

    model = build(get_spec(spec_name), (*store.config.shape, 1), n_classes)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * len(batches))
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        weighted_metrics=[],
        metrics=["accuracy"],
        jit_compile=False,  # Keras does not compile where operations must be deterministic
    )
    stop = keras.callbacks.EarlyStopping(patience=config.patience, restore_best_weights=True)
    guard = keras.callbacks.TerminateOnNaN()
    fitted = model.fit(batches, validation_data=held_out, epochs=config.epochs, callbacks=[stop, guard], verbose=0)
    history = pd.DataFrame(fitted.history)
    if not np.isfinite(history.loss).all():
        raise RunError(
            f"Training {spec_name} (seed {seed}) diverged in epoch {len(history)}: the loss is not finite; lower "
            f"the learning rate ({config.learning_rate:g})."
        )
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    return model, history


def _batches(
    store: FeatureStore,
    scaler: Scaler,
    segments: pd.DataFrame,
    weights: np.ndarray,
    config: TrainConfig,
    *,
    shuffle_seed: int | None,
) -> "keras.utils.PyDataset":
    """Read batches from the memory-mapped store, so that no part of the corpus is held in memory."""
    keras = load_keras()

    targets = segments.target.to_numpy()
    rows = segments.row.to_numpy()
    one_hot = np.eye(len(store.classes), dtype=np.float32)
    # Batches of one size are compiled once. In training the rows left over change with every shuffle and wait for the
    # next epoch; in validation the batches are as equal as can be, and every row is there.
    n_batches = max(1, len(rows) // config.batch_size) if shuffle_seed is not None else -(-len(rows) // 64)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self._rng = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
            self.on_epoch_end()

        def __len__(self) -> int:
            return n_batches

        def on_epoch_end(self) -> None:
            if self._rng is None:
                self._parts = np.array_split(np.arange(len(rows)), n_batches)
            else:
                self._parts = np.array_split(
                    self._rng.permutation(len(rows))[: n_batches * config.batch_size], n_batches
                )

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            chosen = np.sort(self._parts[index])  # ascending rows read the disk in order; the batch is the same set
            x = store.read(rows[chosen], scaler)
            return x, one_hot[targets[chosen]], weights[targets[chosen]].astype(np.float32)

    return Batches()
