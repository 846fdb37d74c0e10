"""Intervals cover what they claim to, and tests of a difference agree with scipy."""

import numpy as np
import pytest
from scipy import stats

from instrlib.core.errors import EvaluationError
from instrlib.evaluation.intervals import (
    Difference,
    Interval,
    balanced_difference,
    bootstrap_groups,
    bootstrap_mean,
    class_intervals,
    compare_over_seeds,
    mcnemar,
    paired_bootstrap,
    score_intervals,
)
from instrlib.evaluation.metrics import SCORES, per_class, scores


def clustered(rng, *, n_groups: int, per_group: int, between: float, within: float) -> tuple[np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(n_groups), per_group)
    values = rng.normal(scale=between, size=n_groups)[groups] + rng.normal(scale=within, size=len(groups))
    return values, groups


def answers(n_clips: int, n_classes: int, *, seed: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(n_clips) % n_classes
    logits = rng.normal(size=(n_clips, n_classes))
    logits[np.arange(n_clips), targets] += skill
    odds = np.exp(logits)
    return targets, odds / odds.sum(axis=1, keepdims=True)


def test_the_interval_of_a_normal_mean_is_close_to_the_t_interval():
    values = np.random.default_rng(0).normal(loc=3, size=300)
    found = bootstrap_mean(values, np.arange(300), n_resamples=4000, seed=0)
    low, high = stats.t.interval(0.95, 299, loc=values.mean(), scale=stats.sem(values))
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))


def test_groups_of_equal_clips_count_once_as_if_there_were_one_clip_each():
    means = np.random.default_rng(1).normal(size=50)
    one = bootstrap_mean(means, np.arange(50), n_resamples=500, seed=3)
    ten = bootstrap_mean(np.repeat(means, 10), np.repeat(np.arange(50), 10), n_resamples=500, seed=3)
    assert (one.low, one.high) == pytest.approx((ten.low, ten.high))


def test_drawing_groups_covers_the_truth_where_drawing_clips_does_not():
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "clips": 0}
    wider = 0
    for trial in range(300):
        values, groups = clustered(rng, n_groups=40, per_group=8, between=1.0, within=1.0)
        by_group = bootstrap_mean(values, groups, n_resamples=300, seed=trial)
        by_clip = bootstrap_mean(values, np.arange(len(values)), n_resamples=300, seed=trial)
        covered["groups"] += by_group.low <= 0 <= by_group.high
        covered["clips"] += by_clip.low <= 0 <= by_clip.high
        wider += by_group.high - by_group.low > by_clip.high - by_clip.low
    assert 0.90 <= covered["groups"] / 300 <= 0.98
    assert covered["clips"] / 300 < 0.75
    assert wider == 300


def test_the_fast_path_for_means_draws_what_the_general_bootstrap_draws():
    rng = np.random.default_rng(2)
    values, groups = clustered(rng, n_groups=15, per_group=4, between=1, within=1)
    names = np.array([f"session {number}" for number in groups])
    fast = bootstrap_mean(values, names, n_resamples=700, seed=5)
    general = bootstrap_groups(lambda rows: values[rows].mean(), names, n_resamples=700, seed=5)
    assert (fast.estimate, fast.low, fast.high) == pytest.approx((general.estimate, general.low, general.high))


