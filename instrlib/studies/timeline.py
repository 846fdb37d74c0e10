"""Timelines: from overlapping windows to the activity of each instrument, and their scores.

Scores follow sed_eval (Mesaros et al. 2016, doi:10.3390/app6060162): frames of one second are right or wrong for each
instrument, and events match if onset and offset are close enough. Intervals are computed over ensembles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import csgraph, csr_matrix

from instrlib.evaluation import statistics
from instrlib.evaluation.metrics import best_thresholds
from instrlib.studies.mixtures import Mixtures

if TYPE_CHECKING:
    from instrlib.models.published import Windows

HOP_S = 1.0  # step between windows, and length of a frame
COLLARS_S = (1.0, 0.5)  # largest onset errors: the frame length and half of it
OFFSET_SHARE = 0.2  # largest offset error as a share of the event, if above the collar

MEDIANS = (1, 3, 5, 7)
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
SCORES = ("frame_micro_f1", "frame_macro_f1", "error_rate", "event_micro_f1", "event_macro_f1", "event_micro_f1_half_s")
FEWEST_ENSEMBLES = 4  # fewer give no interval

Active = Sequence[np.ndarray]  # for each recording, bool [n_frames, n_classes]
Event = tuple[int, float, float]  # class, onset and offset in s
Counts = tuple[np.ndarray, np.ndarray, np.ndarray]  # hits, found, true: each [n_recordings, n_classes]


@dataclass(frozen=True)
class Decision:
    """How scores become activity: the median stays at `off` or above and reaches `on` at least once."""

    median_windows: int
    on: float
    off: float
    pooling: str  # "max" or "mean" of the scores of a recording
    recording: float  # an instrument is listed from this pooled score on


def hop_s(windows: "Windows") -> float:
    """Return the step between windows in s, the length of a frame; for a single window its length."""
    return float(windows.start_s[1] - windows.start_s[0]) if len(windows.start_s) > 1 else float(windows.window_s)


def frame_scores(windows: "Windows") -> np.ndarray:
    """Return the mean over the windows that contain the centre of each frame [n_frames, n_classes]."""
    step_s = hop_s(windows)
    centre_s = (np.arange(int(np.ceil((windows.start_s[-1] + windows.window_s) / step_s - 1e-6))) + 0.5) * step_s
    after = np.searchsorted(windows.start_s, centre_s, side="right")
    first = np.searchsorted(windows.start_s, centre_s - windows.window_s, side="right")
    first = np.minimum(first, after - 1)  # frames between two windows use the one before
    sums = np.cumsum(np.pad(np.asarray(windows.probabilities, dtype=float), ((1, 0), (0, 0))), axis=0)
    return np.clip((sums[after] - sums[first]) / (after - first)[:, None], 0, 1)


def recording_scores(windows: "Windows", pooling: str) -> np.ndarray:
    """Return scores of the whole recording [n_classes]: the maximum or the mean over the windows."""
    return windows.probabilities.max(axis=0) if pooling == "max" else windows.probabilities.mean(axis=0)


def listed(windows: "Windows", decision: Decision) -> np.ndarray:
    """Return which instruments play in the recording, bool [n_classes]."""
    return recording_scores(windows, decision.pooling) >= decision.recording


def activity(windows: "Windows", decision: Decision) -> np.ndarray:
    """Return the frames in which each instrument sounds, bool [n_frames, n_classes]; none if it is not listed."""
    smooth = ndimage.median_filter(frame_scores(windows), size=(decision.median_windows, 1), mode="nearest")
    return hysteresis(smooth, decision.on, decision.off) & listed(windows, decision)


def hysteresis(scores: np.ndarray, on: float, off: float) -> np.ndarray:
    """Return where a score [n_frames, n_classes] stays at `off` or above and reaches `on` at least once."""
    numbers, n = ndimage.label((scores >= off).T, structure=[[0, 0, 0], [1, 1, 1], [0, 0, 0]])  # along time only
    reaches = np.isin(np.arange(n + 1), numbers[(scores >= on).T])
    return (reaches[numbers] & (numbers > 0)).T


def stretches(active: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (class, first frame, frame after the last) of each active stretch, sorted."""
    change = np.diff(np.pad(np.asarray(active, dtype=np.int8).T, ((0, 0), (1, 1))), axis=1)
    label, first = np.nonzero(change == 1)
    return list(zip(label.tolist(), first.tolist(), np.nonzero(change == -1)[1].tolist(), strict=True))


