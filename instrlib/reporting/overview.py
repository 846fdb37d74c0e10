"""The whole study side by side: each notebook's main comparison, every model, what scores cost, and checks.

All of it is made from what `results.json` holds: `{notebook: {"metrics": ..., "manifest": ...}}`. Which comparison is a
notebook's main one is fixed here, by name or by a rule that is corrected for its choice, whatever the numbers are: so
correcting for their number means something. Earlier runs had been seen when it was fixed; it is no preregistration.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.config import folders, get_profile
from instrlib.core.errors import RunError
from instrlib.core.io import hash_bytes, read_json
from instrlib.core.words import spaced
from instrlib.evaluation.statistics import LEVEL, holm
from instrlib.runner.run import Run

Metrics = dict[str, Any]
Notebooks = dict[str, dict[str, Any]]

TRIVIAL = (
    "majority class",
    "stratified random",
    "nearest centroid",
    "all present",
    "none present",
    "prior",
    "the most frequent",
)
"""The answers that need no training worth the name."""

ONE_TEST_PART = ("02", "03", "04", "05", "07", "08", "09")
_OURS = "compact CNN"


@dataclass(frozen=True)
class Comparison:
    """One notebook's main comparison: the score of a first model minus that of a second.

    Attributes
    ----------
    first, second : str
        What is compared.
    score : str
        Name of the score; higher is better.
    difference, low, high : float or None
        First minus second, and its interval; None where there was no way to tell.
    p : float or None
        Two-sided p-value of no difference.
    family : int
        So many comparisons `p` is corrected for already: 1 where the comparison is fixed by name, more where it
        is the one of a family with the least p.
    """

    first: str
    second: str
    score: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    family: int = 1


@dataclass(frozen=True)
class Facts:
    """What bounds all that a study can say.

    Attributes
    ----------
    corpus, profile : str
        Of the study.
    seeds : int
        Seeds that each network is trained from.
    epochs, full_epochs : int
        Epochs of the networks that are compared, in this profile and in the full one.
    n_groups, n_tested : int or None
        Groups of the corpus and clips of its test part; None where that is not known.
    simulated : str
        What notebook 12 says of its labels; "" where it was not run.
    not_at_hand, not_compared, missing : tuple of str
        Pretrained networks that are not there and domains that share sounds, in sentences; notebooks that were not run.
    """

    corpus: str
    profile: str
    seeds: int
    epochs: int
    full_epochs: int
    n_groups: int | None
    n_tested: int | None
    simulated: str
    not_at_hand: tuple[str, ...]
    not_compared: tuple[str, ...]
    missing: tuple[str, ...]


def open_notebooks(run: Run) -> tuple[Notebooks, list[str]]:
    """Open the runs of all earlier notebooks of the same study.

    Parameters
    ----------
    run : Run
        The run that asks; it is marked as using those that are opened.

    Returns
    -------
    notebooks : dict
        `metrics` and `manifest` by name, in order.
    missing : list of str
        The notebooks that have no finished run, such as those that are not made for the corpus.
    """
    found: Notebooks = {}
    missing = []
    for path in sorted(folders().notebooks.glob("[0-9][0-9]_*.ipynb")):
        if path.stem >= run.notebook:
            continue
        try:
            other = run.other(path.stem)
        except RunError:
            missing.append(path.stem)
            continue
        found[path.stem] = {"metrics": other.metrics(), "manifest": read_json(other.folder / "manifest.json")}
    return found, missing


def fingerprint(notebooks: Notebooks) -> str:
    """Return a hash of the numbers that the other notebooks saved, 16 hex digits."""
    numbers = {name: entry["metrics"] for name, entry in notebooks.items()}
    return hash_bytes(json.dumps(numbers, sort_keys=True).encode())[:16]  # some are NaN, which `hash_json` refuses


def comparisons(notebooks: Notebooks) -> pd.DataFrame:
    """Gather each notebook's main comparison, corrected for their number (Holm).

    Parameters
    ----------
    notebooks : dict
        See the module. A notebook that is missing, or has no main comparison, has no row.

    Returns
    -------
    pandas.DataFrame
        One row a notebook: `first`, `second`, `score`, `difference`, `low`, `high`, `p`, `family` (see `Comparison`),
        `p_holm` over all rows, and `shown`, whether that is below .05.
    """
    rows = {}
    for name, entry in notebooks.items():
        if name[:2] in _MAIN:
            try:
                rows[name] = vars(_MAIN[name[:2]](entry["metrics"]))
            except KeyError:
                continue  # the notebook did not make it, as with several labels a clip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(Comparison.__dataclass_fields__))
    numbers = ["difference", "low", "high", "p"]
    table[numbers] = table[numbers].astype(float)
    table = table.assign(p_holm=holm(table.p.to_numpy()))
    return table.assign(shown=table.p_holm < 1 - LEVEL).rename_axis("notebook")


def models(notebooks: Notebooks) -> pd.DataFrame:
    """List every model that answered the study's test part, with its main score.

    Models with the same answers, such as a network that several notebooks use, stand once, under their first name.

    Parameters
    ----------
    notebooks : dict
        See the module.

    Returns
    -------
    pandas.DataFrame
        One row a model: `notebook`, `model`, `kind` ("trivial" or "trained"), `score` (accuracy, or with several labels
        a clip mean average precision), `estimate`, `low`, `high`, and `also`, its names in other notebooks. A notebook
        whose trivial answers score otherwise was tested on other clips, so its models are left out.
    """
    rows: dict[tuple[float, ...], dict[str, Any]] = {}
    trivial: dict[str, Any] = {}
    for name, entry in notebooks.items():
        scores = entry["metrics"].get("scores") if name[:2] in ONE_TEST_PART else None
        # What a trivial answer scores tells other clips from the same ones.
        if not scores or any(trivial.get(model, reached) != reached for model, reached in scores.items()):
            continue
        trivial |= {model: reached for model, reached in scores.items() if model in TRIVIAL}
        for model, reached in scores.items():
            score = main_score(reached)
            # The same answers give the same scores and intervals, all of them.
            key = tuple(value for one in reached.values() for value in one.values())
            if key in rows:
                rows[key]["also"] += [f"{model} ({name[:2]})"] if model != rows[key]["model"] else []
                continue
            kind = "trivial" if model in TRIVIAL else "trained"
            rows[key] = {"notebook": name, "model": model, "kind": kind, "score": score, **reached[score], "also": []}
    columns = ["notebook", "model", "kind", "score", "estimate", "low", "high", "also"]
    table = pd.DataFrame(list(rows.values()), columns=columns)
    return table.assign(also=[", ".join(dict.fromkeys(names)) for names in table.also])


def main_score(reached: dict[str, Any]) -> str:
    """Return the score that a model is judged by: "accuracy", or with several labels "mean_average_precision"."""
    return "accuracy" if "accuracy" in reached else "mean_average_precision"


def score_name(score: str) -> str:
    """Return a score's name as it is read.

    Examples
    --------
    >>> score_name("frame_micro_f1")
    'frame micro F1'
    """
    return spaced(score).replace("f1", "F1").replace("map at 3", "MAP@3")


def costs(notebooks: Notebooks) -> pd.DataFrame:
    """Put what a model costs beside what it scores, wherever both are known.

    Parameters
    ----------
    notebooks : dict
        See the module.

    Returns
    -------
    pandas.DataFrame
        One row a model of `models` whose multiply-adds were counted, and one for each file that notebook 05 wrote:
        `notebook`, `model`, `estimate`, `low`, `high`, `multiply_adds` (for as much sound as a segment
        of the study holds), `parameters`, `kB` of the file (NaN where none was written).
    """
    known = {(row.notebook, row.model): row for row in models(notebooks).itertuples()}
    rows = []
    for name, entry in notebooks.items():
        for model, cost in _counted(name, entry).items():
            row = known.get((name, model))
            if row is not None and cost.get("multiply_adds"):
                rows.append(
                    (name, model, row.estimate, row.low, row.high, cost["multiply_adds"], cost["parameters"], None)
                )
        files = entry["metrics"].get("file_scores", {}) if name[:2] == "05" else {}
        for model, cost in entry["metrics"].get("costs", {}).items() if files else ():
            reached = files[model][main_score(files[model])]
            numbers = (reached["estimate"], reached["low"], reached["high"], cost["multiply_adds"], cost["parameters"])
            rows.append((name, model, *numbers, cost["bytes"] / 1000))
    columns = ["notebook", "model", "estimate", "low", "high", "multiply_adds", "parameters", "kB"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], float))


def _counted(name: str, entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what networks cost, their multiply-adds for as much sound as one segment of the study holds."""
    metrics = entry["metrics"]
    if name[:2] == "02":
        return {_OURS: metrics["trained"][0]} if metrics.get("trained") else {}
    if name[:2] == "07" and metrics.get("networks"):
        full = _first(metrics["networks"].values())
        share = full["multiply_adds"] / full["multiply_adds_a_clip"]
        return {
            model: cost | {"multiply_adds": share * cost["multiply_adds_a_clip"]}
            for model, cost in metrics["networks"].items()
        }
    if name[:2] == "08":
        segment_s = get_profile(entry["manifest"]["parameters"]["profile"]).features.segment_s
        lengths_s = {model: about["segment_s"] for model, about in metrics.get("references", {}).items()}
        return {
            model: cost | {"multiply_adds": cost["multiply_adds"] * segment_s / lengths_s.get(model, segment_s)}
            for model, cost in metrics.get("models", {}).items()
            if cost.get("multiply_adds")
        }
    return metrics.get("trained", {}) if name[:2] in ("03", "04") else {}


