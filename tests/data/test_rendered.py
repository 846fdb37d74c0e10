"""The built-in corpus: the same bytes for the same seed, each clip rendered once, and clips that sound right."""

import sys
from functools import partial

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.core.io import ConfigError, CorpusError, DiskError
from instrlib.data import corpora, rendered
from instrlib.data.corpora import COLUMNS
from instrlib.data.rendered import sources

CLIPS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return rendered.load(tmp_path_factory.mktemp("rendered"), clips_per_class=CLIPS, workers=1)


@pytest.fixture(scope="module")
def sounds(corpus):
    return {row.clip_id: soundfile.read(corpus.root / row.path)[0] for row in corpus.manifest.itertuples()}


@pytest.fixture
def small(tmp_path):
    return partial(rendered.load, tmp_path / "small", clips_per_class=3, classes=("flute", "drums"), workers=1)


def file_bytes(corpus):
    return {path: (corpus.root / path).read_bytes() for path in corpus.manifest.path}


def test_the_manifest_has_a_row_for_every_clip_and_its_notes_and_sound_are_those_of_its_number(corpus, sounds):
    assert tuple(corpus.manifest.columns) == (*COLUMNS, "font", "program", "register", "content", "seed")
    outputs = "cello clarinet flute acoustic_guitar electric_guitar organ piano saxophone trumpet violin voice drums"
    assert " ".join(corpus.classes) == outputs, "the order of the network outputs"
    assert corpus.manifest.clip_id.is_monotonic_increasing and corpus.manifest.clip_id.is_unique
    assert set(corpus.manifest.duration_s) == {3.0} and corpus.excluded.empty
    for _, clips in corpus.manifest.groupby("label"):
        assert clips.font.tolist() == [*rendered.PLAYERS.fonts] * (CLIPS // 2)
    clip_id = corpus.manifest.clip_id[corpus.manifest.label == "organ"].iloc[4]
    np.testing.assert_allclose(rendered.notes(corpus, clip_id), rendered.compose("organ", 4)[2].notes)
    np.testing.assert_allclose(rendered.render("organ", 4), sounds[clip_id], atol=1.01 / 32768)
    with pytest.raises(CorpusError):
        rendered.notes(corpus, "organ-00099-abcdef")


def test_a_group_is_a_sampled_instrument_with_all_its_registers_where_a_class_has_three():
    by_register = set()
    for label in rendered.CLASSES:
        groups = rendered.groups(label)
        assert len(set(groups.values())) >= 3
        several = pd.Series(groups).groupby(level=[0, 1]).nunique() > 1
        by_register |= {label} if several.any() else set()
    assert by_register == {"cello", "clarinet"}
    # Programs that share their samples are one group.
    assert rendered.groups("flute")["TimGM6mb", 72, 1] == rendered.groups("flute")["Merlin", 72, 3]
    assert rendered.groups("violin")["TimGM6mb", 40, 1] == rendered.groups("violin")["TimGM6mb", 110, 2]
    first, second = map(sources.find_soundfont, rendered.PLAYERS.fonts)
    assert sources.shared_samples(first, first) == 1 and sources.shared_samples(first, second) > 0.05


def test_one_process_and_two_write_the_same_bytes(corpus, tmp_path):
    assert file_bytes(rendered.load(tmp_path, clips_per_class=CLIPS, workers=2)) == file_bytes(corpus)


def test_a_clip_is_rendered_once_for_every_size_and_choice_of_classes(corpus, monkeypatch):
    monkeypatch.setattr(rendered, "_render_batch", None)  # nothing may be rendered
    part = rendered.load(corpus.root.parent, clips_per_class=5, classes=("drums", "flute"), workers=1)
    assert part.root == corpus.root and part.classes == ("flute", "drums") and len(part.manifest) == 10
    same = corpus.manifest[corpus.manifest.clip_id.isin(part.manifest.clip_id)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.manifest, same)
    assert part.fingerprint != corpus.fingerprint


def test_another_seed_and_other_players_give_other_clips_and_another_key_renders_anew(small, monkeypatch):
    base, seeded, merlin = small(), small(seed=1), small(players=rendered.Players(("Merlin",)))
    for other in (seeded, merlin):
        assert not set(other.manifest.clip_id) & set(base.manifest.clip_id)
        assert not set(other.manifest.content) & set(base.manifest.content)
    assert set(merlin.manifest.font) == {"Merlin"} and "TimGM6mb" not in merlin.info.citation
    monkeypatch.setattr(rendered, "key", lambda layer, **made_of: "other" * 4)
    again = small()
    assert again.root != base.root and not base.root.exists()
    assert again.manifest.content.equals(base.manifest.content)


def test_lost_and_damaged_files_are_rendered_again_and_whole_batches_are_kept(small):
    corpus = small()
    before, record = file_bytes(corpus), corpus.root / "notes" / "flute-0000.json"
    drums, flute = (corpus.root / one.path.iloc[0] for _, one in corpus.manifest.groupby("label"))
    whole, stamp = flute.read_bytes(), drums.stat().st_mtime_ns
    for named, damaged in ((flute, None), (flute, whole[:1000]), (record, b"[{")):
        named.unlink() if damaged is None else named.write_bytes(damaged)
        assert file_bytes(small()) == before
    assert drums.stat().st_mtime_ns == stamp
    assert corpora.validate("rendered", corpus.root) == []
    flute.write_bytes(b"no sound")
    assert [line.partition(": ")[0] for line in corpora.validate("rendered", corpus.root)] == [str(flute)]


def test_unknown_classes_fonts_folders_and_missing_packages_are_named(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "a.sf2").write_bytes(b"RIFFxxxxWAVE" + bytes(99))
    with pytest.raises(ConfigError, match="kazoo"):
        small(classes=("flute", "kazoo"))
    with pytest.raises(CorpusError, match="Grand"):
        small(players=rendered.Players(("Grand",)))
    with pytest.raises(DiskError):
        rendered.load(tmp_path / "file", clips_per_class=1, workers=1)
    with pytest.raises(CorpusError, match=r"a\.sf2"):
        sources.presets(tmp_path / "a.sf2")
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(CorpusError, match="tinysoundfont"):
        sources.synthesiser.__wrapped__(sources.find_soundfont("TimGM6mb"))
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match="pretty-midi"):
        sources.find_soundfont.__wrapped__("TimGM6mb")


