"""Pieces are composed within a part of the split, and what is said to sound in them does."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.data import corpora, rendered
from instrlib.data.splits import k_folds
from instrlib.data.store import build_store
from instrlib.studies import mixing, pieces, timeline_scores
from instrlib.studies.mixing import PARTS

RATE_HZ = 22_050


def test_the_same_seed_composes_the_same_pieces_and_another_seed_others(small, pieces_plan, pieces_config):
    again = pieces.compose(small.store, small.split, small.clips, config=pieces_config, seed=0)
    pd.testing.assert_frame_equal(pieces_plan, again)
    other = pieces.compose(small.store, small.split, small.clips, config=pieces_config, seed=1)
    assert not pieces_plan.equals(other)


def test_no_clip_leaves_its_part_of_the_split(small, pieces_plan):
    assert set(pieces_plan.part) == set(PARTS)
    assert (pieces_plan.clip_id.map(small.split.parts) == pieces_plan.part).all()


def test_every_class_plays_in_every_part(pieces_plan):
    assert (pieces_plan.groupby("part").label.nunique() == 3).all()


def test_no_two_ensembles_share_a_group_and_no_two_players_of_one_an_instrument(pieces_plan):
    ensembles = pieces_plan.groupby("of_group").group.nunique()
    assert (ensembles == 1).all() and pieces_plan.group.nunique() > 2
    for _, own in pieces_plan.groupby("mixture"):
        assert own.label.nunique() == own.n_sources.iloc[0] == own.drop_duplicates(["label", "level_db"]).shape[0]


def test_no_instrument_plays_in_every_piece_of_a_part(pieces_plan):
    for _, own in pieces_plan.groupby("part"):
        assert (own.groupby("label").mixture.nunique() < own.mixture.nunique()).all()


def test_every_ensemble_plays_as_many_pieces_as_were_asked_for(pieces_plan, pieces_config):
    counts = pieces_plan.groupby(["part", "group"]).mixture.nunique()
    for part, n in pieces_config.n_pieces.items():
        assert (counts[part] == n).all()


def test_an_instrument_enters_plays_and_rests_as_long_as_it_may(pieces_plan, pieces_config):
    for _, own in pieces_plan.groupby(["mixture", "label"]):
        spans = own.sort_values("offset_s")
        begin, end = spans.offset_s.to_numpy(), (spans.offset_s + spans.length_s).to_numpy()
        rests = begin[1:] - end[:-1]
        # Within an entry clips follow each other at once; between entries there is a rest.
        assert ((np.abs(rests) < 0.001) | (rests > pieces_config.rest_s[0] - 1)).all()
        assert begin[0] >= 0 and end[-1] <= spans.duration_s.iloc[0] + 0.001
        edges = np.flatnonzero(np.append(rests > 1, True))
        lengths = end[edges] - begin[np.append(0, edges[:-1] + 1)]
        assert (lengths <= pieces_config.entry_s[1] + 0.001).all()


def test_a_player_has_enough_to_play_or_all_that_there_is(small, pieces_plan):
    for (part, label, _), own in pieces_plan.groupby(["part", "label", "group"]):
        heard = own.drop_duplicates(["clip_id", "start_s"]).segment_s.sum()
        known = small.store.segments[small.store.segments.clip_id.map(small.split.parts) == part]
        all_s = 3.0 * (known.label == label).sum()
        n_groups = known.group[known.label == label].nunique()
        # One entry may end before all clips had their turn.
        longest = own.groupby("mixture").length_s.sum().max()
        assert heard >= min(pieces.ENOUGH_S, all_s / max(n_groups, 1), longest) - 3.0


def test_no_more_than_may_sound_at_once(small, pieces_config):
    crowded = dataclasses.replace(pieces_config, at_once=1)
    plan = pieces.compose(small.store, small.split, small.clips, config=crowded, seed=0)
    for _, own in plan.groupby("mixture"):
        spans = own.sort_values("offset_s")
        for one, other in itertools.pairwise(spans.itertuples()):
            assert other.offset_s >= one.offset_s + one.length_s - 0.001


@pytest.mark.parametrize(
    "wrong", [{"instruments": (3, 2)}, {"rest_s": (0.5, 2.0)}, {"duration_s": (5.0, 6.0)}, {"entry_s": (0.0, 2.0)}]
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"instruments|rest_s|entry"):
        pieces.PieceConfig(n_pieces={"validation": 1, "test": 1}, **wrong)


# -- rendering ---------------------------------------------------------------------------------------------------------


def test_the_files_are_as_long_as_the_pieces_and_nothing_is_clipped(pieces_made):
    for one in pieces_made.corpus.manifest.itertuples():
        sound, rate_hz = soundfile.read(pieces_made.corpus.root / one.path)
        assert rate_hz == RATE_HZ and len(sound) == round(one.duration_s * RATE_HZ)
        assert 20 * np.log10(np.abs(sound).max()) == pytest.approx(mixing.PEAK_DB, abs=0.01)


def test_labels_are_those_that_play(pieces_made):
    for row, labels in zip(pieces_made.corpus.manifest.itertuples(), pieces_made.corpus.labels, strict=True):
        playing = set(pieces_made.activity.label[pieces_made.activity.mixture == row.clip_id])
        assert playing == {name for name, there in zip(pieces_made.corpus.classes, labels, strict=True) if there}


def test_the_activity_of_rendered_clips_is_that_of_their_notes_without_breaths(small, pieces_made):
    piece = pieces_made.corpus.manifest.clip_id.iloc[0]
    for label, own in pieces_made.sources[pieces_made.sources.mixture == piece].groupby("label"):
        held = np.zeros(30_000, bool)
        for one in own.itertuples():
            notes = rendered.notes(small.clips, one.clip_id)
            for onset_s, offset_s in notes[["onset_s", "offset_s"]].to_numpy():
                end_s = min(offset_s, one.length_s)
                held[round((one.offset_s + onset_s) * 1000) : round((one.offset_s + end_s) * 1000)] = True
        found = np.zeros(30_000, bool)
        activity = pieces_made.activity[(pieces_made.activity.mixture == piece) & (pieces_made.activity.label == label)]
        for row in activity.itertuples():
            found[round(row.onset_s * 1000) : round(row.offset_s * 1000)] = True
        # An edge may be rounded to the one or the other millisecond.
        assert (held & ~found).sum() <= 2 * len(activity)
        # What was joined is shorter than a breath, and an entry begins and ends with a note.
        joined = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], (found & ~held).astype(int), [0]]))))[::2]
        assert (joined <= 1000 * pieces.PAUSE_S + 1).all()
        assert (activity.onset_s.to_numpy()[1:] - activity.offset_s.to_numpy()[:-1] > pieces.PAUSE_S).all()


def marked(n_samples, begin_s, end_s):
    """Samples from each begin to its end."""
    busy = np.zeros(n_samples, bool)
    for begin, end in zip(begin_s, end_s, strict=True):
        busy[max(0, round(begin * RATE_HZ) - 2) : round(end * RATE_HZ) + 2] = True
    return busy


def heard(made):
    """Yield of each piece its name, its sound, and where clips are played in it."""
    for one in made.corpus.manifest.itertuples():
        sound, _ = soundfile.read(made.corpus.root / one.path)
        own = made.sources[made.sources.mixture == one.clip_id]
        yield one.clip_id, sound, marked(len(sound), own.offset_s, own.offset_s + own.length_s)


def test_where_no_clip_is_played_there_is_silence(pieces_made):
    checked = 0
    for _, sound, in_clips in heard(pieces_made):
        assert np.abs(sound[~in_clips]).max(initial=0) == 0
        checked += (~in_clips).sum()
    assert checked > RATE_HZ


def test_within_clips_there_is_hardly_a_sound_where_nobody_is_said_to_play(pieces_made):
    """What rings on after a key is released aside, so half a second after the last note."""
    checked = 0
    for clip_id, sound, in_clips in heard(pieces_made):
        said = pieces_made.activity[pieces_made.activity.mixture == clip_id]
        playing = marked(len(sound), said.onset_s, said.offset_s)
        ringing = marked(len(sound), said.onset_s, said.offset_s + 0.5)
        quiet = in_clips & ~ringing
        # At least 30 dB below what is heard of the players.
        assert np.square(sound[quiet]).sum() < 1e-3 * np.square(sound[playing]).mean() * quiet.sum()
        checked += quiet.sum()
    assert checked > 0.2 * RATE_HZ


def test_real_clips_are_active_where_they_sound(tones, tmp_path):
    plan = pd.DataFrame(
        [
            ("one", "test", 0, 2, "e", 0, "low", "low", "low", 0.0, 2.0, 2.0, 1.0, 0.0, 12.0),
            ("one", "test", 0, 2, "e", 1, "low", "low", "low", 0.0, 2.0, 2.0, 3.0, 0.0, 12.0),
            ("one", "test", 0, 2, "e", 2, "low", "low", "low", 0.0, 2.0, 0.75, 8.0, 0.0, 12.0),
            ("one", "test", 0, 2, "e", 3, "high", "high", "high", 0.0, 2.0, 2.0, 4.0, -6.0, 12.0),
            ("two", "test", 0, 1, "f", 0, "middle", "middle", "middle", 0.0, 2.0, 2.0, 0.0, 0.0, 12.0),
        ],
        columns=list(pieces._COLUMNS),
    )
    made = pieces.render(plan, tones, sample_rate_hz=RATE_HZ, root=tmp_path / "pieces", workers=1)
    low = made.activity[(made.activity.mixture == "one") & (made.activity.label == "low")]
    # 0.25 to 1.25 s of each clip sound; the silence of a second between the first two is a breath.
    expected = [[1.25, 4.25], [8.25, 8.75]]
    np.testing.assert_allclose(low[["onset_s", "offset_s"]].to_numpy(), expected, atol=0.025)
    sound, _ = soundfile.read(made.corpus.root / "audio/one.flac")
    level_db = [
        20 * np.log10(np.abs(sound[round(a * RATE_HZ) : round(b * RATE_HZ)]).max()) for a, b in ((2, 2.2), (5, 5.2))
    ]
    assert level_db[1] - level_db[0] == pytest.approx(-6, abs=0.2)


def test_the_same_plan_gives_the_same_bytes_whatever_a_kill_has_left(small, pieces_plan, pieces_made, tmp_path):
    first = {path: (pieces_made.corpus.root / path).read_bytes() for path in pieces_made.corpus.manifest.path}
    again = pieces.render(pieces_plan, small.clips, sample_rate_hz=RATE_HZ, root=tmp_path, workers=1)
    folder = again.corpus.root
    assert again.corpus.fingerprint == pieces_made.corpus.fingerprint
    for name in ("mixtures.json", "sources.csv", again.corpus.manifest.path[0]):
        (folder / name).unlink()
    (folder / again.corpus.manifest.path[1]).write_bytes(first[again.corpus.manifest.path[1]][:1000])
    finished = pieces.render(pieces_plan, small.clips, sample_rate_hz=RATE_HZ, root=tmp_path, workers=1)
    assert {path: (folder / path).read_bytes() for path in finished.corpus.manifest.path} == first
    pd.testing.assert_frame_equal(finished.activity, pieces_made.activity)


def test_a_corpus_of_several_labels_and_a_plan_of_other_clips_are_refused(small, pieces_plan, pieces_config, tmp_path):
    labels = np.zeros((len(small.clips.manifest), 3), np.float32)
    labels[np.arange(len(labels)), small.clips.targets] = 1
    several = dataclasses.replace(small.clips, labels=labels)
    with pytest.raises(CorpusError, match="several instruments a clip"):
        pieces.compose(small.store, small.split, several, config=pieces_config, seed=0)
    with pytest.raises(CorpusError, match="The plan mixes 'stranger'"):
        pieces.render(
            pieces_plan.assign(clip_id="stranger"), small.clips, sample_rate_hz=RATE_HZ, root=tmp_path, workers=1
        )


def test_the_truth_of_a_piece_marks_every_second_in_which_an_instrument_plays(pieces_made):
    truth = timeline_scores.truth_of(pieces_made)
    for piece, one in enumerate(pieces_made.corpus.manifest.itertuples()):
        own = pieces_made.activity[pieces_made.activity.mixture == one.clip_id]
        for number, label in enumerate(truth.classes):
            spans = own[own.label == label]
            for second, marked in enumerate(truth.frames[piece][:, number]):
                touched = ((spans.onset_s < second + 1) & (spans.offset_s > second)).any()
                assert marked == touched
    # Each piece is one ensemble's, and that is its group.
    assert (truth.holds.sum(axis=1) == 1).all()
    assert truth.holds.shape[1] == pieces_made.corpus.manifest.group.nunique() == pieces_made.sources.group.nunique()


@pytest.mark.real_data
def test_real_recordings_give_pieces_in_every_fold(sample_root, tmp_path):
    clips = corpora.read("fsdkaggle2018", sample_root)
    store = build_store(clips, FeatureConfig(n_mels=8, n_fft=512, hop_length=4096), root=tmp_path / "features")
    config = pieces.CONFIGS["smoke"]
    for fold, split in enumerate(k_folds(store.clips, 3, seed=0)):
        plan = pieces.compose(store, split, clips, config=config, seed=0, fold=fold)
        assert (plan.groupby("part").label.nunique() == len(clips.classes)).all()
        assert (plan.clip_id.map(split.parts) == plan.part).all()
    made = pieces.render(plan, clips, sample_rate_hz=RATE_HZ, root=tmp_path / "pieces")
    assert (made.activity.offset_s > made.activity.onset_s).all()
    share = np.concatenate(timeline_scores.truth_of(made).frames).any(axis=1).mean()
    assert 0.5 < share <= 1
