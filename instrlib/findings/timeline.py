"""Sentences about timelines, made from their scores."""

import numpy as np
import pandas as pd

from instrlib.intervals import Difference, Interval


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
        From `timeline_scores.compare`: pairs of the model with each of these.
    model : str
        Its name.

    Returns
    -------
    str
    """
    frames = compared.xs(model, level="first").xs("frame_micro_f1", level="score")
    f1 = table[table.score == "frame_micro_f1"].set_index("model").estimate
    better, worse = frames.index[frames.low > 0], frames.index[frames.high < 0]
    open_ = frames.index.difference([*better, *worse], sort=False)
    verdicts = [
        f"{words} {', '.join(f'“{name}” ({f1[name]:.3f})' for name in names)}"
        for words, names in (("better than", better), ("worse than", worse), ("not shown to differ from", open_))
        if len(names)
    ]
    return f"Second by second {model} (F1 {f1[model]:.3f}) is {'; '.join(verdicts)}."


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
        f"{row.n_sounding}: {Interval(row.estimate, row.low, row.high)}"
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
    """Say which instrument's seconds are found best and worst.

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
        (name, Interval(*own.loc[name, ["frame_f1", "frame_f1_low", "frame_f1_high"]]))
        for name in (own.frame_f1.idxmax(), own.frame_f1.idxmin())
    )
    return (
        f"The instrument that {model} finds best is `{best[0]}`, with a frame F1 of {best[1]}; the worst is "
        f"`{worst[0]}` with {worst[1]}."
    )


def pooling_sentence(chosen: str, lists: pd.DataFrame, table: pd.DataFrame, difference: Difference) -> str:
    """Say which pooling was chosen for the list of a recording, and what it does on test pieces.

    Parameters
    ----------
    chosen : str
        The pooling that was chosen: "max" or "mean".
    lists : pandas.DataFrame
        From `timeline_scores.choose`.
    table : pandas.DataFrame
        From `timeline_scores.list_table`, with the poolings as models.
    difference : Difference
        F1 on test pieces of max pooling minus mean pooling.

    Returns
    -------
    str
    """
    other = next(name for name in lists.index if name != chosen)
    of = table.set_index(["model", "score"])
    reached = Interval(*of.loc[(chosen, "micro_f1"), ["estimate", "low", "high"]])
    f1 = lists.micro_f1
    precision, recall = (of.estimate[chosen, score] for score in ("precision", "recall"))
    return (
        f"For the list of a recording's instruments {chosen} pooling was chosen on validation pieces (F1 "
        f"{f1[chosen]:.3f} against {f1[other]:.3f} of {other} pooling). On test pieces it has a precision of "
        f"{precision:.3f}, a recall of {recall:.3f} and an F1 of {reached}; max pooling less mean pooling: "
        f"{difference}."
    )
