"""The Musical Instrument's Sound Dataset of Kaggle: about 2,600 recordings of guitar, drums, violin and piano.

The set was compiled from many sources, which neither its page nor its tables name; most can be read from the file names
(`group_of`). Its tables have errors that its own labels and file names prove, and that are corrected here:

- `Metadata_Train.csv` names each of its about 700 drum files twice, as drums and as violin, while the violin files
  beside them are not named. The violin rows of drum files are skipped, and the violins are recognised by their names.
- `Metadata_Test.csv` writes "Sound_Guiatr" for guitar.
- "Violin" files whose names begin with "Va-ord" are, by the naming of their source (Studio On Line), notes of a viola.
  They keep the publisher's label.
"""

import re
from pathlib import Path

import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import Found, read_parts
from instrlib.data.files import read_table, walk_audio

_LABELS = {f"Sound_{name}": name.lower() for name in ("Guitar", "Piano", "Violin")}
_LABELS |= {"Sound_Drum": "drums", "Sound_Guiatr": "guitar"}
_PARTS = {part: (f"Metadata_{part.title()}.csv", f"{part.title()}_submission") for part in ("train", "test")}
"""Table and folder of each part."""
_VIOLIN = re.compile(r"violin|^v[an]-ord-|_bwv100[1-6](_|$)", re.IGNORECASE)
"""Names of violin files that the table lacks; the last are of Bach's sonatas and partitas for violin alone."""

_GENRES = "classical|country|folk|jazz|latin|metal|pop|reggae|rock|ska"
_SERIES = {
    r"room-room(\d+)-.*": r"room-\1",  # one piano in one room, many pieces, up to seven devices at once
    r"(real|techno|wave)drum(\d+)-.*": r"\1drum\2",  # one kit, played as a whole and drum by drum
    r"(ar|fs|lp|g53)-.*": r"guitar-\1",  # one electric guitar: licks, notes of every string
    rf"(?:slow-)?({_GENRES})-(\d+)(?:-.*)?": r"\1-\2",  # one piece
    r"(v[an])-ord-.*": r"sol-\1",  # one player, note by note
    r"\d+-([a-z]+-[a-z]+)-bwv.*": r"\1",  # one violinist; the number counts excerpts
    r"violin-sounds?": "violin-sound",
    r"sad-violin-.*": "sad-violin",
}
"""Patterns of file names, and the group of each."""


def group_of(name: str) -> str:
    """Return the group of a file by its name: one instrument, room, kit, player or series.

    The sources are undocumented, so names that differ only in numbers (of takes, copies, tempi or uploads) form one
    group. Two sessions with different names cannot be recognised as one.
    """
    stem = re.sub(r"\.(wav|flac|ogg|mp3)$", "", name.lower())
    stem = re.sub(r"[\s_-]+", "-", re.sub(r"\s*\(\d+\)$", "", stem))
    for pattern, group in _SERIES.items():
        if re.fullmatch(pattern, stem):
            return re.sub(pattern, group, stem)
    # Also a last number without separator: muvibeat8, muvibeat9.
    return re.sub(r"(?<=[a-z])\d+$", "", re.sub(r"(?<=.)(-\d+(bpm)?)+$", "", stem))


def find(root: Path) -> Found:
    """List the recordings of the parts on disk; `clip_id` is the part and the file name without its suffix."""
    clips, notes = read_parts("kaggle_instruments", root, _PARTS, _read_part)
    clips = clips.drop_duplicates(["clip_id", "label"])
    several = clips.clip_id.duplicated(keep=False)
    torn = clips[several].drop_duplicates("clip_id").itertuples()
    excluded = [(row.clip_id, row.path, "its table names it in two classes", True) for row in torn]
    return Found(clips[~several], excluded=excluded, notes=notes)


def _read_part(root: Path, part: str) -> pd.DataFrame:
    place, folder = (root / name for name in _PARTS[part])
    table = read_table(place, ("FileName", "Class"))
    if unknown := sorted(set(table.Class) - set(_LABELS)):
        raise CorpusError(f"{place}: unknown class {', '.join(unknown)}; allowed: {', '.join(_LABELS)}.")
    rows = pd.DataFrame({"stem": table.FileName.map(lambda name: Path(name).stem), "label": table.Class.map(_LABELS)})
    rows = rows[(rows.label != "violin") | ~rows.stem.isin(rows.stem[rows.label == "drums"])]
    # The download nests the recordings in a second folder of the same name.
    files = {path.stem: path.relative_to(root).as_posix() for path in walk_audio(folder)}
    violins = [(stem, "violin") for stem in sorted(set(files) - set(rows.stem)) if _VIOLIN.search(stem)]
    rows = pd.concat([rows, pd.DataFrame(violins, columns=list(rows))], ignore_index=True)
    return rows.assign(
        clip_id=part + "/" + rows.stem,
        path=[files.get(stem, f"{folder.name}/{stem}.wav") for stem in rows.stem],
        group=rows.stem.map(group_of),
    ).drop(columns="stem")
