"""How well a timeline is answered: frames and events by the definitions of sed_eval, choices, and trivial answers.

Every score is a function of sums over pieces, so one definition serves the score itself and its jackknife over the
ensembles that play them.

References
----------
.. [1] A. Mesaros, T. Heittola, T. Virtanen, "Metrics for polyphonic sound event detection", Applied Sciences 6(6),
   2016. doi:10.3390/app6060162
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.cache import cached
from instrlib.core.errors import LeakError
from instrlib.core.io import hash_file, hash_json
from instrlib.core.parallel import parallel_map
from instrlib.data.splits import Split
from instrlib.evaluation.intervals import Interval, jackknife_interval, jackknife_pairs, leave_out
from instrlib.evaluation.metrics import best_thresholds, scores
from instrlib.evaluation.statistics import holm
from instrlib.models.predict import Windows, window_scores
from instrlib.models.published import Network
from instrlib.studies import layered_scores
from instrlib.studies.layered_scores import Answer
from instrlib.studies.mixing import Mixtures
from instrlib.studies.timeline import (
    POOLINGS,
    Decision,
    activity,
    frame_scores,
    hysteresis,
    recording_scores,
    smoothed,
    stretches,
)

HOP_S = 1.0
"""Step between windows, and length of a frame."""

COLLARS_S = (1.0, 0.5)
"""How far an onset may be off: as far as the frames tell, and half of that."""

OFFSET_SHARE = 0.2
"""An offset may be off by the collar or by this share of the event's length, whichever is more."""

MEDIANS = (1, 3, 5, 7)
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
"""What `choose` tries."""

SCORES = ("frame_micro_f1", "frame_macro_f1", "error_rate", "event_micro_f1", "event_macro_f1", "event_micro_f1_half_s")
"""In the order of the tables; `error_rate` is better when lower. The last one is that of the shorter collar."""

FIXED = Decision(median_windows=1, on=0.15, off=0.15, pooling="mean", recording=0.15)
FIXED_WINDOW_S = 2.0
"""How nsynth-condition reads its network: the mean of windows of 2 s, present from .15 on."""

NEVER = "never on"
"""The trivial answer that finds nothing: an F1 of 0 that all beat, and an error rate of 1 that not all do."""

FEWEST_ENSEMBLES = 3
"""With fewer there is no interval: nothing is known of how they differ."""

_MOMENT_FRAMES = 3
_SAME = 1e-12

Active = Sequence[np.ndarray]
"""What a model finds: for each piece which classes sound in which frames [shape=(n_frames, n_classes), bool]."""

Stretch = tuple[int, float, float]
"""Class, begin and end in s."""


@dataclass(frozen=True)
class Truth:
    """What sounds in pieces.

    Attributes
    ----------
    classes : tuple of str
        The instruments.
    frames : tuple of np.ndarray of bool [shape=(n_frames, n_classes)]
        For each piece: in which frames of `HOP_S` each sounds, be it for a moment. The last frame may be a part of one.
    events : tuple of list of (int, float, float)
        For each piece: class, onset and offset in s of every entry.
    holds : np.ndarray of bool [shape=(n_pieces, n_ensembles)]
        Which ensemble plays each piece.
    """

    classes: tuple[str, ...]
    frames: tuple[np.ndarray, ...]
    events: tuple[list[Stretch], ...]
    holds: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Truth":
        """Return some of the pieces."""
        return Truth(self.classes, _some(self.frames, rows), _some(self.events, rows), self.holds[rows])

    @property
    def labels(self) -> np.ndarray:
        """Which instruments play in each piece [shape=(n_pieces, n_classes)], 1 or 0."""
        return np.stack([frames.any(axis=0) for frames in self.frames]).astype(np.float32)


# -- answers -----------------------------------------------------------------------------------------------------------


