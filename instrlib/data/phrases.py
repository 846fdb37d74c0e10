"""Short phrases for instruments, composed from a random generator: what is played, when, how hard and how it is bent.

A phrase has a key, a metre, a chord progression and a texture that suits the instrument: a melody over the chords, a
run, broken chords, comping, strumming, a chorale, a riff, a drum groove with its fill. All notes keep to one register.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

NOTE_COLUMNS = ("onset_s", "offset_s", "pitch", "velocity")

LYRICAL = ((1,), (2,), (1.5, 0.5), (0.5, 0.5), (1, 1), (0.75, 0.25), (0.5, 0.5, 1))
LIVELY = ((0.5, 0.5), (0.25,) * 4, (0.5, 0.25, 0.25), (0.25, 0.25, 0.5), (1 / 3,) * 3, (0.75, 0.25), (1,))
JAZZY = ((0.5, 0.5), (0.5, 0.5), (1,), (0.5, 1, 0.5), (1.5, 0.5), (1 / 3,) * 3, (0.5, 0.5, 1))
"""Rhythms as lengths in beats; a phrase strings a few together and repeats the first."""


@dataclass(frozen=True)
class Style:
    """How an instrument plays.

    Attributes
    ----------
    textures : tuple of str
        What it plays, each as likely as it is often named.
    tempo_bpm : tuple of float
        Slowest and fastest beat.
    rhythms : tuple of tuple of float
        Lengths in beats that its melodies are made of.
    modes : tuple of str
        Its scales.
    articulations : tuple of str
        How its notes follow each other.
    swing : float
        Share of phrases with swung eighths.
    vibrato_cents : float
        Largest depth of vibrato on long notes of a single line.
    scoop : float
        Share of notes of a single line that are reached from below.
    ornament : float
        Share of long notes of a melody that begin with a grace note or a mordent.
    sevenths : bool
        Whether chords have four tones.
    """

    textures: tuple[str, ...]
    tempo_bpm: tuple[float, float] = (66, 132)
    rhythms: tuple[tuple[float, ...], ...] = LYRICAL + LIVELY
    modes: tuple[str, ...] = ("major", "major", "minor", "minor", "dorian", "mixolydian")
    articulations: tuple[str, ...] = ("legato", "legato", "tenuto", "detached", "staccato", "slurs")
    swing: float = 0.0
    vibrato_cents: float = 0.0
    scoop: float = 0.0
    ornament: float = 0.0
    sevenths: bool = False


@dataclass(frozen=True)
class Voice:
    """One program of General MIDI in one register: a group of the rendered corpus.

    Attributes
    ----------
    label : str
        Class of the instrument.
    program : int
        General MIDI program from 0; for drums, the number of the kit.
    register : int
        Register from 1, the lowest. For drums 1 is straight and 2 is swung.
    low, high : int
        Lowest and highest MIDI pitch; registers of one program do not overlap.
    style : Style
        How it plays.
    """

    label: str
    program: int
    register: int
    low: int
    high: int
    style: Style

    @property
    def drums(self) -> bool:
        """Whether the program is a drum kit."""
        return self.label == "drums"


@dataclass(frozen=True)
class Phrase:
    """What to play.

    Attributes
    ----------
    notes : np.ndarray [shape=(n_notes, 4)]
        One row a note, in the order of the onsets: onset and offset in s, MIDI pitch, MIDI velocity.
    bends : np.ndarray [shape=(n_bends, 2)]
        Time in s, and cents from the written pitch from then on.
    """

    notes: np.ndarray
    bends: np.ndarray


_BOWED = Style(
    textures=("melody", "melody", "melody", "run", "arpeggio", "double stops"), vibrato_cents=16, ornament=0.06
)
_FIDDLE = Style(
    textures=("melody", "melody", "run", "double stops"),
    tempo_bpm=(96, 138),
    rhythms=LIVELY,
    vibrato_cents=8,
    scoop=0.1,
    ornament=0.2,
)
_WOODWIND = Style(textures=("melody", "melody", "melody", "run", "run", "arpeggio"), vibrato_cents=7, ornament=0.12)
_PICCOLO = Style(textures=("melody", "melody", "run", "arpeggio"), tempo_bpm=(88, 144), rhythms=LIVELY, ornament=0.15)
_SAXOPHONE = Style(
    textures=("melody", "melody", "melody", "run"),
    tempo_bpm=(72, 152),
    rhythms=LYRICAL + JAZZY,
    modes=("major", "minor", "dorian", "mixolydian", "blues"),
    swing=0.5,
    vibrato_cents=14,
    scoop=0.2,
    ornament=0.08,
)
_TRUMPET = Style(textures=("melody", "melody", "fanfare", "fanfare", "run"), vibrato_cents=7)
_MUTED_TRUMPET = Style(
    textures=("melody", "melody", "melody", "run"),
    rhythms=LYRICAL + JAZZY,
    modes=("major", "minor", "dorian", "blues"),
    swing=0.6,
    vibrato_cents=9,
    scoop=0.15,
)
_NYLON_GUITAR = Style(textures=("broken", "broken", "melody", "strum", "run"), tempo_bpm=(66, 126))
_STEEL_GUITAR = Style(textures=("strum", "strum", "broken", "melody"), tempo_bpm=(76, 138))
_JAZZ_GUITAR = Style(
    textures=("melody", "melody", "comping"),
    tempo_bpm=(84, 160),
    rhythms=JAZZY,
    modes=("major", "minor", "dorian", "blues"),
    articulations=("legato", "tenuto", "detached"),
    swing=0.8,
    sevenths=True,
)
_CLEAN_GUITAR = Style(textures=("strum", "broken", "broken", "comping", "melody"), tempo_bpm=(80, 140))
_MUTED_GUITAR = Style(textures=("riff", "riff", "broken"), tempo_bpm=(90, 140), modes=("minor", "dorian", "mixolydian"))
_ROCK_GUITAR = Style(
    textures=("power chords", "power chords", "melody", "melody", "riff"),
    tempo_bpm=(90, 152),
    modes=("minor", "minor", "mixolydian", "blues", "blues"),
    articulations=("legato", "tenuto", "detached"),
    vibrato_cents=22,
    scoop=0.3,
)
_BAND_ORGAN = Style(
    textures=("comping", "comping", "chorale", "accompanied", "run", "melody"),
    modes=("major", "minor", "dorian", "mixolydian", "blues"),
    tempo_bpm=(76, 144),
    swing=0.3,
)
_PIPE_ORGAN = Style(
    textures=("chorale", "chorale", "accompanied", "run", "broken"),
    modes=("major", "minor"),
    articulations=("legato", "legato", "tenuto", "detached"),
)
_PIANO = Style(
    textures=("accompanied", "accompanied", "broken", "broken", "comping", "chorale", "run", "melody"),
    tempo_bpm=(60, 144),
    swing=0.1,
    ornament=0.06,
)
_CHOIR = Style(
    textures=("melody", "melody", "chorale"),
    tempo_bpm=(60, 104),
    rhythms=LYRICAL,
    modes=("major", "minor", "dorian"),
    articulations=("legato", "legato", "tenuto"),
    vibrato_cents=14,
    scoop=0.15,
)
_DRUMS = Style(textures=("groove",), tempo_bpm=(84, 160))

# Program, lowest and highest pitch of the real instrument (of its usual range), number of registers, style.
_PARTS: dict[str, tuple[tuple[int, int, int, int, Style], ...]] = {
    "cello": ((42, 36, 83, 8, _BOWED),),
    "clarinet": ((71, 50, 91, 7, _WOODWIND),),
    "flute": ((73, 60, 96, 4, _WOODWIND), (72, 74, 103, 4, _PICCOLO)),
    "acoustic_guitar": ((24, 40, 83, 4, _NYLON_GUITAR), (25, 40, 83, 4, _STEEL_GUITAR)),
    "electric_guitar": (
        (26, 40, 83, 3, _JAZZ_GUITAR),
        (27, 40, 83, 3, _CLEAN_GUITAR),
        (28, 40, 75, 3, _MUTED_GUITAR),
        (29, 40, 83, 3, _ROCK_GUITAR),
        (30, 40, 83, 3, _ROCK_GUITAR),
    ),
    "organ": (
        (16, 36, 83, 3, _BAND_ORGAN),
        (17, 36, 83, 3, _BAND_ORGAN),
        (18, 36, 83, 3, _BAND_ORGAN),
        (19, 36, 83, 3, _PIPE_ORGAN),
        (20, 36, 83, 3, _PIPE_ORGAN),
    ),
    "piano": ((0, 28, 99, 3, _PIANO), (1, 28, 99, 3, _PIANO), (2, 28, 99, 3, _PIANO), (3, 28, 99, 3, _PIANO)),
    "saxophone": (
        (64, 56, 87, 3, _SAXOPHONE),
        (65, 49, 80, 3, _SAXOPHONE),
        (66, 44, 75, 3, _SAXOPHONE),
        (67, 36, 68, 3, _SAXOPHONE),
    ),
    "trumpet": ((56, 54, 86, 4, _TRUMPET), (59, 54, 86, 4, _MUTED_TRUMPET)),
    "violin": ((40, 55, 99, 5, _BOWED), (110, 55, 87, 4, _FIDDLE)),
    "voice": ((52, 43, 81, 3, _CHOIR), (53, 43, 81, 3, _CHOIR), (54, 43, 81, 3, _CHOIR)),
    # Standard, Room, Power, Electronic, TR-808, Brush. The font's kit 32 repeats the Standard kit but for one drum.
    "drums": tuple((kit, 35, 59, 2, _DRUMS) for kit in (0, 8, 16, 24, 25, 40)),
}

CLASSES = tuple(_PARTS)


@functools.cache
def voices(label: str) -> tuple[Voice, ...]:
    """Return the voices of a class, ordered so that the first few differ in register and in program.

    Parameters
    ----------
    label : str
        One of `CLASSES`.

    Returns
    -------
    tuple of Voice

    Examples
    --------
    >>> [(voice.program, voice.register, voice.low, voice.high) for voice in voices("trumpet")][:3]
    [(56, 1, 54, 61), (59, 1, 54, 61), (56, 2, 62, 69)]
    """
    found = []
    for program, low, high, n_registers, style in _PARTS[label]:
        edges = np.rint(np.linspace(low, high + 1, n_registers + 1)).astype(int).tolist()
        for register in range(n_registers):
            band = (low, high) if label == "drums" else (edges[register], edges[register + 1] - 1)
            found.append(Voice(label, program, register + 1, *band, style))
    return tuple(sorted(found, key=lambda voice: voice.register))


def compose(rng: np.random.Generator, voice: Voice, *, duration_s: float) -> Phrase:
    """Compose a phrase.

    Parameters
    ----------
    rng : np.random.Generator
        Decides everything; the same state gives the same phrase.
    voice : Voice
        Who plays it, in which register.
    duration_s : float
        Length of the clip; notes lie within it.

    Returns
    -------
    Phrase
        Notes of at least 30 ms.

    Examples
    --------
    >>> phrase = compose(np.random.default_rng(1), voices("flute")[0], duration_s=3.0)
    >>> bool(phrase.notes[:, 2].min() >= 60 and phrase.notes[:, 1].max() <= 3.0)
    True
    """
    piece = _new_piece(rng, voice, duration_s)
    texture = _TEXTURES[_pick(rng, voice.style.textures)]
    events = texture.events(rng, piece, voice)
    articulation = _pick(rng, voice.style.articulations) if texture.articulated else "ringing"
    notes = _perform(rng, piece, events, articulation=articulation, texture=texture)
    bends = _express(rng, notes, voice.style, duration_s) if texture.single_line else np.zeros((0, 2))
    return Phrase(notes, bends)


def exercise(rng: np.random.Generator, voice: Voice, *, duration_s: float) -> Phrase:
    """Compose what is recorded of an instrument to show how it sounds: one note, a note again and again, or a scale.

    Parameters
    ----------
    rng : np.random.Generator
        Decides everything; the same state gives the same exercise.
    voice : Voice
        Who plays it, in which register; not drums.
    duration_s : float
        Length of the clip; notes lie within it, and often end long before.

    Returns
    -------
    Phrase
        One note at a time, of at least 30 ms.

    Examples
    --------
    >>> phrase = exercise(np.random.default_rng(1), voices("flute")[0], duration_s=3.0)
    >>> bool(phrase.notes[:, 2].min() >= 60 and phrase.notes[:, 1].max() <= 3.0)
    True
    """
    kind = _pick(rng, ("note", "note", "repeated", "scale"))
    start_s = rng.uniform(0, 0.3)
    step_s, gate = (rng.uniform(0.3, 3.2), 1.0) if kind == "note" else (rng.uniform(0.15, 0.9), rng.uniform(0.4, 1))
    onset = np.arange(start_s, duration_s - 0.1, step_s)[: 1 if kind == "note" else int(rng.integers(2, 9))]
    mode, tonic = _MODES[_pick(rng, ("major", "minor"))], int(rng.integers(12))
    ladder = [pitch for pitch in range(voice.low, voice.high + 1) if (pitch - tonic) % 12 in mode.degrees]
    moves = np.arange(len(onset)) if kind == "scale" else np.zeros(len(onset), int)
    turns = ladder + ladder[-2:0:-1]  # up to the end of the register, and down again
    pitch = np.array(turns)[(int(rng.integers(len(turns))) + moves) % len(turns)]
    velocity = np.clip(rng.uniform(35, 120) + rng.normal(0, 5, len(onset)), 24, 124)
    notes = np.column_stack([onset, np.minimum(onset + gate * step_s, duration_s), pitch, np.rint(velocity)])
    notes[:, :2] = np.round(notes[:, :2], 4)
    return Phrase(notes, _express(rng, notes, voice.style, duration_s))


# -- harmony -----------------------------------------------------------------------------------------------------------


class Mode(NamedTuple):
    """A scale: its seven degrees for chords, those that melodies use, and chord progressions as degrees from 0."""

    degrees: tuple[int, ...]
    line: tuple[int, ...]
    progressions: tuple[tuple[int, ...], ...]


_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_DORIAN = (0, 2, 3, 5, 7, 9, 10)
_MIXOLYDIAN = (0, 2, 4, 5, 7, 9, 10)

_MODES = {
    "major": Mode(_MAJOR, _MAJOR, ((0, 3, 4, 0), (0, 5, 3, 4), (1, 4, 0, 0), (0, 4, 5, 3), (5, 3, 0, 4), (0, 1, 4, 0))),
    "minor": Mode(_MINOR, _MINOR, ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 6, 2), (0, 4, 0, 3))),
    "dorian": Mode(_DORIAN, _DORIAN, ((0, 3, 0, 3), (0, 6, 3, 0))),
    "mixolydian": Mode(_MIXOLYDIAN, _MIXOLYDIAN, ((0, 6, 3, 0), (0, 3, 0, 6))),
    "blues": Mode(_MIXOLYDIAN, (0, 3, 5, 6, 7, 10), ((0, 3, 0, 4), (0, 0, 3, 0))),
}


@dataclass(frozen=True)
class Piece:
    """Key, time and chords of a phrase; beats are counted from 0, `chords` has a degree for each."""

    tonic: int
    mode: Mode
    n_beats: int
    beat_s: float
    start_s: float
    end_s: float
    duration_s: float
    swing: float
    chords: tuple[int, ...]
    rhythms: tuple[tuple[float, ...], ...]
    sevenths: bool

    def chord(self, beat: float) -> list[int]:
        """Return the pitch classes of the chord at a beat, root first."""
        degree = self.chords[min(int(beat + 1e-6), self.n_beats - 1)]
        degrees = self.mode.degrees
        tones = [degrees[(degree + 2 * third) % 7] for third in range(4 if self.sevenths else 3)]
        if self._raises_seventh(degree):
            tones[1] += 1
        return [(self.tonic + tone) % 12 for tone in tones]

    def ladder(self, low: int, high: int) -> list[int]:
        """Return the pitches of the melody's scale from `low` to `high`."""
        return [pitch for pitch in range(low, high + 1) if (pitch - self.tonic) % 12 in self.mode.line]

    def fit(self, pitch: int, beat: float, high: int) -> int:
        """Raise the seventh of a minor scale where the dominant sounds."""
        degree = self.chords[min(int(beat + 1e-6), self.n_beats - 1)]
        leading = self._raises_seventh(degree) and (pitch - self.tonic) % 12 == 10 and pitch < high
        return pitch + leading

    def _raises_seventh(self, degree: int) -> bool:
        return degree == 4 and self.mode.degrees is _MINOR


