"""Phrases: what instruments play keeps to their register, their key, the clip and what hands and breath allow."""

from itertools import pairwise

import numpy as np
import pytest

from instrlib.core.io import hash_json
from instrlib.data import phrases

DURATION_S = 3.0
PITCHED = tuple(label for label in phrases.CLASSES if label != "drums")
DIATONIC = [{(tonic + step) % 12 for step in (0, 2, 4, 5, 7, 9, 11)} for tonic in range(12)]


def composed(label: str, n: int = 60) -> list[tuple[phrases.Voice, phrases.Phrase]]:
    voices = phrases.voices(label)
    chosen = [voices[index % len(voices)] for index in range(n)]
    return [
        (voice, phrases.compose(np.random.default_rng([7, index]), voice, duration_s=DURATION_S))
        for index, voice in enumerate(chosen)
    ]


def most_at_once(notes: np.ndarray, *, overlap_s: float = 0.02) -> int:
    return max(
        int(np.sum((notes[:, 0] <= at) & (notes[:, 1] > at + overlap_s))) for at in notes[:, 0] + overlap_s / 100
    )


@pytest.mark.parametrize("label", phrases.CLASSES)
def test_every_class_has_at_least_six_voices_and_the_registers_of_a_program_do_not_overlap(label):
    voices = phrases.voices(label)
    assert len({(voice.program, voice.register) for voice in voices}) == len(voices) >= 6
    if label == "drums":
        return
    for program in {voice.program for voice in voices}:
        bands = sorted((voice.low, voice.high, voice.register) for voice in voices if voice.program == program)
        assert [register for *_, register in bands] == list(range(1, len(bands) + 1))
        for (_, below, _), (above, _, _) in pairwise(bands):
            assert above == below + 1


def test_the_classes_come_in_the_order_of_the_networks_outputs():
    assert phrases.CLASSES == (
        "cello", "clarinet", "flute", "acoustic_guitar", "electric_guitar", "organ",
        "piano", "saxophone", "trumpet", "violin", "voice", "drums",
    )  # fmt: skip


@pytest.mark.parametrize("label", phrases.CLASSES)
def test_notes_lie_in_the_clip_and_in_the_register(label):
    for voice, phrase in composed(label):
        onset, offset, pitch, velocity = phrase.notes.T
        assert len(onset) >= 3
        assert (np.diff(onset) >= 0).all()
        assert onset[0] >= 0
        assert onset[0] < 0.5
        assert offset.max() <= DURATION_S
        assert (offset - onset).min() >= 0.03 - 1e-9
        assert pitch.min() >= voice.low
        assert pitch.max() <= voice.high
        assert velocity.min() >= 1
        assert velocity.max() <= 127
        assert np.array_equal(phrase.notes[:, 2:], np.rint(phrase.notes[:, 2:]))


@pytest.mark.parametrize("label", phrases.CLASSES)
def test_a_key_is_released_before_it_is_struck_again(label):
    for _, phrase in composed(label):
        for pitch in np.unique(phrase.notes[:, 2]):
            same = phrase.notes[phrase.notes[:, 2] == pitch]
            assert (same[:-1, 1] < same[1:, 0]).all()


@pytest.mark.parametrize("label", PITCHED)
def test_phrases_keep_to_a_key_but_for_a_leading_tone_and_blue_notes(label):
    strays = [
        min(len({int(pitch) % 12 for pitch in phrase.notes[:, 2]} - scale) for scale in DIATONIC)
        for _, phrase in composed(label)
    ]
    assert np.mean(np.array(strays) <= 1) >= 0.9
    assert max(strays) <= 3


@pytest.mark.parametrize("label", ["clarinet", "flute", "saxophone", "trumpet"])
def test_wind_players_play_one_note_at_a_time(label):
    assert all(most_at_once(phrase.notes) == 1 for _, phrase in composed(label))


@pytest.mark.parametrize("label", ["acoustic_guitar", "electric_guitar", "organ", "piano", "voice"])
def test_chord_instruments_play_both_chords_and_single_lines(label):
    chordal = [most_at_once(phrase.notes) >= 3 for _, phrase in composed(label)]
    assert 0.1 < np.mean(chordal) < 0.95


def test_strings_play_some_double_stops_and_no_more_notes_than_two():
    at_once = [most_at_once(phrase.notes) for _, phrase in composed("violin", 120)]
    assert set(at_once) == {1, 2}


