"""Decode audio files to mono samples at one rate, with libsndfile and soxr.

A file that cannot be used raises an `AudioError`, whose message is the path, a colon and the reason. Truncated wav, ogg
and mp3 files are used up to the damage if that lasts at least `MIN_DURATION_S`; truncated flac files raise.
"""

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instrlib.core.io import AudioError

if TYPE_CHECKING:
    import soundfile

MIN_DURATION_S = 0.05
"""A shorter sound is refused."""

SILENCE_DBFS = -80.0
"""A signal whose peak stays below this (full scale is 1.0) is silent; 16-bit dither peaks near -90."""

_SILENCE_PEAK = 10 ** (SILENCE_DBFS / 20)
_UNKNOWN_FRAMES = 2**62  # libsndfile returns 2**63 - 1 for streamed flac files
_MAX_FRAMES_A_BYTE = 8192  # flac stores at most 65,535 equal samples in about 13 bytes; other formats fewer
_BLOCK_FRAMES = 2**20  # frames per read, so that memory follows the content and not the header


@dataclass(frozen=True)
class AudioInfo:
    """Duration and format from the header of a file; a truncated mp3 states its original duration."""

    sample_rate_hz: int
    n_channels: int
    duration_s: float


def probe(path: Path) -> AudioInfo:
    """Read the header of a file; raise `AudioError` when the file cannot be used."""
    with _opened(path) as file:
        info = AudioInfo(file.samplerate, file.channels, file.frames / file.samplerate)
    _check_duration(path, info.duration_s)
    return info


def load(path: Path, *, sample_rate_hz: int, start_s: float = 0.0, duration_s: float | None = None) -> np.ndarray:
    """Decode a file, or a part of it, to mono at one rate.

    The values agree with `librosa.load`: channels are averaged, then resampled with soxr's HQ filter.

    Parameters
    ----------
    path : Path
        A wav, flac, ogg or mp3 file; 8 to 32 bits or float, any number of channels, any rate.
    sample_rate_hz : int
        Rate of the result.
    start_s, duration_s : float
        Start and length of the part, which ends at the end of the file at the latest; default: the whole file.

    Returns
    -------
    np.ndarray [shape=(n,), float32]
        Samples, within -1 to 1 for integer formats.

    Raises
    ------
    AudioError
        When the file is missing, empty or not audio, or when the decoded part is shorter than `MIN_DURATION_S`, silent
        (peak below `SILENCE_DBFS`), or contains NaN or infinity.
    """
    import soxr

    with _opened(path) as file:
        rate_hz = file.samplerate
        first = min(round(start_s * rate_hz), file.frames)
        if first:
            file.seek(first)
        n_frames = file.frames - first if duration_s is None else round(duration_s * rate_hz)
        signal = _read(file, n_frames)
    _check_duration(path, len(signal) / rate_hz)
    if rate_hz != sample_rate_hz:
        n_samples = _n_resampled(len(signal), rate_hz, sample_rate_hz)
        signal = fit(soxr.resample(signal, rate_hz, sample_rate_hz, quality="HQ"), n_samples)
    _check_level(path, _finite_peak(path, signal))
    return signal


def blocks(path: Path, *, sample_rate_hz: int, block_s: float) -> Iterator[np.ndarray]:
    """Decode a file in blocks of about `block_s` seconds, in constant memory.

    The concatenated blocks equal `load` of the whole file, with the same errors. A file that is too short or silent
    raises at its end.
    """
    import soxr

    n_in = n_out = 0
    peak = 0.0
    with _opened(path) as file:
        rate_hz = file.samplerate
        stream = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
        n_block = max(1, round(block_s * rate_hz))
        last = False
        while not last:
            signal = _mono(file.read(n_block, dtype="float32"))
            n_in += len(signal)
            last = len(signal) < n_block
            if rate_hz != sample_rate_hz:
                signal = stream.resample_chunk(signal, last=last)
                if last:
                    signal = fit(signal, _n_resampled(n_in, rate_hz, sample_rate_hz) - n_out)
            if signal.size:
                n_out += len(signal)
                peak = max(peak, _finite_peak(path, signal))
                yield signal
    _check_duration(path, n_in / rate_hz)
    _check_level(path, peak)


