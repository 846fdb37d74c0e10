"""What a split that ignores groups makes of a score: the same forest on the same segments, split in two ways."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instrlib.classical import forest_probabilities, summaries
from instrlib.intervals import Difference, Interval, bootstrap_mean, compare_over_seeds
from instrlib.parallel import fan_out
from instrlib.splits import Split, sibling_share
from instrlib.store import FeatureStore

PROTOCOLS = ("segments at random", "whole groups")
MAX_FOLDS = 5


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
        """Return what `plots.leak` draws, without the level of chance."""
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
    n_folds = int(np.clip(segments.target.value_counts().min(), 2, MAX_FOLDS))
    at_random = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(x, targets)
    by_groups = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(x, targets, groups)
    tested = [[np.isin(np.arange(len(x)), test) for _, test in folds] for folds in (at_random, by_groups)]
    tasks = [(x[~test], targets[~test], x[test], len(store.classes), seed) for folds in tested for test in folds]
    answers = list(fan_out(forest_probabilities, tasks, workers=workers, describe="random forests"))
    correct = np.empty((2, len(targets)), dtype=bool)
    for number, test in enumerate(test for folds in tested for test in folds):
        correct[number // n_folds, test] = answers[number].argmax(axis=1) == targets[test]
    return Leak(
        n_folds,
        tuple(bootstrap_mean(row, groups, n_resamples=n_resamples, seed=seed) for row in correct),
        tuple(_siblings(segments, folds) for folds in tested),
        compare_over_seeds(correct[:1], correct[1:], groups, n_resamples=n_resamples, seed=seed),
    )


def _siblings(segments: pd.DataFrame, tested: list[np.ndarray]) -> float:
    parts = [pd.Series(np.where(test, "test", "train"), index=segments.index) for test in tested]
    return float(np.mean([sibling_share(segments, part) for part in parts]))