def truth_of(pieces: Mixtures) -> Truth:
    """Say what sounds in each piece, in the order of the manifest."""
    classes = list(pieces.corpus.classes)
    by_piece = dict(list(pieces.activity.groupby("mixture")))
    frames, events = [], []
    for one in pieces.corpus.manifest.itertuples():
        own = by_piece[one.clip_id]
        spans = zip(own.label.map(classes.index), own.onset_s, own.offset_s, strict=True)
        events.append([(int(label), float(onset), float(offset)) for label, onset, offset in spans])
        frames.append(in_frames(events[-1], one.duration_s, len(classes)))
    return Truth(pieces.corpus.classes, tuple(frames), tuple(events), pieces.holds())


def in_frames(events: Sequence[Stretch], duration_s: float, n_classes: int, *, hop_s: float = HOP_S) -> np.ndarray:
    """Mark every frame that an event touches.

    Examples
    --------
    >>> in_frames([(0, 0.5, 1.5)], 3.0, 1).ravel().tolist()
    [True, True, False]
    """
    active = np.zeros((int(np.ceil(duration_s / hop_s - 1e-6)), n_classes), dtype=bool)
    for label, onset_s, offset_s in events:
        active[int(onset_s / hop_s) : int(np.ceil(offset_s / hop_s - 1e-6)), label] = True
    return active


def listen(
    path: Path,
    network: Network,
    pieces: Mixtures,
    split: Split,
    *,
    trained_on: str,
    window_s: float,
    workers: int | None = None,
) -> list[Windows]:
    """Let a published network hear pieces, once; asked again, give the answers that were kept.

    Parameters
    ----------
    path : Path
        An npz file to keep the answers in.
    network : Network
        One of a model folder's.
    pieces : Mixtures
        All of them.
    split : Split
        What they were composed with.
    trained_on : str
        Fingerprint of the split that the network was trained with.
    window_s : float
        Length of the windows, at most the network's segment.
    workers : int, optional
        Number of processes.

    Returns
    -------
    list of Windows
        In the order of the manifest.

    Raises
    ------
    LeakError
        When the network was trained with another split, or a clip of a piece does not stand in the piece's part: it
        may have been trained on.
    """
    crossing = pieces.sources[pieces.sources.clip_id.map(split.parts) != pieces.sources.part]
    if trained_on != split.fingerprint or len(crossing):
        one = (crossing if len(crossing) else pieces.sources).iloc[0]
        raise LeakError(
            f"The {one.part} piece {one.mixture} plays {one.clip_id!r}, which the network may have been trained on: it "
            "was trained with another split than the pieces were composed with; compose them with its own."
        )
    files = [pieces.corpus.root / path for path in pieces.corpus.manifest.path]

    def hear() -> dict[str, np.ndarray]:
        tasks = [(file, network, window_s) for file in files]
        heard = list(parallel_map(_hear, tasks, workers=workers, describe="listening"))
        return {
            "n": [len(one.start_s) for one in heard],
            "start_s": np.concatenate([one.start_s for one in heard]),
            "probabilities": np.concatenate([one.probabilities for one in heard]),
        }

    settings = [network.features.to_dict(), network.temperature, network.output, HOP_S, window_s]
    key = hash_json([hash_file(network.file), *settings, pieces.corpus.fingerprint])
    kept = cached(path, key, hear)
    ends = np.cumsum(kept["n"])[:-1]
    parts = zip(np.split(kept["start_s"], ends), np.split(kept["probabilities"], ends), strict=True)
    return [Windows(starts, window_s, probabilities) for starts, probabilities in parts]


def find(heard: Sequence[Windows], decision: Decision, truth: Truth) -> Active:
    """Say in which frames of each piece each instrument is found; see `timeline.activity`."""
    # Windows may run over the end of a piece.
    return [activity(one, decision)[: len(frames)] for one, frames in zip(heard, truth.frames, strict=True)]


def name_all(heard: Sequence[Windows], decision: Decision) -> Answer:
    """List the instruments of each piece."""
    scores = pooled(heard, decision.pooling)[None]
    return Answer(scores, scores >= decision.recording)


