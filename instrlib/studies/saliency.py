"""Saliency maps on spectrograms (class activation maps and Grad-CAM), and tests of their faithfulness.

Deletion replaces the spectrogram by silence, the most salient parts first; insertion restores it (arXiv:1806.07421). A
faithful map outperforms orders that ignore the network, and depends on its weights (arXiv:1810.03292).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler, mel_edges_hz, scale
from instrlib.core.cache import cached, key
from instrlib.core.config import FeatureConfig
from instrlib.core.io import ConfigError, in_parts
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.models import compression
from instrlib.models.trained import load_model, open_trained, part_segments, read_manifest

if TYPE_CHECKING:
    import keras

MAP = "class activation map"
LOUDEST, LOUDEST_MAP = "loudest points", "loudest points of the map"
ORDERS = (MAP, LOUDEST_MAP, LOUDEST, "loudest blocks", "another clip's map", "random points", "random blocks")
"""What is deleted first. Points are single values of the spectrogram; blocks are as coarse as the map's cells."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of the spectrogram: close together where curves are steep
N_DRAWS, N_WEIGHTS = 2, 3  # draws of the random orders and of the random weights, for each network

_BATCH = 128


@dataclass(frozen=True)
class Grid:
    """Positions of the cells of a layer on the input, whose `shape` is (n_bins, n_frames)."""

    centre_bin: np.ndarray
    centre_frame: np.ndarray
    field_bins: int
    field_frames: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Explained:
    """Class activation maps of validation segments, by the networks of several seeds."""

    segments: pd.DataFrame  # rows of the store, with `fold`
    classes: tuple[str, ...]
    grid: Grid
    probabilities: np.ndarray  # [n_seeds, n, n_classes]
    maps: np.ndarray  # of every class [n_seeds, n, n_classes, n_rows, n_columns], negative where they lower its logit

    @property
    def answers(self) -> np.ndarray:
        """Predicted class of each network [shape=(n_seeds, n)]."""
        return self.probabilities.argmax(axis=-1)

    @property
    def true_maps(self) -> np.ndarray:
        """Maps of the true classes [shape=(n_seeds, n, n_rows, n_columns)]."""
        return self.maps[:, np.arange(len(self.segments)), self.segments.target]


def picture_layers(model: "keras.Model") -> list[str]:
    """Return the layers with a frequency and a time axis; the last one defines the cells of a class activation map."""
    return [layer.name for layer in model.layers[1:] if len(layer.output.shape) == 4]


