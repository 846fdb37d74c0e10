"""Sentences on the condition of instruments, made from numbers."""

import pandas as pd

from instrlib.core.words import spread
from instrlib.evaluation.intervals import Interval, is_shown


def choice_sentence(described: pd.DataFrame, best: str, given_away: str, cnn: pd.Series) -> str:
    """Say which classifier of the measures was chosen, and how the network did on the same validation part.

    Parameters
    ----------
    described : pandas.DataFrame
        From `condition_study.describe`.
    best, given_away : str
        The one that `condition_study.choose` chose, and the one that is given away.
    cnn : pandas.Series
        The network's validation scores after its own temperature, from `condition_study.calibrate`.

    Returns
    -------
    str
    """
    losses = ", ".join(f"{name} {row.log_loss:.3f}" for name, row in described.iterrows())
    kept = (
        "it is given away as plain numbers"
        if best == given_away
        else f"given away is the {given_away}, a few plain numbers, with {described.accuracy[given_away]:.3f} right"
    )
    network = "better" if cnn.log_loss < described.log_loss[best] else "not better"
    return (
        f"Of the classifiers of the measures, {best} has the least validation log loss ({losses}); {kept}. The CNN on "
        f"the log-mel spectrograms, at a temperature that was fitted in the same way, is {network} by validation: log "
        f"loss {cnn.log_loss:.3f}, accuracy {cnn.accuracy:.3f} against {described.accuracy[best]:.3f}."
    )


def severity_sentence(table: pd.DataFrame, model: str) -> str:
    """Say how severe a damage must be to be told.

    Parameters
    ----------
    table : pandas.DataFrame
        From `condition_study.by_severity`.
    model : str
        One of its models.

    Returns
    -------
    str
    """
    own = table[table.model == model]
    parts = []
    for condition in own[own.up_to > 0].condition.unique():
        rows = own[own.condition == condition].sort_values("up_to")
        mild, severe = rows.iloc[0], rows.iloc[-1]
        parts.append(
            f"{condition} versions {_interval(mild)} at a severity of {mild.above:g} to {mild.up_to:g} and "
            f"{_interval(severe)} at {severe.above:g} to {severe.up_to:g}"
        )
    healthy = own[own.up_to == 0].iloc[0]
    return f"Named rightly by the {model}: {'; '.join(parts)}; healthy versions {_interval(healthy)}."


def kind_sentence(table: pd.DataFrame, model: str) -> str:
    """Say which kind of damage is told best and which worst.

    Parameters
    ----------
    table : pandas.DataFrame
        From `condition_study.by_kind`.
    model : str
        One of its models.

    Returns
    -------
    str
    """
    own = table[(table.model == model) & (table.kind != "none")].sort_values("estimate", kind="stable")
    worst, best = own.iloc[0], own.iloc[-1]
    return (
        f"The {model} tells {best.kind} best (of its versions the condition is named rightly: {_interval(best)}) and "
        f"{worst.kind} worst ({_interval(worst)})."
    )


def unseen_sentence(table: pd.DataFrame, model: str) -> str:
    """Say how a classifier does on a kind of damage that it was not trained on.

    Parameters
    ----------
    table : pandas.DataFrame
        From `condition_study.compare_unseen`.
    model : str
        The classifier.

    Returns
    -------
    str
    """
    parts = []
    for kind, row in table.iterrows():
        # A p that is not known, of a single group, shows nothing.
        sure = is_shown(row.p_holm)
        worse = "not shown to differ" if not sure else "worse" if row.difference < 0 else "better"
        more = row.noticed_more > 0 and is_shown(row.noticed_more_p_holm)
        parts.append(
            f"{kind} {row.named_unseen:.2f} instead of {row.named_seen:.2f} ({worse}; called damaged at all: "
            f"{row.noticed_unseen:.2f}, and so are {row.alarms_unseen:.2f} of the healthy versions: "
            f"{'noticed' if more else 'not shown to be noticed'})"
        )
    return (
        f"Damage of a kind that the {model} was never trained on: its condition is named rightly in "
        f"{'; '.join(parts)}. A kind is noticed where its versions are called damaged more often than the healthy "
        f"versions of the same clips; p is corrected for {len(table)} kinds after Holm."
    )


def false_alarm_sentence(table: pd.DataFrame, model: str) -> str:
    """Say how often healthy instruments are called damaged.

    Parameters
    ----------
    table : pandas.DataFrame
        From `condition_study.false_alarms`.
    model : str
        The model.

    Returns
    -------
    str
    """
    n = table.n.sum()
    every = float((table.damaged * table.n).sum() / n)
    # In the order of their names: the few groups of each do not say which instrument is judged worst.
    parts = [f"{name} {row.damaged:.0%} of {row.n:.0f}" for name, row in table.iterrows()]
    return (
        f"The {model} calls {every:.0%} of the {n} healthy versions damaged ({', '.join(parts)}). Instruments were "
        f"not compared with each other: the versions of one come from {spread(table.n_groups)} groups."
    )


def measures_sentence(table: pd.DataFrame, labels: dict[str, str]) -> str:
    """Say which single measure tells each kind of damage best.

    Parameters
    ----------
    table : pandas.DataFrame
        From `condition_study.separation`, with the kinds of damage as columns.
    labels : dict of str to str
        The measures in words.

    Returns
    -------
    str
    """
    best = table.idxmax()
    parts = [f"{kind} by the {labels[name]} ({table[kind][name]:.2f})" for kind, name in best.items()]
    return (
        "The single measure that tells each damage best from healthy versions, by the area under the ROC curve on the "
        f"training part (.5 tells nothing): {', '.join(parts)}."
    )


def rules_sentence(thresholds: dict[str, float], labels: dict[str, str]) -> str:
    """Say what the three thresholds are.

    Parameters
    ----------
    thresholds : dict of str to float
        From `condition_study.rules`.
    labels : dict of str to str
        The measures in words.

    Returns
    -------
    str
    """
    noise, flat, varied = thresholds
    return (
        f"The rules, as the training part set them: broken when the {labels[noise]} is below {thresholds[noise]:.3g} "
        f"or the {labels[flat]} above {thresholds[flat]:.3g}; else aged when the {labels[varied]} is above "
        f"{thresholds[varied]:.3g}; else healthy."
    )


def _interval(row: pd.Series) -> str:
    if pd.isna(row.low):
        return f"{_share(row)} (of one group, so without an interval)"
    if row.estimate in (0, 1):
        return _share(row)
    return str(Interval(row.estimate, row.low, row.high))


def _share(row: pd.Series) -> str:
    """Write a share; where no resample could differ, as a count."""
    return {0: f"none of {row.n:.0f}", 1: f"all {row.n:.0f}"}.get(row.estimate, f"{row.estimate:.3f}")
