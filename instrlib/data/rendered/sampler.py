"""Synthesis of notes with a soundfont, by TinySoundFont."""

import functools
from pathlib import Path

import numpy as np

from instrlib.core.io import CorpusError
from instrlib.data.rendered.sources import DRUM_BANK

RATE_HZ = 44_100  # native rate of the fonts; the engine has no anti-aliasing filter, so resampling follows
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


@functools.cache
def open_engine(font: Path) -> TinySoundFont:
    """Return a synthesiser with a loaded font, once per process; raise `CorpusError` if there is none."""
    try:
        return TinySoundFont(font)
    except ImportError:
        raise CorpusError(
            "The built-in corpus requires TinySoundFont: run `pip install tinysoundfont`; on Python 3.13 this needs a "
            "C++ compiler."
        ) from None


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
    engine: TinySoundFont | None = None,
) -> np.ndarray:
    """Play notes on one instrument [round(duration_s * sample_rate_hz)], mono float32, not normalised.

    `notes` [n_notes, 4] are onset and offset in s, MIDI pitch and velocity; `program` counts from 0, or is a drum kit.
    `bends` [n_bends, 2] are times in s and cents from then on, limited with `tuning_cents` to `BEND_RANGE_CENTS`. The
    result does not depend on what the engine played before.
    """
    import soxr

    engine = engine or open_engine(font)
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
