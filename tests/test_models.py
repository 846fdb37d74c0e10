"""Networks as tables."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from instrlib.core.backend import load_keras
from instrlib.core.errors import ConfigError
from instrlib.models.layers import SPECS, Layer, build, count_multiply_adds, get_spec

SHAPE = (64, 130, 1)


@pytest.fixture(scope="module")
def compact():
    return build(get_spec("compact"), SHAPE, 12)


def test_compact_has_the_parameters_and_multiply_adds_that_follow_from_its_table(compact):
    conv = 5 * 5 * 24 + 9 * 24 * 32 + 9 * 32 * 64 + 9 * 64 * 96
    norm = 4 * (24 + 32 + 64 + 96)
    assert compact.count_params() == conv + norm + 96 * 12 + 12
    grids = [32 * 65, 16 * 32, 16 * 32, 8 * 16]
    kernels = [25 * 24, 9 * 24 * 32, 9 * 32 * 64, 9 * 64 * 96]
    assert count_multiply_adds(compact) == sum(np.multiply(grids, kernels)) + 96 * 12


def test_scores_are_probabilities(compact):
    scores = compact.predict_on_batch(np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32))
    assert scores.shape == (3, 12)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_a_longer_clip_fits_the_same_weights(compact):
    longer = build(get_spec("compact"), (64, 260, 1), 12)
    assert [w.shape for w in longer.get_weights()] == [w.shape for w in compact.get_weights()]


def test_the_same_table_under_tf_keras_gives_the_same_answers(compact):
    tf_keras = pytest.importorskip("tf_keras")
    twin = build(get_spec("compact"), SHAPE, 12, keras=tf_keras)
    twin.set_weights(compact.get_weights())
    x = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(twin.predict_on_batch(x), compact.predict_on_batch(x), atol=1e-6)


def test_an_unknown_network_gets_the_list_of_those_there_are():
    with pytest.raises(ConfigError, match="Unknown network 'resnet'; there is: " + ", ".join(SPECS)):
        get_spec("resnet")


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ((Layer("conv", 4, 3, pool=4), Layer("conv", 4, 3, pool=64), Layer("average")), "Row 2"),
        ((Layer("dense", 4),), "Row 1"),
        ((Layer("flatten"), Layer("conv", 4, 3)), "Row 2"),
    ],
)
def test_a_row_that_does_not_fit_is_named(spec, row):
    with pytest.raises(ConfigError, match=row):
        build(spec, SHAPE, 12)


def test_importing_keras_writes_nothing_to_stderr():
    code = "from instrlib.core.backend import load_keras\nprint(load_keras().__version__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("3.")
    assert run.stderr == ""


def test_the_fused_kernel_trains_the_same_network(compact):
    keras = load_keras()
    keras.utils.set_random_seed(0)  # how far rounding goes depends on the first weights
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, *SHAPE)).astype("float32"), np.eye(12, dtype="float32")[rng.integers(12, size=8)]
    trained = []
    for fused in (False, True):
        spec = tuple(dataclasses.replace(row, dropout=0.0) for row in get_spec("small"))
        network = build(spec, SHAPE, 12, fused=fused)
        network.set_weights(trained[0][0] if fused else network.get_weights())
        first = network.get_weights()
        network.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
        network.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        trained.append((first, network.get_weights()))
    for plain, fast in zip(trained[0][1], trained[1][1], strict=True):
        np.testing.assert_allclose(fast, plain, atol=2e-5)
    assert max(np.abs(after - before).max() for before, after in zip(*trained[0], strict=True)) > 1e-3
