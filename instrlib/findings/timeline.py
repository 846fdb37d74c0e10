"""Sentences about timelines, made from their scores."""

import numpy as np
import pandas as pd

from instrlib.core.words import listed, spread
from instrlib.evaluation.intervals import Interval, corrected, is_shown
from instrlib.studies.timeline import POOLINGS
from instrlib.studies.timeline_scores import NEVER


def timeline_sentence(table: pd.DataFrame, model: str) -> str:
    """Say how well a timeline is found, frame by frame and event by event.

    Parameters
    ----------
    table : pandas.DataFrame
        From `timeline_scores.score_table`.
    model : str
        One of its models.

    Returns
    -------
    str
    """
    own = table[table.model == model].set_index("score")[["estimate", "low", "high"]]
    of = {score: Interval(*row) for score, row in zip(own.index, own.to_numpy(), strict=True)}
    return (
        f"Who plays when, {model} finds with an F1 of {of['frame_micro_f1']} of the seconds (mean over the "
        f"instruments {of['frame_macro_f1']}, error rate {of['error_rate']}). Of whole entries, with their begin to "
        f"within 1 s, it has an F1 of {of['event_micro_f1']}, to within half a second {of['event_micro_f1_half_s']}."
    )


def timeline_trivial_sentence(table: pd.DataFrame, compared: pd.DataFrame, model: str) -> str:
    """Say whether a timeline beats what needs no listening, and what knows the instruments but not when they play.

    Parameters
    ----------
    table : pandas.DataFrame
        From `timeline_scores.score_table`.
    compared : pandas.DataFrame
        From `timeline_scores.compare_trivial`.
    model : str
        Its name.

    Returns
    -------
    str
    """
    of = table.set_index(["score", "model"]).estimate
    own = compared.xs(model, level="first")
    f1 = _verdicts(own.xs("frame_micro_f1", level="score"), of["frame_micro_f1"])
    errors = own.loc[(NEVER, "error_rate")]
    way = "lower" if errors.difference < 0 else "higher"
    verdict = f"is {way} than" if is_shown(errors.p_holm) else "is not shown to differ from"
    return (
        f"Second by second {model} (F1 {of['frame_micro_f1', model]:.3f}) is {f1}. Its error rate of "
        f"{of['error_rate', model]:.3f} {verdict} the {of['error_rate', NEVER]:.3f} of naming nobody: "
        f"{corrected(errors)} (all p after Holm's correction for {len(compared)} comparisons)."
    )


def comparison_sentence(compared: pd.DataFrame, first: str, second: str, score: str, *, what: str) -> str:
    """Say which of two timelines is better, or that these pieces cannot show it, after correction.

    Parameters
    ----------
    compared : pandas.DataFrame
        From `timeline_scores.compare`; p is corrected for all of its rows.
    first, second, score : str
        One of them.
    what : str
        How the score is called.

    Returns
    -------
    str
    """
    row = compared.loc[(first, second, score)]
    verdict = (
        f"“{first}” is {'better' if row.difference > 0 else 'worse'} than “{second}”"
        if is_shown(row.p_holm)
        else f"These pieces do not show a difference between “{first}” and “{second}”"
    )
    return f"{verdict}: {what} {corrected(row)} after Holm's correction for {len(compared)} comparisons."


def sounding_sentence(by_number: pd.DataFrame, model: str) -> str:
    """Say how a timeline does by how many instruments sound at once.

    Parameters
    ----------
    by_number : pandas.DataFrame
        From `timeline_scores.by_number`.
    model : str
        One of its models.

    Returns
    -------
    str
    """
    own = by_number[by_number.model == model]
    frames = own[own.score == "frame_f1"]
    parts = [
        f"{row.n_sounding}: "
        + (str(Interval(row.estimate, row.low, row.high)) if np.isfinite(row.low) else f"{row.estimate:.3f}")
        for row in frames[np.isfinite(frames.estimate)].itertuples()
    ]
    named = own[own.score == "named"].iloc[0]
    silence = (
        f" Where nobody plays it names somebody in {named.estimate:.0%} of the seconds.".replace("%", " %")
        if named.n
        else ""
    )
    return f"By how many sound at once, {model} has a frame F1 of {'; '.join(parts)}.{silence}"


