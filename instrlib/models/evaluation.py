"""The one place where the test part is read: each model answers it once, and its answers are kept and scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler, sounding
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import EvaluationError
from instrlib.core.io import read_arrays, write_arrays
from instrlib.data.base import Corpus
from instrlib.data.splits import Split, fingerprint_of, load_split
from instrlib.data.store import FeatureStore, open_store
from instrlib.evaluation import baselines
from instrlib.evaluation.intervals import (
    Interval,
    bootstrap_mean,
    class_intervals,
    compare_over_seeds,
    label_class_intervals,
    label_differences,
    label_intervals,
    mcnemar,
    score_intervals,
)
from instrlib.evaluation.metrics import SCORES, confusion, most_confused, reliability, scores
from instrlib.evaluation.multilabel import (
    DEFAULT_THRESHOLD,
    LABEL_SCORES,
    LOWER_IS_BETTER,
    decisions,
    label_reliability,
    label_scores,
)
from instrlib.models.training import (
    load_model,
    load_scaler,
    load_thresholds,
    open_trained,
    part_segments,
    predict_clips,
)

if TYPE_CHECKING:
    from instrlib.runner.run import Run

N_CHANCE = 50
"""Draws of chance: one alone can be lucky."""

Predictions = dict[str, Any]
"""`clip_id`, `group`, `targets` [shape=(n_clips,)] and `probabilities` [shape=(n_clips, n_classes)], or with several
seeds [shape=(n_seeds, n_clips, n_classes)]. Where a clip may have several labels also `labels` [shape=(n_clips,
n_classes)], 1 present, 0 absent, NaN not observed, and `thresholds` [shape=(n_classes,) or (n_seeds, n_classes)], from
which probability on a class counts as present; where every fold has its own, of the shape of `probabilities`."""


Answers = np.ndarray | Predictions
"""What a model answered: its probabilities alone, or its predictions, which may hold thresholds of its own."""


@dataclass(frozen=True)
class Scoring:
    """How answers of one kind are scored.

    Attributes
    ----------
    main : str
        The score that comes first: what a model is judged by.
    scores : tuple of str
        All of them, in the order of the tables.
    paired : str
        What two models are compared by, clip by clip.
    rivals : tuple of str
        Trivial baselines that a model must beat; see `trivial_baselines`.
    chance : str
        The one that is at chance level.
    """

    main: str
    scores: tuple[str, ...]
    paired: str
    rivals: tuple[str, ...]
    chance: str


_ONE = Scoring("accuracy", SCORES, "accuracy", ("majority class", "nearest mean spectrum"), "chance by class share")
_SEVERAL = Scoring(
    "mean_average_precision", LABEL_SCORES, "label accuracy", ("all present", "none present", "prior"), "prior"
)

BEATEN_BY = {
    "mean_average_precision": "all present",
    "macro_f1": "all present",
    "micro_f1": "all present",
    "hamming_loss": "prior",
    "log_loss": "prior",
    "brier": "prior",
}
"""The trivial answer that each score of several labels a clip must beat: no other constant answer is as good at it."""


def scoring(predictions: Predictions) -> Scoring:
    """Return how predictions are scored: by one label a clip, or by several."""
    return _SEVERAL if several_labels(predictions) else _ONE


def main_score(predictions: Predictions) -> str:
    """Return the score that a model is judged by: "accuracy", or with several labels "mean_average_precision"."""
    return scoring(predictions).main


def several_labels(predictions: Predictions) -> bool:
    """Return whether the clips of predictions may have several labels."""
    return "labels" in predictions


def clip_scores(predictions: Predictions, answers: Answers) -> np.ndarray:
    """Say how far a model is right, clip by clip.

    Parameters
    ----------
    predictions : dict
        Gives the clips' `targets` or `labels`.
    answers : np.ndarray or dict
        The model's.

    Returns
    -------
    np.ndarray [shape=(n_clips,) or (n_seeds, n_clips)]
        Whether the class is right; with several labels a clip the share of the observed labels that are decided
        rightly.
    """
    probabilities, thresholds = _unpack(answers)
    if not several_labels(predictions):
        return probabilities.argmax(axis=-1) == predictions["targets"]
    labels = predictions["labels"]
    observed = np.isfinite(labels)
    right = (decisions(probabilities, thresholds) == (labels == 1)) & observed
    return right.sum(axis=-1) / observed.sum(axis=-1)


@dataclass(frozen=True)
class Inputs:
    """What notebook 01 hands on.

    Attributes
    ----------
    store : FeatureStore
        The features.
    splits : tuple of Path
        One split, or those of a cross-validation in which each clip is tested once.
    fingerprint : str
        Of the splits.
    """

    store: FeatureStore
    splits: tuple[Path, ...]
    fingerprint: str


def open_inputs(preprocessing: "Run") -> Inputs:
    """Return the features and the splits as notebook 01 handed them on.

    Parameters
    ----------
    preprocessing : Run
        The finished run of notebook 01.

    Returns
    -------
    Inputs
    """
    store = open_store(Path(str(preprocessing.arrays("inputs")["store"])))
    splits = tuple(sorted(preprocessing.folder.glob("splits/fold-*.json")))
    return Inputs(store, splits, fingerprint_of([load_split(path, store.segments) for path in splits]))


def answer_test(
    path: Path,
    key: str,
    load: Callable[[], Callable[[np.ndarray], np.ndarray]],
    *,
    store: FeatureStore,
    scaler: Scaler | None,
    split: Split,
    thresholds: np.ndarray | None = None,
) -> Predictions:
    """Let a model answer the test part, once; asked again with the same key, it gives the answers that were kept.

    Parameters
    ----------
    path : Path
        An npz file to keep the answers in.
    key : str
        What the model was made of: with another key it answers anew.
    load : callable
        Loads the model, if it is needed: returns what `training.predict_clips` takes as `predict`.
    store, scaler
        See `training.predict_clips`.
    split : Split
        The parts.
    thresholds : np.ndarray [shape=(n_classes,)], optional
        Of a model with sigmoid outputs, chosen on validation: from which probability on a class counts as present.

    Returns
    -------
    dict
        See `Predictions`; no axis of seeds.
    """
    if path.is_file():
        kept = read_arrays(path)
        if str(kept.pop("key", "")) == key:
            return kept
    several = thresholds is not None
    predicted = predict_clips(load(), store, scaler, part_segments(store, split, "test"), several=several)
    if several:
        predicted["thresholds"] = thresholds
    write_arrays(path, key=key, **predicted)
    return predicted


def read_test(folder: Path, store_folder: Path, split_path: Path) -> Predictions:
    """Let a trained network answer the test part, once; the answers are kept in its folder.

    Parameters
    ----------
    folder : Path
        A finished run folder of `training.train_model`; `predictions.npz` is written there.
    store_folder, split_path : Path
        Features and split that it was trained with.

    Returns
    -------
    dict
        See `Predictions`; no axis of seeds.

    Raises
    ------
    RunError
        When it was trained with another split or other features: its test part could hold clips that it learned from.
    """
    trained, store, split = open_trained(folder, store_folder, split_path)

    def load() -> Callable[[np.ndarray], np.ndarray]:
        return load_model(folder)[0].predict_on_batch

    kept = {"scaler": load_scaler(folder), "thresholds": load_thresholds(folder)}
    return answer_test(folder / "predictions.npz", trained["key"], load, store=store, split=split, **kept)


def join_folds(answers: Sequence[Predictions]) -> Predictions:
    """Join what the models of several folds answered, each on its own test part.

    Parameters
    ----------
    answers : sequence of dict
        `Predictions`, with or without an axis of seeds.

    Returns
    -------
    dict
        See `Predictions`; clips sorted.

    Raises
    ------
    EvaluationError
        When a clip was tested twice.
    """
    clip_id = np.concatenate([answer["clip_id"] for answer in answers])
    order = np.argsort(clip_id, kind="stable")
    if len(np.unique(clip_id)) < len(clip_id):
        raise EvaluationError("A clip was tested in two folds; make the folds again with splits.k_folds.")
    names = ("clip_id", "group", "targets", *(["labels"] if several_labels(answers[0]) else []))
    joined = {name: np.concatenate([answer[name] for answer in answers])[order] for name in names}
    probabilities = np.concatenate([answer["probabilities"] for answer in answers], axis=-2)
    joined |= {"probabilities": probabilities[..., order, :]}
    if "thresholds" in answers[0]:
        joined |= {"thresholds": _joined_thresholds(answers, order)}
    return joined


def join_seeds(answers: Sequence[Sequence[Predictions]]) -> Predictions:
    """Join what the models of several seeds and folds answered.

    Parameters
    ----------
    answers : sequence of sequence of dict
        `Predictions` of each model without an axis of seeds, first by seed, then by fold.

    Returns
    -------
    dict
        See `Predictions`; with an axis of seeds.

    Raises
    ------
    EvaluationError
        When a clip was tested twice.
    """
    by_seed = [join_folds(by_fold) for by_fold in answers]
    of_seed = [name for name in ("probabilities", "thresholds") if name in by_seed[0]]
    return by_seed[0] | {name: np.stack([one[name] for one in by_seed]) for name in of_seed}


def trivial_baselines(store: FeatureStore, splits: Sequence[Path], *, seed: int) -> dict[str, np.ndarray]:
    """Answer the test part with what needs no learning worth the name, fitted on the training part alone.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms.
    splits : sequence of Path
        One split, or those of a cross-validation.
    seed : int
        Decides the draws of chance.

    Returns
    -------
    dict of str to np.ndarray [shape=(n_clips, n_classes) or, for chance, (N_CHANCE, n_clips, n_classes)]
        By name; clips sorted, as in `Predictions`. Where clips may have several labels: "all present", "none present"
        and "prior", to be decided at .5.
    """
    folds = [_trivial(store, load_split(path, store.segments), seed) for path in splits]
    return {name: join_folds([fold[name] for fold in folds])["probabilities"] for name in folds[0]}


def compare_models(
    predictions: Predictions, models: dict[str, Answers], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Score several models on the same clips.

    Parameters
    ----------
    predictions : dict
        Gives the clips' `targets` or `labels` and their `group`.
    models : dict of str to np.ndarray or dict
        Probabilities of each model [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)], or its predictions.
        Several labels a clip are decided by the thresholds of the predictions; probabilities alone at .5.
    n_resamples, seed : int
        Of the bootstrap over groups.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low`, `high`; one row for each pair.
    """
    groups, draws = predictions["group"], {"n_resamples": n_resamples, "seed": seed}
    tables = []
    for name, answers in models.items():
        probabilities, thresholds = _unpack(answers)
        if several_labels(predictions):
            table = label_intervals(predictions["labels"], probabilities, groups, thresholds, **draws)
        else:
            table = score_intervals(predictions["targets"], probabilities, groups, **draws)
        tables.append(table.assign(model=name))
    return pd.concat(tables).reset_index()[["model", "score", "estimate", "low", "high"]]


