"""Every figure of the study: a function of plain arrays, so that it can be drawn again from what a run saved.

A function takes keyword arguments that an npz file holds without pickle (numbers, strings, arrays of them) and returns
a `matplotlib.figure.Figure` of its own. pyplot keeps none of them: nothing is shown twice or stays open. A notebook
shows the figure that a cell ends with. Colours are those of Okabe and Ito [1]_, which colour-blind readers can tell
apart, and perceptually uniform maps for pictures.

References
----------
.. [1] M. Okabe, K. Ito, "Color universal design", 2008. https://jfly.uni-koeln.de/color/
"""

import functools
import inspect
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.errors import InstrlibError
from instrlib.files import atomic_path, read_arrays

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
_SHOWN_DPI = 100
_LONGEST_LABEL = 28
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
    for path, metadata in zip(paths, ({"Software": None}, {"Date": None, "Creator": None}), strict=True):
        with atomic_path(path) as temporary, _style():
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    return paths


def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of different shapes into one, with NaN where one ends before the others.

    Parameters
    ----------
    arrays : sequence of np.ndarray
        All with the same number of axes: loss curves of different lengths, pictures of different sizes.

    Returns
    -------
    np.ndarray of float [shape=(n_arrays, ...)]

    Examples
    --------
    >>> padded([[1.0, 2.0], [3.0]])
    array([[ 1.,  2.],
           [ 3., nan]])
    """
    whole = [np.asarray(array, dtype=float) for array in arrays]
    stacked = np.full((len(whole), *np.max([array.shape for array in whole], axis=0)), np.nan)
    for place, array in zip(stacked, whole, strict=True):
        place[tuple(slice(size) for size in array.shape)] = array
    return stacked


def _figure(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Register a function in `FIGURES` and draw it in the study's style, whatever the user's settings are."""

    @functools.wraps(draw)
    def styled(**arguments: Any) -> "Figure":
        with _style():
            figure = draw(**arguments)
            # Laid out once: the picture on the page and both files are then the same to the pixel.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    FIGURES[draw.__name__] = styled
    return styled


@_figure
def class_balance(*, classes: np.ndarray, n_clips: np.ndarray, n_groups: np.ndarray) -> "Figure":
    """Draw how many clips and how many groups each class has.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    n_clips, n_groups : np.ndarray of int [shape=(n_classes,)]
        Clips and groups of each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new(height=0.7 + _rows(classes))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, colour, what in ((left, n_clips, BLUE, "clips"), (right, n_groups, ORANGE, "groups")):
        bars = axes.barh(np.arange(len(classes)), values, height=0.7, color=colour)
        axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=7)
        axes.set(xlabel=what, xlim=(0, 1.15 * max(1, np.max(values))))
        axes.xaxis.get_major_locator().set_params(integer=True)
    _name_rows(left, classes)
    return figure


@_figure
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
    columns = min(n, 3 if n <= 3 else 4 if n <= 20 else 6)
    rows = -(-n // columns)
    figure = _new(height=0.55 + rows * (1.9 if columns <= 3 else 1.45 if columns == 4 else 1.15))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    floor = float(np.min(spectra))
    limits = {"vmin": floor, "vmax": max(float(np.max(spectra)), floor + 1)}
    image = None
    for number, axes in enumerate(grid.flat):
        if number >= n:
            axes.set_visible(False)
            continue
        image = _spectrogram(axes, spectra[number], hop_s, **limits)
        axes.set_title(_label(titles[number], longest=20 if columns <= 4 else 18), fontsize=8 if columns <= 4 else 6.5)
        if number + columns >= n:
            axes.tick_params(labelbottom=True)
    _frequency_ticks(grid[0, 0], mel_frequencies_hz, n_ticks=6 if columns <= 3 else 4)
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel("frequency (kHz)", fontsize=9)
    figure.colorbar(image, ax=grid, label="level (dB)", aspect=min(40, 14 * rows), pad=0.01)
    return figure


@_figure
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
    figure = _new(height=0.3 + 1.9 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= n:
            axes.set_visible(False)
            continue
        known = np.isfinite(values[number])
        picture = values[number][np.ix_(known.any(axis=1), known.any(axis=0))]
        image = _spectrogram(axes, picture, hop_s[number])
        axes.set_title(_label(titles[number], longest=44))
        frequencies = frequencies_hz[number][: len(picture)]
        if np.isfinite(frequencies).all():
            _frequency_ticks(axes, frequencies, n_ticks=5)
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


@_figure
def split_overview(*, classes: np.ndarray, parts: np.ndarray, counts: np.ndarray) -> "Figure":
    """Draw how the clips of each class fall into the parts of a split.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    parts : np.ndarray of str [shape=(n_parts,)]
        Names of the parts.
    counts : np.ndarray of int [shape=(n_parts, n_classes)]
        Clips of each class in each part.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new(height=0.95 + _rows(classes))
    axes = figure.subplots()
    before = np.zeros(len(classes))
    smallest = 0.035 * np.max(np.sum(counts, axis=0))
    for part, numbers, colour in zip(parts, counts, itertools.cycle(PARTS), strict=False):
        n_part = int(np.sum(numbers))
        bars = axes.barh(
            np.arange(len(classes)), numbers, left=before, height=0.7, color=colour, label=f"{_label(part)} ({n_part})"
        )
        inside = [f"{number:.0f}" if number >= smallest else "" for number in numbers]
        axes.bar_label(bars, labels=inside, label_type="center", fontsize=7, color=_ink_on(colour))
        before = before + numbers
    axes.set_xlabel("clips")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _name_rows(axes, classes)
    figure.legend(loc="outside upper center", ncols=len(parts))
    return figure


