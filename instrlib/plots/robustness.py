"""How far a model bears recordings that are worse, or from elsewhere, and what its confidence is worth there."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import BLUE, GREY, INK, WIDTH, figure_function, label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


@figure_function
def robustness_curves(
    *,
    degradation: np.ndarray,
    unit: np.ndarray,
    level: np.ndarray,
    estimate: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    shown: np.ndarray,
    untouched: np.ndarray,
    chance: float,
) -> "Figure":
    """Draw accuracy over the levels of each degradation, mild to severe from left to right, one panel each.

    Parameters
    ----------
    degradation, unit : np.ndarray of str [shape=(n,)]
        What each of n points belongs to, and the unit of its level.
    level : np.ndarray [shape=(n,)]
        Its level; those of one degradation from mild to severe, drawn in equal steps.
    estimate, low, high : np.ndarray [shape=(n,)]
        Accuracy and its interval.
    shown : np.ndarray of bool [shape=(n,)]
        Whether it differs from the accuracy of the untouched clips for sure; the point is then filled.
    untouched : np.ndarray [shape=(3,)]
        Accuracy of the untouched clips and its interval: where every curve begins, and the dashed line.
    chance : float
        Accuracy of the trivial answer: the dotted line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = list(dict.fromkeys(np.asarray(degradation).tolist()))
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(height=0.7 + 1.75 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    ends = np.stack([np.asarray(values, float) for values in (estimate, low, high)])
    for axes, name in zip(panels, names, strict=False):
        own = np.asarray(degradation) == name
        drawn = np.column_stack([untouched, ends[:, own]])
        places = np.arange(drawn.shape[1])
        _curve(axes, places, drawn, np.append(False, np.asarray(shown, bool)[own]))
        ticks = [f"{value:g}".replace("-", "−") for value in np.asarray(level)[own]]
        axes.set_xticks(places, ["none", *ticks])
        axes.axhline(untouched[0], color=INK, linestyle="--", linewidth=0.9)
        axes.axhline(chance, color=INK, linestyle=":", linewidth=0.9)
        axes.set_title(label(name), loc="left", pad=3)
        axes.set_xlabel(label(np.asarray(unit)[own][0]), fontsize=8, labelpad=1)
        axes.grid(axis="y")
        axes.set(ylim=(0, 1.02), xlim=(-0.3, drawn.shape[1] - 0.7))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supylabel("accuracy", fontsize=9)
    figure.legend(handles=_key(), loc="outside lower center", ncols=2)
    return figure


@figure_function
def shift_reliability(
    *,
    names: np.ndarray,
    n: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    share: np.ndarray,
    ece: np.ndarray,
) -> "Figure":
    """Draw for several domains how often a model is right against how sure it is; below the diagonal it is too sure.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_domains,)]
        The domains.
    n : np.ndarray of int [shape=(n_domains,)]
        Clips of each.
    confidence, accuracy, share : np.ndarray [shape=(n_domains, n_bins)]
        What `metrics.reliability` returns for each; the area of a point is the share of the clips in its bin.
    ece : np.ndarray [shape=(n_domains,)]
        Expected calibration errors.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(width=WIDTH * (0.06 + 0.94 * columns / _COLUMNS), height=0.4 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for number, axes in enumerate(panels):
        if number >= len(names):
            axes.set_visible(False)
            continue
        filled = np.isfinite(accuracy[number])
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.9)
        axes.vlines(
            confidence[number][filled],
            accuracy[number][filled],
            confidence[number][filled],
            color=GREY,
            linewidth=0.9,
        )
        axes.scatter(
            confidence[number][filled],
            accuracy[number][filled],
            s=8 + 400 * share[number][filled],
            color=BLUE,
            alpha=0.6,
            linewidths=0,
        )
        axes.set_title(f"{label(names[number])}\nn = {n[number]}, calibration error {ece[number]:.2f}", fontsize=8)
        axes.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.grid()
        if number + columns >= len(names):
            axes.tick_params(labelbottom=True)
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    return figure


def _curve(axes: "Axes", places: np.ndarray, drawn: np.ndarray, shown: np.ndarray) -> None:
    axes.fill_between(places, drawn[1], drawn[2], color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(places, drawn[0], color=BLUE, linewidth=1.3)
    for chosen, face in ((shown, BLUE), (~shown, "white")):
        axes.plot(
            places[chosen], drawn[0, chosen], "o", color=BLUE, markerfacecolor=face, markersize=4.5, linestyle="none"
        )


def _key() -> list:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker="o", color=BLUE, markersize=4.5, label="differs from untouched (p < .05 after Holm)"),
        Line2D([], [], marker="o", color=BLUE, markerfacecolor="white", markersize=4.5, label="not shown to differ"),
        Line2D([], [], color=INK, linestyle="--", linewidth=0.9, label="untouched"),
        Line2D([], [], color=INK, linestyle=":", linewidth=0.9, label="always the most frequent class"),
    ]
