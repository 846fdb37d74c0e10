"""Who plays when: from the scores of overlapping windows to stretches of time in which an instrument sounds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from instrlib.core.errors import ConfigError

if TYPE_CHECKING:
    from instrlib.models.predict import Windows

POOLINGS = ("max", "mean")

EVENT_COLUMNS = ("label", "start_s", "end_s", "intensity")

_MARGIN = 1e-6


@dataclass(frozen=True)
class Decision:
    """How scores become an answer; chosen on validation pieces, see `timeline_scores.choose`.

    Attributes
    ----------
    median_windows : int
        Length of the median filter over the frames of each class, odd; 1 filters nothing.
    on, off : float or np.ndarray [shape=(n_classes,)]
        A stretch is found where the score stays at `off` or above and somewhere reaches `on`: two thresholds, so that
        a score that wavers about one of them does not cut a stretch into pieces.
    pooling : {"max", "mean"}
        How the windows' scores become one of the whole recording.
    recording : float or np.ndarray [shape=(n_classes,)]
        From which of these on an instrument stands in the recording's list.
    """

    median_windows: int
    on: float | np.ndarray
    off: float | np.ndarray
    pooling: Literal["max", "mean"]
    recording: float | np.ndarray

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.median_windows < 1 or self.median_windows % 2 == 0:
            raise ConfigError(f"median_windows must be odd and at least 1, not {self.median_windows!r}.")
        if np.any(np.asarray(self.off) > np.asarray(self.on)):
            raise ConfigError(f"off must not be above on, but is {self.off!r} with {self.on!r}.")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"Unknown pooling {self.pooling!r}; there is: {', '.join(POOLINGS)}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild a decision from plain values, such as `timeline` of a published model; other entries are passed over.

        Examples
        --------
        >>> plain = {"median_windows": 3, "on": 0.6, "off": 0.4, "pooling": "max", "recording": 0.5, "hop_s": 1.0}
        >>> Decision.from_dict(plain)
        Decision(median_windows=3, on=0.6, off=0.4, pooling='max', recording=0.5)
        """
        numbers = {name: np.asarray(values[name], dtype=float) for name in ("on", "off", "recording")}
        limits = {name: limit if limit.ndim else float(limit) for name, limit in numbers.items()}
        return cls(median_windows=int(values["median_windows"]), pooling=values["pooling"], **limits)


def hop_s(windows: "Windows") -> float:
    """Return the step between windows in s, which is the length of a frame; of a single window its own length."""
    return float(windows.start_s[1] - windows.start_s[0]) if len(windows.start_s) > 1 else float(windows.window_s)


