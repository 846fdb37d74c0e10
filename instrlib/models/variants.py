"""Training variants from several seeds on every fold, and a random search over architectures and learning rates."""

import functools
import itertools
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.core.cache import cached, key
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, DiskError, InstrlibError, WorkerError, in_parts, slug
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.splits import load_split
from instrlib.data.store import Inputs
from instrlib.evaluation.predictions import Predictions, join_seeds
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.train import Variant, train_model
from instrlib.models.trained import read_test, summary

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

Space = Callable[["HyperParameters", TrainConfig], tuple[tuple[Layer, ...], TrainConfig]]
"""Asks for hyperparameters, as a keras-tuner hypermodel does, and returns a network and its training."""

TRAIN_SEED = 1_000  # of every trial; the comparisons (0, 1, ...) never use it
MAX_DRAWS = 20  # for each trial; others exceed the budget or were drawn before
RESULTS = ("validation_loss", "validation_accuracy", "best_epoch", "epochs", "seconds")


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
    """Train every variant from every seed on every split, in parallel, and predict the test parts.

    Finished trainings are kept, so an interrupted run continues.
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
    """Return a table with the means over the `n_trained` trainings of each variant; see `trained.summary`."""
    rows = {}
    for name, outcome in outcomes.items():
        trained = pd.DataFrame([summary(folder) for folder in outcome.flat]).drop(columns=["split", "seed"])
        rows[name] = pd.concat([trained.mean(), pd.Series({"n_trained": len(trained)})])
    return pd.DataFrame(rows).T.astype(dict.fromkeys(("parameters", "multiply_adds", "n_trained"), int))


def _train(folder: Path, variant: Variant, split: Path, seed: int) -> None:
    (variant.train or functools.partial(train_model, test=True))(folder, variant, split, seed)


@dataclass(frozen=True)
class Candidate:
    """One draw from a search space; `status` is "drawn", or "too large" or "failed" (not trained), with a `reason`."""

    number: int
    values: dict[str, float]
    spec: tuple[Layer, ...]
    config: TrainConfig
    parameters: int | None = None  # None if the network cannot be built
    multiply_adds: int | None = None
    status: str = "drawn"
    reason: str = ""


def draw(
    space: Space,
    *,
    input_shape: tuple[int, int, int],
    n_classes: int,
    config: TrainConfig,
    trials: int,
    seed: int,
    max_multiply_adds: float = np.inf,
) -> list[Candidate]:
    """Draw networks by keras-tuner until `trials` different ones are within the budget; return all draws in order.

    `config` holds the training settings that the space does not set.
    """
    load_keras()  # without messages, before keras-tuner imports it
    from keras_tuner import HyperParameters

    declared = HyperParameters()
    space(declared, config)
    # Not the seed itself, because keras-tuner's draws for the next seed are those for this one, shifted by one.
    states = itertools.count(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    found: dict[tuple, Candidate] = {}
    for _ in range(MAX_DRAWS * trials):
        if sum(one.status == "drawn" for one in found.values()) == trials:
            break
        drawn = declared.copy()
        drawn.values = {one.name: one.random_sample(next(states)) for one in declared.space}
        if (values := tuple(drawn.values.items())) in found:
            continue
        spec, settings = space(drawn, config)
        try:
            model, about = build(spec, input_shape, n_classes), {}
            cost = count_multiply_adds(model)
            if cost > max_multiply_adds:
                reason = f"{cost / 1e6:.1f} million multiply-adds, more than {max_multiply_adds / 1e6:.1f}"
                about = {"status": "too large", "reason": reason}
            about |= {"parameters": model.count_params(), "multiply_adds": cost}
        except ConfigError as error:
            about = {"status": "failed", "reason": str(error)}
        found[values] = Candidate(len(found), drawn.values, spec, settings, **about)
    return list(found.values())


def search(
    folder: Path, candidates: Sequence[Candidate], *, inputs: Inputs, workers: int | None = None
) -> pd.DataFrame:
    """Train the drawn networks on every split (Bergstra and Bengio, 2012, JMLR 13:281-305); one row per trial and fold.

    `status` is "done", "failed" or "died" (trials that raise an error or kill their process) or "too large". Results
    are cached in `folder`; delete the file of a failed trial to repeat it.
    """
    store, starts, rows, tasks = inputs.store, folder / "starts.txt", [], {}
    for one, (fold, path) in itertools.product(candidates, enumerate(inputs.splits)):
        sizes = {"parameters": one.parameters, "multiply_adds": one.multiply_adds}
        unknown = dict.fromkeys(RESULTS, np.nan) | {"status": one.status, "reason": one.reason}
        if one.status == "drawn":
            split = load_split(path, store.segments).fingerprint
            made_of = key("models", inputs=[store.fingerprint, split, one.spec, one.config, TRAIN_SEED])
            train = functools.partial(_train_trial, store.folder, path, one.spec, one.config)
            tasks[len(rows)] = (folder / f"{made_of[:20]}.json", made_of, starts, train)
        rows.append({"trial": one.number, "fold": fold, **one.values, **sizes, **unknown})
    starts.parent.mkdir(parents=True, exist_ok=True)
    starts.write_bytes(b"")
    found = None
    while found is None:
        before = starts.stat().st_size
        try:
            work = list(tasks.values())
            found = list(parallel_map(_trial, work, workers=workers, describe="random search", isolate=True))
        except WorkerError:  # a killed process ends its pool
            if starts.stat().st_size == before:  # no process could start
                raise
            workers = 1  # one by one, so that only the trial that kills its process is started in vain
    for number, result in zip(tasks, found, strict=True):
        rows[number] |= result
    return pd.DataFrame(rows)


def _trial(path: Path, made_of: str, starts: Path, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    def attempt() -> dict[str, Any]:
        if starts.read_text().split().count(path.stem) == 2:
            return {"status": "died", "reason": "its process was killed twice, most likely by a lack of memory"}
        with starts.open("a") as file:
            file.write(f"{path.stem}\n")
        try:
            return train() | {"status": "done"}
        except DiskError:  # not caused by the trial
            raise
        except Exception as error:
            kind = "" if isinstance(error, InstrlibError) else f"{type(error).__name__}: "
            return {"status": "failed", "reason": (kind + " ".join(str(error).split()))[:200]}

    return cached(path, made_of, attempt)


def _train_trial(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        found = summary(train_model(Path(folder), Variant("trial", spec, config, store), split, TRAIN_SEED))
    found |= {"validation_loss": found["validation_log_loss"], "seconds": found["training_s"]}
    return {name: float(found[name]) for name in RESULTS}
