"""What networks listen to: activation maps, and how faithful they are."""

from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PARTS,
    RED,
    draw_spectrogram,
    figure_function,
    label,
    new_figure,
    picture_bar,
    picture_grid,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEPS = 10
"""Shades in an overlay: the eye tells no more apart, and the file is half as large."""

_STYLES = ("-", "--", ":", "-.")


@figure_function
def activation_overlays(
    *,
    spectra: np.ndarray,
    maps: np.ndarray,
    titles: np.ndarray,
    hop_s: float,
    mel_frequencies_hz: np.ndarray,
    columns: int = 3,
) -> "Figure":
    """Draw maps on top of their spectrograms: sound in grey, the map in colour, a line around its upper half.

    Parameters
    ----------
    spectra : np.ndarray [shape=(n, n_bins, n_frames)]
        Levels in dB; with n = 0 the figure says that there is none.
    maps : np.ndarray [shape=(n, n_bins, n_frames)]
        What speaks for a class, at least 0; each is shown relative to its own maximum.
    titles : np.ndarray of str [shape=(n,)]
        One for each.
    hop_s : float
        Step between frames in seconds.
    mel_frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.
    columns : int
        At most so many side by side.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(spectra)
    if not n:
        return _empty("there is no such segment")
    figure, panels = picture_grid(n, mel_frequencies_hz, columns=columns, row_height=1.75, n_ticks=5)
    for axes, picture, own, title in zip(panels, spectra, maps, titles, strict=True):
        overlay = draw_overlay(axes, picture, own, hop_s)
        axes.set_title(label(title, longest=40), fontsize=7.5)
    bar = picture_bar(figure, overlay, "share of the map's maximum")
    bar.ax.axhline(0.5, color=ORANGE, linewidth=1.5)
    return figure


def draw_overlay(axes: "Axes", picture: np.ndarray, own: np.ndarray, hop_s: float, *, start_s: float = 0.0) -> Any:
    """Draw a spectrogram in grey with its map on top, relative to the map's maximum, and return the map's image."""
    import matplotlib

    draw_spectrogram(axes, picture, hop_s, start_s=start_s).set_cmap(matplotlib.colormaps["gray"].resampled(_STEPS))
    share = own / max(float(np.max(own)), 1e-12)
    overlay = draw_spectrogram(axes, share, hop_s, start_s=start_s, vmin=0, vmax=1)
    overlay.set(cmap=matplotlib.colormaps["viridis"].resampled(_STEPS), alpha=0.75 * np.round(share * _STEPS) / _STEPS)
    if share.max() > 0:
        bands, frames = (np.arange(side) for side in share.shape)
        axes.contour(start_s + frames * hop_s, bands, share, levels=[0.5], colors=[ORANGE], linewidths=1.2)
    return overlay


@figure_function
def class_average_maps(
    *, maps: np.ndarray, classes: np.ndarray, hop_s: float, mel_frequencies_hz: np.ndarray
) -> "Figure":
    """Draw the average map of each class over time and frequency, with one colour scale.

    Parameters
    ----------
    maps : np.ndarray [shape=(n_classes, n_bins, n_frames)]
        Relative to an even spread; NaN for a class without a map.
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    hop_s : float
        Step between frames in seconds.
    mel_frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib

    figure, panels = _class_panels(classes, mel_frequencies_hz, "time after the segment's start (s)")
    top = max(1.0, float(np.nanmax(maps)) if np.isfinite(maps).any() else 1.0)
    for axes, picture in zip(panels, maps, strict=True):
        image = draw_spectrogram(axes, picture, hop_s, vmin=0, vmax=top)
        image.set_cmap(matplotlib.colormaps["viridis"].resampled(2 * _STEPS))
    picture_bar(figure, image, "map (1 = spread evenly)")
    return figure


