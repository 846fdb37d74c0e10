"""One table of what the classes of all corpora are called in common: instruments, and the families they belong to.

The families are the eleven of NSynth [1]_, which sort instruments by how they sound, and `percussion`, which NSynth
lacks. They are:

============ =========================================================================================
`bass`       bass guitars, and notes of upright and synthetic basses
`brass`      trumpet, trombone, horn, tuba
`flute`      flute, piccolo, recorder
`guitar`     plucked strings on a fretted neck: guitars, banjo, mandolin, ukulele
`keyboard`   piano, electric piano, harpsichord
`mallet`     tuned bars: glockenspiel, marimba, vibraphone, xylophone
`organ`      pipe and electric organs
`percussion` drums, cymbals, bells, gongs
`reed`       clarinet, saxophone, double reeds, and free reeds: accordion, harmonica
`string`     bowed strings, and the harp
`synth_lead` synthesizers
`vocal`      the human voice
============ =========================================================================================

References
----------
.. [1] J. Engel, C. Resnick, A. Roberts, S. Dieleman, D. Eck, K. Simonyan, M. Norouzi, "Neural Audio Synthesis of
   Musical Notes with WaveNet Autoencoders", ICML 2017, arXiv:1704.01279.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from instrlib.core.errors import ConfigError

_BY_FAMILY: dict[str, tuple[str, ...]] = {
    "bass": ("bass guitar",),
    "brass": ("cornet", "french horn", "trombone", "trumpet", "tuba"),
    "flute": ("flute", "piccolo", "recorder"),
    "guitar": ("acoustic guitar", "banjo", "electric guitar", "guitar", "mandolin", "ukulele"),
    "keyboard": ("electric piano", "harpsichord", "piano"),
    "mallet": ("glockenspiel", "marimba", "vibraphone", "xylophone"),
    "organ": ("organ",),
    "percussion": (
        *("bass drum", "chime", "cowbell", "cymbals", "drums", "gong", "hi hat", "snare drum", "tambourine"),
        "timpani",
    ),
    "reed": ("accordion", "bassoon", "clarinet", "english horn", "harmonica", "oboe", "saxophone"),
    "string": ("cello", "double bass", "harp", "viola", "violin"),
    "synth_lead": ("synthesizer",),
    "vocal": ("voice",),
}
_FAMILY = {name: family for family, names in _BY_FAMILY.items() for name in names}

FAMILIES = tuple(_BY_FAMILY)
"""The families; the module's first lines say what belongs to each."""

INSTRUMENTS = tuple(sorted(_FAMILY))
"""The common names of instruments."""

_BROADER = {"acoustic guitar": "guitar", "electric guitar": "guitar"}
"""What a corpus without the finer class calls the instrument."""

_ALIASES = {
    "violin or fiddle": "violin",
    "fiddle": "violin",
    "violoncello": "cello",
    "contrabass": "double bass",
    "upright bass": "double bass",
    "horn": "french horn",
    "sax": "saxophone",
    "e guitar": "electric guitar",
    "drum": "drums",
    "drum kit": "drums",
    "drum set": "drums",
    "drumkit": "drums",
    "cymbal": "cymbals",
    "hihat": "hi hat",
    "singing": "voice",
    "human voice": "voice",
    "vocals": "voice",
    "synth": "synthesizer",
    "rhodes": "electric piano",
    "pipe organ": "organ",
}
"""Other spellings, as people name class folders."""

_OF_FAMILIES: dict[str, dict[str, str]] = {
    # A class of OpenMIC that holds every tuned bar, and one that holds bass guitars and upright basses alike.
    "openmic2018": {"bass": "bass", "mallet_percussion": "mallet"},
    "nsynth": {name: name for name in FAMILIES if name != "percussion"},
}
"""Classes that are wider than one instrument: each is a whole family."""

_SAME = (
    "accordion",
    "banjo",
    "cello",
    "clarinet",
    "flute",
    "organ",
    "piano",
    "saxophone",
    "trumpet",
    "violin",
    "voice",
)

_OF_INSTRUMENTS: dict[str, dict[str, str]] = {
    "rendered": {
        **{name: name for name in _SAME[2:]},
        "acoustic_guitar": "acoustic guitar",
        "electric_guitar": "electric guitar",
        "drums": "drums",
    },
    "fsdkaggle2018": {
        label: label.replace("_", " ").replace("-", " ").lower()
        for label in (
            *("Acoustic_guitar", "Bass_drum", "Cello", "Chime", "Clarinet", "Cowbell", "Double_bass", "Electric_piano"),
            *("Flute", "Glockenspiel", "Gong", "Harmonica", "Hi-hat", "Oboe", "Saxophone", "Snare_drum", "Tambourine"),
            "Trumpet",
        )
    }
    | {"Violin_or_fiddle": "violin"},
    "irmas": {
        "cel": "cello",
        "cla": "clarinet",
        "flu": "flute",
        "gac": "acoustic guitar",
        "gel": "electric guitar",
        "org": "organ",
        "pia": "piano",
        "sax": "saxophone",
        "tru": "trumpet",
        "vio": "violin",
        "voi": "voice",
    },
    "openmic2018": {
        name: name for name in (*_SAME, "cymbals", "drums", "guitar", "mandolin", "synthesizer", "trombone", "ukulele")
    },
    "nsynth": {},
    "kaggle_instruments": {name: name for name in ("drums", "guitar", "piano", "violin")},
}


