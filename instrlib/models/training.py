"""Train a network on the training part, choose its epoch on the validation part; the test part is never read here."""

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler
from instrlib.core.backend import load_keras
from instrlib.core.cache import code_hash, versions
from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError, InstrlibError, RunError, SplitError
from instrlib.core.io import atomic_path, hash_json, padded, read_json, write_arrays, write_json
from instrlib.data.splits import Split, check_classes, load_split
from instrlib.data.store import FeatureStore, fit_scaler, open_store
from instrlib.evaluation.metrics import best_thresholds, clip_probabilities, scores
from instrlib.models.batches import training_batches, validation_batches
from instrlib.models.layers import Layer, build, count_multiply_adds, get_spec, output_of

if TYPE_CHECKING:
    import keras

COMPLETE = "manifest.json"

_AGAIN = "delete that folder and run the notebook that trains it again."

STEPS_AT_ONCE = 8
"""Steps that TensorFlow does before Python looks at them: 5 % faster, and the same bits."""

PLATEAU_EPOCHS = 3
"""Epochs without a better validation loss before the schedule "plateau" halves the learning rate."""

RANK = "val_rank"
"""Column of the history that the epoch is chosen by, the higher the better."""

TIES = 1e-6
"""Weight of the loss beside the accuracy: it decides between epochs that are equally right, and nothing else."""


class Start(Protocol):
    """What a training begins with that does not begin with random weights; it travels to other processes.

    Attributes
    ----------
    rates : tuple of float
        Factor of the learning rate for each row of the network's table, and last for the scores.
    frozen_norm : bool
        Whether batch normalisation keeps its statistics, its scale and its shift as they are.
    fingerprint : str
        Hash of what decides the weights, besides the training and the validation part.
    """

    rates: tuple[float, ...]
    frozen_norm: bool

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def scaler(self, store: FeatureStore) -> Scaler:
        """Return the scaling of features that the weights go with."""
        ...

    def begin(
        self,
        model: "keras.Model",
        store: FeatureStore,
        scaler: Scaler,
        train: pd.DataFrame,
        validation: pd.DataFrame,
    ) -> None:
        """Give a network that was just built its weights."""
        ...


