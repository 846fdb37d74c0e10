"""Several instruments at once: mixtures of clips, drawn and rendered.

The labels of a mixture are those of its sources, in the order of the corpus's classes: there is no second list.
"""

import dataclasses
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio import decode as audio
from instrlib.core.errors import ConfigError, CorpusError, SplitError
from instrlib.core.io import atomic_path, hash_bytes, hash_file, hash_json, read_json, write_json, write_text
from instrlib.core.parallel import parallel_map
from instrlib.data import rendered
from instrlib.data.dataset import Corpus, strata
from instrlib.data.files import CONTENT
from instrlib.data.inputs import Inputs
from instrlib.data.splits import Split, load_split
from instrlib.data.store import FeatureStore
from instrlib.models.trained import part_segments

VERSION = 1
"""Raised whenever the bytes of a mixture change."""

PARTS = ("validation", "test")
"""What is rendered; for training, mixtures are drawn anew for every batch (`AugmentConfig(mix="layers")`)."""

PER_NUMBER = {"smoke": 12, "quick": 120, "full": 480}
"""Mixtures of each number of sources in each part, by profile; with several folds they share them."""

SOUNDING_RANGE_DB = 40.0
"""A frame sounds when it is at most so far below the loudest frame of its source."""

PEAK_DB = -1.0
"""Peak of every mixture, of full scale: one gain for all sources, so that nothing is clipped."""

_FRAME_S = 0.02
_SHORTEST_PAUSE_S = 0.1
_BATCH = 24
_MARGIN = 1e-9
_PLAN_COLUMNS = (
    "mixture", "part", "fold", "n_sources", "source", "clip_id", "label", "group", "start_s", "offset_s", "level_db",
)  # fmt: skip
_SOURCE_COLUMNS = (*_PLAN_COLUMNS, "share_db")
_ACTIVITY_COLUMNS = ("mixture", "label", "onset_s", "offset_s", "level_db")
_TABLES = ("manifest", "sources", "activity")
_RECORD = "mixtures.json"


@dataclass(frozen=True)
class MixConfig:
    """How mixtures are drawn.

    Attributes
    ----------
    sources : tuple of int
        Numbers of sources, each as often as the others; 1 is a control.
    level_range_db : float
        The level of each source relative to the first is drawn between minus and plus this, all alike.
    max_offset_s : float
        Each source but the first begins up to so much later.
    duration_s : float
        Length of a mixture.
    sample_rate_hz : int
        Rate of the files.
    """

    sources: tuple[int, ...] = (1, 2, 3, 4)
    level_range_db: float = 12.0
    max_offset_s: float = 1.0
    duration_s: float = 3.0
    sample_rate_hz: int = 22_050

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not self.sources or min(self.sources) < 1 or len(set(self.sources)) < len(self.sources):
            raise ConfigError(f"sources must be different whole numbers of at least 1, not {self.sources!r}.")
        if self.level_range_db < 0:
            raise ConfigError(f"level_range_db must be 0 or above, not {self.level_range_db!r}.")
        if not 0 <= self.max_offset_s < self.duration_s:
            raise ConfigError(
                f"max_offset_s must lie between 0 and the duration ({self.duration_s:g} s), not {self.max_offset_s!r}."
            )


@dataclass(frozen=True)
class Mixtures:
    """Rendered mixtures.

    Attributes
    ----------
    corpus : Corpus
        One clip a mixture, with its labels and the columns `fold`, `n_sources` and `level_range_db` (loudest minus
        quietest source). Its `group` is the part of the fold: the mixtures of a part share sources, so nothing smaller
        keeps them apart.
    sources : pandas.DataFrame
        One row a source, with the columns of `draw`, as it was rendered, and `share_db`: its energy below that of all
        sources together.
    activity : pandas.DataFrame
        Who plays when: `mixture`, `label`, `onset_s`, `offset_s` and `level_db`, sorted.
    """

    corpus: Corpus
    sources: pd.DataFrame
    activity: pd.DataFrame

    def rows(self, part: str) -> np.ndarray:
        """Return the row numbers in the manifest of the mixtures of a part."""
        return np.flatnonzero(self.corpus.manifest.split == part)

    def holds(self) -> np.ndarray:
        """Tell which groups each mixture has a source of, bool [shape=(n_mixtures, n_groups)]."""
        counts = pd.crosstab(self.sources.mixture, self.sources.group).loc[self.corpus.manifest.clip_id]
        return (counts > 0).to_numpy()


