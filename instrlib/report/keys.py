"""Which figures and which table stand for a notebook; all others go to the page's appendix.

Frozen here: what is shown does not depend on what came out.
"""

from collections.abc import Callable
from typing import Any

from instrlib.core.words import begin, spaced
from instrlib.evaluation.intervals import p_text
from instrlib.report.tables import NONE, Table, difference_of, metric_tables, p_of, text_of
from instrlib.reporting.overview import score_name

Metrics = dict[str, Any]

FIGURES: dict[str, dict[str, str]] = {
    "01": {
        "spectrogram_grid": "A clip of each class as the network sees it.",
        "leak": "The same forest under two protocols: segments drawn at random, and whole groups kept apart.",
    },
    "02": {
        "model_comparison": "The network beside the trivial answers, on the test part; lines are 95 % intervals.",
        "confusion_matrix": "What the network took the test clips for: answers of all seeds together; the colour is "
        "the share of a row.",
    },
    "03": {
        "mixed_spectrograms": "Two examples, and what each augmentation makes of them; above each stands its label. "
        "SpecAugment blackens stripes of time and of frequency.",
        "paired_differences": "Each augmentation minus none, on the same clips and from the same seeds.",
    },
    "04": {
        "parallel_coordinates": "The trials of the search, one line each; the lighter, the higher its validation "
        "accuracy (last axis). Thick: chosen by validation loss.",
        "paired_differences": "What the search found minus the baseline, on the test part.",
    },
    "05": {
        "sparsity_curve": "Accuracy by the share of weights that pruning sets to zero; the grey band is the dense "
        "network's 95 % interval.",
        "size_against_accuracy": "Size of each file, compressed, against its accuracy.",
    },
    "06": {
        "class_average_maps": "Where the network listens, on average over the clips of a class.",
        "deletion_insertion": "What is left of the answer as points are taken away, and what comes back with them.",
    },
    "07": {
        "paired_differences": "Each changed network minus the full model, on the same clips and from the same seeds.",
        "accuracy_against_work": "What each variant reaches against what it computes.",
    },
    "08": {
        "scores_by_kind": "Trivial answers, traditional classifiers, published networks and ours on one test part.",
        "honest_and_leaky": "The same models with whole groups kept apart, and with segments drawn at random.",
    },
    "09": {
        "clips_curve": "Accuracy by the number of training clips of each class.",
        "scores_by_kind": "Embeddings and networks trained from scratch, with all training clips.",
    },
    "10": {
        "model_comparison": "Mixtures of several instruments: networks beside answers that need no listening.",
        "recall_by_level": "How often an instrument is named, by how loud it is in the mixture.",
    },
    "11": {
        "timeline": "Who plays when in one test piece: outlined, what was played; filled, what was found, darker the "
        "higher the network's mean score (called intensity), which is no loudness.",
        "model_comparison": "Second by second: the networks beside answers that do not say when. “The list found, "
        "always” names what the network found in the whole piece all the time; “its instruments, always” what truly "
        "plays in it; the others need no listening.",
    },
    "12": {
        "model_comparison": "Three conditions told apart: classifiers beside rules and trivial answers.",
        "accuracy_by_severity": "How often the condition is named rightly, by how severe the simulated damage is.",
    },
    "13": {
        "domain_matrix": "Trained on one domain (rows), tested on another (columns): balanced accuracy.",
        "robustness_curves": "Accuracy on recordings that are made worse; filled points differ from the untouched.",
        "recipes_by_domain": "Recipes of training, and their balanced accuracy among all twelve classes on sounds "
        "that they were not trained on; each recipe is explained in the table.",
    },
}
"""For each notebook, by its number, the names of its key figures with their captions, at most three."""

OVERVIEW_FIGURES: dict[str, str] = {
    "main_differences": "The main comparison of each notebook with its 95 % interval.",
    "models_side_by_side": "Every model that answered the same test clips; lines are 95 % intervals.",
    "score_against_work": "Score against work; the line joins networks that none beats at both.",
}
"""The figures of the notebook that lays all others side by side."""

OVERVIEW = "14"


def key_figures(number: str, stems: list[str]) -> dict[str, str]:
    """Choose a notebook's key figures.

    Parameters
    ----------
    number : str
        Number of the notebook, two digits.
    stems : list of str
        Names of its figures, without the number.

    Returns
    -------
    dict of str to str
        The caption of each, in order. Of a notebook that is not known here the first two stand, under their names.

    Examples
    --------
    >>> list(key_figures("02", ["learning_curves", "model_comparison"]))
    ['model_comparison']
    """
    known = FIGURES | {OVERVIEW: OVERVIEW_FIGURES}
    if number not in known:
        return {stem: begin(spaced(stem)) + "." for stem in stems[:2]}
    return {stem: caption for stem, caption in known[number].items() if stem in stems}


