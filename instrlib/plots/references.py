"""Models of several kinds side by side, and what a leak makes of their scores."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREY,
    ORANGE,
    PARTS,
    figure_function,
    label,
    margin_numbers,
    name_rows,
    new_figure,
    reference_line,
    row_inches,
    whiskers,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("s", "o", "D", "^")
_COLOURS = (GREY, BLUE, ORANGE, PARTS[3])


@figure_function
def scores_by_kind(
    *,
    names: np.ndarray,
    kinds: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    reference: str,
    metric: str = "accuracy",
) -> "Figure":
    """Draw the scores of models with their intervals, told apart by kind, beside the score of one of them.

    Parameters
    ----------
    names, kinds : np.ndarray of str [shape=(n,)]
        The models from top to bottom, and the kind of each, at most four.
    scores, low, high : np.ndarray [shape=(n,)]
        Score and its interval, from 0 to 1; NaN ends draw none.
    reference : str
        One of the names; a line marks its score.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names, kinds = np.asarray(names, dtype=str), np.asarray(kinds, dtype=str)
    scores, low, high = (np.asarray(values, dtype=float) for values in (scores, low, high))
    figure = new_figure(height=1.3 + max(0.9, row_inches(names)))
    axes = figure.subplots()
    rows = np.arange(len(names))
    for kind, colour, marker in zip(dict.fromkeys(kinds), _COLOURS, _MARKERS, strict=False):
        of_kind = kinds == kind
        own = scores[of_kind], rows[of_kind], low[of_kind], high[of_kind]
        whiskers(axes, *own, colour=colour, marker=marker, label=label(kind))
    margin_numbers(axes, scores, ".2f")
    mark = float(scores[names == reference][0])
    reference_line(axes, mark, f"{label(reference)} {mark:.2f}")
    axes.grid(axis="x")
    axes.set_xlim(0, 1)
    axes.set_xlabel(label(metric))
    name_rows(axes, names, longest=40)
    figure.legend(loc="outside lower center", ncols=4)
    return figure