@_figure
def leak(
    *,
    names: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    chance: float,
    metric: str = "accuracy",
) -> "Figure":
    """Draw what the same classifier scores under several ways to split the same clips.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        The protocols.
    scores, low, high : np.ndarray [shape=(n,)]
        Score and its interval, from 0 to 1; NaN ends draw none.
    chance : float
        Score of guessing.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new(height=0.95 + 0.34 * len(names))
    axes = figure.subplots()
    _forest(axes, names, scores, low, high, share_of_row=0.6)
    _reference_line(axes, chance, f"chance {chance:.2f}")
    axes.set_xlabel(_label(metric))
    return figure


@_figure
def duration_histogram(*, duration_s: np.ndarray, segment_s: float) -> "Figure":
    """Draw how long the clips are, beside the length of a segment.

    Parameters
    ----------
    duration_s : np.ndarray [shape=(n_clips,)]
        Length of each clip in seconds, above 0.
    segment_s : float
        Length of a segment in seconds.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import MaxNLocator

    duration_s = np.asarray(duration_s, dtype=float)
    figure = _new(height=2.5)
    axes = figure.subplots()
    low = min(duration_s.min(), segment_s) / 1.25
    high = max(duration_s.max(), segment_s) * 1.25  # a margin, and a width when all are equal
    axes.hist(duration_s, bins=np.geomspace(low, high, 41), color=BLUE)
    _reference_line(axes, segment_s, f"one segment ({segment_s:g} s)")
    ticks = _steps(low, high)
    if len(ticks) < 3:
        ticks = MaxNLocator(6).tick_values(low, high)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="duration (s)", ylabel="clips", xlim=(low, high))
    axes.minorticks_off()
    axes.yaxis.get_major_locator().set_params(integer=True)
    return figure


