"""Many trainings compared: variants of a network, each from several seeds on every fold, tested on the same clips."""

import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from instrlib.core.config import TrainConfig
from instrlib.core.parallel import parallel_map
from instrlib.data.store import open_store
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.answers import read_test
from instrlib.models.layers import Layer
from instrlib.models.training import Start, summary, train_model


@dataclass(frozen=True)
class Variant:
    """One way to train a network.

    Attributes
    ----------
    name : str
        What tables and figures call it.
    spec : str or tuple of Layer
        The network: a name of `models.SPECS` or a table.
    config : TrainConfig
        How it is trained.
    store : Path
        Folder of the features.
    copies : Path, optional
        Folder of a store of augmented copies; see `training.train_model`.
    splits : tuple of Path, optional
        Its own, when its clips are not those of the other variants.
    seeds : tuple of int, optional
        Its own, when it has fewer than the other variants.
    start : training.Start, optional
        What it begins with, when it does not begin with random weights.
    """

    name: str
    spec: str | tuple[Layer, ...]
    config: TrainConfig
    store: Path
    copies: Path | None = None
    splits: tuple[Path, ...] | None = None
    seeds: tuple[int, ...] | None = None
    start: Start | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Attributes
    ----------
    folders : tuple of tuple of Path
        Run folders, first by seed, then by fold.
    predictions : dict
        See `evaluation.Predictions`: each tested clip once for each seed.
    """

    folders: tuple[tuple[Path, ...], ...]
    predictions: Predictions

    @property
    def flat(self) -> list[Path]:
        """All run folders."""
        return [folder for by_fold in self.folders for folder in by_fold]


def run_folder(folder: Path, name: str, *, fold: int, seed: int) -> Path:
    """Return where the training of a variant lies.

    Parameters
    ----------
    folder : Path
        Of all variants; a notebook's run folder.
    name : str
        The variant's.
    fold : int
        Number of the split, from 0.
    seed : int
        Seed of the training.

    Returns
    -------
    Path

    Examples
    --------
    >>> run_folder(Path("runs"), "CutMix, b = 0.9", fold=0, seed=1).as_posix()
    'runs/cutmix-b-0.9/fold-0/seed-1'
    """
    return folder / slug(name) / f"fold-{fold}" / f"seed-{seed}"


def slug(name: str) -> str:
    """Return a name as that of a folder: letters of every script and digits, hyphens between them, in lower case.

    Parameters
    ----------
    name : str
        Names that differ in case or in signs alone give the same.

    Returns
    -------
    str

    Examples
    --------
    >>> slug("CutMix, b = 0.9"), slug("folder Трубы")
    ('cutmix-b-0.9', 'folder-трубы')
    """
    # In many scripts a vowel is a mark (M) on a letter; of accents, NFC leaves one form of two that look alike.
    kept = unicodedata.normalize("NFC", name.lower())
    signs = (char if char.isalnum() or char == "." or unicodedata.category(char)[0] == "M" else "-" for char in kept)
    return re.sub("-+", "-", "".join(signs)).strip("-.")


def run_variants(
    folder: Path,
    variants: Sequence[Variant],
    *,
    splits: Sequence[Path],
    seeds: Sequence[int],
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Train every variant from every seed on every split, let each network answer its test part once.

    All trainings fan out together; a training that is there already is kept, so a killed run goes on.

    Parameters
    ----------
    folder : Path
        Run folders are made in it; see `run_folder`.
    variants : sequence of Variant
        With names of their own.
    splits : sequence of Path
        One split, or those of a cross-validation.
    seeds : sequence of int
        A network for each.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to Outcome
        By the variants' names.
    """
    places = [
        (variant, run_folder(folder, variant.name, fold=fold, seed=seed), split, seed)
        for variant in variants
        for seed in variant.seeds or seeds
        for fold, split in enumerate(variant.splits or splits)
    ]
    tasks = [
        (place, variant.store, split, variant.spec, variant.config, seed, variant.copies, variant.start)
        for variant, place, split, seed in places
    ]
    describe = f"training {len(variants)} variants" if len(variants) > 1 else f"training {variants[0].name}"
    answers = parallel_map(_train_and_answer, tasks, workers=workers, describe=describe, isolate=True)
    found = zip([place for _, place, *_ in places], list(answers), strict=True)
    outcomes = {}
    for variant in variants:
        n_folds = len(variant.splits or splits)
        by_seed = [tuple(itertools.islice(found, n_folds)) for _ in variant.seeds or seeds]
        outcomes[variant.name] = make_outcome(by_seed)
    return outcomes


