"""Common names and families of the classes of all corpora, from the table `taxonomy.csv`.

The families are the eleven of NSynth (Engel et al., ICML 2017, arXiv:1704.01279), which classify instruments by sound,
and `percussion`, which NSynth lacks: drums, cymbals, bells, gongs. `bass` contains bass guitars and upright and
synthetic basses, `reed` also accordion and harmonica, `string` bowed strings and the harp. A row of `taxonomy.csv` is
an instrument or a family, with its class in each corpus, its wider instrument, and other spellings of class folders.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from instrlib.core.io import ConfigError

_TABLE = pd.read_csv(Path(__file__).with_suffix(".csv"), dtype=str, keep_default_na=False)
_ROWS = {(row["name"], row["level"]): row for row in _TABLE.to_dict("records")}
_MEANINGS = {
    corpus: {row[corpus]: meaning for meaning, row in _ROWS.items() if row[corpus]} for corpus in _TABLE.columns[5:]
}
"""The name and level ("instrument" or "family") of each class of a corpus."""
_SPELLINGS = {
    spelling: name
    for (name, level), row in _ROWS.items()
    for spelling in (name, *row["aliases"].split("|"))
    if level == "instrument" and spelling
}

FAMILIES = tuple(name for name, level in _ROWS if level == "family")


def common_name(corpus: str, label: str) -> str | None:
    """Return the common name of a class: an instrument, a wider family, or None for anything else.

    In a corpus outside the table, such as a folder, a class is matched by its name, in any case and with spaces,
    hyphens or underscores.
    """
    return (_widening(corpus, label) or [(None,)])[0][0]


def common_classes(
    corpus_a: str, corpus_b: str, *, classes_a: Sequence[str] | None = None, classes_b: Sequence[str] | None = None
) -> dict[str, str]:
    """Map each class of one corpus to the narrowest class of another that contains it, in the order of the first.

    An acoustic guitar maps to guitar if the other corpus has no acoustic ones, or to its family. Several classes may
    map to one, and the reverse mapping may differ: a keyboard of NSynth need not be a piano. Classes without a match
    are omitted. `classes_a` and `classes_b` are required for corpora outside the table.
    """
    named = [(_widening(corpus_b, label), label) for label in reversed(_classes(corpus_b, classes_b))]
    there = {wider[0]: label for wider, label in named if wider}
    of_class = {label: _widening(corpus_a, label) for label in _classes(corpus_a, classes_a)}
    matches = {label: [there[one] for one in wider if one in there] for label, wider in of_class.items()}
    return {label: match[0] for label, match in matches.items() if match}


def _widening(corpus: str, label: str) -> list[tuple[str, str]]:
    """Return the names of a class from the narrowest to the widest, each with its level."""
    spelled = _SPELLINGS.get(" ".join(label.lower().replace("_", " ").replace("-", " ").split()))
    found = _MEANINGS[corpus].get(label) if corpus in _MEANINGS else spelled and (spelled, "instrument")
    if not found or found[1] == "family":
        return [found] if found else []
    return [found, (_ROWS[found]["broader"], "instrument"), (_ROWS[found]["family"], "family")]


def _classes(corpus: str, chosen: Sequence[str] | None) -> list[str]:
    if chosen is None and corpus not in _MEANINGS:
        raise ConfigError(f"The classes of the corpus {corpus!r} are unknown; pass them.")
    return sorted(_MEANINGS[corpus]) if chosen is None else list(chosen)