def pooled(heard: Sequence[Windows], pooling: str) -> np.ndarray:
    """Score each piece as a whole [shape=(n_pieces, n_classes)]; see `timeline.recording_scores`."""
    return np.stack([recording_scores(one, pooling) for one in heard])


def trivial(known: Truth, truth: Truth) -> dict[str, Active]:
    """Answer pieces without listening, with what others tell.

    Parameters
    ----------
    known : Truth
        Of the validation pieces.
    truth : Truth
        Of the pieces to be answered.

    Returns
    -------
    dict of str to Active
        "always on", "never on", "the most frequent": as many of the most frequent classes, always, as give the best
        F1 of frames on the validation pieces; and "its instruments, always", which no one who does not know the list
        can give: a timeline is worth something when it is better than the list alone.
    """
    every = np.concatenate(known.frames)
    order = np.argsort(-every.mean(axis=0), kind="stable")
    hits = np.cumsum(every.sum(axis=0)[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) * len(every) + hits[-1])
    frequent = np.zeros(len(order), dtype=bool)
    frequent[order[: int(f1.argmax()) + 1]] = True
    return {
        "always on": [np.ones_like(frames) for frames in truth.frames],
        NEVER: [np.zeros_like(frames) for frames in truth.frames],
        "the most frequent": [np.broadcast_to(frequent, frames.shape) for frames in truth.frames],
        "its instruments, always": always(truth.labels == 1, truth),
    }


def always(named: np.ndarray, truth: Truth) -> Active:
    """Let the instruments of each list [shape=(n_pieces, n_classes), bool] play from begin to end of its piece."""
    return [np.broadcast_to(own, frames.shape) for own, frames in zip(named, truth.frames, strict=True)]


def moments(pieces: Mixtures, row: int, models: dict[str, Active], truth: Truth, *, n: int) -> pd.DataFrame:
    """Choose moments of one piece to be listened to, spread over what sounds of it, and say who plays in them.

    Parameters
    ----------
    pieces : Mixtures
        All of them.
    row : int
        Number of the piece.
    models : dict of str to Active
        What each finds in all pieces.
    truth : Truth
        Of all pieces.
    n : int
        How many.

    Returns
    -------
    pandas.DataFrame
        `path`, `start_s`, `plays` and a column for each model: names, joined by commas, of the three seconds from then
        on.
    """
    frames = truth.frames[row]
    heard = np.flatnonzero(frames[:-_MOMENT_FRAMES].any(axis=1))
    starts = heard[np.linspace(0, len(heard), n, endpoint=False).astype(int)]
    answers = {"plays": frames} | {name: active[row] for name, active in models.items()}
    words = {
        name: [
            ", ".join(np.array(truth.classes)[one[start : start + _MOMENT_FRAMES].any(axis=0)]) or "nobody"
            for start in starts
        ]
        for name, one in answers.items()
    }
    return pd.DataFrame({"path": pieces.corpus.manifest.path[row], "start_s": starts * HOP_S, **words})


# -- choices, on validation pieces -------------------------------------------------------------------------------------


