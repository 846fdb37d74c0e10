"""Splits: no group crosses, every class is everywhere, shares are kept, and the same seed gives the same split."""

import itertools

import numpy as np
import pandas as pd
import pytest

from instrlib.core.errors import LeakError, SplitError
from instrlib.data.splits import (
    PARTS,
    Split,
    check_no_leak,
    k_folds,
    load_split,
    make_split,
    n_folds,
    save_split,
    sibling_share,
)

FRACTIONS = np.array([0.6, 0.2, 0.2])


def manifest_of(*clips: tuple[str, str, str]) -> pd.DataFrame:
    """Make a manifest from (label, group, official part)."""
    table = pd.DataFrame(clips, columns=["label", "group", "split"], dtype=str)
    return table.assign(clip_id=[f"clip {number:05d}" for number in range(len(table))])


def random_manifest(seed: int, *, most_classes_a_group: int = 1, fewest_groups: int = 3) -> pd.DataFrame:
    """Make a corpus with groups of very different sizes, as real ones have them."""
    rng = np.random.default_rng(seed)
    labels = [f"class {number}" for number in range(rng.integers(2, 8))]
    clips = []
    for label in labels:
        for number in range(rng.integers(fewest_groups, 15)):
            others = rng.choice(labels, size=rng.integers(0, most_classes_a_group), replace=False)
            for each in (label, *others):
                clips += [(each, f"{label} by {number}", "")] * int(rng.geometric(0.2))
    return manifest_of(*clips)


