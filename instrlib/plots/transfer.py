"""What an embedding adds, by number of training clips."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import BLUE, GREY, INK, ORANGE, PARTS, figure_function, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (ORANGE, BLUE, *PARTS[2:])
_MARKERS = ("s", "o", "D", "^", "v", "P")
_APART = 0.03
"""Points of different models stand this far apart, in powers of ten, so that no interval hides another."""


@figure_function
def clips_curve(
    *,
    models: np.ndarray,
    clips: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    chance: float,
    metric: str = "accuracy",
) -> "Figure":
    """Draw the score of several models against the number of training clips, with intervals.

    Parameters
    ----------
    models : np.ndarray of str [shape=(n_models,)]
        The models; the first is the one that learns from scratch.
    clips : np.ndarray [shape=(n_sizes,)]
        Training clips of a class, on average, ascending; the last are all.
    scores, low, high : np.ndarray [shape=(n_models, n_sizes)]
        Score and its interval, from 0 to 1; NaN where there is none.
    chance : float
        Score of guessing; NaN draws none.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import NullLocator

    clips, scores, low, high = (np.asarray(values, dtype=float) for values in (clips, scores, low, high))
    figure = new_figure(height=3.7)
    axes = figure.subplots()
    for number, name in enumerate(models):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        places = clips * 10 ** (_APART * (number - (len(models) - 1) / 2))
        axes.vlines(places, low[number], high[number], color=colour, linewidth=1.5, alpha=0.45)
        line = "--" if number == 0 else "-"
        shown = label(name, longest=40)
        axes.plot(places, scores[number], line, color=colour, marker=marker, markersize=5, label=shown)
    if np.isfinite(chance):
        axes.axhline(chance, color=GREY, linestyle=":", linewidth=1)
        axes.annotate(
            f"chance {chance:.2f}", (1, chance), (-2, 3), xycoords=axes.get_yaxis_transform(), ha="right",
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(clips[0] / 1.3, clips[-1] * 1.3)
    axes.set_xticks(clips, [*(f"{count:g}" for count in clips[:-1]), f"all ({clips[-1]:.4g})"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.02)
    axes.grid()
    axes.set_xlabel("training clips of a class")
    axes.set_ylabel(label(metric))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
