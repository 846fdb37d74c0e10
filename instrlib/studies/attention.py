"""What networks listen to: the maps of a corpus's validation segments, averaged, shown and listened to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio.features import mel_edges_hz
from instrlib.core.cache import cached, code_hash
from instrlib.core.config import FeatureConfig
from instrlib.core.io import hash_json, in_parts
from instrlib.core.parallel import parallel_map
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.models.training import load_model, open_trained, part_segments
from instrlib.studies.cam import (
    Grid,
    band_centres_hz,
    cell_grid,
    class_activation_maps,
    describe_layers,
    grad_cam,
    last_picture_layer,
    predict,
    shares,
    upsample,
)


@dataclass(frozen=True)
class Explained:
    """Class activation maps of the validation segments, by the networks of several seeds.

    Attributes
    ----------
    segments : pandas.DataFrame
        Rows of the store's `segments`, with `fold`: number of the split whose validation part the segment is of.
    classes : tuple of str
        Labels in the order of `target`.
    grid : Grid
        Of the maps.
    probabilities : np.ndarray [shape=(n_seeds, n, n_classes)]
        The networks' answers.
    maps : np.ndarray [shape=(n_seeds, n, n_classes, n_rows, n_columns), float32]
        The map of every class, signed: below 0 it speaks against the class.
    """

    segments: pd.DataFrame
    classes: tuple[str, ...]
    grid: Grid
    probabilities: np.ndarray
    maps: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """Index of each segment's true class [shape=(n,)]."""
        return self.segments.target.to_numpy()

    @property
    def answers(self) -> np.ndarray:
        """Index of the class that each network answers [shape=(n_seeds, n)]."""
        return self.probabilities.argmax(axis=-1)

    @property
    def true_maps(self) -> np.ndarray:
        """Maps of the true classes [shape=(n_seeds, n, n_rows, n_columns)]."""
        return self.maps[:, np.arange(len(self.segments)), self.targets]


@dataclass(frozen=True)
class LayerMaps:
    """Grad-CAM of one segment at every layer of a network.

    Attributes
    ----------
    table : pandas.DataFrame
        The layers; see `cam.describe_layers`.
    maps : np.ndarray [shape=(n_layers, n_bins, n_frames)]
        On the input's grid.
    difference : float
        Largest difference, at the last layer, from what is above 0 in the class activation map over the number of
        cells, relative to its maximum; 0 but for rounding.
    """

    table: pd.DataFrame
    maps: np.ndarray
    difference: float


def explain(
    folder: Path,
    networks: Sequence[Sequence[Path]],
    *,
    store: FeatureStore,
    splits: Sequence[Path],
    workers: int | None = None,
) -> Explained:
    """Compute the maps of all classes for the validation segments, with the networks of several seeds.

    The network that is asked has not learned from them; its test part is left to `evaluation`.

    Parameters
    ----------
    folder : Path
        Where the maps of each network are kept; a run that was killed goes on from there.
    networks : sequence of sequence of Path [shape=(n_seeds, n_folds)]
        Finished run folders of `training.train_model`, one for each seed and split.
    store : FeatureStore
        Features that they were trained with.
    splits : sequence of Path [shape=(n_folds,)]
        The splits that they were trained with.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Explained
        A clip that is in the validation part of several folds stands there once for each.

    Raises
    ------
    RunError
        When a network was trained with another split or other features.
    """
    tasks = [
        (folder / f"fold-{fold}" / f"maps-{seed}.npz", by_fold[fold], store.folder, split)
        for seed, by_fold in enumerate(networks)
        for fold, split in enumerate(splits)
    ]
    answers = list(parallel_map(_explain_one, tasks, workers=workers, describe="activation maps", isolate=True))
    by_seed = in_parts(answers, len(splits))
    parts = [
        part_segments(store, load_split(split, store.segments), "validation").assign(fold=fold)
        for fold, split in enumerate(splits)
    ]
    first = answers[0]
    grid = Grid(
        first["centre_bin"], first["centre_frame"], int(first["field"][0]), int(first["field"][1]), store.config.shape
    )
    joined = {
        name: np.stack([np.concatenate([one[name] for one in folds]) for folds in by_seed])
        for name in ("probabilities", "maps")
    }
    return Explained(pd.concat(parts, ignore_index=True), store.classes, grid, **joined)


def inspect_layers(
    network: Path, store: FeatureStore, row: int, target: int, *, workers: int | None = None
) -> LayerMaps:
    """Compute Grad-CAM of one segment at every layer, and hold it against the class activation map.

    Parameters
    ----------
    network : Path
        A finished run folder of `training.train_model`.
    store : FeatureStore
        Features that it was trained with.
    row : int
        The segment, a value of the column `row`.
    target : int
        Index of the class to explain.
    workers : int, optional
        Number of processes.

    Returns
    -------
    LayerMaps
    """
    task = (network, store.folder, row, target)
    return next(parallel_map(_inspect_layers, [task], workers=workers, describe="layers", isolate=True))


