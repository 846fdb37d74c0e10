"""Features of a corpus, computed once and kept as one memory-mapped array beside the table of its segments.

A store is the folder `<fingerprint>-<key>`: `features.npy` (float16, before scaling), `segments.csv`, `excluded.csv`,
`store.json`. The fingerprint names corpus and settings, the key the code and the packages that make the values. A store
is built in a hidden folder; each finished batch leaves a note there, so that an interrupted build resumes.
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
from instrlib.core.errors import AudioError, CorpusError, InstrlibError, StoreError
from instrlib.core.io import disk_errors, hash_file, hash_json, in_parts, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data.dataset import Corpus, check_unusable_share, excluded_table

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

    Attributes
    ----------
    folder : Path
        Where the store is.
    config : FeatureConfig
        The settings that it was built with, and is read with.
    classes : tuple of str
        Labels in the order of `target`.
    segments : pandas.DataFrame
        The usable segments: `row` (in `features`), `clip_id`, `start_s` (in the file), `label`, `target`, `group`,
        `split`; in a store of changed copies `copy`, from 1; with several labels a clip `labels`, a character a class:
        "1" present, "0" absent, "?" not observed.
    excluded : pandas.DataFrame
        Clips without a usable segment; see `dataset.excluded_table`.
    fingerprint : str
        Corpus, settings and, if there is one, change: "<16 hex>-<16 hex>[-<hash>]", the same on every machine.
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
        """The usable clips: `clip_id`, `label`, `target`, `group`, `split`, and `labels` where there are several."""
        columns = ["clip_id", "label", "target", "group", "split", *([_LABELS] if self.multilabel else [])]
        return self.segments[columns].drop_duplicates("clip_id").reset_index(drop=True)

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several labels."""
        return _LABELS in self.segments

    def label_matrix(self, segments: pd.DataFrame) -> np.ndarray:
        """Labels of rows of `segments` or `clips` [shape=(n, n_classes), float32]: 1, 0, or NaN where not observed."""
        if not self.multilabel:
            return np.eye(len(self.classes), dtype=np.float32)[segments.target.to_numpy()]
        rows = [[_LABEL_VALUES[one] for one in labels] for labels in segments[_LABELS]]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.classes))

    def read(self, rows: np.ndarray, scaler: Scaler | None = None) -> np.ndarray:
        """Read segments as a network sees them [shape=(n, n_bins, n_frames, 1), float32], scaled by `config.scaling`.

        `rows` are values of the column `row`, in any order; the scaling "train" needs a scaler (`fit_scaler`).
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
    change: Change | None = None,
) -> FeatureStore:
    """Compute the features of a corpus, or open them when they are there; a damaged store is built again.

    Parameters
    ----------
    corpus : Corpus
        The clips.
    config : FeatureConfig
        The settings; `scaling` may differ from those a store was built with.
    root : Path
        Folder of all stores.
    workers : int, optional
        Number of processes.
    change : Change, optional
        Store changed copies of every segment instead of the segment itself; see `effects.Change`.

    Returns
    -------
    FeatureStore

    Raises
    ------
    CorpusError
        When too many clips are unusable, or all of a class. Once they are repaired, only their batches are repeated.
    DiskError
        When the disk is full, read-only or forbidden; finished batches are kept where they can be.
    """

    def fill(folder: Path) -> None:
        _fill(folder, corpus, config, workers, change)

    fingerprint = _fingerprint(corpus.fingerprint, config, change and change.fingerprint)
    store = _kept(Path(root), fingerprint, config, corpus.classes, fill)
    _check_share(corpus, len(store.excluded))  # the corpus may have lost more clips since
    return dataclasses.replace(store, config=config)


def open_store(folder: Path) -> FeatureStore:
    """Open a store. Raises StoreError when it is missing, damaged, or made by other code or packages.

    Files of the recorded size are read, and their hash compared, only when they are newer than the record.
    """
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
    """Make, or open, a store of the same features whose segments have other clips, groups or parts.

    The features are the same file under another name where the disk allows it. `rename` maps the table of all segments
    (without `row`) to the new one, row by row; `mark` names what it does, in the fingerprint.
    """

    def fill(folder: Path) -> None:
        for name in (_FEATURES, _EXCLUDED):
            (folder / name).unlink(missing_ok=True)
            try:
                (folder / name).hardlink_to(store.folder / name)
            except OSError:  # a file system without links
                shutil.copy2(store.folder / name, folder / name)
        rename(_read_segments(store.folder)).to_csv(folder / _SEGMENTS, index=False)

    fingerprint = _fingerprint(hash_json([store.fingerprint, mark, store.config.scaling])[:16], store.config, None)
    return _kept(store.folder.parent, fingerprint, store.config, store.classes, fill)


def rows_of_copies(segments: pd.DataFrame, copies: FeatureStore) -> np.ndarray:
    """Return the rows [n_segments, n_copies] of a store of changed copies that belong to segments of the originals.

    Copies are made of every clip (see `instrlib.audio.effects.ChangedCopies`); a training reads those of its clips.
    """
    if "copy" not in copies.segments:
        raise StoreError(f"{copies.folder} holds no changed copies; build it with `change`.")
    table = copies.segments.pivot(index=["clip_id", "start_s"], columns="copy", values="row")
    found = table.reindex(pd.MultiIndex.from_frame(segments[["clip_id", "start_s"]]))
    absent = found.isna().to_numpy().any(axis=1)
    if absent.any():
        raise StoreError(
            f"{copies.folder} holds no copy of clip {segments.clip_id[absent].iloc[0]}: it belongs to another corpus "
            "or other settings. Build the copies again."
        )
    return found.to_numpy(np.int64)


def fit_scaler(store: FeatureStore, rows: np.ndarray) -> Scaler:
    """Compute mean and deviation of each band over the given rows, those of the training part, block by block.

    A band that never changes has deviation 1.
    """
    from sklearn.preprocessing import StandardScaler

    if len(rows) == 0:
        raise ValueError("a scaler needs at least one segment")
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
    """Open the store of a fingerprint; where it is missing or damaged, one process makes it and others wait.

    It is filled in a hidden folder, where a killed run leaves what it has done.
    """
    from filelock import FileLock

    folder = root / f"{fingerprint}-{_key(fingerprint)}"
    made = root / f".{folder.name}.partial" / "store"
    with contextlib.suppress(StoreError):
        return open_store(folder)
    with disk_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            with contextlib.suppress(StoreError):
                return open_store(folder)  # another process may have made it meanwhile
            for old in root.glob(f"{fingerprint}-{'?' * 16}"):  # damaged, or made by other code
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
    """Whether a file is as recorded; it is read only when it changed after the record."""
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
    """Write the features and the tables of a store, going on with what a killed run left in its folder."""
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
    for at in lost:  # so that the files can be repaired and the same command run again
        notes[at // _BATCH_CLIPS * _BATCH_CLIPS].unlink(missing_ok=True)
    _check_share(corpus, len(lost))
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


def _check_share(corpus: Corpus, n_lost: int) -> None:
    n_unusable = n_lost + corpus.n_unusable
    check_unusable_share(corpus.name, n_unusable, len(corpus.manifest) + corpus.n_unusable)


def _check_classes(corpus: Corpus, excluded: pd.DataFrame) -> None:
    """Raise CorpusError when a class lost all clips in which it is present, or, of several labels, absent."""
    kept = ~corpus.manifest.clip_id.isin(excluded.clip_id).to_numpy()
    labels = np.eye(len(corpus.classes))[corpus.targets] if corpus.labels is None else corpus.labels
    for name, column in zip(corpus.classes, labels.T, strict=True):
        for value, word in ((1, "with"), (0, "without")):
            if (column == value).any() and not (column[kept] == value).any():
                raise CorpusError(
                    f"{corpus.name}: no usable clip is left {word} {name}; {len(excluded)} are unusable (the first, "
                    f"{excluded.path.iloc[0]}: {excluded.reason.iloc[0]}). Replace them or leave that class out."
                )


def _extract_batch(
    features: Path, first_row: int, note: Path, sounds: list[tuple], config: FeatureConfig, change: Change | None
) -> None:
    """Write the features of a batch of clips to their place, then the note that says which segments are usable.

    They go through `write`, not through a memory map: on a full disk that would be a bus error and no message.
    """
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
    with disk_errors(features), features.open("r+b") as file:
        file.seek(stored.offset + first_row * stored.strides[0])
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
