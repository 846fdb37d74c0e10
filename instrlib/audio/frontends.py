"""Log-mel patches as VGGish and YAMNet were trained on them, from samples at 16 kHz.

They differ from `features`: frames are not centred, the filterbank is applied to magnitudes instead of powers, the
triangles of the HTK mel scale are linear in mel, and the logarithm is natural [1]_.

References
----------
.. [1] S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017.
   https://github.com/tensorflow/models/tree/master/research/audioset
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 400
HOP_SAMPLES = 160
N_FFT = 512
N_MELS = 64
FMIN_HZ = 125.0
FMAX_HZ = 7500.0
PATCH_FRAMES = 96
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP_SAMPLES + FRAME_SAMPLES
"""Samples under a patch: 15,600, or 0.975 s."""


@dataclass(frozen=True)
class FrontEnd:
    """Settings that differ between the two networks."""

    log_offset: float  # added to the mel magnitudes
    patch_hop_frames: int  # between the starts of two patches
    pad_last: bool  # whether an incomplete last patch is padded or dropped

    @property
    def hop_s(self) -> float:
        """Time between the starts of two patches, in seconds."""
        return self.patch_hop_frames * HOP_SAMPLES / SAMPLE_RATE_HZ


VGGISH = FrontEnd(log_offset=0.01, patch_hop_frames=96, pad_last=False)
YAMNET = FrontEnd(log_offset=0.001, patch_hop_frames=48, pad_last=True)


def patches(signal: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Return the input patches of the network [n_patches, PATCH_FRAMES, N_MELS], float32; at least one."""
    values = log_mel(fill_up(signal, front_end), front_end)
    windows = np.lib.stride_tricks.sliding_window_view(values, PATCH_FRAMES, axis=0)
    return windows[:: front_end.patch_hop_frames].transpose(0, 2, 1)


def fill_up(signal: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Append silence until the first patch is full; with `pad_last`, until the last patch is full."""
    n_over = max(len(signal) - PATCH_SAMPLES, 0)
    hop = front_end.patch_hop_frames * HOP_SAMPLES
    n_filled = PATCH_SAMPLES + (math.ceil(n_over / hop) * hop if front_end.pad_last else n_over)
    return np.pad(np.asarray(signal, np.float32), (0, n_filled - len(signal)))


def log_mel(signal: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Return the log-mel spectrogram before it is cut into patches [n_frames, N_MELS], natural logarithms."""
    import scipy.signal

    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(signal, np.float64), FRAME_SAMPLES)[::HOP_SAMPLES]
    window = scipy.signal.get_window("hann", FRAME_SAMPLES)
    magnitude = np.abs(np.fft.rfft(frames * window, N_FFT, axis=1))
    return np.log(magnitude @ mel_matrix() + front_end.log_offset).astype(np.float32)


@functools.cache
def mel_matrix() -> np.ndarray:
    """Return the matrix of `tf.signal.linear_to_mel_weight_matrix` [1 + N_FFT // 2, N_MELS], linear in mel."""
    bins = _mel(np.arange(N_FFT // 2 + 1) * SAMPLE_RATE_HZ / N_FFT)[:, None]
    edges = np.linspace(_mel(FMIN_HZ), _mel(FMAX_HZ), N_MELS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)), 0)
    weights[0] = 0  # the DC component
    return weights


def _mel(frequency_hz: np.ndarray | float) -> np.ndarray:
    return 1127 * np.log1p(np.asarray(frequency_hz) / 700)
