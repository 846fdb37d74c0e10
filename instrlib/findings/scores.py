"""What a score, a difference of two and a matrix of mistakes say."""

import pandas as pd

from instrlib.core.words import begin, listed
from instrlib.evaluation.intervals import Interval, corrected, is_shown


def score_sentence(table: pd.DataFrame, model: str, score: str = "accuracy") -> str:
    """Say what a model scores on the test part, with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        From `statistics.score_table`.
    model, score : str
        A row of it.

    Returns
    -------
    str
    """
    row = table[(table.model == model) & (table.score == score)].iloc[0]
    reached = Interval(row.estimate, row.low, row.high)
    return f"{begin(model)} reaches a test {score.replace('_', ' ')} of {reached}."


def differences_sentence(table: pd.DataFrame, reference: str, what: str = "accuracy") -> str:
    """Say which variants are better or worse than a reference, after correction for their number.

    Parameters
    ----------
    table : pandas.DataFrame
        What `statistics.compare` gives.
    reference : str
        The variant that they were compared with.
    what : str
        Name of the score.

    Returns
    -------
    str
    """
    sure = table[is_shown(table.p_holm)]
    kinds = (("better", sure[sure.difference > 0]), ("worse", sure[sure.difference < 0]))
    said = [
        f"{listed(rows.index)} {'is' if len(rows) == 1 else 'are'} {kind} than {reference}"
        for kind, rows in kinds
        if len(rows)
    ]
    numbers = [str(corrected(row)) for row in table.itertuples()]
    if len(table) == 1:
        verdict = said[0] if said else f"{table.index[0]} is not shown to differ from {reference}"
        return f"{begin(verdict)}: {what} {numbers[0]}."
    verdict = ", ".join(said) if said else f"None of the {len(table)} is shown to differ from {reference}"
    named = "; ".join(f"{name} {number}" for name, number in zip(table.index, numbers, strict=True))
    return f"{begin(verdict)} ({what}; p after Holm's correction): {named}."


def pair_sentences(table: pd.DataFrame, what: str = "accuracy") -> list[str]:
    """Say of each pair which is better, or that these clips cannot show it, after correction for their number.

    Parameters
    ----------
    table : pandas.DataFrame
        What `statistics.compare` gives.
    what : str
        Name of the score.

    Returns
    -------
    list of str
    """
    said = []
    for (first, second), row in table.iterrows():
        if is_shown(row.p_holm):
            verdict = f"“{first}” is {'better' if row.difference > 0 else 'worse'} than “{second}”"
        else:
            verdict = f"These clips do not show a difference between “{first}” and “{second}”"
        said.append(f"{verdict}: {what} {corrected(row)} after Holm's correction for {len(table)} comparisons.")
    return said
