"""What mixing makes of spectrograms and labels."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import draw_spectrogram, figure_function, label, level_limits, picture_bar, picture_grid

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
        Label of each: the shares of the classes; 0 or NaN leaves one out.
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
    figure, panels = picture_grid(len(spectra), mel_frequencies_hz, columns=3, row_height=2.1, n_ticks=5)
    limits = level_limits(spectra)
    for axes, picture, name, share in zip(panels, spectra, names, shares, strict=True):
        image = draw_spectrogram(axes, picture, hop_s, **limits)
        axes.set_title(f"{label(name)}\n{_shares(share, classes)}", fontsize=8)
    picture_bar(figure, image, "level (dB)")
    return figure


def _shares(shares: np.ndarray, classes: np.ndarray) -> str:
    """Name the classes of one label, the largest first, a line each; a pure one has one line and an empty one.

    Of several labels a clip those that were mixed with an unobserved one are not known, which may leave none.
    """
    order = [number for number in np.argsort(-shares, kind="stable") if shares[number] > 0]
    lines = [f"{shares[number]:.2f} {label(classes[number], longest=24)}" for number in order]
    return "\n+ ".join(lines) if len(lines) > 1 else f"{lines[0] if lines else 'nothing known to be present'}\n"
