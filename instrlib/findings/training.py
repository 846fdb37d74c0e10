"""What the trainings say: epochs, variants and published networks beside ours."""

from collections.abc import Sequence

import pandas as pd

from instrlib.core.words import begin, listed
from instrlib.evaluation.intervals import is_shown, p_text


def epochs_sentence(described: pd.DataFrame, names: Sequence[str]) -> str:
    """Say of some variants whether they were still getting better on validation when the training ended.

    Parameters
    ----------
    described : pandas.DataFrame
        What `experiments.describe` gives.
    names : sequence of str
        The variants.

    Returns
    -------
    str
    """
    rows = described.loc[list(names)]
    late = [
        f"{row.n_late:.0f} of {row.n_trained:.0f} trainings of {name}" for name, row in rows.iterrows() if row.n_late
    ]
    numbers = listed(f"{name} at epoch {row.best_epoch:.1f} of {row.epochs:.0f}" for name, row in rows.iterrows())
    verdict = (
        f"In the last tenth of their epochs {listed(late)} were still improving: more epochs may change the result, "
        "which was not tried"
        if late
        else "No training was still improving in the last tenth of its epochs"
    )
    return f"Best on validation was, on average, {numbers}. {verdict}."


def cheaper_sentence(table: pd.DataFrame, described: pd.DataFrame, reference: str) -> str:
    """Name the variant that takes the least work of those not shown to be worse than a reference.

    Parameters
    ----------
    table : pandas.DataFrame
        What `statistics.compare` gives.
    described : pandas.DataFrame
        What `experiments.describe` gives, with the column `multiply_adds_a_clip`.
    reference : str
        The variant that they were compared with.

    Returns
    -------
    str
    """
    work = described.multiply_adds_a_clip
    worse = table.index[(table.difference < 0) & is_shown(table.p_holm)]
    cheapest = work.drop(worse).idxmin()
    if cheapest == reference:
        return f"Every variant that takes less work than the {reference} is worse."
    row = table.loc[cheapest]
    return (
        f"Of the variants not shown to be worse, “{cheapest}” takes the least work: {work[cheapest] / 1e6:.1f} million "
        f"multiply-adds a clip instead of {work[reference] / 1e6:.1f}, for a difference of {row.difference:+.3f} "
        f"[{row.low:+.3f}, {row.high:+.3f}], which leaves room for a loss of up to {max(0, -row.low):.3f}."
    )


def order_sentence(measured: pd.Series, reported: pd.Series, what: str) -> str:
    """Say whether scores measured here put things in the same order as published ones (Kendall's tau).

    Parameters
    ----------
    measured, reported : pandas.Series
        Scores by the same names.
    what : str
        What is ordered.

    Returns
    -------
    str
    """
    from scipy.stats import kendalltau

    found = kendalltau(measured, reported[measured.index])
    alike = (
        "in much the same order"
        if is_shown(found.pvalue) and found.statistic > 0
        else "not shown to be in the same order"
    )
    return (
        f"{begin(what)} are {alike} here as published (Kendall's tau {found.statistic:.2f}, {p_text(found.pvalue)}): "
        f"best here {measured.idxmax()} ({measured.max():.2f}), published {reported.idxmax()} ({reported.max():.2f})."
    )
