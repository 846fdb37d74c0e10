"""Mixtures of clips and whole soundscapes, planned and rendered.

A plan has one row per source. `draw` plans mixtures of one to four instruments; `compose` plans soundscapes, in which
instruments enter and rest. `render` renders both. All clips of a mixture come from one part of a split.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio import decode, effects
from instrlib.core.cache import key
from instrlib.core.io import (
    ConfigError,
    CorpusError,
    InstrlibError,
    SplitError,
    atomic_path,
    hash_file,
    read_json,
    write_json,
)
from instrlib.core.parallel import parallel_map
from instrlib.data import rendered
from instrlib.data.corpora import Corpus, strata
from instrlib.data.files import CONTENT
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore, Inputs
from instrlib.models.trained import part_segments

PARTS = ("validation", "test")
PEAK_DB = -1.0
GAP_S = 1.0
"""Gaps up to 1 s in what an instrument plays in a soundscape are bridged."""

_SOUNDING_RANGE_DB = 40.0  # largest distance of a sounding frame to the loudest of its clip
_FRAME_S = 0.02
_FADE_S = 0.01
_SHORTEST_CLIP_S = 0.5
_ENOUGH_S = 9.0
Span = tuple[float, float]  # s
_COLUMNS = (
    "mixture", "part", "fold", "n_sources", "group", "source", "clip_id", "label", "of_group", "start_s", "segment_s",
    "length_s", "offset_s", "level_db", "duration_s",
)  # fmt: skip


@dataclass(frozen=True)
class Mixtures:
    """Rendered mixtures or soundscapes.

    `corpus` has one clip per mixture, with its labels, `fold` and `n_sources`. `sources` is the rendered plan, with
    `share_db`, the energy of a source relative to the mixture. `activity` has `mixture`, `label`, `onset_s`, `offset_s`
    and `level_db`.
    """

    corpus: Corpus
    sources: pd.DataFrame
    activity: pd.DataFrame

    def rows(self, part: str) -> np.ndarray:
        """Return the row numbers of the mixtures of a part in the manifest."""
        return np.flatnonzero(self.corpus.manifest.split == part)

    def groups(self) -> np.ndarray:
        """Return the groups of the sources of each mixture, str [n_mixtures, max sources], padded with ""."""
        wide = self.sources.pivot_table(index="mixture", columns="source", values="of_group", aggfunc="first")
        return wide.loc[self.corpus.manifest.clip_id].fillna("").to_numpy(str)


# -- plans -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MixtureConfig:
    """Settings of mixtures: numbers of sources, level range (plus and minus), latest onset and duration."""

    sources: tuple[int, ...] = (1, 2, 3, 4)
    level_range_db: float = 12.0
    max_offset_s: float = 1.0
    duration_s: float = 3.0

    def __post_init__(self) -> None:
        if not self.sources or min(self.sources) < 1 or len(set(self.sources)) < len(self.sources):
            raise ConfigError(f"sources must be distinct integers of at least 1, not {self.sources!r}.")
        if self.level_range_db < 0 or not 0 <= self.max_offset_s < self.duration_s:
            raise ConfigError(f"level_range_db must be at least 0 and max_offset_s below duration_s: {self!r}.")


def config_for(store: FeatureStore) -> MixtureConfig:
    """Return the settings for a store: up to four sources, mixtures as long as a segment."""
    most, segment_s = min(4, len(store.classes)), store.config.segment_s
    return MixtureConfig(tuple(range(1, most + 1)), max_offset_s=segment_s / 3, duration_s=segment_s)


def draw(inputs: Inputs, clips: Corpus, n: int, *, config: MixtureConfig, seed: int) -> pd.DataFrame:
    """Plan the validation and test mixtures of a study, `n` per number of sources and part, over all folds.

    Classes occur equally often, up to one mixture; within a class, groups take turns, and within a group, clips. The
    classes of a mixture are distinct.
    """
    rows: list[tuple] = []
    for fold, path in enumerate(inputs.splits):
        split = load_split(path, inputs.store.segments)
        for part in PARTS:
            segments = _playable(inputs.store, split, part, clips)
            labels = [name for name in inputs.store.classes if name in set(segments.label)]
            if max(config.sources) > len(labels):
                raise SplitError(
                    f"A mixture of {max(config.sources)} sources requires as many classes, but the {part} part has "
                    f"{len(labels)}; mix fewer sources or add classes."
                )
            rng = np.random.default_rng([seed, fold, PARTS.index(part)])
            decks = {label: _deck(rng, own) for label, own in segments.groupby("label")}
            for n_sources in config.sources:
                used = np.zeros(len(labels))
                for number in range(-(-n // len(inputs.splits))):
                    chosen = np.lexsort((rng.random(len(labels)), used))[:n_sources]  # the least frequent classes
                    used[chosen] += 1
                    levels_db = [0.0, *rng.uniform(-config.level_range_db, config.level_range_db, n_sources - 1)]
                    offsets_s = [0.0, *rng.uniform(0, config.max_offset_s, n_sources - 1)]
                    mixture = (f"{part}-{fold}-{n_sources}-{number:05d}", part, fold, n_sources, f"{part}-{fold}")
                    for source, place in enumerate(rng.permutation(chosen)):
                        one = next(decks[labels[place]])
                        length_s = min(one.segment_s, config.duration_s)
                        placed = (length_s, round(offsets_s[source], 4), round(levels_db[source], 3), config.duration_s)
                        segment = (source, one.clip_id, one.label, one.group, one.start_s, one.segment_s)
                        rows.append((*mixture, *segment, *placed))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _deck(rng: np.random.Generator, segments: pd.DataFrame) -> Iterator[Any]:
    """Yield segments of one class endlessly: groups take turns, and so do the clips of a group."""

    def turns(members: list[Any]) -> Iterator[Any]:
        while True:
            yield from (members[place] for place in rng.permutation(len(members)))

    def clips(of_group: pd.DataFrame) -> Iterator[Any]:
        for own in turns([list(own.itertuples()) for _, own in of_group.groupby("clip_id")]):
            yield own[int(rng.integers(len(own)))]

    for group in turns([clips(of_group) for _, of_group in segments.groupby("group")]):
        yield next(group)


@dataclass(frozen=True)
class SoundscapeConfig:
    """Settings of soundscapes.

    Each ensemble plays `per_ensemble` soundscapes per part, of `duration_s` (min, max), with `instruments` (min, max),
    at most `at_once` at a time. An instrument plays for `entry_s` and rests for `rest_s`; levels vary by
    `level_range_db`.
    """

    per_ensemble: dict[str, int]
    duration_s: tuple[float, float] = (60.0, 90.0)
    instruments: tuple[int, int] = (2, 5)
    at_once: int = 4
    entry_s: tuple[float, float] = (5.0, 20.0)
    rest_s: tuple[float, float] = (3.0, 20.0)
    level_range_db: float = 12.0

    def __post_init__(self) -> None:
        for name in ("duration_s", "instruments", "entry_s", "rest_s"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} must be two ascending numbers above 0, not {(low, high)!r}.")
        if self.rest_s[0] <= GAP_S or self.entry_s[1] + self.rest_s[0] > self.duration_s[0]:
            raise ConfigError(
                f"Rests must exceed {GAP_S:g} s, and an entry and a rest must fit into the duration: {self!r}."
            )


def compose(
    store: FeatureStore, split: Split, clips: Corpus, *, config: SoundscapeConfig, seed: int, fold: int = 0
) -> pd.DataFrame:
    """Plan the validation and test soundscapes of one split.

    Ensembles share no group of clips, so intervals are computed over ensembles. A player repeats clips if necessary.
    """
    rows: list[tuple] = []
    for part in PARTS:
        segments = _playable(store, split, part, clips)
        rng = np.random.default_rng([seed, fold, PARTS.index(part)])
        for number, players in enumerate(_ensembles(rng, segments, config.instruments)):
            ensemble = f"{part}-{fold}-{number:02d}"
            for number_of in range(config.per_ensemble[part]):
                played = enumerate(_soundscape(rng, players, config))
                rows += [(f"{ensemble}-{number_of}", part, fold, len(players), ensemble, n, *one) for n, one in played]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _playable(store: FeatureStore, split: Split, part: str, clips: Corpus) -> pd.DataFrame:
    if clips.multilabel:
        raise CorpusError(
            f"Clips of {clips.name} may contain several instruments; use a corpus with one label per clip."
        )
    segments = part_segments(store, split, part).sort_values(["clip_id", "start_s"])
    end_s = clips.manifest.set_index("clip_id")[["start_s", "duration_s"]].sum(axis=1)
    segment_s = np.minimum(store.config.segment_s, segments.clip_id.map(end_s) - segments.start_s)
    return segments.assign(segment_s=segment_s)[segment_s >= min(_SHORTEST_CLIP_S, segment_s.max())]


def _ensembles(
    rng: np.random.Generator, segments: pd.DataFrame, instruments: tuple[int, int]
) -> list[list[pd.DataFrame]]:
    """Distribute the players of a part over ensembles of distinct classes; surplus players are left out."""
    waiting = {label: _players(rng, own) for label, own in segments.groupby("label")}
    # With few classes, fewer play, so that none plays in every soundscape.
    most = max(1, min(instruments[1], len(waiting) - 1))
    fewest = max(1, min(instruments[0], len(waiting) // 2))
    ensembles: list[list[pd.DataFrame]] = []
    while sum(map(bool, waiting.values())) >= fewest:
        size = fewest + len(ensembles) % (most - fewest + 1)
        labels = [label for label, players in waiting.items() if players]
        # Classes with the most remaining players come first, so that all run out together.
        order = np.lexsort((rng.random(len(labels)), [-len(waiting[label]) for label in labels]))
        ensembles.append([waiting[labels[place]].pop() for place in order[:size]])
    return ensembles


def _players(rng: np.random.Generator, segments: pd.DataFrame) -> list[pd.DataFrame]:
    """Return tables of segments, each of one group, or of several groups that are too short alone."""
    groups, players = [own for _, own in segments.groupby("group")], []
    for place in rng.permutation(len(groups)):
        if players and players[-1].segment_s.sum() < _ENOUGH_S:
            players[-1] = pd.concat([players[-1], groups[place]])
        else:
            players.append(groups[place])
    return players


def _soundscape(rng: np.random.Generator, players: list[pd.DataFrame], config: SoundscapeConfig) -> list[tuple]:
    """Return the segments of one soundscape in order: the columns of the plan from `clip_id` on."""
    duration_s = float(np.round(rng.uniform(*config.duration_s)))
    sounding = np.zeros(int(duration_s), dtype=int)  # players per second
    rows = []
    for place in rng.permutation(len(players)):
        level_db = round(float(rng.uniform(-1, 1)) * config.level_range_db / 2, 3)
        clips = [list(own.itertuples()) for _, own in players[place].groupby("clip_id")]
        segments = itertools.cycle([one for clip in rng.permutation(len(clips)) for one in clips[clip]])
        begin_s = float(rng.uniform(0, min(config.rest_s[1], duration_s - config.entry_s[1])))
        while begin_s + config.entry_s[0] <= duration_s:
            end_s = min(begin_s + float(rng.uniform(*config.entry_s)), duration_s)
            seconds = slice(int(begin_s), int(np.ceil(end_s)))
            if sounding[seconds].max() >= config.at_once:
                begin_s += 1.0
                continue
            sounding[seconds] += 1
            at_s = begin_s
            while end_s - at_s >= _SHORTEST_CLIP_S:
                one = next(segments)
                length_s = min(one.segment_s, end_s - at_s)
                placed = (round(length_s, 4), round(at_s, 4), level_db, duration_s)
                rows.append((one.clip_id, one.label, one.group, one.start_s, one.segment_s, *placed))
                at_s += length_s
            begin_s = end_s + float(rng.uniform(*config.rest_s))
    return sorted(rows, key=lambda row: (row[6], row[1]))


# -- rendering ---------------------------------------------------------------------------------------------------------


def render(
    plan: pd.DataFrame,
    clips: Corpus,
    *,
    root: Path,
    sample_rate_hz: int = 22_050,
    gap_s: float = 0.0,
    workers: int | None = None,
) -> Mixtures:
    """Render a plan of `draw` or `compose` as FLAC files in its folder under `root`, or open them if they exist.

    The level of a source is the RMS of its sounding frames. A source starts at 0 if the end of the mixture would cut
    more than half of it. The activity of `rendered` clips follows their notes, from key down to key up; that of other
    clips follows their level. Gaps up to `gap_s` are bridged.
    """
    if unknown := sorted(set(plan.clip_id) - set(clips.manifest.clip_id)):
        raise CorpusError(f"The plan mixes {unknown[0]!r}, which is not in {clips.name}; draw it again.")
    made_of = {"plan": plan.round(6).to_numpy().tolist(), "clips": clips.fingerprint, "rate": sample_rate_hz}
    folder = Path(root) / key("studies", gap_s=gap_s, **made_of)[:16]
    if not _is_whole(folder):
        table = clips.manifest.set_index("clip_id")
        files = plan.assign(path=[str(clips.root / path) for path in table.path[plan.clip_id]])
        tasks = [(folder, own, sample_rate_hz) for _, own in files.groupby("mixture", sort=True)]
        made = list(parallel_map(_render, tasks, workers=workers, describe="mixing"))
        sources = pd.concat([own for own, _, _ in made], ignore_index=True)
        spans = [one for _, of_mixture, _ in made for one in of_mixture]
        activity = _activity(sources, spans, clips, gap_s)
        manifest = _manifest(sources, [content for _, _, content in made], clips.classes)
        tables = {"manifest": manifest, "sources": sources[[*_COLUMNS, "share_db"]], "activity": activity}
        write_json(folder / "mixtures.json", {name: one.to_dict("list") for name, one in tables.items()})
    tables = {name: pd.DataFrame(columns) for name, columns in read_json(folder / "mixtures.json").items()}
    info = replace(
        clips.info, name=f"mixtures of {clips.name}", title=f"Mixtures of {clips.info.title}", multilabel=True
    )
    labels = _present(tables["sources"], tables["manifest"].clip_id, clips.classes)
    corpus = Corpus(info, folder, tables["manifest"], clips.classes, labels=labels)
    return Mixtures(corpus, tables["sources"], tables["activity"])


def _is_whole(folder: Path) -> bool:
    try:
        files = read_json(folder / "mixtures.json")["manifest"]
        return all(
            hash_file(folder / path) == content for path, content in zip(files["path"], files[CONTENT], strict=True)
        )
    except (InstrlibError, OSError, KeyError, TypeError):  # missing or damaged
        return False


def _render(folder: Path, sources: pd.DataFrame, rate_hz: int) -> tuple[pd.DataFrame, list[list[Span]], str]:
    """Render one mixture; return its rendered sources, when each sounds, and the hash of the file."""
    placed, spans, offsets_s = [], [], []
    duration_s = float(sources.duration_s.iloc[0])
    for one in sources.itertuples():
        whole = decode.load(
            Path(one.path), sample_rate_hz=rate_hz, start_s=one.start_s, duration_s=float(one.segment_s)
        ).astype(float)
        heard = sounding_spans(whole, rate_hz)
        offset_s = 0.0 if _length(heard, duration_s - one.offset_s) < _length(heard) / 2 else one.offset_s
        length_s = min(one.length_s, duration_s - offset_s)
        level = 10 ** (one.level_db / 20) / sounding_rms(whole, rate_hz)
        sound, first = np.zeros(round(duration_s * rate_hz)), round(offset_s * rate_hz)
        part = _faded(whole[: round(length_s * rate_hz)] * level, rate_hz)[: len(sound) - first]
        sound[first : first + len(part)] = part
        placed.append(sound)
        offsets_s.append(offset_s)
        spans.append([(a + offset_s, min(b, length_s) + offset_s) for a, b in heard if a < length_s])
    total = np.sum(placed, axis=0)
    energy = np.array([np.square(one).sum() for one in placed])
    path = folder / "audio" / f"{sources.mixture.iloc[0]}.flac"
    total *= 10 ** (PEAK_DB / 20) / np.abs(total).max()
    with atomic_path(path) as temporary:
        temporary.write_bytes(effects.encode(total, rate_hz, format="FLAC", subtype="PCM_16").getvalue())
    share_db = np.round(10 * np.log10(np.maximum(energy / energy.sum(), 1e-12)), 3)
    return sources.assign(offset_s=offsets_s, share_db=share_db), spans, hash_file(path)


def _length(spans: list[Span], end_s: float = np.inf) -> float:
    return sum(min(b, end_s) - a for a, b in spans if a < end_s)


def _faded(signal: np.ndarray, rate_hz: int) -> np.ndarray:
    ramp = np.linspace(0, 1, round(_FADE_S * rate_hz))
    signal[: len(ramp)] *= ramp[: len(signal)]
    signal[-len(ramp) :] *= ramp[::-1][-len(signal) :]
    return signal


def sounding_rms(signal: np.ndarray, rate_hz: int) -> float:
    """Return the RMS of the 20 ms frames that are at most 40 dB below the loudest.

    Examples
    --------
    >>> round(sounding_rms(np.repeat([0.5, 0.0], 22_050), 22_050), 3)
    0.5
    """
    power, sounds = _frames(signal, rate_hz)
    return float(np.sqrt(power[sounds].mean())) if sounds.any() else 1.0


def sounding_spans(signal: np.ndarray, rate_hz: int, *, gap_s: float = 0.1) -> list[Span]:
    """Return start and end in s of each sounding span; gaps up to `gap_s` are bridged."""
    frame_s, end_s = round(_FRAME_S * rate_hz) / rate_hz, len(signal) / rate_hz
    frames = np.flatnonzero(_frames(signal, rate_hz)[1]).tolist()
    return joined([(n * frame_s, min((n + 1) * frame_s, end_s)) for n in frames], gap_s=gap_s)


def _frames(signal: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the power of each 20 ms frame, and whether it sounds."""
    size = round(_FRAME_S * rate_hz)
    power = np.square(np.pad(np.asarray(signal, float), (0, -len(signal) % size)).reshape(-1, size)).mean(axis=1)
    return power, (power >= power.max() * 10 ** (-_SOUNDING_RANGE_DB / 10)) & (power > 0)


