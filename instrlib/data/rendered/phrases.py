"""Random short phrases for each instrument: pitches, times, dynamics and bends.

A phrase has a key, a tempo, a chord progression and a texture of the instrument: a melody, a run, broken chords,
strumming, a chorale, a riff, or a drum groove with a fill. Its notes are in one register.
"""

import functools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

MUSIC: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""The tables `parts`, `styles`, `rhythms`, `modes`, `gates`, `strokes`, `kit` and `drums`."""

CLASSES = tuple(MUSIC["parts"])

NOTE_COLUMNS = ("onset_s", "offset_s", "pitch", "velocity")
_SHORTEST_S = 0.03


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
    drums: bool


@functools.cache
def voices(label: str) -> tuple[Voice, ...]:
    """Return the voices of a class, ordered such that the first ones differ in register and program."""
    found = []
    for programs, low, high, n_registers, name in MUSIC["parts"][label]:
        style, drums = Style(**MUSIC["styles"][name]), label == "drums"
        edges = np.linspace(low, high + 1, n_registers + 1)
        bands = [(low, high) if drums else (round(first), round(end) - 1) for first, end in pairwise(edges)]
        numbered = [(program, number, band) for program in programs for number, band in enumerate(bands, 1)]
        found += [Voice(label, program, number, *band, style, drums) for program, number, band in numbered]
    return tuple(sorted(found, key=lambda voice: voice.register))


@dataclass(frozen=True)
class Phrase:
    """The music: `notes` has the columns `NOTE_COLUMNS`; `bends` has a time in s and the cents from then on."""

    notes: np.ndarray  # [n_notes, 4], sorted by onset
    bends: np.ndarray  # [n_bends, 2]


class Event(NamedTuple):
    """A written note: start and length in beats, MIDI pitch, accent in velocity steps."""

    beat: float
    length: float
    pitch: int
    accent: float = 0.0


@dataclass(frozen=True)
class Piece:
    """Player, key, time and harmony of a phrase; beats count from 0."""

    rng: np.random.Generator
    voice: Voice
    mode: dict[str, Any]
    tonic: int
    progression: list[int]
    n_beats: int
    beat_s: float
    beats_a_chord: int
    start_s: float
    end_s: float
    swing: float

    def chord(self, beat: float) -> list[int]:
        """Return the pitch classes of the triad at a beat, root first."""
        place = min(int(beat + 1e-6), self.n_beats - 1) // self.beats_a_chord
        degree = self.progression[place % len(self.progression)]
        return [(self.tonic + self.mode["scale"][(degree + third) % 7]) % 12 for third in (0, 2, 4)]

    def chords(self) -> list[tuple[int, int, list[int]]]:
        """Return (first beat, beat after the last, pitch classes) of each chord."""
        firsts = range(0, self.n_beats, self.beats_a_chord)
        return [(first, min(first + self.beats_a_chord, self.n_beats), self.chord(first)) for first in firsts]

    def ladder(self, low: int | None = None, high: int | None = None) -> list[int]:
        """Return the pitches of the melody's scale from `low` to `high`, by default of the register."""
        low, high = low or self.voice.low, high or self.voice.high
        tones = self.mode.get("line", self.mode["scale"])
        return [pitch for pitch in range(low, high + 1) if (pitch - self.tonic) % 12 in tones]

    def near(self) -> float:
        """Return a random mean pitch of chords in the middle of the register."""
        low, high = self.voice.low, self.voice.high
        return self.rng.uniform(0.7 * low + 0.3 * high, 0.3 * low + 0.7 * high)


