"""A leak is shown for what it is, with stores whose segments stand for themselves; everywhere else it is an error."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import FeatureConfig
from instrlib.core.errors import LeakError
from instrlib.data.inputs import Inputs
from instrlib.data.splits import PARTS, k_folds, load_split, save_split
from instrlib.data.store import build_store, open_store
from instrlib.models.answers import answer_test
from instrlib.studies import leak


@pytest.fixture(scope="module")
def short(small, tmp_path_factory):
    """Features of the same clips in segments of one second: several a clip."""
    root = tmp_path_factory.mktemp("short")
    config = FeatureConfig(n_mels=32, hop_length=1024, segment_s=1.0, segment_hop_s=1.0, max_segments=3)
    return build_store(small.clips, config, root=root, workers=1)


@pytest.fixture(scope="module")
def inputs(small, short):
    return Inputs(short, (small.split_path,), small.split.fingerprint)


@pytest.fixture(scope="module")
def honest(inputs, tmp_path_factory):
    return leak.by_segment(inputs, tmp_path_factory.mktemp("honest"), keep_groups=True)


@pytest.fixture(scope="module")
def leaky(inputs, tmp_path_factory):
    return leak.by_segment(inputs, tmp_path_factory.mktemp("leaky"), keep_groups=False)


def parts_of(inputs: Inputs, number: int = 0) -> pd.Series:
    return load_split(inputs.splits[number], inputs.store.segments).parts


def test_every_segment_becomes_a_clip_and_no_value_changes(short, honest, leaky):
    for made in (honest.store, leaky.store):
        assert made.clips.clip_id.is_unique and len(made.clips) == len(short.segments) > len(short.clips)
        np.testing.assert_array_equal(made.features, short.features)
        assert made.segments.label.tolist() == short.segments.label.tolist()
        assert made.segments.row.tolist() == short.segments.row.tolist()
        assert made.segments.clip_id.str.rsplit("#", n=1).str[0].tolist() == short.segments.clip_id.tolist()
    assert honest.store.segments.group.tolist() == short.segments.group.tolist()
    assert leaky.store.segments.group.tolist() == leaky.store.segments.clip_id.tolist()


def test_the_stores_have_fingerprints_of_their_own_and_share_the_file_of_features(short, honest, leaky):
    assert len({short.fingerprint, honest.store.fingerprint, leaky.store.fingerprint}) == 3
    one, other = (folder / "features.npy" for folder in (short.folder, leaky.store.folder))
    assert one.samefile(other)


def test_asked_again_the_store_is_opened_and_a_damaged_one_is_made_again(short):
    scaled = dataclasses.replace(short, config=dataclasses.replace(short.config, scaling="segment"))
    made = leak.segment_store(scaled, keep_groups=True)
    before = (made.folder / "segments.csv").stat().st_mtime_ns
    assert leak.segment_store(scaled, keep_groups=True).fingerprint == made.fingerprint
    assert (made.folder / "segments.csv").stat().st_mtime_ns == before
    (made.folder / "segments.csv").write_text("cut")
    assert leak.segment_store(scaled, keep_groups=True).segments.equals(made.segments)


def test_scaling_belongs_to_the_store_so_it_is_read_as_it_was_asked_for(short):
    scaled = dataclasses.replace(short, config=dataclasses.replace(short.config, scaling="fixed"))
    made = leak.segment_store(scaled, keep_groups=False)
    assert open_store(made.folder).config.scaling == "fixed"
    assert made.fingerprint != leak.segment_store(short, keep_groups=False).fingerprint


def test_a_part_that_a_killed_run_left_is_made_again(short, tmp_path):
    import shutil

    copy = tmp_path / short.folder.name
    shutil.copytree(short.folder, copy)
    moved = open_store(copy)
    name = leak.segment_store(short, keep_groups=True).folder.name
    (tmp_path / f".{name}.partial").mkdir()
    (tmp_path / f".{name}.partial" / "segments.csv").write_text("half")
    made = leak.segment_store(moved, keep_groups=True)
    assert made.folder == tmp_path / name and len(made.segments) == len(short.segments)
    assert not (tmp_path / f".{name}.partial").exists()


def test_with_groups_kept_each_segment_stands_where_its_clip_stood(small, honest):
    parts = parts_of(honest)
    of_clip = small.split.parts[parts.index.str.rsplit("#", n=1).str[0]]
    assert parts.tolist() == of_clip.tolist()


def test_without_groups_the_parts_are_as_large_and_siblings_stand_on_both_sides(small, honest, leaky):
    sizes = [parts_of(one).value_counts()[list(PARTS)].to_numpy() for one in (honest, leaky)]
    assert np.abs(sizes[0] - sizes[1]).max() <= len(small.store.classes) + 1
    described = [leak.describe(one, small.clips.manifest) for one in (honest, leaky)]
    assert described[0]["siblings"] == 0
    assert described[1]["siblings"] > 0.75


def test_a_cross_validation_stays_one_and_tests_every_segment_once(small, short, tmp_path):
    paths = tuple(tmp_path / f"{number}.json" for number in range(3))
    for split, path in zip(k_folds(short.clips, 3, seed=0), paths, strict=True):
        save_split(split, path)
    made = leak.by_segment(Inputs(short, paths, ""), tmp_path / "leaky", keep_groups=False)
    tested = pd.concat([parts_of(made, number) == "test" for number in range(3)], axis=1).sum(axis=1)
    assert (tested == 1).all() and len(tested) == len(short.segments)


def test_the_guard_against_leaks_still_stands_for_segments_that_keep_their_groups(honest, leaky, tmp_path):
    parts = parts_of(leaky)
    assert set(parts.index) == set(honest.store.clips.clip_id)
    with pytest.raises(LeakError):
        load_split(leaky.splits[0], honest.store.segments)


def test_answers_to_segments_joined_by_clip_are_the_answers_to_the_clips(small, short, honest, tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(32, 3))

    def predict(x: np.ndarray) -> np.ndarray:
        values = np.exp(x[..., 0].mean(axis=2) @ weights)
        return values / values.sum(axis=1, keepdims=True)

    stores = [dataclasses.replace(one, config=dataclasses.replace(one.config, scaling="fixed")) for one in
              (short, honest.store)]  # fmt: skip
    splits = [small.split, load_split(honest.splits[0], honest.store.segments)]
    whole, cut = [
        answer_test(tmp_path / f"{number}.npz", "key", lambda: predict, store=store, scaler=None, split=split)
        for number, (store, split) in enumerate(zip(stores, splits, strict=True))
    ]
    joined = leak.by_clip(cut | {"probabilities": cut["probabilities"][None]})
    for name in ("clip_id", "group", "targets"):
        assert joined[name].tolist() == whole[name].tolist()
    np.testing.assert_allclose(joined["probabilities"][0], whole["probabilities"], atol=1e-6)


def test_the_table_sets_both_protocols_side_by_side_with_intervals_over_the_true_groups():
    clips = pd.DataFrame({"clip_id": [f"c{n}" for n in range(8)], "group": [f"g{n // 2}" for n in range(8)]})
    ids = np.array([f"c{n}#0000" for n in range(8)])
    targets = np.tile([0, 1], 4)
    right, half = np.eye(2)[targets], np.eye(2)[np.where(np.arange(8) < 4, targets, 1 - targets)]
    honest = {"a": {"clip_id": ids, "group": ids, "targets": targets, "probabilities": half[None]}}
    leaky = {"a": {"clip_id": ids, "group": ids, "targets": targets, "probabilities": right[None]}}
    row = leak.compare_splits(honest, leaky, clips, n_resamples=200, seed=0).loc["a"]
    assert (row.honest, row.leaky, row.difference) == (0.5, 1.0, 0.5)
    assert row.honest_low < 0.25 and row.honest_high > 0.75  # four groups, two of them all wrong
    assert (row.leaky_low, row.leaky_high) == pytest.approx((1, 1))
    assert row.low == pytest.approx(1 - row.honest_high) and row.high == pytest.approx(1 - row.honest_low)


def test_random_folds_of_segments_leave_siblings_in_training_and_whole_groups_do_not(small):
    found = leak.compare_protocols(small.store, small.split, seed=0, n_resamples=100, workers=1)
    assert found.siblings[0] > 0.75
    assert found.siblings[1] == 0
    assert found.accuracy[0].estimate >= found.accuracy[1].estimate - 0.1
    assert found.difference.estimate == pytest.approx(found.accuracy[0].estimate - found.accuracy[1].estimate)


def test_where_few_groups_are_left_there_are_as_many_folds(small):
    names = sorted(small.store.segments.group.unique())
    three = {name: f"player {number % 3}" for number, name in enumerate(names)}
    few = dataclasses.replace(small.store, segments=small.store.segments.assign(group=lambda t: t.group.map(three)))
    assert leak.compare_protocols(few, small.split, seed=0, n_resamples=50, workers=1).n_folds == 3


@pytest.mark.real_data
def test_on_the_real_sample_a_random_split_of_segments_flatters(sample_root, tmp_path):
    from instrlib.core.config import FeatureConfig, get_profile
    from instrlib.data import corpora
    from instrlib.data.splits import make_split
    from instrlib.data.store import build_store

    clips = corpora.load("fsdkaggle2018", data=sample_root, profile=get_profile("quick"))
    store = build_store(clips, FeatureConfig(), root=tmp_path)
    found = leak.compare_protocols(store, make_split(store.clips, seed=0), seed=0, n_resamples=200)
    assert len(clips.manifest) == 221
    assert found.difference.low > 0.05
