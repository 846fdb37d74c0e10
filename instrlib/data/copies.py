"""Rows of a feature store of changed copies that belong to given segments; see `instrlib.audio.effects.ChangedCopies`.

Copies are made of every clip, but a training reads only those of the clips that it trains on.
"""

import numpy as np
import pandas as pd

from instrlib.core.errors import StoreError
from instrlib.data.store import FeatureStore


def rows_of_copies(segments: pd.DataFrame, copies: FeatureStore) -> np.ndarray:
    """Return the rows [n_segments, n_copies] that hold the copies of segments of the originals' store."""
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


def draw_copies(x: np.ndarray, copies: FeatureStore, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `x` with some segments replaced: the original and each of its copies are drawn alike."""
    drawn = rng.integers(rows.shape[1], size=len(x), endpoint=True)
    changed = np.flatnonzero(drawn)
    x = x.copy()
    x[changed] = copies.features[rows[changed, drawn[changed] - 1]]
    return x