def against_trivial(
    predictions: Predictions, models: dict[str, Answers], names: Sequence[str], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Compare models, score by score, with the trivial answer that each score must beat; see `BEATEN_BY`.

    Parameters
    ----------
    predictions : dict
        Gives the clips' `labels` and `group`.
    models : dict of str to np.ndarray or dict
        As for `compare_models`; the trivial answers among them.
    names : sequence of str
        The models to compare.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `baseline`, `difference` (model minus baseline), `low`, `high` and `beaten` (the whole
        interval is on the better side). Empty where a clip has one label: `compare_pair` tells all there.
    """
    rows = []
    for name in names if several_labels(predictions) else ():
        for baseline in dict.fromkeys(BEATEN_BY.values()):
            found = label_differences(
                predictions["labels"],
                _unpack(models[name]),
                _unpack(models[baseline]),
                predictions["group"],
                n_resamples=n_resamples,
                seed=seed,
            )
            for score, by in BEATEN_BY.items():
                if by == baseline:
                    one = found[score]
                    beaten = one.high < 0 if score in LOWER_IS_BETTER else one.low > 0
                    rows.append((name, score, baseline, one.estimate, one.low, one.high, beaten))
    return pd.DataFrame(rows, columns=["model", "score", "baseline", "difference", "low", "high", "beaten"])


def nested(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the table of `compare_models` as model -> score -> estimate, low, high; for `results.json`."""
    return {
        model: rows.set_index("score")[["estimate", "low", "high"]].to_dict("index")
        for model, rows in table.groupby("model", sort=False)
    }


def compare_pair(
    predictions: Predictions, first: Answers, second: Answers, *, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Compare two models on the same clips.

    Parameters
    ----------
    predictions : dict
        Gives the clips' `targets` or `labels` and their `group`.
    first, second : np.ndarray [shape=(n_clips, n_classes) or (n_seeds, n_clips, n_classes)] or dict
        Their probabilities or predictions; one without seeds is compared with every seed of the other.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    dict
        `difference` (an `intervals.Difference`, first minus second: of accuracy, or of the mean over the clips of the
        share of labels that are right, called label accuracy) and, for the first seed, McNemar's `first_alone`,
        `second_alone` (clips that just one of the two has right) and `mcnemar_p`; with several labels a clip instead of
        these the differences of `mean_average_precision`, `macro_f1` and `micro_f1`.
    """
    groups = predictions["group"]
    a, b = np.broadcast_arrays(*(np.atleast_2d(clip_scores(predictions, model)) for model in (first, second)))
    difference = compare_over_seeds(a, b, groups, n_resamples=n_resamples, seed=seed)
    if several_labels(predictions):
        sides = _unpack(first), _unpack(second)
        found = label_differences(predictions["labels"], *sides, groups, n_resamples=n_resamples, seed=seed)
        return {"difference": difference} | {name: found[name] for name in LABEL_SCORES[:3]}
    test = mcnemar(a[0], b[0])
    return {
        "difference": difference,
        "first_alone": test["only_a"],
        "second_alone": test["only_b"],
        "mcnemar_p": test["p"],
    }


def class_table(predictions: Predictions, classes: tuple[str, ...], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Score each class over the seeds, with intervals over groups.

    Parameters
    ----------
    predictions : dict
        Of several seeds.
    classes : tuple of str
        Name of each class.
    n_resamples, seed : int
        Of the bootstrap over groups and seeds.

    Returns
    -------
    pandas.DataFrame
        See `intervals.class_intervals`, or with several labels a clip `intervals.label_class_intervals`. Two or three
        groups of a class span little of what other groups would show: such intervals are too narrow.
    """
    probabilities, thresholds = _unpack(predictions)
    groups, draws = predictions["group"], {"n_resamples": n_resamples, "seed": seed}
    if several_labels(predictions):
        return label_class_intervals(predictions["labels"], probabilities, groups, classes, thresholds, **draws)
    return class_intervals(predictions["targets"], probabilities, groups, classes, **draws)


def confusion_over_seeds(predictions: Predictions) -> np.ndarray:
    """Sum of the seeds' confusion matrices, int [shape=(n_classes, n_classes)]; rows are the true classes.

    With several labels a clip: how often the class of the column was answered where that of the row is present and it
    is itself observed to be absent; on the diagonal, how often a class was answered where it is present.
    """
    if several_labels(predictions):
        return sum(_co_answered(predictions["labels"], decided) for decided in decisions(*_unpack(predictions)))
    return sum(confusion(predictions["targets"], one) for one in predictions["probabilities"])


def reliability_over_seeds(predictions: Predictions) -> dict[str, Any]:
    """Arrays of the reliability diagram over the answers of all seeds; see `metrics.reliability`.

    `ece` is the mean of the seeds' calibration errors, as in `compare_models`: pooled, the seeds' errors would cancel.
    With several labels a clip each observed label counts, and `several` says so; see `multilabel.label_reliability`.
    """
    several = several_labels(predictions)
    diagram, truth = (label_reliability, predictions["labels"]) if several else (reliability, predictions["targets"])
    by_seed = predictions["probabilities"]
    pooled = diagram(np.concatenate([truth] * len(by_seed)), np.concatenate(list(by_seed)))
    made = pooled | {"ece": np.mean([diagram(truth, one)["ece"] for one in by_seed])}
    return made | ({"several": True} if several else {})


def confidence_gap(predictions: Predictions, *, n_resamples: int, seed: int) -> Interval:
    """Mean confidence minus accuracy, over the seeds, with its interval over groups; above 0 is too sure.

    With several labels a clip: the mean over the clips of probability minus share present, over the observed labels.
    """
    if several_labels(predictions):
        labels = predictions["labels"]
        gap = np.nanmean(predictions["probabilities"].mean(axis=0) - labels, axis=1)
        return bootstrap_mean(gap, predictions["group"], n_resamples=n_resamples, seed=seed)
    confidence = predictions["probabilities"].max(axis=-1)
    correct = predictions["probabilities"].argmax(axis=-1) == predictions["targets"]
    gap = (confidence - correct).mean(axis=0)
    return bootstrap_mean(gap, predictions["group"], n_resamples=n_resamples, seed=seed)


def by_seed(predictions: Predictions) -> pd.DataFrame:
    """Score the networks one by one: a column for each seed, a row for each score."""
    if several_labels(predictions):
        probabilities, thresholds = _unpack(predictions)
        by_network = zip(probabilities, _of_seed(thresholds, probabilities), strict=True)
        columns = [label_scores(predictions["labels"], *one) for one in by_network]
    else:
        columns = [scores(predictions["targets"], one) for one in predictions["probabilities"]]
    return pd.DataFrame({f"seed {number}": column for number, column in enumerate(columns)})


def confident_errors(predictions: Predictions, corpus: Corpus, *, n: int) -> pd.DataFrame:
    """Find, for each of the most confused pairs of classes, the clip whose wrong answer was surest.

    Parameters
    ----------
    predictions : dict
        Of several seeds; their mean decides.
    corpus : Corpus
        The clips.
    n : int
        At most so many pairs.

    Returns
    -------
    pandas.DataFrame
        The clips' rows of the manifest with `true`, `predicted` and `confidence`; empty when nothing is wrong. With
        several labels a clip: a class that is present, and one that was answered and is observed to be absent.
    """
    mean = predictions["probabilities"].mean(axis=0)
    if several_labels(predictions):
        return _confident_labels(predictions, mean, corpus, n=n)
    pairs = most_confused(confusion(predictions["targets"], mean), corpus.classes, n)
    classes = np.array(corpus.classes)
    answers = pd.DataFrame(
        {
            "clip_id": predictions["clip_id"],
            "true": classes[predictions["targets"]],
            "predicted": classes[mean.argmax(axis=1)],
            "confidence": mean.max(axis=1).round(2),
        }
    )
    return _surest(answers, pairs, corpus)


def _surest(answers: pd.DataFrame, pairs: pd.DataFrame, corpus: Corpus) -> pd.DataFrame:
    wrong = answers.merge(pairs[["true", "predicted"]], on=["true", "predicted"])
    surest = wrong.sort_values(["confidence", "clip_id"], ascending=[False, True]).drop_duplicates(
        ["true", "predicted"]
    )
    return surest.merge(corpus.manifest, on="clip_id")


def _confident_labels(predictions: Predictions, mean: np.ndarray, corpus: Corpus, *, n: int) -> pd.DataFrame:
    labels = predictions["labels"]
    _, thresholds = _unpack(predictions)
    decided = decisions(mean, np.mean(_of_seed(thresholds, predictions["probabilities"]), axis=0))
    pairs = most_confused(_co_answered(labels, decided), corpus.classes, n)
    clips, true, predicted = np.nonzero((labels == 1)[:, :, None] & (decided & (labels == 0))[:, None, :])
    classes = np.array(corpus.classes)
    answers = pd.DataFrame(
        {
            "clip_id": predictions["clip_id"][clips],
            "true": classes[true],
            "predicted": classes[predicted],
            "confidence": mean[clips, predicted].round(2),
        }
    )
    return _surest(answers, pairs, corpus)


def _co_answered(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    present = labels == 1
    counts = present.T.astype(np.int64) @ (decided & (labels == 0)).astype(np.int64)
    np.fill_diagonal(counts, (present & decided).sum(axis=0))
    return counts


def _unpack(answers: Answers) -> tuple[np.ndarray, np.ndarray | float]:
    """Return probabilities and thresholds."""
    if isinstance(answers, dict):
        return answers["probabilities"], answers.get("thresholds", DEFAULT_THRESHOLD)
    return answers, DEFAULT_THRESHOLD


def _of_seed(thresholds: np.ndarray | float, probabilities: np.ndarray) -> np.ndarray:
    """Return the thresholds of each seed; those that are the same for all are repeated."""
    thresholds = np.asarray(thresholds, dtype=float)
    own = thresholds.ndim > 1
    return thresholds if own else np.broadcast_to(thresholds, (len(probabilities), *thresholds.shape))


def _joined_thresholds(answers: Sequence[Predictions], order: np.ndarray) -> np.ndarray:
    """Thresholds of several folds, for each clip those of the model that answered it; those of one fold stay."""
    if len(answers) == 1:
        return answers[0]["thresholds"]
    shapes = [answer["probabilities"].shape for answer in answers]
    of_clip = [
        np.broadcast_to(answer["thresholds"][..., None, :], shape)
        for answer, shape in zip(answers, shapes, strict=True)
    ]
    return np.concatenate(of_clip, axis=-2)[..., order, :]


def _trivial(store: FeatureStore, split: Split, seed: int) -> dict[str, Predictions]:
    if store.multilabel:
        return _trivial_labels(store, split)
    (spectra, train), (test_spectra, test) = (_mean_spectra(store, split, part) for part in ("train", "test"))
    targets, n_test, n_classes = train["targets"], len(test["targets"]), len(store.classes)
    chance = [baselines.stratified_chance(targets, n_test, n_classes, seed=seed + draw) for draw in range(N_CHANCE)]
    answers = {
        "majority class": baselines.majority(targets, n_test, n_classes),
        "chance by class share": np.stack(chance),
        "nearest mean spectrum": baselines.nearest_mean_spectrum(spectra, targets, test_spectra, n_classes=n_classes),
    }
    return {name: test | {"probabilities": probabilities} for name, probabilities in answers.items()}


def _trivial_labels(store: FeatureStore, split: Split) -> dict[str, Predictions]:
    part = store.clips.clip_id.map(split.parts)
    test = _clip_table(store.clips[part == "test"].set_index("clip_id").sort_index())
    n_test, n_classes = len(test["targets"]), len(store.classes)
    answers = {
        "all present": baselines.all_present(n_test, n_classes),
        "none present": baselines.none_present(n_test, n_classes),
        "prior": baselines.prior(store.label_matrix(store.clips[part == "train"]), n_test),
    }
    return {name: test | {"probabilities": probabilities} for name, probabilities in answers.items()}


def _clip_table(clips: pd.DataFrame) -> dict[str, np.ndarray]:
    """Clips by their ids, as `Predictions` hold them."""
    return {
        "clip_id": clips.index.to_numpy(str),
        "group": clips.group.to_numpy(str),
        "targets": clips.target.to_numpy(np.int64),
    }


def _mean_spectra(store: FeatureStore, split: Split, part: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean spectrum in dB of each clip of a part, while it sounds, and the clips in alphabetical order."""
    segments = part_segments(store, split, part)
    spectra = np.stack([_mean_spectrum(store.features[row].astype(np.float32), store.config) for row in segments.row])
    clips = segments.groupby("clip_id", sort=True).first()
    means = pd.DataFrame(spectra).groupby(segments.clip_id.to_numpy(), sort=True).mean().to_numpy()
    return means, _clip_table(clips)


def _mean_spectrum(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    return level_db[:, sounding(level_db, config)].mean(axis=1)
