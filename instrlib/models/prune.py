"""Magnitude pruning: the smallest weights of a trained network become zero during fine-tuning.

The package tensorflow-model-optimization supports tf_keras networks only, so networks are rebuilt there and weights are
copied in both directions. Importing the package replaces `tf.keras` by tf_keras, so only worker processes import it.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from instrlib.core.cache import key
from instrlib.core.config import TrainConfig
from instrlib.core.io import RunError
from instrlib.core.parallel import parallel_map
from instrlib.data.store import Inputs
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.train import class_weights
from instrlib.models.trained import (
    COMPLETE,
    is_finished,
    load_model,
    open_trained,
    part_segments,
    read_test,
    write_network,
)
from instrlib.models.variants import Outcome, read_outcome, run_folder

if TYPE_CHECKING:
    import keras

RAMP_SHARE = 2 / 3
"""Share of the steps in which the progressive schedule reaches its sparsity; the rest recovers accuracy."""

SAME_OUTPUT = 1e-5
"""Largest difference of a probability between tf_keras and Keras 3 with the same weights."""

_NEVER_AGAIN = 2**40


@dataclass(frozen=True)
class Pruning:
    """Share of zeros in every kernel, 0 to below 1, and schedule of a pruning.

    "progressive": the sparsity follows `PolynomialDecay` over the first two thirds of the steps, and the kept weights
    are chosen at every step. "one step": they are chosen once, before the first step. Sparsity 0 is fine-tuning only:
    the control for longer training.
    """

    sparsity: float
    schedule: Literal["progressive", "one step"] = "progressive"

    @property
    def name(self) -> str:
        """Name in tables and figures."""
        return f"{100 * self.sparsity:g} %, {self.schedule}" if self.sparsity else "not pruned, fine-tuned"


def prune_networks(
    folder: Path,
    dense: Sequence[Sequence[Path]],
    prunings: Sequence[Pruning],
    *,
    inputs: Inputs,
    config: TrainConfig,
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Prune trained networks in several ways and test each result; finished ones are kept.

    `dense` are run folders of the networks, first by seed, then by fold; `inputs` are those of their training. `config`
    gives epochs, batch size, learning rate (cosine decay to 0), class weights and label smoothing of the fine-tuning.
    Augmentation and early stopping are not used, because the schedule has to finish. Outcomes are keyed by the names of
    the prunings.
    """
    places = {
        one: [
            [run_folder(folder, one.name, fold=fold, seed=seed) for fold in range(len(by_fold))]
            for seed, by_fold in enumerate(dense)
        ]
        for one in prunings
    }
    tasks = []
    for kind, (seed, by_fold) in itertools.product(("progressive", "one step"), enumerate(dense)):
        for fold, (network, split) in enumerate(zip(by_fold, inputs.splits, strict=True)):
            own = {one: places[one][seed][fold] for one in prunings if one.schedule == kind}
            tasks.append((network, own, inputs.store.folder, split, config))
    for _ in parallel_map(prune, tasks, workers=workers, describe="pruning", isolate=True):
        pass
    kept = {"store": inputs.store.folder, "splits": inputs.splits, "workers": workers}
    return {one.name: read_outcome(places[one], **kept) for one in prunings}