def make_deterministic(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and ask for operations that give the same bits in every run.

    Parameters
    ----------
    seed : int
        From 0.
    """
    keras = load_keras()
    import tensorflow as tf

    keras.backend.clear_session(free_memory=False)  # the collector comes by itself; calling it takes .2 s
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def class_weights(targets: np.ndarray, n_classes: int, *, balanced: bool = True) -> np.ndarray:
    """Weight of each class: the inverse of its share, so that the weights of all rows sum to their number.

    Parameters
    ----------
    targets : np.ndarray [shape=(n,)]
        Class of each training row.
    n_classes : int
        Number of classes; one that has no row gets weight 0.
    balanced : bool
        Otherwise every class has weight 1.

    Returns
    -------
    np.ndarray [shape=(n_classes,)]

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
    """Return a recipe with the outputs that a corpus needs: sigmoids where a clip may have several labels.

    Parameters
    ----------
    store : FeatureStore
        Features of the corpus.
    config : TrainConfig
        The recipe.

    Returns
    -------
    TrainConfig
        The same one where a clip has one label.
    """
    return dataclasses.replace(config, output="sigmoid") if store.multilabel else config


def masked_cross_entropy(y_true: Any, y_pred: Any, label_smoothing: float = 0.0) -> Any:
    """Mean binary cross entropy of each example over its observed labels, in nats.

    Parameters
    ----------
    y_true : tensor [shape=(batch, n_classes)]
        Share of each class, 0 to 1; below 0 where it was not observed.
    y_pred : tensor [shape=(batch, n_classes)]
        Probabilities.
    label_smoothing : float
        Share of probability spread over present and absent.

    Returns
    -------
    tensor [shape=(batch,)]
        0 for an example without an observed label. The batches weigh each example by the number of its observed
        labels, so that in the mean each of these counts the same.
    """
    ops = load_keras().ops
    observed = ops.cast(y_true >= 0, y_pred.dtype)
    wanted = observed * ops.cast(y_true, y_pred.dtype) * (1 - label_smoothing) + label_smoothing / 2
    loss = observed * ops.binary_crossentropy(wanted, y_pred)
    return ops.sum(loss, axis=-1) / ops.maximum(ops.sum(observed, axis=-1), 1)


def masked_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Share of the observed labels of each example that are decided rightly at .5; see `masked_cross_entropy`."""
    ops = load_keras().ops
    observed = ops.cast(y_true >= 0, y_pred.dtype)
    right = ops.cast(ops.equal(y_true > 0.5, y_pred > 0.5), y_pred.dtype)
    return ops.sum(observed * right, axis=-1) / ops.maximum(ops.sum(observed, axis=-1), 1)


def check_labels(store: FeatureStore, segments: pd.DataFrame) -> None:
    """Make sure that what a network of several labels learns from has every class present and absent.

    Parameters
    ----------
    store : FeatureStore
        The features.
    segments : pandas.DataFrame
        The training part.

    Raises
    ------
    SplitError
        When a class is nowhere observed to be one of both.
    """
    labels = store.label_matrix(segments)
    for value, word in ((1, "present"), (0, "absent")):
        never = [name for name, column in zip(store.classes, labels.T, strict=True) if not (column == value).any()]
        if never:
            raise SplitError(
                f"{', '.join(never)} is observed {word} in no clip of the train part of the split; make the split "
                "again, or leave that class out."
            )


def train_model(
    folder: Path,
    store_folder: Path,
    split_path: Path,
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    seed: int,
    copies: Path | None = None,
    start: Start | None = None,
) -> Path:
    """Train one network and keep it in a run folder; a folder that already holds the same run is left as it is.

    Parameters
    ----------
    folder : Path
        Where to: `model.keras`, `preprocessing.json`, `history.csv`, `validation.npz`, `metrics.json` and, last,
        `manifest.json`.
    store_folder, split_path : Path
        Features and split.
    spec : str or tuple of Layer
        The network: a name of `models.SPECS` or a table.
    config : TrainConfig
        Epochs, batch, learning rate and so on.
    seed : int
        Decides the first weights, the order of the batches, the augmentation and the dropout.
    copies : Path, optional
        A store of augmented copies of the same clips; those of the training part are drawn as often as the originals.
    start : Start, optional
        What it begins with in the place of random weights, such as `finetune.Pretrained`.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    ConfigError
        When the recipe does not fit the features: softmax outputs for several labels a clip, layers of anything but
        log-mel spectrograms.
    SplitError
        When a class is missing in a part; of several labels a clip, in the training part.
    RunError
        When the training diverges, or the folder holds something else.

    Notes
    -----
    Adam (Kingma and Ba, 2015, arXiv:1412.6980) with cosine decay (Loshchilov and Hutter, 2017, arXiv:1608.03983).

    The weights of one epoch are kept. With softmax outputs it is the one that names most validation segments rightly,
    weighed as in training, so that with `class_weights` each class counts alike; among equals the one with the lower
    loss. The loss alone would keep too early a one: on few clips a network soon grows surer than it is right, its loss
    rises, and it goes on learning; how sure it is can be mended afterwards, see `calibration`. With sigmoid outputs it
    is the one with the least loss, since most labels are absent and naming none is right most of the time.
    """
    store = open_store(store_folder)
    split = load_split(split_path, store.segments)
    _check_recipe(store, config)
    if store.multilabel:
        check_labels(store, part_segments(store, split, "train"))
    else:
        check_classes(store.segments, split.parts, store.classes)
    copied = open_store(copies) if copies else None
    table = get_spec(spec) if isinstance(spec, str) else spec
    key = hash_json(
        {
            "code": code_hash("models"),
            "inputs": [store.fingerprint, split.fingerprint, copied and copied.fingerprint],
            "settings": [table, config, store.config.to_dict(), seed],
            "start": start and start.fingerprint,
            "versions": versions(),
        }
    )
    if is_finished(folder, key):
        return folder
    (folder / COMPLETE).unlink(missing_ok=True)
    began = time.monotonic()
    make_deterministic(seed)
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    scaler = start.scaler(store) if start else fit_scaler(store, train.row.to_numpy())
    model, history = _fit(store, scaler, train, validation, table, config, seed, copied, start)
    training_s = time.monotonic() - began

    with atomic_path(folder / "history.csv") as path:
        history.to_csv(path, index=False)
    metrics = {
        "best_epoch": int(history[RANK].idxmax()) + 1,
        "epochs": len(history),
        "training_s": round(training_s, 1),
    }
    made_of = {"key": key, "spec": table, "seed": seed, "train": config}
    layered = _answer_layered(model, store, scaler, validation, config) if config.augment.mix == "layers" else None
    write_network(folder, model, scaler, store=store, split=split, metrics=metrics, made_of=made_of, predicted=layered)
    return folder


def is_finished(folder: Path, key: str) -> bool:
    """Whether a run folder holds the training that has this key, whole.

    Raises
    ------
    RunError
        When it holds something else that is called a finished run, or a damaged one.
    """
    return (folder / COMPLETE).is_file() and read_manifest(folder)["key"] == key


def write_network(
    folder: Path,
    model: "keras.Model",
    scaler: Scaler,
    *,
    store: FeatureStore,
    split: Split,
    metrics: dict[str, Any],
    made_of: dict[str, Any],
    predicted: dict[str, Any] | None = None,
) -> None:
    """Keep a trained network in a run folder, with its answers to the validation part; the manifest comes last.

    Parameters
    ----------
    folder : Path
        Gets `model.keras`, `preprocessing.json`, `validation.npz`, `metrics.json` and `manifest.json`. For sigmoid
        outputs `preprocessing.json` also holds `thresholds`: from which probability on a class counts as present. They
        are chosen on validation; `metrics.json` names the classes that were not there both present and absent
        (`no_threshold`): theirs are .5.
    model, scaler
        The network and the scaling of its input.
    store, split
        Features and split that it was trained with.
    metrics : dict
        What `metrics.json` says besides validation scores and sizes.
    made_of : dict
        What the manifest says besides the fingerprints of store and split and the versions: `key`, `seed` and so on.
    predicted : dict, optional
        Its answers to what it is validated on, where that is not the clips of the validation part.
    """
    several = output_of(model) == "sigmoid"
    with atomic_path(folder / "model.keras") as path:
        model.save(path)
    preprocessing = {"features": store.config.to_dict(), "scaler": scaler.to_dict(), "classes": store.classes}
    if predicted is None:
        segments = part_segments(store, split, "validation")
        predicted = predict_clips(model.predict_on_batch, store, scaler, segments, several=several)
    if several:
        thresholds, unknown = best_thresholds(predicted["labels"], predicted["probabilities"])
        preprocessing["thresholds"] = thresholds.tolist()
        metrics = metrics | {"no_threshold": [store.classes[number] for number in unknown]}
        predicted = predicted | {"thresholds": thresholds}
    write_json(folder / "preprocessing.json", preprocessing)
    write_arrays(folder / "validation.npz", **predicted)
    sizes = {"parameters": model.count_params(), "multiply_adds": count_multiply_adds(model)}
    validation = (
        scores(predicted["labels"], predicted["probabilities"], predicted["thresholds"])
        if several
        else scores(predicted["targets"], predicted["probabilities"])
    )
    write_json(folder / "metrics.json", {"validation": validation, **metrics, **sizes})
    fingerprints = {"store": store.fingerprint, "split": split.fingerprint}
    write_json(folder / COMPLETE, {**made_of, **fingerprints, "versions": versions()})


def open_trained(folder: Path, store_folder: Path, split_path: Path) -> tuple[dict[str, Any], FeatureStore, Split]:
    """Open the features and the split that a network was trained with, and no others.

    Parameters
    ----------
    folder : Path
        Its run folder.
    store_folder, split_path : Path
        Features and split at hand.

    Returns
    -------
    tuple
        The network's manifest, the features, the split.

    Raises
    ------
    RunError
        When it was trained with another split or other features: what it is tested on could be what it learned from.
    """
    trained, store = read_manifest(folder), open_store(store_folder)
    split = load_split(split_path, store.segments)
    check_trained_with(folder, "split", trained["split"], split.fingerprint)
    check_trained_with(folder, "feature store", trained["store"], store.fingerprint)
    return trained, store, split


def check_trained_with(folder: Path, what: str, trained: str, given: str) -> None:
    """Refuse a network of another split or other features; see `open_trained`.

    Parameters
    ----------
    folder : Path
        Its run folder.
    what : str
        What the fingerprints are of.
    trained, given : str
        That in the run folder's manifest, and that of what is at hand.

    Raises
    ------
    RunError
        When they differ.
    """
    if trained != given:
        raise RunError(
            f"{folder} was trained with the {what} {trained}, not with {given}; run the notebook that trains it again."
        )


def load_model(folder: Path) -> tuple["keras.Model", Scaler]:
    """Load a network and the scaling that belongs to it from a run folder.

    Raises
    ------
    RunError
        When the folder is not a finished run, or a file in it is damaged.
    """
    scaler = load_scaler(folder)
    keras = load_keras()
    try:
        return keras.saving.load_model(folder / "model.keras", compile=False), scaler
    except Exception as error:  # Keras raises whatever the reader of the damaged part raises
        raise RunError(
            f"The network in {folder} cannot be read: model.keras is missing or damaged; {_AGAIN}"
        ) from error


def load_scaler(folder: Path) -> Scaler:
    """Load the scaling that a network was trained with from its run folder; see `load_model`."""
    read_manifest(folder)
    try:
        return Scaler.from_dict(read_json(folder / "preprocessing.json")["scaler"])
    except (InstrlibError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"The scaling in {folder} cannot be read: preprocessing.json is missing or damaged; {_AGAIN}"
        ) from error


def load_thresholds(folder: Path) -> np.ndarray | None:
    """Load from which probability on each class counts as present; None for softmax outputs; see `load_model`."""
    load_scaler(folder)
    thresholds = read_json(folder / "preprocessing.json").get("thresholds")
    return None if thresholds is None else np.asarray(thresholds, dtype=float)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a finished training was made of.

    Parameters
    ----------
    folder : Path
        Its run folder.

    Returns
    -------
    dict
        `key`, `seed`, `store` and `split` (fingerprints), and more.

    Raises
    ------
    RunError
        When the folder holds no finished training: none at all, a damaged manifest, or that of something else.
    """
    if not (folder / COMPLETE).is_file():
        raise RunError(f"{folder} holds no finished training run; run the notebook that trains it again.")
    try:
        manifest = read_json(folder / COMPLETE)
        if {"key", "seed", "store", "split"} <= set(manifest):
            return manifest
    except (InstrlibError, TypeError):
        pass
    raise RunError(f"{folder} is no training run: its {COMPLETE} is damaged or of something else; {_AGAIN}")


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
        "best_epoch": np.array([table[RANK].idxmax() + 1 for table in tables]),
    }


