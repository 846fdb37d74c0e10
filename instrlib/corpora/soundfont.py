"""Note events become sound: sampled instruments of a soundfont, played by TinySoundFont or by FluidSynth."""

import contextlib
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from instrlib.errors import CorpusError
from instrlib.files import hash_file

FONT_NAME = "TimGM6mb.sf2"
RENDER_RATE_HZ = 44_100
"""The font's own rate: it is played there and brought down afterwards, for neither engine filters what would alias."""

BEND_RANGE_CENTS = 200.0
"""Width of the pitch wheel to either side."""

_DRUM_CHANNEL = 9
_DRUM_BANK = 128
_NOTE_OFF, _BEND, _NOTE_ON = range(3)  # also their order when they fall on the same sample


class Engine(Protocol):
    """What `render` asks of a synthesiser."""

    def start(self, program: int, *, drums: bool) -> None:
        """Forget everything that was played and select a General MIDI program, or a drum kit."""

    def note_on(self, pitch: int, velocity: int) -> None:
        """Begin a note."""

    def note_off(self, pitch: int) -> None:
        """Release a note."""

    def bend(self, wheel: int) -> None:
        """Set the pitch wheel, 0 to 16383; 8192 is the middle."""

    def play(self, n_samples: int) -> np.ndarray:
        """Play on for so many samples: mono float32 [shape=(n_samples,)]."""


class TinySoundFontEngine:
    """TinySoundFont, through the tinysoundfont package: fast, and the same bytes in every process."""

    _GAIN_DB = -6.0
    _FADE_SAMPLES = 4096  # a voice that is cut fades over 10 ms; a new clip must not hear it

    def __init__(self, font: Path) -> None:
        import tinysoundfont

        self._synth = tinysoundfont.Synth(gain=self._GAIN_DB, samplerate=RENDER_RATE_HZ)
        self._font = self._synth.sfload(str(font))
        self._channel = 0

    def start(self, program: int, *, drums: bool) -> None:
        """See `Engine`."""
        for channel in (0, _DRUM_CHANNEL):
            self._synth.sounds_off(channel)
        self._synth.generate_simple(self._FADE_SAMPLES)
        self._channel = _DRUM_CHANNEL if drums else 0
        self._synth.program_select(self._channel, self._font, _DRUM_BANK if drums else 0, program, drums)
        self._synth.pitchbend_range(self._channel, BEND_RANGE_CENTS / 100)
        self._synth.pitchbend(self._channel, 8192)

    def note_on(self, pitch: int, velocity: int) -> None:
        """See `Engine`."""
        self._synth.noteon(self._channel, pitch, velocity)

    def note_off(self, pitch: int) -> None:
        """See `Engine`."""
        self._synth.noteoff(self._channel, pitch)

    def bend(self, wheel: int) -> None:
        """See `Engine`."""
        self._synth.pitchbend(self._channel, wheel)

    def play(self, n_samples: int) -> np.ndarray:
        """See `Engine`."""
        stereo = np.frombuffer(self._synth.generate_simple(n_samples), dtype=np.float32)
        return (stereo[0::2] + stereo[1::2]) * np.float32(0.5)


class FluidSynthEngine:
    """FluidSynth, through pyfluidsynth and the system's library; its reverb and chorus are off.

    It mixes blocks of 64 samples, and an event within a block waits for the next: up to 1.5 ms.
    """

    _GAIN = 0.4

    def __init__(self, font: Path) -> None:
        self._font = font
        self._synth = self._open()
        self._channel = 0

    def _open(self) -> Any:
        with contextlib.redirect_stdout(None):  # it prints where it was found when the variable CI is set
            import fluidsynth

        off = {"synth.reverb.active": 0, "synth.chorus.active": 0}
        return fluidsynth.Synth(gain=self._GAIN, samplerate=RENDER_RATE_HZ, channels=16, **off)

    def start(self, program: int, *, drums: bool) -> None:
        """See `Engine`; a new synthesiser each time, because a reset leaves filters and dither where they were."""
        self._synth.delete()
        self._synth = self._open()
        self._channel = _DRUM_CHANNEL if drums else 0
        font = self._synth.sfload(str(self._font))
        self._synth.program_select(self._channel, font, _DRUM_BANK if drums else 0, program)

    def note_on(self, pitch: int, velocity: int) -> None:
        """See `Engine`."""
        self._synth.noteon(self._channel, pitch, velocity)

    def note_off(self, pitch: int) -> None:
        """See `Engine`."""
        self._synth.noteoff(self._channel, pitch)

    def bend(self, wheel: int) -> None:
        """See `Engine`; the wheel's width after a reset is two semitones, which is `BEND_RANGE_CENTS`."""
        self._synth.pitch_bend(self._channel, wheel - 8192)

    def play(self, n_samples: int) -> np.ndarray:
        """See `Engine`."""
        stereo = self._synth.get_samples(n_samples).astype(np.float32)
        return (stereo[0::2] + stereo[1::2]) * np.float32(0.5 / 32768)