def compose(rng: np.random.Generator, voice: Voice, *, duration_s: float) -> Phrase:
    """Compose a phrase; notes last at least 30 ms and end within `duration_s`."""
    style = voice.style
    runs_on = voice.drums or rng.random() < 0.35  # the clip ends while the music continues
    beat_s, start_s, end_s = 60 / rng.uniform(*style.tempo_bpm), rng.uniform(0.02, 0.1), duration_s
    n_beats = int((duration_s - start_s) / beat_s) + 1
    if not runs_on:
        end_s, n_beats = duration_s - rng.uniform(0.02, 0.3), int((duration_s - start_s - 0.2) / beat_s)
    beats_a_chord = 1 if beat_s > 0.75 else 2
    mode = MUSIC["modes"][_pick(rng, style.modes.split())]
    swing = rng.uniform(0.58, 0.67) if rng.random() < style.swing else 0.5
    tonic, progression = int(rng.integers(12)), _pick(rng, mode["progressions"])
    piece = Piece(rng, voice, mode, tonic, progression, n_beats, beat_s, beats_a_chord, start_s, end_s, swing)
    texture = _pick(piece.rng, style.textures.split())
    is_line, events = texture in _LINES, _TEXTURES[texture](piece)
    articulated = (is_line and texture != "riff") or texture == "double-stops"  # others ring as written
    gates = MUSIC["gates"][_pick(piece.rng, style.articulations.split())] if articulated else (0.98,)
    notes = _perform(piece, events, gates, duration_s, single_line=is_line)
    return Phrase(notes, _express(rng, notes, style, duration_s) if is_line else np.zeros((0, 2)))


def exercise(rng: np.random.Generator, voice: Voice, *, duration_s: float) -> Phrase:
    """Compose one note, a repeated note or a scale, which show the timbre; often followed by silence."""
    kind = _pick(rng, ("note", "note", "repeated", "scale"))
    step_s, gate = (rng.uniform(0.3, 3.2), 1.0) if kind == "note" else (rng.uniform(0.15, 0.9), rng.uniform(0.4, 1))
    onset = np.arange(rng.uniform(0, 0.3), duration_s - 0.1, step_s)[: 1 if kind == "note" else rng.integers(2, 9)]
    scale, tonic = MUSIC["modes"][_pick(rng, ("major", "minor"))]["scale"], rng.integers(12)
    ladder = [pitch for pitch in range(voice.low, voice.high + 1) if (pitch - tonic) % 12 in scale]
    moves = np.arange(len(onset)) if kind == "scale" else np.zeros(len(onset), int)
    turns = ladder + ladder[-2:0:-1]  # up to the end of the register, and down again
    pitch = np.array(turns)[(rng.integers(len(turns)) + moves) % len(turns)]
    velocity = np.clip(rng.uniform(35, 120) + rng.normal(0, 5, len(onset)), 24, 124)
    notes = np.column_stack([onset, np.minimum(onset + gate * step_s, duration_s), pitch, np.rint(velocity)])
    notes[:, :2] = np.round(notes[:, :2], 4)
    return Phrase(notes, _express(rng, notes, voice.style, duration_s))


def _rhythm(piece: Piece, names: str) -> list[tuple[float, float]]:
    """Return (beat, length) of a line: a motif of two beats, repeated or answered, sometimes with a rest."""
    cells = [cell for name in names.split() for cell in MUSIC["rhythms"][name]]

    def motif() -> list[float]:
        lengths: list[float] = []
        while sum(lengths) < 2 - 1e-6:
            lengths.extend(twelfths / 12 for twelfths in _pick(piece.rng, cells))
        return lengths

    line: list[tuple[float, float]] = []
    while len(line) < 3:
        lengths = first = motif()
        while sum(lengths) < piece.n_beats:
            lengths = lengths + (first if piece.rng.random() < 0.5 else motif())
        begins = np.cumsum([0.0, *lengths[:-1]]).tolist()
        fits = [(beat, length) for beat, length in zip(begins, lengths, strict=True) if beat <= piece.n_beats - 0.2]
        line = [(beat, min(length, piece.n_beats - beat)) for beat, length in fits]
    if len(line) > 4 and piece.rng.random() < 0.3:
        del line[piece.rng.integers(1, len(line) - 1)]
    return line