@_figure
def learning_curves(
    *,
    epoch: np.ndarray,
    train_loss: np.ndarray,
    validation_loss: np.ndarray,
    train_accuracy: np.ndarray,
    validation_accuracy: np.ndarray,
    best_epoch: np.ndarray,
) -> "Figure":
    """Draw loss and accuracy over the epochs, one line for each seed, with a dot where the weights were kept.

    Parameters
    ----------
    epoch : np.ndarray of int [shape=(n_epochs,)]
        Numbers of the epochs.
    train_loss, validation_loss, train_accuracy, validation_accuracy : np.ndarray [shape=(n_seeds, n_epochs)]
        The histories, from `padded` where some stopped early. Losses in nats.
    best_epoch : np.ndarray of int [shape=(n_seeds,)]
        The epoch whose weights each seed kept, one of `epoch`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new(height=2.7)
    left, right = figure.subplots(1, 2)
    best = np.searchsorted(epoch, best_epoch)
    seeds = np.arange(len(best))
    opacity = 1.0 if len(best) == 1 else 0.6
    for axes, train, validation, what in (
        (left, train_loss, validation_loss, "loss (nats)"),
        (right, train_accuracy, validation_accuracy, "accuracy"),
    ):
        for values, colour, name in ((train, BLUE, "training"), (validation, RED, "validation")):
            lines = axes.plot(epoch, np.transpose(values), color=colour, alpha=opacity)
            lines[0].set_label(name)
        axes.plot(
            np.asarray(epoch)[best], validation[seeds, best], "o", color=RED, markeredgecolor="white", label="kept"
        )
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
    left.set_ylim(bottom=0)
    right.set_ylim(0, 1.02)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@_figure
def confusion_matrix(*, counts: np.ndarray, classes: np.ndarray) -> "Figure":
    """Draw how often each class was answered for each true class: counts, coloured by the share of the row.

    Parameters
    ----------
    counts : np.ndarray of int [shape=(n_classes, n_classes)]
        Row: true class; column: the class answered.
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import seaborn

    counts = np.asarray(counts)
    n = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # From one class in a quarter of an inch to 41 on a page.
    side = float(np.clip(0.36 * n, 1.6, 5.6 if n <= 20 else 6.9))
    small = min(8.0, 0.62 * 72 * side / n)
    labels = [_label(name) for name in classes]
    names = max(map(len, labels)) * 0.6 * small / 72
    figure = _new(width=side + names + 1.4, height=side + names + 0.5)
    axes = figure.subplots()
    longest = len(str(counts.max()))
    seaborn.heatmap(
        share,
        ax=axes,
        cmap="Blues",
        vmin=0,
        vmax=1,
        square=True,
        linewidths=0.4,
        linecolor="#DDDDDD",
        annot=np.where(counts > 0, counts.astype(str), ""),
        fmt="",
        annot_kws={"fontsize": small * min(1, 2.6 / longest) * (0.85 if n > 20 else 1)},
        cbar_kws={"label": "share of the true class", "shrink": 0.8, "pad": 0.02},
    )
    axes.set_xticks(np.arange(n) + 0.5, labels, rotation=90, fontsize=small)
    axes.set_yticks(np.arange(n) + 0.5, labels, rotation=0, fontsize=small)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="answered", ylabel="true class")
    return figure


@_figure
def reliability_diagram(*, confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray, ece: float) -> "Figure":
    """Draw how often the model is right against how sure it is; on the diagonal it knows what it knows.

    Parameters
    ----------
    confidence, accuracy, share : np.ndarray [shape=(n_bins,)]
        What `metrics.reliability` returns: mean confidence, accuracy and share of clips of each bin of equal width.
    ece : float
        Expected calibration error.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(share)
    centres = (np.arange(n) + 0.5) / n
    filled = np.isfinite(accuracy)
    figure = _new(width=4.6, height=4.6)
    top, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3.2])
    top.bar(centres, share, width=0.9 / n, color=GREY)
    top.set(ylabel="share\nof clips", title=f"expected calibration error {ece:.3f}")
    axes.bar(centres[filled], accuracy[filled], width=0.9 / n, color=BLUE, alpha=0.35, label="accuracy in the bin")
    axes.plot(confidence[filled], accuracy[filled], "o", color=BLUE, markersize=4, label="mean confidence in the bin")
    axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfectly calibrated")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@_figure
def per_class_scores(
    *, classes: np.ndarray, f1: np.ndarray, low: np.ndarray, high: np.ndarray, support: np.ndarray
) -> "Figure":
    """Draw the F1 of each class with its interval, the best on top.

    Parameters
    ----------
    classes : np.ndarray of str [shape=(n_classes,)]
        Names.
    f1, low, high : np.ndarray [shape=(n_classes,)]
        F1 and its interval; NaN ends draw none. Classes whose F1 is NaN stand last, without a point.
    support : np.ndarray of int [shape=(n_classes,)]
        Clips of each class.

    Returns
    -------
    matplotlib.figure.Figure
    """
    order = np.argsort(-np.asarray(f1, dtype=float), kind="stable")
    names = [f"{_label(classes[number])} (n = {int(support[number])})" for number in order]
    figure = _new(height=0.75 + _rows(classes))
    axes = figure.subplots()
    _forest(
        axes,
        names,
        *(np.asarray(values)[order] for values in (f1, low, high)),
        share_of_row=0.5,
        longest=_LONGEST_LABEL + 12,
    )
    axes.set_xlabel("F1")
    return figure


@_figure
def model_comparison(
    *,
    names: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    baseline: float,
    metric: str = "accuracy",
) -> "Figure":
    """Draw the scores of several models with their intervals, beside that of a trivial baseline.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n,)]
        The models, from top to bottom.
    scores, low, high : np.ndarray [shape=(n,)]
        Score and its interval, from 0 to 1; NaN ends draw none.
    baseline : float
        Score to beat, drawn as a line.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _new(height=0.95 + max(0.34 * min(len(names), 8), _rows(names)))
    axes = figure.subplots()
    _forest(axes, names, scores, low, high, share_of_row=0.5)
    _reference_line(axes, baseline, f"baseline {baseline:.2f}")
    axes.set_xlabel(_label(metric))
    return figure


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib.style

    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


