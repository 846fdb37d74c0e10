"""What a split that ignores groups makes of a score: the same models on the same segments, split in two ways."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import hash_json
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.data.splits import (
    MAX_FOLDS,
    PARTS,
    Split,
    check_no_leak,
    load_split,
    same_group_share,
    save_split,
)
from instrlib.data.store import FeatureStore, derive_store
from instrlib.evaluation import statistics
from instrlib.evaluation.bootstrap import draw, ends
from instrlib.evaluation.intervals import Difference, Interval, bootstrap_mean, compare_over_seeds
from instrlib.evaluation.metrics import clip_probabilities
from instrlib.evaluation.predictions import Predictions
from instrlib.models.classical import forest_probabilities, summaries

PROTOCOLS = ("segments at random", "whole groups")


@dataclass(frozen=True)
class Leak:
    """Accuracy of one classifier under the two protocols.

    Attributes
    ----------
    n_folds : int
        Folds of the cross-validation, the same for both.
    accuracy : tuple of Interval
        For each of `PROTOCOLS`: share of segments answered rightly, with its interval over groups.
    siblings : tuple of float
        For each of `PROTOCOLS`: share of tested segments that have a segment of their own group in training.
    difference : Difference
        First minus second, paired by segment, over groups.
    """

    n_folds: int
    accuracy: tuple[Interval, Interval]
    siblings: tuple[float, float]
    difference: Difference

    def by_protocol(self) -> dict[str, dict[str, Interval | float]]:
        """Return accuracy and share of siblings by the protocols' names, for `results.json`."""
        rows = zip(PROTOCOLS, self.accuracy, self.siblings, strict=True)
        return {name: {"accuracy": accuracy, "siblings": share} for name, accuracy, share in rows}

    def arrays(self) -> dict[str, Any]:
        """Return what `plots.model_comparison` draws, without the baseline."""
        return {
            "names": list(PROTOCOLS),
            "scores": [interval.estimate for interval in self.accuracy],
            "low": [interval.low for interval in self.accuracy],
            "high": [interval.high for interval in self.accuracy],
        }


