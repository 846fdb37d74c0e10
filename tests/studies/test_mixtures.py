"""Mixtures and soundscapes stay within a part, are rendered as planned, and are predicted without leakage."""

import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import soundfile
from trees import TONES_HZ

from instrlib.core.config import AugmentConfig, TrainConfig
from instrlib.core.io import CorpusError, LeakError, RunError, SplitError
from instrlib.data import rendered
from instrlib.data.splits import save_split
from instrlib.data.store import build_store
from instrlib.models.layers import Layer
from instrlib.models.variants import Variant, run_variants
from instrlib.studies import mixtures as studies

RATE_HZ = 22_050
TINY = Layer("conv", 4, 3, stride=2, norm=True), Layer("average")
SOUNDSCAPE = studies.SoundscapeConfig(
    per_ensemble={"validation": 1, "test": 2}, duration_s=(20.0, 24.0), instruments=(2, 3), entry_s=(4.0, 9.0)
)


def composed(small, config, seed):
    return studies.compose(small.store, small.split, small.clips, config=config, seed=seed)


def test_the_same_seed_plans_the_same_and_no_source_leaves_its_part(small, inputs, plan):
    drawn = [studies.draw(inputs, small.clips, 6, sources=(1, 2, 3), seed=seed) for seed in (0, 1)]
    for same, one, other in ((plan, *drawn), [composed(small, SOUNDSCAPE, seed) for seed in (0, 0, 1)]):
        pd.testing.assert_frame_equal(same, one)
        assert not one.equals(other) and set(one.part) == {"validation", "test"}
        assert (one.clip_id.map(small.split.parts) == one.part).all()
    with pytest.raises(SplitError, match="3"):
        studies.draw(inputs, small.clips, 2, sources=(1, 4), seed=0)
    several = dataclasses.replace(small.clips, labels=np.eye(3, dtype=np.float32)[small.clips.targets])
    with pytest.raises(CorpusError):
        studies.draw(inputs, several, 2, sources=(1,), seed=0)


def test_classes_and_groups_are_balanced_and_levels_and_offsets_relative_to_the_first_source(plan):
    for _, rows in plan.groupby(["part", "n_sources"]):
        counts = rows.label.value_counts()
        assert rows.mixture.nunique() == 6 and len(counts) == 3 and counts.max() - counts.min() <= 1
    for _, rows in plan.groupby(["part", "label"]):
        assert np.ptp(rows.of_group.value_counts()) <= 1
    assert not plan.duplicated(["mixture", "label"]).any()
    first, others = plan[plan.source == 0], plan[plan.source > 0]
    assert (first[["level_db", "offset_s"]] == 0).all(axis=None)
    assert others.level_db.abs().max() <= 12 and others.level_db.std() > 4
    assert 0 <= others.offset_s.min() <= others.offset_s.max() <= 1


def test_ensembles_share_no_group_and_entries_rests_and_the_number_at_once_follow_the_settings(small):
    config = dataclasses.replace(SOUNDSCAPE, at_once=1)
    plan = composed(small, config, 2).assign(end_s=lambda plan: plan.offset_s + plan.length_s)
    by_ensemble = plan.groupby("group")
    assert plan.drop_duplicates(["group", "of_group"]).of_group.is_unique
    assert (by_ensemble.label.nunique() == by_ensemble.n_sources.first()).all()
    assert (by_ensemble.mixture.nunique() == by_ensemble.part.first().map(config.per_ensemble)).all()
    for _, own in plan.groupby(["mixture", "label"]):
        entries = studies.joined(list(zip(own.offset_s, own.end_s, strict=True)), gap_s=0.001)
        assert all(3.4 <= b - a <= 9 + 1e-3 for a, b in entries)
        assert all(later[0] - earlier[1] >= 3 - 1e-3 for earlier, later in pairwise(entries))
    for _, own in plan.groupby("mixture"):
        seconds = np.arange(0.5, own.duration_s.iloc[0])[:, None]
        assert ((own.offset_s.to_numpy() <= seconds) & (seconds < own.end_s.to_numpy())).sum(axis=1).max() <= 1


