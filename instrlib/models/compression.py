"""Smaller networks: magnitude pruning, and TFLite files that are converted, quantised, and tested by LiteRT.

The package tensorflow-model-optimization supports tf_keras networks only, so `prune` rebuilds networks there and copies
weights in both directions. Importing the package replaces `tf.keras` by tf_keras, so only worker processes import it.
"""

import itertools
import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from instrlib.core.cache import cached, key
from instrlib.core.io import RunError, atomic_path, in_parts, read_arrays, slug, write_arrays
from instrlib.core.parallel import load_keras, parallel_map, without_stderr
from instrlib.data.store import Inputs
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.published import load_tflite
from instrlib.models.train import class_weights
from instrlib.models.trained import is_finished, load_model, open_trained, part_segments, predict_clips, write_network
from instrlib.models.variants import Variant, check_names, run_folder

if TYPE_CHECKING:
    import keras

FORMATS = ("float32", "float16", "dynamic int8", "int8")
"""float16: weights of 2 bytes, computed in float32. dynamic int8: weights of 1 byte, activations quantised as they
come. int8: weights and activations of 1 byte, their ranges from training examples; input and output stay float32."""


@dataclass(frozen=True)
class Pruning:
    """Share of zeros in every kernel, and how it is reached; sparsity 0 is the control, fine-tuning only.

    "progressive": the sparsity grows over the first two thirds of the steps, and the kept weights are chosen at every
    step. "one step": they are chosen once, before the first step.
    """

    sparsity: float  # from 0 to below 1
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
    y = store.label_matrix(train)
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
    ends = pruning.sparsity * once, pruning.sparsity, 1, max(2, int(2 / 3 * n_steps))
    schedule = sparsity.PolynomialDecay(*ends, frequency=2**40 if once else 1)
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
    model.set_weights(sparsity.strip_pruning(wrapped).get_weights())
    predicted = predict_clips(model.predict_on_batch, store, scaler, validation)
    # The loss clips probabilities, so it can be finite while they are not.
    if not (np.isfinite(losses).all() and np.isfinite(predicted["probabilities"]).all()):
        raise RunError(f"Fine-tuning {source} ({pruning.name}) diverged; lower the learning rate.")
    metrics = {
        "epochs": config.epochs,
        "loss": losses,
        "nonzero": int(sum(np.count_nonzero(weight) for weight in model.get_weights())),
        "nonzero_multiply_adds": count_multiply_adds(model, nonzero=True),
        "training_s": round(time.monotonic() - began, 1),
    }
    made_of |= {"dense": trained["key"], "spec": table, "seed": seed, "train": config}
    write_network(folder, model, scaler, store, parts, metrics, made_of, predicted)


def convert_model(
    model: "keras.Model", formats: Sequence[str] = FORMATS, *, examples: np.ndarray | None = None
) -> dict[str, bytes]:
    """Return TFLite files of a network by format; "int8" requires training inputs [n, n_bins, n_frames, 1]."""
    keras = load_keras()
    import tensorflow as tf

    contents = {}
    with TemporaryDirectory() as saved, without_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about input ranges, which are measured
        one_segment = keras.InputSpec(dtype="float32", shape=(1, *model.input_shape[1:]))
        model.export(saved, format="tf_saved_model", verbose=False, input_signature=[one_segment])
        for kind in formats:
            converter = tf.lite.TFLiteConverter.from_saved_model(saved)
            if kind != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if kind == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if kind == "int8":
                converter.representative_dataset = lambda: ([one[None]] for one in examples)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            contents[kind] = converter.convert()
    return contents


def with_maps(model: "keras.Model") -> "keras.Model":
    """Return a network with the outputs `logits` and, where they exist, class activation `maps`.

    Maps [n, n_rows, n_columns, n_classes] exist if the network ends with the mean over frequency and time and one dense
    layer. The logits are then the means of the maps, so both share their weights.
    """
    keras = load_keras()
    last = model.layers[-1]
    kernel, bias = last.get_weights()
    before = next(layer for layer in reversed(model.layers[:-1]) if type(layer).__name__ != "Dropout")
    if type(before).__name__ != "GlobalAveragePooling2D":
        dense = keras.layers.Dense(len(bias), name="logits")
        outputs = {"logits": dense(last.input)}
        dense.set_weights([kernel, bias])
    else:
        weighted = keras.layers.Conv2D(len(bias), 1, use_bias=False, name="maps")
        maps = weighted(before.input)
        weighted.set_weights([kernel[None, None]])
        outputs = {"logits": keras.ops.add(keras.ops.mean(maps, axis=(1, 2)), bias), "maps": maps}
    return keras.Model(model.input, outputs)


