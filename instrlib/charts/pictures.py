"""Spectrograms with or without a map; timeline; parallel coordinates of a search; scatter plot of an embedding."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from instrlib.charts import style
from instrlib.charts.style import chart, colours_of, grid, label, legend, name_rows

_SHADES = 10  # of a map; more are indistinguishable and double the size of the file
_ROW = 0.72
_TICKS_HZ = np.outer([10, 100, 1000, 10_000], [1, 2, 5]).ravel()


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
) -> Figure:
    """Draw spectrograms side by side; with `maps`, the spectrogram is grey and the map is drawn in colour on top.

    `spectra` [n, n_bins, n_frames] in dB are padded with NaN where they are smaller; with n = 0 the figure is a note.
    `frequencies_hz` [n_bins] or [n, n_bins] are the centres of the bands, ascending; NaN for cepstral coefficients.
    `maps` [n, n_bins, n_frames], at least 0, are drawn relative to their maximum, with a line at half of it. `shared`:
    one range of colours for all. `hop_s` is one or [n], `start_s` the time of the first frame.
    """
    n = len(spectra)
    if not n:
        figure, (axes,) = grid(1, 1, row_height=0.8)
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no examples", ha="center", va="center")
        return figure
    hops, frequencies, across = np.broadcast_to(hop_s, n), np.atleast_2d(frequencies_hz), min(columns, n)
    one_axis, texts = len(frequencies) == 1, [label(one, wrap=100 // across) for one in titles]
    height = {1: 2.3, 2: 1.75, 3: 1.7, 4: 1.3}.get(across, 1.1) + 0.12 * max(text.count("\n") for text in texts)
    figure, panels = grid(n, columns, row_height=height, margin=0.6, sharex=one_axis, sharey=one_axis)
    shades = colormaps["viridis"](np.linspace(0, 1, _SHADES))
    shades[:, -1] = np.linspace(0, 0.75, _SHADES)  # the spectrogram remains visible where the map is low
    for number, axes in enumerate(panels):
        bands = frequencies[0 if one_axis else number]
        picture = spectra[number][np.isfinite(spectra[number]).any(axis=1)]
        picture = picture[:, np.isfinite(picture).any(axis=0)]
        # Frames are centred on their time, so the picture begins half a step earlier.
        times = start_s + (np.array([0, picture.shape[1]]) - 0.5) * hops[number]
        place = {"origin": "lower", "extent": (*times, -0.5, len(picture) - 0.5)}
        look = {"aspect": "auto", **place}
        image = axes.imshow(picture, cmap="gray" if maps is not None else cmap, interpolation="nearest", **look)
        if shared and maps is None:
            image.set_clim(np.nanmin(spectra), max(np.nanmax(spectra), np.nanmin(spectra) + 1e-9))
        else:  # the first two cepstral coefficients, level and tilt, are much larger than the others
            inner, ends = (picture, [1, 99.5]) if np.isfinite(bands).any() else (picture[2:], [2, 98])
            image.set_clim(*np.percentile(inner, ends))
        if maps is not None:
            relative = maps[number].astype(float) / (maps[number].max() or 1)
            if relative.any():
                axes.contour(relative, levels=[0.5], colors=[style.ORANGE], linewidths=1, **place)
            image = axes.imshow(relative, cmap=ListedColormap(shades), vmin=0, vmax=1, **look)
        axes.set_title(texts[number], fontsize=8 if columns <= 4 else 7)
        if (number == 0 or not one_axis) and np.isfinite(bands).any():
            # Round frequencies, from the highest, at least so far apart that about 6 or 4 fit.
            bands, chosen = bands[np.isfinite(bands)], {}
            for tick in _TICKS_HZ[::-1]:
                at = np.interp(tick, bands, range(len(bands)), left=np.nan, right=np.nan)
                if min(chosen, default=np.inf) - at >= 0.8 * len(bands) / (6 if columns <= 3 else 4):
                    chosen[at] = f"{tick / 1000:g}"
            axes.set_yticks(list(chosen), list(chosen.values()))
        if not one_axis:
            figure.colorbar(image, ax=axes, pad=0.02)
    if one_axis and (shared or maps is not None):
        text = bar_label or ("level (dB)" if maps is None else "share of the map's maximum")
        bar = figure.colorbar(image, ax=list(panels), label=text, aspect=min(40, 14 * -(-n // columns)), pad=0.01)
        if maps is not None:
            bar.ax.axhline(0.5, color=style.ORANGE, linewidth=1.5)
    figure.supxlabel(xlabel)
    known = np.isfinite(frequencies).any(axis=1).all()
    figure.supylabel("frequency (kHz)" if known else "frequency (kHz) or coefficient")
    return figure


@chart
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
) -> Figure:
    """Draw which instruments play when, one row per instrument that was found or plays.

    `scores` [n_frames, n_classes] from 0 to 1 are drawn as colours where `active` (bool), in frames of `hop_s`. The
    true instruments, `truth_label`, `truth_start_s` and `truth_end_s` [n], are drawn as outlines.
    """
    rows = np.flatnonzero(active.any(axis=0) | np.isin(classes, np.asarray(truth_label, dtype=str)))
    names = [str(classes[row]) for row in rows]
    figure, (axes,) = grid(1, 1, row_height=1.3 + 0.3 * max(len(rows), 1))
    # Without the palest part of the colour map, so that low scores are visible.
    shades = ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, 256)))
    look = {"cmap": shades, "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "nearest"}
    image = axes.imshow([[0.0]], extent=(-2, -1, 0, 1), **look)  # for the colour bar, outside
    for place, row in enumerate(rows):
        found = np.ma.masked_where(~active[:, row], scores[:, row])
        axes.imshow(found[None], extent=(0, len(found) * hop_s, place + _ROW / 2, place - _ROW / 2), **look)
    for name, start_s, end_s in zip(truth_label, truth_start_s, truth_end_s, strict=True):
        corner = start_s, names.index(str(name)) - _ROW / 2
        axes.add_patch(Rectangle(corner, end_s - start_s, _ROW, fill=False, edgecolor=style.INK, linewidth=1.1))
    name_rows(axes, [label(name) for name in names])
    axes.set(xlabel="time (s)", xlim=(0, duration_s))
    axes.grid(axis="x")
    if not names:
        axes.text(0.5, 0.5, "no instrument was found", transform=axes.transAxes, ha="center", va="center")
    figure.colorbar(image, ax=axes, label="mean score", fraction=0.05, pad=0.02, aspect=12, ticks=[0, 0.5, 1])
    if len(truth_label):
        axes.fill_between([], [], color=style.BLUE, alpha=0.6, label="found")
        axes.fill_between([], [], facecolor="none", edgecolor=style.INK, label="plays")
        legend(figure, axes, below=True)
    return figure


@chart
def scatter(*, x: np.ndarray, y: np.ndarray, kinds: np.ndarray, panels: np.ndarray, frameless: bool = False) -> Figure:
    """Draw points [n] coloured by kind, in one panel for each value of `panels` [n] with the other points in grey.

    Twelve classes of four domains are readable as `kinds=domain, panels=class`. `frameless` omits the numbers of the
    axes, which have no meaning in an embedding.
    """
    names, colours = np.unique(panels), colours_of(kinds)
    figure, grid_panels = grid(len(names), 4, row_height=1.75, margin=0.4, sharex=True, sharey=True)
    size = float(np.interp(len(x), [100, 1000], [16.25, 5]))
    for name, axes in zip(names, grid_panels, strict=True):
        own = panels == name
        axes.scatter(x[~own], y[~own], s=size / 2, color=style.LIGHT, linewidths=0)
        for kind, (colour, marker) in colours.items():
            both, look = own & (kinds == kind), {"color": colour, "marker": marker, "linewidths": 0}
            axes.scatter(x[both], y[both], s=size, alpha=0.8, label=label(kind, wrap=60), **look)
        axes.set_title(label(name, wrap=22), fontsize=8)
        if frameless:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=style.GREY)
    legend(figure, *grid_panels)
    return figure
