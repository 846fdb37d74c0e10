"""What the whole study says, and what it cannot say."""

import pandas as pd

from instrlib.core.words import listed
from instrlib.evaluation.intervals import Difference, Interval, p_text
from instrlib.evaluation.statistics import LEVEL
from instrlib.reporting import overview
from instrlib.reporting.overview import Facts, Notebooks, score_name


def study_sentences(notebooks: Notebooks) -> list[str]:
    """Say what the whole study found.

    Parameters
    ----------
    notebooks : dict
        What `overview.open_notebooks` gives, or a part of `results.json`.

    Returns
    -------
    list of str
    """
    compared, scored, cost = overview.comparisons(notebooks), overview.models(notebooks), overview.costs(notebooks)
    said = [held_sentence(compared), *comparison_sentences(compared)] if len(compared) else []
    said += [best_sentence(scored)] if len(scored) else []
    if len(cost) > 1:
        said.append(work_sentence(cost, overview.unbeaten(cost), scored.score.iloc[0]))
    return [*said, check_sentence(overview.checks(notebooks))]


def held_sentence(table: pd.DataFrame) -> str:
    """Say how many of the notebooks' main differences are shown, after correction for their number.

    Parameters
    ----------
    table : pandas.DataFrame
        What `overview.comparisons` gives.

    Returns
    -------
    str
    """
    shown, rest = table[table.shown], table[~table.shown]
    named = f" Shown: {listed(name[:2] for name in shown.index)}." if len(shown) else ""
    others = f" Not shown: {listed(name[:2] for name in rest.index)}." if len(rest) else ""
    return (
        f"Of the {len(table)} main comparisons of this study, one a notebook, {len(shown) or 'none'} "
        f"{'shows' if len(shown) == 1 else 'show'} a difference after Holm's correction for all of them."
        f"{named}{others}"
    )


def comparison_sentences(table: pd.DataFrame) -> list[str]:
    """Say of each main comparison how it ended.

    Parameters
    ----------
    table : pandas.DataFrame
        What `overview.comparisons` gives.

    Returns
    -------
    list of str
    """
    said = []
    for name, row in table.iterrows():
        verdict = (
            f"“{row['first']}” is {'above' if row.difference > 0 else 'below'} “{row['second']}”"
            if row.shown
            else f"no difference is shown between “{row['first']}” and “{row['second']}”"
        )
        picked = f", the least of {row.family} and corrected for them," if row.family > 1 else ""
        numbers = (
            f"{Difference(row.difference, row.low, row.high, row.p)}{picked} and {p_text(row.p_holm)} "
            "after correction over the study"
            if pd.notna(row.p)
            else "too few groups to tell"
        )
        said.append(f"{name[:2]}: {verdict} ({row.score} {numbers}).")
    return said


def best_sentence(table: pd.DataFrame) -> str:
    """Name the best model, and which others its interval does not tell apart from it.

    Parameters
    ----------
    table : pandas.DataFrame
        What `overview.models` gives.

    Returns
    -------
    str
    """
    trained = table[table.kind == "trained"].sort_values("estimate", ascending=False, kind="stable")
    best = trained.iloc[0]
    trivial = table[table.kind == "trivial"].sort_values("estimate", ascending=False, kind="stable").head(1)
    inside = int((trained.estimate.iloc[1:] >= best.low).sum())
    beside = "".join(
        f" The best trivial answer, “{row.model}”, has {Interval(row.estimate, row.low, row.high)}."
        for row in trivial.itertuples()
    )
    within = f" Of the others {inside} lie within its interval." if pd.notna(best.low) else ""
    return (
        f"Of the {len(trained)} trained models that answered the same test clips “{best.model}” ({best.notebook[:2]}) "
        f"has the highest {score_name(best.score)}, {Interval(best.estimate, best.low, best.high)}. It is picked by "
        f"this score from so many, so it is flattered.{within}{beside}"
    )