def key_table(number: str, metrics: Metrics) -> Table | None:
    """Make a notebook's key table, with intervals and paired tests.

    Parameters
    ----------
    number : str
        Number of the notebook, two digits.
    metrics : dict
        Its numbers.

    Returns
    -------
    Table or None
        None when it has no numbers. Of a notebook that is not known here, or whose numbers are laid out otherwise, the
        first of its plain tables.
    """
    try:
        return _TABLES[number](metrics)
    except (KeyError, IndexError):
        numbers = {name: value for name, value in metrics.items() if name != "findings"}
        return next(metric_tables(numbers, "Numbers"), None)


def more_tables(number: str, metrics: Metrics) -> list[Table]:
    """Make the tables that explain names which a notebook's sentences and figures use.

    Parameters
    ----------
    number : str
        Number of the notebook, two digits.
    metrics : dict
        Its numbers.

    Returns
    -------
    list of Table
        Empty for most notebooks.
    """
    if number == "08" and metrics.get("references"):
        return [_published(metrics["references"])]
    if number == "13" and metrics.get("trials"):
        return [_recipes(metrics["trials"])]
    return []


def _published(references: dict[str, dict[str, Any]]) -> Table:
    rows = (
        (
            name,
            one["made_for"],
            one["input"].replace("_", "-"),
            one["reported"],
            f"{one['epochs_here']} of {one['epochs']}",
            one["otherwise_here"],
        )
        for name, one in references.items()
    )
    return Table(
        "The published networks, rebuilt from their descriptions. “Reported”: the accuracy that their authors give, on "
        "their own data.",
        ("Network", "Made for", "Input", "Reported", "Epochs here", "Otherwise here, or not described"),
        tuple(rows),
    )


def _recipes(trials: list[dict[str, Any]]) -> Table:
    rows = ((one["trial"], one["change"], f"{one['examples']:,}", f"{one['judged']:.3f}") for one in trials)
    return Table(
        "The recipes. “Fonts” are soundfonts, “exercises” clips in which an instrument shows its sound instead of "
        "playing a phrase, “takes” examples heard as in another recording: tone colour, length, room and noise drawn "
        "anew. “Judged”: balanced accuracy among all twelve classes, the mean of that on clean clips of another "
        "soundfont and on the same clips made worse as recordings of every day are.",
        ("Recipe", "What it is", "Examples seen", "Judged"),
        tuple(rows),
    )


def _scores(
    metrics: Metrics, caption: str, *, against: dict[str, Any], reference: str, tested: str = "p (Holm)"
) -> Table:
    """Two scores a model, and beside them the paired difference from one of the models."""
    scores = metrics["scores"]
    known = next(iter(scores.values()))
    wanted = ("accuracy", "macro_f1") if "accuracy" in known else ("mean_average_precision", "micro_f1")
    header = ("Model", *map(begin, map(score_name, wanted)), f"Difference from {reference}", tested)
    rows = []
    for model, reached in scores.items():
        found = against.get(model)
        tests = (_difference(found), p_of(found["p_holm"])) if found else ("", "")
        rows.append((model, *(text_of(reached[name]) for name in wanted), *tests))
    return Table(caption, header, tuple(rows))


def _difference(row: dict[str, Any]) -> str:
    return difference_of(row["difference"], row["low"], row["high"])


def _other(metrics: Metrics, against: str) -> str:
    """Name the model that the others were compared with: the one with scores and no difference."""
    others = [name for name in metrics["scores"] if name not in metrics[against]]
    return others[0]


def _protocols(metrics: Metrics) -> Table:
    difference = metrics["leak_difference"]
    rows = [(name, text_of(row["accuracy"]), f"{row['siblings']:.0%}") for name, row in metrics["leak"].items()]
    last = ("difference", difference_of(difference["estimate"], difference["low"], difference["high"]), "")
    return Table(
        f"A random forest under two protocols (difference: {p_text(difference['p'])}).",
        ("Protocol", "Accuracy over segments", "Tested segments with a sibling in training"),
        (*rows, last),
    )


