"""The style of all charts, and functions to store, redraw and save figures.

The arguments of a chart are numbers, strings and arrays of them, which an npz file holds without pickle. Colours are
those of Okabe and Ito for colour-blind readers (https://jfly.uni-koeln.de/color/).
"""

import functools
import inspect
import io
import itertools
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image

from instrlib.core.io import InstrlibError, atomic_path, read_arrays, write_arrays, write_text

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, LIGHT, INK = "#8C8C8C", "#D5D5D5", "#222222"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", RED)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("--", ":", "-.", (0, (1, 4)), (0, (8, 3)))

FIXED = {"better": BLUE, "worse": RED, "equivalent": GREEN, "inconclusive": GREY, "baseline": GREY}
"""Colours of kinds that are the same in every chart."""

WIDTH, DPI = 7.2, 150  # inches, and pixels per inch

CHARTS: dict[str, Callable[..., Figure]] = {}
"""Every chart by the name of its function."""

_STYLE = {
    "font.family": "DejaVu Sans",  # part of matplotlib
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "instrlib",
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), DPI),
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "figure.labelsize"), 9.0),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8.0),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.formatter.use_mathtext", "legend.frameon"), False),
}
_LOCK = threading.RLock()  # matplotlib's settings are shared by all threads


def chart(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Register a function in `CHARTS` and let it draw in the study's style; lists become arrays."""

    @functools.wraps(draw)
    def styled(**arguments: Any) -> Figure:
        given = {name: np.asarray(one) if isinstance(one, list) else one for name, one in arguments.items()}
        with style():
            figure = draw(**given)
            # The layout is fixed, so that notebook, PNG and SVG show the same picture.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    CHARTS[draw.__name__] = styled
    return styled


@contextmanager
def style() -> Iterator[None]:
    """Use the study's style inside a block, in one thread at a time; letters that the font lacks are drawn as boxes."""
    with _LOCK, matplotlib.style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def store(path: Path, draw: Callable[..., Figure], **arguments: Any) -> None:
    """Write the name and the arguments of a chart to an npz file, without those that are None."""
    arrays = {name: np.asarray(value) for name, value in arguments.items() if value is not None}
    arrays = {name: one if one.dtype.kind in "biufU" else one.astype(str) for name, one in arrays.items()}
    inspect.signature(draw).bind(**arrays)
    write_arrays(path, chart=draw.__name__, **arrays)


def draw_stored(path: Path) -> Figure:
    """Draw a figure from a file of `store`; raise `InstrlibError` if it is unreadable or of another version."""
    # 0-d arrays become numbers and strings again.
    arguments = {name: value.item() if value.ndim == 0 else value for name, value in read_arrays(path).items()}
    try:
        draw = CHARTS[arguments.pop("chart")]
        inspect.signature(draw).bind(**arguments)
    except (KeyError, TypeError):
        raise InstrlibError(f"{path} does not hold a chart of this version. Re-run its notebook.") from None
    return draw(**arguments)


def save(figure: Figure, folder: Path, stem: str) -> None:
    """Write `<stem>.png` and `<stem>.svg` without dates, so that equal figures give equal bytes."""
    with atomic_path(folder / f"{stem}.png") as temporary:
        temporary.write_bytes(_png(figure))
    write_text(folder / f"{stem}.svg", svg(figure))


def svg(figure: Figure) -> str:
    """Return a figure as SVG with text as outlines."""
    drawn = io.StringIO()
    with style():
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG with a palette, a third of the size."""
    drawn, small = io.BytesIO(), io.BytesIO()
    with style():
        figure.savefig(drawn, format="png")
    reduced = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(small, "PNG", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


def grid(n: int, columns: int, *, row_height: float, margin: float = 0, width: float = WIDTH, **shared: Any) -> tuple:
    """Return a figure with a size in inches, shown without pyplot, and `n` panels; unused ones are hidden."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(width, margin + row_height * rows), layout="constrained")
    figure._repr_png_ = lambda: (_png(figure), {"width": round(100 * width)})
    panels = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for number, axes in enumerate(panels):
        axes.set_visible(number < n)
        if number < n <= number + columns:
            axes.tick_params(labelbottom=True)
    return figure, panels[:n]


def colours_of(kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each kind, in order of first appearance."""
    names = [str(kind) for kind in dict.fromkeys(np.asarray(kinds).tolist())]
    free = itertools.cycle(colour for colour in COLOURS if colour not in {FIXED.get(name) for name in names})
    return {name: (FIXED.get(name) or next(free), MARKERS[at % len(MARKERS)]) for at, name in enumerate(names)}


def label(name: object, *, wrap: int = 34) -> str:
    """Prepare a text for drawing: wrapped, without underscores and mathematics."""
    lines = str(name).replace("_", " ").replace("$", r"\$").split("\n")
    return "\n".join(textwrap.fill(line, wrap) for line in lines)


def legend(figure: Figure, *axes: Axes, below: bool = False) -> None:
    """Draw one legend for all panels, one entry per name, in as many columns as fit; the figure grows by its height."""
    drawn = [pair for one in axes for pair in zip(*one.get_legend_handles_labels(), strict=True)]
    handles = {text: handle for handle, text in drawn if text}
    if not handles:
        return
    longest = max(len(line) for text in handles for line in text.split("\n"))
    columns = int(np.clip(15 * figure.get_figwidth() // (longest + 5), 1, 4))
    n_lines = -(-sum(text.count("\n") + 1 for text in handles) // columns)
    where = "outside lower center" if below else "outside upper center"
    figure.legend(handles.values(), handles.keys(), loc=where, ncols=columns, handletextpad=0.4)
    figure.set_figheight(figure.get_figheight() + 0.03 + 0.17 * n_lines)


def name_rows(axes: Axes, texts: Sequence[str], *, spread: float = 0.0) -> None:
    """Label the rows of a chart, the first on top; the figure grows by their height times `spread`."""
    n_lines = sum(max(1.0, 0.8 * (text.count("\n") + 1)) for text in texts)
    height = n_lines * float(np.interp(len(texts), [3, 12, 41], [0.36, 0.26, 0.19]))  # few rows are higher
    axes.figure.set_figheight(axes.figure.get_figheight() + spread * height)
    axes.set_yticks(range(len(texts)), texts, fontsize=np.interp(len(texts), [12, 41], [8.5, 7]))
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def reference_line(axes: Axes, value: float, name: str) -> None:
    """Draw a vertical line with its name above the axes."""
    axes.axvline(value, color=INK, linestyle="--", linewidth=1)
    place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    axes.annotate(label(name), (value, 1), (0, 3), **place)


def log_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with few plain numbers as ticks."""
    axes.set_xscale("log")
    low, high = np.log10(axes.get_xlim())
    steps = (1, 2, 5) if high - low < 1.8 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps) if high - low > 0.5 else MaxNLocator(3))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()