def summary(folder: Path) -> dict[str, Any]:
    """Return what a run folder says of its network, in one flat row: split, seed, epochs, validation scores, size."""
    kept, manifest = read_json(folder / "metrics.json"), read_manifest(folder)
    names = ("accuracy", "mean_average_precision", "macro_f1", "log_loss")
    validation = {f"validation_{name}": kept["validation"][name] for name in names if name in kept["validation"]}
    return {
        "split": manifest["split"],
        "seed": manifest["seed"],
        **{name: value for name, value in kept.items() if name not in ("validation", "no_threshold")},
        **validation,
    }


def part_segments(store: FeatureStore, split: Split, part: str) -> pd.DataFrame:
    """Return the segments of one part of the split, in the order of the store."""
    return store.segments[store.segments.clip_id.map(split.parts) == part]


def predict_clips(
    predict: Callable[[np.ndarray], np.ndarray],
    store: FeatureStore,
    scaler: Scaler | None,
    segments: pd.DataFrame,
    *,
    several: bool = False,
) -> dict[str, Any]:
    """Score clips: the mean of the probabilities of their segments.

    Parameters
    ----------
    predict : callable
        From features [shape=(n, n_bins, n_frames, 1)] to probabilities [shape=(n, n_classes)], such as a network's
        `predict_on_batch`.
    store, scaler
        See `store.open_store` and `load_model`.
    segments : pandas.DataFrame
        Rows of `store.segments`, all segments of a clip together.
    several : bool
        Whether the answers are those of sigmoid outputs. They are scored as several labels a clip, even where the
        corpus names one.

    Returns
    -------
    dict
        `clip_id`, `group` (str), `targets` (int) [shape=(n_clips,)] and `probabilities`
        [shape=(n_clips, n_classes)], sorted by clip; with several labels a clip also `labels`
        [shape=(n_clips, n_classes), float32], see `FeatureStore.label_matrix`.
    """
    by_segment = np.concatenate(
        [
            predict(store.read(rows, scaler))
            for rows in np.array_split(segments.row.to_numpy(), max(1, len(segments) // 128))
        ]
    )
    clips = segments.groupby("clip_id", sort=True).first()
    clip_index = np.searchsorted(clips.index.to_numpy(str), segments.clip_id.to_numpy(str))
    answers = {
        "clip_id": clips.index.to_numpy(str),
        "group": clips.group.to_numpy(str),
        "targets": clips.target.to_numpy(np.int64),
        "probabilities": clip_probabilities(by_segment, clip_index),
    }
    return answers | ({"labels": store.label_matrix(clips)} if several or store.multilabel else {})


def _check_recipe(store: FeatureStore, config: TrainConfig) -> None:
    if store.multilabel and config.output != "sigmoid":
        raise ConfigError('A clip of these features may have several labels: train with output="sigmoid".')
    if config.augment.mix == "layers" and store.config.kind != "log_mel":
        raise ConfigError(f'mix="layers" adds powers, so it needs log-mel spectrograms, not {store.config.kind}.')
    if config.augment.retake and store.config.kind != "log_mel":
        raise ConfigError(f"Other takes are drawn on log-mel spectrograms, not on {store.config.kind}; set retake=0.")


def _answer_layered(
    model: "keras.Model", store: FeatureStore, scaler: Scaler, validation: pd.DataFrame, config: TrainConfig
) -> dict[str, Any]:
    """Answer the layered examples that the epoch was chosen by; see `batches.validation_batches`."""
    batches = validation_batches(store, scaler, validation, weights=None, config=config)
    answered = [(model.predict_on_batch(x), y) for x, y, _ in (batches[number] for number in range(len(batches)))]
    labels = np.concatenate([y for _, y in answered])
    return {
        "probabilities": np.concatenate([probabilities for probabilities, _ in answered]).astype(float),
        "labels": np.where(labels >= 0, labels, np.nan).astype(np.float32),
    }


def _fit(
    store: FeatureStore,
    scaler: Scaler,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    table: tuple[Layer, ...],
    config: TrainConfig,
    seed: int,
    copied: FeatureStore | None = None,
    start: Start | None = None,
) -> tuple["keras.Model", pd.DataFrame]:
    keras = load_keras()
    n_classes = len(store.classes)
    weights = (
        None
        if config.output == "sigmoid"
        else class_weights(train.target.to_numpy(), n_classes, balanced=config.class_weights)
    )
    batches = training_batches(store, scaler, train, weights=weights, config=config, seed=seed, copied=copied)
    # Validation is weighed alike, so that the epoch is chosen by all classes and not by the largest.
    held_out = validation_batches(store, scaler, validation, weights=weights, config=config)

    model = build(table, (*store.config.shape, 1), n_classes, output=config.output)
    if start:
        start.begin(model, store, scaler, train, validation)
    rate = (config.schedule, config.learning_rate, config.epochs * len(batches))
    moved = (start.rates, start.frozen_norm) if start else (None, False)
    trained = _compiled(table, model.input_shape[1:], n_classes, config.output, config.label_smoothing, rate, *moved)
    _start(trained, model, config)
    keras.utils.set_random_seed(seed)  # wherever the numbers stand after compiling or not
    rank = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: logs.update({RANK: _rank(logs, config.output)}))
    stop = keras.callbacks.EarlyStopping(RANK, mode="max", patience=config.patience, restore_best_weights=True)
    callbacks = [rank, stop, keras.callbacks.TerminateOnNaN()]
    if config.schedule == "plateau":
        callbacks.append(keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=PLATEAU_EPOCHS))
    fitted = trained.fit(batches, validation_data=held_out, epochs=config.epochs, callbacks=callbacks, verbose=0)
    history = pd.DataFrame(fitted.history)
    # A loss can stay finite when the weights do not: its probabilities are clipped.
    if not (np.isfinite(history.loss).all() and all(np.isfinite(one).all() for one in trained.get_weights())):
        raise RunError(
            f"Training with seed {seed} diverged in epoch {len(history)}: its loss or its weights are not finite; "
            f"lower the learning rate ({config.learning_rate:g})."
        )
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    for layer, learned in zip(model.layers, trained.layers, strict=True):
        layer.set_weights(learned.get_weights())
    return model, history