def _line(piece: Piece, ladder: list[int], rhythms: str = "") -> list[Event]:
    """Walk along a ladder of pitches, mostly by step, with chord tones on the beats and at the end."""
    rhythm, top = _rhythm(piece, rhythms or piece.voice.style.rhythms), len(ladder) - 1
    ends = piece.rng.uniform(0, top, 3)
    aims = np.interp([beat for beat, _ in rhythm], np.linspace(0, piece.n_beats, 3), ends).tolist()
    here, events = round(aims[0]), []
    for index, ((beat, length), aim) in enumerate(zip(rhythm, aims, strict=True)):
        turn, snap = piece.rng.random(2)
        toward = 1 if aim > here else -1
        if index:
            leap = 3 if abs(aim - here) > 4 else 2
            here += toward * (1 if turn < 0.55 else leap if turn < 0.72 else 0 if turn < 0.8 else -1)
        here = min(max(here, 0), top)
        if index in (0, len(rhythm) - 1) or (abs(beat - round(beat)) < 1e-6 and snap < 0.7):
            chord = piece.chord(beat)
            tones = [place for place, pitch in enumerate(ladder) if pitch % 12 in chord]
            here = min(tones, key=lambda place: abs(place - here), default=here)
        events.append(Event(beat, length, ladder[here]))
    return events


def _melody(piece: Piece) -> list[Event]:
    """Play a melody; some long notes begin with a grace note from above."""
    events: list[Event] = []
    short = 0.07 / piece.beat_s
    for event in _line(piece, piece.ladder()):
        above = piece.ladder(event.pitch + 1, min(event.pitch + 2, piece.voice.high))
        if above and event.length * piece.beat_s > 0.4 and piece.rng.random() < piece.voice.style.ornament:
            events.append(Event(event.beat, short, above[0], -6))
            events.append(event._replace(beat=event.beat + short, length=event.length - short))
        else:
            events.append(event)
    return events


def _fanfare(piece: Piece) -> list[Event]:
    """Play signals: repeated notes and leaps over the tones of one chord."""
    chord, voice = piece.chord(0), piece.voice
    return _line(piece, [pitch for pitch in range(voice.low, voice.high + 1) if pitch % 12 in chord], "fanfare")


def _double_stops(piece: Piece) -> list[Event]:
    """Play a melody with a second voice a third or a sixth below its longer notes."""
    ladder = piece.ladder()
    events, below = _line(piece, ladder), _pick(piece.rng, (2, 2, 5))
    places = [(event, ladder.index(event.pitch) - below) for event in events if event.length >= 0.5]
    return events + [event._replace(pitch=ladder[place], accent=-5.0) for event, place in places if place >= 0]


def _run(piece: Piece) -> list[Event]:
    """Play even notes in a figure, repeated up or down the scale, into a longer last note."""
    ladder = piece.ladder()
    top = len(ladder) - 1
    figure = _pick(piece.rng, ((0, 1, 2, 3), (0, 2, 1, 3, 2, 4), (0, 1, 2, 1), (0, 1, 2, 0), (0, 1, 0, -1)))
    notes_a_beat = _pick(piece.rng, [n for n in (2, 3, 4, 4) if n / piece.beat_s < 9.5])
    start, direction = int(piece.rng.integers(top + 1)), _pick(piece.rng, (-1, 1))
    n_run = (piece.n_beats - 1) * notes_a_beat
    events = []
    for index in range(n_run + 1):
        repeat, place = divmod(index, len(figure))
        place = abs(start + direction * (repeat + figure[place])) % (2 * top)
        length = 1 / notes_a_beat if index < n_run else 1.0
        events.append(Event(index / notes_a_beat, length, ladder[min(place, 2 * top - place)]))  # turn at both ends
    return events


