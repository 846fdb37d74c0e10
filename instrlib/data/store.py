"""Features of a corpus as one memory-mapped array beside the table of its segments.

A store is the folder `<fingerprint>-<key>` with `features.f16` (before scaling), `segments.csv` and `store.json`. The
fingerprint identifies corpus and settings, the key identifies code and packages. A store is built in a hidden folder,
in which each finished batch is recorded, so an interrupted build resumes.
"""

import dataclasses
import json
import shutil
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
    hash_json,
    in_parts,
    read_json,
    write_json,
)
from instrlib.core.parallel import parallel_map
from instrlib.data.corpora import Corpus, check_every_class, check_unusable_share, excluded_table
from instrlib.data.splits import Split, fingerprint_of, load_split, save_splits

_BATCH_CLIPS = 16
_SCALER_ROWS = 256
_LABELS = "labels"
_FEATURES, _SEGMENTS, _RECORD, _PROGRESS = "features.f16", "segments.csv", "store.json", "progress.jsonl"


@dataclass(frozen=True)
class FeatureStore:
    """Stored features of a corpus.

    `segments` has `row` (in `features`), `clip_id`, `start_s` (in the file), `label`, `target` (index in `classes`),
    `group`, `split`; with changed copies `copy`, from 1; with several labels `labels`, one character per class: "1"
    present, "0" absent, "?" not observed. `excluded` is a `corpora.excluded_table` of clips without usable segments.
    """

    folder: Path
    config: FeatureConfig
    classes: tuple[str, ...]
    segments: pd.DataFrame
    excluded: pd.DataFrame
    fingerprint: str

    @property
    def features(self) -> np.memmap:
        """Features of all segments [shape=(n_rows, n_bins, n_frames), float16], dB or coefficients, read-only."""
        return np.memmap(self.folder / _FEATURES, dtype=np.float16, mode="r").reshape(-1, *self.config.shape)

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
        rows = [[{"1": 1.0, "0": 0.0, "?": np.nan}[one] for one in labels] for labels in segments[_LABELS]]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.classes))

    def read(self, rows: np.ndarray, scaler: Scaler | None = None) -> np.ndarray:
        """Return network inputs [shape=(n, n_bins, n_frames, 1), float32]; scaling "train" needs a scaler."""
        return scale(self.features[np.asarray(rows)], self.config, scaler)[..., None]


@dataclass(frozen=True)
class Inputs:
    """Features, one split or the folds of a cross-validation, and the fingerprint of the splits."""

    store: FeatureStore
    splits: tuple[Path, ...]
    fingerprint: str


def open_inputs(preprocessing: Any) -> Inputs:
    """Return the features and splits of the finished run of notebook 01."""
    store = open_store(Path(str(preprocessing.arrays("inputs")["store"])))
    splits = tuple(sorted(preprocessing.folder.glob("splits/fold-*.json")))
    return Inputs(store, splits, fingerprint_of([load_split(path, store.segments) for path in splits]))


