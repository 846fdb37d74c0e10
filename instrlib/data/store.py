"""Features of a corpus as one memory-mapped array beside the table of its segments.

A store is the folder `<fingerprint>-<key>` with `features.npy` (float16, before scaling), `segments.csv`,
`excluded.csv` and `store.json`. The fingerprint identifies corpus and settings, the key identifies code and packages. A
store is built in a hidden folder, in which each finished batch is recorded, so an interrupted build resumes.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio import decode as audio
from instrlib.audio.effects import Change
from instrlib.audio.features import Scaler, extract, scale, segment_starts
from instrlib.core import cache
from instrlib.core.config import FeatureConfig
from instrlib.core.io import (
    AudioError,
    CorpusError,
    InstrlibError,
    StoreError,
    disk_errors,
    hash_file,
    hash_json,
    in_parts,
    read_json,
    write_json,
)
from instrlib.core.parallel import parallel_map
from instrlib.data.corpora import Corpus, check_unusable_share, excluded_table

WHOLE_CLIP_S = 60.0
"""Clips up to this duration are decoded whole; of longer ones each segment alone, to save memory."""

_BATCH_CLIPS = 16
_SCALER_ROWS = 256
_LABELS = "labels"
_LABEL_VALUES = {"1": 1.0, "0": 0.0, "?": np.nan}
_FEATURES, _SEGMENTS, _EXCLUDED, _RECORD = "features.npy", "segments.csv", "excluded.csv", "store.json"


@dataclass(frozen=True)
class FeatureStore:
    """Stored features of a corpus.

    `segments` has `row` (in `features`), `clip_id`, `start_s` (in the file), `label`, `target` (index in `classes`),
    `group`, `split`; with changed copies `copy`, from 1; with several labels `labels`, one character per class: "1"
    present, "0" absent, "?" not observed. `excluded` is a `corpora.excluded_table` of clips without usable segments.
    `fingerprint` identifies corpus, settings and change on every machine: "<16 hex>-<16 hex>[-<hash>]".
    """

    folder: Path
    config: FeatureConfig
    classes: tuple[str, ...]
    segments: pd.DataFrame
    excluded: pd.DataFrame
    fingerprint: str

    @functools.cached_property
    def features(self) -> np.memmap:
        """Features of all segments [shape=(n_rows, n_bins, n_frames), float16], dB or coefficients, read-only."""
        return np.load(self.folder / _FEATURES, mmap_mode="r", allow_pickle=False)

    @property
    def clips(self) -> pd.DataFrame:
        """The usable clips: `clip_id`, `label`, `target`, `group`, `split`, and `labels` if there are several."""
        columns = ["clip_id", "label", "target", "group", "split", *([_LABELS] if self.multilabel else [])]
        return self.segments[columns].drop_duplicates("clip_id").reset_index(drop=True)

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several labels."""
        return _LABELS in self.segments

    def label_matrix(self, segments: pd.DataFrame) -> np.ndarray:
        """Return the labels of `segments` or `clips` [shape=(n, n_classes), float32]: 1, 0 or NaN (not observed)."""
        if not self.multilabel:
            return np.eye(len(self.classes), dtype=np.float32)[segments.target.to_numpy()]
        rows = [[_LABEL_VALUES[one] for one in labels] for labels in segments[_LABELS]]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.classes))

    def read(self, rows: np.ndarray, scaler: Scaler | None = None) -> np.ndarray:
        """Return segments as network inputs [shape=(n, n_bins, n_frames, 1), float32], by `config.scaling`.

        `rows` are values of the column `row`, in any order; the scaling "train" requires a scaler (`fit_scaler`).
        """
        return scale(self.features[np.asarray(rows)], self.config, scaler)[..., None]

    def __getstate__(self) -> dict[str, Any]:
        """Omit the mapped array, which keeps pickles small."""
        return {name: value for name, value in self.__dict__.items() if name != "features"}