def shares(manifest: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Return each class's share of clips in each part."""
    parts = manifest.clip_id.map(split.parts)
    return pd.crosstab(manifest.label, parts, normalize="index").reindex(columns=PARTS, fill_value=0.0)


def assert_honest(manifest: pd.DataFrame, split: Split) -> None:
    """Check by other means than the library's that the split is whole, leaks nothing and covers every class."""
    assert list(split.parts.index) == sorted(manifest.clip_id)
    part = dict(split.parts)
    parts_of_group: dict[str, set[str]] = {}
    classes_of_part: dict[str, set[str]] = {name: set() for name in PARTS}
    for clip in manifest.itertuples():
        parts_of_group.setdefault(clip.group, set()).add(part[clip.clip_id])
        classes_of_part[part[clip.clip_id]].add(clip.label)
    assert all(len(parts) == 1 for parts in parts_of_group.values())
    assert all(classes == set(manifest.label) for classes in classes_of_part.values())


@pytest.mark.parametrize("seed", range(40))
def test_no_group_crosses_and_every_class_stands_in_every_part(seed):
    manifest = random_manifest(seed)
    assert_honest(manifest, make_split(manifest, seed=seed))


@pytest.mark.parametrize("seed", range(40))
def test_groups_of_several_classes_are_split_as_well(seed):
    manifest = random_manifest(seed, most_classes_a_group=3, fewest_groups=6)
    assert_honest(manifest, make_split(manifest, seed=seed))


def test_three_groups_of_all_classes_go_one_to_each_part():
    manifest = manifest_of(*[(label, group, "") for label in ("cello", "flute", "oboe") for group in "abc"])
    for seed in range(10):
        assert_honest(manifest, make_split(manifest, seed=seed))


@pytest.mark.parametrize("seed", range(12))
def test_the_shares_of_a_class_are_those_of_the_best_split_there_is(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.25, size=7)
    manifest = manifest_of(*[("cello", f"{number}", "") for number, size in enumerate(sizes) for _ in range(size)])
    manifest = pd.concat([manifest, manifest_of(*[("flute", f"flute {n}", "") for n in range(9)])], ignore_index=True)
    manifest["clip_id"] = [str(number) for number in range(len(manifest))]

    def distance(parts: tuple[int, ...]) -> float:
        return float(((np.bincount(parts, weights=sizes, minlength=3) / sizes.sum() - FRACTIONS) ** 2).sum())

    best = min(distance(parts) for parts in itertools.product(range(3), repeat=7) if len(set(parts)) == 3)
    found = ((shares(manifest, make_split(manifest, seed=seed)).loc["cello"] - FRACTIONS) ** 2).sum()
    assert found <= best + 0.01


def test_with_single_clips_as_groups_the_fractions_are_met_to_a_clip():
    manifest = manifest_of(*[(label, f"{label} {number}", "") for label in "ab" for number in range(100)])
    split = make_split(manifest, fractions=(0.5, 0.2, 0.3), seed=4)
    assert shares(manifest, split).to_numpy() == pytest.approx(np.array([[0.5, 0.2, 0.3]] * 2))


def test_the_split_does_not_depend_on_the_order_of_rows():
    manifest = random_manifest(3, most_classes_a_group=2, fewest_groups=6)
    shuffled = manifest.sample(frac=1, random_state=9)
    assert make_split(shuffled, seed=1).parts.equals(make_split(manifest, seed=1).parts)
    assert [s.fingerprint for s in k_folds(shuffled, 3, seed=1)] == [
        s.fingerprint for s in k_folds(manifest, 3, seed=1)
    ]


def test_the_split_stays_the_one_that_was_recorded():
    clips = [
        (label, f"{label} {n}", "") for label in ("cello", "flöte") for n in range(7) for _ in range(1 + n * n % 5)
    ]
    assert make_split(manifest_of(*clips), seed=0).fingerprint == "76739015a71a1ebd"


def test_another_seed_gives_another_split():
    manifest = random_manifest(5, fewest_groups=10)
    assert len({make_split(manifest, seed=seed).fingerprint for seed in range(5)}) == 5


def test_leaving_a_class_out_does_not_move_the_clips_of_the_others():
    manifest = random_manifest(11)
    without = manifest[manifest.label != "class 0"]
    whole, less = make_split(manifest, seed=2), make_split(without, seed=2)
    assert less.parts.equals(whole.parts[less.parts.index])


@pytest.mark.parametrize("seed", range(10))
def test_the_publishers_test_part_is_kept_and_the_rest_shared_out(seed):
    manifest = random_manifest(seed, fewest_groups=6)
    number = manifest.groupby("label").group.transform(lambda groups: pd.factorize(groups)[0])
    manifest["split"] = np.where(number < 2, "test", "train")
    split = make_split(manifest, seed=seed)
    assert_honest(manifest, split)
    assert set(split.parts.index[split.parts == "test"]) == set(manifest.clip_id[manifest.split == "test"])


def test_the_rest_beside_a_publishers_test_part_keeps_the_proportion_of_training_to_validation():
    clips = [("a", f"a{n}", "") for n in range(80)] + [("b", f"b{n}", "") for n in range(80)]
    manifest = manifest_of(*clips, *[(label, f"{label} test", "test") for label in "ab"])
    counts = make_split(manifest, seed=0).parts.value_counts()
    assert counts.to_dict() == {"train": 120, "validation": 40, "test": 2}


def test_the_publishers_validation_part_is_kept_too():
    manifest = manifest_of(*[("a", f"g{n}", part) for n, part in enumerate(["train", "validation", "test"] * 2)])
    assert make_split(manifest, seed=0).parts.to_numpy().tolist() == manifest.split.tolist()


def test_a_publishers_part_that_tears_a_group_apart_is_a_leak():
    manifest = manifest_of(("a", "x", "test"), ("a", "x", "train"), ("a", "y", "train"), ("a", "z", "train"))
    with pytest.raises(LeakError, match=r"'x' stands in .* and test"):
        make_split(manifest, seed=0)


def test_a_class_that_the_publishers_test_part_lacks_is_named():
    manifest = manifest_of(("a", "x", "test"), *[(label, f"{label}{n}", "train") for label in "ab" for n in range(3)])
    with pytest.raises(SplitError, match="test part holds no clip of b"):
        make_split(manifest, seed=0)


def test_a_class_that_stands_in_the_publishers_test_part_alone_is_named():
    manifest = manifest_of(("b", "x", "test"), ("a", "y", "test"), *[("a", f"a{n}", "train") for n in range(3)])
    with pytest.raises(SplitError, match="'b' has 0 groups, but train, validation need"):
        make_split(manifest, seed=0)


def test_a_class_with_too_few_groups_is_named_with_their_number_and_the_way_out():
    manifest = manifest_of(*[("cello", f"c{n}", "") for n in range(5)], *[("oboe", "one session", "")] * 20)
    with pytest.raises(SplitError, match=r"'oboe' has 1 group, but train, validation, test .*: add clips .*leave the"):
        make_split(manifest, seed=0)


def test_groups_that_cannot_cover_every_part_are_refused_by_name():
    # Every pair of these four groups must be apart in three parts: not possible.
    pairs = [(f"{g}{h}", group, "") for g, h in itertools.combinations("wxyz", 2) for group in (g, h, f"{g}{h} own")]
    with pytest.raises(SplitError, match="No split was found in which every class"):
        make_split(manifest_of(*pairs), seed=0)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.8, 0.3, -0.1), (0.5, 0.5)])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(SplitError, match="add up to 1"):
        make_split(random_manifest(0), fractions=fractions, seed=0)


def test_an_unknown_official_part_is_refused():
    with pytest.raises(SplitError, match="'eval'"):
        make_split(random_manifest(0).assign(split="eval"), seed=0)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_in_k_folds_each_clip_is_tested_once(seed, k):
    manifest = random_manifest(seed, fewest_groups=k)
    splits = k_folds(manifest, k, seed=seed)
    assert len(splits) == k
    for split in splits:
        assert_honest(manifest, split)
    tested = itertools.chain(*(split.parts.index[split.parts == "test"] for split in splits))
    assert sorted(tested) == sorted(manifest.clip_id)