def choose(heard: Sequence[Windows], truth: Truth) -> tuple[Decision, pd.DataFrame, pd.DataFrame]:
    """Choose the median filter, the thresholds, and how a recording's list is made.

    Thresholds are the same for all classes: a class plays in a few validation pieces only. Probabilities are
    calibrated, and those of one network are alike.

    Parameters
    ----------
    heard : sequence of Windows
        What a network said of the validation pieces.
    truth : Truth
        Of the same pieces.

    Returns
    -------
    decision : Decision
        First the pooling whose list has the better F1 with its own best threshold (max when they are equally good);
        then, for what is listed, the median filter and the thresholds with the best F1 of all frames (of equally good
        ones the shortest filter and the thresholds nearest to .5).
    tried : pandas.DataFrame
        `median_windows`, `on`, `off` and `frame_micro_f1` of every combination.
    lists : pandas.DataFrame
        Indexed by `pooling`: `threshold`, `micro_f1` and `mean_average_precision` of the list.
    """
    lists = pd.DataFrame([_list(heard, truth.labels, pooling) for pooling in POOLINGS]).set_index("pooling")
    pooling = lists.micro_f1.idxmax()
    recording = float(lists.threshold[pooling])
    scores = [frame_scores(one) for one in heard]
    # Frames that no threshold lets pass keep stretches of one piece from running on into the next.
    wall = np.full((1, len(truth.classes)), -1.0)
    every = np.concatenate([one for frames in truth.frames for one in (frames, wall > 0)])
    counts = [len(frames) + 1 for frames in truth.frames]
    listed = np.repeat(pooled(heard, pooling) >= recording, counts, axis=0)
    rows = []
    for median in MEDIANS:
        smooth = [smoothed(one, median)[: len(frames)] for one, frames in zip(scores, truth.frames, strict=True)]
        apart = np.concatenate([part for one in smooth for part in (one, wall)])
        for on in THRESHOLDS:
            for off in THRESHOLDS[on >= THRESHOLDS]:
                found = hysteresis(apart, on, off) & listed
                f1 = 2 * (found & every).sum() / (found.sum() + every.sum())
                rows.append((median, float(on), float(off), float(f1)))
    tried = pd.DataFrame(rows, columns=["median_windows", "on", "off", "frame_micro_f1"])
    best = tried[tried.frame_micro_f1 >= tried.frame_micro_f1.max() - 1e-12]
    far = (best.on - 0.5).abs() + (best.off - 0.5).abs()
    chosen = best.assign(far=far).sort_values(["median_windows", "far"], kind="stable").iloc[0]
    decision = Decision(int(chosen.median_windows), float(chosen.on), float(chosen.off), pooling, recording)
    return decision, tried, lists


def plain(tried: pd.DataFrame, decision: Decision) -> Decision:
    """Return the best decision without median filter and with one threshold: what the others are worth beyond it."""
    simple = tried[(tried.median_windows == 1) & (tried.on == tried.off)]
    threshold = float(simple.on[simple.frame_micro_f1.idxmax()])
    return Decision(1, threshold, threshold, decision.pooling, decision.recording)


def _list(heard: Sequence[Windows], labels: np.ndarray, pooling: str) -> dict[str, Any]:
    values = pooled(heard, pooling)
    threshold = float(best_thresholds(labels.reshape(-1, 1), values.reshape(-1, 1))[0][0])
    found = scores(labels, values, threshold)
    return {"pooling": pooling, "threshold": threshold} | {
        name: found[name] for name in ("micro_f1", "mean_average_precision")
    }


# -- counts ------------------------------------------------------------------------------------------------------------


