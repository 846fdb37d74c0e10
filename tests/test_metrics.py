"""Scores are what scikit-learn and pencil and paper say they are."""

import numpy as np
import pytest
from sklearn import metrics as reference

from instrlib.core.errors import EvaluationError
from instrlib.evaluation.metrics import (
    SCORES,
    clip_probabilities,
    clip_terms,
    confusion,
    most_confused,
    per_class,
    reliability,
    scores,
    scores_from_sums,
)


def answers(n_clips: int, n_classes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities that are right about half of the time."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(n_classes, size=n_clips)
    logits = rng.normal(size=(n_clips, n_classes))
    logits[np.arange(n_clips), targets] += 1.5
    odds = np.exp(logits)
    return targets, odds / odds.sum(axis=1, keepdims=True)


def by_sklearn(targets, probabilities, weights=None) -> dict[str, float]:
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    weights = np.ones(len(targets)) if weights is None else weights
    occurring = np.unique(targets[weights > 0])
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        targets, predicted, labels=occurring, average="macro", sample_weight=weights, zero_division=0
    )
    return {
        "accuracy": reference.accuracy_score(targets, predicted, sample_weight=weights),
        "balanced_accuracy": recall,
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "top3_accuracy": reference.top_k_accuracy_score(
            targets, probabilities, k=3, labels=classes, sample_weight=weights
        ),
        "log_loss": reference.log_loss(targets, probabilities, labels=classes, sample_weight=weights),
    }


@pytest.mark.parametrize("n_classes", [4, 12, 41])
def test_scores_agree_with_sklearn(n_classes):
    targets, probabilities = answers(300, n_classes)
    found = scores(targets, probabilities)
    assert tuple(found) == SCORES
    for name, value in by_sklearn(targets, probabilities).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(targets, probabilities.argmax(axis=1))
    )


def test_scores_from_weighted_sums_agree_with_sklearn_even_when_a_resample_lacks_a_class():
    targets, probabilities = answers(80, 6)
    weights = np.random.default_rng(1).multinomial(80, np.full(80, 1 / 80)).astype(float)
    weights[targets == 2] = 0
    sums = {name: np.tensordot(weights, term, axes=1) for name, term in clip_terms(targets, probabilities).items()}
    found = scores_from_sums(sums)
    for name, value in by_sklearn(targets, probabilities, weights).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_map_at_3_is_the_mean_reciprocal_rank_within_the_first_three_places():
    probabilities = np.array([[0.4, 0.3, 0.2, 0.1]] * 4)
    assert scores(np.array([0, 1, 2, 3]), probabilities)["map_at_3"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 0) / 4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_with_three_classes_or_fewer_the_true_one_is_always_among_the_top_three(n_classes):
    assert scores(*answers(50, n_classes))["top3_accuracy"] == 1


def test_of_equal_probabilities_the_first_class_is_answered():
    uniform = np.full((4, 4), 0.25)
    found = scores(np.array([0, 1, 2, 3]), uniform)
    assert (found["accuracy"], found["top3_accuracy"]) == (0.25, 0.75)
    assert confusion(np.array([0, 1, 2, 3]), uniform)[:, 0].tolist() == [1, 1, 1, 1]


def test_a_class_that_is_never_answered_has_precision_0_and_one_without_clips_does_not_count():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]])
    found = scores(np.array([0, 1]), probabilities)
    assert found["macro_precision"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["macro_recall"] == pytest.approx((1 + 0) / 2)
    table = per_class(np.array([0, 1]), probabilities, ("a", "b", "c"))
    assert table.loc["b", "precision"] == 0
    assert table.loc["c", ["precision", "recall", "f1"]].isna().all()
    assert table["support"].tolist() == [1, 1, 0]


def test_calibration_error_follows_its_definition_bin_by_bin():
    targets, probabilities = answers(500, 5)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    expected = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert scores(targets, probabilities)["expected_calibration_error"] == pytest.approx(expected, abs=1e-12)
    bins = reliability(targets, probabilities)
    assert bins["ece"] == pytest.approx(expected, abs=1e-12)
    assert bins["share"].sum() == pytest.approx(1)


def test_a_calibrated_forecaster_has_a_small_calibration_error_and_an_overconfident_one_a_large():
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 1, size=20_000)
    probabilities = np.column_stack([first, 1 - first])
    targets = (rng.uniform(size=20_000) > first).astype(int)
    assert scores(targets, probabilities)["expected_calibration_error"] < 0.02
    sure = np.tile([0.99, 0.01], (20_000, 1))
    assert scores(targets, sure)["expected_calibration_error"] == pytest.approx(0.99 - 0.75, abs=0.02)