def prune(
    dense: Path, prunings: Mapping[Pruning, Path], store_folder: Path, split_path: Path, config: TrainConfig
) -> None:
    """Prune one trained network in several ways, each into its run folder, and test the results.

    Call it in a separate process, because it imports the pruning package. Raises `RunError` if `dense` is damaged or
    does not match, if the loss is not finite, or if Keras 3 gives other outputs. The weights with the smallest
    magnitudes of each layer are removed first [1]_; the sparsity grows as in [2]_. All fine-tunings of a network share
    seed, batches and steps. The last epoch is kept, because earlier ones are less sparse.

    References
    ----------
    .. [1] S. Han, J. Pool, J. Tran, W. Dally, "Learning both weights and connections for efficient neural networks",
       NIPS 2015. arXiv:1506.02626
    .. [2] M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017.
       arXiv:1710.01878
    """
    trained, store, split = open_trained(dense, store_folder, split_path)
    keys = {one: key("models", dense=trained["key"], pruning=one, config=config) for one in prunings}
    todo = [one for one, folder in prunings.items() if not is_finished(folder, keys[one])]
    if not todo:
        return
    seed, table, n_classes = trained["seed"], tuple(Layer(**row) for row in trained["spec"]), len(store.classes)
    model, scaler = load_model(dense)
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    targets, rows = train.target.to_numpy(), train.row.to_numpy()
    weights = class_weights(targets, n_classes, balanced=config.class_weights)[targets].astype(np.float32)
    y = np.eye(n_classes, dtype=np.float32)[targets]
    batches = max(1, len(rows) // config.batch_size), min(config.batch_size, len(rows))

    import tf_keras
    from tensorflow_model_optimization.sparsity.keras import strip_pruning

    network = build(table, (*store.config.shape, 1), n_classes, keras=tf_keras)
    network.set_weights(model.get_weights())
    wrapped, settings = _wrapped(network, config, config.epochs * batches[0])
    # Every fine-tuning begins with the same values, so that it does not depend on those before it.
    variables = [*wrapped.variables, *wrapped.optimizer.variables]
    initial = [variable.numpy() for variable in variables]
    for pruning in todo:
        folder, began = prunings[pruning], time.monotonic()
        (folder / COMPLETE).unlink(missing_ok=True)
        once = pruning.schedule == "one step"
        values = [pruning.sparsity * once, pruning.sparsity, _NEVER_AGAIN if once else 1]
        for variable, value in zip([*variables, *settings], [*initial, *values], strict=True):
            variable.assign(value)
        tf_keras.utils.set_random_seed(seed)
        losses = []
        for epoch in range(config.epochs):
            order = np.random.default_rng((seed, epoch)).permutation(len(rows))[: np.prod(batches)]
            chosen = np.sort(order.reshape(batches), axis=1)
            of_batch = [wrapped.train_on_batch(store.read(rows[one], scaler), y[one], weights[one]) for one in chosen]
            losses.append(float(np.mean(of_batch)))
        for layer in wrapped.layers:
            if hasattr(layer, "pruning_obj"):
                layer.pruning_obj.weight_mask_op()  # the last step changed the zeros again
        stripped = strip_pruning(wrapped)
        model.set_weights(stripped.get_weights())
        x = store.read(validation.row.to_numpy()[:64], scaler)
        outputs = [model.predict_on_batch(x), np.asarray(stripped(x, training=False))]
        # The loss clips probabilities, so it can be finite while the outputs are not.
        if not all(np.isfinite(values).all() for values in (losses, *outputs)):
            raise RunError(f"Fine-tuning {dense} ({pruning.name}) diverged; lower the learning rate.")
        if (difference := np.abs(outputs[0] - outputs[1]).max()) > SAME_OUTPUT:
            raise RunError(f"Pruning {dense}: outputs of Keras 3 and tf_keras differ by {difference:.1e}.")
        metrics = {
            "epochs": config.epochs,
            "loss": losses,
            "nonzero": count_nonzero(model),
            "nonzero_multiply_adds": count_multiply_adds(model, nonzero=True),
            "training_s": round(time.monotonic() - began, 1),
        }
        made_of = {"key": keys[pruning], "pruning": pruning, "dense": trained["key"], "spec": table, "seed": seed}
        made_of["train"] = config
        write_network(folder, model, scaler, store=store, split=split, metrics=metrics, made_of=made_of)
        read_test(folder, store_folder, split_path)


def count_nonzero(model: "keras.Model") -> int:
    """Return the number of non-zero weights: kernels, biases and normalisation."""
    return int(sum(np.count_nonzero(weight) for weight in model.get_weights()))


def _wrapped(network: Any, config: TrainConfig, n_steps: int) -> tuple[Any, list[Any]]:
    """Return a compiled network with pruning wrappers; first sparsity, last one and frequency of its schedule."""
    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.sparsity.keras import PolynomialDecay, prune_low_magnitude

    tf.config.experimental.enable_op_determinism()
    schedule = PolynomialDecay(0.0, 0.5, begin_step=1, end_step=max(2, int(RAMP_SHARE * n_steps)))
    # Variables, so that all sparsities and both schedules share one graph.
    settings = [tf.Variable(value, trainable=False) for value in (0.0, 0.0, np.int64(1))]
    schedule.initial_sparsity, schedule.final_sparsity, schedule.frequency = settings

    def wrap(layer: Any) -> Any:
        return prune_low_magnitude(layer, schedule) if hasattr(layer, "kernel") else layer

    wrapped = tf_keras.models.clone_model(network, clone_function=wrap)
    rate = tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, n_steps)
    loss = tf_keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    wrapped.compile(tf_keras.optimizers.Adam(rate), loss)
    wrapped.optimizer.build(wrapped.trainable_variables)
    for layer in wrapped.layers:
        if hasattr(layer, "pruning_step"):
            layer.pruning_step.assign(0)
    return wrapped, settings
