"""Saliency: class activation maps and Grad-CAM on spectrograms.

Maps have the grid of their layer: cells at regular steps, each with a receptive field on the input. They explain the
logit, because the gradient of a confident softmax vanishes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import mel_edges_hz
from instrlib.core.cache import cached, key
from instrlib.core.config import FeatureConfig
from instrlib.core.io import ConfigError, in_parts
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore
from instrlib.models.trained import load_model, open_trained, part_segments

if TYPE_CHECKING:
    import keras

_BATCH = 64


@dataclass(frozen=True)
class Grid:
    """Positions of the cells of a layer on the input.

    Centres are in bins and frames, and can lie outside the input; `shape` is that of the input (n_bins, n_frames).
    """

    centre_bin: np.ndarray
    centre_frame: np.ndarray
    field_bins: int
    field_frames: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Explained:
    """Class activation maps of validation segments, by the networks of several seeds.

    `segments` are rows of the store, with `fold`; `probabilities` [shape=(n_seeds, n, n_classes)]; `maps`
    [shape=(n_seeds, n, n_classes, n_rows, n_columns)] of every class, negative where they lower its logit.
    """

    segments: pd.DataFrame
    classes: tuple[str, ...]
    grid: Grid
    probabilities: np.ndarray
    maps: np.ndarray

    @property
    def answers(self) -> np.ndarray:
        """Predicted class of each network [shape=(n_seeds, n)]."""
        return self.probabilities.argmax(axis=-1)

    @property
    def true_maps(self) -> np.ndarray:
        """Maps of the true classes [shape=(n_seeds, n, n_rows, n_columns)]."""
        return self.maps[:, np.arange(len(self.segments)), self.segments.target]


# Geometry


def picture_layers(model: "keras.Model") -> list[str]:
    """Return the names of the layers with a frequency and a time axis, from input to output."""
    return [layer.name for layer in model.layers[1:] if len(layer.output.shape) == 4]


def last_picture_layer(model: "keras.Model") -> str:
    """Return the layer that defines the cells of a class activation map."""
    names = picture_layers(model)
    if not names:
        raise ConfigError("This network has no map, because no layer has a frequency and a time axis.")
    return names[-1]


def cell_grid(model: "keras.Model", layer: str) -> Grid:
    """Return the centres of the cells of a layer on the input, and their receptive field (arXiv:1603.07285).

    For a window of k samples with step s that begins p before the input, the centre of cell i is i s - p + (k - 1) / 2.
    With padding "same", TensorFlow puts half of the padding, rounded down, in front.
    """
    _check_layer(model, layer)
    shape = tuple(model.input.shape[1:3])
    centres = [np.arange(side, dtype=float) for side in shape]
    fields, steps = [1, 1], [1, 1]
    before = model.layers[0]
    for one in model.layers[1:]:
        for axis, (size, step) in enumerate(_windows(one, before)):
            n_in, n_out = before.output.shape[1 + axis], one.output.shape[1 + axis]
            same = getattr(one, "padding", "valid") == "same"
            missing = max((n_out - 1) * step + size - n_in, 0) if same else 0
            place = np.arange(n_out) * step - missing // 2 + (size - 1) / 2
            centres[axis] = centres[axis][0] + steps[axis] * place
            fields[axis] += (size - 1) * steps[axis]
            steps[axis] *= step
        if one.name == layer:
            break
        before = one
    return Grid(*centres, *fields, shape)


def upsample(maps: np.ndarray, grid: Grid) -> np.ndarray:
    """Interpolate maps [..., n_rows, n_columns] to the input grid: linear, constant beyond the outer centres.

    Examples
    --------
    >>> grid = Grid(np.array([0.0]), np.array([0.5, 2.5]), 1, 2, (1, 4))
    >>> upsample(np.array([[0.0, 1.0]]), grid).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    bins, frames = _hats(grid)
    return bins @ maps @ frames.T


def downsample(spectra: np.ndarray, grid: Grid) -> np.ndarray:
    """Average spectrograms [..., n_bins, n_frames] over the cells, with the weights of `upsample`."""
    bins, frames = (hat / np.maximum(hat.sum(axis=0), 1e-12) for hat in _hats(grid))
    return bins.T @ spectra @ frames


