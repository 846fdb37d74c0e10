"""Several instruments at once: scores by how many there are, recall by how loud, expected against named."""

from typing import TYPE_CHECKING

import numpy as np

from instrlib.plots.base import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PARTS,
    RED,
    draw_spectrogram,
    figure_function,
    label,
    level_limits,
    new_figure,
    picture_bar,
    picture_grid,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (PARTS[3], "v"), (GREY, "x"))


@figure_function
def scores_by_number(
    *,
    names: np.ndarray,
    numbers: np.ndarray,
    scores: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    metric: str,
) -> "Figure":
    """Draw the scores of up to six models by the number of instruments that sound at once, with intervals.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_models,)]
        The models; the last one is drawn as something to beat.
    numbers : np.ndarray of int [shape=(n_numbers,)]
        How many instruments.
    scores, low, high : np.ndarray [shape=(n_models, n_numbers)]
        Score and its interval, from 0 to 1; NaN ends draw none.
    metric : str
        What the score is called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    _dodged(axes, np.arange(len(numbers)), names, scores, low, high)
    axes.set_xticks(np.arange(len(numbers)), [str(number) for number in numbers])
    axes.set(xlabel="instruments at once", ylabel=label(metric), ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@figure_function
def recall_by_level(
    *,
    names: np.ndarray,
    above_db: np.ndarray,
    up_to_db: np.ndarray,
    recall: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    false_alarms: np.ndarray,
    n: np.ndarray,
) -> "Figure":
    """Draw how often an instrument is named, by its part of the energy of all that sounds.

    Parameters
    ----------
    names : np.ndarray of str [shape=(n_models,)]
        The models, up to six.
    above_db, up_to_db : np.ndarray [shape=(n_levels,)]
        Ends of the classes of loudness in dB, the quietest first; the first end may be -inf.
    recall, low, high : np.ndarray [shape=(n_models, n_levels)]
        Share of the sources that are named, and its interval; NaN where there is none.
    false_alarms : np.ndarray [shape=(n_models,)]
        Share of the absent instruments that each model names.
    n : np.ndarray of int [shape=(n_levels,)]
        Sources in each class.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(height=3.5)
    axes = figure.subplots()
    told = [f"{name} (false alarms {share:.2f})" for name, share in zip(names, false_alarms, strict=True)]
    _dodged(axes, np.arange(len(n)), told, recall, low, high)
    ends = [
        f"{above:g} to {up_to:g}" if np.isfinite(above) else f"below {up_to:g}"
        for above, up_to in zip(above_db, up_to_db, strict=True)
    ]
    words = [f"{end}\nn = {count}".replace("-", "−") for end, count in zip(ends, n, strict=True)]
    axes.set_xticks(np.arange(len(n)), words, fontsize=7.5)
    axes.set(xlabel="energy of the instrument against that of all (dB)", ylabel="recall", ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@figure_function
def expected_and_named(
    *,
    spectra: np.ndarray,
    present: np.ndarray,
    named: np.ndarray,
    models: np.ndarray,
    classes: np.ndarray,
    hop_s: float,
    mel_frequencies_hz: np.ndarray,
) -> "Figure":
    """Draw mixtures with what is in them and what models name.

    Parameters
    ----------
    spectra : np.ndarray [shape=(n, n_bins, n_frames)]
        Levels in dB.
    present : np.ndarray of bool [shape=(n, n_classes)]
        What is in each mixture.
    named : np.ndarray of bool [shape=(n_models, n, n_classes)]
        What each model names.
    models : np.ndarray of str [shape=(n_models,)]
        Their names, short ones.
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
    lines = 1 + 2 * len(models)
    key = "time (s)\n\nname: rightly named     +name: is not there     (name): missed"
    figure, panels = picture_grid(
        len(spectra),
        mel_frequencies_hz,
        columns=2,
        row_height=1.35 + 0.125 * lines,
        n_ticks=4,
        margin=0.85,
        xlabel=key,
    )
    limits = level_limits(spectra)
    for number, (axes, picture) in enumerate(zip(panels, spectra, strict=True)):
        image = draw_spectrogram(axes, picture, hop_s, **limits)
        there = present[number].astype(bool)
        words = [f"expected: {_words(there, there, classes)}"]
        words += [
            f"{label(model)}: {_words(answers[number].astype(bool), there, classes)}"
            for model, answers in zip(models, named, strict=True)
        ]
        axes.set_title("\n".join(_wrapped(line) for line in words), fontsize=6.5, loc="left", linespacing=1.25)
    picture_bar(figure, image, "level (dB)")
    return figure


def _dodged(
    axes: "Axes", places: np.ndarray, names: np.ndarray, scores: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    """Draw a line for each model over the same places, side by side so that the intervals can be told apart."""
    for number, (name, score, left, right) in enumerate(zip(names, scores, low, high, strict=True)):
        colour, marker = _STYLES[number]
        at = places + 0.09 * (number - (len(names) - 1) / 2)
        axes.vlines(at, left, right, color=colour, linewidth=1.6, alpha=0.55)
        axes.plot(at, score, marker=marker, color=colour, linewidth=1, markersize=4.5, label=label(name, longest=60))
    axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
    axes.grid(axis="y")


def _words(named: np.ndarray, there: np.ndarray, classes: np.ndarray) -> str:
    """Name the classes: right ones as they are, wrong ones with a plus, missed ones in brackets."""
    words = [label(name, longest=18) for name in classes[named & there]]
    words += [f"+{label(name, longest=18)}" for name in classes[named & ~there]]
    words += [f"({label(name, longest=18)})" for name in classes[there & ~named]]
    return ", ".join(words) if words else "nothing"


def _wrapped(line: str, *, longest: int = 62) -> str:
    """Break a line between names; what does not fit on two is cut."""
    import textwrap

    return "\n    ".join(textwrap.wrap(line, longest, max_lines=2, placeholder=" …", break_on_hyphens=False))