def test_score_intervals_agree_with_the_general_bootstrap_for_every_score():
    targets, probabilities = answers(60, 4, seed=0)
    groups = np.arange(60) // 3
    table = score_intervals(targets, probabilities, groups, n_resamples=60, seed=1)
    assert tuple(table.index) == SCORES
    for name in SCORES:
        general = bootstrap_groups(
            lambda rows, name=name: scores(targets[rows], probabilities[rows])[name], groups, n_resamples=60, seed=1
        )
        assert tuple(table.loc[name]) == pytest.approx((general.estimate, general.low, general.high)), name


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values, groups = clustered(np.random.default_rng(0), n_groups=20, per_group=3, between=1, within=1)
    one, same, other = (bootstrap_mean(values, groups, n_resamples=1200, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_single_group_gives_nan_because_it_says_nothing_about_others():
    found = bootstrap_mean(np.array([0.0, 1.0, 1.0]), np.array(["one"] * 3), n_resamples=50, seed=0)
    assert found.estimate == pytest.approx(2 / 3)
    assert np.isnan([found.low, found.high]).all()
    targets, probabilities = answers(12, 3, seed=0)
    table = score_intervals(targets, probabilities, np.zeros(12), n_resamples=50, seed=0)
    assert table[["low", "high"]].isna().all(axis=None)
    assert table["estimate"].notna().all()
    difference = paired_bootstrap(targets, probabilities, probabilities, np.zeros(12), n_resamples=50, seed=0)
    assert np.isnan(difference.p)


def test_several_seeds_give_the_mean_of_their_scores_and_a_wider_interval_when_they_disagree():
    targets, good = answers(120, 4, seed=0, skill=3)
    bad = answers(120, 4, seed=1, skill=0.5)[1]
    groups = np.arange(120) // 2
    single = score_intervals(targets, good, groups, n_resamples=500, seed=0)
    both = score_intervals(targets, np.stack([good, bad]), groups, n_resamples=500, seed=0)
    for name in SCORES:
        expected = (scores(targets, good)[name] + scores(targets, bad)[name]) / 2
        assert both.loc[name, "estimate"] == pytest.approx(expected)
    widths = [table.loc["accuracy", "high"] - table.loc["accuracy", "low"] for table in (single, both)]
    assert widths[1] > 2 * widths[0]
    same = score_intervals(targets, np.stack([good, good]), groups, n_resamples=500, seed=0)
    np.testing.assert_allclose(same, single)


def test_class_intervals_enclose_the_per_class_scores_and_need_two_groups():
    targets, probabilities = answers(90, 3, seed=0)
    groups = np.where(targets == 2, 1000, np.arange(90) // 3 + 100 * targets)
    table = class_intervals(targets, probabilities, groups, ("a", "b", "c"), n_resamples=300, seed=0)
    plain = per_class(targets, probabilities, ("a", "b", "c"))
    for name in ("precision", "recall", "f1"):
        np.testing.assert_allclose(table[name], plain[name])
        assert (table.loc[["a", "b"], f"{name}_low"] < table.loc[["a", "b"], name]).all()
        assert (table.loc[["a", "b"], f"{name}_high"] > table.loc[["a", "b"], name]).all()
        assert np.isnan(table.loc["c", [f"{name}_low", f"{name}_high"]].astype(float)).all()
    assert table["n_groups"].tolist() == [30, 30, 1]
    assert table["support"].tolist() == [30, 30, 30]


def test_a_class_without_clips_has_no_interval_and_does_not_disturb_the_others():
    targets, probabilities = answers(40, 2, seed=0)
    wide = np.column_stack([probabilities, np.zeros(40)])
    table = class_intervals(targets, wide, np.arange(40), ("a", "b", "none"), n_resamples=100, seed=0)
    assert table.loc["none", "support"] == 0
    assert np.isnan(table.loc["none", "f1"])
    assert table.loc[["a", "b"]].notna().all(axis=None)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 1), (12, 12), (40, 21)])
def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_clips(only_a, only_b):
    a = np.array([1] * only_a + [0] * only_b + [1] * 30 + [0] * 7)
    b = np.array([0] * only_a + [1] * only_b + [1] * 30 + [0] * 7)
    found = mcnemar(a, b)
    n = only_a + only_b
    closed_form = min(1.0, 2 * stats.binom.cdf(min(only_a, only_b), n, 0.5)) if n else 1.0
    assert (found["only_a"], found["only_b"]) == (only_a, only_b)
    assert found["p"] == pytest.approx(closed_form)
    assert mcnemar(b, a)["p"] == pytest.approx(found["p"])


def test_mcnemar_approaches_the_chi_squared_statistic_for_many_clips():
    a = np.array([1] * 560 + [0] * 480)
    found = mcnemar(a, 1 - a)
    assert found["p"] == pytest.approx(stats.chi2.sf((abs(560 - 480) - 1) ** 2 / 1040, 1), rel=0.05)


