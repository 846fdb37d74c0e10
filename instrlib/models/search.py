"""Random search over architectures and learning rates: keras-tuner's oracle decides here, workers only train.

keras-tuner's own way to search in several processes is a chief that waits for its workers, and waits for ever when one
of them dies. Here the oracle lives in the parent alone. A random search does not learn from its results, so all trials
are drawn first and fan out; each result is then told to the oracle, which names the best.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.core.backend import load_keras
from instrlib.core.cache import code_hash, versions
from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError, RunError
from instrlib.core.io import atomic_path, hash_json, write_json
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore
from instrlib.evaluation.predictions import join_folds
from instrlib.models.attempts import Attempt, attempt_all
from instrlib.models.experiments import Outcome, Variant, run_variants
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.training import COMPLETE, summary, train_model

if TYPE_CHECKING:
    from keras_tuner import HyperParameters, Oracle

TRAIN_SEED = 1_000
"""Every trial is trained from this seed, which the comparisons (0, 1, ...) never use."""

MAX_DRAWS = 20
"""So many draws for each trial at most, where most networks of a space are over the budget."""

REFERENCE_EPOCHS = 10
"""Epochs of each trial in the study that the space "reference" is taken from."""

REFERENCE_TRIALS = {"full": 5}
"""Half as many trials as that study had, by the profiles that can afford them: five take as long as twenty of ours."""

CHANCE = "a random number"
"""Row of `importance` that stands for a hyperparameter without any effect."""

_OBJECTIVE = "validation_loss"
_RESULTS = ("validation_loss", "validation_accuracy", "best_epoch", "epochs", "seconds")
_FOREST_TREES = 30
_SHUFFLES = 5
_FEWEST_TRIALS = 6

Network = tuple[tuple[Layer, ...], TrainConfig]


def _own(hp: "HyperParameters", config: TrainConfig) -> Network:
    blocks = hp.Int("blocks", 2, 4)
    first_filters = hp.Choice("first filters", [8, 16, 24, 32])
    growth = hp.Choice("growth", [1.0, 1.5, 2.0])  # of the filters, from block to block
    first_kernel = hp.Choice("first kernel", [3, 5, 7])
    kernel = hp.Choice("kernel", [3, 5])
    pool = hp.Choice("pooling", [2, 3])
    dropout = hp.Choice("dropout", [0.0, 0.15, 0.3, 0.45, 0.6])
    rate = hp.Float("learning rate", 3e-4, 3e-2, sampling="log")
    first = Layer("conv", first_filters, first_kernel, stride=2, pool=pool, norm=True)
    others = [
        Layer("conv", round(first_filters * growth**number), kernel, pool=pool, norm=True)
        for number in range(1, blocks)
    ]
    return (first, *others, Layer("average", dropout=dropout)), dataclasses.replace(config, learning_rate=rate)


def _reference(hp: "HyperParameters", config: TrainConfig) -> Network:
    convolutions = [
        Layer("conv", hp.Int(f"filters {number}", *filters), hp.Choice(f"kernel {number}", [1, 3, 5]), dropout=0.2)
        for number, filters in enumerate([(16, 64, 8), (16, 32, 4), (8, 16, 2)], 1)
    ]
    dense = [
        Layer("dense", hp.Int(f"dense {number}", *units), dropout=dropout)
        for number, (units, dropout) in enumerate([((16, 64, 8), 0.2), ((8, 16, 4), 0.2), ((4, 8, 2), 0.1)], 1)
    ]
    rate = hp.Choice("learning rate", [1.0, 0.1, 0.01, 0.001])
    table = (*convolutions, Layer("flatten"), *dense)
    epochs = min(REFERENCE_EPOCHS, config.epochs)
    return table, dataclasses.replace(config, learning_rate=rate, schedule="constant", epochs=epochs)


SPACES: dict[str, Callable[["HyperParameters", TrainConfig], Network]] = {"own": _own, "reference": _reference}
"""The spaces by name: each asks for its hyperparameters, in keras-tuner's words, and gives a network and its training.

