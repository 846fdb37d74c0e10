"""Healthy, aged or broken: versions of clips with simulated damage, models that tell them apart, and their scores.

Every clip of a corpus becomes three versions, one of each condition, in the part of the split in which the clip stands.
The labels are simulated throughout: see `ABOUT`.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio import decode as audio
from instrlib.audio.damage import CONDITION_OF, KINDS, DamageSimulation, simulate, split_version, version_id
from instrlib.audio.features import extract
from instrlib.core.cache import cached, code_hash, versions
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import EvaluationError
from instrlib.core.io import hash_json, read_arrays, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import Corpus
from instrlib.data.files import CONTENT
from instrlib.data.inputs import Inputs
from instrlib.data.splits import Split, fingerprint_of, load_split, save_splits
from instrlib.data.store import FeatureStore, build_store
from instrlib.evaluation import statistics
from instrlib.evaluation.calibration import fit_temperature, softmax
from instrlib.evaluation.intervals import bootstrap_mean, compare_over_seeds
from instrlib.evaluation.metrics import scores
from instrlib.evaluation.predictions import Predictions, join_folds
from instrlib.evaluation.statistics import enough_resamples, holm, nested
from instrlib.models import classical
from instrlib.models.answers import answer_test
from instrlib.models.trained import part_segments, predict_clips
from instrlib.models.variants import Outcome, make_outcome, run_folder
from instrlib.models.vectors import VectorStore, with_vectors
from instrlib.studies import condition
from instrlib.studies import measures as acoustic
from instrlib.studies.condition import CONDITIONS
from instrlib.studies.measures import MEASURES as _LABELS

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

ABOUT = (
    "The labels are simulated: no worn or broken instrument was recorded. Every clip as it stands in the corpus is "
    "called healthy, and aged and broken versions are made of it by filters, modulation and noise. What the verdict "
    "says of real instruments has not been measured."
)

MEASURES = tuple(_LABELS)

RULES = "three thresholds"
"""The rules of the reference system: limits of the harmonic-to-noise ratio, of flatness and of decay variance. Its own
limits are not known; these are found on the training part."""

CANDIDATES = ("logistic regression", "multilayer perceptron", "gradient boosting")
"""Classifiers of the measures, names of `classical.GRIDS`."""

GIVEN_AWAY = "logistic regression"
"""The one whose answers are three sums of products: it is given away as a few plain numbers, whichever is chosen."""

_TREES = "gradient boosting"

CNN = "CNN"

SEVERITY_EDGES = (0.2, 0.4, 0.6, 0.8, 1.0)

_BATCH = 24
_RECORD, _MODEL = "metrics.json", "model.json"
_VALIDATION_SCORES = ("accuracy", "macro_f1", "log_loss", "expected_calibration_error")
_PUBLISHED_SCORES = ("accuracy", "log_loss", "expected_calibration_error")


@dataclasses.dataclass(frozen=True)
class Task:
    """Versions of all clips, under the splits of the study.

    Attributes
    ----------
    corpus : Corpus
        One clip a version; the columns `source` and `instrument` tell the clip that it was made of and its class.
    wear : DamageSimulation
        Which damage each version has.
    inputs : Inputs
        Log-mel features of the versions, for networks, and the splits.
    measures : VectorStore
        Their measures in the place of features.
    """

    corpus: Corpus
    wear: DamageSimulation
    inputs: Inputs
    measures: VectorStore


# -- the versions ------------------------------------------------------------------------------------------------------


def prepare(
    clips: Corpus, inputs: Inputs, *, folder: Path, root: Path, seed: int = 0, workers: int | None = None
) -> Task:
    """Make the versions of all clips, their features and their measures, or open them when they are there.

    Parameters
    ----------
    clips : Corpus
        The study's corpus.
    inputs : Inputs
        Its features and splits. Of each clip the first usable segment is taken.
    folder : Path
        Where the splits and the measures are kept.
    root : Path
        Folder of all feature stores.
    seed : int
        Decides the damage.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Task
    """
    corpus = version_corpus(clips, inputs.store)
    wear = DamageSimulation(seed=seed)
    store = build_store(corpus, inputs.store.config, root=root, change=wear, workers=workers)
    made = [_version_split(load_split(path, inputs.store.segments), store) for path in inputs.splits]
    splits = tuple(save_splits(made, folder / "splits"))
    measures = _measured(corpus, store, wear, folder / "measures.npz", workers)
    return Task(corpus, wear, Inputs(store, splits, fingerprint_of(made)), measures)


def version_corpus(clips: Corpus, store: FeatureStore) -> Corpus:
    """List three versions of each clip, one of each condition, as a corpus whose classes are the conditions.

    Parameters
    ----------
    clips : Corpus
        The clips.
    store : FeatureStore
        Its features tell the first usable segment of each clip.

    Returns
    -------
    Corpus
        No version is on disk: `path` is the clip's. Groups are the clips'.
    """
    first = store.segments.drop_duplicates("clip_id")[["clip_id", "start_s"]]
    table = clips.manifest.drop(columns="split").merge(first, on="clip_id", suffixes=("_clip", ""))
    table["duration_s"] = np.minimum(store.config.segment_s, table.start_s_clip + table.duration_s - table.start_s)
    kept = ["path", "start_s", "duration_s", "group", *([CONTENT] if CONTENT in table else [])]
    every = [
        table[kept].assign(
            clip_id=[version_id(clip_id, name) for clip_id in table.clip_id],
            label=name,
            split="",
            source=table.clip_id,
            instrument=table.label,
        )
        for name in CONDITIONS
    ]
    manifest = pd.concat(every).sort_values("clip_id", ignore_index=True)
    info = dataclasses.replace(
        clips.info,
        name=f"conditions of {clips.name}",
        title=f"Simulated conditions of {clips.info.title}",
        how_to_get="They are made by notebook 12_instrument_condition.",
        multilabel=False,
    )
    return Corpus(info, clips.root, manifest, CONDITIONS)


def damages(task: Task, version: Sequence[str]) -> pd.DataFrame:
    """Tell what is wrong with versions.

    Parameters
    ----------
    task : Task
        See `prepare`.
    version : sequence of str
        Their names.

    Returns
    -------
    pandas.DataFrame
        In their order: `kind` ("" of a healthy one), `severity` (0 of a healthy one), `condition`, `instrument`.
    """
    found = [task.wear.damage(one) for one in version]
    instrument = task.corpus.manifest.set_index("clip_id").instrument
    return pd.DataFrame(
        {
            "kind": [one.kind for one in found],
            "severity": [one.severity for one in found],
            "condition": [split_version(one)[1] for one in version],
            "instrument": instrument[list(version)].to_numpy(),
        }
    )


def examples(task: Task, clip: pd.Series, *, severity: float = 0.8, seed: int = 0) -> dict[str, Any]:
    """Degrade one clip in every way, for `plots.spectrogram_grid` and for listening.

    Parameters
    ----------
    task : Task
        See `prepare`.
    clip : pandas.Series
        A row of `task.corpus.manifest`; its sound before any damage is taken.
    severity : float
        Of all degradations.
    seed : int
        Of what is drawn.

    Returns
    -------
    dict
        `titles`, `spectra` [shape=(8, n_bins, n_frames)] and `signals`; the clip as it is comes first.
    """
    config = task.inputs.store.config
    signal = _sound(task.corpus.root / clip.path, clip.start_s, clip.duration_s, config)
    signals = {"untouched": signal}
    for kind in CONDITION_OF:
        signals[kind] = simulate(signal, config.sample_rate_hz, kind, severity, np.random.default_rng(seed))
    return {
        "titles": list(signals),
        "spectra": np.stack([extract(one, config) for one in signals.values()]),
        "signals": list(signals.values()),
    }


def by_condition(task: Task) -> pd.DataFrame:
    """Measures of the training versions: what a model learns from, so looking at them costs nothing.

    Parameters
    ----------
    task : Task
        See `prepare`.

    Returns
    -------
    pandas.DataFrame
        One row a version: `condition`, `kind` and the measures; of the first split's training part.
    """
    store = task.measures
    train = part_segments(store, load_split(task.inputs.splits[0], store.segments), "train")
    told = pd.DataFrame(store.vectors[train.row.to_numpy()], columns=list(MEASURES))
    return pd.concat([damages(task, train.clip_id.to_list())[["condition", "kind"]], told], axis=1)


def separation(table: pd.DataFrame) -> pd.DataFrame:
    """Tell how well each measure alone separates the damaged from the healthy.

    Parameters
    ----------
    table : pandas.DataFrame
        From `by_condition`.

    Returns
    -------
    pandas.DataFrame
        Indexed by measure: medians of the conditions, and for each kind of damage the area under the ROC curve
        against healthy versions, in the direction that is better: .5 tells nothing, 1 all. What could not be told is
        left out.
    """
    from scipy.stats import rankdata

    rows = {}
    for name in MEASURES:
        own = table[table[name].notna()]
        row: dict[str, float] = own.groupby("condition")[name].median().reindex(list(CONDITIONS)).to_dict()
        healthy = own[name][own.condition == CONDITIONS[0]].to_numpy()
        for kind in CONDITION_OF:
            worn = own[name][own.kind == kind].to_numpy()
            ranks = rankdata(np.concatenate([worn, healthy]))[: len(worn)]
            pairs = max(len(worn) * len(healthy), 1)
            area = (ranks.sum() - len(worn) * (len(worn) + 1) / 2) / pairs
            row[kind] = max(area, 1 - area) if len(worn) and len(healthy) else np.nan
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


# -- the models --------------------------------------------------------------------------------------------------------


def answer_all(folder: Path, task: Task, *, seeds: Sequence[int], workers: int | None = None) -> dict[str, Predictions]:
    """Fit the classifiers of the measures and the three thresholds, and let each answer the test part, once.

    Parameters
    ----------
    folder : Path
        Where to; what is there already is kept.
    task : Task
        See `prepare`.
    seeds : sequence of int
        One that does not depend on the seed is fitted once, and its answers stand for all of them.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    dict of str to dict
        Predictions of `CANDIDATES` and `RULES`, the folds joined; the rules have no axis of seeds, and no probabilities
        either: 1 for what they say.
    """
    folds = list(enumerate(task.inputs.splits))
    # The slowest first.
    names = [*reversed(CANDIDATES), RULES]
    tasks = [
        (_place(folder, name, fold), task.measures, split, task.wear, name, tuple(seeds))
        for name in names
        for fold, split in folds
    ]
    found = iter(list(parallel_map(_answer, tasks, workers=workers, describe="classifiers of the measures")))
    answered = {name: join_folds([next(found) for _ in folds]) for name in names}
    return {name: answered[name] for name in (*CANDIDATES, RULES)}


def answer_unseen(folder: Path, task: Task, *, workers: int | None = None) -> dict[str, Predictions]:
    """Fit `GIVEN_AWAY` without one kind of damage, for each kind, and let it answer the test part.

    Parameters
    ----------
    folder : Path
        Of `answer_all`, which chose the settings.
    task : Task
        See `prepare`.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict of str to dict
        Predictions by the kind of damage that was not trained on; no axis of seeds.
    """
    folds = list(enumerate(task.inputs.splits))
    tasks = [
        (_place(folder, f"{GIVEN_AWAY} without {kind}", fold), task.measures, split, task.wear, GIVEN_AWAY, (0,), kind,
         _place(folder, GIVEN_AWAY, fold))
        for kind in CONDITION_OF
        for fold, split in folds
    ]  # fmt: skip
    found = iter(list(parallel_map(_answer, tasks, workers=workers, describe="unseen damage")))
    joined = {kind: join_folds([next(found) for _ in folds]) for kind in CONDITION_OF}
    return {kind: one | {"probabilities": one["probabilities"][0]} for kind, one in joined.items()}


def describe(folder: Path, n_folds: int) -> pd.DataFrame:
    """Say how the classifiers did on validation, which is what one is chosen by.

    Parameters
    ----------
    folder : Path
        Of `answer_all`.
    n_folds : int
        Number of splits.

    Returns
    -------
    pandas.DataFrame
        One row a classifier, the best first: validation scores and temperature (means over seeds and folds),
        `settings` and `training_s` (of the first fold).
    """
    rows = {}
    for name in CANDIDATES:
        records = [read_json(_place(folder, name, fold) / _RECORD) for fold in range(n_folds)]
        by_seed = [one for record in records for one in record["by_seed"]]
        means = {score: float(np.mean([one["validation"][score] for one in by_seed])) for score in _VALIDATION_SCORES}
        rows[name] = {
            **means,
            "temperature": float(np.mean([one["temperature"] for one in by_seed])),
            "settings": ", ".join(f"{setting} {value}" for setting, value in records[0]["settings"].items()),
            "training_s": records[0]["training_s"],
        }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("log_loss", kind="stable")


def choose(described: pd.DataFrame) -> str:
    """Choose a classifier of the measures by validation log loss, which asks for right probabilities, too.

    Parameters
    ----------
    described : pandas.DataFrame
        From `describe`.

    Returns
    -------
    str
    """
    return str(described.log_loss.idxmin())


def calibrate(outcome: Outcome) -> tuple[Predictions, pd.Series]:
    """Give networks the temperature that the classifiers of the measures have, so that their log losses compare.

    Parameters
    ----------
    outcome : Outcome
        Networks that answered; what each said of the validation part lies in its run folder.

    Returns
    -------
    predictions : dict
        Their answers to the test part, at the temperature that was fitted on validation for each network.
    validation : pandas.Series
        What `describe` tells of a classifier: scores on the validation part after it, and `temperature` (means).
    """
    answered, validated = [], []
    for by_fold in outcome.folders:
        answered.append([])
        for folder in by_fold:
            known, tested = read_arrays(folder / "validation.npz"), read_arrays(folder / "predictions.npz")
            del tested["key"]
            temperature = fit_temperature(_logs(known["probabilities"]), known["targets"])
            cooled = {"probabilities": softmax(_logs(tested["probabilities"]), temperature)}
            answered[-1].append((folder, tested | cooled))
            told = scores(known["targets"], softmax(_logs(known["probabilities"]), temperature))
            validated.append({name: told[name] for name in _VALIDATION_SCORES} | {"temperature": temperature})
    return make_outcome(answered).predictions, pd.DataFrame(validated).mean()


def rules(folder: Path) -> dict[str, float]:
    """Return the three thresholds of the first fold: `harmonic_to_noise_db`, `spectral_flatness`, `decay_variance`."""
    return read_json(_place(folder, RULES, 0) / _RECORD)["thresholds"]


def publish(folder: Path, task: Task, *, n_resamples: int) -> dict[str, Any]:
    """Return the model to give away, `GIVEN_AWAY` as it was fitted on the first split, with its test scores there.

    Parameters
    ----------
    folder : Path
        Of `answer_all`.
    task : Task
        See `prepare`.
    n_resamples : int
        Of the bootstrap over groups.

    Returns
    -------
    dict
        What `condition.verdict` takes, as plain values of few bytes, with `scores` and `recall`: the share of the test
        versions of each condition that is named rightly. Seal it with `published.sealed`.
    """
    place = _place(folder, GIVEN_AWAY, 0)
    fitted = read_json(place / _RECORD)["by_seed"][0]
    model = read_json(place / _MODEL)
    store = task.measures
    split = load_split(task.inputs.splits[0], store.segments)
    predict = functools.partial(condition.probabilities, model=model)
    answered = answer_test(
        place / f"seed-{fitted['seed']}.npz", fitted["key"], lambda: predict, store=store, scaler=None, split=split
    )
    table = statistics.score_table({"it": answered}, n_resamples=n_resamples, seed=0)
    scored = {
        name: {end: round(value, 4) for end, value in ends.items()}
        for name, ends in nested(table)["it"].items()
        if name in _PUBLISHED_SCORES
    }
    named, targets = answered["probabilities"].argmax(axis=1), answered["targets"]
    return {
        "format": condition.FORMAT,
        "about": ABOUT,
        "classes": " ".join(CONDITIONS),
        "measures": " ".join(MEASURES),
        "sample_rate_hz": store.config.sample_rate_hz,
        "segment_s": store.config.segment_s,
        "classifier": GIVEN_AWAY,
        "corpus": task.corpus.name,
        "n_tested": len(answered["clip_id"]),
        "scores": scored,
        "recall": {
            name: round(float((named[targets == number] == number).mean()), 4) for number, name in enumerate(CONDITIONS)
        },
        **model,
    }


# -- what comes out ----------------------------------------------------------------------------------------------------


def by_severity(task: Task, models: dict[str, Predictions], *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Score models by how severe the damage is.

    Parameters
    ----------
    task : Task
        See `prepare`.
    models : dict of str to dict
        Predictions of the same versions.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        One row for each model, condition and class of severity: `model`, `condition`, `above`, `up_to` (0 of healthy
        versions), `n`, and the share named rightly: `estimate`, `low`, `high`.
    """
    table = damages(task, next(iter(models.values()))["clip_id"].tolist())
    edges = np.array(SEVERITY_EDGES)
    place = np.clip(np.searchsorted(edges, table.severity, side="left") - 1, 0, len(edges) - 2)
    above, up_to = (np.where(table.severity > 0, edges[place + step], 0.0) for step in (0, 1))
    cells = pd.DataFrame({"condition": table.condition, "above": above, "up_to": up_to})
    return _shares(models, cells, ["condition", "above", "up_to"], n_resamples, seed)


