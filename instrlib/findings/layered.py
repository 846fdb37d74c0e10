"""What is heard of several instruments at once."""

from collections.abc import Sequence

import pandas as pd

from instrlib.core.words import begin, listed, spaced
from instrlib.evaluation.intervals import Interval, is_shown
from instrlib.studies.layered_scores import all_present_f1


def trivial_sentence(table: pd.DataFrame, compared: pd.DataFrame, model: str) -> str:
    """Say whether a model of several instruments at once beats what needs no listening.

    Parameters
    ----------
    table : pandas.DataFrame
        From `layered_scores.score_table`.
    compared : pandas.DataFrame
        From `layered_scores.compare`: pairs of the model with each baseline, for several scores.
    model : str
        Its name.

    Returns
    -------
    str
    """
    own = compared.xs(model, level="first")
    parts, failed = [], []
    for score, rows in own.groupby("score", sort=False):
        lower_is_better = score.endswith("loss")
        of = table[table.score == score].set_index("model").estimate
        best = of[rows.index.get_level_values("second")].agg("idxmin" if lower_is_better else "idxmax")
        row = rows.loc[best].squeeze()
        words = spaced(score).replace("f1", "F1")
        parts.append(f"{words} {of[model]:.3f} against {of[best]:.3f} of “{best}”")
        if not is_shown(row.p_holm):
            failed.append(f"its {words} is not shown to beat “{best}”")
        elif (row.difference > 0) == lower_is_better:
            failed.append(f"its {words} is worse than that of “{best}”")
    verdict = "each of its scores named here is better" if not failed else listed(failed)
    return (
        f"{begin(model)}, against the best of the answers that need no listening: {'; '.join(parts)}. {begin(verdict)}."
    )


def all_present_sentence(by_number: pd.DataFrame, model: str, *, n_classes: int, reported: dict[str, float]) -> str:
    """Say what naming every instrument would score, here and in the reference system that mixed clips.

    Parameters
    ----------
    by_number : pandas.DataFrame
        From `layered_scores.by_number`.
    model : str
        One of its models.
    n_classes : int
        Classes here.
    reported : dict
        See `layered_scores.LAYERED_FOUR`.

    Returns
    -------
    str
    """
    scores = by_number[by_number.score == "micro_f1"].pivot(index="model", columns="n_sources", values="estimate")
    several = [number for number in scores.columns if number > 1]
    numbers = ", ".join(
        f"{scores.loc['all present', number]:.3f} for {number} of {n_classes} (the network: "
        f"{scores.loc[model, number]:.3f})"
        for number in several
    )
    theirs = all_present_f1(reported["classes"], reported["sources"])
    low = by_number[by_number.score == "micro_f1"].set_index(["model", "n_sources"]).low
    unsure = [number for number in several if not low[model, number] > scores.loc["all present", number]]
    verdict = (
        f"with {listed(map(str, unsure))} at once the network is not shown to beat it"
        if unsure
        else "the network beats it for every number"
    )
    return (
        f"Naming every instrument has a micro F1 of {numbers}: {verdict}. With {reported['sources']} of "
        f"{reported['classes']} it would have {theirs:.3f}, more than the {reported['micro_f1']:.3f} that layered-four "
        "reports of its test mixtures: such a score says nothing without this one beside it."
    )


def number_sentence(by_number: pd.DataFrame, models: Sequence[str]) -> str:
    """Say how models do with one instrument and with the most at once.

    Parameters
    ----------
    by_number : pandas.DataFrame
        From `layered_scores.by_number`.
    models : sequence of str
        Those to name.

    Returns
    -------
    str
    """
    rows = by_number[by_number.score == "mean_average_precision"].set_index(["model", "n_sources"])
    fewest, most = by_number.n_sources.min(), by_number.n_sources.max()
    parts = [
        f"{model} {Interval(*rows.loc[(model, fewest), ['estimate', 'low', 'high']])} with {fewest} and "
        f"{Interval(*rows.loc[(model, most), ['estimate', 'low', 'high']])} with {most}"
        for model in models
    ]
    return f"Mean average precision by the number of instruments at once: {'; '.join(parts)}."


def level_sentence(recall: pd.DataFrame, models: Sequence[str]) -> str:
    """Say how loud an instrument must be in a mixture to be named.

    Parameters
    ----------
    recall : pandas.DataFrame
        From `layered_scores.recall_by_level`.
    models : sequence of str
        Those to name.

    Returns
    -------
    str
    """
    parts = []
    for model in models:
        own = recall[(recall.model == model) & (recall.n > 0)].sort_values("up_to_db")
        quiet, loud = own.iloc[0], own.iloc[-1]
        parts.append(
            f"{model} names {loud.recall:.0%} of the instruments that make up at least "
            f"{10 ** (loud.above_db / 10):.0%} of the energy, and {quiet.recall:.0%} of those that stay "
            f"{-quiet.up_to_db:g} dB or more below the sum (and {quiet.false_alarms:.0%} of those that are not there)"
        )
    return f"How loud must it be? {begin('; '.join(parts))}.".replace("%", " %")
