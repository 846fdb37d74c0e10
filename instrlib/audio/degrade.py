"""What happens to a recording on its way to a listener: noise, a room, a narrow band, a codec, clipping, level, pitch.

Every degradation is a function of a signal, its sample rate, a level in a unit of its own and a generator. The result
is as long as the signal and begins when it begins: delays of codecs are cut. `DEGRADATIONS` lists them with levels from
mild to severe. `wear` is about damaged instruments, `waveform` about copies to train on; here is what is tested with.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from instrlib.core.errors import ConfigError
from instrlib.core.io import hash_bytes, hash_json

ROOM_VOLUME_M3 = 200.0
"""Volume of the room: that of a rehearsal room or a small hall."""

MICROPHONE_DISTANCE_M = 2.0
"""From the instrument to the microphone, in that room."""

_GAP_S = 0.005
_PINK_FROM_HZ = 20.0
_STEEPNESS = 8  # order of the low-pass: 48 dB an octave
_FULL_SCALE_16_BITS = 32_767
_MP3_DELAY = 1105  # samples: 576 of the encoder and 529 of the decoder
_BLOCK = 16_384


def noise(signal: np.ndarray, sample_rate_hz: int, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add steady pink noise, whose power falls by 3 dB an octave as that of most backgrounds does.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples, not silent.
    sample_rate_hz : int
        Their rate.
    snr_db : float
        Power of the signal over that of the noise, both over the whole recording and all frequencies.
    rng : np.random.Generator
        Decides the noise.

    Returns
    -------
    np.ndarray [shape=(n,), float64]

    References
    ----------
    .. [1] R. F. Voss, J. Clarke, "'1/f noise' in music and speech", Nature 258, 1975. doi:10.1038/258317a0
    """
    n = len(signal)
    frequency_hz = np.fft.rfftfreq(n, 1 / sample_rate_hz)
    pink = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / np.sqrt(np.maximum(frequency_hz, _PINK_FROM_HZ)), n)
    return signal + pink * (_rms(signal) / _rms(pink) * 10 ** (-snr_db / 20))


def room(signal: np.ndarray, sample_rate_hz: int, rt60_s: float, rng: np.random.Generator) -> np.ndarray:
    """Let it sound in a room: the direct sound, and noise that dies away, as dense reflections do [1]_.

    The time of decay is the same at all frequencies, while real rooms lose the treble sooner. How loud the
    reverberation is against the direct sound follows from the time of decay, for a source that radiates alike to all
    sides in a room of `ROOM_VOLUME_M3`, `MICROPHONE_DISTANCE_M` away: at the critical distance of 0.057 sqrt(V / RT60)
    both have the same energy [2]_.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`.
    rt60_s : float
        Time in which the reverberation falls by 60 dB, above 0.
    rng : np.random.Generator
        Decides the reflections.

    Returns
    -------
    np.ndarray [shape=(n,), float64]
        As loud (RMS) as the signal; what rings on beyond its end is cut.

    References
    ----------
    .. [1] J. A. Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979. doi:10.2307/3680280
    .. [2] H. Kuttruff, "Room Acoustics", 6th ed., CRC Press, 2016. doi:10.1201/9781315372150
    """
    from scipy.signal import oaconvolve

    seconds = np.arange(round(rt60_s * sample_rate_hz)) / sample_rate_hz
    response = rng.standard_normal(len(seconds)) * 10 ** (-3 * seconds / rt60_s)
    response[seconds < _GAP_S] = 0
    critical_m = 0.057 * math.sqrt(ROOM_VOLUME_M3 / rt60_s)
    response *= MICROPHONE_DISTANCE_M / critical_m / np.linalg.norm(response)
    response[0] = 1
    return _as_loud_as(signal, oaconvolve(signal, response)[: len(signal)])


