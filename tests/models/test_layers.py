"""Networks as tables; the published ones are rebuilt to the last parameter."""

import numpy as np
import pytest

from instrlib.core.io import ConfigError
from instrlib.models.layers import REFERENCES, SPECS, Layer, build, count_multiply_adds, widen

SHAPE = (64, 130, 1)
DENSE = 128 * 1024 + 4 * 1024 + 1024 * 512 + 4 * 512 + 512 * 20 + 20
KERNELS = 9 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 4 * (16 + 32 + 64)
FLAT = (128 // 8) * (517 // 2 // 2 // 2) * 64


@pytest.fixture(scope="module")
def compact():
    return build(SPECS["compact"], SHAPE, 12)


def test_compact_has_the_parameters_and_multiply_adds_of_its_table(compact):
    conv = 5 * 5 * 24 + 9 * 24 * 32 + 9 * 32 * 64 + 9 * 64 * 96
    norm = 4 * (24 + 32 + 64 + 96)
    assert compact.count_params() == conv + norm + 96 * 12 + 12
    grids, kernels = [32 * 65, 16 * 32, 16 * 32, 8 * 16], [25 * 24, 9 * 24 * 32, 9 * 32 * 64, 9 * 64 * 96]
    assert count_multiply_adds(compact) == np.dot(grids, kernels) + 96 * 12


def test_weights_follow_the_seed_and_have_the_variance_of_glorot_and_bengio(compact):
    again, other = (build(SPECS["compact"], SHAPE, 12, seed=seed) for seed in (0, 1))
    for one, same, different in zip(compact.get_weights(), again.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one.ndim > 1) == (not np.array_equal(one, different))
    kernel = compact.get_layer("conv4").get_weights()[0]
    assert kernel.var() == pytest.approx(2 / (9 * (64 + 96)), rel=0.02)


def test_the_same_table_under_tf_keras_or_for_longer_clips_takes_the_same_weights(compact):
    tf_keras = pytest.importorskip("tf_keras")
    twin, longer = build(SPECS["compact"], SHAPE, 12, keras=tf_keras), build(SPECS["compact"], (64, 260, 1), 12)
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
    ],
)
def test_published_networks_have_the_parameters_of_their_descriptions(name, shape, n_classes, parameters):
    assert REFERENCES[name].features.shape == shape
    assert build(REFERENCES[name].spec, (*shape, 1), n_classes).count_params() == parameters


def test_irmas_app_takes_about_157_million_multiply_adds():
    one = REFERENCES["irmas-app"]
    convolutions = np.dot([128 * 130, 64 * 65, 32 * 32], [9 * 32, 9 * 32 * 64, 9 * 64 * 128])
    assert count_multiply_adds(build(one.spec, (*one.features.shape, 1), 10)) == convolutions + 128 * 128 + 128 * 10
