"""The released model, and its predictions for recordings of any length, in constant memory.

A model is a folder with `model.json` (classes, features, temperature, thresholds, origin and scores), the TFLite
networks, optionally `condition.json`, and `MODEL_CARD.md`; `deploy.release` writes it. Reading and running it imports
neither TensorFlow nor pandas.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.audio import decode
from instrlib.audio.features import Scaler, extract, scale, segment_starts
from instrlib.core.config import FeatureConfig, folders
from instrlib.core.io import AudioError, InstrlibError, RunError, aside, expanded, hash_file, hash_json, read_json
from instrlib.core.parallel import without_stderr
from instrlib.evaluation.calibration import is_named, sigmoid, softmax

FORMAT = 1  # of `model.json`; other versions raise an error
RECORD, CONDITION, CARD = "model.json", "condition.json", "MODEL_CARD.md"
FILES = {"single": "single.tflite", "several": "several.tflite"}
STUDY_CLIP_S = 60.0  # shorter recordings are cut as the study cuts its clips, so that its scores hold
_ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}
_AGAIN = "restore the folder, or make a model with `make study`."
_BLOCK_S = 10.0
_MARGIN = 1e-6

Progress = Callable[[float], None]  # receives the share that is done, 0 to 1


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

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities of logits [n, n_classes]."""
        return _ACTIVATIONS[self.output](logits, self.temperature)


@dataclass(frozen=True)
class PublishedModel:
    """The contents of a model folder."""

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
        about, accuracy = self.about, self.about["scores"]["accuracy"]
        ends = "" if accuracy["low"] is None else f" (95 % CI {accuracy['low']:.2f} to {accuracy['high']:.2f})"
        tested = f"{about['n_tested']} test clips of the corpus it was trained on: {about['corpus']['title']}"
        return f"Accuracy {accuracy['estimate']:.2f}{ends} on {tested}."


@dataclass(frozen=True)
class Prediction:
    """The prediction for a recording of one instrument."""

    path: Path
    duration_s: float  # of a truncated file: of the readable part
    classes: tuple[str, ...]
    probabilities: np.ndarray  # calibrated, mean over the segments [n_classes]
    named: tuple[str, ...]  # the top class if it reaches its threshold; () if the model abstains

    def top(self, n: int) -> list[tuple[str, float]]:
        """Return the n most probable classes with their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[number], float(self.probabilities[number])) for number in order]


@dataclass(frozen=True)
class Windows:
    """Calibrated probabilities [n, n_classes] of windows that begin at `start_s` [n]; 0 where a window is silent."""

    start_s: np.ndarray
    window_s: float
    probabilities: np.ndarray


def open_model(folder: Path | None = None) -> PublishedModel:
    """Open a model folder, by default the one under `reports/` that was published last (not by profile "smoke")."""
    folder = _last_published() if folder is None else expanded(folder)
    if not folder.exists() and aside(folder).exists():  # `release.publish` was killed in the act
        folder = aside(folder)
    if not (folder / RECORD).is_file():
        raise RunError(f"No {RECORD} in {folder}: this is not a model folder; {_AGAIN}")
    record = read_sealed(folder / RECORD)
    if record.get("format") != FORMAT:
        raise RunError(f"{folder / RECORD} has format {record.get('format')}; this version reads {FORMAT}; {_AGAIN}")
    try:
        networks = {name: record[name] and _network(folder / file, record) for name, file in FILES.items()}
        condition = read_sealed(folder / CONDITION) if (folder / CONDITION).is_file() else None
        model = PublishedModel(folder, tuple(record["classes"]), **networks, condition=condition, about=record["about"])
        _ = model.name, model.performance, model.single.file
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / RECORD} does not describe a model; {_AGAIN}") from error
    return model


def _network(file: Path, record: dict[str, Any]) -> Network:
    settings = record[file.stem]
    if not file.is_file() or hash_file(file) != settings["sha256"]:
        raise RunError(f"{file} is missing or altered; {_AGAIN}")
    grid, thresholds = settings["grid"], np.asarray(settings["thresholds"], float)
    if thresholds.shape != (len(record["classes"]),) or settings["output"] not in _ACTIVATIONS:
        raise ValueError("thresholds do not match the classes, or the output is unknown")
    if grid is not None:
        grid |= {"shape": tuple(grid["shape"])}
        grid |= {name: np.asarray(grid[name], float) for name in ("centre_bin", "centre_frame")}
    scaler = Scaler.from_dict(settings.get("scaler") or record["scaler"])
    features, temperature = FeatureConfig.from_dict(record["features"]), float(settings["temperature"])
    return Network(file, features, scaler, settings["output"], temperature, thresholds, grid)


def _last_published() -> Path:
    def published_at(path: Path) -> str:
        try:
            return str(read_sealed(path)["about"]["published_at"])
        except (InstrlibError, KeyError, TypeError):  # a damaged model must not hide an intact one
            return ""

    found = sorted(folders().reports.glob(f"*/model/{RECORD}"))
    if not (found := [path for path in found if not path.parents[1].name.endswith("-smoke")]):
        raise RunError(
            f"No published model in {folders().reports}; name one with `--model FOLDER`, such as "
            "runs/<study>/model after `make study`."
        )
    return max(found, key=published_at).parent


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


def load_tflite(path: Path, *, way_out: str = "convert the network again.") -> Callable[..., dict[int, np.ndarray]]:
    """Load a TFLite file for one thread as a function from inputs [n, ...] to the outputs by their number of axes."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        with without_stderr():  # LiteRT reports its kernels
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{path} is missing or damaged; {way_out}") from error
    given, details = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()

    def run(x: np.ndarray) -> dict[int, np.ndarray]:
        found = [np.empty((len(x), *one["shape"][1:]), np.float32) for one in details]
        for number, one_input in enumerate(x):
            interpreter.set_tensor(given, one_input[None])
            interpreter.invoke()
            for values, one in zip(found, details, strict=True):
                values[number] = interpreter.get_tensor(one["index"])[0]
        return {values.ndim: values for values in found}

    return run


