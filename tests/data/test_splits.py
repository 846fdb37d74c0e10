"""Splits: no group is in two parts, every class is in every part, shares are kept, and a seed gives one split."""

import itertools

import numpy as np
import pandas as pd
import pytest

from instrlib.core.io import LeakError, SplitError
from instrlib.data import splits
from instrlib.data.splits import PARTS, check_no_leak, k_folds, load_split, make_split, save_split, study_splits


def manifest_of(*clips):
    """Make a manifest from (label, group, official part)."""
    table = pd.DataFrame(clips, columns=["label", "group", "split"], dtype=str)
    return table.assign(clip_id=[f"clip {number:05d}" for number in range(len(table))])


def random_manifest(seed, *, most_classes_a_group=1, fewest_groups=3):
    """Make a corpus with groups of very different sizes, as real ones have them."""
    rng, clips = np.random.default_rng(seed), []
    labels = [f"class {number}" for number in range(rng.integers(2, 8))]
    for label in labels:
        for number in range(rng.integers(fewest_groups, 15)):
            others = rng.choice(labels, size=rng.integers(0, most_classes_a_group), replace=False)
            for each in (label, *others):
                clips += [(each, f"{label} by {number}", "")] * int(rng.geometric(0.2))
    return manifest_of(*clips)


def single(n_groups, labels="ab", split=""):
    return [(label, f"{label}{split}{n}", split) for label in labels for n in range(n_groups)]


def assert_honest(manifest, split):
    """Check by other means than the library's that the split is whole, leaks nothing and covers every class."""
    assert list(split.parts.index) == sorted(manifest.clip_id)
    of_row = manifest.clip_id.map(dict(split.parts))
    assert (pd.crosstab(manifest.group, of_row) > 0).sum(axis=1).eq(1).all()
    assert (pd.crosstab(manifest.label, of_row)[list(PARTS)] > 0).all(axis=None)


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_in_two_parts_and_every_class_is_in_every_part(seed):
    three = manifest_of(*[(label, group, "") for label in ("cello", "flute", "oboe") for group in "abc"])
    mixed = random_manifest(seed, most_classes_a_group=3, fewest_groups=6)
    for manifest in (random_manifest(seed), mixed, three):
        assert_honest(manifest, make_split(manifest, seed=seed))
    folded = random_manifest(seed, fewest_groups=5)
    folds = k_folds(folded, 5, seed=seed)
    for split in folds:
        assert_honest(folded, split)
    tested = itertools.chain(*(split.parts.index[split.parts == "test"] for split in folds))
    assert sorted(tested) == sorted(folded.clip_id)


def test_shares_are_three_fifths_and_twice_one_fifth_of_each_class():
    manifest = manifest_of(*single(100))
    shares = pd.crosstab(manifest.label, manifest.clip_id.map(make_split(manifest, seed=4).parts), normalize="index")
    assert shares[list(PARTS)].to_numpy() == pytest.approx(np.array([[0.6, 0.2, 0.2]] * 2))
    for split in k_folds(manifest_of(*single(20)), 5, seed=0):
        assert split.parts.value_counts()[list(PARTS)].tolist() == [24, 8, 8]
    sizes = [("a", f"a{n}", "") for n, size in enumerate((60, 12, 10)) for _ in range(size)]
    uneven = manifest_of(*sizes, *single(9))
    assert set(make_split(uneven, seed=0).parts[:60]) == {"train"}, "smaller groups can be tested"


def test_neither_the_order_of_rows_nor_another_class_moves_a_clip_and_another_seed_does():
    manifest = random_manifest(11, fewest_groups=10)
    split = make_split(manifest, seed=2)
    assert make_split(manifest.sample(frac=1, random_state=9), seed=2).fingerprint == split.fingerprint
    less = make_split(manifest[manifest.label != "class 0"], seed=2)
    assert less.parts.equals(split.parts[less.parts.index])
    assert len({make_split(manifest, seed=seed).fingerprint for seed in range(5)}) == 5


