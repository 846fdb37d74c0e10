"""Mixtures and soundscapes stay within a part of the split and are rendered at the levels that were drawn."""

import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import soundfile
from trees import TONES_HZ

from instrlib.core.io import ConfigError, CorpusError, SplitError
from instrlib.data import rendered
from instrlib.studies import mixtures as studies

RATE_HZ = 22_050
SOUNDSCAPE = studies.SoundscapeConfig(
    per_ensemble={"validation": 1, "test": 2}, duration_s=(20.0, 24.0), instruments=(2, 3), entry_s=(4.0, 9.0)
)


@pytest.fixture(scope="module")
def score(small):
    return studies.compose(small.store, small.split, small.clips, config=SOUNDSCAPE, seed=0)


def tone_plan(offsets_s=(0.0, 0.5, 0.75), levels_db=(0.0, -7.5, 4.0)):
    # The corpus needs a mixture without each class, so each is also alone.
    rows = [
        ("all", "test", 0, 3, "test-0", at, one, one, one, 0.0, 2.0, 2.0, offsets_s[at], levels_db[at], 3.0)
        for at, one in enumerate(TONES_HZ)
    ]
    rows += [
        (f"solo-{one}", "test", 0, 1, "test-0", 0, one, one, one, 0.0, 2.0, 2.0, 0.0, 0.0, 3.0) for one in TONES_HZ
    ]
    return pd.DataFrame(rows, columns=list(studies._COLUMNS))


def read(made, name):
    return soundfile.read(made.corpus.root / "audio" / f"{name}.flac")[0]


# -- plans -------------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_plans_and_another_seed_others(small, inputs, plan, score):
    config = studies.config_for(small.store)
    pd.testing.assert_frame_equal(plan, studies.draw(inputs, small.clips, 6, config=config, seed=0))
    assert not plan.equals(studies.draw(inputs, small.clips, 6, config=config, seed=1))
    given = {"config": SOUNDSCAPE, "seed": 0}
    pd.testing.assert_frame_equal(score, studies.compose(small.store, small.split, small.clips, **given))


def test_no_source_leaves_its_part_of_the_split(small, plan, score):
    for one in (plan, score):
        assert set(one.part) == {"validation", "test"}
        assert (one.clip_id.map(small.split.parts) == one.part).all()


def test_numbers_of_sources_classes_and_groups_are_balanced(plan):
    for _, rows in plan.groupby(["part", "n_sources"]):
        counts = rows.label.value_counts()
        assert rows.mixture.nunique() == 6 and len(counts) == 3 and counts.max() - counts.min() <= 1
    for _, rows in plan.groupby(["part", "label"]):
        counts = rows.of_group.value_counts()
        assert counts.max() - counts.min() <= 1
    assert not plan.duplicated(["mixture", "label"]).any()


def test_levels_and_offsets_are_relative_to_the_first_source_and_within_their_range(plan):
    first, others = plan[plan.source == 0], plan[plan.source > 0]
    assert (first[["level_db", "offset_s"]] == 0).all(axis=None)
    assert others.level_db.abs().max() <= 12 and others.level_db.std() > 4
    assert 0 <= others.offset_s.min() <= others.offset_s.max() <= 1


