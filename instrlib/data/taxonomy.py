"""Common names and families of the classes of all corpora, from the table `taxonomy.csv`.

The families are the eleven of NSynth [1]_, which classify instruments by sound, and `percussion`, which NSynth lacks:
drums, cymbals, bells, gongs. `bass` contains bass guitars and notes of upright and synthetic basses, `reed` also
accordion and harmonica, `string` bowed strings and the harp. A row of `taxonomy.csv` is an instrument or a family, with
its class in each corpus, its wider instrument, and other spellings of class folders.

References
----------
.. [1] J. Engel et al., "Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders", ICML 2017,
   arXiv:1704.01279.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from instrlib.core.io import ConfigError

_TABLE = pd.read_csv(Path(__file__).with_suffix(".csv"), dtype=str, keep_default_na=False)
_CORPORA = tuple(_TABLE.columns[5:])
_INSTRUMENT = _TABLE[_TABLE.level == "instrument"].set_index("name")

FAMILIES = tuple(_TABLE.name[_TABLE.level == "family"])
INSTRUMENTS = tuple(sorted(_INSTRUMENT.index))

_SPELLINGS = {name: name for name in INSTRUMENTS}
_SPELLINGS |= {one: row.Index for row in _INSTRUMENT.itertuples() for one in row.aliases.split("|") if one}
_MEANINGS = {
    corpus: {row[corpus]: (row["name"], row["level"]) for row in _TABLE.to_dict("records") if row[corpus]}
    for corpus in _CORPORA
}


def common_name(corpus: str, label: str) -> str | None:
    """Return the common name of a class: an instrument, a wider family, or None for anything else.

    In a corpus outside the table, such as a folder, a class is matched by its name, in any case and with spaces,
    hyphens or underscores.

    Examples
    --------
    >>> common_name("fsdkaggle2018", "Violin_or_fiddle"), common_name("irmas", "gel"), common_name("nsynth", "mallet")
    ('violin', 'electric guitar', 'mallet')
    >>> common_name("folder", "Double-Bass"), common_name("fsdkaggle2018", "Applause")
    ('double bass', None)
    """
    meaning = _meaning(corpus, label)
    return meaning[0] if meaning else None


def common_classes(
    corpus_a: str,
    corpus_b: str,
    *,
    classes_a: Sequence[str] | None = None,
    classes_b: Sequence[str] | None = None,
) -> dict[str, str]:
    """Map each class of one corpus to the narrowest class of another that contains it, in the order of the first.

    An acoustic guitar maps to guitar if the other corpus has no acoustic ones, or to its family. Several classes may
    map to one, and the reverse mapping may differ: a keyboard of NSynth need not be a piano. Classes without a match
    are omitted. `classes_a` and `classes_b` are required for corpora outside the table.

    Examples
    --------
    >>> common_classes("kaggle_instruments", "rendered")
    {'drums': 'drums', 'piano': 'piano', 'violin': 'violin'}
    >>> common_classes("rendered", "nsynth", classes_a=("piano", "drums", "violin"))
    {'piano': 'keyboard', 'violin': 'string'}
    """
    there = {_meaning(corpus_b, label): label for label in reversed(_classes(corpus_b, classes_b))}
    there.pop(None, None)
    matches = {
        label: next((there[wider] for wider in _widening(_meaning(corpus_a, label)) if wider in there), None)
        for label in _classes(corpus_a, classes_a)
    }
    return {label: match for label, match in matches.items() if match is not None}


def _meaning(corpus: str, label: str) -> tuple[str, str] | None:
    """Return the common name of a class, and whether it is an instrument or a family."""
    if corpus in _CORPORA:
        return _MEANINGS[corpus].get(label)
    name = _SPELLINGS.get(" ".join(label.lower().replace("_", " ").replace("-", " ").split()))
    return (name, "instrument") if name else None


def _widening(meaning: tuple[str, str] | None) -> Iterator[tuple[str, str]]:
    """Yield the names of a class from the narrowest to the widest."""
    if meaning:
        yield meaning
        if meaning[1] == "instrument":
            row = _INSTRUMENT.loc[meaning[0]]
            yield row.broader, "instrument"
            yield row.family, "family"


def _classes(corpus: str, chosen: Sequence[str] | None) -> list[str]:
    if chosen is not None:
        return list(chosen)
    if corpus not in _CORPORA:
        raise ConfigError(f"The classes of the corpus {corpus!r} are unknown; pass them.")
    return sorted(_MEANINGS[corpus])
