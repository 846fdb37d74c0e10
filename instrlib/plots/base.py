"""What all figures share: style, size, saving, and the parts that several are made of.

A figure is a function that takes keyword arguments which an npz file holds without pickle (numbers, strings, arrays of
them) and returns a `matplotlib.figure.Figure` of its own. pyplot keeps none of them: nothing is shown twice or stays
open. A notebook shows the figure that a cell ends with. Colours are those of Okabe and Ito [1]_, which colour-blind
readers can tell apart, and perceptually uniform maps for pictures.

References
----------
.. [1] M. Okabe, K. Ito, "Color universal design", 2008. https://jfly.uni-koeln.de/color/
"""

import functools
import inspect
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.core.errors import InstrlibError
from instrlib.core.io import atomic_path, read_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, INK = "#8C8C8C", "#222222"
PARTS = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#F0E442")

WIDTH = 7.2
"""Width of a figure in inches, that of a notebook's or a page's column."""

DPI = 150

FIGURES: dict[str, Callable[..., "Figure"]] = {}
"""Every figure by the name of its function."""

_STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "instrlib",
}
_STYLED = threading.RLock()  # matplotlib's settings are those of all threads
_SHOWN_DPI = 100
LONGEST_LABEL = 28
_DECADES = np.array([1.0, 2.0, 5.0])


