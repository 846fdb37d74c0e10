"""Variants against each other."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREY,
    INK,
    PARTS,
    figure_function,
    label,
    margin_numbers,
    name_rows,
    new_figure,
    row_inches,
    whiskers,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@figure_function
def paired_differences(
    *,
    names: np.ndarray,
    differences: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    shown: np.ndarray,
    reference: str,
    metric: str = "accuracy",
) -> "Figure":
    """Draw how far each variant is above or below one of them, with intervals; what is not shown to differ is grey.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        The variants, from top to bottom.
    differences, low, high : np.ndarray [shape=(n,)]
        Score of each minus that of the reference, from -1 to 1, and its interval; NaN ends draw none.
    shown : np.ndarray of bool [shape=(n,)]
        Whether p, corrected for their number, is below .05.
    reference : str
        What they are compared with.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    differences, low, high = (np.asarray(values, dtype=float) for values in (differences, low, high))
    figure = new_figure(height=1.1 + max(0.9, row_inches(names)))
    axes = figure.subplots()
    shown = np.asarray(shown, dtype=bool)
    for sure, colour, marker in ((True, BLUE, "o"), (False, GREY, "D")):
        rows = np.flatnonzero(shown == sure)
        whiskers(axes, differences[rows], rows, low[rows], high[rows], colour=colour, marker=marker)
    margin_numbers(axes, differences, "+.2f")
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    axes.grid(axis="x")
    furthest = max(0.05, 1.12 * float(np.nanmax(np.abs([differences, low, high]))))
    axes.set_xlim(-furthest, furthest)
    axes.xaxis.set_major_formatter("{x:+.2f}")
    name_rows(axes, names, longest=40)
    axes.set_xlabel(f"{label(metric)} above that of {label(reference)}\n(grey: none shown, corrected p ≥ .05)")
    return figure


@figure_function
def recipes_by_domain(
    *,
    names: np.ndarray,
    domains: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    chosen: int,
    metric: str = "balanced accuracy",
) -> "Figure":
    """Draw what each recipe scores on each domain, with intervals; the chosen one is shaded.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_recipes,)]
        The recipes, from top to bottom.
    domains : np.ndarray of str [shape=(n_domains,)]
        What they are tested on.
    scores, low, high : np.ndarray [shape=(n_recipes, n_domains)]
        From 0 to 1; NaN where a domain was not asked.
    chosen : int
        Row of the chosen recipe.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    scores, low, high = (np.asarray(values, dtype=float) for values in (scores, low, high))
    figure = new_figure(height=1.3 + 0.36 * len(names))
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.axhspan(chosen - 0.5, chosen + 0.5, color=GREY, alpha=0.2, linewidth=0)
    for number, name in enumerate(domains):
        place = rows + 0.22 * (number - (len(domains) - 1) / 2)
        colour, marker = PARTS[number % len(PARTS)], "os^Dv"[number % 5]
        whiskers(axes, scores[:, number], place, low[:, number], high[:, number], colour=colour, marker=marker)
        axes.plot([], [], marker, color=colour, label=label(name))
    name_rows(axes, names, longest=40)
    axes.set_xlim(0, 1)
    axes.grid(axis="x")
    axes.set_xlabel(f"{metric} (shaded: the recipe that was chosen)")
    figure.legend(loc="outside upper center", ncols=len(domains))
    return figure
