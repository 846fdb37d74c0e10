"""Recording effects: noise, rooms, equalisers, codecs, clipping, level, pitch and tempo.

Degradations have the signature `effect(signal, sample_rate_hz, level, rng)` and return a signal of the same length,
without the delay of codecs.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from instrlib.audio.decode import fit
from instrlib.core.io import hash_bytes, hash_json

ROOM_VOLUME_M3 = 200.0  # a rehearsal room or a small hall
MICROPHONE_DISTANCE_M = 2.0  # from the instrument
CENTRE_HZ = 800.0  # octaves of equalisers are counted from here

COPY_CHANCE = 0.5  # of pitch, tempo, room and noise, independently, to be changed in a copy
COPY_GAIN_DB = (-12.0, 6.0)
COPY_SEMITONES = (-2.0, 2.0)
COPY_DURATION = (0.85, 1.18)
COPY_SNR_DB = (10.0, 40.0)
COPY_RT60_S = (0.15, 0.8)

_LOWEST_HZ = 20.0  # coloured noise is flat below
_FULL_SCALE_16_BITS = 32_767
_MP3_DELAY_SAMPLES = 1105  # 576 of the encoder and 529 of the decoder
_MP3_KBPS = {
    **dict.fromkeys((48_000, 44_100, 32_000), (32, 320)),
    **dict.fromkeys((24_000, 22_050, 16_000), (8, 160)),
    **dict.fromkeys((12_000, 11_025, 8_000), (8, 64)),
}  # MP3 sample rates, and the bit rates to which libsndfile maps its compression level
_BLOCK = 16_384


def generator(*names: object) -> np.random.Generator:
    """Return a random generator seeded by the names alone, the same in every process."""
    return np.random.default_rng(int(hash_bytes(*(str(name).encode() for name in names))[:16], 16))


def rms(signal: np.ndarray) -> float:
    """Return the root mean square; 0 for an empty signal."""
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) if np.size(signal) else 0.0


def as_loud_as(signal: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Scale `changed` to the RMS of `signal`; silence stays silent."""
    own = rms(changed)
    return changed * (rms(signal) / own) if own > 0 else changed


def add(signal: np.ndarray, other: np.ndarray, snr_db: float) -> np.ndarray:
    """Add another sound with a power `snr_db` below that of the signal."""
    return signal + as_loud_as(signal, other) * 10 ** (-snr_db / 20)


