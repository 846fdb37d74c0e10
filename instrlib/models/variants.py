"""Comparison of training variants: several seeds on every fold, tested on the same clips."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, slug
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
    spec : str or tuple of Layer
        The network: a name of `layers.SPECS` or a table.
    config : TrainConfig
    store, copies : Path
        Folder of the features, and optionally of a store of augmented copies; see `train.train_model`.
    splits, seeds : tuple, optional
        Splits, if its clips differ from those of the other variants; seeds, if it has fewer.
    start : Initialisation, optional
        Replaces random initial weights.
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
    'runs/cutmix-b-0-9/fold-0/seed-1'
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

    All trainings run in parallel. Finished ones are kept, so an interrupted run continues.

    Parameters
    ----------
    folder : Path
        Parent of the run folders; see `run_folder`.
    variants : sequence of Variant
        Their names are the keys of the result; two names with the same run folder raise `ConfigError`.
    splits : sequence of Path
        One split, or the folds of a cross-validation.
    seeds : sequence of int
        One network is trained for each.
    workers : int, optional
        Number of processes; does not affect the result.
    """
    check_names([variant.name for variant in variants])
    tasks = [
        (run_folder(folder, variant.name, fold=fold, seed=seed), variant, split, seed)
        for variant in variants
        for seed in variant.seeds or seeds
        for fold, split in enumerate(variant.splits or splits)
    ]
    # Trainings of one graph are adjacent, so that a process builds it once.
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
    """Raise `ConfigError` if two names have the same run folder, such as "A, b" and "a b"."""
    taken: dict[str, str] = {}
    for name in names:
        if slug(name) in taken:
            raise ConfigError(f"{taken[slug(name)]!r} and {name!r} have the same run folder; rename one of them.")
        taken[slug(name)] = name


def read_outcome(
    folders: Sequence[Sequence[Path]], *, store: Path, splits: Sequence[Path], workers: int | None = None
) -> Outcome:
    """Return the outcome of trained networks from their run folders, first by seed, then by fold."""
    tasks = [(place, store, split) for by_fold in folders for place, split in zip(by_fold, splits, strict=True)]
    answers = parallel_map(read_test, tasks, workers=workers, describe="predicting the test part", isolate=True)
    found = zip([place for place, *_ in tasks], list(answers), strict=True)
    return make_outcome([tuple(itertools.islice(found, len(splits))) for _ in folders])


def make_outcome(answers: Sequence[Sequence[tuple[Path, Predictions]]]) -> Outcome:
    """Return one outcome from run folders and predictions of networks, first by seed, then by fold."""
    return Outcome(
        tuple(tuple(place for place, _ in by_fold) for by_fold in answers),
        join_seeds([[answer for _, answer in by_fold] for by_fold in answers]),
    )


def answers(outcomes: dict[str, Outcome]) -> dict[str, Predictions]:
    """Return the predictions by name."""
    return {name: outcome.predictions for name, outcome in outcomes.items()}


def describe(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """Return a table with the means over the trainings of each variant.

    Columns: `parameters`, `multiply_adds` (per segment), `best_epoch`, `epochs`, `training_s`, the validation scores
    and `n_trained`, the number of trainings.
    """
    rows = {}
    for name, outcome in outcomes.items():
        trained = pd.DataFrame([summary(folder) for folder in outcome.flat]).drop(columns=["split", "seed"])
        rows[name] = pd.concat([trained.mean(), pd.Series({"n_trained": len(trained)})])
    return pd.DataFrame(rows).T.astype(dict.fromkeys(("parameters", "multiply_adds", "n_trained"), int))


def _graph(variant: Variant) -> str:
    """Return the sort key of the compiled graph of a training."""
    moved = (variant.start.rates, variant.start.frozen_norm) if variant.start else ()
    return repr((variant.spec, str(variant.store), variant.config.output, moved))


def _train(folder: Path, variant: Variant, split: Path, seed: int) -> Predictions:
    settings = (variant.store, split, variant.spec, variant.config, seed, variant.copies, variant.start)
    return read_test(train_model(folder, *settings, test=True), variant.store, split)
