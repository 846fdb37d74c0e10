"""Training and validation examples, their augmentation, and the plan of each epoch."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio.augment import augment, draw
from instrlib.audio.features import Scaler, mel_edges_hz, scale, silence
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.data.store import FeatureStore

CHUNK_BYTES = 2**28
"""Larger training parts are brought into memory in chunks of this size; the result is the same."""

UNOBSERVED = -1.0
"""Target of a class that was not observed; sigmoid outputs alone."""

_PREDICTED_AT_ONCE = 256


@dataclass(frozen=True)
class Examples:
    """Training or validation examples.

    `versions` holds pairs of features [shape=(n_rows, n_bins, n_frames)] before scaling (float16 or float32, possibly
    memory-mapped) and the row of each example [shape=(n,)]; each epoch draws one version of each example. `labels`
    [shape=(n, n_classes)] are shares of the classes; or 1 present, 0 absent, NaN not observed. Without `config` and
    `scaler`, features are not scaled.
    """

    versions: tuple[tuple[np.ndarray, np.ndarray], ...]
    labels: np.ndarray
    config: FeatureConfig | None = None
    scaler: Scaler | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_bins, n_frames)."""
        return self.versions[0][0].shape[1:]

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return features before scaling; index `version * len(self) + number` is a version of an example."""
        features = np.empty((len(places), *self.shape), self.versions[0][0].dtype)
        for version, (stored, rows) in enumerate(self.versions):
            chosen = places // len(self) == version
            features[chosen] = stored[rows[places[chosen] % len(self)]]
        return features

    def scaled(self, features: np.ndarray) -> np.ndarray:
        """Return features as network inputs, without the channel axis."""
        return scale(features, self.config, self.scaler) if self.config else np.asarray(features, np.float32)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield all examples as network inputs [shape=(batch, n_bins, n_frames, 1)], in order."""
        for part in np.array_split(np.arange(len(self)), -(-len(self) // _PREDICTED_AT_ONCE)):
            yield self.scaled(self.read(part))[..., None]

    def answers(self, predict: Callable[[np.ndarray], Any]) -> np.ndarray:
        """Return the predicted probabilities of all examples [shape=(n, n_classes)]."""
        return np.concatenate([np.asarray(predict(x)) for x in self.batches()])


def examples(store: FeatureStore, segments: pd.DataFrame, scaler: Scaler) -> Examples:
    """Return segments of a store as examples."""
    versions = ((store.features, segments.row.to_numpy()),)
    return Examples(versions, store.label_matrix(segments), store.config, scaler)


def validation_examples(store: FeatureStore, segments: pd.DataFrame, scaler: Scaler, config: TrainConfig) -> Examples:
    """Return the validation examples: segments, or fixed mixtures of them, one starting from each segment."""
    plain = examples(store, segments, scaler)
    if config.augment.mix != "layers":
        return plain
    always = dataclasses.replace(config, augment=dataclasses.replace(config.augment, share=1.0, retake=0.0))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(plain))  # partners come from the same batch, which must contain several classes
    x, y = plain.read(order).astype(np.float32), plain.labels[order]
    for part in np.array_split(np.arange(len(order)), -(-len(order) // 64)):
        x[part], y[part] = _augmented(plain, x[part], y[part], always, rng)
    return dataclasses.replace(plain, versions=((x, np.arange(len(x))),), labels=y)


def _in_numpy(config: TrainConfig) -> bool:
    """Return whether `audio.augment` has work outside the graph: mixtures and recording augmentation."""
    return config.augment.mix == "layers" or config.augment.retake > 0


def is_resident(known: Examples, config: TrainConfig) -> bool:
    """Return whether the graph gets all examples at once; see `plans`."""
    row_bytes = known.read(np.zeros(1, int)).nbytes
    return not _in_numpy(config) and len(known.versions) * len(known) * row_bytes <= CHUNK_BYTES


def plans(
    known: Examples,
    config: TrainConfig,
    weights: np.ndarray | None,
    resident: np.ndarray | None,
    rate: np.ndarray,
    seed: tuple[int, int],
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield data and plan for each call of `Graph.epoch`: one if data are resident, otherwise one per chunk."""
    n, n_steps = len(known), len(rate)
    size = min(config.batch_size, n)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)[: n_steps * size].reshape(n_steps, size)
    order = order + n * rng.integers(len(known.versions), size=order.shape)
    at_once = n_steps if resident is not None else max(1, CHUNK_BYTES // known.read(order[0]).nbytes)
    for first in range(0, n_steps, at_once):
        places = order[first : first + at_once]
        labels = known.labels[places % n]
        generators = [np.random.default_rng((*seed, first + number)) for number in range(len(places))]
        data, rows = resident, places
        if resident is None:
            data, rows = known.read(places.ravel()), np.arange(places.size).reshape(places.shape)
        if _in_numpy(config):
            for batch, one, rng in zip(rows, range(len(rows)), generators, strict=True):
                data[batch], labels[one] = _augmented(known, data[batch], labels[one], config, rng)
        drawn: dict[str, list[np.ndarray]] = {}
        hop_s = known.config.hop_s if known.config else 1.0
        for number, rng in enumerate(generators):
            one, labels[number] = draw(config.augment, labels[number], known.shape, hop_s, rng)
            for name, value in one.items():
                drawn.setdefault(name, []).append(value)
        plan = {name: np.stack(values) for name, values in drawn.items()}
        targets, weighted = smoothed(labels, weights, config, known.labels)
        plan |= {"rows": rows, "partners": np.take_along_axis(rows, plan.pop("partner"), axis=1)}
        plan = {name: value.astype(np.int32) if value.dtype == np.int64 else value for name, value in plan.items()}
        plan |= {
            "targets": targets,
            "weights": weighted,
            "rate": rate[first : first + at_once],
            "seed": np.int32(seed[0]),
        }
        yield data, plan


def _augmented(
    known: Examples, x: np.ndarray, y: np.ndarray, config: TrainConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the augmentation outside the graph; `rng` continues with that inside it."""
    mix = "layers" if config.augment.mix == "layers" else "none"
    settings = dataclasses.replace(config.augment, mix=mix, time_masks=0, frequency_masks=0)
    about = {"floor": silence(known.config), "hop_s": known.config.hop_s, "edges_hz": mel_edges_hz(known.config)}
    return augment(x.astype(np.float32), y, settings, **about, rng=rng)


def affine(examples: Examples) -> dict[str, np.ndarray]:
    """Return `features.scale` as slope and offset of each bin, and the value of silence [shape=(n_bins, 1)]."""
    ends = np.stack([np.zeros((examples.shape[0], 1)), np.ones((examples.shape[0], 1))]).astype(np.float32)
    config, floor = examples.config, ends[0]
    if config:
        floor = silence(config)[:, None]
    if config and config.scaling != "segment":  # the graph scales segments after mixing
        ends = examples.scaled(ends)
    return {"slope": ends[1] - ends[0], "offset": ends[0], "floor": floor.astype(np.float32)}


def smoothed(
    labels: np.ndarray, weights: np.ndarray | None, config: TrainConfig, all_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return smoothed targets and the weight of each example, of the shape of `labels` without its last axis."""
    observed = np.isfinite(labels)
    n_classes = 2 if weights is None else labels.shape[-1]
    targets = (1 - config.label_smoothing) * labels + config.label_smoothing / n_classes
    if weights is None:
        n_observed = np.isfinite(all_labels).sum(axis=1).mean()  # equal weight for every observed label
        targets, weighted = np.where(observed, targets, UNOBSERVED), observed.sum(axis=-1) / n_observed
    else:
        weighted = labels @ weights
    return targets.astype(np.float32), weighted.astype(np.float32)
