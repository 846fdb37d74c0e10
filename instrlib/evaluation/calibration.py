"""From logits to probabilities that mean what they say, and the bar under which no answer is given.

Everything here is fitted on the validation part. The functions that predictions need are numpy alone, because
`instrlib predict` imports them.
"""

from collections.abc import Callable

import numpy as np

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
"""Where a temperature is looked for: a network that errs nowhere on validation would want 0."""

KEPT_SHARE = 0.95
"""Share of the right answers on validation that stay when answers below the threshold are withheld."""

MIN_RIGHT_CLIPS = 20
"""With fewer right answers of a class on validation, its threshold is that of all classes together: one in twenty of
ten clips is half a clip."""

_N_TRIED = 61


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Turn logits into probabilities that sum to 1.

    Parameters
    ----------
    logits : np.ndarray [shape=(..., n_classes)]
        What a network gives before its last activation.
    temperature : float
        Logits are divided by it: above 1 the probabilities come nearer to each other, their order stays.

    Returns
    -------
    np.ndarray [shape of logits, float64]

    Examples
    --------
    >>> softmax(np.log([[8.0, 1.0, 1.0]])).round(2).tolist()
    [[0.8, 0.1, 0.1]]
    >>> softmax(np.log([[9.0, 1.0]]), temperature=2.0).round(2).tolist()
    [[0.75, 0.25]]
    """
    return np.exp(_log_softmax(logits, temperature))


def sigmoid(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Turn logits into a probability for each class by itself; see `softmax`.

    Examples
    --------
    >>> sigmoid(np.array([0.0, -1000.0, 1000.0])).tolist()
    [0.5, 0.0, 1.0]
    """
    # By way of tanh, which cannot overflow.
    return 0.5 + 0.5 * np.tanh(np.asarray(logits, np.float64) / (2 * temperature))


def fit_temperature(logits: np.ndarray, targets: np.ndarray, clip_index: np.ndarray | None = None) -> float:
    """Find the temperature with the least log loss of softmax probabilities [1]_.

    Parameters
    ----------
    logits : np.ndarray [shape=(n_segments, n_classes)]
        Answers to the segments of the validation part.
    targets : np.ndarray of int [shape=(n_clips,)]
        True class of each clip.
    clip_index : np.ndarray of int [shape=(n_segments,)], optional
        Number of the clip that each segment belongs to. A clip's probabilities are the mean of its segments', and it is
        their log loss that counts. Left out, each segment is a clip.

    Returns
    -------
    float
        From `LOWEST_TEMPERATURE` to `HIGHEST_TEMPERATURE`. One number for all classes: no answer changes where a clip
        has one segment, and few where it has several.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.
       arXiv:1706.04599

    Examples
    --------
    Nine clips of ten are right, so the network should be sure to 90 %, whatever it says:

    >>> logits = np.tile([10.0, 0.0], (10, 1))
    >>> temperature = fit_temperature(logits, np.array([0] * 9 + [1]))
    >>> softmax(logits, temperature)[0].round(3).tolist()
    [0.9, 0.1]
    """
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets)
    clip_index = np.arange(len(logits)) if clip_index is None else np.asarray(clip_index)
    n_segments = np.bincount(clip_index, minlength=len(targets))

    def log_loss(temperature: float) -> float:
        of_truth = _log_softmax(logits, temperature)[np.arange(len(logits)), targets[clip_index]]
        # The logarithm of a mean, in logarithms: a segment that is sure and wrong stays finite.
        total = np.full(len(targets), -np.inf)
        np.logaddexp.at(total, clip_index, of_truth)
        return float(np.mean(np.log(n_segments) - total))

    return _least(log_loss)


