"""Trivial baselines: what a model must beat before it has learned anything. Fitted on training rows alone.

They answer with probabilities of the same shape as a model's, so that the same evaluation applies.
"""

import numpy as np

from instrlib.core.errors import EvaluationError


def majority(targets_train: np.ndarray, n_test: int, n_classes: int) -> np.ndarray:
    """Answer every clip with the classes' shares of the training part.

    The class answered is the most frequent one (of equal ones the first), and no other answer that ignores the sound
    has a lower expected log loss.

    Parameters
    ----------
    targets_train : np.ndarray of int [shape=(n_train,)]
        Classes of the training part.
    n_test : int
        Number of clips to answer.
    n_classes : int
        Number of classes.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]

    Raises
    ------
    EvaluationError
        When there are no training clips, or a target is not a class.

    Examples
    --------
    >>> majority(np.array([0, 1, 1, 1]), 1, 2)
    array([[0.25, 0.75]])
    """
    return np.tile(_shares(targets_train, n_classes), (n_test, 1))


def stratified_chance(targets_train: np.ndarray, n_test: int, n_classes: int, *, seed: int) -> np.ndarray:
    """Guess every clip at random, each class as often as in the training part.

    The most probable class is a draw from the shares; the second a draw from the shares of those left, and so on, so
    that top-3 scores are chance as well. Done by an exponential race: share / Exp(1), normalised [1]_.

    Parameters
    ----------
    targets_train, n_test, n_classes
        As for `majority`.
    seed : int
        Seed of the draws.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]

    Raises
    ------
    EvaluationError
        As for `majority`.

    References
    ----------
    .. [1] R. L. Plackett, "The analysis of permutations", J. R. Stat. Soc. C 24(2), 1975. doi:10.2307/2346567

    Examples
    --------
    >>> answers = stratified_chance(np.array([0, 1, 1, 1]), 10_000, 2, seed=0)
    >>> float(answers.argmax(axis=1).mean().round(2))
    0.75
    """
    shares = _shares(targets_train, n_classes)
    race = shares / np.random.default_rng(seed).exponential(size=(n_test, n_classes))
    return race / race.sum(axis=1, keepdims=True)


def nearest_mean_spectrum(
    train_spectra: np.ndarray, targets_train: np.ndarray, test_spectra: np.ndarray, *, n_classes: int
) -> np.ndarray:
    """Compare each clip's mean spectrum with the mean of every class.

    The class answered is the one whose mean is nearest (Euclidean distance). The probabilities are those of a
    Gaussian around each mean with one variance for all classes and bins, the training part's around its own means;
    bins go together in real spectra, so they are too sure of themselves.

    Parameters
    ----------
    train_spectra : np.ndarray [shape=(n_train, n_bins)]
        Mean spectrum of each training clip, in dB.
    targets_train : np.ndarray of int [shape=(n_train,)]
        Their classes. A class without clips gets probability 0.
    test_spectra : np.ndarray [shape=(n_test, n_bins)]
        Mean spectrum of each clip to answer, in dB.
    n_classes : int
        Number of classes.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]

    Raises
    ------
    EvaluationError
        As for `majority`; when the shapes do not agree.

    Examples
    --------
    >>> train = np.array([[-40.0, -20.0], [-42.0, -22.0], [-20.0, -40.0], [-18.0, -42.0]])
    >>> nearest_mean_spectrum(train, np.array([0, 0, 1, 1]), np.array([[-39.0, -25.0]]), n_classes=2).round(3)
    array([[1., 0.]])
    """
    from scipy.spatial.distance import cdist

    train = np.asarray(train_spectra, dtype=np.float64)
    test = np.asarray(test_spectra, dtype=np.float64)
    targets = np.asarray(targets_train)
    present = np.flatnonzero(_shares(targets, n_classes))
    if train.ndim != 2 or train.shape[:1] != targets.shape or test.ndim != 2 or test.shape[1] != train.shape[1]:
        raise EvaluationError(
            f"The spectra do not fit: training {train.shape} with targets {targets.shape}, test {test.shape}."
        )
    means = np.stack([train[targets == number].mean(axis=0) for number in present])
    variance = ((train - means[np.searchsorted(present, targets)]) ** 2).mean()
    distance = cdist(test, means, "sqeuclidean")
    # One clip a class leaves no variance: then the nearest mean gets all of the probability.
    nearer = -(distance - distance.min(axis=1, keepdims=True)) / (2 * max(variance, 1e-12))
    probabilities = np.zeros((len(test), n_classes))
    probabilities[:, present] = np.exp(nearer)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def all_present(n_test: int, n_classes: int) -> np.ndarray:
    """Answer that every class is present in every clip; a score that does not beat this has found nothing.

    Parameters
    ----------
    n_test, n_classes : int
        Number of clips to answer, and of classes.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]
    """
    return np.ones((n_test, n_classes))


def none_present(n_test: int, n_classes: int) -> np.ndarray:
    """Answer that no class is present in any clip; see `all_present`."""
    return np.zeros((n_test, n_classes))


def prior(labels_train: np.ndarray, n_test: int) -> np.ndarray:
    """Answer every clip with the share of the training clips in which each class was observed to be present.

    No other answer that ignores the sound has a lower expected log loss or Brier score, nor, decided at .5, a lower
    Hamming loss.

    Parameters
    ----------
    labels_train : np.ndarray [shape=(n_train, n_classes)]
        1 present, 0 absent, NaN not observed.
    n_test : int
        Number of clips to answer.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]

    Raises
    ------
    EvaluationError
        When a class was never observed.

    Examples
    --------
    >>> prior(np.array([[1, 0], [0, np.nan], [1, 0], [1, np.nan]]), 1)
    array([[0.75, 0.  ]])
    """
    labels = np.asarray(labels_train, dtype=float)
    if labels.ndim != 2 or not np.isfinite(labels).any(axis=0).all():
        raise EvaluationError(f"A baseline needs training clips in which each class was observed: {labels.shape}.")
    return np.tile(np.nanmean(labels, axis=0), (n_test, 1))


def _shares(targets: np.ndarray, n_classes: int) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.ndim != 1 or not len(targets) or targets.min() < 0 or targets.max() >= n_classes:
        raise EvaluationError(
            f"A baseline needs training clips, each with a class from 0 to {n_classes - 1}: targets of shape "
            f"{targets.shape}."
        )
    return np.bincount(targets, minlength=n_classes) / len(targets)