def predictor(network: Network) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """Load a network as a function from unscaled spectrograms [n, n_bins, n_frames] to probabilities and maps.

    Probabilities [n, n_classes] are calibrated; maps are [n, n_rows, n_columns, n_classes] or None.
    """
    run = load_tflite(network.file, way_out=_AGAIN)

    def predict(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        found = run(scale(spectra, network.features, network.scaler)[..., None])
        return network.probabilities(found[2]), found.get(4)

    return predict


def predict_file(path: Path, model: PublishedModel, *, on_progress: Progress | None = None) -> Prediction:
    """Predict the instrument of a recording; unusable files raise `AudioError`."""
    network, config, duration_s = model.single, model.single.features, decode.probe(path).duration_s
    if duration_s > STUDY_CLIP_S:
        config = dataclasses.replace(config, max_segments=math.ceil(duration_s / config.segment_hop_s) + 1)
    starts_s = segment_starts(duration_s, config)
    found, duration_s = _predicted(path, network, starts_s, config.segment_samples, on_progress)
    sounding = found[np.isfinite(found[:, 0])]
    if not len(sounding):
        raise AudioError(f"{path}: all analysed parts are silent; use a recording with sound.")
    mean = sounding.mean(axis=0)
    named = (model.classes[int(mean.argmax())],) if is_named(mean, network.thresholds) else ()
    return Prediction(path, duration_s, model.classes, mean, named)


def window_scores(
    path: Path,
    network: Network,
    *,
    hop_s: float = 1.0,
    window_s: float | None = None,
    on_progress: Progress | None = None,
) -> Windows:
    """Score windows of a recording, one every `hop_s` from 0 s to its end, at most a segment (the default) long."""
    window_s = network.features.segment_s if window_s is None else window_s

    def starts_s(duration_s: float) -> np.ndarray:
        return np.arange(1 + max(0, math.ceil((duration_s - window_s) / hop_s - _MARGIN))) * hop_s

    n_samples = round(window_s * network.features.sample_rate_hz)
    announced_s = starts_s(decode.probe(path).duration_s)  # truncated files have fewer
    found, duration_s = _predicted(path, network, announced_s, n_samples, on_progress)
    start_s = starts_s(duration_s)
    return Windows(start_s, window_s, np.nan_to_num(found[: len(start_s)]))


def _predicted(
    path: Path, network: Network, starts_s: np.ndarray, n_samples: int, on_progress: Progress | None
) -> tuple[np.ndarray, float]:
    """Predict stretches of a file, NaN for silence; also return the duration, as headers of truncated files err."""
    config, predict, number = network.features, predictor(network), 0
    found = np.full((len(starts_s), len(network.thresholds)), np.nan)
    places = [*np.rint(starts_s * config.sample_rate_hz).astype(int), math.inf]
    held, first = np.zeros(0, np.float32), 0  # the buffered samples and the index of the first one
    blocks = decode.blocks(path, sample_rate_hz=config.sample_rate_hz, block_s=_BLOCK_S)
    for block in itertools.chain(blocks, [None]):
        held = held if block is None else np.concatenate([held, block])
        end = first + len(held)
        while places[number] + (n_samples if block is not None else 1) <= end:
            signal = held[places[number] - first :][:n_samples]
            if len(signal) >= decode.MIN_DURATION_S * config.sample_rate_hz and not decode.is_silent(signal):
                # In half precision, as in the stored features of training and test.
                found[number] = predict(extract(signal, config)[None].astype(np.float16))[0][0]
            number += 1
            if on_progress is not None:
                on_progress(number / len(found))
        first, held = min(end, places[number]), held[min(end, places[number]) - first :]
    return found, end / config.sample_rate_hz


def recordings(paths: Sequence[Path]) -> list[Path | AudioError]:
    """Replace each folder by its sorted audio files, or by an `AudioError` if it has none."""
    found: list[Path | AudioError] = []
    for path in paths:
        inside = [path]
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names that are too long
            from instrlib.data.files import walk_audio

            inside = sorted(walk_audio(path))
        found += inside or [AudioError(f"{path}: no audio file in this folder.")]
    return found
