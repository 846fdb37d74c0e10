"""Spectrograms side by side."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    draw_spectrogram,
    figure_function,
    label,
    level_limits,
    picture_bar,
    picture_grid,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@figure_function
def spectrogram_grid(
    *, spectra: np.ndarray, titles: np.ndarray, hop_s: float, mel_frequencies_hz: np.ndarray
) -> "Figure":
    """Draw mel spectrograms of one size side by side, with one colour scale.

    Parameters
    ----------
    spectra : np.ndarray [shape=(n, n_bins, n_frames)]
        Levels in dB.
    titles : np.ndarray of str [shape=(n,)]
        One for each.
    hop_s : float
        Step between frames in seconds.
    mel_frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(spectra)
    columns = 3 if n <= 3 else 4 if n <= 20 else 6
    height = {3: 1.9, 4: 1.45, 6: 1.15}[columns]
    ticks = 6 if columns == 3 else 4
    figure, panels = picture_grid(n, mel_frequencies_hz, columns=columns, row_height=height, n_ticks=ticks)
    limits = level_limits(spectra)
    for axes, picture, title in zip(panels, spectra, titles, strict=True):
        image = draw_spectrogram(axes, picture, hop_s, **limits)
        axes.set_title(label(title, longest=20 if columns <= 4 else 18), fontsize=8 if columns <= 4 else 6.5)
    picture_bar(figure, image, "level (dB)")
    return figure