def shares(maps: np.ndarray, grid: Grid) -> np.ndarray:
    """Scale the positive part of each map such that its `upsample` has mean 1; NaN if nothing is positive."""
    positive = np.maximum(maps, 0)
    bins, frames = (hat.mean(axis=0) for hat in _hats(grid))
    total = np.einsum("...rc,r,c->...", positive, bins, frames)[..., None, None]
    return np.divide(positive, total, out=np.full(positive.shape, np.nan), where=total > 0)


def band_centres_hz(config: FeatureConfig) -> np.ndarray:
    """Return the centre of each mel band in Hz [shape=(n_mels,)]."""
    if config.kind != "log_mel":
        raise ConfigError(
            "A map over frequency requires log-mel features, because cepstral coefficients have no frequency axis."
        )
    return mel_edges_hz(config)[1:-1]


# Maps


def class_activation_maps(model: "keras.Model", x: np.ndarray) -> np.ndarray:
    """Return the class activation map of every class [1]_ for inputs [n, n_bins, n_frames, 1].

    The network must end with the mean over frequency and time and one dense layer. The logit of class c is the mean
    over the cells of ``sum_k w[k, c] A[k]`` plus a bias; this sum, cell by cell, is the map [n, n_classes, n_rows,
    n_columns], on the grid of `last_picture_layer(model)`.

    References
    ----------
    .. [1] B. Zhou et al., "Learning deep features for discriminative localization", CVPR 2016. arXiv:1512.04150
    """
    return weighted_channels(predict(channels(model), x), model)


def grad_cam(model: "keras.Model", x: np.ndarray, targets: np.ndarray, *, layer: str) -> np.ndarray:
    """Return Grad-CAM maps [n, n_rows, n_columns] [1]_ of one class (`targets`) for inputs [n, n_bins, n_frames, 1].

    The channels of `layer`, one of `picture_layers`, are summed, weighted by the mean gradient of the logit over the
    cells, and clipped at 0. At the last layer this is the positive part of the class activation map divided by the
    number of cells. The network must end with a dense softmax layer.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
       ICCV 2017. arXiv:1610.02391
    """
    keras = load_keras()
    import tensorflow as tf

    _check_layer(model, layer)
    last = _last(model)
    both = keras.Model(model.input, [model.get_layer(layer).output, last.input])
    found = []
    for rows in _slices(len(x)):
        with tf.GradientTape() as tape:
            active, below = both(x[rows], training=False)
            chosen = tf.gather(below @ last.kernel + last.bias, np.asarray(targets)[rows], batch_dims=1)
        weights = tf.reduce_mean(tape.gradient(chosen, active), axis=(1, 2))
        found.append(tf.nn.relu(tf.einsum("nrck,nk->nrc", active, weights)).numpy())
    return np.concatenate(found)


def channels(model: "keras.Model") -> "keras.Model":
    """Return the network up to the channels that the last layer averages; it shares the weights."""
    averages = [one for one in model.layers if type(one).__name__ == "GlobalAveragePooling2D"]
    if len(averages) != 1 or averages[0].output.shape != _last(model).input.shape:
        raise ConfigError(
            "A class activation map requires a network that ends with the mean over frequency and time and one dense "
            "layer; use grad_cam for this one."
        )
    return load_keras().Model(model.input, averages[0].input)


def weighted_channels(active: np.ndarray, model: "keras.Model") -> np.ndarray:
    """Return the map of every class: channels [n, n_rows, n_columns, n_channels] times the last weights."""
    return np.einsum("nrck,kt->ntrc", active, _last(model).get_weights()[0], optimize=True)


def predict(model: "keras.Model", x: np.ndarray) -> np.ndarray:
    """Return the outputs of a network, batch by batch."""
    return np.concatenate([model.predict_on_batch(x[rows]) for rows in _slices(len(x))])


