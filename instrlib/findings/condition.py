"""Sentences on the condition of instruments, made from numbers."""

import pandas as pd

from instrlib.intervals import Interval


def choice_sentence(described: pd.DataFrame, best: str, given_away: str, cnn: pd.Series) -> str:
    """Say which classifier of the measures was chosen, and how the network did on the same validation part.

    Parameters
    ----------
    described : pandas.DataFrame
        From `condition_study.describe`.
    best, given_away : str
        The one that `condition_study.choose` chose, and the one that is given away.
    cnn : pandas.Series
        The network's validation scores, with `validation_log_loss` and `validation_accuracy`.

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
    network = "better" if cnn.validation_log_loss < described.log_loss[best] else "not better"
    return (
        f"Of the classifiers of the measures, {best} has the least validation log loss ({losses}); {kept}. The CNN on "
        f"the log-mel spectrograms is {network} by validation: log loss {cnn.validation_log_loss:.3f}, accuracy "
        f"{cnn.validation_accuracy:.3f} against {described.accuracy[best]:.3f}."
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
        f"The {model} tells {best.kind} best (its condition is named rightly in {_interval(best)} of the versions) and "
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
        # Ends that are not known, of a single group, show nothing.
        worse = "" if row.high < 0 else ", better" if row.low > 0 else ", not shown to be worse"
        parts.append(
            f"{kind} {row.named_unseen:.2f} instead of {row.named_seen:.2f}{worse} "
            f"(called damaged at all: {row.noticed_unseen:.2f})"
        )
    return (
        f"Damage of a kind that the {model} was never trained on: its condition is named rightly in "
        f"{'; '.join(parts)}. What falls is the price of a damage that nobody thought of."
    )


def false_alarm_sentence(table: pd.DataFrame, model: str) -> str:
    """Say which instruments are called damaged although they are healthy.

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
    every = float((table.damaged * table.n).sum() / table.n.sum())
    worst, best = table.iloc[0], table.iloc[-1]
    return (
        f"The {model} calls {every:.0%} of the healthy versions damaged: most often {worst.name} "
        f"({worst.damaged:.0%}), least often {best.name} ({best.damaged:.0%})."
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
        return f"{row.estimate:.3f} (of one group, so without an interval)"
    return str(Interval(row.estimate, row.low, row.high))
