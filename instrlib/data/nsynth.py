"""NSynth: 305,979 single notes of 1,006 instruments in 11 families.

References
----------
.. [1] J. Engel, C. Resnick, A. Roberts, S. Dieleman, D. Eck, K. Simonyan, M. Norouzi, "Neural Audio Synthesis of
   Musical Notes with WaveNet Autoencoders", ICML 2017, arXiv:1704.01279.
"""

import json
import re
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.data.base import COLUMNS, CONTENT, LEFT_OUT, Corpus, CorpusInfo, problem_table
from instrlib.data.download import Remote, fetch, unpack
from instrlib.data.local import (
    check_no_class_empty,
    choose_classes,
    draw_clips,
    find_unusable,
    is_audio,
    probe_clips,
    reaches_into_test,
)

INFO = CorpusInfo(
    name="nsynth",
    title="NSynth, the acoustic notes of 8 families",
    licence="Creative Commons Attribution 4.0 International (CC BY 4.0)",
    citation="J. Engel, C. Resnick, A. Roberts, S. Dieleman, D. Eck, K. Simonyan, M. Norouzi: Neural Audio Synthesis "
    "of Musical Notes with WaveNet Autoencoders. ICML 2017. arXiv:1704.01279.",
    url="https://magenta.tensorflow.org/datasets/nsynth",
    size="about 25 GB packed, 39 GB unpacked",
    how_to_get="`instrlib download nsynth` fetches it, checks it and goes on where it was broken off.",
)

FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
"""The families of the whole set, in the order of its field `instrument_family`."""

ACOUSTIC = ("brass", "flute", "guitar", "keyboard", "mallet", "reed", "string", "vocal")
"""The families that are used by default: those with enough acoustic instruments."""

SAMPLE_RATE_HZ = 16_000
DURATION_S = 4.0
"""Every note is as long as this: held for 3 s, then let go."""

INSTRUMENT_IN_TEST = LEFT_OUT + "other notes of its instrument stand in the official validation and test parts"

_PARTS = ("train", "valid", "test")
_FIELDS = ("note_str", "instrument_str", "instrument_family_str", "instrument_source_str", "pitch", "velocity")

# The publisher's page lists no checksums. These are what Google's storage reports for the files, as fixed in the code
# of the HEAR benchmark (hearpreprocess, task nsynth_pitch) and of other users of the set.
REMOTES = tuple(
    Remote(
        f"http://download.magenta.tensorflow.org/datasets/nsynth/nsynth-{part}.jsonwav.tar.gz",
        f"nsynth-{part}.jsonwav.tar.gz",
        None,
        f"md5:{md5}",
    )
    for part, md5 in (
        ("test", "5e6f8719bf7e16ad0a00d518b78af77d"),
        ("valid", "87e94a00a19b6dbc99cf6d4c0c0cae87"),
        ("train", "fde6665a93865503ba598b9fac388660"),
    )
)