def test_paired_bootstrap_finds_no_difference_between_a_model_and_itself():
    targets, probabilities = answers(60, 4, seed=0)
    found = paired_bootstrap(targets, probabilities, probabilities, np.arange(60) // 2, n_resamples=200, seed=0)
    assert found == Difference(0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_sees_a_real_difference_with_its_sign_and_is_antisymmetric():
    targets, good = answers(200, 4, seed=0, skill=3)
    bad = answers(200, 4, seed=1, skill=1)[1]
    groups = np.arange(200) // 4
    for metric in ("accuracy", "macro_f1", "map_at_3"):
        found = paired_bootstrap(targets, good, bad, groups, n_resamples=999, seed=0, metric=metric)
        back = paired_bootstrap(targets, bad, good, groups, n_resamples=999, seed=0, metric=metric)
        assert found.estimate == pytest.approx(scores(targets, good)[metric] - scores(targets, bad)[metric])
        assert 0 < found.low < found.estimate < found.high
        assert found.p == pytest.approx(2 / 1000)
        assert (back.estimate, back.low, back.high) == pytest.approx((-found.estimate, -found.high, -found.low))
        assert back.p == found.p


def test_pairing_gives_a_narrower_interval_than_two_models_that_err_on_their_own():
    rng = np.random.default_rng(0)
    targets, base = answers(300, 4, seed=0)
    near = 0.95 * base + 0.05 * rng.dirichlet(np.ones(4), size=300)
    groups = np.arange(300) // 3
    paired = paired_bootstrap(targets, base, near, groups, n_resamples=500, seed=0)
    alone = paired_bootstrap(targets, base, answers(300, 4, seed=9)[1], groups, n_resamples=500, seed=0)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_p_values_are_below_five_percent_in_about_five_percent_of_equal_models():
    rng = np.random.default_rng(0)
    below = 0
    for trial in range(300):
        a, b = (rng.uniform(size=(2, 40, 5)) < rng.uniform(0.3, 1, size=(2, 40, 1))).reshape(2, 1, 200)
        below += compare_over_seeds(a, b, np.arange(200) // 5, n_resamples=300, seed=trial).p < 0.05
    assert 0.02 <= below / 300 <= 0.10


def test_comparison_over_seeds_is_the_mean_difference_and_agrees_with_the_probabilities():
    targets, _ = answers(90, 3, seed=0)
    a = np.stack([answers(90, 3, seed=seed, skill=2)[1] for seed in range(3)])
    b = np.stack([answers(90, 3, seed=seed, skill=1)[1] for seed in range(3, 6)])
    groups = np.arange(90) // 3
    right = [(model.argmax(axis=2) == targets) for model in (a, b)]
    found = compare_over_seeds(*right, groups, n_resamples=400, seed=0)
    same = paired_bootstrap(targets, a, b, groups, n_resamples=400, seed=0)
    assert found.estimate == pytest.approx(right[0].mean() - right[1].mean())
    assert (found.low, found.high, found.p) == pytest.approx((same.low, same.high, same.p))


def test_a_gain_of_one_lucky_seed_is_not_a_finding():
    rng = np.random.default_rng(0)
    b = rng.uniform(size=(3, 200)) < 0.7
    a = b.copy()
    a[0] = True
    groups = np.arange(200) // 2
    assert compare_over_seeds(a[:1], b[:1], groups, n_resamples=500, seed=0).p < 0.01
    assert compare_over_seeds(a, b, groups, n_resamples=500, seed=0).p > 0.05


def test_intervals_read_well():
    assert str(Interval(0.8123, 0.7, 0.9)) == "0.812 [0.700, 0.900]"
    assert str(Difference(0.05, -0.01, 0.11, 0.08)) == "+0.050 [-0.010, +0.110], p = 0.080"
    assert str(Difference(0.05, 0.03, 0.11, 0.0002)) == "+0.050 [+0.030, +0.110], p < 0.001"


def test_inputs_that_do_not_fit_are_refused_in_one_sentence():
    targets, probabilities = answers(12, 3, seed=0)
    groups = np.arange(12)
    settings = {"n_resamples": 10, "seed": 0}
    with pytest.raises(EvaluationError, match="One group is needed for each clip"):
        score_intervals(targets, probabilities, groups[:-1], **settings)
    with pytest.raises(EvaluationError, match="at least one clip"):
        bootstrap_mean(np.array([]), np.array([]), **settings)
    with pytest.raises(EvaluationError, match="One group is needed"):
        score_intervals(targets, np.zeros((0, 12, 3)), groups, **settings)
    with pytest.raises(EvaluationError, match="At least one resample"):
        bootstrap_mean(np.ones(12), groups, n_resamples=0, seed=0)
    with pytest.raises(EvaluationError, match="Unknown score 'f1'"):
        paired_bootstrap(targets, probabilities, probabilities, groups, metric="f1", **settings)
    with pytest.raises(EvaluationError, match="same clips"):
        paired_bootstrap(targets, probabilities, probabilities[:-1], groups, **settings)
    with pytest.raises(EvaluationError, match="same clips"):
        mcnemar(np.ones(3), np.ones(4))
    with pytest.raises(EvaluationError, match="2 class names for 3"):
        class_intervals(targets, probabilities, groups, ("a", "b"), **settings)


def test_a_balanced_difference_is_that_of_all_resamples_of_the_groups_of_both_sides():
    """Two groups on each side have four equally likely draws each: all sixteen differences are known."""
    classes, groups = np.array([0, 1, 0, 1]), np.array(list("uuvv"))
    first = (np.array([[1, 1, 1, 1], [1, 0, 1, 1]]), classes, groups)
    second = (np.array([[1, 0, 0, 0]]), classes, groups)
    # Balanced accuracy of u and of v, and of one of each: first (3/4, 1, 7/8), second (1/2, 0, 1/4).
    sides = [np.array([u, v, both, both]) for u, v, both in ((0.75, 1.0, 0.875), (0.5, 0.0, 0.25))]
    every = np.sort((sides[0][:, None] - sides[1][None]).ravel())
    found = balanced_difference(first, second, n_resamples=20_000, seed=0)
    assert found.estimate == pytest.approx(0.875 - 0.25)
    assert (found.low, found.high) == pytest.approx((every[0], every[-1]))
    assert found.p == pytest.approx(2 / 20_001)


def test_a_balanced_difference_of_one_group_alone_has_no_interval():
    one = (np.ones((1, 2)), np.array([0, 1]), np.array(["u", "u"]))
    found = balanced_difference(one, one, n_resamples=50, seed=0)
    assert found.estimate == 0
    assert np.isnan([found.low, found.high, found.p]).all()
