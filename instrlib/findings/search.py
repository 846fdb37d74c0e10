"""What the random search found."""

from collections.abc import Iterable

import pandas as pd

from instrlib.models.search import CHANCE, Search, axes, endings


def search_sentence(found: Search) -> str:
    """Say how many networks were drawn and trained, what became of the others, and which was chosen.

    Parameters
    ----------
    found : Search
        A finished search.

    Returns
    -------
    str
    """
    status = endings(found).status
    others = [
        f"{(status == name).sum()} {words}"
        for name, words in (
            ("too large", "cost more than the budget"),
            ("failed", "failed or could not be built"),
            ("died", "took their process down"),
        )
        if (status == name).any()
    ]
    space = [axis.name for axis in axes(found.space)]
    chosen = [", ".join(f"{name} {winner.values[name]:.3g}" for name in space) for winner in found.winners]
    named = f"chosen by validation loss: {chosen[0]}" if len(set(chosen)) == 1 else "each fold chose its own"
    return (
        f"{len(status)} networks were drawn from the space “{found.space}” and {(status == 'done').sum()} of them "
        f"trained{'; ' + ', '.join(others) if others else ''}; {named}."
    )


def space_costs_sentence(costs: pd.DataFrame, searched: Iterable[str]) -> str:
    """Say what the networks of the space of freesound-cutmix cost against ours, and whether it was searched here.

    Parameters
    ----------
    costs : pandas.DataFrame
        What `search.costs` gives for the spaces "own" and "reference".
    searched : iterable of str
        The spaces that were searched.

    Returns
    -------
    str
    """
    theirs, ours = costs.loc["reference"], costs.loc["own"]
    verdict = "" if "reference" in searched else "; this profile cannot afford to search it, the profile full does"
    return (
        f"A network of the space of freesound-cutmix takes {theirs.multiply_adds / 1e6:.0f} million multiply-adds and "
        f"has {theirs.parameters / 1e6:.1f} million parameters (medians), ours {ours.multiply_adds / 1e6:.0f} and "
        f"{ours.parameters / 1e6:.2f} million; {theirs.within_budget} of {theirs.built} and {ours.within_budget} of "
        f"{ours.built} are within the budget{verdict}."
    )


def importance_sentence(table: pd.DataFrame, n_trials: int) -> str:
    """Say which hyperparameter explains most of the validation loss, or that so few trials do not show it.

    Parameters
    ----------
    table : pandas.DataFrame
        What `search.importance` gives.
    n_trials : int
        Trials behind it: those that were trained in all folds.

    Returns
    -------
    str
    """
    rows = table.drop(index=CHANCE)
    sure = rows[(rows.low > 0) & (rows.low > table.importance[CHANCE])].sort_values("importance", ascending=False)
    if sure.empty:
        return f"{n_trials} trials do not show that any one hyperparameter explains the validation loss."
    named = "; ".join(
        f"{name} {row.importance:.2f} [{row.low:.2f}, {row.high:.2f}] (rank correlation {row.spearman:+.2f})"
        for name, row in sure.iterrows()
    )
    return f"Over {n_trials} trials these explain the validation loss better than chance: {named}."


def regression_sentence(table: pd.DataFrame) -> str:
    """Say whether the winner looked better in the search than from any of the fresh seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        What `search.regression_to_the_mean` gives.

    Returns
    -------
    str
    """
    row = table.loc["validation_loss"]
    if row.search < row.lowest:
        verdict = "in the search it was lower than from any of the fresh seeds"
    else:
        place = "lies within what fresh seeds give"
        if row.search > row.highest:
            place = "was higher than from any of the fresh seeds"
        verdict = f"in the search it {place}, so it is not shown that the search flattered it"
    return (
        f"In the search the winner's validation loss was {row.search:.3f}; from fresh seeds it is {row.again:.3f} "
        f"({row.lowest:.3f} to {row.highest:.3f}): {verdict}."
    )