def compare_protocols(
    store: FeatureStore, split: Split, *, seed: int, n_resamples: int, workers: int | None = None
) -> Leak:
    """Cross-validate a random forest twice: on folds of segments drawn at random, and on folds of whole groups.

    Every segment is scored once under each protocol, by a forest that was fitted on as many folds, stratified by class
    both times; which groups the training folds hold is what differs. The study's test part is left out.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms.
    split : Split
        Its training and validation parts are used.
    seed : int
        Decides the folds and the trees.
    n_resamples : int
        Resamples of the groups behind the intervals.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Leak
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    segments = store.segments[store.segments.clip_id.map(split.parts) != "test"].reset_index(drop=True)
    x = summaries(store, segments)
    targets, groups = segments.target.to_numpy(), segments.group.to_numpy(str)
    at_most = min(segments.target.value_counts().min(), segments.group.nunique(), MAX_FOLDS)
    n_folds = max(int(at_most), 2)
    at_random = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(x, targets)
    by_groups = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(x, targets, groups)
    tested = [[np.isin(np.arange(len(x)), test) for _, test in folds] for folds in (at_random, by_groups)]
    tasks = [(x[~test], targets[~test], x[test], len(store.classes), seed) for folds in tested for test in folds]
    answers = list(parallel_map(forest_probabilities, tasks, workers=workers, describe="random forests"))
    correct = np.empty((2, len(targets)), dtype=bool)
    for number, test in enumerate(test for folds in tested for test in folds):
        correct[number // n_folds, test] = answers[number].argmax(axis=1) == targets[test]
    return Leak(
        n_folds,
        tuple(bootstrap_mean(row, groups, n_resamples=n_resamples, seed=seed) for row in correct),
        tuple(_siblings(segments, folds) for folds in tested),
        compare_over_seeds(correct[:1], correct[1:], groups, n_resamples=n_resamples, seed=seed),
    )


def by_segment(inputs: Inputs, folder: Path, *, keep_groups: bool, seed: int = 0) -> Inputs:
    """Make every segment a clip of its own, so that the same code trains and tests on segments.

    With `keep_groups` each segment stays in its clip's group and part. Otherwise it is a group of its own, and parts of
    the same sizes are drawn from all segments of a class: the protocol of many published scores. New splits are written
    to `folder`.
    """
    cut = segment_store(inputs.store, keep_groups=keep_groups)
    kept = [load_split(path, inputs.store.segments) for path in inputs.splits]
    clips = cut.clips
    if keep_groups:
        made = [_by_segment(split, clips) for split in kept]
    else:
        swapped = clips.groupby("label").clip_id.transform(np.random.default_rng(seed).permutation)
        of_segment = [_clip_of(clips.clip_id).map(split.parts).to_numpy() for split in kept]
        made = [Split(pd.Series(parts, index=swapped, name="part").sort_index(), seed) for parts in of_segment]
    paths = tuple(folder / f"{cut.folder.name}-{number}.json" for number in range(len(made)))
    for split, path in zip(made, paths, strict=True):
        save_split(split, path)
    return Inputs(cut, paths, hash_json([split.fingerprint for split in made])[:16])


def segment_store(store: FeatureStore, *, keep_groups: bool) -> FeatureStore:
    """Return a store of the same features in which every segment is a clip of its own, "<clip>#<number>"."""

    def rename(segments: pd.DataFrame) -> pd.DataFrame:
        number = segments.groupby("clip_id").cumcount().astype(str).str.zfill(4)
        named = segments.assign(clip_id=segments.clip_id + "#" + number)
        return named if keep_groups else named.assign(group=named.clip_id, split="")

    return derive_store(store, rename, mark="segments in groups" if keep_groups else "segments")


def describe(inputs: Inputs, clips: pd.DataFrame) -> dict[str, Any]:
    """Return sizes of the parts, and `siblings`: the share of tested segments with their group in training.

    `inputs` are by segment (see `by_segment`), `clips` has the true `group` of each `clip_id`. Means over the splits.
    """
    segments = inputs.store.segments
    of = segments.assign(group=_clip_of(segments.clip_id).map(clips.set_index("clip_id").group))
    parts = [segments.clip_id.map(load_split(path, segments).parts) for path in inputs.splits]
    sizes = {part: float(np.mean([(of_split == part).sum() for of_split in parts])) for part in PARTS}
    return sizes | {"siblings": float(np.mean([same_group_share(of, of_split) for of_split in parts]))}


def by_clip(predictions: Predictions) -> Predictions:
    """Join the answers to the segments of each clip: the mean of their probabilities."""
    clip_id = _clip_of(pd.Series(predictions["clip_id"])).to_numpy(str)
    clips, first, index = np.unique(clip_id, return_index=True, return_inverse=True)
    return {
        "clip_id": clips,
        "group": predictions["group"][first],
        "targets": predictions["targets"][first],
        "probabilities": np.stack([clip_probabilities(one, index) for one in predictions["probabilities"]]),
    }


def compare_splits(
    honest: dict[str, Predictions], leaky: dict[str, Predictions], clips: pd.DataFrame, *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Compare the accuracy of the same models under both protocols, over segments.

    Parameters
    ----------
    honest, leaky : dict of str to dict
        Answers to the segments, by the models' names; see `by_segment`.
    clips : pandas.DataFrame
        Columns `clip_id` and `group`: the true groups, which are drawn under both protocols.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Indexed by model: `honest` and `leaky`, each with `_low` and `_high`, and the columns of
        `statistics.comparison_table` for leaky minus honest. Seeds are averaged before.
    """
    groups, rows, draws = clips.set_index("clip_id").group, {}, {}
    settings = {"n_resamples": statistics.enough_resamples(n_resamples, len(honest)), "seed": seed}
    for name, answers in honest.items():
        (right, own), (leaky_right, leaky_own) = (_right(one, groups) for one in (answers, leaky[name]))
        values, side = np.concatenate([right, leaky_right]), np.arange(len(right) + len(leaky_right)) < len(right)

        def accuracy(
            weights: np.ndarray, values: np.ndarray = values, side: np.ndarray = side
        ) -> dict[str, np.ndarray]:
            with np.errstate(invalid="ignore"):  # a draw without a segment of one side has no value
                honest, leaky = (weights @ (values * one) / (weights @ one.astype(float)) for one in (side, ~side))
            return {"honest": honest, "leaky": leaky}

        found = draw([accuracy], np.concatenate([own, leaky_own]), **settings)
        rows[name] = {}
        for protocol, one in found.items():
            low, high = ends(one[0])
            rows[name] |= {protocol: one[0, 0], f"{protocol}_low": low, f"{protocol}_high": high}
            draws[f"{name}, {protocol}"] = one
    pairs = [(f"{name}, leaky", f"{name}, honest") for name in honest]
    compared = statistics.comparison_table(draws, pairs, n_groups=groups.nunique(), seed=seed)
    return pd.DataFrame.from_dict(rows, orient="index").join(compared.set_axis(list(honest)))


def _right(answers: Predictions, groups: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Share of the seeds that answered each segment rightly, and the group that it truly belongs to."""
    right = (answers["probabilities"].argmax(axis=-1) == answers["targets"]).mean(axis=0)
    return right, _clip_of(pd.Series(answers["clip_id"])).map(groups).to_numpy(str)


def _by_segment(split: Split, clips: pd.DataFrame) -> Split:
    parts = pd.Series(_clip_of(clips.clip_id).map(split.parts).to_numpy(), index=clips.clip_id.to_numpy())
    check_no_leak(clips, parts)
    return Split(parts.sort_index().rename("part").rename_axis("clip_id"), split.seed)


def _clip_of(segments: pd.Series) -> pd.Series:
    return segments.str.rsplit("#", n=1).str[0]


def _siblings(segments: pd.DataFrame, tested: list[np.ndarray]) -> float:
    parts = [pd.Series(np.where(test, "test", "train"), index=segments.index) for test in tested]
    return float(np.mean([same_group_share(segments, part) for part in parts]))
