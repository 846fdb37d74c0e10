"""Small heads on a frozen embedding: each chooses its penalty, or its epoch, on the validation part."""

from collections.abc import Callable

import numpy as np

from instrlib.models.batches import weighed
from instrlib.models.layers import build
from instrlib.models.references import get_reference
from instrlib.models.training import PLATEAU_EPOCHS, class_weights, make_deterministic, masked_cross_entropy

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
    """Train the dense layers of openmic-vggish as described; the epoch with the least validation loss is taken."""
    make_deterministic(seed)
    import keras

    reference = get_reference("openmic-vggish")
    config = reference.train
    # Its first row averages over time, which the embeddings have been.
    model = build(reference.spec[1:], x.shape[1:], labels.shape[1], output="sigmoid" if several else "softmax")
    loss = masked_cross_entropy if several else keras.losses.CategoricalCrossentropy()
    model.compile(keras.optimizers.Adam(config.learning_rate), loss, jit_compile=False)
    n_observed = np.isfinite(labels).sum(axis=1).mean()
    known, held_out = (weighed(part, None, n_observed) for part in (labels, held_labels))
    fitted = model.fit(
        x,
        known[0],
        sample_weight=known[1],
        validation_data=(held_x, *held_out),
        batch_size=config.batch_size,
        epochs=config.epochs,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=config.patience, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=PLATEAU_EPOCHS),
        ],
        verbose=0,
    )
    return model.predict_on_batch, float(np.argmin(fitted.history["val_loss"]) + 1)


HEADS = {LOGISTIC: _fit_logistic, NETWORK_HEAD: _fit_network}
"""Each is fitted by `(x, labels, held_x, held_labels, several=, seed=)`: embeddings scaled, labels 1, 0 or NaN."""
