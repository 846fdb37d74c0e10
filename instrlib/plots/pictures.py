"""Spectrograms side by side."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    draw_spectrogram,
    figure_function,
    frequency_ticks,
    label,
    level_limits,
    new_figure,
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


@figure_function
def feature_settings(
    *, values: np.ndarray, titles: np.ndarray, hop_s: np.ndarray, frequencies_hz: np.ndarray
) -> "Figure":
    """Draw one clip as a network would see it under several settings.

    Parameters
    ----------
    values : np.ndarray [shape=(n, max_bins, max_frames)]
        Features of different sizes, from `padded`.
    titles : np.ndarray of str [shape=(n,)]
        The settings in words.
    hop_s : np.ndarray [shape=(n,)]
        Step between frames in seconds.
    frequencies_hz : np.ndarray [shape=(n, max_bins)]
        Centre of each band in Hz, from `padded`; a row of NaN for cepstral coefficients, which have none.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(values)
    columns = min(n, 2)
    rows = -(-n // columns)
    figure = new_figure(height=0.3 + 1.9 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= n:
            axes.set_visible(False)
            continue
        known = np.isfinite(values[number])
        picture = values[number][np.ix_(known.any(axis=1), known.any(axis=0))]
        image = draw_spectrogram(axes, picture, hop_s[number])
        axes.set_title(label(titles[number], longest=44))
        frequencies = frequencies_hz[number][: len(picture)]
        if np.isfinite(frequencies).all():
            frequency_ticks(axes, frequencies, n_ticks=5)
            axes.set_ylabel("frequency (kHz)")
            figure.colorbar(image, ax=axes, label="level (dB)", pad=0.02)
        else:
            # The first two, level and tilt, are many times the others: the colours are spread over those.
            image.set_clim(*np.percentile(picture[2:], [2, 98]))
            axes.set_ylabel("coefficient")
            axes.yaxis.get_major_locator().set_params(integer=True)
            figure.colorbar(image, ax=axes, label="value", pad=0.02)
        if number + columns >= n:
            axes.set_xlabel("time (s)")
    return figure