def build_store(
    corpus: Corpus,
    config: FeatureConfig,
    *,
    root: Path,
    workers: int | None = None,
    change: Change | None = None,
) -> FeatureStore:
    """Compute the features of a corpus, or open them if they exist; a damaged store is rebuilt.

    Parameters
    ----------
    corpus : Corpus
        The clips.
    config : FeatureConfig
        The settings; `scaling` may differ from that of an existing store.
    root : Path
        Folder of all stores.
    workers : int, optional
        Number of processes.
    change : Change, optional
        Stores changed copies of every segment instead; see `effects.Change`.

    Raises
    ------
    CorpusError
        When too many clips, or all of a class, are unusable. After a repair, only their batches are repeated.
    DiskError
        When the disk is full, read-only or forbidden; finished batches are kept if possible.
    """

    def fill(folder: Path) -> None:
        _fill(folder, corpus, config, workers, change)

    fingerprint = _fingerprint(corpus.fingerprint, config, change and change.fingerprint)
    store = _kept(Path(root), fingerprint, config, corpus.classes, fill)
    check_unusable_share(corpus, len(store.excluded))  # the corpus may have lost more clips
    return dataclasses.replace(store, config=config)


def open_store(folder: Path) -> FeatureStore:
    """Open a store; raise `StoreError` if it is missing, damaged, or from other code or packages."""
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"There is no feature store in {folder}; run notebook 01_preprocessing, which builds it.")
    try:
        record = read_json(folder / _RECORD)
        intact = record.pop("seal") == hash_json(record)
    except (InstrlibError, KeyError, TypeError, AttributeError):
        intact = False
    damaged = [] if intact else [_RECORD]
    if intact:
        if record["key"] != _key(record["fingerprint"]):
            raise StoreError(f"The feature store {folder} was made by other code or packages; run notebook 01 again.")
        damaged = [name for name, state in record["files"].items() if not _is_intact(folder / name, *state)]
    if damaged:
        raise StoreError(f"The feature store {folder} is damaged ({', '.join(damaged)}); run notebook 01 again.")
    segments = _read_segments(folder)
    segments.insert(0, "row", np.arange(len(segments)))
    segments = segments[segments.usable].drop(columns="usable").reset_index(drop=True)
    excluded = pd.read_csv(folder / _EXCLUDED, dtype=str, keep_default_na=False).assign(usable=False)
    config, classes = FeatureConfig.from_dict(record["config"]), tuple(record["classes"])
    return FeatureStore(folder, config, classes, segments, excluded, record["fingerprint"])


def derive_store(store: FeatureStore, rename: Callable[[pd.DataFrame], pd.DataFrame], *, mark: str) -> FeatureStore:
    """Make or open a store of the same features with other clips, groups or parts of its segments.

    The features are a link to the same file if possible. `rename` maps the table of segments (without `row`) to the new
    one, row by row; `mark` identifies it in the fingerprint.
    """

    def fill(folder: Path) -> None:
        for name in (_FEATURES, _EXCLUDED):
            (folder / name).unlink(missing_ok=True)
            try:
                (folder / name).hardlink_to(store.folder / name)
            except OSError:  # the file system has no links
                shutil.copy2(store.folder / name, folder / name)
        rename(_read_segments(store.folder)).to_csv(folder / _SEGMENTS, index=False)

    fingerprint = _fingerprint(hash_json([store.fingerprint, mark, store.config.scaling])[:16], store.config, None)
    return _kept(store.folder.parent, fingerprint, store.config, store.classes, fill)


def rows_of_copies(segments: pd.DataFrame, copies: FeatureStore) -> np.ndarray:
    """Return the rows [n_segments, n_copies] of a store of changed copies that belong to given segments.

    Copies exist for every clip (see `audio.effects.ChangedCopies`); a training reads those of its clips.
    """
    if "copy" not in copies.segments:
        raise StoreError(f"{copies.folder} contains no changed copies; build it with `change`.")
    table = copies.segments.pivot(index=["clip_id", "start_s"], columns="copy", values="row")
    found = table.reindex(pd.MultiIndex.from_frame(segments[["clip_id", "start_s"]]))
    absent = found.isna().to_numpy().any(axis=1)
    if absent.any():
        raise StoreError(
            f"{copies.folder} has no copy of clip {segments.clip_id[absent].iloc[0]}, because it belongs to another "
            "corpus or settings; build the copies again."
        )
    return found.to_numpy(np.int64)


