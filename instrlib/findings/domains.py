"""Sentences on domains, made from numbers: how far a score falls, and what mends it."""

import pandas as pd

from instrlib.core.words import listed, spaced
from instrlib.evaluation.intervals import Difference, Interval, corrected, is_shown


def fall_sentence(table: pd.DataFrame) -> str:
    """Say how far scores fall from a domain's own test part to other domains, and where that is shown.

    Parameters
    ----------
    table : pandas.DataFrame
        From `domain_study.matrix`.

    Returns
    -------
    str
    """
    others = table[table["drop"].notna()]
    if others.empty:
        return "No two domains could be compared, so nothing is known of how far scores fall on other sounds."
    sure = is_shown(others.p_holm)
    falls, rises = others[sure & (others["drop"] > 0)], others[sure & (others["drop"] < 0)]
    worst = others.loc[others["drop"].idxmax()]
    said = (
        f"Trained on one domain and tested on another, balanced accuracy on the classes in common falls in "
        f"{len(falls)} of {len(others)} pairs (p after Holm's correction below .05)"
    )
    said += f", rises in {len(rises)}" if len(rises) else ""
    said += f"; in {len(others) - len(falls) - len(rises)} no difference is shown" if not sure.all() else ""
    return (
        f"{said}. It falls furthest from {worst.trained_on} to {worst.tested_on}: from {worst.own:.2f} on its own test "
        f"part to {worst.balanced_accuracy:.2f} on the same {worst.n_common} classes (by {_difference(worst)})."
    )


def best_source_sentence(table: pd.DataFrame, target: str) -> str:
    """Say which domain prepares best for another, and whether it is better than giving one answer always.

    Parameters
    ----------
    table : pandas.DataFrame
        From `domain_study.matrix`.
    target : str
        Label of the domain that is tested on.

    Returns
    -------
    str
    """
    rows = table[(table.tested_on == target) & table["drop"].notna()]
    if rows.empty:
        return f"No network of another domain could be tested on {target}."
    best = rows.loc[rows.balanced_accuracy.idxmax()]
    scored = Interval(best.balanced_accuracy, best.balanced_accuracy_low, best.balanced_accuracy_high)
    beats = "better than" if best.balanced_accuracy_low > best.constant else "not shown to be better than"
    others = [
        f"{row.trained_on} {row.balanced_accuracy:.2f} ({row.n_common} classes)"
        for row in rows.drop(index=best.name).itertuples()
    ]
    return (
        f"On {target} the networks of {best.trained_on} do best with a balanced accuracy of {scored} on "
        f"{best.n_common} classes in common, {beats} always giving one answer ({best.constant:.2f}); when they may "
        f"answer only these classes it is {best.among_common:.2f}."
        + (f" The others: {', '.join(others)}." if others else "")
    )


def adaptation_sentence(table: pd.DataFrame) -> str:
    """Say whether means and variances from unlabelled clips of the target help.

    Parameters
    ----------
    table : pandas.DataFrame
        From `domain_study.adaptation`.

    Returns
    -------
    str
    """
    if table.empty:
        return "There was no other domain to adapt batch normalisation to."
    sure = is_shown(table.p_holm)
    verdicts = []
    for word, rows in (
        ("helps", table[sure & (table.difference > 0)]),
        ("harms", table[sure & (table.difference < 0)]),
    ):
        if len(rows):
            verdicts.append(
                f"{word} from {listed(f'{row.trained_on} to {row.tested_on}' for row in rows.itertuples())}"
            )
    open_ = int((~sure).sum())
    if open_:
        verdicts.append(f"is not shown to change anything in {'any' if open_ == len(table) else open_} of the pairs")
    best, worst = (table.loc[place] for place in (table.difference.idxmax(), table.difference.idxmin()))
    ends = f"It adds most from {best.trained_on} to {best.tested_on} ({corrected(best)})"
    if len(table) > 1:
        ends += f" and least from {worst.trained_on} to {worst.tested_on} ({corrected(worst)})"
    return (
        f"Batch normalisation with means and variances of the target's unlabelled clips {'; '.join(verdicts)}. {ends}. "
        "Such a network has heard the target, so its scores are no measure of what it does on sounds that it has not."
    )


def embedding_sentence(told: pd.DataFrame) -> str:
    """Say how well the embedding tells domains apart, and classes across domains.

    Parameters
    ----------
    told : pandas.DataFrame
        From `domain_study.told_by_embedding`.

    Returns
    -------
    str
    """
    if not told.n_clips.any():
        return "There were no two domains with two classes that all have, so embeddings tell nothing of domains."
    domain, across, within = (_row(told, name) for name in told.index)
    known = "can be told" if told["low"].iloc[0] > told.trivial.iloc[0] else "is not shown to be told"
    return (
        f"From the embedding of a clip its domain {known}: a logistic regression names it for {domain}. The nearest "
        f"clip of another domain is of the same class for {across}, the nearest of the same domain, from another "
        f"group, for {within}."
    )


def taken_for_sentence(table: pd.DataFrame, source: str, target: str, *, n: int = 3) -> str:
    """Say which classes are most often taken for which.

    Parameters
    ----------
    table : pandas.DataFrame
        From `domain_study.confusions`.
    source, target : str
        Labels of the two domains.
    n : int
        So many confusions are named.

    Returns
    -------
    str
    """
    rows = table[table.known.astype(bool)].head(n)
    if rows.empty:
        return f"The networks of {source} took no clip of {target} for another class in common."
    # What stands between the class and the answer is what the class was told apart by.
    apart = list(table.columns[1 : table.columns.get_loc("answered")])
    named = listed(
        f"{spaced(row.label)}{''.join(f' of {name} {row[name]}' for name in apart)} for {spaced(row.answered)} "
        f"({row.share:.0%} of the answers to {row.n_clips} clips)"
        for _, row in rows.iterrows()
    )
    return f"The networks of {source} on {target} most often take {named}."


def left_out_sentence(left_out: list[str]) -> str:
    """Say which comparisons are missing; empty where none is."""
    return f"Not compared: {' '.join(left_out)}" if left_out else "All domains at hand were compared."


def _difference(row: pd.Series) -> str:
    return str(Difference(row["drop"], row.drop_low, row.drop_high, row.p_holm)).removeprefix("+")


def _row(told: pd.DataFrame, name: str) -> str:
    row = told.loc[name]
    return (
        f"{Interval(row.estimate, row.low, row.high)} of {row.n_clips:.0f} clips (knowing nothing: {row.trivial:.2f})"
    )
