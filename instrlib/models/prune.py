"""Magnitude pruning: the smallest weights of a trained network become zero during fine-tuning.

The package tensorflow-model-optimization supports tf_keras networks only, so networks are rebuilt there and weights are
copied in both directions. Importing the package replaces `tf.keras` by tf_keras, so only worker processes import it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from instrlib.core.cache import key
from instrlib.core.io import RunError
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.train import class_weights
from instrlib.models.trained import is_finished, load_model, open_trained, part_segments, predict_clips, write_network
from instrlib.models.variants import Variant

RAMP_SHARE = 2 / 3
"""Share of the steps in which the progressive schedule reaches its sparsity; the rest recovers accuracy."""

SAME_OUTPUT = 1e-5
"""Largest difference of a probability between tf_keras and Keras 3 with the same weights."""

_NEVER_AGAIN = 2**40


@dataclass(frozen=True)
class Pruning:
    """Share of zeros in every kernel, 0 to below 1, and schedule of a pruning.

    "progressive": the sparsity grows over the first two thirds of the steps, and the kept weights are chosen at every
    step. "one step": they are chosen once, before the first step. Sparsity 0 is the control: fine-tuning only.
    """

    sparsity: float
    schedule: Literal["progressive", "one step"] = "progressive"

    @property
    def name(self) -> str:
        """Name in tables and figures."""
        return f"{100 * self.sparsity:g} %, {self.schedule}" if self.sparsity else "not pruned, fine-tuned"


def prune(
    dense: Mapping[tuple[int, Path], Path], pruning: Pruning, folder: Path, variant: Variant, split: Path, seed: int
) -> None:
    """Prune a trained network into a run folder, unless it is there: `Variant.train` without `dense` and `pruning`.

    `dense` are the run folders of trained networks by seed and split. The config of the variant holds for the
    fine-tuning, with cosine decay and without augmentation and early stopping: the schedule has to finish. The smallest
    weights of each layer are removed (Han et al., 2015, arXiv:1506.02626); the sparsity grows as in Zhu and Gupta
    (2017, arXiv:1710.01878). The last epoch is kept, because earlier ones are less sparse.

    Raises `RunError` if the network is damaged or does not match, if the loss is not finite, or if Keras 3 gives other
    outputs.
    """
    source, config = dense[seed, split], variant.config
    trained, store, parts = open_trained(source, variant.store, split)
    made_of = {"key": key("models", dense=trained["key"], pruning=pruning, config=config), "pruning": pruning}
    if is_finished(folder, made_of["key"]):
        return
    began, table, n_classes = time.monotonic(), tuple(Layer(**row) for row in trained["spec"]), len(store.classes)
    model, scaler = load_model(source)
    train, validation = (part_segments(store, parts, part) for part in ("train", "validation"))
    targets, rows = train.target.to_numpy(), train.row.to_numpy()
    y = np.eye(n_classes, dtype=np.float32)[targets]
    weights = class_weights(targets, n_classes, balanced=config.class_weights)[targets].astype(np.float32)
    size = min(config.batch_size, len(rows))
    n_steps = config.epochs * (len(rows) // size)

    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    tf.config.experimental.enable_op_determinism()
    tf_keras.utils.set_random_seed(seed)
    network = build(table, (*store.config.shape, 1), n_classes, keras=tf_keras)
    network.set_weights(model.get_weights())
    once = pruning.schedule == "one step"
    ends = pruning.sparsity * once, pruning.sparsity, 1, max(2, int(RAMP_SHARE * n_steps))
    schedule = sparsity.PolynomialDecay(*ends, frequency=_NEVER_AGAIN if once else 1)
    wrapped = tf_keras.models.clone_model(
        network,
        clone_function=lambda one: sparsity.prune_low_magnitude(one, schedule) if hasattr(one, "kernel") else one,
    )
    rate = tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, n_steps)
    loss = tf_keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    wrapped.compile(tf_keras.optimizers.Adam(rate), loss)
    masks, losses = sparsity.UpdatePruningStep(), []
    masks.set_model(wrapped)
    masks.on_train_begin()
    for epoch in range(config.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))[: len(rows) // size * size]
        batches = np.sort(order.reshape(-1, size), axis=1)
        steps = [wrapped.train_on_batch(store.read(rows[one], scaler), y[one], weights[one]) for one in batches]
        losses.append(float(np.mean(steps)))
    masks.on_epoch_end(None)  # the last step changed the zeros again
    stripped = sparsity.strip_pruning(wrapped)
    model.set_weights(stripped.get_weights())
    x = store.read(validation.row.to_numpy()[:64], scaler)
    outputs = [model.predict_on_batch(x), np.asarray(stripped(x, training=False))]
    # The loss clips probabilities, so it can be finite while the outputs are not.
    if not all(np.isfinite(values).all() for values in (losses, *outputs)):
        raise RunError(f"Fine-tuning {source} ({pruning.name}) diverged; lower the learning rate.")
    if (difference := np.abs(outputs[0] - outputs[1]).max()) > SAME_OUTPUT:
        raise RunError(f"Pruning {source}: outputs of Keras 3 and tf_keras differ by {difference:.1e}.")
    metrics = {
        "epochs": config.epochs,
        "loss": losses,
        "nonzero": int(sum(np.count_nonzero(weight) for weight in model.get_weights())),
        "nonzero_multiply_adds": count_multiply_adds(model, nonzero=True),
        "training_s": round(time.monotonic() - began, 1),
    }
    made_of |= {"dense": trained["key"], "spec": table, "seed": seed, "train": config}
    about = {"store": store, "split": parts, "metrics": metrics, "made_of": made_of}
    predicted = predict_clips(model.predict_on_batch, store, scaler, validation)
    write_network(folder, model, scaler, **about, predicted=predicted)
