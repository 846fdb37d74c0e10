"""Whole recordings whose every entry is known: pieces composed from the clips of one part of a split, with rests.

A piece is a mixture as long as a recording, so its tables are those of `mixing.Mixtures`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio import decode as audio
from instrlib.core.errors import ConfigError
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import Corpus
from instrlib.data.splits import Split
from instrlib.data.store import FeatureStore
from instrlib.models.trained import part_segments
from instrlib.studies.mixing import (
    PARTS,
    PEAK_DB,
    Mixtures,
    activity_table,
    check_sources,
    manifest_table,
    open_or_make,
    sounding_rms,
    sounding_spans,
    with_files,
    write_sound,
    write_tables,
)

VERSION = 1
"""Raised whenever the bytes of a piece change."""

PAUSE_S = 1.0
"""An instrument that is silent for no longer takes a breath within its entry; what is longer is a rest."""

_FADE_S = 0.01
_SHORTEST_CLIP_S = 0.5
_STEP_S = 1.0
ENOUGH_S = 9.0
"""A player has at least so much to play: groups of one class are joined until they reach it."""

_COLUMNS = (
    "mixture", "part", "fold", "n_sources", "group", "source", "clip_id", "label", "of_group", "start_s", "segment_s",
    "length_s", "offset_s", "level_db", "duration_s",
)  # fmt: skip


@dataclass(frozen=True)
class PieceConfig:
    """How pieces are composed.

    Attributes
    ----------
    n_pieces : dict of str to int
        How many pieces each ensemble plays, for each part.
    duration_s : tuple of float
        Shortest and longest piece.
    instruments : tuple of int
        Fewest and most instruments in an ensemble; each number about as often as the others. Where there are few
        classes, fewer play, so that none plays in every piece.
    at_once : int
        At most so many sound at a time.
    entry_s, rest_s : tuple of float
        Shortest and longest time for which an instrument plays, and pauses; rests are longer than `PAUSE_S`.
    level_range_db : float
        The level of each instrument is drawn between minus and plus half of this.
    """

    n_pieces: dict[str, int]
    duration_s: tuple[float, float] = (60.0, 90.0)
    instruments: tuple[int, int] = (2, 5)
    at_once: int = 4
    entry_s: tuple[float, float] = (5.0, 20.0)
    rest_s: tuple[float, float] = (3.0, 20.0)
    level_range_db: float = 12.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name in ("duration_s", "instruments", "entry_s", "rest_s"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} must be two ascending numbers above 0, not {(low, high)!r}.")
        if self.rest_s[0] <= PAUSE_S:
            raise ConfigError(f"rest_s must be longer than the {PAUSE_S:g} s of a breath, not {self.rest_s!r}.")
        if self.entry_s[1] + self.rest_s[0] > self.duration_s[0]:
            raise ConfigError(f"An entry of {self.entry_s[1]:g} s does not fit into {self.duration_s[0]:g} s.")


CONFIGS = {
    "smoke": PieceConfig(
        n_pieces={"validation": 1, "test": 1}, duration_s=(20.0, 20.0), instruments=(2, 4), entry_s=(4.0, 9.0)
    ),
    "quick": PieceConfig(n_pieces={"validation": 2, "test": 2}),
    "full": PieceConfig(n_pieces={"validation": 6, "test": 6}, duration_s=(60.0, 180.0)),
}
"""By profile; the smoke study's are too short to say anything."""


# -- composing ---------------------------------------------------------------------------------------------------------


