"""Phrases stay in their register, key and clip, and each instrument plays as it can."""

import numpy as np
import pytest

from instrlib.data.rendered import phrases
from instrlib.data.rendered.phrases import CLASSES, voices

DURATION_S = 3.0
PITCHED = tuple(label for label in CLASSES if label != "drums")
DIATONIC = [{(tonic + step) % 12 for step in (0, 2, 4, 5, 7, 9, 11)} for tonic in range(12)]


def composed(label: str, n: int = 60, play=phrases.compose):
    chosen = [voices(label)[index % len(voices(label))] for index in range(n)]
    rngs = [np.random.default_rng([7, index]) for index in range(n)]
    return [(voice, play(rng, voice, duration_s=DURATION_S)) for voice, rng in zip(chosen, rngs, strict=True)]


def most_at_once(label: str, n: int = 60) -> list[int]:
    """Return the most notes that sound together in each phrase."""
    played = [phrase.notes.T for _, phrase in composed(label, n)]
    return [max(int(np.sum((on <= at + 1e-4) & (off > at + 0.02))) for at in on) for on, off, *_ in played]


@pytest.mark.parametrize("label", CLASSES)
def test_notes_lie_in_clip_and_register_and_keys_are_released_before_they_are_struck_again(label):
    exercises = composed(label, play=phrases.exercise) if label in PITCHED else []
    for voice, phrase in (*composed(label), *exercises):
        onset, offset, pitch, velocity = phrase.notes.T
        assert (np.diff(onset) >= 0).all() and 0 <= onset[0] < 0.5
        assert offset.max() <= DURATION_S and (offset - onset).min() >= 0.03 - 1e-9
        assert voice.low <= pitch.min() <= pitch.max() <= voice.high
        assert 1 <= velocity.min() <= velocity.max() <= 127
        for same in (phrase.notes[pitch == one] for one in np.unique(pitch)):
            assert (same[:-1, 1] < same[1:, 0]).all()


@pytest.mark.parametrize("label", PITCHED)
def test_phrases_keep_to_a_key_except_for_blue_notes(label):
    played = [{int(pitch) % 12 for pitch in phrase.notes[:, 2]} for _, phrase in composed(label)]
    strays = np.array([min(len(tones - scale) for scale in DIATONIC) for tones in played])
    assert np.mean(strays <= 1) >= 0.9 and strays.max() <= 3


def test_instruments_play_single_lines_double_stops_or_chords_strum_and_play_staccato_and_legato():
    for label in ("clarinet", "flute", "saxophone", "trumpet"):
        assert set(most_at_once(label)) == {1}
    assert set(most_at_once("violin", 120)) == {1, 2}
    for label in ("acoustic_guitar", "electric_guitar", "organ", "piano", "voice"):
        assert 0.1 < np.mean(np.array(most_at_once(label)) >= 3) < 0.95
    played = [(voice.program, np.diff(phrase.notes[:, 0])) for voice, phrase in composed("acoustic_guitar", 240)]
    strummed = [gaps for program, gaps in played if program == 25]
    assert np.mean([np.mean((gaps > 0.002) & (gaps < 0.04)) > 0.5 for gaps in strummed]) > 0.15, "within 40 ms"
    played = [phrase.notes for _, phrase in composed("clarinet", 120)]
    gates = np.array([np.median((notes[:-1, 1] - notes[:-1, 0]) / np.diff(notes[:, 0])) for notes in played])
    assert np.mean(gates < 0.55) > 0.08 and np.mean(gates > 0.97) > 0.2


@pytest.mark.parametrize(("label", "bent"), [("violin", True), ("saxophone", True), ("piano", False), ("drums", False)])
def test_only_instruments_that_can_bend_a_tone_do_and_dynamics_differ(label, bent):
    played = [phrase for _, phrase in composed(label)]
    assert any(len(phrase.bends) for phrase in played) == bent
    for bends in (phrase.bends for phrase in played):
        assert np.abs(bends[:, 1]).max(initial=0) < 180 and (np.diff(bends[:, 0]) > 0).all()
    velocities = [phrase.notes[:, 3] for phrase in played]
    assert np.mean([np.ptp(one) for one in velocities]) > 5 and np.ptp([one.mean() for one in velocities]) > 30


@pytest.mark.parametrize("label", PITCHED)
def test_exercises_are_notes_repeated_notes_and_scales_that_often_end_early(label):
    kinds, ends = [], []
    for _, phrase in composed(label, 120, phrases.exercise):
        _, offset, pitch, _ = phrase.notes.T
        assert (np.abs(np.diff(pitch)) <= 3).all()
        kinds.append("note" if len(pitch) == 1 else "repeated" if len(set(pitch)) == 1 else "scale")
        ends.append(offset[-1])
    assert max(ends) <= DURATION_S and 0.3 < np.mean(np.array(ends) < DURATION_S - 0.5) < 0.9
    assert 0.35 < kinds.count("note") / 120 < 0.7 and min(kinds.count("repeated"), kinds.count("scale")) > 12