def test_empty_bins_are_nan_and_full_confidence_falls_into_the_last():
    bins = reliability(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), n_bins=10)
    assert np.isnan(bins["accuracy"][:-1]).all()
    assert (bins["accuracy"][-1], bins["share"][-1], float(bins["ece"])) == (1, 1, 0)


def test_a_certain_wrong_answer_costs_a_finite_log_loss():
    found = scores(np.array([1]), np.array([[1.0, 0.0]], dtype=np.float32))
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_per_class_agrees_with_sklearn_and_its_means_are_the_macro_scores():
    targets, probabilities = answers(200, 7)
    table = per_class(targets, probabilities, tuple("abcdefg"))
    expected = reference.precision_recall_fscore_support(targets, probabilities.argmax(axis=1), zero_division=0)
    for column, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(table[column], values, atol=1e-12)
    found = scores(targets, probabilities)
    assert table["f1"].mean() == pytest.approx(found["macro_f1"])


def test_confusion_has_a_row_for_every_class_even_without_clips():
    counts = confusion(np.array([0, 2]), np.eye(4)[[0, 1]])
    assert counts.shape == (4, 4)
    assert counts.sum() == 2
    assert (counts[0, 0], counts[2, 1]) == (1, 1)


def test_most_confused_orders_by_count_then_share_and_leaves_out_the_diagonal_and_zeros():
    counts = np.array([[50, 2, 0], [2, 3, 0], [0, 5, 40]])
    found = most_confused(counts, ("a", "b", "c"), 10)
    assert found[["true", "predicted", "count"]].values.tolist() == [["c", "b", 5], ["b", "a", 2], ["a", "b", 2]]
    assert found["share"].tolist() == pytest.approx([5 / 45, 2 / 5, 2 / 52])
    assert len(most_confused(counts, ("a", "b", "c"), 1)) == 1
    assert most_confused(np.diag([3, 3]), ("a", "b"), 3).empty


def test_clip_probabilities_are_means_in_the_order_of_the_clip_numbers():
    rng = np.random.default_rng(0)
    index = rng.permutation(np.repeat([7, 3, 9], [1, 4, 2]))
    segments = rng.dirichlet(np.ones(5), size=7)
    found = clip_probabilities(segments, index)
    np.testing.assert_allclose(found, [segments[index == clip].mean(axis=0) for clip in (3, 7, 9)])
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("targets", "probabilities", "message"),
    [
        ([0], [[0.5, np.nan]], "diverged"),
        ([0], [[0.9, 0.9]], "sum 1"),
        ([0], [[1.5, -0.5]], "not below 0"),
        ([2], [[0.5, 0.5]], "from 0 to 1"),
        ([-1], [[0.5, 0.5]], "from 0 to 1"),
        ([0.0], [[0.5, 0.5]], "whole numbers"),
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([], np.zeros((0, 2)), "at least one clip"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused_in_one_sentence(targets, probabilities, message):
    with pytest.raises(EvaluationError, match=message):
        scores(np.asarray(targets), np.asarray(probabilities))


def test_names_or_clip_numbers_that_do_not_fit_are_refused():
    with pytest.raises(EvaluationError, match="3 class names for 2"):
        per_class(np.array([0]), np.array([[0.5, 0.5]]), ("a", "b", "c"))
    with pytest.raises(EvaluationError, match="each segment"):
        clip_probabilities(np.full((3, 2), 0.5), np.array([0, 1]))


def test_probabilities_stored_in_half_precision_are_accepted():
    targets, probabilities = answers(100, 41)
    stored = probabilities.astype(np.float16)
    assert scores(targets, stored)["log_loss"] == pytest.approx(scores(targets, probabilities)["log_loss"], abs=1e-3)
