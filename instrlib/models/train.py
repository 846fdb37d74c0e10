"""Training of every network: an epoch is a loop in TensorFlow's graph over augmented batches."""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from instrlib.audio.augment import augment
from instrlib.audio.features import Scaler, mel_edges_hz, scale, silence
from instrlib.core.cache import key as cache_key
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError, RunError, SplitError, in_parts
from instrlib.core.parallel import load_keras
from instrlib.data.splits import check_classes, load_split
from instrlib.data.store import FeatureStore, fit_scaler, open_store, rows_of_copies
from instrlib.models.layers import SPECS, Layer, build, initialise
from instrlib.models.trained import is_finished, part_segments, predict_clips, read_test, write_network

if TYPE_CHECKING:
    import keras

    from instrlib.models.transfer import Pretrained

CHUNK_BYTES = 2**27  # larger training parts are read chunk by chunk in each epoch, with the same result
CURVE_POINTS = 10  # validations of a training that does not need one after each epoch
PLATEAU_EPOCHS = 3  # without a better validation loss, then the schedule "plateau" halves the learning rate
_ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}


@dataclass(frozen=True)
class Examples:
    """Training or validation examples.

    `versions` are pairs of features before scaling [shape=(n_rows, n_bins, n_frames)], possibly memory-mapped, and the
    row of each example [shape=(n,)]; each epoch draws one version of each example. `labels` [shape=(n, n_classes)] are
    shares of the classes; or 1 present, 0 absent, NaN not observed.
    """

    versions: tuple[tuple[np.ndarray, np.ndarray], ...]
    labels: np.ndarray
    config: FeatureConfig
    scaler: Scaler | None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return features before scaling (float32); index `version * len(self) + number` is a version of an example."""
        features = np.empty((*places.shape, *self.config.shape), np.float32)
        for version, (stored, rows) in enumerate(self.versions):
            chosen = places // len(self) == version
            features[chosen] = stored[rows[places[chosen] % len(self)]]
        return features

    def in_memory(self) -> "Examples":
        """Return the same examples in memory, unless they exceed `CHUNK_BYTES`."""
        if 4 * len(self) * len(self.versions) * math.prod(self.config.shape) > CHUNK_BYTES:
            return self
        versions = tuple((stored[rows].astype(np.float32), np.arange(len(self))) for stored, rows in self.versions)
        return dataclasses.replace(self, versions=versions)

    def answers(self, predict: Callable[[np.ndarray], Any]) -> np.ndarray:
        """Return the output of `predict` for all examples; it gets scaled inputs [n, n_bins, n_frames, 1]."""
        parts = in_parts(np.arange(len(self)), 256)
        inputs = (scale(self.read(part), self.config, self.scaler)[..., None] for part in parts)
        return np.concatenate([np.asarray(predict(x)) for x in inputs])

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """Arguments of `audio.augment.augment`."""
        return {"floor": silence(self.config), "hop_s": self.config.hop_s, "edges_hz": mel_edges_hz(self.config)}


def validation_examples(store: FeatureStore, segments: pd.DataFrame, scaler: Scaler, config: TrainConfig) -> Examples:
    """Return the validation examples: segments, or fixed mixtures of them, one starting from each segment."""
    rows = segments.row.to_numpy()
    plain = Examples(((store.features, rows),), store.label_matrix(segments), store.config, scaler)
    if config.augment.mix != "mixtures":
        return plain
    always = dataclasses.replace(config.augment, share=1.0, recording=0.0, time_masks=0, frequency_masks=0)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(plain))  # partners come from the same batch, which must contain several classes
    batches = np.array_split(order, -(-len(order) // 64))
    mixed = [augment(plain.read(one), plain.labels[one], always, **plain.about, rng=rng) for one in batches]
    x, y = map(np.concatenate, zip(*mixed, strict=True))
    return dataclasses.replace(plain, versions=((x, np.arange(len(x))),), labels=y)


class Graph:
    """A network with its compiled epoch and prediction, shared by the trainings of one layer table."""

    def __init__(
        self,
        table: tuple[Layer, ...],
        shape: tuple[int, int],
        n_classes: int,
        output: str,
        standardise: bool,  # each example; see `features.scale`, scaling "segment"
        rates: tuple[float, ...] = (),  # see `transfer.Pretrained`
        frozen_norm: bool = False,
    ) -> None:
        load_keras()
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        self.model = build(table, (*shape, 1), n_classes, output=output)
        *self._body, self._last = self.model.layers[1:]
        self._output, self._standardise, self._frozen_norm = output, standardise, frozen_norm
        self._learned = []
        for layer in self.model.layers:
            if not (frozen_norm and hasattr(layer, "moving_mean")):
                row = int(re.sub(r"\D", "", layer.name) or 0) - 1  # of the table; "scores" comes last
                rate = rates[row] if rates else 1.0
                self._learned += [(variable.value, rate) for variable in layer.trainable_variables]
        self._moments = [[tf.Variable(tf.zeros_like(one)) for one, _ in self._learned] for _ in range(2)]
        self._step = tf.Variable(0.0)
        steps = [[None, None, *shape], [None, None, n_classes], [None, None], [None]]
        signature = [*map(tf.TensorSpec, steps), tf.TensorSpec([], tf.int32), *[tf.TensorSpec([shape[0], 1])] * 2]
        # Without autograph, which would read this file even if it was edited after the import.
        self.epoch = tf.function(self._epoch, signature, autograph=False)
        inputs = [tf.TensorSpec([None, *shape, 1])]
        self.predict = tf.function(lambda x: self.model(x, training=False), inputs, autograph=False)

    def reset(self, seed: int) -> None:
        """Restart: weights drawn from the seed, and an optimizer without state."""
        initialise(self.model, seed)
        for one in (self._step, *self._moments[0], *self._moments[1]):
            one.assign(np.zeros(one.shape, np.float32))

    def _epoch(self, x: Any, targets: Any, weights: Any, rates: Any, seed: Any, slope: Any, offset: Any) -> Any:
        """Take one step per batch; return sums of the weighted loss, of weights of correct examples, and of weights."""
        import tensorflow as tf

        def one_step(step: Any, totals: Any) -> tuple[Any, Any]:
            inputs = x[step] * slope + offset
            if self._standardise:
                mean, variance = tf.nn.moments(inputs, [1, 2], keepdims=True)
                inputs = (inputs - mean) / tf.where(variance > 0, tf.sqrt(variance), 1.0)
            with tf.GradientTape() as tape:
                scores = self._scores(inputs[..., None], seed)
                losses, right = self.losses(targets[step], scores)
                loss = tf.reduce_mean(weights[step] * losses)
            gradients = tape.gradient(loss, [variable for variable, _ in self._learned])
            self._step.assign_add(1.0)
            settings = _ADAM | {f"{name}_power": _ADAM[name] ** self._step for name in ("beta1", "beta2")}
            for (variable, factor), gradient, m, v in zip(self._learned, gradients, *self._moments, strict=True):
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle, m=m.handle, v=v.handle, lr=factor * rates[step], grad=gradient, **settings
                )
            return step + 1, totals + tf.reduce_sum(weights[step] * [losses, right, tf.ones_like(losses)], axis=1)

        n_steps = tf.shape(x)[0]
        return tf.while_loop(lambda step, _: step < n_steps, one_step, [0, tf.zeros([3])])[1]

    def _scores(self, x: Any, seed: Any) -> Any:
        """Return the logits of the training mode: batch statistics and dropout."""
        import tensorflow as tf

        for number, layer in enumerate(self._body):
            if hasattr(layer, "moving_mean"):
                x = layer(x, training=False) if self._frozen_norm else _normalised(layer, x)
            elif hasattr(layer, "rate"):  # dropout
                seeds = [seed + number, tf.cast(self._step, tf.int32)]
                x = tf.nn.experimental.stateless_dropout(x, layer.rate, seed=seeds)
            else:
                x = layer(x)
        return tf.matmul(x, self._last.kernel.value) + self._last.bias.value

    def losses(self, targets: Any, scores: Any) -> tuple[Any, Any]:
        """Return the loss of each example in nats, and how correct it is, from 0 to 1."""
        import tensorflow as tf

        if self._output == "softmax":
            right = tf.equal(tf.argmax(targets, -1), tf.argmax(scores, -1))
            return tf.nn.softmax_cross_entropy_with_logits(targets, scores), tf.cast(right, tf.float32)
        observed = tf.cast(targets >= 0, tf.float32)
        losses = observed * tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(targets, 0.0), scores)
        right = observed * tf.cast(tf.equal(targets > 0.5, scores > 0), tf.float32)
        n_observed = tf.maximum(tf.reduce_sum(observed, -1), 1.0)
        return tf.reduce_sum(losses, -1) / n_observed, tf.reduce_sum(right, -1) / n_observed


def _normalised(layer: "keras.layers.BatchNormalization", x: Any) -> Any:
    """Normalise a batch as Keras does, images by TensorFlow's fused kernel."""
    import tensorflow as tf

    if len(x.shape) != 4:
        return layer(x, training=True)
    x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, layer.gamma.value, layer.beta.value, epsilon=layer.epsilon, is_training=True
    )
    n = tf.cast(tf.size(x) / tf.shape(x)[-1], tf.float32)  # the kernel returns the sample variance
    for kept, new in ((layer.moving_mean, mean), (layer.moving_variance, variance * (n - 1) / n)):
        kept.value.assign(layer.momentum * kept.value + (1 - layer.momentum) * new)
    return x