def match_events(
    reference: Sequence[Stretch], found: Sequence[Stretch], *, collar_s: float, offset_share: float = OFFSET_SHARE
) -> list[tuple[int, int]]:
    """Match found events with true ones, as many as possible, each with one at most.

    A pair fits when the class is the same, the onsets are at most the collar apart, and the offsets at most the collar
    or `offset_share` of the true event's length, whichever is more.

    Parameters
    ----------
    reference, found : sequence of (int, float, float)
        Class, onset and offset in s.
    collar_s : float
        Collar in s.
    offset_share : float
        Share of the true event's length.

    Returns
    -------
    list of (int, int)
        Numbers of the true and of the found event of each pair.

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
    off_by = np.abs(true[:, None] - guess[None])
    offset_collar_s = np.maximum(collar_s, offset_share * (true[:, 2] - true[:, 1]))[:, None]
    # What times in floating point are short of the collar must not cost a pair that is exactly as far apart.
    fits = (off_by[..., 0] == 0) & (off_by[..., 1] <= collar_s + 1e-9) & (off_by[..., 2] <= offset_collar_s + 1e-9)
    partner = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
    return [(number, int(other)) for number, other in enumerate(partner) if other >= 0]


def found_events(active: np.ndarray, *, hop_s: float = HOP_S) -> list[Stretch]:
    """List the events of a piece from its active frames: class, onset and offset in s."""
    return [(label, first * hop_s, after * hop_s) for label, first, after in stretches(active)]


@dataclass(frozen=True)
class _Counts:
    """Hits, false alarms and misses of each piece and class [shape=(n_pieces, n_classes)]."""

    hits: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray

    def f1(self, weights: np.ndarray) -> np.ndarray:
        """F1 of each class under each row of weights; NaN for a class that does not sound."""
        hits, wrong, missed = (weights @ part for part in (self.hits, self.wrong, self.missed))
        with np.errstate(invalid="ignore"):
            return np.where(hits + missed > 0, 2 * hits / (2 * hits + wrong + missed), np.nan)

    def micro(self, weights: np.ndarray) -> np.ndarray:
        """F1 of all classes together under each row of weights."""
        hits, rest = weights @ self.hits.sum(axis=1), weights @ (self.wrong + self.missed).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return 2 * hits / (2 * hits + rest)

    def macro(self, weights: np.ndarray) -> np.ndarray:
        """Mean F1 of the classes that sound."""
        f1 = self.f1(weights)
        n = np.isfinite(f1).sum(axis=1)
        return np.where(n, np.nansum(f1, axis=1) / np.maximum(n, 1), np.nan)


def _frame_counts(truth: Truth, active: Active) -> _Counts:
    pairs = list(zip(truth.frames, active, strict=True))
    return _Counts(
        np.stack([(real & found).sum(axis=0) for real, found in pairs]),
        np.stack([(~real & found).sum(axis=0) for real, found in pairs]),
        np.stack([(real & ~found).sum(axis=0) for real, found in pairs]),
    )


def _event_counts(truth: Truth, active: Active, collar_s: float) -> _Counts:
    hits, n_found, n_real = np.zeros((3, len(truth.frames), len(truth.classes)))
    for piece, (real, frames) in enumerate(zip(truth.events, active, strict=True)):
        found = found_events(frames)
        for counts, labels in (
            (hits, [real[number][0] for number, _ in match_events(real, found, collar_s=collar_s)]),
            (n_found, [one[0] for one in found]),
            (n_real, [one[0] for one in real]),
        ):
            np.add.at(counts[piece], labels, 1)
    return _Counts(hits, n_found - hits, n_real - hits)


def _errors(truth: Truth, active: Active) -> tuple[np.ndarray, np.ndarray]:
    """Count the errors of each piece and what sounds in it: in each frame the larger of wrong and missed."""
    errors = [
        np.maximum((~real & found).sum(axis=1), (real & ~found).sum(axis=1)).sum()
        for real, found in zip(truth.frames, active, strict=True)
    ]
    return np.array(errors), np.array([real.sum() for real in truth.frames])


# -- scores ------------------------------------------------------------------------------------------------------------


def score_table(models: dict[str, Active], truth: Truth) -> pd.DataFrame:
    """Score timelines, with intervals over the ensembles that play the pieces.

    No two ensembles share a group of clips, so each in turn is left out with its pieces; see `intervals.leave_out`.
    The intervals cover other ensembles, which are few: see how many there are before trusting their ends. The networks
    are those that are given away: how others, trained from other seeds, would do is not covered.

    Parameters
    ----------
    models : dict of str to Active
        What each finds.
    truth : Truth
        Of the same pieces.

    Returns
    -------
    pandas.DataFrame
        Columns `model`, `score`, `estimate`, `low`, `high`; one row for each pair, in the order of `SCORES`. Frames
        count as sed_eval's segments of one hop, events as its events with optimal matching [1]_. The macro scores are
        means over the classes that sound: one that is never found counts as 0 (sed_eval leaves it out, and so rewards
        who names less). The error rate is the sum of substitutions, deletions and insertions over what sounds.

    References
    ----------
    .. [1] A. Mesaros, T. Heittola, T. Virtanen, "Metrics for polyphonic sound event detection", Applied Sciences
       6(6), 2016. doi:10.3390/app6060162
    """
    weights = leave_out(truth.holds)
    rows = [
        {"model": name, "score": score, **vars(_interval(score, values))}
        for name, active in models.items()
        for score, values in _scores(truth, active, weights).items()
    ]
    return pd.DataFrame(rows)


def compare(
    models: dict[str, Active], pairs: Sequence[tuple[str, str]], truth: Truth, *, scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Compare timelines two by two on the same pieces.

    Parameters
    ----------
    models, truth
        See `score_table`.
    pairs : sequence of (str, str)
        Names of two models each.
    scores : sequence of str
        Some of `SCORES`.

    Returns
    -------
    pandas.DataFrame
        One row a pair and score, indexed by `first`, `second` and `score`: `difference`, first minus second, `low`,
        `high`, `p`, and `p_holm`, which is corrected for the number of rows.
    """
    weights = leave_out(truth.holds)
    return jackknife_pairs(lambda name: _scores(truth, models[name], weights), pairs, scores)


