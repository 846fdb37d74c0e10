"""The style of all charts, and functions to store, redraw and save figures.

The arguments of a chart are numbers, strings and arrays of them, which an npz file holds without pickle. Colours are
those of Okabe and Ito for colour-blind readers (https://jfly.uni-koeln.de/color/).
"""

import functools
import inspect
import io
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.core.io import InstrlibError, atomic_path, read_arrays, write_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY = "#CC79A7", "#56B4E9"
GREY, LIGHT, INK = "#8C8C8C", "#D5D5D5", "#222222"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("--", ":", "-.", (0, (1, 4)), (0, (8, 3)))

FIXED = {"better": BLUE, "worse": RED, "equivalent": GREEN, "inconclusive": GREY, "baseline": GREY}
"""Colours of kinds that are the same in every chart."""

WIDTH, DPI = 7.2, 150  # inches, and pixels an inch

CHARTS: dict[str, Callable[..., "Figure"]] = {}
"""Every chart by the name of its function."""

_STYLE = {
    "font.family": "DejaVu Sans",  # part of matplotlib
    "font.size": 9.0,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "instrlib",
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), DPI),
    **dict.fromkeys(("axes.titlesize", "axes.labelsize"), 9.0),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8.0),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
}
_LOCK = threading.RLock()  # matplotlib's settings are shared by all threads


def chart(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Register a function in `CHARTS` and let it draw in the study's style."""

    @functools.wraps(draw)
    def styled(**arguments: Any) -> "Figure":
        with style():
            figure = draw(**arguments)
            # The layout is fixed, so that notebook, PNG and SVG show the same picture.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    CHARTS[draw.__name__] = styled
    return styled


@contextmanager
def style() -> Iterator[None]:
    """Use the study's style inside a block, in one thread at a time; letters that the font lacks are drawn as boxes."""
    import matplotlib.style

    with _LOCK, matplotlib.style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def store(path: Path, draw: Callable[..., "Figure"], **arguments: Any) -> None:
    """Write the name and the arguments of a chart to an npz file, without those that are None."""
    arrays = {name: np.asarray(value) for name, value in arguments.items() if value is not None}
    arrays = {name: one if one.dtype.kind in "biufU" else one.astype(str) for name, one in arrays.items()}
    inspect.signature(draw).bind(**arrays)
    write_arrays(path, chart=draw.__name__, **arrays)


def draw_stored(path: Path) -> "Figure":
    """Draw a figure from a file of `store`; raise `InstrlibError` if it is unreadable or of another version."""
    # 0-d arrays become numbers and strings again.
    arguments = {name: value.item() if value.ndim == 0 else value for name, value in read_arrays(path).items()}
    try:
        draw = CHARTS[arguments.pop("chart")]
        inspect.signature(draw).bind(**arguments)
    except (KeyError, TypeError):
        raise InstrlibError(f"{path} does not hold a chart of this version. Re-run its notebook.") from None
    return draw(**arguments)


def save(figure: "Figure", folder: Path, stem: str) -> tuple[Path, Path]:
    """Write `<stem>.png` and `<stem>.svg` without dates, so that equal figures give equal bytes."""
    png, vector = Path(folder) / f"{stem}.png", Path(folder) / f"{stem}.svg"
    with atomic_path(png) as temporary:
        temporary.write_bytes(_png(figure))
    with atomic_path(vector) as temporary:
        temporary.write_text(svg(figure), encoding="utf-8")
    return png, vector


def svg(figure: "Figure") -> str:
    """Return a figure as SVG with text as outlines."""
    drawn = io.StringIO()
    with style():
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _png(figure: "Figure") -> bytes:
    """Return a figure as PNG with a palette, a third of the size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, small = FigureCanvasAgg(figure), io.BytesIO()
    with style():
        canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


def new_figure(*, height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure of this size in inches, which notebooks show without pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure._repr_png_ = lambda: (_png(figure), {"width": round(100 * width)})
    return figure


def grid(n: int, *, columns: int, row_height: float, margin: float, width: float = WIDTH, **shared: Any) -> tuple:
    """Return a figure and its `n` panels, at most `columns` in a row; unused panels are hidden."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = new_figure(height=margin + row_height * rows, width=width)
    panels = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for number, axes in enumerate(panels):
        axes.set_visible(number < n)
        if number < n <= number + columns:
            axes.tick_params(labelbottom=True)
    return figure, panels[:n]


def colours_of(kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each kind, in order of first appearance."""
    names = [str(kind) for kind in dict.fromkeys(np.asarray(kinds).tolist())]
    free = [colour for colour in COLOURS if colour not in {FIXED.get(name) for name in names}]
    plain = [name for name in names if name not in FIXED]
    chosen = {name: free[number % len(free)] for number, name in enumerate(plain)} | FIXED
    return {name: (chosen[name], MARKERS[at % len(MARKERS)]) for at, name in enumerate(names)}


def label(name: object, *, wrap: int = 34) -> str:
    """Prepare a text for drawing: wrapped, without underscores and mathematics."""
    lines = str(name).replace("_", " ").replace("$", r"\$").split("\n")
    return "\n".join(textwrap.fill(line, wrap) for line in lines)


def legend(figure: "Figure", *axes: "Axes", below: bool = False) -> None:
    """Draw one legend for all panels, one entry a name, in as many columns as fit; the figure grows by its height."""
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


def rows_height(texts: Sequence[str]) -> float:
    """Return the height in inches of rows with these labels; few rows are higher."""
    n_lines = sum(max(1.0, 0.8 * (text.count("\n") + 1)) for text in texts)
    return n_lines * float(np.interp(len(texts), [3, 12, 41], [0.36, 0.26, 0.19]))


def name_rows(axes: "Axes", texts: Sequence[str]) -> None:
    """Label the rows of a chart, the first on top."""
    size = float(np.interp(len(texts), [12, 41], [8.5, 7]))
    axes.set_yticks(np.arange(len(texts)), texts, fontsize=size)
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def reference_line(axes: "Axes", value: float, name: str) -> None:
    """Draw a vertical line with its name above the axes."""
    axes.axvline(value, color=INK, linestyle="--", linewidth=1)
    place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    axes.annotate(label(name), (value, 1), (0, 3), **place)


def log_axis(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with few plain numbers as ticks."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    axes.set_xscale("log")
    low, high = np.log10(axes.get_xlim())
    steps = (1, 2, 5) if high - low < 1.8 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps) if high - low > 0.5 else MaxNLocator(3))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()
