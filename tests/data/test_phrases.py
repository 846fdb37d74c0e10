"""Phrases stay in their register, key and clip, and in what hands and breath allow."""

from itertools import pairwise

import numpy as np
import pytest

from instrlib.data.rendered import phrases
from instrlib.data.rendered.voices import CLASSES, voices

DURATION_S = 3.0
PITCHED = tuple(label for label in CLASSES if label != "drums")
DIATONIC = [{(tonic + step) % 12 for step in (0, 2, 4, 5, 7, 9, 11)} for tonic in range(12)]


def composed(label: str, n: int = 60, play=phrases.compose):
    chosen = [voices(label)[index % len(voices(label))] for index in range(n)]
    rngs = [np.random.default_rng([7, index]) for index in range(n)]
    return [(voice, play(rng, voice, duration_s=DURATION_S)) for voice, rng in zip(chosen, rngs, strict=True)]


def most_at_once(notes: np.ndarray, overlap_s: float = 0.02) -> int:
    return max(int(np.sum((notes[:, 0] <= at + 1e-4) & (notes[:, 1] > at + overlap_s))) for at in notes[:, 0])


def test_classes_are_in_the_order_of_the_network_outputs():
    assert CLASSES == (
        "cello", "clarinet", "flute", "acoustic_guitar", "electric_guitar", "organ",
        "piano", "saxophone", "trumpet", "violin", "voice", "drums",
    )  # fmt: skip


@pytest.mark.parametrize("label", PITCHED)
def test_registers_of_a_program_are_adjacent(label):
    for program in {voice.program for voice in voices(label)}:
        bands = [(voice.low, voice.high) for voice in voices(label) if voice.program == program]
        assert all(above == below + 1 for (_, below), (above, _) in pairwise(bands))


@pytest.mark.parametrize("label", CLASSES)
def test_notes_lie_in_clip_and_register_and_keys_are_released_before_they_are_struck_again(label):
    for voice, phrase in composed(label):
        onset, offset, pitch, velocity = phrase.notes.T
        assert len(onset) >= 3 and (np.diff(onset) >= 0).all() and 0 <= onset[0] < 0.5
        assert offset.max() <= DURATION_S and (offset - onset).min() >= 0.03 - 1e-9
        assert voice.low <= pitch.min() <= pitch.max() <= voice.high
        assert 1 <= velocity.min() <= velocity.max() <= 127
        assert np.array_equal(phrase.notes[:, 2:], np.rint(phrase.notes[:, 2:]))
        for same in (phrase.notes[pitch == one] for one in np.unique(pitch)):
            assert (same[:-1, 1] < same[1:, 0]).all()


@pytest.mark.parametrize("label", PITCHED)
def test_phrases_keep_to_a_key_but_for_blue_notes(label):
    played = [{int(pitch) % 12 for pitch in phrase.notes[:, 2]} for _, phrase in composed(label)]
    strays = np.array([min(len(tones - scale) for scale in DIATONIC) for tones in played])
    assert np.mean(strays <= 1) >= 0.9 and strays.max() <= 3


@pytest.mark.parametrize("label", ["clarinet", "flute", "saxophone", "trumpet"])
def test_wind_instruments_play_one_note_at_a_time(label):
    assert all(most_at_once(phrase.notes) == 1 for _, phrase in composed(label))


@pytest.mark.parametrize("label", ["acoustic_guitar", "electric_guitar", "organ", "piano", "voice"])
def test_chord_instruments_play_both_chords_and_single_lines(label):
    assert 0.1 < np.mean([most_at_once(phrase.notes) >= 3 for _, phrase in composed(label)]) < 0.95


def test_strings_play_single_notes_and_double_stops():
    assert {most_at_once(phrase.notes) for _, phrase in composed("violin", 120)} == {1, 2}


