"""Faithfulness of saliency maps: deletion and insertion curves, and randomised weights.

Deletion replaces the spectrogram by silence, the most salient parts first, and records the probability of the predicted
class; insertion restores it in the same order (Petsiuk et al. 2018, arXiv:1806.07421). A faithful map outperforms
orders that ignore the network, and depends on its weights (Adebayo et al. 2018, arXiv:1810.03292).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.audio.features import Scaler, scale
from instrlib.core.cache import cached, key
from instrlib.core.config import FeatureConfig
from instrlib.core.io import ConfigError, in_parts
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.store import FeatureStore, open_store
from instrlib.models.trained import load_model, read_manifest
from instrlib.studies.saliency import Explained, Grid, channels, downsample, predict, upsample, weighted_channels

if TYPE_CHECKING:
    import keras

MAP = "class activation map"
LOUDEST, LOUDEST_MAP = "loudest points", "loudest points of the map"
ORDERS = (MAP, LOUDEST_MAP, LOUDEST, "loudest blocks", "another clip's map", "random points", "random blocks")
"""What is deleted first. Points are single values of the spectrogram; blocks are as coarse as the map's cells."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of the spectrogram that are deleted or inserted: close together where the curves are steep."""

N_DRAWS = 2
"""Draws of the random orders, for each network."""

N_WEIGHTS = 3
"""Draws of the random weights."""

_BATCH = 128


@dataclass(frozen=True)
class Measured:
    """Deletion and insertion curves of segments, and map correlations under randomised weights.

    `deletion` and `insertion` [shape=(n_seeds, n, n_fractions)] hold probabilities of the predicted class for each of
    `ORDERS`. `randomised` [shape=(n_seeds, n, n_layers)] is the absolute rank correlation with the original map after
    replacing the weights of each of `layers` and all later ones. It is absolute, because random weights can invert a
    map.
    """

    deletion: dict[str, np.ndarray]
    insertion: dict[str, np.ndarray]
    layers: tuple[str, ...]
    randomised: np.ndarray