def _baseline(metrics: Metrics) -> Table:
    found = metrics["comparison"]
    score = "mean_average_precision" if "mean_average_precision" in found else "difference"
    row = found[score]
    ours = next(iter(metrics["scores"]))
    against = {ours: {"difference": row["estimate"], "low": row["low"], "high": row["high"], "p_holm": row["p"]}}
    return _scores(metrics, "Scores on the test part.", against=against, reference=found["against"], tested="p")


def _against(caption: str, key: str, reference: str = "") -> Callable[[Metrics], Table]:
    def make(metrics: Metrics) -> Table:
        return _scores(metrics, caption, against=metrics[key], reference=reference or _other(metrics, key))

    return make


def _maps(metrics: Metrics) -> Table:
    rows = []
    for name, row in metrics["areas"].items():
        found = metrics["against_map"].get(name)
        area = {"estimate": row["overall"], "low": row["overall_low"], "high": row["overall_high"]}
        rows.append((name, text_of(area), *((_difference(found), p_of(found["p_holm"])) if found else ("", ""))))
    return Table(
        "Faithfulness: area under the insertion curve minus that under the deletion curve; 0 is chance.",
        ("Order of the points", "Area", "Difference from the map", "p (Holm)"),
        tuple(rows),
    )


def _models(metrics: Metrics) -> Table:
    rows = []
    for name, row in metrics["models"].items():
        found = metrics["against"].get(name)
        rows.append(
            (
                name,
                row["kind"],
                text_of({"estimate": row["accuracy"], "low": row["low"], "high": row["high"]}),
                *((_difference(found), p_of(found["p_holm"])) if found else ("", "")),
            )
        )
    ours = [name for name, row in metrics["models"].items() if row["kind"] == "ours"]
    return Table(
        "Scores on the test part, and differences from our network.",
        ("Model", "Kind", "Accuracy", f"Difference from {ours[0]}", "p (Holm)"),
        tuple(rows),
    )


def _pairs(caption: str, scores: tuple[str, ...] = ()) -> Callable[[Metrics], Table]:
    def make(metrics: Metrics) -> Table:
        rows = tuple(
            (
                f"{row['first']} − {row['second']}",
                *([score_name(row["score"])] if scores else []),
                _difference(row),
                p_of(row["p_holm"]),
            )
            for row in metrics["differences"]
            if not scores or row["score"] in scores
        )
        if not rows:
            raise KeyError("differences")
        header = ("Compared", *(["Score"] if scores else []), "Difference", "p (Holm)")
        return Table(caption.format_map(metrics), header, rows)

    return make


def _domains(metrics: Metrics) -> Table:
    rows = []
    for row in metrics["matrix"]:
        reached = {
            "estimate": row["balanced_accuracy"],
            "low": row["balanced_accuracy_low"],
            "high": row["balanced_accuracy_high"],
        }
        fall = difference_of(row["drop"], row["drop_low"], row["drop_high"])
        rows.append(
            (
                f"{row['trained_on']} → {row['tested_on']}",
                f"{row['n_common']}",
                f"{row['n_clips']:,}",
                text_of(reached),
                f"{row['constant']:.3f}",
                "" if fall == NONE else fall,
                "" if row["p_holm"] is None else p_of(row["p_holm"]),
            )
        )
    return Table(
        "Trained on one domain, tested on another. “One answer”: the score of always giving the same. “Fall”: the "
        "score on the network's own test part, same classes, minus this one.",
        ("Domains", "Classes", "Clips", "Balanced accuracy", "One answer", "Fall", "p (Holm)"),
        tuple(rows),
    )


_TABLES: dict[str, Callable[[Metrics], Table]] = {
    "01": _protocols,
    "02": _baseline,
    "03": _against("Scores with each augmentation.", "against_no_augmentation", "no augmentation"),
    "04": _against("What the search found, beside the baseline.", "against_baseline"),
    "05": _against("Scores by how the network was pruned.", "differences", "dense"),
    "06": _maps,
    "07": _against("Scores of the changed networks.", "against"),
    "08": _models,
    "09": _against("Scores with all training clips.", "against_baseline", "compact CNN"),
    "10": _pairs("Paired differences on {n_tested:,} test mixtures.", ("mean_average_precision", "micro_f1")),
    "11": _pairs(
        "Paired differences on {n_pieces:,} test pieces of {seconds:,.0f} s in all.",
        ("frame_micro_f1", "event_micro_f1", "error_rate"),
    ),
    "12": _pairs("Paired differences of accuracy on {n_tested:,} test versions of clips."),
    "13": _domains,
}
