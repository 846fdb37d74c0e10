"""Trained networks as files for small devices (TFLite, run by LiteRT): converted, quantised, tested and measured."""

import contextlib
import functools
import gc
import json
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.core.backend import load_keras, without_stderr
from instrlib.core.cache import code_hash, versions
from instrlib.core.errors import EvaluationError, RunError
from instrlib.core.io import atomic_path, hash_file, hash_json, in_parts, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split
from instrlib.data.store import open_store
from instrlib.evaluation.metrics import scores
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models import litert
from instrlib.models.answers import answer_test
from instrlib.models.experiments import Outcome, run_folder
from instrlib.models.layers import count_multiply_adds
from instrlib.models.pruning import count_nonzero
from instrlib.models.training import COMPLETE, load_model, load_scaler, open_trained, part_segments, predict_clips

if TYPE_CHECKING:
    import keras

FORMATS = ("float32", "float16", "dynamic int8", "int8")
"""float16: weights of 2 bytes, calculated in float32. dynamic int8: weights of 1 byte, activations quantised as they
come. int8: weights and activations of 1 byte, their ranges taken from training examples; input and output stay
float32."""

N_REPRESENTATIVE = 100
"""Segments of the training part that show the converter the ranges of the activations."""


@dataclass(frozen=True)
class Goal:
    """What a network for a small device stays under.

    Attributes
    ----------
    max_bytes : int
        Size of the file; a kB is 1000 bytes.
    max_multiply_adds : int
        For one segment.
    max_loss : float
        Accuracy that may be lost against the dense network, and no more.
    """

    max_bytes: int = 128_000
    max_multiply_adds: int = 30_000_000
    max_loss: float = 0.01


@dataclass(frozen=True)
class Converted:
    """Networks of several seeds and folds in one format.

    Attributes
    ----------
    network, format : str
        Name of the networks and one of `FORMATS`.
    files : tuple of tuple of Path
        TFLite files, first by seed, then by fold.
    answers : tuple of tuple of dict
        `evaluation.Predictions` of each file on its own test part.
    sizes : pandas.DataFrame
        One row a file, in that order: `bytes`, `compressed_bytes` (deflate at its best, as zip and gzip do),
        `parameters`, `nonzero`, `multiply_adds`, `nonzero_multiply_adds`, `validation_accuracy`.
    """

    network: str
    format: str
    files: tuple[tuple[Path, ...], ...]
    answers: tuple[tuple[Predictions, ...], ...]
    sizes: pd.DataFrame

    @property
    def predictions(self) -> Predictions:
        """Answers to the test parts of all folds, over the seeds."""
        return join_seeds(self.answers)


def convert_networks(
    folder: Path, outcomes: dict[str, Outcome], *, inputs: Inputs, workers: int | None = None
) -> dict[str, Converted]:
    """Convert networks into every format, and let each file answer the validation part and, once, the test part.

    Parameters
    ----------
    folder : Path
        Where to; see `experiments.run_folder`. Finished conversions are kept.
    outcomes : dict of str to Outcome
        The networks by name.
    inputs : Inputs
        Features and splits that they were trained with.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict of str to Converted
        By "<network>, <format>".

    Raises
    ------
    RunError
        When a run folder is unfinished, damaged, or of another split or other features.
    """
    places = [
        (name, network, run_folder(folder, name, fold=fold, seed=seed), inputs.splits[fold])
        for name, outcome in outcomes.items()
        for seed, by_fold in enumerate(outcome.folders)
        for fold, network in enumerate(by_fold)
    ]
    tasks = [(network, place, inputs.store.folder, split) for _, network, place, split in places]
    found = list(parallel_map(_convert_and_answer, tasks, workers=workers, describe="converting", isolate=True))
    converted = {}
    for name in outcomes:
        own = [(place, *result) for (other, _, place, _), result in zip(places, found, strict=True) if other == name]
        by_seed = in_parts(own, len(inputs.splits))
        for kind in FORMATS:
            converted[f"{name}, {kind}"] = Converted(
                name,
                kind,
                tuple(tuple(_file(place, kind) for place, *_ in by_fold) for by_fold in by_seed),
                tuple(tuple(answers[kind] for *_, answers in by_fold) for by_fold in by_seed),
                pd.DataFrame([sizes[kind] for _, sizes, _ in own]),
            )
    return converted