def importance(
    maps: np.ndarray, level_db: np.ndarray, grid: Grid, *, floor_db: float, seed: int, n_draws: int = N_DRAWS
) -> dict[str, np.ndarray]:
    """Rank the values of each spectrogram [n, n_bins, n_frames] in each of `ORDERS`; rank 0 is deleted first.

    Ties are broken at random. Random blocks are the values of the map, shuffled over its cells. The map of another clip
    is that of the spectrogram half the list away. Random orders have an axis of draws, others an axis of length 1.
    """
    rng = np.random.default_rng(seed)
    n = len(maps)
    shuffled = rng.permuted(np.broadcast_to(maps.reshape(n, -1), (n_draws, n, maps[0].size)), axis=-1)
    values = {
        MAP: upsample(maps, grid)[None],
        LOUDEST_MAP: (upsample(np.maximum(maps, 0), grid) * (level_db - floor_db))[None],
        LOUDEST: level_db[None],
        "loudest blocks": upsample(downsample(level_db, grid), grid)[None],
        "another clip's map": upsample(np.roll(maps, max(1, n // 2), axis=0), grid)[None],
        "random points": rng.random((n_draws, *level_db.shape)),
        "random blocks": upsample(shuffled.reshape(n_draws, *maps.shape), grid),
    }
    return {name: _ranks(values[name], rng) for name in ORDERS}


def curves(
    answer: Callable[[np.ndarray], np.ndarray],
    level_db: np.ndarray,
    ranks: np.ndarray,
    targets: np.ndarray,
    *,
    config: FeatureConfig,
    scaler: Scaler | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return deletion and insertion curves [shape=(n_orders, n, n_fractions)]: probabilities of `targets`.

    Values become silence in the order of their ranks [n_orders, n, n_bins, n_frames], and are inserted into silence in
    the same order. `answer` maps scaled inputs [n, n_bins, n_frames, 1] to probabilities.
    """
    if config.kind != "log_mel":
        raise ConfigError("Deletion requires log-mel features, in which silence is a single value.")

    def follow(kept: np.ndarray | bool) -> np.ndarray:
        x = scale(np.where(kept, level_db, -config.top_db), config, scaler)[..., None]
        answers = np.concatenate([answer(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])
        return answers[np.arange(len(x)), targets]

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
    below = channels(changed)
    found = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        untrained = keras.models.clone_model(model)
        changed.set_weights(model.get_weights())
        for block in weight_blocks(model):
            for name in block:
                changed.get_layer(name).set_weights(untrained.get_layer(name).get_weights())
            found.append(weighted_channels(predict(below, x), changed)[np.arange(len(x)), targets])
    return np.stack(found).reshape(len(seeds), -1, *found[0].shape)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of maps [..., n_rows, n_columns]; 0 for constant maps."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.reshape(*maps.shape[:-2], -1), axis=-1) for maps in (a, b)]
    centred = [one - one.mean(axis=-1, keepdims=True) for one in ranks]
    product = (centred[0] * centred[1]).sum(axis=-1)
    size = np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
    return np.divide(product, size, out=np.zeros(product.shape), where=size > 0)


def measure(
    folder: Path,
    networks: Sequence[Sequence[Path]],
    explained: Explained,
    chosen: np.ndarray,
    *,
    store: FeatureStore,
    workers: int | None = None,
) -> Measured:
    """Measure segments (ascending positions in `explained`) for the class that each network predicts."""
    rows, folds = (explained.segments[name].to_numpy()[chosen] for name in ("row", "fold"))
    parts = [np.flatnonzero(folds == fold) for fold in range(len(networks[0]))]
    tasks = []
    for seed, by_fold in enumerate(networks):
        for fold, part in enumerate(parts):
            answers = explained.answers[seed, chosen[part]]
            maps = explained.maps[seed, chosen[part], answers]
            path = folder / f"fold-{fold}" / f"faithfulness-{seed}.npz"
            tasks.append((path, by_fold[fold], store.folder, rows[part], answers, maps, explained.grid, seed))
    results = list(parallel_map(_measure_one, tasks, workers=workers, describe="deletion and insertion", isolate=True))
    back = np.argsort(np.concatenate(parts))
    deletion, insertion, randomised = (
        np.stack([np.concatenate([one[name] for one in found])[back] for found in in_parts(results, len(parts))])
        for name in ("deletion", "insertion", "randomised")
    )
    by_order = [{name: one[:, :, number] for number, name in enumerate(ORDERS)} for one in (deletion, insertion)]
    return Measured(*by_order, tuple(results[0]["layers"].tolist()), randomised)


def _measure_one(
    path: Path,
    network: Path,
    store_folder: Path,
    rows: np.ndarray,
    answers: np.ndarray,
    maps: np.ndarray,
    grid: Grid,
    seed: int,
) -> dict[str, np.ndarray]:
    def make() -> dict[str, Any]:
        store = open_store(store_folder)
        model, scaler = load_model(network)
        level_db = store.features[rows].astype(np.float32)
        ranks = importance(maps, level_db, grid, floor_db=-store.config.top_db, seed=seed)
        found = curves(
            model.predict_on_batch,
            level_db,
            np.concatenate(list(ranks.values())),
            answers,
            config=store.config,
            scaler=scaler,
        )
        draws = np.cumsum([len(one) for one in ranks.values()])[:-1]
        deletion, insertion = (
            np.stack([part.mean(axis=0) for part in np.split(curve, draws)], axis=1) for curve in found
        )
        random = randomised_maps(model, store.read(rows, scaler), answers, seeds=range(N_WEIGHTS))
        return {
            "deletion": deletion,
            "insertion": insertion,
            "randomised": np.abs(rank_correlation(random, np.broadcast_to(maps, random.shape))).mean(axis=0).T,
            "layers": np.array([block[0] for block in weight_blocks(model)]),
        }

    inputs = {"trained": read_manifest(network)["key"], "rows": rows, "answers": answers, "seed": seed}
    return cached(path, key("studies", **inputs), make)


def _ranks(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = values.reshape(*values.shape[:-2], -1)
    mixed = rng.permutation(flat.shape[-1])
    order = mixed[np.argsort(-flat[..., mixed], axis=-1, kind="stable")]
    return np.argsort(order, axis=-1).reshape(values.shape)