def class_averages(explained: Explained) -> np.ndarray:
    """Average the maps of each class over its own segments.

    Parameters
    ----------
    explained : Explained
        The maps.

    Returns
    -------
    np.ndarray [shape=(n_seeds, n_classes, n_bins, n_frames)]
        What speaks for the class (the map above 0), relative to an even spread: 1 is the mean of every picture. NaN
        for a class of which no map is above 0 anywhere.
    """
    positive = np.maximum(explained.true_maps, 0)
    averages = np.full((len(positive), len(explained.classes), *positive.shape[2:]), np.nan)
    for target in np.unique(explained.targets):
        averages[:, target] = positive[:, explained.targets == target].mean(axis=1)
    return upsample(shares(averages, explained.grid), explained.grid)


def class_levels(explained: Explained, store: FeatureStore) -> np.ndarray:
    """Average the sound of each class over its segments: dB above the floor, relative to an even spread.

    Returns
    -------
    np.ndarray [shape=(n_classes, n_bins, n_frames)]
        The mean of each picture is 1; NaN for a class without segments.
    """
    averages = np.full((len(explained.classes), *store.config.shape), np.nan)
    for target, rows in explained.segments.groupby("target").row:
        above = np.mean([store.features[row].astype(np.float32) + store.config.top_db for row in rows], axis=0)
        averages[target] = above / above.mean()
    return averages


