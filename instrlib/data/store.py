"""Features of a whole corpus, computed once and kept on disk as one memory-mapped array with its table.

A store is a folder `<corpus fingerprint>-<config fingerprint>`: `features.npy` (float16, before scaling),
`segments.csv`, `problems.csv` and `store.json`, which holds the digests of the others. It is built in a hidden folder
beside its place, batch by batch; each finished batch leaves a note there, so that after a kill only the unfinished ones
are computed again, and the whole is moved into place last. A store of changed copies has the change's fingerprint in
its name and in its record, and for each segment one row a copy.
"""

import dataclasses
import functools
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from instrlib.audio import decode as audio
from instrlib.audio.features import Scaler, extract, scale, segment_starts
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import AudioError, CorpusError, InstrlibError, StoreError
from instrlib.core.io import disk_errors, hash_file, hash_json, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data.base import MAX_PROBLEM_SHARE, Corpus, check_problem_share, problem_table, unusable

FORMAT = 1
"""Raised whenever stored values would change for the same corpus and settings; older stores are then refused."""

WHOLE_CLIP_S = 60.0
"""Clips up to this duration are decoded whole; of longer ones each segment alone, so that two hours need no memory."""

_BATCH_CLIPS = 16
_SCALER_ROWS = 256
_LABELS = "labels"
_LABEL_VALUES = {"1": 1.0, "0": 0.0, "?": np.nan}
_FEATURES, _SEGMENTS, _PROBLEMS, _RECORD = "features.npy", "segments.csv", "problems.csv", "store.json"


class Change(Protocol):
    """What is done to the sound of each segment before its features are computed; it travels to other processes.

    Attributes
    ----------
    n_copies : int
        How many changed copies of a segment are stored, at least 1.
    fingerprint : str
        Hash of what decides the copies.
    """

    n_copies: int

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def copies(self, signal: np.ndarray, *, sample_rate_hz: int, clip_id: str, offset_s: float) -> Iterator[np.ndarray]:
        """Yield `n_copies` changed copies, as long as the signal; the clip and the offset in it decide which."""
        ...


@dataclass(frozen=True)
class FeatureStore:
    """Stored features of a corpus.

    Attributes
    ----------
    folder : Path
        Where the store lies.
    config : FeatureConfig
        The settings that it was built, and is read, with.
    classes : tuple of str
        Labels in the order of `target`.
    segments : pandas.DataFrame
        The usable segments: `row` (in `features`), `clip_id`, `start_s` (in the file), `label`, `target` (index of the
        label), `group`, `split`; in a store of changed copies also `copy`, 1 to `n_copies`; in one of several labels a
        clip also `labels`, a character a class: "1" present, "0" absent, "?" not observed. Plain integer index, in the
        order of the corpus's clips.
    problems : pandas.DataFrame
        Clips without a usable segment: `clip_id`, `path`, `reason`.
    fingerprint : str
        Corpus, settings and, if there is one, change: "<16 hex>-<16 hex>[-<16 hex>]", the same on every machine.
    """

    folder: Path
    config: FeatureConfig
    classes: tuple[str, ...]
    segments: pd.DataFrame
    problems: pd.DataFrame
    fingerprint: str

    @functools.cached_property
    def features(self) -> np.memmap:
        """Features of all segments [shape=(n_rows, n_bins, n_frames), float16], dB or coefficients, read-only."""
        return np.load(self.folder / _FEATURES, mmap_mode="r", allow_pickle=False)

    @property
    def clips(self) -> pd.DataFrame:
        """The usable clips: `clip_id`, `label`, `target`, `group`, `split`, and `labels` where there are several."""
        columns = ["clip_id", "label", "target", "group", "split", *([_LABELS] if self.multilabel else [])]
        return self.segments[columns].drop_duplicates("clip_id").reset_index(drop=True)

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several labels."""
        return _LABELS in self.segments

    def label_matrix(self, segments: pd.DataFrame) -> np.ndarray:
        """Say which classes are present in segments or clips.

        Parameters
        ----------
        segments : pandas.DataFrame
            Rows of `segments` or `clips`.

        Returns
        -------
        np.ndarray [shape=(n, n_classes), float32]
            1 present, 0 absent, NaN not observed. With one label a clip: 1 for it and 0 for the others.
        """
        if not self.multilabel:
            return np.eye(len(self.classes), dtype=np.float32)[segments.target.to_numpy()]
        rows = [[_LABEL_VALUES[one] for one in labels] for labels in segments[_LABELS]]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.classes))

    def read(self, rows: np.ndarray, scaler: Scaler | None = None) -> np.ndarray:
        """Read segments as a network sees them.

        Parameters
        ----------
        rows : np.ndarray [shape=(n,), int]
            Values of the column `row`, in any order.
        scaler : Scaler, optional
            For the scaling "train"; see `fit_scaler`.

        Returns
        -------
        np.ndarray [shape=(n, n_bins, n_frames, 1), float32]
            Scaled as `config.scaling` says.
        """
        return scale(self.features[np.asarray(rows)], self.config, scaler)[..., None]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped array out, so that a store sent to another process stays small."""
        return {name: value for name, value in self.__dict__.items() if name != "features"}


