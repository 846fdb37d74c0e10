"""Charts of numbers: dots, bars, box plot and heat map; lines, Pareto front, reliability and histogram."""

import re

import numpy as np
import seaborn
from matplotlib.figure import Figure

from instrlib.charts import style
from instrlib.charts.style import chart, colours_of, grid, label, legend, log_axis, name_rows, reference_line

_LEAST = 0.02  # bins with a smaller share are drawn hollow, because their accuracy is uncertain
_FEW = 8  # intervals are whiskers at up to this many places, otherwise bands


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
) -> Figure:
    """Draw points with intervals, one row per name [n], with the numbers on the right.

    `values`, `low` and `high` [n] or [n, n_series] have no interval where an end is NaN. `kinds` [n] colour the rows
    (better, worse, equivalent, inconclusive and baseline have colours of their own), or `series` [n_series] names the
    columns. `reference` is a dashed line, such as chance, `margin` (one or [n]) half the width of a grey band around
    it. `signed` values are differences: numbers have signs and the axis is symmetric around 0.
    """
    n = len(names)
    low, high = (values * np.nan if ends is None else ends for ends in (low, high))
    values, low, high = (one.reshape(n, -1) for one in (values, low, high))
    texts, rows, k = [label(name, wrap=44) for name in names], np.arange(n), values.shape[1]
    reference = 0.0 if signed and reference is None else reference
    if k > 1:  # name, rows, column and shift of each set of points
        sets = [(str(series[at]), rows, at, 0.5 * (at / (k - 1) - 0.5)) for at in range(k)]
    else:
        kinds = np.full(n, "") if kinds is None else kinds
        sets = [(kind, np.flatnonzero(kinds == kind), 0, 0.0) for kind in colours_of(kinds)]
    figure, (axes,) = grid(1, 1, row_height=0.75)
    if reference is not None:
        reference_line(axes, reference, reference_name)
        left, width = reference - margin, 2 * np.broadcast_to(margin, n)
        axes.barh(rows, width, left=left, height=1, color=style.LIGHT, alpha=0.5)
    colours = colours_of([name for name, *_ in sets])
    for name, own, at, shift in sets:
        colour, marker = colours[name]
        axes.hlines(own + shift, low[own, at], high[own, at], color=colour, linewidth=2, alpha=0.6)
        look = {"color": colour, "markersize": 5, "clip_on": False, "label": label(name, wrap=60)}
        axes.plot(values[own, at], own + shift, marker, **look)
    furthest = np.nanmax(np.abs([values, low, high]), initial=1e-3)
    if signed:
        limits = -1.08 * furthest, 1.08 * furthest
        axes.xaxis.set_major_formatter("{x:+.2g}")
    elif limits is None and furthest <= 1 and np.nanmin([values, low, high], initial=0) >= 0:
        limits = 0, 1
    axes.set_xlim(limits)
    number = f"{{:{'+' if signed else ''}.{2 if furthest >= 0.095 else 3}f}}"
    for place, row in enumerate(values):
        text = "  ".join(number.format(one) if np.isfinite(one) else "–" for one in row)
        text = re.sub(r"[+-](0\.0+)\b", r"\1", text).replace("-", "−")
        note = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(text, (1, place), (4, 0), **note)
    axes.grid(axis="x")
    axes.set_xlabel(label(xlabel, wrap=90))
    name_rows(axes, texts, spread=1 + 0.22 * (k - 1))
    legend(figure, axes, below=True)
    return figure


@chart
def bars(
    *, names: np.ndarray, values: np.ndarray, series: np.ndarray | None = None, layout: str = "panels", xlabel: str = ""
) -> Figure:
    """Draw horizontal bars, one row per name.

    `values` [n] or [n_series, n] have one panel per series, named by `series`, or are "stacked" in one (`layout`).
    """
    values, stacked = np.atleast_2d(values), layout == "stacked"
    texts, rows, n = [label(name) for name in names], np.arange(len(names)), 1 if stacked else len(values)
    series = [""] * len(values) if series is None else [label(one) for one in series]
    figure, panels = grid(n, n, row_height=0.65, sharey=True)
    smallest = 0.035 * np.nanmax(values.sum(axis=0)) if stacked else -np.inf
    before = np.cumsum(values, axis=0) - values if stacked else np.zeros_like(values)
    for number, (name, own) in enumerate(zip(series, values, strict=True)):
        axes, colour = panels[number % n], style.COLOURS[number % len(style.COLOURS)]
        drawn = axes.barh(rows, own, left=before[number], height=0.7, color=colour, label=name)
        place = {"label_type": "center", "color": "white"} if stacked else {"padding": 2}
        axes.bar_label(drawn, [f"{one:.4g}" if one >= smallest else "" for one in own], fontsize=7, **place)
        axes.set_xlabel(label(xlabel) if stacked else name or label(xlabel))
        axes.margins(x=0 if stacked else 0.15)
    name_rows(panels[0], texts, spread=1)
    if stacked:
        legend(figure, panels[0])
    return figure


