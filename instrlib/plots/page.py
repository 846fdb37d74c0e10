"""What the page and the sheet show of one recording; drawn as SVG, so that it is sharp on every screen and on paper."""

import io
from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import ORANGE, WIDTH, figure_function, frequency_ticks, new_figure, style
from instrlib.plots.cam import draw_overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@figure_function
def listened_to(
    *,
    picture: np.ndarray,
    activation: np.ndarray,
    start_s: float,
    hop_s: float,
    mel_frequencies_hz: np.ndarray,
    width: float = WIDTH,
) -> "Figure":
    """Draw a segment of a recording with the map of one class on top: sound in grey, the map in colour.

    Parameters
    ----------
    picture : np.ndarray [shape=(n_bins, n_frames)]
        Levels in dB.
    activation : np.ndarray [shape=(n_bins, n_frames)]
        What speaks for the class, at least 0, shown relative to its maximum; all 0 shows the sound alone.
    start_s : float
        Where the segment begins in the recording.
    hop_s : float
        Step between frames in seconds.
    mel_frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=2.5, width=width)
    axes = figure.subplots()
    overlay = draw_overlay(axes, picture, activation, hop_s, start_s=start_s)
    frequency_ticks(axes, mel_frequencies_hz, n_ticks=6)
    axes.set(xlabel="time (s)", ylabel="frequency (kHz)")
    bar = figure.colorbar(overlay, ax=axes, label="share of the map's maximum", pad=0.02)
    bar.ax.axhline(0.5, color=ORANGE, linewidth=1.5)
    return figure


def svg(figure: "Figure") -> str:
    """Return a figure as SVG with its letters as outlines, the same for the same figure."""
    drawn = io.StringIO()
    with style():
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
