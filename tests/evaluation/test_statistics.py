"""Intervals cover what they should, differences are paired, and verdicts follow from them."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from instrlib.core.io import RunError
from instrlib.evaluation import metrics, statistics
from instrlib.evaluation.predictions import join_folds, join_seeds
from instrlib.evaluation.statistics import compare, holm, score_table

DRAWS = {"n_resamples": 400, "seed": 0}


def one_mean(values, groups, strata=None, *, n_resamples, seed):
    values = statistics.mean_draws(values, groups, strata, n_resamples=n_resamples, seed=seed)
    return statistics.over_seeds(values, seed)


def predictions(share_right: float, *, n_seeds: int = 3, n_groups: int = 40, per_group: int = 3, seed: int = 0) -> dict:
    """Answers to three classes, each group of one class, of which a share is correct."""
    group = np.repeat(np.arange(n_groups), per_group)
    clip_id, targets = np.char.zfill(np.arange(len(group)).astype(str), 4), group % 3
    wrong = np.random.default_rng(seed).random((n_seeds, len(group))) >= share_right
    answers = np.eye(3)[(targets + wrong) % 3] * 0.7 + 0.1
    return {"clip_id": clip_id, "group": group.astype(str), "targets": targets, "probabilities": answers}


def labelled(n_seeds: int = 2) -> dict:
    rng = np.random.default_rng(3)
    labels = (rng.random((60, 3)) < 0.4).astype(float)
    answers = np.clip(labels * 0.4 + rng.random((n_seeds, 60, 3)) * 0.6, 0, 1)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    made = {"clip_id": np.arange(60).astype(str), "group": np.arange(60) // 3, "targets": np.zeros(60, int)}
    return made | {"labels": labels, "probabilities": answers, "thresholds": np.full((n_seeds, 3), 0.5)}


@pytest.mark.parametrize(("made", "truth"), [(predictions(0.7), "targets"), (labelled(), "labels")])
def test_the_estimate_is_the_mean_of_the_seeds_scores_inside_its_interval(made, truth):
    table = score_table({"a": made}, **DRAWS).set_index("score")
    each = pd.DataFrame([metrics.scores(made[truth], one) for one in made["probabilities"]]).mean()
    assert table.estimate.to_dict() == pytest.approx(each.to_dict())
    # The bootstrap of the calibration error is biased: it has no interval and cannot be compared.
    assert table.loc["expected_calibration_error", ["low", "high"]].isna().all()
    inside = table.drop(index="expected_calibration_error")
    assert ((inside.low <= inside.estimate) & (inside.estimate <= inside.high) & (inside.low >= 0)).all()
    assert (inside.drop(index="log_loss").high <= 1).all()
    for score in ("expected_calibration_error", "no such score"):
        with pytest.raises(RunError):
            compare({"a": made, "b": made}, against="a", score=score, **DRAWS)


def test_the_variance_is_that_of_the_stratified_mean_and_those_over_seeds_and_groups_add_up():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [4, 4, 8])
    values = rng.normal(loc=strata * 10.0)  # one clip a group; between the strata lies most of the spread
    of_seeds = np.array([0.0, 1.0, 2.0])[:, None]
    inside = [values[strata == one] for one in range(3)]
    stratified = sum(len(one) * one.var(ddof=1) for one in inside) / len(values) ** 2
    plain = values.var(ddof=1) / len(values)
    for given, rows, expected in (
        *((values, strata, stratified), (values, None, plain)),
        *((of_seeds + np.zeros(16), None, 1 / 3), (of_seeds + values, None, 1 / 3 + plain)),
    ):
        draws = one_mean(given, np.arange(16), rows, n_resamples=20_000, seed=1)
        assert draws[0] == pytest.approx(given.mean()) and draws[1:].var() == pytest.approx(expected, rel=0.05)


def test_about_95_of_100_intervals_cover_the_truth_although_clips_of_a_group_are_alike():
    rng, covered = np.random.default_rng(0), []
    for seed in range(200):
        values = np.repeat(rng.normal(size=20), 5) + 0.3 * rng.normal(size=100)
        both = [one_mean(values, np.arange(100) // n, n_resamples=300, seed=seed) for n in (5, 1)]
        covered.append([low <= 0 <= high for low, high in map(statistics.ends, both)])
    of_groups, of_clips = np.mean(covered, axis=0)
    assert 0.89 <= of_groups <= 0.98 and of_clips < 0.75


def test_a_mixture_weighs_as_all_its_sources_a_class_of_one_group_is_pooled_and_one_group_has_no_interval():
    groups = np.array([["a", "b"], ["c", ""], ["b", "c"]])
    codes, weights = statistics.group_weights(groups, n_resamples=300, seed=0)
    np.testing.assert_allclose(weights[1:, 1:].sum(axis=1), 3)
    drawn = statistics.draw([lambda weights: {"weights": weights}], groups, n_resamples=300, seed=0)["weights"][0]
    np.testing.assert_allclose(drawn[:, 0], weights[:, codes[0, 0]] * weights[:, codes[0, 1]])
    np.testing.assert_allclose(drawn[:, 1], weights[:, codes[1, 0]])
    groups, classes = np.array(list("aabbccd")), np.array([0, 0, 0, 0, 1, 1, 2])
    codes, weights = statistics.group_weights(groups, classes, n_resamples=200, seed=0)
    assert codes.tolist() == [0, 0, 1, 1, 2, 2, 3] and weights.shape == (201, 4) and (weights[0] == 1).all()
    np.testing.assert_allclose(weights[1:].reshape(-1, 2, 2).sum(axis=2), 2)
    assert set(np.unique(weights[1:])) == {0.0, 2.0}
    alone = predictions(0.7) | {"group": np.full(120, "a")}
    table = score_table({"a": alone}, **DRAWS)
    assert table.low.isna().all() and table.estimate.notna().all()
    row = compare({"a": alone, "b": predictions(0.9) | {"group": alone["group"]}}, against="b", **DRAWS).iloc[0]
    assert np.isnan([row.low, row.p, row.p_holm, row.detectable]).all() and row.verdict == "inconclusive"


def test_classes_have_intervals_where_they_have_two_groups():
    made = predictions(0.7, n_groups=30)
    made["group"] = np.where(made["targets"] == 2, "one", made["group"])
    table = statistics.class_table(made, ("a", "b", "c"), **DRAWS)
    assert table.n_groups.tolist() == [10, 10, 1] and table.support.tolist() == [30, 30, 30]
    assert table.f1_low.isna().tolist() == [False, False, True]
    each = [reference.f1_score(made["targets"], one.argmax(1), average=None) for one in made["probabilities"]]
    np.testing.assert_allclose(table.f1, np.mean(each, axis=0))
    assert {"average_precision_low", "observed"} <= set(statistics.class_table(labelled(), tuple("abc"), **DRAWS))


def test_a_difference_is_paired_by_clip_and_seed():
    models = {"a": predictions(0.9, seed=1), "b": predictions(0.6)}
    right = {name: (one["probabilities"].argmax(-1) == one["targets"]).mean() for name, one in models.items()}
    row = compare(models, against="b", **DRAWS).loc[("a", "b")]
    assert row.difference == pytest.approx(right["a"] - right["b"])
    assert row.low > 0 and row.verdict == "better" and row.p_holm == row.p < 0.05
    turned = compare(models, pairs=[("b", "a")], **DRAWS).iloc[0]
    assert (turned.difference, turned.low, turned.verdict) == pytest.approx((-row.difference, -row.high, "worse"))
    mended = np.random.default_rng(2).random(120) < 0.2  # b with some errors corrected
    same = np.where(mended[:, None], models["a"]["probabilities"], models["b"]["probabilities"])
    models |= {"same": models["b"] | {"probabilities": same}, "alone": predictions(0.66, seed=9)}
    paired, alone = (compare(models, pairs=[(name, "b")], **DRAWS).iloc[0] for name in ("same", "alone"))
    assert paired.high - paired.low < 0.9 * (alone.high - alone.low)
    row = compare(models, pairs=[("a", "b")], score="log_loss", **DRAWS).iloc[0]
    assert row.high < 0 and row.verdict == "better"  # a lower loss
    oracle = labelled() | {"probabilities": np.nan_to_num(labelled()["labels"], nan=0.5), "thresholds": 0.5}
    row = compare({"oracle": oracle, "model": labelled()}, against="model", **DRAWS).iloc[0]
    table = score_table({"model": labelled()}, **DRAWS).set_index("score")
    assert row.difference == pytest.approx(1 - table.estimate["mean_average_precision"]) and row.verdict == "better"


def test_absence_of_evidence_is_inconclusive_with_the_difference_that_could_have_been_found():
    for n_groups, verdict in ((40, "inconclusive"), (300, "equivalent")):
        made = predictions(0.7, n_groups=n_groups)
        row = compare({"a": made, "b": dict(made)}, against="b", margin=0.02, **DRAWS).iloc[0]
        assert (row.difference, row.p, row.verdict) == (0, 1, verdict)
        assert row.detectable > 2 / n_groups  # identical answers do not show that a study finds any difference
    models = {"a": predictions(0.7, seed=8), "b": predictions(0.7, seed=7), "c": predictions(0.71, seed=2)}
    row = compare(models, pairs=[("a", "b")], margin=0.01, **DRAWS).iloc[0]
    error = (row.high - row.low) / (2 * 1.96)
    assert row.verdict == "inconclusive" and row.detectable == pytest.approx(2.80 * error, rel=0.1)
    more = compare(models, against="b", margin=0.01, **DRAWS)
    assert more.detectable.iloc[0] > row.detectable  # the price of a larger family


def test_equal_models_differ_in_about_five_of_a_hundred_studies():
    models = [{"a": predictions(0.7, seed=seed), "b": predictions(0.7, seed=seed + 1)} for seed in range(0, 240, 2)]
    assert 0.01 <= np.mean([compare(both, against="b", **DRAWS).p.iloc[0] < 0.05 for both in models]) <= 0.11


def test_the_family_is_corrected_by_holm_once_and_has_resamples_enough():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])  # the published example
    np.testing.assert_allclose(holm([0.6, np.nan, 0.7]), [1, np.nan, 1])
    models = {"a": predictions(0.7), "b": predictions(0.95, seed=1), "c": predictions(0.75, seed=2)}
    table = compare(models, against="a", n_resamples=10, seed=0)
    np.testing.assert_allclose(table.p_holm, holm(table.p))
    assert table.index.tolist() == [("b", "a"), ("c", "a")]
    assert table.p_holm.iloc[0] < 0.05  # with ten resamples no p could be
    empty = compare({"a": models["a"]}, against="a", **DRAWS)
    assert empty.columns.tolist() == table.columns.tolist() and empty.empty


def test_models_of_other_clips_truth_or_numbers_of_seeds_are_not_compared_but_one_seed_fits_all():
    made, one = predictions(0.7), predictions(0.9, n_seeds=1)
    relabelled = made | {"targets": (made["targets"] + 1) % 3}
    for other in (predictions(0.7, n_groups=20), relabelled, labelled(), predictions(0.7, n_seeds=2)):
        with pytest.raises(RunError, match="other"):
            compare({"made": made, "other": other}, against="made", **DRAWS)
    one["probabilities"] = one["probabilities"][0]
    assert compare({"one": one, "made": made}, against="made", **DRAWS).verdict.tolist() == ["better"]


def test_few_differing_groups_do_not_show_that_nothing_is_lost():
    made = predictions(1.0, n_seeds=1, n_groups=26, per_group=5)
    pruned = made | {"probabilities": made["probabilities"].copy()}
    made["probabilities"][:, :3] = made["probabilities"][:, :3, [1, 2, 0]]  # the pruned one gains three clips
    row = compare({"pruned": pruned, "dense": made}, against="dense", margin=0.01, **DRAWS).iloc[0]
    assert row.difference > 0 and row.low >= 0 and row.bound > 0.01
    dense, worse = (predictions(share, n_groups=1000, per_group=1) for share in (0.9, 0.8))
    bounds = compare({"same": dict(dense), "worse": worse, "dense": dense}, against="dense", **DRAWS).bound
    assert bounds["same", "dense"] < 0.01 and bounds["worse", "dense"] > 0.05


def test_folds_are_joined_by_clip_and_keep_their_thresholds():
    made = labelled(1) | {"probabilities": labelled(1)["probabilities"][0]}
    halves = [
        {name: one[rows] for name, one in made.items() if name != "thresholds"} | {"thresholds": np.full(3, bar)}
        for rows, bar in ((np.arange(30, 60), 0.6), (np.arange(30), 0.4))
    ]
    joined, order = join_seeds([halves, halves]), np.argsort(made["clip_id"])
    np.testing.assert_array_equal(joined["labels"], made["labels"][order])
    np.testing.assert_array_equal(joined["probabilities"], [made["probabilities"][order]] * 2)
    np.testing.assert_array_equal(joined["thresholds"], np.tile(np.where(order < 30, 0.4, 0.6)[:, None], (2, 1, 3)))
    assert score_table({"a": joined}, **DRAWS).estimate.notna().all()
    with pytest.raises(RunError):
        join_folds([halves[0], halves[0]])
