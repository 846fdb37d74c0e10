"""Random search over architectures and learning rates: keras-tuner draws networks, worker processes train them.

A random search does not adapt to its results, so all networks are drawn first and trained in parallel.
"""

import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.core.cache import cached, key
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, DiskError, InstrlibError, WorkerError
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.splits import load_split
from instrlib.data.store import Inputs
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.train import Variant, train_model
from instrlib.models.trained import summary

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

Space = Callable[["HyperParameters", TrainConfig], tuple[tuple[Layer, ...], TrainConfig]]
"""Asks for hyperparameters, as a keras-tuner hypermodel does, and returns a network and its training."""

TRAIN_SEED = 1_000
"""Seed of every trial; the comparisons (0, 1, ...) never use it."""

MAX_DRAWS = 20
"""Draws for each trial at most, where most networks of a space exceed the budget or were drawn before."""

RESULTS = ("validation_loss", "validation_accuracy", "best_epoch", "epochs", "seconds")


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
    """Draw distinct networks from a space; return all draws in order.

    `config` holds the training settings that the space does not set. `trials` networks within the budget are drawn,
    unless the space has fewer; larger ones are marked and replaced.
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

    `status` is "done", "failed" or "died" (trials that raise an error or kill their process) or "too large". Each
    result is cached in `folder`: an interrupted or extended search trains only the missing trials. Delete the file of a
    failed trial to repeat it.
    """
    store, starts, rows, tasks = inputs.store, folder / "starts.txt", [], {}
    for one, (fold, path) in itertools.product(candidates, enumerate(inputs.splits)):
        sizes = {"parameters": one.parameters, "multiply_adds": one.multiply_adds}
        unknown = dict.fromkeys(RESULTS, np.nan) | {"status": one.status, "reason": one.reason}
        if one.status == "drawn":
            split = load_split(path, store.segments).fingerprint
            made_of = key("models", inputs=[store.fingerprint, split, one.spec, one.config, TRAIN_SEED])
            train = functools.partial(_train, store.folder, path, one.spec, one.config)
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


def _train(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        found = summary(train_model(Path(folder), Variant("trial", spec, config, store), split, TRAIN_SEED))
    found |= {"validation_loss": found["validation_log_loss"], "seconds": found["training_s"]}
    return {name: float(found[name]) for name in RESULTS}
