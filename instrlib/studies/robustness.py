"""How the published model fares on recordings that are worse than those it learned from, and on those from elsewhere.

What is asked is the file that is given away, by the path that `instrlib predict` takes: each changed recording is
written to a file, which `predict.predict_file` reads. Nothing is chosen here.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.audio import decode as audio
from instrlib.audio.effects import DEGRADATIONS, degrade, encode, generator
from instrlib.core.cache import cached, code_hash, versions
from instrlib.core.errors import AudioError, EvaluationError, LeakError
from instrlib.core.io import disk_errors, hash_file, hash_json, in_parts
from instrlib.core.parallel import parallel_map
from instrlib.data import taxonomy
from instrlib.data.dataset import Corpus
from instrlib.data.files import CONTENT
from instrlib.data.splits import Split
from instrlib.evaluation import statistics
from instrlib.evaluation.calibration import is_named
from instrlib.evaluation.intervals import Interval, bootstrap_mean, compare_over_seeds, is_shown, unpaired_difference
from instrlib.evaluation.metrics import reliability
from instrlib.evaluation.predictions import Predictions
from instrlib.evaluation.statistics import enough_resamples, holm
from instrlib.models.predict import predict_file
from instrlib.models.published import PublishedModel

CLIPS_PER_CLASS = {"smoke": 1, "quick": 8, "full": 40}
"""Held-out clips of each class that are degraded, by profile: each is heard some forty times."""

UNTOUCHED = "untouched"

UNKNOWN = -1
"""Target of a clip whose class the model does not know."""

SCORES = ("accuracy", "log_loss", "expected_calibration_error", "confidence_gap", "refused", "accuracy_of_named")
"""Scores of a curve: those of `metrics.scores`; mean confidence minus accuracy; the share that is answered by "none of
these"; and the share of right answers among the others. Of few clips the calibration error is too high by chance alone,
so it is to be compared with that of the same clips untouched; the gap has no such bias."""

_BATCH = 4


@dataclass(frozen=True)
class Degraded:
    """What a model said of clips, untouched and degraded.

    Attributes
    ----------
    predictions : dict
        `evaluation.Predictions` of the untouched clips; no axis of seeds.
    answers : dict of (str, float) to np.ndarray [shape=(n_clips, n_classes)]
        Probabilities by degradation and level, from mild to severe; the clips are those of `predictions`.
    thresholds : np.ndarray [shape=(n_classes,)]
        Of the model: see `calibration.is_named`.
    """

    predictions: Predictions
    answers: dict[tuple[str, float], np.ndarray]
    thresholds: np.ndarray


# -- listening ---------------------------------------------------------------------------------------------------------


def choose_clips(
    model: PublishedModel, corpus: Corpus, split: Split, *, per_class: int | None = None, seed: int = 0
) -> list[str]:
    """Choose held-out clips: as many of each class, and of as many groups as there are.

    Parameters
    ----------
    model : PublishedModel
        See `published.open_model`.
    corpus : Corpus
        What it was trained on.
    split : Split
        Of the fold that it comes from: `model.about["fold"]`.
    per_class : int, optional
        At most so many of each class; all when left out. A group gives a second clip once every other has given one.
    seed : int
        Decides which.

    Returns
    -------
    list of str
        Clip ids, sorted; all in the test part.

    Raises
    ------
    LeakError
        When the split is not the one that the model was trained with.
    """
    table = corpus.manifest[corpus.manifest.clip_id.map(split.parts).eq("test")]
    _check_unseen(model, corpus, table.clip_id.to_list(), corpus, split)
    drawn = table.sample(frac=1, random_state=seed)
    turn = drawn.groupby(["label", "group"]).cumcount().sort_values(kind="stable")
    chosen = drawn.loc[turn.index].groupby("label").head(len(table) if per_class is None else per_class)
    return sorted(chosen.clip_id)


def hear_degraded(
    folder: Path,
    model: PublishedModel,
    corpus: Corpus,
    clips: Sequence[str],
    split: Split,
    *,
    degradations: Sequence[str] = tuple(DEGRADATIONS),
    seed: int = 0,
    workers: int | None = None,
) -> Degraded:
    """Let a published model hear held-out clips, untouched and under every degradation, at every level.

    Parameters
    ----------
    folder : Path
        Where the answers are kept, one file a degradation: what is there is not heard again.
    model : PublishedModel
        See `published.open_model`.
    corpus : Corpus
        What it was trained on.
    clips : sequence of str
        From `choose_clips`.
    split : Split
        Of the fold that the model comes from.
    degradations : sequence of str
        Names in `effects.DEGRADATIONS`.
    seed : int
        Of noise and rooms; each clip has its own.
    workers : int, optional
        Number of processes; the result does not depend on it.

    Returns
    -------
    Degraded

    Raises
    ------
    LeakError
        When the model may have been trained on one of the clips.
    """
    _check_unseen(model, corpus, clips, corpus, split)
    predictions = _predictions(folder / f"{UNTOUCHED}.npz", model, corpus, clips, seed, workers)
    answers = {}
    for name in degradations:
        levels = DEGRADATIONS[name].levels
        heard = _hear(folder / f"{name}.npz", model, corpus, predictions["clip_id"], name, levels, seed, workers)
        answers |= {(name, level): heard[:, number] for number, level in enumerate(levels)}
    return Degraded(predictions, answers, model.single.thresholds)


def hear_domain(
    path: Path,
    model: PublishedModel,
    corpus: Corpus,
    *,
    study: Corpus,
    split: Split,
    clips: Sequence[str] | None = None,
    workers: int | None = None,
) -> Predictions:
    """Let a published model hear the clips of another corpus, those of classes that it does not know as well.

    Parameters
    ----------
    path : Path
        An npz file to keep the answers in.
    model : PublishedModel
        See `published.open_model`.
    corpus : Corpus
        The other corpus, one label a clip; or the study's own.
    study : Corpus
        What the model was trained on.
    split : Split
        Of the fold that the model comes from.
    clips : sequence of str, optional
        Which clips; when left out all that the model cannot have learned from. Of a corpus that shares clips with the
        study's these are the groups that were not trained on: of the study's own, its test part.
    workers : int, optional
        Number of processes.

    Returns
    -------
    dict
        `evaluation.Predictions` with one entry more, `label`: the corpus's own class. `targets` holds numbers of the
        model's classes, by the table of common names, and `UNKNOWN` for a class that it does not know. Clips of a class
        that is wider than one of the model's (a guitar, where it knows acoustic ones) are left out: nobody can tell.

    Raises
    ------
    LeakError
        When the model may have been trained on one of the clips.
    EvaluationError
        When the corpus has several labels a clip, or no class that the model knows.
    """
    table = corpus.manifest[
        _unseen(corpus, study, split) if clips is None else corpus.manifest.clip_id.isin(set(clips))
    ]
    meaning = class_of(model, corpus)
    told = table[table.label.isin(list(meaning))]
    if not any(meaning[label] for label in told.label):
        raise EvaluationError(
            f"The model knows none of the classes of {corpus.name} in {corpus.root}; ask it about another corpus."
        )
    _check_unseen(model, corpus, told.clip_id.to_list(), study, split)
    return _predictions(path, model, corpus, told.clip_id.to_list(), 0, workers)


def class_of(model: PublishedModel, corpus: Corpus) -> dict[str, str | None]:
    """Say which of a model's classes each class of a corpus is.

    Parameters
    ----------
    model : PublishedModel
        See `published.open_model`.
    corpus : Corpus
        Any corpus.

    Returns
    -------
    dict of str to str or None
        By class of the corpus, after the table of common names; None for what the model does not know. A class that is
        wider than one of the model's is left out. A hi-hat counts as not known, though it is a part of a drum kit.
    """
    trained_on = model.about["corpus"]["name"]
    if corpus.name == trained_on:
        return {label: label if label in model.classes else None for label in corpus.classes}
    sides = {"classes_a": corpus.classes, "classes_b": model.classes}
    known = taxonomy.common_classes(corpus.name, trained_on, **sides)
    back = {"classes_a": model.classes, "classes_b": corpus.classes}
    wider = set(taxonomy.common_classes(trained_on, corpus.name, **back).values()) - set(known)
    return {label: known.get(label) for label in corpus.classes if label not in wider}


def answerable(model: PublishedModel, corpora: Mapping[str, Corpus]) -> tuple[dict[str, Corpus], list[str]]:
    """Say which corpora a model can be asked about: those of which it knows a class.

    Parameters
    ----------
    model : PublishedModel
        See `published.open_model`.
    corpora : dict of str to Corpus
        By name.

    Returns
    -------
    asked : dict of str to Corpus
        Those.
    left_out : list of str
        A sentence on each of the others.
    """
    asked = {name: corpus for name, corpus in corpora.items() if any(class_of(model, corpus).values())}
    return asked, [f"Of {name} the model knows no class, so it is not asked." for name in corpora if name not in asked]


# -- degradations ------------------------------------------------------------------------------------------------------


def curves(heard: Degraded, *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Score a model at every level of every degradation.

    Parameters
    ----------
    heard : Degraded
        From `hear_degraded`.
    n_resamples, seed : int
        Of the bootstrap over groups.

    Returns
    -------
    pandas.DataFrame
        Columns `degradation`, `level`, `score` (of `SCORES`), `estimate`, `low`, `high`. First the clips as they are:
        `UNTOUCHED`, with NaN as level.
    """
    every = {(UNTOUCHED, np.nan): heard.predictions["probabilities"], **heard.answers}
    tables = [
        _scored(heard.predictions, answers, heard.thresholds, n_resamples, seed).assign(degradation=name, level=level)
        for (name, level), answers in every.items()
    ]
    return pd.concat(tables, ignore_index=True)[["degradation", "level", "score", "estimate", "low", "high"]]


