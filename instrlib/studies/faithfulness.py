"""Whether a map tells the truth about a network: deletion and insertion curves, and the randomisation of its weights.

Deletion takes away what a map marks, the most active first, and watches the probability of the answer fall; insertion
gives it back to silence [1]_. What is taken away becomes the floor, which is silence; 0 dB would be the loudest sound
there is. A map is only worth something when it beats orders that know nothing of the network: chance, the map of
another clip, and the loudness of the sound, which is a strong one. And it must change when the network's weights are
replaced by random ones: a map that does not shows the sound and not the network [2]_.

References
----------
.. [1] V. Petsiuk, A. Das, K. Saenko, "RISE: randomized input sampling for explanation of black-box models", BMVC 2018.
   arXiv:1806.07421
.. [2] J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018. arXiv:1810.03292
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler, scale
from instrlib.core.backend import load_keras
from instrlib.core.cache import cached, code_hash
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError
from instrlib.core.io import hash_json
from instrlib.core.parallel import parallel_map
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation.intervals import Difference, Interval, bootstrap_mean, compare_over_seeds
from instrlib.evaluation.statistics import holm
from instrlib.models.training import load_model, read_manifest
from instrlib.studies.attention import Explained
from instrlib.studies.cam import Grid, channels, downsample, predict, upsample, weighted_channels

if TYPE_CHECKING:
    import keras

MAP = "class activation map"
LOUDEST, LOUDEST_MAP = "loudest points", "loudest points of the map"
ORDERS = (MAP, LOUDEST_MAP, LOUDEST, "loudest blocks", "another clip's map", "random points", "random blocks")
"""What is taken away first. Points are single values of the picture; blocks are as coarse as the map's cells."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of the picture that are taken away or given back: close together where the curves are steep."""

N_DRAWS = 2
"""Draws of what is random, for each network; every network has draws of its own."""

N_WEIGHTS = 3
"""Draws of the weights of an untrained network."""

_BATCH = 128
_PART = 16


@dataclass(frozen=True)
class Measured:
    """Curves and similarities of some segments.

    Attributes
    ----------
    groups : np.ndarray of str [shape=(n,)]
        Group of each segment.
    fractions : np.ndarray [shape=(n_fractions,)]
        Shares of the picture.
    deletion, insertion : dict of str to np.ndarray [shape=(n_seeds, n, n_fractions)]
        Probability of the class that was answered, for each of `ORDERS`, the mean over the draws.
    layers : tuple of str
        The layers whose weights were replaced, the last layer of the network first; each with all before it.
    randomised : np.ndarray [shape=(n_seeds, n, n_layers)]
        Absolute rank correlation of the map with that of the intact network, the mean over the draws. Without the
        sign, as [1]_ also report it: random weights turn a map over as often as not, and the mean of signed values
        would tend to 0 for a map that keeps its pattern in every draw.

    References
    ----------
    .. [1] J. Adebayo et al., 2018. arXiv:1810.03292
    """

    groups: np.ndarray
    fractions: np.ndarray
    deletion: dict[str, np.ndarray]
    insertion: dict[str, np.ndarray]
    layers: tuple[str, ...]
    randomised: np.ndarray


def choose_segments(explained: Explained, *, per_class: int) -> np.ndarray:
    """Choose segments to measure: some of each class, one a clip, the groups taking turns.

    Parameters
    ----------
    explained : Explained
        All segments.
    per_class : int
        At most so many a class.

    Returns
    -------
    np.ndarray of int
        Positions in `explained`, ascending.
    """
    table = explained.segments.reset_index(names="place").drop_duplicates(["fold", "clip_id"])
    turn = table.groupby(["target", "group"]).cumcount()
    table = table.assign(turn=turn).sort_values(["target", "turn", "group", "clip_id"], kind="stable")
    return np.sort(table.groupby("target").head(per_class).place.to_numpy())


