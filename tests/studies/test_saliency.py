"""Maps follow the equations of their papers, and their cells lie where their receptive fields do."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError, RunError, read_json, write_json
from instrlib.core.parallel import load_keras, parallel_map
from instrlib.models.layers import Layer, build, get_spec
from instrlib.models.train import train_model
from instrlib.models.trained import part_segments
from instrlib.studies import saliency

SHAPE = (32, 45, 1)


def randomised(model, seed: int = 0):
    """Give every weight a value that shows when it is forgotten, variances above 0."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = [rng.normal(0, 0.3, weight.shape) for weight in layer.weights]
        if type(layer).__name__ == "BatchNormalization":
            values = [np.abs(value) + 0.5 for value in values]
        layer.set_weights(values)
    return model


@pytest.fixture(scope="module")
def model():
    return randomised(build(get_spec("small"), SHAPE, 4))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)


def output_of(model, layer: str, x: np.ndarray) -> np.ndarray:
    return np.asarray(load_keras().Model(model.input, model.get_layer(layer).output)(x))


def test_a_class_activation_map_is_the_sum_of_the_channels_and_its_mean_is_the_logit(model, x):
    active = output_of(model, saliency.last_picture_layer(model), x)
    kernel, bias = model.layers[-1].get_weights()
    maps = saliency.class_activation_maps(model, x)
    assert maps.shape == (3, 4, *active.shape[1:3])
    by_hand = sum(kernel[k, 2] * active[1, :, :, k] for k in range(active.shape[3]))
    np.testing.assert_allclose(maps[1, 2], by_hand, rtol=1e-4, atol=1e-5)
    logits = output_of(model, model.layers[-2].name, x) @ kernel + bias
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", [0, 3])
def test_grad_cam_at_the_last_convolution_is_the_class_activation_map_over_the_number_of_cells(model, x, target):
    maps = saliency.class_activation_maps(model, x)[:, target]
    found = saliency.grad_cam(model, x, np.full(3, target), layer=saliency.last_picture_layer(model))
    assert (maps > 0).any() and (maps < 0).any()
    np.testing.assert_allclose(found, np.maximum(maps, 0) / maps[0].size, rtol=1e-4, atol=1e-6)


def test_grad_cam_below_is_what_finite_differences_of_the_logit_give(x):
    keras = load_keras()
    layers, inputs = keras.layers, keras.Input(SHAPE)
    y = layers.Conv2D(5, 3, strides=2, activation="tanh", name="below")(inputs)
    z = layers.AveragePooling2D(2)(layers.Conv2D(6, 3, activation="tanh")(y))
    flat = layers.Dense(4, activation="softmax", name="end")(layers.Flatten()(z))
    model = randomised(keras.Model(inputs, flat), seed=3)
    active = output_of(model, "below", x).astype(np.float64)
    kernel, bias = (weight.astype(np.float64) for weight in model.get_layer("end").get_weights())
    rest = keras.Model(y, model.get_layer("end").input)

    def logit(values: np.ndarray) -> np.ndarray:
        return (np.asarray(rest(values.astype(np.float32)), dtype=np.float64) @ kernel + bias)[:, 1]

    n_cells, step = active[0, :, :, 0].size, 0.02
    weights = []
    for k in range(active.shape[3]):
        moved = np.zeros_like(active)
        moved[..., k] = step
        weights.append((logit(active + moved) - logit(active - moved)) / (2 * step * n_cells))
    expected = np.maximum(np.einsum("nrck,kn->nrc", active, np.array(weights)), 0)
    found = saliency.grad_cam(model, x, np.full(3, 1), layer="below")
    assert expected.max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())


def test_each_input_has_its_own_class_and_its_map_does_not_depend_on_the_batch(model, x):
    many = np.concatenate([x] * 30)  # more than are read at a time
    targets = np.arange(90) % 4
    together = saliency.grad_cam(model, many, targets, layer="relu2")
    for place in (0, 31, 89):
        alone = saliency.grad_cam(model, many[place : place + 1], targets[place : place + 1], layer="relu2")
        np.testing.assert_allclose(together[place], alone[0], rtol=1e-4, atol=1e-6)