def load(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
    acoustic: bool = True,
) -> Corpus:
    """Read the set, or a part of it, from disk.

    Every note of an instrument comes from one sample pack, and pitches and velocities next to each other are nearly the
    same sound. So `group` is the instrument, and an instrument stands in one part of the split only.

    The publisher keeps the instruments of `nsynth-train` apart from those of the other two, but `nsynth-valid` and
    `nsynth-test` hold different notes of the *same* instruments. A network chosen on the one and tested on the other
    would be tested on instruments that it was chosen by. Hence both together are the test part here, and validation
    notes are taken from `nsynth-train` by whole instruments. Who wants the official test part alone finds it in the
    column `part`. A training note whose instrument stands in the test part after all is left out, with the reason
    `INSTRUMENT_IN_TEST`.

    Parameters
    ----------
    root : Path
        Folder that holds one or more of `nsynth-train`, `nsynth-valid` and `nsynth-test`, each with `examples.json` and
        a folder `audio`. Without `nsynth-train`, or with it alone, there are no official parts.
    classes : sequence of str, optional
        Families to use; all when left out.
    max_clips_per_class : int, optional
        Cap for each family, drawn with `seed`, one note of every instrument before a second of any. Files that are not
        drawn are not opened.
    seed : int
        Seed of that draw.
    acoustic : bool
        Whether only acoustic notes of the families in `ACOUSTIC` are used; else all sources and `FAMILIES`.

    Returns
    -------
    Corpus
        The manifest has further columns: `part` ("train", "valid" or "test"), `source` ("acoustic", "electronic" or
        "synthetic"), `pitch` and `velocity` (MIDI).

    Raises
    ------
    CorpusError
        When the root is missing, no part is whole, `examples.json` is not usable, or a family has no usable note.
    ConfigError
        When a class is unknown or the cap is below 1.
    """
    root = Path(root)
    rows = _read_rows(root)
    if acoustic:
        rows = rows[(rows.source == "acoustic") & rows.label.isin(ACOUSTIC)]
    wanted = choose_classes(rows.label, classes)
    rows = rows[rows.label.isin(wanted)]
    in_test = reaches_into_test(rows)
    left_out = [(row.clip_id, row.path, INSTRUMENT_IN_TEST) for row in rows[in_test].itertuples()]
    drawn = draw_clips(rows[~in_test], max_clips_per_class, seed=seed)
    usable, unusable = probe_clips(root, drawn)
    check_no_class_empty(INFO, root, usable, wanted)
    columns = [*COLUMNS, "part", "source", "pitch", "velocity", CONTENT]
    manifest = usable[columns].sort_values("clip_id").reset_index(drop=True)
    return Corpus(INFO, root, manifest, wanted, problem_table(sorted(unusable) + sorted(left_out)))


def download(root: Path) -> None:
    """Fetch what is missing of the set, check it and unpack it.

    A part that is on disk is not fetched again; a download that broke off goes on where it was. The archives are
    removed once they are unpacked. The small parts come first.

    Parameters
    ----------
    root : Path
        Folder to put it into; made when missing.

    Raises
    ------
    CorpusError
        When an archive cannot be fetched or has another checksum, or when a part that was there before is not whole.
    """
    root = Path(root)
    for remote in REMOTES:
        part = remote.filename.partition(".")[0]
        if not (root / part).is_dir():
            archive = fetch(remote, root)
            unpack(archive, root)
            archive.unlink()
    for part in _PARTS:
        rows = _read_part(root, part)
        absent = int((~_present(root, rows)).sum())
        if absent:
            raise CorpusError(
                f"{root / f'nsynth-{part}'} lacks {absent} of the {len(rows)} notes that its examples.json names; "
                "move that folder away and run `instrlib download nsynth` again."
            )
    for remote in REMOTES:
        if (root / remote.filename).exists():  # left by a run that was killed after it had unpacked it
            (root / remote.filename).unlink()


def validate(root: Path) -> list[str]:
    """List everything that is wrong with the set on disk; every file of every family is decoded to its end.

    Parameters
    ----------
    root : Path
        The corpus's folder.

    Returns
    -------
    list of str
        One line for each finding; empty when all is well. The publisher gives no checksums of single files; a file
        that was altered shows by its length, or by samples that cannot be.
    """
    root = Path(root)
    try:
        rows = _read_rows(root)
    except CorpusError as error:
        return [str(error)]
    here = {f"nsynth-{part}" for part in rows.part.unique()}
    findings = [
        f"{folder.name}: examples.json or the folder audio is missing, so this part is not used."
        for folder in (root / f"nsynth-{part}" for part in _PARTS)
        if folder.is_dir() and folder.name not in here
    ]
    present = _present(root, rows)
    findings += [f"{path}: the file is missing." for path in rows.path[~present]]
    broken = find_unusable(root, rows[present])
    findings += [f"{path}: {reason}" for _, path, reason in broken]
    readable = rows[present & ~rows.path.isin([path for _, path, _ in broken])]
    lengths, _ = probe_clips(root, readable)
    other = lengths[~np.isclose(lengths.duration_s, DURATION_S)]
    findings += [
        f"{row.path}: it is {row.duration_s:.2f} s long; every note of the release has {DURATION_S:g} s."
        for row in other.itertuples()
    ]
    for part in rows.part.unique():
        audio = root / f"nsynth-{part}" / "audio"
        strangers = {path.name for path in audio.iterdir() if is_audio(path)} - {
            Path(path).name for path in rows.path[rows.part == part]
        }
        findings += [
            f"nsynth-{part}/audio/{name}: examples.json does not name this file." for name in sorted(strangers)
        ]
    return findings


