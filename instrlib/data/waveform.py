"""Changed copies of a corpus's sound, kept as a feature store beside its own: gain, pitch, tempo, noise, room.

Copies are made of every clip, but a training reads only those of the clips that it trains on.
"""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from instrlib.core.errors import StoreError
from instrlib.core.io import hash_bytes, hash_json
from instrlib.data.store import FeatureStore

CHANCE = 0.5
"""Of pitch, tempo, noise and room, each on its own, to be changed in a copy; the gain always is."""

GAIN_DB = (-12.0, 6.0)
"""Range of the gain; a spectrogram in dB below its loudest value does not show it, PCEN a little."""

SEMITONES = 2.0
"""Largest shift of pitch, up or down; more, and an instrument sounds like its neighbour in size."""

RATES = (0.85, 1.18)
"""Range of the tempo; what is then too long is cut, what is missing is silence."""

SNR_DB = (10.0, 40.0)
"""Range of the level of the sound over white noise."""

ROOM_ORDER = 8
"""Reflections of a small room, one after the other. Traced rays would sound fuller, but cost ten times as much and are
drawn by a generator that cannot be seeded."""


@dataclass(frozen=True)
class WaveformChange:
    """Which copies are made: give it to `store.build_store` as `change`.

    Each copy has another gain and, by chance, another pitch, tempo, white noise behind it and a small room around it,
    drawn from the seed, the segment and the number of the copy: the same in every process.

    Attributes
    ----------
    n_copies : int
        Copies of each segment, at least 1.
    seed : int
        Decides all of them, with the segment's name and the copy's number.
    """

    n_copies: int
    seed: int

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the copies."""
        return hash_json([vars(self), CHANCE, GAIN_DB, SEMITONES, RATES, SNR_DB, ROOM_ORDER])[:16]

    def copies(self, signal: np.ndarray, *, sample_rate_hz: int, clip_id: str, offset_s: float) -> Iterator[np.ndarray]:
        """Yield the copies of one segment.

        Parameters
        ----------
        signal : np.ndarray [shape=(n,), float32]
            Mono samples.
        sample_rate_hz : int
            Their rate.
        clip_id, offset_s : str, float
            Which segment of the corpus it is; the same one gives the same copies.

        Yields
        ------
        np.ndarray [shape=(n,), float32]
        """
        change = _change()
        for copy in range(1, self.n_copies + 1):
            with _seeded(f"{self.seed} {copy} {clip_id} {offset_s:.6f}"):
                yield change(signal, sample_rate_hz)


def rows_of_copies(segments: pd.DataFrame, copies: FeatureStore) -> np.ndarray:
    """Find the copies of segments.

    Parameters
    ----------
    segments : pandas.DataFrame
        Rows of the `segments` of the originals' store: of the training part, so that nothing else feeds a training.
    copies : FeatureStore
        Built with a `WaveformChange`.

    Returns
    -------
    np.ndarray [shape=(n_segments, n_copies), int]
        Values of the column `row` of the copies' store.

    Raises
    ------
    StoreError
        When the store holds no copies, or not those of these segments.
    """
    if "copy" not in copies.segments:
        raise StoreError(
            f"{copies.folder} holds no changed copies; build them with store.build_store and a WaveformChange."
        )
    table = copies.segments.pivot(index=["clip_id", "start_s"], columns="copy", values="row")
    found = table.reindex(pd.MultiIndex.from_frame(segments[["clip_id", "start_s"]]))
    if found.isna().to_numpy().any():
        clip_id = segments.clip_id[found.isna().to_numpy().any(axis=1)].iloc[0]
        raise StoreError(
            f"{copies.folder} holds no copy of clip {clip_id}: it belongs to another corpus or other settings; build "
            "the copies anew."
        )
    return found.to_numpy(np.int64)


def draw_copies(x: np.ndarray, copies: FeatureStore, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put copies in the place of some segments: the original and each of its copies are drawn alike.

    Parameters
    ----------
    x : np.ndarray [shape=(n, n_bins, n_frames)]
        The originals, before scaling.
    copies : FeatureStore
        Built with a `WaveformChange`.
    rows : np.ndarray [shape=(n, n_copies), int]
        Their copies, from `rows_of_copies`.
    rng : np.random.Generator
        Decides which.

    Returns
    -------
    np.ndarray [shape of x]
        A new array.
    """
    drawn = rng.integers(rows.shape[1], size=len(x), endpoint=True)
    changed = np.flatnonzero(drawn)
    x = x.copy()
    x[changed] = copies.features[rows[changed, drawn[changed] - 1]]
    return x


@functools.cache
def _change() -> Callable[[np.ndarray, int], np.ndarray]:
    from audiomentations import AddGaussianSNR, Compose, Gain, PitchShift, RoomSimulator, TimeStretch

    return Compose(
        [
            Gain(*GAIN_DB, p=1.0),
            PitchShift(-SEMITONES, SEMITONES, p=CHANCE),
            TimeStretch(*RATES, p=CHANCE),
            RoomSimulator(use_ray_tracing=False, max_order=ROOM_ORDER, leave_length_unchanged=True, p=CHANCE),
            AddGaussianSNR(*SNR_DB, p=CHANCE),
        ]
    )


@contextlib.contextmanager
def _seeded(name: str) -> Iterator[None]:
    """Seed the global generators, which audiomentations draws from, and give the caller's back afterwards."""
    kept, kept_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    seed = int(hash_bytes(name.encode())[:8], 16)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(kept_numpy)  # noqa: NPY002
