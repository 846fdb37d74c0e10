"""Charts over a common axis: lines with intervals, Pareto front, reliability, histogram."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.charts import style
from instrlib.charts.style import chart, colours_of, grid, label, legend, log_axis, new_figure, reference_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST = 0.02  # bins with a smaller share are drawn hollow, because their accuracy is uncertain
_FEW = 8  # intervals are whiskers at up to this many places, otherwise bands


@chart
def lines(
    *,
    x: np.ndarray,
    values: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    names: np.ndarray | None = None,
    panels: np.ndarray | None = None,
    styles: np.ndarray | None = None,
    marked: np.ndarray | None = None,
    marked_name: str = "",
    ticks: np.ndarray | None = None,
    references: np.ndarray = (),
    reference_names: np.ndarray = (),
    xlabel: str | np.ndarray = "",
    ylabel: str | np.ndarray = "",
    ylim: np.ndarray = (np.nan, np.nan),
    xlog: bool = False,
    columns: int = 3,
) -> "Figure":
    """Draw lines with intervals in one panel or several.

    `values`, `low` and `high` [n_x], [n_lines, n_x] or [n_panels, n_lines, n_x] belong to places `x` [n_x] or
    [n_panels, n_x], numbers or texts; `ticks` replace their texts. Lines of one name (such as seeds) share a colour;
    `styles` [n_lines] are matplotlib's, such as "o-", "--" or "o". `panels` [n_panels] are titles. `marked` points are
    drawn large, such as the chosen epoch. `references` [n_references] or [n_panels, n_references] are horizontal
    lines, with names in the legend. `xlabel` and `ylabel` may be one for each panel, `ylim` [2] or [n_panels, 2] NaN
    for a free end.
    """
    values = np.asarray(values, dtype=float)
    values = values.reshape((1,) * (3 - values.ndim) + values.shape)
    n, k, n_x = values.shape
    low, high, marked = (None if one is None else np.asarray(one).reshape(values.shape) for one in (low, high, marked))
    x, ylim = np.broadcast_to(x, (n, n_x)), np.broadcast_to(ylim, (n, 2))
    ticks = x if ticks is None and x.dtype.kind not in "biuf" else ticks
    references = np.broadcast_to(references, (n, np.shape(references)[-1]))
    names = np.asarray([""] * k if names is None else names, dtype=str)
    drawn, columns, own_axis = colours_of(names), min(columns, n), np.ndim(ylabel) == 1
    height, opacity = {1: 2.6, 2: 2.3, 3: 1.75}.get(columns, 1.3), 0.65 if len(drawn) < k else 1.0
    figure, grid_panels = grid(n, columns=columns, row_height=height, margin=0.55, sharey=not own_axis)
    for number, axes in enumerate(grid_panels):
        places = x[number].astype(float) if x.dtype.kind in "biuf" else np.arange(n_x, dtype=float)
        for at, level in enumerate(references[number]):
            look = {"color": style.INK, "linestyle": style.DASHES[at], "linewidth": 1.2}
            axes.axhline(level, label=label(reference_names[at], wrap=60), **look)
        # Lines are shifted, so that their intervals do not overlap.
        gap = 0.0 if low is None or n_x > _FEW else 0.04 if xlog else 0.06 * float(np.diff(places, append=np.inf).min())
        for line, name in enumerate(names):
            shape = str(styles[line]) if styles is not None else "-" if n_x > 12 else f"{drawn[name][1]}-"
            step, y, colour = (line - (k - 1) / 2) * gap, values[number, line], drawn[name][0]
            at = places * (1 + step) if xlog else places + step
            axes.plot(at, y, shape, label=label(name, wrap=60), markersize=4.5, color=colour, alpha=opacity)
            if low is not None and n_x <= _FEW:
                axes.vlines(at, low[number, line], high[number, line], color=colour, linewidth=1.6, alpha=0.5)
            elif low is not None:
                axes.fill_between(at, low[number, line], high[number, line], color=colour, alpha=0.2, linewidth=0)
            if marked is not None:
                own, look = marked[number, line].astype(bool), {"color": colour, "alpha": opacity, "markersize": 8}
                axes.plot(at[own], y[own], "o", markeredgecolor="white", label=marked_name or None, **look)
        if xlog:
            log_axis(axes)
        if ticks is not None:
            shown = np.isfinite(values[number]).any(axis=0)
            texts = [label(text, wrap=14) for text in np.broadcast_to(ticks, x.shape)[number, shown]]
            axes.set_xticks(places[shown], texts, fontsize=7.5)
        elif x.dtype.kind in "iu":
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(*(end if np.isfinite(end) else None for end in ylim[number]))
        axes.set_title("" if panels is None else label(panels[number], wrap=90 // columns))
        axes.set_xlabel(label(xlabel[number]) if np.ndim(xlabel) else "")
        axes.set_ylabel(label(ylabel[number]) if own_axis else "")
        axes.grid(axis="y")
    figure.supxlabel("" if np.ndim(xlabel) else label(xlabel, wrap=90), fontsize=9)
    figure.supylabel("" if own_axis else label(ylabel), fontsize=9)
    legend(figure, grid_panels[0])
    return figure


@chart
def pareto(
    *,
    x: np.ndarray,
    y: np.ndarray,
    names: np.ndarray,
    kinds: np.ndarray | None = None,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    limit: float | None = None,
    limit_name: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> "Figure":
    """Draw cost (logarithmic) against score; the points of the Pareto front are joined, numbered and named.

    `x` [n] are costs (lower is better), `y` scores (higher is better) with the interval `low`, `high`; each of `kinds`
    [n] has a colour and a marker. `limit` is a horizontal line, such as the lowest acceptable score.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    kinds = np.asarray([""] * len(x) if kinds is None else kinds, dtype=str)
    front = pareto_front(x, y)
    figure = new_figure(height=4.0)
    axes = figure.subplots()
    if limit is not None:
        axes.axhline(limit, color=style.INK, linestyle="--", linewidth=1, label=label(limit_name))
    axes.plot(x[front], y[front], color=style.GREY, linewidth=1, zorder=1)
    for name, (colour, marker) in colours_of(kinds).items():
        own, best = np.flatnonzero(kinds == name), [one for one in front if kinds[one] == name]
        if low is not None:
            axes.vlines(x[own], np.asarray(low)[own], np.asarray(high)[own], color=colour, linewidth=1, alpha=0.25)
        axes.plot(x[own], y[own], marker, color=colour, markersize=4.5, alpha=0.5, markeredgewidth=0)
        axes.plot(x[best], y[best], marker, color=colour, markersize=7, markeredgecolor=style.INK)
        axes.plot([], [], marker, color=colour, markersize=6, label=label(name))
    for number, one in enumerate(front, 1):
        side, offset = ("right", (-5, 5)) if number % 2 else ("left", (6, -10))  # neighbours on both sides of the front
        place = {"textcoords": "offset points", "ha": side, "fontsize": 8, "fontweight": "bold"}
        axes.annotate(str(number), (x[one], y[one]), offset, **place)
        axes.plot([], [], linestyle="none", label=f"{number}  {label(names[one], wrap=28)}")
    axes.margins(x=0.08)
    log_axis(axes)
    axes.grid()
    axes.set(xlabel=label(xlabel, wrap=70), ylabel=label(ylabel))
    figure.legend(loc="outside right upper", handlelength=1.2)
    return figure