def build_store(
    corpus: Corpus,
    config: FeatureConfig,
    *,
    root: Path,
    workers: int | None = None,
    max_problem_share: float = MAX_PROBLEM_SHARE,
    change: Change | None = None,
) -> FeatureStore:
    """Compute the features of a corpus, or open them when they are there.

    Parameters
    ----------
    corpus : Corpus
        The clips.
    config : FeatureConfig
        The settings; `scaling` may differ from those a store was built with.
    root : Path
        Folder of all stores.
    workers : int, optional
        Processes; see `instrlib.core.parallel.n_workers`.
    max_problem_share : float
        Largest accepted share of unusable clips (those that the corpus left out already count), 0 to 1.
    change : Change, optional
        Store changed copies of every segment instead of the segment itself; see `effects.ChangedCopies`.

    Returns
    -------
    FeatureStore

    Raises
    ------
    CorpusError
        When too many clips are unusable, or all of a class. Only the batches with such clips are computed again
        afterwards.
    StoreError
        When the store is there and corrupted, or another one stands in its place.
    DiskError
        When the disk is full, read-only or forbidden; finished batches are kept where they can be.
    """
    from filelock import FileLock

    name = _store_name(corpus.fingerprint, config, change and change.fingerprint)
    folder = Path(root) / name
    if not folder.exists():
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{name}.lock"):
                if not folder.exists():  # Another process may have built it while this one waited.
                    _build(corpus, config, folder, workers, max_problem_share, change)
    store = open_store(folder)
    if store.fingerprint != name:
        raise StoreError(f"{folder} holds the features of something else ({store.fingerprint}); {_DELETE}")
    _check_share(corpus, len(store.problems), max_problem_share)  # The corpus may have lost more clips since.
    return dataclasses.replace(store, config=config)