def fit_scaler(store: FeatureStore, rows: np.ndarray) -> Scaler:
    """Return mean and deviation of each band over rows of the training part; constant bands have deviation 1."""
    from sklearn.preprocessing import StandardScaler

    if len(rows) == 0:
        raise ValueError("A scaler requires at least one segment; check the training part.")
    fitted = StandardScaler()
    for block in in_parts(np.sort(rows), _SCALER_ROWS):
        values = np.moveaxis(store.features[block], 1, 2).reshape(-1, store.config.shape[0])
        fitted.partial_fit(values.astype(np.float64))
    return Scaler(fitted.mean_.astype(np.float32), fitted.scale_.astype(np.float32))


# -- records -----------------------------------------------------------------------------------------------------------


def _fingerprint(corpus: str, config: FeatureConfig, change: str | None) -> str:
    return "-".join(filter(None, (corpus, config.fingerprint, change)))


def _key(fingerprint: str) -> str:
    return cache.key("data", store=fingerprint)[:16]


def _kept(
    root: Path, fingerprint: str, config: FeatureConfig, classes: tuple[str, ...], fill: Callable[[Path], None]
) -> FeatureStore:
    """Open a store, or build it in one process while others wait; a killed build resumes in its hidden folder."""
    from filelock import FileLock

    folder = root / f"{fingerprint}-{_key(fingerprint)}"
    made = root / f".{folder.name}.partial" / "store"
    with contextlib.suppress(StoreError):
        return open_store(folder)
    with disk_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            with contextlib.suppress(StoreError):
                return open_store(folder)  # another process may have built it
            for old in root.glob(f"{fingerprint}-{'?' * 16}"):  # damaged, or from other code
                shutil.rmtree(old, ignore_errors=True)
            made.mkdir(parents=True, exist_ok=True)
            fill(made)
            files = {name: (made / name).stat().st_size for name in (_FEATURES, _SEGMENTS, _EXCLUDED)}
            record = {"fingerprint": fingerprint, "key": _key(fingerprint), "config": config.to_dict()}
            record |= {"classes": classes, "files": {name: [n, _digest(made / name)] for name, n in files.items()}}
            write_json(made / _RECORD, {**record, "seal": hash_json(record)})
            made.replace(folder)
            shutil.rmtree(made.parent)
    return open_store(folder)