def test_no_note_falls_on_a_key_for_which_its_font_has_no_sound():
    """TimGM6mb's alto saxophone cannot play the E above middle C."""
    assert sources.silent_keys(sources.find_soundfont("TimGM6mb"), 65, 60, 69) == {64}
    played = [rendered.compose("saxophone", index, players=rendered.Players(("TimGM6mb",))) for index in range(60)]
    pitches = np.concatenate([phrase.notes[:, 2] for _, voice, phrase in played if voice.program == 65])
    assert {63, 65} <= set(pitches) and 64 not in pitches


def test_clips_are_mono_16_bit_at_22050_hz_never_silent_or_clipped_and_as_bright_as_their_instruments(corpus, sounds):
    header = soundfile.info(corpus.root / corpus.manifest.path[0])
    assert (header.samplerate, header.channels, header.subtype) == (22_050, 1, "PCM_16")
    every = np.abs(np.stack(list(sounds.values())))
    peaks, floors = 20 * np.log10(every.max(axis=1)), 20 * np.log10(np.percentile(every, 5, axis=1) + 1e-6)
    assert every.shape[1] == 66_150 and -20.1 < peaks.min() < peaks.max() < -0.9
    assert np.std(peaks) > 3 and np.std(floors) > 6 and 10 * np.log10((every**2).mean(axis=1).min()) > -50
    bright = {clip: np.median(librosa.feature.spectral_centroid(y=one, sr=22_050)) for clip, one in sounds.items()}
    found = corpus.manifest.clip_id.map(bright).groupby(corpus.manifest.label).median()
    assert found.idxmax() == "drums" and found.between(300, 6000).all()
    assert found.trumpet > found.clarinet > found.organ and found.violin > found.cello


@pytest.mark.parametrize("pitch", [48, 81])
def test_a_note_sounds_at_its_onset_and_at_its_pitch_and_can_be_bent(pitch):
    fundamental, frequencies = 440 * 2 ** ((pitch - 69) / 12), np.fft.rfftfreq(2**19, 1 / 22_050)
    font, note = sources.find_soundfont(), np.array([[0.5, 1.5, pitch, 100]])
    given = {"program": 16, "duration_s": 2.0, "sample_rate_hz": 22_050}
    for bends, tuning_cents, expected in ((None, 20.0, 20), (np.array([[0.0, -50.0]]), 10.0, -40)):
        sound = sources.play(font, note, bends=bends, tuning_cents=tuning_cents, **given)
        loud = np.flatnonzero(np.abs(sound) > 0.1 * np.abs(sound).max()) / 22_050
        assert len(sound) == 44_100 and abs(loud[0] - 0.5) < 0.02 and abs(loud[-1] - 1.5) < 0.1
        spectrum = np.abs(np.fft.rfft(sound[13_230:30_870] * np.hanning(17_640), 2**19))
        spectrum[np.abs(np.log2(np.maximum(frequencies, 1) / fundamental)) > 1 / 12] = 0
        assert abs(1200 * np.log2(frequencies[spectrum.argmax()] / fundamental) - expected) < 8


def test_a_recording_moves_nothing_in_time_and_stays_below_full_scale():
    click = np.where(np.arange(66_150) == 20_000, np.float32(0.3), np.float32(0))
    recorded = np.stack([rendered.record(np.random.default_rng(seed), click) for seed in range(20)])
    assert recorded.dtype == np.float32 and recorded.shape == (20, 66_150)
    assert (np.abs(recorded).argmax(axis=1) == 20_000).all()
    peaks = 20 * np.log10(np.abs(recorded).max(axis=1))
    assert -20.01 < peaks.min() < peaks.max() < -0.99