@chart
def box(*, values: np.ndarray, kinds: np.ndarray, panels: np.ndarray, log: np.ndarray | None = None) -> Figure:
    """Draw the distribution of measures by kind: median, quartiles, and 5th to 95th percentile.

    `values` [n, n_measures], of which NaN are left out, belong to `kinds` [n]. `panels` name the measures, with units;
    `log` [n_measures] says which have a logarithmic axis.
    """
    drawn, log = colours_of(kinds), np.zeros(len(panels), bool) if log is None else log
    figure, grid_panels = grid(len(panels), 2, row_height=0.5 + 0.17 * len(drawn), margin=0.1, sharey=True)
    for axes, measure, name, logged in zip(grid_panels, values.T, panels, log, strict=True):
        for row, (kind, (colour, _)) in enumerate(drawn.items()):
            ends = np.nanpercentile(measure[kinds == kind], [5, 25, 50, 75, 95])
            axes.hlines(row, ends[0], ends[4], color=colour, linewidth=1)
            axes.hlines(row, ends[1], ends[3], color=colour, linewidth=8, alpha=0.5)
            axes.plot(ends[2], row, "|", color=style.INK, markersize=9, markeredgewidth=2)
        if logged:
            log_axis(axes)
        else:
            axes.locator_params(axis="x", nbins=6)
            axes.ticklabel_format(axis="x", scilimits=(-3, 4), useMathText=True)
        name_rows(axes, [label(kind) for kind in drawn])
        axes.set_title(label(name, wrap=50), fontsize=8, loc="left", pad=3)
        axes.grid(axis="x")
    return figure