def events(active: np.ndarray, hop_s: float, classes: tuple[str, ...], *, scores: np.ndarray) -> pd.DataFrame:
    """Return one row per active stretch: `label`, `start_s`, `end_s` and `intensity`, the mean of `scores`."""
    rows = [
        (classes[label], first * hop_s, after * hop_s, float(scores[first:after, label].mean()))
        for label, first, after in stretches(active)
    ]
    table = pd.DataFrame(rows, columns=["label", "start_s", "end_s", "intensity"])
    return table.sort_values(["start_s", "label"], ignore_index=True)


@dataclass(frozen=True)
class Truth:
    """The instruments that sound in recordings."""

    frames: tuple[np.ndarray, ...]  # for each recording, bool [n_frames, n_classes], in frames of `HOP_S`
    events: tuple[list[Event], ...]  # for each recording
    groups: np.ndarray  # ensembles, which share no clips [n_recordings]

    def __getitem__(self, rows: np.ndarray) -> "Truth":
        frames, entries = (tuple(one[row] for row in rows) for one in (self.frames, self.events))
        return Truth(frames, entries, self.groups[rows])

    @property
    def labels(self) -> np.ndarray:
        """Which instruments play in each recording, float32 [n_recordings, n_classes]: 1 or 0."""
        return np.stack([frames.any(axis=0) for frames in self.frames]).astype(np.float32)


def truth_of(soundscapes: Mixtures) -> Truth:
    """Return the truth of soundscapes, in manifest order."""
    classes, table = soundscapes.corpus.classes, soundscapes.corpus.manifest
    entries: dict[str, list[Event]] = {name: [] for name in table.clip_id}
    for one in soundscapes.activity.itertuples():
        entries[one.mixture].append((classes.index(one.label), one.onset_s, one.offset_s))
    frames = [in_frames(entries[one.clip_id], one.duration_s, len(classes)) for one in table.itertuples()]
    return Truth(tuple(frames), tuple(entries.values()), table.group.to_numpy(str))


def in_frames(entries: Sequence[Event], duration_s: float, n_classes: int) -> np.ndarray:
    """Return the frames that events touch, bool [n_frames, n_classes]."""
    active = np.zeros((int(np.ceil(duration_s / HOP_S - 1e-6)), n_classes), dtype=bool)
    for label, onset_s, offset_s in entries:
        active[int(onset_s / HOP_S) : int(np.ceil(offset_s / HOP_S - 1e-6)), label] = True
    return active


def choose(heard: Sequence["Windows"], truth: Truth) -> tuple[Decision, pd.DataFrame, pd.DataFrame]:
    """Return the decision with the best micro F1 on validation soundscapes, first of the list, then of the frames.

    Also returns the frame scores of all combinations, and the list scores per pooling. All classes share thresholds.
    """
    lists = pd.DataFrame(columns=["threshold", "micro_f1"], dtype=float).rename_axis("pooling")
    for pooling in ("max", "mean"):
        values = np.stack([recording_scores(one, pooling) for one in heard])
        threshold = float(best_thresholds(truth.labels.reshape(-1, 1), values.reshape(-1, 1))[0][0])
        lists.loc[pooling] = threshold, _f1(values >= threshold, truth.labels == 1)
    pooling = lists.micro_f1.idxmax()
    recording = float(lists.threshold[pooling])
    scores = [frame_scores(one)[: len(frames)] for one, frames in zip(heard, truth.frames, strict=True)]
    # A frame below all thresholds follows each soundscape; classes that are not listed are below them as well.
    absent = [np.where(recording_scores(one, pooling) >= recording, 0, -1.0) for one in heard]
    true, rows = np.concatenate([np.pad(frames, ((0, 1), (0, 0))) for frames in truth.frames]), []
    for median in MEDIANS:
        smooth = [ndimage.median_filter(one, size=(median, 1), mode="nearest") for one in scores]
        lowered = [one + least for one, least in zip(smooth, absent, strict=True)]
        joined = np.concatenate([np.pad(one, ((0, 1), (0, 0)), constant_values=-1) for one in lowered])
        for on in THRESHOLDS:
            for off in THRESHOLDS[on >= THRESHOLDS]:
                rows.append((median, float(on), float(off), _f1(hysteresis(joined, on, off), true)))
    tried = pd.DataFrame(rows, columns=["median_windows", "on", "off", "frame_micro_f1"])
    best = tried[tried.frame_micro_f1 >= tried.frame_micro_f1.max() - 1e-12]
    far = (best.on - 0.5).abs() + (best.off - 0.5).abs()
    chosen = best.assign(far=far).sort_values(["median_windows", "far"], kind="stable").iloc[0]
    return Decision(int(chosen.median_windows), float(chosen.on), float(chosen.off), pooling, recording), tried, lists


