"""Charts of numbers: dots with intervals, lines, bars, heat map, Pareto front, reliability, box plot, histogram."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from instrlib.charts.style import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    LIGHT,
    chart,
    colours_of,
    grid,
    label,
    log_axis,
    name_rows,
    new_figure,
    rows_height,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@chart
def dots(
    *,
    names: np.ndarray,
    values: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
    series: np.ndarray | None = None,
    reference: float | None = None,
    reference_name: str = "",
    margin: float | np.ndarray = 0.0,
    signed: bool = False,
    limits: np.ndarray | None = None,
    xlabel: str = "",
    title: str = "",
) -> "Figure":
    """Draw one row a name: points with intervals, and the numbers on the right.

    Parameters
    ----------
    names : ndarray of str [n]
        From top to bottom.
    values, low, high : ndarray [n] or [n, n_series]
        NaN ends draw no interval.
    kinds : ndarray of str [n], optional
        Colours the rows; better, worse, equivalent, inconclusive and baseline have colours of their own.
    series : ndarray of str [n_series], optional
        Names of the columns of `values`.
    reference : float, optional
        A dashed line, such as chance, with `reference_name` above it.
    margin : float or ndarray [n]
        Half the width of a grey band around the reference: the margin of equivalence, for all or for each row.
    signed : bool
        The values are differences: signs are written and the axis is symmetric around 0.
    """
    values = _columns(values)
    low, high = (np.full_like(values, np.nan) if ends is None else _columns(ends) for ends in (low, high))
    n, k = values.shape
    margin = np.broadcast_to(margin, n)
    texts = [label(name, wrap=44) for name in names]
    has_legend = kinds is not None or k > 1
    figure = new_figure(height=0.75 + 0.22 * has_legend + rows_height(texts) * (1 + 0.22 * (k - 1)), title=title)
    axes = figure.subplots()
    rows, keys = np.arange(n), ([""] if kinds is None else list(kinds))
    if signed and reference is None:
        reference = 0.0
    if reference is not None:
        axes.axvline(reference, color=INK, linestyle="--", linewidth=1)
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(label(reference_name), (reference, 1), (0, 3), **place)
        axes.barh(rows, 2 * margin, left=reference - margin, height=1.0, color=LIGHT, alpha=0.5, linewidth=0)
    for column in range(k):
        places = rows + (0.5 * (column / (k - 1) - 0.5) if k > 1 else 0)
        for name, (colour, marker) in colours_of(keys if k == 1 else series).items():
            if k > 1 and name != str(series[column]):
                continue
            own = np.flatnonzero(np.asarray(keys, dtype=str) == name) if k == 1 and kinds is not None else rows
            axes.hlines(places[own], low[own, column], high[own, column], color=colour, linewidth=2, alpha=0.6)
            axes.plot(values[own, column], places[own], marker, color=colour, markersize=5, label=label(name, wrap=60))
    ends = _ends(values, low, high, signed) if limits is None else limits
    axes.set_xlim(*ends)
    if signed:
        axes.xaxis.set_major_formatter("{x:+.2g}")
    digits = 2 if np.nanmax(np.abs(values), initial=0) >= 0.095 else 3
    for place, row in zip(rows, values, strict=True):
        text = "  ".join("–" if not np.isfinite(one) else f"{one:{'+' if signed else ''}.{digits}f}" for one in row)
        note = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(text.replace("-", "−"), (1, place), (4, 0), **note)
    axes.grid(axis="x")
    axes.set_xlabel(label(xlabel, wrap=90))
    name_rows(axes, texts)
    if has_legend:
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def _columns(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[:, None] if values.ndim == 1 else values


def _ends(values: np.ndarray, low: np.ndarray, high: np.ndarray, signed: bool) -> tuple[float, float]:
    everything = np.concatenate([values, low, high]).ravel()
    everything = everything[np.isfinite(everything)] if np.isfinite(everything).any() else np.zeros(1)
    if signed:
        furthest = max(1.08 * np.abs(everything).max(), 1e-3)
        return -furthest, furthest
    if everything.min() >= 0 and everything.max() <= 1:
        return 0.0, 1.0
    room = 0.05 * (np.ptp(everything) or 1)
    return everything.min() - room, everything.max() + room


@chart
def lines(  # noqa: PLR0912
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
    references: np.ndarray | None = None,
    reference_names: np.ndarray | None = None,
    xlabel: str | np.ndarray = "",
    ylabel: str | np.ndarray = "",
    ylim: np.ndarray | None = None,
    xlog: bool = False,
    ylog: bool = False,
    columns: int = 3,
    row_height: float = 0.0,
    title: str = "",
) -> "Figure":
    """Draw lines with intervals over a common axis, in one panel or several.

    Parameters
    ----------
    x : ndarray [n_x] or [n_panels, n_x]
        Numbers, or strings for named places.
    values, low, high : ndarray [n_x], [n_lines, n_x] or [n_panels, n_lines, n_x]
        Intervals are whiskers at up to eight places, bands at more. NaN leaves out.
    names : ndarray of str [n_lines], optional
        Lines of one name (such as seeds) share a colour.
    panels : ndarray of str [n_panels], optional
        Titles of the panels.
    styles : ndarray of str [n_lines], optional
        matplotlib's line styles and markers, such as "o-", "--" or "o".
    marked : ndarray of bool, shaped like `values`
        Points drawn large, such as the epoch that was kept.
    ticks : ndarray of str, shaped like `x`
        What stands at the places of `x`.
    references : ndarray [n_references] or [n_panels, n_references]
        Horizontal lines.
    xlabel, ylabel : str or ndarray of str [n_panels]
        With one `ylabel` the panels share the axis.
    ylim : ndarray [2] or [n_panels, 2], NaN for free
    """
    values = np.asarray(values, dtype=float)
    values = values.reshape((1,) * (3 - values.ndim) + values.shape)
    n, k, _ = values.shape
    low, high, marked = (
        None if array is None else np.asarray(array).reshape(values.shape) for array in (low, high, marked)
    )
    x = np.broadcast_to(np.asarray(x), (n, values.shape[2]))
    names = np.asarray(names if names is not None else [""] * k, dtype=str)
    drawn = colours_of(names)
    own_axis = np.ndim(ylabel) == 1
    columns = min(columns, n)
    height = row_height or {1: 2.6, 2: 2.3, 3: 1.75}.get(columns, 1.3)
    n_keys = len([name for name in drawn if name]) + (0 if references is None else np.shape(references)[-1])
    figure, grid_panels = grid(
        n, columns=columns, row_height=height, margin=0.55 + 0.2 * -(-n_keys // 3), title=title, sharey=not own_axis
    )
    for number, axes in enumerate(grid_panels):
        places = _places(axes, x[number], None if ticks is None else np.broadcast_to(ticks, x.shape)[number])
        if references is not None:
            for at, level in enumerate(np.broadcast_to(references, (n, np.shape(references)[-1]))[number]):
                dashes = (0, (4, 2)) if at == 0 else (0, (1, 1 + at))
                axes.axhline(level, color=INK, linestyle=dashes, linewidth=1, label=label(reference_names[at], wrap=60))
        for line in range(k):
            colour, marker = drawn[names[line]]
            shape = str(styles[line]) if styles is not None else ("-" if len(places) > 12 else f"{marker}-")
            step = _dodge(places, xlog) if low is not None and len(places) <= 8 else 0.0
            at = places * (1 + step * (line - (k - 1) / 2)) if xlog else places + step * (line - (k - 1) / 2)
            look = {"color": colour, "markersize": 4.5, "alpha": 0.65 if len(drawn) < k else 1.0}
            axes.plot(at, values[number, line], shape, label=label(names[line], wrap=60), **look)
            if low is not None and len(places) <= 8:
                axes.vlines(at, low[number, line], high[number, line], color=colour, linewidth=1.6, alpha=0.5)
            elif low is not None:
                axes.fill_between(at, low[number, line], high[number, line], color=colour, alpha=0.2, linewidth=0)
            if marked is not None:
                own = marked[number, line].astype(bool)
                ring = {"color": colour, "markeredgecolor": "white", "markersize": 8, "label": marked_name or None}
                axes.plot(at[own], values[number, line, own], "o", **ring)
        if xlog:
            log_axis(axes, "x")
        if ylog:
            log_axis(axes, "y")
        if ylim is not None:
            bottom, top = np.broadcast_to(ylim, (n, 2))[number]
            axes.set_ylim(bottom if np.isfinite(bottom) else None, top if np.isfinite(top) else None)
        axes.set_title("" if panels is None else label(panels[number], wrap=90 // columns))
        if np.ndim(xlabel) == 1:
            axes.set_xlabel(label(xlabel[number]))
        if own_axis:
            axes.set_ylabel(label(ylabel[number]))
        axes.grid(axis="y")
    if np.ndim(xlabel) == 0:
        figure.supxlabel(label(xlabel, wrap=90), fontsize=9)
    if not own_axis:
        figure.supylabel(label(ylabel), fontsize=9)
    _legend(figure, grid_panels[0])
    return figure


def _places(axes: "Axes", x: np.ndarray, ticks: np.ndarray | None) -> np.ndarray:
    """Return where points stand, and name the places where they have names."""
    named = x.dtype.kind not in "biuf"
    places = np.arange(len(x)) if named else x.astype(float)
    if named or ticks is not None:
        axes.set_xticks(places, [label(text, wrap=14) for text in (x if ticks is None else ticks)], fontsize=7.5)
        axes.minorticks_off()
    elif x.dtype.kind in "iu":
        axes.xaxis.get_major_locator().set_params(integer=True)
    return places.astype(float)


def _dodge(places: np.ndarray, xlog: bool) -> float:
    """Return how far apart lines are drawn at one place, so that their intervals do not cover each other."""
    if len(places) < 2:
        return 0.1
    return 0.04 if xlog else 0.06 * float(np.min(np.abs(np.diff(places))) or 1)


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True) if text}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3)


@chart
def bars(
    *,
    names: np.ndarray,
    values: np.ndarray,
    series: np.ndarray | None = None,
    layout: str = "panels",
    xlabel: str = "",
    title: str = "",
) -> "Figure":
    """Draw horizontal bars, one row a name.

    Parameters
    ----------
    names : ndarray of str [n]
    values : ndarray [n] or [n_series, n]
    series : ndarray of str [n_series], optional
        With "panels" they name the axes of the panels, otherwise they stand in the legend.
    layout : str
        "panels" draws the series side by side, each on its own axis; "stacked" on top of each other.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    texts, rows = [label(name) for name in names], np.arange(len(names))
    series = [""] * len(values) if series is None else [label(one) for one in series]
    stacked = layout == "stacked"
    figure = new_figure(height=0.75 + 0.2 * stacked + rows_height(texts), title=title)
    panels = figure.subplots(1, 1 if stacked else len(values), sharey=True, squeeze=False)[0]
    smallest = 0.035 * np.nanmax(values.sum(axis=0))
    before = np.zeros(len(rows))
    for number, (name, own) in enumerate(zip(series, values, strict=True)):
        axes, colour = panels[0 if stacked else number], COLOURS[number % len(COLOURS)]
        drawn = axes.barh(rows, own, left=before if stacked else 0, height=0.7, color=colour, label=name)
        numbers = [f"{one:.4g}" if not stacked or one >= smallest else "" for one in own]
        place = {"label_type": "center", "color": "white"} if stacked else {"padding": 2}
        axes.bar_label(drawn, labels=numbers, fontsize=7, **place)
        before = before + own
        if not stacked:
            axes.set(xlabel=name or label(xlabel), xlim=(0, 1.15 * max(np.nanmax(own), 1e-9)))
    name_rows(panels[0], texts)
    if stacked:
        panels[0].set_xlabel(label(xlabel))
        figure.legend(loc="outside upper center", ncols=4)
    return figure


