"""A faithful map is told from one that is not, and the sanity check replaces what it says it replaces."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from instrlib.audio.features import Scaler, scale
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError
from instrlib.core.parallel import parallel_map
from instrlib.models.layers import build, get_spec
from instrlib.models.train import train_model
from instrlib.studies import faithfulness, saliency

GRID = saliency.Grid(np.array([2.0, 6.0]), np.array([2.0, 6.0, 10.0]), 4, 4, (8, 12))
CONFIG = FeatureConfig(n_mels=8, segment_s=11 * 512 / 22_050, scaling="fixed")


def read_corner(x: np.ndarray) -> np.ndarray:
    """Answer class 1 with the share of the upper right quarter that sounds: a network that listens there alone."""
    share = (x[:, 4:, 6:, 0] > 0).mean(axis=(1, 2))
    return np.stack([1 - share, share], axis=1)


def run_curves(ranks: np.ndarray, predict=read_corner, **settings):
    level_db = np.full((len(ranks[0]), 8, 12), -10.0, np.float32)
    return faithfulness.curves(
        predict, level_db, ranks, np.ones(len(level_db), int), **{"config": CONFIG, "scaler": None} | settings
    )


@pytest.fixture
def true_map() -> np.ndarray:
    return np.array([[[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]]])


def test_deleting_what_counts_first_falls_fastest_and_inserting_it_first_rises_fastest():
    corner = np.zeros((8, 12))
    corner[4:, 6:] = 1
    best, worst = (np.argsort(np.argsort(sign * corner, axis=None, kind="stable")).reshape(8, 12) for sign in (-1, 1))
    deletion, insertion = run_curves(np.stack([best, worst])[:, None])
    fractions = np.array(faithfulness.FRACTIONS)
    expected = np.clip(1 - np.round(fractions * 96) / 24, 0, 1)
    np.testing.assert_allclose(deletion[0, 0], expected)
    np.testing.assert_allclose(insertion[0, 0], 1 - expected)
    np.testing.assert_allclose(deletion[1, 0], np.clip((96 - np.round(fractions * 96)) / 24, 0, 1))
    assert np.all(insertion[1] <= insertion[0]) and np.all(deletion[1] >= deletion[0])


def test_what_is_deleted_becomes_the_floor_and_never_0_db(monkeypatch):
    config = FeatureConfig(n_mels=8, segment_s=11 * 512 / 22_050, scaling="train")
    scaler = Scaler(np.linspace(-60, -20, 8, dtype=np.float32), np.linspace(5, 15, 8, dtype=np.float32))
    seen = []

    def record(x):
        seen.append(x[..., 0])
        return np.full((len(x), 2), 0.5)

    ranks = np.arange(96).reshape(1, 1, 8, 12)
    monkeypatch.setattr(faithfulness, "FRACTIONS", (0.0, 0.5, 1.0))
    run_curves(ranks, record, config=config, scaler=scaler)
    whole, empty, half, other = seen
    silence = scale(np.full((1, 8, 12), -80.0), config, scaler)
    np.testing.assert_allclose(empty, silence)
    np.testing.assert_allclose(half[0, :4], silence[0, :4])
    np.testing.assert_allclose(half[0, 4:], whole[0, 4:])
    np.testing.assert_allclose(other[0, 4:], silence[0, 4:])
    assert not np.isclose(whole, silence).any()


def test_cepstral_coefficients_cannot_be_deleted():
    with pytest.raises(ConfigError, match="silence"):
        run_curves(np.zeros((1, 1, 8, 12)), config=FeatureConfig(kind="mfcc"))


def test_every_order_ranks_every_value_once(true_map):
    level_db = np.random.default_rng(0).uniform(-80, 0, (4, 8, 12)).astype(np.float32)
    maps = np.concatenate([true_map] * 4)
    orders = faithfulness.importance(maps, level_db, GRID, floor_db=-80, seed=0)
    assert tuple(orders) == faithfulness.ORDERS
    for name, ranks in orders.items():
        assert ranks.shape == (faithfulness.N_DRAWS if name.startswith("random") else 1, 4, 8, 12)
        np.testing.assert_array_equal(
            np.sort(ranks.reshape(-1, 96), axis=1), np.tile(np.arange(96), (ranks.size // 96, 1))
        )


def test_orders_go_by_what_their_names_say(true_map):
    rng = np.random.default_rng(1)
    level_db = rng.uniform(-80, 0, (4, 8, 12)).astype(np.float32)
    maps = rng.normal(size=(4, 2, 3))
    orders = faithfulness.importance(maps, level_db, GRID, floor_db=-80, seed=0)
    fine = saliency.upsample(maps, GRID)
    for name, values in {
        faithfulness.MAP: fine,
        faithfulness.LOUDEST: level_db,
        "another clip's map": fine[[2, 3, 0, 1]],
        faithfulness.LOUDEST_MAP: saliency.upsample(np.maximum(maps, 0), GRID) * (level_db + 80),
        "loudest blocks": saliency.upsample(saliency.downsample(level_db, GRID), GRID),
    }.items():
        by_rank = np.take_along_axis(values.reshape(4, -1), orders[name][0].reshape(4, -1).argsort(axis=1), axis=1)
        assert (np.diff(by_rank, axis=1) <= 1e-12).all(), name


def test_random_orders_differ_from_draw_to_draw_and_repeat_with_the_seed(true_map):
    level_db = np.zeros((1, 8, 12), np.float32)
    first, again, other = (
        faithfulness.importance(true_map, level_db, GRID, floor_db=-80, seed=seed) for seed in (0, 0, 1)
    )
    for name in ("random points", "random blocks"):
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
        assert not np.array_equal(first[name][0], first[name][1])


def test_equal_values_are_not_taken_from_one_corner():
    maps = np.zeros((1, 2, 3))
    ranks = faithfulness.importance(maps, np.zeros((1, 8, 12)), GRID, floor_db=-80, seed=0)[faithfulness.MAP][0, 0]
    first = ranks < 48
    assert 0.25 < first[:4].mean() < 0.75 and 0.25 < first[:, :6].mean() < 0.75


def test_a_true_map_beats_chance_and_a_map_of_the_wrong_place(true_map):
    level_db = np.full((30, 8, 12), -10.0, np.float32)
    orders = faithfulness.importance(np.repeat(true_map, 30, axis=0), level_db, GRID, floor_db=-80, seed=0)
    wrong = faithfulness.importance(np.repeat(true_map[..., ::-1], 30, axis=0), level_db, GRID, floor_db=-80, seed=0)
    fractions = np.array(faithfulness.FRACTIONS)

    def overall(ranks):
        deletion, insertion = run_curves(ranks)
        return np.trapezoid(insertion - deletion, fractions, axis=-1).mean()

    assert overall(orders[faithfulness.MAP]) > 0.4
    assert overall(wrong[faithfulness.MAP]) < 0
    assert abs(overall(orders["random points"])) < 0.03


def test_rank_correlation_is_spearmans_and_0_for_a_map_that_says_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 5)).round(1)  # with ties
    found = faithfulness.rank_correlation(a, b)
    expected = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert faithfulness.rank_correlation(a[0], np.zeros((4, 5))) == 0
    assert faithfulness.rank_correlation(a[None, :], a[:, None]).shape == (3, 3)


@pytest.fixture(scope="module")
def model():
    model = build(get_spec("small"), (32, 45, 1), 3)
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.uniform(0.5, 1, w.shape) if w.ndim == 1 else rng.normal(0, 0.3, w.shape) for w in model.get_weights()]
    )
    return model


def test_blocks_go_from_the_output_to_the_input_with_their_normalisation(model):
    assert faithfulness.weight_blocks(model) == [
        ["scores"], ["conv3", "norm3"], ["conv2", "norm2"], ["conv1", "norm1"],
    ]  # fmt: skip


def test_weights_are_replaced_from_the_last_layer_down_and_the_network_stays_as_it_is(model):
    x = np.random.default_rng(2).normal(size=(4, 32, 45, 1)).astype(np.float32)
    targets, before = np.array([0, 1, 2, 0]), [weight.copy() for weight in model.get_weights()]
    intact = saliency.class_activation_maps(model, x)
    found = faithfulness.randomised_maps(model, x, targets, seeds=[0])[0]
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert found.shape == (4, 4, *intact.shape[2:])
    # With new weights in the last layer alone, a map is still a sum of the trained network's channels.
    from instrlib.core.parallel import load_keras

    active = np.asarray(load_keras().Model(model.input, model.get_layer("relu3").output)(x)).reshape(4, -1, 48)
    residual = np.linalg.lstsq(active[0], found[0, 0].ravel(), rcond=None)[1]
    assert not residual.size or residual[0] < 1e-6
    assert not np.allclose(found[0], intact[np.arange(4), targets], atol=1e-2)
    np.testing.assert_array_equal(found, faithfulness.randomised_maps(model, x, targets, seeds=[0])[0])
    assert not np.allclose(found, faithfulness.randomised_maps(model, x, targets, seeds=[0, 1])[1], atol=1e-3)
    # At the end nothing that was learned is left: any other network of this shape ends at the same maps.
    other = build(get_spec("small"), (32, 45, 1), 3)
    np.testing.assert_allclose(
        found[-1], faithfulness.randomised_maps(other, x, targets, seeds=[0])[0][-1], rtol=1e-4, atol=1e-5
    )
    assert not np.allclose(found[0], faithfulness.randomised_maps(other, x, targets, seeds=[0])[0][0], atol=1e-2)


def test_networks_are_measured_once_and_the_segments_keep_their_order(small, tmp_path):
    task = (tmp_path / "net", small.store.folder, small.split_path, get_spec("small"), TrainConfig(epochs=3), 0)
    networks = [[next(parallel_map(train_model, [task], workers=1))]]
    explained = saliency.explain(tmp_path / "maps", networks, store=small.store, splits=[small.split_path], workers=1)
    chosen = np.arange(0, len(explained.segments), 3)

    def measure(folder):
        return faithfulness.measure(tmp_path / folder, networks, explained, chosen, store=small.store, workers=1)

    whole = measure("whole")
    assert len(list((tmp_path / "whole").rglob("*.npz"))) == 1
    answers = explained.probabilities[0, chosen].max(axis=1)
    for name in faithfulness.ORDERS:
        assert whole.deletion[name].shape == whole.insertion[name].shape == (1, len(chosen), 8)
        # Nothing taken away, or everything given back, is the network's own answer.
        np.testing.assert_allclose(whole.deletion[name][0, :, 0], answers, atol=0.01)
        np.testing.assert_allclose(whole.insertion[name][0, :, -1], answers, atol=0.01)
        np.testing.assert_allclose(whole.deletion[name][0, :, -1], whole.insertion[name][0, :, 0])
    assert whole.layers == ("scores", "conv3", "conv2", "conv1")
    assert whole.randomised.shape == (1, len(chosen), 4)
    assert ((whole.randomised >= 0) & (whole.randomised <= 1 + 1e-9)).all()
    kept = next((tmp_path / "whole").rglob("*.npz"))
    before = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(measure("whole").randomised, whole.randomised)
    assert kept.stat().st_mtime_ns == before