"own": convolutions with batch normalisation and pooling, a mean in place of dense layers. "reference": that of the
study freesound-cutmix, whose convolutions have neither and whose first dense layer holds nearly all weights; its
learning rate is constant, for at most `REFERENCE_EPOCHS`.
"""


@dataclass(frozen=True)
class Axis:
    """One hyperparameter of a space.

    Attributes
    ----------
    name : str
        As keras-tuner knows it.
    values : tuple of float
        All that it can be; its lowest and highest value when it is continuous.
    continuous : bool
        Whether it takes every value between the two.
    log : bool
        Whether it is drawn, and should be drawn in a figure, on a logarithmic scale.
    """

    name: str
    values: tuple[float, ...]
    continuous: bool
    log: bool


@dataclass(frozen=True)
class Candidate:
    """One draw from a space.

    Attributes
    ----------
    number : int
        From 0, in the order of the draws.
    values : dict of str to float
        Its hyperparameters.
    spec, config : tuple of Layer, TrainConfig
        What they mean.
    parameters, multiply_adds : int or None
        Size and cost; None where the network cannot be built.
    refused : tuple of str
        Why it is not trained, as status and reason; empty when it is.
    """

    number: int
    values: dict[str, float]
    spec: tuple[Layer, ...]
    config: TrainConfig
    parameters: int | None
    multiply_adds: int | None
    refused: tuple[str, str] | tuple[()]


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes
    ----------
    space : str
        Name of the space.
    folder : Path
        Where it lies: `trials.csv`, the oracle's state, a folder for each trial.
    max_multiply_adds : int or None
        The budget.
    trials : pandas.DataFrame
        One row for each draw and fold: `trial`, `fold`, the hyperparameters, `parameters`, `multiply_adds`,
        `validation_loss` (nats a clip), `validation_accuracy`, `best_epoch`, `epochs`, `seconds`, `status` ("done",
        "failed", "died", "too large") and `reason`.
    winners : tuple of Candidate
        The best of each fold, by its validation loss.
    """

    space: str
    folder: Path
    max_multiply_adds: int | None
    trials: pd.DataFrame
    winners: tuple[Candidate, ...]


def get_space(name: str) -> Callable[["HyperParameters", TrainConfig], Network]:
    """Return the space called `name`.

    Raises
    ------
    ConfigError
        When there is none; the message lists those there are.
    """
    if name not in SPACES:
        raise ConfigError(f"Unknown space {name!r}; there is: {', '.join(SPACES)}.")
    return SPACES[name]


def axes(name: str) -> tuple[Axis, ...]:
    """Return the hyperparameters of a space.

    Parameters
    ----------
    name : str
        Of the space.

    Returns
    -------
    tuple of Axis
        In the order in which they are drawn.

    Raises
    ------
    ConfigError
        See `get_space`.
    """
    found = []
    for one in _declared(name).space:
        settings = one.get_config()
        continuous = "min_value" in settings and settings["step"] is None
        values = (settings["min_value"], settings["max_value"]) if continuous else tuple(one.values)
        log = settings.get("sampling") == "log" or (min(values) > 0 and max(values) / min(values) >= 100)
        found.append(Axis(one.name, tuple(float(value) for value in values), continuous, log))
    return tuple(found)


