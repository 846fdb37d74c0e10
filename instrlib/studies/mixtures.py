"""Mixtures of clips of one part of a split, and soundscapes: planned (one row per source), rendered, predicted."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio import decode, effects
from instrlib.core.cache import cached, key
from instrlib.core.io import CorpusError, LeakError, SplitError, atomic_path, hash_file
from instrlib.core.parallel import parallel_map
from instrlib.data import rendered
from instrlib.data.corpora import Corpus, strata
from instrlib.data.files import CONTENT
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore, Inputs, open_store
from instrlib.models.published import Network, Windows, window_scores
from instrlib.models.trained import load_model, load_scaler, open_trained, part_segments, predict_clips

PARTS = ("validation", "test")
PEAK_DB = -1.0
LEVEL_RANGE_DB = 12.0  # largest level difference between the sources of a mixture or soundscape
GAP_S = 1.0  # gaps up to 1 s in what an instrument plays in a soundscape are bridged

_SOUNDING_RANGE_DB = 40.0  # largest distance of a sounding frame to the loudest of its clip
_FRAME_S, _FADE_S = 0.02, 0.01
_SHORTEST_CLIP_S = 0.5
_ENOUGH_S = 9.0  # of clips for a player of soundscapes
_COLUMNS = (
    "mixture", "part", "fold", "n_sources", "group", "source", "clip_id", "label", "of_group", "start_s", "segment_s",
    "length_s", "offset_s", "level_db", "duration_s",
)  # fmt: skip

Span = tuple[float, float]  # s


@dataclass(frozen=True)
class Mixtures:
    """Rendered mixtures or soundscapes."""

    corpus: Corpus  # one clip per mixture, with its labels, `fold` and `n_sources`
    sources: pd.DataFrame  # the rendered plan, with `share_db`, the energy of a source relative to the mixture
    activity: pd.DataFrame  # columns mixture, label, onset_s, offset_s, level_db

    def rows(self, part: str) -> np.ndarray:
        """Return the row numbers of the mixtures of a part in the manifest."""
        return np.flatnonzero(self.corpus.manifest.split == part)


def draw(inputs: Inputs, clips: Corpus, n: int, *, sources: Sequence[int], seed: int) -> pd.DataFrame:
    """Plan validation and test mixtures as long as a segment: `n` per number of sources and part, over all folds.

    Classes occur equally often, up to one mixture; within a class, groups take turns, and within a group, clips. The
    classes of a mixture are distinct. Sources start within a third of the mixture after the first one.
    """
    rows, duration_s = [], inputs.store.config.segment_s
    for (fold, path), part in itertools.product(enumerate(inputs.splits), PARTS):
        segments = _playable(inputs.store, load_split(path, inputs.store.segments), part, clips)
        labels = [name for name in inputs.store.classes if name in set(segments.label)]
        if max(sources) > len(labels):
            raise SplitError(f"Mixtures of {max(sources)} need as many classes; the {part} part has {len(labels)}.")
        rng = np.random.default_rng([seed, fold, PARTS.index(part)])
        decks = {label: _deck(rng, own) for label, own in segments.groupby("label")}
        for n_sources in sources:
            used = np.zeros(len(labels))
            for number in range(-(-n // len(inputs.splits))):
                chosen = np.lexsort((rng.random(len(labels)), used))[:n_sources]  # the least frequent classes
                used[chosen] += 1
                levels_db = [0.0, *rng.uniform(-LEVEL_RANGE_DB, LEVEL_RANGE_DB, n_sources - 1)]
                offsets_s = [0.0, *rng.uniform(0, duration_s / 3, n_sources - 1)]
                mixture = (f"{part}-{fold}-{n_sources}-{number:05d}", part, fold, n_sources, f"{part}-{fold}")
                for source, place in enumerate(rng.permutation(chosen)):
                    one = next(decks[labels[place]])
                    placed = _placed(one, one.segment_s, offsets_s[source], levels_db[source], duration_s)
                    rows.append((*mixture, source, *placed))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _deck(rng: np.random.Generator, segments: pd.DataFrame, level: str = "group") -> Iterator[Any]:
    """Yield segments of one class endlessly: groups take turns, and so do the clips of a group."""
    parts = [own for _, own in segments.groupby(level)]
    decks = (
        [_deck(rng, own, "clip_id") for own in parts] if level == "group" else [list(own.itertuples()) for own in parts]
    )
    while True:
        for place in rng.permutation(len(decks)):
            deck = decks[place]
            yield next(deck) if level == "group" else deck[int(rng.integers(len(deck)))]


def _placed(segment: Any, length_s: float, offset_s: float, level_db: float, duration_s: float) -> tuple:
    """Return the columns of a plan from `clip_id` on."""
    known = (segment.clip_id, segment.label, segment.group, segment.start_s, segment.segment_s)
    return (*known, round(length_s, 4), round(offset_s, 4), round(level_db, 3), duration_s)


@dataclass(frozen=True)
class SoundscapeConfig:
    """Settings of soundscapes; pairs are minimum and maximum."""

    per_ensemble: dict[str, int]  # soundscapes of each ensemble, by part
    duration_s: tuple[float, float] = (60.0, 90.0)
    instruments: tuple[int, int] = (2, 5)
    at_once: int = 4  # most instruments that sound together
    entry_s: tuple[float, float] = (5.0, 20.0)  # how long an instrument plays
    rest_s: tuple[float, float] = (3.0, 20.0)  # how long it rests: more than `GAP_S`


def compose(
    store: FeatureStore, split: Split, clips: Corpus, *, config: SoundscapeConfig, seed: int, fold: int = 0
) -> pd.DataFrame:
    """Plan the validation and test soundscapes of one split; ensembles share no group of clips."""
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
        raise CorpusError(f"Clips of {clips.name} may contain several instruments; use a corpus with one per clip.")
    segments = part_segments(store, split, part).sort_values(["clip_id", "start_s"])
    end_s = clips.manifest.set_index("clip_id")[["start_s", "duration_s"]].sum(axis=1)
    segment_s = np.minimum(store.config.segment_s, segments.clip_id.map(end_s) - segments.start_s)
    return segments.assign(segment_s=segment_s)[segment_s >= min(_SHORTEST_CLIP_S, segment_s.max())]


def _ensembles(
    rng: np.random.Generator, segments: pd.DataFrame, instruments: tuple[int, int]
) -> list[list[pd.DataFrame]]:
    """Distribute players (one group, or several short ones) over ensembles of distinct classes; some stay out."""
    waiting: dict[str, list[pd.DataFrame]] = {}
    for label, of_label in segments.groupby("label"):
        groups, players = [own for _, own in of_label.groupby("group")], waiting.setdefault(label, [])
        for place in rng.permutation(len(groups)):
            if players and players[-1].segment_s.sum() < _ENOUGH_S:
                players[-1] = pd.concat([players[-1], groups[place]])
            else:
                players.append(groups[place])
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


def _soundscape(rng: np.random.Generator, players: list[pd.DataFrame], config: SoundscapeConfig) -> list[tuple]:
    """Return the segments of one soundscape in order; see `_placed`."""
    duration_s = float(np.round(rng.uniform(*config.duration_s)))
    sounding = np.zeros(int(duration_s), dtype=int)  # players per second
    rows = []
    for place in rng.permutation(len(players)):
        level_db = float(rng.uniform(-1, 1)) * LEVEL_RANGE_DB / 2
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
            while end_s - begin_s >= _SHORTEST_CLIP_S:
                one = next(segments)
                length_s = min(one.segment_s, end_s - begin_s)
                rows.append(_placed(one, length_s, begin_s, level_db, duration_s))
                begin_s += length_s
            begin_s = end_s + float(rng.uniform(*config.rest_s))
    return sorted(rows, key=lambda row: (row[6], row[1]))


def render(
    plan: pd.DataFrame, clips: Corpus, *, root: Path, sample_rate_hz: int = 22_050, gap_s: float = 0.0
) -> Mixtures:
    """Render a plan as FLAC files in its folder under `root`, or open them if they exist.

    The level of a source is the RMS of its sounding frames. A source starts at 0 if the end of the mixture would cut
    more than half of it. Activity follows notes in `rendered` clips, else the level; gaps up to `gap_s` are bridged.
    """
    made_of = {"plan": plan.round(6).to_numpy().tolist(), "clips": clips.fingerprint, "rate": sample_rate_hz}
    identity = key("studies", gap_s=gap_s, **made_of)
    folder = Path(root) / identity[:16]

    def make() -> dict[str, Any]:
        table = clips.manifest.set_index("clip_id")
        files = plan.assign(path=[str(clips.root / path) for path in table.path[plan.clip_id]])
        tasks = [(folder, own, sample_rate_hz) for _, own in files.groupby("mixture")]
        made, spans, contents = zip(*parallel_map(_render, tasks, describe="mixing"), strict=True)
        sources = pd.concat(made, ignore_index=True).drop(columns="path")
        activity = _activity(sources, list(itertools.chain(*spans)), clips, gap_s)
        return {"sources": sources.to_dict("list"), "activity": activity.to_dict("list"), CONTENT: contents}

    record = folder / "mixtures.json"
    made = cached(record, identity, make)
    paths = [f"audio/{name}.flac" for name in sorted(set(plan.mixture))]
    here = [hash_file(folder / path) if (folder / path).is_file() else "" for path in paths]
    if here != made[CONTENT]:
        record.unlink()
        made = cached(record, identity, make)
    sources, activity = pd.DataFrame(made["sources"]), pd.DataFrame(made["activity"])
    classes, first = list(clips.classes), sources.groupby("mixture").first().reset_index()
    counts = pd.crosstab(sources.mixture, sources.label).reindex(columns=classes, fill_value=0)
    labels = (counts.to_numpy() > 0).astype(np.float32)
    manifest = first[["group", "fold", "n_sources", "duration_s"]].assign(
        clip_id=first.mixture, path=paths, start_s=0.0, label=strata(labels, clips.classes), split=first.part
    )
    title = f"Mixtures of {clips.info.title}"
    info = replace(clips.info, name=f"mixtures of {clips.name}", title=title, multilabel=True)
    manifest[CONTENT] = made[CONTENT]
    return Mixtures(Corpus(info, folder, manifest, clips.classes, labels=labels), sources, activity)


def _render(folder: Path, sources: pd.DataFrame, rate_hz: int) -> tuple[pd.DataFrame, list[list[Span]], str]:
    """Render one mixture; return its rendered sources, when each sounds, and the hash of the file."""
    placed, spans, offsets_s = [], [], []
    duration_s, ramp = float(sources.duration_s.iloc[0]), np.linspace(0, 1, round(_FADE_S * rate_hz))
    for one in sources.itertuples():
        span = {"start_s": one.start_s, "duration_s": float(one.segment_s)}
        whole = decode.load(Path(one.path), sample_rate_hz=rate_hz, **span).astype(float)
        heard, rms = sounding(whole, rate_hz)
        left_s = sum(min(b, duration_s - one.offset_s) - a for a, b in heard if a < duration_s - one.offset_s)
        offset_s = 0.0 if left_s < sum(b - a for a, b in heard) / 2 else one.offset_s
        length_s = min(one.length_s, duration_s - offset_s)
        part = whole[: round(length_s * rate_hz)] * 10 ** (one.level_db / 20) / rms
        part[: len(ramp)] *= ramp[: len(part)]
        part[-len(ramp) :] *= ramp[::-1][-len(part) :]
        sound, first = np.zeros(round(duration_s * rate_hz)), round(offset_s * rate_hz)
        part = part[: len(sound) - first]
        sound[first : first + len(part)] = part
        placed.append(sound)
        offsets_s.append(offset_s)
        spans.append([(a + offset_s, min(b, length_s) + offset_s) for a, b in heard if a < length_s])
    total = np.sum(placed, axis=0)
    total *= 10 ** (PEAK_DB / 20) / np.abs(total).max()
    energy, path = np.square(placed).sum(axis=1), folder / "audio" / f"{sources.mixture.iloc[0]}.flac"
    with atomic_path(path) as temporary:
        temporary.write_bytes(effects.encode(total, rate_hz, format="FLAC", subtype="PCM_16").getvalue())
    share_db = np.round(10 * np.log10(np.maximum(energy / energy.sum(), 1e-12)), 3)
    return sources.assign(offset_s=offsets_s, share_db=share_db), spans, hash_file(path)


def sounding(signal: np.ndarray, rate_hz: int) -> tuple[list[Span], float]:
    """Return start and end (s) of spans within 40 dB of the loudest 20 ms, gaps to 0.1 s bridged, and their RMS."""
    size = round(_FRAME_S * rate_hz)
    power = np.square(np.pad(np.asarray(signal, float), (0, -len(signal) % size)).reshape(-1, size)).mean(axis=1)
    frames = np.flatnonzero((power >= power.max() * 10 ** (-_SOUNDING_RANGE_DB / 10)) & (power > 0))
    spans = [(n * size / rate_hz, min((n + 1) * size, len(signal)) / rate_hz) for n in frames.tolist()]
    return joined(spans, gap_s=0.1), float(np.sqrt(power[frames].mean())) if len(frames) else 1.0


def joined(spans: Sequence[Span], *, gap_s: float) -> list[Span]:
    """Join spans that overlap, touch, or are at most `gap_s` apart."""
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
    for one, sounds in zip(sources.itertuples(), spans, strict=True):
        if clips.name == rendered.INFO.name:
            moved_s = begins_s[one.clip_id] - one.start_s + one.offset_s
            notes = rendered.notes(clips, one.clip_id)[["onset_s", "offset_s"]].to_numpy(float) + moved_s
            end_s = min(one.offset_s + one.length_s, one.duration_s)
            sounds[:] = [(a, b) for a, b in np.clip(notes, one.offset_s, end_s).tolist() if b > a]
        own.setdefault((one.mixture, one.label, one.level_db), []).extend(sounds)
    rows = [
        (mixture, label, *span, level_db)
        for (mixture, label, level_db), heard in own.items()
        for span in joined(heard, gap_s=gap_s)
    ]
    table = pd.DataFrame(rows, columns=["mixture", "label", "onset_s", "offset_s", "level_db"])
    return table.sort_values(["mixture", "onset_s", "label"], ignore_index=True)


def predict(
    path: Path, networks: Sequence[Sequence[Path]], inputs: Inputs, mixtures: Mixtures, store: FeatureStore
) -> np.ndarray:
    """Return probabilities of mixtures [n_seeds, n_mixtures, n_classes] by the networks of their folds; cached.

    `networks` are run folders by seed and fold, trained on `inputs`; `store` has the features of the mixtures.
    """
    by_fold = dict(list(mixtures.sources.groupby("fold")))
    for fold, split in enumerate(inputs.splits):
        _check_parts(by_fold[fold], load_split(split, inputs.store.segments))

    def make() -> dict[str, np.ndarray]:
        folds = [(split, store.folder, set(by_fold[fold].mixture)) for fold, split in enumerate(inputs.splits)]
        tasks = [
            (run, inputs.store.folder, *fold) for of_seed in networks for run, fold in zip(of_seed, folds, strict=True)
        ]
        found = iter(list(parallel_map(_predict, tasks, describe="predicting", isolate=True)))
        by_seed = [pd.concat([next(found) for _ in of_seed]) for of_seed in networks]
        return {"probabilities": np.stack([one.loc[mixtures.corpus.manifest.clip_id] for one in by_seed])}

    trained = [hash_file(folder / "manifest.json") for of_seed in networks for folder in of_seed]
    made_of = {"trained": trained, "mixtures": mixtures.corpus.fingerprint, "split": inputs.fingerprint}
    return cached(path, key("studies", store=store.fingerprint, **made_of), make)["probabilities"]


def _check_parts(sources: pd.DataFrame, split: Split) -> None:
    for one in sources[sources.clip_id.map(split.parts) != sources.part].itertuples():
        part = split.parts.get(one.clip_id, "unknown")
        raise LeakError(f"{one.mixture} contains {one.clip_id!r} of the {part} part; plan the mixtures again.")


def _predict(network: Path, store_folder: Path, split_path: Path, mixed: Path, names: set[str]) -> pd.DataFrame:
    open_trained(network, store_folder, split_path)  # raises if the network has another split
    store = open_store(mixed)
    segments = store.segments[store.segments.clip_id.isin(names)]
    found = predict_clips(load_model(network)[0].predict_on_batch, store, load_scaler(network), segments)
    return pd.DataFrame(found["probabilities"], index=found["clip_id"])


def predict_windows(
    path: Path, network: Network, soundscapes: Mixtures, split: Split, *, trained_on: str, window_s: float
) -> list[Windows]:
    """Return the predictions of a released network for windows of each soundscape, every second; cached.

    `split` is that of the soundscapes, `trained_on` the fingerprint of the network's; different ones raise `LeakError`.
    """
    _check_parts(soundscapes.sources, split)
    if trained_on != split.fingerprint:
        raise LeakError("The network was trained with another split; compose the soundscapes with its own.")

    def make() -> dict[str, np.ndarray]:
        tasks = [(soundscapes.corpus.root / file, network) for file in soundscapes.corpus.manifest.path]
        scored = functools.partial(window_scores, hop_s=1.0, window_s=window_s)
        heard = parallel_map(scored, tasks, describe="predicting")
        return {f"soundscape {number}": one.probabilities for number, one in enumerate(heard)}

    settings = [network.features, network.temperature, network.output, soundscapes.corpus.fingerprint, window_s]
    kept = cached(path, key("studies", network=hash_file(network.file), settings=settings), make).values()
    return [Windows(np.arange(len(one), dtype=float), window_s, one) for one in kept]