def importance(
    maps: np.ndarray, level_db: np.ndarray, grid: Grid, *, floor_db: float, seed: int, n_draws: int = N_DRAWS
) -> dict[str, np.ndarray]:
    """Rank the values of each picture in several orders.

    Parameters
    ----------
    maps : np.ndarray [shape=(n, n_rows, n_columns)]
        A map of each picture, signed.
    level_db : np.ndarray [shape=(n, n_bins, n_frames)]
        The pictures in dB.
    grid : Grid
        Where the cells of the maps lie.
    floor_db : float
        Level of silence.
    seed : int
        Of the draws.
    n_draws : int
        Draws of the random orders.

    Returns
    -------
    dict of str to np.ndarray of int [shape=(n_draws or 1, n, n_bins, n_frames)]
        For each of `ORDERS` the rank of each value: what has rank 0 is taken away first. Equal values in random order.
        The loudest points of the map come by their dB above the floor times what is above 0 in the map. Random blocks
        are the map's own values dealt anew to its cells, so that they are as smooth and as large. Another clip's map
        is that of the picture half the list away.
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
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[np.ndarray, np.ndarray]:
    """Take values away in the order of their ranks, and give them back to silence in the same order.

    Parameters
    ----------
    answer : callable
        From scaled inputs [shape=(n, n_bins, n_frames, 1)] to probabilities [shape=(n, n_classes)].
    level_db : np.ndarray [shape=(n, n_bins, n_frames)]
        The pictures in dB.
    ranks : np.ndarray of int [shape=(n_orders, n, n_bins, n_frames)]
        From `importance`.
    targets : np.ndarray of int [shape=(n,)]
        The class whose probability is watched.
    config : FeatureConfig
        Gives the floor and the scaling.
    scaler : Scaler or None
        For the scaling "train".
    fractions : sequence of float
        Shares of the values, from 0 to 1, ascending.

    Returns
    -------
    deletion, insertion : np.ndarray [shape=(n_orders, n, n_fractions)]
        Probabilities after the deletion, and after the insertion, of each share.

    Raises
    ------
    ConfigError
        When the features are not log-mel: no single value of theirs is silence.
    """
    if config.kind != "log_mel":
        raise ConfigError("Deletion needs log-mel features, in which silence is one value; MFCC have none.")

    def watch(kept: np.ndarray | bool) -> np.ndarray:
        x = scale(np.where(kept, level_db, -config.top_db), config, scaler)[..., None]
        answers = np.concatenate([answer(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])
        return answers[np.arange(len(x)), targets]

    ends = np.repeat([[watch(True), watch(False)]], len(ranks), axis=0)  # the same for every order
    found = []
    for keep in (np.greater_equal, np.less):
        inner = [
            [watch(keep(order, round(fraction * order[0].size))) for fraction in fractions[1:-1]] for order in ranks
        ]
        found.append(np.concatenate([ends[:, :1], inner, ends[:, 1:]], axis=1).swapaxes(1, 2))
        ends = ends[:, ::-1]
    return found[0], found[1]


def area(curve: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Area under curves by the trapezoidal rule, 0 to 1 [shape of curve without the last axis].

    Examples
    --------
    >>> float(area(np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.5, 1.0])))
    0.25
    """
    return np.trapezoid(curve, fractions, axis=-1)


def weight_blocks(model: "keras.Model") -> list[list[str]]:
    """Return the layers with weights from the output to the input, each with the normalisation that follows it."""
    blocks: list[list[str]] = []
    for layer in model.layers:
        if not layer.weights:
            continue
        if type(layer).__name__ == "BatchNormalization" and blocks:
            blocks[-1].append(layer.name)
        else:
            blocks.append([layer.name])
    return blocks[::-1]


