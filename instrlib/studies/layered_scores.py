"""How well mixtures are answered: truth, answers with and without listening, and scores with all sources in mind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from instrlib.data.store import FeatureStore
from instrlib.evaluation import baselines
from instrlib.evaluation.intervals import Interval, jackknife_interval, jackknife_pairs, leave_out
from instrlib.evaluation.metrics import best_thresholds, clip_terms, decisions, weighted_scores
from instrlib.studies.mixing import Mixtures

FIXED_THRESHOLDS = (0.5, 0.15)
"""Those of two reference systems: layered-four and nsynth-condition."""

LAYERED_FOUR = {"classes": 4, "sources": 2, "micro_f1": 0.534}
"""What layered-four reports of its test mixtures; see `all_present_f1`."""

SCORES = ("mean_average_precision", "micro_f1", "macro_f1", "hamming_loss")
"""In the order of the tables; the last one is better when lower."""

SHARE_EDGES_DB = (-np.inf, -15.0, -12.0, -9.0, -6.0, -3.0, 0.0)
"""Ends of the classes of loudness that recall is told by: a source's part of the energy of all."""


@dataclass(frozen=True)
class Truth:
    """Clips that several models answer.

    Attributes
    ----------
    labels : np.ndarray [shape=(n_clips, n_classes)]
        1 present, 0 absent.
    holds : np.ndarray of bool [shape=(n_clips, n_groups)]
        Which groups each clip has a source of.
    """

    labels: np.ndarray
    holds: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Truth":
        """Return some of the clips."""
        return Truth(self.labels[rows], self.holds[rows])


@dataclass(frozen=True)
class Answer:
    """What a model says of clips, in their order.

    Attributes
    ----------
    probabilities : np.ndarray [shape=(n_seeds, n_clips, n_classes)]
        By which they are ranked.
    present : np.ndarray of bool [shape=(n_seeds, n_clips, n_classes)]
        What is named.
    """

    probabilities: np.ndarray
    present: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Answer":
        """Return the answers to some of the clips."""
        return Answer(self.probabilities[:, rows], self.present[:, rows])


# -- answers -----------------------------------------------------------------------------------------------------------


def truth_of(mixtures: Mixtures) -> Truth:
    """Say what is in each mixture and which groups its sources are of, in the order of the manifest."""
    return Truth(mixtures.corpus.labels, mixtures.holds())


def truth_of_clips(store: FeatureStore) -> Truth:
    """Say what is in each clip of a store, and its group, clips sorted; see `layered.answer_polyphonic`."""
    clips = store.clips.sort_values("clip_id")
    return Truth(store.label_matrix(clips), (clips.group.to_numpy()[:, None] == np.unique(clips.group)))


def choose_thresholds(probabilities: np.ndarray, mixtures: Mixtures) -> np.ndarray:
    """Choose for each network and class from where on it is named: what gives the best F1 on validation mixtures.

    Parameters
    ----------
    probabilities : np.ndarray [shape=(n_seeds, n_mixtures, n_classes)]
        Of all mixtures, from `layered.answer`.
    mixtures : Mixtures
        The same.

    Returns
    -------
    np.ndarray [shape=(n_seeds, n_folds, n_classes)]
    """
    table, labels = mixtures.corpus.manifest, mixtures.corpus.labels
    return np.stack(
        [
            np.stack([best_thresholds(labels[rows], by_seed[rows])[0] for by_seed in probabilities])
            for fold in range(table.fold.max() + 1)
            for rows in [np.flatnonzero((table.split == "validation") & (table.fold == fold))]
        ],
        axis=1,
    )


def name_present(probabilities: np.ndarray, thresholds: np.ndarray | float, mixtures: Mixtures) -> Answer:
    """Name what is at or above its threshold.

    Parameters
    ----------
    probabilities : np.ndarray [shape=(n_seeds, n_mixtures, n_classes)]
        Of all mixtures.
    thresholds : np.ndarray [shape=(n_seeds, n_folds, n_classes)] or float
        From `choose_thresholds`, or one for all.
    mixtures : Mixtures
        The same.

    Returns
    -------
    Answer
    """
    fold = mixtures.corpus.manifest.fold.to_numpy()
    limits = thresholds if isinstance(thresholds, float) else thresholds[:, fold]
    return Answer(probabilities, decisions(probabilities, limits))