@figure_function
def frequency_profiles(
    *, maps: np.ndarray, levels: np.ndarray, classes: np.ndarray, mel_frequencies_hz: np.ndarray
) -> "Figure":
    """Draw over the frequencies what speaks for each class, and where its sound is.

    Parameters
    ----------
    maps : np.ndarray [shape=(n_seeds, n_classes, n_bins)]
        The map relative to an even spread, one line for each seed; NaN draws none.
    levels : np.ndarray [shape=(n_classes, n_bins)]
        dB above the floor, relative to an even spread.
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    mel_frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = _class_panels(classes, mel_frequencies_hz, "relative to an even spread")
    bands = np.arange(len(mel_frequencies_hz))
    for number, axes in enumerate(panels):
        axes.fill_betweenx(bands, levels[number], color="#D4D4D4", linewidth=0, label="sound")
        lines = axes.plot(np.transpose(maps[:, number]), bands, color=BLUE, linewidth=1)
        lines[0].set_label("map, one line a seed")
        axes.axvline(1, color=INK, linewidth=0.8, linestyle=":", label="spread evenly")
    panels[0].set(xlim=(0, None), ylim=(-0.5, len(bands) - 0.5))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@figure_function
def deletion_insertion(
    *, fractions: np.ndarray, orders: np.ndarray, deletion: np.ndarray, insertion: np.ndarray
) -> "Figure":
    """Draw how the probability of the answer falls and rises with the share of the picture, order by order.

    Parameters
    ----------
    fractions : np.ndarray [shape=(n_fractions,)]
        Shares of the picture, 0 to 1.
    orders : np.ndarray of str [shape=(n_orders,)]
        What is taken away, or given back, first; the first is drawn on top.
    deletion, insertion : np.ndarray [shape=(n_orders, n_fractions)]
        Mean probabilities.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.4)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = (RED, *PARTS[:5], INK, GREY)
    for axes, values, title, what in (
        (left, deletion, "deletion: lower is better", "taken away"),
        (right, insertion, "insertion: higher is better", "given back"),
    ):
        for number, (name, curve) in enumerate(zip(orders, values, strict=True)):
            axes.plot(
                np.asarray(fractions),
                curve,
                _STYLES[number % len(_STYLES)] if number else "-",
                color=colours[number % len(colours)],
                linewidth=2.2 if number == 0 else 1.3,
                zorder=3 if number == 0 else 2,
                label=label(name),
            )
        axes.set(title=title, xlabel=f"share of the picture {what}", xlim=(0, 1), ylim=(0, None))
        axes.grid(axis="y")
    left.set_ylabel("probability of the answer")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@figure_function
def map_similarity(
    *,
    steps: np.ndarray,
    correlation: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    references: np.ndarray,
    reference_correlation: np.ndarray,
) -> "Figure":
    """Draw how like its former self a map stays while the weights are replaced, layer after layer.

    Parameters
    ----------
    steps : np.ndarray of str [shape=(n_steps,)]
        The layer that is replaced at each step, with all that were before.
    correlation, low, high : np.ndarray [shape=(n_steps,)]
        Rank correlation with the map of the intact network and its interval; NaN ends draw none.
    references : np.ndarray of str [shape=(n_references,)]
        What else the map was compared with.
    reference_correlation : np.ndarray [shape=(n_references,)]
        The correlation with that, drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.0, width=6.2)
    axes = figure.subplots()
    places = np.arange(len(steps) + 1)
    axes.plot(places, [1, *correlation], "o-", color=BLUE, label="weights replaced (without sign)")
    axes.vlines(places[1:], low, high, color=BLUE, alpha=0.55, linewidth=2)
    colours = (ORANGE, RED, INK)
    for number, (name, value) in enumerate(zip(references, reference_correlation, strict=True)):
        style = {"color": colours[number % len(colours)], "linestyle": _STYLES[1 + number % 3]}
        axes.axhline(value, linewidth=1.3, label=f"{label(name)} ({value:.2f})", **style)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_xticks(places, ["none", *(label(step, longest=14) for step in steps)])
    axes.set(xlabel="weights replaced down to this layer", ylabel="rank correlation with the map", ylim=(None, 1.05))
    axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _class_panels(classes: np.ndarray, frequencies_hz: np.ndarray, xlabel: str) -> tuple["Figure", np.ndarray]:
    """Return a figure with a panel for each class, and the panels."""
    columns = 4 if len(classes) <= 20 else 6
    figure, panels = picture_grid(
        len(classes), frequencies_hz, columns=columns, row_height=1.35, n_ticks=4, margin=0.75, xlabel=xlabel
    )
    for axes, name in zip(panels, classes, strict=True):
        axes.set_title(label(name, longest=22), fontsize=8)
    return figure, panels


def _empty(text: str) -> "Figure":
    figure = new_figure(height=1.0)
    axes: Axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center")
    return figure
