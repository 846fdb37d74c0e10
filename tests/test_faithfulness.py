"""A faithful map is told from one that is not, and the sanity check replaces what it says it replaces."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

from instrlib import findings
from instrlib.audio.features import Scaler, scale
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError
from instrlib.core.parallel import parallel_map
from instrlib.evaluation.intervals import Interval
from instrlib.models.layers import build, get_spec
from instrlib.models.training import train_model
from instrlib.studies import cam, faithfulness
from instrlib.studies.attention import Explained, explain

GRID = cam.Grid(np.array([2.0, 6.0]), np.array([2.0, 6.0, 10.0]), 4, 4, (8, 12))
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


def test_what_is_deleted_becomes_the_floor_and_never_0_db():
    config = FeatureConfig(n_mels=8, segment_s=11 * 512 / 22_050, scaling="train")
    scaler = Scaler(np.linspace(-60, -20, 8, dtype=np.float32), np.linspace(5, 15, 8, dtype=np.float32))
    seen = []

    def record(x):
        seen.append(x[..., 0])
        return np.full((len(x), 2), 0.5)

    ranks = np.arange(96).reshape(1, 1, 8, 12)
    run_curves(ranks, record, config=config, scaler=scaler, fractions=(0.0, 0.5, 1.0))
    whole, empty, half, other = seen
    silence = scale(np.full((1, 8, 12), -80.0), config, scaler)
    np.testing.assert_allclose(empty, silence)
    np.testing.assert_allclose(half[0, :4], silence[0, :4])
    np.testing.assert_allclose(half[0, 4:], whole[0, 4:])
    np.testing.assert_allclose(other[0, 4:], silence[0, 4:])
    assert not np.isclose(whole, silence).any()


def test_cepstral_coefficients_cannot_be_deleted():
    with pytest.raises(ConfigError, match="in which silence is one value"):
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
    fine = cam.upsample(maps, GRID)
    for name, values in {
        faithfulness.MAP: fine,
        faithfulness.LOUDEST: level_db,
        "another clip's map": fine[[2, 3, 0, 1]],
        faithfulness.LOUDEST_MAP: cam.upsample(np.maximum(maps, 0), GRID) * (level_db + 80),
        "loudest blocks": cam.upsample(cam.downsample(level_db, GRID), GRID),
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
        return (faithfulness.area(insertion, fractions) - faithfulness.area(deletion, fractions)).mean()

    assert overall(orders[faithfulness.MAP]) > 0.4
    assert overall(wrong[faithfulness.MAP]) < 0
    assert abs(overall(orders["random points"])) < 0.03


def test_the_area_is_that_of_the_trapezoidal_rule():
    rng = np.random.default_rng(0)
    curve, fractions = rng.uniform(size=(3, 5, 8)), np.array(faithfulness.FRACTIONS)
    np.testing.assert_allclose(faithfulness.area(curve, fractions), trapezoid(curve, fractions, axis=-1))


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
    intact = cam.class_activation_maps(model, x)
    found = faithfulness.randomised_maps(model, x, targets, seeds=[0])[0]
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert found.shape == (4, 4, *intact.shape[2:])
    # With new weights in the last layer alone, a map is still a sum of the trained network's channels.
    from instrlib.core.backend import load_keras

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


def table_of(n_per_group: dict[tuple[int, str], int]) -> Explained:
    import pandas as pd

    rows = [(target, group) for (target, group), n in n_per_group.items() for _ in range(n)]
    segments = pd.DataFrame(rows, columns=["target", "group"])
    segments = segments.assign(clip_id=[f"c{number:03d}" for number in range(len(rows))], fold=0, row=range(len(rows)))
    rng = np.random.default_rng(0)
    n_classes = segments.target.max() + 1
    maps = rng.normal(size=(2, len(rows), n_classes, 2, 3))
    return Explained(segments, ("a", "b")[:n_classes], GRID, rng.dirichlet(np.ones(n_classes), (2, len(rows))), maps)


def test_groups_take_turns_when_segments_are_chosen():
    explained = table_of({(0, "x"): 9, (0, "y"): 2, (0, "z"): 1, (1, "w"): 2})
    chosen = explained.segments.iloc[faithfulness.choose_segments(explained, per_class=4)]
    counts = chosen.groupby(["target", "group"]).size().to_dict()
    assert counts == {(0, "x"): 2, (0, "y"): 1, (0, "z"): 1, (1, "w"): 2}
    assert (np.diff(chosen.row) > 0).all()


def measured(**overall: float) -> faithfulness.Measured:
    """Curves of 40 segments that rise evenly, so that the insertion's area is what is asked for."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (2, 40, 1))
    fractions = np.array([0.0, 1.0])
    insertion = {
        name: np.repeat(overall.get(name.replace(" ", "_").replace("'", ""), 0.0) + noise, 2, axis=2)
        for name in faithfulness.ORDERS
    }
    deletion = {name: np.zeros((2, 40, 2)) for name in faithfulness.ORDERS}
    randomised = np.repeat(np.array([0.5, 0.1])[None, None], 40, axis=1).repeat(2, axis=0)
    groups = np.array([f"g{number // 4}" for number in range(40)])
    return faithfulness.Measured(groups, fractions, deletion, insertion, ("scores", "conv1"), randomised)


