"""Training chooses on validation, repeats to the bit, and keeps what it finished."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError, RunError
from instrlib.core.io import read_arrays, read_json
from instrlib.data.store import build_store
from instrlib.evaluation.metrics import scores
from instrlib.models import answers, experiments, training
from instrlib.models.batches import training_batches, validation_batches
from instrlib.models.layers import Layer

CONFIG = TrainConfig(epochs=8, batch_size=16, patience=8)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory) -> list[Path]:
    return train(small, tmp_path_factory.mktemp("trained"), seeds=(0, 1), workers=2)


def train(small, folder: Path, *, seeds: tuple[int, ...], workers: int) -> list[Path]:
    variant = experiments.Variant("compact", "compact", CONFIG, small.store.folder)
    found = experiments.run_variants(folder, [variant], splits=[small.split_path], seeds=seeds, workers=workers)
    return found["compact"].flat


def test_a_run_folder_holds_all_that_it_takes_to_use_and_to_trace_the_network(trained, small):
    for seed, folder in enumerate(trained):
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "model.keras", "preprocessing.json", "history.csv", "validation.npz", "metrics.json", "manifest.json",
            "predictions.npz",
        }  # fmt: skip
        manifest = read_json(folder / "manifest.json")
        assert manifest["seed"] == seed
        assert (manifest["store"], manifest["split"]) == (small.store.fingerprint, small.split.fingerprint)
        assert read_json(folder / "preprocessing.json")["features"] == small.store.config.to_dict()


def test_it_learns_to_tell_three_instruments_apart(trained):
    accuracy = [read_json(folder / "metrics.json")["validation"]["accuracy"] for folder in trained]
    assert np.mean(accuracy) > 0.6


def test_training_repeats_to_the_bit_and_does_not_depend_on_the_number_of_processes(trained, small, tmp_path):
    again = train(small, tmp_path, seeds=(1,), workers=1)
    kept = read_arrays(trained[1] / "validation.npz")
    np.testing.assert_array_equal(read_arrays(again[0] / "validation.npz")["probabilities"], kept["probabilities"])
    assert not np.array_equal(read_arrays(trained[0] / "validation.npz")["probabilities"], kept["probabilities"])


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dataclasses.replace(CONFIG, schedule="plateau", learning_rate=0.01, epochs=12, patience=12),
        dataclasses.replace(CONFIG, schedule="constant", output="sigmoid"),
    ],
    ids=["cosine", "plateau", "sigmoid"],
)
def test_a_graph_that_trained_before_gives_the_bits_of_a_new_one(config, small, tmp_path):
    def train(name: str, seed: int) -> dict[str, np.ndarray]:
        folder = training.train_model(tmp_path / name, small.store.folder, small.split_path, "small", config, seed)
        history = pd.read_csv(folder / "history.csv")
        return read_arrays(folder / "validation.npz") | dict(history)

    training._compiled.cache_clear()
    new = train("new", 1)
    train("before", 0)
    used = train("used", 1)
    assert training._compiled.cache_info().hits == 2
    assert new["loss"].iloc[-1] < new["loss"].iloc[0]
    if config.schedule == "plateau":
        assert new["learning_rate"].iloc[-1] < new["learning_rate"].iloc[0]
    for name, values in new.items():
        np.testing.assert_array_equal(used[name], values)


def test_the_best_epoch_on_validation_is_the_one_that_is_kept(trained, small):
    history = training.read_history(trained)
    curves = (history[name] for name in ("validation_accuracy", "validation_loss", "best_epoch"))
    for folder, accuracy, loss, best in zip(trained, *curves, strict=True):
        assert accuracy[best - 1] == np.nanmax(accuracy)
        assert loss[best - 1] == loss[accuracy == np.nanmax(accuracy)].min()
        model, scaler = training.load_model(folder)
        segments = training.part_segments(small.store, small.split, "validation")
        predicted = training.predict_clips(model.predict_on_batch, small.store, scaler, segments)
        kept = read_arrays(folder / "validation.npz")
        np.testing.assert_allclose(predicted["probabilities"], kept["probabilities"], atol=1e-6)
        assert scores(kept["targets"], kept["probabilities"]) == read_json(folder / "metrics.json")["validation"]


def test_an_epoch_that_names_more_is_better_whatever_its_loss_and_among_equals_the_one_with_less():
    early, late, later = ({"val_accuracy": a, "val_loss": loss} for a, loss in ((0.4, 1.0), (0.5, 9.0), (0.5, 3.0)))
    ranks = [training._rank(epoch, "softmax") for epoch in (early, late, later)]
    assert sorted(ranks) == ranks and len(set(ranks)) == 3
    assert training._rank(early, "sigmoid") > training._rank(later, "sigmoid")  # naming none is right most of the time


def test_scaling_is_fitted_on_the_training_part_alone(trained, small):
    _, scaler = training.load_model(trained[0])
    rows = training.part_segments(small.store, small.split, "train").row.to_numpy()
    values = np.asarray(small.store.features)[rows].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, values.mean(axis=(0, 2)), rtol=1e-3)
    np.testing.assert_allclose(scaler.deviation, values.std(axis=(0, 2)), rtol=1e-3)


def test_a_finished_run_is_not_trained_again_and_a_changed_setting_is(trained, small):
    def train(config: TrainConfig) -> None:
        training.train_model(trained[0], small.store.folder, small.split_path, "compact", config, 0)

    before = (trained[0] / "model.keras").stat().st_mtime_ns
    train(CONFIG)
    assert (trained[0] / "model.keras").stat().st_mtime_ns == before
    train(dataclasses.replace(CONFIG, learning_rate=1e-3))
    assert (trained[0] / "model.keras").stat().st_mtime_ns > before
    train(CONFIG)


def test_an_unfinished_run_is_not_taken_for_a_model(tmp_path):
    with pytest.raises(RunError, match="holds no finished training run"):
        training.load_model(tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_seed_and_the_learning_rate(small, tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30)
    with pytest.raises(RunError, match=r"seed 0 diverged in epoch \d+: .*lower the learning rate \(1e\+30\)"):
        training.train_model(tmp_path, small.store.folder, small.split_path, "compact", config, 0)
    assert not (tmp_path / "manifest.json").exists()


def test_weights_of_the_classes_balance_their_shares():
    targets = np.array([0] * 6 + [1] * 3 + [2])
    weights = training.class_weights(targets, 4)
    np.testing.assert_allclose(np.bincount(targets, weights[targets], 4), [10 / 3, 10 / 3, 10 / 3, 0])


LAYERED = TrainConfig(
    epochs=3, output="sigmoid", augment=AugmentConfig(mix="layers", layers=(2, 3), time_masks=1, time_mask_s=0.2)
)


def test_a_network_for_mixtures_is_validated_on_mixtures_which_are_always_the_same(small, tmp_path):
    tiny = (Layer("conv", 8, 3, 2, 2), Layer("average"))
    folder = training.train_model(tmp_path / "run", small.store.folder, small.split_path, tiny, LAYERED, 0)
    kept = read_arrays(folder / "validation.npz")
    segments = training.part_segments(small.store, small.split, "validation")
    assert kept["labels"].shape == (len(segments), 3)
    assert set(kept["labels"].sum(axis=1)) == {2, 3}
    thresholds = training.load_thresholds(folder)
    validation = read_json(folder / "metrics.json")["validation"]
    assert validation == scores(kept["labels"], kept["probabilities"], thresholds)
    history = training.read_history([folder])
    assert np.nanmin(history["validation_loss"]) == pytest.approx(validation["log_loss"], abs=1e-4)

    solos = answers.read_test(folder, small.store.folder, small.split_path)
    assert (solos["labels"].sum(axis=1) == 1).all()  # asked for one instrument it answers for several all the same
    assert (solos["labels"].argmax(axis=1) == solos["targets"]).all()
    np.testing.assert_array_equal(solos["thresholds"], thresholds)

    _, scaler = training.load_model(folder)
    first, again = (
        validation_batches(small.store, scaler, segments, weights=None, config=config)[0]
        for config in (LAYERED, dataclasses.replace(LAYERED, epochs=9))
    )
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_mixtures_are_drawn_anew_in_every_epoch(small):
    segments = training.part_segments(small.store, small.split, "train")
    scaler = training.fit_scaler(small.store, segments.row.to_numpy())
    batches = training_batches(small.store, scaler, segments, weights=None, config=LAYERED, seed=0)
    x, y, weights = batches[0]
    assert set(y.sum(axis=1)) <= {2, 3} and (weights == 1).all()
    np.testing.assert_array_equal(batches[0][0], x)
    batches.on_epoch_end()
    assert not np.array_equal(batches[0][0], x)


def test_layers_are_made_of_log_mel_spectrograms_alone(small, tmp_path):
    config = FeatureConfig(kind="mfcc", n_mels=32, hop_length=4096)
    store = build_store(small.clips, config, root=tmp_path, workers=1)
    with pytest.raises(ConfigError, match="needs log-mel spectrograms, not mfcc"):
        training.train_model(tmp_path / "run", store.folder, small.split_path, "small", LAYERED, 0)
