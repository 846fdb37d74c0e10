"""Magnitude pruning: the smallest weights of a trained network become zero while the others are fine-tuned.

The pruning package takes networks of tf_keras alone, so each network is built there as well and its weights are carried
over and back. That package turns `tf.keras` into tf_keras when it is imported: it is imported in this module's worker
processes and nowhere else.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from instrlib.core.cache import code_hash, versions
from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError, RunError
from instrlib.core.io import hash_json, padded
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.evaluation.predictions import Predictions
from instrlib.models.answers import read_test
from instrlib.models.batches import training_batches
from instrlib.models.experiments import Outcome, make_outcome, run_folder
from instrlib.models.layers import Layer, build, count_multiply_adds, resize
from instrlib.models.training import (
    COMPLETE,
    class_weights,
    is_finished,
    load_model,
    make_deterministic,
    open_trained,
    part_segments,
    read_manifest,
    write_network,
)

if TYPE_CHECKING:
    import keras

RAMP_SHARE = 2 / 3
"""Share of the steps in which the progressive schedule reaches its sparsity; in the rest the network settles."""

SAME_OUTPUT = 1e-5
"""Largest difference of a probability that tf_keras and Keras 3 may give with the same weights."""

Schedule = Literal["progressive", "one step"]


@dataclass(frozen=True)
class Pruning:
    """How much of a network is pruned, and how fast.

    Attributes
    ----------
    sparsity : float
        Share of zeros in the kernel of every convolution and dense layer, the first and the last among them, from 0 to
        below 1. At 0 the network is fine-tuned and nothing else: the control, without which pruning would be mixed up
        with longer training.
    schedule : {"progressive", "one step"}
        "progressive": the sparsity grows over the first two thirds of the steps, fast at first, and the weights that
        stay are chosen anew at every step. "one step": they are chosen once, before the first step.
    """

    sparsity: float
    schedule: Schedule = "progressive"

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"The sparsity must be at least 0 and below 1, not {self.sparsity!r}.")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(f"Unknown schedule {self.schedule!r}; there is: {', '.join(get_args(Schedule))}.")

    @property
    def name(self) -> str:
        """What tables and figures call it.

        Examples
        --------
        >>> Pruning(0.8).name, Pruning(0).name
        ('80 %, progressive', 'not pruned, fine-tuned')
        """
        return f"{100 * self.sparsity:g} %, {self.schedule}" if self.sparsity else "not pruned, fine-tuned"


@dataclass(frozen=True)
class Plan:
    """What is pruned in a study of some size.

    Attributes
    ----------
    progressive, one_step : tuple of float
        Sparsities under either schedule.
    narrow : tuple of float
        Sparsities whose number of weights a narrower network is given, for comparison.
    exported : tuple of str
        Kinds of networks that become files for small devices; see `networks`. The control and those pruned in one step
        have files like the others of their sparsity, as large and as fast.
    """

    progressive: tuple[float, ...]
    one_step: tuple[float, ...]
    narrow: tuple[float, ...]
    exported: tuple[str, ...] = ("dense", "progressive", "narrower")

    @property
    def prunings(self) -> tuple[Pruning, ...]:
        """The control, then each sparsity under each schedule."""
        return (
            Pruning(0.0),
            *(Pruning(sparsity) for sparsity in self.progressive),
            *(Pruning(sparsity, "one step") for sparsity in self.one_step),
        )

    @property
    def networks(self) -> pd.DataFrame:
        """All networks of the study by name: `kind` ("dense", "fine-tuned", a schedule, "narrower") and `sparsity`.

        The sparsity of a narrower network is the share of the dense one's kernel weights that it does without.
        """
        rows = {"dense": ("dense", 0.0)}
        rows |= {one.name: (one.schedule if one.sparsity else "fine-tuned", one.sparsity) for one in self.prunings}
        rows |= {narrower_name(sparsity): ("narrower", sparsity) for sparsity in self.narrow}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["kind", "sparsity"])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is compared at equal sparsity: either schedule, and a narrower network with a pruned one."""
        steps = [(Pruning(one).name, Pruning(one, "one step").name) for one in self.progressive if one in self.one_step]
        widths = [(narrower_name(one), Pruning(one).name) for one in self.narrow if one in self.progressive]
        return steps + widths