def _arpeggio(piece: Piece, *, ringing: bool = False) -> list[Event]:
    """Play the tones of each chord one after the other; ringing ones sound until the harmony changes."""
    notes_a_beat = _pick(piece.rng, [n for n in (2, 2, 3, 4) if n / piece.beat_s < 8])
    order = _pick(piece.rng, ((0, 1, 2, 3), (0, 1, 2, 3, 2, 1), (0, 2, 1, 2), (3, 2, 1, 0), (0, 2, 1, 3), (0, 1, 2, 1)))
    near, events = piece.near(), []
    for first, last, chord in piece.chords():
        tones = _voicing(chord, piece.voice, 4, near)
        for index in range((last - first) * notes_a_beat):
            beat, tone = first + index / notes_a_beat, tones[order[index % len(order)] % len(tones)]
            accent = 4.0 if index % len(order) == 0 else 0.0
            events.append(Event(beat, last - beat if ringing else 1 / notes_a_beat, tone, accent))
    return events


def _voicing(chord: Sequence[int], voice: Voice, n_notes: int, near: float) -> list[int]:
    """Stack chord tones, wide below and close above, with a mean near `near`; complete root positions first."""

    def stack(bass: int) -> list[int]:
        found = [bass]
        for pitch in range(bass + 1, voice.high + 1):
            gap = 7 if found[-1] < 45 else 4 if found[-1] < 52 else 3
            if pitch % 12 in chord and pitch - found[-1] >= gap and len(found) < n_notes:
                found.append(pitch)
        return found

    def cost(tones: list[int]) -> float:
        missing = len(set(chord) - {pitch % 12 for pitch in tones}) + 1.5 * (n_notes - len(tones))
        return abs(np.mean(tones) - near) + 3 * (tones[0] % 12 != chord[0]) + 4 * missing

    return min((stack(bass) for bass in range(voice.low, voice.high + 1) if bass % 12 in chord), key=cost)


def _strokes(piece: Piece, name: str) -> list[tuple[float, float, str]]:
    """Return beat, length and letter of the strokes of one pattern, repeated to the end of the phrase."""
    pattern = _pick(piece.rng, MUSIC["strokes"][name])
    eighths = [eighth for eighth in range(2 * piece.n_beats) if pattern[eighth % 8] != "."]
    ends = [*eighths[1:], 2 * piece.n_beats]
    strokes = [(eighth, end, pattern[eighth % 8]) for eighth, end in zip(eighths, ends, strict=True)]
    return [(eighth / 2, (end - eighth) / 2 if letter.isupper() else 0.3, letter) for eighth, end, letter in strokes]


def _chords(piece: Piece, *, name: str, n_notes: int, delay_s: float = 0.0) -> list[Event]:
    """Play chords in a rhythm; with a delay the strings follow each other, downwards or upwards, as in strumming."""
    voice, rng, events = piece.voice, piece.rng, []
    near, delay = rng.uniform(voice.low + 5, voice.high - 5), delay_s * rng.uniform(0.5, 1.5) / piece.beat_s
    for beat, length, letter in _strokes(piece, name):
        stack = _voicing(piece.chord(beat), voice, n_notes, near)
        strings, accent = (stack[::-1][:4], -8.0) if letter == "U" else (stack, 0.0)
        events += [Event(beat + i * delay, length - i * delay, pitch, accent) for i, pitch in enumerate(strings)]
    return events


def _power(piece: Piece) -> list[Event]:
    """Play root, fifth and octave in driving eighths, ringing or damped."""
    events, low, high = [], piece.voice.low, piece.voice.high
    for beat, length, letter in _strokes(piece, "power"):
        root = low + (piece.chord(beat)[0] - low) % 12
        stack = [pitch for pitch in (root, root + 7, root + 12) if pitch <= high]
        events += [Event(beat, length, pitch, 6.0 if letter == "X" else -4.0) for pitch in stack]
    return events