def losses(heard: Degraded, *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Compare the accuracy at every level with that of the same clips untouched.

    Parameters
    ----------
    heard : Degraded
        From `hear_degraded`.
    n_resamples, seed : int
        Of the bootstrap over groups; at least as many resamples are drawn as the correction needs.

    Returns
    -------
    pandas.DataFrame
        Indexed by `degradation` and `level`: `difference` (degraded minus untouched), `low`, `high`, `p` and `p_holm`,
        which is corrected for all rows together.
    """
    right = _right(heard.predictions, heard.predictions["probabilities"])
    n_resamples = enough_resamples(n_resamples, len(heard.answers))
    rows = {
        place: vars(
            compare_over_seeds(
                _right(heard.predictions, answers)[None],
                right[None],
                heard.predictions["group"],
                n_resamples=n_resamples,
                seed=seed,
            )
        )
        for place, answers in heard.answers.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["degradation", "level"])
    table = pd.DataFrame(list(rows.values()), index).rename(columns={"estimate": "difference"})
    return table.assign(p_holm=holm(table.p.to_numpy()))


def curve_arrays(scores: pd.DataFrame, compared: pd.DataFrame, chance: float) -> dict[str, np.ndarray]:
    """Return the arguments of `plots.robustness_curves`.

    Parameters
    ----------
    scores : pandas.DataFrame
        From `curves`.
    compared : pandas.DataFrame
        From `losses`.
    chance : float
        Accuracy of the trivial answer; see `most_frequent`.

    Returns
    -------
    dict
    """
    own = scores[scores.score == "accuracy"]
    at = own[own.degradation != UNTOUCHED]
    untouched = own[own.degradation == UNTOUCHED].iloc[0]
    placed = compared.loc[pd.MultiIndex.from_frame(at[["degradation", "level"]])]
    return {
        "degradation": at.degradation.map({name: one.label for name, one in DEGRADATIONS.items()}).to_numpy(str),
        "unit": at.degradation.map({name: one.unit for name, one in DEGRADATIONS.items()}).to_numpy(str),
        "level": at.level.to_numpy(float),
        **{name: at[name].to_numpy() for name in ("estimate", "low", "high")},
        "shown": is_shown(placed.p_holm.to_numpy()),
        "untouched": np.array([untouched.estimate, untouched.low, untouched.high]),
        "chance": chance,
    }


def most_frequent(predictions: Predictions) -> float:
    """Return the accuracy of always naming the most frequent class of these clips."""
    known = predictions["targets"][predictions["targets"] != UNKNOWN]
    return float(np.unique(known, return_counts=True)[1].max() / len(known))


# -- other domains -----------------------------------------------------------------------------------------------------


def domain_scores(
    heard: dict[str, Predictions], model: PublishedModel, *, n_resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Score a model on several domains.

    Parameters
    ----------
    heard : dict of str to dict
        From `hear_domain`, by the name of the domain.
    model : PublishedModel
        Who was heard.
    n_resamples, seed : int
        Of the bootstrap over groups.

    Returns
    -------
    pandas.DataFrame
        Columns `domain`, `score`, `estimate`, `low`, `high`, `n`, `n_groups`. The scores are `SCORES`, on clips of
        classes that the model knows, among all of its classes; `most_frequent`, what the trivial answer has there; and
        `right_of_named`: the share of right answers among all that get one, those to clips of unknown classes with
        them, which are always wrong.
    """
    thresholds, draws = model.single.thresholds, {"n_resamples": n_resamples, "seed": seed}
    tables = []
    for domain, predictions in heard.items():
        known = _part(predictions, predictions["targets"] != UNKNOWN)
        table = _scored(known, known["probabilities"], thresholds, **draws)
        table.loc[len(table)] = ["most_frequent", most_frequent(known), np.nan, np.nan]
        table = table.assign(n=len(known["targets"]), n_groups=len(np.unique(known["group"])))
        right = _right(predictions, predictions["probabilities"])
        named = is_named(predictions["probabilities"], thresholds)
        found = _share_of(right, named, predictions["group"], **draws)
        n_groups = len(np.unique(predictions["group"]))
        table.loc[len(table)] = ["right_of_named", found.estimate, found.low, found.high, len(right), n_groups]
        tables.append(table.assign(domain=domain))
    whole = pd.concat(tables, ignore_index=True)
    return whole[["domain", "score", "estimate", "low", "high", "n", "n_groups"]]


def refusal_of_unknown(
    heard: dict[str, Predictions], model: PublishedModel, *, n_resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Tell whether a model refuses what it does not know, in the domains that hold such clips.

    Known and unknown clips of one domain are compared, so what the domain does to both does not count.

    Parameters
    ----------
    heard, model, n_resamples, seed
        As for `domain_scores`.

    Returns
    -------
    pandas.DataFrame
        Indexed by domain: `n_known`, `n_unknown`; `refused_known` and `refused_unknown`, the shares that are answered
        by "none of these"; `difference` (unknown minus known) with `low`, `high`, `p` and `p_holm` (corrected for the
        number of domains); and `auroc` with its `_low` and `_high`: how often a known clip has a higher top probability
        than an unknown one, whatever the threshold. .5 is what a coin would give.
    """
    rows = {}
    for domain, predictions in heard.items():
        known = predictions["targets"] != UNKNOWN
        if known.all():
            continue
        answers, group = predictions["probabilities"], predictions["group"]
        refused = ~is_named(answers, model.single.thresholds)
        more = unpaired_difference(
            refused[~known],
            group[~known],
            refused[known],
            group[known],
            n_resamples=enough_resamples(n_resamples, len(heard)),
            seed=seed,
        )
        asked = {"labels": known[:, None].astype(float), "probabilities": answers.max(axis=1)[:, None], "group": group}
        areas = statistics.score_draws(asked, n_resamples=n_resamples, seed=seed)["roc_auc"][0]
        area = Interval(float(areas[0]), *statistics.ends(areas))
        rows[domain] = {
            "n_known": int(known.sum()),
            "n_unknown": int((~known).sum()),
            "refused_known": refused[known].mean(),
            "refused_unknown": refused[~known].mean(),
            "difference": more.estimate,
            "low": more.low,
            "high": more.high,
            "p": more.p,
            "auroc": area.estimate,
            "auroc_low": area.low,
            "auroc_high": area.high,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(p_holm=holm(table.p.to_numpy())) if len(table) else table


def answers_to_unknown(
    predictions: Predictions, model: PublishedModel, *, n_resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Say what a model takes the classes for that it does not know.

    Parameters
    ----------
    predictions : dict
        From `hear_domain`.
    model, n_resamples, seed
        As for `domain_scores`.

    Returns
    -------
    pandas.DataFrame
        Indexed by the corpus's own class: `n`, `n_groups`, `refused` with `low` and `high`, `confidence` (mean top
        probability), and `taken_for`, the most frequent most probable class, with its `share`.
    """
    classes = np.array(model.classes)
    rows = {}
    for label in sorted(set(predictions["label"][predictions["targets"] == UNKNOWN])):
        own = _part(predictions, predictions["label"] == label)
        answers = own["probabilities"]
        refused = ~is_named(answers, model.single.thresholds)
        found = bootstrap_mean(refused.astype(float), own["group"], n_resamples=n_resamples, seed=seed)
        counts = np.bincount(answers.argmax(axis=1), minlength=len(classes))
        rows[label] = {
            "n": len(refused),
            "n_groups": len(np.unique(own["group"])),
            "refused": found.estimate,
            "low": found.low,
            "high": found.high,
            "confidence": answers.max(axis=1).mean(),
            "taken_for": classes[counts.argmax()],
            "share": counts.max() / len(refused),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def reliability_arrays(heard: dict[str, Predictions]) -> dict[str, np.ndarray]:
    """Return the arguments of `plots.shift_reliability`: `metrics.reliability` of each domain's known clips.

    Parameters
    ----------
    heard : dict of str to dict
        From `hear_domain`, by the name of the domain.

    Returns
    -------
    dict
    """
    known = [_part(one, one["targets"] != UNKNOWN) for one in heard.values()]
    diagrams = [reliability(one["targets"], one["probabilities"]) for one in known]
    stacked = {name: np.stack([one[name] for one in diagrams]) for name in ("confidence", "accuracy", "share", "ece")}
    return {"names": np.array(list(heard)), "n": np.array([len(one["targets"]) for one in known]), **stacked}


# -- parts -------------------------------------------------------------------------------------------------------------


def _check_unseen(model: PublishedModel, corpus: Corpus, clips: Sequence[str], study: Corpus, split: Split) -> None:
    """Refuse clips that the model may have been trained on, and other splits than its own."""
    if corpus.multilabel:
        raise EvaluationError(f"{corpus.name} has several labels a clip; a model that names one is not scored on it.")
    if split.fingerprint != model.about["split"]:
        raise LeakError(
            f"{model.folder} was trained with another split than the one that is given; give that of its fold "
            f"({model.about['fold']})."
        )
    table = corpus.manifest[corpus.manifest.clip_id.isin(set(clips)) & ~_unseen(corpus, study, split)]
    if len(table):
        raise LeakError(
            f"The model in {model.folder} may have been trained on the clip {table.clip_id.iloc[0]!r} or on others of "
            "its group, which does not stand in the test part of its split; leave it out."
        )


def _unseen(corpus: Corpus, study: Corpus, split: Split) -> np.ndarray:
    """Say for each clip of a corpus whether it is of no group that the model was trained with [shape=(n_clips,)]."""
    table, theirs = corpus.manifest, study.manifest.set_index("clip_id")
    shared = table.clip_id.isin(theirs.index)
    if CONTENT in table and CONTENT in theirs:  # files of two folders may have one name
        shared &= table[CONTENT] == table.clip_id.map(theirs[CONTENT])
    if not shared.any():  # other material, whose groups may have the same names
        return np.ones(len(table), dtype=bool)
    trained = theirs.group[theirs.index.map(split.parts).isin(["train", "validation"])]
    return ~table.group.isin(set(trained)).to_numpy()


def _predictions(
    path: Path, model: PublishedModel, corpus: Corpus, clips: Sequence[str], seed: int, workers: int | None
) -> Predictions:
    meaning = class_of(model, corpus)
    table = corpus.manifest.set_index("clip_id").loc[sorted(clips)]
    number = {name: place for place, name in enumerate(model.classes)}
    heard = _hear(path, model, corpus, table.index, "", (np.nan,), seed, workers)
    return {
        "clip_id": table.index.to_numpy(str),
        "group": table.group.to_numpy(str),
        "label": table.label.to_numpy(str),
        "targets": np.array([number.get(meaning[label], UNKNOWN) for label in table.label]),
        "probabilities": heard[:, 0],
    }


def _hear(
    path: Path,
    model: PublishedModel,
    corpus: Corpus,
    clips: Sequence[str],
    name: str,
    levels: tuple[float, ...],
    seed: int,
    workers: int | None,
) -> np.ndarray:
    """Return probabilities [shape=(n_clips, n_levels, n_classes)]; without a name of the clips as they are."""
    network, table = model.single, corpus.manifest.set_index("clip_id").loc[list(clips)]
    rows = [(one.Index, corpus.root / one.path, one.start_s, one.duration_s) for one in table.itertuples()]
    key = hash_json(
        {
            # This file, and what it hands the clips to; how a network is trained or scored changes no answer.
            "code": [
                hash_file(Path(__file__)),
                code_hash("studies"),
            ],
            "model": [hash_file(network.file), network.temperature, network.features, network.scaler.to_dict()],
            "clips": [corpus.fingerprint, list(clips)],
            "degradation": [name, levels, seed],
            "versions": versions(),
        }
    )

    def hear() -> dict[str, np.ndarray]:
        tasks = [(model, part, name, levels, seed) for part in in_parts(rows, _BATCH)]
        described = f"listening, {DEGRADATIONS[name].label if name else UNTOUCHED}"
        made = parallel_map(_hear_batch, tasks, workers=workers, describe=described)
        return {"probabilities": np.concatenate(list(made))}

    return cached(path, key, hear)["probabilities"]


def _hear_batch(
    model: PublishedModel, rows: list[tuple[str, Path, float, float]], name: str, levels: tuple[float, ...], seed: int
) -> np.ndarray:
    rate_hz = model.single.features.sample_rate_hz
    heard = np.empty((len(rows), len(levels), len(model.classes)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        for row, (clip_id, file, start_s, duration_s) in enumerate(rows):
            signal = audio.load(file, sample_rate_hz=rate_hz, start_s=start_s, duration_s=duration_s)
            for number, level in enumerate(levels):
                rng = generator(seed, clip_id, name)
                changed = degrade(signal, rate_hz, name, level, rng) if name else signal
                with disk_errors(path):
                    path.write_bytes(encode(changed, rate_hz, format="WAV", subtype="FLOAT").getvalue())
                heard[row, number] = _said(path, model)
    return heard


def _said(path: Path, model: PublishedModel) -> np.ndarray:
    try:
        return predict_file(path, model).probabilities
    except AudioError:  # silent wherever it is listened to: nothing speaks for one class more than for another
        return np.full(len(model.classes), 1 / len(model.classes))


def _part(predictions: Predictions, own: np.ndarray) -> Predictions:
    return {name: values[own] for name, values in predictions.items()}


def _right(predictions: Predictions, answers: np.ndarray) -> np.ndarray:
    return (answers.argmax(axis=1) == predictions["targets"]).astype(float)


def _scored(
    predictions: Predictions, answers: np.ndarray, thresholds: np.ndarray, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Return `SCORES` of answers to clips of known classes: `score`, `estimate`, `low`, `high`."""
    targets, group = predictions["targets"], predictions["group"]
    draws = {"n_resamples": n_resamples, "seed": seed}
    asked = {"clip_id": predictions["clip_id"], "targets": targets, "probabilities": answers, "group": group}
    table = statistics.score_table({"": asked}, **draws).set_index("score").drop(columns="model").loc[list(SCORES[:3])]
    right, named = _right(predictions, answers), is_named(answers, thresholds)
    for score, found in (
        ("confidence_gap", bootstrap_mean(answers.max(axis=1) - right, group, **draws)),
        ("refused", bootstrap_mean((~named).astype(float), group, **draws)),
        ("accuracy_of_named", _share_of(right, named, group, **draws)),
    ):
        table.loc[score] = [found.estimate, found.low, found.high]
    return table.reset_index()


def _share_of(right: np.ndarray, named: np.ndarray, group: np.ndarray, *, n_resamples: int, seed: int) -> Interval:
    """Mean of `right` over what is named, with its interval; NaN where nothing is."""

    def share(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"share": weights @ (right & named).astype(float) / (weights @ named.astype(float))}

    draws = statistics.draw([share], group, n_resamples=n_resamples, seed=seed)["share"][0]
    return Interval(float(draws[0]), *statistics.ends(draws))
