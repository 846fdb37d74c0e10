"""Decode audio files to mono samples at one rate, with libsndfile and soxr.

A file that cannot be used raises an `AudioError`, whose message is the path, a colon and the reason. Truncated wav, ogg
and mp3 files are used up to the damage if that lasts at least `MIN_DURATION_S`; truncated flac files raise.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instrlib.core.io import AudioError

if TYPE_CHECKING:
    import soundfile

MIN_DURATION_S = 0.05
SILENCE_DBFS = -80.0  # largest peak of silence, relative to 1.0; 16-bit dither peaks near -90
_MAX_FRAMES_A_BYTE = 8192  # flac stores at most 65,535 equal samples in about 13 bytes; other formats fewer
_BLOCK_FRAMES = 2**20  # most frames per read, so that memory follows the content and not the header


@dataclass(frozen=True)
class AudioInfo:
    """Format and duration from the header of a file; a truncated mp3 states its original duration."""

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
    """Decode a file, or a part of it, to mono float32 samples [n] at one rate.

    The values agree with `librosa.load`: channels are averaged, then resampled with soxr's HQ filter. The part ends at
    the end of the file at the latest. A part that is shorter than `MIN_DURATION_S`, silent (peak below `SILENCE_DBFS`),
    or contains NaN or infinity, raises `AudioError`, too.
    """
    part = {"start_s": start_s, "duration_s": duration_s}
    return np.concatenate(list(blocks(path, sample_rate_hz=sample_rate_hz, block_s=math.inf, **part)))


def blocks(
    path: Path, *, sample_rate_hz: int, block_s: float, start_s: float = 0.0, duration_s: float | None = None
) -> Iterator[np.ndarray]:
    """Decode a file in blocks of at most about `block_s` seconds, in constant memory; see `load`.

    A file that is too short or silent raises at its end.
    """
    import soxr

    n_in = n_out = 0
    peak, last = 0.0, False
    with _opened(path) as file:
        rate_hz = file.samplerate
        if first := min(round(start_s * rate_hz), file.frames):
            file.seek(first)
        n_left = file.frames - first if duration_s is None else round(duration_s * rate_hz)
        n_block = max(1, round(min(block_s * rate_hz, _BLOCK_FRAMES)))
        stream = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
        while not last:
            samples = file.read(min(n_block, n_left), dtype="float32", always_2d=True)
            with np.errstate(invalid="ignore"):  # infinities of both signs raise below
                signal = samples @ np.full(file.channels, 1 / file.channels, np.float32)
            n_in, n_left = n_in + len(signal), n_left - len(signal)
            last = n_left == 0 or len(signal) < n_block
            if rate_hz != sample_rate_hz:
                signal = stream.resample_chunk(signal, last=last)
                if last:
                    signal = fit(signal, math.ceil(n_in * (sample_rate_hz / rate_hz)) - n_out)
            if signal.size:
                n_out += len(signal)
                loudest = float(np.abs(signal).max())
                if not math.isfinite(loudest):
                    raise AudioError(f"{path}: some samples are NaN or infinite; export it again.")
                peak = max(peak, loudest)
                yield signal
    _check_duration(path, n_in / rate_hz)
    if peak < 10 ** (SILENCE_DBFS / 20):
        raise AudioError(f"{path}: silent; the mean of its channels stays below {SILENCE_DBFS:.0f} dBFS.")


def is_silent(signal: np.ndarray) -> bool:
    """Return whether the peak of a signal is below `SILENCE_DBFS`; an empty signal is silent."""
    return bool(np.abs(signal).max(initial=0) < 10 ** (SILENCE_DBFS / 20))


def fit(signal: np.ndarray, n: int) -> np.ndarray:
    """Cut a signal to `n` samples, or append silence."""
    return signal[:n] if len(signal) >= n else np.pad(signal, (0, n - len(signal)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["soundfile.SoundFile"]:
    """Open a file that has samples; errors of libsndfile become an `AudioError`."""
    import soundfile

    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise AudioError(f"{path}: not a regular file; give the path of an audio file.")
        with path.open("rb") as content, soundfile.SoundFile(content) as file:
            size = path.stat().st_size
            if file.frames > _MAX_FRAMES_A_BYTE * size:  # streamed flac files state no length, read as 2**63 - 1
                raise AudioError(f"{path}: its header states {file.frames} samples in {size} bytes; export it again.")
            yield file
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: the suffix .raw requires a format
        raise AudioError(
            f"{path}: cannot be decoded; it is empty, damaged or not audio. Give a wav, flac, ogg or mp3 file."
        ) from error
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from error


def _check_duration(path: Path, duration_s: float) -> None:
    if duration_s < MIN_DURATION_S:
        raise AudioError(
            f"{path}: too short, {1000 * duration_s:.0f} ms; at least {1000 * MIN_DURATION_S:.0f} ms are needed."
        )
