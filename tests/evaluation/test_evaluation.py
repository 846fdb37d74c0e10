"""Scores are scikit-learn's, probabilities calibrated, intervals cover what they should, and differences are paired."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import NearestCentroid

from instrlib.core.io import RunError
from instrlib.evaluation import baselines, calibration, metrics, statistics
from instrlib.evaluation.calibration import answer_thresholds, fit_label_temperature, fit_temperature, sigmoid, softmax
from instrlib.evaluation.metrics import best_thresholds, clip_probabilities, scores
from instrlib.evaluation.predictions import confusion, join_folds, join_seeds, reliability
from instrlib.evaluation.statistics import compare, holm, score_table

DRAWS = {"n_resamples": 400, "seed": 0}


def single(n_clips: int = 300, n_classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(n_clips, n_classes)), rng.integers(0, n_classes, n_clips)
    answers = np.exp(logits + np.eye(n_classes)[targets])
    return targets, answers / answers.sum(axis=1, keepdims=True)


def several(n_clips: int = 60, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, some of them hidden, and answers that know something of them; rounded, so that some are tied."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, n_classes)) < np.linspace(0.2, 0.7, n_classes)).astype(float)
    answers = np.clip(labels * 0.3 + rng.random((n_clips, n_classes)) * 0.7, 0, 1).round(1)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return labels, answers


def class_scores(truth: np.ndarray, answers: np.ndarray, thresholds: np.ndarray | float = 0.5) -> dict:
    found = metrics.weighted_class_scores(metrics.clip_terms(truth, answers, thresholds), np.ones((1, len(answers))))
    return {name: values[0] for name, values in found.items()}


@pytest.mark.parametrize("n_classes", [4, 12, 41])
def test_scores_of_one_label_are_scikit_learns(n_classes):
    targets, answers = single(500, n_classes)
    found, answered, every = scores(targets, answers), answers.argmax(axis=1), range(n_classes)
    macro = reference.precision_recall_fscore_support(targets, answered, average="macro", zero_division=0)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(targets, answered))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(targets, answered))
    assert [found[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert found["top3_accuracy"] == pytest.approx(reference.top_k_accuracy_score(targets, answers, k=3, labels=every))
    assert found["log_loss"] == pytest.approx(reference.log_loss(targets, answers, labels=every))
    half = scores(targets, answers.astype(np.float16))
    assert half["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)


@pytest.mark.parametrize("made", [single(80, 4), several()])
def test_weighted_scores_are_those_of_repeated_clips(made):
    truth, answers = made
    weights = np.random.default_rng(1).integers(0, 3, size=(5, len(truth)))
    weights[0, truth == 2 if truth.ndim == 1 else truth[:, 2] == 1] = 0  # a draw may lack a class
    found = metrics.weighted_scores(metrics.clip_terms(truth, answers, 0.4), weights.astype(float))
    for row, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(truth)), weight)
        assert {name: one[row] for name, one in found.items()} == pytest.approx(scores(truth[rows], answers[rows], 0.4))


def test_ties_absent_classes_and_certain_errors_count_as_defined():
    found = clip_probabilities(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([7, 2, 7]))
    assert found.tolist() == [[0, 1], [0.75, 0.25]]  # means in the order of the clips' numbers
    answers = np.tile([0.4, 0.3, 0.2, 0.1], (4, 1))
    assert scores(np.arange(4), answers)["map_at_3"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 0) / 4)
    assert scores(np.array([0, 1]), np.full((2, 2), 0.5))["accuracy"] == 0.5  # of equal ones the first is the answer
    answers = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    found = class_scores(np.array([0, 1]), answers)  # the second class is never answered, the third has no clips
    assert found["precision"][1] == 0 and np.isnan([values[2] for values in found.values()]).all()
    assert scores(np.array([0, 1]), answers)["macro_recall"] == 0.5
    wrong = scores(np.array([1]), np.array([[1.0, 0.0]], dtype=np.float32))
    assert wrong["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_the_calibration_error_follows_its_definition_bin_by_bin():
    targets, answers = single(500)
    confidence, correct = answers.max(axis=1), answers.argmax(axis=1) == targets
    inside = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
    gaps = [one.mean() * abs(correct[one].mean() - confidence[one].mean()) for one in inside if one.any()]
    assert scores(targets, answers)["expected_calibration_error"] == pytest.approx(sum(gaps))
    bins = reliability({"targets": targets, "probabilities": np.stack([answers, answers[:, ::-1]])})
    mirrored = scores(targets, answers[:, ::-1])["expected_calibration_error"]
    assert bins["ece"] == pytest.approx((sum(gaps) + mirrored) / 2) and bins["share"].sum() == pytest.approx(1)
    labels = np.array([[1, 0], [1, np.nan], [0, 1], [1, np.nan]])
    found = reliability({"labels": labels, "probabilities": np.array([[1.0, 0.25], [1.0, 0.9]] * 2)})
    filled = np.stack([found[name][found["share"] > 0] for name in ("confidence", "accuracy", "share")])
    np.testing.assert_allclose(filled, [[0.25, 1], [0.5, 0.75], [1 / 3, 2 / 3]])


def test_scores_of_several_labels_are_scikit_learns_on_what_was_observed():
    labels, answers = several()
    thresholds = np.array([0.3, 0.4, 0.5, 0.6])
    by_class, observed, decisions = (
        class_scores(labels, answers, thresholds),
        np.isfinite(labels),
        answers >= thresholds,
    )
    for number, seen in enumerate(observed.T):
        true, given, decided = (one[seen, number] for one in (labels, answers, decisions))
        expected = {name: getattr(reference, f"{name}_score")(true, given) for name in ("average_precision", "roc_auc")}
        expected |= {name: getattr(reference, f"{name}_score")(true, decided) for name in ("precision", "recall", "f1")}
        assert {name: values[number] for name, values in by_class.items()} == pytest.approx(expected)
    true, given, decided = (one[observed] for one in (labels, answers, decisions))
    columns = {"mean_average_precision": "average_precision", "roc_auc": "roc_auc", "macro_f1": "f1"}
    means = {name: by_class[column].mean() for name, column in columns.items()}
    expected = {"micro_f1": reference.f1_score(true, decided), "hamming_loss": reference.hamming_loss(true, decided)}
    expected |= {"brier": reference.brier_score_loss(true, given)} | means
    expected["log_loss"] = reference.log_loss(true, np.clip(given, 1.2e-7, 1))
    found = scores(labels, answers, thresholds)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    # A class with one kind of label is left out of the means.
    always = np.where(observed[:, :1], 1.0, np.nan)
    wider = scores(np.hstack([labels, always]), np.hstack([answers, answers[:, :1]]), [*thresholds, 0.5])
    assert {name: wider[name] for name in means} == pytest.approx(means)
    assert np.isnan(scores(always, answers[:, :1])["mean_average_precision"])


def test_the_threshold_of_a_class_has_the_best_f1_of_all():
    labels, answers = several(seed=3)
    thresholds, unknown = best_thresholds(labels, answers)
    best = class_scores(labels, answers, thresholds)["f1"]
    assert unknown.size == 0
    assert all((class_scores(labels, answers, value)["f1"] <= best + 1e-12).all() for value in np.linspace(0, 1, 51))
    labels[labels[:, 1] == 1, 1] = np.nan
    thresholds, unknown = best_thresholds(labels, answers)
    assert unknown.tolist() == [1] and thresholds[1] == 0.5


def test_confusion_counts_answers_and_false_alarms():
    targets, answers = single(200, 7)
    expected = reference.confusion_matrix(targets, answers.argmax(axis=1), labels=range(7))
    found = confusion({"targets": targets, "probabilities": np.stack([answers, answers])})
    np.testing.assert_array_equal(found, 2 * expected)
    labels = np.array([[1, 0, np.nan], [1, 1, 0], [np.nan, 0, 1]])
    answers = np.array([[0.9, 0.8, 0.9], [0.2, 0.9, 0.1], [0.9, 0.7, 0.9]])
    found = confusion({"labels": labels, "probabilities": answers})
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1]]


def test_baselines_are_scikit_learns_and_random_answers_are_drawn_without_replacement():
    rng, targets = np.random.default_rng(99), np.repeat([0, 1, 2, 3], [10, 40, 30, 20])
    means, classes = rng.normal(-40, 10, size=(4, 16)), (targets, np.arange(200) % 4)
    train, test = (means[one] + rng.normal(scale=12, size=(len(one), 16)) for one in classes)
    answers = baselines.single_label(train, targets, test, 4, seed=0)
    prior = DummyClassifier(strategy="prior").fit(train, targets).predict_proba(test)
    np.testing.assert_allclose(answers["majority class"], prior)
    nearest = NearestCentroid().fit(train, targets).predict(test)
    np.testing.assert_array_equal(answers["nearest centroid"].argmax(axis=1), nearest)
    first, second = np.argsort(-answers["stratified random"].reshape(-1, 4), axis=1).T[:2]
    for found, shares in ((first, [0.1, 0.4, 0.3, 0.2]), (second[first == 1], [1 / 6, 0, 3 / 6, 2 / 6])):
        np.testing.assert_allclose(np.bincount(found, minlength=4) / len(found), shares, atol=0.03)
    rare = targets % 2 == 0  # a class without training clips is never predicted, and far spectra stay finite
    for found in baselines.single_label(train[rare], targets[rare], 1e4 + test, 4, seed=0).values():
        assert (found[..., [1, 3]] == 0).all()
        np.testing.assert_allclose(found.sum(axis=-1), 1)


@pytest.mark.parametrize(
    ("truth", "answers", "place"),
    [
        ([0], [[0.5, 0.5], [0.5, 0.5]], "shape"),
        ([2], [[0.5, 0.5]], "0 to 1"),
        ([0, 0, 0], [[0.5, 0.5], [np.nan, 0.5], [0.1, 0.1]], "2 of 3 clips .* row 1"),
        ([[np.nan, np.nan]], [[0.5, 0.5]], "observed"),
        ([[2, 0]], [[0.5, 0.5]], "NaN"),
        ([[1, 0]], [[1.5, 0.5]], "row 0"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused(truth, answers, place):
    with pytest.raises(RunError, match=place):
        scores(np.asarray(truth), np.array(answers))


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a network that is too sure by a factor, and classes drawn from what it should have said."""
    logits = np.random.default_rng(seed).normal(0, 2, (n, 4))
    noise = np.random.default_rng(seed + 99).gumbel(size=logits.shape)
    return logits * temperature, (logits + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_temperature_by_which_a_network_is_too_sure_is_found_and_holds_on_other_clips(temperature):
    found = fit_temperature(*drawn(20_000, temperature))
    assert found == pytest.approx(temperature, rel=0.03)
    logits, targets = drawn(4000, temperature, seed=1)
    assert scores(targets, softmax(logits, found))["expected_calibration_error"] < 0.03
    labels = (np.random.default_rng(0).random(logits.shape) < sigmoid(logits / temperature)).astype(float)
    labels[np.random.default_rng(1).random(logits.shape) < 0.5] = np.nan  # only what was observed counts
    assert fit_label_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_the_mean_over_the_segments_of_a_clip_is_calibrated_in_any_order():
    logits, targets = drawn(300, 4.0)
    clip_index = np.random.default_rng(0).permutation(np.r_[np.arange(100), np.repeat(np.arange(50), 4)])
    found = fit_temperature(logits, targets[:100], clip_index)
    log_loss = [
        scores(targets[:100], clip_probabilities(softmax(logits, temperature), clip_index))["log_loss"]
        for temperature in (found, *np.geomspace(0.06, 19, 400))
    ]
    assert log_loss[0] <= min(log_loss) + 1e-6


def answers_of(sure: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return probabilities of three classes whose largest is `sure`, on `classes`."""
    return np.where(classes[:, None] == np.arange(3), sure[:, None], (1 - sure[:, None]) / 2)


def test_a_threshold_is_reached_by_nineteen_of_twenty_right_answers_of_its_class_or_of_all_if_these_are_few():
    classes = np.r_[np.repeat([0, 1], 200), np.full(5, 2)]
    sure = np.random.default_rng(0).uniform(np.where(classes == 0, 0.5, 0.8), 1)
    thresholds = answer_thresholds(classes, answers_of(sure, classes))
    for right in (classes == 0, classes == 1, classes < 3):
        assert 0.95 <= (sure[right] >= thresholds[classes[right][-1]]).mean() < 0.97
    wrong = answers_of(np.full(50, 0.99), np.ones(50, int))
    mixed = answer_thresholds(np.r_[classes, np.zeros(50, int)], np.concatenate([answers_of(sure, classes), wrong]))
    np.testing.assert_array_equal(thresholds, mixed)
    assert answer_thresholds(np.zeros(50, int), wrong).tolist() == [0, 0, 0]


def test_the_effect_of_thresholds_is_counted_by_right_and_wrong_answers_of():
    probabilities = answers_of(np.array([0.9, 0.6, 0.9, 0.6, 0.6]), np.array([0, 0, 1, 1, 2]))
    found = calibration.refusals(np.zeros(5, int), probabilities, np.array([0.8, 0.7, 0.5]))
    expected = {"named": 3 / 5, "right_lost": 1 / 2, "wrong_refused": 1 / 3, "accuracy": 2 / 5}
    assert found == expected | {"accuracy_of_named": 1 / 3}
    assert np.isnan(calibration.refusals(np.array([0]), probabilities[:1], np.full(3, 0.95))["accuracy_of_named"])


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


def labelled() -> dict:
    labels, answers = several()
    made = {"clip_id": np.arange(60).astype(str), "group": np.arange(60) // 3, "targets": np.zeros(60, int)}
    return made | {
        "labels": labels,
        "probabilities": np.stack([answers, answers**2]),
        "thresholds": np.full((2, 4), 0.5),
    }


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
        inside = [low <= 0 <= high for low, high in map(statistics.ends, both)]
        covered.append([*inside, statistics.p_value(both[0]) >= 0.05])
    of_groups, of_clips, not_significant = np.mean(covered, axis=0)
    assert 0.89 <= of_groups <= 0.98 and of_clips < 0.75 and 0.89 <= not_significant <= 0.98


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


def test_a_difference_is_paired_by_clip_and_seed():
    models = {"a": predictions(0.9, seed=1), "b": predictions(0.6)}
    right = {name: (one["probabilities"].argmax(-1) == one["targets"]).mean() for name, one in models.items()}
    row = compare(models, against="b", **DRAWS).loc[("a", "b")]
    assert row.difference == pytest.approx(right["a"] - right["b"])
    assert row.low > 0 and row.verdict == "better" and row.p_holm == row.p < 0.05
    turned = compare(models, pairs=[("b", "a")], **DRAWS).iloc[0]
    assert (turned.difference, turned.low, turned.verdict) == pytest.approx((-row.difference, -row.high, "worse"))
    row = compare(models, against="b", score="log_loss", **DRAWS).iloc[0]
    assert row.high < 0 and row.verdict == "better"  # a lower loss
    mended = np.random.default_rng(2).random((120, 1)) < 0.2  # b with some errors corrected
    same = np.where(mended, models["a"]["probabilities"], models["b"]["probabilities"])
    models |= {"same": models["b"] | {"probabilities": same}, "alone": predictions(0.66, seed=9)}
    paired, alone = (compare(models, pairs=[(name, "b")], **DRAWS).iloc[0] for name in ("same", "alone"))
    assert paired.high - paired.low < 0.9 * (alone.high - alone.low)
    models = {"model": labelled()}
    models["oracle"] = models["model"] | {"probabilities": np.nan_to_num(models["model"]["labels"]), "thresholds": 0.5}
    row = compare(models, against="model", **DRAWS).iloc[0]
    table = score_table(models, **DRAWS).set_index(["model", "score"])
    assert row.difference == pytest.approx(1 - table.estimate["model", "mean_average_precision"])


def test_absence_of_evidence_is_inconclusive_with_the_difference_that_could_have_been_found():
    for n_groups, verdict in ((40, "inconclusive"), (300, "equivalent")):
        made = predictions(0.7, n_groups=n_groups)
        row = compare({"a": made, "b": dict(made)}, against="b", margin=0.02, **DRAWS).iloc[0]
        assert (row.difference, row.p, row.verdict) == (0, 1, verdict)
        assert row.detectable > 2 / n_groups  # identical answers do not show that a study finds any difference
    models = {"a": predictions(0.7, seed=8), "b": predictions(0.7, seed=7), "c": predictions(0.71, seed=2)}
    row = compare(models, pairs=[("a", "b")], margin=0.01, **DRAWS).iloc[0]
    assert row.verdict == "inconclusive"
    assert row.detectable == pytest.approx(2.80 * (row.high - row.low) / (2 * 1.96), rel=0.1)
    more = compare(models, against="b", margin=0.01, **DRAWS)
    assert more.detectable.iloc[0] > row.detectable  # the price of a larger family


def test_the_family_is_corrected_by_holm_once_and_has_resamples_enough():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])  # the published example
    np.testing.assert_allclose(holm([0.6, np.nan, 0.7]), [1, np.nan, 1])
    models = {"a": predictions(0.7), "b": predictions(0.95, seed=1), "c": predictions(0.75, seed=2)}
    table = compare(models, against="a", n_resamples=10, seed=0)
    assert table.index.tolist() == [("b", "a"), ("c", "a")] and table.p_holm.tolist() == holm(table.p).tolist()
    assert table.p_holm.iloc[0] < 0.05  # with ten resamples no p could be
    assert compare({"a": models["a"]}, against="a", **DRAWS).to_dict("list") == {name: [] for name in table}


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
    worse = made["probabilities"].copy()
    worse[:, :3] = worse[:, :3, [1, 2, 0]]  # the pruned one gains three clips
    models = {"pruned": made, "dense": made | {"probabilities": worse}}
    row = compare(models, against="dense", margin=0.01, **DRAWS).iloc[0]
    assert row.difference > 0 and row.low >= 0 and row.bound > 0.01
    dense, worse = (predictions(share, n_groups=1000, per_group=1) for share in (0.9, 0.8))
    bounds = compare({"same": dict(dense), "worse": worse, "dense": dense}, against="dense", **DRAWS).bound
    assert bounds["same", "dense"] < 0.01 and bounds["worse", "dense"] > 0.05


def test_folds_are_joined_by_clip_and_keep_their_thresholds():
    made, halves = labelled(), []
    made["probabilities"] = made["probabilities"][0]
    for rows, bar in ((np.arange(30, 60), 0.6), (np.arange(30), 0.4)):
        own = {name: one[rows] for name, one in made.items() if name != "thresholds"}
        halves.append(own | {"thresholds": np.full(4, bar)})
    joined, order = join_seeds([halves, halves]), np.argsort(made["clip_id"])
    np.testing.assert_array_equal(joined["labels"], made["labels"][order])
    np.testing.assert_array_equal(joined["probabilities"], [made["probabilities"][order]] * 2)
    np.testing.assert_array_equal(joined["thresholds"], np.tile(np.where(order < 30, 0.4, 0.6)[:, None], (2, 1, 4)))
    with pytest.raises(RunError):
        join_folds([halves[0], halves[0]])
