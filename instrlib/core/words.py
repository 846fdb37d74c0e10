"""Names in sentences."""

from collections.abc import Iterable


def listed(names: Iterable[str]) -> str:
    """Return names joined as in a sentence: "a, b and c"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def spaced(name: object) -> str:
    """Return a name with spaces: "acoustic guitar" for "acoustic_guitar"."""
    return str(name).replace("_", " ")
