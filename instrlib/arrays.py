"""Arrays of different lengths in one."""

from collections.abc import Sequence

import numpy as np


def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of different shapes into one, with NaN where one ends before the others.

    Parameters
    ----------
    arrays : sequence of np.ndarray
        All with the same number of axes: loss curves of different lengths, pictures of different sizes.

    Returns
    -------
    np.ndarray of float [shape=(n_arrays, ...)]

    Examples
    --------
    >>> padded([[1.0, 2.0], [3.0]])
    array([[ 1.,  2.],
           [ 3., nan]])
    """
    whole = [np.asarray(array, dtype=float) for array in arrays]
    stacked = np.full((len(whole), *np.max([array.shape for array in whole], axis=0)), np.nan)
    for place, array in zip(stacked, whole, strict=True):
        place[tuple(slice(size) for size in array.shape)] = array
    return stacked
