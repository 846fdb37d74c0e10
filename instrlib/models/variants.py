"""Variants of a training compared: each one from several seeds on every fold, tested on the same clips."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError
from instrlib.core.io import slug
from instrlib.core.parallel import parallel_map
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.answers import read_test
from instrlib.models.layers import Layer
from instrlib.models.train import Initialisation, train_model
from instrlib.models.trained import summary


@dataclass(frozen=True)
class Variant:
    """One way to train a network.

    Attributes
    ----------
    name : str
        Its name in tables and figures.
    spec : str or tuple of Layer
        The network: a name of `layers.SPECS` or a table.
    config : TrainConfig
        How it is trained.
    store : Path
        Folder of the features.
    copies : Path, optional
        Folder of a store of augmented copies; see `train.train_model`.
    splits : tuple of Path, optional
        Its own splits, when its clips are not those of the other variants.
    seeds : tuple of int, optional
        Its own seeds, when it has fewer than the other variants.
    start : Initialisation, optional
        First weights in the place of random ones.
    """

    name: str
    spec: str | tuple[Layer, ...]
    config: TrainConfig
    store: Path
    copies: Path | None = None
    splits: tuple[Path, ...] | None = None
    seeds: tuple[int, ...] | None = None
    start: Initialisation | None = None


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
    """Return the run folder of one training of a variant.

    Examples
    --------
    >>> run_folder(Path("runs"), "CutMix, b = 0.9", fold=0, seed=1).as_posix()
    'runs/cutmix-b-0.9/fold-0/seed-1'
    """
    return folder / slug(name) / f"fold-{fold}" / f"seed-{seed}"


def run_variants(
    folder: Path,
    variants: Sequence[Variant],
    *,
    splits: Sequence[Path],
    seeds: Sequence[int],
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Train every variant from every seed on every split and predict the test parts.

    All trainings run in parallel. Finished ones are kept, so that a killed run continues where it was.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; see `run_folder`.
    variants : sequence of Variant
        The variants.
    splits : sequence of Path
        One split, or the folds of a cross-validation.
    seeds : sequence of int
        One network is trained for each.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to Outcome
        By the variants' names.

    Raises
    ------
    ConfigError
        When two names would have the same run folder.
    """
    check_names([variant.name for variant in variants])
    tasks = [
        (run_folder(folder, variant.name, fold=fold, seed=seed), variant, split, seed)
        for variant in variants
        for seed in variant.seeds or seeds
        for fold, split in enumerate(variant.splits or splits)
    ]
    # Trainings of one graph follow each other, so that a process builds it once.
    order = sorted(range(len(tasks)), key=lambda number: _graph(tasks[number][1]))
    describe = f"training {len(variants)} variants" if len(variants) > 1 else f"training {variants[0].name}"
    found = parallel_map(_train, [tasks[number] for number in order], workers=workers, describe=describe, isolate=True)
    answers = dict(zip(order, found, strict=True))
    pairs = ((task[0], answers[number]) for number, task in enumerate(tasks))
    outcomes = {}
    for variant in variants:
        n_folds = len(variant.splits or splits)
        by_seed = [tuple(itertools.islice(pairs, n_folds)) for _ in variant.seeds or seeds]
        outcomes[variant.name] = make_outcome(by_seed)
    return outcomes


def check_names(names: Sequence[str]) -> None:
    """Raise `ConfigError` when two names would have the same folder, such as "A, b" and "a b"."""
    taken: dict[str, str] = {}
    for name in names:
        if slug(name) in taken:
            raise ConfigError(f"{taken[slug(name)]!r} and {name!r} have the same run folder; rename one of them.")
        taken[slug(name)] = name


def read_outcome(
    folders: Sequence[Sequence[Path]], *, store: Path, splits: Sequence[Path], workers: int | None = None
) -> Outcome:
    """Return the outcome of networks that are trained already: run folders, first by seed, then by fold."""
    tasks = [(place, store, split) for by_fold in folders for place, split in zip(by_fold, splits, strict=True)]
    answers = parallel_map(read_test, tasks, workers=workers, describe="predicting the test part", isolate=True)
    found = zip([place for place, *_ in tasks], list(answers), strict=True)
    return make_outcome([tuple(itertools.islice(found, len(splits))) for _ in folders])


def make_outcome(answers: Sequence[Sequence[tuple[Path, Predictions]]]) -> Outcome:
    """Return one outcome of run folders and predictions of networks, first by seed, then by fold."""
    return Outcome(
        tuple(tuple(place for place, _ in by_fold) for by_fold in answers),
        join_seeds([[answer for _, answer in by_fold] for by_fold in answers]),
    )


def answers(outcomes: dict[str, Outcome]) -> dict[str, Predictions]:
    """Return the predictions by name."""
    return {name: outcome.predictions for name, outcome in outcomes.items()}


def describe(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """Describe each variant by the mean over its trainings.

    Returns
    -------
    pandas.DataFrame
        One row a variant: `parameters`, `multiply_adds` (of a segment), `best_epoch`, `epochs`, `training_s`, the
        validation scores and `n_trained`, the number of trainings.
    """
    rows = {}
    for name, outcome in outcomes.items():
        trained = pd.DataFrame([summary(folder) for folder in outcome.flat]).drop(columns=["split", "seed"])
        rows[name] = pd.concat([trained.mean(), pd.Series({"n_trained": len(trained)})])
    return pd.DataFrame(rows).T.astype(dict.fromkeys(("parameters", "multiply_adds", "n_trained"), int))


def _graph(variant: Variant) -> str:
    """Return what decides the compiled graph of a training, for sorting."""
    moved = (variant.start.rates, variant.start.frozen_norm) if variant.start else ()
    return repr((variant.spec, str(variant.store), variant.config.output, moved))


def _train(folder: Path, variant: Variant, split: Path, seed: int) -> Predictions:
    settings = (variant.store, split, variant.spec, variant.config, seed, variant.copies, variant.start)
    return read_test(train_model(folder, *settings, test=True), variant.store, split)