def compare_trivial(models: dict[str, Active], model: str, others: Sequence[str], truth: Truth) -> pd.DataFrame:
    """Compare a timeline with what needs no listening, each by a score that tells something.

    Parameters
    ----------
    models, truth
        See `score_table`.
    model : str
        One of them.
    others : sequence of str
        Names of what it must beat; see `trivial`. All of them by the F1 of frames, but `NEVER` by the error rate: its
        F1 is 0, which says nothing.

    Returns
    -------
    pandas.DataFrame
        As `compare`, corrected for all rows together.
    """
    told = [(model, name) for name in others if name != NEVER]
    silent = [(model, name) for name in others if name == NEVER]
    return _corrected(
        compare(models, pairs, truth, scores=[score])
        for pairs, score in ((told, "frame_micro_f1"), (silent, "error_rate"))
        if pairs
    )


def by_class(models: dict[str, Active], truth: Truth) -> pd.DataFrame:
    """Score timelines instrument by instrument.

    An instrument plays in a few ensembles, and an interval is over those: in the others it can be named wrongly but not
    be found, and leaving them out hardly moves its score, so they must not count as if they had told how it varies.

    Parameters
    ----------
    models, truth
        See `score_table`.

    Returns
    -------
    pandas.DataFrame
        One row for each model and class: `frame_f1` and `event_f1` (of the longer collar), each with `_low` and
        `_high`, which are NaN where fewer than `FEWEST_ENSEMBLES` play it or nothing varies; `sounding_s`, `n_events`
        and `n_ensembles`, those that play it.
    """
    plays = truth.labels == 1
    rows = []
    for name, active in models.items():
        frames, entries = _frame_counts(truth, active), _event_counts(truth, active, COLLARS_S[0])
        for number, label in enumerate(truth.classes):
            holds = _own(truth.holds, plays[:, number])
            weights = leave_out(holds)
            row: dict[str, Any] = {"model": name, "class": label}
            for score, counts in (("frame_f1", frames), ("event_f1", entries)):
                found = _over_few(counts.f1(weights)[:, number])
                row |= {score: found.estimate, f"{score}_low": found.low, f"{score}_high": found.high}
            row["sounding_s"] = float((frames.hits + frames.missed)[:, number].sum() * HOP_S)
            row["n_events"] = int((entries.hits + entries.missed)[:, number].sum())
            rows.append(row | {"n_ensembles": holds.shape[1]})
    return pd.DataFrame(rows)


