"""Who plays when: what was found in a recording, with its score, and what is true where that is known."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import BLUE, INK, WIDTH, figure_function, name_rows, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_HEIGHT = 0.72


@figure_function
def timeline(
    *,
    classes: np.ndarray,
    hop_s: float,
    scores: np.ndarray,
    active: np.ndarray,
    duration_s: float,
    truth_label: np.ndarray = (),
    truth_start_s: np.ndarray = (),
    truth_end_s: np.ndarray = (),
    width: float = WIDTH,
) -> "Figure":
    """Draw who plays when: a row for each instrument that was found, or is there; the colour is the score.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names of the columns.
    hop_s : float
        Length of a frame in s.
    scores : np.ndarray [shape=(n_frames, n_classes)]
        Scores from 0 to 1, the means over windows.
    active : np.ndarray of bool [shape=(n_frames, n_classes)]
        Where each instrument was found; elsewhere nothing is drawn.
    duration_s : float
        Length of the recording.
    truth_label, truth_start_s, truth_end_s : np.ndarray [shape=(n,)], optional
        What plays when, drawn as outlines: the class's name, begin and end in s.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patches import Patch, Rectangle

    there = np.asarray(active, dtype=bool).any(axis=0) | np.isin(classes, np.asarray(truth_label, dtype=str))
    rows = np.flatnonzero(there)
    names = [str(classes[row]) for row in rows]
    figure = new_figure(height=1.5 + 0.3 * max(len(rows), 1), width=width)
    axes = figure.subplots()
    # Without its palest part: what was found must show, however low its score.
    shades = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.2, 1, 256)))
    scale = {"cmap": shades, "norm": Normalize(0, 1)}
    for place, row in enumerate(rows):
        found = np.ma.masked_where(~np.asarray(active, dtype=bool)[:, row], scores[:, row])
        extent = 0, len(found) * hop_s, place + _ROW_HEIGHT / 2, place - _ROW_HEIGHT / 2
        axes.imshow(found[None], extent=extent, aspect="auto", interpolation="nearest", zorder=1, **scale)
    for name, start_s, end_s in zip(truth_label, truth_start_s, truth_end_s, strict=True):
        corner = start_s, names.index(str(name)) - _ROW_HEIGHT / 2
        axes.add_patch(Rectangle(corner, end_s - start_s, _ROW_HEIGHT, fill=False, edgecolor=INK, linewidth=1.1))
    name_rows(axes, names)
    axes.set(xlabel="time (s)", xlim=(0, duration_s))
    axes.grid(axis="x")
    if not names:
        axes.text(0.5, 0.5, "no instrument was found at any time", transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
    figure.colorbar(
        ScalarMappable(**scale), ax=axes, label="mean score", fraction=0.05, pad=0.02, aspect=12, ticks=[0, 0.5, 1]
    )
    if len(truth_label):
        keys = [Patch(facecolor=BLUE, alpha=0.6, label="found"), Patch(fill=False, edgecolor=INK, label="plays")]
        figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure
