"""Timelines: from overlapping windows to the activity of each instrument, and their scores.

Scores follow sed_eval [1]_: frames of one second are right or wrong for each instrument, and events match if onset and
offset are close enough. Scores are functions of recording weights, so that `evaluation.statistics` gives intervals over
ensembles.

References
----------
.. [1] A. Mesaros, T. Heittola, T. Virtanen, "Metrics for polyphonic sound event detection", Applied Sciences 6(6),
   2016. doi:10.3390/app6060162
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from instrlib.core.io import ConfigError
from instrlib.evaluation import statistics
from instrlib.evaluation.metrics import best_thresholds
from instrlib.studies.mixtures import Mixtures

if TYPE_CHECKING:
    from instrlib.models.published import Windows

HOP_S = 1.0
"""Step between windows, and length of a frame."""

COLLARS_S = (1.0, 0.5)  # largest onset errors: the frame length and half of it
OFFSET_SHARE = 0.2  # largest offset error as a share of the event, if above the collar

MEDIANS = (1, 3, 5, 7)
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
SCORES = ("frame_micro_f1", "frame_macro_f1", "error_rate", "event_micro_f1", "event_macro_f1", "event_micro_f1_half_s")
FEWEST_ENSEMBLES = 4  # fewer give no interval

Active = Sequence[np.ndarray]  # for each recording, bool [n_frames, n_classes]
Event = tuple[int, float, float]  # class, onset and offset in s


@dataclass(frozen=True)
class Decision:
    """How scores become activity.

    Attributes
    ----------
    median_windows : int
        Odd length of the median filter over frames; 1 filters nothing.
    on, off : float or np.ndarray [n_classes]
        An instrument is active while its score stays at `off` or above and reaches `on` at least once.
    pooling : {"max", "mean"}
        How the scores of windows become a score of the recording.
    recording : float or np.ndarray [n_classes]
        Score of the recording from which an instrument is listed.
    """

    median_windows: int
    on: float | np.ndarray
    off: float | np.ndarray
    pooling: Literal["max", "mean"]
    recording: float | np.ndarray

    def __post_init__(self) -> None:
        if self.median_windows < 1 or self.median_windows % 2 == 0:
            raise ConfigError(f"median_windows must be odd and at least 1, not {self.median_windows!r}.")
        if np.any(np.asarray(self.off) > np.asarray(self.on)):
            raise ConfigError(f"off must not be above on, but is {self.off!r} with {self.on!r}.")
        if self.pooling not in ("max", "mean"):
            raise ConfigError(f"Unknown pooling {self.pooling!r}; choose max or mean.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the decision in the `timeline` section of a released model; other entries are ignored."""
        numbers = {name: np.asarray(values[name], dtype=float) for name in ("on", "off", "recording")}
        limits = {name: limit if limit.ndim else float(limit) for name, limit in numbers.items()}
        return cls(median_windows=int(values["median_windows"]), pooling=values["pooling"], **limits)


FIXED = Decision(median_windows=1, on=0.15, off=0.15, pooling="mean", recording=0.15)  # of nsynth-condition

# -- from windows to activity ------------------------------------------------------------------------------------------


def hop_s(windows: "Windows") -> float:
    """Return the step between windows in s, the length of a frame; for a single window its length."""
    return float(windows.start_s[1] - windows.start_s[0]) if len(windows.start_s) > 1 else float(windows.window_s)


def frame_scores(windows: "Windows") -> np.ndarray:
    """Return the mean over the windows that contain the centre of each frame [n_frames, n_classes].

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> two = SimpleNamespace(start_s=np.array([0.0, 1.0]), window_s=2.0, probabilities=np.array([[0.0], [1.0]]))
    >>> frame_scores(two).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    step_s = hop_s(windows)
    centre_s = (np.arange(int(np.ceil((windows.start_s[-1] + windows.window_s) / step_s - 1e-6))) + 0.5) * step_s
    after = np.searchsorted(windows.start_s, centre_s, side="right")
    first = np.searchsorted(windows.start_s, centre_s - windows.window_s, side="right")
    first = np.minimum(first, after - 1)  # frames between two windows use the one before
    sums = np.cumsum(np.pad(np.asarray(windows.probabilities, dtype=float), ((1, 0), (0, 0))), axis=0)
    return np.clip((sums[after] - sums[first]) / (after - first)[:, None], 0, 1)


def recording_scores(windows: "Windows", pooling: Literal["max", "mean"]) -> np.ndarray:
    """Return scores of the whole recording [n_classes]: the maximum or the mean over the windows."""
    return np.asarray(windows.probabilities).max(axis=0) if pooling == "max" else windows.probabilities.mean(axis=0)


def listed(windows: "Windows", decision: Decision) -> np.ndarray:
    """Return which instruments play in the recording, bool [n_classes]."""
    return recording_scores(windows, decision.pooling) >= decision.recording


def activity(windows: "Windows", decision: Decision) -> np.ndarray:
    """Return the frames in which each instrument sounds, bool [n_frames, n_classes]; none if it is not listed."""
    smooth = smoothed(frame_scores(windows), decision.median_windows)
    return hysteresis(smooth, decision.on, decision.off) & listed(windows, decision)


def smoothed(scores: np.ndarray, median_windows: int) -> np.ndarray:
    """Return the median over time of each class [n_frames, n_classes], with repeated ends."""
    from scipy.ndimage import median_filter

    return median_filter(scores, size=(median_windows, 1), mode="nearest")


def hysteresis(scores: np.ndarray, on: float | np.ndarray, off: float | np.ndarray) -> np.ndarray:
    """Return where a score [n_frames, n_classes] stays at `off` or above and reaches `on` at least once.

    Examples
    --------
    >>> hysteresis(np.array([[0.5], [0.8], [0.5], [0.1], [0.5]]), 0.7, 0.4).ravel().tolist()
    [True, True, True, False, False]
    """
    from scipy.ndimage import label

    numbers, n = label((scores >= off).T, structure=[[0, 0, 0], [1, 1, 1], [0, 0, 0]])  # along time only
    reaches = np.zeros(n + 1, dtype=bool)
    reaches[numbers[(scores >= on).T]] = True
    reaches[0] = False
    return reaches[numbers].T


def stretches(active: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (class, first frame, frame after the last) of each active stretch, sorted.

    Examples
    --------
    >>> stretches(np.array([[1, 0], [1, 1], [0, 1]], dtype=bool))
    [(0, 0, 2), (1, 1, 3)]
    """
    change = np.diff(np.pad(np.asarray(active, dtype=np.int8).T, ((0, 0), (1, 1))), axis=1)
    label, first = np.nonzero(change == 1)
    return list(zip(label.tolist(), first.tolist(), np.nonzero(change == -1)[1].tolist(), strict=True))


def events(active: np.ndarray, hop_s: float, classes: tuple[str, ...], *, scores: np.ndarray) -> pd.DataFrame:
    """Return one row per active stretch: `label`, `start_s`, `end_s` and `intensity`, the mean of `scores`.

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
    table = pd.DataFrame(rows, columns=["label", "start_s", "end_s", "intensity"])
    return table.sort_values(["start_s", "label"], ignore_index=True)


# -- truth and predictions of soundscapes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """The instruments that sound in recordings."""

    classes: tuple[str, ...]
    frames: tuple[np.ndarray, ...]  # for each recording, bool [n_frames, n_classes], in frames of `HOP_S`
    events: tuple[list[Event], ...]  # for each recording
    groups: np.ndarray  # ensembles, which share no clips [n_recordings]

    def __getitem__(self, rows: np.ndarray) -> "Truth":
        frames, entries = (tuple(one[row] for row in rows) for one in (self.frames, self.events))
        return Truth(self.classes, frames, entries, self.groups[rows])

    @property
    def labels(self) -> np.ndarray:
        """Which instruments play in each recording, float32 [n_recordings, n_classes]: 1 or 0."""
        return np.stack([frames.any(axis=0) for frames in self.frames]).astype(np.float32)


def truth_of(soundscapes: Mixtures) -> Truth:
    """Return the truth of soundscapes, in manifest order."""
    classes, table = soundscapes.corpus.classes, soundscapes.corpus.manifest
    by_name = dict(list(soundscapes.activity.groupby("mixture")))
    entries = []
    for name in table.clip_id:
        own = by_name[name]
        rows = zip(own.label, own.onset_s, own.offset_s, strict=True)
        entries.append([(classes.index(label), float(onset), float(offset)) for label, onset, offset in rows])
    frames = [in_frames(own, end_s, len(classes)) for own, end_s in zip(entries, table.duration_s, strict=True)]
    return Truth(classes, tuple(frames), tuple(entries), table.group.to_numpy(str))


def in_frames(entries: Sequence[Event], duration_s: float, n_classes: int, *, hop_s: float = HOP_S) -> np.ndarray:
    """Return the frames that events touch, bool [n_frames, n_classes]."""
    active = np.zeros((int(np.ceil(duration_s / hop_s - 1e-6)), n_classes), dtype=bool)
    for label, onset_s, offset_s in entries:
        active[int(onset_s / hop_s) : int(np.ceil(offset_s / hop_s - 1e-6)), label] = True
    return active


def choose(heard: Sequence["Windows"], truth: Truth) -> tuple[Decision, pd.DataFrame, pd.DataFrame]:
    """Return the decision chosen on validation soundscapes, and the tables of the choice.

    First the pooling with the best micro F1 of the list, then the median filter and the two thresholds with the best
    micro F1 of the frames. Ties prefer short filters and thresholds near 0.5. All classes share thresholds, because
    each plays in few soundscapes. The tables are `median_windows`, `on`, `off` and `frame_micro_f1` of every
    combination, and `threshold` and `micro_f1` of the list, indexed by pooling.
    """
    lists = {}
    for pooling in ("max", "mean"):
        values = np.stack([recording_scores(one, pooling) for one in heard])
        threshold = float(best_thresholds(truth.labels.reshape(-1, 1), values.reshape(-1, 1))[0][0])
        lists[pooling] = {"threshold": threshold, "micro_f1": _f1(values >= threshold, truth.labels == 1)}
    lists = pd.DataFrame.from_dict(lists, orient="index").rename_axis("pooling")
    pooling = lists.micro_f1.idxmax()
    recording = float(lists.threshold[pooling])
    named = [recording_scores(one, pooling) >= recording for one in heard]
    scores = [frame_scores(one)[: len(frames)] for one, frames in zip(heard, truth.frames, strict=True)]
    # A frame below all thresholds separates the stretches of consecutive soundscapes.
    true, named, *smooth = (
        np.concatenate([np.pad(one, ((0, 1), (0, 0)), constant_values=wall) for one in ones])
        for ones, wall in (
            (truth.frames, False),
            ([np.tile(own, (len(frames), 1)) for own, frames in zip(named, truth.frames, strict=True)], False),
            *(([smoothed(one, median) for one in scores], -1.0) for median in MEDIANS),
        )
    )
    rows = [
        (median, float(on), float(off), _f1(hysteresis(one, on, off) & named, true))
        for median, one in zip(MEDIANS, smooth, strict=True)
        for on in THRESHOLDS
        for off in THRESHOLDS[on >= THRESHOLDS]
    ]
    tried = pd.DataFrame(rows, columns=["median_windows", "on", "off", "frame_micro_f1"])
    best = tried[tried.frame_micro_f1 >= tried.frame_micro_f1.max() - 1e-12]
    far = (best.on - 0.5).abs() + (best.off - 0.5).abs()
    chosen = best.assign(far=far).sort_values(["median_windows", "far"], kind="stable").iloc[0]
    return Decision(int(chosen.median_windows), float(chosen.on), float(chosen.off), pooling, recording), tried, lists


def _f1(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


def find(heard: Sequence["Windows"], decision: Decision, truth: Truth) -> Active:
    """Return the activity of each recording; windows may extend beyond its end."""
    return [activity(one, decision)[: len(frames)] for one, frames in zip(heard, truth.frames, strict=True)]


def always(named: np.ndarray, truth: Truth) -> Active:
    """Return activity in which listed instruments, bool [n_recordings, n_classes], play throughout."""
    return [np.broadcast_to(own, frames.shape) for own, frames in zip(named, truth.frames, strict=True)]


def baselines(known: Truth, truth: Truth) -> dict[str, Active]:
    """Return activity that needs no audio.

    "the most frequent" plays the most frequent instruments throughout, in the number with the best F1 on `known`;
    "oracle list" knows the instruments of each recording, but not their times.
    """
    every = np.concatenate(known.frames)
    order = np.argsort(-every.mean(axis=0), kind="stable")
    sizes = range(1, len(order) + 1)
    best = max(sizes, key=lambda n: _f1(np.isin(np.arange(len(order)), order[:n]) & np.ones_like(every), every))
    named = {
        "always active": np.ones(len(order), bool),
        "never active": np.zeros(len(order), bool),
        "the most frequent": np.isin(np.arange(len(order)), order[:best]),
    }
    lists = {name: np.tile(one, (len(truth.frames), 1)) for name, one in named.items()}
    return {name: always(one, truth) for name, one in (lists | {"oracle list": truth.labels == 1}).items()}


# -- scores ------------------------------------------------------------------------------------------------------------


def match_events(
    reference: Sequence[Event], found: Sequence[Event], *, collar_s: float, offset_share: float = OFFSET_SHARE
) -> list[tuple[int, int]]:
    """Return the largest set of pairs (index in `reference`, index in `found`); each event is in at most one.

    Pairs have the same class, onsets within the collar, and offsets within the collar or `offset_share` of the length
    of the reference event.

    Examples
    --------
    >>> match_events([(0, 1.0, 9.0)], [(0, 1.5, 4.0), (0, 0.5, 8.0)], collar_s=0.5)
    [(0, 1)]
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not (reference and found):
        return []
    true, guess = np.array(reference, dtype=float), np.array(found, dtype=float)
    error = np.abs(true[:, None] - guess[None])
    offset_collar_s = np.maximum(collar_s, offset_share * (true[:, 2] - true[:, 1]))[:, None]
    fits = (error[..., 0] == 0) & (error[..., 1] <= collar_s + 1e-9) & (error[..., 2] <= offset_collar_s + 1e-9)
    partner = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
    return [(number, int(other)) for number, other in enumerate(partner) if other >= 0]


Counts = tuple[np.ndarray, np.ndarray, np.ndarray]  # hits, found, true: each [n_recordings, n_classes]


def frame_counts(truth: Truth, active: Active, where: Sequence[np.ndarray] | None = None) -> Counts:
    """Return hits, found and true frames of each recording and class, only in the masks `where` if given."""
    masks = [slice(None)] * len(truth.frames) if where is None else where
    pairs = [(true[own], found[own]) for true, found, own in zip(truth.frames, active, masks, strict=True)]
    hits = np.stack([(true & found).sum(axis=0) for true, found in pairs])
    return hits, np.stack([found.sum(axis=0) for _, found in pairs]), np.stack([true.sum(axis=0) for true, _ in pairs])


def event_counts(truth: Truth, active: Active, collar_s: float = COLLARS_S[0]) -> Counts:
    """Return hits, found and true events of each recording and class."""
    hits, n_found, n_true = np.zeros((3, len(truth.frames), len(truth.classes)))
    for row, (true, frames) in enumerate(zip(truth.events, active, strict=True)):
        found = [(label, first * HOP_S, after * HOP_S) for label, first, after in stretches(frames)]
        matched = [true[number] for number, _ in match_events(true, found, collar_s=collar_s)]
        for counts, ones in ((hits, matched), (n_found, found), (n_true, true)):
            np.add.at(counts[row], [one[0] for one in ones], 1)
    return hits, n_found, n_true


def micro_f1(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Return the F1 pooled over classes for each row of weights [n_draws, n_recordings]."""
    hits, found, true = (weights @ one.sum(axis=1) for one in counts)
    return 2 * hits / np.maximum(found + true, 1e-12)


def class_f1(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Return the F1 of each class for each row of weights [n_draws, n_classes]; NaN if it never sounds."""
    hits, found, true = (weights @ one for one in counts)
    return np.where(true > 0, 2 * hits / np.maximum(found + true, 1e-12), np.nan)


def macro_f1(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the classes that sound; one that is never found counts 0 (sed_eval omits it)."""
    f1 = class_f1(counts, weights)
    n = np.isfinite(f1).sum(axis=1)
    return np.where(n > 0, np.nansum(f1, axis=1) / np.maximum(n, 1), np.nan)


def _draws(truth: Truth, active: Active, n_resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return every score under draws of the ensembles [1, 1 + n_resamples]; the error rate is (S + D + I) / true."""
    frames, (wide, narrow) = frame_counts(truth, active), (event_counts(truth, active, one) for one in COLLARS_S)
    pairs = list(zip(truth.frames, active, strict=True))
    errors = [np.maximum((~a & b).sum(axis=1), (a & ~b).sum(axis=1)).sum() for a, b in pairs]
    sounding = frames[2].sum(axis=1)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        macro = [macro_f1(counts, weights) for counts in (frames, wide)]
        error_rate = weights @ np.array(errors) / np.maximum(weights @ sounding, 1e-12)
        micro = [micro_f1(counts, weights) for counts in (frames, wide, narrow)]
        return dict(zip(SCORES, (micro[0], macro[0], error_rate, micro[1], macro[1], micro[2]), strict=True))

    return statistics.draw([scores], truth.groups, n_resamples=n_resamples, seed=seed)


def f1_interval(counts: Counts, groups: np.ndarray, *, n_resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the micro F1 (`estimate`, `low`, `high`) of counts, over recordings with true frames or events.

    `n` is the number of true frames or events, `n_ensembles` that of their ensembles; see `FEWEST_ENSEMBLES`.
    """
    own = counts[2].sum(axis=1) > 0
    part, ensembles = tuple(one[own] for one in counts), groups[own]
    values = statistics.draw([lambda w: {"f1": micro_f1(part, w)}], ensembles, n_resamples=n_resamples, seed=seed)
    n_ensembles = len(np.unique(ensembles))
    return _interval(values["f1"][0], n_ensembles) | {"n": int(counts[2].sum()), "n_ensembles": n_ensembles}


def _interval(values: np.ndarray, n_ensembles: int) -> dict[str, float]:
    low, high = statistics.ends(values) if n_ensembles >= FEWEST_ENSEMBLES else (np.nan, np.nan)
    return {"estimate": float(values[0]), "low": low, "high": high}


def score_table(models: dict[str, Active], truth: Truth, *, n_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Return `model`, `score`, `estimate`, `low` and `high`, with intervals over ensembles."""
    n = len(np.unique(truth.groups))
    return pd.DataFrame(
        [
            {"model": name, "score": score} | _interval(values[0], n)
            for name, active in models.items()
            for score, values in _draws(truth, active, n_resamples, seed).items()
        ]
    )


def compare(
    models: dict[str, Active],
    pairs: Sequence[tuple[str, str]],
    truth: Truth,
    *,
    score: str = "frame_micro_f1",
    margin: float = statistics.MARGIN,
    n_resamples: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare timelines in pairs on the same recordings; see `statistics.comparison_table`."""
    n_resamples = statistics.enough_resamples(n_resamples, len(pairs))
    names = {name for pair in pairs for name in pair}
    draws = {name: _draws(truth, models[name], n_resamples, seed)[score] for name in names}
    lower, n = score == "error_rate", len(np.unique(truth.groups))
    return statistics.comparison_table(draws, pairs, margin=margin, n_groups=n, lower_is_better=lower, seed=seed)
