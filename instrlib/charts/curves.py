"""Charts over a common axis: lines with intervals, Pareto front, reliability, histogram."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.charts.style import (
    BLUE,
    GREY,
    INK,
    WIDTH,
    chart,
    colours_of,
    grid,
    label,
    legend_of,
    log_axis,
    new_figure,
    reference_line,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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

    Parameters
    ----------
    x : ndarray [n_x] or [n_panels, n_x]
        Numbers, or strings for named places.
    values, low, high : ndarray [n_x], [n_lines, n_x] or [n_panels, n_lines, n_x]
        NaN values are not drawn.
    names : ndarray of str [n_lines], optional
        Lines of one name (such as seeds) share a colour.
    panels : ndarray of str [n_panels], optional
        Titles of the panels.
    styles : ndarray of str [n_lines], optional
        matplotlib's line styles and markers, such as "o-", "--" or "o".
    marked : ndarray of bool, shaped like `values`
        Points drawn large, such as the chosen epoch.
    ticks : ndarray of str, shaped like `x`, optional
        Texts of the ticks.
    references : ndarray [n_references] or [n_panels, n_references]
        Horizontal lines, with `reference_names` in the legend.
    xlabel, ylabel : str or ndarray of str [n_panels]
        With one `ylabel` the panels share the axis.
    ylim : ndarray [2] or [n_panels, 2]
        NaN for a free end.
    """
    values = np.asarray(values, dtype=float)
    values = values.reshape((1,) * (3 - values.ndim) + values.shape)
    n, k, n_x = values.shape
    low, high, marked = (None if one is None else np.asarray(one).reshape(values.shape) for one in (low, high, marked))
    x, ylim = np.broadcast_to(x, (n, n_x)), np.broadcast_to(ylim, (n, 2))
    references = np.broadcast_to(references, (n, np.shape(references)[-1]))
    names = np.asarray([""] * k if names is None else names, dtype=str)
    drawn = colours_of(names)
    columns, own_axis = min(columns, n), np.ndim(ylabel) == 1
    height = {1: 2.6, 2: 2.3, 3: 1.75}.get(columns, 1.3)
    margin = 0.55 + 0.2 * -(-(len(drawn) + references.shape[1]) // 3)
    figure, grid_panels = grid(n, columns=columns, row_height=height, margin=margin, sharey=not own_axis)
    for number, axes in enumerate(grid_panels):
        places = _places(axes, x[number], None if ticks is None else np.broadcast_to(ticks, x.shape)[number])
        for at, level in enumerate(references[number]):
            axes.axhline(
                level, color=INK, linestyle=(0, (4, 1 + 2 * at)), linewidth=1, label=label(reference_names[at])
            )
        for line, name in enumerate(names):
            shape = str(styles[line]) if styles is not None else "-" if n_x > 12 else f"{drawn[name][1]}-"
            step = (line - (k - 1) / 2) * (0.0 if low is None or n_x > _FEW else _dodge(places, xlog))
            at = places * (1 + step) if xlog else places + step
            look = {"color": drawn[name][0], "alpha": 0.65 if len(drawn) < k else 1.0}
            axes.plot(at, values[number, line], shape, label=label(name, wrap=60), markersize=4.5, **look)
            if low is not None:
                _interval(axes, at, low[number, line], high[number, line], look["color"])
            if marked is not None:
                own = marked[number, line].astype(bool)
                look |= {"markeredgecolor": "white", "markersize": 8, "label": marked_name or None}
                axes.plot(at[own], values[number, line, own], "o", **look)
        if xlog:
            axes.set_xscale("log") if ticks is not None else log_axis(axes)
            axes.minorticks_off()
        axes.set_ylim(*(end if np.isfinite(end) else None for end in ylim[number]))
        axes.set_title("" if panels is None else label(panels[number], wrap=90 // columns))
        axes.set_xlabel(label(xlabel[number]) if np.ndim(xlabel) else "")
        axes.set_ylabel(label(ylabel[number]) if own_axis else "")
        axes.grid(axis="y")
    figure.supxlabel("" if np.ndim(xlabel) else label(xlabel, wrap=90), fontsize=9)
    figure.supylabel("" if own_axis else label(ylabel), fontsize=9)
    legend_of(figure, grid_panels[0])
    return figure


def _places(axes: "Axes", x: np.ndarray, ticks: np.ndarray | None) -> np.ndarray:
    """Set the ticks and return the positions of the points."""
    named = x.dtype.kind not in "biuf"
    places = np.arange(len(x), dtype=float) if named else x.astype(float)
    if named or ticks is not None:
        axes.set_xticks(places, [label(text, wrap=14) for text in (x if ticks is None else ticks)], fontsize=7.5)
    elif x.dtype.kind in "iu":
        axes.xaxis.get_major_locator().set_params(integer=True)
    return places


def _dodge(places: np.ndarray, xlog: bool) -> float:
    """Return the shift between lines at one place, so that their intervals do not overlap."""
    if len(places) < 2:
        return 0.1
    return 0.04 if xlog else 0.06 * float(np.min(np.abs(np.diff(places))) or 1)


def _interval(axes: "Axes", at: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> None:
    if len(at) <= _FEW:
        axes.vlines(at, low, high, color=colour, linewidth=1.6, alpha=0.5)
    else:
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


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

    Parameters
    ----------
    x, y : ndarray [n]
        Cost (lower is better) and score (higher is better).
    names : ndarray of str [n]
    kinds : ndarray of str [n], optional
        Colours and markers.
    low, high : ndarray [n], optional
        Interval of the score.
    limit : float, optional
        A horizontal line, such as the lowest acceptable score.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    kinds = np.asarray([""] * len(x) if kinds is None else kinds, dtype=str)
    front = pareto_front(x, y)
    figure = new_figure(height=4.0)
    axes = figure.subplots()
    if limit is not None:
        axes.axhline(limit, color=INK, linestyle="--", linewidth=1, label=label(limit_name))
    axes.plot(x[front], y[front], color=GREY, linewidth=1, zorder=1)
    for name, (colour, marker) in colours_of(kinds).items():
        own, best = np.flatnonzero(kinds == name), [one for one in front if kinds[one] == name]
        if low is not None:
            axes.vlines(x[own], np.asarray(low)[own], np.asarray(high)[own], color=colour, linewidth=1, alpha=0.25)
        axes.plot(x[own], y[own], marker, color=colour, markersize=4.5, alpha=0.5, markeredgewidth=0)
        axes.plot(x[best], y[best], marker, color=colour, markersize=7, markeredgecolor=INK)
        axes.plot([], [], marker, color=colour, markersize=6, label=label(name))
    for number, one in enumerate(front, 1):
        place = {"textcoords": "offset points", "ha": "right", "fontsize": 8, "fontweight": "bold"}
        axes.annotate(str(number), (x[one], y[one]), (-5, 5), **place)
        axes.plot([], [], linestyle="none", label=f"{number}  {label(names[one], wrap=28)}")
    axes.set_xscale("log")
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

    Parameters
    ----------
    confidence, accuracy, share : ndarray [n_bins] or [n_panels, n_bins]
        Means in bins of equal width, and the share of all predictions in each bin.
    ece : float or ndarray [n_panels]
        Expected calibration error.
    panels : ndarray of str [n_panels], optional
        Titles.
    of : str
        What is counted, for labels.
    """
    confidence, accuracy, share = (np.atleast_2d(np.asarray(one, dtype=float)) for one in (confidence, accuracy, share))
    n, n_bins = share.shape
    figure = new_figure(width=4.4 if n == 1 else WIDTH, height=4.4 if n == 1 else 3.4)
    tops, bottoms = figure.subplots(2, n, sharex=True, sharey="row", height_ratios=[1, 3], squeeze=False)
    for number, (top, axes) in enumerate(zip(tops, bottoms, strict=True)):
        head = "" if panels is None else f"{label(panels[number], wrap=70 // n)}\n"
        top.set_title(f"{head}calibration error {np.broadcast_to(ece, n)[number]:.3f}")
        top.bar((np.arange(n_bins) + 0.5) / n_bins, share[number], width=0.9 / n_bins, color=GREY)
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfectly calibrated")
        for enough, style, text in ((True, "o-", "accuracy"), (False, "o", f"fewer than {_LEAST:.0%} of the {of}")):
            own = np.isfinite(accuracy[number]) & ((share[number] >= _LEAST) == enough)
            fill = "full" if enough else "none"
            axes.plot(
                confidence[number, own], accuracy[number, own], style, color=BLUE, fillstyle=fill, label=label(text)
            )
        axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid()
    tops[0].set_ylabel(f"share of\n{of}")
    bottoms[0].set_ylabel("accuracy")
    legend_of(figure, bottoms[0], loc="outside lower center", ncols=3 if n > 1 else 2)
    return figure


@chart
def histogram(
    *,
    values: np.ndarray,
    reference: float | None = None,
    reference_name: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> "Figure":
    """Draw a histogram with a reference value."""
    values = np.asarray(values, dtype=float)
    every = values if reference is None else np.append(values, reference)
    low, high = every.min() - 0.5, every.max() + 0.5
    figure = new_figure(height=2.5)
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(low, high, 41), color=BLUE)
    axes.set(xlabel=label(xlabel), ylabel=label(ylabel), xlim=(low, high))
    if reference is not None:
        reference_line(axes, reference, reference_name)
    return figure
