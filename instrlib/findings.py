"""Sentences made from numbers: what a notebook found is computed, never typed."""

import numpy as np
import pandas as pd

from instrlib.corpora.base import Corpus, unusable
from instrlib.intervals import Difference, Interval
from instrlib.leak import PROTOCOLS, Leak
from instrlib.metrics import most_confused
from instrlib.splits import PARTS, Split
from instrlib.store import FeatureStore


def corpus_sentence(clips: Corpus, store: FeatureStore) -> str:
    """Say what the corpus holds, and how many clips could not be used.

    Parameters
    ----------
    clips : Corpus
        As it was loaded.
    store : FeatureStore
        Its features.

    Returns
    -------
    str
    """
    counts = clips.manifest.label.value_counts()
    n_unusable = len(store.problems) + len(unusable(clips.problems))
    return (
        f"`{clips.name}` holds {len(clips.manifest):,} clips of {len(clips.classes)} classes "
        f"({_range(counts)} a class) in {clips.manifest.group.nunique():,} groups, "
        f"{clips.manifest.duration_s.sum() / 60:.0f} minutes in all; they give {len(store.segments):,} segments of "
        f"{store.config.segment_s:g} s. "
        + (f"{n_unusable} clips could not be used." if n_unusable else "Every clip could be used.")
    )


def split_sentence(clips: pd.DataFrame, split: Split) -> str:
    """Say how large the parts are and that no group crosses them.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `clip_id` and `group`.
    split : Split
        Their parts; that it has no leak was checked when it was made.

    Returns
    -------
    str
    """
    of_clip = clips.clip_id.map(split.parts)
    sizes = ", ".join(
        f"{part} {(of_clip == part).sum()} clips in {clips.group[of_clip == part].nunique()} groups" for part in PARTS
    )
    return f"The split is by groups: {sizes}; no group stands in two parts."


def leak_sentence(leak: Leak) -> str:
    """Say what a random split of segments would have made of the score."""
    leaky, honest = leak.accuracy
    sure = leak.difference.low > 0
    verdict = (
        f"A split that ignores groups flatters this forest by {leak.difference.estimate:.2f}."
        if sure
        else "The interval of the difference includes 0: the leak makes no difference that these clips can show."
    )
    return (
        f"The same random forest scores {leaky} on {PROTOCOLS[0]} and {honest} on {PROTOCOLS[1]} (difference "
        f"{leak.difference}). Under the first protocol {leak.siblings[0]:.0%} of the tested segments have a sibling in "
        f"training, under the second {leak.siblings[1]:.0%}. {verdict}"
    )


def score_sentence(table: pd.DataFrame, model: str, score: str = "accuracy") -> str:
    """Say what a model scores on the test part, with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        From `evaluation.compare_models`.
    model, score : str
        A row of it.

    Returns
    -------
    str
    """
    row = table[(table.model == model) & (table.score == score)].iloc[0]
    reached = Interval(row.estimate, row.low, row.high)
    return f"{_begin(model)} reaches a test {score.replace('_', ' ')} of {reached}."


def difference_sentence(name_a: str, name_b: str, difference: Difference, what: str = "accuracy") -> str:
    """Say whether one model beats another, or that these clips cannot show it.

    Parameters
    ----------
    name_a, name_b : str
        The models.
    difference : Difference
        Score of a minus score of b; higher is better.
    what : str
        Name of the score.

    Returns
    -------
    str
    """
    if difference.low > 0:
        verdict = f"{_begin(name_a)} is better than {name_b}"
    elif difference.high < 0:
        verdict = f"{_begin(name_a)} is worse than {name_b}"
    else:
        verdict = f"These clips do not show a difference between {name_a} and {name_b}"
    return f"{verdict}: {what} {difference}."


def confusion_sentence(counts: np.ndarray, classes: tuple[str, ...]) -> str:
    """Say which class is most often taken for which other.

    Parameters
    ----------
    counts : np.ndarray of int [shape=(n_classes, n_classes)]
        Rows are the true classes.
    classes : tuple of str
        Name of each row.

    Returns
    -------
    str
    """
    pairs = most_confused(counts, classes, 1)
    if pairs.empty:
        return "No clip of the test part was taken for another class."
    row = pairs.iloc[0]
    return f"The commonest mistake is {row.true} taken for {row.predicted} ({row.share:.0%} of {row.true})."


def calibration_sentence(table: pd.DataFrame, model: str, gap: Interval) -> str:
    """Say whether a model is surer of itself than it is right, or that these clips cannot show it.

    Parameters
    ----------
    table : pandas.DataFrame
        What `evaluation.compare_models` gives.
    model : str
        A model of the table.
    gap : Interval
        Mean confidence minus accuracy; see `evaluation.confidence_gap`.

    Returns
    -------
    str
    """
    rows = table[table.model == model].set_index("score").estimate
    manner = "too sure of itself" if gap.low > 0 else "not sure enough of itself" if gap.high < 0 else ""
    verdict = f"it is {manner}" if manner else "these clips do not show that it is too sure of itself, or too little"
    return (
        f"Its confidence is {gap} above its accuracy: {verdict} (calibration error "
        f"{rows['expected_calibration_error']:.3f})."
    )


def bullets(sentences: list[str]) -> str:
    """Return the sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _begin(words: str) -> str:
    return words[:1].upper() + words[1:]


def _range(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"