def is_silent(signal: np.ndarray) -> bool:
    """Return whether the peak of a signal is below `SILENCE_DBFS`; an empty signal is silent."""
    return _peak(signal) < _SILENCE_PEAK


def fit(signal: np.ndarray, n: int) -> np.ndarray:
    """Cut a signal to `n` samples, or append silence."""
    return signal[:n] if len(signal) >= n else np.pad(signal, (0, n - len(signal)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["soundfile.SoundFile"]:
    """Open a file that has samples; errors of libsndfile become an `AudioError`."""
    import soundfile

    path = Path(path)
    try:
        found = path.stat()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from error
    if not stat.S_ISREG(found.st_mode):
        raise AudioError(f"{path}: not a regular file; give the path of an audio file.")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path}: permission denied; change its permissions.")
    if found.st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); copy or download it again.")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: the suffix .raw requires a format
        raise _not_decodable(path) from error
    except UnicodeEncodeError as error:  # libsndfile's binding accepts valid text only
        raise AudioError(f"{path}: its name is not in UTF-8; rename the file.") from error
    with file:
        if file.frames == 0:
            raise AudioError(f"{path}: no samples after the header; export it again.")
        if file.frames > _UNKNOWN_FRAMES:
            raise AudioError(f"{path}: its header does not state the length; export it to a file instead of a pipe.")
        if file.frames > _MAX_FRAMES_A_BYTE * found.st_size:
            raise AudioError(
                f"{path}: damaged header ({file.frames} samples in {found.st_size} bytes); export it again."
            )
        try:
            yield file
        except soundfile.SoundFileError as error:
            raise _not_decodable(path) from error


def _not_decodable(path: Path) -> AudioError:
    # libsndfile's own message is omitted: for a text file named .mp3 it claims that the file does not exist.
    return AudioError(f"{path}: cannot be decoded; it is damaged or not audio. Give a wav, flac, ogg or mp3 file.")


def _read(file: "soundfile.SoundFile", n_frames: int) -> np.ndarray:
    parts = [np.zeros(0, np.float32)]
    while n_frames > 0:
        n_block = min(n_frames, _BLOCK_FRAMES)
        parts.append(_mono(file.read(n_block, dtype="float32")))
        n_frames -= n_block
        if len(parts[-1]) < n_block:
            break
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def _mono(samples: np.ndarray) -> np.ndarray:
    if samples.ndim == 1:
        return samples
    n_channels = samples.shape[1]
    with np.errstate(invalid="ignore"):  # infinities of both signs; the caller raises
        return samples @ np.full(n_channels, 1 / n_channels, np.float32)


def _peak(signal: np.ndarray) -> float:
    # max and min propagate NaN and infinity, without an array of absolute values.
    return float(max(signal.max(), -signal.min())) if signal.size else 0.0


def _n_resampled(n: int, rate_hz: int, sample_rate_hz: int) -> int:
    return math.ceil(n * (sample_rate_hz / rate_hz))


def _check_duration(path: Path, duration_s: float) -> None:
    if duration_s < MIN_DURATION_S:
        raise AudioError(
            f"{path}: too short, {1000 * duration_s:.0f} ms; at least {1000 * MIN_DURATION_S:.0f} ms are needed."
        )


def _finite_peak(path: Path, signal: np.ndarray) -> float:
    peak = _peak(signal)
    if not math.isfinite(peak):
        raise AudioError(f"{path}: some samples are NaN or infinite; export it again.")
    return peak


def _check_level(path: Path, peak: float) -> None:
    if peak < _SILENCE_PEAK:
        raise AudioError(f"{path}: silent; the mean of its channels stays below {SILENCE_DBFS:.0f} dBFS.")