@functools.cache
def _figure_type() -> type["Figure"]:
    """Make a figure that shows itself: without pyplot, notebooks do not know how to show matplotlib's own."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            buffer = io.BytesIO()
            with _style():
                self.savefig(buffer, format="png", metadata={"Software": None})
            # Shown smaller than its pixels, so that its letters are the size of the page's and sharp.
            return buffer.getvalue(), {"width": round(self.get_figwidth() * _SHOWN_DPI)}

    return ShownFigure


def _new(*, height: float, width: float = WIDTH) -> "Figure":
    return _figure_type()(figsize=(width, height), layout="constrained")


def _rows(names: Sequence[str]) -> float:
    """Return the inches that a list of names needs: more for each when there are few."""
    return len(names) * float(np.interp(len(names), [3, 12, 41], [0.4, 0.26, 0.19]))


def _name_rows(axes: "Axes", names: Sequence[str], *, longest: int = _LONGEST_LABEL) -> None:
    size = float(np.interp(len(names), [12, 41], [8.5, 7]))
    axes.set_yticks(np.arange(len(names)), [_label(name, longest=longest) for name in names], fontsize=size)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _forest(
    axes: "Axes",
    names: Sequence[str],
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    share_of_row: float,
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
    _name_rows(axes, names, longest=longest)


def _reference_line(axes: "Axes", position: float, text: str) -> None:
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


def _spectrogram(axes: "Axes", picture: np.ndarray, hop_s: float, **limits: float) -> Any:
    n_bins, n_frames = picture.shape
    # Frames are centred on their time, so the picture begins half a step before 0.
    extent = (-0.5 * hop_s, (n_frames - 0.5) * hop_s, -0.5, n_bins - 0.5)
    return axes.imshow(
        picture, origin="lower", aspect="auto", cmap="magma", extent=extent, interpolation="nearest", **limits
    )


def _frequency_ticks(axes: "Axes", frequencies_hz: np.ndarray, *, n_ticks: int) -> None:
    """Mark round frequencies, at least so far apart that about `n_ticks` fit, on an axis of mel bands."""
    ticks: list[float] = []
    places: list[float] = []
    bands = np.arange(len(frequencies_hz))
    gap = 0.8 * len(bands) / n_ticks
    # From the top, so that the highest, which the bands resolve best, is there.
    for frequency in _steps(frequencies_hz[0], frequencies_hz[-1])[::-1]:
        place = float(np.interp(frequency, frequencies_hz, bands))
        if not places or places[-1] - place >= gap:
            ticks.append(frequency)
            places.append(place)
    axes.set_yticks(places, [f"{tick / 1000:g}" for tick in ticks])


def _steps(low: float, high: float) -> np.ndarray:
    """Return the numbers 1, 2 and 5 times a power of ten from `low` to `high`."""
    powers = 10.0 ** np.arange(np.floor(np.log10(max(low, 1e-3))), np.ceil(np.log10(high)) + 1)
    steps = np.outer(powers, _DECADES).ravel()
    return steps[(steps >= low) & (steps <= high)]


def _ink_on(colour: str) -> str:
    """Return the text colour that reads best on a colour."""
    from matplotlib.colors import to_rgb

    # Relative luminance, roughly; at 0.18 black and white have the same contrast.
    return "white" if np.dot(np.power(to_rgb(colour), 2.2), (0.2126, 0.7152, 0.0722)) < 0.18 else INK


def _label(name: str, *, longest: int = _LONGEST_LABEL) -> str:
    """Make a name fit to be drawn: spaces for underscores, no mathematics, no letter that the font lacks."""
    known = _letters()
    text = "".join(letter if ord(letter) in known else "□" for letter in " ".join(str(name).replace("_", " ").split()))
    text = text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
    return text.replace("$", r"\$")


@functools.cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
