"""The sounds that a study used: its corpus, and those that notebook 13 compares it with."""

from collections.abc import Iterator
from dataclasses import dataclass

from instrlib.core.words import listed
from instrlib.data import corpora
from instrlib.data.rendered import sources as soundfont
from instrlib.report.methods import CORPUS_WORKS
from instrlib.report.tables import NONE, Table
from instrlib.reporting.cards import what_clips_are
from instrlib.reporting.overview import Notebooks
from instrlib.studies.domains import VARIABLE


@dataclass(frozen=True)
class World:
    """One source of sounds.

    Attributes
    ----------
    name, title : str
        As numbers call it, and in full.
    licence, citation, how_to_get : str
        "" where that is not known.
    """

    name: str
    title: str
    licence: str
    citation: str
    how_to_get: str


def used(corpus: str, notebooks: Notebooks) -> list[World]:
    """Return the sound worlds of a study, its corpus first.

    Parameters
    ----------
    corpus : str
        The study's.
    notebooks : dict
        `metrics` and `manifest` by name, as `results.json` holds them.

    Returns
    -------
    list of World
    """
    compared = next((entry["metrics"].get("domains", ()) for name, entry in notebooks.items() if name[:2] == "13"), ())
    return [_world(name) for name in dict.fromkeys((corpus, *compared))]


def table(worlds: list[World]) -> Table:
    """Lay out what is used, on what terms."""
    rows = (
        (one.name, *(words.replace("`", "") or NONE for words in (one.licence, one.citation, one.how_to_get)))
        for one in worlds
    )
    header = ("Sounds", "Licence", "Cite as", "How to get it")
    return Table("What is used, and on what terms.", header, tuple(rows))


def others_sentence(worlds: list[World], section: str) -> str:
    """Say what is used beside the corpus, with citations; "" where nothing is.

    Parameters
    ----------
    worlds : list of World
        From `used`.
    section : str
        Number of the section that uses it.
    """
    fonts = [one.name for one in worlds[1:] if one.name in soundfont.FONTS]
    told = [
        f"{one.title} {CORPUS_WORKS.get(one.name, '')} (`{one.name}`): {what_clips_are(one.name)}"
        for one in worlds[1:]
        if one.name in corpora.NAMES
    ]
    if fonts:
        told.append(f"{listed(fonts)}: other phrases of the kind of `rendered`, each played by that soundfont alone.")
    return " ".join([f"Section {section} compares it with other sounds.", *told]) if told else ""


def needs(worlds: list[World]) -> Iterator[str]:
    """Say of each world beside the corpus that a machine may lack what it takes to have it."""
    for one in worlds[1:]:
        if one.name in corpora.NAMES:
            yield (
                f"{one.title}: {one.how_to_get.rstrip('.')}, or name its folder before the first command by "
                f"`{VARIABLE}={one.name}=/path/to/{one.name}`"
            )
        elif one.name in soundfont.FONTS and not soundfont.FONTS[one.name].package:
            yield f"{one.title}: {one.how_to_get}"


def _world(name: str) -> World:
    if name in corpora.NAMES:
        known = corpora.info(name)
        return World(name, known.title, known.licence, known.citation, known.how_to_get)
    if name in soundfont.FONTS:
        font = soundfont.FONTS[name]
        return World(name, f"soundfont {name}", font.licence, font.citation, font.how_to_get)
    return World(name, name, "", "", "")
