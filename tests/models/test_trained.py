"""Run folders hold what was trained; damaged or foreign ones are refused by name, and the test part is read once."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError, InstrlibError, RunError, SplitError, read_arrays, read_json
from instrlib.data.splits import Split, make_split, save_split
from instrlib.data.store import build_store
from instrlib.evaluation import statistics
from instrlib.evaluation.metrics import scores
from instrlib.models import train, trained
from instrlib.models.train import Variant, train_model

LAYERED = TrainConfig(
    epochs=3, output="sigmoid", augment=AugmentConfig(mix="mixtures", n_sources=(2, 3), time_masks=1, time_mask_s=0.2)
)


def run_small(small, folder: Path, config: TrainConfig) -> Path:
    return train_model(folder, Variant("small", "small", config, small.store.folder), small.split_path, 0)


@pytest.fixture(scope="module")
def run(small, tmp_path_factory) -> Path:
    return run_small(small, tmp_path_factory.mktemp("run") / "seed-0", TrainConfig(epochs=25, batch_size=16))


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "foreign": lambda path: path.write_text('{"notebook": "01_preprocessing", "study": "rendered-quick"}'),
    "a list": lambda path: path.write_text("[]"),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.keras", "preprocessing.json", "manifest.json"])
def test_a_damaged_or_foreign_run_folder_is_named(small, run, tmp_path, name, damage):
    copy = Path(shutil.copytree(run, tmp_path / "seed-0"))
    DAMAGES[damage](copy / name)
    for read in (trained.load_model, lambda one: trained.read_test(one, small.store.folder, small.split_path)):
        with pytest.raises(RunError, match=str(copy)):
            read(copy)
    if name == "manifest.json" and damage != "missing":  # not overwritten: it may be something else's
        with pytest.raises(RunError, match=str(copy)):
            run_small(small, copy, TrainConfig(epochs=1))
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
    for damage in ("foreign", "a list", "cut"):
        DAMAGES[damage](path)
        with pytest.raises(InstrlibError, match=str(path)):
            trained.read_test(run, small.store.folder, path)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_class_that_is_missing_from_a_part_of_the_split_is_named(small, tmp_path, part):
    parts, labels = small.split.parts, small.store.clips.set_index("clip_id").label
    missing = (labels.reindex(parts.index) == "piano") & (parts == part)
    save_split(Split(parts.mask(missing, "train" if part == "test" else "test"), 0), tmp_path / "split.json")
    with pytest.raises(SplitError, match=f"{part}.*piano"):
        variant = Variant("small", "small", TrainConfig(), small.store.folder)
        train_model(tmp_path / "run", variant, tmp_path / "split.json", 0)
    assert not (tmp_path / "run").exists()


def test_learning_curves_join_the_epochs_that_were_validated(run):
    curves = trained.learning_curves([run])
    loss, accuracy = curves["values"]
    assert loss.shape == (2, 25) and np.isfinite(loss[0]).all() and np.isfinite(loss[1]).sum() == 25
    assert accuracy[1, 1] == pytest.approx(accuracy[1, [0, 2]].mean())  # on a straight line between two validations


def test_it_learns_and_its_files_give_the_predictions_that_were_written(small, run, monkeypatch):
    kept, metrics, manifest = (
        read_arrays(run / "validation.npz"), read_json(run / "metrics.json"), read_json(run / "manifest.json")
    )  # fmt: skip
    assert metrics["validation"]["accuracy"] > 0.6 and metrics["best_epoch"] == 25
    assert (manifest["store"], manifest["split"]) == (small.store.fingerprint, small.split.fingerprint)
    assert scores(kept["targets"], kept["probabilities"]) == metrics["validation"]
    tested = trained.read_test(run, small.store.folder, small.split_path)
    labels = small.clips.manifest.set_index("clip_id").label
    model, scaler = trained.load_model(run)
    for part, written in (("validation", kept), ("test", tested)):
        assert written["clip_id"].tolist() == sorted(small.split.parts.index[small.split.parts == part])
        assert [small.store.classes[one] for one in written["targets"]] == labels[written["clip_id"]].tolist()
        segments = trained.part_segments(small.store, small.split, part)
        predicted = trained.predict_clips(model.predict_on_batch, small.store, scaler, segments)
        np.testing.assert_allclose(predicted["probabilities"], written["probabilities"], atol=1e-6)
    rows = trained.part_segments(small.store, small.split, "train").row.to_numpy()
    values = np.asarray(small.store.features)[rows].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, values.mean(axis=(0, 2)), rtol=1e-3)  # of the training part alone
    monkeypatch.delattr(trained, "predict_clips")  # the test part is read once
    again = trained.read_test(run, small.store.folder, small.split_path)
    np.testing.assert_array_equal(again["probabilities"], tested["probabilities"])


def test_a_finished_run_is_kept_and_a_changed_setting_trains_again(small, tmp_path):
    configs = [TrainConfig(epochs=1, learning_rate=rate) for rate in (3e-3, 3e-3, 1e-3)]
    times = [(run_small(small, tmp_path, one) / "model.keras").stat().st_mtime_ns for one in configs]
    assert times[0] == times[1] < times[2]


def test_a_network_for_mixtures_is_validated_on_mixtures_which_are_always_the_same(small, tmp_path):
    folder = run_small(small, tmp_path, LAYERED)
    kept = read_arrays(folder / "validation.npz")
    segments = trained.part_segments(small.store, small.split, "validation")
    assert kept["labels"].shape == (len(segments), 3) and set(kept["labels"].sum(axis=1)) == {2, 3}
    validation = read_json(folder / "metrics.json")["validation"]
    assert validation == scores(kept["labels"], kept["probabilities"], kept["thresholds"])
    history = pd.read_csv(folder / "history.csv")
    assert history.val_loss.iloc[-1] == pytest.approx(validation["log_loss"], abs=1e-4)
    again = train.validation_examples(small.store, segments, trained.load_scaler(folder), LAYERED)
    np.testing.assert_array_equal(again.labels, kept["labels"])
    solos = trained.read_test(folder, small.store.folder, small.split_path)
    assert (solos["labels"].sum(axis=1) == 1).all()


def test_mixtures_need_log_mel_spectrograms(small, tmp_path):
    store = build_store(small.clips, FeatureConfig(kind="mfcc", n_mels=32, hop_length=4096), root=tmp_path, workers=1)
    for config in (LAYERED, TrainConfig(augment=AugmentConfig(recording=0.5))):
        with pytest.raises(ConfigError, match="mfcc"):
            train_model(tmp_path / "run", Variant("small", "small", config, store.folder), small.split_path, 0)


def test_baselines_predict_the_test_clips_and_chance_is_at_chance(small):
    found = trained.trivial_baselines(small.store, [small.split_path], seed=0)
    table = statistics.score_table(found, n_resamples=50, seed=0)
    accuracy = table[table.score == "accuracy"].set_index("model").estimate
    answered = found["majority class"]["probabilities"][0].argmax()
    assert accuracy["majority class"] == np.mean(found["majority class"]["targets"] == answered)
    assert accuracy["nearest centroid"] > accuracy["majority class"]
    expected = sorted(small.split.parts.index[small.split.parts == "test"])
    assert found["stratified random"]["clip_id"].tolist() == expected
    assert accuracy["stratified random"] == pytest.approx(1 / 3, abs=0.05)
