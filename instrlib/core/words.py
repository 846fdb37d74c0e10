"""Names as they are read."""

from collections.abc import Iterable


def listed(names: Iterable[str]) -> str:
    """Return names as in a sentence: "a, b and c"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def spaced(name: object) -> str:
    """Return a name as it is read: "acoustic_guitar" as "acoustic guitar"."""
    return str(name).replace("_", " ")