def draw(
    space: str,
    *,
    store: FeatureStore,
    config: TrainConfig,
    trials: int,
    seed: int,
    max_multiply_adds: int | None = None,
) -> list[Candidate]:
    """Draw networks from a space and count what they cost, without training any.

    Parameters
    ----------
    space : str
        Its name.
    store : FeatureStore
        Gives the size of the input and the number of classes.
    config : TrainConfig
        What the space does not decide of the training.
    trials : int
        So many that fit are drawn, unless the space has no more or hardly any.
    seed : int
        The same seed draws the same networks in the same order.
    max_multiply_adds : int, optional
        Budget: networks that cost more are refused, and others drawn in their place.

    Returns
    -------
    list of Candidate
        All draws, those that are refused included.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _draw(_oracle(space, seed, Path(folder)), space, store, config, trials, max_multiply_adds)


def costs(drawn: dict[str, list[Candidate]], max_multiply_adds: int) -> pd.DataFrame:
    """Say what the networks of several spaces cost.

    Parameters
    ----------
    drawn : dict of str to list of Candidate
        What `draw` gives without a budget, by space.
    max_multiply_adds : int
        Budget that they are compared with.

    Returns
    -------
    pandas.DataFrame
        One row a space: `networks`, `built` (the others do not fit the input), the median `parameters` and the least,
        the median and the largest number of `multiply_adds` of these, and `within_budget`, their number.
    """
    rows = {}
    for space, candidates in drawn.items():
        built = [one for one in candidates if one.multiply_adds is not None]
        work = np.array([one.multiply_adds for one in built])
        rows[space] = {
            "networks": len(candidates),
            "built": len(built),
            "parameters": np.median([one.parameters for one in built]),
            "multiply_adds_least": work.min(),
            "multiply_adds": np.median(work),
            "multiply_adds_most": work.max(),
            "within_budget": (work <= max_multiply_adds).sum(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype(int)


def search(
    folder: Path,
    space: str,
    *,
    store: FeatureStore,
    splits: Sequence[Path],
    config: TrainConfig,
    trials: int,
    seed: int,
    max_multiply_adds: int | None = None,
    workers: int | None = None,
) -> Search:
    """Draw networks from a space, train each, and choose the one with the least validation loss.

    With several folds the choice is made in each by itself, among the same networks, so that no clip is tested by a
    network that was chosen with its help. A trial that fails or dies is marked, and the search goes on. Trials that
    have ended are not run again, so that a killed search, or one that is given more trials, goes on where it was. Only
    the winners' weights are kept.

    Parameters
    ----------
    folder : Path
        A folder for this space and these settings is made in it.
    space : str
        Its name.
    store : FeatureStore
        The features.
    splits : sequence of Path
        One split, or those of a cross-validation.
    config : TrainConfig
        What the space does not decide of the training.
    trials : int
        Networks that are trained (in each fold).
    seed : int
        Decides what is drawn; every trial is trained from `TRAIN_SEED`.
    max_multiply_adds : int, optional
        See `draw`.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Search

    Raises
    ------
    ConfigError
        When the space is unknown or nothing in it fits the budget.
    RunError
        When no trial of a fold could be trained.

    References
    ----------
    .. [1] J. Bergstra, Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012.
       https://jmlr.org/papers/v13/bergstra12a.html
    """
    get_space(space)
    prints = [store.fingerprint, *(load_split(path, store.segments).fingerprint for path in splits)]
    settings = [space, _declared(space).get_config(), config, store.config.to_dict(), seed, max_multiply_adds]
    folder = folder / f"{space}-{hash_json([settings, prints])[:12]}"
    with tempfile.TemporaryDirectory() as scratch:  # keras-tuner keeps files that a kill could leave in parts
        oracles = [_oracle(space, seed, Path(scratch) / str(fold)) for fold in range(len(splits))]
        candidates = _draw(oracles[0], space, store, config, trials, max_multiply_adds)
        fitting = [one for one in candidates if not one.refused]
        _check_any(space, candidates, fitting, max_multiply_adds)
        for oracle in oracles[1:]:
            for one in candidates:
                oracle.create_trial(str(one.number))
        places = [(one, fold) for one in fitting for fold in range(len(splits))]
        tasks = [(_place(folder, one, fold), store.folder, splits[fold], one.spec, one.config) for one, fold in places]
        ended = attempt_all(
            _train,
            tasks,
            notes=[place.with_suffix(".json") for place, *_ in tasks],
            keys=[hash_json([_code(), prints[0], prints[1 + fold], one.spec, one.config]) for one, fold in places],
            workers=workers,
            describe=f"searching the space {space!r}",
        )
        attempts = {
            (one.number, fold): Attempt(*one.refused, None)
            for one in candidates
            if one.refused
            for fold in range(len(splits))
        } | {(one.number, fold): attempt for (one, fold), attempt in zip(places, ended, strict=True)}
        best = [
            _decide(oracle, {number: attempt for (number, of), attempt in attempts.items() if of == fold}, space)
            for fold, oracle in enumerate(oracles)
        ]
        for fold, oracle in enumerate(oracles):
            state = {"oracle": oracle.get_state(), "trials": [one.get_state() for one in oracle.trials.values()]}
            write_json(folder / f"oracle-{fold}.json", state)
    table = _table(candidates, attempts)
    with atomic_path(folder / "trials.csv") as path:
        table.to_csv(path, index=False)
    winners = tuple(candidates[number] for number in best)
    for one, fold in places:
        if one is not winners[fold]:
            _drop_weights(_place(folder, one, fold))
    return Search(space, folder, max_multiply_adds, table, winners)


def train_again(
    folder: Path,
    found: Search,
    *,
    baseline: Variant,
    splits: Sequence[Path],
    seeds: Sequence[int],
    name: str = "winner",
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Train the winner of each fold from fresh seeds, beside the baseline, and let each answer its test part once.

    Parameters
    ----------
    folder : Path
        Run folders are made in it.
    found : Search
        The search.
    baseline : Variant
        What the winner is compared with.
    splits, seeds, workers
        See `experiments.run_variants`; the splits are those of the search.
    name : str
        What the winner is called.

    Returns
    -------
    dict of str to Outcome
        The winner, then the baseline, each on all folds.
    """
    by_fold = [
        run_variants(
            folder / f"fold-{fold}",
            [Variant(name, winner.spec, winner.config, baseline.store), baseline],
            splits=[split],
            seeds=seeds,
            workers=workers,
        )
        for fold, (winner, split) in enumerate(zip(found.winners, splits, strict=True))
    ]
    return {name: _joined([outcomes[name] for outcomes in by_fold]) for name in by_fold[0]}