def frequency_summary(
    averages: np.ndarray, levels: np.ndarray, explained: Explained, config: FeatureConfig
) -> pd.DataFrame:
    """Say for each class which range of frequencies holds the middle half of its map.

    Parameters
    ----------
    averages : np.ndarray [shape=(n_seeds, n_classes, n_bins, n_frames)]
        From `class_averages`.
    levels : np.ndarray [shape=(n_classes, n_bins, n_frames)]
        From `class_levels`.
    explained : Explained
        Gives the classes.
    config : FeatureConfig
        Gives the bands.

    Returns
    -------
    pandas.DataFrame
        Indexed by `class`: `low_hz`, `median_hz`, `high_hz`, below which lie 25, 50 and 75 % of the map, `sound_hz`,
        below which lies half of the sound's dB above the floor, `seeds_hz`, the largest difference between the medians
        of two seeds, and `recognised`, the share of right answers: the map of a class that is hardly recognised says
        little. Classes without a map are left out.
    """
    centres_hz = band_centres_hz(config)

    def quantiles_hz(picture: np.ndarray, *at: float) -> list[float]:
        below = np.cumsum(picture.mean(axis=1)) / picture.mean(axis=1).sum()
        return [float(np.interp(share, below, centres_hz)) for share in at]

    rows = {}
    for target, name in enumerate(explained.classes):
        by_seed = [picture for picture in averages[:, target] if np.isfinite(picture).all()]
        if by_seed:
            medians = [quantiles_hz(picture, 0.5)[0] for picture in by_seed]
            middle = quantiles_hz(np.mean(by_seed, axis=0), 0.25, 0.5, 0.75)
            recognised = (explained.answers[:, explained.targets == target] == target).mean()
            rows[name] = [*middle, *quantiles_hz(levels[target], 0.5), max(medians) - min(medians), recognised]
    columns = ["low_hz", "median_hz", "high_hz", "sound_hz", "seeds_hz", "recognised"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("class")


def surest(explained: Explained, *, right: bool, n: int, seed: int = 0) -> pd.DataFrame:
    """Find the segments that one network is surest of, one for each class or, of the wrong ones, for each pair.

    Parameters
    ----------
    explained : Explained
        The answers.
    right : bool
        Whether the answers are right.
    n : int
        At most so many.
    seed : int
        Position of the network.

    Returns
    -------
    pandas.DataFrame
        Rows of `explained.segments` with `predicted` and `confidence`, the surest first; its index counts positions in
        `explained`. Empty when there are none.
    """
    answers = explained.answers[seed]
    table = explained.segments.assign(
        predicted=np.array(explained.classes)[answers], confidence=explained.probabilities[seed].max(axis=-1)
    )
    table = table[(answers == explained.targets) == right]
    table = table.sort_values(["confidence", "clip_id"], ascending=[False, True], kind="stable")
    return table.drop_duplicates(["label", "predicted"]).head(n)


def overlays(
    explained: Explained, chosen: pd.DataFrame, store: FeatureStore, *, of: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Gather what `plots.activation_overlays` draws.

    Parameters
    ----------
    explained : Explained
        The maps.
    chosen : pandas.DataFrame
        From `surest`.
    store : FeatureStore
        The spectrograms.
    of : sequence of str
        Columns of `chosen` that name the classes to explain: "predicted", "label" or both, one picture for each.
    seed : int
        Position of the network.

    Returns
    -------
    dict
        See `overlay_arrays`.
    """
    rows, maps, titles = [], [], []
    for place, clip in zip(chosen.index, chosen.to_dict("records"), strict=True):
        for column in of:
            target = explained.classes.index(clip[column])
            rows.append(clip["row"])
            maps.append(upsample(np.maximum(explained.maps[seed, place, target], 0), explained.grid))
            role = "right" if clip["label"] == clip["predicted"] else "answered" if column == "predicted" else "true"
            titles.append(f"{role}: {clip[column]} {explained.probabilities[seed, place, target]:.2f}")
    return overlay_arrays(rows, np.array(maps), titles, store)


def overlay_arrays(rows: Sequence[int], maps: np.ndarray, titles: Sequence[str], store: FeatureStore) -> dict[str, Any]:
    """Gather what `plots.activation_overlays` draws, in whole dB and hundredths of a map: fine enough for the eye.

    Parameters
    ----------
    rows : sequence of int [shape=(n,)]
        The segments, values of the column `row`.
    maps : np.ndarray [shape=(n, n_bins, n_frames)]
        A map for each, at least 0.
    titles : sequence of str [shape=(n,)]
        A title for each.
    store : FeatureStore
        The spectrograms.

    Returns
    -------
    dict
        `spectra`, `maps` (relative to their maxima), `titles`, `hop_s`, `mel_frequencies_hz`.
    """
    top = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12) if len(maps) else 1
    return {
        "spectra": np.round(store.features[np.asarray(rows, dtype=int)]).astype(np.int8),
        "maps": np.round(100 * maps / top).astype(np.uint8) / np.float32(100),
        "titles": list(titles),
        "hop_s": store.config.hop_s,
        "mel_frequencies_hz": band_centres_hz(store.config),
    }


def active_regions(explained: Explained, store: FeatureStore, *, window_s: float = 1.0) -> pd.DataFrame:
    """Find for each class the stretch of time, and the band, that speak most for it in a well-recognised clip.

    The clip is the one whose class gets the highest mean probability over the seeds. The stretch holds the largest part
    of the mean of the seeds' maps; the band is the narrowest that holds half of the map within that stretch.

    Parameters
    ----------
    explained : Explained
        The maps.
    store : FeatureStore
        Gives the settings.
    window_s : float
        Length of the stretch in seconds, at most that of a segment.

    Returns
    -------
    pandas.DataFrame
        Rows of `explained.segments`, one for each class that is recognised at least once, with `confidence`,
        `offset_s` (where in the segment the stretch begins), `window_s`, `share` (of the map, within the stretch),
        `low_hz` and `high_hz`.
    """
    config = store.config
    edges_hz = mel_edges_hz(config)
    mean = explained.probabilities.mean(axis=0)
    width = min(max(1, round(window_s / config.hop_s)), config.n_frames)
    rows = []
    for target in range(len(explained.classes)):
        places = np.flatnonzero((explained.targets == target) & (mean.argmax(axis=1) == target))
        relative = shares(explained.true_maps[:, places], explained.grid)
        usable = np.isfinite(relative).all(axis=(0, 2, 3))
        if not usable.any():
            continue
        best = np.flatnonzero(usable)[mean[places[usable], target].argmax()]
        picture = upsample(relative[:, best].mean(axis=0), explained.grid)
        sums = np.convolve(picture.sum(axis=0), np.ones(width), mode="valid")
        first = int(sums.argmax())
        low, high = _narrowest(picture[:, first : first + width].sum(axis=1), 0.5)
        rows.append(
            explained.segments.loc[places[best]].to_dict()
            | {
                "confidence": float(mean[places[best], target]),
                "offset_s": first * config.hop_s,
                "window_s": window_s,
                "share": float(sums[first] / picture.sum()),
                "low_hz": float(edges_hz[low]),
                "high_hz": float(edges_hz[high + 2]),
            }
        )
    added = ["confidence", "offset_s", "window_s", "share", "low_hz", "high_hz"]
    return pd.DataFrame(rows, columns=[*explained.segments.columns, *added])


def _explain_one(path: Path, network: Path, store_folder: Path, split_path: Path) -> dict[str, np.ndarray]:
    code = code_hash("studies")
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

    return cached(path, hash_json([code, trained["key"]]), make)


def _inspect_layers(network: Path, store_folder: Path, row: int, target: int) -> LayerMaps:
    model, scaler = load_model(network)
    store = open_store(store_folder)
    x, targets = store.read(np.array([row]), scaler), np.array([target])
    table = describe_layers(model, store.config)
    by_layer = [grad_cam(model, x, targets, layer=layer)[0] for layer in table.index]
    expected = np.maximum(class_activation_maps(model, x)[0, target], 0) / by_layer[-1].size
    return LayerMaps(
        table,
        np.stack([upsample(one, cell_grid(model, layer)) for one, layer in zip(by_layer, table.index, strict=True)]),
        float(np.abs(by_layer[-1] - expected).max() / max(expected.max(), np.finfo(float).tiny)),
    )


def _narrowest(profile: np.ndarray, share: float) -> tuple[int, int]:
    """First and last index of the shortest run that holds a share of the sum."""
    below = np.concatenate([[0.0], np.cumsum(profile)])
    wanted = share * below[-1] * (1 - 1e-9)
    for length in range(1, len(profile) + 1):
        held = below[length:] - below[:-length]
        if held.max() >= wanted:
            first = int(held.argmax())
            return first, first + length - 1
    return 0, len(profile) - 1