def unbeaten(table: pd.DataFrame) -> pd.Series:
    """Say which models no other beats at both: as high a score for less work, or a higher one for as much.

    Parameters
    ----------
    table : pandas.DataFrame
        What `costs` gives.

    Returns
    -------
    pandas.Series of bool
    """
    score, work = table.estimate.to_numpy(), table.multiply_adds.to_numpy()
    no_worse = (score[None, :] >= score[:, None]) & (work[None, :] <= work[:, None])
    better = (score[None, :] > score[:, None]) | (work[None, :] < work[:, None])
    return pd.Series(~(no_worse & better).any(axis=1), table.index)


def checks(notebooks: Notebooks) -> pd.DataFrame:
    """Check that the notebooks' numbers belong together.

    Parameters
    ----------
    notebooks : dict
        See the module.

    Returns
    -------
    pandas.DataFrame
        One row a check: `holds`, and `detail` where it does not.
    """
    manifests = {name: entry["manifest"] for name, entry in notebooks.items()}
    splits: dict[str, set[str]] = {}
    for manifest in manifests.values():
        inputs = manifest["inputs"]
        split = inputs.get("split") or inputs.get("splits")
        # Notebook 01 makes the features, and names the corpus and the settings apart.
        features = "-".join(filter(None, [inputs.get("corpus"), inputs.get("features")]))
        if split:
            splits.setdefault(features, set()).add(split)
    without = [name for name, entry in notebooks.items() if not entry["metrics"].get("findings")]
    absent = {name: sorted(set(manifest["uses"]) - set(manifests)) for name, manifest in manifests.items()}
    found = {
        "the same features are split in the same way": [
            f"{features}: {', '.join(sorted(kinds))}" for features, kinds in splits.items() if len(kinds) > 1
        ],
        "every notebook says what it found": without,
        "every run that was used is there": [f"{name}: {', '.join(used)}" for name, used in absent.items() if used],
        "all ran with the same parameters": _kinds(manifests, lambda one: repr(one["parameters"])),
        "all ran on the same versions": _kinds(manifests, lambda one: repr(one["versions"])),
        "all ran at the same commit": _kinds(manifests, lambda one: one["commit"] or "no clone"),
        "no file differed from its commit": [
            name[:2]
            for name, manifest in manifests.items()
            if manifest["commit"].endswith("+") or not manifest["commit"]
        ],
    }
    rows = {check: (not problems, "; ".join(problems)) for check, problems in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["holds", "detail"]).rename_axis("check")