def test_levels_energies_and_activity_of_rendered_tones_are_those_of_the_plan(tones, tmp_path):
    rows = [(f"solo-{one}", 1, 0, one, 0.0, 0.0) for one in TONES_HZ]  # each class is missing once
    for mixture, *offsets_s in (("all", 0.0, 0.5, 0.75), ("late", 0.0, 2.6, 1.2)):
        placed = enumerate(zip(TONES_HZ, offsets_s, (0.0, -7.5, 4.0), strict=True))
        rows += [(mixture, 3, at, name, offset_s, level_db) for at, (name, offset_s, level_db) in placed]
    plan = pd.DataFrame(rows, columns=["mixture", "n_sources", "source", "clip_id", "offset_s", "level_db"])
    plan = plan.assign(label=plan.clip_id, of_group=plan.clip_id, part="test", fold=0, group="test-0", start_s=0.0)
    plan = plan.assign(segment_s=2.0, length_s=2.0, duration_s=3.0)
    made = studies.render(plan[list(studies._COLUMNS)], tones, root=tmp_path)
    sound, _ = soundfile.read(made.corpus.root / "audio" / "all.flac")
    assert np.abs(sound).max() == pytest.approx(10 ** (studies.PEAK_DB / 20), abs=1e-3)
    spectrum, place = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    energy = np.array([spectrum[np.abs(place - one) < 100].sum() for one in TONES_HZ.values()])
    late, sources = (made.sources[made.sources.mixture == one] for one in ("late", "all"))
    levels_db = 10 * np.log10(energy / [1.0, 1.25, 1.5])
    assert levels_db - levels_db[0] == pytest.approx(sources.level_db, abs=0.3)
    assert sources.share_db.to_numpy() == pytest.approx(10 * np.log10(energy / energy.sum()), abs=0.3)
    own = made.activity[made.activity.mixture == "all"].set_index("label").loc[list(TONES_HZ)]
    assert own.onset_s.to_numpy() == pytest.approx([0.25, 0.75, 1.0], abs=0.021)
    assert own.offset_s.to_numpy() == pytest.approx([1.25, 2.0, 2.5], abs=0.021)
    # A source that its offset would cut to less than half starts at 0.
    assert late.offset_s.tolist() == [0.0, 0.0, 1.2]


def test_activity_and_labels_of_rendered_clips_are_those_of_their_notes_and_sources(small, mixtures, soundscapes):
    solo = mixtures.sources[mixtures.sources.n_sources == 1].iloc[0]
    notes = rendered.notes(small.clips, solo.clip_id)
    spans = studies.joined(list(zip(notes.onset_s, notes.offset_s.clip(upper=3.0), strict=True)), gap_s=0)
    own = mixtures.activity[mixtures.activity.mixture == solo.mixture]
    assert list(zip(own.onset_s, own.offset_s, strict=True)) == spans
    for _, rows in soundscapes.activity.groupby(["mixture", "label"]):
        assert (rows.onset_s.to_numpy()[1:] - rows.offset_s.to_numpy()[:-1] > studies.GAP_S).all()
    for made in (mixtures, soundscapes):
        corpus = made.corpus
        assert corpus.classes == small.clips.classes
        there = pd.crosstab(made.sources.mixture, made.sources.label) > 0
        np.testing.assert_array_equal(corpus.labels, there.loc[corpus.manifest.clip_id, list(corpus.classes)])


def test_mixtures_are_rendered_again_if_a_file_is_lost_or_altered(small, plan, mixtures, tmp_path, monkeypatch):
    made = studies.render(plan, small.clips, root=tmp_path)
    assert made.corpus.fingerprint == mixtures.corpus.fingerprint
    before = {path: path.read_bytes() for path in sorted((made.corpus.root / "audio").iterdir())}
    altered, lost, *_ = before
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    lost.unlink()
    again = studies.render(plan, small.clips, root=tmp_path)
    assert {path: path.read_bytes() for path in before} == before and again.activity.equals(made.activity)
    monkeypatch.setattr(studies, "_render", None)
    studies.render(plan, small.clips, root=tmp_path)


def test_each_network_predicts_every_mixture_once_and_none_with_training_clips(
    small, inputs, mixtures, tmp_path, monkeypatch
):
    config = TrainConfig(epochs=1, output="sigmoid", augment=AugmentConfig(mix="mixtures", n_sources=(1, 3)))
    variant = Variant("tiny", TINY, config, small.store.folder)
    networks = run_variants(tmp_path, [variant], splits=inputs.splits, seeds=(0, 1))["tiny"].folders
    store = build_store(mixtures.corpus, small.store.config, root=tmp_path / "mixed")

    def predict(inputs=inputs, mixtures=mixtures):
        return studies.predict(tmp_path / "a.npz", networks, inputs, mixtures, store)

    trained = small.split.parts.index[small.split.parts == "train"][0]
    sources = mixtures.sources.replace({"clip_id": {mixtures.sources.clip_id.iloc[0]: trained}})
    with pytest.raises(LeakError, match="train"):
        predict(mixtures=dataclasses.replace(mixtures, sources=sources))
    parts = small.split.parts.replace("train", "validation")
    save_split(dataclasses.replace(small.split, parts=parts), tmp_path / "split.json")
    with pytest.raises(RunError, match="split"):
        predict(dataclasses.replace(inputs, splits=(tmp_path / "split.json",)))
    answers = predict()
    assert answers.shape == (2, len(mixtures.corpus.manifest), 3)
    assert ((answers >= 0) & (answers <= 1)).all() and not np.array_equal(*answers)
    monkeypatch.setattr(studies, "_predict", None)
    np.testing.assert_array_equal(predict(), answers)
