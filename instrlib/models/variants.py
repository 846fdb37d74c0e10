"""Comparison of training variants: several seeds on every fold, tested on the same clips."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from instrlib.core.io import ConfigError, in_parts, slug
from instrlib.core.parallel import parallel_map
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.train import Variant, train_model
from instrlib.models.trained import read_test, summary


@dataclass(frozen=True)
class Outcome:
    """Run folders (first by seed, then by fold) and test predictions of one variant."""

    folders: tuple[tuple[Path, ...], ...]
    predictions: Predictions

    @property
    def flat(self) -> list[Path]:
        """All run folders."""
        return [folder for by_fold in self.folders for folder in by_fold]


def run_folder(folder: Path, name: str, *, fold: int, seed: int) -> Path:
    """Return the run folder of one training of a variant."""
    return folder / slug(name) / f"fold-{fold}" / f"seed-{seed}"


def check_names(names: Collection[str]) -> None:
    """Raise `ConfigError` if two names have the same run folder."""
    slugs = [slug(name) for name in names]
    if same := [name for name in names if slugs.count(slug(name)) > 1]:
        raise ConfigError(f"The names {', '.join(map(repr, same))} have the same run folder; rename one of them.")


def run_variants(
    folder: Path,
    variants: Sequence[Variant],
    *,
    splits: Sequence[Path],
    seeds: Sequence[int],
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Train every variant from every seed on every split and predict the test parts.

    All trainings run in parallel; the number of processes does not affect the result. Finished trainings are kept, so
    an interrupted run continues. Two names with the same run folder raise `ConfigError`.
    """
    check_names([variant.name for variant in variants])
    tasks = [
        (run_folder(folder, variant.name, fold=fold, seed=seed), variant, split, seed)
        for variant in variants
        for seed in variant.seeds or seeds
        for fold, split in enumerate(variant.splits or splits)
    ]
    # Trainings of one graph are adjacent, so that a process builds it once.
    tasks.sort(key=lambda task: repr((task[1].spec, task[1].store, task[1].start)))
    describe = f"training {len(variants)} variants" if len(variants) > 1 else f"training {variants[0].name}"
    list(parallel_map(_train, tasks, workers=workers, describe=describe, isolate=True))
    outcomes = {}
    for variant in variants:
        own = variant.splits or splits
        folders = [
            [run_folder(folder, variant.name, fold=fold, seed=seed) for fold in range(len(own))]
            for seed in variant.seeds or seeds
        ]
        outcomes[variant.name] = read_outcome(folders, store=variant.store, splits=own, workers=workers)
    return outcomes


def read_outcome(
    folders: Sequence[Sequence[Path]], *, store: Path, splits: Sequence[Path], workers: int | None = None
) -> Outcome:
    """Return the outcome of trained networks from their run folders, first by seed, then by fold."""
    tasks = [(place, store, split) for by_fold in folders for place, split in zip(by_fold, splits, strict=True)]
    found = list(parallel_map(read_test, tasks, workers=workers, describe="predicting the test part", isolate=True))
    return Outcome(tuple(map(tuple, folders)), join_seeds(in_parts(found, len(splits))))


def answers(outcomes: dict[str, Outcome]) -> dict[str, Predictions]:
    """Return the predictions by name."""
    return {name: outcome.predictions for name, outcome in outcomes.items()}


def describe(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """Return a table with the means over the trainings of each variant; see `trained.summary`.

    `multiply_adds` are counted per segment; `n_trained` is the number of trainings.
    """
    rows = {}
    for name, outcome in outcomes.items():
        trained = pd.DataFrame([summary(folder) for folder in outcome.flat]).drop(columns=["split", "seed"])
        rows[name] = pd.concat([trained.mean(), pd.Series({"n_trained": len(trained)})])
    return pd.DataFrame(rows).T.astype(dict.fromkeys(("parameters", "multiply_adds", "n_trained"), int))


def _train(folder: Path, variant: Variant, split: Path, seed: int) -> None:
    (variant.train or functools.partial(train_model, test=True))(folder, variant, split, seed)