def instruments_sentence(by_class: pd.DataFrame, model: str) -> str:
    """Say which instrument's seconds are found best and worst, and how few ensembles say so.

    Parameters
    ----------
    by_class : pandas.DataFrame
        From `timeline_scores.by_class`.
    model : str
        One of its models.

    Returns
    -------
    str
    """
    own = by_class[(by_class.model == model) & by_class.frame_f1.notna()].set_index("class")
    best, worst = (
        f"{listed(f'`{name}`' for name in alike.index)} with a frame F1 of {f1:.3f} "
        f"(ensembles: {spread(alike.n_ensembles)})"
        for f1 in (own.frame_f1.max(), own.frame_f1.min())
        for alike in [own[own.frame_f1 == f1]]
    )
    return (
        f"Of the instruments in these pieces, {model} finds best {best} and worst {worst}. All are played by few "
        f"ensembles ({spread(own.n_ensembles)} each): with other players the order may be another."
    )


def pooling_sentence(chosen: str, lists: pd.DataFrame, table: pd.DataFrame, compared: pd.DataFrame) -> str:
    """Say which pooling was chosen for the list of a recording, and what it does on test pieces.

    Parameters
    ----------
    chosen : str
        The pooling that was chosen: "max" or "mean".
    lists : pandas.DataFrame
        From `timeline_scores.choose`.
    table : pandas.DataFrame
        From `timeline_scores.list_table`, with the poolings as models.
    compared : pandas.DataFrame
        From `timeline_scores.compare_lists`.

    Returns
    -------
    str
    """
    other = next(name for name in lists.index if name != chosen)
    of = table.set_index(["model", "score"])
    reached = Interval(*of.loc[(chosen, "micro_f1"), ["estimate", "low", "high"]])
    f1 = lists.micro_f1
    precision, recall = (of.estimate[chosen, score] for score in ("precision", "recall"))
    difference = compared.loc[("max", "mean", "micro_f1")]
    return (
        f"For the list of a recording's instruments {chosen} pooling was chosen on validation pieces (F1 "
        f"{f1[chosen]:.3f} against {f1[other]:.3f} of {other} pooling). On test pieces it has a precision of "
        f"{precision:.3f}, a recall of {recall:.3f} and an F1 of {reached}; max pooling less mean pooling: "
        f"{corrected(difference)} after Holm's correction for {len(compared)} comparisons."
    )


def list_trivial_sentence(chosen: str, table: pd.DataFrame, compared: pd.DataFrame) -> str:
    """Say whether the list of a recording's instruments beats lists that need no listening.

    Parameters
    ----------
    chosen : str
        The pooling that was chosen: "max" or "mean".
    table : pandas.DataFrame
        From `timeline_scores.list_table`, with the poolings and the trivial lists as models.
    compared : pandas.DataFrame
        From `timeline_scores.compare_lists`.

    Returns
    -------
    str
    """
    of = table.set_index(["score", "model"]).estimate
    own = compared.xs(chosen, level="first").drop(index=list(POOLINGS), level="second", errors="ignore")
    f1, ranking = own.xs("micro_f1", level="score"), own.xs("mean_average_precision", level="score")
    precision = of["mean_average_precision"]
    numbers = "; ".join(f"{corrected(row)} against “{name}”" for name, row in f1.iterrows())
    return (
        f"By its F1 ({of['micro_f1', chosen]:.3f}) that list is {_verdicts(f1, of['micro_f1'])}: {numbers}. By its "
        f"mean average precision ({precision[chosen]:.3f}) it is {_verdicts(ranking, precision)}, which stands for "
        f"every list that is the same for all pieces: {corrected(ranking.iloc[0])} (all p after Holm's correction for "
        f"{len(compared)} comparisons)."
    )


def _verdicts(rows: pd.DataFrame, scores: pd.Series) -> str:
    """Say what something is better than, worse than, and not shown to differ from; `rows` by the others' names."""
    shown = is_shown(rows.p_holm)
    kinds = (
        ("better than", rows.index[shown & (rows.difference > 0)]),
        ("worse than", rows.index[shown & (rows.difference < 0)]),
        ("not shown to differ from", rows.index[~shown]),
    )
    return "; ".join(
        f"{words} {listed(f'“{name}” ({scores[name]:.3f})' for name in names)}" for words, names in kinds if len(names)
    )
