"""IRMAS: 6,705 excerpts of 3 seconds with one predominant instrument, and 2,874 test excerpts with several.

References
----------
.. [1] J. J. Bosch, J. Janer, F. Fuhrmann, P. Herrera, "A comparison of sound segregation techniques for predominant
   instrument recognition in musical audio signals", ISMIR 2012, pp. 559-564.
.. [2] Zenodo record 1290750, DOI 10.5281/zenodo.1290750.
.. [3] R. M. Bittner et al., "mirdata: software for reproducible usage of datasets", ISMIR 2019: addresses, checksums
   and the reading of annotations.
"""

import io
import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.core.io import disk_errors
from instrlib.data.base import COLUMNS, CONTENT, Corpus, CorpusInfo, problem_table, strata
from instrlib.data.download import fetch, unpack
from instrlib.data.local import (
    audio_files,
    check_no_class_empty,
    choose_classes,
    compare_with_index,
    draw_clips,
    find_unusable,
    is_audio,
    mirdata_module,
    mirdata_remotes,
    probe_clips,
    read_index,
)

INFO = CorpusInfo(
    name="irmas",
    title="IRMAS",
    licence="Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported; not to be passed on or changed",
    citation="J. J. Bosch, F. Fuhrmann, P. Herrera: IRMAS: a dataset for instrument recognition in musical audio "
    "signals. Zenodo, 2014. DOI 10.5281/zenodo.1290750.",
    url="https://zenodo.org/records/1290750",
    size="about 10 GB",
    how_to_get="`instrlib download irmas` fetches it, checks it and goes on where it was broken off.",
)

INSTRUMENTS = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
"""Cello, clarinet, flute, acoustic guitar, electric guitar, organ, piano, saxophone, trumpet, violin, voice."""

TRAINING = "IRMAS-TrainingData"
TESTING = ("IRMAS-TestingData-Part1", "IRMAS-TestingData-Part2", "IRMAS-TestingData-Part3")
INDEX = "irmas_index_1.0.json"

_NAME = re.compile(
    r"(?:\d+__)?\[(?P<label>[a-z]{3})\](?:\[(?P<drums>dru|nod)\])?\[(?P<genre>[a-z_]+)\](?P<recording>\d+)__\d+"
)
_DRUMS = {"dru": "yes", "nod": "no", None: ""}


