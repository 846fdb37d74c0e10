"""One vector a clip in the place of its features: what a head is fitted on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from instrlib.core.errors import EvaluationError
from instrlib.core.io import hash_bytes
from instrlib.data.store import FeatureStore
from instrlib.models.classical import summaries


@dataclass(frozen=True)
class VectorStore(FeatureStore):
    """One vector a clip in the place of its features: `segments` has one row a clip.

    Attributes
    ----------
    vectors : np.ndarray [shape=(n_clips, n_dimensions)]
        The embedding of each clip.
    """

    vectors: np.ndarray

    def read(self, rows: np.ndarray, scaler: "MinMax | None" = None) -> np.ndarray:
        """Read vectors [shape=(n, n_dimensions), float32], scaled when a scaler is given."""
        found = self.vectors[np.asarray(rows)].astype(np.float32)
        return scaler.scale(found) if scaler else found


@dataclass(frozen=True)
class MinMax:
    """The scaling of an embedding to [0, 1], fitted on training clips; others may lie outside.

    Attributes
    ----------
    low, span : np.ndarray [shape=(n_dimensions,)]
        Least value and range of each dimension; the range of one that never changes is 1.
    """

    low: np.ndarray
    span: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray) -> "MinMax":
        """Fit to the rows of training clips.

        Examples
        --------
        >>> MinMax.fit(np.array([[1.0, 5.0], [3.0, 5.0]])).scale(np.array([[2.0, 5.0]])).tolist()
        [[0.5, 0.0]]
        """
        low = vectors.min(axis=0)
        span = vectors.max(axis=0) - low
        return cls(low, np.where(span > 0, span, 1))

    def scale(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors scaled."""
        return (vectors - self.low) / self.span


def vector_store(store: FeatureStore, clip_id: np.ndarray, vectors: np.ndarray) -> VectorStore:
    """Put one vector a clip in the place of stored features.

    Parameters
    ----------
    store : FeatureStore
        Gives the clips with their labels and groups.
    clip_id : np.ndarray of str [shape=(n,)]
        Clips that have a vector, in any order; they may be more than those of the store.
    vectors : np.ndarray [shape=(n, n_dimensions)]
        Their vectors.

    Returns
    -------
    VectorStore

    Raises
    ------
    EvaluationError
        When a clip of the store has no vector, or a vector is not finite.
    """
    clips = store.segments.drop_duplicates("clip_id").reset_index(drop=True)
    place = pd.Series(np.arange(len(clip_id)), index=np.asarray(clip_id, dtype=str))
    found = clips.clip_id.map(place)
    if found.isna().any():
        raise EvaluationError(
            f"The clip {clips.clip_id[found.isna()].iloc[0]!r} has no embedding; leave it out or compute it again."
        )
    kept = np.ascontiguousarray(np.asarray(vectors)[found.astype(int)], dtype=np.float32)
    if not np.isfinite(kept).all():
        bad = clips.clip_id[int((~np.isfinite(kept).all(axis=1)).argmax())]
        raise EvaluationError(f"The embedding of the clip {bad!r} is not finite; compute it again.")
    return with_vectors(store, clips, kept)


def with_vectors(store: FeatureStore, clips: pd.DataFrame, vectors: np.ndarray) -> VectorStore:
    """Put a row of vectors in the place of each clip's features.

    Parameters
    ----------
    store : FeatureStore
        The stored features.
    clips : pandas.DataFrame
        One row of `store.segments` a clip.
    vectors : np.ndarray [shape=(n_clips, n_dimensions)]
        In the same order.

    Returns
    -------
    VectorStore
    """
    return VectorStore(
        store.folder,
        store.config,
        store.classes,
        clips.assign(row=np.arange(len(clips))),
        store.excluded,
        f"{store.fingerprint}-{hash_bytes(vectors.tobytes())[:16]}",
        vectors,
    )


def statistics(store: FeatureStore) -> VectorStore:
    """Return what describes a clip without any training: the statistics of `classical`, averaged over its segments.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms.

    Returns
    -------
    VectorStore
    """
    means = pd.DataFrame(summaries(store, store.segments)).groupby(store.segments.clip_id.to_numpy()).mean()
    return vector_store(store, means.index.to_numpy(str), means.to_numpy())
