"""Sentences on degraded recordings and on other domains, made from numbers."""

import numpy as np
import pandas as pd

from instrlib.audio.effects import DEGRADATIONS
from instrlib.core.words import begin, listed, spaced
from instrlib.evaluation.intervals import Interval, corrected, is_shown
from instrlib.studies.robustness import UNTOUCHED


def curve_sentences(scores: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """Say for each degradation how far it does no harm that can be shown, and what it costs beyond.

    Parameters
    ----------
    scores : pandas.DataFrame
        From `robustness.curves`.
    compared : pandas.DataFrame
        From `robustness.losses`.

    Returns
    -------
    list of str
        One sentence a degradation, and one before them that says what they are compared with.
    """
    untouched = _of(scores, UNTOUCHED, "accuracy")
    first = (
        f"Untouched, the held-out clips are named with an accuracy of {_read(untouched)}. What follows are "
        f"differences from it on the same clips, shown where p is below .05 after Holm's correction for "
        f"{len(compared)} comparisons."
    )
    return [first, *(_curve(name, own.droplevel(0)) for name, own in compared.groupby("degradation", sort=False))]


def confidence_sentence(scores: pd.DataFrame, compared: pd.DataFrame) -> str:
    """Say what the model's confidence and "none of these" are worth where it errs most.

    Parameters
    ----------
    scores, compared : pandas.DataFrame
        As for `curve_sentences`.

    Returns
    -------
    str
    """
    name, level = compared.difference.idxmin()
    rows = scores[(scores.degradation == name) & (scores.level == level)].set_index("score")
    at = f"{DEGRADATIONS[name].label} at {_level(name, level)}"
    gap, before = rows.loc["confidence_gap"], _of(scores, UNTOUCHED, "confidence_gap")
    refused, of_named = rows.estimate["refused"], rows.estimate["accuracy_of_named"]
    rest = (
        "nothing else is left"
        if np.isnan(of_named)
        else f"of the others {of_named:.0%} are right, against {rows.estimate['accuracy']:.0%} of all"
    )
    return (
        f"Accuracy is lowest under {at}. There the model is {_sure(gap)}: its mean confidence minus its accuracy is "
        f"{_read(gap).signed()}, untouched {_read(before).signed()}. It answers “none of these” to "
        f"{refused:.0%} (untouched {_of(scores, UNTOUCHED, 'refused').estimate:.0%}); {rest}."
    ).replace("%", " %")


def domain_sentences(table: pd.DataFrame, home: str, *, chosen_on: str = "") -> list[str]:
    """Say how a model does in each domain: how often it is right, and whether it knows how often.

    Parameters
    ----------
    table : pandas.DataFrame
        From `robustness.domain_scores`.
    home : str
        The domain that the model was trained in.
    chosen_on : str
        The domain that the model's recipe was chosen on, if any: its score there is flattered.

    Returns
    -------
    list of str
        One sentence a domain, the home first.
    """
    order = [home, *(name for name in table.domain.unique() if name != home)]
    said = {name: _domain(table[table.domain == name].set_index("score"), name) for name in order}
    if chosen_on in said:
        said[chosen_on] += " The recipe of the model was chosen on this domain, so that score is flattered."
    return list(said.values())


def refusal_sentences(compared: pd.DataFrame) -> list[str]:
    """Say whether a model refuses what it does not know.

    Parameters
    ----------
    compared : pandas.DataFrame
        From `robustness.refusal_of_unknown`.

    Returns
    -------
    list of str
        One sentence a domain; one that says so where no domain holds anything that the model does not know.
    """
    if compared.empty:
        return ["No domain at hand holds instruments that the model does not know, so its refusals were not tried."]
    return [_refusal(name, row, len(compared)) for name, row in compared.iterrows()]


def unknown_sentence(answers: pd.DataFrame, domain: str) -> str:
    """Say what the model takes each class for that it does not know.

    Parameters
    ----------
    answers : pandas.DataFrame
        From `robustness.answers_to_unknown`.
    domain : str
        Where the clips come from.

    Returns
    -------
    str
    """
    parts = [
        f"{spaced(name)} most often for {spaced(row.taken_for)} ({row.share:.0%} of {row.n:.0f}; {row.refused:.0%} "
        f"refused)"
        for name, row in answers.iterrows()
    ]
    return f"Of what it does not know in {domain}, the model takes {listed(parts)}.".replace("%", " %")


def _curve(name: str, rows: pd.DataFrame) -> str:
    one = DEGRADATIONS[name]
    levels = [level for level in one.levels if level in rows.index]
    worse = [bool(is_shown(rows.p_holm[level]) and rows.difference[level] < 0) for level in levels]
    # From where on every level costs something: a single one among others that do not would be no threshold.
    first = len(levels) - next((n for n, lost in enumerate(reversed(worse)) if not lost), len(levels))
    last = rows.loc[levels[-1]]
    label = begin(one.label)
    if first == len(levels):
        lone = [_level(name, level) for level, lost in zip(levels, worse, strict=True) if lost]
        but = f", though one at {listed(lone)}" if lone else ""
        return f"{label}: no loss is shown, not even at {_level(name, levels[-1])} ({corrected(last)}){but}."
    at = rows.loc[levels[first]]
    begins = f"at {_level(name, levels[first])} accuracy changes by {corrected(at)}"
    ends = "" if first == len(levels) - 1 else f" and at {_level(name, levels[-1])} by {corrected(last)}"
    way = "up" if one.worse == "higher" else "down"
    fine = f"no loss is shown {way} to {_level(name, levels[first - 1])}; " if first else "it costs from the first: "
    return f"{label}: {fine}{begins}{ends}."


def _domain(rows: pd.DataFrame, name: str) -> str:
    accuracy, gap, ece = (rows.loc[score] for score in ("accuracy", "confidence_gap", "expected_calibration_error"))
    trivial, named, refused = (rows.estimate[one] for one in ("most_frequent", "accuracy_of_named", "refused"))
    beats = "above" if accuracy.low > trivial else "below" if accuracy.high < trivial else "not shown to differ from"
    of_named = "" if np.isnan(named) else f" and is right in {named:.0%} of the others"
    return (
        f"On {name} ({accuracy.n:.0f} clips of {accuracy.n_groups:.0f} groups, instruments that it knows) the model "
        f"has an accuracy of {_read(accuracy)}, {beats} the {trivial:.3f} of always naming the most frequent; it "
        f"is {_sure(gap)} (confidence minus accuracy {_read(gap).signed()}, calibration error "
        f"{ece.estimate:.3f}), refuses {refused:.0%}{of_named}."
    ).replace("%", " %")


def _refusal(name: str, row: pd.Series, n: int) -> str:
    shown = bool(is_shown(row.p_holm))
    refuses = (
        f"refuses unknown instruments {'more' if row.difference > 0 else 'less'} often than known ones"
        if shown
        else "is not shown to refuse unknown instruments more often than known ones"
    )
    told = (
        "the top probability tells the two apart"
        if row.auroc_low > 0.5
        else "the top probability is higher for the unknown"
        if row.auroc_high < 0.5
        else "the top probability is not shown to tell the two apart"
    )
    correction = f" after Holm's correction for {n} domains" if n > 1 else ""
    return (
        f"On {name} the model {refuses}: {row.refused_unknown:.0%} of {row.n_unknown:.0f} against "
        f"{row.refused_known:.0%} of {row.n_known:.0f} ({corrected(row)}{correction}); {told} (area under the ROC "
        f"curve {Interval(row.auroc, row.auroc_low, row.auroc_high)}, a coin has .5)."
    ).replace("%", " %")


def _of(scores: pd.DataFrame, degradation: str, score: str) -> pd.Series:
    return scores[(scores.degradation == degradation) & (scores.score == score)].iloc[0]


def _sure(gap: pd.Series) -> str:
    """Say what the interval of mean confidence minus accuracy says."""
    if gap.low > 0:
        return "too sure"
    return "not sure enough" if gap.high < 0 else "not shown to be too sure or not sure enough"


def _level(name: str, level: float) -> str:
    return f"{level:g} {DEGRADATIONS[name].unit}"


def _read(row: pd.Series) -> Interval:
    return Interval(row.estimate, row.low, row.high)