def joined(spans: Sequence[Span], *, gap_s: float) -> list[Span]:
    """Join spans that overlap, touch, or are at most `gap_s` apart.

    Examples
    --------
    >>> joined([(0.5, 1.0), (0.0, 0.6), (2.0, 3.0)], gap_s=0.5)
    [(0.0, 1.0), (2.0, 3.0)]
    """
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin - found[-1][1] <= gap_s + 1e-9:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return [(round(begin, 4), round(end, 4)) for begin, end in found]


def _activity(sources: pd.DataFrame, spans: list[list[Span]], clips: Corpus, gap_s: float) -> pd.DataFrame:
    begins_s = clips.manifest.set_index("clip_id").start_s
    own: dict[tuple[str, str, float], list[Span]] = {}
    for one, heard in zip(sources.itertuples(), spans, strict=True):
        if clips.name == rendered.INFO.name:
            moved_s = begins_s[one.clip_id] - one.start_s + one.offset_s
            notes = rendered.notes(clips, one.clip_id)[["onset_s", "offset_s"]].to_numpy(float) + moved_s
            end_s = min(one.offset_s + one.length_s, one.duration_s)
            heard = [(a, b) for a, b in np.clip(notes, one.offset_s, end_s).tolist() if b > a]  # noqa: PLW2901
        own.setdefault((one.mixture, one.label, one.level_db), []).extend(heard)
    rows = [
        (mixture, label, begin, end, level_db)
        for (mixture, label, level_db), heard in own.items()
        for begin, end in joined(heard, gap_s=gap_s)
    ]
    table = pd.DataFrame(rows, columns=["mixture", "label", "onset_s", "offset_s", "level_db"])
    return table.sort_values(["mixture", "onset_s", "label"], ignore_index=True)


def _manifest(sources: pd.DataFrame, contents: list[str], classes: tuple[str, ...]) -> pd.DataFrame:
    first = sources.groupby("mixture", sort=True).first().reset_index()
    return pd.DataFrame(
        {
            "clip_id": first.mixture,
            "path": "audio/" + first.mixture + ".flac",
            "start_s": 0.0,
            "duration_s": first.duration_s,
            "label": strata(_present(sources, first.mixture, classes), classes),
            "group": first.group,
            "split": first.part,
            "fold": first.fold,
            "n_sources": first.n_sources,
            CONTENT: contents,
        }
    )


def _present(sources: pd.DataFrame, mixtures: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    counts = pd.crosstab(sources.mixture, sources.label).reindex(index=mixtures, columns=list(classes), fill_value=0)
    return (counts.to_numpy() > 0).astype(np.float32)
