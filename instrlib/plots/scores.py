"""Learning curves, scores and errors of models."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREY,
    INK,
    LONGEST_LABEL,
    figure_function,
    forest,
    label,
    new_figure,
    reference_line,
    row_inches,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@figure_function
def confusion_matrix(*, counts: np.ndarray, classes: np.ndarray, several: bool = False) -> "Figure":
    """Draw how often each class was answered for each true class: counts, coloured by the share of the row.

    Parameters
    ----------
    counts : np.ndarray of int [shape=(n_classes, n_classes)]
        Row: true class; column: the class answered.
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    several : bool
        Whether a clip may have several labels: a row then counts answers, and a clip may have many of them or none.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import seaborn

    counts = np.asarray(counts)
    n = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # From one class in a quarter of an inch to 41 on a page.
    side = float(np.clip(0.36 * n, 1.6, 5.6 if n <= 20 else 6.9))
    small = min(8.0, 0.62 * 72 * side / n)
    labels = [label(name) for name in classes]
    names = max(map(len, labels)) * 0.6 * small / 72
    figure = new_figure(width=side + names + 1.4, height=side + names + 0.5)
    axes = figure.subplots()
    longest = len(str(counts.max()))
    seaborn.heatmap(
        share,
        ax=axes,
        cmap="Blues",
        vmin=0,
        vmax=1,
        square=True,
        linewidths=0.4,
        linecolor="#DDDDDD",
        annot=np.where(counts > 0, counts.astype(str), ""),
        fmt="",
        annot_kws={"fontsize": small * min(1, 2.6 / longest) * (0.85 if n > 20 else 1)},
        cbar_kws={"label": f"share of the {'row' if several else 'true class'}", "shrink": 0.8, "pad": 0.02},
    )
    axes.set_xticks(np.arange(n) + 0.5, labels, rotation=90, fontsize=small)
    axes.set_yticks(np.arange(n) + 0.5, labels, rotation=0, fontsize=small)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="answered", ylabel="class that is present" if several else "true class")
    return figure


@figure_function
def reliability_diagram(
    *, confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray, ece: float, several: bool = False
) -> "Figure":
    """Draw how often the model is right against how sure it is; on the diagonal it knows what it knows.

    Parameters
    ----------
    confidence, accuracy, share : np.ndarray [shape=(n_bins,)]
        What `metrics.reliability` returns: mean confidence, accuracy and share of clips of each bin of equal width.
    ece : float
        Expected calibration error.
    several : bool
        Whether a clip may have several labels; see `multilabel.label_reliability`: each observed label counts, and what
        is drawn is the share present against the probability.

    Returns
    -------
    matplotlib.figure.Figure
    """
    of, how_sure, how_often = (
        ("labels", "probability", "share present") if several else ("clips", "confidence", "accuracy")
    )
    n = len(share)
    centres = (np.arange(n) + 0.5) / n
    filled = np.isfinite(accuracy)
    figure = new_figure(width=4.6, height=4.6)
    top, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3.2])
    top.bar(centres, share, width=0.9 / n, color=GREY)
    top.set(ylabel=f"share\nof {of}", title=f"expected calibration error {ece:.3f}")
    axes.bar(centres[filled], accuracy[filled], width=0.9 / n, color=BLUE, alpha=0.35, label=f"{how_often} in the bin")
    axes.plot(confidence[filled], accuracy[filled], "o", color=BLUE, markersize=4, label=f"mean {how_sure} in the bin")
    axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfectly calibrated")
    axes.set(xlabel=how_sure, ylabel=how_often, xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@figure_function
def per_class_scores(
    *, classes: np.ndarray, f1: np.ndarray, low: np.ndarray, high: np.ndarray, support: np.ndarray
) -> "Figure":
    """Draw the F1 of each class with its interval, the best on top.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    f1, low, high : np.ndarray [shape=(n_classes,)]
        F1 and its interval; NaN ends draw none. Classes whose F1 is NaN stand last, without a point.
    support : np.ndarray of int [shape=(n_classes,)]
        Clips of each class.

    Returns
    -------
    matplotlib.figure.Figure
    """
    order = np.argsort(-np.asarray(f1, dtype=float), kind="stable")
    names = [f"{label(classes[number])} (n = {int(support[number])})" for number in order]
    figure = new_figure(height=0.75 + row_inches(classes))
    axes = figure.subplots()
    forest(
        axes,
        names,
        *(np.asarray(values)[order] for values in (f1, low, high)),
        longest=LONGEST_LABEL + 12,
    )
    axes.set_xlabel("F1")
    return figure


@figure_function
def model_comparison(
    *,
    names: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    baseline: float,
    baseline_name: str = "baseline",
    metric: str = "accuracy",
) -> "Figure":
    """Draw the scores of several models with their intervals, beside that of a trivial baseline.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        The models, from top to bottom.
    scores, low, high : np.ndarray [shape=(n,)]
        Score and its interval, from 0 to 1; NaN ends draw none.
    baseline : float
        Score to beat, drawn as a line.
    baseline_name : str
        What stands above the line.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=0.95 + max(0.34 * min(len(names), 8), row_inches(names)))
    axes = figure.subplots()
    forest(axes, names, scores, low, high)
    reference_line(axes, baseline, f"{label(baseline_name)} {baseline:.2f}")
    axes.set_xlabel(label(metric))
    return figure