def _riff(piece: Piece) -> list[Event]:
    """Repeat a short figure over the root, low in the register."""
    ladder = piece.ladder(piece.voice.low, min(piece.voice.low + 16, piece.voice.high))
    root = next(place for place, pitch in enumerate(ladder) if pitch % 12 == piece.tonic)
    places = np.minimum(root + np.append([0, 0, 0], piece.rng.integers(0, 5, 5)), len(ladder) - 1)
    strokes = [(beat, length, int(2 * beat) % 8) for beat, length, _ in _strokes(piece, "riff")]
    return [Event(beat, length, ladder[places[eighth]], 8.0 * (beat % 2 == 0)) for beat, length, eighth in strokes]


def _chorale(piece: Piece) -> list[Event]:
    """Play sustained chords in close motion."""
    voice, near, events = piece.voice, piece.near(), []
    for first, last, chord in piece.chords():
        stack = _voicing(chord, voice, 4 if voice.high - voice.low > 16 else 3, near)
        near = float(np.mean(stack))
        events += [Event(first, last - first, pitch) for pitch in stack]
    return events


def _accompanied(piece: Piece) -> list[Event]:
    """Play a melody over held or broken chords in the lower half of the register."""
    middle = (piece.voice.low + piece.voice.high) // 2
    above = _line(piece, piece.ladder(middle + 1, piece.voice.high))
    left_hand = _chorale if piece.rng.random() < 0.5 else _arpeggio
    below = left_hand(replace(piece, voice=replace(piece.voice, high=middle)))
    return [event._replace(accent=8) for event in above] + [event._replace(accent=-8) for event in below]


def _groove(piece: Piece) -> list[Event]:
    """Play a straight (register 1) or swung (2) drum groove, often with a fill and a crash."""
    rng, drums = piece.rng, MUSIC["drums"][str(piece.voice.register)]
    key = {name: int(rng.choice(keys)) for name, (keys, _) in MUSIC["kit"].items()}
    pattern, fill = _pick(piece.rng, drums["grooves"]), _pick(piece.rng, drums["fills"]).split()
    steps_a_beat = len(pattern["kick"]) // 4
    bar, n_steps = 4 * steps_a_beat, piece.n_beats * steps_a_beat
    shift = int(rng.choice((0, 0, 2))) * steps_a_beat  # where in the bar the clip begins
    turns = [step for step in range(bar - shift, n_steps + 1, bar) if step > len(fill)]
    turn = int(rng.choice(turns)) if turns and rng.random() < 0.65 else None
    filled = range(0) if turn is None else range(turn - len(fill), turn)
    played = [(step, name, pattern[name][(step + shift) % bar]) for step in range(n_steps) for name in pattern]
    hits = [(step, name, letter) for step, name, letter in played if letter != "." and step not in filled]
    if turn is not None:
        hits += [(step, name, "x") for step, name in zip(filled, fill, strict=True)]
        hits += [(turn, "crash", "X"), (turn, "kick", "X")]
    elif rng.random() < 0.3:
        hits.append((0, "crash", "X"))
    accents = {"X": 14.0, "x": 0.0, "o": -34.0}
    length = {name: seconds / piece.beat_s for name, (_, seconds) in MUSIC["kit"].items()}
    return [Event(step / steps_a_beat, length[name], key[name], accents[letter]) for step, name, letter in hits]


_LINES = {"melody": _melody, "run": _run, "arpeggio": _arpeggio, "fanfare": _fanfare, "riff": _riff}
_TEXTURES: dict[str, Callable[[Piece], list[Event]]] = _LINES | {
    "double-stops": _double_stops,
    "broken": partial(_arpeggio, ringing=True),  # a pedal, or fingers that stay on the strings
    "comping": partial(_chords, name="comping", n_notes=4),
    "strum": partial(_chords, name="strum", n_notes=6, delay_s=0.015),
    "power": _power,
    "chorale": _chorale,
    "accompanied": _accompanied,
    "groove": _groove,
}


