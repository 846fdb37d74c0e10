"""The Musical Instrument's Sound Dataset of Kaggle: about 2,600 recordings of guitar, drums, violin and piano.

What is known of it, and what is not
------------------------------------
The set was put together from many sources, and neither its page nor its tables name them. The names of the files show
where most come from: rows of one drum kit, one guitar, one piano in a room, one violinist. `group_of` reads them.

Its tables have errors, which its own labels and file names prove, so they are put right here:

- `Metadata_Train.csv` names each of its about 700 drum files twice, once as drums and once more as violin, while the
  violin files that lie beside them are named nowhere. A network that is trained by this table as it stands learns that
  drums are violins and never hears a violin; it fits that a public project that does so recognises none of the 20
  test violins. Such a violin row is passed over here, and the violin files are recognised by their names.
- `Metadata_Test.csv` writes "Sound_Guiatr" for guitar.
- The "violin" files whose names begin with "Va-ord" are, after the naming of their source (Studio On Line), notes of a
  viola. They keep the publisher's label; nobody but the publisher can say what was meant.

References
----------
.. [1] S. Prasad, "Musical Instrument's Sound Dataset", Kaggle, soumendraprasad/musical-instruments-sound-dataset.
.. [2] C. Kehling, J. Abesser, C. Dittmar, G. Schuller, "Automatic tablature transcription of electric guitar recordings
   by estimation of score- and instrument-related parameters", DAFx 2014: the names of the guitar files.
.. [3] C. Dittmar, D. Gaertner, "Real-time transcription and separation of drum recordings based on NMF decomposition",
   DAFx 2014: the names of the drum files.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.data.base import COLUMNS, CONTENT, LEFT_OUT, Corpus, CorpusInfo, problem_table
from instrlib.data.local import (
    audio_files,
    check_no_class_empty,
    choose_classes,
    draw_clips,
    find_unusable,
    missing_reason,
    probe_clips,
    reaches_into_test,
    read_table,
)

INFO = CorpusInfo(
    name="kaggle_instruments",
    title="Musical Instrument's Sound Dataset (Kaggle)",
    licence="that of its page on Kaggle; the sources of its files are not named there",
    citation="S. Prasad: Musical Instrument's Sound Dataset. Kaggle, "
    "soumendraprasad/musical-instruments-sound-dataset.",
    url="https://www.kaggle.com/datasets/soumendraprasad/musical-instruments-sound-dataset",
    size="about 2,700 files",
    how_to_get="Kaggle wants a login: open https://www.kaggle.com/datasets/soumendraprasad/"
    "musical-instruments-sound-dataset, press Download, and unpack archive.zip into data/kaggle_instruments (or name "
    "its folder with --data), so that Metadata_Train.csv, Metadata_Test.csv, Train_submission and Test_submission lie "
    "in it.",
)

CLASSES = ("drums", "guitar", "piano", "violin")
"""The four instruments, as they are called here."""

GROUP_IN_TEST = LEFT_OUT + "other recordings of its group stand in the official test part"
CONTRADICTION = LEFT_OUT + "the same sound also stands under another class"

_LABELS = {
    "Sound_Drum": "drums",
    "Sound_Guitar": "guitar",
    "Sound_Guiatr": "guitar",
    "Sound_Piano": "piano",
    "Sound_Violin": "violin",
}
_TABLES = {"train": "Metadata_Train.csv", "test": "Metadata_Test.csv"}
_FOLDERS = {"train": "Train_submission", "test": "Test_submission"}
_VIOLIN = re.compile(r"violin|^v[an]-ord-|_bwv100[1-6](_|$)", re.IGNORECASE)
"""Names of violin files that the table lacks; the last are of Bach's sonatas and partitas for violin alone."""

_SERIES = tuple(
    (re.compile(pattern), group)
    for pattern, group in (
        (r"room-room(\d+)-.*", r"room-\1"),  # one piano in one room, many pieces, up to seven devices at once
        (r"(real|techno|wave)drum(\d+)-.*", r"\1drum\2"),  # one kit, played as a whole and drum by drum
        (r"(ar|fs|lp)-.*", r"guitar-\1"),  # one electric guitar: licks, notes of every string
        (r"(g53)-.*", r"guitar-\1"),  # one electric guitar, note by note
        (
            r"(?:slow-)?(classical|country|folk|jazz|latin|metal|pop|reggae|rock|ska)-(\d+)(?:-.*)?",
            r"\1-\2",
        ),  # one piece
        (r"(v[an])-ord-.*", r"sol-\1"),  # one player, note by note
        (r"\d+-([a-z]+-[a-z]+)-bwv.*", r"\1"),  # one violinist; the number counts excerpts
        (r"violin-sounds?", r"violin-sound"),
        (r"sad-violin-.*", r"sad-violin"),
    )
)


