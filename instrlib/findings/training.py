"""What the trainings say: epochs, variants and published networks beside ours."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from instrlib.core.words import begin, listed
from instrlib.evaluation.intervals import Interval, is_shown, p_text
from instrlib.studies.leak import PROTOCOLS


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


def shortened_sentence(described: pd.DataFrame) -> str:
    """Say which of the published trainings were cut short by the profile, lest their scores be taken for theirs.

    Parameters
    ----------
    described : pandas.DataFrame
        What `references.table` gives.

    Returns
    -------
    str
    """
    cut = described[described.epochs_here < described.epochs]
    if cut.empty:
        return (
            "The published networks were trained to their end: for the epochs that their descriptions give or, where "
            "these leave them open, for those that are set here."
        )
    numbers = ", ".join(f"{name} {row.epochs_here} of {row.epochs}" for name, row in cut.iterrows())
    return (
        f"Trained for fewer epochs than it takes, for want of time in this profile: {numbers}. Their scores show that "
        "they run, not what they can do; the full profile trains them to their end."
    )


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


def rivals_sentence(overview: pd.DataFrame, compared: pd.DataFrame, ours: str, *, unfinished: Sequence[str]) -> str:
    """Name the best model of each kind, and which are shown to be as good as ours or better.

    Parameters
    ----------
    overview : pandas.DataFrame
        What `references.overview` gives.
    compared : pandas.DataFrame
        What `statistics.compare` gives for `ours`.
    ours : str
        Our model.
    unfinished : sequence of str
        Models whose training was cut short; they are not counted.

    Returns
    -------
    str
    """
    compared, overview = compared.drop(list(unfinished)), overview.drop(list(unfinished))
    best = [
        f"{kind} {rows.accuracy.idxmax()} ({Interval(*rows.loc[rows.accuracy.idxmax(), ['accuracy', 'low', 'high']])})"
        for kind, rows in overview[overview.index != ours].groupby("kind", observed=True)
    ]
    row = overview.loc[ours]
    sure = is_shown(compared.p_holm)
    better, worse = (compared.index[sure & (sign * compared.difference > 0)] for sign in (1, -1))
    open_ = len(compared) - len(better) - len(worse)
    return (
        f"{begin(ours)} reaches {Interval(row.accuracy, row.low, row.high)}. The best of each kind beside it, picked "
        "by these scores and so a little flattered: "
        f"{', '.join(best)}. Of the {len(compared)} models that were trained to their end {len(worse)} are shown to be "
        f"worse than {ours}, {len(better)} better{f' ({listed(better)})' if len(better) else ''}, {open_} neither (p "
        "after Holm's correction)."
    )


def protocols_sentence(table: pd.DataFrame) -> str:
    """Say how far a split of segments at random flatters the models, and whether it changes which is best.

    Parameters
    ----------
    table : pandas.DataFrame
        What `leak.compare_splits` gives.

    Returns
    -------
    str
    """
    sure = table.index[table.low > 0]
    most, least = table.loc[table.difference.idxmax()], table.loc[table.difference.idxmin()]
    first, second = (
        listed(table.index[np.isclose(table[protocol], table[protocol].max())]) for protocol in ("honest", "leaky")
    )
    return (
        f"With {PROTOCOLS[0]} instead of {PROTOCOLS[1]}, accuracy over segments changes by "
        f"{least.difference:+.2f} ({least.name}) to {most.difference:+.2f} ({most.name}), "
        f"{table.difference.mean():+.2f} on average; for {len(sure)} of {len(table)} models the interval of the gain "
        "lies above 0. "
        + (
            f"{begin(first)} is best under both."
            if first == second
            else f"Best under the leaky protocol is {second}, under the honest one {first}."
        )
    )