def explain(
    folder: Path,
    networks: Sequence[Sequence[Path]],
    *,
    store: FeatureStore,
    splits: Sequence[Path],
    workers: int | None = None,
) -> Explained:
    """Return the maps of all classes for the validation segments of each split.

    `networks` are run folders of finished trainings, by seed and fold; maps are cached in `folder`.
    """
    tasks = [
        (folder / f"fold-{fold}" / f"maps-{seed}.npz", by_fold[fold], store.folder, split)
        for seed, by_fold in enumerate(networks)
        for fold, split in enumerate(splits)
    ]
    answers = list(parallel_map(_explain_one, tasks, workers=workers, describe="activation maps", isolate=True))
    by_seed = in_parts(answers, len(splits))
    segments = [
        part_segments(store, load_split(split, store.segments), "validation").assign(fold=fold)
        for fold, split in enumerate(splits)
    ]
    fields = [int(side) for side in answers[0]["field"]]
    grid = Grid(answers[0]["centre_bin"], answers[0]["centre_frame"], *fields, store.config.shape)
    probabilities, maps = (
        np.stack([np.concatenate([one[name] for one in folds]) for folds in by_seed])
        for name in ("probabilities", "maps")
    )
    return Explained(pd.concat(segments, ignore_index=True), store.classes, grid, probabilities, maps)


def overlay_arrays(rows: Sequence[int], maps: np.ndarray, titles: Sequence[str], store: FeatureStore) -> dict[str, Any]:
    """Return arguments of `charts.spectrograms`: segments (column `row`) with a map [n, n_bins, n_frames] each.

    Levels are rounded to dB and maps to hundredths of their maxima, which keeps the saved arrays small.
    """
    top = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12) if len(maps) else 1
    return {
        "spectra": np.round(store.features[np.asarray(rows, dtype=int)]).astype(np.int8),
        "maps": np.round(100 * maps / top).astype(np.uint8) / np.float32(100),
        "titles": list(titles),
        "hop_s": store.config.hop_s,
        "frequencies_hz": band_centres_hz(store.config),
    }


def _explain_one(path: Path, network: Path, store_folder: Path, split_path: Path) -> dict[str, np.ndarray]:
    trained, store, split = open_trained(network, store_folder, split_path)

    def make() -> dict[str, np.ndarray]:
        model, scaler = load_model(network)
        x = store.read(part_segments(store, split, "validation").row.to_numpy(), scaler)
        grid = cell_grid(model, last_picture_layer(model))
        return {
            "probabilities": predict(model, x),
            "maps": class_activation_maps(model, x),
            "centre_bin": grid.centre_bin,
            "centre_frame": grid.centre_frame,
            "field": np.array([grid.field_bins, grid.field_frames]),
        }

    return cached(path, key("studies", trained=trained["key"]), make)


def _slices(n: int) -> list[slice]:
    """Return slices of nearly equal length, so that at most two shapes are compiled."""
    edges = np.linspace(0, n, -(-n // _BATCH) + 1).round().astype(int)
    return [slice(first, last) for first, last in pairwise(edges)]


def _last(model: "keras.Model") -> Any:
    last = model.layers[-1]
    if type(last).__name__ != "Dense" or getattr(last.activation, "__name__", "") != "softmax":
        raise ConfigError(f"The last layer {last.name!r} must be a dense softmax layer.")
    return last


def _check_layer(model: "keras.Model", layer: str) -> None:
    known = picture_layers(model)
    if layer not in known:
        raise ConfigError(f"There is no layer {layer!r} with a frequency and a time axis; choose {', '.join(known)}.")


def _windows(layer: Any, before: Any) -> list[tuple[int, int]]:
    if layer.input is not before.output:
        raise ConfigError(
            f"The layers up to {layer.name!r} are not sequential, so it has no cell positions; choose another layer."
        )
    sizes, steps = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", (1, 1)), (1, 1)
    if sizes != (1, 1) or hasattr(layer, "strides"):
        wide = getattr(layer, "dilation_rate", (1, 1))
        sizes, steps = [(size - 1) * apart + 1 for size, apart in zip(sizes, wide, strict=True)], layer.strides
    same = getattr(layer, "padding", "valid") == "same"
    expected = [
        -(-side // step) if same else (side - size) // step + 1
        for side, size, step in zip(before.output.shape[1:3], sizes, steps, strict=True)
    ]
    if expected != list(layer.output.shape[1:3]):
        raise ConfigError(f"The layer {layer.name!r} has an unknown window; choose another layer.")
    return list(zip(sizes, steps, strict=True))


def _hats(grid: Grid) -> list[np.ndarray]:
    """Return weights of linear interpolation between the centres, (n_bins, n_rows) and (n_frames, n_columns)."""
    return [
        np.stack([np.interp(np.arange(side), centres, unit) for unit in np.eye(len(centres))], axis=1)
        for side, centres in zip(grid.shape, (grid.centre_bin, grid.centre_frame), strict=True)
    ]
