"""Timeline, parallel coordinates of a search, and scatter plot of an embedding."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.charts.style import (
    BLUE,
    GREY,
    INK,
    LIGHT,
    RED,
    WIDTH,
    chart,
    colours_of,
    grid,
    label,
    legend_of,
    name_rows,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW = 0.72


@chart
def timeline(
    *,
    classes: np.ndarray,
    hop_s: float,
    scores: np.ndarray,
    active: np.ndarray,
    duration_s: float,
    truth_label: np.ndarray = (),
    truth_start_s: np.ndarray = (),
    truth_end_s: np.ndarray = (),
    width: float = WIDTH,
) -> "Figure":
    """Draw which instruments play when, one row per instrument that was found or plays.

    Parameters
    ----------
    classes : ndarray of str [n_classes]
    hop_s : float
        Length of a frame, s.
    scores : ndarray [n_frames, n_classes]
        From 0 to 1, drawn as colours where `active`.
    active : ndarray of bool [n_frames, n_classes]
        Where each instrument was found.
    duration_s : float
        Length of the recording.
    truth_label, truth_start_s, truth_end_s : ndarray [n], optional
        The true instruments, drawn as outlines.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patches import Patch, Rectangle

    active = np.asarray(active, dtype=bool)
    rows = np.flatnonzero(active.any(axis=0) | np.isin(classes, np.asarray(truth_label, dtype=str)))
    names = [str(classes[row]) for row in rows]
    figure = new_figure(height=1.5 + 0.3 * max(len(rows), 1), width=width)
    axes = figure.subplots()
    # Without the palest part of the colour map, so that low scores are visible.
    shades = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.2, 1, 256)))
    scale = {"cmap": shades, "norm": Normalize(0, 1)}
    for place, row in enumerate(rows):
        found = np.ma.masked_where(~active[:, row], scores[:, row])
        extent = 0, len(found) * hop_s, place + _ROW / 2, place - _ROW / 2
        axes.imshow(found[None], extent=extent, aspect="auto", interpolation="nearest", zorder=1, **scale)
    for name, start_s, end_s in zip(truth_label, truth_start_s, truth_end_s, strict=True):
        corner = start_s, names.index(str(name)) - _ROW / 2
        axes.add_patch(Rectangle(corner, end_s - start_s, _ROW, fill=False, edgecolor=INK, linewidth=1.1))
    name_rows(axes, [label(name) for name in names])
    axes.set(xlabel="time (s)", xlim=(0, duration_s))
    axes.grid(axis="x")
    if not names:
        axes.text(0.5, 0.5, "no instrument was found", transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
    bar = {"fraction": 0.05, "pad": 0.02, "aspect": 12, "ticks": [0, 0.5, 1]}
    figure.colorbar(ScalarMappable(**scale), ax=axes, label="mean score", **bar)
    if len(truth_label):
        keys = [Patch(facecolor=BLUE, alpha=0.6, label="found"), Patch(fill=False, edgecolor=INK, label="plays")]
        figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


@chart
def parallel_coordinates(
    *,
    names: np.ndarray,
    values: np.ndarray,
    score: np.ndarray,
    log: np.ndarray,
    highlighted: np.ndarray,
    score_name: str,
    highlighted_name: str = "",
) -> "Figure":
    """Draw each trial of a search as a line through its hyperparameters to its score.

    Parameters
    ----------
    names : ndarray of str [n_parameters]
    values : ndarray [n_trials, n_parameters]
    score : ndarray [n_trials]
        NaN for a failed trial, which is counted in the legend.
    log : ndarray of bool [n_parameters]
        Which hyperparameters have a logarithmic axis.
    highlighted : ndarray of bool [n_trials]
        Trials drawn in red, such as the best three.
    """
    values, score = np.asarray(values, dtype=float), np.asarray(score, dtype=float)
    done, n = np.isfinite(score), len(names)
    table, chosen = np.column_stack([values, score])[done], np.asarray(highlighted, dtype=bool)[done]
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    for at, logged in enumerate([*log, False]):
        column = table[:, at]
        few, spaced = np.unique(column), np.geomspace if logged else np.linspace
        ticks = few if len(few) <= 5 else spaced(column.min(), column.max(), 5)
        places, heights = (np.log(one) if logged else one for one in (ticks, column))
        low, width = heights.min(), np.ptp(heights) or 1.0
        places, table[:, at] = (places - low) / width, (heights - low) / width
        axes.axvline(at, color=INK, linewidth=1, zorder=2)
        for tick, place in zip(ticks, places, strict=True):
            text = {"textcoords": "offset points", "va": "center", "fontsize": 7, "zorder": 6}
            back = {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.85, "edgecolor": "none"}
            axes.annotate(f"{tick:.2g}", (at, place), (4, 0), bbox=back, **text)
    # Shifted a little, so that trials with the same values do not hide each other.
    table[:, :-1] += np.linspace(-0.025, 0.025, len(table))[np.argsort(np.argsort(table[:, -1]))][:, None]
    axes.plot(table[~chosen].T, color=GREY, linewidth=0.9, alpha=0.55, zorder=1)
    axes.plot(table[chosen].T, color=RED, linewidth=2.0, zorder=3)
    axes.plot([], color=RED, linewidth=2.0, label=label(highlighted_name, wrap=60))
    failed = f", {np.sum(~done)} failed" if not done.all() else ""
    axes.plot([], color=GREY, label=f"other trials ({np.sum(~chosen)}){failed}")
    axes.set(xlim=(-0.1, n + 0.35), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticks(range(n + 1), [label(name, wrap=11) for name in (*names, score_name)])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@chart
def scatter(
    *,
    x: np.ndarray,
    y: np.ndarray,
    kinds: np.ndarray,
    panels: np.ndarray | None = None,
    frameless: bool = False,
) -> "Figure":
    """Draw points coloured by kind, in one panel for each value of `panels` with the other points in grey.

    Parameters
    ----------
    x, y : ndarray [n]
    kinds, panels : ndarray of str [n]
        Twelve classes of four domains are readable as `kinds=domain, panels=class`.
    frameless : bool
        Omit the numbers of the axes, which have no meaning in an embedding.
    """
    x, y, kinds = np.asarray(x, dtype=float), np.asarray(y, dtype=float), np.asarray(kinds, dtype=str)
    names = [""] if panels is None else sorted(set(np.asarray(panels, dtype=str).tolist()))
    figure, grid_panels = grid(
        len(names), columns=4, row_height=4.0 if len(names) == 1 else 1.75, sharex=True, sharey=True
    )
    size = float(np.interp(len(x), [100, 1000], [26, 8])) / (1 if len(names) == 1 else 1.6)
    for name, axes in zip(names, grid_panels, strict=True):
        own = np.ones(len(x), dtype=bool) if panels is None else np.asarray(panels, dtype=str) == name
        axes.scatter(x[~own], y[~own], s=size / 2, color=LIGHT, linewidths=0)
        for kind, (colour, marker) in colours_of(kinds).items():
            both = own & (kinds == kind)
            axes.scatter(x[both], y[both], s=size, color=colour, marker=marker, alpha=0.8, linewidths=0)
        axes.set_title(label(name, wrap=22), fontsize=8)
        if frameless:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=GREY)
    for kind, (colour, marker) in colours_of(kinds).items():
        grid_panels[0].scatter([], [], s=26, color=colour, marker=marker, label=label(kind, wrap=60))
    legend_of(figure, grid_panels[0], ncols=5)
    return figure