def readings(heard: dict[str, np.ndarray], mixtures: Mixtures) -> dict[str, Answer]:
    """Read what networks say of mixtures in each way: from chosen thresholds on, and from those of others.

    Parameters
    ----------
    heard : dict of str to np.ndarray
        From `layered.answer`, by the networks' names.
    mixtures : Mixtures
        All of them.

    Returns
    -------
    dict of str to Answer
        "<name>" with thresholds chosen on validation mixtures, and "<name>, from <threshold>" for each of
        `FIXED_THRESHOLDS`.
    """
    found = {}
    for name, probabilities in heard.items():
        found[name] = name_present(probabilities, choose_thresholds(probabilities, mixtures), mixtures)
        for threshold in FIXED_THRESHOLDS:
            found[f"{name}, from {threshold:g}"] = name_present(probabilities, threshold, mixtures)
    return found


def trivial(mixtures: Mixtures) -> dict[str, Answer]:
    """Answer mixtures without listening, with what the validation mixtures of the same fold tell.

    Parameters
    ----------
    mixtures : Mixtures
        All of them.

    Returns
    -------
    dict of str to Answer
        "all present", "none present", "prior" (each class with its share of the mixtures, named from one half on) and
        "the most frequent": as many classes as there are on average, the most frequent ones.
    """
    table, labels = mixtures.corpus.manifest, mixtures.corpus.labels
    prior = np.zeros((1, *labels.shape))
    frequent = np.zeros(prior.shape, dtype=bool)
    for fold in table.fold.unique():
        known = labels[(table.fold == fold) & (table.split == "validation")]
        rows = np.flatnonzero(table.fold == fold)
        prior[:, rows] = baselines.several_labels(known, len(rows))["prior"]
        most = np.argsort(-known.mean(axis=0), kind="stable")[: round(known.sum(axis=1).mean())]
        frequent[:, rows[:, None], most] = True
    by_share = {"prior": Answer(prior, decisions(prior)), "the most frequent": Answer(prior, frequent)}
    return all_or_none(*labels.shape) | by_share


def all_or_none(n_clips: int, n_classes: int) -> dict[str, Answer]:
    """Answer that every class is in every clip, and that none is: "all present" and "none present"."""
    answers = {
        "all present": np.ones((1, n_clips, n_classes)),
        "none present": np.zeros((1, n_clips, n_classes)),
    }
    return {name: Answer(probabilities, decisions(probabilities)) for name, probabilities in answers.items()}


def all_present_f1(n_classes: int, n_present: float) -> float:
    """Micro F1 of naming every class when so many are there.

    Examples
    --------
    >>> round(all_present_f1(4, 2), 3)
    0.667
    """
    return 2 * n_present / (n_classes + n_present)


# -- scores ------------------------------------------------------------------------------------------------------------


def score_table(models: dict[str, Answer], truth: Truth) -> pd.DataFrame:
    """Score models on the same clips, with intervals over the groups of all their sources.

    Mixtures that share a source are not independent, and a mixture has several sources, so it belongs to several
    groups; see `intervals.leave_out`. Blocks of groups that are mixed among themselves alone could be drawn instead,
    but they would be few, with few combinations; going by the first source would leave out what the others have in
    common.

    Parameters
    ----------
    models : dict of str to Answer
        By name.
    truth : Truth
        What is in the clips.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low`, `high`; one row for each pair, in the order of `SCORES`.
    """
    weights = leave_out(truth.holds)
    rows = [
        {"model": name, "score": score, **vars(jackknife_interval(values))}
        for name, one in models.items()
        for score, values in _scores(one, truth.labels, weights).items()
    ]
    return pd.DataFrame(rows)