def test_the_table_of_areas_gives_insertion_minus_deletion():
    table = faithfulness.area_table(measured(class_activation_map=0.3), n_resamples=200, seed=0)
    assert table.index.to_list() == list(faithfulness.ORDERS)
    row = table.loc[faithfulness.MAP]
    assert row.overall == pytest.approx(row.insertion - row.deletion)
    assert row.overall == pytest.approx(0.3, abs=0.01)
    assert row.overall_low < row.overall < row.overall_high


def test_an_order_that_does_worse_than_the_map_lies_below_0_and_a_better_one_above():
    found = faithfulness.against_map(
        measured(class_activation_map=0.3, loudest_points=0.5, random_blocks=0.3), n_resamples=200, seed=0
    )
    assert found.difference["random points"] == pytest.approx(-0.3) and found.high["random points"] < 0
    assert found.difference["loudest points"] == pytest.approx(0.2) and found.low["loudest points"] > 0
    assert found.difference["random blocks"] == pytest.approx(0) and found.p_holm["random blocks"] == 1
    assert (found.p_holm >= found.p).all()


class Loud:
    """A store in which the sound of every segment is the map of the first seed."""

    def __init__(self, explained: Explained) -> None:
        self.features = cam.upsample(explained.true_maps[0], GRID)


def test_similarities_name_what_a_map_is_compared_with():
    explained = table_of({(0, "x"): 10, (1, "y"): 10, (1, "z"): 10})
    alike = Explained(explained.segments, explained.classes, GRID, explained.probabilities, explained.maps[[0, 0]])
    table = faithfulness.similarities(alike, measured(), Loud(alike), n_resamples=100, seed=0)
    assert table.index.to_list() == [
        "random from scores", "random from conv1", "another seed", "another clip", "loudness",
    ]  # fmt: skip
    assert table.estimate["another seed"] == pytest.approx(1)
    assert abs(table.estimate["another clip"]) < 0.3
    assert table.estimate["loudness"] > 0.8
    assert table.estimate["random from scores"] == pytest.approx(0.5)
    assert faithfulness.similarity(table, "another seed").estimate == pytest.approx(1)
    assert faithfulness.similarity(table, "no such row") is None


def test_one_seed_and_one_clip_a_class_leave_out_what_cannot_be_compared():
    explained = table_of({(0, "x"): 1, (1, "y"): 1})
    alone = Explained(explained.segments, explained.classes, GRID, explained.probabilities[:1], explained.maps[:1])
    table = faithfulness.similarities(alone, measured(), Loud(alone), n_resamples=100, seed=0)
    assert "another seed" not in table.index and "another clip" not in table.index


