"""Mixtures are drawn within a part of the split and rendered at the levels that were drawn."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import soundfile
from trees import TONES_HZ

from instrlib.core.errors import ConfigError, CorpusError, SplitError
from instrlib.data import rendered
from instrlib.studies import mixing

THREE = mixing.MixConfig(sources=(1, 2, 3))
RATE_HZ = 22_050


def tone_plan(offsets_s=(0.0, 0.5, 0.75), levels_db=(0.0, -7.5, 4.0)):
    # The corpus needs a mixture without each class, so each also plays alone.
    rows = [
        ("all", "test", 0, 3, at, one, one, one, 0.0, offsets_s[at], levels_db[at]) for at, one in enumerate(TONES_HZ)
    ]
    rows += [(f"solo-{one}", "test", 0, 1, 0, one, one, one, 0.0, 0.0, 0.0) for one in TONES_HZ]
    return pd.DataFrame(rows, columns=list(mixing._PLAN_COLUMNS))


def power_db(sound, frequency_hz, seconds):
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    place = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    return 10 * np.log10(spectrum[np.abs(place - frequency_hz) < 100].sum() / seconds)


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_mixtures_and_another_seed_others(inputs, plan):
    pd.testing.assert_frame_equal(plan, mixing.draw_study(inputs, 6, config=THREE, seed=0))
    assert not plan.equals(mixing.draw_study(inputs, 6, config=THREE, seed=1))


def test_no_source_leaves_its_part_of_the_split(small, plan):
    assert set(plan.part) == {"validation", "test"}
    assert (plan.clip_id.map(small.split.parts) == plan.part).all()


def test_numbers_of_sources_and_classes_are_balanced_and_no_class_plays_twice_at_once(plan):
    for _, rows in plan.groupby(["part", "n_sources"]):
        assert rows.mixture.nunique() == 6
        counts = rows.label.value_counts()
        assert len(counts) == 3 and counts.max() - counts.min() <= 1
    assert not plan.duplicated(["mixture", "label"]).any()


def test_the_groups_of_a_class_take_turns(plan):
    for _, rows in plan.groupby(["part", "label"]):
        counts = rows.group.value_counts()
        assert counts.max() - counts.min() <= 1


def test_levels_and_offsets_are_relative_to_the_first_source_and_within_their_range(plan):
    first, others = plan[plan.source == 0], plan[plan.source > 0]
    assert (first.level_db == 0).all() and (first.offset_s == 0).all()
    assert others.level_db.abs().between(0, 12).all() and others.level_db.std() > 4
    assert others.offset_s.between(0, 1).all() and others.offset_s.std() > 0.2


def test_four_sources_need_four_classes_and_the_message_says_which_there_are(small):
    with pytest.raises(SplitError, match=r"A mixture of 4 sources needs .* the test part has 3: "):
        mixing.draw(small.store, small.split, "test", 2, config=mixing.MixConfig(), seed=0)
    assert mixing.settings(small.store).sources == (1, 2, 3)


def test_a_corpus_of_several_labels_is_refused_in_one_sentence(small, plan, tmp_path):
    labels = np.zeros((len(small.clips.manifest), 3), np.float32)
    labels[np.arange(len(labels)), small.clips.targets] = 1
    several = dataclasses.replace(small.clips, labels=labels)
    with pytest.raises(CorpusError, match=r"^rendered may have several instruments a clip, so nobody knows"):
        mixing.render(plan, several, config=THREE, root=tmp_path, workers=1)
    store = dataclasses.replace(small.store, segments=small.store.segments.assign(labels="100"))
    with pytest.raises(CorpusError, match="several instruments a clip"):
        mixing.draw(store, small.split, "test", 2, config=THREE, seed=0)


@pytest.mark.parametrize("wrong", [{"sources": ()}, {"sources": (0, 2)}, {"level_range_db": -1}, {"max_offset_s": 3.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        mixing.MixConfig(**wrong)


# -- rendering ---------------------------------------------------------------------------------------------------------


def test_level_differences_are_those_drawn_measured_in_the_written_file(tones, tmp_path):
    made = mixing.render(tone_plan(), tones, config=THREE, root=tmp_path / "mixtures", workers=1)
    sound, rate_hz = soundfile.read(made.corpus.root / "audio/all.flac")
    assert rate_hz == RATE_HZ and len(sound) == 3 * RATE_HZ
    assert 20 * np.log10(np.abs(sound).max()) == pytest.approx(-1, abs=0.01)
    # RMS while it sounds: the power of the tone over its length.
    levels = [power_db(sound, hz, 1 + 0.25 * number) for number, hz in enumerate(TONES_HZ.values())]
    assert np.array(levels) - levels[0] == pytest.approx([0, -7.5, 4.0], abs=0.15)


def test_the_share_of_a_source_is_its_energy_against_all(tones, tmp_path):
    made = mixing.render(tone_plan(), tones, config=THREE, root=tmp_path / "mixtures", workers=1)
    own = made.sources[made.sources.mixture == "all"].set_index("label").share_db
    assert (10 ** (own / 10)).sum() == pytest.approx(1, abs=1e-3)
    energy_db = np.array([0, -7.5, 4.0]) + 10 * np.log10([1, 1.25, 1.5])
    assert (own[list(TONES_HZ)] - own["low"]).to_list() == pytest.approx(list(energy_db - energy_db[0]), abs=0.15)
    assert (made.sources[made.sources.n_sources == 1].share_db == 0).all()


def test_real_clips_are_active_where_they_sound(tones, tmp_path):
    made = mixing.render(tone_plan(), tones, config=THREE, root=tmp_path / "mixtures", workers=1)
    own = made.activity[made.activity.mixture == "all"].set_index("label")
    for number, (label, offset_s) in enumerate(zip(TONES_HZ, (0.0, 0.5, 0.75), strict=True)):
        expected = [0.25 + offset_s, 1.25 + 0.25 * number + offset_s]
        assert own.loc[label, ["onset_s", "offset_s"]].to_list() == pytest.approx(expected, abs=0.025)
    assert own.level_db.to_dict() == {"low": 0.0, "middle": -7.5, "high": 4.0}


def test_a_source_that_an_offset_would_cut_to_less_than_half_begins_at_once(tones, tmp_path):
    config = mixing.MixConfig(sources=(1, 3), duration_s=2.0, max_offset_s=1.5)
    plan = tone_plan(offsets_s=(0.0, 1.4, 0.5))
    made = mixing.render(plan, tones, config=config, root=tmp_path / "mixtures", workers=1)
    own = made.sources[made.sources.mixture == "all"].set_index("label").offset_s
    assert own.to_dict() == {"low": 0.0, "middle": 0.0, "high": 0.5}


def test_the_activity_of_rendered_clips_is_that_of_their_notes(small, mixtures):
    solo = mixtures.sources[mixtures.sources.n_sources == 1].iloc[0]
    notes = rendered.notes(small.clips, solo.clip_id)
    held = np.zeros(30_000, bool)
    for onset_s, offset_s in notes[["onset_s", "offset_s"]].to_numpy():
        held[round(onset_s * 10_000) : round(offset_s * 10_000)] = True
    found = np.zeros(30_000, bool)
    for row in mixtures.activity[mixtures.activity.mixture == solo.mixture].itertuples():
        found[round(row.onset_s * 10_000) : round(row.offset_s * 10_000)] = True
        assert row.label == solo.label
    assert (held == found).mean() > 0.9999


def test_a_made_phrase_is_moved_joined_and_cut():
    phrase = pd.DataFrame({"onset_s": [0.1, 0.4, 1.0, 2.5], "offset_s": [0.4, 0.5, 1.5, 3.0]})
    found = mixing.active(phrase, start_s=0.25, offset_s=0.75, duration_s=3.0)
    assert found == [(0.75, 1.0), (1.5, 2.0)]


def test_every_mixture_is_labelled_by_its_sources_in_the_order_of_the_corpus(small, mixtures):
    assert mixtures.corpus.multilabel and mixtures.corpus.classes == small.clips.classes
    for row, labels in zip(mixtures.corpus.manifest.itertuples(), mixtures.corpus.labels, strict=True):
        expected = set(mixtures.sources.label[mixtures.sources.mixture == row.clip_id])
        assert {name for name, there in zip(small.clips.classes, labels, strict=True) if there == 1} == expected
        assert row.n_sources == len(expected) and row.label in expected


def test_the_same_plan_gives_the_same_bytes_whatever_a_kill_has_left(small, plan, mixtures, tmp_path):
    first = {path: (mixtures.corpus.root / path).read_bytes() for path in mixtures.corpus.manifest.path}
    again = mixing.render(plan, small.clips, config=THREE, root=tmp_path, workers=1)
    folder = again.corpus.root
    assert again.corpus.fingerprint == mixtures.corpus.fingerprint
    # As after a kill: no record, no tables, one file lost, one cut short under its name.
    for name in ("mixtures.json", "sources.csv", again.corpus.manifest.path[0]):
        (folder / name).unlink()
    (folder / again.corpus.manifest.path[1]).write_bytes(first[again.corpus.manifest.path[1]][:1000])
    kept = folder / again.corpus.manifest.path[2]
    written = kept.stat().st_mtime_ns
    finished = mixing.render(plan, small.clips, config=THREE, root=tmp_path, workers=1)
    assert {path: (folder / path).read_bytes() for path in finished.corpus.manifest.path} == first
    assert kept.stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(finished.sources, mixtures.sources)


def test_a_file_that_is_altered_later_is_made_again(small, plan, mixtures, tmp_path):
    made = mixing.render(plan, small.clips, config=THREE, root=tmp_path, workers=1)
    path = made.corpus.root / made.corpus.manifest.path[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    mixing.render(plan, small.clips, config=THREE, root=tmp_path, workers=1)
    assert path.read_bytes() == whole


def test_a_plan_of_other_clips_is_refused(small, plan, tmp_path):
    with pytest.raises(CorpusError, match="The plan mixes 'stranger', which rendered does not hold"):
        mixing.render(plan.assign(clip_id="stranger"), small.clips, config=THREE, root=tmp_path, workers=1)
