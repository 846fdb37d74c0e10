"""What a random search tried, how it went, and which hyperparameter mattered."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREY,
    INK,
    RED,
    figure_function,
    label,
    name_rows,
    new_figure,
    round_steps,
    row_inches,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAP = "cividis"
_SPREAD = 0.035
_SCORE = "validation accuracy"


@figure_function
def parallel_coordinates(
    *,
    names: np.ndarray,
    choices: np.ndarray,
    continuous: np.ndarray,
    log: np.ndarray,
    values: np.ndarray,
    accuracy: np.ndarray,
    won: np.ndarray,
) -> "Figure":
    """Draw each trial as a line across its hyperparameters to its validation accuracy, which colours it.

    Trials with the same value of a discrete hyperparameter are drawn a little apart, the better one higher.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_parameters,)]
        The hyperparameters.
    choices : np.ndarray [shape=(n_parameters, n_choices)]
        All values of each, or its lowest and highest; NaN where there are fewer.
    continuous, log : np.ndarray of bool [shape=(n_parameters,)]
        Whether each takes every value between the two, and whether its scale is logarithmic.
    values : np.ndarray [shape=(n_trials, n_parameters)]
        Hyperparameters of the trials.
    accuracy : np.ndarray [shape=(n_trials,)]
        Validation accuracy; NaN for a trial that failed.
    won : np.ndarray of bool [shape=(n_trials,)]
        The trials that were chosen.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    n = len(names)
    done = np.isfinite(accuracy)
    low, high = _accuracy_range(accuracy[done])
    scale = Normalize(low, high)
    order = np.argsort(np.where(done, accuracy, -np.inf), kind="stable")
    apart = np.zeros(len(order))
    apart[order] = np.linspace(-_SPREAD, _SPREAD, len(order)) if len(order) > 1 else 0
    heights = np.column_stack(
        [_place(values[:, at], choices[at], log[at]) + (0 if continuous[at] else apart) for at in range(n)]
    )
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    for number in order:
        line = [*heights[number], (accuracy[number] - low) / (high - low) if done[number] else -0.12]
        style = {"color": colormaps[_MAP](scale(accuracy[number])), "linewidth": 1.4, "alpha": 0.9}
        if not done[number]:
            style = {"color": GREY, "linewidth": 1.0, "linestyle": "--"}
        if won[number]:
            axes.plot(line, color=RED, linewidth=4.5, solid_capstyle="round", zorder=3)
            style = style | {"zorder": 3}
        axes.plot(line, **style)
    if not done.all():
        axes.plot(np.full((~done).sum(), n), np.full((~done).sum(), -0.12), "x", color=INK, clip_on=False)
        axes.annotate("failed", (n, -0.12), (6, 0), textcoords="offset points", va="center", fontsize=8)
    for at in range(n):
        ticks = _ticks(choices[at], bool(continuous[at]), bool(log[at]))
        _upright(axes, at, _place(ticks, choices[at], log[at]), [f"{tick:g}" for tick in ticks])
    ticks = [tick for tick in np.linspace(0, 1, 21) if low - 1e-9 <= tick <= high + 1e-9]
    ticks = ticks[:: -(-len(ticks) // 7)]
    _upright(axes, n, (np.array(ticks) - low) / (high - low), [f"{tick:.2f}" for tick in ticks])
    # The last axis is the scale of the colours.
    axes.imshow(
        np.linspace(0, 1, 256)[:, None], origin="lower", aspect="auto", cmap=_MAP, extent=(n - 0.06, n, 0, 1), zorder=4
    )
    axes.set_xlim(-0.15, n + 0.6)
    axes.set_ylim(-0.18, 1.06)
    axes.set_xticks(range(n + 1), [label(name).replace(" ", "\n", 1) for name in (*names, _SCORE)])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if won.any():
        axes.plot([], color=RED, linewidth=4.5, label="chosen by validation loss")
        figure.legend(loc="outside lower center")
    return figure


@figure_function
def hyperparameter_importance(
    *, names: np.ndarray, importance: np.ndarray, low: np.ndarray, high: np.ndarray, spearman: np.ndarray
) -> "Figure":
    """Draw how much each hyperparameter explains of the trials' validation loss, with its interval.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        The hyperparameters, and last a number that decides nothing, which the others should exceed.
    importance, low, high : np.ndarray [shape=(n,)]
        Share of the variance of the ranks that is lost when it is shuffled, and its interval; NaN where there were
        too few trials.
    spearman : np.ndarray [shape=(n,)]
        Rank correlation with the loss; NaN where there is none.

    Returns
    -------
    matplotlib.figure.Figure
    """
    last = len(names) - 1
    order = [*np.argsort(-np.nan_to_num(importance[:last], nan=-np.inf), kind="stable"), last]
    figure = new_figure(height=0.9 + row_inches(names))
    axes = figure.subplots()
    rows = np.arange(len(order))
    colours = [GREY if number == last else BLUE for number in order]
    axes.hlines(rows, low[order], high[order], color=colours, linewidth=2, alpha=0.55)
    axes.scatter(importance[order], rows, c=colours, s=25, zorder=3)
    axes.axvline(0, color=INK, linewidth=1)
    for row, number in enumerate(order):
        text = f"{spearman[number]:+.2f}".replace("-", "−") if np.isfinite(spearman[number]) else "–"
        axes.annotate(text, (1.02, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.annotate("rank correlation\nwith the loss", (1.02, 1), (0, 4), xycoords="axes fraction",
                  textcoords="offset points", fontsize=8)  # fmt: skip
    name_rows(axes, [names[number] for number in order])
    axes.grid(axis="x")
    axes.set_xlabel("growth of the squared error when shuffled (share of the variance)")
    return figure


@figure_function
def search_progress(
    *, loss: np.ndarray, best: np.ndarray, chosen: float, again: np.ndarray, baseline: np.ndarray, baseline_name: str
) -> "Figure":
    """Draw the validation loss of each trial and the best so far, and beside it what is left of it on fresh seeds.

    Parameters
    ----------
    loss : np.ndarray [shape=(n_trials,)]
        Validation loss (nats) in the order of the trials; NaN for one that failed.
    best : np.ndarray [shape=(n_trials,)]
        The least so far; NaN before there is one.
    chosen : float
        Validation loss of the winner in the search.
    again, baseline : np.ndarray [shape=(n_seeds,)]
        Validation loss of the winner and of the baseline, trained from fresh seeds.
    baseline_name : str
        What the baseline is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = new_figure(height=3.0)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
    number = np.arange(1, len(loss) + 1)
    failed = ~np.isfinite(loss)
    left.plot(number, loss, "o", color=BLUE, label="trial")
    left.step(number, best, where="post", color=RED, label="best so far")
    if failed.any():
        top = np.full(failed.sum(), 0.97)
        left.plot(number[failed], top, "x", color=INK, transform=left.get_xaxis_transform(), label="failed")
    left.set(xlabel="trial", ylabel="validation loss (nats)", yscale="log")
    left.xaxis.get_major_locator().set_params(integer=True)
    everything = np.concatenate([loss[~failed], [chosen], again, baseline])
    left.set_ylim(everything.min() / 1.15, everything.max() * 1.3)
    left.set_yticks(_loss_ticks(*left.get_ylim()))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.yaxis.set_minor_locator(NullLocator())
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    columns = (np.array([chosen]), RED), (again, RED), (baseline, GREY)
    for at, (found, colour) in enumerate(columns):
        right.plot(np.full(len(found), at), found, "o", color=colour, alpha=0.8)
        right.hlines(found.mean(), at - 0.25, at + 0.25, color=INK, linewidth=1.2)
    right.set_xticks(
        range(3), ["winner in\nthe search", "winner,\nfresh seeds", f"{label(baseline_name)},\nfresh seeds"]
    )
    right.set_xlim(-0.6, 2.6)
    for axes in (left, right):
        axes.grid(axis="y")
    return figure


def _accuracy_range(accuracy: np.ndarray) -> tuple[float, float]:
    """Round the range outwards to steps of .05; all of it when there is no accuracy."""
    if len(accuracy) == 0:
        return 0.0, 1.0
    low, high = np.floor(accuracy.min() * 20) / 20, np.ceil(accuracy.max() * 20) / 20
    return (low, high) if high > low else (max(low - 0.05, 0.0), min(high + 0.05, 1.0))


def _place(values: np.ndarray, choices: np.ndarray, log: bool) -> np.ndarray:
    """Where values stand on an axis from 0 to 1."""
    values, low, high = (np.log(one) if log else one for one in (values, np.nanmin(choices), np.nanmax(choices)))
    return (np.asarray(values) - low) / ((high - low) or 1)


def _ticks(choices: np.ndarray, continuous: bool, log: bool) -> np.ndarray:
    choices = choices[np.isfinite(choices)]
    if not continuous:
        return choices
    if log:
        return round_steps(choices.min() * (1 - 1e-9), choices.max() * (1 + 1e-9))
    return np.linspace(choices.min(), choices.max(), 5)


def _upright(axes: "Axes", at: int, places: np.ndarray, texts: list[str]) -> None:
    axes.plot([at, at], [0, 1], color=INK, linewidth=1, zorder=4)
    for place, text in zip(places, texts, strict=True):
        axes.plot([at, at + 0.05], [place, place], color=INK, linewidth=1, zorder=4)
        axes.annotate(
            text, (at + 0.05, place), (2, 0), textcoords="offset points", va="center", fontsize=7, zorder=5,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.7, "edgecolor": "none"},
        )  # fmt: skip


def _loss_ticks(low: float, high: float) -> np.ndarray:
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = np.outer(decades, [1, 1.5, 2, 3, 5, 7]).ravel()
    return steps[(steps >= low) & (steps <= high)]
