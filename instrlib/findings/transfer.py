"""What a pretrained embedding adds."""

import pandas as pd

from instrlib.core.words import listed
from instrlib.evaluation.intervals import Interval, corrected, is_shown


def embedding_sentences(compared: pd.DataFrame, clips: dict[int, float]) -> list[str]:
    """Say of each embedding what it adds to a network from scratch, and from how many clips on nothing is shown.

    Parameters
    ----------
    compared : pandas.DataFrame
        What `transfer.against_scratch` gives.
    clips : dict of int to float
        Training clips of a class at each size; see `transfer.clips_a_class`.

    Returns
    -------
    list of str
    """
    said = []
    for model, unordered in compared.groupby("model", sort=False):
        rows = unordered.set_index("size").sort_index()
        sure = is_shown(rows.p_holm)
        better, worse = (rows.index[sure & (sign * rows.difference > 0)] for sign in (1, -1))
        verdict = [
            f"shown to be {word} with {listed(f'{clips[size]:.3g}' for size in found)} training clips a class"
            for word, found in (("better", better), ("worse", worse))
            if len(found)
        ]
        if not verdict:
            verdict = ["not shown to differ with any number of training clips"]
        later = rows.index[rows.index > max(better, default=0)]
        if len(better) and len(later):
            verdict.append(f"from {clips[later[0]]:.3g} on it is no longer shown to be better")
        elif len(better):
            verdict.append("with all clips the network from scratch has not caught up")
        numbers = "; ".join(f"{clips[size]:.3g}: {corrected(row)}" for size, row in rows.iterrows())
        said.append(
            f"Against the network from scratch “{model}” is {'; '.join(verdict)} (differences by training clips a "
            f"class, p after Holm's correction for {len(compared)} comparisons: {numbers})."
        )
    return said


def mark_sentence(scores: pd.DataFrame, compared: pd.DataFrame, mark: str) -> str:
    """Say whether anything that was trained here reaches a published embedding.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns `model`, `estimate`, `low`, `high`: the main score.
    compared : pandas.DataFrame
        What `statistics.compare` gives for `mark`, with the models that were trained here; empty when the mark is
        not at hand.
    mark : str
        The model that is the mark.

    Returns
    -------
    str
    """
    if compared.empty:
        return f"“{mark}”, the mark for what is trained here, is not at hand: how near to it they come is not known."
    rows = scores.set_index("model")
    sure = is_shown(compared.p_holm)
    above, below, open_ = (
        compared.index[sure & (compared.difference > 0)],
        compared.index[sure & (compared.difference < 0)],
        compared.index[~sure],
    )
    verdicts = [
        f"{listed(f'“{name}”' for name in names)} {'is' if len(names) == 1 else 'are'} {words}"
        for names, words in (
            (above, "shown to be better"),
            (below, "shown to be worse"),
            (open_, "not shown to differ from it"),
        )
        if len(names)
    ]
    best = compared.difference.idxmax()
    near, reached = (Interval(*rows.loc[name, ["estimate", "low", "high"]]) for name in (best, mark))
    return (
        f"“{mark}”, the mark, reaches {reached}. Of what was trained here “{best}” comes nearest with {near} "
        f"({compared.difference[best]:+.3f}); {'; '.join(verdicts)} (p after Holm's correction)."
    )