def low_pass(signal: np.ndarray, sample_rate_hz: int, cutoff_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Take away what lies above a frequency, as a small speaker or a low sample rate does.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`.
    cutoff_hz : float
        Where 3 dB are lost; above it the spectrum falls by 48 dB an octave. The magnitude is that of a Butterworth
        filter, and there is no phase, so nothing moves.
    rng : np.random.Generator
        Not used.

    Returns
    -------
    np.ndarray [shape=(n,), float64]
        As loud (RMS) as the signal.
    """
    import scipy.fft

    # Room behind the end: what the filter rings on there would come round to the beginning.
    n_fft = scipy.fft.next_fast_len(len(signal) + sample_rate_hz // 5, real=True)
    frequency_hz = np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)
    gain = 1 / np.sqrt(1 + (frequency_hz / cutoff_hz) ** (2 * _STEEPNESS))
    return _as_loud_as(signal, scipy.fft.irfft(scipy.fft.rfft(signal, n_fft) * gain, n_fft)[: len(signal)])


def mp3(signal: np.ndarray, sample_rate_hz: int, bit_rate_kbps: float, rng: np.random.Generator) -> np.ndarray:
    """Encode as MP3 (LAME, through libsndfile) at a constant bit rate, and decode it again.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`; one of the rates that MP3 knows, such as 22,050 or 44,100 Hz.
    bit_rate_kbps : float
        Of the one channel: 8 to 160 kbit/s below a rate of 32 kHz (8 to 64 below 16 kHz), 32 to 320 from there on.
    rng : np.random.Generator
        Not used.

    Returns
    -------
    np.ndarray [shape=(n,), float64]

    Raises
    ------
    ConfigError
        When MP3 has no such bit rate at this sample rate.
    """
    # The ranges that libsndfile spreads its compression level over; it takes no bit rate.
    low, high = (32, 320) if sample_rate_hz >= 32_000 else (8, 160) if sample_rate_hz >= 16_000 else (8, 64)
    if not low <= bit_rate_kbps <= high:
        raise ConfigError(f"MP3 at {sample_rate_hz} Hz has {low} to {high} kbit/s, not {bit_rate_kbps!r}.")
    # Half a kbit/s more, because libsndfile cuts what comes out to a whole number.
    compression = min(max((high - bit_rate_kbps - 0.5) / (high - low), 0.0), 1.0)
    settings = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    decoded = _decoded(encode(signal, sample_rate_hz, compression_level=compression, **settings))
    # At low bit rates no frame has room for the header that tells a decoder how much to leave out.
    return decoded[_MP3_DELAY:][: len(signal)] if len(decoded) > len(signal) else decoded


def vorbis(signal: np.ndarray, sample_rate_hz: int, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Encode as Ogg Vorbis (through libsndfile) at a quality, and decode it again.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`.
    quality : float
        From 10 to 0, the scale of `oggenc -q`. The bit rate varies with the sound.
    rng : np.random.Generator
        Not used.

    Returns
    -------
    np.ndarray [shape=(n,), float64]

    Raises
    ------
    ConfigError
        When the quality is out of range.
    """
    if not 0 <= quality <= 10:
        raise ConfigError(f"The quality of Ogg Vorbis must lie between 0 and 10, not {quality!r}.")
    settings = {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - quality / 10}
    return _decoded(encode(signal, sample_rate_hz, **settings))[: len(signal)]


def clipping(signal: np.ndarray, sample_rate_hz: int, drive_db: float, rng: np.random.Generator) -> np.ndarray:
    """Drive the recording over full scale, where it is cut hard.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`.
    drive_db : float
        How far its peak would lie over full scale.
    rng : np.random.Generator
        Not used.

    Returns
    -------
    np.ndarray [shape=(n,), float64]
        From -1 to 1.
    """
    return np.clip(signal * (10 ** (drive_db / 20) / np.abs(signal).max()), -1, 1)


def quiet(signal: np.ndarray, sample_rate_hz: int, peak_dbfs: float, rng: np.random.Generator) -> np.ndarray:
    """Record it too quietly, in 16 bits, without dither.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`.
    peak_dbfs : float
        Where its peak lies against full scale, at most 0. At -60 dB the loudest wave spans some 65 steps.
    rng : np.random.Generator
        Not used.

    Returns
    -------
    np.ndarray [shape=(n,), float64]
        Whole steps of 1 / 32767.
    """
    gain = 10 ** (peak_dbfs / 20) / np.abs(signal).max()
    return np.rint(signal * (gain * _FULL_SCALE_16_BITS)) / _FULL_SCALE_16_BITS


def pitch(signal: np.ndarray, sample_rate_hz: int, semitones: float, rng: np.random.Generator) -> np.ndarray:
    """Shift the pitch of the whole recording and keep its duration (Signalsmith Stretch [1]_).

    Formants move along, which no player in another key would do: the body of the instrument grows or shrinks as well.

    Parameters
    ----------
    signal, sample_rate_hz
        As for `noise`.
    semitones : float
        How far, up or (below 0) down.
    rng : np.random.Generator
        Not used.

    Returns
    -------
    np.ndarray [shape=(n,), float64]

    References
    ----------
    .. [1] G. Luff, "The design of Signalsmith Stretch", 2023.
       https://signalsmith-audio.co.uk/writing/2023/stretch-design/
    """
    from python_stretch.Signalsmith import Stretch

    stretch = Stretch(0)
    stretch.preset(1, sample_rate_hz)
    stretch.setTransposeSemitones(semitones)
    return stretch.process(np.asarray(signal, np.float32)[None])[0].astype(np.float64)


Function = Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Degradation:
    """One way in which a recording is made worse, at several levels.

    Attributes
    ----------
    name, label : str
        Short name, and what figures and sentences call it.
    unit : str
        Of the levels.
    levels : tuple of float
        From mild to severe.
    function : callable
        Of signal, sample rate, level and generator.
    source : str
        What it imitates.
    """

    name: str
    label: str
    unit: str
    levels: tuple[float, ...]
    function: Function
    source: str

    @property
    def worse(self) -> str:
        """Which way the levels grow worse: "higher" or "lower"."""
        return "higher" if self.levels[-1] > self.levels[0] else "lower"


DEGRADATIONS: dict[str, Degradation] = {
    one.name: one
    for one in (
        Degradation("noise", "pink noise", "dB SNR", (40, 30, 20, 10, 0), noise, "traffic, fans, an audience"),
        Degradation("room", "room", "s RT60", (0.25, 0.5, 1, 2), room, "from a furnished room to a bare one"),
        Degradation("low_pass", "low-pass", "Hz", (8000, 4000, 2000, 1000), low_pass, "a small speaker, a telephone"),
        Degradation("mp3", "MP3", "kbit/s", (64, 32, 16, 8), mp3, "a compressed file, one channel"),
        Degradation(
            "vorbis", "Ogg Vorbis", "of 10 in quality", (6, 3, 0), vorbis, "a compressed file of variable bit rate"
        ),
        Degradation("clipping", "clipping", "dB over full scale", (6, 12, 20, 30), clipping, "a gain set too high"),
        Degradation("quiet", "low level", "dBFS peak", (-20, -40, -60), quiet, "a gain set too low, 16 bits"),
        Degradation("pitch_up", "pitch up", "semitones", (1, 2, 4, 7), pitch, "another key, a smaller instrument"),
        Degradation(
            "pitch_down", "pitch down", "semitones", (-1, -2, -4, -7), pitch, "another key, a larger instrument"
        ),
    )
}
"""All of them by name. Levels are equal steps for the ear where the unit allows it; the last one is hard to bear."""


def degrade(signal: np.ndarray, sample_rate_hz: int, name: str, level: float, rng: np.random.Generator) -> np.ndarray:
    """Degrade a recording in one way.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples, floating point; of silence the signal itself is returned.
    sample_rate_hz : int
        Their rate.
    name : str
        One of `DEGRADATIONS`.
    level : float
        In the unit of the degradation; any that it can do, not only those listed.
    rng : np.random.Generator
        Decides what is drawn; see `generator`.

    Returns
    -------
    np.ndarray [shape=(n,), dtype of signal]
        Nothing is clipped but by `clipping`: peaks above full scale stay there.

    Raises
    ------
    ConfigError
        When there is no such degradation, or it knows no such level.

    Examples
    --------
    >>> tone = np.sin(np.arange(22_050) / 10)
    >>> noisy = degrade(tone, 22_050, "noise", 10.0, generator("flute-1", "noise", seed=0))
    >>> round(float(10 * np.log10(np.mean(tone**2) / np.mean((noisy - tone) ** 2))), 6)
    10.0
    """
    if name not in DEGRADATIONS:
        raise ConfigError(f"Unknown degradation {name!r}; there is: {', '.join(DEGRADATIONS)}.")
    signal = np.asarray(signal)
    if not signal.any():
        return signal.copy()
    return DEGRADATIONS[name].function(signal.astype(np.float64), sample_rate_hz, level, rng).astype(signal.dtype)


def generator(clip_id: str, name: str, *, seed: int) -> np.random.Generator:
    """Return the generator of one clip and degradation: the same noise, louder and louder, at all of its levels.

    Parameters
    ----------
    clip_id, name : str
        The clip and the degradation.
    seed : int
        Decides all of them.

    Returns
    -------
    np.random.Generator
    """
    return np.random.default_rng(int(hash_bytes(str(seed).encode(), clip_id.encode(), name.encode())[:16], 16))


EVERYDAY = ("room", "noise", "low_pass", "mp3")
"""What recordings suffer every day, in the order in which it happens."""


@dataclass(frozen=True)
class EverydayRecordings:
    """One worse recording of every segment: give it to `store.build_store` as `change`.

    Each of `EVERYDAY` happens to half of the segments, at any of its levels but the most severe.

    Attributes
    ----------
    seed : int
        Decides all of them, with the segment's name.
    """

    seed: int = 0

    n_copies = 1

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the copies."""
        return hash_json([self.seed, {name: DEGRADATIONS[name].levels for name in EVERYDAY}])[:16]

    def copies(self, signal: np.ndarray, *, sample_rate_hz: int, clip_id: str, offset_s: float) -> Iterator[np.ndarray]:
        """Yield the worse recording, as long as the signal; see `store.Change`."""
        rng = generator(f"{clip_id} {offset_s:.3f}", "everyday", seed=self.seed)
        for name in EVERYDAY:
            level = rng.choice(DEGRADATIONS[name].levels[:-1])
            if rng.random() < 0.5:
                signal = degrade(signal, sample_rate_hz, name, float(level), rng)
        yield signal


def encode(signal: np.ndarray, sample_rate_hz: int, **settings: str | float) -> io.BytesIO:
    """Encode a signal in memory.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples.
    sample_rate_hz : int
        Their rate.
    **settings
        What `soundfile.SoundFile` takes: `format`, `subtype`, `compression_level`, `bitrate_mode`.

    Returns
    -------
    io.BytesIO
        The bytes of the file.

    Raises
    ------
    ConfigError
        When the format does not know the sample rate.
    """
    import soundfile

    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(encoded, "w", sample_rate_hz, channels=1, **settings) as file:
            for first in range(
                0, len(signal), _BLOCK
            ):  # libsndfile's Vorbis keeps what it is given at once on the stack
                file.write(signal[first : first + _BLOCK])
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"{settings['format']} cannot be written at {sample_rate_hz} Hz: {error}") from error
    encoded.seek(0)
    return encoded


def _decoded(encoded: io.BytesIO) -> np.ndarray:
    import soundfile

    return soundfile.read(encoded, dtype="float64")[0]


def _rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal))))


def _as_loud_as(signal: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Bring what was changed to the signal's RMS, so that what a filter leaves of it is not taken for silence."""
    own = _rms(changed)
    return changed * (_rms(signal) / own) if own > 0 else changed