def load(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read the training set: one predominant instrument a clip.

    The official test set has several instruments a clip, so it is a corpus of its own (`load_test`); this one is split
    by recording like any other.

    Parameters
    ----------
    root : Path
        Folder that holds `IRMAS-TrainingData`, and in it a folder for each instrument.
    classes : sequence of str, optional
        Some of `INSTRUMENTS`; all that have a folder when left out.
    max_clips_per_class : int, optional
        Cap for each class, drawn with `seed`, one clip of every recording before a second of any.
    seed : int
        Seed of that draw.

    Returns
    -------
    Corpus
        `group` is the recording's number, which the file name holds: "[pia][dru][jaz_blu]1234__2" and
        "012__[vio][nod][jaz_blu]1234__1" come from recording 1234, whatever instrument an excerpt stands for. Further
        columns: `genre` ("cla", "cou_fol", "jaz_blu", "lat_sou" or "pop_roc") and `drums` ("yes", "no" or "" where
        nobody said). Files whose names do not tell this stand in `problems`.

    Raises
    ------
    CorpusError
        When the root is missing or partial, holds a folder of another name, or a class has no usable clip.
    ConfigError
        When a class is unknown or the cap is below 1.
    """
    root = Path(root)
    clips, unnamed = _find_training(root)
    wanted = choose_classes(clips.label, classes)
    drawn = draw_clips(clips[clips.label.isin(wanted)], max_clips_per_class, seed=seed)
    usable, unusable = probe_clips(root, drawn)
    check_no_class_empty(INFO, root, usable, wanted)
    unusable += [problem for problem in unnamed if problem[0].split("/")[0] in wanted]
    manifest = usable[[*COLUMNS, "genre", "drums", CONTENT]].sort_values("clip_id").reset_index(drop=True)
    return Corpus(INFO, root, manifest, wanted, problem_table(sorted(unusable)))


def load_test(root: Path) -> Corpus:
    """Read the official test set: 5 to 20 seconds of music a clip, all of its predominant instruments named.

    Parameters
    ----------
    root : Path
        Folder that holds one or more of `TESTING`; in them a text file lies beside each clip, one instrument a line.

    Returns
    -------
    Corpus
        With several labels a clip, all of them observed; `classes` are those of `INSTRUMENTS` that some clip has.
        `group` is the recording, which is the file name without the excerpt's number; `split` is "test".

    Raises
    ------
    CorpusError
        When no test part is there, none of its clips is usable, or an annotation names something else.
    """
    root = Path(root)
    clips, unlabelled = _find_testing(root)
    usable, unusable = probe_clips(root, clips)
    usable = usable.sort_values("clip_id").reset_index(drop=True)
    classes = tuple(name for name in INSTRUMENTS if any(name in names for names in usable.instruments))
    labels = np.array([[name in names for name in classes] for names in usable.instruments], dtype=np.float32)
    usable = usable.assign(label=strata(labels, classes) if len(usable) else "")
    problems = problem_table(sorted(unusable + unlabelled))
    return Corpus(INFO, root, usable[[*COLUMNS, CONTENT]], classes, problems, labels)


def download(root: Path) -> None:
    """Fetch what is missing of the release from Zenodo, check it and unpack it; and mirdata's list of its files.

    A part that is on disk is not fetched again; a download that broke off goes on where it was. The archives are
    removed once they are unpacked.

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
    archives, index = mirdata_remotes("irmas")
    listed = [path for path in read_index(fetch(index, root)) if is_audio(Path(path))]
    for remote in archives:
        part = remote.filename.removesuffix(".zip")
        if not (root / part).is_dir():
            _unpack_part(fetch(remote, root), root, part)
        expected = sum(path.startswith(f"{part}/") for path in listed)
        found = sum(is_audio(path) for path in (root / part).rglob("*"))
        if found < expected:
            raise CorpusError(
                f"{root / part} holds {found:,} audio files, not {expected:,} as {index.filename} lists; "
                "move that folder away and run `instrlib download irmas` again."
            )
        (root / remote.filename).unlink(missing_ok=True)


def validate(root: Path) -> list[str]:
    """List everything that is wrong with the release on disk; every file is decoded to its end.

    Where mirdata's list of files is there (`download` fetches it), each file's MD5 is compared with the publisher's.

    Parameters
    ----------
    root : Path
        The corpus's folder.

    Returns
    -------
    list of str
        One line for each finding; empty when all is well.
    """
    root = Path(root)
    try:
        clips, problems = _find_training(root)
    except CorpusError as error:
        return [str(error)]
    parts = [TRAINING, *(part for part in TESTING if (root / part).is_dir())]
    findings = [f"{part}: this part of the official test set is not there." for part in TESTING if part not in parts]
    findings += [
        f"{TRAINING}/{name}: this class is not there." for name in INSTRUMENTS if not (root / TRAINING / name).is_dir()
    ]
    if len(parts) > 1:
        try:
            testing, unlabelled = _find_testing(root)
            clips, problems = pd.concat([clips, testing], ignore_index=True), problems + unlabelled
        except CorpusError as error:
            findings.append(str(error))
    problems += find_unusable(root, clips)
    findings += [f"{path}: {reason}" for _, path, reason in sorted(problems)]
    named = {path for _, path, _ in problems}
    try:
        compared = compare_with_index(root / INDEX, root)
    except CorpusError as error:
        return [*findings, str(error)]
    there = {INDEX, *parts}
    return findings + [
        f"{path}: {reason}" for path, reason in compared if path.split("/")[0] in there and path not in named
    ]


def _find_training(root: Path) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Return the training clips with what their names tell, and the files whose names do not tell it."""
    training = root / TRAINING
    if not training.is_dir():
        raise CorpusError(f"{INFO.title}: there is no folder {training}; {_way_out()}")
    folders = sorted(path.name for path in training.iterdir() if path.is_dir() and not path.name.startswith("."))
    strangers = [name for name in folders if name not in INSTRUMENTS]
    if strangers:
        raise CorpusError(
            f"{training} holds the folder {', '.join(strangers)}, which is no instrument of {INFO.title} "
            f"({', '.join(INSTRUMENTS)}); move it away."
        )
    rows, unnamed = [], []
    for label in folders:
        for stem, name in sorted(audio_files(training / label).items()):
            clip_id, path = f"{label}/{stem}", f"{TRAINING}/{label}/{name}"
            found = _NAME.fullmatch(stem)
            if found and found["label"] == label:
                rows.append((clip_id, path, label, found["recording"], "", found["genre"], _DRUMS[found["drums"]]))
            else:
                reason = f"its name is not such as [{label}][pop_roc]0016__2, so its recording is not known"
                unnamed.append((clip_id, path, reason))
    if not rows:
        raise CorpusError(f"{INFO.title}: no clip of its naming is in {training}; {_way_out()}")
    columns = ["clip_id", "path", "label", "group", "split", "genre", "drums"]
    return pd.DataFrame(rows, columns=columns), unnamed


def _find_testing(root: Path) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Return the test clips with their instruments, and the clips that have none."""
    parts = [root / part for part in TESTING if (root / part).is_dir()]
    if not parts:
        raise CorpusError(f"{INFO.title}: no part of the test set is in {root}, such as {TESTING[0]}; {_way_out()}")
    # The release nests them (Part1/Part1, Part2/IRTestingData-Part2), and not every unpacker does so the same way.
    folders = sorted({path.parent for part in parts for path in part.rglob("*") if is_audio(path)})
    rows, unlabelled = [], []
    for folder in folders:
        for stem, name in sorted(audio_files(folder).items()):
            path = (folder / name).relative_to(root).as_posix()
            clip_id = path.removesuffix(Path(name).suffix)
            instruments = _read_annotation(folder / f"{stem}.txt")
            if instruments:
                # One recording may be written in two ways of Unicode, and in two parts of the set.
                group = unicodedata.normalize("NFC", re.sub(r"-\d+$", "", stem))
                rows.append((clip_id, path, group, "test", instruments))
            else:
                unlabelled.append((clip_id, path, "no text file beside it names an instrument"))
    if not rows:
        raise CorpusError(f"{INFO.title}: no clip with its annotation is in {', '.join(map(str, parts))}; {_way_out()}")
    return pd.DataFrame(rows, columns=["clip_id", "path", "group", "split", "instruments"]), unlabelled


def _read_annotation(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return mirdata_module("irmas").load_pred_inst(io.StringIO("\n".join(line for line in lines if line)))
    except (AssertionError, UnicodeDecodeError):
        raise CorpusError(
            f"{path} names something that is no instrument of {INFO.title}; there is: {', '.join(INSTRUMENTS)}."
        ) from None


def _unpack_part(archive: Path, root: Path, part: str) -> None:
    """Unpack an archive to a folder of its name, whether or not the folder itself stands in the archive."""
    temporary = root / f".{part}"
    unpack(archive, temporary)
    with disk_errors(root / part):
        whole = temporary / part
        (whole if whole.is_dir() else temporary).rename(root / part)
        shutil.rmtree(temporary, ignore_errors=True)


def _way_out() -> str:
    return (
        f"get it with `instrlib download irmas` ({INFO.size}; {INFO.licence}) or from {INFO.url} "
        "(DOI 10.5281/zenodo.1290750) and name its folder with DATA=."
    )