def randomised_maps(model: "keras.Model", x: np.ndarray, targets: np.ndarray, *, seeds: Sequence[int]) -> np.ndarray:
    """Compute the maps while the weights are replaced by those of an untrained network, from the last layer down.

    Parameters
    ----------
    model : keras.Model
        A trained network; it is not changed.
    x : np.ndarray [shape=(n, n_bins, n_frames, 1)]
        Inputs.
    targets : np.ndarray of int [shape=(n,)]
        The class to explain.
    seeds : sequence of int
        Of the new weights, an untrained network for each.

    Returns
    -------
    np.ndarray [shape=(n_seeds, n_blocks, n, n_rows, n_columns)]
        After each block of `weight_blocks`; the last maps are those of a network that has learned nothing.
    """
    keras = load_keras()
    worn = keras.models.clone_model(model)
    below = channels(worn)
    found = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        fresh = keras.models.clone_model(model)
        worn.set_weights(model.get_weights())
        for block in weight_blocks(model):
            for name in block:
                worn.get_layer(name).set_weights(fresh.get_layer(name).get_weights())
            found.append(weighted_channels(predict(below, x), worn)[np.arange(len(x)), targets])
    return np.stack(found).reshape(len(seeds), -1, *found[0].shape)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of maps, cell by cell.

    Parameters
    ----------
    a, b : np.ndarray [shape=(..., n_rows, n_columns)]
        Maps.

    Returns
    -------
    np.ndarray [shape=(...,)]
        -1 to 1; 0 where a map is the same everywhere and so says nothing.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(maps.reshape(*maps.shape[:-2], -1), axis=-1) for maps in (a, b)]
    centred = [one - one.mean(axis=-1, keepdims=True) for one in ranks]
    product = (centred[0] * centred[1]).sum(axis=-1)
    size = np.sqrt(np.prod([(one**2).sum(axis=-1) for one in np.broadcast_arrays(*centred)], axis=0))
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
    """Measure curves and the randomisation of weights with the networks of several seeds.

    Parameters
    ----------
    folder : Path
        Where the results of each network are kept; a run that was killed goes on from there.
    networks : sequence of sequence of Path [shape=(n_seeds, n_folds)]
        The run folders that `explained` was made with.
    explained : Explained
        Gives maps and answers: each network is asked about the class that it answered.
    chosen : np.ndarray of int
        Positions in `explained`, ascending, from `choose_segments`.
    store : FeatureStore
        The spectrograms.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Measured
    """
    rows, folds = (explained.segments[name].to_numpy()[chosen] for name in ("row", "fold"))
    # Strided parts hold all classes, and are many enough to keep every process busy to the end.
    parts = [
        (fold, number, np.flatnonzero(folds == fold)[number::n_parts])
        for fold in np.unique(folds)
        for n_parts in [-(-np.sum(folds == fold) // _PART)]
        for number in range(n_parts)
    ]
    tasks = []
    for seed, by_fold in enumerate(networks):
        for fold, number, part in parts:
            answers = explained.answers[seed, chosen[part]]
            maps = explained.maps[seed, chosen[part], answers]
            path = folder / f"fold-{fold}" / f"faithfulness-{seed}-{number}.npz"
            tasks.append((path, by_fold[fold], store.folder, rows[part], answers, maps, explained.grid, seed))
    results = list(parallel_map(_measure_one, tasks, workers=workers, describe="deletion and insertion", isolate=True))
    by_seed = [results[first : first + len(parts)] for first in range(0, len(results), len(parts))]
    back = np.argsort(np.concatenate([part for *_, part in parts]))

    def join(name: str) -> np.ndarray:
        return np.stack([np.concatenate([one[name] for one in found])[back] for found in by_seed])

    deletion, insertion = (join(name) for name in ("deletion", "insertion"))
    return Measured(
        explained.segments.group.to_numpy()[chosen],
        np.array(FRACTIONS),
        {name: deletion[:, :, number] for number, name in enumerate(ORDERS)},
        {name: insertion[:, :, number] for number, name in enumerate(ORDERS)},
        tuple(results[0]["layers"].tolist()),
        join("randomised"),
    )


def area_table(measured: Measured, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Areas under the curves of every order, with intervals over groups and seeds.

    Parameters
    ----------
    measured : Measured
        The curves.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Indexed by `order`: for `deletion` (lower is better), `insertion` (higher is better) and `overall` (insertion
        minus deletion [1]_; an order that knows nothing has 0) the estimate and its ends, `_low` and `_high`.

    References
    ----------
    .. [1] Q. Zhang, L. Rao, Y. Yang, "Group-CAM: group score-weighted visual explanations for deep convolutional
       networks", 2021. arXiv:2103.13859
    """
    rows = {}
    for name in ORDERS:
        areas = _areas(measured, name)
        found = {
            what: bootstrap_mean(values, measured.groups, n_resamples=n_resamples, seed=seed)
            for what, values in areas.items()
        }
        rows[name] = {
            what + ending: getattr(one, part)
            for what, one in found.items()
            for ending, part in (("", "estimate"), ("_low", "low"), ("_high", "high"))
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("order")


def against_map(measured: Measured, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Compare every other order with the map, paired by segment and seed.

    Parameters
    ----------
    measured : Measured
        The curves.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        Indexed by order: `difference` (insertion minus deletion, of that order minus that of the map: below 0 the map
        is the more faithful), `low`, `high`, `p`, and `p_holm`, corrected for the number of orders.
    """
    rows = {}
    for name in ORDERS[1:]:
        found = compare_orders(measured, name, MAP, n_resamples=n_resamples, seed=seed)
        rows[name] = {"difference": found.estimate, "low": found.low, "high": found.high, "p": found.p}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(p_holm=holm(table.p.to_numpy()))


def compare_orders(measured: Measured, first: str, second: str, *, n_resamples: int, seed: int) -> Difference:
    """Compare two of `ORDERS`: insertion minus deletion of the first, minus that of the second.

    Parameters
    ----------
    measured : Measured
        The curves.
    first, second : str
        The orders.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    Difference
        Paired by segment and seed.
    """
    pair = (_areas(measured, order)["overall"] for order in (first, second))
    return compare_over_seeds(*pair, measured.groups, n_resamples=n_resamples, seed=seed)


def similarities(
    explained: Explained, measured: Measured, store: FeatureStore, *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Say how like each other maps are: of randomised networks, of other seeds, of other clips, and the sound.

    Parameters
    ----------
    explained : Explained
        The maps of all segments.
    measured : Measured
        Gives the randomised networks.
    store : FeatureStore
        The spectrograms.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        Rank correlations with the map of the intact network, columns `estimate`, `low`, `high`. Indexed by what was
        compared: "random from <layer>" for each step, without the sign (see `Measured`); "another seed" (maps of the
        true class); "another clip" (by the same network, of the true class, of another group where there is one);
        "loudness", the sound itself on the map's cells.
    """
    groups = explained.segments.group.to_numpy()
    maps = explained.true_maps
    partners = _other_clips(explained.segments)
    levels = downsample(store.features[explained.segments.row.to_numpy()].astype(np.float32), explained.grid)
    n_seeds = len(maps)
    others = [(a, b) for a in range(n_seeds) for b in range(a + 1, n_seeds)]
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {
        f"random from {layer}": (measured.randomised[:, :, number], measured.groups)
        for number, layer in enumerate(measured.layers)
    }
    if others:
        between = np.stack([rank_correlation(maps[a], maps[b]) for a, b in others])
        values["another seed"] = between.mean(axis=0, keepdims=True), groups
    alone = partners == np.arange(len(groups))
    if not alone.all():
        values["another clip"] = rank_correlation(maps, maps[:, partners])[:, ~alone], groups[~alone]
    values["loudness"] = rank_correlation(maps, levels[None]), groups
    rows = {name: vars(bootstrap_mean(*pair, n_resamples=n_resamples, seed=seed)) for name, pair in values.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def similarity(table: pd.DataFrame, name: str) -> Interval | None:
    """Return a row of `similarities`, None where it could not be compared."""
    return Interval(*table.loc[name, ["estimate", "low", "high"]]) if name in table.index else None


def _areas(measured: Measured, order: str) -> dict[str, np.ndarray]:
    deletion, insertion = (area(curve[order], measured.fractions) for curve in (measured.deletion, measured.insertion))
    return {"deletion": deletion, "insertion": insertion, "overall": insertion - deletion}


def _other_clips(segments: pd.DataFrame) -> np.ndarray:
    """Return for each segment the position of one of another group, else of another clip, else its own.

    Only segments of the same fold are paired, whose maps come from the same network, and of the same class.
    """
    group, clip = (segments[name].to_numpy() for name in ("group", "clip_id"))
    found = np.arange(len(segments))
    for places in segments.groupby(["fold", "target"]).indices.values():
        names = (group if len(set(group[places])) > 1 else clip)[places]
        for turn, (place, name) in enumerate(zip(places, names, strict=True)):
            others = places[names != name]
            if len(others):
                found[place] = others[turn % len(others)]  # in turns, so that no one clip stands for all
    return found


def _ranks(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = values.reshape(*values.shape[:-2], -1)
    mixed = rng.permutation(flat.shape[-1])
    order = mixed[np.argsort(-flat[..., mixed], axis=-1, kind="stable")]
    ranks = np.empty(flat.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(flat.shape[-1], dtype=np.int32), flat.shape), axis=-1)
    return ranks.reshape(values.shape)


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
    code = code_hash("studies")

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
        worn = randomised_maps(model, store.read(rows, scaler), answers, seeds=range(N_WEIGHTS))
        return {
            "deletion": deletion,
            "insertion": insertion,
            "randomised": np.abs(rank_correlation(worn, maps)).mean(axis=0).T,
            "layers": np.array([block[0] for block in weight_blocks(model)]),
        }

    return cached(path, hash_json([code, read_manifest(network)["key"], rows, answers, seed]), make)