def group_of(name: str) -> str:
    """Read from a file's name which recordings belong together: those of one instrument, room, kit, player or series.

    Nobody wrote down who recorded what, so this errs on the careful side: names that differ only in their numbers (of
    takes, copies, tempi or uploads) are one group. It cannot see that two differently named files come from one
    session.

    Parameters
    ----------
    name : str
        Name of a file, with or without its ending.

    Returns
    -------
    str

    Examples
    --------
    >>> group_of("ROOM_room6_MUS_mozart_DEV_lg.wav"), group_of("ROOM-room6-MUS-chords.wav")
    ('room-6', 'room-6')
    >>> group_of("1-E1-Major 00.wav"), group_of("WaveDrum02_39KD (17).wav"), group_of("slow_rock_2_100BPM.wav")
    ('1-e1-major', 'wavedrum02', 'rock-2')
    >>> group_of("hip-hop-drum-loop-22-33572.wav"), group_of("hip-hop-drum-loop-25-33571 (1).wav")
    ('hip-hop-drum-loop', 'hip-hop-drum-loop')
    """
    stem = re.sub(r"\.(wav|flac|ogg|mp3)$", "", name.lower())
    stem = re.sub(r"[\s_-]+", "-", re.sub(r"\s*\(\d+\)$", "", stem))
    for pattern, group in _SERIES:
        if pattern.fullmatch(stem):
            return pattern.sub(group, stem)
    words = stem.split("-")
    while len(words) > 1 and re.fullmatch(r"\d+(bpm)?", words[-1]):
        words.pop()
    # A last number that sticks to its word counts too: muvibeat8, muvibeat9.
    return re.sub(r"(?<=[a-z])\d+$", "", "-".join(words))