def common_name(corpus: str, label: str) -> str | None:
    """Return what a class of a corpus is called in common.

    Parameters
    ----------
    corpus : str
        Name of the corpus. In one without a table, such as a folder of one's own, a class whose name is that of a known
        instrument, in whatever case and with spaces, hyphens or underscores, is that instrument.
    label : str
        One of its classes.

    Returns
    -------
    str or None
        An instrument of `INSTRUMENTS`; a family of `FAMILIES` where the class is wider than one instrument; None for
        what is neither, such as FSDKaggle2018's "Applause".

    Examples
    --------
    >>> common_name("fsdkaggle2018", "Violin_or_fiddle"), common_name("irmas", "gel"), common_name("nsynth", "mallet")
    ('violin', 'electric guitar', 'mallet')
    >>> common_name("folder", "Double-Bass"), common_name("fsdkaggle2018", "Applause")
    ('double bass', None)
    """
    meaning = _meaning(corpus, label)
    return meaning[0] if meaning else None


def family(name: str) -> str:
    """Return the family of an instrument; of a family itself.

    Parameters
    ----------
    name : str
        One of `INSTRUMENTS` or `FAMILIES`.

    Raises
    ------
    ConfigError
        When the name is neither.

    Examples
    --------
    >>> family("oboe"), family("ukulele"), family("string")
    ('reed', 'guitar', 'string')
    """
    if name in _FAMILY:
        return _FAMILY[name]
    if name in _BY_FAMILY:
        return name
    raise ConfigError(f"Unknown instrument {name!r}; there is: {', '.join(INSTRUMENTS)}.")


def common_classes(
    corpus_a: str,
    corpus_b: str,
    *,
    classes_a: Sequence[str] | None = None,
    classes_b: Sequence[str] | None = None,
) -> dict[str, str]:
    """Find for each class of one corpus the class of another that it belongs to.

    A class belongs to the narrowest class that holds it: an acoustic guitar is a guitar where the other corpus knows
    no acoustic ones, and belongs to a family where it knows families only. So several classes may belong to one, and
    the answer need not be the same the other way round: nobody can tell which keyboard of NSynth is a piano.

    Parameters
    ----------
    corpus_a, corpus_b : str
        Names of the corpora.
    classes_a, classes_b : sequence of str, optional
        Their classes; all of the table when left out. For a corpus without a table they must be named.

    Returns
    -------
    dict
        From the class of the first corpus to that of the second, in the order of the first's classes; classes without
        a counterpart are left out.

    Raises
    ------
    ConfigError
        When the classes of a corpus without a table are not named.

    Examples
    --------
    >>> common_classes("kaggle_instruments", "rendered")
    {'drums': 'drums', 'piano': 'piano', 'violin': 'violin'}
    >>> common_classes("rendered", "nsynth", classes_a=("piano", "drums", "violin"))
    {'piano': 'keyboard', 'violin': 'string'}
    """
    there: Mapping[tuple[str, str], str] = {
        meaning: label
        for label in reversed(_classes(corpus_b, classes_b))
        if (meaning := _meaning(corpus_b, label)) is not None
    }
    matches = {
        label: next((there[wider] for wider in _widening(_meaning(corpus_a, label)) if wider in there), None)
        for label in _classes(corpus_a, classes_a)
    }
    return {label: match for label, match in matches.items() if match is not None}


def table() -> pd.DataFrame:
    """Return the whole table.

    Returns
    -------
    pandas.DataFrame
        One row a class of a corpus that is an instrument or a family: `corpus`, `label` (its name there), `name` (the
        common one), `level` ("instrument" or "family") and `family`.

    Examples
    --------
    >>> table().query("label == 'gac'").to_dict("records")[0]["name"]
    'acoustic guitar'
    """
    rows = [
        (corpus, label, *meaning, family(meaning[0]))
        for corpus in _OF_INSTRUMENTS
        for label in _classes(corpus, None)
        if (meaning := _meaning(corpus, label))
    ]
    return pd.DataFrame(rows, columns=["corpus", "label", "name", "level", "family"])


def _meaning(corpus: str, label: str) -> tuple[str, str] | None:
    """Return the common name of a class, and whether it is an instrument or a family."""
    if corpus not in _OF_INSTRUMENTS:
        name = " ".join(label.lower().replace("_", " ").replace("-", " ").split())
        name = _ALIASES.get(name, name)
        return (name, "instrument") if name in _FAMILY else None
    if label in _OF_INSTRUMENTS[corpus]:
        return _OF_INSTRUMENTS[corpus][label], "instrument"
    whole = _OF_FAMILIES.get(corpus, {}).get(label)
    return (whole, "family") if whole else None


def _widening(meaning: tuple[str, str] | None) -> Iterable[tuple[str, str]]:
    """Yield what a class is, from the narrowest word for it to the widest."""
    if meaning is None:
        return
    yield meaning
    name, level = meaning
    if level == "instrument":
        if name in _BROADER:
            yield _BROADER[name], "instrument"
        yield _FAMILY[name], "family"


def _classes(corpus: str, chosen: Sequence[str] | None) -> list[str]:
    if chosen is not None:
        return list(chosen)
    if corpus not in _OF_INSTRUMENTS:
        raise ConfigError(f"The classes of the corpus {corpus!r} are not known beforehand; name them.")
    return sorted([*_OF_INSTRUMENTS[corpus], *_OF_FAMILIES.get(corpus, {})])