@chart
def histogram(
    *,
    values: np.ndarray,
    reference: float | None = None,
    reference_name: str = "",
    log: bool = False,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
) -> "Figure":
    """Draw how often values occur, beside a reference."""
    values = np.asarray(values, dtype=float)
    every = values if reference is None else np.append(values, reference)
    low, high = (every.min() / 1.25, every.max() * 1.25) if log else (every.min() - 0.5, every.max() + 0.5)
    figure = new_figure(height=2.5, title=title)
    axes = figure.subplots()
    axes.hist(values, bins=np.geomspace(low, high, 41) if log else np.linspace(low, high, 41), color=BLUE)
    axes.set(xlabel=label(xlabel), ylabel=label(ylabel), xlim=(low, high))
    if reference is not None:
        axes.axvline(reference, color=INK, linestyle="--", linewidth=1)
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(label(reference_name), (reference, 1), (0, 3), **place)
    if log:
        log_axis(axes, "x")
    return figure


@chart
def heat_map(
    *,
    values: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    text: np.ndarray | None = None,
    framed: np.ndarray | None = None,
    limits: np.ndarray | None = None,
    xlabel: str = "",
    ylabel: str = "",
    bar_label: str = "",
    cmap: str = "Blues",
    title: str = "",
) -> "Figure":
    """Draw a matrix in colours, with a text in each cell.

    Parameters
    ----------
    values : ndarray [n_rows, n_columns]
        NaN cells are hatched.
    text : ndarray of str [n_rows, n_columns], optional
        What stands in the cells, over several lines if it has them; the values when left out.
    framed : ndarray of bool [n_rows, n_columns], optional
        Cells with a frame.
    limits : ndarray [2]
        Ends of the colours; 0 and 1 when left out.
    """
    import seaborn
    from matplotlib.patches import Rectangle

    values = np.asarray(values, dtype=float)
    text = np.vectorize("{:.2f}".format)(values) if text is None else np.asarray(text, dtype=str)
    longest = max(max(map(len, str(one).split("\n"))) for one in text.ravel())
    n_lines = max(str(one).count("\n") + 1 for one in text.ravel())
    n_rows, n_columns = values.shape
    texts = [label(name, wrap=24) for name in rows]
    small = float(np.interp(max(n_rows, n_columns), [12, 41], [7.5, 5]))
    names = max(max(map(len, one.split("\n"))) for one in texts) * 0.62 * 8 / 72
    cell = max(0.62 * longest * small / 72 + 0.08, 0.17)
    width = float(np.clip(names + 1.3 + cell * n_columns, 3.4, WIDE))
    side = min((width - names - 1.3) / n_columns, 0.5)
    height = max(side if n_lines == 1 else 0, n_lines * 1.45 * small / 72 + 0.06) * n_rows
    below = max(len(str(name)) for name in columns) * 0.62 * 8 / 72 if n_columns > 6 else 0.3
    figure = new_figure(width=width, height=0.6 + below + height, title=title)
    axes = figure.subplots()
    low, high = (0, 1) if limits is None else limits
    size = min(small, 72 * (width - names - 1.3) / n_columns / (0.62 * longest))
    seaborn.heatmap(
        values, ax=axes, cmap=cmap, vmin=low, vmax=high, linewidths=0.5, linecolor="white", mask=~np.isfinite(values),
        annot=text, fmt="", annot_kws={"fontsize": size, "linespacing": 1.25},
        cbar_kws={"label": label(bar_label, wrap=40), "pad": 0.02, "aspect": 16},
    )  # fmt: skip
    for row, column in zip(*np.nonzero(~np.isfinite(values)), strict=True):
        look = {"facecolor": "#F4F4F4", "edgecolor": LIGHT, "hatch": "///", "linewidth": 0}
        axes.add_patch(Rectangle((column, row), 1, 1, **look))
    for row, column in zip(*np.nonzero(framed if framed is not None else np.zeros((0, 0))), strict=True):
        axes.add_patch(Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=1.4))
    turned = 90 if n_columns > 6 else 0
    axes.set_xticks(np.arange(n_columns) + 0.5, [label(name, wrap=24) for name in columns], rotation=turned)
    axes.set_yticks(np.arange(n_rows) + 0.5, texts, rotation=0)
    axes.tick_params(length=0, labelsize=8 if max(values.shape) <= 20 else 6)
    axes.set(xlabel=label(xlabel, wrap=90), ylabel=label(ylabel))
    return figure