def test_a_network_that_is_sure_to_the_last_bit_still_has_a_map(model, x):
    sure = build(get_spec("small"), SHAPE, 4)
    sure.set_weights(model.get_weights())
    kernel, bias = sure.layers[-1].get_weights()
    sure.layers[-1].set_weights([1e4 * kernel, 1e4 * bias])
    answers = sure.predict_on_batch(x)
    assert set(np.unique(answers)) == {0.0, 1.0}  # the gradient of this softmax is 0
    targets = answers.argmax(axis=1)
    found = saliency.grad_cam(sure, x, targets, layer="relu3")
    np.testing.assert_allclose(found, 1e4 * saliency.grad_cam(model, x, targets, layer="relu3"), rtol=1e-3)
    assert (found.max(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("layer", ["conv9", "average4", "scores"])
def test_a_layer_without_picture_axes_is_refused(model, x, layer):
    with pytest.raises(ConfigError, match=layer):
        saliency.grad_cam(model, x, np.zeros(3, int), layer=layer)
    with pytest.raises(ConfigError, match=layer):
        saliency.cell_grid(model, layer)


def test_networks_that_end_otherwise_have_grad_cam_alone(x):
    flat = build((Layer("conv", 4, 3, 2, 2), Layer("flatten"), Layer("dense", 6)), SHAPE, 4)
    deep = build((Layer("conv", 4, 3, 2, 2), Layer("average"), Layer("dense", 6)), SHAPE, 4)
    for one in (flat, deep):
        with pytest.raises(ConfigError, match="grad_cam"):
            saliency.class_activation_maps(one, x)
    assert saliency.grad_cam(flat, x, np.zeros(3, int), layer="pool1").shape == (3, 8, 11)
    keras = load_keras()
    inputs = keras.Input(SHAPE)
    bare = keras.Model(inputs, keras.layers.Dense(2, name="last")(keras.layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(ConfigError, match="last"):
        saliency.class_activation_maps(bare, np.zeros((1, *SHAPE)))
    with pytest.raises(ConfigError):
        saliency.last_picture_layer(bare)


@pytest.mark.parametrize("sides", [(64, 130), (63, 131), (49, 72)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_centres_and_fields_are_those_of_the_inputs_that_move_a_cell(sides, padding):
    import tensorflow as tf

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
    x = tf.ones((1, *sides, 1))
    row, column = (size // 2 for size in y.shape[1:3])  # a cell whose field lies within the input
    with tf.GradientTape() as tape:
        tape.watch(x)
        cell = model(x)[0, row, column, 0]
    moved = np.asarray(tape.gradient(cell, x))[0, :, :, 0] != 0
    for axis, (centres, at, field) in enumerate(
        ((grid.centre_bin, row, grid.field_bins), (grid.centre_frame, column, grid.field_frames))
    ):
        reached = np.flatnonzero(moved.any(axis=1 - axis))
        assert len(centres) == y.shape[1 + axis]
        assert centres[at] == (reached[0] + reached[-1]) / 2
        assert reached[-1] - reached[0] + 1 == field


def test_the_cells_of_the_baseline_are_8_frames_apart_and_see_43():
    grid = saliency.cell_grid(build(get_spec("compact"), (64, 130, 1), 2), "relu4")
    assert grid.centre_frame.tolist() == list(range(4, 125, 8))
    assert grid.centre_bin.tolist() == list(range(4, 61, 8))
    assert (grid.field_bins, grid.field_frames) == (43, 43)


def test_layers_whose_cells_have_no_known_place_are_refused():
    keras = load_keras()
    inputs = keras.Input(SHAPE)
    one, other = keras.layers.Conv2D(2, 3, name="one")(inputs), keras.layers.Conv2D(2, 3, name="other")(inputs)
    with pytest.raises(ConfigError, match="sequential"):
        saliency.cell_grid(keras.Model(inputs, keras.layers.Add(name="sum")([one, other])), "sum")
    with pytest.raises(ConfigError, match="wider"):
        saliency.cell_grid(keras.Model(inputs, keras.layers.ZeroPadding2D(2, name="wider")(inputs)), "wider")


@pytest.fixture
def grid():
    return saliency.Grid(np.array([2.0, 6.0, 10.0]), np.array([1.5, 5.5, 9.5, 13.5]), 8, 8, (12, 16))


def test_upsampling_is_bilinear_between_the_centres_and_constant_beyond(grid):
    values = np.random.default_rng(0).normal(size=(3, 4))
    found = saliency.upsample(values, grid)
    interpolate = RegularGridInterpolator((grid.centre_bin, grid.centre_frame), values)
    bins, frames = np.meshgrid(np.clip(np.arange(12), 2, 10), np.clip(np.arange(16), 1.5, 13.5), indexing="ij")
    np.testing.assert_allclose(found, interpolate((bins, frames)), atol=1e-12)
    assert found[6, 0] == found[6, 1] == values[1, 0]


def test_a_picture_that_is_the_same_everywhere_stays_so_on_the_cells(grid):
    np.testing.assert_allclose(saliency.downsample(np.full((2, 12, 16), 3.5), grid), 3.5)


def test_sound_in_one_corner_lands_in_the_cell_of_that_corner(grid):
    picture = np.zeros((12, 16))
    picture[9:, :3] = 1
    cells = saliency.downsample(picture, grid)
    assert np.unravel_index(cells.argmax(), cells.shape) == (2, 0)
    np.testing.assert_allclose(cells[:2, 2:], 0)


def test_shares_have_mean_1_over_the_picture_and_count_nothing_below_0(grid):
    maps = np.random.default_rng(2).normal(size=(5, 3, 4))
    maps[3] = -1
    found = saliency.shares(maps, grid)
    np.testing.assert_allclose(saliency.upsample(found, grid).mean(axis=(1, 2))[[0, 1, 2, 4]], 1)
    assert np.isnan(found[3]).all()
    assert (found[[0, 1, 2, 4]][maps[[0, 1, 2, 4]] < 0] == 0).all()


def test_bands_have_librosas_frequencies_and_cepstral_coefficients_have_none():
    import librosa

    config = FeatureConfig(n_mels=20)
    mel = librosa.mel_frequencies(n_mels=22, fmin=config.fmin_hz, fmax=config.fmax_hz)
    np.testing.assert_allclose(saliency.band_centres_hz(config), mel[1:-1], rtol=1e-6)
    with pytest.raises(ConfigError):
        saliency.band_centres_hz(FeatureConfig(kind="mfcc"))


@pytest.fixture(scope="module")
def networks(small, tmp_path_factory) -> list[list[Path]]:
    """Two seeds of a network that was trained for a moment."""
    folder, config = tmp_path_factory.mktemp("networks"), TrainConfig(epochs=3)
    tasks = [
        (folder / f"seed-{seed}", small.store.folder, small.split_path, get_spec("small"), config, seed)
        for seed in range(2)
    ]
    return [[network] for network in parallel_map(train_model, tasks, workers=1)]


@pytest.fixture(scope="module")
def explained(small, networks, tmp_path_factory) -> saliency.Explained:
    folder = tmp_path_factory.mktemp("explained")
    return saliency.explain(folder, networks, store=small.store, splits=[small.split_path], workers=1)


def test_every_validation_segment_is_explained_and_its_maps_add_up_to_the_answer(small, explained):
    segments = part_segments(small.store, small.split, "validation")
    assert explained.segments.row.to_list() == segments.row.to_list()
    assert explained.maps.shape[:3] == (2, len(segments), 3) and not np.allclose(*explained.maps, atol=1e-3)
    logits, means = np.log(explained.probabilities), explained.maps.mean(axis=(-2, -1))
    bias = (logits - means) - (logits - means).mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(bias, bias[:, :1].repeat(bias.shape[1], axis=1), atol=1e-3)
    place = np.arange(len(segments))
    np.testing.assert_array_equal(explained.true_maps, explained.maps[:, place, segments.target])


def test_maps_are_kept_and_a_killed_run_goes_on_with_the_same_result(small, networks, explained, tmp_path):
    settings = {"store": small.store, "splits": [small.split_path]}
    saliency.explain(tmp_path, networks, **settings, workers=1)
    kept = sorted(tmp_path.rglob("*.npz"))
    kept[1].unlink()
    before = kept[0].stat().st_mtime_ns
    again = saliency.explain(tmp_path, networks, **settings, workers=2)
    assert len(kept) == 2 and kept[0].stat().st_mtime_ns == before and kept[1].is_file()
    np.testing.assert_array_equal(again.maps, explained.maps)


def test_a_network_of_another_split_or_unfinished_is_named(small, networks, tmp_path):
    foreign, cut = (shutil.copytree(networks[0][0], tmp_path / name) for name in ("foreign", "cut"))
    write_json(foreign / "manifest.json", read_json(foreign / "manifest.json") | {"split": "another"})
    (cut / "manifest.json").unlink()
    for folder in (foreign, cut):
        with pytest.raises(RunError, match=folder.name):
            saliency.explain(tmp_path / "kept", [[folder]], store=small.store, splits=[small.split_path], workers=1)


def test_overlays_hold_whole_decibels_and_maps_relative_to_their_maxima(small):
    maps = np.random.default_rng(0).uniform(0, 7, (2, *small.store.config.shape))
    shown = saliency.overlay_arrays([3, 0], maps, ["a", "b"], small.store)
    np.testing.assert_allclose(shown["spectra"], small.store.features[[3, 0]], atol=0.51)
    np.testing.assert_allclose(shown["maps"], maps / maps.max(axis=(1, 2), keepdims=True), atol=0.011)
    assert len(saliency.overlay_arrays([], np.zeros((0,)), [], small.store)["maps"]) == 0