def test_each_class_plays_all_its_textures_in_several_articulations():
    steel = [voice for voice in voices("acoustic_guitar") if voice.program == 25][1]
    spreads = []
    for seed in range(80):
        onset = phrases.compose(np.random.default_rng(seed), steel, duration_s=DURATION_S).notes[:, 0]
        gaps = np.diff(onset)
        spreads.append(np.mean((gaps > 0.002) & (gaps < 0.04)))
    assert np.mean(np.array(spreads) > 0.5) > 0.3  # strummed: the strings follow each other within 40 ms
    gates = []
    for _, phrase in composed("clarinet", 120):
        onset, offset = phrase.notes[:, 0], phrase.notes[:, 1]
        gates.append(np.median((offset[:-1] - onset[:-1]) / np.diff(onset)))
    assert np.mean(np.array(gates) < 0.55) > 0.08 and np.mean(np.array(gates) > 0.97) > 0.2  # staccato and legato


def test_melodies_move_by_small_steps_more_often_than_by_leaps():
    steps = np.concatenate([np.abs(np.diff(phrase.notes[:, 2])) for _, phrase in composed("clarinet", 120)])
    assert np.mean(steps <= 4) > 0.75 and steps.max() <= 12


def test_drums_play_kick_and_snare_or_stick_in_most_clips_and_only_keys_of_the_kit():
    played = [set(phrase.notes[:, 2].astype(int).tolist()) for _, phrase in composed("drums", 120)]
    assert set.union(*played) <= set(range(35, 60)) and all(keys & {35, 36} for keys in played)
    assert np.mean([bool(keys & {37, 38, 39, 40}) for keys in played]) > 0.7
    assert 0.3 < np.mean([bool(keys & {49, 57}) for keys in played]) < 0.95


def test_swung_drum_clips_lie_on_triplets():
    def share_of_thirds(register: int) -> float:
        shares = []
        for voice, phrase in composed("drums", 120):
            if voice.register == register:
                steps = np.diff(np.unique(phrase.notes[np.isin(phrase.notes[:, 2], (42, 51, 59)), 0]))
                shares += [a / (a + b) for a, b in pairwise(steps) if a + b > 0.1]
        return float(np.mean(np.abs(np.abs(np.array(shares) - 0.5) - 1 / 6) < 0.06))

    assert share_of_thirds(2) > 0.3 > share_of_thirds(1)


def test_dynamics_differ_within_a_phrase_and_between_phrases():
    velocities = [phrase.notes[:, 3] for _, phrase in composed("piano")]
    assert np.mean([np.ptp(velocity) for velocity in velocities]) > 5
    assert np.ptp([velocity.mean() for velocity in velocities]) > 30


@pytest.mark.parametrize(("label", "bent"), [("violin", True), ("saxophone", True), ("piano", False), ("drums", False)])
def test_only_instruments_that_can_bend_a_tone_do_and_within_the_pitch_wheel(label, bent):
    bends = [phrase.bends for _, phrase in composed(label)]
    assert any(len(bend) for bend in bends) == bent
    assert all(np.abs(bend[:, 1]).max(initial=0) < 180 and (np.diff(bend[:, 0]) > 0).all() for bend in bends)


@pytest.mark.parametrize("label", PITCHED)
def test_exercises_are_single_notes_repeated_notes_and_scales_that_often_end_early(label):
    kinds, ends = [], []
    for voice, phrase in composed(label, 120, phrases.exercise):
        onset, offset, pitch, velocity = phrase.notes.T
        assert voice.low <= pitch.min() <= pitch.max() <= voice.high and (np.abs(np.diff(pitch)) <= 3).all()
        assert (offset - onset > 0.03).all() and (onset[1:] >= offset[:-1] - 1e-3).all()
        assert 1 <= velocity.min() <= velocity.max() <= 127
        kinds.append("note" if len(pitch) == 1 else "repeated" if len(set(pitch)) == 1 else "scale")
        ends.append(offset[-1])
    assert max(ends) <= DURATION_S and 0.3 < np.mean(np.array(ends) < DURATION_S - 0.5) < 0.9
    assert 0.35 < kinds.count("note") / 120 < 0.7 and min(kinds.count("repeated"), kinds.count("scale")) > 12


@pytest.mark.parametrize("label", CLASSES)
def test_the_same_generator_gives_the_same_phrase_and_another_one_another(label):
    first, again, other = (
        phrases.compose(np.random.default_rng(seed), voices(label)[0], duration_s=DURATION_S).notes
        for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