def test_another_clip_is_of_the_same_network_and_class_and_of_another_group_where_there_is_one():
    explained = table_of({(0, "x"): 7, (0, "y"): 2, (1, "z"): 4, (1, "v"): 1})
    folds = [0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1]
    segments = explained.segments.assign(fold=folds, clip_id=list("abcdefghijjkkl"))
    # Maps of the two networks are each other's reverse: a pair across them would agree to -1.
    pattern = np.arange(6.0).reshape(2, 3)
    maps = np.where(segments.fold.to_numpy()[:, None, None, None] == 0, pattern, -pattern)
    maps = np.broadcast_to(maps, (1, 14, 2, 2, 3))
    folded = Explained(segments, explained.classes, GRID, explained.probabilities[:1], maps)
    table = faithfulness.similarities(folded, measured(), Loud(folded), n_resamples=100, seed=0)
    assert table.estimate["another clip"] == pytest.approx(1)
    partners = faithfulness._other_clips(segments)
    alone = partners == np.arange(len(segments))
    assert np.flatnonzero(alone).tolist() == [13]  # the only clip of its class in its fold
    own, other = segments[~alone], segments.iloc[partners[~alone]]
    assert (own.clip_id.to_numpy() != other.clip_id.to_numpy()).all()
    assert ((own.group.to_numpy() != other.group.to_numpy()) == (own.target == 0)).all()


def test_networks_are_measured_once_in_parts_and_the_segments_keep_their_order(small, tmp_path, monkeypatch):
    task = (tmp_path / "net", small.store.folder, small.split_path, get_spec("small"), TrainConfig(epochs=3), 0)
    networks = [[next(parallel_map(train_model, [task], workers=1))]]
    explained = explain(tmp_path / "maps", networks, store=small.store, splits=[small.split_path], workers=1)
    chosen = faithfulness.choose_segments(explained, per_class=4)

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
    monkeypatch.setattr(faithfulness, "_PART", 5)
    parts = measure("parts")
    assert len(list((tmp_path / "parts").rglob("*.npz"))) == -(-len(chosen) // 5)
    for name in (faithfulness.MAP, faithfulness.LOUDEST):
        np.testing.assert_allclose(parts.deletion[name], whole.deletion[name], atol=0.02)  # equal values fall otherwise


def test_the_verdict_says_what_the_map_beats_what_beats_it_and_what_is_open():
    values = measured(class_activation_map=0.3, loudest_points=0.3, loudest_points_of_the_map=0.5)
    settings = {"n_resamples": 500, "seed": 0}
    said = findings.faithfulness_sentence(
        faithfulness.against_map(values, **settings), faithfulness.area_table(values, **settings)
    )
    assert "more faithful than loudest blocks, another clip's map, random points and random blocks" in said
    assert "less faithful than loudest points of the map" in said
    assert "not shown to differ from loudest points (" in said
    known = faithfulness.compare_orders(values, faithfulness.LOUDEST_MAP, faithfulness.LOUDEST, **settings)
    assert findings.loudness_sentence(known).startswith("The map knows something that loudness does not: ")
    other = faithfulness.compare_orders(values, faithfulness.LOUDEST, faithfulness.LOUDEST_MAP, **settings)
    assert findings.loudness_sentence(other).startswith("The map misleads")


@pytest.mark.parametrize(
    ("last", "reference", "verdict"),
    [
        (Interval(0.05, 0.0, 0.1), Interval(0.7, 0.6, 0.8), ": the map depends on what was learned"),
        (Interval(0.65, 0.6, 0.7), Interval(0.7, 0.6, 0.8), ": it is not shown that the map depends on what was"),
        (Interval(0.6, 0.5, 0.7), None, ": it is not shown that the map depends on what was learned"),
        (Interval(0.1, np.nan, np.nan), None, "cannot be said"),
    ],
)
def test_the_sanity_check_is_passed_only_by_a_map_that_changes(last, reference, verdict):
    assert verdict in findings.randomisation_sentence(Interval(0.3, 0.2, 0.4), last, reference)


def test_agreement_counts_only_beyond_what_any_clip_of_the_class_shares():
    seeds, clips = Interval(0.7, 0.65, 0.75), Interval(0.4, 0.35, 0.45)
    assert "more than the place that the class always has" in findings.agreement_sentence(seeds, clips)
    assert "may be no more than" in findings.agreement_sentence(seeds, Interval(0.7, 0.6, 0.8))
    assert "With one seed it cannot be said" in findings.agreement_sentence(None, clips)