def _kinds(manifests: dict[str, dict[str, Any]], kind: Callable[[dict[str, Any]], str]) -> list[str]:
    """Name which notebooks go together, when not all do."""
    together: dict[str, list[str]] = {}
    for name, manifest in manifests.items():
        together.setdefault(kind(manifest), []).append(name[:2])
    return [", ".join(names) for names in together.values()] if len(together) > 1 else []


def facts(notebooks: Notebooks, missing: Sequence[str]) -> Facts:
    """Gather what bounds all that the study can say; see `findings.overview.limit_sentences`.

    Parameters
    ----------
    notebooks : dict
        See the module; at least one.
    missing : sequence of str
        Notebooks that have not been run.
    """
    parameters = next(iter(notebooks.values()))["manifest"]["parameters"]
    by_number = {name[:2]: entry["metrics"] for name, entry in notebooks.items()}
    profile, full = get_profile(parameters["profile"]), get_profile("full")
    return Facts(
        corpus=parameters["corpus"],
        profile=profile.name,
        seeds=parameters["seeds"],
        epochs=profile.experiment.epochs,
        full_epochs=full.experiment.epochs,
        n_groups=by_number.get("01", {}).get("n_groups"),
        n_tested=by_number.get("02", {}).get("n_tested"),
        simulated=by_number.get("12", {}).get("about", ""),
        not_at_hand=tuple(by_number.get("09", {}).get("missing", ())),
        not_compared=tuple(by_number.get("13", {}).get("left_out", ())),
        missing=tuple(missing),
    )


