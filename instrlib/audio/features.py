"""Features of one segment, as librosa defines them: log-mel spectrogram, MFCC or PCEN."""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from instrlib.core.config import FeatureConfig

if TYPE_CHECKING:
    import scipy.sparse

MIN_SEGMENT_SHARE = 0.25  # of a segment must be left in the clip for a further one to start

# Least mel power taken as 0 dB: the largest in white noise that peaks at -80 dBFS, so that dither stays quiet.
REFERENCE_FLOOR = 1e-6

PCEN_SCALE = 2.0**31  # librosa's PCEN settings were found for samples scaled to 32-bit integers


def extract(signal: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Compute the features of one segment [config.shape, float32], of the kind `config.kind`.

    "log_mel": dB from -top_db to 0. "mfcc": its first `n_mfcc` coefficients. "pcen": 0 (silence) to about 6. `signal`
    [n] are mono samples at `config.sample_rate_hz`, padded with silence or cut to one segment.

    Definitions are those of librosa, except for silence: `librosa.power_to_db` maps an all-zero segment to 0 dB.
    """
    import librosa
    from scipy.fft import dct

    padded = librosa.util.fix_length(np.asarray(signal, np.float64), size=config.segment_samples)
    magnitude = np.abs(librosa.stft(padded, n_fft=config.n_fft, hop_length=config.hop_length))
    if config.kind == "pcen":
        mel = PCEN_SCALE * (_filterbank(config) @ magnitude)
        values = librosa.pcen(mel, sr=config.sample_rate_hz, hop_length=config.hop_length)
    else:
        power = _filterbank(config) @ magnitude**2
        reference = max(float(power.max()), REFERENCE_FLOOR)
        values = 10 * np.log10(np.maximum(power / reference, 10 ** (-config.top_db / 10)))
        if config.kind == "mfcc":
            values = dct(values, type=2, axis=0, norm="ortho")[: config.n_mfcc]
    return values.astype(np.float32, order="C")


def silence(config: FeatureConfig) -> np.ndarray:
    """Return the value of silence in each row of the features [n_bins], float32; the fill value of masks."""
    return extract(np.zeros(0), config)[:, 0]


def sounding(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Return the frames with a band above the floor, bool [..., n_frames]; all frames where none has.

    Short segments are padded with silence; statistics over all frames would depend on their length.
    """
    above = (np.asarray(level_db) > -config.top_db).any(axis=-2)
    return above | ~above.any(axis=-1, keepdims=True)


def segment_starts(duration_s: float, config: FeatureConfig) -> np.ndarray:
    """Return the starts of a clip's segments in seconds, ascending; at least one.

    The first starts at 0, the next every `segment_hop_s` while `MIN_SEGMENT_SHARE` of a segment remains. At most
    `max_segments` are chosen, evenly spaced over the clip (full ones if there are enough).

    Examples
    --------
    >>> segment_starts(7.0, FeatureConfig()).tolist()
    [0.0, 3.0, 6.0]
    >>> segment_starts(60.0, FeatureConfig(max_segments=3)).tolist()
    [0.0, 30.0, 57.0]
    """

    def grid(last_s: float) -> np.ndarray:
        n_hops = math.floor(last_s / config.segment_hop_s + 1e-6)
        return np.arange(max(0, n_hops) + 1) * config.segment_hop_s

    starts = grid(duration_s - MIN_SEGMENT_SHARE * config.segment_s)
    if len(starts) > config.max_segments:
        full = grid(duration_s - config.segment_s)
        starts = full if len(full) >= config.max_segments else starts
        starts = starts[np.linspace(0, len(starts) - 1, config.max_segments).round().astype(int)]
    return starts


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each row of the features over the training part [n_bins], float32."""

    mean: np.ndarray
    deviation: np.ndarray

    def to_dict(self) -> dict[str, list[float]]:
        """Return lists, for JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the scaler of a `to_dict`."""
        return cls(np.asarray(values["mean"], np.float32), np.asarray(values["deviation"], np.float32))


def scale(values: np.ndarray, config: FeatureConfig, scaler: Scaler | None = None) -> np.ndarray:
    """Scale features [..., n_bins, n_frames] to the range of the network input, according to `config.scaling`.

    "fixed": dB / top_db + 1, from 0 (silence) to 1 (loudest), or its MFCC; PCEN is unchanged. "segment": each segment
    to mean 0 and standard deviation 1. "train": each row by the scaler, which is required.
    """
    values = np.asarray(values, np.float32)
    if config.scaling == "fixed":
        if config.kind != "pcen":
            values = values / np.float32(config.top_db)
            first, one = (0, math.sqrt(config.n_mels)) if config.kind == "mfcc" else (slice(None), 1)
            values[..., first, :] += one  # MFCC: the transform of ones
        return values
    if config.scaling == "segment":
        mean = values.mean(axis=(-2, -1), keepdims=True)
        deviation = values.std(axis=(-2, -1), keepdims=True)
        return (values - mean) / np.where(deviation > 0, deviation, 1)
    return (values - scaler.mean[:, None]) / scaler.deviation[:, None]


def mel_edges_hz(config: FeatureConfig) -> np.ndarray:
    """Return the edges of the mel bands in Hz [n_mels + 2]; band b peaks at edge b + 1 and ends at edge b + 2."""
    import librosa

    return librosa.mel_frequencies(config.n_mels + 2, fmin=config.fmin_hz, fmax=config.fmax_hz)


@functools.lru_cache(maxsize=16)
def _filterbank(config: FeatureConfig) -> "scipy.sparse.csr_array":
    """Return librosa's mel filterbank [n_mels, 1 + n_fft // 2]."""
    import librosa
    import scipy.sparse

    limits = {"n_mels": config.n_mels, "fmin": config.fmin_hz, "fmax": config.fmax_hz}
    return scipy.sparse.csr_array(
        librosa.filters.mel(sr=config.sample_rate_hz, n_fft=config.n_fft, dtype=np.float64, **limits)
    )
