"""Baselines learn from the training part alone; scikit-learn is the reference."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import NearestCentroid

from instrlib.core.io import EvaluationError
from instrlib.evaluation import baselines

TARGETS = np.repeat([0, 1, 2, 3], [10, 40, 30, 20])
TEST = np.arange(200) % 4


def spectra(targets: np.ndarray, *, seed: int) -> np.ndarray:
    means = np.random.default_rng(99).normal(-40, 10, size=(4, 16))
    return means[targets] + np.random.default_rng(seed).normal(scale=12, size=(len(targets), 16))


def test_baselines_are_scikit_learns_and_random_answers_are_drawn_without_replacement():
    train, test = spectra(TARGETS, seed=0), spectra(TEST, seed=1)
    answers = baselines.single_label(train, TARGETS, test, 4, seed=0)
    prior = DummyClassifier(strategy="prior").fit(train, TARGETS).predict_proba(test)
    np.testing.assert_allclose(answers["majority class"], prior)
    nearest = NearestCentroid().fit(train, TARGETS).predict(test)
    np.testing.assert_array_equal(answers["nearest centroid"].argmax(axis=1), nearest)
    drawn = answers["stratified random"].reshape(-1, 4)
    np.testing.assert_allclose(drawn.sum(axis=-1), 1)
    first, second = np.argsort(-drawn, axis=1).T[:2]
    for found, shares in ((first, [0.1, 0.4, 0.3, 0.2]), (second[first == 1], [1 / 6, 0, 3 / 6, 2 / 6])):
        np.testing.assert_allclose(np.bincount(found, minlength=4) / len(found), shares, atol=0.03)


def test_probabilities_of_the_nearest_centroid_are_those_of_equal_gaussians():
    train = np.array([[0.0], [2.0], [10.0], [12.0]])
    found = baselines.single_label(train, np.array([0, 0, 1, 1]), np.array([[6.0], [5.0]]), 2, seed=0)
    likelihood = np.exp(-(np.array([4.0, 6.0]) ** 2) / 2)
    np.testing.assert_allclose(found["nearest centroid"], [[0.5, 0.5], likelihood / likelihood.sum()])


def test_a_class_missing_from_training_is_never_answered_and_far_spectra_stay_finite():
    train, far = np.array([0, 0, 2]), 1e4 + spectra(TEST, seed=1)
    for found in baselines.single_label(spectra(train, seed=0), train, far, 4, seed=0).values():
        assert (found[..., [1, 3]] == 0).all()
        np.testing.assert_allclose(found.sum(axis=-1), 1)


def test_the_prior_counts_what_was_observed():
    labels = np.array([[1, 0], [0, np.nan], [1, 0], [1, np.nan]])
    found = baselines.several_labels(labels, 2)
    assert found["prior"].tolist() == [[0.75, 0.0]] * 2
    assert (found["all present"] == 1).all() and (found["none present"] == 0).all()
    with pytest.raises(EvaluationError):
        baselines.several_labels(np.array([[np.nan, 1.0]]), 1)
