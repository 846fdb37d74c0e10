"""Run folders: damaged or foreign ones are refused by name, and the test part is read once."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import InstrlibError, RunError, SplitError
from instrlib.data.splits import Split, make_split, save_split
from instrlib.data.store import build_store
from instrlib.evaluation import statistics
from instrlib.models import trained
from instrlib.models.train import train_model


@pytest.fixture(scope="module")
def run(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "seed-0"
    return train_model(folder, small.store.folder, small.split_path, "small", TrainConfig(epochs=25, batch_size=16), 0)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "seed-0"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    path.write_text(json.dumps({"notebook": "01_preprocessing", "study": "rendered-quick"}))


def a_list(path: Path) -> None:
    path.write_text("[]")


@pytest.mark.parametrize("damage", [cut, foreign, a_list, Path.unlink])
@pytest.mark.parametrize("name", ["model.keras", "preprocessing.json", "manifest.json"])
def test_a_damaged_or_foreign_run_folder_is_named(small, copy, name, damage):
    damage(copy / name)
    for call in (
        lambda: trained.load_model(copy),
        lambda: trained.read_test(copy, small.store.folder, small.split_path),
    ):
        with pytest.raises(RunError, match=str(copy)):
            call()
    if name == "manifest.json" and damage is not Path.unlink:  # not overwritten: it may be something else's
        with pytest.raises(RunError, match=str(copy)):
            train_model(copy, small.store.folder, small.split_path, "small", TrainConfig(epochs=1), 0)
        assert (copy / "model.keras").exists()


def test_a_run_of_another_split_or_other_features_or_a_damaged_split_is_not_tested(small, run, tmp_path):
    other, path = make_split(small.store.clips, seed=1), tmp_path / "split.json"
    save_split(other, path)
    config = dataclasses.replace(small.store.config, hop_length=2048)
    store = build_store(small.clips, config, root=tmp_path / "features", workers=1)
    for folder, split, named in (
        (small.store.folder, path, other.fingerprint),
        (store.folder, small.split_path, store.fingerprint),
    ):
        with pytest.raises(RunError, match=named):
            trained.read_test(run, folder, split)
    for damage in (foreign, a_list, cut):
        damage(path)
        with pytest.raises(InstrlibError, match=str(path)):
            trained.read_test(run, small.store.folder, path)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_class_that_is_missing_from_a_part_of_the_split_is_named(small, tmp_path, part):
    labels = small.store.clips.set_index("clip_id").label
    missing = (labels.reindex(small.split.parts.index) == "piano") & (small.split.parts == part)
    split = Split(small.split.parts.mask(missing, "train" if part == "test" else "test"), 0)
    save_split(split, tmp_path / "split.json")
    with pytest.raises(SplitError, match=f"{part}.*piano"):
        train_model(tmp_path / "run", small.store.folder, tmp_path / "split.json", "small", TrainConfig(), 0)
    assert not (tmp_path / "run").exists()


def test_learning_curves_join_the_epochs_that_were_validated(run):
    curves = trained.learning_curves([run])
    loss, accuracy = curves["values"]
    assert loss.shape == (2, 25) and np.isfinite(loss[0]).all() and np.isfinite(loss[1]).sum() == 25
    assert curves["marked"][0].tolist() == [[False] * 25, [False] * 24 + [True]]
    assert accuracy[1, 1] == pytest.approx(accuracy[1, [0, 2]].mean())  # on a straight line between two validations


def test_every_test_clip_is_predicted_once_and_the_result_is_kept(small, run, monkeypatch):
    found = trained.read_test(run, small.store.folder, small.split_path)
    expected = sorted(small.split.parts.index[small.split.parts == "test"])
    assert found["clip_id"].tolist() == expected and found["probabilities"].shape == (len(expected), 3)
    labels = small.clips.manifest.set_index("clip_id").label[expected]
    assert [small.store.classes[target] for target in found["targets"]] == labels.tolist()
    monkeypatch.delattr(trained, "predict_clips")
    again = trained.read_test(run, small.store.folder, small.split_path)
    np.testing.assert_array_equal(again["probabilities"], found["probabilities"])


def test_baselines_predict_the_test_clips_and_chance_is_at_chance(small):
    found = trained.trivial_baselines(small.store, [small.split_path], seed=0)
    table = statistics.score_table(found, n_resamples=50, seed=0)
    accuracy = table[table.score == "accuracy"].set_index("model").estimate
    answered = found["majority class"]["probabilities"][0].argmax()
    assert accuracy["majority class"] == np.mean(found["majority class"]["targets"] == answered)
    # Drums, piano and flute differ in their mean spectrum alone.
    assert accuracy["nearest centroid"] > accuracy["majority class"]
    expected = sorted(small.split.parts.index[small.split.parts == "test"])
    assert found["stratified random"]["clip_id"].tolist() == expected
    assert accuracy["stratified random"] == pytest.approx(1 / 3, abs=0.05)