def figure_of_comparisons(table: pd.DataFrame) -> dict[str, Any]:
    """Return the arguments of `plots.main_differences`."""
    return {
        "names": [f"{name[:2]}  {row['first']} − {row['second']}" for name, row in table.iterrows()],
        "differences": table.difference.to_numpy(),
        "low": table.low.to_numpy(),
        "high": table.high.to_numpy(),
        "shown": table.shown.to_numpy(),
    }


def figure_of_models(table: pd.DataFrame) -> dict[str, Any]:
    """Return the arguments of `plots.models_side_by_side`."""
    return {
        "names": table.model.to_list(),
        "notebooks": table.notebook.str[:2].to_list(),
        "scores": table.estimate.to_numpy(),
        "low": table.low.to_numpy(),
        "high": table.high.to_numpy(),
        "trivial": (table.kind == "trivial").to_numpy(),
        "metric": table.score.iloc[0],
    }


def figure_of_costs(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Return the arguments of `plots.score_against_work`; what lies in one place stands there once."""
    places = table.drop_duplicates(["estimate", "multiply_adds"])
    return {
        "names": places.model.to_list(),
        "notebooks": places.notebook.str[:2].to_list(),
        "scores": places.estimate.to_numpy(),
        "multiply_adds": places.multiply_adds.to_numpy(),
        "unbeaten": unbeaten(places).to_numpy(),
        "metric": metric,
    }


def _difference(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "difference": row.get("difference", row.get("estimate")),
        "low": row["low"],
        "high": row["high"],
        "p": row["p"],
    }


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    """Return a difference the other way round."""
    found = _difference(row)
    ends = {"difference": found["difference"], "low": found["high"], "high": found["low"]}
    return found | {name: None if value is None else -value for name, value in ends.items()}


def _paired(metrics: Metrics) -> str:
    """Name the score that models are compared by, clip by clip."""
    reached = _first(metrics["scores"].values())
    return "accuracy" if "accuracy" in reached else "label accuracy"


def _leak(metrics: Metrics) -> Comparison:
    return Comparison(
        "random forest, segments at random",
        "whole groups",
        "accuracy over segments",
        **_difference(metrics["leak_difference"]),
    )


def _baseline(metrics: Metrics) -> Comparison:
    found = metrics["comparison"]
    several = "mean_average_precision"
    score, row = (score_name(several), found[several]) if several in found else ("accuracy", found["difference"])
    return Comparison(_OURS, found["against"], score, **_difference(row))


def _cutmix(metrics: Metrics) -> Comparison:
    row = metrics["against_no_augmentation"]["CutMix"]
    return Comparison("CutMix", "no augmentation", _paired(metrics), **_difference(row))


def _search(metrics: Metrics) -> Comparison:
    name, row = _first(metrics["against_baseline"].items())
    reference = _first(other for other in metrics["scores"] if other not in metrics["against_baseline"])
    return Comparison(name, reference, _paired(metrics), **_difference(row))


def _pruning(metrics: Metrics) -> Comparison:
    names = dict.fromkeys(one["name"] for one in metrics["goal"]["chosen"])
    return Comparison(" or ".join(names), "dense", "accuracy", **_difference(metrics["goal"]["difference"]))


def _maps(metrics: Metrics) -> Comparison:
    row = metrics["beyond_loudness"]
    return Comparison("loudest points of the map", "loudest points", "insertion minus deletion", **_difference(row))


def _ablation(metrics: Metrics) -> Comparison:
    name, row = _least(metrics["against"].items())
    reference = _first(other for other in metrics["scores"] if other not in metrics["against"])
    found = _difference(row) | {"p": row["p_holm"]}
    return Comparison(name, reference, _paired(metrics), **found, family=len(metrics["against"]))


def _rivals(metrics: Metrics) -> Comparison:
    # The one that notebook 01 shows the leak with, too; not the best of them, which its score would have picked.
    return Comparison(_OURS, "random forest", "accuracy", **_turned(metrics["against"]["random forest"]))


def _transfer(metrics: Metrics) -> Comparison:
    against = metrics["against_baseline"]
    wanted = ("yamnet, logistic regression", "our embedding, logistic regression")
    name = _first(name for name in wanted if name in against)
    return Comparison(name, _OURS, _paired(metrics), **_difference(against[name]))


def _layers(metrics: Metrics) -> Comparison:
    pair = ("trained on mixtures", "trained on single instruments")
    return _of_pairs(metrics, pair, "mean_average_precision")


def _timeline(metrics: Metrics) -> Comparison:
    rows = (row for row in metrics["differences"] if row["second"] == "always on")
    row = _first(row for row in rows if row["score"] == "frame_micro_f1")
    return Comparison(row["first"], row["second"], score_name(row["score"]), **_difference(row))


def _condition(metrics: Metrics) -> Comparison:
    return _of_pairs(metrics, (metrics["chosen"], "three thresholds"), None)


def _domains(metrics: Metrics) -> Comparison:
    home = metrics["domains"][0]
    falls = [
        row
        for row in metrics["matrix"]
        if row["trained_on"] == home and row["drop"] is not None and row["p"] is not None
    ]
    # Only the networks of the study's own corpus are asked about here, so p is corrected for their pairs alone.
    corrected = holm(np.array([row["p"] for row in falls], dtype=float))
    place, row = _least((row["tested_on"], row | {"p_holm": p}) for row, p in zip(falls, corrected, strict=True))
    fall = {"difference": row["drop"], "low": row["drop_low"], "high": row["drop_high"], "p": row["p_holm"]}
    score = "balanced accuracy, classes in common"
    return Comparison(
        f"trained on {home}, tested on {place}", "on its own test part", score, **_turned(fall), family=len(falls)
    )


def _least(rows: Iterable[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """Return the comparison of a family with the least corrected p: a test of whether there is any difference."""
    tested = [(name, row) for name, row in rows if row["p_holm"] is not None]
    return _first(sorted(tested, key=lambda pair: (pair[1]["p_holm"], pair[1]["p"])))


def _first(found: Iterable[Any]) -> Any:
    for one in found:
        return one
    raise KeyError("nothing was compared")


def _of_pairs(metrics: Metrics, pair: tuple[str, str], score: str | None) -> Comparison:
    row = _first(
        row
        for row in metrics["differences"]
        if (row["first"], row["second"]) == pair and (score is None or row["score"] == score)
    )
    return Comparison(*pair, score_name(score or "accuracy"), **_difference(row))


_MAIN: dict[str, Callable[[Metrics], Comparison]] = {
    "01": _leak,
    "02": _baseline,
    "03": _cutmix,
    "04": _search,
    "05": _pruning,
    "06": _maps,
    "07": _ablation,
    "08": _rivals,
    "09": _transfer,
    "10": _layers,
    "11": _timeline,
    "12": _condition,
    "13": _domains,
}
"""How each notebook's main comparison is read from its numbers."""