WIDE = 8.6
"""Widest heat map in inches."""


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
    xlog: bool = True,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
) -> "Figure":
    """Draw cost against score; points that no other beats in both are joined, numbered and named.

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
        A horizontal line, such as the lowest score that is accepted.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    kinds = np.asarray([""] * len(x) if kinds is None else kinds, dtype=str)
    front = _front(x, y)
    figure = new_figure(height=4.0, title=title)
    axes = figure.subplots()
    if limit is not None:
        axes.axhline(limit, color=INK, linestyle="--", linewidth=1, label=label(limit_name))
    axes.plot(x[front], y[front], color=GREY, linewidth=1, zorder=1)
    for name, (colour, marker) in colours_of(kinds).items():
        own = np.flatnonzero(kinds == name)
        if low is not None:
            axes.vlines(x[own], np.asarray(low)[own], np.asarray(high)[own], color=colour, linewidth=1, alpha=0.25)
        others = np.setdiff1d(own, front)
        axes.plot(x[others], y[others], marker, color=colour, markersize=4.5, alpha=0.5, markeredgewidth=0)
        best = np.intersect1d(own, front)
        axes.plot(x[best], y[best], marker, color=colour, markersize=7, markeredgecolor=INK)
        axes.plot([], [], marker, color=colour, markersize=6, label=label(name))
    for number, one in enumerate(front, 1):
        place = {"textcoords": "offset points", "ha": "right", "fontsize": 8, "fontweight": "bold"}
        axes.annotate(str(number), (x[one], y[one]), (-5, 5), **place)
        axes.plot([], [], linestyle="none", label=f"{number}  {label(names[one], wrap=28)}")
    if xlog:
        axes.set_xscale("log")
        axes.margins(x=0.08)
        log_axis(axes, "x")
    axes.grid()
    axes.set(xlabel=label(xlabel, wrap=70), ylabel=label(ylabel))
    figure.legend(loc="outside right upper", handlelength=1.2)
    return figure


def _front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the points than which none costs at most as much and scores more, cheapest first."""
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
    least: float = 0.02,
    of: str = "clips",
    xlabel: str = "confidence",
    ylabel: str = "accuracy",
    title: str = "",
) -> "Figure":
    """Draw accuracy against confidence; a calibrated model lies on the diagonal.

    Parameters
    ----------
    confidence, accuracy, share : ndarray [n_bins] or [n_panels, n_bins]
        Means of each bin of equal width, and the share of all that it holds.
    ece : float or ndarray [n_panels]
        Expected calibration error.
    panels : ndarray of str [n_panels], optional
    least : float
        Bins with a smaller share are drawn hollow: their accuracy says little.
    of : str
        What is counted.
    """
    confidence, accuracy, share = (np.atleast_2d(np.asarray(one, dtype=float)) for one in (confidence, accuracy, share))
    n, n_bins = share.shape
    centres, width = (np.arange(n_bins) + 0.5) / n_bins, 0.9 / n_bins
    figure = new_figure(width=4.4 if n == 1 else WIDE if n > 2 else 7.2, height=4.4 if n == 1 else 3.7, title=title)
    tops, bottoms = figure.subplots(2, n, sharex=True, sharey="row", height_ratios=[1, 3], squeeze=False)
    for number, (top, axes) in enumerate(zip(tops, bottoms, strict=True)):
        head = "" if panels is None else f"{label(panels[number], wrap=30)}\n"
        top.set_title(f"{head}calibration error {np.broadcast_to(ece, n)[number]:.3f}")
        top.bar(centres, share[number], width=width, color=GREY)
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfectly calibrated")
        for enough, fill, text in ((True, "full", ylabel), (False, "none", f"fewer than {least:.0%} of the {of}")):
            own = np.isfinite(accuracy[number]) & ((share[number] >= least) == enough)
            points = confidence[number, own], accuracy[number, own]
            axes.plot(*points, "o-" if enough else "o", color=BLUE, fillstyle=fill, markersize=5, label=label(text))
        axes.set(xlabel=label(xlabel), xlim=(0, 1), ylim=(0, 1.02))
        axes.grid()
    tops[0].set_ylabel(f"share of\n{of}")
    bottoms[0].set_ylabel(label(ylabel))
    figure.legend(*bottoms[0].get_legend_handles_labels(), loc="outside lower center", ncols=3 if n > 1 else 2)
    return figure