def draw_stored(path: Path) -> "Figure":
    """Draw a figure again from the arrays that `Run.figure` saved.

    Parameters
    ----------
    path : Path
        An npz file: `figure` is the name of a function of this module, the rest are its arguments.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InstrlibError
        When the file is missing or unreadable, or does not hold the arguments of a figure of this version.
    """
    arrays = read_arrays(path)
    # 0-d arrays become a number or a str again.
    arguments = {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
    try:
        draw = FIGURES[arguments.pop("figure")]
        inspect.signature(draw).bind(**arguments)
    except (KeyError, TypeError):
        raise InstrlibError(
            f"{path} does not hold a figure of this version; run the notebook that wrote it again."
        ) from None
    return draw(**arguments)


def save(figure: "Figure", folder: Path, stem: str) -> tuple[Path, Path]:
    """Write a figure as PNG (150 dpi) and SVG, each whole or not at all.

    The files hold neither date nor path, and SVG text is stored as outlines: the same figure gives the same bytes
    wherever the same versions are installed.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    folder : Path
        Made when missing.
    stem : str
        File name without ending.

    Returns
    -------
    tuple of Path
        `<stem>.png` and `<stem>.svg`.

    Raises
    ------
    DiskError
        When the disk is full, read-only or forbidden.
    """
    paths = Path(folder) / f"{stem}.png", Path(folder) / f"{stem}.svg"
    png, svg = paths
    with atomic_path(png) as temporary:
        temporary.write_bytes(_png(figure))
    with atomic_path(svg) as temporary, style():
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    return paths


def figure_function(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Register a function in `FIGURES` and draw it in the study's style, whatever the user's settings are."""

    @functools.wraps(draw)
    def styled(**arguments: Any) -> "Figure":
        with style():
            figure = draw(**arguments)
            # Laid out once: the picture on the page and both files are then the same to the pixel.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    FIGURES[draw.__name__] = styled
    return styled


@contextmanager
def style() -> Iterator[None]:
    """Set the study's style, whatever the user's settings are, for the length of a block; one thread at a time."""
    import matplotlib.style

    with _STYLED, matplotlib.style.context(_STYLE, after_reset=True):
        yield


def _png(figure: "Figure") -> bytes:
    """Return a figure as PNG with a palette: a third of the bytes, and the eye sees no difference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    # The canvas itself is asked for its pixels: `savefig` would draw all once more and pack what is opened right away.
    canvas, small = FigureCanvasAgg(figure), io.BytesIO()
    with style():
        canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    picture = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


@functools.cache
def _figure_type() -> type["Figure"]:
    """Make a figure that shows itself: without pyplot, notebooks do not know how to show matplotlib's own."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            # Shown smaller than its pixels, so that its letters are the size of the page's and sharp.
            return _png(self), {"width": round(self.get_figwidth() * _SHOWN_DPI)}

    return ShownFigure


def new_figure(*, height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure of this size in inches that pyplot does not know and a notebook shows."""
    return _figure_type()(figsize=(width, height), layout="constrained")


def row_inches(names: Sequence[str]) -> float:
    """Return the inches that a list of names needs: more for each when there are few."""
    return len(names) * float(np.interp(len(names), [3, 12, 41], [0.4, 0.26, 0.19]))


def name_rows(axes: "Axes", names: Sequence[str], *, longest: int = LONGEST_LABEL) -> None:
    """Name the rows of a chart, the first on top."""
    size = float(np.interp(len(names), [12, 41], [8.5, 7]))
    axes.set_yticks(np.arange(len(names)), [label(name, longest=longest) for name in names], fontsize=size)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def forest(
    axes: "Axes",
    names: Sequence[str],
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    longest: int = 40,
) -> None:
    """Draw points from 0 to 1 with whiskers, one row each, with the number beside."""
    scores, low, high = (np.asarray(values, dtype=float) for values in (scores, low, high))
    rows = np.arange(len(scores))
    axes.hlines(rows, low, high, color=BLUE, linewidth=2 if len(rows) <= 20 else 1.5, alpha=0.55)
    axes.plot(scores, rows, "o", color=BLUE, markersize=5 if len(rows) <= 20 else 4)
    right = np.fmax(scores, high)
    for row, score, end in zip(rows, scores, right, strict=True):
        text = f"{score:.2f}" if np.isfinite(score) else "–"
        axes.annotate(
            text, (end if np.isfinite(end) else 0, row), (5, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.grid(axis="x")
    # Room for the number beside a score of 1.
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.spines["bottom"].set_bounds(0, 1)
    name_rows(axes, names, longest=longest)


def whiskers(
    axes: "Axes", scores: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray, *, colour: str, **style: Any
) -> None:
    """Draw points with their intervals, one row each; `style` is that of the points."""
    axes.hlines(rows, low, high, color=colour, linewidth=2, alpha=0.6)
    axes.plot(scores, rows, color=colour, linestyle="none", markersize=5, **style)


def margin_numbers(axes: "Axes", numbers: np.ndarray, pattern: str) -> None:
    """Write a number right of each row, in a column of their own, where no line crosses them."""
    for row, number in enumerate(numbers):
        axes.annotate(
            format(number, pattern).replace("-", "−"),
            (1, row),
            (4, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )


def reference_line(axes: "Axes", position: float, text: str) -> None:
    """Draw a vertical line with its name above the axes, where nothing else stands."""
    axes.axvline(position, color=INK, linestyle="--", linewidth=1)
    axes.annotate(
        text,
        (position, 1),
        (0, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )


def draw_spectrogram(axes: "Axes", picture: np.ndarray, hop_s: float, *, start_s: float = 0.0, **limits: float) -> Any:
    """Draw one spectrogram, time from left to right in seconds, the first frame at `start_s`; return the image."""
    n_bins, n_frames = picture.shape
    # Frames are centred on their time, so the picture begins half a step before the first.
    extent = (start_s - 0.5 * hop_s, start_s + (n_frames - 0.5) * hop_s, -0.5, n_bins - 0.5)
    return axes.imshow(
        picture, origin="lower", aspect="auto", cmap="magma", extent=extent, interpolation="nearest", **limits
    )


def picture_grid(
    n: int,
    frequencies_hz: np.ndarray,
    *,
    columns: int,
    row_height: float,
    n_ticks: int,
    margin: float = 0.55,
    xlabel: str = "time (s)",
) -> tuple["Figure", np.ndarray]:
    """Return a figure of `n` panels over mel bands that share their axes, and the panels, row by row.

    Parameters
    ----------
    n : int
        Number of panels.
    frequencies_hz : np.ndarray [shape=(n_bins,)]
        Centre of each band in Hz, ascending.
    columns : int
        At most so many side by side.
    row_height, margin : float
        Inches of each row, and of what stands above and below all.
    n_ticks : int
        About so many frequencies are marked.
    xlabel : str
        What lies along the panels.
    """
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = new_figure(height=margin + row_height * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for number, axes in enumerate(panels):
        axes.set_visible(number < n)
        if number < n <= number + columns:
            axes.tick_params(labelbottom=True)
    frequency_ticks(panels[0], frequencies_hz, n_ticks=n_ticks)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel("frequency (kHz)", fontsize=9)
    return figure, panels[:n]


def level_limits(spectra: np.ndarray) -> dict[str, float]:
    """Return one range of colours for several spectrograms, as `draw_spectrogram` takes it."""
    floor = float(np.min(spectra))
    return {"vmin": floor, "vmax": max(float(np.max(spectra)), floor + 1)}


def picture_bar(figure: "Figure", image: Any, text: str) -> Any:
    """Draw the scale of the colours beside a grid of pictures, and return it."""
    rows = figure.axes[0].get_gridspec().nrows
    return figure.colorbar(image, ax=figure.axes, label=text, aspect=min(40, 14 * rows), pad=0.01)


def frequency_ticks(axes: "Axes", frequencies_hz: np.ndarray, *, n_ticks: int) -> None:
    """Mark round frequencies, at least so far apart that about `n_ticks` fit, on an axis of mel bands."""
    ticks: list[float] = []
    places: list[float] = []
    bands = np.arange(len(frequencies_hz))
    gap = 0.8 * len(bands) / n_ticks
    # From the top, so that the highest, which the bands resolve best, is there.
    for frequency in round_steps(frequencies_hz[0], frequencies_hz[-1])[::-1]:
        place = float(np.interp(frequency, frequencies_hz, bands))
        if not places or places[-1] - place >= gap:
            ticks.append(frequency)
            places.append(place)
    axes.set_yticks(places, [f"{tick / 1000:g}" for tick in ticks])


def round_steps(low: float, high: float) -> np.ndarray:
    """Return the numbers 1, 2 and 5 times a power of ten from `low` to `high`."""
    powers = 10.0 ** np.arange(np.floor(np.log10(max(low, 1e-3))), np.ceil(np.log10(high)) + 1)
    steps = np.outer(powers, _DECADES).ravel()
    return steps[(steps >= low) & (steps <= high)]


def ink_on(colour: str) -> str:
    """Return the text colour that reads best on a colour."""
    from matplotlib.colors import to_rgb

    # Relative luminance, roughly; at 0.18 black and white have the same contrast.
    return "white" if np.dot(np.power(to_rgb(colour), 2.2), (0.2126, 0.7152, 0.0722)) < 0.18 else INK


def label(name: str, *, longest: int = LONGEST_LABEL) -> str:
    """Make a name fit to be drawn: spaces for underscores, no mathematics, no letter that the font lacks."""
    known = _letters()
    text = "".join(letter if ord(letter) in known else "□" for letter in " ".join(str(name).replace("_", " ").split()))
    text = text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
    return text.replace("$", r"\$")


@functools.cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