def convert(network: Path, folder: Path, store_folder: Path, split_path: Path) -> dict[str, dict[str, Any]]:
    """Convert one network into every format and measure the files; what is finished is left as it is.

    Parameters
    ----------
    network : Path
        Run folder of a trained network.
    folder : Path
        Where to: a `.tflite` file for each of `FORMATS`, which takes one segment at a time, and, last, `manifest.json`.
    store_folder, split_path : Path
        Features and split that it was trained with.

    Returns
    -------
    dict of str to dict
        For each format the columns of `Converted.sizes`.

    Raises
    ------
    RunError
        See `convert_networks`.
    """
    trained, store, split = open_trained(network, store_folder, split_path)
    key = hash_json([code_hash("models"), trained["key"], versions()])
    if (folder / COMPLETE).is_file() and (kept := read_json(folder / COMPLETE)).get("key") == key:
        return kept["sizes"]
    (folder / COMPLETE).unlink(missing_ok=True)
    model, scaler = load_model(network)
    train, validation = (part_segments(store, split, part) for part in ("train", "validation"))
    chosen = np.linspace(0, len(train) - 1, min(N_REPRESENTATIVE, len(train))).round().astype(int)
    contents = convert_model(model, examples=store.read(train.row.to_numpy()[chosen], scaler))
    counts = {
        "parameters": model.count_params(),
        "nonzero": count_nonzero(model),
        "multiply_adds": count_multiply_adds(model),
        "nonzero_multiply_adds": count_multiply_adds(model, nonzero=True),
    }
    sizes = {}
    for kind, content in contents.items():
        with atomic_path(_file(folder, kind)) as path:
            path.write_bytes(content)
        predicted = predict_clips(predictor(_file(folder, kind)), store, scaler, validation)
        sizes[kind] = {
            "bytes": len(content),
            "compressed_bytes": len(zlib.compress(content, 9)),
            **counts,
            "validation_accuracy": scores(predicted["targets"], predicted["probabilities"])["accuracy"],
        }
    write_json(folder / COMPLETE, {"key": key, "network": trained["key"], "sizes": sizes, "versions": versions()})
    return sizes


def convert_model(
    model: "keras.Model", formats: Sequence[str] = FORMATS, *, examples: np.ndarray | None = None
) -> dict[str, bytes]:
    """Convert a network by way of the SavedModel that Keras writes, which is the way that TensorFlow documents.

    Parameters
    ----------
    model : keras.Model
        The network; it may have several outputs.
    formats : sequence of str
        Some of `FORMATS`.
    examples : np.ndarray [shape=(n, n_bins, n_frames, 1)], optional
        Inputs of the training part, which "int8" alone needs.

    Returns
    -------
    dict of str to bytes
        A TFLite file for each format; it takes one segment at a time.
    """
    keras = load_keras()
    import tensorflow as tf

    def representative() -> Iterator[list[np.ndarray]]:
        for one in examples:
            yield [one[None]]

    contents = {}
    with TemporaryDirectory() as saved, without_stderr(), warnings.catch_warnings(), _quick_collections():
        warnings.simplefilter("ignore")  # of ranges of the input, which are not given but measured
        one_segment = keras.InputSpec(dtype="float32", shape=(1, *model.input_shape[1:]))
        model.export(saved, format="tf_saved_model", verbose=False, input_signature=[one_segment])
        for kind in formats:
            converter = tf.lite.TFLiteConverter.from_saved_model(saved)
            if kind != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if kind == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if kind == "int8":
                converter.representative_dataset = representative
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            contents[kind] = converter.convert()
    return contents


