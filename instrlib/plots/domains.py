"""Trained on one sound world, tested on another; and how near one lies to the other."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import GREY, INK, PARTS, WIDTH, figure_function, ink_on, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_INCHES_A_CELL = 1.15


@figure_function
def domain_matrix(
    *,
    sources: np.ndarray,
    targets: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    n_common: np.ndarray,
    constant: np.ndarray,
    metric: str = "balanced accuracy",
) -> "Figure":
    """Draw what networks of each domain score on each: the number, its interval, and how many classes it is of.

    Parameters
    ----------
    sources, targets : np.ndarray of str [shape=(n_sources,), (n_targets,)]
        Trained on, the rows; tested on, the columns.
    scores, low, high : np.ndarray [shape=(n_sources, n_targets)]
        Score and its interval, from 0 to 1; NaN where two are not compared.
    n_common : np.ndarray of int [shape=(n_sources, n_targets)]
        Classes in common.
    constant : np.ndarray [shape=(n_sources, n_targets)]
        Score of always giving one answer.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    scores, low, high, constant = (np.asarray(values, dtype=float) for values in (scores, low, high, constant))
    rows, columns = scores.shape
    colours = colormaps["Blues"]
    names = 0.06 * max(len(label(name)) for name in sources)
    figure = new_figure(
        width=min(WIDTH * 1.25, names + 1.5 + _INCHES_A_CELL * columns), height=1.35 + 0.72 * max(rows, 2)
    )
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(scores), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(rows, columns):
        score = scores[row, column]
        if not np.isfinite(score):
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#F4F4F4", edgecolor="#DDDDDD", hatch="////")
            )
            axes.text(column, row, "not compared", ha="center", va="center", fontsize=7, color=INK)
            continue
        ink = ink_on(to_hex(colours(score)))
        ends = (low[row, column], high[row, column])
        interval = f"{ends[0]:.2f} to {ends[1]:.2f}" if np.isfinite(ends).all() else "one group"
        axes.text(column, row - 0.16, f"{score:.2f}", ha="center", va="center", fontsize=11, color=ink)
        small = f"{interval}\n{n_common[row, column]} classes ({constant[row, column]:.2f})"
        axes.text(column, row + 0.2, small, ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.3)
        if sources[row] == targets[column]:
            # Within the cell, so that no neighbour covers it.
            axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=1.2))
    axes.set_xticks(np.arange(columns), [label(name) for name in targets])
    axes.set_yticks(np.arange(rows), [label(name) for name in sources])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="tested on (framed: on its own test part; in brackets: one answer always)", ylabel="trained on")
    figure.colorbar(image, ax=axes, label=label(metric), pad=0.02, aspect=16)
    return figure


@figure_function
def embedding_map(*, places: np.ndarray, classes: np.ndarray, domains: np.ndarray, perplexity: float) -> "Figure":
    """Draw a map of clips twice: coloured by class, and coloured by domain.

    Parameters
    ----------
    places : np.ndarray [shape=(n_clips, 2)]
        Where each clip lies (t-SNE).
    classes, domains : np.ndarray of str [shape=(n_clips,)]
        Class and domain of each. The marker is the domain's in both panels; from the seventh class on markers are
        open, and from the thirteenth colours come again.
    perplexity : float
        Of the map.

    Returns
    -------
    matplotlib.figure.Figure
    """
    places, classes, domains = np.asarray(places, dtype=float), np.asarray(classes), np.asarray(domains)
    names, worlds = sorted(set(classes)), list(dict.fromkeys(domains))
    columns = 5
    figure = new_figure(height=4.0 + 0.19 * -(-len(names) // columns))
    left, right = figure.subplots(1, 2)
    size = float(np.interp(len(places), [100, 1000], [26, 10]))
    for number, world in enumerate(worlds):
        marker, colour = _MARKERS[number % len(_MARKERS)], PARTS[number % len(PARTS)]
        own = domains == world
        right.scatter(
            *places[own].T, s=size, marker=marker, color=colour, linewidths=0.5, alpha=0.8, label=label(world)
        )
        for place, name in enumerate(names):
            of_class = own & (classes == name)
            left.scatter(*places[of_class].T, s=size, marker=marker, linewidths=0.7, **_paint(place))
    shown = [left.scatter([], [], s=26, linewidths=1, label=label(name), **_paint(at)) for at, name in enumerate(names)]
    for axes, title in ((left, "by class (marker: domain)"), (right, "by domain")):
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set(visible=True, color=GREY)
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(3, len(worlds)), handletextpad=0.1)
    figure.legend(handles=shown, loc="outside lower center", ncols=columns, columnspacing=1, handletextpad=0.1)
    figure.suptitle(
        f"t-SNE, perplexity {perplexity:g}: neighbours stay together, distances between heaps say little", fontsize=8
    )
    return figure


def _paint(place: int) -> dict[str, str]:
    """Colours of a class: filled, then open, then filled again."""
    colour = PARTS[place % len(PARTS)]
    return {"facecolors": "none" if (place // len(PARTS)) % 2 else colour, "edgecolors": colour}