def _f1(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


def match_events(reference: Sequence[Event], found: Sequence[Event], *, collar_s: float) -> list[tuple[int, int]]:
    """Return the most pairs (index in `reference`, index in `found`) of one class with ends within collars."""
    if not (reference and found):
        return []
    true, guess = np.array(reference, dtype=float), np.array(found, dtype=float)
    error = np.abs(true[:, None] - guess[None])
    offset_collar_s = np.maximum(collar_s, OFFSET_SHARE * (true[:, 2] - true[:, 1]))[:, None]
    fits = (error[..., 0] == 0) & (error[..., 1] <= collar_s + 1e-9) & (error[..., 2] <= offset_collar_s + 1e-9)
    partner = csgraph.maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
    return [(number, int(other)) for number, other in enumerate(partner) if other >= 0]


def frame_counts(truth: Truth, active: Active, where: Sequence[np.ndarray] | None = None) -> Counts:
    """Return hits, found and true frames of each recording and class, only in the masks `where` if given."""
    masks = [slice(None)] * len(truth.frames) if where is None else where
    pairs = [(true[own], found[own]) for true, found, own in zip(truth.frames, active, masks, strict=True)]
    counts = [((true & found).sum(axis=0), found.sum(axis=0), true.sum(axis=0)) for true, found in pairs]
    return tuple(np.stack(one) for one in zip(*counts, strict=True))


def event_counts(truth: Truth, active: Active, collar_s: float = COLLARS_S[0]) -> Counts:
    """Return hits, found and true events of each recording and class."""
    hits, n_found, n_true = np.zeros((3, len(truth.frames), truth.frames[0].shape[1]))
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


def macro_f1(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the classes that sound; one that is never found counts 0 (sed_eval omits it)."""
    hits, found, true = (weights @ one for one in counts)
    sounds = true > 0
    n = np.where(sounds.any(axis=1), sounds.sum(axis=1), np.nan)
    return np.where(sounds, 2 * hits / np.maximum(found + true, 1e-12), 0).sum(axis=1) / n


def draws(truth: Truth, active: Active, *, n_resamples: int) -> dict[str, np.ndarray]:
    """Return every one of `SCORES` under draws of the ensembles [1, 1 + n_resamples]; see `statistics.draw`."""
    frames, (wide, narrow) = frame_counts(truth, active), (event_counts(truth, active, one) for one in COLLARS_S)
    pairs = list(zip(truth.frames, active, strict=True))
    # Substitutions, deletions and insertions; the error rate is their number per true frame.
    errors = [np.maximum((~a & b).sum(axis=1), (a & ~b).sum(axis=1)).sum() for a, b in pairs]
    sounding = frames[2].sum(axis=1)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        macro = [macro_f1(counts, weights) for counts in (frames, wide)]
        error_rate = weights @ np.array(errors) / np.maximum(weights @ sounding, 1e-12)
        micro = [micro_f1(counts, weights) for counts in (frames, wide, narrow)]
        return dict(zip(SCORES, (micro[0], macro[0], error_rate, micro[1], macro[1], micro[2]), strict=True))

    return statistics.draw([scores], truth.groups, n_resamples=n_resamples, seed=0)


def score_table(models: dict[str, Active], truth: Truth, *, n_resamples: int) -> pd.DataFrame:
    """Return `model`, `score`, `estimate`, `low` and `high`, with intervals over ensembles."""
    drawn = {name: draws(truth, active, n_resamples=n_resamples) for name, active in models.items()}
    tables = {name: _intervals(one, truth.groups) for name, one in drawn.items()}
    return pd.concat(tables, names=["model", "score"]).reset_index()


def f1_interval(counts: Counts, groups: np.ndarray, *, n_resamples: int) -> dict[str, float]:
    """Return the micro F1 of counts with its interval, and the numbers of true frames or events and of ensembles."""
    own = counts[2].sum(axis=1) > 0
    part = tuple(one[own] for one in counts)
    drawn = statistics.draw([lambda w: {"f1": micro_f1(part, w)}], groups[own], n_resamples=n_resamples, seed=0)
    n = {"n": int(counts[2].sum()), "n_ensembles": len(np.unique(groups[own]))}
    return _intervals(drawn, groups[own]).loc["f1"].to_dict() | n


def _intervals(drawn: dict[str, np.ndarray], groups: np.ndarray) -> pd.DataFrame:
    table = statistics.intervals(drawn)
    return table if len(np.unique(groups)) >= FEWEST_ENSEMBLES else table.assign(low=np.nan, high=np.nan)
