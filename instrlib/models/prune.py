"""Magnitude pruning: the smallest weights of a trained network become zero during fine-tuning.

The package tensorflow-model-optimization supports tf_keras networks only, so networks are rebuilt there and weights are
copied in both directions. Importing the package replaces `tf.keras` by tf_keras, so only worker processes import it.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from instrlib.core.cache import key
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, RunError
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.models.answers import read_test
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.train import class_weights, make_deterministic
from instrlib.models.trained import (
    COMPLETE,
    is_finished,
    load_model,
    open_trained,
    part_segments,
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

Schedule = Literal["progressive", "one step"]


@dataclass(frozen=True)
class Pruning:
    """Sparsity and schedule of a pruning.

    Attributes
    ----------
    sparsity : float
        Share of zeros in every kernel, 0 to below 1. Sparsity 0 is fine-tuning only: the control for longer training.
    schedule : {"progressive", "one step"}
        "progressive": the sparsity follows `PolynomialDecay` over the first two thirds of the steps, and the kept
        weights are chosen at every step. "one step": they are chosen once, before the first step.
    """

    sparsity: float
    schedule: Schedule = "progressive"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"The sparsity must be at least 0 and below 1, not {self.sparsity!r}.")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(f"Unknown schedule {self.schedule!r}; choose one of {', '.join(get_args(Schedule))}.")

    @property
    def name(self) -> str:
        """Name in tables and figures.

        Examples
        --------
        >>> Pruning(0.8).name, Pruning(0).name
        ('80 %, progressive', 'not pruned, fine-tuned')
        """
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

    def places(pruning: Pruning) -> list[list[Path]]:
        return [
            [run_folder(folder, pruning.name, fold=fold, seed=seed) for fold in range(len(by_fold))]
            for seed, by_fold in enumerate(dense)
        ]

    tasks = []
    for kind, (seed, by_fold) in itertools.product(get_args(Schedule), enumerate(dense)):
        for fold, (network, split) in enumerate(zip(by_fold, inputs.splits, strict=True)):
            own = {one: places(one)[seed][fold] for one in prunings if one.schedule == kind}
            tasks.append((network, own, inputs.store.folder, split, config))
    for _ in parallel_map(prune, tasks, workers=workers, describe="pruning", isolate=True):
        pass
    kept = {"store": inputs.store.folder, "splits": inputs.splits, "workers": workers}
    return {pruning.name: read_outcome(places(pruning), **kept) for pruning in prunings}


def prune(
    dense: Path, prunings: Mapping[Pruning, Path], store_folder: Path, split_path: Path, config: TrainConfig
) -> None:
    """Prune one trained network in several ways, each into its run folder, and test the results.

    Call it in a separate process, because it imports the pruning package. Raises `RunError` if `dense` is damaged or
    does not match, if the loss or the sparsity is wrong, or if Keras 3 gives other outputs. The weights with the
    smallest magnitudes of each layer are removed first [1]_; the sparsity grows as in [2]_. All fine-tunings of a
    network share seed, batches and steps. The last epoch is kept, because earlier ones are less sparse.

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
    make_deterministic(seed)
    model, scaler = load_model(dense)
    dense_weights = model.get_weights()
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    targets, rows = train.target.to_numpy(), train.row.to_numpy()
    y = np.eye(n_classes, dtype=np.float32)[targets]
    weights = class_weights(targets, n_classes, balanced=config.class_weights)[targets].astype(np.float32)

    def read(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return store.read(rows[chosen], scaler), y[chosen], weights[chosen]

    network = build(table, (*store.config.shape, 1), n_classes, keras=_tf_keras())
    tuner = _Tuner(network, config, read, len(rows))
    for pruning in todo:
        folder, began = prunings[pruning], time.monotonic()
        (folder / COMPLETE).unlink(missing_ok=True)
        stripped, losses = tuner.run(dense_weights, pruning, seed)
        model.set_weights(stripped.get_weights())
        x = store.read(validation.row.to_numpy()[:64], scaler)
        outputs = [model.predict_on_batch(x), np.asarray(stripped(x, training=False))]
        # The loss clips probabilities, so it can be finite while the outputs are not.
        if not all(np.isfinite(values).all() for values in (losses, *outputs)):
            raise RunError(f"Fine-tuning {dense} ({pruning.name}) diverged; lower the learning rate.")
        if (difference := np.abs(outputs[0] - outputs[1]).max()) > SAME_OUTPUT:
            raise RunError(f"Pruning {dense}: outputs of Keras 3 and tf_keras differ by {difference:.1e}.")
        _check_sparsity(model, pruning, dense)
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


def sparsity_by_layer(model: "keras.Model") -> pd.DataFrame:
    """Return `weights`, `zeros` and `sparsity` of each convolution and dense kernel, by layer name."""
    kernels = {layer.name: np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    rows = {name: (kernel.size, kernel.size - np.count_nonzero(kernel)) for name, kernel in kernels.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["weights", "zeros"])
    return table.assign(sparsity=table.zeros / table.weights)


class _Tuner:
    """A tf_keras network with pruning wrappers, traced once; each run starts from given weights and a seed."""

    def __init__(
        self, network: Any, config: TrainConfig, read: Callable[[np.ndarray], tuple[np.ndarray, ...]], n_rows: int
    ) -> None:
        import tensorflow as tf
        from tensorflow_model_optimization.sparsity import keras as sparsity

        tf_keras = _tf_keras()
        self._network, self._read, self._n_rows, self._epochs = network, read, n_rows, config.epochs
        self._shape = max(1, n_rows // config.batch_size), min(config.batch_size, n_rows)
        n_steps = config.epochs * self._shape[0]
        # Variables, so that all sparsities and both schedules share one graph.
        schedule = sparsity.PolynomialDecay(0.0, 0.5, begin_step=1, end_step=max(2, int(RAMP_SHARE * n_steps)))
        self._first, self._last = (tf.Variable(0.0, trainable=False) for _ in range(2))
        self._every = tf.Variable(1, dtype=tf.int64, trainable=False)
        schedule.initial_sparsity, schedule.final_sparsity, schedule.frequency = self._first, self._last, self._every

        def wrap(layer: Any) -> Any:
            if isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense):
                return sparsity.prune_low_magnitude(layer, pruning_schedule=schedule)
            return layer

        self._wrapped = tf_keras.models.clone_model(network, clone_function=wrap)
        self._pruned = [layer for layer in self._wrapped.layers if hasattr(layer, "pruning_vars")]
        self._strip = sparsity.strip_pruning
        self._wrapped.compile(
            tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, n_steps)),
            tf_keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        )

    def run(self, weights: list[np.ndarray], pruning: Pruning, seed: int) -> tuple[Any, list[float]]:
        """Fine-tune from `weights`; return the network without wrappers, and the mean loss of each epoch."""
        self._restart(weights, pruning, seed)
        losses = []
        for epoch in range(self._epochs):
            order = np.random.default_rng((seed, epoch)).permutation(self._n_rows)
            batches = np.sort(order[: math.prod(self._shape)].reshape(self._shape), axis=1)
            losses.append(float(np.mean([self._wrapped.train_on_batch(*self._read(batch)) for batch in batches])))
        for layer in self._pruned:
            layer.pruning_obj.weight_mask_op()  # the last step changed the zeros again
        return self._strip(self._wrapped), losses

    def _restart(self, weights: list[np.ndarray], pruning: Pruning, seed: int) -> None:
        # Everything that fine-tuning changes, so that results do not depend on earlier runs.
        _tf_keras().utils.set_random_seed(seed)
        self._network.set_weights(weights)
        for layer in self._pruned:
            layer.pruning_step.assign(0)
            for _, mask, threshold in layer.pruning_vars:
                mask.assign(np.ones(mask.shape))
                threshold.assign(0)
        for variable in self._wrapped.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        once = pruning.schedule == "one step"
        self._first.assign(pruning.sparsity if once else 0.0)
        self._last.assign(pruning.sparsity)
        self._every.assign(_NEVER_AGAIN if once else 1)


def _check_sparsity(model: "keras.Model", pruning: Pruning, dense: Path) -> None:
    table = sparsity_by_layer(model)
    # The number of weights is an integer, and at least one is kept.
    wrong = table[(table.zeros - (pruning.sparsity * table.weights).clip(upper=table.weights - 1)).abs() > 1]
    if len(wrong):
        raise RunError(f"Pruning {dense} ({pruning.name}) left a wrong number of zeros in {', '.join(wrong.index)}.")


def _tf_keras() -> Any:
    import tf_keras

    return tf_keras
