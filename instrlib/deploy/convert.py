"""Converts a trained network to the released file, calibrates it on validation and tests it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.audio.features import Scaler
from instrlib.core.cache import cached, key, source_hash
from instrlib.core.config import AugmentConfig, TrainConfig
from instrlib.core.io import EvaluationError, RunError, atomic_path, hash_file, hash_json, read_arrays
from instrlib.data.splits import Split
from instrlib.data.store import FeatureStore
from instrlib.evaluation.calibration import answer_thresholds, fit_label_temperature, fit_temperature, sigmoid, softmax
from instrlib.evaluation.metrics import best_thresholds, clip_probabilities, scores
from instrlib.models import export, litert
from instrlib.models.layers import output_of
from instrlib.models.published import Network
from instrlib.models.train import validation_examples
from instrlib.models.trained import answer_test, load_model, open_trained, part_segments, read_manifest, read_test
from instrlib.studies import saliency

FILE = "network.tflite"

MIN_AGREEMENT = 0.9
"""Smallest share of the validation examples on which a converted file must agree with its network."""

NEARLY = 0.05
"""Predictions agree if the network's probabilities for them differ by at most this: 8-bit weights can break ties."""

_KIND = "dynamic int8"


def convert(work: Path, network: Path, store_folder: Path, split_path: Path) -> dict[str, Any]:
    """Convert and calibrate a network; for softmax outputs also return test predictions of network and file."""
    trained, store, split = open_trained(network, store_folder, split_path)
    file, kept = work / FILE, work / "record.json"

    def make() -> dict[str, Any]:
        model, scaler = load_model(network)
        both = export.with_maps(model)
        with atomic_path(file) as path:
            path.write_bytes(export.convert_model(both, (_KIND,))[_KIND])
        has_maps = "maps" in both.output
        grid = saliency.cell_grid(model, saliency.picture_layers(model)[-1]) if has_maps else None
        plain = Network(file, store.config, scaler, output_of(model), 1.0, np.zeros(len(store.classes)))
        calibrate = _calibrate if plain.output == "softmax" else _calibrate_labels
        temperature, thresholds, results = calibrate(plain, store, split, network)
        decision = {"output": plain.output, "temperature": temperature, "thresholds": thresholds, "grid": grid}
        return {
            "settings": {"sha256": hash_file(file), **decision},
            "scaler": {"mean": _short(scaler.mean), "deviation": _short(scaler.deviation)},
            **results,
        }

    code = source_hash(Path(__file__).read_text(encoding="utf-8"))  # `key` knows the code of lower layers only
    made_of = key("studies", network=trained["key"], code=code)
    made = cached(kept, made_of, make)
    settings = made["settings"]
    if not file.is_file() or hash_file(file) != settings["sha256"]:
        kept.unlink()
        made = cached(kept, made_of, make)
        settings = made["settings"]
    if settings["output"] == "softmax":
        scaler, thresholds = Scaler.from_dict(made["scaler"]), np.array(settings["thresholds"])
        network_file = Network(file, store.config, scaler, "softmax", settings["temperature"], thresholds)
        tested = hash_json([settings, made["scaler"], store.fingerprint, split.fingerprint])
        load = functools.partial(_predictor, network_file)
        after = answer_test(work / "predictions.npz", tested, load, store=store, scaler=scaler, split=split)
        made["predictions"] = read_test(network, store_folder, split_path), after
    return made


def _short(values: np.ndarray) -> list[float]:
    """Return float32 numbers with as few digits as distinguish them, which halves the record."""
    return [float(str(one)) for one in np.asarray(values, np.float32)]


def _predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    interpreter = litert.load(network.file)
    return lambda x: network.probabilities(litert.run(interpreter, x)[2])


Calibrated = tuple[float, np.ndarray, dict[str, Any]]
"""Temperature, thresholds, and results on validation: `agreement` and `validation` scores."""


def _calibrate(plain: Network, store: FeatureStore, split: Split, network: Path) -> Calibrated:
    """Calibrate softmax outputs on the validation clips."""
    segments = part_segments(store, split, "validation")
    logits = litert.run(litert.load(plain.file), store.read(segments.row.to_numpy(), plain.scaler))[2]
    clips, clip_index = np.unique(segments.clip_id.to_numpy(str), return_inverse=True)
    targets = segments.groupby("clip_id", sort=True).target.first().to_numpy()
    temperature = fit_temperature(logits, targets, clip_index)
    as_trained, calibrated = (clip_probabilities(softmax(logits, one), clip_index) for one in (1.0, temperature))
    known = read_arrays(network / "validation.npz")
    if not np.array_equal(known["clip_id"], clips):
        raise RunError(f"{network} was validated on other clips; run the notebook that trains it again.")
    expected, answered = known["probabilities"], as_trained.argmax(axis=1)
    agreement = float((expected.argmax(axis=1) == answered).mean())
    _check_agreement(expected.max(axis=1) - expected[np.arange(len(expected)), answered], network)
    validation = {"as trained": scores(targets, as_trained), "calibrated": scores(targets, calibrated)}
    thresholds = answer_thresholds(targets, calibrated)
    return temperature, thresholds, {"agreement": agreement, "validation": validation}


def _calibrate_labels(plain: Network, store: FeatureStore, split: Split, network: Path) -> Calibrated:
    """Calibrate sigmoid outputs on the validation examples of the network, such as mixtures."""
    kept = read_manifest(network)["train"]
    augment = kept["augment"] | {"layers": tuple(kept["augment"]["layers"])}
    recipe = TrainConfig.from_dict(kept | {"augment": AugmentConfig.from_dict(augment)})
    held_out = validation_examples(store, part_segments(store, split, "validation"), plain.scaler, recipe)
    interpreter, labels = litert.load(plain.file), held_out.labels
    logits = held_out.answers(lambda x: litert.run(interpreter, x)[2])
    known = read_arrays(network / "validation.npz")
    if not np.array_equal(known["labels"], labels, equal_nan=True):
        raise RunError(f"{network} was validated on other examples; run the notebook that trains it again.")
    temperature = fit_label_temperature(logits, labels)
    as_trained, calibrated = (sigmoid(logits, one) for one in (1.0, temperature))
    expected = known["probabilities"]
    agreement = float(((expected >= 0.5) == (as_trained >= 0.5)).mean())
    _check_agreement(np.abs(expected - as_trained), network)
    thresholds, _ = best_thresholds(labels, calibrated)
    validation = {"as trained": scores(labels, as_trained), "calibrated": scores(labels, calibrated, thresholds)}
    return temperature, thresholds, {"agreement": agreement, "validation": validation}


def _check_agreement(apart: np.ndarray, network: Path) -> None:
    share = (apart <= NEARLY).mean()
    if share < MIN_AGREEMENT:
        raise EvaluationError(
            f"The file converted from {network} gives {share:.0%} of the network's answers on validation; at least "
            f"{MIN_AGREEMENT:.0%} are needed. Release another network."
        )