_ALL = (0.5, 0.7, 0.8, 0.9, 0.95)

PLANS: dict[str, Plan] = {
    "smoke": Plan(progressive=(0.5, 0.9), one_step=(0.9,), narrow=(0.9,)),
    "quick": Plan(progressive=_ALL, one_step=(0.5, 0.8, 0.95), narrow=(0.9,)),
    "full": Plan(
        progressive=_ALL,
        one_step=_ALL,
        narrow=(0.5, 0.8, 0.9),
        exported=("dense", "fine-tuned", "progressive", "one step", "narrower"),
    ),
}
"""By profile."""


def narrower_name(sparsity: float) -> str:
    """Name a network that has as many weights as pruning leaves others.

    Examples
    --------
    >>> narrower_name(0.8)
    'narrower, weights as at 80 %'
    """
    return f"narrower, weights as at {100 * sparsity:g} %"


def narrower(
    spec: tuple[Layer, ...], sparsities: Sequence[float], *, input_shape: tuple[int, int, int], n_classes: int
) -> dict[str, tuple[Layer, ...]]:
    """Make a table narrower, to about as many weights as pruning leaves: whole filters go instead of single weights.

    Parameters
    ----------
    spec : tuple of Layer
        Table of the dense network.
    sparsities : sequence of float
        Of the pruned networks.
    input_shape, n_classes
        See `models.build`.

    Returns
    -------
    dict of str to tuple of Layer
        By `narrower_name`; see `models.resize`.
    """
    model = build(spec, input_shape, n_classes)
    weights = int(sparsity_by_layer(model).weights.sum())
    return {
        narrower_name(sparsity): resize(
            spec, input_shape, n_classes, n_parameters=round(model.count_params() - sparsity * weights)
        )
        for sparsity in sparsities
    }