def test_four_sources_need_four_classes_and_one_label_a_clip(small, inputs):
    with pytest.raises(SplitError, match="3"):
        studies.draw(inputs, small.clips, 2, config=studies.MixtureConfig(), seed=0)
    labels = np.eye(3, dtype=np.float32)[small.clips.targets]
    several = dataclasses.replace(small.clips, labels=labels)
    with pytest.raises(CorpusError):
        studies.draw(inputs, several, 2, config=studies.config_for(small.store), seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: studies.MixtureConfig(sources=(1, 1)),
        lambda: studies.MixtureConfig(sources=(0, 1)),
        lambda: studies.MixtureConfig(max_offset_s=3.0),
        lambda: studies.MixtureConfig(level_range_db=-1.0),
        lambda: dataclasses.replace(SOUNDSCAPE, rest_s=(1.0, 2.0)),
        lambda: dataclasses.replace(SOUNDSCAPE, entry_s=(30.0, 20.0)),
        lambda: dataclasses.replace(SOUNDSCAPE, entry_s=(4.0, 19.0)),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


def test_ensembles_share_no_group_and_their_players_differ_in_instrument(score):
    players = score.drop_duplicates(["group", "of_group"])
    assert players.of_group.is_unique
    assert (score.groupby("group").label.nunique() == score.groupby("group").n_sources.first()).all()
    soundscapes_of = score.drop_duplicates("mixture")
    n_ensembles = soundscapes_of.groupby("part").group.nunique()
    assert soundscapes_of.part.value_counts().to_dict() == {
        "validation": n_ensembles.validation,
        "test": 2 * n_ensembles.test,
    }


def test_an_instrument_enters_plays_and_rests_as_long_as_it_may_and_few_sound_at_once(small):
    config = dataclasses.replace(SOUNDSCAPE, at_once=1, per_ensemble={"validation": 3, "test": 3})
    for plan in (
        studies.compose(small.store, small.split, small.clips, config=one, seed=2) for one in (SOUNDSCAPE, config)
    ):
        for _, own in plan.groupby(["mixture", "label"]):
            spans = zip(own.offset_s, own.offset_s + own.length_s, strict=True)
            entries = studies.joined([(a, b) for a, b in spans], gap_s=0.001)
            assert all(b - a <= 9 + 1e-3 for a, b in entries) and all(b - a >= 3.4 for a, b in entries)
            assert all(later[0] - earlier[1] >= 3 - 1e-3 for earlier, later in pairwise(entries))
    for _, own in plan.groupby("mixture"):
        seconds = np.arange(0.5, own.duration_s.iloc[0])[:, None]
        playing = (own.offset_s.to_numpy() <= seconds) & (seconds < (own.offset_s + own.length_s).to_numpy())
        assert playing.sum(axis=1).max() <= 1


# -- rendering ---------------------------------------------------------------------------------------------------------


def test_levels_and_energies_in_the_file_are_those_of_the_plan(tones, tmp_path):
    made = studies.render(tone_plan(), tones, root=tmp_path, workers=1)
    sound = read(made, "all")
    assert np.abs(sound).max() == pytest.approx(10 ** (studies.PEAK_DB / 20), abs=1e-3)
    spectrum, place = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    energy = np.array([spectrum[np.abs(place - one) < 100].sum() for one in TONES_HZ.values()])
    sources = made.sources[made.sources.mixture == "all"]
    length_s = [1.0, 1.25, 1.5]
    levels_db = 10 * np.log10(energy / length_s)
    assert levels_db - levels_db[0] == pytest.approx(sources.level_db, abs=0.3)
    assert sources.share_db.to_numpy() == pytest.approx(10 * np.log10(energy / energy.sum()), abs=0.3)


def test_recorded_clips_are_active_where_they_sound(tones, tmp_path):
    made = studies.render(tone_plan(), tones, root=tmp_path, workers=1)
    own = made.activity[made.activity.mixture == "all"].set_index("label")
    for number, (label, offset_s) in enumerate(zip(TONES_HZ, (0.0, 0.5, 0.75), strict=True)):
        assert own.onset_s[label] == pytest.approx(0.25 + offset_s, abs=0.021)
        assert own.offset_s[label] == pytest.approx(1.25 + 0.25 * number + offset_s, abs=0.021)


def test_a_source_that_an_offset_would_cut_to_less_than_half_begins_at_once(tones, tmp_path):
    made = studies.render(tone_plan(offsets_s=(0.0, 2.6, 1.2)), tones, root=tmp_path, workers=1)
    assert made.sources[made.sources.mixture == "all"].offset_s.tolist() == [0.0, 0.0, 1.2]


def test_the_activity_of_rendered_clips_is_that_of_their_notes(small, mixtures, soundscapes):
    solo = mixtures.sources[mixtures.sources.n_sources == 1].iloc[0]
    notes = rendered.notes(small.clips, solo.clip_id)
    spans = studies.joined(list(zip(notes.onset_s, notes.offset_s.clip(upper=3.0), strict=True)), gap_s=0)
    own = mixtures.activity[mixtures.activity.mixture == solo.mixture]
    assert list(zip(own.onset_s, own.offset_s, strict=True)) == spans
    for _, rows in soundscapes.activity.groupby(["mixture", "label"]):
        assert (rows.onset_s.to_numpy()[1:] - rows.offset_s.to_numpy()[:-1] > studies.GAP_S).all()


def test_where_no_clip_is_played_there_is_silence(soundscapes):
    name = soundscapes.corpus.manifest.clip_id.iloc[0]
    sound, own = read(soundscapes, name), soundscapes.sources[soundscapes.sources.mixture == name]
    assert len(sound) == round(own.duration_s.iloc[0] * RATE_HZ)
    time_s = np.arange(len(sound)) / RATE_HZ
    played = np.zeros(len(sound), bool)
    for one in own.itertuples():
        played |= (time_s >= one.offset_s - 1e-3) & (time_s <= one.offset_s + one.length_s + 1e-3)
    assert (~played).any() and np.abs(sound[~played]).max() < 1e-4 < np.abs(sound[played]).max()


def test_labels_are_those_of_the_sources_in_the_order_of_the_corpus(small, mixtures, soundscapes):
    for made in (mixtures, soundscapes):
        assert made.corpus.classes == small.clips.classes
        for name, labels in zip(made.corpus.manifest.clip_id, made.corpus.labels, strict=True):
            there = set(made.sources.label[made.sources.mixture == name])
            assert {one for one, value in zip(made.corpus.classes, labels, strict=True) if value} == there


def test_the_groups_of_a_mixture_are_those_of_its_sources(mixtures):
    for name, groups in zip(mixtures.corpus.manifest.clip_id, mixtures.groups(), strict=True):
        own = mixtures.sources[mixtures.sources.mixture == name].sort_values("source")
        assert groups.tolist() == [*own.of_group, *[""] * (3 - len(own))]


def test_rendered_once_and_again_where_a_file_is_lost_or_altered(small, plan, mixtures, tmp_path, monkeypatch):
    made = studies.render(plan, small.clips, root=tmp_path, workers=1)
    before = {path: path.read_bytes() for path in sorted((made.corpus.root / "audio").iterdir())}
    assert made.corpus.fingerprint == mixtures.corpus.fingerprint
    altered, lost, *_ = before
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    lost.unlink()
    again = studies.render(plan, small.clips, root=tmp_path, workers=1)
    assert {path: path.read_bytes() for path in before} == before
    pd.testing.assert_frame_equal(again.activity, made.activity)
    monkeypatch.setattr(studies, "_render", None)
    studies.render(plan, small.clips, root=tmp_path, workers=1)


def test_a_plan_of_other_clips_is_refused(small, plan, tmp_path):
    with pytest.raises(CorpusError, match="kazoo-1"):
        studies.render(plan.assign(clip_id="kazoo-1"), small.clips, root=tmp_path, workers=1)