def pareto_front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the points of the Pareto front, cheapest first."""
    order = np.lexsort((-y, x))
    best = np.maximum.accumulate(np.where(np.isfinite(y[order]), y[order], -np.inf))
    return order[np.diff(best, prepend=-np.inf) > 0]


@chart
def reliability(
    *,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    share: np.ndarray,
    ece: float | np.ndarray,
    panels: np.ndarray | None = None,
    of: str = "clips",
) -> "Figure":
    """Draw accuracy against confidence; points of a calibrated model are on the diagonal.

    `confidence`, `accuracy` and `share` [n_bins] or [n_panels, n_bins] are means in bins of equal width and the share
    of all predictions in each bin; `ece` is the expected calibration error; `of` says what is counted.
    """
    confidence, accuracy, share = (np.atleast_2d(np.asarray(one, dtype=float)) for one in (confidence, accuracy, share))
    n, n_bins = share.shape
    figure = new_figure(width=4.4 if n == 1 else style.WIDTH, height=4.03 if n == 1 else 3.2)
    tops, bottoms = figure.subplots(2, n, sharex=True, sharey="row", height_ratios=[1, 3], squeeze=False)
    for number, (top, axes) in enumerate(zip(tops, bottoms, strict=True)):
        head = "" if panels is None else f"{label(panels[number], wrap=70 // n)}\n"
        top.set_title(f"{head}calibration error {np.broadcast_to(ece, n)[number]:.3f}")
        top.bar((np.arange(n_bins) + 0.5) / n_bins, share[number], width=0.9 / n_bins, color=style.GREY)
        axes.plot([0, 1], [0, 1], "--", color=style.INK, linewidth=1, label="perfectly calibrated")
        for enough, line, text in ((True, "o-", "accuracy"), (False, "o", f"fewer than {_LEAST:.0%} of the {of}")):
            own = np.isfinite(accuracy[number]) & ((share[number] >= _LEAST) == enough)
            look = {"color": style.BLUE, "fillstyle": "full" if enough else "none", "label": label(text)}
            axes.plot(confidence[number, own], accuracy[number, own], line, **look)
        axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid()
    tops[0].set_ylabel(f"share of\n{of}")
    bottoms[0].set_ylabel("accuracy")
    legend(figure, bottoms[0], below=True)
    return figure


@chart
def histogram(
    *, values: np.ndarray, reference: float | None = None, reference_name: str = "", xlabel: str = "", ylabel: str = ""
) -> "Figure":
    """Draw a histogram with a reference value."""
    every = np.append(values, [] if reference is None else reference)
    ends = every.min() - 0.5, every.max() + 0.5
    figure = new_figure(height=2.5)
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(*ends, 41), color=style.BLUE)
    axes.set(xlabel=label(xlabel), ylabel=label(ylabel), xlim=ends)
    if reference is not None:
        reference_line(axes, reference, reference_name)
    return figure
