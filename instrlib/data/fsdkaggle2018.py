"""FSDKaggle2018: 11,073 clips of 41 classes from Freesound, of which 19 are musical instruments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import Found, read_parts
from instrlib.data.files import read_table

GAP = 100
"""Largest step between the Freesound ids of one upload session; see `id_clusters`."""

_TABLE = "FSDKaggle2018.meta/{}_post_competition.csv"


def id_clusters(ids: Sequence[int] | np.ndarray, *, gap: int = GAP) -> np.ndarray:
    """Return for each Freesound id of one class the smallest id of its cluster, int64 [shape=(n,)].

    Freesound ids increase with time, so uploads of one person in one session, usually of one instrument in one room,
    have similar ids. The release has no uploader names; ids connected by steps of at most `gap` count as one session.
    Below a gap of 10, sessions are divided; above 200, unrelated uploads merge. 100 is the careful choice, because a
    divided session leaks into the test part, while merged ones only restrict the split.
    """
    ordered, place = np.unique(np.asarray(ids, dtype=np.int64), return_inverse=True)
    begins = np.diff(ordered, prepend=ordered[:1] - gap - 1) > gap
    return ordered[begins][np.cumsum(begins) - 1][place]


def find(root: Path) -> Found:
    """List the clips in the tables of the parts on disk; `group` is the class and the cluster of similar ids.

    Further columns: `freesound_id` and `licence`. If both parts are on disk, training clips in a cluster of a test clip
    are excluded: 59 % of the test clips have training clips of their class within 100 ids.
    """
    parts = {part: (_TABLE.format(part), f"FSDKaggle2018.audio_{part}") for part in ("train", "test")}
    clips, notes = read_parts("fsdkaggle2018", root, parts, _read_part)
    clusters = clips.groupby("label").freesound_id.transform(lambda ids: id_clusters(ids.to_numpy()))
    return Found(clips.assign(group=clips.label + "/" + clusters.astype(str)), notes=notes)


def _read_part(root: Path, part: str) -> pd.DataFrame:
    path = root / _TABLE.format(part)
    table = read_table(path, ("fname", "label", "freesound_id", "license"))
    if "usage" in table:
        table = table[table.usage != "Ignored"]  # clips that pad the test part of the competition
    for name in table.fname[~table.freesound_id.str.fullmatch(r"\d{1,18}")]:
        raise CorpusError(f"{path}: the freesound_id of {name} is not an integer.")
    return pd.DataFrame(
        {
            "clip_id": [Path(name).stem for name in table.fname],
            "path": f"FSDKaggle2018.audio_{part}/" + table.fname,
            "label": table.label,
            "freesound_id": table.freesound_id.astype(np.int64),
            "licence": table.license,
        }
    )