def test_a_fold_leaves_three_quarters_to_training_and_one_to_validation():
    manifest = manifest_of(*[(label, f"{label}{n}", "") for label in "ab" for n in range(20)])
    for split in k_folds(manifest, 5, seed=0):
        assert split.parts.value_counts()[["train", "validation", "test"]].tolist() == [24, 8, 8]


def test_there_are_as_many_folds_as_the_scarcest_class_has_groups_from_three_to_five():
    for most, expected in ((2, 3), (3, 3), (4, 4), (9, 5)):
        clips = [(label, f"{label}{n}", "") for label, groups in (("a", 9), ("b", most)) for n in range(groups)]
        assert n_folds(manifest_of(*clips)) == expected


def test_k_folds_needs_k_groups_of_each_class_and_three_folds():
    manifest = manifest_of(*[(label, f"{label}{n}", "") for label, most in (("a", 9), ("b", 4)) for n in range(most)])
    with pytest.raises(SplitError, match="'b' has 4 groups, but fold 1, fold 2, fold 3, fold 4, fold 5 need"):
        k_folds(manifest, 5, seed=0)
    with pytest.raises(SplitError, match="at least 3"):
        k_folds(manifest, 2, seed=0)


def test_a_leak_is_an_error_that_names_the_group_and_the_parts():
    manifest = manifest_of(("a", "session 7", ""), ("a", "session 7", ""), ("a", "other", ""))
    parts = pd.Series(["train", "test", "validation"], index=manifest.clip_id)
    with pytest.raises(LeakError, match="'session 7' stands in train and test"):
        check_no_leak(manifest, parts)


def test_a_split_of_other_clips_is_refused():
    manifest = manifest_of(("a", "x", ""), ("a", "y", ""))
    parts = pd.Series(["train", "test"], index=manifest.clip_id)
    with pytest.raises(SplitError, match="not of the same clips"):
        check_no_leak(manifest.iloc[:1], parts)
    with pytest.raises(SplitError, match="not of the same clips"):
        check_no_leak(manifest, parts.iloc[:1])
    with pytest.raises(SplitError, match="twice"):
        check_no_leak(manifest, pd.concat([parts, parts]))
    with pytest.raises(SplitError, match="'dev'"):
        check_no_leak(manifest, parts.replace("test", "dev"))


def test_a_stored_split_comes_back_the_same(tmp_path):
    manifest = random_manifest(7)
    manifest["clip_id"] = [f"Größe/клип {number}" for number in range(len(manifest))]
    split = make_split(manifest, seed=3)
    save_split(split, tmp_path / "split.json")
    again = load_split(tmp_path / "split.json", manifest)
    assert again.parts.equals(split.parts)
    assert (again.seed, again.fingerprint) == (3, split.fingerprint)


def test_a_stored_split_fits_a_table_of_segments_too(tmp_path):
    manifest = random_manifest(7)
    save_split(make_split(manifest, seed=3), tmp_path / "split.json")
    segments = manifest.loc[manifest.index.repeat(2)]
    assert len(load_split(tmp_path / "split.json", segments).parts) == len(manifest)


def test_an_altered_stored_split_is_refused(tmp_path):
    manifest = manifest_of(*[(label, f"{label}{n}", "") for label in "ab" for n in range(8)])
    path = tmp_path / "split.json"
    save_split(make_split(manifest, seed=0), path)
    path.write_text(path.read_text().replace('"validation"', '"train"', 1))
    with pytest.raises(SplitError, match="was altered"):
        load_split(path, manifest)
    path.write_text('{"seed": 0}')
    with pytest.raises(SplitError, match="does not hold a split"):
        load_split(path, manifest)


def test_a_stored_split_that_leaks_is_refused(tmp_path):
    manifest = manifest_of(*[(label, f"{label}{n}", "") for label in "ab" for n in range(8)])
    save_split(make_split(manifest, seed=0), tmp_path / "split.json")
    with pytest.raises(LeakError):
        load_split(tmp_path / "split.json", manifest.assign(group="one"))


def test_an_honest_split_has_no_siblings_and_a_random_one_of_segments_has_many():
    manifest = random_manifest(2, fewest_groups=8)
    segments = manifest.loc[manifest.index.repeat(4)].reset_index(drop=True)
    honest = segments.clip_id.map(make_split(manifest, seed=0).parts)
    assert sibling_share(segments, honest) == 0
    at_random = pd.Series(np.random.default_rng(0).choice(PARTS, len(segments)))
    assert sibling_share(segments, at_random) > 0.6


def test_the_share_of_siblings_counts_test_segments_alone():
    segments = pd.DataFrame({"group": list("aabbcc")})
    parts = pd.Series(["train", "test", "validation", "test", "test", "test"])
    assert sibling_share(segments, parts) == 0.25
    with pytest.raises(SplitError, match="no segment in the test part"):
        sibling_share(segments, parts.replace("test", "train"))
