"""Small heads on a frozen embedding: each chooses its penalty, or its epoch, on the validation part."""

import dataclasses
from collections.abc import Callable

import numpy as np

from instrlib.models.layers import Layer
from instrlib.models.references import get_reference
from instrlib.models.train import Examples, class_weights, fit

LOGISTIC, NETWORK_HEAD = "logistic regression", "openmic-vggish head"

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse strengths C of the logistic regression's penalty that are tried."""

Fitted = tuple[Callable[[np.ndarray], np.ndarray], float]
"""What a head answers with, and what was chosen on validation: C, or the epoch."""


def head_loss(labels: np.ndarray, probabilities: np.ndarray, *, several: bool) -> float:
    """Return the cross entropy by which a head's penalty or epoch is chosen, in nats.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_classes)]
        1 present, 0 absent, NaN not observed.
    probabilities : np.ndarray [shape=(n_clips, n_classes)]
        What the head answers.
    several : bool
        Whether a clip may have several labels: then the mean over all that were observed. Otherwise the mean over
        clips, in which every class weighs alike, as when a network's epoch is chosen.

    Returns
    -------
    float

    Examples
    --------
    >>> round(head_loss(np.array([[1, 0], [0, 1]]), np.array([[0.5, 0.5], [0.5, 0.5]]), several=False), 3)
    0.693
    """
    least = 1e-7
    likely = np.clip(probabilities, least, 1 - least)
    if several:
        return float(-np.nanmean(labels * np.log(likely) + (1 - labels) * np.log(1 - likely)))
    targets = labels.argmax(axis=1)
    weights = class_weights(targets, labels.shape[1])[targets]
    return float(-np.average(np.log(likely[np.arange(len(targets)), targets]), weights=weights))


def _fit_logistic(
    x: np.ndarray, labels: np.ndarray, held_x: np.ndarray, held_labels: np.ndarray, *, several: bool, seed: int
) -> Fitted:
    """Fit logistic regressions of several penalties; the one with the least validation loss is taken."""
    del seed  # the same answers whatever it is
    fitted = {
        penalty: _each_class(x, labels, penalty) if several else _one_of_classes(x, labels, penalty)
        for penalty in PENALTIES
    }
    losses = {penalty: head_loss(held_labels, predict(held_x), several=several) for penalty, predict in fitted.items()}
    best = min(losses, key=losses.__getitem__)
    return fitted[best], best


def _one_of_classes(x: np.ndarray, labels: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, max_iter=5000, class_weight="balanced").fit(x, labels.argmax(axis=1))

    def predict(rows: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), labels.shape[1]))
        found[:, model.classes_] = model.predict_proba(rows)
        return found

    return predict


def _each_class(x: np.ndarray, labels: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    """Fit one regression a class, each on the clips in which it was observed."""
    from sklearn.linear_model import LogisticRegression

    columns: list[Callable[[np.ndarray], np.ndarray]] = []
    for column in labels.T:
        observed = np.isfinite(column)
        y = column[observed]
        if len(np.unique(y)) < 2:  # Nothing to tell apart: the share, kept away from 0 and 1.
            share = (y.sum() + 1) / (len(y) + 2)
            columns.append(lambda rows, share=share: np.full(len(rows), share))
        else:
            model = LogisticRegression(C=penalty, max_iter=5000).fit(x[observed], y)
            columns.append(lambda rows, model=model: model.predict_proba(rows)[:, 1])
    return lambda rows: np.stack([column(rows) for column in columns], axis=1)


def _fit_network(
    x: np.ndarray, labels: np.ndarray, held_x: np.ndarray, held_labels: np.ndarray, *, several: bool, seed: int
) -> Fitted:
    """Train the dense layers of openmic-vggish as described; the best epoch on validation is taken."""
    reference = get_reference("openmic-vggish")
    config = dataclasses.replace(reference.train, output="sigmoid" if several else "softmax")
    known, held_out = (
        Examples(((part.astype(np.float32)[..., None], np.arange(len(part))),), known.astype(np.float32))
        for part, known in ((x, labels), (held_x, held_labels))
    )
    # Its first row averages over time, which the embeddings have been.
    graph, _, best = fit((Layer("flatten"), *reference.spec[1:]), known, held_out, config, seed)
    weights, model = graph.model.get_weights(), graph.model

    def predict(rows: np.ndarray) -> np.ndarray:
        model.set_weights(weights)  # another head may have been trained with this graph
        return np.asarray(graph.predict(rows.astype(np.float32)[..., None, None]))

    return predict, float(best)


HEADS = {LOGISTIC: _fit_logistic, NETWORK_HEAD: _fit_network}
"""Each is fitted by `(x, labels, held_x, held_labels, several=, seed=)`: embeddings scaled, labels 1, 0 or NaN."""
