"""Calibrated probabilities mean what they say, and thresholds keep what they promise; both from validation alone."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from instrlib.evaluation.calibration import (
    TEMPERATURES,
    answer_thresholds,
    fit_label_temperature,
    fit_temperature,
    refusals,
    sigmoid,
    softmax,
)
from instrlib.evaluation.metrics import clip_probabilities, scores

N_CLASSES = 4


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a network that is too sure by a factor, and classes drawn from what it should have said."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, N_CLASSES))
    targets = np.array([rng.choice(N_CLASSES, p=one) for one in softmax(logits)])
    return logits * temperature, targets


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_temperature_by_which_a_network_is_too_sure_is_found(temperature):
    logits, targets = drawn(20_000, temperature)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.03)


def test_calibrated_answers_are_as_often_right_as_they_say_on_other_clips():
    temperature = fit_temperature(*drawn(4000, 3.0))
    logits, targets = drawn(4000, 3.0, seed=1)
    before, after = (scores(targets, softmax(logits, one))["expected_calibration_error"] for one in (1, temperature))
    assert before > 0.1 and after < 0.03
    assert (softmax(logits).argmax(axis=1) == softmax(logits, temperature).argmax(axis=1)).all()


def test_of_clips_of_several_segments_the_mean_of_their_probabilities_is_calibrated():
    logits, targets = drawn(300, 4.0)
    clip_index = np.repeat(np.arange(100), 3)
    of_clip = targets[::3]

    def log_loss(temperature: float) -> float:
        return scores(of_clip, clip_probabilities(softmax(logits, temperature), clip_index))["log_loss"]

    found = fit_temperature(logits, of_clip, clip_index)
    assert log_loss(found) <= min(log_loss(one) for one in np.geomspace(0.06, 19, 400)) + 1e-6
    assert found != pytest.approx(fit_temperature(logits, targets), rel=0.05)


def test_segments_of_one_clip_need_not_follow_each_other_nor_be_as_many():
    logits, targets = drawn(60, 2.0)
    clip_index = np.random.default_rng(0).permutation(np.r_[np.arange(20), np.repeat(np.arange(10), 4)])
    order = np.argsort(clip_index, kind="stable")
    found = fit_temperature(logits, targets[:20], clip_index)
    assert found == pytest.approx(fit_temperature(logits[order], targets[:20], clip_index[order]), rel=1e-6)


def test_a_network_that_errs_nowhere_and_one_that_knows_nothing_get_a_temperature_within_the_limits():
    right = np.eye(N_CLASSES)[[0, 1, 2, 3]] * 5
    assert TEMPERATURES[0] < fit_temperature(right, np.arange(4)) < 0.2
    assert fit_temperature(right, np.array([1, 2, 3, 0])) == pytest.approx(TEMPERATURES[1], rel=0.01)
    assert np.isfinite(fit_temperature(right * 1e4, np.array([1, 2, 3, 0])))


def test_of_several_labels_only_what_was_observed_counts():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3000, N_CLASSES))
    labels = (rng.random(logits.shape) < sigmoid(logits)).astype(float)
    lied = np.where(rng.random(logits.shape) < 0.5, np.nan, labels)
    assert fit_label_temperature(2.5 * logits, lied) == pytest.approx(2.5, rel=0.05)
    best = minimize_scalar(lambda t: scores(lied, sigmoid(2.5 * logits, t))["log_loss"], bounds=(0.1, 10))
    assert fit_label_temperature(2.5 * logits, lied) == pytest.approx(best.x, rel=1e-3)


def test_probabilities_of_extreme_logits_are_finite():
    extreme = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    for values in (softmax(extreme), sigmoid(extreme)):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(softmax(extreme).sum(axis=1), 1)


def answers(sure: np.ndarray, classes: np.ndarray, n_classes: int = 3) -> np.ndarray:
    """Return probabilities whose largest is `sure`, on `classes`."""
    made = np.repeat((1 - sure)[:, None] / (n_classes - 1), n_classes, axis=1)
    made[np.arange(len(sure)), classes] = sure
    return made


def test_a_threshold_is_reached_by_nineteen_of_twenty_right_answers_of_its_class():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 200)
    sure = np.where(classes == 0, rng.uniform(0.5, 1, 400), rng.uniform(0.8, 1, 400))
    thresholds = answer_thresholds(classes, answers(sure, classes))
    for number in (0, 1):
        reached = sure[classes == number] >= thresholds[number]
        assert 0.95 <= reached.mean() < 0.97
    assert thresholds[1] > 0.8 > thresholds[0]


def test_wrong_answers_move_no_threshold_and_a_class_with_few_right_ones_gets_that_of_all():
    classes = np.r_[np.zeros(100, int), np.ones(5, int)]
    sure = np.r_[np.linspace(0.5, 0.99, 100), np.full(5, 0.95)]
    alone = answer_thresholds(classes, answers(sure, classes))
    assert alone[1] == alone[2] != alone[0]
    targets = np.r_[classes, np.zeros(50, int)]
    wrong = answers(np.full(50, 0.99), np.ones(50, int))
    with_wrong = answer_thresholds(targets, np.concatenate([answers(sure, classes), wrong]))
    np.testing.assert_array_equal(alone, with_wrong)
    nothing_right = answer_thresholds(np.zeros(3, int), answers(np.full(3, 0.9), np.ones(3, int)))
    assert nothing_right.tolist() == [0, 0, 0]


def test_the_effect_of_thresholds_is_counted_by_right_and_wrong_answers():
    probabilities = answers(np.array([0.9, 0.6, 0.9, 0.6, 0.6]), np.array([0, 0, 1, 1, 2]))
    found = refusals(np.array([0, 0, 0, 0, 0]), probabilities, np.array([0.8, 0.7, 0.5]))
    assert found == {
        "named": 3 / 5, "right_lost": 1 / 2, "wrong_refused": 1 / 3, "accuracy": 2 / 5, "accuracy_of_named": 1 / 3,
    }  # fmt: skip
    assert np.isnan(refusals(np.array([0]), probabilities[:1], np.full(3, 0.95))["accuracy_of_named"])


def test_what_predictions_need_of_this_is_numpy_alone():
    code = "import sys, instrlib.evaluation.calibration; print({'scipy', 'pandas', 'tensorflow'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