def _perform(
    piece: Piece, events: list[Event], gates: Sequence[float], duration_s: float, *, single_line: bool
) -> np.ndarray:
    """Return notes [n_notes, 4] with a player's timing, dynamics and articulation."""
    rng, (beat, length, pitch, accent) = piece.rng, np.array(sorted(events)).T

    def at(beats: np.ndarray) -> np.ndarray:
        whole = np.floor(beats + 1e-9)
        part, swing = beats - whole, piece.swing  # the second eighth falls at `swing` of the beat
        swung = whole + np.where(part < 0.5, 2 * part * swing, swing + (2 * part - 1) * (1 - swing))
        return piece.start_s + swung * piece.beat_s

    onset, end, gate = at(beat), at(beat + length), np.resize(gates, len(beat))
    if not piece.voice.drums:  # the last note is held to the end of the phrase
        last = beat + length > piece.n_beats - 1e-6
        end = np.where(last, np.maximum(end, piece.end_s), end)
        gate = np.where(last, np.maximum(gate, 0.9), gate)
    offset = onset + (end - onset) * gate
    onset = np.maximum(onset + np.clip(rng.normal(0, 0.004, len(beat)), -0.01, 0.01), 0)
    if single_line:
        offset[:-1] = np.minimum(offset[:-1], onset[1:])
    progress = np.clip((onset - piece.start_s) / (piece.end_s - piece.start_s), 0, 1)
    swell = rng.uniform(-6, 16) * np.sin(np.pi * progress)
    metre = np.where(np.abs(beat - np.rint(beat)) > 1e-6, -3.0, np.where(np.rint(beat) % 4 == 0, 6.0, 2.0))
    velocity = rng.uniform(54, 102) + swell + metre + accent + rng.normal(0, 3, len(beat))
    notes = np.column_stack([onset, np.maximum(offset, onset + _SHORTEST_S), pitch, np.clip(velocity, 24, 124)])
    notes[:, :2], notes[:, 2:] = np.round(notes[:, :2], 4), np.rint(notes[:, 2:])
    notes = notes[notes[:, 0] <= duration_s - 0.08]
    notes[:, 1] = np.minimum(notes[:, 1], duration_s)
    notes = notes[np.lexsort((notes[:, 0], notes[:, 2]))]
    until_next = np.where(notes[1:, 2] == notes[:-1, 2], notes[1:, 0] - 0.005, np.inf)  # a key is released first
    notes[:-1, 1] = np.round(np.minimum(notes[:-1, 1], until_next), 4)
    notes = notes[notes[:, 1] - notes[:, 0] >= _SHORTEST_S - 1e-9]
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def _express(rng: np.random.Generator, notes: np.ndarray, style: Style, duration_s: float) -> np.ndarray:
    """Return the bends [n_bends, 2] of a single line: vibrato that increases on long notes, and scoops."""
    if not (style.vibrato_cents or style.scoop):
        return np.zeros((0, 2))
    time_s = np.arange(0, duration_s, 0.01)
    note = np.clip(np.searchsorted(notes[:, 0], time_s, side="right") - 1, 0, None)
    age_s = np.maximum(time_s - notes[note, 0], 0)
    length_s = notes[:, 1] - notes[:, 0]
    grown = np.clip((age_s - 0.15) / 0.25, 0, 1) * (length_s[note] > 0.35)
    cents = style.vibrato_cents * rng.uniform(0.2, 1) * grown * np.sin(2 * np.pi * rng.uniform(4.6, 6.2) * time_s)
    scooped = (rng.random(len(notes)) < style.scoop * rng.uniform(0, 2)) & (length_s > 0.2)
    cents -= scooped[note] * rng.uniform(40, 130) * np.clip(1 - age_s / rng.uniform(0.06, 0.12), 0, 1)
    cents = np.round(cents, 2)
    changed = np.concatenate([[True], cents[1:] != cents[:-1]])
    return np.column_stack([time_s, cents])[changed]


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
