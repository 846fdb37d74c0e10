"""Segments as clips of their own: whole groups kept together, or the split by segments that leaks."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import FeatureConfig
from instrlib.core.io import LeakError
from instrlib.data.inputs import Inputs, by_segment, clip_of_segment, describe_segments, segment_store
from instrlib.data.splits import PARTS, k_folds, load_split, save_split
from instrlib.data.store import build_store
from instrlib.evaluation.predictions import by_clip
from instrlib.models.trained import answer_test


@pytest.fixture(scope="module")
def short(small, tmp_path_factory):
    """Features of the same clips in segments of one second: several a clip."""
    config = FeatureConfig(n_mels=32, hop_length=1024, segment_s=1.0, segment_hop_s=1.0, max_segments=3)
    return build_store(small.clips, config, root=tmp_path_factory.mktemp("short"), workers=1)


@pytest.fixture(scope="module")
def made(small, short, tmp_path_factory):
    """Return the inputs by segment, with groups kept together and without."""
    inputs = Inputs(short, (small.split_path,), small.split.fingerprint)
    return [by_segment(inputs, tmp_path_factory.mktemp("segments"), keep_groups=kept) for kept in (True, False)]


def parts_of(inputs: Inputs, number: int = 0) -> pd.Series:
    return load_split(inputs.splits[number], inputs.store.segments).parts


def test_every_segment_becomes_a_clip_and_no_value_changes(short, made):
    for one in made:
        assert one.store.clips.clip_id.is_unique and len(one.store.clips) == len(short.segments) > len(short.clips)
        np.testing.assert_array_equal(one.store.features, short.features)
        assert one.store.segments[["label", "row"]].equals(short.segments[["label", "row"]])
        assert clip_of_segment(one.store.segments.clip_id).tolist() == short.segments.clip_id.tolist()
        assert (one.store.folder / "features.npy").samefile(short.folder / "features.npy")
    assert made[0].store.segments.group.tolist() == short.segments.group.tolist()
    assert made[1].store.segments.group.tolist() == made[1].store.segments.clip_id.tolist()
    assert len({short.fingerprint, *(one.store.fingerprint for one in made)}) == 3


def test_a_damaged_store_is_made_again(short):
    scaled = dataclasses.replace(short, config=dataclasses.replace(short.config, scaling="segment"))
    store = segment_store(scaled, keep_groups=True)
    (store.folder / "segments.csv").write_text("cut")
    assert segment_store(scaled, keep_groups=True).segments.equals(store.segments)


def test_with_groups_kept_each_segment_is_in_the_part_of_its_clip(small, made):
    parts = parts_of(made[0])
    assert parts.tolist() == small.split.parts[clip_of_segment(parts.index.to_series())].tolist()


def test_without_groups_the_parts_are_as_large_and_groups_are_on_both_sides(small, made):
    sizes = [parts_of(one).value_counts()[list(PARTS)].to_numpy() for one in made]
    assert np.abs(sizes[0] - sizes[1]).max() <= len(small.store.classes) + 1
    kept, drawn = (describe_segments(one, small.clips.manifest)["same_group"] for one in made)
    assert kept == 0 and drawn > 0.75
    with pytest.raises(LeakError):  # the guard holds for the true groups
        load_split(made[1].splits[0], made[0].store.segments)


def test_a_cross_validation_tests_every_segment_once(short, tmp_path):
    paths = tuple(tmp_path / f"{number}.json" for number in range(3))
    for split, path in zip(k_folds(short.clips, 3, seed=0), paths, strict=True):
        save_split(split, path)
    drawn = by_segment(Inputs(short, paths, ""), tmp_path / "segments", keep_groups=False)
    tested = pd.concat([parts_of(drawn, number) == "test" for number in range(3)], axis=1).sum(axis=1)
    assert (tested == 1).all() and len(tested) == len(short.segments)


def test_predictions_of_segments_joined_by_clip_are_those_of_the_clips(small, short, made, tmp_path):
    weights = np.random.default_rng(0).normal(size=(32, 3))

    def predict(x: np.ndarray) -> np.ndarray:
        values = np.exp(x[..., 0].mean(axis=2) @ weights)
        return values / values.sum(axis=1, keepdims=True)

    found = []
    for store, split in ((short, small.split), (made[0].store, load_split(made[0].splits[0], made[0].store.segments))):
        fixed = dataclasses.replace(store, config=dataclasses.replace(store.config, scaling="fixed"))
        path = tmp_path / f"{len(found)}.npz"
        found.append(answer_test(path, "key", lambda: predict, store=fixed, scaler=None, split=split))
    whole, cut = found
    joined = by_clip(cut | {"probabilities": cut["probabilities"][None]})
    for name in ("clip_id", "group", "targets"):
        assert joined[name].tolist() == whole[name].tolist()
    np.testing.assert_allclose(joined["probabilities"][0], whole["probabilities"], atol=1e-6)