@chart
def box(
    *,
    values: np.ndarray,
    kinds: np.ndarray,
    panels: np.ndarray,
    log: np.ndarray | Sequence[bool] = (),
    columns: int = 2,
    title: str = "",
) -> "Figure":
    """Draw how measures are spread in each kind: median, middle half, and 5th to 95th percentile.

    Parameters
    ----------
    values : ndarray [n, n_measures]
        NaN leaves out.
    kinds : ndarray of str [n]
    panels : ndarray of str [n_measures]
        Names of the measures, with units.
    log : ndarray of bool [n_measures], optional
        Which axes are logarithmic.
    """
    values, kinds = np.asarray(values, dtype=float), np.asarray(kinds, dtype=str)
    drawn = colours_of(kinds)
    log = np.zeros(len(panels), dtype=bool) if not len(log) else np.asarray(log)
    figure, grid_panels = grid(
        len(panels), columns=columns, row_height=0.5 + 0.17 * len(drawn), margin=0.1, title=title, sharey=True
    )
    for number, axes in enumerate(grid_panels):
        for row, (kind, (colour, _)) in enumerate(drawn.items()):
            own = values[(kinds == kind) & np.isfinite(values[:, number]), number]
            if len(own):
                ends = np.percentile(own, [5, 25, 50, 75, 95])
                axes.hlines(row, ends[0], ends[4], color=colour, linewidth=1)
                axes.hlines(row, ends[1], ends[3], color=colour, linewidth=8, alpha=0.5)
                axes.plot(ends[2], row, "|", color=INK, markersize=9, markeredgewidth=2)
        if log[number]:
            log_axis(axes, "x")
        else:
            axes.locator_params(axis="x", nbins=6)
            axes.ticklabel_format(axis="x", scilimits=(-3, 4), useMathText=True)
        name_rows(axes, [label(kind) for kind in drawn])
        axes.set_title(label(panels[number], wrap=50), fontsize=8, loc="left", pad=3)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x")
    return figure
