"""The voices of the built-in corpus: programs, registers and playing styles of each class, scales and grooves."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

Rhythm = tuple[float, ...]  # lengths in beats

LYRICAL: tuple[Rhythm, ...] = ((1,), (2,), (1.5, 0.5), (0.5, 0.5), (1, 1), (0.75, 0.25), (0.5, 0.5, 1))
LIVELY: tuple[Rhythm, ...] = ((0.5, 0.5), (0.25,) * 4, (0.5, 0.25, 0.25), (1 / 3,) * 3, (0.75, 0.25), (1,))
JAZZY: tuple[Rhythm, ...] = ((0.5, 0.5), (0.5, 0.5), (1,), (0.5, 1, 0.5), (1.5, 0.5), (1 / 3,) * 3)


@dataclass(frozen=True)
class Style:
    """How an instrument plays; strings contain names, repeated in proportion to their probability."""

    textures: str
    tempo_bpm: tuple[float, float] = (66, 132)
    rhythms: tuple[Rhythm, ...] = LYRICAL + LIVELY
    modes: str = "major major minor minor dorian mixolydian"
    articulations: str = "legato legato tenuto detached staccato slurs"
    swing: float = 0.0  # share of phrases with swung eighths
    vibrato_cents: float = 0.0  # largest depth, on long notes of a single line
    scoop: float = 0.0  # share of notes of a single line that are reached from below
    ornament: float = 0.0  # share of long notes of a melody with a grace note


@dataclass(frozen=True)
class Voice:
    """A General MIDI program (a kit, for drums) in one register: MIDI pitches from `low` to `high`."""

    label: str
    program: int
    register: int  # from 1, the lowest; for drums, 1 is straight and 2 swung
    low: int
    high: int
    style: Style

    @property
    def drums(self) -> bool:
        """Whether the program is a drum kit."""
        return self.label == "drums"


_BOWED = Style("melody melody melody run arpeggio double-stops", vibrato_cents=16, ornament=0.06)
_FIDDLE = Style(
    "melody melody run double-stops", (96, 138), LIVELY, vibrato_cents=8, scoop=0.1, ornament=0.2
)  # fmt: skip
_WOODWIND = Style("melody melody melody run run arpeggio", vibrato_cents=7, ornament=0.12)
_PICCOLO = Style("melody melody run arpeggio", (88, 144), LIVELY, ornament=0.15)
_SAXOPHONE = Style(
    "melody melody melody run", (72, 152), LYRICAL + JAZZY, "major minor dorian mixolydian blues",
    swing=0.5, vibrato_cents=14, scoop=0.2, ornament=0.08,
)  # fmt: skip
_TRUMPET = Style("melody melody fanfare fanfare run", vibrato_cents=7)
_MUTED_TRUMPET = replace(_SAXOPHONE, swing=0.6, vibrato_cents=9, ornament=0)
_NYLON_GUITAR = Style("broken broken melody strum run", (66, 126))
_STEEL_GUITAR = Style("strum strum broken melody", (76, 138))
_JAZZ_GUITAR = Style(
    "melody melody comping", (84, 160), JAZZY, "major minor dorian blues", "legato tenuto detached", swing=0.8
)
_CLEAN_GUITAR = Style("strum broken broken comping melody", (80, 140))
_MUTED_GUITAR = Style("riff riff broken", (90, 140), modes="minor dorian mixolydian")
_ROCK_GUITAR = Style(
    "power power melody melody riff", (90, 152), modes="minor minor mixolydian blues blues",
    articulations="legato tenuto detached", vibrato_cents=22, scoop=0.3,
)  # fmt: skip
_BAND_ORGAN = Style(
    "comping comping chorale accompanied run melody", (76, 144), modes="major minor dorian mixolydian blues", swing=0.3
)
_PIPE_ORGAN = Style(
    "chorale chorale accompanied run broken", modes="major minor", articulations="legato legato tenuto detached"
)
_PIANO = Style("accompanied accompanied broken broken comping chorale run melody", (60, 144), swing=0.1, ornament=0.06)
_CHOIR = Style(
    "melody melody chorale", (60, 104), LYRICAL, "major minor dorian", "legato legato tenuto",
    vibrato_cents=14, scoop=0.15,
)  # fmt: skip
_DRUMS = Style("groove", (84, 160))

# Programs, lowest and highest pitch of the real instrument (of its usual range), number of registers, style.
_PARTS: dict[str, tuple[tuple[Sequence[int], int, int, int, Style], ...]] = {
    "cello": (((42,), 36, 83, 8, _BOWED),),
    "clarinet": (((71,), 50, 91, 7, _WOODWIND),),
    "flute": (((73,), 60, 96, 4, _WOODWIND), ((72,), 74, 103, 4, _PICCOLO)),
    "acoustic_guitar": (((24,), 40, 83, 4, _NYLON_GUITAR), ((25,), 40, 83, 4, _STEEL_GUITAR)),
    "electric_guitar": (
        ((26,), 40, 83, 3, _JAZZ_GUITAR),
        ((27,), 40, 83, 3, _CLEAN_GUITAR),
        ((28,), 40, 75, 3, _MUTED_GUITAR),
        ((29, 30), 40, 83, 3, _ROCK_GUITAR),
    ),
    "organ": (((16, 17, 18), 36, 83, 3, _BAND_ORGAN), ((19, 20), 36, 83, 3, _PIPE_ORGAN)),
    "piano": (((0, 1, 2, 3), 28, 99, 3, _PIANO),),
    "saxophone": (
        ((64,), 56, 87, 3, _SAXOPHONE),
        ((65,), 49, 80, 3, _SAXOPHONE),
        ((66,), 44, 75, 3, _SAXOPHONE),
        ((67,), 36, 68, 3, _SAXOPHONE),
    ),
    "trumpet": (((56,), 54, 86, 4, _TRUMPET), ((59,), 54, 86, 4, _MUTED_TRUMPET)),
    "violin": (((40,), 55, 99, 5, _BOWED), ((110,), 55, 87, 4, _FIDDLE)),
    "voice": (((52, 53, 54), 43, 81, 3, _CHOIR),),
    # Standard, Room, Power, Electronic, TR-808, Brush; kit 32 repeats the Standard kit.
    "drums": (((0, 8, 16, 24, 25, 40), 35, 59, 2, _DRUMS),),
}

CLASSES = tuple(_PARTS)


@functools.cache
def voices(label: str) -> tuple[Voice, ...]:
    """Return the voices of a class, ordered such that the first ones differ in register and program.

    Examples
    --------
    >>> [(voice.program, voice.register, voice.low, voice.high) for voice in voices("trumpet")][:3]
    [(56, 1, 54, 61), (59, 1, 54, 61), (56, 2, 62, 69)]
    """
    found = []
    for programs, low, high, n_registers, style in _PARTS[label]:
        edges = np.rint(np.linspace(low, high + 1, n_registers + 1)).astype(int).tolist()
        for program in programs:
            for register in range(n_registers):
                band = (low, high) if label == "drums" else (edges[register], edges[register + 1] - 1)
                found.append(Voice(label, program, register + 1, *band, style))
    return tuple(sorted(found, key=lambda voice: voice.register))


class Mode(NamedTuple):
    """A scale in semitones, chord progressions as degrees from 0, and the tones of melodies if they differ."""

    scale: tuple[int, ...]
    progressions: tuple[tuple[int, ...], ...]
    line: tuple[int, ...] = ()


MODES = {
    "major": Mode((0, 2, 4, 5, 7, 9, 11), ((0, 3, 4, 0), (0, 5, 3, 4), (1, 4, 0, 0), (0, 4, 5, 3), (5, 3, 0, 4))),
    "minor": Mode((0, 2, 3, 5, 7, 8, 10), ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 6, 2))),
    "dorian": Mode((0, 2, 3, 5, 7, 9, 10), ((0, 3, 0, 3), (0, 6, 3, 0))),
    "mixolydian": Mode((0, 2, 4, 5, 7, 9, 10), ((0, 6, 3, 0), (0, 3, 0, 6))),
    "blues": Mode((0, 2, 4, 5, 7, 9, 10), ((0, 3, 0, 4), (0, 0, 3, 0)), (0, 3, 5, 6, 7, 10)),
}

# General MIDI keys (one is chosen for the clip) and how long each is left to sound, in s.
KIT: dict[str, tuple[tuple[int, ...], float]] = {
    "kick": ((36, 36, 35), 0.3), "snare": ((38, 38, 40), 0.3), "stick": ((37,), 0.2), "clap": ((39,), 0.3),
    "hat": ((42,), 0.12), "pedal": ((44,), 0.12), "open": ((46,), 0.5), "ride": ((51, 59), 0.9), "bell": ((53,), 0.9),
    "crash": ((49, 57), 1.8), "tom1": ((50, 48), 0.5), "tom2": ((47,), 0.5), "tom3": ((45,), 0.5),
    "tom4": ((43, 41), 0.6),
}  # fmt: skip

# One bar of four beats in 16 (straight) or 12 (swung) steps: X accent, x hit, o ghost note.
GROOVES: dict[int, tuple[dict[str, str], ...]] = {
    1: (
        {"kick": "X.......x.x.....", "snare": "....X.......X...", "hat": "X.x.X.x.X.x.X.x."},
        {"kick": "X.....x...x.....", "snare": "....X..o.o..X..o", "hat": "XxxxXxxxXxxxXxxx"},
        {"kick": "X...X...X...X...", "clap": "....x.......x...", "open": "..X...X...X...X."},
        {"kick": "X..x..x.X..x....", "snare": "....X.......X...", "ride": "X.x.X.x.X.x.X.x."},
        {"kick": "X..xX..xX..xX..x", "stick": "x..x..x...x..x..", "hat": "x.x.x.x.x.x.x.x."},
        {"kick": "X...x...X...x...", "snare": "ooXoooXoooXooxXx", "pedal": "..x...x...x...x."},
        {"kick": "X.x.....X.x.....", "snare": "....X.......X..o", "bell": "X...X...X...X..."},
        {"kick": "X.....x.X.......", "tom4": "X.x..x..X.x..x..", "tom2": "....X.......X.x."},
    ),
    2: (
        {"kick": "X.....X.x...", "snare": "...X.....X..", "hat": "X.xX.xX.xX.x"},
        {"kick": "o.....o.....", "snare": ".....o..o...", "ride": "X..X.xX..X.x", "pedal": "...x.....x.."},
        {"kick": "X....xX.....", "snare": "...X.....X..", "hat": "XxxXxxXxxXxx"},
        {"kick": "X.......x...", "snare": "..o.o.X.o.o.", "hat": "X.xX.xX.xX.x"},
        {"kick": "X.....x..x..", "tom3": "X.x..x..X..x", "tom1": "...X.xX.....", "pedal": "...x.....x.."},
        {"kick": "X.....X.....", "stick": "...X.....X..", "ride": "X..X.xX..X.x"},
    ),
}  # fmt: skip
FILLS = {
    1: ("snare snare tom1 tom1 tom2 tom2 tom4 tom4", "snare snare snare snare tom1 tom2 tom3 tom4", "snare tom2 tom4"),
    2: ("snare snare tom1 tom2 tom3 tom4", "snare tom2 tom4", "snare snare snare"),
}
ACCENTS = {"X": 14.0, "x": 0.0, "o": -34.0}
