"""Traditional features and classifiers on the stored spectrograms."""

import numpy as np
import pandas as pd

from instrlib.store import FeatureStore

N_MFCC = 20
_BLOCK = 256
N_TREES = 200


def summaries(store: FeatureStore, segments: pd.DataFrame) -> np.ndarray:
    """Mean and deviation over time of each segment's mel-frequency cepstral coefficients.

    Parameters
    ----------
    store : FeatureStore
        Of log-mel spectrograms; the coefficients are the orthonormal DCT-II over their bands (Davis and Mermelstein,
        1980, doi:10.1109/TASSP.1980.1163420).
    segments : pandas.DataFrame
        Rows of `store.segments`.

    Returns
    -------
    np.ndarray of float32 [shape=(n_segments, 2 * N_MFCC)]
        In the order of `segments`; read block by block.
    """
    from scipy.fft import dct

    rows = segments.row.to_numpy()
    out = np.empty((len(rows), 2 * N_MFCC), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        values = store.features[rows[start : start + _BLOCK]].astype(np.float32)
        coefficients = dct(values, axis=1, norm="ortho")[:, :N_MFCC]
        out[start : start + _BLOCK] = np.concatenate([coefficients.mean(axis=2), coefficients.std(axis=2)], axis=1)
    return out


def forest_probabilities(
    train_x: np.ndarray, train_targets: np.ndarray, test_x: np.ndarray, n_classes: int, seed: int
) -> np.ndarray:
    """Fit a random forest (Breiman, 2001, doi:10.1023/A:1010933404324) and score other rows.

    Parameters
    ----------
    train_x, test_x : np.ndarray [shape=(n, n_features)]
        Features of the rows to fit and to score.
    train_targets : np.ndarray of int [shape=(n_train,)]
        Classes of the rows to fit.
    n_classes : int
        Number of classes; one that is not among `train_targets` gets probability 0.
    seed : int
        Decides the trees.

    Returns
    -------
    np.ndarray [shape=(n_test, n_classes)]
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(N_TREES, random_state=seed, n_jobs=1).fit(train_x, train_targets)
    probabilities = np.zeros((len(test_x), n_classes))
    probabilities[:, forest.classes_] = forest.predict_proba(test_x)
    return probabilities
