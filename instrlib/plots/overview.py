"""The whole study side by side: main differences, all models, and what scores cost."""

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PARTS,
    RED,
    figure_function,
    label,
    margin_numbers,
    name_rows,
    new_figure,
    round_steps,
    whiskers,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_COLOURS = (BLUE, ORANGE, *PARTS[2:5], RED, GREY)


@figure_function
def main_differences(
    *, names: np.ndarray, differences: np.ndarray, low: np.ndarray, high: np.ndarray, shown: np.ndarray
) -> "Figure":
    """Draw one difference a row with its interval; those that are shown after correction are filled.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        What is compared, from top to bottom.
    differences, low, high : np.ndarray [shape=(n,)]
        From -1 to 1, each in its own score; NaN ends draw none.
    shown : np.ndarray of bool [shape=(n,)]
        Whether p after correction over all of them is below .05.

    Returns
    -------
    matplotlib.figure.Figure
    """
    differences, low, high = (np.asarray(values, dtype=float) for values in (differences, low, high))
    shown = np.asarray(shown, dtype=bool)
    figure = new_figure(height=1.15 + 0.3 * len(names))
    axes = figure.subplots()
    for sure, colour, marker, text in (
        (True, BLUE, "o", "p below .05 after correction over all"),
        (False, GREY, "D", "no difference shown"),
    ):
        rows = np.flatnonzero(shown == sure)
        whiskers(axes, differences[rows], rows, low[rows], high[rows], colour=colour, marker=marker, label=text)
    margin_numbers(axes, differences, "+.2f")
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    axes.grid(axis="x")
    furthest = max(0.05, 1.08 * float(np.nanmax(np.abs([differences, low, high]))))
    axes.set_xlim(-furthest, furthest)
    axes.xaxis.set_major_formatter("{x:+.2f}")
    name_rows(axes, names)
    axes.set_yticklabels([fill(label(name, longest=92), 50) for name in names], fontsize=7)
    axes.set_xlabel("difference in the score of each comparison")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@figure_function
def models_side_by_side(
    *,
    names: np.ndarray,
    notebooks: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    trivial: np.ndarray,
    metric: str = "accuracy",
) -> "Figure":
    """Draw the score of every model with its interval, the highest on top of two columns.

    Parameters
    ----------
    names, notebooks : np.ndarray of str [shape=(n,)]
        The models, and the number of the notebook that each is of.
    scores, low, high : np.ndarray [shape=(n,)]
        Score and its interval, from 0 to 1; NaN ends draw none.
    trivial : np.ndarray of bool [shape=(n,)]
        Which of them need no training.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    scores, low, high = (np.asarray(values, dtype=float) for values in (scores, low, high))
    trivial = np.asarray(trivial, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    columns = np.array_split(order, 2) if len(order) > 12 else [order]
    figure = new_figure(height=1.2 + 0.17 * max(len(column) for column in columns))
    panels = figure.subplots(1, len(columns), sharex=True, squeeze=False)[0]
    kinds = ((False, BLUE, "o", "trained"), (True, GREY, "D", "trivial"))
    for axes, column in zip(panels, columns, strict=True):
        for kind, colour, marker, _ in kinds:
            rows = np.flatnonzero(trivial[column] == kind)
            own = column[rows]
            whiskers(axes, scores[own], rows, low[own], high[own], colour=colour, marker=marker)
        margin_numbers(axes, scores[column], ".2f")
        name_rows(axes, [f"{notebooks[one]} · {label(names[one], longest=30)}" for one in column], longest=36)
        axes.tick_params(axis="y", labelsize=6)
        axes.grid(axis="x")
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    figure.supxlabel(f"{label(metric)}; before each name its notebook", fontsize=9)
    handles = [
        panels[0].plot([], [], marker, color=colour, linestyle="none", markersize=5, label=text)[0]
        for _, colour, marker, text in kinds
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


@figure_function
def score_against_work(
    *,
    names: np.ndarray,
    notebooks: np.ndarray,
    scores: np.ndarray,
    multiply_adds: np.ndarray,
    unbeaten: np.ndarray,
    metric: str = "accuracy",
) -> "Figure":
    """Draw what every network reaches against what it computes, and name those that none beats at both.

    Parameters
    ----------
    names, notebooks : np.ndarray of str [shape=(n,)]
        The networks, and the number of the notebook that each is of; at most seven notebooks.
    scores : np.ndarray [shape=(n,)]
        From 0 to 1.
    multiply_adds : np.ndarray [shape=(n,)]
        Of a forward pass over as much sound as a segment of the study holds, above 0.
    unbeaten : np.ndarray of bool [shape=(n,)]
        Those that are joined by a line and named in the legend.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    notebooks, scores = np.asarray(notebooks, dtype=str), np.asarray(scores, dtype=float)
    work, unbeaten = np.asarray(multiply_adds, dtype=float) / 1e6, np.asarray(unbeaten, dtype=bool)
    figure = new_figure(height=3.9)
    axes = figure.subplots()
    front = np.flatnonzero(unbeaten)[np.argsort(work[unbeaten], kind="stable")]
    axes.plot(work[front], scores[front], color=GREY, linewidth=1, zorder=1)
    for kind, colour, marker in zip(dict.fromkeys(notebooks), _COLOURS, _MARKERS, strict=False):
        own = notebooks == kind
        axes.plot(
            work[own], scores[own], marker, color=colour, linestyle="none", markersize=5, label=f"notebook {kind}"
        )
    for number, one in enumerate(front, 1):
        axes.annotate(
            str(number), (work[one], scores[one]), (-3, 5), textcoords="offset points", fontsize=8, ha="right"
        )
        axes.plot([], [], linestyle="none", label=f"{number}  {label(names[one])}")
    axes.set_xscale("log")
    axes.set_xticks(round_steps(work.min() * 0.8, work.max() * 1.3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid()
    axes.set_xlabel("multiply-adds for a segment of the study (millions)")
    axes.set_ylabel(label(metric))
    figure.legend(loc="outside right upper", handlelength=1)
    return figure