def _new_piece(rng: np.random.Generator, voice: Voice, duration_s: float) -> Piece:
    style = voice.style
    beat_s = 60 / rng.uniform(*style.tempo_bpm)
    start_s = rng.uniform(0.02, 0.1)
    if voice.drums or rng.random() < 0.35:  # the music goes on; the clip ends in the midst of it
        end_s = duration_s
        n_beats = int((duration_s - start_s) / beat_s) + 1
    else:
        end_s = duration_s - rng.uniform(0.02, 0.3)
        n_beats = int((duration_s - start_s - 0.2) / beat_s)
    mode = _MODES[_pick(rng, style.modes)]
    progression = _pick(rng, mode.progressions)
    beats_a_chord = 1 if beat_s > 0.75 else 2
    chords = tuple(progression[beat // beats_a_chord % len(progression)] for beat in range(n_beats))
    swing = rng.uniform(0.58, 0.67) if rng.random() < style.swing else 0.5
    tonic = int(rng.integers(12))
    return Piece(tonic, mode, n_beats, beat_s, start_s, end_s, duration_s, swing, chords, style.rhythms, style.sevenths)


def _voicing(chord: Sequence[int], low: int, high: int, n_notes: int, near: float) -> list[int]:
    """Stack `n_notes` chord tones, wide below and close above, so that their mean lies near `near`."""
    tones = [pitch for pitch in range(low, high + 1) if pitch % 12 in chord]
    best, best_cost = tones[:1], np.inf
    for first, bass in enumerate(tones):
        stack = [bass]
        for pitch in tones[first + 1 :]:
            gap = 7 if stack[-1] < 45 else 4 if stack[-1] < 52 else 3
            if len(stack) < n_notes and pitch - stack[-1] >= gap:
                stack.append(pitch)
        missing = len(set(chord[:3]) - {pitch % 12 for pitch in stack})
        cost = (
            abs(sum(stack) / len(stack) - near) + 3 * (bass % 12 != chord[0]) + 4 * missing + 6 * (n_notes - len(stack))
        )
        if cost < best_cost:
            best, best_cost = stack, cost
    return best


# -- textures: what is played, in beats --------------------------------------------------------------------------------


class Event(NamedTuple):
    """A note as written: where it begins and how long it lasts in beats, MIDI pitch, accent in steps of velocity."""

    beat: float
    length: float
    pitch: int
    accent: float = 0.0


def _rhythm(rng: np.random.Generator, piece: Piece) -> list[tuple[float, float]]:
    """Return (beat, length) of a line: a motif of two beats, repeated or answered, to the end of the phrase."""

    def motif() -> list[float]:
        cells: list[float] = []
        while sum(cells) < 2 - 1e-6:
            cells.extend(_pick(rng, piece.rhythms))
        return cells

    line: list[tuple[float, float]] = []
    while len(line) < 3:  # fewer notes are no phrase
        line, beat, first = [], 0.0, motif()
        lengths = list(first)
        while sum(lengths) < piece.n_beats:
            lengths.extend(first if rng.random() < 0.5 else motif())
        for length in lengths:
            if beat > piece.n_beats - 0.2:
                break
            line.append((beat, min(length, piece.n_beats - beat)))
            beat += length
    breath = int(rng.integers(1, len(line))) if len(line) > 4 and rng.random() < 0.3 else len(line)
    return [note for index, note in enumerate(line) if index != breath or index == len(line) - 1]


def _line(
    rng: np.random.Generator, piece: Piece, rhythm: list[tuple[float, float]], low: int, high: int
) -> list[Event]:
    """Walk the scale mostly by step along a contour, with chord tones on the beats and at the end."""
    ladder = piece.ladder(low, high)
    top = len(ladder) - 1
    contour = rng.uniform(0, top, size=3)
    aims = np.interp([beat for beat, _ in rhythm], [0, piece.n_beats / 2, piece.n_beats], contour).tolist()
    chance = rng.random((len(rhythm), 2)).tolist()
    here, events = round(aims[0]), []
    for index, ((beat, length), aim, (turn, snap)) in enumerate(zip(rhythm, aims, chance, strict=True)):
        toward = 1 if aim > here else -1
        if index:
            leap = 3 if abs(aim - here) > 4 else 2
            here += toward * (1 if turn < 0.55 else leap if turn < 0.72 else 0 if turn < 0.8 else -1)
        here = min(max(here, 0), top)
        on_beat, last = abs(beat - round(beat)) < 1e-6, index == len(rhythm) - 1
        if index == 0 or last or (on_beat and snap < 0.7):
            here = _nearest_tone(ladder, piece.chord(beat), here, toward)
        events.append(Event(beat, length, piece.fit(ladder[here], beat, high)))
    return events


def _nearest_tone(ladder: list[int], chord: list[int], here: int, toward: int) -> int:
    """Return the place of the chord tone nearest to `here` on the ladder; `toward` decides between two."""
    tones = [place for place, pitch in enumerate(ladder) if pitch % 12 in chord]
    return min(tones, key=lambda place: (abs(place - here), -toward * place), default=here)


def _melody(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play a melody, here and there with a grace note or a mordent."""
    events = []
    for event in _line(rng, piece, _rhythm(rng, piece), voice.low, voice.high):
        above = [pitch for pitch in piece.ladder(event.pitch + 1, voice.high) if pitch <= event.pitch + 2]
        if above and event.length * piece.beat_s > 0.4 and rng.random() < voice.style.ornament:
            short = 0.07 / piece.beat_s
            head = [event.pitch, above[0]] if rng.random() < 0.5 else [above[0]]
            events += [Event(event.beat + short * i, short, pitch, -6) for i, pitch in enumerate(head)]
            used = short * len(head)
            events.append(Event(event.beat + used, event.length - used, event.pitch))
        else:
            events.append(event)
    return events


_FIGURES = ((0, 1, 2, 3), (0, 2, 1, 3, 2, 4), (0, 1, 2, 1), (0, 1, 2, 0), (0, 1, 0, -1))
"""Figures of a run as places on the scale; each repetition begins one or more places further."""


def _run(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play even notes in a repeated figure up or down the scale, into a longer last note."""
    ladder = piece.ladder(voice.low, voice.high)
    top = len(ladder) - 1
    notes_a_beat = _pick(rng, [n for n in (2, 3, 4, 4) if n / piece.beat_s < 9.5])
    figure = _pick(rng, _FIGURES)
    shift = 4 if figure == _FIGURES[0] and rng.random() < 0.6 else 1
    direction = 1 if rng.random() < 0.5 else -1
    start = int(rng.integers(0, top // 2 + 1)) if direction > 0 else int(rng.integers(top // 2, top + 1))
    n_run = (piece.n_beats - 1) * notes_a_beat
    events = []
    for index in range(n_run + 1):
        repeat, place = divmod(index, len(figure))
        place = start + direction * (repeat * shift + figure[place])
        place = abs(place) % (2 * top)  # turn round at both ends of the register
        place = 2 * top - place if place > top else place
        beat = index / notes_a_beat
        if index == n_run:
            place = _nearest_tone(ladder, piece.chord(beat), place, direction)
        events.append(
            Event(beat, 1 / notes_a_beat if index < n_run else 1.0, piece.fit(ladder[place], beat, voice.high))
        )
    return events


_ARPEGGIOS = ((0, 1, 2, 3), (0, 1, 2, 3, 2, 1), (0, 2, 1, 2), (3, 2, 1, 0), (0, 2, 1, 3), (0, 1, 2, 1))
"""Orders in which the tones of a chord are played, from its lowest."""


def _spread(rng: np.random.Generator, piece: Piece, low: int, high: int, *, ringing: bool) -> list[Event]:
    notes_a_beat = _pick(rng, [n for n in (2, 2, 3, 4) if n / piece.beat_s < 8])
    order = _pick(rng, _ARPEGGIOS)
    near = rng.uniform(low + (high - low) * 0.3, low + (high - low) * 0.7)
    events = []
    for first, last, chord in _chord_spans(piece):
        tones = _voicing(chord, low, high, 4, near)
        for index in range((last - first) * notes_a_beat):
            beat = first + index / notes_a_beat
            tone = tones[order[index % len(order)] % len(tones)]
            length = last - beat if ringing else 1 / notes_a_beat
            events.append(Event(beat, length, tone, 4.0 if index % len(order) == 0 else 0.0))
    return events


def _arpeggio(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play chords as a single line."""
    return _spread(rng, piece, voice.low, voice.high, ringing=False)


def _broken(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play broken chords that ring until the harmony changes: pedal, or fingers that stay on the strings."""
    return _spread(rng, piece, voice.low, voice.high, ringing=True)


_COMPING = (
    ((0, 1), (1, 1), (2, 1), (3, 1)),
    ((0, 0.4), (1.5, 0.5), (2, 0.4), (3.5, 0.5)),
    ((0, 1.5), (1.5, 0.5), (2, 1.5), (3.5, 0.5)),
    ((0.5, 0.4), (1.5, 0.4), (2.5, 0.4), (3.5, 0.4)),
    ((0, 0.75), (0.75, 0.75), (1.5, 0.5), (2, 0.75), (2.75, 0.75), (3.5, 0.5)),
    ((0, 0.5), (0.5, 0.5), (1, 0.5), (1.5, 0.5), (2, 0.5), (2.5, 0.5), (3, 0.5), (3.5, 0.5)),
    ((0, 2), (2, 2)),
)
"""Rhythms of chords: where each begins in a bar of four beats, and its length."""


def _comping(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play chords in a rhythm."""
    pattern = _pick(rng, _COMPING)
    n_notes = int(rng.integers(3, 5))
    near = rng.uniform(voice.low + 6, voice.high - 6)
    hits = [(bar + beat, length) for bar in range(0, piece.n_beats, 4) for beat, length in pattern]
    stacks = {first: _voicing(chord, voice.low, voice.high, n_notes, near) for first, _, chord in _chord_spans(piece)}
    events = []
    for beat, length in hits:
        if beat < piece.n_beats:
            stack = stacks[max(first for first in stacks if first <= beat)]
            events += [Event(beat, min(length, piece.n_beats - beat), pitch) for pitch in stack]
    return events


_STRUMS = ("D.D.D.D.", "D.DU.UDU", "D.DUD.DU", "D.DU.UD.", "DUDUDUDU", "D...D.DU")
"""Strokes of a bar in eighths: down, up, none."""


def _strum(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Strum chords: the strings follow each other, upwards or downwards, and ring until the next stroke."""
    pattern = _pick(rng, _STRUMS)
    spread = rng.uniform(0.008, 0.022) / piece.beat_s
    near = rng.uniform(voice.low + 5, voice.high - 5)
    strokes = [(eighth / 2, pattern[eighth % 8]) for eighth in range(2 * piece.n_beats) if pattern[eighth % 8] != "."]
    ends = [beat for beat, _ in strokes[1:]] + [float(piece.n_beats)]
    stacks = {first: _voicing(chord, voice.low, voice.high, 6, near) for first, _, chord in _chord_spans(piece)}
    events = []
    for (beat, stroke), end in zip(strokes, ends, strict=True):
        stack = stacks[max(first for first in stacks if first <= beat)]
        strings = stack if stroke == "D" else stack[::-1][:4]
        accent = 0.0 if stroke == "D" else -8.0
        events += [Event(beat + i * spread, end - beat - i * spread, pitch, accent) for i, pitch in enumerate(strings)]
    return events


def _chorale(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play sustained chords; tones that two chords share are held over."""
    n_notes = 4 if voice.high - voice.low > 16 else 3
    near = rng.uniform(voice.low + 5, voice.high - 5)
    events: list[Event] = []
    held: dict[int, Event] = {}
    for first, last, chord in _chord_spans(piece):
        stack = _voicing(chord, voice.low, voice.high, n_notes, near)
        near = sum(stack) / len(stack)
        kept = {pitch: held[pitch]._replace(length=last - held[pitch].beat) for pitch in stack if pitch in held}
        events += [event for pitch, event in held.items() if pitch not in kept]
        held = {pitch: kept.get(pitch, Event(first, last - first, pitch)) for pitch in stack}
    return events + list(held.values())


def _accompanied(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play a melody over held or broken chords in the lower part of the register."""
    middle = voice.low + round(0.5 * (voice.high - voice.low))
    above = _line(rng, piece, _rhythm(rng, piece), middle + 1, voice.high)
    if rng.random() < 0.5:
        below = _spread(rng, piece, voice.low, middle, ringing=False)
    else:
        below = [
            Event(first, last - first, pitch)
            for first, last, chord in _chord_spans(piece)
            for pitch in _voicing(chord, voice.low, middle, 3, voice.low + 5)
        ]
    return [event._replace(accent=event.accent + 8) for event in above] + [
        event._replace(accent=event.accent - 8) for event in below
    ]


def _double_stops(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play a melody with a second voice a third or a sixth below it."""
    events = _line(rng, piece, _rhythm(rng, piece), voice.low, voice.high)
    ladder = piece.ladder(voice.low, voice.high)
    below = _pick(rng, (2, 2, 5))
    second = []
    for event in events:
        lower = [pitch for pitch in ladder if pitch < event.pitch]
        if len(lower) >= below and event.length >= 0.5:
            second.append(event._replace(pitch=lower[-below], accent=-5.0))
    return events + second


def _fanfare(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play signals: repeated notes and leaps over the tones of a chord."""
    cells = ((1 / 3,) * 3, (0.75, 0.25), (0.5, 0.25, 0.25), (1,), (0.5, 0.5))
    rhythm = _rhythm(rng, replace(piece, rhythms=cells))
    chord = [(piece.tonic + tone) % 12 for tone in (0, piece.mode.degrees[2], 7)]
    ladder = [pitch for pitch in range(voice.low, voice.high + 1) if pitch % 12 in chord]
    here, events = int(rng.integers(len(ladder))), []
    for beat, length in rhythm:
        if abs(beat - round(beat)) < 1e-6 and beat:
            here += int(rng.integers(-1, 3)) if here < len(ladder) - 1 else -int(rng.integers(0, 2))
        here = min(max(here, 0), len(ladder) - 1)
        events.append(Event(beat, length, ladder[here], 6.0 if length >= 0.5 else 0.0))
    return events


_RIFFS = ("x.xx.xx.", "xx.xx.x.", "x..x..x.", "xxxx.xx.", "x.x.xxx.", "xxxxxxxx")


def _riff(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play a short figure over the root, low in the register, again and again."""
    ladder = piece.ladder(voice.low, min(voice.low + 16, voice.high))
    roots = [place for place, pitch in enumerate(ladder) if pitch % 12 == piece.tonic]
    pattern = _pick(rng, _RIFFS)
    step = 0.5 if piece.beat_s < 0.55 else 0.25
    n_steps = round(piece.n_beats / step)
    moves = [0, 0, 0, *rng.integers(0, 5, size=5).tolist()]
    events = []
    for index in range(n_steps):
        if pattern[index % 8] == "x":
            place = min(roots[0] + moves[index % 8], len(ladder) - 1)
            events.append(Event(index * step, step * 0.7, ladder[place], 8.0 if index % 4 == 0 else 0.0))
    return events


_POWER = ("X.xxX.xx", "XxxxXxxx", "X..X..X.", "X...XxXx", "xxxxxxxx", "X.X.xxX.")
"""Eighths of power chords: X rings until the next, x is damped."""


def _power_chords(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play root, fifth and octave in driving eighths, ringing or damped."""
    pattern = _pick(rng, _POWER)
    hits = [(eighth / 2, pattern[eighth % 8]) for eighth in range(2 * piece.n_beats) if pattern[eighth % 8] != "."]
    ends = [beat for beat, _ in hits[1:]] + [float(piece.n_beats)]
    events = []
    for (beat, hit), end in zip(hits, ends, strict=True):
        root = next(pitch for pitch in range(voice.low, voice.high) if pitch % 12 == piece.chord(beat)[0])
        stack = [pitch for pitch in (root, root + 7, root + 12) if pitch <= voice.high]
        length, accent = (end - beat, 6.0) if hit == "X" else (0.28, -4.0)
        events += [Event(beat, length, pitch, accent) for pitch in stack]
    return events


def _chord_spans(piece: Piece) -> list[tuple[int, int, list[int]]]:
    """Return (first beat, beat after the last, pitch classes) of each chord."""
    changes = [beat for beat in range(piece.n_beats) if beat == 0 or piece.chords[beat] != piece.chords[beat - 1]]
    ends = [*changes[1:], piece.n_beats]
    return [(first, last, piece.chord(first)) for first, last in zip(changes, ends, strict=True)]


# -- drums -------------------------------------------------------------------------------------------------------------

# General MIDI key (several: one is chosen for the clip) and how long it is left to sound, in s.
_KIT: dict[str, tuple[tuple[int, ...], float]] = {
    "kick": ((36, 36, 35), 0.3),
    "snare": ((38, 38, 40), 0.3),
    "stick": ((37,), 0.2),
    "clap": ((39,), 0.3),
    "hat": ((42,), 0.12),
    "pedal": ((44,), 0.12),
    "open": ((46,), 0.5),
    "ride": ((51, 59), 0.9),
    "bell": ((53,), 0.9),
    "crash": ((49, 57), 1.8),
    "tom1": ((50, 48), 0.5),
    "tom2": ((47,), 0.5),
    "tom3": ((45,), 0.5),
    "tom4": ((43, 41), 0.6),
}

# One bar of four beats in 16 (straight) or 12 (swung) steps: X accent, x hit, o ghost note.
_GROOVES: dict[int, tuple[dict[str, str], ...]] = {
    1: (
        {"kick": "X.......x.x.....", "snare": "....X.......X...", "hat": "X.x.X.x.X.x.X.x."},
        {"kick": "X.....x...x.....", "snare": "....X..o.o..X..o", "hat": "XxxxXxxxXxxxXxxx"},
        {"kick": "X...X...X...X...", "clap": "....x.......x...", "hat": "x...x...x...x...", "open": "..X...X...X...X."},
        {"kick": "X..x..x.X..x....", "snare": "....X.......X...", "ride": "X.x.X.x.X.x.X.x."},
        {"kick": "X.........x.....", "snare": "........X.......", "hat": "x.x.x.x.x.x.x.x."},
        {"kick": "X..xX..xX..xX..x", "stick": "x..x..x...x..x..", "hat": "x.x.x.x.x.x.x.x."},
        {"kick": "X...x...X...x...", "snare": "ooXoooXoooXooxXx", "pedal": "..x...x...x...x."},
        {
            "kick": "X.x.....X.x.....",
            "snare": "....X.......X..o",
            "bell": "X...X...X...X...",
            "pedal": "....x.......x...",
        },
        {
            "kick": "X.....x.X.......",
            "tom4": "X.x..x..X.x..x..",
            "tom2": "....X.......X.x.",
            "pedal": "....x.......x...",
        },
    ),
    2: (
        {"kick": "X.....X.x...", "snare": "...X.....X..", "hat": "X.xX.xX.xX.x"},
        {"ride": "X..X.xX..X.x", "pedal": "...x.....x..", "kick": "o.....o.....", "snare": ".....o..o..."},
        {"kick": "X....xX.....", "snare": "...X.....X..", "hat": "XxxXxxXxxXxx"},
        {"kick": "X.......x...", "snare": "..o.o.X.o.o.", "hat": "X.xX.xX.xX.x"},
        {"kick": "X.....x..x..", "tom3": "X.x..x..X..x", "tom1": "...X.xX.....", "pedal": "...x.....x.."},
        {"kick": "X.....X.....", "stick": "...X.....X..", "ride": "X..X.xX..X.x"},
    ),
}

_FILLS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (
        ("snare", "snare", "tom1", "tom1", "tom2", "tom2", "tom4", "tom4"),
        ("snare", "snare", "snare", "snare", "tom1", "tom2", "tom3", "tom4"),
        ("snare", "snare", "tom2", "tom4"),
        ("snare",) * 4,
        ("tom1", "tom1", "tom3", "tom4"),
    ),
    2: (
        ("snare", "snare", "tom1", "tom2", "tom3", "tom4"),
        ("snare", "tom2", "tom4"),
        ("tom1", "tom2", "tom4"),
        ("snare",) * 3,
    ),
}
_HITS = {"X": 14.0, "x": 0.0, "o": -34.0}


def _groove(rng: np.random.Generator, piece: Piece, voice: Voice) -> list[Event]:
    """Play a groove; most have a fill, which leads to a crash on the next bar."""
    key = {name: _pick(rng, keys) for name, (keys, _) in _KIT.items()}
    groove, fill = _pick(rng, _GROOVES[voice.register]), _pick(rng, _FILLS[voice.register])
    steps_a_beat = 4 if voice.register == 1 else 3
    bar = 4 * steps_a_beat
    shift = _pick(rng, (0, 0, 2)) * steps_a_beat  # where in the bar the clip begins
    n_steps = piece.n_beats * steps_a_beat

    turns = [step for step in range(bar - shift, n_steps + 1, bar) if step > len(fill)]
    turn = turns[int(rng.integers(len(turns)))] if turns and rng.random() < 0.65 else None
    filled = range(turn - len(fill), turn) if turn is not None else range(0)
    hits = [
        (step, name, pattern[(step + shift) % bar])
        for step in range(n_steps)
        if step not in filled
        for name, pattern in groove.items()
        if pattern[(step + shift) % bar] != "."
    ]
    if turn is not None:
        hits += [(step, name, "x") for step, name in zip(filled, fill, strict=True)]
        hits += [(turn, "crash", "X"), (turn, "kick", "X")]
    elif rng.random() < 0.3:
        hits.append((0, "crash", "X"))
    return [Event(step / steps_a_beat, _KIT[name][1] / piece.beat_s, key[name], _HITS[hit]) for step, name, hit in hits]


# -- performance: beats become seconds ---------------------------------------------------------------------------------


class Texture(NamedTuple):
    """A way to play: its function; whether the articulation shortens its notes; whether it is one note at a time."""

    events: Callable[[np.random.Generator, Piece, Voice], list[Event]]
    articulated: bool
    single_line: bool


_TEXTURES = {
    "melody": Texture(_melody, articulated=True, single_line=True),
    "run": Texture(_run, articulated=True, single_line=True),
    "arpeggio": Texture(_arpeggio, articulated=True, single_line=True),
    "fanfare": Texture(_fanfare, articulated=True, single_line=True),
    "riff": Texture(_riff, articulated=False, single_line=True),
    "double stops": Texture(_double_stops, articulated=True, single_line=False),
    "broken": Texture(_broken, articulated=False, single_line=False),
    "comping": Texture(_comping, articulated=False, single_line=False),
    "strum": Texture(_strum, articulated=False, single_line=False),
    "chorale": Texture(_chorale, articulated=False, single_line=False),
    "accompanied": Texture(_accompanied, articulated=False, single_line=False),
    "power chords": Texture(_power_chords, articulated=False, single_line=False),
    "groove": Texture(_groove, articulated=False, single_line=False),
}

_GATES = {
    "legato": (1.0,),
    "tenuto": (0.94,),
    "detached": (0.75,),
    "staccato": (0.42,),
    "slurs": (1.0, 1.0, 0.5, 0.5),
    "ringing": (0.98,),
}
"""Share of its written length that a note sounds, in turn."""

_SHORTEST_S = 0.03


def _perform(
    rng: np.random.Generator, piece: Piece, events: list[Event], *, articulation: str, texture: Texture
) -> np.ndarray:
    """Give written notes a player's timing, dynamics and articulation: notes [shape=(n_notes, 4)]."""
    beat, length, pitch, accent = np.array(sorted(events)).T
    onset = piece.start_s + _swung(beat, piece.swing) * piece.beat_s
    end = piece.start_s + _swung(beat + length, piece.swing) * piece.beat_s
    last = beat + length > piece.n_beats - 1e-6
    gates = _GATES[articulation]
    gate = np.resize(gates, len(beat))
    if texture.events is not _groove:  # a phrase closes on a note that is held to its end
        end = np.where(last, np.maximum(end, piece.end_s), end)
        gate = np.where(last, np.maximum(gate, 0.9), gate)
    offset = onset + (end - onset) * gate
    onset = np.maximum(onset + np.clip(rng.normal(0, 0.004, len(beat)), -0.01, 0.01), 0)
    if texture.single_line:
        offset[:-1] = np.minimum(offset[:-1], onset[1:])

    progress = np.clip((onset - piece.start_s) / (piece.end_s - piece.start_s), 0, 1)
    swell = rng.uniform(-6, 16) * np.sin(np.pi * progress)
    metre = np.where(np.abs(beat - np.rint(beat)) > 1e-6, -3.0, np.where(np.rint(beat) % 4 == 0, 6.0, 2.0))
    velocity = rng.uniform(54, 102) + swell + metre + accent + rng.normal(0, 3, len(beat))

    notes = np.column_stack([onset, np.maximum(offset, onset + _SHORTEST_S), pitch, np.clip(velocity, 24, 124)])
    notes[:, :2] = np.round(notes[:, :2], 4)
    notes[:, 2:] = np.rint(notes[:, 2:])
    return _playable(notes, piece.duration_s)


def _playable(notes: np.ndarray, duration_s: float) -> np.ndarray:
    """Keep notes within the clip, and release each key before it is struck again."""
    notes = notes[notes[:, 0] <= duration_s - 0.08]
    notes[:, 1] = np.minimum(notes[:, 1], duration_s)
    notes = notes[np.lexsort((notes[:, 0], notes[:, 2]))]
    same = notes[1:, 2] == notes[:-1, 2]
    until_next = np.where(same, notes[1:, 0] - 0.005, np.inf)
    notes[:-1, 1] = np.round(np.minimum(notes[:-1, 1], until_next), 4)
    notes = notes[notes[:, 1] - notes[:, 0] >= _SHORTEST_S - 1e-9]
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def _swung(beat: np.ndarray, swing: float) -> np.ndarray:
    """Move what lies between the beats so that the second eighth falls at `swing` of the beat."""
    whole = np.floor(beat + 1e-9)
    part = beat - whole
    return whole + np.where(part < 0.5, 2 * part * swing, swing + (2 * part - 1) * (1 - swing))


_BEND_STEP_S = 0.01


def _express(rng: np.random.Generator, notes: np.ndarray, style: Style, duration_s: float) -> np.ndarray:
    """Return the bends of a single line [shape=(n_bends, 2)]: vibrato that grows on long notes, and scoops."""
    if not (style.vibrato_cents or style.scoop):
        return np.zeros((0, 2))
    time_s = np.arange(0, duration_s, _BEND_STEP_S)
    note = np.clip(np.searchsorted(notes[:, 0], time_s, side="right") - 1, 0, None)
    age_s = np.maximum(time_s - notes[note, 0], 0)
    length_s = notes[:, 1] - notes[:, 0]

    depth = style.vibrato_cents * rng.uniform(0.2, 1)
    grown = np.clip((age_s - 0.15) / 0.25, 0, 1) * (length_s[note] > 0.35)
    cents = depth * grown * np.sin(2 * np.pi * rng.uniform(4.6, 6.2) * time_s)
    scooped = (rng.random(len(notes)) < style.scoop * rng.uniform(0, 2)) & (length_s > 0.2)
    cents -= scooped[note] * rng.uniform(40, 130) * np.clip(1 - age_s / rng.uniform(0.06, 0.12), 0, 1)
    cents = np.round(cents, 2)
    changed = np.concatenate([[True], cents[1:] != cents[:-1]])
    return np.column_stack([time_s, cents])[changed]


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