# -- drawing -----------------------------------------------------------------------------------------------------------


def settings(store: FeatureStore) -> MixConfig:
    """Return the settings that fit a store: up to four sources, or as many as there are classes.

    Parameters
    ----------
    store : FeatureStore
        Its segments' length and sample rate are those of the mixtures.

    Returns
    -------
    MixConfig
    """
    most = min(4, len(store.classes))
    return MixConfig(
        sources=tuple(range(1, most + 1)),
        max_offset_s=store.config.segment_s / 3,
        duration_s=store.config.segment_s,
        sample_rate_hz=store.config.sample_rate_hz,
    )


def draw(
    store: FeatureStore, split: Split, part: str, n: int, *, config: MixConfig, seed: int, fold: int = 0
) -> pd.DataFrame:
    """Draw which segments are mixed, how loud and how late.

    Every class stands in as many mixtures as the others, up to one; within a class its groups take turns, and within a
    group its clips. The classes of one mixture are all different.

    Parameters
    ----------
    store : FeatureStore
        Its usable segments are the sources.
    split : Split
        The parts.
    part : str
        Where all sources come from.
    n : int
        Mixtures of each number of sources.
    config : MixConfig
        How they are drawn.
    seed : int
        Decides everything, with the part and the fold: the same on every machine.
    fold : int
        Number of the split, for the mixtures' names.

    Returns
    -------
    pandas.DataFrame
        One row a source: `mixture` (name), `part`, `fold`, `n_sources`, `source` (0 is the first), `clip_id`, `label`,
        `group`, `start_s` (of the segment, in its file), `offset_s` (where it begins in the mixture) and `level_db`
        (relative to the first source).

    Raises
    ------
    CorpusError
        When clips have several labels: what is in their mixture would not be known.
    SplitError
        When the part has fewer classes than a mixture has sources.
    """
    if store.multilabel:
        raise CorpusError(_SEVERAL.format("The corpus of these features"))
    segments = part_segments(store, split, part).sort_values(["clip_id", "start_s"])
    labels = [name for name in store.classes if name in set(segments.label)]
    if max(config.sources) > len(labels):
        raise SplitError(
            f"A mixture of {max(config.sources)} sources needs as many classes, but the {part} part has "
            f"{len(labels)}: {', '.join(labels)}; mix fewer sources or add classes."
        )
    rng = np.random.default_rng([seed, VERSION, fold, PARTS.index(part)])
    decks = {label: _Deck(rng, own) for label, own in segments.groupby("label")}
    rows = []
    for n_sources in config.sources:
        used = np.zeros(len(labels))
        for number in range(n):
            # The least used classes, those used alike in any order.
            chosen = np.lexsort((rng.random(len(labels)), used))[:n_sources]
            used[chosen] += 1
            levels_db = [0.0, *rng.uniform(-config.level_range_db, config.level_range_db, n_sources - 1)]
            offsets_s = [0.0, *rng.uniform(0, config.max_offset_s, n_sources - 1)]
            name = f"{part}-{fold}-{n_sources}-{number:05d}"
            for source, label in enumerate(labels[place] for place in rng.permutation(chosen)):
                segment = decks[label].next()
                of_segment = segment.clip_id, label, segment.group, segment.start_s
                placed = round(offsets_s[source], 4), round(levels_db[source], 3)
                rows.append((name, part, fold, n_sources, source, *of_segment, *placed))
    return pd.DataFrame(rows, columns=list(_PLAN_COLUMNS))