def _rank(epoch: dict[str, float], output: str) -> float:
    """Return what an epoch is chosen by: of all the highest; see `train_model`."""
    if output == "sigmoid":
        return -epoch["val_loss"]
    return epoch["val_accuracy"] - TIES * epoch["val_loss"]


@functools.lru_cache(maxsize=1)
def _compiled(
    table: tuple[Layer, ...],
    shape: tuple[int, int, int],
    n_classes: int,
    output: str,
    label_smoothing: float,
    rate: tuple[str, float, int],
    rates: tuple[float, ...] | None = None,
    frozen_norm: bool = False,
) -> "keras.Model":
    """Build and compile a network for `_start`: half of a small training goes into the graph, seeds can share it."""
    keras = load_keras()
    schedule, learning_rate, n_steps = rate
    if output == "sigmoid":
        loss = functools.partial(masked_cross_entropy, label_smoothing=label_smoothing)
        metrics = [keras.metrics.MeanMetricWrapper(masked_accuracy, name="accuracy")]
    else:
        loss, metrics = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing), ["accuracy"]
    cosine = keras.optimizers.schedules.CosineDecay
    model = build(table, shape, n_classes, fused=True, output=output)
    for layer in model.layers:
        if frozen_norm and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    adam = keras.optimizers.Adam if rates is None else _adam_by_row(model, rates)
    model.compile(
        adam(cosine(learning_rate, n_steps) if schedule == "cosine" else learning_rate),
        loss,
        weighted_metrics=metrics,
        steps_per_execution=STEPS_AT_ONCE,
        jit_compile=False,  # Keras does not compile where operations must be deterministic
    )
    return model