compiled = functools.lru_cache(maxsize=4)(Graph)  # building a graph takes half the time of a small training


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

    `begin` sets initial weights; `moved` contains `rates` and `frozen_norm` of `transfer.Pretrained`. Returns the
    graph, whose `model` is the trained network until the next training of this process; one row per epoch with `epoch`,
    `loss`, `accuracy`, `val_loss` and `val_accuracy` (NaN without validation); and the epoch that is kept, from 1.
    """
    (n, n_classes), shape, standardise = known.labels.shape, known.config.shape, known.config.scaling == "segment"
    graph = compiled(table, shape, n_classes, config.output, standardise, *moved)
    graph.reset(seed)
    known = known.in_memory()
    if begin:
        begin(graph.model)
    ends = np.stack([np.zeros((shape[0], 1)), np.ones((shape[0], 1))]).astype(np.float32)
    if not standardise:  # otherwise the graph scales
        ends = scale(ends, known.config, known.scaler)
    weights = None
    if config.output == "softmax":
        weights = class_weights(known.labels.argmax(axis=1), n_classes, balanced=config.class_weights)
    n_steps = max(1, n // config.batch_size)
    each_epoch = config.patience or config.schedule == "plateau"
    every = 1 if each_epoch else max(1, config.epochs // CURVE_POINTS)
    rows: list[dict[str, float]] = []
    rank, best, kept, halvings = -np.inf, 0, None, 0
    for epoch in range(config.epochs):
        rates = np.full(n_steps, config.learning_rate / 2**halvings, np.float32)
        if config.schedule == "cosine":
            done = (epoch + np.arange(n_steps, dtype=np.float32) / n_steps) / config.epochs
            rates *= 0.5 + 0.5 * np.cos(np.pi * done)
        totals = np.zeros(3)
        for steps, *given in _chunks(known, config, weights, n_steps, (seed, epoch)):
            totals += graph.epoch(*given, rates[steps], np.int32(seed), ends[1] - ends[0], ends[0]).numpy()
        n_seen = n_steps * min(config.batch_size, n)
        row = {"epoch": epoch + 1, "loss": totals[0] / n_seen, "accuracy": totals[1] / totals[2]}
        rows.append(row)
        if not np.isfinite(row["loss"]):
            break
        if epoch % every == (config.epochs - 1) % every:
            row |= _validation(held_out, graph, weights, config)
            if not config.patience or row["rank"] > rank:
                rank, best, kept = row["rank"], epoch + 1, graph.model.get_weights()
            if config.patience and epoch + 1 - best >= config.patience:
                break
        if config.schedule == "plateau":
            since = epoch - int(np.argmin([one["val_loss"] for one in rows]))
            halvings += since > 0 and since % PLATEAU_EPOCHS == 0
    if not (kept and all(np.isfinite(one).all() for one in (*kept, *graph.model.get_weights()))):
        rate = f"{config.learning_rate:g}"
        raise RunError(f"Training with seed {seed} diverged in epoch {len(rows)}; lower the learning rate ({rate}).")
    graph.model.set_weights(kept)
    return graph, pd.DataFrame(rows, columns=["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]), best


def _chunks(
    known: Examples, config: TrainConfig, weights: np.ndarray | None, n_steps: int, seed: tuple[int, int]
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the steps of an epoch chunk by chunk: which, features, targets, and weights of the examples."""
    n, size = len(known), min(config.batch_size, len(known))
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)[: n_steps * size].reshape(n_steps, size)
    order = order + n * rng.integers(len(known.versions), size=order.shape)
    at_once = max(1, CHUNK_BYTES // known.read(order[0]).nbytes)
    for first in range(0, n_steps, at_once):
        places = order[first : first + at_once]
        x, labels = known.read(places), known.labels[places % n]
        for step in range(len(places)) if config.augment != AugmentConfig() else ():
            rng = np.random.default_rng((*seed, first + step))
            x[step], labels[step] = augment(x[step], labels[step], config.augment, **known.about, rng=rng)
        yield slice(first, first + at_once), x, *_targets(labels, weights, config, known.labels)


def _targets(
    labels: np.ndarray, weights: np.ndarray | None, config: TrainConfig, all_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return smoothed targets, -1 where a label was not observed, and the weight of each example."""
    n_classes = 2 if weights is None else labels.shape[-1]
    targets = (1 - config.label_smoothing) * labels + config.label_smoothing / n_classes
    if weights is None:
        observed = np.isfinite(labels)
        n_observed = np.isfinite(all_labels).sum(axis=1).mean()  # equal weight for every observed label
        targets, weighted = np.where(observed, targets, -1), observed.sum(axis=-1) / n_observed
    else:
        weighted = labels @ weights
    return targets.astype(np.float32), weighted.astype(np.float32)


def _validation(held_out: Examples, graph: Graph, weights: np.ndarray | None, config: TrainConfig) -> dict[str, float]:
    targets, weighted = _targets(held_out.labels, weights, config, held_out.labels)
    likely = np.clip(held_out.answers(graph.predict), 1e-7, 1 - 1e-7)
    scores = np.log(likely) if config.output == "softmax" else np.log(likely) - np.log1p(-likely)
    losses, right = (values.numpy() for values in graph.losses(targets, scores))
    loss, accuracy = float((weighted * losses).mean()), float(np.average(right, weights=weighted))
    rank = accuracy - 1e-6 * loss if config.output == "softmax" else -loss  # the loss decides between equal accuracies
    return {"val_loss": loss, "val_accuracy": accuracy, "rank": rank}


@dataclass(frozen=True)
class Variant:
    """One way to train a network; corpora with several labels per clip get sigmoid outputs."""

    name: str
    spec: str | tuple[Layer, ...]  # a name of `layers.SPECS` or a table
    config: TrainConfig
    store: Path  # folder of the features
    copies: Path | None = None  # folder of a store of augmented copies; each epoch draws the original or one of them
    splits: tuple[Path, ...] | None = None  # if its clips differ from those of the other variants
    seeds: tuple[int, ...] | None = None  # if it has fewer
    start: "Pretrained | None" = None  # replaces random initial weights
    train: Callable[[Path, "Variant", Path, int], None] | None = (
        None  # replaces the training, such as `compression.prune`
    )


def train_model(folder: Path, variant: Variant, split_path: Path, seed: int, *, test: bool = False) -> Path:
    """Train a network on the training part of a split and write it to a run folder, unless it is there already.

    The optimizer is Adam (Kingma and Ba, 2015, arXiv:1412.6980), by default with cosine decay (Loshchilov and Hutter,
    2017, arXiv:1608.03983). The last epoch is kept; with `patience` the best one on validation, by accuracy (softmax)
    or loss (sigmoid). `test` adds `trained.read_test`, which affects no choice.
    """
    store, config, start = open_store(variant.store), variant.config, variant.start
    split = load_split(split_path, store.segments)
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    if store.config.kind != "log_mel" and (config.augment.mix == "mixtures" or config.augment.recording):
        raise ConfigError(f"Mixtures and recording augmentation require log-mel spectrograms, not {store.config.kind}.")
    if store.multilabel:
        config = dataclasses.replace(config, output="sigmoid")
        columns = zip(store.classes, store.label_matrix(train).T, strict=True)
        if unclear := [name for name, column in columns if not {0, 1} <= set(column)]:
            names = ", ".join(unclear)
            raise SplitError(f"No training clip shows {names}, or all that observe it do; split again or leave it out.")
    else:
        check_classes(store.segments, split.parts, store.classes)
    copied = open_store(variant.copies) if variant.copies else None
    table = SPECS[variant.spec] if isinstance(variant.spec, str) else variant.spec
    inputs = [store.fingerprint, split.fingerprint, copied and copied.fingerprint, start and start.fingerprint]
    key = cache_key("models", inputs=inputs, settings=[table, config, store.config, seed])
    if is_finished(folder, key):
        return folder
    began = time.monotonic()
    rows = train.row.to_numpy()
    scaler = start.scaler(store) if start else fit_scaler(store, rows)
    changed = ((copied.features, one) for one in rows_of_copies(train, copied).T) if copied else ()
    known = Examples(((store.features, rows), *changed), store.label_matrix(train), store.config, scaler)
    held_out = validation_examples(store, validation, scaler, config)
    begin = start and functools.partial(start.begin, store=store, scaler=scaler, train=train, validation=validation)
    moved = (start.rates, start.frozen_norm) if start else ()
    graph, history, best = fit(table, known, held_out, config, seed, begin=begin, moved=moved)
    metrics = {"best_epoch": best, "epochs": len(history), "training_s": round(time.monotonic() - began, 1)}
    if config.augment.mix == "mixtures":
        predicted = {"probabilities": held_out.answers(graph.predict).astype(float), "labels": held_out.labels}
    else:
        predicted = predict_clips(graph.predict, store, scaler, validation, several=config.output == "sigmoid")
    made_of = {"key": key, "spec": table, "seed": seed, "train": config}
    write_network(folder, graph.model, scaler, store, split, metrics, made_of, predicted, history)
    if test:
        read_test(folder, variant.store, split_path, predict=graph.predict)
    return folder


def class_weights(targets: np.ndarray, n_classes: int, *, balanced: bool = True) -> np.ndarray:
    """Return class weights inverse to the shares, or all 1; those of classes without examples are 0."""
    weights, present = np.zeros(n_classes), np.unique(targets)
    weights[present] = compute_class_weight("balanced" if balanced else None, classes=present, y=targets)
    return weights