def compose(
    store: FeatureStore, split: Split, clips: Corpus, *, config: PieceConfig, seed: int, fold: int = 0
) -> pd.DataFrame:
    """Compose the validation and test pieces of one split: which clip sounds when, and how loud.

    Each ensemble has players of different instruments, and each player has groups of clips that nobody else plays: an
    ensemble shares no group with another, so ensembles are what intervals are taken over. A player goes through its
    clips again when they do not suffice.

    Parameters
    ----------
    store : FeatureStore
        Its usable segments are what is played.
    split : Split
        The parts; no clip leaves its own.
    clips : Corpus
        Whose features they are.
    config : PieceConfig
        How pieces are composed.
    seed : int
        Decides everything, with the part and the fold.
    fold : int
        Number of the split.

    Returns
    -------
    pandas.DataFrame
        One row for each clip that sounds: `mixture` (name of the piece), `part`, `fold`, `n_sources` (instruments of
        the ensemble), `group` (the ensemble), `source` (running number), `clip_id`, `label`, `of_group` (the clip's),
        `start_s` (of the segment, in its file), `segment_s` (its length), `length_s` (how much of it is played),
        `offset_s` (when, in the piece), `level_db` (of the player) and `duration_s` (of the piece).

    Raises
    ------
    CorpusError
        When clips have several labels: what sounds in them is not known.
    """
    check_sources(clips)
    end_s = clips.manifest.set_index("clip_id")[["start_s", "duration_s"]].sum(axis=1)
    rows: list[tuple] = []
    for part in PARTS:
        segments = part_segments(store, split, part).sort_values(["clip_id", "start_s"])
        segment_s = np.minimum(store.config.segment_s, segments.clip_id.map(end_s) - segments.start_s)
        segments = segments.assign(segment_s=segment_s)[segment_s >= _SHORTEST_CLIP_S]
        rng = np.random.default_rng([seed, VERSION, fold, PARTS.index(part)])
        for number, players in enumerate(_ensembles(rng, segments, config.instruments)):
            for piece in range(config.n_pieces[part]):
                ensemble = f"{part}-{fold}-{number:02d}"
                played = _piece(rng, players, config)
                of_piece = f"{ensemble}-{piece}", part, fold, len(players), ensemble
                rows += [(*of_piece, source, *one) for source, one in enumerate(played)]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _ensembles(
    rng: np.random.Generator, segments: pd.DataFrame, instruments: tuple[int, int]
) -> list[list[pd.DataFrame]]:
    """Deal the players of a part into ensembles, a player a table of segments; those that fit nowhere stay out."""
    waiting = {label: _players(rng, own) for label, own in segments.groupby("label")}
    # With few classes fewer play at most, so that none plays in every piece.
    fewest, most = (max(1, min(*pair)) for pair in zip(instruments, (len(waiting) // 2, len(waiting) - 1), strict=True))
    ensembles: list[list[pd.DataFrame]] = []
    while sum(map(bool, waiting.values())) >= fewest:
        size = fewest + len(ensembles) % (most - fewest + 1)
        labels = [label for label, players in waiting.items() if players]
        # Those of which most are left come first: so they run out together, and few stay without an ensemble.
        order = np.lexsort((rng.random(len(labels)), [-len(waiting[label]) for label in labels]))
        ensembles.append([waiting[labels[place]].pop() for place in order[:size]])
    for player in (player for players in waiting.values() for player in players):
        lacking = [one for one in ensembles if len(one) < most and player.label.iloc[0] not in _labels(one)]
        if lacking:
            min(lacking, key=len).append(player)
    for label in waiting:
        # What plays everywhere would be known without listening.
        largest = max(ensembles, key=len)
        if len(largest) > 1 and all(label in _labels(one) for one in ensembles):
            largest[:] = [player for player in largest if player.label.iloc[0] != label]
    return ensembles


def _players(rng: np.random.Generator, segments: pd.DataFrame) -> list[pd.DataFrame]:
    """Make the players of a class: a group each, or several that have enough to play together."""
    groups = [own for _, own in segments.groupby("group")]
    players: list[pd.DataFrame] = []
    held: list[pd.DataFrame] = []
    for place in rng.permutation(len(groups)):
        held.append(groups[place])
        if sum(own.segment_s.sum() for own in held) >= ENOUGH_S:
            players.append(pd.concat(held))
            held = []
    if held and not players:
        return [pd.concat(held)]
    if held:
        players[-1] = pd.concat([players[-1], *held])
    return players


def _labels(ensemble: list[pd.DataFrame]) -> set[str]:
    return {player.label.iloc[0] for player in ensemble}


def _turns(rng: np.random.Generator, player: pd.DataFrame) -> Iterator[Any]:
    """Give the segments of a player clip by clip, without end."""
    clips = [list(own.itertuples()) for _, own in player.groupby("clip_id")]
    return itertools.cycle([segment for clip in rng.permutation(len(clips)) for segment in clips[clip]])


def _piece(rng: np.random.Generator, players: list[pd.DataFrame], config: PieceConfig) -> list[tuple]:
    duration_s = float(np.round(rng.uniform(*config.duration_s)))
    n_steps = int(duration_s / _STEP_S)
    sounding = np.zeros(n_steps, dtype=int)
    rows = []
    for place in rng.permutation(len(players)):
        level_db = round(float(rng.uniform(-1, 1)) * config.level_range_db / 2, 3)
        segments = _turns(rng, players[place])
        # The first entry comes early enough to be a whole one.
        begin_s = float(rng.uniform(0, min(config.rest_s[1], duration_s - config.entry_s[1])))
        while begin_s + config.entry_s[0] <= duration_s:
            end_s = min(begin_s + float(rng.uniform(*config.entry_s)), duration_s)
            steps = slice(int(begin_s / _STEP_S), int(np.ceil(end_s / _STEP_S)))
            if sounding[steps].max() >= config.at_once:
                begin_s += _STEP_S
                continue
            sounding[steps] += 1
            rows += _entry(segments, begin_s, end_s, level_db, duration_s)
            begin_s = end_s + float(rng.uniform(*config.rest_s))
    return sorted(rows, key=lambda row: (row[6], row[1]))


def _entry(segments: Iterator[Any], begin_s: float, end_s: float, level_db: float, duration_s: float) -> list[tuple]:
    """Play segments one after the other from one time to another; the last is cut, unless too little is left for it."""
    rows, at_s = [], begin_s
    while end_s - at_s >= _SHORTEST_CLIP_S:
        segment = next(segments)
        length_s = min(segment.segment_s, end_s - at_s)
        of_segment = segment.clip_id, segment.label, segment.group, segment.start_s, segment.segment_s
        rows.append((*of_segment, round(length_s, 4), round(at_s, 4), level_db, duration_s))
        at_s += length_s
    return rows


# -- rendering ---------------------------------------------------------------------------------------------------------


def render(
    plan: pd.DataFrame, corpus: Corpus, *, sample_rate_hz: int, root: Path, workers: int | None = None
) -> Mixtures:
    """Render pieces as FLAC files, or open them when they are there.

    The level of an instrument is the RMS of what sounds of each of its clips; see `mixing.render`.

    Parameters
    ----------
    plan : pandas.DataFrame
        From `compose`.
    corpus : Corpus
        Where the clips lie.
    sample_rate_hz : int
        Rate of the files.
    root : Path
        Folder of all pieces; each plan gets a folder of its own in it. A file that is there whole is kept, so a
        rendering that was stopped goes on; one that is lost or altered is made again.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Mixtures
        Pieces instead of mixtures: `corpus.manifest` has the length of each and, as its group, the ensemble. Of
        `rendered`, the activity is that of the notes, from where the first key of an entry is struck to where the last
        is released; of other clips it is where they sound. Pauses of up to `PAUSE_S` are part of an entry.

    Raises
    ------
    CorpusError
        When clips have several labels, or the plan is of other clips.
    DiskError
        When the folder cannot be written.
    """

    def make(folder: Path) -> None:
        _make(folder, plan, corpus, sample_rate_hz, workers)

    setting = {"version": VERSION, "sample_rate_hz": sample_rate_hz}
    return open_or_make(plan, corpus, setting, make, root=root, kind="pieces", notebook="11_timeline")


def _make(folder: Path, plan: pd.DataFrame, corpus: Corpus, sample_rate_hz: int, workers: int | None) -> None:
    sources = with_files(plan, corpus, longest_s=plan.segment_s)
    pieces = [own for _, own in sources.groupby("mixture", sort=True)]
    tasks = [(folder, piece, sample_rate_hz) for piece in pieces]
    made = list(parallel_map(_render_piece, tasks, workers=workers, describe="playing pieces"))
    sources = pd.concat(pieces, ignore_index=True)
    manifest = manifest_table(sources, [content for _, content in made], corpus.classes, sources.duration_s)
    manifest = manifest.assign(group=sources.groupby("mixture").group.first()[manifest.clip_id].to_numpy())
    spans = [one for of_piece, _ in made for one in of_piece]
    activity = activity_table(sources, spans, corpus, end_s=sources.offset_s + sources.length_s, pause_s=PAUSE_S)
    write_tables(folder, {"manifest": manifest, "sources": sources[list(_COLUMNS)], "activity": activity})


def _render_piece(
    folder: Path, sources: pd.DataFrame, sample_rate_hz: int
) -> tuple[list[list[tuple[float, float]]], str]:
    """Render one piece: when each of its clips sounds, and the file's hash."""
    total = np.zeros(round(sources.duration_s.iloc[0] * sample_rate_hz))
    spans = []
    for one in sources.itertuples():
        whole = audio.load(
            Path(one.path), sample_rate_hz=sample_rate_hz, start_s=one.start_s, duration_s=float(one.left_s)
        )
        whole *= 10 ** (one.level_db / 20) / sounding_rms(whole, sample_rate_hz)
        first = round(one.offset_s * sample_rate_hz)
        signal = _faded(whole[: min(round(one.length_s * sample_rate_hz), len(total) - first)], sample_rate_hz)
        total[first : first + len(signal)] += signal
        sounds = np.minimum(np.reshape(sounding_spans(whole, sample_rate_hz), (-1, 2)), one.length_s) + one.offset_s
        spans.append([(begin, end) for begin, end in sounds.tolist() if end > begin])
    total *= 10 ** (PEAK_DB / 20) / np.abs(total).max()
    return spans, write_sound(folder / "audio" / f"{sources.mixture.iloc[0]}.flac", total, sample_rate_hz)


def _faded(signal: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Fade a clip in and out, so that none begins or ends with a click that nobody played."""
    signal = signal.astype(float)
    ramp = np.linspace(0, 1, round(_FADE_S * sample_rate_hz))
    signal[: len(ramp)] *= ramp
    signal[-len(ramp) :] *= ramp[::-1]
    return signal
