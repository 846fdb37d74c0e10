"""The released model: a folder with one or two TFLite networks and their settings.

The folder contains `model.json` (classes, features, temperature, thresholds, origin and scores), `single.tflite`,
optionally `several.tflite` and `condition.json`, and `MODEL_CARD.md`; `deploy.release` writes it. Reading it imports
neither TensorFlow nor pandas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.audio.features import Scaler, scale
from instrlib.core.config import FeatureConfig, folders
from instrlib.core.io import InstrlibError, RunError, expanded, hash_file, hash_json, read_json
from instrlib.evaluation.calibration import sigmoid, softmax
from instrlib.models import litert

FORMAT = 1
"""Version of the layout of `model.json`; other versions are refused."""

RECORD, CONDITION, CARD = "model.json", "condition.json", "MODEL_CARD.md"
FILES = {"single": "single.tflite", "several": "several.tflite"}

_ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}
_AGAIN = "restore the folder, or make a model with `make study`."


@dataclass(frozen=True)
class Network:
    """One TFLite network of the released model, for one input at a time.

    Input [1, n_bins, n_frames, 1], scaled; outputs logits [1, n_classes] and, for most networks, class activation maps
    [1, n_rows, n_columns, n_classes].
    """

    file: Path
    features: FeatureConfig
    scaler: Scaler
    output: str  # "softmax" (one instrument) or "sigmoid" (several)
    temperature: float  # divides the logits
    thresholds: np.ndarray  # [n_classes]; softmax abstains below, sigmoid: present from the threshold on
    grid: dict[str, Any] | None = None  # arguments of `saliency.Grid`: positions of the map cells on the input


@dataclass(frozen=True)
class PublishedModel:
    """The contents of a model folder; `condition` and `several` are None if the study has none."""

    folder: Path
    classes: tuple[str, ...]
    single: Network
    several: Network | None
    condition: dict[str, Any] | None
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """The study and the first digits of a hash of the networks."""
        return f"{self.about['study']} {self.about['id']}"

    @property
    def performance(self) -> str:
        """The test accuracy, as one sentence."""
        accuracy, ends = self.about["scores"]["accuracy"], ""
        if accuracy["low"] is not None:
            ends = f" (95 % CI {accuracy['low']:.2f} to {accuracy['high']:.2f})"
        return (
            f"Accuracy {accuracy['estimate']:.2f}{ends} on {self.about['n_tested']} test clips of the corpus it was "
            f"trained on: {self.about['corpus']['title']}."
        )


def open_model(folder: Path | None = None) -> PublishedModel:
    """Open a model folder and check the hash of everything that affects predictions.

    By default this is the model under `reports/` that was published last, except those of the `smoke` profile. A
    missing model, or a missing or altered file, raises `RunError`.
    """
    folder = _last_published() if folder is None else expanded(folder)
    if not (folder / RECORD).is_file():
        raise RunError(f"No {RECORD} in {folder}: this is not a model folder; {_AGAIN}")
    record = read_sealed(folder / RECORD)
    if record.get("format") != FORMAT:
        raise RunError(f"{folder / RECORD} has format {record.get('format')}; this version reads {FORMAT}; {_AGAIN}")
    try:
        networks = {
            name: None if record[name] is None else _network(folder / file, record[name], record)
            for name, file in FILES.items()
        }
        condition = read_sealed(folder / CONDITION) if (folder / CONDITION).is_file() else None
        model = PublishedModel(folder, tuple(record["classes"]), **networks, condition=condition, about=record["about"])
        _ = model.name, model.performance, model.single.file
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / RECORD} does not describe a model; {_AGAIN}") from error
    return model


def predictor(network: Network) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """Load a network as a function from unscaled spectrograms [n, n_bins, n_frames] to probabilities and maps.

    Probabilities [n, n_classes] are calibrated; maps [n, n_rows, n_columns, n_classes] or None. It is not thread-safe.
    """
    answer = logits(network)

    def predict(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        values, maps = answer(scale(spectra, network.features, network.scaler)[..., None])
        return probabilities(network, values), maps

    return predict


def logits(network: Network) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """Load a network as a function from scaled features [n, n_bins, n_frames, 1] to logits and maps (or None)."""
    interpreter = litert.load(network.file, way_out=_AGAIN)
    given = interpreter.get_input_details()[0]["index"]
    outputs = {len(one["shape"]): one for one in interpreter.get_output_details()}  # logits have 2 axes, maps have 4

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
    """Return the calibrated probabilities of logits [n, n_classes]."""
    return _ACTIVATIONS[network.output](values, network.temperature)


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with their hash as `hash`, for `read_sealed`."""
    plain = {name: value for name, value in values.items() if name != "hash"}
    return plain | {"hash": hash_json(plain)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains its own hash; missing or altered files raise `RunError`."""
    try:
        values = read_json(path)
    except InstrlibError:
        values = None
    if not isinstance(values, dict) or sealed(values) != values:
        raise RunError(f"{path} is missing or altered; {_AGAIN}")
    return values


def _network(file: Path, settings: dict[str, Any], record: dict[str, Any]) -> Network:
    if not file.is_file() or hash_file(file) != settings["sha256"]:
        raise RunError(f"{file} is missing or altered; {_AGAIN}")
    grid, thresholds = settings["grid"], np.asarray(settings["thresholds"], float)
    if thresholds.shape != (len(record["classes"]),) or settings["output"] not in _ACTIVATIONS:
        raise ValueError("thresholds do not match the classes, or the output is unknown")
    if grid is not None:
        centres = {name: np.asarray(grid[name], float) for name in ("centre_bin", "centre_frame")}
        grid = dict(grid) | centres | {"shape": tuple(grid["shape"])}
    features, scaler = (
        FeatureConfig.from_dict(record["features"]),
        Scaler.from_dict(settings.get("scaler", record["scaler"])),
    )
    return Network(file, features, scaler, settings["output"], float(settings["temperature"]), thresholds, grid)


def _last_published() -> Path:
    found = {
        path.parent: _published_at(path)
        for path in sorted(folders().reports.glob(f"*/model/{RECORD}"))
        if not path.parents[1].name.endswith("-smoke")
    }
    if not found:
        raise RunError(
            f"No published model in {folders().reports}; name one with `--model FOLDER`, such as "
            "runs/<study>/model after `make study`."
        )
    return max(found, key=found.__getitem__)


def _published_at(path: Path) -> str:
    """Return when a model was published; "" for a damaged one, which must not hide an intact one."""
    try:
        return str(read_sealed(path)["about"]["published_at"])
    except (InstrlibError, KeyError, TypeError):
        return ""