@chart
def heat_map(
    *,
    values: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    text: np.ndarray | None = None,
    limits: np.ndarray = (0.0, 1.0),
    xlabel: str = "",
    ylabel: str = "",
    bar_label: str = "",
) -> Figure:
    """Draw a matrix [n_rows, n_columns] in colours between `limits`, with a text in each cell; NaN cells are hatched.

    `text` [n_rows, n_columns] replaces the values and may have several lines.
    """
    text = np.vectorize("{:.2f}".format)(values) if text is None else text
    cells = [str(one).split("\n") for one in text.ravel()]
    # The size of a cell in inches follows from its text; cells with one line are square.
    size, n_lines, longest = max(values.shape), max(map(len, cells)), max(len(line) for cell in cells for line in cell)
    small = float(np.interp(size, [12, 41], [7.5, 5]))
    width = max(0.36 if size <= 20 else 0.17, min(0.0086 * small * longest + 0.1, 1.2))
    height = n_lines * 0.02 * small + 0.08 if n_lines > 1 else width
    turned = 90 if values.shape[1] > 6 else 0
    left, below = (0.075 * max(len(str(name)) for name in one) for one in (rows, columns))
    total = 0.6 + (below if turned else 0.3) + height * values.shape[0]
    figure, (axes,) = grid(1, 1, width=max(left + 1.4 + width * values.shape[1], 3.4), row_height=total)
    row_names, column_names = ([label(name, wrap=24) for name in one] for one in (rows, columns))
    seaborn.heatmap(
        values, ax=axes, cmap="Blues", vmin=limits[0], vmax=limits[1], linewidths=0.5, mask=~np.isfinite(values),
        annot=text, fmt="", annot_kws={"fontsize": small, "linespacing": 1.25}, xticklabels=column_names,
        yticklabels=row_names, cbar_kws={"label": label(bar_label, wrap=40), "pad": 0.02, "aspect": 16},
    )  # fmt: skip
    axes.patch.set(facecolor="#F4F4F4", edgecolor=style.LIGHT, hatch="///")
    axes.tick_params(length=0, labelsize=8 if size <= 20 else 6)
    axes.tick_params(axis="x", labelrotation=turned)
    axes.tick_params(axis="y", labelrotation=0)
    axes.set(xlabel=label(xlabel, wrap=90), ylabel=label(ylabel))
    return figure


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
) -> Figure:
    """Draw lines with intervals in one panel or several.

    `values`, `low` and `high` [n_x], [n_lines, n_x] or [n_panels, n_lines, n_x] belong to places `x` [n_x], numbers or
    texts; `ticks` [n_panels, n_x] replace them. Lines of one name (such as seeds) share a colour; `styles` [n_lines]
    are matplotlib's, such as "o-", "--" or "o". `panels` [n_panels] are titles. `marked` points are drawn large, such
    as the chosen epoch. `references` [n_references] are horizontal lines, with names in the legend. `xlabel` and
    `ylabel` may be one for each panel; `ylim` is NaN for a free end.
    """
    values = values.reshape((1,) * (3 - values.ndim) + values.shape)
    n, k, n_x = values.shape
    low, high, marked = (None if one is None else one.reshape(values.shape) for one in (low, high, marked))
    numeric = x.dtype.kind in "biuf"
    places = x.astype(float) if numeric else np.arange(n_x, dtype=float)
    ticks = np.tile(x, (n, 1)) if ticks is None and not numeric else ticks
    # Lines are shifted, so that their intervals do not overlap.
    gap = 0.0 if low is None or n_x > _FEW else 0.04 if xlog else 0.06 * np.diff(places, append=np.inf).min()
    names = [""] * k if names is None else names.tolist()
    drawn, columns, own_axis = colours_of(names), min(columns, n), np.ndim(ylabel) == 1
    height, opacity = {1: 2.6, 2: 2.3, 3: 1.75}.get(columns, 1.3), 0.65 if len(drawn) < k else 1.0
    figure, grid_panels = grid(n, columns, row_height=height, margin=0.55, sharey=not own_axis)
    for number, axes in enumerate(grid_panels):
        for level, name, dashes in zip(references, reference_names, style.DASHES[: len(references)], strict=True):
            axes.axhline(level, color=style.INK, linestyle=dashes, linewidth=1.2, label=label(name, wrap=60))
        for line, name in enumerate(names):
            colour, marker = drawn[name]
            shape = str(styles[line]) if styles is not None else "-" if n_x > 12 else f"{marker}-"
            step, y = (line - (k - 1) / 2) * gap, values[number, line]
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
            axes.set_xticks(places[shown], [label(text, wrap=14) for text in ticks[number, shown]], fontsize=7.5)
        elif x.dtype.kind in "iu":
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(*(end if np.isfinite(end) else None for end in ylim))
        axes.set_title("" if panels is None else label(panels[number], wrap=90 // columns))
        axes.set_xlabel(label(xlabel[number]) if np.ndim(xlabel) else "")
        axes.set_ylabel(label(ylabel[number]) if own_axis else "")
        axes.grid(axis="y")
    figure.supxlabel("" if np.ndim(xlabel) else label(xlabel, wrap=90))
    figure.supylabel("" if own_axis else label(ylabel))
    legend(figure, grid_panels[0])
    return figure


@chart
def pareto(
    *,
    x: np.ndarray,
    y: np.ndarray,
    names: np.ndarray,
    kinds: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    limit: float | None = None,
    limit_name: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> Figure:
    """Draw cost (logarithmic) against score; the points of the Pareto front are joined, numbered and named.

    `x` [n] are costs (lower is better), `y` scores (higher is better) with the interval `low`, `high`; each of `kinds`
    [n] has a colour and a marker. `limit` is a horizontal line, such as the lowest acceptable score.
    """
    order = np.lexsort((-y, x))  # cheapest first
    best = np.maximum.accumulate(np.where(np.isfinite(y[order]), y[order], -np.inf))
    front = order[np.diff(best, prepend=-np.inf) > 0]
    figure, (axes,) = grid(1, 1, row_height=4.0)
    if limit is not None:
        axes.axhline(limit, color=style.INK, linestyle="--", linewidth=1, label=label(limit_name))
    axes.plot(x[front], y[front], color=style.GREY, linewidth=1, zorder=1)
    for name, (colour, marker) in colours_of(kinds).items():
        own, best = np.flatnonzero(kinds == name), front[kinds[front] == name]
        if low is not None:
            axes.vlines(x[own], low[own], high[own], color=colour, linewidth=1, alpha=0.25)
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


@chart
def reliability(
    *,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    share: np.ndarray,
    ece: float | np.ndarray,
    panels: np.ndarray | None = None,
    of: str = "clips",
) -> Figure:
    """Draw accuracy against confidence; points of a calibrated model are on the diagonal.

    `confidence`, `accuracy` and `share` [n_bins] or [n_panels, n_bins] are means in bins of equal width and the share
    of all predictions in each bin; `ece` is the expected calibration error; `of` says what is counted.
    """
    confidence, accuracy, share = map(np.atleast_2d, (confidence, accuracy, share))
    n, n_bins = share.shape
    size = {"width": 4.4, "row_height": 4.03 / 2} if n == 1 else {"row_height": 1.6}
    figure, drawn = grid(2 * n, n, sharex=True, sharey="row", height_ratios=[1, 3], **size)
    for number, (top, axes) in enumerate(zip(drawn[:n], drawn[n:], strict=True)):
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
    drawn[0].set_ylabel(f"share of\n{of}")
    drawn[n].set_ylabel("accuracy")
    legend(figure, drawn[n], below=True)
    return figure


@chart
def histogram(
    *, values: np.ndarray, reference: float, reference_name: str = "", xlabel: str = "", ylabel: str = ""
) -> Figure:
    """Draw a histogram with a reference value."""
    every = np.append(values, reference)
    ends = every.min() - 0.5, every.max() + 0.5
    figure, (axes,) = grid(1, 1, row_height=2.5)
    axes.hist(values, bins=np.linspace(*ends, 41), color=style.BLUE)
    axes.set(xlabel=label(xlabel), ylabel=label(ylabel), xlim=ends)
    reference_line(axes, reference, reference_name)
    return figure
