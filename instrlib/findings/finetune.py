"""What learning on from another corpus gives."""

from collections.abc import Sequence

import pandas as pd

from instrlib.intervals import Interval, corrected, is_shown
from instrlib.words import listed


def pretraining_sentence(scores: pd.DataFrame, compared: pd.DataFrame, tuned: str, scratch: str, source: str) -> str:
    """Say whether pretraining helps a network against the same one from scratch.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns `model`, `estimate`, `low`, `high`: the main score.
    compared : pandas.DataFrame
        What `experiments.compare_pairs` gives.
    tuned, scratch : str
        A pair of it: the fine-tuned network and the one from scratch.
    source : str
        What the first was pretrained on.

    Returns
    -------
    str
    """
    row = compared.loc[(tuned, scratch)]
    verdict = ("helps" if row.difference > 0 else "does harm") if is_shown(row.p_holm) else "is not shown to help"
    return (
        f"Pretraining on {source} {verdict}: fine-tuned the network reaches {_reached(scores, tuned)}, from scratch, "
        f"on the same clips and with the same epochs and augmentation, {_reached(scores, scratch)} ({corrected(row)} "
        f"after Holm's correction for {len(compared)} comparisons)."
    )


def tuning_rivals_sentence(scores: pd.DataFrame, compared: pd.DataFrame, tuned: str, rivals: Sequence[str]) -> str:
    """Say how a fine-tuned network stands against other models.

    Parameters
    ----------
    scores, compared, tuned
        See `pretraining_sentence`.
    rivals : sequence of str
        Models that it is compared with.

    Returns
    -------
    str
    """
    said = []
    for rival in rivals:
        row = compared.loc[(tuned, rival)]
        shown = is_shown(row.p_holm)
        verdict = "not shown to differ from" if not shown else "better than" if row.difference > 0 else "worse than"
        said.append(f"{verdict} “{rival}” ({_reached(scores, rival)}; {corrected(row)})")
    return f"The fine-tuned network is {listed(said)}."


def _reached(scores: pd.DataFrame, model: str) -> Interval:
    row = scores.set_index("model").loc[model]
    return Interval(row.estimate, row.low, row.high)