def test_melodies_move_by_small_steps_more_often_than_by_leaps():
    steps = np.concatenate([np.abs(np.diff(phrase.notes[:, 2])) for _, phrase in composed("clarinet", 120)])
    assert np.mean(steps <= 4) > 0.75
    assert steps.max() <= 12


def test_drums_play_kick_and_snare_or_stick_in_most_clips_and_only_keys_of_the_kit():
    played = [set(phrase.notes[:, 2].astype(int).tolist()) for _, phrase in composed("drums", 120)]
    assert set.union(*played) <= set(range(35, 60))
    assert all(keys & {35, 36} for keys in played)
    assert np.mean([bool(keys & {37, 38, 39, 40}) for keys in played]) > 0.7
    assert 0.3 < np.mean([bool(keys & {49, 57}) for keys in played]) < 0.95


def test_drum_clips_of_the_second_register_lie_on_triplets():
    def share_off_a_half(register: int) -> float:
        gaps = []
        for voice, phrase in composed("drums", 120):
            if voice.register == register:
                hats = np.unique(phrase.notes[np.isin(phrase.notes[:, 2], (42, 51, 59)), 0])
                steps = np.diff(hats)
                gaps += [(a / (a + b)) for a, b in pairwise(steps) if a + b > 0.1]
        gaps = np.array(gaps)
        return float(np.mean((np.abs(gaps - 1 / 3) < 0.06) | (np.abs(gaps - 2 / 3) < 0.06)))

    assert share_off_a_half(2) > 0.3 > share_off_a_half(1)


def test_dynamics_differ_within_a_phrase_and_between_phrases():
    velocities = [phrase.notes[:, 3] for _, phrase in composed("piano")]
    assert np.mean([np.ptp(velocity) for velocity in velocities]) > 5
    assert np.ptp([velocity.mean() for velocity in velocities]) > 30


@pytest.mark.parametrize(("label", "bent"), [("violin", True), ("saxophone", True), ("piano", False), ("drums", False)])
def test_only_instruments_that_can_bend_a_tone_do_and_within_the_pitch_wheel(label, bent):
    bends = [phrase.bends for _, phrase in composed(label)]
    assert any(len(bend) for bend in bends) == bent
    for bend in bends:
        assert bend.shape[1] == 2
        assert np.abs(bend[:, 1]).max(initial=0) < 180
        assert (np.diff(bend[:, 0]) > 0).all()


@pytest.mark.parametrize("label", PITCHED)
def test_an_exercise_keeps_to_register_and_clip_one_note_at_a_time_and_often_leaves_silence(label):
    ends = []
    for voice in phrases.voices(label):
        for seed in range(12):
            notes = phrases.exercise(np.random.default_rng(seed), voice, duration_s=DURATION_S).notes
            assert voice.low <= notes[:, 2].min() <= notes[:, 2].max() <= voice.high
            assert (notes[:, 1] - notes[:, 0] > 0.03).all()
            assert (notes[1:, 0] >= notes[:-1, 1] - 1e-3).all()
            assert 1 <= notes[:, 3].min() <= notes[:, 3].max() <= 127
            ends.append(notes[-1, 1])
    assert max(ends) <= DURATION_S
    assert 0.3 < np.mean(np.array(ends) < DURATION_S - 0.5) < 0.9


def test_exercises_are_single_notes_repeated_notes_and_scales():
    kinds = []
    for seed in range(200):
        notes = phrases.exercise(np.random.default_rng(seed), phrases.voices("violin")[0], duration_s=DURATION_S).notes
        pitch = notes[:, 2]
        kinds.append("note" if len(pitch) == 1 else "repeated" if len(set(pitch)) == 1 else "scale")
        assert np.abs(np.diff(pitch)).max(initial=0) <= 3
    assert 0.35 < kinds.count("note") / 200 < 0.65
    assert min(kinds.count("repeated"), kinds.count("scale")) > 25


@pytest.mark.parametrize("label", phrases.CLASSES)
def test_the_same_generator_gives_the_same_phrase_and_another_one_another(label):
    voice = phrases.voices(label)[0]
    first, again, other = (
        phrases.compose(np.random.default_rng(seed), voice, duration_s=DURATION_S).notes for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_phrases_are_those_that_were_recorded_for_this_version_of_the_corpus():
    from instrlib.data import rendered

    notes = [rendered.compose(label, index)[2].notes.tolist() for label in phrases.CLASSES for index in range(4)]
    assert (rendered.VERSION, hash_json(notes)[:16]) == (2, "750b8b08f1364475"), "raise VERSION when phrases change"