def work_sentence(table: pd.DataFrame, unbeaten: pd.Series, metric: str) -> str:
    """Name the models that no other beats at both score and work.

    Parameters
    ----------
    table : pandas.DataFrame
        What `overview.costs` gives.
    unbeaten : pandas.Series of bool
        What `overview.unbeaten` gives of it.
    metric : str
        Name of the score.

    Returns
    -------
    str
    """
    front = table[unbeaten].drop_duplicates(["multiply_adds", "estimate"]).sort_values("multiply_adds")
    named = listed(
        f"“{row.model}” ({row.estimate:.3f} for {row.multiply_adds / 1e6:.2g})" for row in front.itertuples()
    )
    return (
        f"By {score_name(metric)} and million multiply-adds a segment, {named} are beaten by none of the "
        f"{len(table)} at both; of the steps between them no test was made."
        if len(front) > 1
        else f"“{front.model.iloc[0]}” has the best {score_name(metric)} ({front.estimate.iloc[0]:.3f}) and takes the "
        f"least work of all {len(table)}."
    )


def check_sentence(table: pd.DataFrame) -> str:
    """Say whether the notebooks' numbers belong together.

    Parameters
    ----------
    table : pandas.DataFrame
        What `overview.checks` gives.

    Returns
    -------
    str
    """
    failed = table[~table.holds]
    if failed.empty:
        return f"All {len(table)} checks that the notebooks' numbers belong together hold."
    return (
        f"{len(table) - len(failed)} of {len(table)} checks that the notebooks' numbers belong together hold. Not so: "
        + "; ".join(f"{check} ({row.detail})" for check, row in failed.iterrows())
        + "."
    )


def limit_sentences(facts: Facts, table: pd.DataFrame) -> list[str]:
    """Say what the study cannot say.

    Parameters
    ----------
    facts : Facts
        What bounds it.
    table : pandas.DataFrame
        What `overview.comparisons` gives.

    Returns
    -------
    list of str
    """
    said = []
    of_part = [name for name in table.index if name[:2] in overview.ONE_TEST_PART]
    same_clips = table.loc[of_part][lambda rows: rows.score.isin(("accuracy", "label accuracy"))]
    widths = ((same_clips.high - same_clips.low) / 2).dropna()
    if facts.n_tested and len(widths):
        said.append(
            f"With {facts.n_tested} test clips the intervals of the main differences of accuracy on them reach "
            f"{widths.median():.2f} to either side (median of {len(widths)}): much smaller differences would not have "
            "been seen, and “not shown” does not mean “none”."
        )
    if facts.n_groups:
        said.append(
            f"The corpus has {facts.n_groups} groups, and clips of a group resemble each other; with few groups in the "
            "test part bootstrap intervals are more likely too narrow than too wide."
        )
    if facts.epochs < facts.full_epochs:
        said.append(
            f"In the profile “{facts.profile}” the networks that are compared were trained for at most {facts.epochs} "
            f"epochs (“full”: {facts.full_epochs}): what pays only in longer trainings shows too little."
        )
    said.append(
        "Each network was trained from one seed: how far seeds differ is not known, and stands in no interval."
        if facts.seeds == 1
        else f"Each network of our own that is compared was trained from {facts.seeds} seeds, each published one from "
        f"the first of them. Drawn again with replacement they show {facts.seeds - 1} of {facts.seeds} parts of their "
        "variance, so intervals over seeds are a little too narrow."
    )
    if facts.corpus == "rendered":
        said.append(
            "The clips are phrases played by soundfonts. What holds for them need not hold for recordings; notebook 13 "
            "measures how far it does, where recordings are at hand."
        )
    if len(table) and table.p.notna().any() and (least := len(table) * table.p.min()) >= 1 - LEVEL:
        said.append(
            f"The least p is {table.p.min():.3f}; corrected for {len(table)} comparisons it is {min(least, 1):.2f}, so "
            "nothing can be shown over the whole study."
        )
    said += [facts.simulated] if facts.simulated else []
    said += list(facts.not_at_hand)
    if facts.not_compared:
        said.append("Domains that share sounds were not compared: " + " ".join(facts.not_compared))
    if facts.missing:
        said.append(f"Not run, and so not told here: {listed(facts.missing)}.")
    said.append(
        "Which comparison is a notebook's main one is fixed in the code, or found by a rule that its p is corrected "
        "for. Earlier runs had been seen when it was fixed: no preregistration."
    )
    said.append(
        "Apart from the main comparisons, p is corrected within a notebook's family of comparisons alone; numbers "
        "without a test are descriptions."
    )
    return said
