"""What a reader must know before a notebook's findings: where its task or its numbers are not those of the others."""

from pathlib import Path
from typing import Any

from instrlib.core.config import folders
from instrlib.core.io import read_json
from instrlib.core.words import listed
from instrlib.runner.notebooks import read_notebook
from instrlib.runner.run import study_name

RECIPES = ("13", "recipes_by_domain")
"""The notebook and the figure whose numbers come from the committed log of recipes, not from its run."""


def shown_study(name: str) -> str:
    """Name the study whose numbers a committed notebook shows; "" where there is no such notebook.

    Parameters
    ----------
    name : str
        Of the notebook, such as "01_preprocessing".
    """
    path = folders().notebooks / f"{name}.ipynb"
    parameters = read_notebook(path).parameters if path.is_file() else {}
    return study_name(parameters["corpus"], parameters["profile"]) if parameters else ""


def divided(number: str, entry: dict[str, Any]) -> bool:
    """Say whether a notebook divides the classes of the corpus and so tests on clips of its own.

    Parameters
    ----------
    number : str
        Of the notebook, two digits.
    entry : dict
        Its `metrics` and `manifest`.
    """
    return number == "09" and entry["manifest"]["parameters"]["corpus"] == "rendered"


def task_sentence(metrics: dict[str, Any], classes: list[dict[str, Any]]) -> str:
    """Say what notebook 09 asks where it divides the classes.

    Parameters
    ----------
    metrics : dict
        Its numbers.
    classes : list of dict
        From `cards.class_counts`; empty where they are not known.

    Returns
    -------
    str
    """
    sources, targets = classes[::2], classes[1::2]  # see `transfer.prepare`
    counts = [sum(part) for part in zip(*(one["parts"] for one in targets), strict=True)]
    heads = metrics.get("heads") or [{}]
    begun = "**Another task than in the other sections, with which its scores do not compare.** "
    if not counts or counts[:2] != [heads[0].get("training_clips"), heads[0].get("validation_clips")]:
        return f"{begun}Half of the classes only train the embedding; models trained anew tell apart the others."
    train, validation, test = counts
    return (
        f"{begun}Of the {len(classes)} classes {len(sources)} only train the embedding "
        f"({listed(one['name'] for one in sources)}). Models trained anew tell apart the other {len(targets)} "
        f"({listed(one['name'] for one in targets)}): {train} clips for training, {validation} for validation, {test} "
        "for test."
    )


def recipes_log() -> Path | None:
    """Return where the log of recipes is committed; None where it is not."""
    path = folders().notebooks / "13_trials.json"
    return path if path.is_file() else None


def recipes_origin(path: Path) -> str:
    """Name the commit and the seeds of the log of recipes."""
    made = read_json(path)
    return f"commit {made['commit']}, {'seeds' if len(made['seeds']) > 1 else 'seed'} {listed(made['seeds'])}"


def unchecked_sentence() -> str:
    """Say that the log of recipes is in no check of the notebooks' numbers."""
    path = recipes_log()
    origin = f" ({recipes_origin(path)})" if path else ""
    return f"The recipes of {RECIPES[0]} are in none of these checks: their log was made apart{origin}."