def draw_study(inputs: Inputs, n: int, *, config: MixConfig, seed: int) -> pd.DataFrame:
    """Draw the validation and test mixtures of a study.

    Parameters
    ----------
    inputs : Inputs
        Features and splits.
    n : int
        Mixtures of each number of sources in each part; the folds share them.
    config, seed
        See `draw`.

    Returns
    -------
    pandas.DataFrame
        See `draw`.
    """
    a_fold = -(-n // len(inputs.splits))
    splits = [load_split(path, inputs.store.segments) for path in inputs.splits]
    return pd.concat(
        [
            draw(inputs.store, split, part, a_fold, config=config, seed=seed, fold=fold)
            for fold, split in enumerate(splits)
            for part in PARTS
        ],
        ignore_index=True,
    )


_SEVERAL = "{} may have several instruments a clip, so nobody knows what is in a mixture of them; mix a corpus of one."


class _Deck:
    """The segments of one class, dealt so that groups, and clips within a group, are used alike."""

    def __init__(self, rng: np.random.Generator, segments: pd.DataFrame) -> None:
        self._rng = rng
        self._groups = [
            [list(own.itertuples()) for _, own in of_group.groupby("clip_id")]
            for _, of_group in segments.groupby("group")
        ]
        self._used = [np.zeros(len(clips)) for clips in self._groups]
        self._dealt = np.zeros(len(self._groups))

    def next(self) -> Any:
        group = self._least_used(self._dealt)
        clip = self._least_used(self._used[group])
        segments = self._groups[group][clip]
        return segments[int(self._rng.integers(len(segments)))]

    def _least_used(self, counts: np.ndarray) -> int:
        least = np.flatnonzero(counts == counts.min())
        place = int(least[self._rng.integers(len(least))])
        counts[place] += 1
        return place


# -- rendering ---------------------------------------------------------------------------------------------------------


def render(
    plan: pd.DataFrame, corpus: Corpus, *, config: MixConfig, root: Path, workers: int | None = None
) -> Mixtures:
    """Render mixtures as FLAC files, or open them when they are there.

    The level of a source is the RMS of what sounds of it within the mixture: of the frames at most `SOUNDING_RANGE_DB`
    below its loudest. A source of which the offset would cut more than half of what sounds begins at once instead.

    Parameters
    ----------
    plan : pandas.DataFrame
        From `draw`.
    corpus : Corpus
        Where the sources lie.
    config : MixConfig
        What the plan was drawn with.
    root : Path
        Folder of all mixtures; each plan gets a folder of its own in it. A file that is there whole is kept, so a
        rendering that was stopped goes on; one that is lost or altered is made again.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Mixtures
        Of `rendered`, the activity is that of its notes, exact: from where a key is struck to where it is released
        (the sound may ring on). Of other clips it is where they sound.

    Raises
    ------
    CorpusError
        When clips have several labels, or the plan is of other clips.
    DiskError
        When the folder cannot be written.
    """

    def make(folder: Path) -> None:
        _make(folder, plan, corpus, config, workers)

    setting = {"version": VERSION, "config": config}
    return open_or_make(plan, corpus, setting, make, root=root, kind="mixtures", notebook="10_layered_audio")


def active(notes: pd.DataFrame, *, start_s: float, offset_s: float, duration_s: float) -> list[tuple[float, float]]:
    """Say when an instrument plays in a mixture: its notes joined, moved and cut.

    Parameters
    ----------
    notes : pandas.DataFrame
        `onset_s` and `offset_s` of each note in its clip.
    start_s : float
        Where the segment that is mixed begins in the clip.
    offset_s, duration_s : float
        Where that segment begins in the mixture, and how long the mixture is.

    Returns
    -------
    list of (float, float)
        Begin and end of each stretch in which a note is held, in s.

    Examples
    --------
    >>> phrase = pd.DataFrame({"onset_s": [0.0, 0.5, 2.0], "offset_s": [0.6, 1.0, 2.9]})
    >>> active(phrase, start_s=0.0, offset_s=0.5, duration_s=3.0)
    [(0.5, 1.5), (2.5, 3.0)]
    """
    spans = np.clip(notes[["onset_s", "offset_s"]].to_numpy(float) + offset_s - start_s, offset_s, duration_s)
    return _joined([(float(begin), float(end)) for begin, end in spans if end > begin], pause_s=0.0)


def mix(
    signals: Sequence[np.ndarray], offsets_s: Sequence[float], levels_db: Sequence[float], config: MixConfig
) -> Any:
    """Mix sounds at levels of their own.

    Parameters
    ----------
    signals : sequence of np.ndarray [shape=(n,)]
        Mono, at `config.sample_rate_hz`, of any length; what lies beyond the mixture's end is cut.
    offsets_s, levels_db : sequence of float
        Where each begins, and its level in dB; only differences of levels count.
    config : MixConfig
        Length and rate.

    Returns
    -------
    sound : np.ndarray [shape=(round(duration_s * sample_rate_hz),), float64]
        With its peak at `PEAK_DB`.
    placed : list of np.ndarray [shape as sound]
        The sources as they are in it: they sum to it.
    offsets_s : list of float
        As they came out; see `render`.
    """
    n = round(config.duration_s * config.sample_rate_hz)
    placed, came_out = [], []
    for signal, offset_s, level_db in zip(signals, offsets_s, levels_db, strict=True):
        whole = _placed(signal, 0, n)
        shifted = _placed(signal, round(offset_s * config.sample_rate_hz), n)
        cut_too_much = 2 * _count_sounding(shifted, whole, config) < _count_sounding(whole, whole, config)
        source = whole if cut_too_much else shifted
        came_out.append(0.0 if cut_too_much else float(offset_s))
        placed.append(source * (10 ** (level_db / 20) / sounding_rms(source, config.sample_rate_hz)))
    total = np.sum(placed, axis=0)
    gain = 10 ** (PEAK_DB / 20) / np.abs(total).max()
    return total * gain, [source * gain for source in placed], came_out


def sounding_rms(signal: np.ndarray, sample_rate_hz: int) -> float:
    """Return the RMS of the frames of 20 ms that sound; see `SOUNDING_RANGE_DB`.

    Examples
    --------
    >>> half = np.concatenate([np.full(22_050, 0.5), np.zeros(22_050)])
    >>> round(sounding_rms(half, 22_050), 3)
    0.5
    """
    power = _frame_power(signal, sample_rate_hz)
    return float(np.sqrt(power[_sounds(power, power.max())].mean()))


def sounding_spans(signal: np.ndarray, sample_rate_hz: int) -> list[tuple[float, float]]:
    """Say when a sound is heard; see `SOUNDING_RANGE_DB`. A pause of up to 0.1 s does not count as one.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono.
    sample_rate_hz : int
        Its rate.

    Returns
    -------
    list of (float, float)
        Begin and end of each stretch in s.

    Examples
    --------
    >>> sounding_spans(np.concatenate([np.full(22_050, 0.5), np.zeros(22_050)]), 22_050)
    [(0.0, 1.0)]
    """
    power = _frame_power(signal, sample_rate_hz)
    frames = np.flatnonzero(_sounds(power, power.max()))
    frame_s = round(_FRAME_S * sample_rate_hz) / sample_rate_hz
    end_s = len(signal) / sample_rate_hz
    spans = [(frame * frame_s, min((frame + 1) * frame_s, end_s)) for frame in frames.tolist()]
    return _joined(spans, pause_s=_SHORTEST_PAUSE_S)


def _placed(signal: np.ndarray, first: int, n: int) -> np.ndarray:
    sound = np.zeros(n)
    part = signal[: n - first]
    sound[first : first + len(part)] = part
    return sound


def _frame_power(signal: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    size = round(_FRAME_S * sample_rate_hz)
    padded = np.pad(np.asarray(signal, dtype=float), (0, -len(signal) % size))
    return np.square(padded.reshape(-1, size)).mean(axis=1)


def _sounds(power: np.ndarray, loudest: float) -> np.ndarray:
    return (power >= loudest * 10 ** (-SOUNDING_RANGE_DB / 10)) & (power > 0)


def _count_sounding(signal: np.ndarray, whole: np.ndarray, config: MixConfig) -> int:
    """Count the frames that sound, by the loudest frame of the whole."""
    loudest = _frame_power(whole, config.sample_rate_hz).max()
    return int(_sounds(_frame_power(signal, config.sample_rate_hz), loudest).sum())


def _joined(spans: list[tuple[float, float]], *, pause_s: float) -> list[tuple[float, float]]:
    """Join stretches that overlap, touch, or lie no more than a pause apart."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if joined and begin - joined[-1][1] <= pause_s + _MARGIN:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return [(round(begin, 4), round(end, 4)) for begin, end in joined]


# -- files -------------------------------------------------------------------------------------------------------------


def check_sources(corpus: Corpus, plan: pd.DataFrame | None = None) -> None:
    """Refuse clips of which nobody knows what is in a mixture of them, and a plan of other clips.

    Raises
    ------
    CorpusError
        When clips have several labels, or the plan names one that the corpus does not hold.
    """
    if corpus.multilabel:
        raise CorpusError(_SEVERAL.format(corpus.name))
    strangers = sorted(set() if plan is None else set(plan.clip_id) - set(corpus.manifest.clip_id))
    if strangers:
        raise CorpusError(f"The plan mixes {strangers[0]!r}, which {corpus.name} does not hold; draw it again.")


def open_or_make(
    plan: pd.DataFrame,
    corpus: Corpus,
    setting: dict[str, Any],
    make: Callable[[Path], None],
    *,
    root: Path,
    kind: str,
    notebook: str,
) -> Mixtures:
    """Open what was rendered by a plan, and render it first where it is not there whole.

    Parameters
    ----------
    plan : pandas.DataFrame
        Which clip sounds when.
    corpus : Corpus
        What it is made of.
    setting : dict
        What decides the sound besides the plan and the corpus.
    make : callable
        Renders into the folder that it is given, and ends with `write_tables`.
    root : Path
        Each plan gets a folder of its own in it.
    kind : str
        What it is called: "mixtures" or "pieces".
    notebook : str
        Which notebook makes it.

    Returns
    -------
    Mixtures

    Raises
    ------
    CorpusError
        See `check_sources`.
    """
    check_sources(corpus, plan)
    rows = plan.assign(**plan.select_dtypes("float").round(6)).to_numpy().tolist()
    folder = Path(root) / hash_json({**setting, "corpus": corpus.fingerprint, "plan": rows})[:16]
    if not _is_whole(folder):
        make(folder)
    return _open(folder, corpus, kind=kind, notebook=notebook)


def _open(folder: Path, corpus: Corpus, *, kind: str, notebook: str) -> Mixtures:
    tables = {name: _read_table(folder, name) for name in _TABLES}
    info = dataclasses.replace(
        corpus.info,
        name=f"{kind} of {corpus.name}",
        title=f"{kind.capitalize()} of {corpus.info.title}",
        how_to_get=f"They are made by notebook {notebook}.",
        multilabel=True,
    )
    labels = present(tables["sources"], tables["manifest"].clip_id, corpus.classes)
    made = Corpus(info, folder, tables["manifest"], corpus.classes, labels=labels)
    return Mixtures(made, tables["sources"], tables["activity"])


def _is_whole(folder: Path) -> bool:
    """Whether every table and every file is what was written."""
    if not (folder / _RECORD).is_file():
        return False
    known = read_json(folder / _RECORD)
    tables = [(folder / f"{name}.csv", known.get(name)) for name in _TABLES]
    if any(not path.is_file() or hash_file(path) != digest for path, digest in tables):
        return False
    files = _read_table(folder, "manifest")
    return all(
        (folder / path).is_file() and hash_bytes((folder / path).read_bytes()) == content
        for path, content in zip(files.path, files[CONTENT], strict=True)
    )


def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write the manifest, the sources and the activity; the record of their hashes comes last and marks the end."""
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    write_json(folder / _RECORD, {name: hash_file(folder / f"{name}.csv") for name in tables})


def write_sound(path: Path, sound: np.ndarray, sample_rate_hz: int) -> str:
    """Write mono samples as FLAC of 16 bits, unless the file holds them already; return the hash of its bytes."""
    data = _flac(sound, sample_rate_hz)
    if not (path.is_file() and path.read_bytes() == data):
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    return hash_bytes(data)


def with_files(plan: pd.DataFrame, corpus: Corpus, *, longest_s: float | pd.Series) -> pd.DataFrame:
    """Add to a plan where the file of each source lies, and how much of the clip is left from its begin on.

    A clip may be a part of its file: what comes after it is not played. `left_s` is at most `longest_s`.
    """
    clips = corpus.manifest.set_index("clip_id")
    end_s = (clips.start_s + clips.duration_s)[plan.clip_id].to_numpy()
    path = [str(corpus.root / path) for path in clips.path[plan.clip_id]]
    return plan.assign(path=path, left_s=(end_s - plan.start_s).clip(upper=longest_s))


def manifest_table(
    sources: pd.DataFrame, contents: list[str], classes: tuple[str, ...], duration_s: float | pd.Series
) -> pd.DataFrame:
    """Make the manifest of mixtures.

    Parameters
    ----------
    sources : pandas.DataFrame
        One row a source.
    contents : list of str
        Hash of each mixture's file, mixtures sorted by name.
    classes : tuple of str
        Of the corpus.
    duration_s : float or pandas.Series
        Length of all mixtures, or of the mixture of each source.

    Returns
    -------
    pandas.DataFrame
        See `Mixtures.corpus`.
    """
    first = sources.assign(duration_s=duration_s).groupby("mixture", sort=True).first().reset_index()
    return pd.DataFrame(
        {
            "clip_id": first.mixture,
            "path": "audio/" + first.mixture + ".flac",
            "start_s": 0.0,
            "duration_s": first.duration_s,
            "label": strata(present(sources, first.mixture, classes), classes),
            "group": first.part + "-" + first.fold.astype(str),
            "split": first.part,
            "fold": first.fold,
            "n_sources": first.n_sources,
            CONTENT: contents,
        }
    )


def activity_table(
    sources: pd.DataFrame,
    sounding: list[list[tuple[float, float]]],
    corpus: Corpus,
    *,
    end_s: pd.Series,
    pause_s: float = 0.0,
) -> pd.DataFrame:
    """Say who plays when.

    Parameters
    ----------
    sources : pandas.DataFrame
        One row a source.
    sounding : list of list of (float, float)
        When each is heard in its mixture. Of `rendered`, the notes are taken instead.
    corpus : Corpus
        Where the sources come from.
    end_s : pandas.Series
        When each source ends in its mixture: longer notes are cut.
    pause_s : float
        A pause of the same instrument that is no longer does not count as one.

    Returns
    -------
    pandas.DataFrame
        See `Mixtures.activity`.
    """
    if corpus.name == rendered.INFO.name:
        begins_s = corpus.manifest.set_index("clip_id").start_s
        sounding = [
            active(
                rendered.notes(corpus, one.clip_id),
                start_s=one.start_s - begins_s[one.clip_id],
                offset_s=one.offset_s,
                duration_s=end,
            )
            for one, end in zip(sources.itertuples(), end_s, strict=True)
        ]
    spans: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    for one, own in zip(sources.itertuples(), sounding, strict=True):
        spans.setdefault((one.mixture, one.label, one.level_db), []).extend(own)
    rows = [
        (mixture, label, begin, end, level_db)
        for (mixture, label, level_db), own in spans.items()
        for begin, end in _joined(own, pause_s=pause_s)
    ]
    return pd.DataFrame(rows, columns=list(_ACTIVITY_COLUMNS)).sort_values(
        ["mixture", "onset_s", "label"], ignore_index=True
    )


def present(sources: pd.DataFrame, mixtures: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    """Say which classes have a source in each mixture [shape=(n_mixtures, n_classes), float32]: 1 or 0."""
    counts = pd.crosstab(sources.mixture, sources.label).reindex(index=mixtures, columns=list(classes), fill_value=0)
    return (counts.to_numpy() > 0).astype(np.float32)


def _make(folder: Path, plan: pd.DataFrame, corpus: Corpus, config: MixConfig, workers: int | None) -> None:
    """Render what is not there and write the tables."""
    plan = with_files(plan, corpus, longest_s=config.duration_s)
    mixtures = [own for _, own in plan.groupby("mixture", sort=True)]
    batches = [(folder, mixtures[first : first + _BATCH], config) for first in range(0, len(mixtures), _BATCH)]
    made = [one for batch in parallel_map(_render_batch, batches, workers=workers, describe="mixing") for one in batch]

    sources = pd.concat([own for own, _, _ in made], ignore_index=True)
    levels_db = sources.groupby("mixture", sort=True).level_db
    manifest = manifest_table(sources, [content for _, _, content in made], corpus.classes, config.duration_s).assign(
        level_range_db=(levels_db.max() - levels_db.min()).round(3).to_numpy()
    )
    spans = [one for _, of_mixture, _ in made for one in of_mixture]
    end_s = pd.Series(config.duration_s, sources.index)
    activity = activity_table(sources, spans, corpus, end_s=end_s)
    write_tables(folder, {"manifest": manifest, "sources": sources[list(_SOURCE_COLUMNS)], "activity": activity})


def _render_batch(
    folder: Path, mixtures: list[pd.DataFrame], config: MixConfig
) -> list[tuple[pd.DataFrame, list[list[tuple[float, float]]], str]]:
    """Render a few mixtures: for each its sources as they came out, when each of them sounds, and the file's hash."""
    made = []
    for sources in mixtures:
        signals = [
            audio.load(
                Path(one.path), sample_rate_hz=config.sample_rate_hz, start_s=one.start_s, duration_s=float(one.left_s)
            )
            for one in sources.itertuples()
        ]
        sound, placed, offsets_s = mix(signals, sources.offset_s, sources.level_db, config)
        energy = np.array([np.square(one).sum() for one in placed])
        came_out = sources.assign(offset_s=offsets_s, share_db=(10 * np.log10(energy / energy.sum())).round(3))
        path = folder / "audio" / f"{sources.mixture.iloc[0]}.flac"
        content = write_sound(path, sound, config.sample_rate_hz)
        made.append((came_out, [sounding_spans(one, config.sample_rate_hz) for one in placed], content))
    return made


def _flac(sound: np.ndarray, sample_rate_hz: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()  # not straight to disk: libsndfile does not say that a disk is full
    soundfile.write(buffer, sound, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _read_table(folder: Path, name: str) -> pd.DataFrame:
    text = dict.fromkeys(("clip_id", "path", "label", "group", "split", "mixture", "part", CONTENT), str)
    return pd.read_csv(folder / f"{name}.csv", dtype=text, keep_default_na=False)