def _read_rows(root: Path) -> pd.DataFrame:
    """Return one row for each note of the parts that are on disk, of all families and sources."""
    if not root.is_dir():
        raise CorpusError(f"{INFO.title}: there is no folder {root}; {INFO.how_to_get}")
    folders = {part: root / f"nsynth-{part}" for part in _PARTS}
    parts = [name for name, path in folders.items() if (path / "examples.json").is_file() and (path / "audio").is_dir()]
    if not parts:
        raise CorpusError(
            f"{INFO.title}: {root} holds no folder nsynth-train, nsynth-valid or nsynth-test with examples.json and a "
            f"folder audio in it; {INFO.how_to_get}"
        )
    rows = pd.concat([_read_part(root, part) for part in parts], ignore_index=True)
    twice = rows.clip_id[rows.clip_id.duplicated()].unique()
    if len(twice):
        raise CorpusError(f"{root}: {len(twice)} notes stand in two parts; the first: {twice[0]}.")
    official = "train" in parts and len(parts) > 1
    return rows.assign(split=np.where(rows.part == "train", "train", "test") if official else "")


def _read_part(root: Path, part: str) -> pd.DataFrame:
    path = root / f"nsynth-{part}" / "examples.json"
    notes = _read_notes(path)
    rows = pd.DataFrame(notes, columns=["clip_id", "group", "label", "source", "pitch", "velocity"])
    unknown = sorted(set(rows.label) - set(FAMILIES))
    if unknown:
        raise CorpusError(f"{path}: family outside the list: {', '.join(unknown)}; there is: {', '.join(FAMILIES)}.")
    return rows.assign(path=[f"nsynth-{part}/audio/{note}.wav" for note in rows.clip_id], part=part)


def _read_notes(path: Path) -> list[tuple]:
    """Return the fields of every note; what else the file says of it is dropped while reading, since it is large."""
    fields = itemgetter(*_FIELDS)
    lacking: list[tuple[str, str]] = []

    def keep(entry: dict[str, Any]) -> Any:
        if "note_str" not in entry:
            return entry  # the outermost object, or one that is no note
        try:
            return fields(entry)
        except KeyError as error:
            lacking.append((str(entry["note_str"]), str(error.args[0])))
            return ()

    try:
        with path.open(encoding="utf-8") as file:
            notes = json.load(file, object_hook=keep)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; {INFO.how_to_get}") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is not readable as JSON ({error}); unpack the archive of this part again.") from None
    if lacking:
        raise CorpusError(f"{path}: the note {lacking[0][0]} lacks the field {lacking[0][1]}.")
    if not isinstance(notes, dict) or not notes:
        raise CorpusError(f"{path} names no notes; unpack the archive of this part again.")
    strange = next((name for name, note in notes.items() if not _agrees(name, note)), None)
    if strange is not None:
        raise CorpusError(f"{path}: what the entry {strange} says of its note contradicts its name.")
    return list(notes.values())


def _agrees(name: str, note: Any) -> bool:
    """Tell whether an entry's fields are those that its name stands for; no path can hide in such a name."""
    if not isinstance(note, tuple) or not all(isinstance(number, int) for number in note[4:]):
        return False
    note_str, instrument, family, source, pitch, velocity = note
    return name == note_str == f"{instrument}-{pitch:03d}-{velocity:03d}" and bool(
        re.fullmatch(rf"{re.escape(str(family))}_{re.escape(str(source))}_\d+", str(instrument))
    )


def _present(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """Tell for each row whether its file is there; each folder is listed once."""
    there = {
        f"{folder}/{path.name}"
        for folder in {path.rpartition("/")[0] for path in rows.path}
        if (root / folder).is_dir()
        for path in (root / folder).iterdir()
    }
    return rows.path.isin(there).to_numpy()
