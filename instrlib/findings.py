"""Sentences made from numbers: what a notebook found is computed, never typed."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from instrlib.corpora.base import Corpus, unusable
from instrlib.intervals import LEVEL, Difference, Interval
from instrlib.layered_scores import all_present_f1
from instrlib.leak import PROTOCOLS, Leak
from instrlib.metrics import most_confused
from instrlib.search import CHANCE, Search, axes, endings
from instrlib.splits import PARTS, Split
from instrlib.store import FeatureStore


def corpus_sentence(clips: Corpus, store: FeatureStore) -> str:
    """Say what the corpus holds, and how many clips could not be used.

    Parameters
    ----------
    clips : Corpus
        As it was loaded.
    store : FeatureStore
        Its features.

    Returns
    -------
    str
    """
    counts = clips.manifest.label.value_counts()
    if clips.labels is not None:
        counts = pd.Series((clips.labels == 1).sum(axis=0))
    n_unusable = len(store.problems) + len(unusable(clips.problems))
    return (
        f"`{clips.name}` holds {len(clips.manifest):,} clips of {len(clips.classes)} classes "
        f"({_range(counts)} a class) in {clips.manifest.group.nunique():,} groups, "
        f"{clips.manifest.duration_s.sum() / 60:.0f} minutes in all; they give {len(store.segments):,} segments of "
        f"{store.config.segment_s:g} s. "
        + (f"{n_unusable} clips could not be used." if n_unusable else "Every clip could be used.")
    )


def split_sentence(clips: pd.DataFrame, splits: Sequence[Split]) -> str:
    """Say how large the parts are and that no group crosses them.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `clip_id` and `group`.
    splits : sequence of Split
        One, or those of a cross-validation; that they have no leak was checked when they were made.

    Returns
    -------
    str
    """
    of_clip = clips.clip_id.map(splits[0].parts)
    sizes = ", ".join(
        f"{part} {(of_clip == part).sum()} clips in {clips.group[of_clip == part].nunique()} groups" for part in PARTS
    )
    if len(splits) == 1:
        return f"The split is by groups: {sizes}; no group stands in two parts."
    return (
        f"The clips are few, so there are {len(splits)} splits by groups, in which each clip is tested once; the "
        f"first: {sizes}. No group stands in two parts of a split."
    )


def leak_sentence(leak: Leak) -> str:
    """Say what a random split of segments would have made of the score."""
    leaky, honest = leak.accuracy
    sure = leak.difference.low > 0
    verdict = (
        f"A split that ignores groups flatters this forest by {leak.difference.estimate:.2f}."
        if sure
        else "The interval of the difference includes 0: the leak makes no difference that these clips can show."
    )
    return (
        f"The same random forest scores {leaky} on {PROTOCOLS[0]} and {honest} on {PROTOCOLS[1]} (difference "
        f"{leak.difference}). Under the first protocol {leak.siblings[0]:.0%} of the tested segments have a sibling in "
        f"training, under the second {leak.siblings[1]:.0%}. {verdict}"
    )


def score_sentence(table: pd.DataFrame, model: str, score: str = "accuracy") -> str:
    """Say what a model scores on the test part, with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        From `evaluation.compare_models`.
    model, score : str
        A row of it.

    Returns
    -------
    str
    """
    row = table[(table.model == model) & (table.score == score)].iloc[0]
    reached = Interval(row.estimate, row.low, row.high)
    return f"{_begin(model)} reaches a test {score.replace('_', ' ')} of {reached}."


def difference_sentence(name_a: str, name_b: str, difference: Difference, what: str = "accuracy") -> str:
    """Say whether one model beats another, or that these clips cannot show it.

    Parameters
    ----------
    name_a, name_b : str
        The models.
    difference : Difference
        Score of a minus score of b; higher is better.
    what : str
        Name of the score.

    Returns
    -------
    str
    """
    if difference.low > 0:
        verdict = f"{_begin(name_a)} is better than {name_b}"
    elif difference.high < 0:
        verdict = f"{_begin(name_a)} is worse than {name_b}"
    else:
        verdict = f"These clips do not show a difference between {name_a} and {name_b}"
    return f"{verdict}: {what} {difference}."


def confusion_sentence(counts: np.ndarray, classes: tuple[str, ...], *, several: bool = False) -> str:
    """Say which class is most often taken for which other, or heard beside which other.

    Parameters
    ----------
    counts : np.ndarray of int [shape=(n_classes, n_classes)]
        Rows are the true classes.
    classes : tuple of str
        Name of each row.
    several : bool
        Whether a clip may have several labels; see `evaluation.confusion_over_seeds`.

    Returns
    -------
    str
    """
    pairs = most_confused(counts, classes, 1)
    if pairs.empty:
        return (
            "No class that is observed to be absent was answered beside one that is present."
            if several
            else "No clip of the test part was taken for another class."
        )
    row = pairs.iloc[0]
    if several:
        return (
            f"The commonest false alarm beside what is there is {row.predicted}, answered {row['count']} times where "
            f"{row.true} is present and {row.predicted} is observed to be absent (all seeds together)."
        )
    return f"The commonest mistake is {row.true} taken for {row.predicted} ({row.share:.0%} of {row.true})."


def calibration_sentence(table: pd.DataFrame, model: str, gap: Interval) -> str:
    """Say whether a model is surer of itself than it is right, or that these clips cannot show it.

    Parameters
    ----------
    table : pandas.DataFrame
        What `evaluation.compare_models` gives.
    model : str
        A model of the table.
    gap : Interval
        Mean confidence minus accuracy; see `evaluation.confidence_gap`.

    Returns
    -------
    str
    """
    rows = table[table.model == model].set_index("score").estimate
    manner = "too sure of itself" if gap.low > 0 else "not sure enough of itself" if gap.high < 0 else ""
    verdict = f"it is {manner}" if manner else "these clips do not show that it is too sure of itself, or too little"
    measure = f"(calibration error {rows['expected_calibration_error']:.3f})"
    if "accuracy" not in rows:  # several labels a clip, each with a probability of its own
        return f"Its probabilities are {gap} above the share of labels that are present: {verdict} {measure}."
    return f"Its confidence is {gap} above its accuracy: {verdict} {measure}."


def multilabel_sentence(table: pd.DataFrame, model: str) -> str:
    """Say in which scores a model beats the trivial answers, and in which it does not.

    Parameters
    ----------
    table : pandas.DataFrame
        What `evaluation.against_trivial` gives.
    model : str
        One of its models.

    Returns
    -------
    str
    """
    said = []
    for baseline, rows in table[table.model == model].groupby("baseline", sort=False):
        for beaten, kept in rows.groupby("beaten", sort=False):
            numbers = _list(
                f"{row.score.replace('_', ' ')} ({row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}])"
                for row in kept.itertuples()
            )
            said.append(f"{'beats' if beaten else 'does not beat'} “{baseline}” in {numbers}")
    return f"{_begin(model)} {'; it '.join(said)}."


def differences_sentence(table: pd.DataFrame, reference: str, what: str = "accuracy") -> str:
    """Say which variants are better or worse than a reference, after correction for their number.

    Parameters
    ----------
    table : pandas.DataFrame
        What `experiments.against` gives.
    reference : str
        The variant that they were compared with.
    what : str
        Name of the score.

    Returns
    -------
    str
    """
    sure = table[table.p_holm < 1 - LEVEL]
    kinds = (("better", sure[sure.difference > 0]), ("worse", sure[sure.difference < 0]))
    said = [
        f"{_list(rows.index)} {'is' if len(rows) == 1 else 'are'} {kind} than {reference}"
        for kind, rows in kinds
        if len(rows)
    ]
    numbers = [
        f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}], p = {row.p_holm:.3f}" for row in table.itertuples()
    ]
    if len(table) == 1:
        verdict = said[0] if said else f"{table.index[0]} is not shown to differ from {reference}"
        return f"{_begin(verdict)}: {what} {numbers[0]}."
    verdict = ", ".join(said) if said else f"None of the {len(table)} is shown to differ from {reference}"
    named = "; ".join(f"{name} {number}" for name, number in zip(table.index, numbers, strict=True))
    return f"{_begin(verdict)} ({what}; p after Holm's correction): {named}."


def pair_sentences(table: pd.DataFrame, what: str = "accuracy") -> list[str]:
    """Say of each pair which is better, or that these clips cannot show it, after correction for their number.

    Parameters
    ----------
    table : pandas.DataFrame
        What `experiments.compare_pairs` gives.
    what : str
        Name of the score.

    Returns
    -------
    list of str
    """
    said = []
    for (first, second), row in table.iterrows():
        if row.p_holm < 1 - LEVEL:
            verdict = f"“{first}” is {'better' if row.difference > 0 else 'worse'} than “{second}”"
        else:
            verdict = f"These clips do not show a difference between “{first}” and “{second}”"
        said.append(
            f"{verdict}: {what} {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}], p = {row.p_holm:.3f} after "
            f"Holm's correction for {len(table)} comparisons."
        )
    return said


def cheaper_sentence(table: pd.DataFrame, described: pd.DataFrame, reference: str) -> str:
    """Name the variant that takes the least work of those not shown to be worse than a reference.

    Parameters
    ----------
    table : pandas.DataFrame
        What `experiments.against` gives.
    described : pandas.DataFrame
        What `experiments.describe` gives, with the column `multiply_adds_a_clip`.
    reference : str
        The variant that they were compared with.

    Returns
    -------
    str
    """
    work = described.multiply_adds_a_clip
    worse = table.index[(table.difference < 0) & (table.p_holm < 1 - LEVEL)]
    cheapest = work.drop(worse).idxmin()
    if cheapest == reference:
        return f"Every variant that takes less work than the {reference} is worse."
    row = table.loc[cheapest]
    return (
        f"Of the variants not shown to be worse, “{cheapest}” takes the least work: {work[cheapest] / 1e6:.1f} million "
        f"multiply-adds a clip instead of {work[reference] / 1e6:.1f}, for a difference of {row.difference:+.3f} "
        f"[{row.low:+.3f}, {row.high:+.3f}], which leaves room for a loss of up to {max(0, -row.low):.3f}."
    )


def order_sentence(measured: pd.Series, reported: pd.Series, what: str) -> str:
    """Say whether scores measured here put things in the same order as published ones (Kendall's tau).

    Parameters
    ----------
    measured, reported : pandas.Series
        Scores by the same names.
    what : str
        What is ordered.

    Returns
    -------
    str
    """
    from scipy.stats import kendalltau

    found = kendalltau(measured, reported[measured.index])
    alike = (
        "in much the same order"
        if found.pvalue < 1 - LEVEL and found.statistic > 0
        else "not shown to be in the same order"
    )
    return (
        f"{_begin(what)} are {alike} here as published (Kendall's tau {found.statistic:.2f}, p = {found.pvalue:.2f}): "
        f"best here {measured.idxmax()} ({measured.max():.2f}), published {reported.idxmax()} ({reported.max():.2f})."
    )


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
    sure = table.p_holm < 1 - LEVEL
    kinds = (
        ("more faithful than", table[sure & (table.difference < 0)]),
        ("less faithful than", table[sure & (table.difference > 0)]),
        ("not shown to differ from", table[~sure]),
    )
    verdict = ", ".join(f"{kind} {_list(rows.index)}" for kind, rows in kinds if len(rows))
    numbers = "; ".join(
        f"{name} {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}], p = {row.p_holm:.3f}"
        for name, row in table.iterrows()
    )
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


def help_sentence(table: pd.DataFrame, name: str, reference: str, what: str = "accuracy") -> str:
    """Answer plainly whether something helps, by the p that is corrected for the number of comparisons.

    Parameters
    ----------
    table : pandas.DataFrame
        What `experiments.against` gives.
    name, reference : str
        A row of it, and what that was compared with.
    what : str
        Name of the score.

    Returns
    -------
    str
    """
    row = table.loc[name]
    shown = row.p_holm < 1 - LEVEL
    verdict = "is not shown to help here" if not shown else "helps" if row.difference > 0 else "does harm here"
    return (
        f"{_begin(name)} {verdict}: {what} {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}] against "
        f"{reference}, p = {row.p_holm:.3f} after Holm's correction for {len(table)} comparisons."
    )


def epochs_sentence(described: pd.DataFrame, names: Sequence[str]) -> str:
    """Say of some variants whether their validation loss was still falling when the training ended.

    Parameters
    ----------
    described : pandas.DataFrame
        What `experiments.describe` gives.
    names : sequence of str
        The variants.

    Returns
    -------
    str
    """
    rows = described.loc[list(names)]
    late = rows.index[rows.best_epoch > 0.9 * rows.epochs]
    numbers = ", ".join(f"{name} at epoch {row.best_epoch:.1f} of {row.epochs:.0f}" for name, row in rows.iterrows())
    verdict = (
        f"{_list(late)} still improved at the end, so more epochs may change the result, which was not tried"
        if len(late)
        else "none was lowest at its end"
    )
    return f"The validation loss was lowest, on average, for {numbers}: {verdict}."


def rivals_sentence(overview: pd.DataFrame, compared: pd.DataFrame, ours: str, *, unfinished: Sequence[str]) -> str:
    """Name the best model of each kind, and which are shown to be as good as ours or better.

    Parameters
    ----------
    overview : pandas.DataFrame
        What `references.overview` gives.
    compared : pandas.DataFrame
        What `experiments.against` gives for `ours`.
    ours : str
        Our model.
    unfinished : sequence of str
        Models whose training was cut short; they are not counted.

    Returns
    -------
    str
    """
    compared, overview = compared.drop(list(unfinished)), overview.drop(list(unfinished))
    best = [
        f"{kind} {rows.accuracy.idxmax()} ({Interval(*rows.loc[rows.accuracy.idxmax(), ['accuracy', 'low', 'high']])})"
        for kind, rows in overview[overview.index != ours].groupby("kind", observed=True)
    ]
    row = overview.loc[ours]
    sure = compared.p_holm < 1 - LEVEL
    better, worse = (compared.index[sure & (sign * compared.difference > 0)] for sign in (1, -1))
    open_ = len(compared) - len(better) - len(worse)
    return (
        f"{_begin(ours)} reaches {Interval(row.accuracy, row.low, row.high)}. The best of each kind beside it, picked "
        "by these scores and so a little flattered: "
        f"{', '.join(best)}. Of the {len(compared)} models that were trained to their end {len(worse)} are shown to be "
        f"worse than {ours}, {len(better)} better{f' ({_list(better)})' if len(better) else ''}, {open_} neither (p "
        "after Holm's correction)."
    )


def protocols_sentence(table: pd.DataFrame) -> str:
    """Say how far a split of segments at random flatters the models, and whether it changes which is best.

    Parameters
    ----------
    table : pandas.DataFrame
        What `leak.compare_splits` gives.

    Returns
    -------
    str
    """
    sure = table.index[table.low > 0]
    most, least = table.loc[table.difference.idxmax()], table.loc[table.difference.idxmin()]
    first, second = table.honest.idxmax(), table.leaky.idxmax()
    return (
        f"With {PROTOCOLS[0]} instead of {PROTOCOLS[1]}, accuracy over segments changes by "
        f"{least.difference:+.2f} ({least.name}) to {most.difference:+.2f} ({most.name}), "
        f"{table.difference.mean():+.2f} on average; for {len(sure)} of {len(table)} models the interval of the gain "
        "lies above 0. "
        + (
            f"{_begin(first)} is best under both."
            if first == second
            else f"The best model under the leaky protocol is {second}, under the honest one {first}."
        )
    )


def shortened_sentence(described: pd.DataFrame) -> str:
    """Say which of the published trainings were cut short by the profile, lest their scores be taken for theirs.

    Parameters
    ----------
    described : pandas.DataFrame
        What `references.table` gives.

    Returns
    -------
    str
    """
    cut = described[described.epochs_here < described.epochs]
    if cut.empty:
        return "The published networks were trained for as many epochs as their descriptions say."
    numbers = ", ".join(f"{name} {row.epochs_here} of {row.epochs}" for name, row in cut.iterrows())
    return (
        f"Trained for fewer epochs than described, for want of time in this profile: {numbers}. Their scores show that "
        "they run, not what they can do; the full profile trains them to their end."
    )


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
    """Say what the networks of the reference's space cost against ours, and whether it was searched here.

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
        f"A network of the reference's space takes {theirs.multiply_adds / 1e6:.0f} million multiply-adds and has "
        f"{theirs.parameters / 1e6:.1f} million parameters (medians), one of ours {ours.multiply_adds / 1e6:.0f} and "
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


def sparsity_sentence(networks: pd.DataFrame, compared: pd.DataFrame, max_loss: float) -> str:
    """Say how far a network can be pruned, step by step, before it loses more than is allowed.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `pruning.Plan.networks`.
    compared : pandas.DataFrame
        What `experiments.against` gives, against the dense network.
    max_loss : float
        Accuracy that may be lost.

    Returns
    -------
    str

    Notes
    -----
    It stops at the first sparsity that loses more. In such a fixed order the intervals need no correction for their
    number.
    """
    table = networks[networks.kind == "progressive"].join(compared).sort_values("sparsity")
    numbers = "; ".join(
        f"{row.sparsity:.0%} {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in table.itertuples()
    )
    points = f"{100 * max_loss:g} point"
    shown, seen = (table[(ends >= -max_loss).cummin()] for ends in (table.low, table.difference))
    if len(shown):
        verdict = f"Up to {shown.sparsity.max():.0%} of zeros it is shown to lose no more than {points}"
    elif len(seen):
        verdict = (
            f"Up to {seen.sparsity.max():.0%} of zeros it loses no more than {points} on these clips, which the "
            "interval does not confirm"
        )
    else:
        verdict = f"Already with {table.sparsity.min():.0%} of zeros it loses more than {points} on these clips"
    return f"Pruned progressively, against the dense network ({numbers}). {verdict}.".replace("%", " %")


def zeros_sentence(dense: pd.Series, pruned: pd.Series) -> str:
    """Say what the zeros of a pruned network save, and what they do not.

    Parameters
    ----------
    dense, pruned : pandas.Series
        Two networks in the same format: their rows of `tflite.describe` and `tflite.measure`, joined.

    Returns
    -------
    str
    """
    kb, zipped_kb = (
        f"{pruned[name] / 1000:.1f} kB (dense {dense[name] / 1000:.1f})" for name in ("bytes", "compressed_bytes")
    )
    if _is_faster(pruned, dense):
        verdict = "yet on this machine it was even measured faster"
    elif _is_faster(dense, pruned):
        verdict = "and on this machine it was even measured slower"
    else:
        verdict = "and on this machine it is no faster"
    sentence = (
        f"Zeros make the file smaller only when it is compressed: {pruned.network} ({pruned.format}) has {kb}, "
        f"compressed {zipped_kb}. The runtime multiplies by zero as by any other number, "
        f"{pruned.multiply_adds / 1e6:.1f} million multiply-adds though {pruned.nonzero_multiply_adds / 1e6:.1f} "
        f"million would do, {verdict}: {pruned.latency_ms:.2f} ms for a segment (dense {dense.latency_ms:.2f})"
    )
    if np.isfinite([pruned.peak_memory_kb, dense.peak_memory_kb]).all():
        # Memory is counted in kB of 1024 bytes, files in those of 1000.
        own_mb, dense_mb = (1.024 * row.peak_memory_kb / 1000 for row in (pruned, dense))
        sentence += f", with {own_mb:.1f} MB of memory (dense {dense_mb:.1f})"
    return f"{sentence}."


def narrower_sentence(networks: pd.DataFrame, costs: pd.DataFrame, *, kind: str) -> str:
    """Say what narrower networks cost beside pruned ones with about as many weights.

    Parameters
    ----------
    networks : pandas.DataFrame
        See `pruning.Plan.networks`.
    costs : pandas.DataFrame
        What `tflite.describe` and `tflite.measure` give, joined.
    kind : str
        The format, one of `tflite.FORMATS`.

    Returns
    -------
    str
    """
    rows = costs[costs.format == kind].join(networks, on="network").set_index(["kind", "sparsity"])
    narrow, pruned = rows.loc["narrower"], rows.loc["progressive"]
    pairs = [(narrow.loc[one], pruned.loc[one]) for one in narrow.index.intersection(pruned.index)]
    wins = {
        "smaller": all(one.bytes < other.bytes for one, other in pairs),
        "smaller when compressed": all(one.compressed_bytes < other.compressed_bytes for one, other in pairs),
        "faster": all(_is_faster(one, other) for one, other in pairs),
    }
    won, lost = ([words for words, always in wins.items() if always is wanted] for wanted in (True, False))
    verdict = " but ".join(([_list(won)] if won else []) + ([f"not always {' or '.join(lost)}"] if lost else []))
    numbers = "; ".join(
        f"“{one.network}” {one.bytes / 1000:.1f} kB, compressed {one.compressed_bytes / 1000:.1f}, "
        f"{one.latency_ms:.2f} ms, “{other.network}” {other.bytes / 1000:.1f} kB, compressed "
        f"{other.compressed_bytes / 1000:.1f}, {other.latency_ms:.2f} ms"
        for one, other in pairs
    )
    return f"Beside a pruned network with as many weights, the narrower one is {verdict} ({kind}): {numbers}."


def goal_sentence(
    chosen: pd.DataFrame,
    difference: Difference,
    *,
    max_bytes: int,
    max_multiply_adds: int,
    max_loss: float,
) -> str:
    """Say whether the network that validation chose is small enough and as good as the dense one.

    Parameters
    ----------
    chosen : pandas.DataFrame
        What `tflite.choose` gives.
    difference : Difference
        Its test accuracy minus that of the dense network.
    max_bytes, max_multiply_adds, max_loss
        See `tflite.Goal`.

    Returns
    -------
    str
    """
    loss = f"{100 * max_loss:g} point"
    if difference.low >= -max_loss:
        verdict = f"Goal reached: it is shown to lose no more than {loss}"
    elif difference.high < -max_loss:
        verdict = f"Goal missed: it is shown to lose more than {loss}"
    elif difference.estimate >= -max_loss:
        verdict = f"Goal not shown: it loses no more than {loss} on these clips, but the interval reaches further down"
    else:
        verdict = f"Goal not shown: it loses more than {loss} on these clips, but the interval reaches above that"
    if chosen.met.all():
        fallback = ""
    else:
        where = "" if len(chosen) == 1 else f" in {(~chosen.met).sum()} of the {len(chosen)} splits"
        fallback = f"On validation none of those small enough stays within {loss}{where}: the most accurate was taken. "
    return (
        f"Chosen on validation: {_list(dict.fromkeys(chosen.name))}, at most {chosen.bytes.max() / 1000:.1f} kB "
        f"(goal: under {max_bytes / 1000:g}) and {chosen.multiply_adds.max() / 1e6:.1f} million multiply-adds (goal: "
        f"under {max_multiply_adds / 1e6:g}). {fallback}{verdict} (test accuracy {difference} against the dense "
        "network)."
    )


def embedding_sentences(compared: pd.DataFrame, clips: dict[int, float]) -> list[str]:
    """Say of each embedding what it adds to a network from scratch, and from how many clips on nothing is shown.

    Parameters
    ----------
    compared : pandas.DataFrame
        What `transfer.against_scratch` gives.
    clips : dict of int to float
        Training clips of a class at each size; see `transfer.clips_a_class`.

    Returns
    -------
    list of str
    """
    said = []
    for model, unordered in compared.groupby("model", sort=False):
        rows = unordered.set_index("size").sort_index()
        sure = rows.p_holm < 1 - LEVEL
        better, worse = (rows.index[sure & (sign * rows.difference > 0)] for sign in (1, -1))
        verdict = [
            f"shown to be {word} with {_list(f'{clips[size]:.3g}' for size in found)} training clips a class"
            for word, found in (("better", better), ("worse", worse))
            if len(found)
        ]
        if not verdict:
            verdict = ["not shown to differ with any number of training clips"]
        later = rows.index[rows.index > max(better, default=0)]
        if len(better) and len(later):
            verdict.append(f"from {clips[later[0]]:.3g} on it is no longer shown to be better")
        elif len(better):
            verdict.append("with all clips the network from scratch has not caught up")
        numbers = "; ".join(
            f"{clips[size]:.3g}: {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}], p = {row.p_holm:.3f}"
            for size, row in rows.iterrows()
        )
        said.append(
            f"Against the network from scratch “{model}” is {'; '.join(verdict)} (differences by training clips a "
            f"class, p after Holm's correction for {len(compared)} comparisons: {numbers})."
        )
    return said


def choice_sentence(described: pd.DataFrame, clips: dict[int, float]) -> str:
    """Say what the choice of the epoch by validation loss costs a network from scratch on few clips.

    Parameters
    ----------
    described : pandas.DataFrame
        What `transfer.describe_scratch` gives.
    clips : dict of int to float
        Training clips of a class at each size; see `transfer.clips_a_class`.

    Returns
    -------
    str
    """
    cost = described.last_accuracy - described.chosen_accuracy
    numbers = "; ".join(
        f"{clips[size]:.3g}: {row.chosen_accuracy:.2f} and {row.last_accuracy:.2f}"
        for size, row in described.iterrows()
    )
    worst = cost.idxmax()
    verdict = (
        f"with {clips[worst]:.3g} the rule costs it {cost[worst]:.2f}, so some of what an embedding adds there is "
        "owed to the rule"
        if cost[worst] >= 0.05
        else "the rule costs it next to nothing"
    )
    return (
        "The network from scratch keeps the epoch with the least validation loss. Its validation accuracy then and in "
        f"its last epoch, by training clips a class ({numbers}): {verdict}."
    )


def mark_sentence(scores: pd.DataFrame, compared: pd.DataFrame, mark: str) -> str:
    """Say whether anything that was trained here reaches a published embedding.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns `model`, `estimate`, `low`, `high`: the main score.
    compared : pandas.DataFrame
        What `experiments.against` gives for `mark`, with the models that were trained here; empty when the mark is
        not at hand.
    mark : str
        The model that is the mark.

    Returns
    -------
    str
    """
    if compared.empty:
        return f"“{mark}”, the mark for what is trained here, is not at hand: how near to it they come is not known."
    rows = scores.set_index("model")
    sure = compared.p_holm < 1 - LEVEL
    above, below, open_ = (
        compared.index[sure & (compared.difference > 0)],
        compared.index[sure & (compared.difference < 0)],
        compared.index[~sure],
    )
    verdicts = [
        f"{_list(f'“{name}”' for name in names)} {'is' if len(names) == 1 else 'are'} {words}"
        for names, words in (
            (above, "shown to be better"),
            (below, "shown to be worse"),
            (open_, "not shown to differ from it"),
        )
        if len(names)
    ]
    best = compared.difference.idxmax()
    near, reached = (Interval(*rows.loc[name, ["estimate", "low", "high"]]) for name in (best, mark))
    return (
        f"“{mark}”, the mark, reaches {reached}. Of what was trained here “{best}” comes nearest with {near} "
        f"({compared.difference[best]:+.3f}); {'; '.join(verdicts)} (p after Holm's correction)."
    )


def trivial_sentence(table: pd.DataFrame, compared: pd.DataFrame, model: str) -> str:
    """Say whether a model of several instruments at once beats what needs no listening.

    Parameters
    ----------
    table : pandas.DataFrame
        From `layered_scores.score_table`.
    compared : pandas.DataFrame
        From `layered_scores.compare`: pairs of the model with each baseline, for several scores.
    model : str
        Its name.

    Returns
    -------
    str
    """
    own = compared.xs(model, level="first")
    parts, failed = [], []
    for score, rows in own.groupby("score", sort=False):
        lower_is_better = score.endswith("loss")
        of = table[table.score == score].set_index("model").estimate
        best = of[rows.index.get_level_values("second")].agg("idxmin" if lower_is_better else "idxmax")
        row = rows.loc[best].squeeze()
        better = row.high < 0 if lower_is_better else row.low > 0
        words = score.replace("_", " ").replace("f1", "F1")
        parts.append(f"{words} {of[model]:.3f} against {of[best]:.3f} of “{best}”")
        if not better:
            failed.append(f"its {words} is not shown to beat “{best}”")
    verdict = "each of its scores named here is better" if not failed else _list(failed)
    return (
        f"{_begin(model)}, against the best of the answers that need no listening: {'; '.join(parts)}. "
        f"{_begin(verdict)}."
    )


def all_present_sentence(by_number: pd.DataFrame, model: str, *, n_classes: int, reported: dict[str, float]) -> str:
    """Say what naming every instrument would score, here and in the reference system that mixed clips.

    Parameters
    ----------
    by_number : pandas.DataFrame
        From `layered_scores.by_number`.
    model : str
        One of its models.
    n_classes : int
        Classes here.
    reported : dict
        See `layered_scores.LAYERED_FOUR`.

    Returns
    -------
    str
    """
    scores = by_number[by_number.score == "micro_f1"].pivot(index="model", columns="n_sources", values="estimate")
    several = [number for number in scores.columns if number > 1]
    numbers = ", ".join(
        f"{scores.loc['all present', number]:.3f} for {number} of {n_classes} (the network: "
        f"{scores.loc[model, number]:.3f})"
        for number in several
    )
    theirs = all_present_f1(reported["classes"], reported["sources"])
    low = by_number[by_number.score == "micro_f1"].set_index(["model", "n_sources"]).low
    unsure = [number for number in several if not low[model, number] > scores.loc["all present", number]]
    verdict = (
        f"with {_list(map(str, unsure))} at once the network is not shown to beat it"
        if unsure
        else "the network beats it for every number"
    )
    return (
        f"Naming every instrument has a micro F1 of {numbers}: {verdict}. With {reported['sources']} of "
        f"{reported['classes']} it would have {theirs:.3f}, more than the {reported['micro_f1']:.3f} that layered-four "
        "reports of its test mixtures: such a score says nothing without this one beside it."
    )


def number_sentence(by_number: pd.DataFrame, models: Sequence[str]) -> str:
    """Say how models do with one instrument and with the most at once.

    Parameters
    ----------
    by_number : pandas.DataFrame
        From `layered_scores.by_number`.
    models : sequence of str
        Those to name.

    Returns
    -------
    str
    """
    rows = by_number[by_number.score == "mean_average_precision"].set_index(["model", "n_sources"])
    fewest, most = by_number.n_sources.min(), by_number.n_sources.max()
    parts = [
        f"{model} {Interval(*rows.loc[(model, fewest), ['estimate', 'low', 'high']])} with {fewest} and "
        f"{Interval(*rows.loc[(model, most), ['estimate', 'low', 'high']])} with {most}"
        for model in models
    ]
    return f"Mean average precision by the number of instruments at once: {'; '.join(parts)}."


def level_sentence(recall: pd.DataFrame, models: Sequence[str]) -> str:
    """Say how loud an instrument must be in a mixture to be named.

    Parameters
    ----------
    recall : pandas.DataFrame
        From `layered_scores.recall_by_level`.
    models : sequence of str
        Those to name.

    Returns
    -------
    str
    """
    parts = []
    for model in models:
        own = recall[(recall.model == model) & (recall.n > 0)].sort_values("up_to_db")
        quiet, loud = own.iloc[0], own.iloc[-1]
        parts.append(
            f"{model} names {loud.recall:.0%} of the instruments that make up at least "
            f"{10 ** (loud.above_db / 10):.0%} of the energy, and {quiet.recall:.0%} of those that stay "
            f"{-quiet.up_to_db:g} dB or more below the sum (and {quiet.false_alarms:.0%} of those that are not there)"
        )
    return f"How loud must it be? {_begin('; '.join(parts))}.".replace("%", " %")


def bullets(sentences: list[str]) -> str:
    """Return the sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _is_faster(one: pd.Series, other: pd.Series) -> bool:
    """Tell whether the middle half of its times lies clearly, by a twentieth or more, below that of the other's."""
    return bool(one.latency_high_ms < 0.95 * other.latency_low_ms)


def _begin(words: str) -> str:
    return words[:1].upper() + words[1:]


def _list(names: Iterable[str]) -> str:
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def _range(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"
