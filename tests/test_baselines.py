"""Trivial baselines see the training part alone and answer in a model's form."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from instrlib.core.errors import EvaluationError
from instrlib.evaluation.baselines import majority, nearest_mean_spectrum, stratified_chance
from instrlib.evaluation.metrics import scores

TRAIN = np.repeat([0, 1, 2, 3], [10, 40, 30, 20])


def spectra(targets: np.ndarray, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(-40, 10, size=(4, 16))
    return means[targets] + rng.normal(scale=12, size=(len(targets), 16))


def test_majority_answers_the_most_frequent_training_class_with_the_training_shares():
    answers = majority(TRAIN, 5, 4)
    np.testing.assert_allclose(answers, np.tile([0.1, 0.4, 0.3, 0.2], (5, 1)))
    assert scores(np.array([1, 1, 1, 0, 2]), answers)["accuracy"] == pytest.approx(3 / 5)


def test_majority_has_the_entropy_of_the_shares_as_log_loss():
    shares = np.array([0.1, 0.4, 0.3, 0.2])
    found = scores(TRAIN, majority(TRAIN, len(TRAIN), 4))
    assert found["log_loss"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert found["expected_calibration_error"] == pytest.approx(0, abs=1e-12)


def test_stratified_chance_guesses_each_class_as_often_as_it_occurs_in_training():
    answers = stratified_chance(TRAIN, 40_000, 4, seed=0)
    np.testing.assert_allclose(answers.sum(axis=1), 1)
    guessed = np.bincount(answers.argmax(axis=1), minlength=4) / 40_000
    np.testing.assert_allclose(guessed, [0.1, 0.4, 0.3, 0.2], atol=0.01)
    second = np.argsort(-answers, axis=1)[answers.argmax(axis=1) == 1, 1]
    np.testing.assert_allclose(np.bincount(second, minlength=4) / len(second), [1 / 6, 0, 3 / 6, 2 / 6], atol=0.015)


def test_the_expected_accuracy_of_chance_is_what_the_draws_give_on_average():
    test = np.repeat([0, 1, 2, 3], [5000, 5000, 5000, 25_000])
    expected = (0.1 + 0.4 + 0.3) / 8 + 0.2 * 5 / 8  # the sum over classes of training share times test share
    drawn = scores(test, stratified_chance(TRAIN, len(test), 4, seed=1))["accuracy"]
    assert drawn == pytest.approx(expected, abs=0.01)


def test_the_draws_of_chance_repeat_with_the_seed():
    one, same, other = (stratified_chance(TRAIN, 10, 4, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_class_missing_from_training_is_never_answered():
    train = np.array([0, 0, 2])
    for answers in (
        majority(train, 50, 4),
        stratified_chance(train, 50, 4, seed=0),
        nearest_mean_spectrum(spectra(train, seed=0), train, spectra(np.arange(4), seed=1), n_classes=4),
    ):
        assert answers.shape[1] == 4
        assert (answers[:, [1, 3]] == 0).all()
        np.testing.assert_allclose(answers.sum(axis=1), 1)


def test_nearest_mean_spectrum_answers_as_sklearns_nearest_centroid():
    test = np.arange(200) % 4
    answers = nearest_mean_spectrum(spectra(TRAIN, seed=0), TRAIN, spectra(test, seed=1), n_classes=4)
    reference = NearestCentroid().fit(spectra(TRAIN, seed=0), TRAIN).predict(spectra(test, seed=1))
    np.testing.assert_array_equal(answers.argmax(axis=1), reference)
    assert scores(test, answers)["accuracy"] > 2 * 0.25  # what guessing gives


def test_its_probabilities_are_the_posterior_of_equal_gaussians():
    train = np.array([[0.0], [2.0], [10.0], [12.0]])
    answers = nearest_mean_spectrum(train, np.array([0, 0, 1, 1]), np.array([[6.0], [5.0]]), n_classes=2)
    np.testing.assert_allclose(answers[0], 0.5)
    likelihood = np.exp(-(np.array([4.0, 6.0]) ** 2) / 2)
    np.testing.assert_allclose(answers[1], likelihood / likelihood.sum())


def test_one_training_clip_a_class_or_far_off_spectra_stay_finite():
    train = np.array([[-80.0, 0.0], [0.0, -80.0]])
    answers = nearest_mean_spectrum(train, np.array([0, 1]), np.array([[-1e4, 1e4], [-40.0, -40.0]]), n_classes=2)
    np.testing.assert_allclose(answers, [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize("targets", [np.array([], dtype=int), np.array([0, 4]), np.array([-1])])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(EvaluationError, match="training clips"):
        majority(targets, 3, 4)


def test_spectra_that_do_not_fit_are_refused():
    with pytest.raises(EvaluationError, match="do not fit"):
        nearest_mean_spectrum(np.zeros((2, 3)), np.array([0, 1]), np.zeros((1, 4)), n_classes=2)