def read_outcome(
    folders: Sequence[Sequence[Path]], *, store: Path, splits: Sequence[Path], workers: int | None = None
) -> Outcome:
    """Let networks that are trained already answer their test parts, or read what they answered before.

    Parameters
    ----------
    folders : sequence of sequence of Path
        Run folders, first by seed, then by fold.
    store : Path
        Folder of the features.
    splits : sequence of Path
        One split, or those of a cross-validation.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Outcome

    Raises
    ------
    RunError
        See `evaluation.read_test`.
    """
    tasks = [(place, store, split) for by_fold in folders for place, split in zip(by_fold, splits, strict=True)]
    answers = list(parallel_map(read_test, tasks, workers=workers, describe="reading the test part", isolate=True))
    found = zip([place for place, *_ in tasks], answers, strict=True)
    return make_outcome([tuple(itertools.islice(found, len(splits))) for _ in folders])


def make_outcome(answers: Sequence[Sequence[tuple[Path, Predictions]]]) -> Outcome:
    """Make one outcome of what the networks of several seeds and folds answered.

    Parameters
    ----------
    answers : sequence of sequence of (Path, dict)
        Run folder and `Predictions` of each network, first by seed, then by fold.

    Returns
    -------
    Outcome
    """
    return Outcome(
        tuple(tuple(place for place, _ in by_fold) for by_fold in answers),
        join_seeds([[answer for _, answer in by_fold] for by_fold in answers]),
    )


def answers(outcomes: dict[str, Outcome]) -> dict[str, Predictions]:
    """Return the predictions alone, by name."""
    return {name: outcome.predictions for name, outcome in outcomes.items()}


def describe(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """Say what each variant is and how it did on validation: the mean over its trainings.

    Parameters
    ----------
    outcomes : dict of str to Outcome
        What `run_variants` gives.

    Returns
    -------
    pandas.DataFrame
        One row a variant: `parameters`, `multiply_adds` (of a segment), `best_epoch`, `epochs`, `training_s` and the
        validation scores; `n_trained`, how many trainings there are, and `n_late`, how many of them were best on
        validation in the last tenth of their epochs.
    """
    rows = {}
    for name, outcome in outcomes.items():
        trained = pd.DataFrame([summary(folder) for folder in outcome.flat]).drop(columns=["split", "seed"])
        late = (
            trained.best_epoch >= 0.9 * trained.epochs if "best_epoch" in trained else pd.Series(False, trained.index)
        )
        rows[name] = pd.concat([trained.mean(), pd.Series({"n_trained": len(trained), "n_late": late.sum()})])
    return pd.DataFrame(rows).T.astype(dict.fromkeys(("parameters", "multiply_adds", "n_trained", "n_late"), int))


def multiply_adds_a_clip(described: pd.DataFrame, variants: Sequence[Variant]) -> pd.Series:
    """Say what a clip costs on average: shorter segments are cheaper each, and there are more of them.

    Parameters
    ----------
    described : pandas.DataFrame
        What `describe` gives.
    variants : sequence of Variant
        The same variants.

    Returns
    -------
    pandas.Series
        Multiply-adds by the variants' names.
    """
    segments = {variant.name: open_store(variant.store).segments for variant in variants}
    a_clip = pd.Series({name: len(table) / table.clip_id.nunique() for name, table in segments.items()})
    return (described.multiply_adds * a_clip).rename("multiply_adds_a_clip")


def _train_and_answer(
    folder: Path,
    store: Path,
    split: Path,
    spec: str | tuple[Layer, ...],
    config: TrainConfig,
    seed: int,
    copies: Path | None,
    start: Start | None,
) -> Predictions:
    return read_test(train_model(folder, store, split, spec, config, seed, copies, start), store, split)