def predictor(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load a TFLite file as a function from features [n, n_bins, n_frames, 1] to probabilities, on one thread."""
    run = load_tflite(path, way_out="delete its folder and run the notebook that wrote it.")

    def predict(x: np.ndarray) -> np.ndarray:
        answers = run(x)[2]
        # int8 probabilities are multiples of 1/256, so their sum is only close to 1.
        return answers / answers.sum(axis=1, keepdims=True)

    return predict


def export_networks(
    folder: Path, networks: Mapping[str, Sequence[Sequence[Path]]], *, inputs: Inputs, workers: int | None = None
) -> tuple[dict[str, Predictions], pd.DataFrame]:
    """Convert networks to every format and test each file; finished conversions are kept.

    `networks` are run folders by name, first by seed, then by fold; `inputs` are those of their training. Returns the
    test predictions by "<network>, <format>", and a table with one row per file.
    """
    check_names(networks)
    abouts, tasks = [], []
    for name, by_seed in networks.items():
        for (seed, by_fold), (fold, split) in itertools.product(enumerate(by_seed), enumerate(inputs.splits)):
            place = run_folder(folder, name, fold=fold, seed=seed)
            abouts.append({"network": name, "seed": seed, "fold": fold})
            tasks.append((by_fold[fold], place, inputs.store.folder, split))
    found = parallel_map(export, tasks, workers=workers, describe="converting", isolate=True)
    files = pd.DataFrame(
        {
            "name": f"{about['network']}, {kind}",
            "format": kind,
            "path": place / f"{slug(kind)}.tflite",
            **about,
            **sizes[kind],
        }
        for about, (_, place, *_), sizes in zip(abouts, tasks, found, strict=True)
        for kind in FORMATS
    )
    predictions = {}
    for name, own in files.groupby("name", sort=False):
        tested = [read_arrays(path.with_suffix(".npz")) for path in own.path]
        predictions[name] = join_seeds(in_parts(tested, len(inputs.splits)))
    return predictions, files


def export(network: Path, folder: Path, store_folder: Path, split_path: Path) -> dict[str, dict[str, Any]]:
    """Convert one trained network to every format in `folder`, test the files, and return their sizes by format."""
    trained, store, split = open_trained(network, store_folder, split_path)

    def make() -> dict[str, dict[str, Any]]:
        model, scaler = load_model(network)
        train, *others = (part_segments(store, split, part) for part in ("train", "validation", "test"))
        chosen = np.linspace(0, len(train) - 1, min(100, len(train))).round().astype(int)
        contents = convert_model(model, examples=store.read(train.row.to_numpy()[chosen], scaler))
        counts = {
            "parameters": model.count_params(),
            "nonzero": int(sum(np.count_nonzero(weight) for weight in model.get_weights())),
            "multiply_adds": count_multiply_adds(model),
            "nonzero_multiply_adds": count_multiply_adds(model, nonzero=True),
        }
        sizes = {}
        for kind, content in contents.items():
            file = folder / f"{slug(kind)}.tflite"
            with atomic_path(file) as path:
                path.write_bytes(content)
            predict = predictor(file)
            validation, test = (predict_clips(predict, store, scaler, segments) for segments in others)
            write_arrays(file.with_suffix(".npz"), **test)
            accuracy = (validation["probabilities"].argmax(axis=1) == validation["targets"]).mean()
            lengths = {"bytes": len(content), "compressed_bytes": len(zlib.compress(content, 9))}
            sizes[kind] = {**lengths, **counts, "validation_accuracy": float(accuracy)}
        return sizes

    return cached(folder / "sizes.json", key("models", network=trained["key"]), make)
