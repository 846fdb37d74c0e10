"""What pruning and conversion cost and save: accuracy against sparsity and size, and what zeros do not make smaller."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import BLUE, GREEN, GREY, INK, ORANGE, PARTS, RED, figure_function, label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("s", "o", "^", "D", "v")


@figure_function
def sparsity_curve(
    *,
    names: np.ndarray,
    sparsity: np.ndarray,
    accuracy: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    dense: float,
    dense_low: float,
    dense_high: float,
) -> "Figure":
    """Draw accuracy against the share of weights that are gone, with intervals, beside that of the dense network.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_series,)]
        Ways to make the network smaller, at most five.
    sparsity : np.ndarray [shape=(n_series, n_levels)]
        Share of the weights that are zero, or not there, from 0 to 1; NaN where a series has fewer levels.
    accuracy, low, high : np.ndarray [shape=(n_series, n_levels)]
        Accuracy and its interval; NaN ends draw none.
    dense, dense_low, dense_high : float
        Accuracy of the dense network and its interval, drawn as a band.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    if np.isfinite([dense_low, dense_high]).all():
        axes.axhspan(100 * dense_low, 100 * dense_high, color=GREY, alpha=0.18, linewidth=0)
    axes.axhline(100 * dense, color=INK, linestyle="--", linewidth=1, label="dense")
    colours = (BLUE, RED, GREEN, ORANGE, PARTS[3])
    for number, (name, colour, marker) in enumerate(zip(names, colours, _MARKERS[1:] + _MARKERS[:1], strict=False)):
        # Side by side, so that no interval hides another.
        place = 100 * np.asarray(sparsity[number]) + 0.7 * (number - (len(names) - 1) / 2)
        axes.vlines(place, 100 * np.asarray(low[number]), 100 * np.asarray(high[number]), color=colour, alpha=0.45)
        axes.plot(place, 100 * np.asarray(accuracy[number]), marker=marker, color=colour, label=label(name, longest=60))
    axes.set(xlabel="weights that are zero or left out (%)", ylabel="test accuracy (%)", xlim=(-3, 100))
    axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@figure_function
def size_against_accuracy(
    *,
    labels: np.ndarray,
    kinds: np.ndarray,
    formats: np.ndarray,
    compressed_kb: np.ndarray,
    accuracy: np.ndarray,
    dense: float,
    max_loss: float,
) -> "Figure":
    """Draw accuracy against compressed size; on the line lies what no other beats in both.

    Parameters
    ----------
    labels : np.ndarray of str [shape=(n,)]
        Short names, drawn beside the points on the line where there is room.
    kinds, formats : np.ndarray of str [shape=(n,)]
        How each was made smaller (its marker, at most five) and stored (its colour, at most six).
    compressed_kb : np.ndarray [shape=(n,)]
        Size of the compressed file in kB.
    accuracy : np.ndarray [shape=(n,)]
        From 0 to 1.
    dense : float
        Accuracy of the dense network.
    max_loss : float
        Accuracy that may be lost against it; the limit is drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    sizes, scores = np.asarray(compressed_kb, dtype=float), 100 * np.asarray(accuracy, dtype=float)
    figure = new_figure(height=4.2)
    axes = figure.subplots()
    limit = 100 * (dense - max_loss)
    axes.axhline(limit, color=INK, linestyle="--", linewidth=1, label=f"{100 * max_loss:g} point below dense")
    front = _front(sizes, scores)
    axes.plot(sizes[front], scores[front], color=GREY, linewidth=1, zorder=1, label="beaten by none in both")
    for kind, marker in zip(dict.fromkeys(kinds), _MARKERS, strict=False):
        axes.plot([], [], marker, color="white", markeredgecolor=INK, label=label(kind, longest=40))
        for name, colour in zip(dict.fromkeys(formats), PARTS, strict=False):
            chosen = (np.asarray(kinds) == kind) & (np.asarray(formats) == name)
            # Hollow, so that what lies in the same place shows through.
            axes.plot(
                sizes[chosen], scores[chosen], marker, color=colour, fillstyle="none", markeredgewidth=1.6, markersize=7
            )
    for name, colour in zip(dict.fromkeys(formats), PARTS, strict=False):
        axes.plot([], [], "s", color=colour, label=label(name))
    axes.set_xscale("log")
    _log_ticks(axes)
    axes.set(xlabel="compressed size (kB)", ylabel="test accuracy (%)")
    # Room for the name of the smallest, on its left.
    axes.set_xlim(sizes.min() * (sizes.min() / sizes.max()) ** 0.35 / 1.2, sizes.max() * 1.4)
    axes.margins(y=0.1)
    axes.grid()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    figure.draw_without_rendering()
    _name_points(axes, sizes[front], scores[front], [label(name) for name in np.asarray(labels)[front]])
    return figure


@figure_function
def what_zeros_save(*, names: np.ndarray, sparsity: np.ndarray, relative: np.ndarray) -> "Figure":
    """Draw what a network costs against its sparsity, as a share of what the dense one costs.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        The costs, such as "file" or "latency"; at most six.
    sparsity : np.ndarray [shape=(n_levels,)]
        Share of weights that are zero, from 0 to 1.
    relative : np.ndarray [shape=(n, n_levels)]
        Cost divided by the dense network's.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    colours = (*PARTS[:5], INK)
    for number, (name, values) in enumerate(zip(names, relative, strict=True)):
        # Side by side, because most of the lines lie on each other: that is what the figure shows.
        place = 100 * np.asarray(sparsity) + 0.9 * (number - (len(names) - 1) / 2)
        marker = (*_MARKERS, "P")[number]
        axes.plot(place, values, marker=marker, color=colours[number], label=label(name, longest=40))
    axes.set(xlabel="weights that are zero (%)", ylabel="cost (dense = 1)", ylim=(0, None))
    axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _front(sizes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the points than which none is both at most as large and better, from the smallest on."""
    order = np.lexsort((-scores, sizes))
    best = np.maximum.accumulate(scores[order])
    return order[np.diff(best, prepend=-np.inf) > 0]


def _log_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    # Ticks at 1, 2 and 5: the sizes often span little more than a power of ten.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_points(axes: "Axes", sizes: np.ndarray, scores: np.ndarray, names: list[str]) -> None:
    """Name points of a rising line above and left of it, where nothing else is, unless two names would overlap.

    Of points alike in name, such as the formats of one network, the best is named.
    """
    taken: list = []
    named: set[str] = set()
    for size, score, name in sorted(zip(sizes, scores, names, strict=True), key=lambda point: -point[1]):
        if name in named:
            continue
        named.add(name)
        text = axes.annotate(
            name, (size, score), (-5, 3), textcoords="offset points", ha="right", va="bottom", fontsize=7.5,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.8, "edgecolor": "none"},
        )  # fmt: skip
        box = text.get_window_extent().padded(4)
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)
