"""The voices of the built-in corpus: programs, registers and playing styles of each class, as listed in voices.toml."""

import functools
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

MUSIC: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""The tables `parts`, `styles`, `rhythms`, `modes`, `gates`, `strokes`, `kit` and `drums`."""

CLASSES = tuple(MUSIC["parts"])


@dataclass(frozen=True)
class Style:
    """How an instrument plays; strings contain names, repeated in proportion to their probability."""

    textures: str
    tempo_bpm: tuple[float, float] = (66, 132)
    rhythms: str = "lyrical lively"
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


@functools.cache
def voices(label: str) -> tuple[Voice, ...]:
    """Return the voices of a class, ordered such that the first ones differ in register and program."""
    found = []
    for programs, low, high, n_registers, name in MUSIC["parts"][label]:
        style, edges = Style(**MUSIC["styles"][name]), np.linspace(low, high + 1, n_registers + 1)
        bands = [(low, high)] * n_registers
        if label != "drums":
            bands = [(round(first), round(end) - 1) for first, end in pairwise(edges)]
        for program in programs:
            found += [Voice(label, program, number, *band, style) for number, band in enumerate(bands, 1)]
    return tuple(sorted(found, key=lambda voice: voice.register))
