"""Charts with one row a name: dots with intervals, bars, box plot; and the heat map."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from instrlib.charts import style
from instrlib.charts.style import chart, colours_of, label, legend, name_rows, new_figure, rows_height

if TYPE_CHECKING:
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
) -> "Figure":
    """Draw points with intervals, one row per name [n], with the numbers on the right.

    `values`, `low` and `high` [n] or [n, n_series] have no interval where an end is NaN. `kinds` [n] colour the rows
    (better, worse, equivalent, inconclusive and baseline have colours of their own), or `series` [n_series] names the
    columns. `reference` is a dashed line, such as chance, `margin` (one or [n]) half the width of a grey band around
    it. `signed` values are differences: numbers have signs and the axis is symmetric around 0.
    """
    n = len(names)
    values = np.asarray(values, dtype=float).reshape(n, -1)
    low, high = (values * np.nan if ends is None else np.asarray(ends, float).reshape(n, -1) for ends in (low, high))
    texts, rows, k = [label(name, wrap=44) for name in names], np.arange(n), values.shape[1]
    reference = 0.0 if signed and reference is None else reference
    if k > 1:  # name, rows, column and shift of each set of points
        sets = [(str(series[at]), rows, at, 0.5 * (at / (k - 1) - 0.5)) for at in range(k)]
    else:
        kinds = np.asarray([""] * n if kinds is None else kinds, dtype=str)
        sets = [(kind, np.flatnonzero(kinds == kind), 0, 0.0) for kind in colours_of(kinds)]
    figure = new_figure(height=0.75 + rows_height(texts) * (1 + 0.22 * (k - 1)))
    axes = figure.subplots()
    if reference is not None:
        style.reference_line(axes, reference, reference_name)
        left, width = reference - margin, 2 * np.broadcast_to(margin, n)
        axes.barh(rows, width, left=left, height=1, color=style.LIGHT, alpha=0.5)
    colours = colours_of([name for name, *_ in sets])
    for name, own, at, shift in sets:
        colour, marker = colours[name]
        axes.hlines(own + shift, low[own, at], high[own, at], color=colour, linewidth=2, alpha=0.6)
        axes.plot(
            values[own, at], own + shift, marker, color=colour, markersize=5, clip_on=False, label=label(name, wrap=60)
        )
    furthest = np.nanmax(np.abs([values, low, high]), initial=1e-3)
    if signed:
        limits = -1.08 * furthest, 1.08 * furthest
        axes.xaxis.set_major_formatter("{x:+.2g}")
    elif limits is None and furthest <= 1 and np.nanmin([values, low, high], initial=0) >= 0:
        limits = 0, 1
    if limits is not None:
        axes.set_xlim(*limits)
    number = f"{{:{'+' if signed else ''}.{2 if furthest >= 0.095 else 3}f}}"
    for place, row in enumerate(values):
        text = "  ".join(number.format(one) if np.isfinite(one) else "–" for one in row)
        text = re.sub(r"[+-](0\.0+)\b", r"\1", text).replace("-", "−")
        note = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(text, (1, place), (4, 0), **note)
    axes.grid(axis="x")
    axes.set_xlabel(label(xlabel, wrap=90))
    name_rows(axes, texts)
    legend(figure, axes, below=True)
    return figure


@chart
def bars(
    *,
    names: np.ndarray,
    values: np.ndarray,
    series: np.ndarray | None = None,
    layout: str = "panels",
    xlabel: str = "",
) -> "Figure":
    """Draw horizontal bars, one row a name.

    `values` [n] or [n_series, n] have one panel per series, named by `series`, or are "stacked" in one (`layout`).
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    texts, rows, stacked = [label(name) for name in names], np.arange(len(names)), layout == "stacked"
    series = [""] * len(values) if series is None else [label(one) for one in series]
    figure = new_figure(height=0.65 + rows_height(texts))
    panels = figure.subplots(1, 1 if stacked else len(values), sharey=True, squeeze=False)[0]
    smallest = 0.035 * np.nanmax(values.sum(axis=0)) if stacked else -np.inf
    before = np.cumsum(values, axis=0) - values if stacked else np.zeros_like(values)
    for number, (name, own) in enumerate(zip(series, values, strict=True)):
        axes, colour = panels[0 if stacked else number], style.COLOURS[number % len(style.COLOURS)]
        drawn = axes.barh(rows, own, left=before[number], height=0.7, color=colour, label=name)
        place = {"label_type": "center", "color": "white"} if stacked else {"padding": 2}
        axes.bar_label(drawn, [f"{one:.4g}" if one >= smallest else "" for one in own], fontsize=7, **place)
        axes.set_xlabel(label(xlabel) if stacked else name or label(xlabel))
        axes.margins(x=0 if stacked else 0.15)
    name_rows(panels[0], texts)
    if stacked:
        legend(figure, panels[0])
    return figure


@chart
def box(
    *, values: np.ndarray, kinds: np.ndarray, panels: np.ndarray, log: np.ndarray | Sequence[bool] = ()
) -> "Figure":
    """Draw the distribution of measures by kind: median, quartiles, and 5th to 95th percentile.

    `values` [n, n_measures], of which NaN are left out, belong to `kinds` [n]. `panels` name the measures, with units;
    `log` [n_measures] says which have a logarithmic axis.
    """
    values, kinds, drawn = np.asarray(values, dtype=float), np.asarray(kinds, dtype=str), colours_of(kinds)
    height = 0.5 + 0.17 * len(drawn)
    figure, grid_panels = style.grid(len(panels), columns=2, row_height=height, margin=0.1, sharey=True)
    logs = log if len(log) else [False] * len(panels)
    for axes, measure, name, logged in zip(grid_panels, values.T, panels, logs, strict=True):
        for row, (kind, (colour, _)) in enumerate(drawn.items()):
            ends = np.nanpercentile(measure[kinds == kind], [5, 25, 50, 75, 95])
            axes.hlines(row, ends[0], ends[4], color=colour, linewidth=1)
            axes.hlines(row, ends[1], ends[3], color=colour, linewidth=8, alpha=0.5)
            axes.plot(ends[2], row, "|", color=style.INK, markersize=9, markeredgewidth=2)
        if logged:
            style.log_axis(axes)
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
) -> "Figure":
    """Draw a matrix [n_rows, n_columns] in colours between `limits`, with a text in each cell; NaN cells are hatched.

    `text` [n_rows, n_columns] replaces the values and may have several lines.
    """
    import seaborn

    values = np.asarray(values, dtype=float)
    text = np.vectorize("{:.2f}".format)(values) if text is None else np.asarray(text, dtype=str)
    cells = [str(one).split("\n") for one in text.ravel()]
    # The size of a cell in inches follows from its text; cells with one line are square.
    size, n_lines, longest = max(values.shape), max(map(len, cells)), max(len(line) for cell in cells for line in cell)
    small = float(np.interp(size, [12, 41], [7.5, 5]))
    width = max(0.36 if size <= 20 else 0.17, min(0.0086 * small * longest + 0.1, 1.2))
    height = n_lines * 0.02 * small + 0.08 if n_lines > 1 else width
    turned = 90 if values.shape[1] > 6 else 0
    left, below = (0.075 * max(len(str(name)) for name in one) for one in (rows, columns))
    total = 0.6 + (below if turned else 0.3) + height * values.shape[0]
    figure = new_figure(width=max(left + 1.4 + width * values.shape[1], 3.4), height=total)
    axes = figure.subplots()
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