def cell_grid(model: "keras.Model", layer: str) -> Grid:
    """Return the centres of the cells of a layer on the input, and their receptive field (arXiv:1603.07285).

    For a window of k samples with step s that begins p before the input, the centre of cell i is i s - p + (k - 1) / 2.
    """
    shape = tuple(model.input.shape[1:3])
    centres, fields, steps = [np.arange(side, dtype=float) for side in shape], [1, 1], [1, 1]
    for before, one in zip(model.layers, model.layers[1:], strict=False):
        windows = getattr(one, "kernel_size", None) or getattr(one, "pool_size", (1, 1))
        same = getattr(one, "padding", "valid") == "same"
        for axis in (0, 1):
            size = (windows[axis] - 1) * getattr(one, "dilation_rate", (1, 1))[axis] + 1
            step = getattr(one, "strides", (1, 1))[axis]
            n_in, n_out = before.output.shape[1 + axis], one.output.shape[1 + axis]
            if one.input is not before.output or n_out != (-(-n_in // step) if same else (n_in - size) // step + 1):
                raise ConfigError(f"The cells of the layer {one.name!r} have no known position; choose another layer.")
            padding = max((n_out - 1) * step + size - n_in, 0) if same else 0
            place = np.arange(n_out) * step - padding // 2 + (size - 1) / 2  # half of it, rounded down, is in front
            centres[axis] = centres[axis][0] + steps[axis] * place
            fields[axis] += (size - 1) * steps[axis]
            steps[axis] *= step
        if one.name == layer:
            break
    return Grid(*centres, *fields, shape)


def upsample(maps: np.ndarray, grid: Grid) -> np.ndarray:
    """Interpolate maps [..., n_rows, n_columns] to the input grid: linear, constant beyond the outer centres."""
    bins, frames = _hats(grid)
    return bins @ maps @ frames.T


def downsample(spectra: np.ndarray, grid: Grid) -> np.ndarray:
    """Average spectrograms [..., n_bins, n_frames] over the cells, with the weights of `upsample`."""
    bins, frames = (hat / np.maximum(hat.sum(axis=0), 1e-12) for hat in _hats(grid))
    return bins.T @ spectra @ frames


def shares(maps: np.ndarray, grid: Grid) -> np.ndarray:
    """Scale the positive part of each map such that its `upsample` has mean 1; NaN if nothing is positive."""
    positive = np.maximum(maps, 0)
    total = upsample(positive, grid).mean(axis=(-2, -1), keepdims=True)
    return np.divide(positive, total, out=np.full(positive.shape, np.nan), where=total > 0)


def _hats(grid: Grid) -> list[np.ndarray]:
    """Return weights of linear interpolation between the centres, (n_bins, n_rows) and (n_frames, n_columns)."""
    return [
        np.stack([np.interp(np.arange(side), centres, unit) for unit in np.eye(len(centres))], axis=1)
        for side, centres in zip(grid.shape, (grid.centre_bin, grid.centre_frame), strict=True)
    ]


def class_activation_maps(model: "keras.Model", x: np.ndarray) -> np.ndarray:
    """Return the class activation map of every class (arXiv:1512.04150) for inputs [n, n_bins, n_frames, 1].

    The map [n, n_classes, n_rows, n_columns], on the grid of the last of `picture_layers`, has the logit as mean.
    """
    network = compression.with_maps(model)
    if "maps" not in network.output:
        raise ConfigError("Class activation maps require a network that ends with a global mean and one dense layer.")
    maps = [network(part, training=False)["maps"].numpy() for part in in_parts(x, _BATCH)]
    return np.moveaxis(np.concatenate(maps), -1, 1)


def grad_cam(model: "keras.Model", x: np.ndarray, targets: np.ndarray, *, layer: str) -> np.ndarray:
    """Return Grad-CAM maps [n, n_rows, n_columns] (arXiv:1610.02391) of the classes `targets` for inputs.

    Channels of `layer` are weighted by the mean gradient of the logit. The network must end with a dense layer.
    """
    keras = load_keras()
    import tensorflow as tf

    last = model.layers[-1]
    both = keras.Model(model.input, [model.get_layer(layer).output, last.input])
    found = []
    for rows in in_parts(np.arange(len(x)), _BATCH):
        with tf.GradientTape() as tape:
            active, below = both(x[rows], training=False)
            chosen = tf.gather(below @ last.kernel + last.bias, np.asarray(targets)[rows], batch_dims=1)
        weights = tf.reduce_mean(tape.gradient(chosen, active), axis=(1, 2))
        found.append(tf.nn.relu(tf.einsum("nrck,nk->nrc", active, weights)).numpy())
    return np.concatenate(found)


def explain(
    folder: Path, networks: Sequence[Sequence[Path]], *, store: FeatureStore, splits: Sequence[Path]
) -> Explained:
    """Return the maps of all classes for the validation segments of each split, by run folders by seed and fold."""
    tasks = [
        (folder / f"fold-{fold}" / f"maps-{seed}.npz", by_fold[fold], store.folder, split)
        for seed, by_fold in enumerate(networks)
        for fold, split in enumerate(splits)
    ]
    found = list(parallel_map(_explain_one, tasks, describe="activation maps", isolate=True))
    validation = [part_segments(store, load_split(split, store.segments), "validation") for split in splits]
    segments = pd.concat([one.assign(fold=fold) for fold, one in enumerate(validation)], ignore_index=True)
    grid = Grid(**{field.name: found[0][field.name] for field in fields(Grid)})
    return Explained(segments, store.classes, grid, *_by_seed(found, ("probabilities", "maps"), len(splits)))


def _explain_one(path: Path, network: Path, store_folder: Path, split_path: Path) -> dict[str, np.ndarray]:
    trained, store, split = open_trained(network, store_folder, split_path)

    def make() -> dict[str, np.ndarray]:
        model, scaler = load_model(network)
        x = store.read(part_segments(store, split, "validation").row.to_numpy(), scaler)
        maps, grid = class_activation_maps(model, x), cell_grid(model, picture_layers(model)[-1])
        return {"probabilities": model.predict(x, batch_size=_BATCH, verbose=0), "maps": maps, **vars(grid)}

    return cached(path, key("studies", trained=trained["key"]), make)


def _by_seed(found: list[dict[str, np.ndarray]], names: Sequence[str], n_folds: int) -> list[np.ndarray]:
    """Join results of each seed and fold: arrays [n_seeds, n of all folds, ...] by name."""
    by_seed = in_parts(found, n_folds)
    return [np.stack([np.concatenate([one[name] for one in folds]) for folds in by_seed]) for name in names]


def overlay_arrays(rows: Sequence[int], maps: np.ndarray, titles: Sequence[str], store: FeatureStore) -> dict[str, Any]:
    """Return arguments of `charts.spectrograms`: rows of a store with maps [n, n_bins, n_frames], rounded."""
    top = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12) if len(maps) else 1
    return {
        "spectra": np.round(store.features[np.asarray(rows, dtype=int)]).astype(np.int8),
        "maps": np.round(100 * maps / top).astype(np.uint8) / np.float32(100),
        "titles": list(titles),
        "hop_s": store.config.hop_s,
        "frequencies_hz": mel_edges_hz(store.config)[1:-1],
    }


def importance(
    maps: np.ndarray, level_db: np.ndarray, grid: Grid, *, floor_db: float, seed: int
) -> dict[str, np.ndarray]:
    """Rank the values of each spectrogram [n_draws or 1, n, n_bins, n_frames] in each of `ORDERS`; ties are random."""
    rng = np.random.default_rng(seed)
    n = len(maps)  # another clip's map is that half the list away
    shuffled = rng.permuted(np.broadcast_to(maps.reshape(n, -1), (N_DRAWS, n, maps[0].size)), axis=-1)
    values = {
        MAP: upsample(maps, grid)[None],
        LOUDEST_MAP: (upsample(np.maximum(maps, 0), grid) * (level_db - floor_db))[None],
        LOUDEST: level_db[None],
        "loudest blocks": upsample(downsample(level_db, grid), grid)[None],
        "another clip's map": upsample(np.roll(maps, max(1, n // 2), axis=0), grid)[None],
        "random points": rng.random((N_DRAWS, *level_db.shape)),
        "random blocks": upsample(shuffled.reshape(N_DRAWS, *maps.shape), grid),
    }
    ranks = {}
    for name, one in values.items():
        flat = one.reshape(*one.shape[:-2], -1)
        mixed = rng.permutation(flat.shape[-1])
        order = mixed[np.argsort(-flat[..., mixed], axis=-1, kind="stable")]
        ranks[name] = np.argsort(order, axis=-1).reshape(one.shape)
    return ranks


def curves(
    answer: Callable[[np.ndarray], np.ndarray],
    level_db: np.ndarray,
    ranks: np.ndarray,
    targets: np.ndarray,
    *,
    config: FeatureConfig,
    scaler: Scaler | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return deletion and insertion curves [n_orders, n, n_fractions]: probabilities of `targets` by `answer`.

    Values become silence in the order of their ranks [n_orders, n, n_bins, n_frames], and are restored in this order.
    """

    def follow(kept: np.ndarray | bool) -> np.ndarray:
        x = scale(np.where(kept, level_db, -config.top_db), config, scaler)[..., None]
        return answer(x)[np.arange(len(x)), targets]

    whole, nothing = follow(True), follow(False)
    limits = [round(fraction * ranks[0, 0].size) for fraction in FRACTIONS[1:-1]]
    deletion = [[whole, *(follow(order >= limit) for limit in limits), nothing] for order in ranks]
    insertion = [[nothing, *(follow(order < limit) for limit in limits), whole] for order in ranks]
    return np.swapaxes(deletion, 1, 2), np.swapaxes(insertion, 1, 2)


def weight_blocks(model: "keras.Model") -> list[list[str]]:
    """Return the layers with weights from output to input, each with the normalisation after it."""
    blocks: list[list[str]] = []
    for layer in model.layers:
        if layer.weights and type(layer).__name__ == "BatchNormalization" and blocks:
            blocks[-1].append(layer.name)
        elif layer.weights:
            blocks.append([layer.name])
    return blocks[::-1]


def randomised_maps(model: "keras.Model", x: np.ndarray, targets: np.ndarray, *, seeds: Sequence[int]) -> np.ndarray:
    """Return maps [n_seeds, n_blocks, n, n_rows, n_columns] with `weight_blocks` randomised cumulatively."""
    keras = load_keras()
    changed = keras.models.clone_model(model)
    found = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        untrained = keras.models.clone_model(model)
        changed.set_weights(model.get_weights())
        for block in weight_blocks(model):
            for name in block:
                changed.get_layer(name).set_weights(untrained.get_layer(name).get_weights())
            found.append(class_activation_maps(changed, x)[np.arange(len(x)), targets])
    return np.stack(found).reshape(len(seeds), -1, *found[0].shape)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of maps [..., n_rows, n_columns]; 0 for constant maps."""
    from scipy.stats import rankdata

    ranks = (rankdata(maps.reshape(*maps.shape[:-2], -1), axis=-1) for maps in (a, b))
    centred = [one - one.mean(axis=-1, keepdims=True) for one in ranks]
    first, second = (one / np.maximum(np.linalg.norm(one, axis=-1, keepdims=True), 1e-12) for one in centred)
    return (first * second).sum(axis=-1)


def measure(
    folder: Path, networks: Sequence[Sequence[Path]], explained: Explained, chosen: np.ndarray, *, store: FeatureStore
) -> dict[str, Any]:
    """Measure segments (ascending positions in `explained`) for the class that each network predicts.

    `deletion` and `insertion` are probabilities of this class [n_seeds, n, n_fractions], for each of `ORDERS`;
    `randomised` [n_seeds, n, n_layers] are absolute rank correlations with the original map; see `randomised_maps`.
    """
    tasks = []
    for seed, by_fold in enumerate(networks):
        for fold, network in enumerate(by_fold):
            part = chosen[explained.segments.fold.to_numpy()[chosen] == fold]
            answers, rows = explained.answers[seed, part], explained.segments.row.to_numpy()[part]
            path, maps = folder / f"fold-{fold}" / f"faithfulness-{seed}.npz", explained.maps[seed, part, answers]
            given = {"rows": rows, "answers": answers, "seed": seed}
            tasks.append((path, network, store.folder, given, maps, explained.grid))
    found = list(parallel_map(_measure_one, tasks, describe="deletion and insertion", isolate=True))
    *both, randomised = _by_seed(found, ("deletion", "insertion", "randomised"), len(networks[0]))
    deletion, insertion = ({name: one[:, :, number] for number, name in enumerate(ORDERS)} for one in both)
    layers = found[0]["layers"].tolist()
    return {"deletion": deletion, "insertion": insertion, "layers": layers, "randomised": randomised}


def _measure_one(
    path: Path, network: Path, store: Path, given: dict[str, Any], maps: np.ndarray, grid: Grid
) -> dict[str, np.ndarray]:
    def make() -> dict[str, Any]:
        opened, (model, scaler) = open_store(store), load_model(network)
        rows, answers, config = given["rows"], given["answers"], opened.config
        level_db = opened.features[rows].astype(np.float32)
        answer = functools.partial(model.predict, batch_size=_BATCH, verbose=0)
        orders = importance(maps, level_db, grid, floor_db=-config.top_db, seed=given["seed"])
        found = [curves(answer, level_db, ranks, answers, config=config, scaler=scaler) for ranks in orders.values()]
        deletion, insertion = (np.stack([one.mean(axis=0) for one in ones], 1) for ones in zip(*found, strict=True))
        random = randomised_maps(model, opened.read(rows, scaler), answers, seeds=range(N_WEIGHTS))
        randomised = np.abs(rank_correlation(random, np.broadcast_to(maps, random.shape))).mean(axis=0).T
        layers = np.array([block[0] for block in weight_blocks(model)])
        return {"deletion": deletion, "insertion": insertion, "randomised": randomised, "layers": layers}

    return cached(path, key("studies", trained=read_manifest(network)["key"], **given), make)
