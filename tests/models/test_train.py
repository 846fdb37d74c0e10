"""The training loop: against plain Keras and the NumPy augmentation, the same bits from everywhere."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.audio.augment import augment
from instrlib.audio.features import Scaler, mel_edges_hz, silence
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError, RunError, SplitError, read_arrays, read_json
from instrlib.core.parallel import load_keras
from instrlib.data.store import build_store
from instrlib.evaluation.metrics import scores
from instrlib.models import answers, examples, train, trained
from instrlib.models.examples import Examples
from instrlib.models.graph import augmented
from instrlib.models.layers import Layer, build

FEATURES = FeatureConfig(n_mels=16, hop_length=4096)
TABLE = (Layer("conv", 6, 3, 1, 2, True), Layer("conv", 8, 3, 1, 1, True), Layer("average"))
CONFIG = TrainConfig(epochs=3, batch_size=8)


def random_examples(n: int = 40, *, config: FeatureConfig | None = FEATURES, several: bool = False) -> Examples:
    rng = np.random.default_rng(0)
    x = rng.uniform(-80, 0, (n, *FEATURES.shape)).astype(np.float32)
    y = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), [n // 2, n // 4, n // 8, n // 8])]
    if several:
        y = np.where(rng.random(y.shape) < 0.2, np.nan, y).astype(np.float32)
    scaler = Scaler(x.mean(axis=(0, 2)), x.std(axis=(0, 2)))
    return Examples(((x, np.arange(n)),), y, config, scaler)


# -- against references ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=1, batch_size=40, learning_rate=0.01, label_smoothing=0.1),
        TrainConfig(epochs=1, batch_size=40, learning_rate=0.01, label_smoothing=0.1, output="sigmoid"),
    ],
    ids=["softmax", "sigmoid"],
)
def test_three_steps_are_those_of_keras(config):
    keras, known = load_keras(), random_examples(several=config.output == "sigmoid")
    x = known.scaled(known.read(np.arange(40)))[..., None]
    config = dataclasses.replace(config, epochs=3, schedule="constant")
    graph, history, _ = train.fit(TABLE, known, known, config, seed=5)

    plain = build(TABLE, x.shape[1:], 4, output=config.output, seed=5)
    if config.output == "softmax":
        weights = train.class_weights(known.labels.argmax(axis=1), 4)[known.labels.argmax(axis=1)]
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
        plain.compile(keras.optimizers.Adam(0.01), loss)
        losses = [plain.train_on_batch(x, known.labels, sample_weight=weights) for _ in range(3)]
    else:
        wanted, observed = 0.9 * np.nan_to_num(known.labels) + 0.05, np.isfinite(known.labels)
        optimizer, losses = keras.optimizers.Adam(0.01), []
        import tensorflow as tf

        for _ in range(3):
            with tf.GradientTape() as tape:
                each = keras.ops.binary_crossentropy(wanted, plain(x, training=True))
                loss = tf.reduce_sum(each * observed) / observed.sum()
            gradients = tape.gradient(loss, [one.value for one in plain.trainable_variables])
            optimizer.apply_gradients(zip(gradients, plain.trainable_variables, strict=True))
            losses.append(float(loss))
    np.testing.assert_allclose(history.loss, losses, rtol=1e-4)
    for one, other in zip(graph.model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-3)


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(mix="cutmix"),
        AugmentConfig(mix="cutmix", axes="time", beta=0.4),
        AugmentConfig(mix="cutmix", axes="frequency", share=0.5),
        AugmentConfig(mix="mixup", share=0.5),
        AugmentConfig(time_masks=2, time_mask_s=0.9, frequency_masks=1, frequency_mask_bins=5),
        AugmentConfig(mix="cutmix", retake=0.5, time_masks=1, time_mask_s=0.5),
        AugmentConfig(mix="layers", layers=(2, 3), frequency_masks=2, frequency_mask_bins=3),
    ],
    ids=["cutmix", "over time", "over frequency", "mixup", "masks", "retake", "layers"],
)
def test_the_graph_augments_as_the_reference_in_numpy(config):
    known = random_examples()
    train_config = dataclasses.replace(
        CONFIG, augment=config, output="sigmoid" if config.mix == "layers" else "softmax"
    )
    weights = None if config.mix == "layers" else np.array([1.0, 2.0, 3.0, 4.0])
    resident = known.read(np.arange(40)) if examples.is_resident(known, train_config) else None
    [(data, plan)] = examples.plans(known, train_config, weights, resident, np.ones(5, np.float32), (3, 1))
    plain = dataclasses.replace(train_config, augment=AugmentConfig())
    [(_, order)] = examples.plans(known, plain, weights, known.read(np.arange(40)), np.ones(5, np.float32), (3, 1))
    floor = silence(FEATURES)
    settings = {"floor": floor, "hop_s": FEATURES.hop_s, "edges_hz": mel_edges_hz(FEATURES)}
    changed = 0
    for step, rows in enumerate(order["rows"]):
        x, y = known.read(rows), known.labels[rows]
        wanted, labels = augment(x, y, config, **settings, rng=np.random.default_rng((3, 1, step)))
        now = {name: value[step] for name, value in plan.items() if name != "seed"}
        found = augmented(_tensor(data), {name: _tensor(value) for name, value in now.items()}, floor[:, None])
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(now["targets"], labels, atol=1e-6)
        if weights is not None:
            np.testing.assert_allclose(now["weights"], labels @ weights, rtol=1e-5)
        changed += not np.array_equal(x, wanted)
    assert changed


def _tensor(value: np.ndarray) -> object:
    import tensorflow as tf

    return tf.constant(value)


def test_a_fixed_box_pastes_its_area_and_nothing_else():
    data = _tensor(np.stack([np.full((4, 5), -80.0), np.zeros((4, 5))]).astype(np.float32))
    plan = {"rows": [0], "partners": [1], "box": [[1, 3, 2, 5]], "share": [0.0], "mixed": True}
    masks = {"bin_masks": np.zeros((1, 0, 2), np.int32), "frame_masks": np.array([[[0, 1]]], np.int32)}
    found = augmented(data, {name: _tensor(value) for name, value in (plan | masks).items()}, np.full((4, 1), -60.0))
    wanted = np.full((4, 5), -80.0)
    wanted[1:3, 2:5] = 0
    wanted[:, 0] = -60
    np.testing.assert_array_equal(found[0], wanted)


@pytest.mark.parametrize("kind", ["log_mel", "mfcc", "pcen"])
@pytest.mark.parametrize("scaling", ["fixed", "segment", "train"])
def test_the_graph_scales_as_features_are_scaled(kind, scaling):
    config = FeatureConfig(kind=kind, scaling=scaling, n_mels=16, n_mfcc=16, hop_length=4096)
    known = random_examples(config=config)
    values = known.read(np.arange(3))
    one = examples.affine(known)
    found = values * one["slope"] + one["offset"]
    if scaling == "segment":
        found = (found - found.mean(axis=(1, 2), keepdims=True)) / found.std(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, known.scaled(values), rtol=1e-4, atol=1e-4)


# -- what it does ----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_whatever_was_trained_before_and_however_it_is_read(monkeypatch):
    def weights(seed: int, config: TrainConfig = CONFIG) -> list[np.ndarray]:
        table = (*TABLE[:-1], Layer("average", dropout=0.3))
        return train.fit(table, random_examples(), random_examples(), config, seed)[0].model.get_weights()

    mixed = dataclasses.replace(CONFIG, augment=AugmentConfig(mix="cutmix", share=0.5))
    first, other, again, apart = weights(1), weights(2), weights(1), weights(1, mixed)
    monkeypatch.setattr(examples, "CHUNK_BYTES", 20_000)  # two steps at a time
    in_chunks, apart_in_chunks = weights(1), weights(1, mixed)
    for one, same in ((first, again), (first, in_chunks), (apart, apart_in_chunks)):
        assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    for one in (other, apart):
        assert not all(np.array_equal(a, b) for a, b in zip(first, one, strict=True))


def test_soft_labels_are_learned():
    known = random_examples()
    soft = dataclasses.replace(known, labels=np.tile(np.float32([0.7, 0.1, 0.1, 0.1]), (40, 1)))
    config = dataclasses.replace(CONFIG, epochs=30, learning_rate=0.03, class_weights=False)
    graph, *_ = train.fit(TABLE, soft, soft, config, 0)
    np.testing.assert_allclose(soft.answers(graph.predict).mean(axis=0), [0.7, 0.1, 0.1, 0.1], atol=0.05)


def test_rows_of_rate_zero_and_a_frozen_normalisation_stay_as_they_are():
    first = build(TABLE, (*FEATURES.shape, 1), 4, seed=3).get_weights()
    moved = ((0.0, 0.5, 1.0), True)
    graph, *_ = train.fit(TABLE, random_examples(), random_examples(), CONFIG, 3, moved=moved)
    names = [variable.path for variable in graph.model.weights]
    for name, before, after in zip(names, first, graph.model.get_weights(), strict=True):
        assert np.array_equal(before, after) == ("norm" in name or "conv1" in name), name


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_with_patience_the_best_epoch_is_kept_and_without_it_the_last(output):
    known = random_examples()
    config = dataclasses.replace(CONFIG, epochs=6, learning_rate=0.05, schedule="constant", output=output)
    _, history, last = train.fit(TABLE, known, known, config, 0)
    assert last == 6 and history.val_loss.notna().all()
    graph, history, best = train.fit(TABLE, known, known, dataclasses.replace(config, patience=2), 0)
    rank = -history.val_loss if output == "sigmoid" else history.val_accuracy - 1e-6 * history.val_loss
    assert best == rank.idxmax() + 1 and len(history) == min(best + 2, 6)
    probabilities = known.answers(graph.predict)
    if output == "softmax":
        right = probabilities.argmax(axis=1) == known.labels.argmax(axis=1)
        weights = train.class_weights(known.labels.argmax(axis=1), 4)[known.labels.argmax(axis=1)]
        assert np.average(right, weights=weights) == pytest.approx(history.val_accuracy[best - 1])


def test_a_plateau_halves_the_learning_rate(monkeypatch):
    seen = []
    plans = train.plans
    monkeypatch.setattr(train, "plans", lambda *given: seen.append(float(given[4][0])) or plans(*given))
    monkeypatch.setattr(train, "_validation", lambda *_: {"val_loss": 1.0, "val_accuracy": 0.5})
    config = dataclasses.replace(CONFIG, epochs=8, schedule="plateau", learning_rate=0.01)
    train.fit(TABLE, random_examples(), random_examples(), config, 0)
    np.testing.assert_allclose(seen, [0.01] * 4 + [0.005] * 3 + [0.0025])


def test_diverging_is_one_sentence_with_the_seed_and_the_learning_rate():
    config = dataclasses.replace(CONFIG, learning_rate=1e30)
    with pytest.raises(RunError, match="seed 7 diverged") as caught:
        train.fit(TABLE, random_examples(), random_examples(), config, 7)
    assert "1e+30" in str(caught.value)
    graph, *_ = train.fit(TABLE, random_examples(), random_examples(), CONFIG, 7)
    assert all(np.isfinite(one).all() for one in graph.model.get_weights())  # nothing of it is left


def test_class_weights_balance_the_shares():
    targets = np.array([0] * 6 + [1] * 3 + [2])
    weights = train.class_weights(targets, 4)
    np.testing.assert_allclose(np.bincount(targets, weights[targets], 4), [10 / 3, 10 / 3, 10 / 3, 0])


# -- run folders -----------------------------------------------------------------------------------------------------

LAYERED = TrainConfig(
    epochs=3, output="sigmoid", augment=AugmentConfig(mix="layers", layers=(2, 3), time_masks=1, time_mask_s=0.2)
)


@pytest.fixture(scope="module")
def run(small, tmp_path_factory) -> Path:
    return run_small(small, tmp_path_factory.mktemp("run") / "one")


def run_small(small, folder: Path, config: TrainConfig | None = None, **more: object) -> Path:
    config = config or TrainConfig(epochs=10, batch_size=16)
    return train.train_model(folder, small.store.folder, small.split_path, "small", config, 0, **more)


def test_a_run_folder_holds_all_that_is_needed_to_use_and_to_trace_the_network(run, small):
    assert {path.name for path in run.iterdir()} == {
        "model.keras", "preprocessing.json", "history.csv", "validation.npz", "metrics.json", "manifest.json",
    }  # fmt: skip
    manifest = read_json(run / "manifest.json")
    assert (manifest["store"], manifest["split"]) == (small.store.fingerprint, small.split.fingerprint)
    assert read_json(run / "preprocessing.json")["features"] == small.store.config.to_dict()
    assert trained.learning_curves([run])["values"].shape == (2, 2, 10)


def test_it_learns_and_its_file_gives_the_probabilities_that_were_written(run, small):
    kept, metrics = read_arrays(run / "validation.npz"), read_json(run / "metrics.json")
    assert metrics["validation"]["accuracy"] > 0.6 and metrics["best_epoch"] == 10
    model, scaler = trained.load_model(run)
    segments = trained.part_segments(small.store, small.split, "validation")
    predicted = trained.predict_clips(model.predict_on_batch, small.store, scaler, segments)
    np.testing.assert_allclose(predicted["probabilities"], kept["probabilities"], atol=1e-6)
    assert scores(kept["targets"], kept["probabilities"]) == metrics["validation"]


def test_test_answers_of_the_training_process_are_those_of_the_file(small, run, tmp_path):
    folder = run_small(small, tmp_path / "two", test=True)
    here = read_arrays(folder / "predictions.npz")["probabilities"]
    np.testing.assert_allclose(
        answers.read_test(run, small.store.folder, small.split_path)["probabilities"], here, atol=1e-6
    )
    (run / "predictions.npz").unlink()


def test_scaling_is_fitted_on_the_training_part_alone(run, small):
    rows = trained.part_segments(small.store, small.split, "train").row.to_numpy()
    values = np.asarray(small.store.features)[rows].astype(np.float64)
    np.testing.assert_allclose(trained.load_scaler(run).mean, values.mean(axis=(0, 2)), rtol=1e-3)


def test_a_finished_run_is_kept_and_a_changed_setting_trains_again(small, tmp_path):
    tiny = TrainConfig(epochs=1)
    folder = run_small(small, tmp_path, tiny)
    before = (folder / "model.keras").stat().st_mtime_ns
    run_small(small, tmp_path, tiny)
    assert (folder / "model.keras").stat().st_mtime_ns == before
    run_small(small, tmp_path, dataclasses.replace(tiny, learning_rate=1e-3))
    assert (folder / "model.keras").stat().st_mtime_ns > before


def test_a_network_for_mixtures_is_validated_on_mixtures_which_are_always_the_same(small, tmp_path):
    folder = run_small(small, tmp_path, LAYERED)
    kept = read_arrays(folder / "validation.npz")
    segments = trained.part_segments(small.store, small.split, "validation")
    assert kept["labels"].shape == (len(segments), 3) and set(kept["labels"].sum(axis=1)) == {2, 3}
    validation = read_json(folder / "metrics.json")["validation"]
    assert validation == scores(kept["labels"], kept["probabilities"], trained.load_thresholds(folder))
    history = pd.read_csv(folder / "history.csv")
    assert history.val_loss.iloc[-1] == pytest.approx(validation["log_loss"], abs=1e-4)
    again = train.validation_examples(small.store, segments, trained.load_scaler(folder), LAYERED)
    np.testing.assert_array_equal(again.labels, kept["labels"])
    solos = answers.read_test(folder, small.store.folder, small.split_path)
    assert (solos["labels"].sum(axis=1) == 1).all()


def test_originals_and_copies_are_drawn_alike():
    x = np.zeros((64, *FEATURES.shape), np.float32)
    versions = ((x, np.arange(64)), (x - 10, np.arange(64)[::-1]), (x - 20, np.arange(64)))
    known = Examples(versions, np.eye(4, dtype=np.float32)[np.arange(64) % 4], FEATURES, None)
    everything = known.read(np.arange(3 * 64))
    rows = [
        next(examples.plans(known, CONFIG, None, everything, np.ones(8, np.float32), (0, epoch)))[1]["rows"]
        for epoch in range(20)
    ]
    drawn = everything[np.ravel(rows)][:, 0, 0]
    shares = [np.mean(drawn == level) for level in (0, -10, -20)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)


def test_settings_that_do_not_fit_the_features_and_missing_classes_are_refused(small, tmp_path):
    store = build_store(small.clips, FeatureConfig(kind="mfcc", n_mels=32, hop_length=4096), root=tmp_path, workers=1)
    for config in (LAYERED, TrainConfig(augment=AugmentConfig(retake=0.5))):
        with pytest.raises(ConfigError, match="mfcc"):
            train.train_model(tmp_path / "run", store.folder, small.split_path, "small", config, 0)
    segments = trained.part_segments(small.store, small.split, "train")
    with pytest.raises(SplitError, match="present"):
        train.check_labels(small.store, segments[segments.target > 0])


@pytest.mark.parametrize("damage", ["absent", "not JSON", "of something else"])
def test_a_folder_without_a_finished_training_is_refused(damage, tmp_path):
    if damage != "absent":
        (tmp_path / "manifest.json").write_text("{" if damage == "not JSON" else '{"key": 1}')
    with pytest.raises(RunError, match=str(tmp_path)):
        trained.load_model(tmp_path)
