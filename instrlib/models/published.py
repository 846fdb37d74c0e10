"""A model folder: the networks that a study gives away, with all that it takes to use them.

`model.json` (classes, settings, temperature, thresholds, origin and scores), `single.tflite`, `several.tflite` where
there is one, `condition.json` where there is one, and `MODEL_CARD.md`. `release` makes it; this module reads it. It
imports little, because `instrlib predict` waits for it: no TensorFlow, no pandas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.audio.features import Scaler, scale
from instrlib.core.config import FeatureConfig, folders
from instrlib.core.errors import InstrlibError, RunError
from instrlib.core.io import expanded, hash_file, hash_json, read_json
from instrlib.evaluation.calibration import sigmoid, softmax
from instrlib.models import litert

FORMAT = 1
"""Raised whenever an older `model.json` could not be read rightly; older ones are then refused."""

RECORD, CONDITION, CARD = "model.json", "condition.json", "MODEL_CARD.md"
FILES = {"single": "single.tflite", "several": "several.tflite"}
"""Names of the files by network."""

_ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}
_HASH = "hash"
_AGAIN = "restore the folder, or run `make study`, which makes it."


@dataclass(frozen=True)
class Network:
    """One of the two networks of a model folder.

    Attributes
    ----------
    file : Path
        TFLite file. Input [shape=(1, n_bins, n_frames, 1)]: one segment, scaled. Outputs: logits [shape=(1,
        n_classes)], and for most networks maps [shape=(1, n_rows, n_columns, n_classes)].
    features : FeatureConfig
        How its input is made of sound.
    scaler : Scaler
        Mean and deviation of each band over the training part; the scaling "train" goes by it.
    output : {"softmax", "sigmoid"}
        For a recording of one instrument, or of several at once.
    temperature : float
        Logits are divided by it; see `calibration`.
    thresholds : np.ndarray [shape=(n_classes,)]
        Softmax: a most probable class that stays below its own is not named. Sigmoid: from its own on a class counts
        as present.
    grid : dict or None
        Where the cells of the maps lie on the input: the arguments of `cam.Grid`. None where there are no maps.
    """

    file: Path
    features: FeatureConfig
    scaler: Scaler
    output: str
    temperature: float
    thresholds: np.ndarray
    grid: dict[str, Any] | None = None


@dataclass(frozen=True)
class PublishedModel:
    """What a model folder holds.

    Attributes
    ----------
    folder : Path
        Where it lies.
    classes : tuple of str
        What can be named, in the order of the networks' outputs.
    single : Network
        For a recording of one instrument.
    several : Network or None
        For several at once.
    condition : dict or None
        The model of `condition.verdict`.
    about : dict
        Origin and scores; see `release.publish`.
    """

    folder: Path
    classes: tuple[str, ...]
    single: Network
    several: Network | None
    condition: dict[str, Any] | None
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """Short name: the study, and the beginning of a hash of the networks."""
        return f"{self.about['study']} {self.about['id']}"


def open_model(folder: Path | None = None) -> PublishedModel:
    """Open a model folder and check every byte of it that decides an answer.

    Parameters
    ----------
    folder : Path, optional
        The folder; when left out, the one under `reports/` that was published last.

    Returns
    -------
    PublishedModel

    Raises
    ------
    ConfigError
        When it is named by a home folder that is not known.
    RunError
        When there is none, or a file in it is missing, cut or altered.
    """
    folder = _last_published() if folder is None else expanded(folder)
    if not (folder / RECORD).is_file():
        raise RunError(f"{folder} is no model folder: it holds no {RECORD}; {_AGAIN}")
    record = read_sealed(folder / RECORD)
    if record.get("format") != FORMAT:
        raise RunError(
            f"The model in {folder} is of format {record.get('format')}, this version reads {FORMAT}; {_AGAIN}"
        )
    try:
        networks = {
            name: None if record[name] is None else _network(folder / file, record[name], record)
            for name, file in FILES.items()
        }
        classes, about = tuple(record["classes"]), dict(record["about"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / RECORD} does not describe a model; {_AGAIN}") from error
    condition = read_sealed(folder / CONDITION) if (folder / CONDITION).is_file() else None
    return PublishedModel(folder, classes, networks["single"], networks["several"], condition, about)


def listener(network: Network) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """Load a network as a function from spectrograms to calibrated probabilities; for one thread at a time.

    Parameters
    ----------
    network : Network
        From `open_model`.

    Returns
    -------
    callable
        From what `features.spectrum` gives [shape=(n, n_bins, n_frames)], not yet scaled, to probabilities [shape=(n,
        n_classes), float64] and maps [shape=(n, n_rows, n_columns, n_classes), float32] or None. The mean of a map is
        the class's logit less a constant of the class.

    Raises
    ------
    RunError
        When the file is missing or damaged.
    """
    answer = logits(network)

    def listen(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        values, maps = answer(scale(spectra, network.features, network.scaler)[..., None])
        return probabilities(network, values), maps

    return listen


def logits(network: Network) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """Load a network as a function from scaled features [shape=(n, n_bins, n_frames, 1)] to logits and maps.

    Raises
    ------
    RunError
        See `listener`.
    """
    interpreter = litert.load(network.file, way_out=_AGAIN)
    given = interpreter.get_input_details()[0]["index"]
    outputs = {len(one["shape"]): one for one in interpreter.get_output_details()}  # logits have 2 axes, maps 4

    def answer(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        found = {axes: np.empty((len(x), *one["shape"][1:]), np.float32) for axes, one in outputs.items()}
        for number, segment in enumerate(x):
            interpreter.set_tensor(given, segment[None])
            interpreter.invoke()
            for axes, one in outputs.items():
                found[axes][number] = interpreter.get_tensor(one["index"])[0]
        return found[2], found.get(4)

    return answer


def probabilities(network: Network, values: np.ndarray) -> np.ndarray:
    """Turn a network's logits [shape=(n, n_classes)] into calibrated probabilities [shape=(n, n_classes), float64]."""
    return _ACTIVATIONS[network.output](values, network.temperature)


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Return plain values with a hash of them as `hash`, to be written as JSON and read by `read_sealed`.

    Examples
    --------
    >>> sorted(sealed({"a": 1}))
    ['a', 'hash']
    """
    plain = {name: value for name, value in values.items() if name != _HASH}
    return plain | {_HASH: hash_json(plain)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON file that carries its own hash.

    Raises
    ------
    RunError
        When it is missing, cut or altered.
    """
    try:
        values = read_json(path)
    except InstrlibError:
        values = None
    if not isinstance(values, dict) or sealed(values) != values:
        raise RunError(f"{path} is missing, cut or altered; {_AGAIN}")
    return values


