"""Networks as tables, their training against plain Keras, and the run folders that hold what was trained."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from instrlib.audio.augment import augment
from instrlib.audio.features import Scaler, scale
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError, InstrlibError, RunError, SplitError, read_arrays, read_json
from instrlib.core.parallel import load_keras
from instrlib.data.splits import Split, make_split, save_split
from instrlib.data.store import build_store
from instrlib.evaluation.metrics import scores
from instrlib.models import train, trained
from instrlib.models.layers import REFERENCES, SPECS, Layer, build, count_multiply_adds, widen
from instrlib.models.train import Examples, Variant, train_model

SHAPE = (64, 130, 1)
DENSE = 128 * 1024 + 4 * 1024 + 1024 * 512 + 4 * 512 + 512 * 20 + 20
KERNELS = 9 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 4 * (16 + 32 + 64)
FLAT = (128 // 8) * (517 // 2 // 2 // 2) * 64


@pytest.fixture(scope="module")
def compact():
    return build(SPECS["compact"], SHAPE, 12)


def test_compact_has_the_parameters_and_multiply_adds_of_its_table(compact):
    kernels, grids = [25 * 24, 9 * 24 * 32, 9 * 32 * 64, 9 * 64 * 96], [32 * 65, 16 * 32, 16 * 32, 8 * 16]
    assert compact.count_params() == sum(kernels) + 4 * (24 + 32 + 64 + 96) + 96 * 12 + 12
    assert count_multiply_adds(compact) == np.dot(grids, kernels) + 96 * 12


def test_weights_follow_the_seed_and_have_the_variance_of_glorot_and_bengio(compact):
    again, other = (build(SPECS["compact"], SHAPE, 12, seed=seed) for seed in (0, 1))
    for one, same, different in zip(compact.get_weights(), again.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one.ndim > 1) == (not np.array_equal(one, different))
    kernel = compact.get_layer("conv4").get_weights()[0]
    assert kernel.var() == pytest.approx(2 / (9 * (64 + 96)), rel=0.02)


def test_the_same_table_under_tf_keras_or_for_longer_clips_takes_the_same_weights(compact):
    twin = build(SPECS["compact"], SHAPE, 12, keras=pytest.importorskip("tf_keras"))
    longer = build(SPECS["compact"], (64, 260, 1), 12)
    longer.set_weights(compact.get_weights())
    x = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(twin.predict_on_batch(x), compact.predict_on_batch(x), atol=1e-6)
    probabilities = longer.predict_on_batch(np.concatenate([x, x], axis=2))
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(2), atol=1e-5)


def test_a_narrower_table_has_at_least_one_unit_a_row():
    assert [row.units for row in widen(SPECS["small"], 0.5)] == [8, 12, 24, 0]
    assert [row.units for row in widen(SPECS["small"], 0.01)] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ((Layer("conv", 4, 3, pool=4), Layer("conv", 4, 3, pool=64), Layer("average")), "Row 2"),
        ((Layer("conv", 4, 65, padding="valid"), Layer("average")), "Row 1"),
        ((Layer("dense", 4),), "Row 1"),
        ((Layer("flatten"), Layer("conv", 4, 3)), "Row 2"),
    ],
)
def test_a_row_that_does_not_fit_is_named(spec, row):
    with pytest.raises(ConfigError, match=row):
        build(spec, SHAPE, 12)


@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "parameters"),
    [
        ("freesound-cutmix", (13, 275), 5, 3_664_413),  # printed by its authors
        ("nsynth-condition", (128, 128), 8, 6_517_512),  # "6.52 M"
        ("layered-four", (128, 517), 4, KERNELS + FLAT * 128 + 128 + 128 * 4 + 4),
        ("openmic-vggish", (128, 130), 20, DENSE),
        ("irmas-app", (128, 130), 10, 288 + 18_432 + 73_728 + 4 * 224 + 129 * 128 + 129 * 10),
    ],
)
def test_published_networks_have_the_parameters_of_their_descriptions(name, shape, n_classes, parameters):
    assert REFERENCES[name].features.shape == shape
    assert build(REFERENCES[name].spec, (*shape, 1), n_classes).count_params() == parameters


FEATURES = FeatureConfig(n_mels=16, n_mfcc=16, hop_length=4096)
TABLE = (Layer("conv", 6, 3, 1, 2, True), Layer("conv", 8, 3, 1, 1, True), Layer("average"))
CONFIG = TrainConfig(epochs=3, batch_size=8)


def random_examples(n: int = 40, *, config: FeatureConfig = FEATURES, several: bool = False) -> Examples:
    rng = np.random.default_rng(0)
    x = rng.uniform(-80, 0, (n, *FEATURES.shape)).astype(np.float16)
    y = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), [n // 2, n // 4, n // 8, n // 8])]
    y[(rng.random(y.shape) < 0.2) & several] = np.nan
    values = x.astype(np.float32)
    return Examples(((x, np.arange(n)),), y, config, Scaler(values.mean(axis=(0, 2)), values.std(axis=(0, 2))))


KNOWN = random_examples()


@pytest.mark.parametrize(
    ("output", "scaling", "kind"),
    [
        ("softmax", "train", "log_mel"),
        ("sigmoid", "train", "log_mel"),
        ("softmax", "segment", "log_mel"),
        ("softmax", "fixed", "mfcc"),
        ("softmax", "fixed", "pcen"),
    ],
)
def test_three_steps_are_those_of_keras(output, scaling, kind):
    import tensorflow as tf

    keras = load_keras()
    features = dataclasses.replace(FEATURES, scaling=scaling, kind=kind)
    known = random_examples(config=features, several=output == "sigmoid")
    x = scale(known.read(np.arange(40)), known.config, known.scaler)[..., None]
    config = TrainConfig(3, 40, 0.01, "constant", label_smoothing=0.1, output=output)
    graph, history, _ = train.fit(TABLE, known, known, config, seed=5)

    plain = build(TABLE, x.shape[1:], 4, output=output, seed=5)
    targets = known.labels.argmax(axis=1)
    wanted, observed = 0.9 * np.nan_to_num(known.labels) + 0.05, np.isfinite(known.labels)
    optimizer, losses = keras.optimizers.Adam(0.01), []
    for _ in range(3):
        with tf.GradientTape() as tape:
            found = plain(x, training=True)
            if output == "softmax":
                each = keras.losses.CategoricalCrossentropy(label_smoothing=0.1, reduction=None)(known.labels, found)
                loss = tf.reduce_mean(each * train.class_weights(targets, 4)[targets])
            else:
                loss = tf.reduce_sum(keras.ops.binary_crossentropy(wanted, found) * observed) / observed.sum()
        gradients = tape.gradient(loss, [one.value for one in plain.trainable_variables])
        optimizer.apply_gradients(zip(gradients, plain.trainable_variables, strict=True))
        losses.append(float(loss))
    np.testing.assert_allclose(history.loss, losses, rtol=1e-4)
    for one, other in zip(graph.model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-3)


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixtures"])
def test_each_batch_is_augmented_by_its_own_generator_and_weighted_by_its_labels(mix, monkeypatch):
    several = mix == "mixtures"
    mixing = AugmentConfig(mix=mix, share=0.5, recording=0.5, frequency_masks=1, frequency_mask_bins=5)
    config = dataclasses.replace(CONFIG, augment=mixing, output="sigmoid" if several else "softmax")
    weights = None if several else np.array([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(train, "CHUNK_BYTES", 40_000)  # a few steps at a time
    chunks = list(train._chunks(KNOWN, config, weights, 5, (3, 1)))
    order = np.random.default_rng((3, 1)).permutation(40).reshape(5, 8)
    x, targets, weighted = (np.concatenate([chunk[at] for chunk in chunks]) for at in (1, 2, 3))
    assert len(chunks) > 1
    for step, rows in enumerate(order):
        given = KNOWN.read(rows), KNOWN.labels[rows]
        wanted, labels = augment(*given, mixing, **KNOWN.about, rng=np.random.default_rng((3, 1, step)))
        np.testing.assert_array_equal(x[step], wanted)
        np.testing.assert_array_equal(targets[step], labels)
        np.testing.assert_allclose(weighted[step], 1 if several else labels @ weights, rtol=1e-5)
        assert not np.array_equal(wanted, given[0])


def test_the_same_seed_gives_the_same_bits_whatever_was_trained_before_and_however_it_is_read(monkeypatch):
    def weights(seed: int, config: TrainConfig = CONFIG) -> list[np.ndarray]:
        table = (*TABLE[:-1], Layer("average", dropout=0.3))
        return train.fit(table, KNOWN, KNOWN, config, seed)[0].model.get_weights()

    mixed = dataclasses.replace(CONFIG, augment=AugmentConfig(mix="cutmix", share=0.5))
    first, other, again, apart = weights(1), weights(2), weights(1), weights(1, mixed)
    monkeypatch.setattr(train, "CHUNK_BYTES", 20_000)
    np.testing.assert_equal([again, weights(1), weights(1, mixed)], [first, first, apart])
    for one in (other, apart):
        assert not all(map(np.array_equal, first, one))


def test_originals_and_copies_are_drawn_alike():
    levels = np.array([0, -10, -20])
    versions = tuple((np.full((64, *FEATURES.shape), level, np.float16), np.arange(64)) for level in levels)
    known = dataclasses.replace(random_examples(64), versions=versions)
    drawn = [next(train._chunks(known, CONFIG, np.ones(4), 8, (0, epoch)))[1][..., 0, 0] for epoch in range(20)]
    np.testing.assert_allclose((np.array(drawn)[..., None] == levels).mean(axis=(0, 1, 2)), 1 / 3, atol=0.05)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_with_patience_the_best_epoch_is_kept_and_without_it_the_last(output):
    config = dataclasses.replace(CONFIG, epochs=6, learning_rate=0.05, schedule="constant", output=output)
    assert train.fit(TABLE, KNOWN, KNOWN, config, 0)[2] == 6
    graph, history, best = train.fit(TABLE, KNOWN, KNOWN, dataclasses.replace(config, patience=2), 0)
    rank = -history.val_loss if output == "sigmoid" else history.val_accuracy - 1e-6 * history.val_loss
    assert best == rank.idxmax() + 1 and len(history) == min(best + 2, 6)
    if output == "softmax":
        targets = KNOWN.labels.argmax(axis=1)
        right = KNOWN.answers(graph.predict).argmax(axis=1) == targets
        np.testing.assert_allclose(weights := train.class_weights(targets, 5), [0.5, 1, 2, 2, 0])
        assert np.average(right, weights=weights[targets]) == pytest.approx(history.val_accuracy[best - 1])


def test_a_plateau_halves_the_learning_rate(monkeypatch):
    graph, seen = train.compiled(TABLE, FEATURES.shape, 4, "softmax", False), []
    epoch = graph.epoch
    monkeypatch.setattr(graph, "epoch", lambda *given: seen.append(float(given[3][0])) or epoch(*given))
    monkeypatch.setattr(train, "_validation", lambda *_: {"val_loss": 1.0, "val_accuracy": 0.5, "rank": 0.5})
    config = dataclasses.replace(CONFIG, epochs=8, schedule="plateau", learning_rate=0.01)
    train.fit(TABLE, KNOWN, KNOWN, config, 0)
    np.testing.assert_allclose(seen, [0.01] * 4 + [0.005] * 3 + [0.0025])


def test_a_diverging_training_names_seed_and_learning_rate_and_leaves_nothing_behind():
    with pytest.raises(RunError, match=r"seed 7 .* \(1e\+30\)"):
        train.fit(TABLE, KNOWN, KNOWN, dataclasses.replace(CONFIG, learning_rate=1e30), 7)
    graph, *_ = train.fit(TABLE, KNOWN, KNOWN, CONFIG, 7)
    assert all(np.isfinite(one).all() for one in graph.model.get_weights())


LAYERED = TrainConfig(
    epochs=3, output="sigmoid", augment=AugmentConfig(mix="mixtures", n_sources=(2, 3), time_masks=1, time_mask_s=0.2)
)


def run_small(small, folder: Path, config: TrainConfig, store: Path | None = None, split: Path | None = None) -> Path:
    return train_model(
        folder, Variant("small", "small", config, store or small.store.folder), split or small.split_path, 0
    )


@pytest.fixture(scope="module")
def run(small, tmp_path_factory) -> Path:
    return run_small(small, tmp_path_factory.mktemp("run") / "seed-0", TrainConfig(epochs=25, batch_size=16))


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "foreign": lambda path: path.write_text('{"notebook": "01_preprocessing", "study": "rendered-quick"}'),
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
    store = build_store(small.clips, FeatureConfig(n_mels=32, hop_length=4096), root=tmp_path / "features", workers=1)
    with pytest.raises(RunError, match=other.fingerprint):
        trained.read_test(run, small.store.folder, path)
    with pytest.raises(RunError, match=store.fingerprint):
        trained.read_test(run, store.folder, small.split_path)
    for damage in ("foreign", "cut"):
        DAMAGES[damage](path)
        with pytest.raises(InstrlibError, match=str(path)):
            trained.read_test(run, small.store.folder, path)


def test_a_class_that_is_missing_from_a_part_of_the_split_is_named(small, tmp_path):
    clips, parts = small.store.clips, small.split.parts.copy()
    parts[clips.clip_id[clips.label == "piano"]] = "train"
    save_split(Split(parts, 0), tmp_path / "split.json")
    with pytest.raises(SplitError, match="piano"):
        run_small(small, tmp_path / "run", TrainConfig(), split=tmp_path / "split.json")
    assert not (tmp_path / "run").exists()


def test_it_learns_with_curves_and_its_files_give_the_predictions_that_were_written(small, run, monkeypatch):
    kept = read_arrays(run / "validation.npz")
    metrics, manifest = (read_json(run / name) for name in ("metrics.json", "manifest.json"))
    assert metrics["validation"]["accuracy"] > 0.6 and metrics["best_epoch"] == 25
    _, accuracy = values = trained.learning_curves([run])["values"]
    assert np.isfinite(values).sum(axis=2).tolist() == [[25, 25]] * 2  # training and validation
    assert accuracy[1, 1] == pytest.approx(accuracy[1, [0, 2]].mean())  # on a straight line between two validations
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
    rows = trained.part_segments(small.store, small.split, "train").row
    values = small.store.features[rows].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, values.mean(axis=(0, 2)), rtol=1e-3)  # of the training part alone
    monkeypatch.delattr(trained, "predict_clips")  # the test part is read once
    np.testing.assert_equal(trained.read_test(run, small.store.folder, small.split_path), tested)


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
    again = train.validation_examples(small.store, segments, trained.load_scaler(folder), LAYERED)
    np.testing.assert_array_equal(again.labels, kept["labels"])


def test_mixtures_need_log_mel_spectrograms(small, tmp_path):
    store = build_store(small.clips, FeatureConfig(kind="mfcc", n_mels=32, hop_length=4096), root=tmp_path, workers=1)
    for config in (LAYERED, TrainConfig(augment=AugmentConfig(recording=0.5))):
        with pytest.raises(ConfigError, match="mfcc"):
            run_small(small, tmp_path / "run", config, store.folder)


def test_baselines_predict_the_test_clips(small):
    found = trained.trivial_baselines(small.store, [small.split_path], seed=0)
    tested = sorted(small.split.parts.index[small.split.parts == "test"])
    assert all(one["clip_id"].tolist() == tested for one in found.values())
    right = {name: np.mean(one["probabilities"].argmax(axis=-1) == one["targets"]) for name, one in found.items()}
    assert right["nearest centroid"] > right["majority class"]