def fit_label_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature with the least binary log loss of sigmoid probabilities; see `fit_temperature`.

    Parameters
    ----------
    logits : np.ndarray [shape=(n, n_classes)]
        Answers to examples of the validation part.
    labels : np.ndarray [shape=(n, n_classes)]
        1 present, 0 absent, NaN not observed; what was not observed does not count.

    Returns
    -------
    float

    Examples
    --------
    >>> logits, labels = np.array([[2.0, 2.0], [2.0, 2.0]]), np.array([[1.0, 1.0], [0.0, np.nan]])
    >>> round(float(sigmoid(2.0, fit_label_temperature(logits, labels))), 3)
    0.667
    """
    observed = np.isfinite(labels)
    signed = np.where(np.asarray(labels)[observed] == 1, -1, 1) * np.asarray(logits, np.float64)[observed]
    return _least(lambda temperature: float(np.logaddexp(0, signed / temperature).mean()))


def answer_thresholds(
    targets: np.ndarray, probabilities: np.ndarray, *, kept: float = KEPT_SHARE, min_clips: int = MIN_RIGHT_CLIPS
) -> np.ndarray:
    """Choose for each class the probability that its right answers on validation reach, all but a few.

    An answer that is less sure than nearly all right ones is withheld: "none of these". The rule looks at right answers
    alone, because no validation part holds what else there is in the world; what it does to wrong answers, to noise and
    to other sounds has to be measured.

    Parameters
    ----------
    targets : np.ndarray of int [shape=(n_clips,)]
        True class of each clip of the validation part.
    probabilities : np.ndarray [shape=(n_clips, n_classes)]
        Calibrated answers.
    kept : float
        Share of the right answers that reach their threshold.
    min_clips : int
        A class with fewer right answers gets the threshold of all right answers together.

    Returns
    -------
    np.ndarray [shape=(n_classes,)]
        0 for all where no answer is right.

    Examples
    --------
    >>> sure = np.linspace(0.5, 0.99, 50)
    >>> answers = np.stack([sure, 1 - sure], axis=1)
    >>> answer_thresholds(np.zeros(50, int), answers).round(2).tolist()
    [0.52, 0.52]
    """
    answered, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = answered == np.asarray(targets)

    def reached(values: np.ndarray) -> float:
        return float(np.quantile(values, 1 - kept, method="lower"))

    together = reached(sure[right]) if right.any() else 0.0
    of_class = [sure[right & (answered == number)] for number in range(probabilities.shape[1])]
    return np.array([reached(values) if len(values) >= min_clips else together for values in of_class])


def is_named(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Say whether the most probable class reaches its threshold; where it does not, the answer is "none of these".

    Parameters
    ----------
    probabilities : np.ndarray [shape=(..., n_classes)]
        Calibrated answers.
    thresholds : np.ndarray [shape=(n_classes,)]
        See `answer_thresholds`.

    Returns
    -------
    np.ndarray of bool [shape=(...)]

    Examples
    --------
    >>> is_named(np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0.5, 0.8])).tolist()
    [True, False]
    """
    return probabilities.max(axis=-1) >= np.asarray(thresholds)[probabilities.argmax(axis=-1)]


def refusals(targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """Count what thresholds do to answers.

    Parameters
    ----------
    targets, probabilities, thresholds
        As for `answer_thresholds`; of clips that the thresholds were not chosen on.

    Returns
    -------
    dict of str to float
        `named`: share of the clips that get an answer; `right_lost`: share of the right answers that are withheld;
        `wrong_refused`: share of the wrong ones that are; `accuracy` of all, and `accuracy_of_named`. NaN where there
        is nothing to take a share of.

    Examples
    --------
    >>> answers = np.array([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55]])
    >>> refusals(np.array([0, 0, 0]), answers, np.array([0.7, 0.7]))["right_lost"]
    0.5
    """
    named = is_named(probabilities, thresholds)
    right = probabilities.argmax(axis=1) == np.asarray(targets)
    return {
        "named": _share(named),
        "right_lost": _share(~named[right]),
        "wrong_refused": _share(~named[~right]),
        "accuracy": _share(right),
        "accuracy_of_named": _share(right[named]),
    }


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if flags.size else float("nan")


def _log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = np.asarray(logits, np.float64) / temperature
    below = scaled - scaled.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def _least(loss: Callable[[float], float]) -> float:
    """Find the temperature of the least loss: the best of a grid over its logarithm, then between its neighbours."""
    from scipy.optimize import minimize_scalar

    tried = np.linspace(np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE), _N_TRIED)
    losses = [loss(float(np.exp(one))) for one in tried]
    best = int(np.argmin(losses))
    bounds = tried[max(best - 1, 0)], tried[min(best + 1, _N_TRIED - 1)]
    found = minimize_scalar(lambda one: loss(float(np.exp(one))), bounds=bounds, method="bounded")
    return float(np.exp(found.x if found.fun <= losses[best] else tried[best]))
