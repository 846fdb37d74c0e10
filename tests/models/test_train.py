"""Training against plain Keras; the same seed gives the same bits."""

import dataclasses
from types import SimpleNamespace as Stub

import numpy as np
import pytest

from instrlib.audio.augment import augment
from instrlib.audio.features import Scaler, scale
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import RunError
from instrlib.core.parallel import load_keras
from instrlib.models import train
from instrlib.models.layers import Layer, build
from instrlib.models.train import Examples

FEATURES = FeatureConfig(n_mels=16, n_mfcc=16, hop_length=4096)
TABLE = (Layer("conv", 6, 3, 1, 2, True), Layer("conv", 8, 3, 1, 1, True), Layer("average"))
CONFIG = TrainConfig(epochs=3, batch_size=8)


def random_examples(n: int = 40, *, config: FeatureConfig = FEATURES, several: bool = False) -> Examples:
    rng = np.random.default_rng(0)
    x = rng.uniform(-80, 0, (n, *FEATURES.shape)).astype(np.float16)
    y = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), [n // 2, n // 4, n // 8, n // 8])]
    if several:
        y = np.where(rng.random(y.shape) < 0.2, np.nan, y).astype(np.float32)
    values = x.astype(np.float32)
    return Examples(((x, np.arange(n)),), y, config, Scaler(values.mean(axis=(0, 2)), values.std(axis=(0, 2))))


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
    known = random_examples(
        config=dataclasses.replace(FEATURES, scaling=scaling, kind=kind), several=output == "sigmoid"
    )
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
    known, several = random_examples(), mix == "mixtures"
    mixing = AugmentConfig(mix=mix, share=0.5, recording=0.5, frequency_masks=1, frequency_mask_bins=5)
    config = dataclasses.replace(CONFIG, augment=mixing, output="sigmoid" if several else "softmax")
    weights = None if several else np.array([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(train, "CHUNK_BYTES", 40_000)  # a few steps at a time
    chunks = list(train._chunks(known, config, weights, 5, (3, 1)))
    order = np.random.default_rng((3, 1)).permutation(40).reshape(5, 8)
    x, targets, weighted = (np.concatenate([chunk[at] for chunk in chunks]) for at in (1, 2, 3))
    assert len(chunks) > 1
    for step, rows in enumerate(order):
        given = known.read(rows), known.labels[rows]
        wanted, labels = augment(*given, mixing, **known.about, rng=np.random.default_rng((3, 1, step)))
        np.testing.assert_array_equal(x[step], wanted)
        np.testing.assert_array_equal(targets[step], labels)
        np.testing.assert_allclose(weighted[step], 1 if several else labels @ weights, rtol=1e-5)
        assert not np.array_equal(wanted, given[0])


def test_the_same_seed_gives_the_same_bits_whatever_was_trained_before_and_however_it_is_read(monkeypatch):
    def weights(seed: int, config: TrainConfig = CONFIG) -> list[np.ndarray]:
        table = (*TABLE[:-1], Layer("average", dropout=0.3))
        return train.fit(table, random_examples(), random_examples(), config, seed)[0].model.get_weights()

    mixed = dataclasses.replace(CONFIG, augment=AugmentConfig(mix="cutmix", share=0.5))
    first, other, again, apart = weights(1), weights(2), weights(1), weights(1, mixed)
    monkeypatch.setattr(train, "CHUNK_BYTES", 20_000)
    in_chunks, apart_in_chunks = weights(1), weights(1, mixed)
    for one, same in ((first, again), (first, in_chunks), (apart, apart_in_chunks)):
        assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    for one in (other, apart):
        assert not all(np.array_equal(a, b) for a, b in zip(first, one, strict=True))


def test_originals_and_copies_are_drawn_alike():
    levels = np.array([0, -10, -20])
    versions = tuple((np.full((64, *FEATURES.shape), level, np.float16), np.arange(64)) for level in levels)
    known = dataclasses.replace(random_examples(64), versions=versions)
    drawn = [next(train._chunks(known, CONFIG, np.ones(4), 8, (0, epoch)))[1][..., 0, 0] for epoch in range(20)]
    np.testing.assert_allclose((np.array(drawn)[..., None] == levels).mean(axis=(0, 1, 2)), 1 / 3, atol=0.05)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_with_patience_the_best_epoch_is_kept_and_without_it_the_last(output):
    known = random_examples()
    config = dataclasses.replace(CONFIG, epochs=6, learning_rate=0.05, schedule="constant", output=output)
    assert train.fit(TABLE, known, known, config, 0)[2] == 6
    graph, history, best = train.fit(TABLE, known, known, dataclasses.replace(config, patience=2), 0)
    rank = -history.val_loss if output == "sigmoid" else history.val_accuracy - 1e-6 * history.val_loss
    assert best == rank.idxmax() + 1 and len(history) == min(best + 2, 6)
    if output == "softmax":
        targets = known.labels.argmax(axis=1)
        right = known.answers(graph.predict).argmax(axis=1) == targets
        np.testing.assert_allclose(weights := train.class_weights(targets, 5), [0.5, 1, 2, 2, 0])
        assert np.average(right, weights=weights[targets]) == pytest.approx(history.val_accuracy[best - 1])


def test_a_plateau_halves_the_learning_rate(monkeypatch):
    seen = []

    def epoch(*given: np.ndarray) -> Stub:
        seen.append(float(given[3][0]))
        return Stub(numpy=lambda: np.ones(3))

    model = Stub(get_weights=lambda: [np.zeros(1)], set_weights=lambda _: None)
    monkeypatch.setattr(train, "compiled", lambda *_: Stub(model=model, reset=lambda _: None, epoch=epoch))
    monkeypatch.setattr(train, "_validation", lambda *_: {"val_loss": 1.0, "val_accuracy": 0.5, "rank": 0.5})
    config = dataclasses.replace(CONFIG, epochs=8, schedule="plateau", learning_rate=0.01)
    train.fit(TABLE, random_examples(), random_examples(), config, 0)
    np.testing.assert_allclose(seen, [0.01] * 4 + [0.005] * 3 + [0.0025])


def test_a_diverging_training_names_seed_and_learning_rate_and_leaves_nothing_behind():
    config = dataclasses.replace(CONFIG, learning_rate=1e30)
    with pytest.raises(RunError, match=r"seed 7 .* \(1e\+30\)"):
        train.fit(TABLE, random_examples(), random_examples(), config, 7)
    graph, *_ = train.fit(TABLE, random_examples(), random_examples(), CONFIG, 7)
    assert all(np.isfinite(one).all() for one in graph.model.get_weights())
