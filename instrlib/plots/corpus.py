"""What is in a corpus, and how it is split."""

import itertools
from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    ORANGE,
    PARTS,
    figure_function,
    ink_on,
    label,
    name_rows,
    new_figure,
    reference_line,
    round_steps,
    row_inches,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@figure_function
def class_balance(*, classes: np.ndarray, n_clips: np.ndarray, n_groups: np.ndarray) -> "Figure":
    """Draw how many clips and how many groups each class has.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    n_clips, n_groups : np.ndarray of int [shape=(n_classes,)]
        Clips and groups of each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=0.7 + row_inches(classes))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, colour, what in ((left, n_clips, BLUE, "clips"), (right, n_groups, ORANGE, "groups")):
        bars = axes.barh(np.arange(len(classes)), values, height=0.7, color=colour)
        axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=7)
        axes.set(xlabel=what, xlim=(0, 1.15 * max(1, np.max(values))))
        axes.xaxis.get_major_locator().set_params(integer=True)
    name_rows(left, classes)
    return figure


@figure_function
def split_overview(*, classes: np.ndarray, parts: np.ndarray, counts: np.ndarray) -> "Figure":
    """Draw how the clips of each class fall into the parts of a split.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    parts : np.ndarray of str [shape=(n_parts,)]
        Names of the parts.
    counts : np.ndarray of int [shape=(n_parts, n_classes)]
        Clips of each class in each part.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=0.95 + row_inches(classes))
    axes = figure.subplots()
    before = np.zeros(len(classes))
    smallest = 0.035 * np.max(np.sum(counts, axis=0))
    for part, numbers, colour in zip(parts, counts, itertools.cycle(PARTS), strict=False):
        n_part = int(np.sum(numbers))
        bars = axes.barh(
            np.arange(len(classes)), numbers, left=before, height=0.7, color=colour, label=f"{label(part)} ({n_part})"
        )
        inside = [f"{number:.0f}" if number >= smallest else "" for number in numbers]
        axes.bar_label(bars, labels=inside, label_type="center", fontsize=7, color=ink_on(colour))
        before = before + numbers
    axes.set_xlabel("clips")
    axes.xaxis.get_major_locator().set_params(integer=True)
    name_rows(axes, classes)
    figure.legend(loc="outside upper center", ncols=len(parts))
    return figure


@figure_function
def duration_histogram(*, duration_s: np.ndarray, segment_s: float) -> "Figure":
    """Draw how long the clips are, beside the length of a segment.

    Parameters
    ----------
    duration_s : np.ndarray [shape=(n_clips,)]
        Length of each clip in seconds, above 0.
    segment_s : float
        Length of a segment in seconds.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import MaxNLocator

    duration_s = np.asarray(duration_s, dtype=float)
    figure = new_figure(height=2.5)
    axes = figure.subplots()
    low = min(duration_s.min(), segment_s) / 1.25
    high = max(duration_s.max(), segment_s) * 1.25  # a margin, and a width when all are equal
    axes.hist(duration_s, bins=np.geomspace(low, high, 41), color=BLUE)
    reference_line(axes, segment_s, f"one segment ({segment_s:g} s)")
    ticks = round_steps(low, high)
    if len(ticks) < 3:
        ticks = MaxNLocator(6).tick_values(low, high)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="duration (s)", ylabel="clips", xlim=(low, high))
    axes.minorticks_off()
    axes.yaxis.get_major_locator().set_params(integer=True)
    return figure