def open_store(folder: Path) -> FeatureStore:
    """Open a store; raise `StoreError` if it is missing, damaged, or from other code or packages."""
    folder = Path(folder)
    try:
        record, written_ns = read_json(folder / _RECORD), (folder / _RECORD).stat().st_mtime_ns
        config, fingerprint = FeatureConfig.from_dict(record["config"]), record["fingerprint"]
        states = [((folder / name).stat(), size) for name, size in record["sizes"].items()]
        changed = any(state.st_size != size or state.st_mtime_ns > written_ns for state, size in states)
        if changed or record["key"] != _key(fingerprint):
            raise ValueError
        text = dict.fromkeys(("clip_id", "label", "group", "split", _LABELS), str)
        segments = pd.read_csv(folder / _SEGMENTS, dtype=text, keep_default_na=False)
    except (InstrlibError, OSError, KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(
            f"The feature store {folder} is missing, damaged or of other code or packages; run notebook 01 again."
        ) from None
    segments.insert(0, "row", np.arange(len(segments)))
    excluded = excluded_table(record["excluded"])
    return FeatureStore(folder, config, tuple(record["classes"]), segments, excluded, fingerprint)


def build_store(
    corpus: Corpus, config: FeatureConfig, *, root: Path, workers: int | None = None, change: Change | None = None
) -> FeatureStore:
    """Compute the features of a corpus below `root`, or open them if they exist; a damaged store is rebuilt.

    `config.scaling` may differ from that of an existing store. With a `change`, changed copies of every segment are
    stored instead; see `effects.Change`. Raises `CorpusError` when too many clips, or all of a class, are unusable, and
    `DiskError` when the disk is full, read-only or forbidden; finished batches are kept.
    """
    from filelock import FileLock

    fingerprint = "-".join([corpus.fingerprint, config.fingerprint, *([change.fingerprint] if change else [])])
    folder = root / f"{fingerprint}-{_key(fingerprint)}"
    partial = root / f".{folder.name}.partial"
    with disk_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            try:
                store = open_store(folder)
            except StoreError:
                for old in root.glob(f"{fingerprint}-{'?' * 16}"):  # damaged, or from other code
                    shutil.rmtree(old, ignore_errors=True)
                partial.mkdir(exist_ok=True)
                try:
                    tables = _fill(partial, corpus, config, workers, change)
                except CorpusError:
                    shutil.rmtree(partial)  # so that repaired files are read again
                    raise
                _write_tables(FeatureStore(partial, config, corpus.classes, *tables, fingerprint))
                partial.replace(folder)
                (folder / _PROGRESS).unlink(missing_ok=True)
                store = open_store(folder)
    check_unusable_share(corpus, len(store.excluded))  # the corpus may have lost more clips
    return dataclasses.replace(store, config=config)


def by_segment(inputs: Inputs, folder: Path, *, keep_groups: bool, seed: int = 0) -> Inputs:
    """Turn every segment into a separate clip "<clip>#<number>", so that the same code trains and tests on segments.

    With `keep_groups`, segments stay in the group and part of their clip. Otherwise each is its own group, and parts of
    the same sizes are drawn from all segments of a class, as in many published protocols. New splits go to `folder`.
    """
    store = inputs.store
    of_clip = store.segments.clip_id
    number = store.segments.groupby("clip_id").cumcount().astype(str).str.zfill(4)
    segments = store.segments.drop(columns="row").assign(clip_id=of_clip + "#" + number)
    if not keep_groups:
        segments = segments.assign(group=segments.clip_id, split="")
    fingerprint = hash_json([store.fingerprint, "segments", keep_groups, store.config.scaling])[:16]
    place = store.folder.with_name(f"{fingerprint}-{_key(fingerprint)}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        (place / _FEATURES).hardlink_to(store.folder / _FEATURES)
    except OSError:  # the file system has no links
        shutil.copy2(store.folder / _FEATURES, place)
    _write_tables(dataclasses.replace(store, folder=place, segments=segments, fingerprint=fingerprint))
    random, names = np.random.default_rng(seed), segments.clip_id
    if not keep_groups:
        names = segments.groupby("label").clip_id.transform(random.permutation)
    splits = []
    for path in inputs.splits:
        split = load_split(path, store.segments)
        parts = pd.Series(of_clip.map(split.parts).to_numpy(), index=names.to_numpy())
        splits.append(Split(parts.sort_index(), split.seed if keep_groups else seed))
    return Inputs(open_store(place), tuple(save_splits(splits, folder / place.name)), fingerprint_of(splits))


def rows_of_copies(segments: pd.DataFrame, copies: FeatureStore) -> np.ndarray:
    """Return the rows [n_segments, n_copies] of a store of changed copies that belong to given segments."""
    table = copies.segments.pivot(index=["clip_id", "start_s"], columns="copy", values="row")
    return table.loc[pd.MultiIndex.from_frame(segments[["clip_id", "start_s"]])].to_numpy(np.int64)


def fit_scaler(store: FeatureStore, rows: np.ndarray) -> Scaler:
    """Return mean and deviation of each band over rows of the training part; constant bands have deviation 1."""
    from sklearn.preprocessing import StandardScaler

    fitted = StandardScaler()
    for block in in_parts(np.sort(rows), _SCALER_ROWS):
        values = np.moveaxis(store.features[block], 1, 2).reshape(-1, store.config.shape[0])
        fitted.partial_fit(values.astype(np.float64))
    return Scaler(fitted.mean_.astype(np.float32), fitted.scale_.astype(np.float32))


def _key(fingerprint: str) -> str:
    return cache.key("data", store=fingerprint)[:16]


def _write_tables(store: FeatureStore) -> None:
    """Write the segments, then the record, which makes a store complete."""
    store.segments.to_csv(store.folder / _SEGMENTS, index=False)
    record = {name: getattr(store, name) for name in ("fingerprint", "config", "classes")}
    sizes = {name: (store.folder / name).stat().st_size for name in (_FEATURES, _SEGMENTS)}
    excluded = store.excluded.to_numpy().tolist()
    write_json(store.folder / _RECORD, {**record, "key": _key(store.fingerprint), "sizes": sizes, "excluded": excluded})


def _fill(
    folder: Path, corpus: Corpus, config: FeatureConfig, workers: int | None, change: Change | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the features of a store, continuing after the finished batches; return its segments and excluded clips."""
    clips, n_copies = corpus.manifest, change.n_copies if change else 1
    sounds = [(clip.clip_id, corpus.root / clip.path, clip.start_s, clip.duration_s) for clip in clips.itertuples()]
    with (folder / _FEATURES).open("ab") as file, (folder / _PROGRESS).open("a+") as log:
        log.seek(0)
        lines = [line for line in log if line.endswith("\n")]  # the last may be cut
        outcome = [clip for line in lines for clip in json.loads(line)]
        n_bytes = 2 * int(np.prod(config.shape)) * n_copies * sum(len(clip["offsets_s"]) for clip in outcome)
        if n_bytes > file.tell():
            lines, outcome, n_bytes = [], [], 0
        file.truncate(n_bytes)
        log.truncate(sum(map(len, lines)))
        tasks = [(batch, config, change) for batch in in_parts(sounds, _BATCH_CLIPS)[len(lines) :]]
        for values, batch in parallel_map(_extract_batch, tasks, workers=workers, describe="features"):
            file.write(values)
            file.flush()
            log.write(json.dumps(batch) + "\n")
            log.flush()
            outcome += batch
    lost = [at for at, clip in enumerate(outcome) if not clip["offsets_s"]]
    excluded = excluded_table((*clips.iloc[at][["clip_id", "path"]], outcome[at]["reason"], False) for at in lost)
    check_unusable_share(corpus, len(lost))
    labels = np.eye(len(corpus.classes))[corpus.targets] if corpus.labels is None else corpus.labels
    whole = np.array([{0, 1} <= set(column) for column in labels.T])
    left = np.delete(labels[:, whole], lost, axis=0)
    check_every_class(corpus.name, np.array(corpus.classes)[whole].tolist(), left, excluded)
    of_clip = np.repeat(np.arange(len(clips)), [n_copies * len(clip["offsets_s"]) for clip in outcome])
    segments = clips.iloc[of_clip][["clip_id", "start_s", "label", "group", "split"]].reset_index(drop=True)
    offsets_s = np.repeat([offset_s for clip in outcome for offset_s in clip["offsets_s"]], n_copies)
    segments["start_s"] = (segments.start_s + offsets_s).round(6)
    segments.insert(3, "target", corpus.targets[of_clip])
    if change:
        segments["copy"] = np.arange(len(segments)) % n_copies + 1
    if corpus.labels is not None:
        words = np.select([corpus.labels == 1, corpus.labels == 0], ["1", "0"], "?")
        segments[_LABELS] = np.array(["".join(row) for row in words])[of_clip]
    return segments, excluded


def _extract_batch(
    sounds: list[tuple], config: FeatureConfig, change: Change | None
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the features of the usable segments of some clips, and for each clip their offsets and what is wrong."""
    rate_hz, values, outcome = config.sample_rate_hz, [], []
    for clip_id, path, start_s, duration_s in sounds:
        usable_s, reason = [], "silent in all segments."
        try:
            whole = audio.load(path, sample_rate_hz=rate_hz, start_s=start_s, duration_s=duration_s)
        except AudioError as error:
            whole, reason = np.zeros(0, np.float32), str(error).removeprefix(f"{path}: ")
        for offset_s in segment_starts(duration_s, config):
            signal = whole[round(offset_s * rate_hz) :][: config.segment_samples]
            if len(signal) < audio.MIN_DURATION_S * rate_hz or audio.is_silent(signal):
                continue  # the file ends before this segment, or pauses
            stored = [signal]
            if change:
                stored = change.copies(signal, sample_rate_hz=rate_hz, clip_id=clip_id, offset_s=offset_s)
            values.extend(extract(one, config).astype(np.float16) for one in stored)
            usable_s.append(float(offset_s))
        outcome.append({"offsets_s": usable_s, "reason": reason})
    return np.array(values, dtype=np.float16), outcome