_ENGINES: dict[str, Any] = {"tinysoundfont": TinySoundFontEngine, "fluidsynth": FluidSynthEngine}


@functools.cache
def find_soundfont() -> Path:
    """Return the soundfont TimGM6mb inside the installed pretty_midi package, which is not imported for it.

    Raises
    ------
    CorpusError
        When the package or the font in it is missing.

    Examples
    --------
    >>> find_soundfont().name
    'TimGM6mb.sf2'
    """
    spec = importlib.util.find_spec("pretty_midi")
    font = Path(spec.origin).parent / FONT_NAME if spec and spec.origin else None
    if font is None or not font.is_file():
        raise CorpusError(
            f"The soundfont {FONT_NAME} is missing; install the package that carries it: `pip install pretty-midi`."
        )
    return font


@functools.cache
def font_hash(font: Path) -> str:
    """SHA-256 of the soundfont's bytes, read once for each process."""
    return hash_file(font)


@functools.cache
def engine_name() -> str:
    """Return the engine in force: "tinysoundfont", or "fluidsynth" where only that can be imported.

    Raises
    ------
    CorpusError
        When neither can be imported.
    """
    for name in _ENGINES:
        try:
            importlib.import_module(name)
        except (ImportError, OSError):  # pyfluidsynth raises either when the system lacks the library
            continue
        return name
    raise CorpusError(
        "No synthesiser to play the embedded corpus: install the package tinysoundfont (Python 3.11 and 3.12), or "
        "pyfluidsynth together with the system's FluidSynth library (Debian: libfluidsynth3, macOS: fluid-synth)."
    )


@functools.cache
def open_engine(name: str, font: Path) -> Engine:
    """Return the synthesiser `name` with `font` loaded; each process loads it once.

    Parameters
    ----------
    name : {"tinysoundfont", "fluidsynth"}
        As `engine_name` gives it.
    font : Path
        A soundfont (SF2).

    Returns
    -------
    Engine
    """
    return _ENGINES[name](font)


def render(
    engine: Engine,
    notes: np.ndarray,
    *,
    program: int,
    duration_s: float,
    sample_rate_hz: int,
    drums: bool = False,
    bends: np.ndarray | None = None,
    tuning_cents: float = 0.0,
) -> np.ndarray:
    """Play notes on one instrument.

    The sound depends on the arguments alone, not on what the engine played before.

    Parameters
    ----------
    engine : Engine
        From `open_engine`.
    notes : np.ndarray [shape=(n_notes, 4)]
        Onset in s, offset in s, MIDI pitch, MIDI velocity (1 to 127).
    program : int
        General MIDI program from 0, or number of the drum kit.
    duration_s : float
        Length of the sound; what would ring on is cut.
    sample_rate_hz : int
        Rate of the result.
    drums : bool
        Whether `program` is a drum kit.
    bends : np.ndarray [shape=(n_bends, 2)], optional
        Time in s, and cents from the written pitch from then on.
    tuning_cents : float
        Added to all bends. Their sum is cut at `BEND_RANGE_CENTS`.

    Returns
    -------
    np.ndarray [shape=(round(duration_s * sample_rate_hz),)]
        Mono, float32, not normalised.
    """
    import soxr

    n_samples = round(duration_s * RENDER_RATE_HZ)
    curve = np.zeros((0, 2)) if bends is None else bends
    curve = np.concatenate([[[0.0, 0.0]], curve])
    wheel = np.clip(8192 + np.rint(8192 * (curve[:, 1] + tuning_cents) / BEND_RANGE_CENTS), 0, 16383)

    seconds = np.concatenate([notes[:, 1], curve[:, 0], notes[:, 0]])
    at = np.minimum(np.rint(seconds * RENDER_RATE_HZ).astype(int), n_samples)
    kind = np.repeat([_NOTE_OFF, _BEND, _NOTE_ON], [len(notes), len(curve), len(notes)])
    value = np.concatenate([notes[:, 2], wheel, notes[:, 2]]).astype(int)
    velocity = np.concatenate([notes[:, 3], np.zeros(len(curve)), notes[:, 3]]).astype(int)
    order = np.lexsort((np.arange(len(at)), kind, at))

    engine.start(program, drums=drums)
    parts, now = [], 0
    events = zip(at[order].tolist(), kind[order].tolist(), value[order].tolist(), velocity[order].tolist(), strict=True)
    for sample, what, number, force in events:
        if sample > now:
            parts.append(engine.play(sample - now))
            now = sample
        if what == _NOTE_ON:
            engine.note_on(number, force)
        elif what == _NOTE_OFF:
            engine.note_off(number)
        else:
            engine.bend(number)
    if n_samples > now:
        parts.append(engine.play(n_samples - now))
    return soxr.resample(np.concatenate(parts), RENDER_RATE_HZ, sample_rate_hz)