def compare(
    models: dict[str, Answer], pairs: Sequence[tuple[str, str]], truth: Truth, *, scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Compare models two by two on the same clips, seed by seed; a model of one seed with every seed of the other.

    Parameters
    ----------
    models, truth
        See `score_table`.
    pairs : sequence of (str, str)
        Names of two models each.
    scores : sequence of str
        Some of `SCORES`.

    Returns
    -------
    pandas.DataFrame
        One row a pair and score, indexed by `first`, `second` and `score`: `difference`, first minus second, `low`,
        `high`, `p`, and `p_holm`, which is corrected for the number of rows.
    """
    weights = leave_out(truth.holds)
    return jackknife_pairs(lambda name: _scores(models[name], truth.labels, weights), pairs, scores)


def by_number(models: dict[str, Answer], truth: Truth) -> pd.DataFrame:
    """Score models by the number of instruments that sound at once.

    Parameters
    ----------
    models, truth
        See `score_table`.

    Returns
    -------
    pandas.DataFrame
        As `score_table`, with the column `n_sources`.
    """
    number = truth.labels.sum(axis=1).astype(int)
    tables = [
        score_table({name: one[rows] for name, one in models.items()}, truth[rows]).assign(n_sources=n_sources)
        for n_sources in np.unique(number)
        for rows in [np.flatnonzero(number == n_sources)]
    ]
    return pd.concat(tables, ignore_index=True)


def recall_by_level(models: dict[str, Answer], mixtures: Mixtures, part: str) -> pd.DataFrame:
    """Say how often an instrument is named, by how loud it is in a mixture of several.

    Parameters
    ----------
    models : dict of str to Answer
        To all mixtures.
    mixtures : Mixtures
        All of them.
    part : str
        Which are counted.

    Returns
    -------
    pandas.DataFrame
        One row for each model and class of loudness (`above_db`, `up_to_db`: the source's energy below that of all):
        `recall`, `low`, `high`, `n` (sources), and `false_alarms`, the share of the absent instruments of the same
        mixtures that are named: a model that names everything has a recall of 1 at any level.
    """
    place = pd.Series(np.arange(len(mixtures.corpus.manifest)), mixtures.corpus.manifest.clip_id)
    sources = mixtures.sources[(mixtures.sources.part == part) & (mixtures.sources.n_sources > 1)]
    at = place[sources.mixture].to_numpy()
    target = pd.Categorical(sources.label, categories=list(mixtures.corpus.classes)).codes
    level = np.digitize(sources.share_db, SHARE_EDGES_DB[1:-1], right=True)
    truth = truth_of(mixtures)
    weights = leave_out(truth.holds)[:, at]
    rows = []
    for name, one in models.items():
        named = one.present[:, at, target].astype(float)
        absent = truth.labels[np.unique(at)] == 0
        false_alarms = one.present[:, np.unique(at)][:, absent].mean()
        for number in range(len(SHARE_EDGES_DB) - 1):
            own = level == number
            edges = {"above_db": SHARE_EDGES_DB[number], "up_to_db": SHARE_EDGES_DB[number + 1]}
            with np.errstate(invalid="ignore"):  # a class of loudness without a source, or with one group's alone
                recall = named[:, own] @ weights[:, own].T / weights[:, own].sum(axis=1)
            found = jackknife_interval(recall) if own.any() else Interval(np.nan, np.nan, np.nan)
            row = {"recall": found.estimate, "low": found.low, "high": found.high}
            rows.append({"model": name, **edges, **row, "n": int(own.sum()), "false_alarms": float(false_alarms)})
    return pd.DataFrame(rows)


def examples(mixtures: Mixtures, models: dict[str, Answer], n: int) -> pd.DataFrame:
    """Choose test mixtures to be looked at and listened to: the first of each number of sources, taken in turns.

    They are not chosen by how they were answered, so they flatter no model.

    Parameters
    ----------
    mixtures : Mixtures
        All of them.
    models : dict of str to Answer
        To all mixtures; the first seed's answers are shown.
    n : int
        How many.

    Returns
    -------
    pandas.DataFrame
        Rows of the manifest with `expected` and a column for each model: names, joined by commas.
    """
    table = mixtures.corpus.manifest[mixtures.corpus.manifest.split == "test"]
    several = table[table.n_sources > 1]
    turn = several.groupby("n_sources").cumcount()
    chosen = several.assign(turn=turn).sort_values(["turn", "n_sources"]).head(n).drop(columns="turn")
    named = {"expected": mixtures.corpus.labels == 1} | {name: one.present[0] for name, one in models.items()}
    words = {name: [_names(one[row], mixtures.corpus.classes) for row in chosen.index] for name, one in named.items()}
    return chosen.assign(**words)


def _names(present: np.ndarray, classes: tuple[str, ...]) -> str:
    return ", ".join(name for name, there in zip(classes, present, strict=True) if there)


def _scores(one: Answer, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score under every row of weights [shape=(n_seeds, n_weights)]."""
    by_seed = []
    for probabilities, present in zip(one.probabilities, one.present, strict=True):
        prepared = clip_terms(labels, probabilities) | {"decided": present}
        by_seed.append(weighted_scores(prepared, weights))
    return {name: np.stack([found[name] for found in by_seed]) for name in SCORES}