def spectral_gain(signal: np.ndarray, sample_rate_hz: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Multiply the spectrum by a gain, real (no delay) or complex, given as a function of the frequency in Hz."""
    import scipy.fft

    # 200 ms of silence, so that the tail of the filter does not wrap around to the start.
    n_fft = scipy.fft.next_fast_len(len(signal) + round(0.2 * sample_rate_hz), real=True)
    response = gain(np.fft.rfftfreq(n_fft, 1 / sample_rate_hz))
    return scipy.fft.irfft(scipy.fft.rfft(signal, n_fft) * response, n_fft)[: len(signal)]


def coloured_noise(n: int, sample_rate_hz: int, rng: np.random.Generator, *, slope: float = 1.0) -> np.ndarray:
    """Return noise with power proportional to 1 / f ** `slope`: 0 is white, 1 is pink (3 dB per octave)."""
    white = rng.standard_normal(n)
    if slope == 0:
        return white
    frequency_hz = np.maximum(np.fft.rfftfreq(n, 1 / sample_rate_hz), _LOWEST_HZ)
    return np.fft.irfft(np.fft.rfft(white) * frequency_hz ** (-slope / 2), n)


def equaliser_db(
    octaves: np.ndarray,
    rng: np.random.Generator,
    *,
    n: int = 1,
    bells: int = 3,
    largest_db: float = 10.0,
    tilt_db: tuple[float, float] = (-2.5, 2.5),
) -> np.ndarray:
    """Draw `n` equaliser curves in dB [n, n_bins] at `octaves` from `CENTRE_HZ`: broad bells and a tilt per octave."""
    centre = rng.uniform(-3, 3.3, (bells, n, 1))
    width = rng.uniform(0.3, 1.5, (bells, n, 1))
    height_db = rng.uniform(-largest_db, largest_db, (bells, n, 1))
    bell_db = (height_db * np.exp(-0.5 * ((octaves - centre) / width) ** 2)).sum(axis=0)
    return bell_db + rng.uniform(*tilt_db, (n, 1)) * octaves


def equalise(signal: np.ndarray, sample_rate_hz: int, rng: np.random.Generator, **settings: Any) -> np.ndarray:
    """Apply a random equaliser curve; `settings` are those of `equaliser_db`."""

    def gain(frequency_hz: np.ndarray) -> np.ndarray:
        octaves = np.log2(np.maximum(frequency_hz, _LOWEST_HZ) / CENTRE_HZ)
        return 10 ** (equaliser_db(octaves, rng, **settings)[0] / 20)

    return spectral_gain(signal, sample_rate_hz, gain)


def room_response(
    sample_rate_hz: int,
    rt60_s: float,
    rng: np.random.Generator,
    *,
    reverberation_db: float | None = None,
    first_reflection_s: float = 0.005,
) -> np.ndarray:
    """Return the impulse response of a room: the direct sound, then noise that decays by 60 dB in `rt60_s`.

    `reverberation_db` is the energy of the reverberation relative to the direct sound. By default it follows from the
    decay, for an omnidirectional source in a room of `ROOM_VOLUME_M3` at `MICROPHONE_DISTANCE_M`: both are equal at the
    critical distance 0.057 sqrt(V / RT60) (Kuttruff, "Room Acoustics", 2016).
    """
    time_s = np.arange(max(1, round(rt60_s * sample_rate_hz))) / sample_rate_hz
    response = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / rt60_s)
    response[time_s < first_reflection_s] = 0
    size = np.linalg.norm(response)
    if size > 0:
        level = MICROPHONE_DISTANCE_M / (0.057 * math.sqrt(ROOM_VOLUME_M3 / rt60_s))
        response *= (level if reverberation_db is None else 10 ** (reverberation_db / 20)) / size
    response[0] = 1
    return response


def stretch(signal: np.ndarray, sample_rate_hz: int, semitones: float, duration_factor: float = 1.0) -> np.ndarray:
    """Change pitch and duration independently with Signalsmith Stretch; formants shift with the pitch."""
    from python_stretch.Signalsmith import Stretch

    engine = Stretch(0)
    engine.preset(1, sample_rate_hz)
    engine.setTransposeSemitones(semitones)
    engine.setTimeFactor(1 / duration_factor)
    return engine.process(np.asarray(signal, np.float32)[None])[0].astype(np.float64)


def encode(signal: np.ndarray, sample_rate_hz: int, **settings: str | float) -> io.BytesIO:
    """Encode mono samples in memory, with `settings` of `soundfile.SoundFile`."""
    import soundfile

    encoded = io.BytesIO()
    with soundfile.SoundFile(encoded, "w", sample_rate_hz, channels=1, **settings) as file:
        for first in range(0, len(signal), _BLOCK):  # libsndfile's Vorbis encoder keeps a whole write on the stack
            file.write(signal[first : first + _BLOCK])
    encoded.seek(0)
    return encoded


def room(signal: np.ndarray, sample_rate_hz: int, rt60_s: float, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation, see `room_response`, at the RMS of the signal; the tail beyond its end is cut."""
    from scipy.signal import oaconvolve

    response = room_response(sample_rate_hz, rt60_s, rng)
    return as_loud_as(signal, oaconvolve(signal, response)[: len(signal)])


def mp3(signal: np.ndarray, sample_rate_hz: int, bit_rate_kbps: float, rng: np.random.Generator) -> np.ndarray:
    """Encode as MP3 (LAME, through libsndfile) at a constant bit rate of 8 to 320 kbit/s, and decode.

    Below 32 kbit/s, MP3 requires a sample rate below 32 kHz; the signal is then resampled, as LAME does.
    """
    import soundfile
    import soxr

    ranges = ((rate, *kbps) for rate, kbps in _MP3_KBPS.items() if rate <= sample_rate_hz)
    rate_hz, low, high = next((rate, low, high) for rate, low, high in ranges if low <= bit_rate_kbps <= high)
    compression = min(max((high - bit_rate_kbps - 0.5) / (high - low), 0.0), 1.0)  # libsndfile rounds down
    settings = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    encoded = encode(soxr.resample(signal, sample_rate_hz, rate_hz), rate_hz, compression_level=compression, **settings)
    decoded = soundfile.read(encoded, dtype="float64")[0]
    if len(decoded) > round(len(signal) * rate_hz / sample_rate_hz):
        decoded = decoded[_MP3_DELAY_SAMPLES:]  # at low bit rates no frame has space for the header with the delay
    return fit(soxr.resample(decoded, rate_hz, sample_rate_hz), len(signal))


def vorbis(signal: np.ndarray, sample_rate_hz: int, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Encode as Ogg Vorbis at a quality from 10 to 0, the scale of `oggenc -q`, and decode."""
    import soundfile

    encoded = encode(signal, sample_rate_hz, format="OGG", subtype="VORBIS", compression_level=1 - quality / 10)
    return soundfile.read(encoded, dtype="float64")[0][: len(signal)]


@dataclass(frozen=True)
class Degradation:
    """An effect at several levels, from mild to severe, in `unit`."""

    name: str
    label: str
    unit: str
    levels: tuple[float, ...]
    function: Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]


DEGRADATIONS: dict[str, Degradation] = {
    row[0]: Degradation(*row)
    for row in (
        # Most background noise falls by about 3 dB per octave.
        ("noise", "pink noise", "dB SNR", (40, 30, 20, 10, 0),
         lambda x, rate_hz, snr_db, rng: add(x, coloured_noise(len(x), rate_hz, rng), snr_db)),
        ("room", "room", "s RT60", (0.25, 0.5, 1, 2), room),
        # As by a small loudspeaker: Butterworth magnitude of order 8 without phase, 48 dB per octave.
        ("low_pass", "low-pass", "Hz", (8000, 4000, 2000, 1000), lambda x, rate_hz, cutoff_hz, rng: as_loud_as(
            x, spectral_gain(x, rate_hz, lambda hz: 1 / np.sqrt(1 + (hz / cutoff_hz) ** 16)))),
        ("mp3", "MP3", "kbit/s", (64, 32, 16, 8), mp3),
        ("vorbis", "Ogg Vorbis", "of 10 in quality", (6, 3, 0), vorbis),
        ("clipping", "clipping", "dB over full scale", (6, 12, 20, 30),
         lambda x, rate_hz, drive_db, rng: np.clip(x * (10 ** (drive_db / 20) / np.abs(x).max()), -1, 1)),
        # 16 bits without dither; a peak of -60 dBFS spans about 65 steps.
        ("quiet", "low level", "dBFS peak", (-20, -40, -60), lambda x, rate_hz, peak_dbfs, rng: np.rint(
            x * (10 ** (peak_dbfs / 20) / np.abs(x).max() * _FULL_SCALE_16_BITS)) / _FULL_SCALE_16_BITS),
        ("pitch_up", "pitch up", "semitones", (1, 2, 4, 7), lambda x, rate, by, rng: stretch(x, rate, by)),
        ("pitch_down", "pitch down", "semitones", (-1, -2, -4, -7), lambda x, rate, by, rng: stretch(x, rate, by)),
    )
}  # fmt: skip


def degrade(signal: np.ndarray, sample_rate_hz: int, name: str, level: float, rng: np.random.Generator) -> np.ndarray:
    """Degrade a recording by `name`, one of `DEGRADATIONS`, at a `level` in its unit; silence is returned unchanged."""
    signal = np.asarray(signal)
    if not signal.any():
        return signal.copy()
    return DEGRADATIONS[name].function(signal.astype(np.float64), sample_rate_hz, level, rng).astype(signal.dtype)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Changed copies of every segment, determined by seed, clip, offset and number; a store takes them as `change`."""

    seed: int = 0
    n_copies: int = 1

    @property
    def fingerprint(self) -> str:
        """Hash of the settings; the key of a store also contains the code."""
        return hash_json([type(self).__name__, vars(self)])[:16]

    def copies(self, signal: np.ndarray, *, sample_rate_hz: int, clip_id: str, offset_s: float) -> Iterator[np.ndarray]:
        """Yield `n_copies` copies of one segment, each as long as the signal."""
        for copy in range(1, self.n_copies + 1):
            rng = generator(self.seed, copy, clip_id, f"{offset_s:.6f}")
            yield self.change(signal, sample_rate_hz, clip_id, rng)

    def change(self, signal: np.ndarray, sample_rate_hz: int, clip_id: str, rng: np.random.Generator) -> np.ndarray:
        """Return one copy."""
        raise NotImplementedError


class ChangedCopies(Change):
    """Augmented copies for training: a random gain and, by chance, pitch, tempo, room and white noise."""

    def change(self, signal: np.ndarray, sample_rate_hz: int, clip_id: str, rng: np.random.Generator) -> np.ndarray:
        """Return one copy; silence is returned unchanged."""
        pitched, stretched, in_room, noisy = rng.random(4) < COPY_CHANCE
        semitones, factor = rng.uniform(*COPY_SEMITONES), rng.uniform(*COPY_DURATION)
        if not signal.any():
            return signal.copy()
        changed = signal.astype(np.float64)
        if pitched or stretched:
            changed = stretch(changed, sample_rate_hz, semitones * pitched, factor if stretched else 1.0)
            changed = fit(changed, len(signal))
        if in_room:
            changed = room(changed, sample_rate_hz, rng.uniform(*COPY_RT60_S), rng)
        if noisy:
            changed = add(changed, rng.standard_normal(len(signal)), rng.uniform(*COPY_SNR_DB))
        return (changed * 10 ** (rng.uniform(*COPY_GAIN_DB) / 20)).astype(signal.dtype)
