"""What mixing makes of spectrograms and labels."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import draw_spectrogram, figure_function, frequency_ticks, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@figure_function
def mixed_spectrograms(
    *,
    spectra: np.ndarray,
    names: np.ndarray,
    shares: np.ndarray,
    classes: np.ndarray,
    hop_s: float,
    mel_frequencies_hz: np.ndarray,
) -> "Figure":
    """Draw examples and what augmentation made of them, each with its label above.

    Parameters
    ----------
    spectra : np.ndarray [shape=(n, n_bins, n_frames)]
        Levels in dB.
    names : np.ndarray of str [shape=(n,)]
        What was done to each.
    shares : np.ndarray [shape=(n, n_classes)]
        Label of each: the shares of the classes, which sum to 1.
    classes : np.ndarray of str [shape=(n_classes,)]
        Name of each class.
    hop_s : float
        Step between frames in seconds.
    mel_frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(spectra)
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = new_figure(height=0.55 + 2.1 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    limits = {"vmin": float(np.min(spectra)), "vmax": float(np.max(spectra))}
    image = None
    for number, axes in enumerate(grid.flat):
        if number >= n:
            axes.set_visible(False)
            continue
        image = draw_spectrogram(axes, spectra[number], hop_s, **limits)
        axes.set_title(f"{label(names[number])}\n{_shares(shares[number], classes)}", fontsize=8)
        if number + columns >= n:
            axes.tick_params(labelbottom=True)
    frequency_ticks(grid[0, 0], mel_frequencies_hz, n_ticks=5)
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel("frequency (kHz)", fontsize=9)
    figure.colorbar(image, ax=grid, label="level (dB)", aspect=min(40, 14 * rows), pad=0.01)
    return figure


def _shares(shares: np.ndarray, classes: np.ndarray) -> str:
    """Name the classes of one label, the largest first, a line each; a pure one has one line and an empty one."""
    order = [number for number in np.argsort(-shares, kind="stable") if shares[number] > 0]
    lines = [f"{shares[number]:.2f} {label(classes[number], longest=24)}" for number in order]
    return "\n+ ".join(lines) if len(lines) > 1 else f"{lines[0]}\n"
