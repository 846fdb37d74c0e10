"""What the network listens to, and whether the map of it can be trusted."""

import numpy as np
import pandas as pd

from instrlib.core.words import listed
from instrlib.evaluation.intervals import Difference, Interval, corrected, is_shown


def attention_sentence(summary: pd.DataFrame) -> str:
    """Say at which frequencies the network listens to which class, against where the sound is.

    Parameters
    ----------
    summary : pandas.DataFrame
        What `attention.frequency_summary` gives.

    Returns
    -------
    str
    """
    summary = summary[summary.recognised >= 0.5]
    if len(summary) < 2:
        return "Fewer than two classes are recognised half of the time, so their maps are not compared."
    ratio = summary.median_hz / summary.sound_hz
    lowest, highest = summary.loc[summary.median_hz.idxmin()], summary.loc[summary.median_hz.idxmax()]
    return (
        f"Of the classes that are recognised at least half of the time, half of the map lies below "
        f"{lowest.median_hz / 1000:.1f} kHz for {lowest.name} (the lowest) and below "
        f"{highest.median_hz / 1000:.1f} kHz for {highest.name} (the highest). That is {ratio.max():.1f} times the "
        f"frequency below which half of the sound lies for {ratio.idxmax()} (the most) and {ratio.min():.1f} times for "
        f"{ratio.idxmin()} (the least)."
    )


def agreement_sentence(another_seed: Interval | None, another_clip: Interval | None) -> str:
    """Say how far the maps of several seeds agree, and how much of a map is the same for every clip of its class.

    Parameters
    ----------
    another_seed, another_clip : Interval or None
        Rank correlations; see `faithfulness.similarities`. None where there was nothing to compare.

    Returns
    -------
    str
    """
    if another_seed is None:
        return "With one seed it cannot be said whether networks agree on what they listen to."
    if another_clip is None:
        return f"Networks of different seeds agree on a clip's map to a rank correlation of {another_seed}."
    more = another_seed.low > another_clip.high
    verdict = (
        "so they agree on more than the place that the class always has"
        if more
        else "so what they agree on may be no more than the place that the class always has"
    )
    return (
        f"Networks of different seeds agree on a clip's map to a rank correlation of {another_seed}; maps of two clips "
        f"of a class agree to {another_clip}: {verdict}."
    )


def faithfulness_sentence(table: pd.DataFrame, areas: pd.DataFrame) -> str:
    """Say which orders the map is more faithful than, which not, and whether it adds anything to loudness.

    Parameters
    ----------
    table : pandas.DataFrame
        What `faithfulness.against_map` gives.
    areas : pandas.DataFrame
        What `faithfulness.area_table` gives.

    Returns
    -------
    str
    """
    sure = is_shown(table.p_holm)
    kinds = (
        ("more faithful than", table[sure & (table.difference < 0)]),
        ("less faithful than", table[sure & (table.difference > 0)]),
        ("not shown to differ from", table[~sure]),
    )
    verdict = ", ".join(f"{kind} {listed(rows.index)}" for kind, rows in kinds if len(rows))
    numbers = "; ".join(f"{name} {corrected(row)}" for name, row in table.iterrows())
    reached = Interval(*areas.iloc[0][["overall", "overall_low", "overall_high"]])
    return (
        f"The {areas.index[0]} scores {reached} (area under insertion minus that under deletion; 0 is chance). It is "
        f"{verdict} (differences from it, p after Holm's correction: {numbers})."
    )


def loudness_sentence(difference: Difference) -> str:
    """Say whether the map knows something that loudness does not.

    Parameters
    ----------
    difference : Difference
        Score of the loudest points of the map minus that of the loudest points; see `faithfulness.compare_orders`.

    Returns
    -------
    str
    """
    if difference.low > 0:
        verdict = "The map knows something that loudness does not"
    elif difference.high < 0:
        verdict = "The map misleads: loudness alone does better"
    else:
        verdict = "These clips do not show that the map knows anything that loudness does not"
    return f"{verdict}: the loudest points within the map against the loudest points alone, {difference}."


def randomisation_sentence(first: Interval, last: Interval, reference: Interval | None) -> str:
    """Say whether the map follows what the network has learned.

    Parameters
    ----------
    first, last : Interval
        Absolute rank correlation with the map when the last layer's weights, and when all, are replaced by random ones.
    reference : Interval or None
        Rank correlation with the map of another seed; without it the bar is 0.5.

    Returns
    -------
    str
    """
    if np.isnan(last.high):
        verdict = "with one group it cannot be said how sure that is"
    elif last.high < (reference.low if reference else 0.5):
        verdict = "the map depends on what was learned"
    else:
        verdict = "it is not shown that the map depends on what was learned"
    against = f" (another seed's network: {reference.estimate:.2f})" if reference else ""
    return (
        f"With random weights in the last layer the map keeps an absolute rank correlation of {first} with itself, "
        f"with random weights throughout {last}{against}: {verdict}."
    )
