"""Maps follow the equations of their papers, their cells lie where their fields do, and faithfulness is measured."""

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.special import softmax
from scipy.stats import spearmanr

from instrlib.audio.features import Scaler, scale
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.models import compression
from instrlib.models.layers import SPECS, Layer, build
from instrlib.models.train import Variant, train_model
from instrlib.models.trained import part_segments
from instrlib.studies import saliency

SHAPE = (32, 45, 1)
X = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
GRID = saliency.Grid(np.array([2.0, 6.0]), np.array([2.0, 6.0, 10.0]), 4, 4, (8, 12))


def randomised(model, seed: int = 0):
    """Set every weight to a random value, variances above 0."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        norm, values = "norm" in layer.name, [rng.normal(0, 0.3, weight.shape) for weight in layer.weights]
        layer.set_weights([np.abs(value) + 0.5 for value in values] if norm else values)
    return model


@pytest.fixture(scope="module")
def model():
    return randomised(build(SPECS["small"], SHAPE, 4))


def output_of(model, layer: str) -> np.ndarray:
    return np.asarray(load_keras().Model(model.input, model.get_layer(layer).output)(X))


def test_a_class_activation_map_is_a_weighted_sum_of_channels_and_grad_cam_its_positive_part(model):
    last = saliency.picture_layers(model)[-1]
    maps = saliency.class_activation_maps(model, X)
    expected = np.einsum("nrck,kt->ntrc", output_of(model, last), model.layers[-1].get_weights()[0])
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    for target in (0, 3):
        found, own = saliency.grad_cam(model, X, np.full(3, target), layer=last), maps[:, target]
        assert (own > 0).any() and (own < 0).any()
        np.testing.assert_allclose(found, np.maximum(own, 0) / own[0].size, rtol=1e-4, atol=1e-6)
    for before in ("flatten", "average"):
        other = build((Layer("conv", 4, 3, 2, 2), Layer(before), Layer("dense", 6)), SHAPE, 4)
        with pytest.raises(ConfigError):  # its last layer does not average the last picture
            saliency.class_activation_maps(other, X)
        logits = np.asarray(compression.with_maps(other)(X)["logits"])
        np.testing.assert_allclose(softmax(logits, axis=1), other.predict_on_batch(X), atol=1e-6)


def test_grad_cam_at_lower_layers_weights_channels_by_the_mean_gradient_of_the_logit_of_its_own_class():
    keras = load_keras()
    inputs = keras.Input(SHAPE)
    y = keras.layers.Conv2D(5, 3, strides=2, activation="tanh", name="below")(inputs)
    end = keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(y))
    model = randomised(keras.Model(inputs, end), seed=3)
    active, targets = np.tile(output_of(model, "below"), (50, 1, 1, 1)), np.arange(150) % 4  # more than one batch
    gradient = model.layers[-1].get_weights()[0].T[targets].reshape(active.shape)  # of a linear logit
    expected = np.maximum(np.einsum("nrck,nk->nrc", active, gradient.mean(axis=(1, 2))), 0)
    found = saliency.grad_cam(model, np.tile(X, (50, 1, 1, 1)), targets, layer="below")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.max() > 1e-3


@pytest.mark.parametrize("sides", [(64, 130), (63, 131), (49, 72)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_centres_and_fields_are_those_of_the_inputs_that_change_a_cell(sides, padding):
    keras = load_keras()
    layers, inputs = keras.layers, keras.Input((*sides, 1))
    y = layers.Conv2D(1, 5, strides=2, padding=padding)(inputs)
    y = layers.AveragePooling2D(2, padding=padding)(y)
    y = layers.Conv2D(1, (3, 4), padding=padding, dilation_rate=(1, 2))(layers.ReLU()(y))
    y = layers.AveragePooling2D((3, 2), strides=(1, 2), padding=padding)(y)
    model = keras.Model(inputs, y)
    for layer in model.layers:
        layer.set_weights([np.ones(weight.shape) * (weight.ndim > 1) for weight in layer.get_weights()])
    grid = saliency.cell_grid(model, model.layers[-1].name)
    cell = [size // 2 for size in y.shape[1:3]]  # its field lies within the input
    for axis, side in enumerate(("bin", "frame")):
        centres, field = getattr(grid, f"centre_{side}"), getattr(grid, f"field_{side}s")
        assert len(centres) == y.shape[1 + axis]
        lines = np.expand_dims(np.eye(sides[axis], dtype=np.float32), (2 - axis, 3))  # one line of ones each
        answers = model.predict_on_batch(np.broadcast_to(lines, (sides[axis], *sides, 1)))
        reached = np.flatnonzero(answers[:, *cell, 0])
        assert centres[cell[axis]] == (reached[0] + reached[-1]) / 2
        assert reached[-1] - reached[0] + 1 == field


def test_upsampling_is_bilinear_downsampling_keeps_means_and_shares_have_mean_1():
    values = np.random.default_rng(0).normal(size=(2, 3))
    interpolate = RegularGridInterpolator((GRID.centre_bin, GRID.centre_frame), values)
    bins, frames = np.meshgrid(np.clip(np.arange(8), 2, 6), np.clip(np.arange(12), 2, 10), indexing="ij")
    np.testing.assert_allclose(saliency.upsample(values, GRID), interpolate((bins, frames)), atol=1e-12)
    np.testing.assert_allclose(saliency.downsample(np.full((2, 8, 12), 3.5), GRID), 3.5)
    corner = np.zeros((8, 12))
    corner[6:, :2] = 1
    assert (saliency.downsample(corner, GRID) > 0).tolist() == [[False] * 3, [True, False, False]]
    maps = np.random.default_rng(2).normal(size=(4, 2, 3))
    maps[3] = -1
    found = saliency.shares(maps, GRID)
    np.testing.assert_allclose(saliency.upsample(found, GRID).mean(axis=(1, 2))[:3], 1)
    assert np.isnan(found[3]).all() and (found[:3][maps[:3] < 0] == 0).all()


def test_values_are_deleted_to_silence_and_inserted_in_the_best_and_the_worst_order():
    config = FeatureConfig(n_mels=8, segment_s=11 * 512 / 22_050, scaling="train")
    scaler = Scaler(np.linspace(-60, -20, 8, dtype=np.float32), np.linspace(5, 15, 8, dtype=np.float32))
    silence, whole = (scale(np.full((1, 8, 12), db), config, scaler)[..., None] for db in (-80.0, -10.0))

    def corner(x):
        """Answer with the share of sound in the upper right quarter; a value is as it was, or silent."""
        kept = np.isclose(x, whole)
        assert (kept ^ np.isclose(x, silence)).all()
        share = kept[:, 4:, 6:, 0].mean(axis=(1, 2))
        return np.stack([1 - share, share], axis=1)

    outside = (np.arange(8)[:, None] < 4) | (np.arange(12) < 6)
    best = np.argsort(np.argsort(outside, axis=None, kind="stable")).reshape(1, 8, 12)
    given = np.full((1, 8, 12), -10.0, np.float32), np.stack([best, 95 - best]), np.ones(1, int)
    deletion, insertion = saliency.curves(corner, *given, config=config, scaler=scaler)
    n_deleted = np.round(np.array(saliency.FRACTIONS) * 96)
    early, late = np.clip(n_deleted / 24, 0, 1), np.clip((96 - n_deleted) / 24, 0, 1)
    np.testing.assert_allclose(deletion[:, 0], [1 - early, late])
    np.testing.assert_allclose(insertion[:, 0], [early, 1 - late])


def test_every_order_ranks_every_value_once_by_its_name_and_repeats_with_the_seed():
    rng = np.random.default_rng(1)
    level_db, maps = rng.uniform(-80, 0, (4, 8, 12)).astype(np.float32), rng.normal(size=(4, 2, 3))
    maps[0] = 0
    orders, again, other = (saliency.importance(maps, level_db, GRID, floor_db=-80, seed=seed) for seed in (0, 0, 1))
    assert tuple(orders) == saliency.ORDERS
    for name, ranks in orders.items():
        random = name.startswith("random")
        np.testing.assert_array_equal(np.sort(ranks.reshape(2 if random else 1, 4, 96)) - np.arange(96), 0)
        np.testing.assert_array_equal(ranks, again[name])
        assert not random or not (np.array_equal(ranks, other[name]) or np.array_equal(*ranks))
    fine = saliency.upsample(maps, GRID)
    for name, values in {
        saliency.MAP: fine,
        saliency.LOUDEST: level_db,
        saliency.LOUDEST_MAP: saliency.upsample(np.maximum(maps, 0), GRID) * (level_db + 80),
        "loudest blocks": saliency.upsample(saliency.downsample(level_db, GRID), GRID),
        "another clip's map": fine[[2, 3, 0, 1]],
    }.items():
        by_rank = np.take_along_axis(values.reshape(4, -1), orders[name][0].reshape(4, -1).argsort(axis=1), axis=1)
        assert (np.diff(by_rank, axis=1) <= 1e-12).all(), name
    equal = orders[saliency.MAP][0, 0] < 48  # ties are drawn
    assert 0.25 < equal[:4].mean() < 0.75 and 0.25 < equal[:, :6].mean() < 0.75


def test_rank_correlation_is_spearmans_and_0_for_a_constant_map():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).round(1)  # with ties
    expected = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(saliency.rank_correlation(a, b), expected)
    assert saliency.rank_correlation(a[0], np.zeros((4, 5))) == 0


def test_weights_are_replaced_from_the_last_layer_down_and_the_network_stays_as_it_is(model):
    blocks = [["scores"], ["conv3", "norm3"], ["conv2", "norm2"], ["conv1", "norm1"]]
    assert saliency.weight_blocks(model) == blocks
    before = [weight.copy() for weight in model.get_weights()]
    networks = model, model, build(SPECS["small"], SHAPE, 4)
    one, again, other = (saliency.randomised_maps(each, X, np.arange(3), seeds=(0, 1)) for each in networks)
    assert all(map(np.array_equal, model.get_weights(), before))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(*one, atol=1e-3)
    # With all weights replaced, every network of this shape has the same maps; with fewer, it has not.
    np.testing.assert_allclose(one[:, -1], other[:, -1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(one[:, 0], other[:, 0], atol=1e-2)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """Two seeds of a network that was trained for a moment, and their maps."""
    folder = tmp_path_factory.mktemp("networks")
    variant = Variant("small", "small", TrainConfig(epochs=3), small.store.folder)
    tasks = [(folder / f"seed-{seed}", variant, small.split_path, seed) for seed in range(2)]
    networks = [[network] for network in parallel_map(train_model, tasks)]
    return networks, saliency.explain(folder / "maps", networks, store=small.store, splits=[small.split_path])


def test_every_validation_segment_is_explained_and_a_killed_run_continues(small, trained, tmp_path, monkeypatch):
    networks, explained = trained
    segments = part_segments(small.store, small.split, "validation")
    assert explained.segments.row.to_list() == segments.row.to_list()
    assert explained.maps.shape[:3] == (2, len(segments), 3) and not np.allclose(*explained.maps, atol=1e-3)
    bias = np.log(explained.probabilities) - explained.maps.mean(axis=(-2, -1))  # maps sum to the logits
    assert np.ptp(bias - bias.mean(axis=-1, keepdims=True), axis=1).max() < 1e-3
    np.testing.assert_array_equal(explained.true_maps[:, 3], explained.maps[:, 3, segments.target.iloc[3]])
    given = {"store": small.store, "splits": [small.split_path]}
    saliency.explain(tmp_path, networks, **given)
    kept, lost = sorted(tmp_path.rglob("*.npz"))
    lost.unlink()
    before = kept.stat().st_mtime_ns
    monkeypatch.setenv("INSTRLIB_WORKERS", "2")
    np.testing.assert_array_equal(saliency.explain(tmp_path, networks, **given).maps, explained.maps)
    assert kept.stat().st_mtime_ns == before and lost.is_file()


def test_networks_are_measured_once_and_segments_keep_their_order(small, trained, tmp_path):
    networks, explained = trained
    chosen = np.arange(0, len(explained.segments), 3)
    found, again = (saliency.measure(tmp_path, networks, explained, chosen, store=small.store) for _ in range(2))
    answers = explained.probabilities[:, chosen].max(axis=-1)
    for name in saliency.ORDERS:
        deletion, insertion = found["deletion"][name], found["insertion"][name]
        assert deletion.shape == insertion.shape == (2, len(chosen), len(saliency.FRACTIONS))
        for whole in (deletion[..., 0], insertion[..., -1]):
            np.testing.assert_allclose(whole, answers, atol=0.01)
        np.testing.assert_allclose(deletion[..., -1], insertion[..., 0])
    assert found["layers"] == ["scores", "conv3", "conv2", "conv1"] and found["randomised"].shape == (2, len(chosen), 4)
    assert ((found["randomised"] >= 0) & (found["randomised"] <= 1 + 1e-9)).all()
    np.testing.assert_array_equal(found["randomised"], again["randomised"])