def open_store(folder: Path) -> FeatureStore:
    """Open a store and check every byte of it.

    Parameters
    ----------
    folder : Path
        The store's folder.

    Returns
    -------
    FeatureStore

    Raises
    ------
    StoreError
        When the folder is no store, or a file in it is missing, cut or altered.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"There is no feature store in {folder}; run notebook 01_preprocessing, which builds it.")
    try:
        record = read_json(folder / _RECORD)
        config = FeatureConfig.from_dict(record["config"])
        classes = tuple(record["classes"])
        fingerprint = _store_name(record["corpus"], config, record.get("change"))
        written, shape, digests = record["format"], record["shape"], record["digests"]
    except (InstrlibError, KeyError, TypeError) as error:
        raise StoreError(f"The feature store {folder} has no readable {_RECORD}; {_DELETE}") from error
    if written != FORMAT:
        raise StoreError(f"The feature store {folder} is of format {written}, this version reads {FORMAT}; {_DELETE}")
    for name in (_SEGMENTS, _PROBLEMS, _FEATURES):
        if not (folder / name).is_file() or _digest(folder / name) != digests.get(name):
            raise StoreError(f"The feature store {folder} is damaged: {name} is missing, cut or altered; {_DELETE}")
    segments = _read_segments(folder)
    if tuple(shape) != (len(segments), *config.shape):
        raise StoreError(f"The feature store {folder} does not fit its own settings; {_DELETE}")
    segments.insert(0, "row", np.arange(len(segments)))
    return FeatureStore(
        folder,
        config,
        classes,
        segments[segments.usable].drop(columns="usable").reset_index(drop=True),
        pd.read_csv(folder / _PROBLEMS, dtype=str, keep_default_na=False),
        fingerprint,
    )


def derive_store(store: FeatureStore, rename: Callable[[pd.DataFrame], pd.DataFrame], *, mark: str) -> FeatureStore:
    """Make, or open, a store of the same features whose segments bear other clips, groups or parts.

    It lies beside the other. The features are the same file under another name where the disk allows it, so it takes
    next to no room.

    Parameters
    ----------
    store : FeatureStore
        The features. The new store keeps its settings, `scaling` included.
    rename : callable
        From the table of all segments (`clip_id`, `group`, `split` and the rest, without `row`) to the new one, row by
        row.
    mark : str
        What `rename` does; part of the new fingerprint.

    Returns
    -------
    FeatureStore
    """
    from filelock import FileLock

    record = read_json(store.folder / _RECORD)
    corpus = hash_json([record["corpus"], mark, store.config.scaling])[:16]
    name = _store_name(corpus, store.config, record.get("change"))
    folder = store.folder.with_name(name)
    with disk_errors(folder), FileLock(folder.with_name(f".{name}.lock")):
        if not folder.exists():  # Another process may have made it while this one waited.
            partial = folder.with_name(f".{name}.partial")
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
            for file in (_FEATURES, _PROBLEMS):
                _link(store.folder / file, partial / file)
            rename(_read_segments(store.folder)).to_csv(partial / _SEGMENTS, index=False)
            digests = record["digests"] | {_SEGMENTS: _digest(partial / _SEGMENTS)}
            changed = {"corpus": corpus, "config": store.config.to_dict(), "digests": digests}
            write_json(partial / _RECORD, record | changed)
            partial.replace(folder)
    return open_store(folder)


def fit_scaler(store: FeatureStore, rows: np.ndarray) -> Scaler:
    """Compute mean and deviation of each band, block by block.

    Parameters
    ----------
    store : FeatureStore
        The features.
    rows : np.ndarray [shape=(n,), int]
        Values of the column `row`, of the training part alone: anything else would leak into training.

    Returns
    -------
    Scaler
        A band that never changes has deviation 1.
    """
    rows = np.sort(np.asarray(rows))
    if rows.size == 0:
        raise ValueError("a scaler needs at least one segment")
    # Sums of what lies above the first segment's mean, so that the difference of squares loses no digits.
    origin = store.features[rows[0]].astype(np.float64).mean(axis=-1, keepdims=True)
    total = square = 0.0
    for first in range(0, len(rows), _SCALER_ROWS):
        values = store.features[rows[first : first + _SCALER_ROWS]] - origin
        total += values.sum(axis=(0, 2))
        square += np.square(values).sum(axis=(0, 2))
    n = len(rows) * store.config.n_frames
    deviation = np.sqrt(np.maximum(square / n - (total / n) ** 2, 0))
    return Scaler(
        (origin[:, 0] + total / n).astype(np.float32), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
    )


_DELETE = "delete that folder and run the same command again."


def _store_name(corpus_fingerprint: str, config: FeatureConfig, change_fingerprint: str | None) -> str:
    return "-".join(filter(None, (corpus_fingerprint, config.fingerprint, change_fingerprint)))


def _read_segments(folder: Path) -> pd.DataFrame:
    text = dict.fromkeys(("clip_id", "label", "group", "split", _LABELS), str)
    return pd.read_csv(folder / _SEGMENTS, dtype=text, keep_default_na=False)


def _link(source: Path, place: Path) -> None:
    try:
        place.hardlink_to(source)
    except OSError:  # A file system without links.
        shutil.copyfile(source, place)


def _digest(path: Path) -> str:
    return hash_file(path, algorithm="blake2b")


def _build(
    corpus: Corpus,
    config: FeatureConfig,
    folder: Path,
    workers: int | None,
    max_problem_share: float,
    change: Change | None,
) -> None:
    clips = corpus.manifest
    starts = [segment_starts(duration_s, config) for duration_s in clips.duration_s]
    n_copies = change.n_copies if change else 1
    first_row = np.concatenate([[0], np.cumsum([n_copies * len(one) for one in starts])])
    shape = (int(first_row[-1]), *config.shape)
    partial = folder.parent / f".{folder.name}.partial"
    features = partial / "store" / _FEATURES
    _prepare(partial, features, shape)

    sounds = [
        (clip.clip_id, corpus.root / clip.path, clip.start_s, clip.duration_s, offsets)
        for clip, offsets in zip(clips.itertuples(), starts, strict=True)
    ]
    row_bytes = 2 * math.prod(config.shape)
    header_bytes = features.stat().st_size - row_bytes * shape[0]
    tasks, notes = [], []
    for first in range(0, len(clips), _BATCH_CLIPS):
        note = partial / "done" / f"{first:08d}.json"
        notes.append(note)
        if not note.is_file():
            position = header_bytes + row_bytes * int(first_row[first])
            tasks.append((features, position, note, sounds[first : first + _BATCH_CLIPS], config, change))
    for _ in parallel_map(_extract_batch, tasks, workers=workers, describe="features"):
        pass

    outcome = [clip for note in notes for clip in read_json(note)]
    lost = [at for at, clip in enumerate(outcome) if not any(clip["usable"])]
    problems = problem_table([(*clips.loc[at, ["clip_id", "path"]], outcome[at]["reason"]) for at in lost])
    try:
        _check_share(corpus, len(lost), max_problem_share)
        _check_classes(corpus, problems)
    except CorpusError:
        for at in lost:  # So that the files can be repaired and the same command run again.
            notes[at // _BATCH_CLIPS].unlink(missing_ok=True)
        raise

    of_clip = np.repeat(np.arange(len(clips)), np.diff(first_row))
    segments = clips.loc[of_clip, ["clip_id", "start_s", "label", "group", "split"]].reset_index(drop=True)
    segments["start_s"] = (segments.start_s + np.repeat(np.concatenate(starts), n_copies)).round(6)
    segments.insert(3, "target", corpus.targets[of_clip])
    if change:
        segments["copy"] = np.arange(len(segments)) % n_copies + 1
    if corpus.labels is not None:
        words = np.select([corpus.labels == 1, corpus.labels == 0], ["1", "0"], "?")
        segments[_LABELS] = np.array(["".join(row) for row in words])[of_clip]
    segments["usable"] = np.repeat([usable for clip in outcome for usable in clip["usable"]], n_copies)
    for name, table in ((_SEGMENTS, segments), (_PROBLEMS, problems)):
        table.to_csv(features.with_name(name), index=False)
    record = {
        "format": FORMAT,
        "corpus": corpus.fingerprint,
        "config": config.to_dict(),
        "change": change and change.fingerprint,
        "classes": corpus.classes,
        "shape": shape,
        "digests": {name: _digest(features.with_name(name)) for name in (_FEATURES, _SEGMENTS, _PROBLEMS)},
    }
    write_json(features.with_name(_RECORD), record)
    features.parent.replace(folder)
    shutil.rmtree(partial)


def _check_share(corpus: Corpus, n_lost: int, limit: float) -> None:
    n_before = len(unusable(corpus.problems))
    check_problem_share(corpus.name, n_lost + n_before, len(corpus.manifest) + n_before, limit=limit)


def _check_classes(corpus: Corpus, problems: pd.DataFrame) -> None:
    if corpus.labels is not None:
        kept = corpus.labels[~corpus.manifest.clip_id.isin(problems.clip_id)]
        for name, column in zip(corpus.classes, kept.T, strict=True):
            if not ((column == 1).any() and (column == 0).any()):
                raise CorpusError(
                    f"{corpus.name}: of the clips that can be used, none is observed with {name}, or none without it "
                    f"({len(problems)} cannot be used). Replace them or leave that class out, then run the same "
                    "command again."
                )
        return
    label_of = corpus.manifest.set_index("clip_id").label
    lost = set(label_of) - set(label_of.drop(problems.clip_id))
    for row in problems[problems.clip_id.map(label_of).isin(lost)].head(1).itertuples():
        raise CorpusError(
            f"{corpus.name}: no clip of {label_of[row.clip_id]} can be used (the first, {row.path}: {row.reason}) "
            "Replace them or leave that class out, then run the same command again."
        )


def _prepare(partial: Path, features: Path, shape: tuple[int, ...]) -> None:
    """Make the folder of a store under construction, or keep what a killed run left in it."""
    plan = {"format": FORMAT, "shape": list(shape), "batch_clips": _BATCH_CLIPS}
    written = partial / "plan.json"
    if features.is_file() and written.is_file() and read_json(written) == plan:
        return
    if partial.exists():
        shutil.rmtree(partial)
    for folder in (features.parent, partial / "done"):
        folder.mkdir(parents=True)
    np.lib.format.open_memmap(features, mode="w+", dtype=np.float16, shape=shape)
    write_json(written, plan)


def _extract_batch(
    features: Path, position: int, note: Path, sounds: list[tuple], config: FeatureConfig, change: Change | None
) -> None:
    """Write the features of a batch of clips to their place, then the note that says which segments are usable.

    They go through `write`, not through a memory map: on a full disk that would be a bus error and no message.
    """
    values, outcome = [], []
    for clip_id, *sound, offsets in sounds:
        usable, reasons = [], []
        for offset_s, signal in zip(offsets, _signals(*sound, offsets, config), strict=True):
            fits = not isinstance(signal, str)
            usable.append(fits)
            if not fits:
                reasons.append(signal)
                stored = [np.zeros(0, np.float32)] * (change.n_copies if change else 1)
            elif change:
                stored = change.copies(signal, sample_rate_hz=config.sample_rate_hz, clip_id=clip_id, offset_s=offset_s)
            else:
                stored = [signal]
            values.extend(extract(one, config).astype(np.float16) for one in stored)
        outcome.append({"usable": usable, "reason": reasons[0] if reasons else ""})
    with disk_errors(features), features.open("r+b") as file:
        file.seek(position)
        file.write(np.ascontiguousarray(values))
    write_json(note, outcome)


def _signals(
    path: Path, start_s: float, duration_s: float, offsets: np.ndarray, config: FeatureConfig
) -> Iterator[np.ndarray | str]:
    """Yield for each segment of a clip its samples, or the reason why it cannot be used."""

    def load(offset_s: float, part_s: float) -> np.ndarray | str:
        try:
            return audio.load(path, sample_rate_hz=config.sample_rate_hz, start_s=start_s + offset_s, duration_s=part_s)
        except AudioError as error:
            return str(error).removeprefix(f"{path}: ")

    if duration_s > WHOLE_CLIP_S:
        for offset_s in offsets:
            signal = load(offset_s, min(config.segment_s, duration_s - offset_s))
            yield signal if isinstance(signal, str) else signal[: config.segment_samples]
        return
    whole = load(0.0, duration_s)
    for offset_s in offsets:
        if isinstance(whole, str):
            yield whole
            continue
        first = round(offset_s * config.sample_rate_hz)
        signal = whole[first : first + config.segment_samples]
        if len(signal) < audio.MIN_DURATION_S * config.sample_rate_hz:
            yield "the file ends before this segment."
        elif audio.is_silent(signal):
            yield "silent in this segment."
        else:
            yield signal
