"""Spectrograms side by side, alone or with a map on top."""

from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.charts.style import ORANGE, WIDTH, chart, grid, label, new_figure, round_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEPS = 10  # shades of a map; more are indistinguishable and double the size of the file


@chart
def spectrograms(
    *,
    spectra: np.ndarray,
    titles: np.ndarray,
    hop_s: float | np.ndarray,
    frequencies_hz: np.ndarray,
    maps: np.ndarray | None = None,
    columns: int = 4,
    shared: bool = True,
    start_s: float = 0.0,
    cmap: str = "magma",
    bar_label: str = "",
    xlabel: str = "time (s)",
    width: float = WIDTH,
) -> "Figure":
    """Draw spectrograms side by side; with `maps`, the spectrogram is grey and the map is drawn in colour on top.

    Parameters
    ----------
    spectra : ndarray [n, n_bins, n_frames], dB
        Smaller ones are padded with NaN. With n = 0 the figure is a note.
    titles : ndarray of str [n]
    hop_s : float or ndarray [n], s
    frequencies_hz : ndarray [n_bins] or [n, n_bins], Hz
        Centres of the bands, ascending; NaN for cepstral coefficients.
    maps : ndarray [n, n_bins, n_frames], optional
        At least 0; each is drawn relative to its own maximum, with a line at half of it.
    shared : bool
        One range of colours for all; otherwise each has its own.
    start_s : float
        Time of the first frame.
    """
    n = len(spectra)
    if not n:
        figure = new_figure(height=0.8)
        figure.text(0.5, 0.5, "no examples", ha="center", va="center")
        return figure
    hops, frequencies = np.broadcast_to(hop_s, n), np.atleast_2d(frequencies_hz)
    one_axis = len(frequencies) == 1
    columns = min(columns, n)
    text = [label(one, wrap=120 // columns) for one in titles]
    height = {1: 2.3, 2: 1.75, 3: 1.7, 4: 1.3}.get(columns, 1.1) + 0.12 * max(one.count("\n") for one in text)
    shares = {"sharex": one_axis, "sharey": one_axis}
    figure, panels = grid(n, columns=columns, row_height=height, width=width, **shares)
    drawn = np.asarray(spectra, dtype=float)
    limits = (np.nanmin(drawn), max(np.nanmax(drawn), np.nanmin(drawn) + 1e-9)) if shared and maps is None else None
    for number, axes in enumerate(panels):
        image = _picture(axes, drawn[number], hops[number], start_s, "gray" if maps is not None else cmap, limits)
        if not np.isfinite(frequencies[0 if one_axis else number]).any():
            # The first two cepstral coefficients, level and tilt, are much larger than the others.
            image.set_clim(*np.nanpercentile(drawn[number][2:], [2, 98]))
        if maps is not None:
            image = _map(axes, np.asarray(maps[number], dtype=float), image.get_extent())
        axes.set_title(text[number], fontsize=8 if columns <= 4 else 7)
        if number == 0 or not one_axis:
            _frequency_ticks(axes, frequencies[0 if one_axis else number], n_ticks=6 if columns <= 3 else 4)
        if not one_axis:
            figure.colorbar(image, ax=axes, pad=0.02)
    if one_axis and (shared or maps is not None):
        text = bar_label or ("level (dB)" if maps is None else "share of the map's maximum")
        rows = panels[0].get_gridspec().nrows
        bar = figure.colorbar(image, ax=list(panels), label=text, aspect=min(40, 14 * rows), pad=0.01)
        if maps is not None:
            bar.ax.axhline(0.5, color=ORANGE, linewidth=1.5)
    figure.supxlabel(xlabel, fontsize=9)
    known = np.isfinite(frequencies).any(axis=1)
    figure.supylabel("frequency (kHz)" if known.all() else "frequency (kHz) or coefficient", fontsize=9)
    return figure


def _picture(axes: "Axes", picture: np.ndarray, hop_s: float, start_s: float, cmap: str, limits: tuple | None) -> Any:
    known = np.isfinite(picture)
    picture = picture[np.ix_(known.any(axis=1), known.any(axis=0))]
    n_bins, n_frames = picture.shape
    # Frames are centred on their time, so the picture begins half a step earlier.
    extent = (start_s - 0.5 * hop_s, start_s + (n_frames - 0.5) * hop_s, -0.5, n_bins - 0.5)
    low, high = limits or np.percentile(picture, [1, 99.5])
    return axes.imshow(
        picture, origin="lower", aspect="auto", cmap=cmap, extent=extent, interpolation="nearest", vmin=low, vmax=high
    )


def _map(axes: "Axes", values: np.ndarray, extent: tuple) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    values = values / (values.max() or 1)
    shades = colormaps["viridis"](np.linspace(0, 1, _STEPS))
    shades[:, -1] = np.linspace(0, 0.75, _STEPS)  # the spectrogram remains visible where the map is low
    image = axes.imshow(
        values, origin="lower", aspect="auto", extent=extent, cmap=ListedColormap(shades), vmin=0, vmax=1
    )
    if values.max() > 0:
        axes.contour(values, levels=[0.5], colors=[ORANGE], linewidths=1, extent=extent, origin="lower")
    return image


def _frequency_ticks(axes: "Axes", frequencies_hz: np.ndarray, *, n_ticks: int) -> None:
    """Mark round frequencies, at least so far apart that about `n_ticks` fit."""
    frequencies_hz = frequencies_hz[np.isfinite(frequencies_hz)]
    if not len(frequencies_hz):
        return
    bands, chosen = np.arange(len(frequencies_hz)), []
    # From the top, so that the highest frequency is included.
    for tick in round_steps(frequencies_hz[0], frequencies_hz[-1])[::-1]:
        place = float(np.interp(tick, frequencies_hz, bands))
        if not chosen or chosen[-1][0] - place >= 0.8 * len(bands) / n_ticks:
            chosen.append((place, f"{tick / 1000:g}"))
    axes.set_yticks(*zip(*chosen, strict=True))
