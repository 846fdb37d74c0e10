"""The condition of instruments: their measures, and how severe a damage must be to be told."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import BLUE, GREEN, GREY, ORANGE, RED, figure_function, label, new_figure, round_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, RED)
_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "x"))


@figure_function
def measures_by_condition(
    *, values: np.ndarray, measures: np.ndarray, logarithmic: np.ndarray, condition: np.ndarray, conditions: np.ndarray
) -> "Figure":
    """Draw how measures are spread in each condition: the middle half as a box, nine tenths as a line.

    Parameters
    ----------
    values : np.ndarray [shape=(n, n_measures)]
        Measures of n versions; NaN where one could not be told.
    measures : np.ndarray of str [shape=(n_measures,)]
        What they are called, with units.
    logarithmic : np.ndarray of bool [shape=(n_measures,)]
        Which of them are drawn over a logarithmic axis; their values are above 0.
    condition : np.ndarray of int [shape=(n,)]
        Number of each version's condition.
    conditions : np.ndarray of str [shape=(n_conditions,)]
        Their names.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = 2
    rows = -(-len(measures) // columns)
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(height=0.2 + (0.45 + 0.16 * len(conditions)) * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.ravel()):
        if number >= len(measures):
            axes.set_visible(False)
            continue
        own = values[:, number]
        for row in range(len(conditions)):
            told = own[(np.asarray(condition) == row) & np.isfinite(own)]
            if not len(told):
                continue
            ends = np.percentile(told, [5, 25, 50, 75, 95])
            colour = _COLOURS[row % len(_COLOURS)]
            axes.hlines(row, ends[0], ends[4], color=colour, linewidth=1)
            axes.hlines(row, ends[1], ends[3], color=colour, linewidth=7, alpha=0.5)
            axes.plot(ends[2], row, "|", color=colour, markersize=9, markeredgewidth=2)
        if logarithmic[number]:
            axes.set_xscale("log")
            axes.minorticks_off()
            steps = round_steps(*axes.get_xlim())
            # Powers of ten alone where there are several of them.
            ticks = (
                steps
                if len(steps) <= 6
                else steps[np.isclose(np.log10(steps) % 1, 0) | np.isclose(np.log10(steps) % 1, 1)]
            )
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.ticklabel_format(axis="x", scilimits=(-3, 4), useMathText=True)
        names = [label(name) for name in conditions] if number % columns == 0 else [""] * len(conditions)
        axes.set_yticks(np.arange(len(conditions)), names)
        axes.set_ylim(len(conditions) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_title(label(measures[number], longest=46), fontsize=8, loc="left", pad=3)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x")
    return figure


@figure_function
def accuracy_by_severity(
    *,
    names: np.ndarray,
    conditions: np.ndarray,
    severity: np.ndarray,
    accuracy: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    healthy: np.ndarray,
    n: np.ndarray,
) -> "Figure":
    """Draw how often each condition is named rightly, by how severe the damage is.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_models,)]
        The models, up to four.
    conditions : np.ndarray of str [shape=(n_conditions,)]
        Those that have a severity.
    severity : np.ndarray [shape=(n_severities,)]
        Middle of each class of severity.
    accuracy, low, high : np.ndarray [shape=(n_conditions, n_models, n_severities)]
        Share of the versions that are named rightly, and its interval; NaN where there is none.
    healthy : np.ndarray [shape=(n_models,)]
        Share of the healthy versions that are called healthy; drawn as a dotted line.
    n : np.ndarray of int [shape=(n_conditions, n_severities)]
        Versions of each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.4)
    panels = figure.subplots(1, len(conditions), sharey=True, squeeze=False)[0]
    step = float(np.diff(severity).min()) if len(severity) > 1 else 0.2
    for place, (axes, condition) in enumerate(zip(panels, conditions, strict=True)):
        for number, name in enumerate(names):
            colour, marker = _STYLES[number % len(_STYLES)]
            at = np.asarray(severity) + 0.12 * step * (number - (len(names) - 1) / 2)
            axes.vlines(at, low[place, number], high[place, number], color=colour, linewidth=1.6, alpha=0.5)
            drawn = label(name, longest=40) if place == 0 else None
            axes.plot(
                at, accuracy[place, number], marker=marker, color=colour, linewidth=1, markersize=4.5, label=drawn
            )
            axes.axhline(healthy[number], color=colour, linestyle=":", linewidth=1)
        ticks = [f"{middle:.1f}\nn = {count}" for middle, count in zip(severity, n[place], strict=True)]
        axes.set_xticks(severity, ticks, fontsize=7.5)
        axes.set(title=f"{label(condition)} versions", ylim=(-0.02, 1.02))
        axes.grid(axis="y")
    panels[0].set_ylabel("named rightly")
    figure.supxlabel("severity of the damage (dotted: healthy versions called healthy)", fontsize=9)
    figure.legend(loc="outside upper center", ncols=2)
    return figure