def _adam_by_row(model: "keras.Model", rates: tuple[float, ...]) -> type:
    """Return Adam with a factor of the learning rate for each row of the table: a row that has 0 stays as it is."""
    factors = [
        rates[-1 if layer.name == "scores" else int(re.sub(r"\D", "", layer.name)) - 1]
        for layer in model.layers
        for _ in layer.trainable_variables
    ]

    class AdamByRow(load_keras().optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            super().update_step(gradient, variable, learning_rate * factors[self._get_variable_index(variable)])

    return AdamByRow


def _start(compiled: "keras.Model", first: "keras.Model", config: TrainConfig) -> None:
    """Give a compiled network all that a new one begins with, so that nothing of an earlier training is left.

    Parameters
    ----------
    compiled, first : keras.Model
        From one table; the second was just built, and gives its weights and the seeds of its dropout.
    config : TrainConfig
        Its learning rate is where a schedule begins that is not part of the graph.
    """
    for layer, new in zip(compiled.layers, first.layers, strict=True):
        for variable, value in zip(layer.variables, new.variables, strict=True):
            variable.assign(value)
    optimizer = compiled.optimizer
    for variable in optimizer.variables:
        variable.assign(load_keras().ops.zeros_like(variable))
    if config.schedule != "cosine":
        optimizer.learning_rate = config.learning_rate