def prune_networks(
    folder: Path,
    dense: Sequence[Sequence[Path]],
    prunings: Sequence[Pruning],
    *,
    inputs: Inputs,
    config: TrainConfig,
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Prune trained networks in several ways, and let each result answer its test part once.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; see `experiments.run_folder`.
    dense : sequence of sequence of Path
        Run folders of the trained networks, first by seed, then by fold.
    prunings : sequence of Pruning
        The ways.
    inputs : Inputs
        Features and splits that they were trained with.
    config : TrainConfig
        How each is fine-tuned: `epochs`, `batch_size`, `learning_rate` (which falls to 0 along a cosine),
        `class_weights`, `label_smoothing` and `augment`; no early stop, because the schedule must come to its end.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to Outcome
        By the prunings' names.

    Raises
    ------
    RunError
        See `prune`.
    """
    # A task compiles once, then goes through all prunings of a schedule.
    kinds = [tuple(one for one in prunings if one.schedule == kind) for kind in get_args(Schedule)]
    tasks = [
        (network, kind, _places(folder, network, fold, kind), inputs.store.folder, split, config)
        for kind in kinds
        if kind
        for by_fold in dense
        for fold, (network, split) in enumerate(zip(by_fold, inputs.splits, strict=True))
    ]
    found = parallel_map(_prune_and_answer, tasks, workers=workers, describe="pruning", isolate=True)
    answers = {place: answer for one in found for place, answer in one.items()}

    def outcome(pruning: Pruning) -> Outcome:
        places = [
            [_places(folder, network, fold, [pruning])[0] for fold, network in enumerate(by_fold)] for by_fold in dense
        ]
        return make_outcome([[(place, answers[place]) for place in by_fold] for by_fold in places])

    return {pruning.name: outcome(pruning) for pruning in prunings}


def prune(
    dense: Path,
    prunings: Sequence[Pruning],
    folders: Sequence[Path],
    store_folder: Path,
    split_path: Path,
    config: TrainConfig,
) -> None:
    """Prune one trained network in several ways, each into a run folder; those that are finished are left as they are.

    Call it in a process of its own: it imports the pruning package, which changes what `tf.keras` means.

    Parameters
    ----------
    dense : Path
        Run folder of the trained network, from `training.train_model`.
    prunings : sequence of Pruning
        The ways.
    folders : sequence of Path
        Where to, one for each of `prunings`: `model.keras` (Keras 3), `preprocessing.json`, `validation.npz`,
        `metrics.json` and, last, `manifest.json`.
    store_folder, split_path : Path
        Features and split that it was trained with.
    config : TrainConfig
        See `prune_networks`.

    Raises
    ------
    RunError
        When `dense` is not finished, damaged, or was trained with something else; when the loss is not finite; when
        the zeros are not as many as asked for, or the network answers differently after it was carried back.

    Notes
    -----
    Weights of the smallest magnitude go first, each layer by itself [1]_; the sparsity grows as in [2]_. All
    fine-tunings of a network have the same seed, batches and steps. What is kept is the last epoch, not the best: on
    the way there the network is not as sparse as it should be.

    References
    ----------
    .. [1] S. Han, J. Pool, J. Tran, W. Dally, "Learning both weights and connections for efficient neural networks",
       NIPS 2015. arXiv:1506.02626
    .. [2] M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017.
       arXiv:1710.01878
    """
    trained, store, split = open_trained(dense, store_folder, split_path)
    code = code_hash("models")
    keys = [hash_json([code, trained["key"], pruning, config, versions()]) for pruning in prunings]
    todo = [
        (folder, pruning, key)
        for folder, pruning, key in zip(folders, prunings, keys, strict=True)
        if not is_finished(folder, key)
    ]
    if not todo:
        return
    seed, table, n_classes = trained["seed"], tuple(Layer(**row) for row in trained["spec"]), len(store.classes)
    make_deterministic(seed)
    model, scaler = load_model(dense)
    dense_weights = model.get_weights()
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    weights = class_weights(train.target.to_numpy(), n_classes, balanced=config.class_weights)
    network = build(table, (*store.config.shape, 1), n_classes, keras=_load_tf_keras())
    read = functools.partial(training_batches, store, scaler, train, weights=weights, config=config, seed=seed)
    tuner = _Tuner(network, config, steps_per_epoch=len(read()))
    for folder, pruning, key in todo:
        (folder / COMPLETE).unlink(missing_ok=True)
        began = time.monotonic()
        stripped, losses = tuner.run(dense_weights, pruning, read(), seed)
        if not np.isfinite(losses).all():
            raise RunError(
                f"Fine-tuning {dense} ({pruning.name}) diverged: the loss is not finite; lower the learning rate "
                f"({config.learning_rate:g})."
            )
        model.set_weights(stripped.get_weights())
        _check_same(model, stripped, store.read(validation.row.to_numpy()[:64], scaler), dense)
        _check_sparsity(model, pruning, dense)
        metrics = {
            "epochs": config.epochs,
            "loss": losses,
            "nonzero": count_nonzero(model),
            "nonzero_multiply_adds": count_multiply_adds(model, nonzero=True),
            "training_s": round(time.monotonic() - began, 1),
        }
        made_of = {
            "key": key,
            "pruning": pruning,
            "dense": trained["key"],
            "spec": table,
            "seed": seed,
            "train": config,
        }
        write_network(folder, model, scaler, store=store, split=split, metrics=metrics, made_of=made_of)


def count_nonzero(model: "keras.Model") -> int:
    """Count the numbers of a network that are not zero: kernels, biases and normalisation."""
    return int(sum(np.count_nonzero(weight) for weight in model.get_weights()))


def sparsity_by_layer(model: "keras.Model") -> pd.DataFrame:
    """Count the zeros of each kernel that pruning reaches.

    Parameters
    ----------
    model : keras.Model
        Built by `models.build`.

    Returns
    -------
    pandas.DataFrame
        One row a convolution or dense layer, by its name: `weights`, `zeros`, `sparsity`.
    """
    kernels = {layer.name: np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    rows = {name: (kernel.size, kernel.size - np.count_nonzero(kernel)) for name, kernel in kernels.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["weights", "zeros"])
    return table.assign(sparsity=table.zeros / table.weights)


def figure_curve(networks: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, Any]:
    """Arrange scores for `plots.sparsity_curve`.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `Plan.networks`.
    accuracy : pandas.DataFrame
        Indexed by the networks' names: `estimate`, `low`, `high`.

    Returns
    -------
    dict
        Arguments of the figure. Both schedules begin with the network that was fine-tuned and not pruned.
    """
    table = networks.join(accuracy)
    series = {kind: ["fine-tuned", kind] for kind in get_args(Schedule)} | {"narrower": ["narrower"]}
    rows = {name: table[table.kind.isin(kinds)] for name, kinds in series.items() if name in set(table.kind)}
    columns = {"sparsity": "sparsity", "accuracy": "estimate", "low": "low", "high": "high"}
    arrays = {name: padded([own[column] for own in rows.values()]) for name, column in columns.items()}
    dense = table.loc["dense"]
    names = [f"pruned, {name}" if name in get_args(Schedule) else "narrower, as many weights" for name in rows]
    return {"names": names, **arrays, "dense": dense.estimate, "dense_low": dense.low, "dense_high": dense.high}


def wanted_sparsity(step: Any, *, sparsity: Any, ramp_steps: Any) -> Any:
    """Return the sparsity that the progressive schedule wants after some steps.

    Parameters
    ----------
    step : float or tensor
        Number of the step, from 0.
    sparsity : float or tensor
        What it comes to, 0 to below 1.
    ramp_steps : float or tensor
        Steps until then.

    Returns
    -------
    float or tensor

    Examples
    --------
    >>> [round(wanted_sparsity(step, sparsity=0.8, ramp_steps=10), 2) for step in range(0, 11, 5)]
    [0.0, 0.7, 0.8]
    """
    return sparsity - sparsity * (1 - step / ramp_steps) ** 3


class _Tuner:
    """A network of tf_keras under pruning, compiled once: each fine-tuning starts from given weights and a seed."""

    def __init__(self, network: Any, config: TrainConfig, *, steps_per_epoch: int) -> None:
        import tensorflow as tf

        tf_keras, sparsity = _load_tf_keras(), _load_sparsity()
        self._network, self._zeros_like = network, tf.zeros_like
        self._epochs, self._n_steps = config.epochs, config.epochs * steps_per_epoch
        self._schedule = _schedule_type()()

        def wrap(layer: Any) -> Any:
            if isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense):
                return sparsity.prune_low_magnitude(layer, pruning_schedule=self._schedule)
            return layer

        self._wrapped = tf_keras.models.clone_model(network, clone_function=wrap)
        self._pruned = [layer for layer in self._wrapped.layers if hasattr(layer, "pruning_vars")]
        self._wrapped.compile(
            tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, self._n_steps)),
            tf_keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        )

    def run(
        self, weights: list[np.ndarray], pruning: Pruning, batches: "keras.utils.PyDataset", seed: int
    ) -> tuple[Any, list[float]]:
        """Fine-tune from `weights`; return the network without its wrappers, and the loss of each epoch."""
        self._start(weights, pruning, seed)
        losses = []
        for _ in range(self._epochs):
            loss = [self._wrapped.train_on_batch(*batches[number]) for number in range(len(batches))]
            losses.append(float(np.mean(loss)))
            batches.on_epoch_end()
        for layer in self._pruned:
            layer.pruning_obj.weight_mask_op()  # the last step has moved the zeros once more
        return _load_sparsity().strip_pruning(self._wrapped), losses

    def _start(self, weights: list[np.ndarray], pruning: Pruning, seed: int) -> None:
        # All that a fine-tuning changes, so that it gives the same bits whatever was done before.
        _load_tf_keras().utils.set_random_seed(seed)
        self._network.set_weights(weights)
        for layer in self._pruned:
            layer.pruning_step.assign(0)
            for _, mask, threshold in layer.pruning_vars:
                mask.assign(self._zeros_like(mask) + 1)
                threshold.assign(0)
        for variable in self._wrapped.optimizer.variables:
            variable.assign(self._zeros_like(variable))
        self._schedule.set(pruning.sparsity, _ramp_steps(pruning, self._n_steps))


def _ramp_steps(pruning: Pruning, n_steps: int) -> int:
    return 1 if pruning.schedule == "one step" else max(1, int(RAMP_SHARE * n_steps))


def _schedule_type() -> type:
    """Make a schedule whose sparsity can be changed after it was compiled: compiling takes longer than an epoch."""
    import tensorflow as tf

    class Changeable(_load_sparsity().PruningSchedule):
        def __init__(self) -> None:
            self._sparsity = tf.Variable(0.0, trainable=False)
            self._ramp_steps = tf.Variable(1, dtype=tf.int64, trainable=False)

        def set(self, sparsity: float, ramp_steps: int) -> None:
            self._sparsity.assign(sparsity)
            self._ramp_steps.assign(ramp_steps)

        def __call__(self, step: Any) -> tuple[Any, Any]:
            # The first step has number 1; the masks are made before it.
            done = tf.minimum(step, self._ramp_steps)
            wanted = wanted_sparsity(
                tf.cast(done, tf.float32), sparsity=self._sparsity, ramp_steps=tf.cast(self._ramp_steps, tf.float32)
            )
            return step <= self._ramp_steps, wanted

        def get_config(self) -> dict[str, Any]:
            return {}

    return Changeable


def _prune_and_answer(
    dense: Path,
    prunings: tuple[Pruning, ...],
    folders: tuple[Path, ...],
    store: Path,
    split: Path,
    config: TrainConfig,
) -> dict[Path, Predictions]:
    prune(dense, prunings, folders, store, split, config)
    return {folder: read_test(folder, store, split) for folder in folders}


def _places(folder: Path, dense: Path, fold: int, prunings: Sequence[Pruning]) -> tuple[Path, ...]:
    seed = read_manifest(dense)["seed"]
    return tuple(run_folder(folder, one.name, fold=fold, seed=seed) for one in prunings)


def _check_same(model: "keras.Model", stripped: Any, x: np.ndarray, dense: Path) -> None:
    difference = np.abs(model.predict_on_batch(x) - np.asarray(stripped(x, training=False))).max()
    if not difference <= SAME_OUTPUT:
        raise RunError(
            f"The pruned network of {dense} answers differently in Keras 3 than in tf_keras, by {difference:.1e}."
        )


def _check_sparsity(model: "keras.Model", pruning: Pruning, dense: Path) -> None:
    table = sparsity_by_layer(model)
    # A layer has a whole number of weights, and one at least stays.
    wrong = table[(table.zeros - (pruning.sparsity * table.weights).clip(upper=table.weights - 1)).abs() > 1]
    for name, row in wrong.iterrows():
        raise RunError(
            f"Pruning {dense} ({pruning.name}) left {row.zeros:.0f} zeros in the {row.weights:.0f} weights of {name}."
        )


def _load_tf_keras() -> Any:
    import tf_keras

    return tf_keras


def _load_sparsity() -> Any:
    from tensorflow_model_optimization.sparsity import keras

    return keras
