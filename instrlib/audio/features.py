"""From samples to the picture that a network sees: log-mel spectrogram, MFCC or PCEN of one segment.

The values are librosa's to 1e-4 dB, computed without it: frames are transformed in float64 (in float32 the rounding of
a loud partial reaches 1e-3 dB in a band 80 dB below it), and each run of neighbouring mel bands is multiplied only with
the FFT bins under it.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError

MIN_SEGMENT_SHARE = 0.25
"""A further segment starts only where at least this share of it is still sound."""

REFERENCE_FLOOR = 1e-6
"""Least mel power that stands at 0 dB: the largest in white noise that peaks at -80 dBFS, so dither stays dark."""

PCEN_SCALE = 2.0**31
PCEN_TIME_CONSTANT_S = 0.4
PCEN_GAIN = 0.98
PCEN_BIAS = 2.0
PCEN_POWER = 0.5
PCEN_EPSILON = 1e-6
"""Settings of `pcen`, librosa's: samples are scaled to 32-bit integers, for which they were found."""

_BLOCK_FRAMES = 64  # Frames transformed at a time: their spectra (1 MB) stay in the cache.
_BLOCK_BANDS = 8  # Mel bands multiplied at a time: wide enough for BLAS, narrow enough to skip most zeros.


def spectrum(signal: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Compute the features of one segment.

    Mel power spectrogram (Hann window, centred frames, zeros beyond both ends, Slaney's mel scale and area
    normalisation) in dB below the segment's loudest value (below `REFERENCE_FLOOR`, when even that is quieter), cut at
    `-config.top_db`. Silence, and what is missing at the end of a short segment, is the floor `-top_db`. For "mfcc":
    the orthonormal type-II cosine transform of that along the bands, first `n_mfcc` coefficients. For
    "pcen": see `pcen`, of the mel spectrogram of magnitudes.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples at `config.sample_rate_hz`, at most `config.segment_samples` of them.
    config : FeatureConfig
        The settings.

    Returns
    -------
    np.ndarray [shape=config.shape, float32]
        dB from -top_db to 0, or coefficients, or PCEN from 0 (silence) to about 6.

    Raises
    ------
    ValueError
        When the signal is longer than a segment.

    See Also
    --------
    librosa.feature.melspectrogram, librosa.power_to_db, librosa.feature.mfcc
        The reference. `power_to_db` differs where its `amin` acts: it puts an all-zero segment at 0 dB.

    References
    ----------
    .. [1] Davis, Mermelstein. "Comparison of parametric representations for monosyllabic word recognition in
       continuously spoken sentences." IEEE Trans. ASSP 28(4), 1980. doi:10.1109/TASSP.1980.1163420

    Examples
    --------
    >>> config = FeatureConfig()
    >>> time_s = np.arange(config.segment_samples) / config.sample_rate_hz
    >>> values = spectrum(np.sin(2 * np.pi * 440 * time_s), config)
    >>> values.shape, float(values.max())
    ((64, 130), 0.0)
    >>> set(spectrum(np.zeros(1000), config).ravel().tolist())
    {-80.0}
    """
    if len(signal) > config.segment_samples:
        raise ValueError(f"a segment has at most {config.segment_samples} samples, not {len(signal)}")
    if config.kind == "pcen":
        return pcen(_mel(signal, config), config).astype(np.float32, order="C")
    power = _mel(signal, config)
    reference = max(float(power.max()), REFERENCE_FLOOR)
    level_db = 10 * np.log10(np.maximum(power / reference, 10 ** (-config.top_db / 10)))
    if config.kind == "mfcc":
        from scipy.fft import dct

        level_db = dct(level_db, type=2, axis=0, norm="ortho")[: config.n_mfcc]
    return level_db.astype(np.float32, order="C")


def silence(config: FeatureConfig) -> np.ndarray:
    """Return the value of silence in each row of the picture: the floor, never 0 dB; masks are filled with it.

    Parameters
    ----------
    config : FeatureConfig
        The settings.

    Returns
    -------
    np.ndarray [shape=(n_bins,), float32]

    Examples
    --------
    >>> silence(FeatureConfig(n_mels=3)).tolist()
    [-80.0, -80.0, -80.0]
    """
    return spectrum(np.zeros(0), config)[:, 0]


def pcen(magnitude: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Per-channel energy normalisation: each band divided by its own slowly following level, then compressed.

    What is steady, such as hum and noise, sinks; what sets in stands out. The level of the recording hardly matters, so
    nothing is measured against the segment's loudest value, and even faint noise is brought up.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(n_mels, n_frames)]
        Mel spectrogram of magnitudes, not powers, of samples from -1 to 1.
    config : FeatureConfig
        Its `hop_s` decides how fast the level follows.

    Returns
    -------
    np.ndarray [shape=(n_mels, n_frames), float64]
        0 for silence, about 0.5 for what is steady, 3 to 6 where a sound sets in.

    See Also
    --------
    librosa.pcen
        The reference.

    References
    ----------
    .. [1] Wang, Getreuer, Hughes, Lyon, Saurous. "Trainable frontend for robust and far-field keyword spotting."
       ICASSP 2017. arXiv:1607.05666

    Examples
    --------
    >>> hum = np.ones((1, 400))
    >>> hum[:, 200:] *= 2
    >>> pcen(hum, FeatureConfig())[0, [199, 200, 399]].round(1).tolist()
    [0.5, 0.8, 0.5]
    """
    from scipy.signal import lfilter

    scaled = magnitude * PCEN_SCALE
    n_frames = PCEN_TIME_CONSTANT_S / config.hop_s
    follow = (math.sqrt(1 + 4 * n_frames**2) - 1) / (2 * n_frames**2)
    # The level begins at 1, next to nothing at this scale.
    level, _ = lfilter([follow], [1, follow - 1], scaled, axis=1, zi=np.full((len(scaled), 1), 1 - follow))
    ratio = scaled * (PCEN_EPSILON + level) ** -PCEN_GAIN
    return PCEN_BIAS**PCEN_POWER * np.expm1(PCEN_POWER * np.log1p(ratio / PCEN_BIAS))


def segment_starts(duration_s: float, config: FeatureConfig) -> np.ndarray:
    """Say where the segments of a clip begin.

    One at 0, then one every `segment_hop_s` as long as `MIN_SEGMENT_SHARE` of a segment is left; when these are more
    than `max_segments`, that many of them, spread evenly over the clip (full ones only, where there are enough).

    Parameters
    ----------
    duration_s : float
        Duration of the clip.
    config : FeatureConfig
        The settings.

    Returns
    -------
    np.ndarray [shape=(n_segments,), float64]
        Starts in seconds from the clip's beginning, ascending; at least one.

    Examples
    --------
    >>> segment_starts(7.0, FeatureConfig()).tolist()
    [0.0, 3.0, 6.0]
    >>> segment_starts(60.0, FeatureConfig(max_segments=3)).tolist()
    [0.0, 30.0, 57.0]
    """
    starts = _grid(duration_s - MIN_SEGMENT_SHARE * config.segment_s, config.segment_hop_s)
    if len(starts) > config.max_segments:
        full = _grid(duration_s - config.segment_s, config.segment_hop_s)
        starts = full if len(full) >= config.max_segments else starts
        starts = starts[np.linspace(0, len(starts) - 1, config.max_segments).round().astype(int)]
    return starts


@dataclass(frozen=True)
class Scaler:
    """Mean and deviation of each band over the training part; see `instrlib.data.store.fit_scaler`.

    Attributes
    ----------
    mean, deviation : np.ndarray [shape=(n_bins,), float32]
        In the unit of the features; a band that never changes has deviation 1.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists, for JSON."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild the scaler from `to_dict`."""
        return cls(np.asarray(values["mean"], np.float32), np.asarray(values["deviation"], np.float32))


def scale(values: np.ndarray, config: FeatureConfig, scaler: Scaler | None = None) -> np.ndarray:
    """Bring features to the range that a network learns from, as `config.scaling` says.

    Parameters
    ----------
    values : np.ndarray [shape=(..., n_bins, n_frames)]
        What `spectrum` gives.
    config : FeatureConfig
        "fixed": dB / top_db + 1, from 0 (silence) to 1 (loudest); of MFCC, the transform of that; PCEN as it is, from 0
        (silence) and of the order of 1. "segment": each segment to mean 0 and deviation 1. "train": each band by the
        scaler.
    scaler : Scaler, optional
        Fitted on the training part; "train" alone needs it.

    Returns
    -------
    np.ndarray [shape of values, float32]

    Raises
    ------
    ConfigError
        When the scaling is "train" and there is no scaler.

    Examples
    --------
    >>> scale(np.array([[-80.0, -20.0, 0.0]]), FeatureConfig(scaling="fixed")).tolist()
    [[0.0, 0.75, 1.0]]
    """
    values = np.asarray(values, np.float32)
    if config.scaling == "fixed" and config.kind == "pcen":
        return values
    if config.scaling == "fixed":
        scaled = values / np.float32(config.top_db)
        if config.kind == "log_mel":
            scaled += 1
        else:
            scaled[..., 0, :] += math.sqrt(config.n_mels)  # The transform of a picture of ones.
        return scaled
    if config.scaling == "segment":
        mean = values.mean(axis=(-2, -1), keepdims=True)
        deviation = values.std(axis=(-2, -1), keepdims=True)
        return (values - mean) / np.where(deviation > 0, deviation, 1)
    if scaler is None:
        raise ConfigError('The scaling "train" needs a scaler; fit one on the training part with store.fit_scaler.')
    return (values - scaler.mean[:, None]) / scaler.deviation[:, None]


def sounding(level_db: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Say which frames hold sound: those with a band above the floor.

    A short segment is padded with silence; statistics over all of its frames would tell how long it is.

    Parameters
    ----------
    level_db : np.ndarray [shape=(..., n_mels, n_frames)]
        Log-mel spectrograms as `spectrum` gives them, not yet scaled.
    config : FeatureConfig
        Its `top_db` is the floor.

    Returns
    -------
    np.ndarray of bool [shape=(..., n_frames)]
        All of them where no frame is above the floor, so that there is always something to average.

    Examples
    --------
    >>> sounding(np.array([[-80.0, -20.0, -80.0], [-80.0, -80.0, 0.0]]), FeatureConfig())
    array([False,  True,  True])
    """
    above = (np.asarray(level_db) > -config.top_db).any(axis=-2)
    return above | ~above.any(axis=-1, keepdims=True)


def mel_basis(config: FeatureConfig) -> np.ndarray:
    """Weights of the FFT bins in each mel band: triangles of equal area, evenly spaced on Slaney's mel scale.

    Parameters
    ----------
    config : FeatureConfig
        The settings.

    Returns
    -------
    np.ndarray [shape=(n_mels, 1 + n_fft // 2), float64]

    References
    ----------
    .. [1] Slaney. "Auditory Toolbox, version 2." Interval Research Technical Report 1998-010.

    Examples
    --------
    >>> mel_basis(FeatureConfig(n_mels=10)).shape
    (10, 1025)
    """
    edges_hz = mel_edges_hz(config)
    bins_hz = np.arange(1 + config.n_fft // 2) * config.sample_rate_hz / config.n_fft
    lower, centre, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangle = np.minimum((bins_hz - lower) / (centre - lower), (upper - bins_hz) / (upper - centre))
    return np.maximum(triangle, 0) * 2 / (upper - lower)


def mel_edges_hz(config: FeatureConfig) -> np.ndarray:
    """Frequencies of the mel bands' edges: band b rises from edge b to its peak at b + 1 and falls to b + 2.

    Parameters
    ----------
    config : FeatureConfig
        The settings.

    Returns
    -------
    np.ndarray [shape=(n_mels + 2,), float64]
        In Hz, from `fmin_hz` to `fmax_hz`.

    Examples
    --------
    >>> mel_edges_hz(FeatureConfig(n_mels=4, fmin_hz=0.0, fmax_hz=1000.0)).round(9).tolist()
    [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
    """
    mel = np.linspace(_hz_to_mel(config.fmin_hz), _hz_to_mel(config.fmax_hz), config.n_mels + 2)
    return np.where(mel < _KNEE_MEL, mel * _LINEAR_HZ, _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL)))


# Slaney's scale: 3 mel in 200 Hz up to 1000 Hz, then 27 mel for each factor of 6.4.
_LINEAR_HZ = 200 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_HZ
_LOG_STEP = math.log(6.4) / 27


def _hz_to_mel(frequency_hz: float) -> float:
    if frequency_hz < _KNEE_HZ:
        return frequency_hz / _LINEAR_HZ
    return _KNEE_MEL + math.log(frequency_hz / _KNEE_HZ) / _LOG_STEP


def _grid(last_s: float, hop_s: float) -> np.ndarray:
    """Return 0, hop_s, 2 hop_s ... up to last_s, which may be missed by rounding; at least the 0."""
    return np.arange(max(0, math.floor(last_s / hop_s + 1e-6)) + 1) * hop_s


def _mel(signal: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Mel power of one segment, or magnitude for PCEN [shape=(n_mels, n_frames), float64]; 0 past the signal's end."""
    n_fft, hop = config.n_fft, config.hop_length
    window, bands = _kernels(config)
    margin = n_fft // 2
    n_sounding = min(config.n_frames, -(-(len(signal) + margin) // hop))
    padded = np.zeros((n_sounding - 1) * hop + n_fft + hop)
    padded[margin : margin + len(signal)] = signal[: len(padded) - margin]
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    bands_of_frames = np.zeros((config.n_frames, config.n_mels))
    for first in range(0, n_sounding, _BLOCK_FRAMES):
        rows = slice(first, min(first + _BLOCK_FRAMES, n_sounding))
        transform = np.fft.rfft(frames[rows] * window, axis=1)
        if config.kind == "pcen":
            parts = np.abs(transform)
        else:
            # Real and imaginary parts side by side; the kernels hold every weight twice.
            parts = transform.view(np.float64)
            np.multiply(parts, parts, out=parts)
        for columns, bins, weights in bands:
            np.matmul(parts[:, bins], weights, out=bands_of_frames[rows, columns])
    return bands_of_frames.T


@functools.lru_cache(maxsize=16)
def _kernels(config: FeatureConfig) -> tuple[np.ndarray, list[tuple[slice, slice, np.ndarray]]]:
    """Return the window, and for each run of bands: its columns, the FFT parts under it, their weights."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    basis = mel_basis(config)
    parts = 1 if config.kind == "pcen" else 2  # of a bin: its magnitude, or the squares that make its power
    bands = []
    for first in range(0, config.n_mels, _BLOCK_BANDS):
        columns = slice(first, min(first + _BLOCK_BANDS, config.n_mels))
        under = np.flatnonzero(basis[columns].any(axis=0))
        if under.size:  # Narrow bands can fall between two bins and stay empty, as in librosa.
            low, high = under[0], under[-1] + 1
            weights = np.repeat(basis[columns, low:high].T, parts, axis=0)
            bands.append((columns, slice(parts * low, parts * high), weights))
    return window, bands