def severity_curve(table: pd.DataFrame, models: Sequence[str]) -> dict[str, Any]:
    """Arrange shares by severity for `plots.accuracy_by_severity`.

    Parameters
    ----------
    table : pandas.DataFrame
        From `by_severity`.
    models : sequence of str
        Those to draw, in order.

    Returns
    -------
    dict
        The figure's arguments; NaN, and 0 versions, where there is none of a severity.
    """
    edges = np.array(SEVERITY_EDGES)
    every = pd.MultiIndex.from_product([list(KINDS), list(models), edges[1:]])
    cells = table.set_index(["condition", "model", "up_to"]).reindex(every)
    shape = (len(KINDS), len(models), len(edges) - 1)
    healthy = table[table.up_to == 0].set_index("model").estimate
    return {
        "names": list(models),
        "conditions": list(KINDS),
        "severity": (edges[1:] + edges[:-1]) / 2,
        "accuracy": cells.estimate.to_numpy().reshape(shape),
        "low": cells.low.to_numpy().reshape(shape),
        "high": cells.high.to_numpy().reshape(shape),
        "healthy": healthy[list(models)].to_numpy(),
        "n": cells.n.fillna(0).to_numpy(int).reshape(shape)[:, 0],
    }


def by_kind(task: Task, models: dict[str, Predictions], *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Score models by the kind of damage; see `by_severity`. The kind of healthy versions is "none"."""
    table = damages(task, next(iter(models.values()))["clip_id"].tolist())
    cells = pd.DataFrame({"condition": table.condition, "kind": table.kind.replace("", "none")})
    return _shares(models, cells, ["condition", "kind"], n_resamples, seed)


def false_alarms(task: Task, predictions: Predictions) -> pd.DataFrame:
    """Tell for each instrument how often a healthy version is called aged or broken.

    Parameters
    ----------
    task : Task
        See `prepare`.
    predictions : dict
        Of one model.

    Returns
    -------
    pandas.DataFrame
        Indexed by instrument, in the order of their names: `n` (versions), `n_groups` that they come from, `aged`,
        `broken` and their sum `damaged`, as shares of the answers of all seeds.
    """
    table = damages(task, predictions["clip_id"].tolist())
    named = np.atleast_2d(predictions["probabilities"].argmax(axis=-1))
    healthy = (table.condition == CONDITIONS[0]).to_numpy()
    shares = {name: (named == number).mean(axis=0)[healthy] for number, name in enumerate(CONDITIONS) if number}
    columns = {"instrument": table.instrument[healthy].to_numpy(), "group": predictions["group"][healthy]}
    found = pd.DataFrame(columns | shares).groupby("instrument")
    means = found[list(shares)].mean().assign(n=found.size(), n_groups=found.group.nunique())
    means["damaged"] = means.aged + means.broken
    return means[["n", "n_groups", "aged", "broken", "damaged"]]


def compare_unseen(
    task: Task, seen: Predictions, unseen: dict[str, Predictions], *, n_resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Compare, kind by kind, a classifier that was trained on a damage with one that never saw it.

    Parameters
    ----------
    task : Task
        See `prepare`.
    seen : dict
        Predictions of the classifier that was trained on all kinds.
    unseen : dict of str to dict
        From `answer_unseen`.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        Indexed by kind: `condition`, `n` (test versions, those whose healthy version is tested, too); of both
        classifiers, such as `named_seen` and `named_unseen`, the shares `named` (rightly), `noticed` (called damaged)
        and `alarms` (healthy test versions that are called damaged). Then two differences, each with `low`, `high`, `p`
        and `p_holm`, which is corrected for the number of kinds: `difference` of what is named, unseen minus seen, and
        `noticed_more`: how much more often the classifier that never saw the kind calls its versions damaged than the
        healthy versions of the same clips. One that calls everything damaged notices nothing.

    Raises
    ------
    EvaluationError
        When they were not tested on the same versions.
    """
    rows = {}
    table = damages(task, seen["clip_id"].tolist())
    healthy = (table.condition == CONDITIONS[0]).to_numpy()
    place = pd.Series(np.arange(len(table)), index=seen["clip_id"])
    siblings = place.reindex([version_id(split_version(one)[0], CONDITIONS[0]) for one in seen["clip_id"]]).to_numpy()
    draws = {"n_resamples": enough_resamples(n_resamples, len(unseen)), "seed": seed}
    for kind, other in unseen.items():
        if not np.array_equal(other["clip_id"], seen["clip_id"]):
            raise EvaluationError(f"The classifier without {kind} was not tested on the same versions.")
        own = (table.kind == kind).to_numpy() & np.isfinite(siblings)
        if not own.any():
            continue
        answers = [np.atleast_2d(one["probabilities"].argmax(axis=-1)) for one in (seen, other)]
        named = [one[:, own] == seen["targets"][own] for one in answers]
        damaged = [one > 0 for one in answers]
        groups, sibling = seen["group"][own], siblings[own].astype(int)
        price = compare_over_seeds(*np.broadcast_arrays(named[1], named[0]), groups, **draws)
        more = compare_over_seeds(damaged[1][:, own], damaged[1][:, sibling], groups, **draws)
        rows[kind] = {
            "condition": CONDITION_OF[kind],
            "n": int(own.sum()),
            "named_seen": named[0].mean(),
            "named_unseen": named[1].mean(),
            "noticed_seen": damaged[0][:, own].mean(),
            "noticed_unseen": damaged[1][:, own].mean(),
            "alarms_seen": damaged[0][:, healthy].mean(),
            "alarms_unseen": damaged[1][:, healthy].mean(),
            "difference": price.estimate,
            "low": price.low,
            "high": price.high,
            "p": price.p,
            "noticed_more": more.estimate,
            "noticed_more_low": more.low,
            "noticed_more_high": more.high,
            "noticed_more_p": more.p,
        }
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found.assign(p_holm=holm(found.p.to_numpy()), noticed_more_p_holm=holm(found.noticed_more_p.to_numpy()))


# -- parts -------------------------------------------------------------------------------------------------------------


def _version_split(split: Split, store: FeatureStore) -> Split:
    """Put every version where its clip stands."""
    of_clip = store.clips.clip_id.map(lambda version: split.parts[split_version(version)[0]])
    parts = pd.Series(of_clip.to_numpy(), index=store.clips.clip_id.to_numpy())
    return Split(parts.sort_index().rename("part").rename_axis("clip_id"), split.seed)


def _measured(
    corpus: Corpus, store: FeatureStore, wear: DamageSimulation, path: Path, workers: int | None
) -> VectorStore:
    clips = store.segments.merge(corpus.manifest[["clip_id", "path", "duration_s"]], on="clip_id")
    rows = [(one.clip_id, corpus.root / one.path, one.start_s, one.duration_s) for one in clips.itertuples()]
    code = code_hash("studies")
    key = hash_json([store.fingerprint, code, condition.FORMAT, list(MEASURES)])

    def make() -> dict[str, Any]:
        tasks = [(rows[first : first + _BATCH], store.config, wear) for first in range(0, len(rows), _BATCH)]
        made = parallel_map(_measure_batch, tasks, workers=workers, describe="measures")
        return {"values": np.concatenate(list(made))}

    return with_vectors(store, store.segments, cached(path, key, make)["values"])


def _measure_batch(
    rows: list[tuple[str, Path, float, float]], config: FeatureConfig, wear: DamageSimulation
) -> np.ndarray:
    values = []
    for version, *place in rows:
        signal = _sound(*place, config)
        # As `build_store` made it: the one segment of a version begins with it.
        worn = next(wear.copies(signal, sample_rate_hz=config.sample_rate_hz, clip_id=version, offset_s=0.0))
        values.append(list(acoustic.measure(worn, config.sample_rate_hz).values()))
    return np.array(values)


def _sound(path: Path, start_s: float, duration_s: float, config: FeatureConfig) -> np.ndarray:
    signal = audio.load(path, sample_rate_hz=config.sample_rate_hz, start_s=start_s, duration_s=duration_s)
    return signal[: config.segment_samples]


def _place(folder: Path, name: str, fold: int) -> Path:
    return run_folder(folder, name, fold=fold, seed=0).parent


def _answer(
    folder: Path,
    store: VectorStore,
    split_path: Path,
    wear: DamageSimulation,
    name: str,
    seeds: tuple[int, ...],
    without: str = "",
    settings_from: Path | None = None,
) -> Predictions:
    """Fit one classifier from every seed and let it answer; see `answer_all` and `answer_unseen`."""
    split = load_split(split_path, store.segments)
    used = seeds[:1] if name in (RULES, *classical.UNSEEDED) else seeds
    chosen = read_json(settings_from / _RECORD)["settings"] if settings_from else None
    key = hash_json(
        {
            "code": code_hash("studies"),
            "inputs": [store.fingerprint, split.fingerprint],
            "settings": [name, list(used), without, chosen],
            "versions": versions(),
        }
    )

    @functools.cache
    def fitted() -> dict[int, Callable[[np.ndarray], np.ndarray]]:
        train = part_segments(store, split, "train")
        if without:
            train = train[[wear.damage(version).kind != without for version in train.clip_id]]
        return _fit(folder, key, store, split, train, name, used, chosen)

    def answer_from(seed: int) -> Predictions:
        path = folder / f"seed-{seed}.npz"
        return answer_test(path, _key(key, seed), lambda: fitted()[seed], store=store, scaler=None, split=split)

    answers = [answer_from(seed) for seed in used]
    if name == RULES:
        return answers[0]
    by_seed = np.stack([one["probabilities"] for one in answers])
    return answers[0] | {"probabilities": np.repeat(by_seed, len(seeds) // len(used), axis=0)}


def _key(key: str, seed: int) -> str:
    return f"{key[:32]}-{seed}"


def _fit(
    folder: Path,
    key: str,
    store: VectorStore,
    split: Split,
    train: pd.DataFrame,
    name: str,
    seeds: Sequence[int],
    settings: dict[str, Any] | None,
) -> dict[int, Callable[[np.ndarray], np.ndarray]]:
    """Fit, calibrate on validation, and write down what came out; the record comes last."""
    began = time.monotonic()
    values, targets = store.read(train.row.to_numpy()).astype(float), train.target.to_numpy()
    if name == RULES:
        thresholds = fit_rules(values, targets)
        write_json(folder / _RECORD, {"key": key, "thresholds": thresholds})
        return {seed: functools.partial(follow_rules, thresholds=thresholds) for seed in seeds}
    # Trees ask for no scale, and know what to do where a measure cannot be told.
    preparation = None if name == _TREES else condition.fit_inputs(values)
    x = values if preparation is None else condition.inputs(values, preparation)
    if settings is None:
        settings, _ = classical.tune(name, x, targets, train.group.to_numpy(str))
    held_out = part_segments(store, split, "validation")
    predictors, by_seed = {}, []
    for seed in seeds:
        estimator = classical.fit(name, settings, x, targets, seed=seed)
        model = {"preparation": preparation, **_plain(estimator), "temperature": 1.0} if name == GIVEN_AWAY else None
        predict = _predictor(estimator, preparation, model)
        answered = predict_clips(functools.partial(predict, temperature=1.0), store, None, held_out)
        temperature = float(f"{fit_temperature(_logs(answered['probabilities']), answered['targets']):.5g}")
        if model:
            write_json(folder / _MODEL, model | {"temperature": temperature})
        predictors[seed] = functools.partial(predict, temperature=temperature)
        calibrated = predict_clips(predictors[seed], store, None, held_out)
        by_seed.append(
            {
                "seed": seed,
                "key": _key(key, seed),
                "temperature": temperature,
                "validation": scores(calibrated["targets"], calibrated["probabilities"]),
            }
        )
    record = {"key": key, "settings": settings, "by_seed": by_seed}
    write_json(folder / _RECORD, record | {"training_s": round(time.monotonic() - began, 3)})
    return predictors


def _predictor(
    estimator: "BaseEstimator", preparation: dict[str, Any] | None, model: dict[str, Any] | None
) -> Callable[..., np.ndarray]:
    """Return a function of measures and a temperature: of the plain model where there is one, so that it is scored."""

    def predict(values: np.ndarray, temperature: float) -> np.ndarray:
        if model:
            return condition.probabilities(values, model | {"temperature": temperature})
        x = values if preparation is None else condition.inputs(values, preparation)
        return softmax(_logs(classical.probabilities(estimator, x, len(CONDITIONS))), temperature)

    return predict


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, 1e-9))


def _plain(estimator: "BaseEstimator") -> dict[str, str]:
    """Take a logistic regression of scikit-learn apart into weights and bias, its scaling folded in."""
    scale, model = estimator.named_steps["scale"], estimator.named_steps["model"]
    weights = model.coef_.T / scale.scale_[:, None]
    bias = model.intercept_ - scale.mean_ @ weights
    return {"weights": condition.line(weights), "bias": condition.line(bias)}


def fit_rules(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Find the three thresholds that name most training versions rightly.

    Parameters
    ----------
    values : np.ndarray [shape=(n, n_measures)]
        Their measures.
    targets : np.ndarray of int [shape=(n,)]
        Their conditions.

    Returns
    -------
    dict of str to float
        The best of all combinations of every twentieth of the training values of each measure; see `follow_rules`. The
        conditions weigh alike.
    """
    columns = {name: values[:, MEASURES.index(name)] for name in _RULED}
    tried = {name: np.nanquantile(column, np.linspace(0, 1, 21)) for name, column in columns.items()}
    noisy, flat, varied = _RULED
    # Shares of a condition, so that a rarer one counts as much.
    weight = 1.0 / np.bincount(targets, minlength=len(CONDITIONS))[targets]
    unsteady = columns[varied][None] > tried[varied][:, None]
    calm = np.where(unsteady, targets == 1, targets == 0) * weight
    best, found = -1.0, {}
    for low in tried[noisy]:
        for high in tried[flat]:
            broken = (columns[noisy] < low) | (columns[flat] > high)
            right = (broken * (targets == 2) * weight).sum() + (calm * ~broken).sum(axis=1)
            if right.max() > best:
                best = float(right.max())
                found = {noisy: float(low), flat: float(high), varied: float(tried[varied][right.argmax()])}
    return found


def follow_rules(values: np.ndarray, thresholds: dict[str, float]) -> np.ndarray:
    """Name conditions by three thresholds: broken when noisy or flat, else aged when the decay varies, else healthy.

    Parameters
    ----------
    values : np.ndarray [shape=(n, n_measures)]
        Measures; one that could not be told passes no threshold.
    thresholds : dict of str to float
        From `fit_rules`.

    Returns
    -------
    np.ndarray [shape=(n, 3)]
        1 for what the rules say, for want of probabilities.
    """
    noise, flat, varied = (values[:, MEASURES.index(name)] for name in _RULED)
    broken = (noise < thresholds[_RULED[0]]) | (flat > thresholds[_RULED[1]])
    named = np.where(broken, 2, np.where(varied > thresholds[_RULED[2]], 1, 0))
    return np.eye(len(CONDITIONS))[named]


_RULED = ("harmonic_to_noise_db", "spectral_flatness", "decay_variance")


def _shares(
    models: dict[str, Predictions], cells: pd.DataFrame, columns: list[str], n_resamples: int, seed: int
) -> pd.DataFrame:
    rows = []
    for model, predictions in models.items():
        right = np.atleast_2d(predictions["probabilities"].argmax(axis=-1)) == predictions["targets"]
        for names, own in cells.groupby(columns):
            place = own.index.to_numpy()
            found = bootstrap_mean(right[:, place], predictions["group"][place], n_resamples=n_resamples, seed=seed)
            rows.append((model, *names, len(place), found.estimate, found.low, found.high))
    table = pd.DataFrame(rows, columns=["model", *columns, "n", "estimate", "low", "high"])
    # Healthy before aged before broken.
    table["condition"] = pd.Categorical(table.condition, list(CONDITIONS), ordered=True)
    return table.sort_values(["model", *columns], kind="stable", ignore_index=True).astype({"condition": str})