def predictor(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load a TFLite file as a function from features to probabilities, on one thread.

    Parameters
    ----------
    path : Path
        Written by `convert`.

    Returns
    -------
    callable
        From [shape=(n, n_bins, n_frames, 1), float32] to [shape=(n, n_classes), float32].

    Raises
    ------
    RunError
        When the file is missing or damaged.
    """
    interpreter = litert.load(path, way_out="delete its folder and run the notebook that wrote it.")
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def predict(x: np.ndarray) -> np.ndarray:
        answers = np.empty((len(x), result["shape"][-1]), np.float32)
        for number, one in enumerate(x):
            interpreter.set_tensor(given["index"], one[None])
            interpreter.invoke()
            answers[number] = interpreter.get_tensor(result["index"])[0]
        # int8 gives probabilities in steps of 1/256, whose sum is 1 only nearly.
        return answers / answers.sum(axis=1, keepdims=True)

    return predict


def describe(converted: dict[str, Converted]) -> pd.DataFrame:
    """Say how large each network is in each format, and how it did on validation: the mean over seeds and folds.

    Parameters
    ----------
    converted : dict of str to Converted
        What `convert_networks` gives.

    Returns
    -------
    pandas.DataFrame
        One row a network and format: `network`, `format` and the columns of `Converted.sizes`.
    """
    rows = {name: {"network": one.network, "format": one.format, **one.sizes.mean()} for name, one in converted.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def measure(converted: dict[str, Converted], *, n_rounds: int) -> pd.DataFrame:
    """Measure latency and peak memory of each network in each format, one after the other; call it when all is quiet.

    Parameters
    ----------
    converted : dict of str to Converted
        The network of the first seed and fold is measured: the others differ in the values of their weights, which
        neither depends on.
    n_rounds : int
        See `footprint.latency_ms`.

    Returns
    -------
    pandas.DataFrame
        One row a network and format: `latency_ms`, the median for one segment on one thread, with `latency_low_ms` and
        `latency_high_ms`, between which half of the rounds lie; `peak_memory_kb`, see `footprint.peak_memory_kb`, in a
        fresh process each.
    """
    files = [str(one.files[0][0]) for one in converted.values()]
    rounds = np.array(_footprint("latency", str(n_rounds), *files))
    low, median, high = np.quantile(rounds, [0.25, 0.5, 0.75], axis=1)
    columns = {"latency_ms": median, "latency_low_ms": low, "latency_high_ms": high}
    memory = parallel_map(_footprint, [("memory", file) for file in files], describe="peak memory", isolate=True)
    return pd.DataFrame(columns, index=list(converted)).assign(peak_memory_kb=list(memory))


def choose(converted: dict[str, Converted], dense: Outcome, goal: Goal) -> pd.DataFrame:
    """Choose for each fold, by validation alone, the smallest network that meets the goal there.

    Parameters
    ----------
    converted : dict of str to Converted
        The candidates.
    dense : Outcome
        The dense networks: their validation accuracy is what a candidate is held against.
    goal : Goal
        Size and multiply-adds that each file must stay under, and the accuracy that the mean over the seeds may lose.

    Returns
    -------
    pandas.DataFrame
        One row a fold: `name`, of those that meet the goal, the one whose file is smallest when compressed; `met`,
        which is False where none loses so little, and the name is that of the most accurate of those that are small
        enough; `bytes`, `compressed_bytes` and `multiply_adds` of its largest file; `validation_accuracy` and `loss`,
        what it loses there against the dense network, the mean over the seeds.

    Raises
    ------
    EvaluationError
        When no candidate is small enough.
    """
    n_folds = len(dense.folders[0])
    columns = ["bytes", "compressed_bytes", "multiply_adds", "validation_accuracy"]
    chosen = []
    for fold in range(n_folds):
        rows = pd.DataFrame({name: _fold_sizes(one, fold, n_folds) for name, one in converted.items()}).T
        small = rows[(rows.bytes < goal.max_bytes) & (rows.multiply_adds < goal.max_multiply_adds)]
        if small.empty:
            raise EvaluationError(
                f"None of the {len(rows)} converted networks has under {goal.max_bytes:,} bytes and "
                f"{goal.max_multiply_adds:,} multiply-adds; convert a smaller network."
            )
        accuracy = np.mean([_validation_accuracy(by_fold[fold]) for by_fold in dense.folders])
        # What is left of a subtraction of floats is no loss.
        enough = small[small.validation_accuracy >= accuracy - goal.max_loss - 1e-9]
        best = small.validation_accuracy.idxmax() if enough.empty else enough.compressed_bytes.idxmin()
        row = small.loc[best, columns]
        chosen.append({"name": str(best), "met": len(enough) > 0, **row, "loss": accuracy - row.validation_accuracy})
    return (
        pd.DataFrame(chosen).rename_axis("fold").astype({"bytes": int, "compressed_bytes": int, "multiply_adds": int})
    )


def predictions_of(converted: dict[str, Converted], names: Sequence[str]) -> Predictions:
    """Join the answers of the networks that were chosen fold by fold.

    Parameters
    ----------
    converted : dict of str to Converted
        All of them.
    names : sequence of str
        A name for each fold; see `choose`.

    Returns
    -------
    dict
        See `evaluation.Predictions`, over the seeds.
    """
    n_seeds = len(converted[names[0]].answers)
    return join_seeds(
        [[converted[name].answers[seed][fold] for fold, name in enumerate(names)] for seed in range(n_seeds)]
    )


def figure_size(networks: pd.DataFrame, described: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, Any]:
    """Arrange sizes and scores for `plots.size_against_accuracy`.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `pruning.Plan.networks`.
    described : pandas.DataFrame
        What `describe` gives.
    accuracy : pandas.DataFrame
        Indexed as `described`: `estimate`.

    Returns
    -------
    dict
        Arguments of the figure, without those of the dense network.
    """
    table = described.join(networks, on="network").join(accuracy)
    kinds = table.kind.replace({"progressive": "pruned"})
    labels = kinds.where(table.sparsity == 0, kinds + [f" {100 * sparsity:g} %" for sparsity in table.sparsity])
    return {
        "labels": labels.to_list(),
        "kinds": kinds.to_list(),
        "formats": table.format.to_list(),
        "compressed_kb": table.compressed_bytes / 1000,
        "accuracy": table.estimate,
    }


def figure_zeros(networks: pd.DataFrame, table: pd.DataFrame, *, kind: str) -> dict[str, Any]:
    """Arrange what the pruned networks cost, as shares of what the dense one costs, for `plots.what_zeros_save`.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `pruning.Plan.networks`.
    table : pandas.DataFrame
        What `describe` and `measure` give, joined.
    kind : str
        The format, one of `FORMATS`.

    Returns
    -------
    dict
        Arguments of the figure.
    """
    costs = {
        "bytes": "file",
        "compressed_bytes": "compressed file",
        "multiply_adds": "multiply-adds",
        "nonzero_multiply_adds": "multiply-adds by non-zero weights",
        "latency_ms": "latency",
        "peak_memory_kb": "peak memory",
    }
    rows = table[table.format == kind].join(networks, on="network")
    rows = rows[rows.kind.isin(["dense", "progressive"])].sort_values("sparsity")
    relative = rows[list(costs)] / rows.loc[rows.sparsity == 0, list(costs)].iloc[0]
    return {"names": list(costs.values()), "sparsity": rows.sparsity, "relative": relative.to_numpy().T}


def _convert_and_answer(
    network: Path, folder: Path, store_folder: Path, split_path: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, Predictions]]:
    sizes = convert(network, folder, store_folder, split_path)
    store = open_store(store_folder)
    split, scaler = load_split(split_path, store.segments), load_scaler(network)
    answers = {}
    for kind in FORMATS:
        path = _file(folder, kind)
        key = hash_json([hash_file(path), store.fingerprint, split.fingerprint])
        kept = folder / f"predictions-{path.stem}.npz"
        answers[kind] = answer_test(
            kept, key, functools.partial(predictor, path), store=store, scaler=scaler, split=split
        )
    return sizes, answers


@contextlib.contextmanager
def _quick_collections() -> Iterator[None]:
    """Keep what exists out of garbage collections: the converter makes one a format, as long as the conversion."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _file(folder: Path, kind: str) -> Path:
    return folder / f"{kind.replace(' ', '-')}.tflite"


def _fold_sizes(converted: Converted, fold: int, n_folds: int) -> pd.Series:
    """Sizes of the largest file of a fold, and the validation accuracy over its seeds."""
    rows = converted.sizes.iloc[fold::n_folds]
    return pd.Series({**rows.max(), "validation_accuracy": rows.validation_accuracy.mean()})


def _validation_accuracy(folder: Path) -> float:
    return read_json(folder / "metrics.json")["validation"]["accuracy"]


def _footprint(*arguments: str) -> Any:
    command = [sys.executable, "-m", "instrlib.models.footprint", *arguments]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"the process ended with {run.returncode}"])[-1]
        raise RunError(f"Measuring {arguments[-1]} failed: {last}")
    return json.loads(run.stdout)