def _is_intact(path: Path, size: int, digest: str) -> bool:
    """Return whether a file matches its record; only files newer than the record are read."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    return path.stat().st_mtime_ns <= path.with_name(_RECORD).stat().st_mtime_ns or _digest(path) == digest


def _digest(path: Path) -> str:
    return hash_file(path, algorithm="blake2b")


def _read_segments(folder: Path) -> pd.DataFrame:
    text = dict.fromkeys(("clip_id", "label", "group", "split", _LABELS), str)
    return pd.read_csv(folder / _SEGMENTS, dtype=text, keep_default_na=False)


# -- building ----------------------------------------------------------------------------------------------------------


def _fill(folder: Path, corpus: Corpus, config: FeatureConfig, workers: int | None, change: Change | None) -> None:
    """Write the features and tables of a store, continuing from the finished batches in its folder."""
    clips = corpus.manifest
    starts = [segment_starts(duration_s, config) for duration_s in clips.duration_s]
    n_copies = change.n_copies if change else 1
    first_row = np.concatenate([[0], np.cumsum([n_copies * len(one) for one in starts])])
    features, done = folder / _FEATURES, folder.with_name("done")
    if not (done.is_dir() and features.is_file()):
        shutil.rmtree(done, ignore_errors=True)
        np.lib.format.open_memmap(features, mode="w+", dtype=np.float16, shape=(int(first_row[-1]), *config.shape))
        done.mkdir()

    sounds = [
        (clip.clip_id, corpus.root / clip.path, clip.start_s, clip.duration_s, offsets)
        for clip, offsets in zip(clips.itertuples(), starts, strict=True)
    ]
    notes = {first: done / f"{first:08d}.json" for first in range(0, len(clips), _BATCH_CLIPS)}
    tasks = [
        (features, int(first_row[first]), note, sounds[first : first + _BATCH_CLIPS], config, change)
        for first, note in notes.items()
        if not note.is_file()
    ]
    for _ in parallel_map(_extract_batch, tasks, workers=workers, describe="features"):
        pass

    outcome = [clip for note in notes.values() for clip in read_json(note)]
    lost = [at for at, clip in enumerate(outcome) if not any(clip["usable"])]
    excluded = excluded_table((*clips.loc[at, ["clip_id", "path"]], outcome[at]["reason"], False) for at in lost)
    for at in lost:  # so that repaired files are read by the same command
        notes[at // _BATCH_CLIPS * _BATCH_CLIPS].unlink(missing_ok=True)
    check_unusable_share(corpus, len(lost))
    _check_classes(corpus, excluded)

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
    segments.to_csv(folder / _SEGMENTS, index=False)
    excluded.drop(columns="usable").to_csv(folder / _EXCLUDED, index=False)


def _check_classes(corpus: Corpus, excluded: pd.DataFrame) -> None:
    """Raise `CorpusError` if a class lost all clips in which it is present or, with several labels, absent."""
    kept = ~corpus.manifest.clip_id.isin(excluded.clip_id).to_numpy()
    labels = np.eye(len(corpus.classes))[corpus.targets] if corpus.labels is None else corpus.labels
    for name, column in zip(corpus.classes, labels.T, strict=True):
        for value, word in ((1, "with"), (0, "without")):
            if (column == value).any() and not (column[kept] == value).any():
                raise CorpusError(
                    f"{corpus.name}: no usable clip is left {word} {name}; {len(excluded)} are unusable (the first, "
                    f"{excluded.path.iloc[0]}: {excluded.reason.iloc[0]}); replace them or leave that class out."
                )


def _extract_batch(
    features: Path, first_row: int, note: Path, sounds: list[tuple], config: FeatureConfig, change: Change | None
) -> None:
    """Write the features of a batch of clips, then the note that lists its usable segments."""
    values, outcome = [], []
    for clip_id, *sound, offsets in sounds:
        usable, reasons = [], []
        for offset_s, signal in zip(offsets, _signals(*sound, offsets, config), strict=True):
            usable.append(not isinstance(signal, str))
            if isinstance(signal, str):
                reasons.append(signal)
                stored = [np.zeros(0, np.float32)] * (change.n_copies if change else 1)
            elif change:
                stored = change.copies(signal, sample_rate_hz=config.sample_rate_hz, clip_id=clip_id, offset_s=offset_s)
            else:
                stored = [signal]
            values.extend(extract(one, config).astype(np.float16) for one in stored)
        outcome.append({"usable": usable, "reason": reasons[0] if reasons else ""})
    stored = np.load(features, mmap_mode="r", allow_pickle=False)
    # Not through a memory map, which would cause a bus error on a full disk.
    with disk_errors(features), features.open("r+b") as file:
        file.seek(stored.offset + first_row * stored.strides[0])
        file.write(np.ascontiguousarray(values))
    write_json(note, outcome)


def _signals(
    path: Path, start_s: float, duration_s: float, offsets: np.ndarray, config: FeatureConfig
) -> Iterator[np.ndarray | str]:
    """Yield the samples of each segment of a clip, or why it is unusable."""

    def load(offset_s: float, part_s: float) -> np.ndarray | str:
        try:
            return audio.load(path, sample_rate_hz=config.sample_rate_hz, start_s=start_s + offset_s, duration_s=part_s)
        except AudioError as error:
            return str(error).removeprefix(f"{path}: ")

    whole = load(0.0, duration_s) if duration_s <= WHOLE_CLIP_S else None
    for offset_s in offsets:
        if whole is None:
            signal = load(offset_s, min(config.segment_s, duration_s - offset_s))
            yield signal if isinstance(signal, str) else signal[: config.segment_samples]
        elif isinstance(whole, str):
            yield whole
        else:
            first = round(offset_s * config.sample_rate_hz)
            signal = whole[first : first + config.segment_samples]
            if len(signal) < audio.MIN_DURATION_S * config.sample_rate_hz:
                yield "the file ends before this segment."
            else:
                yield "silent in this segment." if audio.is_silent(signal) else signal
