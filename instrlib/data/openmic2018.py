"""OpenMIC-2018: 20,000 clips of 10 seconds from the Free Music Archive, with partial labels of 20 instruments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError, InstrlibError, read_json
from instrlib.core.parallel import track
from instrlib.data.corpora import Found, check_unique, incomplete
from instrlib.data.files import read_table

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
    base = root / FOLDER
    lacking = [name for name in (LABELS, METADATA, *PARTITIONS.values()) if not (base / name).is_file()]
    if lacking:
        raise incomplete("openmic2018", root, ", ".join(lacking))
    labels = _read_labels(base / LABELS)
    table = read_table(base / METADATA, ("sample_key", "artist_name", "track_title", "license_title"))
    check_unique(base / METADATA, table.sample_key)
    known = table.set_index("sample_key").reindex(labels.index, fill_value="")
    part_of = {key: part for part, name in PARTITIONS.items() for key in (base / name).read_text("utf-8-sig").split()}
    if unknown := sorted(set(labels.index) - set(part_of)):
        raise CorpusError(f"{base / 'partitions'}: no part contains the clip {unknown[0]}; download it again.")
    artists = known.artist_name.str.strip()
    clips = pd.DataFrame(
        {
            "clip_id": labels.index,
            "path": [f"{FOLDER}/audio/{key[:3]}/{key}.ogg" for key in labels.index],
            # Merging two artists of one name costs little; an artist on both sides would be a leak.
            "group": [f"artist/{artist.casefold()}" if artist else f"clip/{key}" for key, artist in artists.items()],
            "split": [part_of[key] for key in labels.index],
            "artist": artists.to_numpy(),
            "title": known.track_title.to_numpy(),
            "licence": known.license_title.to_numpy(),
        }
    )
    return Found(clips, labels, folders=[f"{FOLDER}/audio"])


def _read_labels(path: Path) -> pd.DataFrame:
    """Return the labels of the clips, one column per class, from the table of aggregated answers."""
    table = read_table(path, ("sample_key", "instrument", "relevance"))
    relevance = pd.to_numeric(table.relevance, errors="coerce")
    wrong = table[~relevance.between(0, 1)]
    if len(wrong):
        row = wrong.iloc[0]
        raise CorpusError(
            f"{path}: the relevance of {row.instrument} in {row.sample_key} is not between 0 and 1; download it again."
        )
    check_unique(path, table.sample_key + " (" + table.instrument + ")")
    present = table.assign(present=(relevance >= PRESENT).astype(float))
    return present.pivot(index="sample_key", columns="instrument", values="present")


def vggish_features(root: Path, clip_ids: Sequence[str]) -> np.ndarray:
    """Return released VGGish embeddings of clips, uint8 [n_clips, 10, 128]: one per 0.96 s, after PCA, quantised."""
    found = []
    for clip_id in track(clip_ids, total=len(clip_ids), describe="reading VGGish embeddings"):
        path = Path(root) / FOLDER / "vggish" / clip_id[:3] / f"{clip_id}.json"
        try:
            values = np.array(read_json(path)["features"])
        except (InstrlibError, KeyError, TypeError, ValueError):
            values = np.empty(0)
        if values.shape != VGGISH_SHAPE or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
            raise CorpusError(f"{path} does not contain {VGGISH_SHAPE} integers from 0 to 255; download it again.")
        found.append(values.astype(np.uint8))
    return np.array(found, dtype=np.uint8).reshape(-1, *VGGISH_SHAPE)