def load(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read the set, or a part of it, from disk.

    Parameters
    ----------
    root : Path
        Folder that holds `Metadata_Train.csv` and `Train_submission`, `Metadata_Test.csv` and `Test_submission`, or
        both. The recordings lie in these folders, or in folders of the same names within them, as in the download.
    classes : sequence of str, optional
        Which of `CLASSES` to use; all when left out.
    max_clips_per_class : int, optional
        Cap for each class, drawn with `seed`, one clip of every group before a second of any.
    seed : int
        Seed of that draw.

    Returns
    -------
    Corpus
        `clip_id` is the part and the name of the file without its ending. `group` is what `group_of` reads from the
        name; groups that share a file of the same bytes are one. The further column `named_by` is "table", or
        "file name" for the violin files that the table lacks. `split` holds the publisher's parts when both are on
        disk; training clips whose group reaches into the test part are then left out, with the reason
        `GROUP_IN_TEST`. A sound that stands under two classes is left out, with the reason `CONTRADICTION`.

    Raises
    ------
    CorpusError
        When the root is missing, no part is whole, a table lacks a column or has an unknown class, or a class has no
        usable clip.
    ConfigError
        When a class is unknown or the cap is below 1.
    """
    root = Path(root)
    rows, torn = _read_rows(root)
    wanted = choose_classes(rows.label, classes)
    rows = rows[rows.label.isin(wanted)]
    present = rows.present.to_numpy(dtype=bool)
    usable, unusable = probe_clips(root, rows[present])
    unusable += [(row.clip_id, row.path, missing_reason(row.path)) for row in rows[~present].itertuples()]
    usable = usable.assign(group=_join_copies(usable))
    contradicts = usable.groupby(CONTENT).label.transform("nunique") > 1
    in_test = reaches_into_test(usable) & ~contradicts
    left_out = [(row.clip_id, row.path, CONTRADICTION) for row in usable[contradicts].itertuples()]
    left_out += [(row.clip_id, row.path, GROUP_IN_TEST) for row in usable[in_test].itertuples()]
    drawn = draw_clips(usable[~contradicts & ~in_test], max_clips_per_class, seed=seed)
    check_no_class_empty(INFO, root, drawn, wanted)
    manifest = drawn[[*COLUMNS, "named_by", CONTENT]].sort_values("clip_id").reset_index(drop=True)
    return Corpus(INFO, root, manifest, wanted, problem_table(sorted(unusable) + sorted([*left_out, *torn])))


def validate(root: Path) -> list[str]:
    """List everything that is wrong with the set on disk; every file is decoded to its end.

    Parameters
    ----------
    root : Path
        The corpus's folder.

    Returns
    -------
    list of str
        One line for each finding; empty when all is well. The publisher gives no checksums, so a file that was altered
        shows only when it cannot be used any more.
    """
    root = Path(root)
    try:
        rows, torn = _read_rows(root)
    except CorpusError as error:
        return [str(error)]
    findings = []
    for part, table in _TABLES.items():
        there = [name for name in (table, _FOLDERS[part]) if (root / name).exists()]
        if len(there) == 1:
            lacking = next(name for name in (table, _FOLDERS[part]) if name not in there)
            findings.append(f"{there[0]} is there, but not {lacking}: this part is not used.")
    present = rows.present.to_numpy(dtype=bool)
    findings += [f"{path}: {missing_reason(path)}" for path in rows.path[~present]]
    findings += [f"{path}: {reason}" for _, path, reason in find_unusable(root, rows[present])]
    findings += [f"{path}: {reason.removeprefix(LEFT_OUT)}" for _, path, reason in torn]
    used = {*rows.path, *(path for _, path, _ in torn)}
    for part in rows.part.unique():
        folder = _folder(root, part)
        strangers = sorted({f"{folder}/{name}" for name in audio_files(root / folder).values()} - used)
        findings += [f"{path}: {_TABLES[part]} does not name this file." for path in strangers]
    return findings


def _read_rows(root: Path) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Return one row for each clip of the parts on disk, and the clips that a table names under several classes."""
    if not root.is_dir():
        raise CorpusError(f"{INFO.title}: there is no folder {root}. {INFO.how_to_get}")
    parts = [part for part in _TABLES if (root / _TABLES[part]).is_file() and (root / _FOLDERS[part]).is_dir()]
    if not parts:
        lacking = ", ".join(name for name in (*_TABLES.values(), *_FOLDERS.values()) if not (root / name).exists())
        raise CorpusError(f"{INFO.title}: no part is whole in {root}, which lacks {lacking}. {INFO.how_to_get}")
    rows = pd.concat([_read_part(root, part) for part in parts], ignore_index=True)
    several = rows.groupby("clip_id").label.transform("nunique") > 1
    labels = rows[several].groupby("clip_id").label.agg(lambda names: " and ".join(sorted(set(names))))
    torn = [
        (row.clip_id, row.path, f"{LEFT_OUT}{_TABLES[row.part]} names it under {labels[row.clip_id]}")
        for row in rows[several].drop_duplicates("clip_id").itertuples()
    ]
    rows = rows[~several].drop_duplicates("clip_id").reset_index(drop=True)
    return rows.assign(split=rows.part if len(parts) == 2 else ""), torn


def _read_part(root: Path, part: str) -> pd.DataFrame:
    path = root / _TABLES[part]
    table = read_table(path, ("FileName", "Class"))
    unknown = sorted(set(table.Class) - set(_LABELS))
    if unknown:
        raise CorpusError(f"{path}: class outside the list: {', '.join(unknown)}; there is: {', '.join(_LABELS)}.")
    rows = pd.DataFrame({"stem": [Path(name).stem for name in table.FileName], "label": table.Class.map(_LABELS)})
    drums = set(rows.stem[rows.label == "drums"])
    rows = rows[(rows.label != "violin") | ~rows.stem.isin(drums)].assign(named_by="table")
    folder = _folder(root, part)
    files = audio_files(root / folder)
    violins = sorted(stem for stem in set(files) - set(rows.stem) if _VIOLIN.search(stem))
    rows = pd.concat(
        [rows, pd.DataFrame({"stem": violins, "label": "violin", "named_by": "file name"})], ignore_index=True
    )
    return pd.DataFrame(
        {
            "clip_id": [f"{part}/{stem}" for stem in rows.stem],
            "path": [f"{folder}/{files.get(stem, stem + '.wav')}" for stem in rows.stem],
            "label": rows.label,
            "group": [group_of(stem) for stem in rows.stem],
            "part": part,
            "named_by": rows.named_by,
            "present": [stem in files for stem in rows.stem],
        }
    )


def _folder(root: Path, part: str) -> str:
    """Return the folder of a part's recordings: the download has them in a folder of the same name within it."""
    name = _FOLDERS[part]
    return f"{name}/{name}" if (root / name / name).is_dir() else name


def _join_copies(clips: pd.DataFrame) -> np.ndarray:
    """Return each clip's group, where groups that share a file of the same bytes are one, named by the first."""
    first = {group: group for group in clips.group}

    def root_of(group: str) -> str:
        while first[group] != group:
            group = first[group]
        return group

    for _, groups in clips.groupby(CONTENT).group:
        names = sorted({root_of(group) for group in groups})
        for name in names[1:]:
            first[name] = names[0]
    return np.array([root_of(group) for group in clips.group], dtype=object)