def frame_scores(windows: "Windows") -> np.ndarray:
    """Score every frame with the mean of the windows that cover it.

    Parameters
    ----------
    windows : Windows
        Their starts are multiples of one step, from 0.

    Returns
    -------
    np.ndarray [shape=(n_frames, n_classes)]
        Frames are as long as the step; the first begins at 0, the last reaches the end of the last window. A window
        covers a frame when it holds the frame's centre; a frame between two windows takes the one before it.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> two = SimpleNamespace(start_s=np.array([0.0, 1.0]), window_s=2.0, probabilities=np.array([[0.0], [1.0]]))
    >>> frame_scores(two).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    step_s = hop_s(windows)
    n_frames = int(np.ceil((windows.start_s[-1] + windows.window_s) / step_s - _MARGIN))
    centre_s = (np.arange(n_frames) + 0.5) * step_s
    after = np.searchsorted(windows.start_s, centre_s, side="right")
    first = np.searchsorted(windows.start_s, centre_s - windows.window_s, side="right")
    first = np.minimum(first, after - 1)
    whole = np.asarray(windows.probabilities, dtype=float)
    sums = np.concatenate([np.zeros((1, whole.shape[1])), np.cumsum(whole, axis=0)])
    # What cumulative sums leave after many windows must not push a score out of its range.
    return np.clip((sums[after] - sums[first]) / (after - first)[:, None], 0, 1)


def activity(windows: "Windows", decision: Decision) -> np.ndarray:
    """Say in which frames each instrument sounds.

    An instrument that is not in the recording's list plays nowhere in it: the two never contradict each other.

    Parameters
    ----------
    windows : Windows
        The recording's.
    decision : Decision
        Median filter, thresholds, and how the list is made.

    Returns
    -------
    np.ndarray of bool [shape=(n_frames, n_classes)]
        See `frame_scores`.
    """
    found = hysteresis(smoothed(frame_scores(windows), decision.median_windows), decision.on, decision.off)
    return found & listed(windows, decision)


def listed(windows: "Windows", decision: Decision) -> np.ndarray:
    """Say which instruments play in the recording as a whole, bool [shape=(n_classes,)]."""
    return recording_scores(windows, decision.pooling) >= decision.recording


def smoothed(scores: np.ndarray, median_windows: int) -> np.ndarray:
    """Take the median over time of each class; the first and last frames go on beyond the ends.

    Parameters
    ----------
    scores : np.ndarray [shape=(n_frames, n_classes)]
        Frame scores.
    median_windows : int
        Length of the filter in frames, odd.

    Returns
    -------
    np.ndarray [shape as scores]

    Examples
    --------
    >>> smoothed(np.array([[0.0], [1.0], [0.0], [1.0], [1.0]]), 3).ravel().tolist()
    [0.0, 0.0, 1.0, 1.0, 1.0]
    """
    from scipy.ndimage import median_filter

    return median_filter(scores, size=(median_windows, 1), mode="nearest") if median_windows > 1 else scores


def hysteresis(scores: np.ndarray, on: float | np.ndarray, off: float | np.ndarray) -> np.ndarray:
    """Find the stretches in which a score stays at `off` or above and somewhere reaches `on`.

    Parameters
    ----------
    scores : np.ndarray [shape=(n_frames, n_classes)]
        Frame scores.
    on, off : float or np.ndarray [shape=(n_classes,)]
        Thresholds, `off` not above `on`.

    Returns
    -------
    np.ndarray of bool [shape as scores]

    Examples
    --------
    >>> hysteresis(np.array([[0.5], [0.8], [0.5], [0.1], [0.5]]), 0.7, 0.4).ravel().tolist()
    [True, True, True, False, False]
    """
    from scipy.ndimage import label

    along_time = [[0, 0, 0], [1, 1, 1], [0, 0, 0]]  # frames of one class touch, classes do not
    stretches, n = label((scores >= off).T, structure=along_time)
    reaches = np.zeros(n + 1, dtype=bool)
    reaches[stretches[(scores >= on).T]] = True
    reaches[0] = False
    return reaches[stretches].T


def stretches(active: np.ndarray) -> list[tuple[int, int, int]]:
    """List what is active.

    Parameters
    ----------
    active : np.ndarray of bool [shape=(n_frames, n_classes)]
        From `activity`.

    Returns
    -------
    list of (int, int, int)
        Class, first frame, and the frame after the last, of each stretch; sorted by class, then by time.

    Examples
    --------
    >>> stretches(np.array([[1, 0], [1, 1], [0, 1]], dtype=bool))
    [(0, 0, 2), (1, 1, 3)]
    """
    padded = np.pad(np.asarray(active, dtype=np.int8).T, ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    label, first = np.nonzero(change == 1)
    _, after = np.nonzero(change == -1)
    return list(zip(label.tolist(), first.tolist(), after.tolist(), strict=True))


def events(active: np.ndarray, hop_s: float, classes: tuple[str, ...], *, scores: np.ndarray) -> pd.DataFrame:
    """List who plays from when to when.

    Parameters
    ----------
    active : np.ndarray of bool [shape=(n_frames, n_classes)]
        From `activity`.
    hop_s : float
        Length of a frame in s.
    classes : tuple of str
        Names of the columns.
    scores : np.ndarray [shape as active]
        From `frame_scores`.

    Returns
    -------
    pandas.DataFrame
        One row a stretch, sorted by its begin: `label`, `start_s`, `end_s` and `intensity`, the mean score in it.

    Examples
    --------
    >>> active = np.array([[True, False], [True, True]])
    >>> events(active, 0.5, ("flute", "piano"), scores=np.array([[0.5, 0.0], [1.0, 0.5]])).values.tolist()
    [['flute', 0.0, 1.0, 0.75], ['piano', 0.5, 1.0, 0.5]]
    """
    rows = [
        (classes[label], first * hop_s, after * hop_s, float(scores[first:after, label].mean()))
        for label, first, after in stretches(active)
    ]
    return pd.DataFrame(rows, columns=list(EVENT_COLUMNS)).sort_values(["start_s", "label"], ignore_index=True)


def recording_scores(windows: "Windows", pooling: Literal["max", "mean"]) -> np.ndarray:
    """Score the whole recording: each class by its best window, or by the mean of all.

    Parameters
    ----------
    windows : Windows
        The recording's.
    pooling : {"max", "mean"}
        The best window finds an instrument that plays for a moment, and every false alarm; the mean needs it to play
        for long.

    Returns
    -------
    np.ndarray [shape=(n_classes,)]
    """
    return np.asarray(windows.probabilities).max(axis=0) if pooling == "max" else windows.probabilities.mean(axis=0)
