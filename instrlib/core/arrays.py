"""Arrays of different lengths in one, and lists cut into equal parts."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


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


def in_parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut a sequence into parts of one size, in order, such as what came seed by seed into its seeds.

    Examples
    --------
    >>> in_parts("abcdef", 2)
    ['ab', 'cd', 'ef']
    """
    return [items[first : first + size] for first in range(0, len(items), size)]