def by_number(models: dict[str, Active], truth: Truth) -> pd.DataFrame:
    """Score timelines by the number of instruments that sound at once.

    Parameters
    ----------
    models, truth
        See `score_table`.

    Returns
    -------
    pandas.DataFrame
        One row for each model, number (`n_sounding`) and score, with `estimate`, `low`, `high`, `n` and `n_ensembles`:
        "frame_f1" over the frames with so many (`n` frames), "event_f1" of events with so many on average over their
        length (`n` true ones; found ones count where they lie, so precision and recall have each their own hits).
        Where nothing sounds there is no F1, but "named": the share of these frames in which something is named.
        Intervals are over the ensembles that have such frames or events, as in `by_class`.
    """
    most = max(int(frames.sum(axis=1).max()) for frames in truth.frames)
    sounding = [frames.sum(axis=1) for frames in truth.frames]
    rows = []
    for name, active in models.items():
        silent = [number == 0 for number in sounding]
        n_silent = np.array([one.sum() for one in silent])
        named = np.array([found[one].any(axis=1).sum() for found, one in zip(active, silent, strict=True)])
        rows.append(_row(name, 0, "named", n_silent, truth, functools.partial(_share, named, n_silent)))
        events_of = _events_by_number(truth, active, sounding, most)
        for number in range(1, most + 1):
            own = [one == number for one in sounding]
            counts = _frame_counts(
                Truth(truth.classes, _masked(truth.frames, own), truth.events, truth.holds), _masked(active, own)
            )
            rows.append(_row(name, number, "frame_f1", np.array([one.sum() for one in own]), truth, counts.micro))
            of_number = events_of[..., number]
            rows.append(_row(name, number, "event_f1", of_number[1], truth, functools.partial(_event_f1, of_number)))
    return pd.DataFrame(rows)


def list_table(lists: dict[str, Answer], pieces: Mixtures, part: str) -> pd.DataFrame:
    """Score the lists of whole recordings.

    Parameters
    ----------
    lists : dict of str to Answer
        To all pieces, by the models' names; see `layered_scores.trivial` for those that need no listening.
    pieces : Mixtures
        All of them.
    part : str
        Which are scored.

    Returns
    -------
    pandas.DataFrame
        As `layered_scores.score_table`, with the scores "precision" and "recall" of all names together.
    """
    rows = pieces.rows(part)
    truth = layered_scores.truth_of(pieces)[rows]
    table = layered_scores.score_table({name: one[rows] for name, one in lists.items()}, truth)
    weights, real = leave_out(truth.holds), truth.labels == 1
    more = []
    for name, one in lists.items():
        named = one.present[:, rows]
        hits = (named & real).sum(axis=2) @ weights.T
        for score, whole in (("precision", named), ("recall", np.broadcast_to(real, named.shape))):
            values = _ratio(hits, whole.sum(axis=2) @ weights.T)
            more.append({"model": name, "score": score, **vars(jackknife_interval(values))})
    return pd.concat([table, pd.DataFrame(more)], ignore_index=True)


def compare_lists(lists: dict[str, Answer], chosen: str, pieces: Mixtures, part: str) -> pd.DataFrame:
    """Compare the poolings of a recording's list, and the chosen one with lists that need no listening.

    Parameters
    ----------
    lists : dict of str to Answer
        One for each of `timeline.POOLINGS`, to all pieces.
    chosen : str
        One of them.
    pieces : Mixtures
        All of them.
    part : str
        Which are compared.

    Returns
    -------
    pandas.DataFrame
        As `compare`, corrected for all rows together. By "micro_f1" the chosen one meets all of
        `layered_scores.trivial` that name something. By "mean_average_precision" it meets one: to all of them every
        piece is the same, so theirs is the share of the pieces in which a class plays, whatever they are called.
    """
    rows = pieces.rows(part)
    trivial = {name: one[rows] for name, one in layered_scores.trivial(pieces).items()}
    naming = [name for name, one in trivial.items() if one.present.any()]
    models = {name: one[rows] for name, one in lists.items()} | trivial
    truth = layered_scores.truth_of(pieces)[rows]
    return _corrected(
        layered_scores.compare(models, [POOLINGS, *((chosen, name) for name in names)], truth, scores=[score])
        for names, score in ((naming, "micro_f1"), (naming[:1], "mean_average_precision"))
    )


