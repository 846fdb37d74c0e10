"""OpenMIC-2018: 20,000 clips of 10 seconds from the Free Music Archive, with partial labels of 20 instruments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError, InstrlibError, read_json
from instrlib.core.parallel import track
from instrlib.data.dataset import Found, check_unique, get_it, known
from instrlib.data.files import audio_files, read_table

INFO = known("openmic2018")

FOLDER = INDEXED = "openmic-2018"
"""Folder of the release, to which the paths in mirdata's index are relative."""
LABELS = "openmic-2018-aggregated-labels.csv"
METADATA = "openmic-2018-metadata.csv"
PARTITIONS = {"train": "partitions/split01_train.csv", "test": "partitions/split01_test.csv"}

PRESENT = 0.5
"""Share of the (weighted) annotators from which an instrument counts as present."""

VGGISH_SHAPE = (10, 128)
"""Frames of 0.96 s, and values of an embedding."""


def find(root: Path) -> Found:
    """List the clips with their partial labels; `group` is the artist, or the clip if unknown.

    Labels come from the table of aggregated answers: 1 from a relevance of `PRESENT` on, 0 below, NaN for unrated
    instruments (the zeros of `Y_mask` in `openmic-2018.npz`, which requires unpickling). `split` is the official part.
    Further columns: `artist`, `title`, `licence`.
    """
    base = _base(root)
    lacking = [name for name in (LABELS, METADATA, *PARTITIONS.values()) if not (base / name).is_file()]
    if lacking:
        raise CorpusError(f"{INFO.title}: {base} lacks {', '.join(lacking)}. {get_it(INFO)}")
    keys, classes, labels = _read_labels(base / LABELS)
    files = {prefix: audio_files(base / "audio" / prefix) for prefix in sorted({key[:3] for key in keys})}
    folder = (base / "audio").relative_to(root).as_posix()
    paths = [f"{folder}/{key[:3]}/{files[key[:3]].get(key, key + '.ogg')}" for key in keys]
    folders = tuple(f"{folder}/{prefix}" for prefix in files)
    return Found(_describe(base, keys).assign(path=paths), classes, labels, folders=folders)


def vggish_features(root: Path, clip_ids: Sequence[str]) -> np.ndarray:
    """Return released VGGish embeddings of clips, uint8 [n_clips, 10, 128]: one per 0.96 s, after PCA, quantised."""
    tracked = track(clip_ids, total=len(clip_ids), describe="reading VGGish embeddings")
    values = [_read_vggish(_base(Path(root)), clip_id) for clip_id in tracked]
    return np.array(values, dtype=np.uint8).reshape(len(values), *VGGISH_SHAPE)


def _base(root: Path) -> Path:
    """Return the folder with the tables: the root, or the folder of the release in it."""
    return root / FOLDER if (root / FOLDER).is_dir() else root


def _describe(base: Path, keys: list[str]) -> pd.DataFrame:
    """Return one row per clip, with its official part and artist."""
    parts = pd.concat(
        [_read_partition(base / name).to_frame("key").assign(part=part) for part, name in PARTITIONS.items()]
    )
    check_unique(base / "partitions", parts.key)
    part_of = parts.set_index("key").part.reindex(keys)
    if part_of.isna().any():
        raise CorpusError(
            f"{base / 'partitions'}: no part contains the clip {part_of.index[part_of.isna()][0]}; download it again."
        )
    table = read_table(base / METADATA, ("sample_key", "artist_name", "track_title", "license_title"))
    check_unique(base / METADATA, table.sample_key)
    known = table.set_index("sample_key").reindex(keys, fill_value="")
    artists = known.artist_name.str.strip()
    return pd.DataFrame(
        {
            "clip_id": keys,
            # Merging two artists of one name costs little; an artist on both sides would be a leak.
            "group": [f"artist/{artist.casefold()}" if artist else f"clip/{key}" for key, artist in artists.items()],
            "split": part_of.to_numpy(),
            "artist": artists.to_numpy(),
            "title": known.track_title.to_numpy(),
            "licence": known.license_title.to_numpy(),
        }
    )


def _read_partition(path: Path) -> pd.Series:
    try:
        return pd.read_csv(path, header=None, dtype=str, encoding="utf-8-sig")[0].str.strip()
    except ValueError:  # also for empty files and bytes that are not UTF-8
        raise CorpusError(f"{path} is not a UTF-8 list with one clip per line; download it again.") from None


def _read_labels(path: Path) -> tuple[list[str], tuple[str, ...], np.ndarray]:
    """Return the clips and the classes, sorted, and the labels in the table of aggregated answers."""
    table = read_table(path, ("sample_key", "instrument", "relevance"))
    relevance = pd.to_numeric(table.relevance, errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~((relevance >= 0) & (relevance <= 1)))
    if len(wrong):
        row = table.iloc[wrong[0]]
        raise CorpusError(
            f"{path}: the relevance of {row.instrument} in {row.sample_key} is not between 0 and 1; download it again."
        )
    check_unique(path, table.sample_key + " (" + table.instrument + ")")
    keys, classes = pd.Categorical(table.sample_key), pd.Categorical(table.instrument)
    labels = np.full((len(keys.categories), len(classes.categories)), np.nan, dtype=np.float32)
    labels[keys.codes, classes.codes] = relevance >= PRESENT
    return list(keys.categories), tuple(classes.categories), labels


def _read_vggish(base: Path, clip_id: str) -> np.ndarray:
    path = base / "vggish" / clip_id[:3] / f"{clip_id}.json"
    if not path.is_file():
        raise CorpusError(f"The embedding of {clip_id} in {path} is missing; download it again.")
    try:
        values = np.array(read_json(path)["features"])
    except (InstrlibError, KeyError, TypeError, ValueError):
        values = np.empty(0)
    if values.shape != VGGISH_SHAPE or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise CorpusError(
            f"{path} does not contain {VGGISH_SHAPE} integers from 0 to 255; download it from {INFO.url}."
        )
    return values
