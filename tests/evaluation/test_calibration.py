"""Calibrated probabilities mean what they say, and thresholds keep what they promise; both from validation alone."""

import numpy as np
import pytest

from instrlib.evaluation import calibration
from instrlib.evaluation.calibration import answer_thresholds, fit_label_temperature, fit_temperature, sigmoid, softmax
from instrlib.evaluation.metrics import clip_probabilities, scores


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

    def log_loss(temperature: float) -> float:
        return scores(targets[:100], clip_probabilities(softmax(logits, temperature), clip_index))["log_loss"]

    found = fit_temperature(logits, targets[:100], clip_index)
    assert log_loss(found) <= min(log_loss(one) for one in np.geomspace(0.06, 19, 400)) + 1e-6
    order = np.argsort(clip_index, kind="stable")
    assert found == pytest.approx(fit_temperature(logits[order], targets[:100], clip_index[order]), rel=1e-6)


def test_a_network_that_errs_nowhere_and_one_that_knows_nothing_get_a_temperature_within_the_limits():
    right, wrong = np.eye(4) * 5, np.array([1, 2, 3, 0])
    assert calibration.TEMPERATURES[0] < fit_temperature(right, np.arange(4)) < 0.2
    assert fit_temperature(right, wrong) == pytest.approx(calibration.TEMPERATURES[1], rel=0.01)
    assert np.isfinite(fit_temperature(right * 1e4, wrong))
    extreme = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    assert np.isfinite(sigmoid(extreme)).all()
    np.testing.assert_allclose(softmax(extreme).sum(axis=1), 1)


def answers(sure: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return probabilities of three classes whose largest is `sure`, on `classes`."""
    return np.where(classes[:, None] == np.arange(3), sure[:, None], (1 - sure[:, None]) / 2)


def test_a_threshold_is_reached_by_nineteen_of_twenty_right_answers_of_its_class_or_of_all_if_these_are_few():
    classes = np.r_[np.repeat([0, 1], 200), np.full(5, 2)]
    sure = np.random.default_rng(0).uniform(np.where(classes == 0, 0.5, 0.8), 1)
    thresholds = answer_thresholds(classes, answers(sure, classes))
    for right in (classes == 0, classes == 1, classes < 3):
        assert 0.95 <= (sure[right] >= thresholds[classes[right][-1]]).mean() < 0.97
    wrong = answers(np.full(50, 0.99), np.ones(50, int))
    mixed = answer_thresholds(np.r_[classes, np.zeros(50, int)], np.concatenate([answers(sure, classes), wrong]))
    np.testing.assert_array_equal(thresholds, mixed)
    assert answer_thresholds(np.zeros(50, int), wrong).tolist() == [0, 0, 0]


def test_the_effect_of_thresholds_is_counted_by_right_and_wrong_answers():
    probabilities = answers(np.array([0.9, 0.6, 0.9, 0.6, 0.6]), np.array([0, 0, 1, 1, 2]))
    found = calibration.refusals(np.zeros(5, int), probabilities, np.array([0.8, 0.7, 0.5]))
    expected = {"named": 3 / 5, "right_lost": 1 / 2, "wrong_refused": 1 / 3, "accuracy": 2 / 5}
    assert found == expected | {"accuracy_of_named": 1 / 3}
    assert np.isnan(calibration.refusals(np.array([0]), probabilities[:1], np.full(3, 0.95))["accuracy_of_named"])
