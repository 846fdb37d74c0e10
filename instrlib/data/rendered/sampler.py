"""Synthesis of notes with a soundfont, by TinySoundFont or FluidSynth."""

import contextlib
import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from instrlib.core.io import CorpusError
from instrlib.data.rendered.sources import DRUM_BANK

RATE_HZ = 44_100  # native rate of the fonts; neither engine has an anti-aliasing filter, so resampling follows
BEND_RANGE_CENTS = 200.0
_DRUM_CHANNEL = 9


class TinySoundFont:
    """TinySoundFont, through the package tinysoundfont: fast, with the same bytes in every process."""

    def __init__(self, font: Path) -> None:
        import tinysoundfont

        self.synth = tinysoundfont.Synth(gain=-6.0, samplerate=RATE_HZ)
        self._font = self.synth.sfload(str(font))

    def start(self, program: int, channel: int) -> None:
        """Reset all state and select a program."""
        for used in (0, _DRUM_CHANNEL):
            self.synth.sounds_off(used)
        self.synth.generate_simple(4096)  # stopped voices fade over 10 ms
        drums = channel == _DRUM_CHANNEL
        self.synth.program_select(channel, self._font, DRUM_BANK if drums else 0, program, drums)
        self.synth.pitchbend_range(channel, BEND_RANGE_CENTS / 100)

    def bend(self, channel: int, wheel: int) -> None:
        """Set the pitch wheel, 0 to 16383; 8192 is the centre."""
        self.synth.pitchbend(channel, wheel)

    def play(self, n_samples: int) -> np.ndarray:
        """Return the next samples, stereo float32 [2 * n_samples]."""
        return np.frombuffer(self.synth.generate_simple(n_samples), dtype=np.float32)


class FluidSynth:
    """FluidSynth, through pyfluidsynth, without reverb and chorus; events can be up to 1.5 ms late."""

    def __init__(self, font: Path) -> None:
        self._font, self.synth = font, None

    def start(self, program: int, channel: int) -> None:
        """Open a new synthesiser, because a reset keeps the state of filters and dither."""
        with contextlib.redirect_stdout(None):  # it prints its path if the variable CI is set
            import fluidsynth

        if self.synth:
            self.synth.delete()
        off = {"synth.reverb.active": 0, "synth.chorus.active": 0}
        self.synth = fluidsynth.Synth(gain=0.4, samplerate=RATE_HZ, channels=16, **off)
        bank = DRUM_BANK if channel == _DRUM_CHANNEL else 0
        self.synth.program_select(channel, self.synth.sfload(str(self._font)), bank, program)

    def bend(self, channel: int, wheel: int) -> None:
        """Set the pitch wheel, whose range after a reset is `BEND_RANGE_CENTS`."""
        self.synth.pitch_bend(channel, wheel - 8192)

    def play(self, n_samples: int) -> np.ndarray:
        """Return the next samples, stereo float32 [2 * n_samples]."""
        return self.synth.get_samples(n_samples).astype(np.float32) / np.float32(32768)


ENGINES: dict[str, Any] = {"tinysoundfont": TinySoundFont, "fluidsynth": FluidSynth}


@functools.cache
def engine_name() -> str:
    """Return "tinysoundfont", or "fluidsynth" if only that is installed; raise `CorpusError` without either."""
    for name in ENGINES:
        with contextlib.suppress(ImportError, OSError):  # pyfluidsynth raises either if the library is missing
            importlib.import_module(name)
            return name
    raise CorpusError(
        "The built-in corpus requires a soundfont synthesiser: run `pip install tinysoundfont` (Python up to 3.12), or "
        "install FluidSynth for any Python (Debian: libfluidsynth3, macOS: fluid-synth)."
    )


@functools.cache
def open_engine(name: str, font: Path) -> TinySoundFont | FluidSynth:
    """Return a synthesiser with a loaded font, once per process."""
    return ENGINES[name](font)


@functools.cache
def silent_keys(font: Path, program: int, low: int, high: int, *, drums: bool = False) -> frozenset[int]:
    """Return the keys from `low` to `high` without sound in a font, in gaps between its samples."""
    how = {"program": program, "duration_s": 0.05, "drums": drums}
    keys = range(low, high + 1)
    return frozenset(key for key in keys if not play(font, np.array([[0.0, 0.05, key, 100]]), **how).any())


def play(
    font: Path,
    notes: np.ndarray,
    *,
    program: int,
    duration_s: float,
    sample_rate_hz: int = RATE_HZ,
    drums: bool = False,
    bends: np.ndarray | None = None,
    tuning_cents: float = 0.0,
    engine: TinySoundFont | FluidSynth | None = None,
) -> np.ndarray:
    """Play notes on one instrument [round(duration_s * sample_rate_hz)], mono float32, not normalised.

    `notes` [n_notes, 4] are onset and offset in s, MIDI pitch and velocity; `program` counts from 0, or is a drum kit.
    `bends` [n_bends, 2] are times in s and cents from then on, limited with `tuning_cents` to `BEND_RANGE_CENTS`. The
    result does not depend on what the engine played before.
    """
    import soxr

    engine = engine or open_engine(engine_name(), font)
    n_samples, channel = round(duration_s * RATE_HZ), _DRUM_CHANNEL if drums else 0
    engine.start(program, channel)
    curve = [(0.0, 0.0), *([] if bends is None else bends)]
    wheels = [(at, round(8192 + 8192 * (cents + tuning_cents) / BEND_RANGE_CENTS)) for at, cents in curve]
    # Time, order at the same sample (off, bend, on), and what to do.
    events = [(end, 0, engine.synth.noteoff, (int(key),)) for _, end, key, _ in notes]
    events += [(at, 1, engine.bend, (min(max(wheel, 0), 16383),)) for at, wheel in wheels]
    events += [(onset, 2, engine.synth.noteon, (int(key), int(velocity))) for onset, _, key, velocity in notes]
    timed = [(min(round(at * RATE_HZ), n_samples), order, act, given) for at, order, act, given in events]
    parts, now = [], 0
    for sample, _, act, given in sorted(timed, key=lambda event: event[:2]):
        if sample > now:
            parts.append(engine.play(sample - now))
            now = sample
        act(channel, *given)
    if n_samples > now:
        parts.append(engine.play(n_samples - now))
    stereo = np.concatenate(parts)
    return soxr.resample((stereo[0::2] + stereo[1::2]) * np.float32(0.5), RATE_HZ, sample_rate_hz)
