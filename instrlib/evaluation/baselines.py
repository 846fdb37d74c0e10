"""Trivial baselines, fitted on training clips only."""

import numpy as np

from instrlib.core.io import RunError

CHANCE = {"accuracy": "stratified random", "mean_average_precision": "prior"}  # baseline at chance level, by main score
N_CHANCE = 50  # draws of stratified random answers: one alone can be lucky


def single_label(
    train: np.ndarray, targets: np.ndarray, test: np.ndarray, n_classes: int, *, seed: int
) -> dict[str, np.ndarray]:
    """Predict test clips with one label each from mean spectra in dB [shape=(n, n_features)].

    Returns "majority class" and "nearest centroid" [shape=(n_test, n_classes)], and "stratified random"
    [shape=(N_CHANCE, n_test, n_classes)]. The majority class has the shares of the classes as probabilities. The
    stratified random answers order the classes by repeated draws from these shares (Plackett, 1975,
    doi:10.2307/2346567). The nearest centroid is a Gaussian around the mean of each class, with one variance for all;
    it is overconfident, because features are correlated.
    """
    from scipy.spatial.distance import cdist
    from scipy.special import softmax

    shares = np.bincount(targets, minlength=n_classes) / len(targets)
    race = shares / np.random.default_rng(seed).exponential(size=(N_CHANCE, len(test), n_classes))
    present, codes = np.unique(targets, return_inverse=True)
    centroids = np.stack([train[targets == one].mean(axis=0) for one in present])
    variance = max(((train - centroids[codes]) ** 2).mean(), 1e-12)
    nearest = np.zeros((len(test), n_classes))
    nearest[:, present] = softmax(-cdist(test, centroids, "sqeuclidean") / (2 * variance), axis=1)
    return {
        "majority class": np.tile(shares, (len(test), 1)),
        "stratified random": race / race.sum(axis=-1, keepdims=True),
        "nearest centroid": nearest,
    }


def several_labels(labels: np.ndarray, n_test: int) -> dict[str, np.ndarray]:
    """Predict `n_test` clips that may have several labels, at thresholds of 0.5 [shape=(n_test, n_classes)].

    `labels` [shape=(n_train, n_classes)] are 1 present, 0 absent, NaN not observed. The predictions are "all present",
    "none present", and "prior", the share of each class in the training clips that observe it.
    """
    if not np.isfinite(labels).any(axis=0).all():
        raise RunError("Baselines require training clips that observe every class.")
    answers = {"all present": 1.0, "none present": 0.0, "prior": np.nanmean(labels, axis=0)}
    return {name: np.tile(np.broadcast_to(one, labels.shape[1]), (n_test, 1)) for name, one in answers.items()}
