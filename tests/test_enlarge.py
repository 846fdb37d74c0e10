"""More rendered clips: each in the part of its group, so that none crosses the split."""

import pytest

from instrlib.audio.features import FeatureConfig
from instrlib.core.errors import ConfigError
from instrlib.data import rendered
from instrlib.data.inputs import Inputs
from instrlib.data.splits import check_no_leak, fingerprint_of, k_folds, load_split, save_splits
from instrlib.data.store import build_store
from instrlib.deploy.enlarge import enlarge

CONFIG = FeatureConfig(hop_length=1024, n_mels=16)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_DATA", str(tmp_path / "data"))
    given = {"clips_per_class": 12, "classes": ("flute", "trumpet"), "workers": 1}
    store = build_store(
        rendered.load(tmp_path / "data" / "rendered", **given), CONFIG, root=tmp_path / "data" / "features", workers=1
    )
    splits = k_folds(store.clips, 3, seed=0)
    return Inputs(store, tuple(save_splits(splits, tmp_path / "splits")), fingerprint_of(splits))


def test_every_clip_keeps_its_part_and_every_part_gets_more_clips_of_its_groups(study, tmp_path):
    more = enlarge(study, tmp_path / "more", clips_per_class=40, workers=1)
    assert more.store.classes == study.store.classes
    assert more.fingerprint != study.fingerprint
    for before, after in zip(study.splits, more.splits, strict=True):
        small = load_split(before, study.store.segments).parts
        large = load_split(after, more.store.segments).parts
        assert large[small.index].equals(small)
        assert (large.value_counts() > 2 * small.value_counts()).all()
        check_no_leak(more.store.clips, large)


def test_a_clip_has_the_same_features_in_both(study, tmp_path):
    more = enlarge(study, tmp_path / "more", clips_per_class=14, workers=1)
    first = study.store.segments.iloc[5]
    again = more.store.segments.set_index("clip_id").loc[first.clip_id]
    assert (study.store.features[first.row] == more.store.features[again.row]).all()


def test_fewer_clips_than_the_study_has_are_refused(study, tmp_path):
    with pytest.raises(ConfigError, match="none of 6 rendered clips of each class"):
        enlarge(study, tmp_path / "more", clips_per_class=6, workers=1)
