"""What the corpus holds, how it was split, and what a split that ignores groups would have shown."""

from collections.abc import Sequence

import pandas as pd

from instrlib.core.words import spread
from instrlib.data.dataset import Corpus
from instrlib.data.splits import PARTS, Split
from instrlib.data.store import FeatureStore
from instrlib.studies.leak import PROTOCOLS, Leak


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
    if clips.labels is not None:
        counts = pd.Series((clips.labels == 1).sum(axis=0))
    n_unusable = len(store.excluded) + clips.n_unusable
    return (
        f"`{clips.name}` holds {len(clips.manifest):,} clips of {len(clips.classes)} classes "
        f"({spread(counts)} a class) in {clips.manifest.group.nunique():,} groups, "
        f"{clips.manifest.duration_s.sum() / 60:.0f} minutes in all; they give {len(store.segments):,} segments of "
        f"{store.config.segment_s:g} s. "
        + (f"{n_unusable} clips could not be used." if n_unusable else "Every clip could be used.")
    )


def split_sentence(clips: pd.DataFrame, splits: Sequence[Split]) -> str:
    """Say how large the parts are and that no group crosses them.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `clip_id` and `group`.
    splits : sequence of Split
        One, or those of a cross-validation; that they have no leak was checked when they were made.

    Returns
    -------
    str
    """
    of_clip = clips.clip_id.map(splits[0].parts)
    sizes = ", ".join(
        f"{part} {(of_clip == part).sum()} clips in {clips.group[of_clip == part].nunique()} groups" for part in PARTS
    )
    if len(splits) == 1:
        return f"The split is by groups: {sizes}; no group stands in two parts."
    return (
        f"The clips are few, so there are {len(splits)} splits by groups, in which each clip is tested once; the "
        f"first: {sizes}. No group stands in two parts of a split."
    )


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