def _network(file: Path, settings: dict[str, Any], record: dict[str, Any]) -> Network:
    if not file.is_file() or hash_file(file) != settings["sha256"]:
        raise RunError(f"{file} is missing, cut or altered; {_AGAIN}")
    grid, thresholds = settings["grid"], np.asarray(settings["thresholds"], float)
    if thresholds.shape != (len(record["classes"]),) or settings["output"] not in _ACTIVATIONS:
        raise ValueError("not as many thresholds as classes, or no known output")
    return Network(
        file,
        FeatureConfig.from_dict(record["features"]),
        Scaler.from_dict(record["scaler"]),
        settings["output"],
        float(settings["temperature"]),
        thresholds,
        None if grid is None else _grid(grid),
    )


def _grid(values: dict[str, Any]) -> dict[str, Any]:
    centres = {name: np.asarray(values[name], float) for name in ("centre_bin", "centre_frame")}
    return centres | {name: values[name] for name in ("field_bins", "field_frames")} | {"shape": tuple(values["shape"])}


def _last_published() -> Path:
    root = folders().reports
    there = [path.parent for path in sorted(root.glob(f"*/model/{RECORD}"))]
    if not there:
        raise RunError(
            f"There is no published model in {root}; run `make study`, which makes one, or name a model folder "
            "(instrlib predict --model FOLDER)."
        )
    return max(there, key=_published_at)


def _published_at(folder: Path) -> str:
    # One that is damaged counts as the first ever: it must not hide a good one, and alone it is named when opened.
    try:
        return str(read_sealed(folder / RECORD)["about"]["published_at"])
    except (InstrlibError, KeyError, TypeError):
        return ""
