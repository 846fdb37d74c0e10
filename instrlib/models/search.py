"""Random search over architectures and learning rates: keras-tuner draws networks, worker processes train them.

A random search does not adapt to its results, so all networks are drawn first and trained in parallel.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.core.cache import cached, key
from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, DiskError, InstrlibError, RunError, WorkerError, read_json
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.train import train_model
from instrlib.models.trained import summary

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

Space = Callable[["HyperParameters", TrainConfig], tuple[tuple[Layer, ...], TrainConfig]]
"""Asks for hyperparameters, as a keras-tuner hypermodel does, and returns a network and its training."""

TRAIN_SEED = 1_000
"""Seed of every trial; the comparisons (0, 1, ...) never use it."""

MAX_DRAWS = 20
"""Draws for each trial at most, where most networks of a space exceed the budget."""

RESULTS = ("validation_loss", "validation_accuracy", "best_epoch", "epochs", "seconds")
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Candidate:
    """One draw from a search space.

    `parameters` and `multiply_adds` are None if the network cannot be built. `status` is "drawn", or "too large" or
    "failed" for networks that are not trained, with the `reason`.
    """

    number: int
    values: dict[str, float]
    spec: tuple[Layer, ...]
    config: TrainConfig
    parameters: int | None = None
    multiply_adds: int | None = None
    status: str = "drawn"
    reason: str = ""


def axes(space: Space) -> pd.DataFrame:
    """Return the hyperparameters of a space by `name`: `values` (or lowest and highest), `continuous`, `log`."""
    rows = []
    for one in _declared(space).space:
        settings = one.get_config()
        continuous = "min_value" in settings and settings["step"] is None
        values = (settings["min_value"], settings["max_value"]) if continuous else tuple(one.values)
        log = settings.get("sampling") == "log" or (min(values) > 0 and max(values) / min(values) >= 100)
        rows.append({"name": one.name, "values": tuple(map(float, values)), "continuous": continuous, "log": log})
    return pd.DataFrame(rows).set_index("name")


def draw(
    space: Space,
    *,
    input_shape: tuple[int, int, int],
    n_classes: int,
    config: TrainConfig,
    trials: int,
    seed: int,
    max_multiply_adds: int | None = None,
) -> list[Candidate]:
    """Draw distinct networks from a space and count their cost; returns all draws in order.

    Parameters
    ----------
    space : callable
        See `Space`.
    input_shape, n_classes
        See `layers.build`.
    config : TrainConfig
        Training settings that the space does not set.
    trials, max_multiply_adds : int
        Number of networks within the budget, unless the space has fewer; larger ones are marked and replaced.
    seed : int
        Seed of the draws and their order.
    """
    from keras_tuner import Objective
    from keras_tuner.oracles import RandomSearchOracle

    oracle = RandomSearchOracle(
        objective=Objective("validation_accuracy", "max"),
        max_trials=None,
        hyperparameters=_declared(space),
        allow_new_entries=False,
        tune_new_entries=False,
        # The oracle treats 0 as "no seed", and its draws for seed n + 1 are those for n, shifted by one.
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0]) or 1,
    )
    oracle.verbose = 0
    found: list[Candidate] = []
    with tempfile.TemporaryDirectory() as folder:
        oracle._set_project_dir(folder, "search")
        while sum(one.status == "drawn" for one in found) < trials and len(found) < MAX_DRAWS * trials:
            trial = oracle.create_trial(str(len(found)))
            if trial.status != "RUNNING":  # the space is exhausted
                break
            one = Candidate(len(found), dict(trial.hyperparameters.values), *space(trial.hyperparameters, config))
            found.append(_sized(one, input_shape, n_classes, max_multiply_adds))
    return found


def search(
    folder: Path, candidates: Sequence[Candidate], *, inputs: Inputs, workers: int | None = None
) -> pd.DataFrame:
    """Train the drawn networks on every split [1]_.

    Trials that raise an error or kill their process are marked. Each result is cached: an interrupted or extended
    search trains only the missing trials. Delete the file of a failed trial to repeat it.

    Parameters
    ----------
    folder : Path
        Folder of one small JSON file per trial. No weights are kept.
    candidates : sequence of Candidate
    inputs : Inputs
    workers : int, optional

    Returns
    -------
    pandas.DataFrame
        One row per trial and fold: `trial`, `fold`, the hyperparameters, `parameters`, `multiply_adds`,
        `validation_loss`, `validation_accuracy`, `best_epoch`, `epochs`, `seconds`, `status` ("done", "failed", "died"
        or "too large") and `reason`.

    References
    ----------
    .. [1] J. Bergstra, Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012.
       https://jmlr.org/papers/v13/bergstra12a.html
    """
    store = inputs.store
    splits = [load_split(path, store.segments).fingerprint for path in inputs.splits]
    tasks = {}
    for one in candidates:
        for fold, split in enumerate(splits):
            if one.status == "drawn":
                cache_key = key("models", inputs=[store.fingerprint, split, one.spec, one.config, TRAIN_SEED])
                path = folder / f"{cache_key[:20]}.json"
                arguments = (store.folder, inputs.splits[fold], one.spec, one.config)
                tasks[one.number, fold] = (path, cache_key, _train, arguments)
    _train_all(list(tasks.values()), workers)
    rows = []
    for one in candidates:
        for fold in range(len(splits)):
            result = {"status": one.status, "reason": one.reason}
            if (one.number, fold) in tasks:
                result = read_json(tasks[one.number, fold][0])["value"]
            sizes = {"parameters": one.parameters, "multiply_adds": one.multiply_adds}
            rows.append({"trial": one.number, "fold": fold, **one.values, **sizes, **result})
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*rows[0], *RESULTS, "status", "reason"])))


def best(candidates: Sequence[Candidate], trials: pd.DataFrame) -> list[Candidate]:
    """Return the best candidate of each fold by validation accuracy, then loss; folds choose independently."""
    chosen = []
    for fold, rows in trials.groupby("fold"):
        done = rows[rows.status == "done"]
        if done.empty:
            tried = rows[rows.status != "too large"]
            reason = (tried if len(tried) else rows).reason.iloc[0]
            raise RunError(f"All {len(rows)} trials of fold {fold} failed ({reason}); change the search space.")
        order = done.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True], kind="stable")
        chosen.append(candidates[int(order.trial.iloc[0])])
    return chosen


def _declared(space: Space) -> "HyperParameters":
    load_keras()  # without messages, before keras-tuner imports it
    from keras_tuner import HyperParameters

    hyperparameters = HyperParameters()
    space(hyperparameters, TrainConfig())
    return hyperparameters


def _sized(one: Candidate, input_shape: tuple[int, int, int], n_classes: int, limit: int | None) -> Candidate:
    try:
        model = build(one.spec, input_shape, n_classes)
    except ConfigError as error:
        return dataclasses.replace(one, status="failed", reason=str(error))
    cost = count_multiply_adds(model)
    one = dataclasses.replace(one, parameters=model.count_params(), multiply_adds=cost)
    if limit is None or cost <= limit:
        return one
    reason = f"{cost / 1e6:.1f} million multiply-adds, more than {limit / 1e6:.1f}"
    return dataclasses.replace(one, status="too large", reason=reason)


def _train_all(tasks: list[tuple], workers: int | None) -> None:
    """Run all trials. A killed process ends its pool; the started trials then run again one by one."""
    while waiting := [task for task in tasks if not _finished(task)]:
        for path, *_ in waiting:
            _mark(path).unlink(missing_ok=True)
        try:
            list(parallel_map(_trial, waiting, workers=workers, describe="random search", isolate=True))
        except WorkerError:
            suspects = [task for task in waiting if _mark(task[0]).is_file() and not _finished(task)]
            if not suspects:  # no process could start
                raise
            for task in suspects:
                _run_alone(task)


def _run_alone(task: tuple) -> None:
    path, cache_key, *_ = task
    _mark(path).unlink()
    try:
        list(parallel_map(_trial, [task], workers=1, describe="random search, one trial", isolate=True))
    except WorkerError:
        if not _mark(path).is_file():
            raise
        reason = "its process was killed twice, most likely because memory ran out"
        cached(path, cache_key, lambda: {"status": "died", "reason": reason})


def _trial(path: Path, cache_key: str, train: Callable[..., dict[str, float]], arguments: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _mark(path).touch()
    cached(path, cache_key, lambda: _attempt(train, arguments))
    _mark(path).unlink()


def _attempt(train: Callable[..., dict[str, float]], arguments: tuple) -> dict[str, Any]:
    try:
        found = train(*arguments)
    except DiskError:  # not caused by the trial
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if not isinstance(error, InstrlibError):
            text = f"{type(error).__name__}: {text}"
        return {"status": "failed", "reason": text[:_LONGEST_REASON]}
    return {name: float(found[name]) for name in RESULTS} | {"status": "done", "reason": ""}


def _train(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        found = summary(train_model(Path(folder), store, split, spec, config, TRAIN_SEED))
    return found | {"validation_loss": found["validation_log_loss"], "seconds": found["training_s"]}


def _finished(task: tuple) -> bool:
    path, cache_key, *_ = task
    try:
        return read_json(path)["key"] == cache_key
    except (InstrlibError, KeyError, TypeError):
        return False


def _mark(path: Path) -> Path:
    return path.with_suffix(".begun")