def _scores(truth: Truth, active: Active, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score under every row of weights [shape=(1, n_weights)]: there is one network, so one seed."""
    frames = _frame_counts(truth, active)
    wide, narrow = (_event_counts(truth, active, collar_s) for collar_s in COLLARS_S)
    errors, sounding = _errors(truth, active)
    values = (
        frames.micro(weights),
        frames.macro(weights),
        _share(errors, sounding, weights),
        wide.micro(weights),
        wide.macro(weights),
        narrow.micro(weights),
    )
    return {name: one[None] for name, one in zip(SCORES, values, strict=True)}


def _events_by_number(truth: Truth, active: Active, sounding: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Count by the number that sounds: true events found, true events, found events right, found events.

    Returns an array [shape=(4, n_pieces, most + 1)].
    """
    counts = np.zeros((4, len(truth.frames), most + 1))
    for piece, (real, frames, number) in enumerate(zip(truth.events, active, sounding, strict=True)):
        found = found_events(frames)
        pairs = match_events(real, found, collar_s=COLLARS_S[0])
        of_real, of_found = ([_mean_number(event, number) for event in one] for one in (real, found))
        for row, numbers in enumerate(
            ([of_real[one] for one, _ in pairs], of_real, [of_found[other] for _, other in pairs], of_found)
        ):
            np.add.at(counts[row, piece], np.array(numbers, dtype=int), 1)
    return counts


def _mean_number(event: Stretch, sounding: np.ndarray) -> int:
    first, after = int(event[1] / HOP_S), int(np.ceil(event[2] / HOP_S - 1e-6))
    return int(np.floor(sounding[first:after].mean() + 0.5))


def _masked(frames: Active, own: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(one[mask] for one, mask in zip(frames, own, strict=True))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def _row(
    model: str, number: int, score: str, n: np.ndarray, truth: Truth, values: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Return a row of `by_number`; `n` says how many frames or events each piece has."""
    holds = _own(truth.holds, n > 0)
    found = _over_few(values(leave_out(holds)))
    return {
        "model": model, "n_sounding": number, "score": score, **vars(found), "n": int(n.sum()),
        "n_ensembles": holds.shape[1],
    }  # fmt: skip


def _share(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share under each row of weights, from counts of each piece."""
    return _ratio(weights @ part, weights @ whole)


def _event_f1(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 under each row of weights, from the counts of `_events_by_number` for one number."""
    recalled, real, precise, found = counts @ weights.T
    recall, precision = _ratio(recalled, real), _ratio(precise, found)
    f1 = _ratio(2 * precision * recall, precision + recall)
    # Nothing found, or nothing right: no hits at all are an F1 of 0 where there was something to find.
    return np.where((real > 0) & ~np.isfinite(f1), 0.0, f1)


def _own(holds: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the columns of the ensembles that play one of these pieces."""
    return holds[:, holds[rows].any(axis=0)]


def _over_few(values: np.ndarray) -> Interval:
    """Jackknife a score [shape=(1 + n_ensembles,)], but where ensembles are too few or all alike, without ends."""
    found = jackknife_interval(values[None])
    if len(values) > FEWEST_ENSEMBLES and np.nanmax(values) - np.nanmin(values) > _SAME:
        return found
    return Interval(found.estimate, np.nan, np.nan)


def _corrected(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join comparisons and correct them for their number together."""
    table = pd.concat(list(tables))
    return table.assign(p_holm=holm(table.p.to_numpy()))


def _interval(score: str, values: np.ndarray) -> Interval:
    return jackknife_interval(values, highest=np.inf if score == "error_rate" else 1.0)


def _hear(file: Path, network: Network, window_s: float) -> Windows:
    return window_scores(file, network, hop_s=HOP_S, window_s=window_s)


def _some(items: Sequence, rows: np.ndarray) -> tuple:
    return tuple(items[row] for row in rows)