def endings(found: Search) -> pd.DataFrame:
    """Say how each trial ended: "done" when it was trained in all folds, else as in the first fold that failed.

    Parameters
    ----------
    found : Search
        The search.

    Returns
    -------
    pandas.DataFrame
        Indexed by `trial`: `status` and `reason`.
    """
    rows = found.trials.assign(done=found.trials.status == "done").sort_values(["trial", "done", "fold"])
    return rows.drop_duplicates("trial").set_index("trial")[["status", "reason"]]


def regression_to_the_mean(found: Search, again: Outcome) -> pd.DataFrame:
    """Set the winners' validation scores in the search beside those from fresh seeds.

    The best of many is best partly by luck; trained again, it does worse on average.

    Parameters
    ----------
    found : Search
        The search.
    again : Outcome
        The winner's part of what `train_again` gives.

    Returns
    -------
    pandas.DataFrame
        Rows `validation_loss` and `validation_accuracy`; columns `search` (the mean over folds), `again` (the mean over
        folds and seeds), `lowest` and `highest` (the extreme seeds).
    """
    chosen = pd.concat([_row(found, winner.number, fold) for fold, winner in enumerate(found.winners)], axis=1).T
    names = {"validation_loss": "validation_log_loss", "validation_accuracy": "validation_accuracy"}
    rows = {}
    for name, kept in names.items():
        by_seed = _by_seed(again, kept)
        rows[name] = {
            "search": chosen[name].astype(float).mean(),
            "again": by_seed.mean(),
            "lowest": by_seed.min(),
            "highest": by_seed.max(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def importance(found: Search, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Estimate how much each hyperparameter explains of the trials' validation loss.

    A random forest predicts the rank of a trial's loss from its hyperparameters; the importance of one is how much
    worse the forest does on trials that it was not fitted on when that one is shuffled [1]_. This is done on draws of
    the trials with replacement, and the interval covers 95 % of them. With a dozen trials it is wide, and honestly so.

    Parameters
    ----------
    found : Search
        The search.
    n_resamples : int
        Draws; 100 do.
    seed : int
        Of the draws, the forests and the shuffling.

    Returns
    -------
    pandas.DataFrame
        One row for each hyperparameter, and one, `CHANCE`, for a number that decides nothing: `importance`, `low`,
        `high` in shares of the ranks' variance; `spearman`, the rank correlation with the loss (below 0: larger is
        better). NaN with fewer than six trials.

    References
    ----------
    .. [1] L. Breiman, "Random forests", Machine Learning 45, 2001. doi:10.1023/A:1010933404324
    """
    from scipy.stats import rankdata, spearmanr
    from sklearn.ensemble import RandomForestRegressor

    names = [axis.name for axis in axes(found.space)]
    done = _tried(found).dropna(subset=_OBJECTIVE)
    n = len(done)
    table = pd.DataFrame(np.nan, index=[*names, CHANCE], columns=["importance", "low", "high", "spearman"])
    if n < _FEWEST_TRIALS:
        return table
    ranks = rankdata(done[_OBJECTIVE])
    ranks = (ranks - ranks.mean()) / (ranks.std() or 1.0)
    rng = np.random.default_rng(seed)
    drawn = []
    while len(drawn) < n_resamples:
        chosen = rng.integers(n, size=n)
        left = np.setdiff1d(np.arange(n), chosen)
        if len(left) == 0:
            continue
        x = np.column_stack([done[names], rng.random(n)])
        forest = RandomForestRegressor(_FOREST_TREES, random_state=int(rng.integers(2**31)))
        forest.fit(x[chosen], ranks[chosen])
        drawn.append(_shuffled_losses(forest, x, ranks, left, rng))
    table["importance"] = np.mean(drawn, axis=0)
    table["low"], table["high"] = np.quantile(drawn, [0.025, 0.975], axis=0)
    varied = done[names].nunique() > 1
    table.loc[names, "spearman"] = [
        spearmanr(done[name], ranks).statistic if varied[name] else np.nan for name in names
    ]
    return table


def figure_axes(found: Search) -> dict[str, np.ndarray]:
    """Return the arrays of `plots.parallel_coordinates`: all trials that were tried, over the mean of their folds."""
    space = axes(found.space)
    tried = _tried(found)
    longest = max(len(axis.values) for axis in space)
    return {
        "names": np.array([axis.name for axis in space]),
        "choices": np.array([[*axis.values, *[np.nan] * (longest - len(axis.values))] for axis in space]),
        "continuous": np.array([axis.continuous for axis in space]),
        "log": np.array([axis.log for axis in space]),
        "values": tried[[axis.name for axis in space]].to_numpy(float),
        "accuracy": tried.validation_accuracy.to_numpy(float),
        "won": np.isin(tried.index, [winner.number for winner in found.winners]),
    }


def figure_progress(found: Search, again: Outcome, baseline: Outcome) -> dict[str, np.ndarray]:
    """Return the arrays of `plots.search_progress` from what `train_again` gives, all of them means over the folds."""
    rows = found.trials[found.trials.status != "too large"]
    by_fold = rows.pivot(index="trial", columns="fold", values=_OBJECTIVE).to_numpy(float)
    # Each fold chooses by itself, so the best so far may be another trial in each.
    best = np.fmin.accumulate(by_fold, axis=0).mean(axis=1)
    return {
        "loss": by_fold.mean(axis=1),
        "best": best,
        "chosen": best[-1],
        "again": _by_seed(again, "validation_log_loss"),
        "baseline": _by_seed(baseline, "validation_log_loss"),
    }


def _train(folder: Path, store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    """Train one trial, in a worker."""
    row = summary(train_model(folder, store, split, spec, config, TRAIN_SEED))
    found = {"validation_loss": row["validation_log_loss"], "seconds": row["training_s"]}
    return {name: float({**row, **found}[name]) for name in _RESULTS}


@functools.cache
def _code() -> str:
    """Hash the code and the versions that decide a trial, whatever space proposed it: those of its training."""
    return hash_json([code_hash("models"), versions(), TRAIN_SEED, _RESULTS])


def _declared(name: str) -> "HyperParameters":
    space = get_space(name)
    load_keras()  # keras-tuner imports it, and would let its notes through
    from keras_tuner import HyperParameters

    hp = HyperParameters()
    space(hp, TrainConfig())
    return hp


def _oracle(space: str, seed: int, folder: Path) -> "Oracle":
    from keras_tuner import Objective
    from keras_tuner.oracles import RandomSearchOracle

    oracle = RandomSearchOracle(
        objective=Objective(_OBJECTIVE, "min"),
        max_trials=None,
        hyperparameters=_declared(space),
        allow_new_entries=False,
        tune_new_entries=False,
        # The oracle takes 0 for "no seed", and its draws for seed n + 1 are those for n, one place on.
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0]) or 1,
        # It would give up on the first three in a row that fail.
        max_consecutive_failed_trials=-1,
    )
    oracle.verbose = 0
    oracle._set_project_dir(folder, space)
    return oracle


def _draw(
    oracle: "Oracle", space: str, store: FeatureStore, config: TrainConfig, trials: int, limit: int | None
) -> list[Candidate]:
    candidates: list[Candidate] = []
    n_fitting = 0
    while n_fitting < trials and len(candidates) < MAX_DRAWS * trials:
        trial = oracle.create_trial(str(len(candidates)))
        if trial.status != "RUNNING":  # the space has no more
            break
        spec, trained = get_space(space)(trial.hyperparameters, config)
        candidates.append(
            _sized(
                Candidate(len(candidates), dict(trial.hyperparameters.values), spec, trained, None, None, ()),
                store,
                limit,
            )
        )
        n_fitting += not candidates[-1].refused
    return candidates


def _sized(candidate: Candidate, store: FeatureStore, limit: int | None) -> Candidate:
    try:
        model = build(candidate.spec, (*store.config.shape, 1), len(store.classes))
    except ConfigError as error:
        return dataclasses.replace(candidate, refused=("failed", str(error)))
    cost = count_multiply_adds(model)
    over = limit is not None and cost > limit
    reason = f"{cost / 1e6:.1f} million multiply-adds, more than {limit / 1e6:.1f}" if over else ""
    return dataclasses.replace(
        candidate,
        parameters=model.count_params(),
        multiply_adds=cost,
        refused=("too large", reason) if over else (),
    )


def _check_any(space: str, candidates: list[Candidate], fitting: list[Candidate], limit: int | None) -> None:
    if not fitting:
        costs = [one.multiply_adds for one in candidates if one.multiply_adds is not None]
        least = f"the least costs {min(costs) / 1e6:.1f} million multiply-adds" if costs else candidates[0].refused[1]
        budget = f" within {limit / 1e6:.1f} million" if limit is not None else ""
        raise ConfigError(
            f"None of {len(candidates)} networks drawn from the space {space!r} can be trained{budget}: {least}; "
            "raise the budget or choose another space."
        )


def _decide(oracle: "Oracle", attempts: dict[int, Attempt], space: str) -> int:
    """Tell the oracle how each trial of a fold ended, and return the number of the one that it takes for the best."""
    ids = list(oracle.trials)
    for number, attempt in sorted(attempts.items()):
        trial = oracle.get_trial(ids[number])
        if attempt.status == "done":
            oracle.update_trial(ids[number], {_OBJECTIVE: attempt.result[_OBJECTIVE]})
        trial.status = "COMPLETED" if attempt.status == "done" else "FAILED"
        trial.message = attempt.reason or None
        oracle.end_trial(trial)
    best = oracle.get_best_trials(1)[0]
    if best.status != "COMPLETED":
        first = next(attempt.reason for attempt in attempts.values() if attempt.status != "too large")
        raise RunError(f"No trial of the space {space!r} could be trained; the first: {first}")
    return ids.index(best.trial_id)


def _place(folder: Path, candidate: Candidate, fold: int) -> Path:
    return folder / f"trial-{candidate.number:03d}" / f"fold-{fold}"


def _table(candidates: list[Candidate], attempts: dict[tuple[int, int], Attempt]) -> pd.DataFrame:
    rows = []
    for (number, fold), attempt in sorted(attempts.items()):
        one = candidates[number]
        rows.append(
            {
                "trial": number,
                "fold": fold,
                **one.values,
                "parameters": one.parameters,
                "multiply_adds": one.multiply_adds,
                **(attempt.result or dict.fromkeys(_RESULTS, np.nan)),
                "status": attempt.status,
                "reason": attempt.reason,
            }
        )
    whole = ("parameters", "multiply_adds", "best_epoch", "epochs")
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))


def _drop_weights(place: Path) -> None:
    (place / COMPLETE).unlink(missing_ok=True)  # first, so that the folder is never taken for a whole one
    (place / "model.keras").unlink(missing_ok=True)


def _tried(found: Search) -> pd.DataFrame:
    """Return a row a trial within the budget: hyperparameters and mean scores over folds, NaN if one failed."""
    rows = found.trials[found.trials.status != "too large"].groupby("trial")
    table = rows[[axis.name for axis in axes(found.space)]].first()
    scored = ["validation_loss", "validation_accuracy"]
    whole = rows.status.agg(lambda status: (status == "done").all())
    return table.join(rows[scored].mean().where(whole))


def _row(found: Search, number: int, fold: int) -> pd.Series:
    return found.trials[(found.trials.trial == number) & (found.trials.fold == fold)].iloc[0]


def _joined(outcomes: list[Outcome]) -> Outcome:
    by_seed = zip(*(one.folders for one in outcomes), strict=True)
    return Outcome(
        tuple(tuple(place for places in folds for place in places) for folds in by_seed),
        join_folds([one.predictions for one in outcomes]),
    )


def _by_seed(outcome: Outcome, score: str) -> np.ndarray:
    """Mean over the folds of a validation score [shape=(n_seeds,)]."""
    return np.array([np.mean([summary(place)[score] for place in places]) for places in outcome.folders])


def _shuffled_losses(
    forest: Any, x: np.ndarray, ranks: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """How much the squared error on the rows `left` grows when each column is shuffled [shape=(n_columns,)]."""
    n_columns = x.shape[1]
    copies = np.repeat(x[left][None], n_columns * _SHUFFLES, axis=0)
    for column in range(n_columns):
        for number in range(_SHUFFLES):
            # Values of all trials: those left out are few.
            copies[column * _SHUFFLES + number, :, column] = rng.choice(x[:, column], len(left))
    predicted = forest.predict(np.concatenate([x[left], copies.reshape(-1, n_columns)])).reshape(-1, len(left))
    errors = np.square(predicted - ranks[left]).mean(axis=1)
    return errors[1:].reshape(n_columns, _SHUFFLES).mean(axis=1) - errors[0]