def test_parts_of_the_publisher_are_kept_and_the_rest_is_divided():
    for given, counts in ((("test",), [120, 40, 2]), (("test", "validation"), [160, 2, 2])):
        manifest = manifest_of(*single(80, split="train"), *(row for part in given for row in single(1, split=part)))
        parts = make_split(manifest, seed=0).parts
        assert parts.value_counts()[list(PARTS)].tolist() == counts
        fixed = manifest[manifest.split.isin(given)]
        assert parts[fixed.clip_id].tolist() == fixed.split.tolist()


# Every pair of four groups must be apart in three parts.
PAIRS = [(f"{g}{h}", group, "") for g, h in itertools.combinations("wxyz", 2) for group in (g, h, f"{g}{h} own")]


@pytest.mark.parametrize(
    ("error", "place", "clips"),
    [
        (LeakError, "'x'", [("a", "x", "test"), ("a", "x", "train"), *single(3, "a")]),
        (SplitError, "test part has no clip of b", [("a", "x", "test"), *single(3, split="train")]),
        (SplitError, "'oboe' has groups: 1", [*single(5), *[("oboe", "one session", "")] * 20]),
        (SplitError, "wx", PAIRS),
    ],
)
def test_corpora_that_cannot_be_split_are_errors(error, place, clips):
    with pytest.raises(error, match=place):
        make_split(manifest_of(*clips), seed=0)


def test_a_test_part_needs_enough_clips_and_enough_groups():
    many = manifest_of(*single(25))  # 10 test clips in 10 groups
    assert [len(study_splits(many, min_test_clips=n, seed=0)) for n in (10, 11)] == [1, 5]
    few = manifest_of(*[(label, f"{label}{n}", "") for label in "ab" for n in range(5) for _ in range(20)])
    assert [len(study_splits(few, min_test_clips=n, seed=0)) for n in (8, 12)] == [1, 5]  # 40 clips in 2 groups
    scarce = manifest_of(*single(9, "a"), *single(4, "b"))
    assert len(study_splits(scarce, min_test_clips=99, seed=0)) == 4
    with pytest.raises(SplitError, match="'b' has groups: 4"):
        k_folds(scarce, 5, seed=0)


def test_a_leak_names_the_group_and_a_split_of_other_clips_is_an_error():
    manifest = manifest_of(("a", "session 7", ""), ("a", "session 7", ""), ("a", "other", ""))
    parts = pd.Series(["train", "test", "validation"], index=manifest.clip_id)
    with pytest.raises(LeakError, match="'session 7' is in train and test"):
        check_no_leak(manifest, parts)
    apart = manifest.assign(group=list("xyz"))
    check_no_leak(apart, parts)
    for wrong in (parts.iloc[:1], pd.concat([parts, parts]), parts.replace("test", "dev")):
        with pytest.raises(SplitError):
            check_no_leak(apart, wrong)
    with pytest.raises(SplitError, match="train part has no clip of b"):
        splits.check_classes(manifest, parts, ("a", "b"))


def test_a_stored_split_is_read_back_for_clips_and_segments_unless_it_was_altered(tmp_path):
    manifest = random_manifest(7)
    manifest["clip_id"] = [f"Größe/клип {number}" for number in range(len(manifest))]
    split = make_split(manifest, seed=3)
    (tmp_path / "fold-7.json").write_text("of another study")
    (path,) = splits.save_splits([split], tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["fold-0.json"]
    again = load_split(path, manifest.loc[manifest.index.repeat(2)])
    assert again.parts.equals(split.parts)
    assert (again.seed, again.fingerprint) == (3, split.fingerprint)
    with pytest.raises(LeakError):
        load_split(path, manifest.assign(group="one"))
    for text in (path.read_text().replace('"validation"', '"train"'), '{"seed": 0}'):
        save_split(split, path)
        path.write_text(text)
        with pytest.raises(SplitError):
            load_split(path, manifest)
