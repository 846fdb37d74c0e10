"""How names and findings are put into words."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def bullets(sentences: list[str]) -> str:
    """Return the sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def begin(words: str) -> str:
    """Begin a sentence: the first letter large, the others as they are."""
    return words[:1].upper() + words[1:]


def listed(names: Iterable[str]) -> str:
    """Return names as in a sentence: "a, b and c"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def spread(counts: "pd.Series") -> str:
    """Return the least and the largest of some counts, or the one that all are."""
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"


def spaced(name: object) -> str:
    """Return a name as it is read.

    Examples
    --------
    >>> spaced("acoustic_guitar")
    'acoustic guitar'
    """
    return str(name).replace("_", " ")
