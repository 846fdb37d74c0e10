"""IRMAS: 6,705 excerpts of 3 seconds with one predominant instrument, and 2,874 test excerpts with several."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.dataset import Corpus, Found, build, get_it, known
from instrlib.data.files import audio_files, walk_audio

INFO = known("irmas")

INSTRUMENTS = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
"""Cello, clarinet, flute, acoustic guitar, electric guitar, organ, piano, saxophone, trumpet, violin, voice."""

TRAINING = "IRMAS-TrainingData"
TESTING = ("IRMAS-TestingData-Part1", "IRMAS-TestingData-Part2", "IRMAS-TestingData-Part3")
INDEXED = "."
"""Folder that the paths in mirdata's index are relative to."""

_NAME = re.compile(
    r"(?:\d+__)?\[(?P<label>[a-z]{3})\](?:\[(?P<drums>dru|nod)\])?\[(?P<genre>[a-z_]+)\](?P<group>\d+)__\d+"
)
_DRUMS = {"dru": "yes", "nod": "no", None: ""}


def find(root: Path) -> Found:
    """List the training excerpts, each with one predominant instrument.

    `group` is the number of the recording in the file name: "[pia][dru][jaz_blu]1234__2" and
    "012__[vio][nod][jaz_blu]1234__1" are excerpts of recording 1234. Further columns: `genre` ("cla", "cou_fol",
    "jaz_blu", "lat_sou" or "pop_roc") and `drums` ("yes", "no", or "" if unknown).
    """
    training = root / TRAINING
    names = sorted(path.name for path in training.glob("[!.]*") if path.is_dir())
    strangers = sorted(set(names) - set(INSTRUMENTS))
    if strangers:
        raise CorpusError(
            f"{training} contains the folder {', '.join(strangers)}, which is no instrument of {INFO.title} "
            f"({', '.join(INSTRUMENTS)}); move it away."
        )
    rows, unnamed = [], []
    for label in names:
        for stem, name in sorted(audio_files(training / label).items()):
            place = {"clip_id": f"{label}/{stem}", "path": f"{TRAINING}/{label}/{name}"}
            found = _NAME.fullmatch(stem)
            if found and found["label"] == label:
                rows.append({**place, **found.groupdict(), "drums": _DRUMS[found["drums"]]})
            else:
                unnamed.append(
                    (*place.values(), f"its name does not state its recording, as [{label}][cla]0016__2", False)
                )
    if not rows:
        raise CorpusError(f"{INFO.title}: {training} contains no excerpt. {get_it(INFO)}")
    notes = [f"{TRAINING}/{name} is missing." for name in INSTRUMENTS if name not in names]
    notes += [f"{part} of the official test set is missing." for part in TESTING if not (root / part).is_dir()]
    return Found(pd.DataFrame(rows).assign(split=""), excluded=unnamed, notes=notes)


def load_test(root: Path) -> Corpus:
    """Load the official test set: 5 to 20 s per clip, several labels; `group` is the recording, `split` "test"."""
    return build(INFO, Path(root), find_test(Path(root)))


def find_test(root: Path) -> Found:
    """List the test excerpts, each with a text file that has one instrument per line."""
    # The release has nested folders (Part1/Part1, Part2/IRTestingData-Part2), and unpackers treat them differently.
    folders = sorted({path.parent for part in TESTING if (root / part).is_dir() for path in walk_audio(root / part)})
    rows, excluded = [], []
    for folder in folders:
        for stem, name in sorted(audio_files(folder).items()):
            path = (folder / name).relative_to(root).as_posix()
            instruments = _read_annotation(folder / f"{stem}.txt")
            # A recording can occur in two Unicode forms and in two parts of the set.
            group = unicodedata.normalize("NFC", re.sub(r"-\d+$", "", stem))
            if instruments:
                rows.append((path.removesuffix(Path(name).suffix), path, group, "test", instruments))
            else:
                excluded.append((path.removesuffix(Path(name).suffix), path, "it has no annotation beside it", False))
    if not rows:
        raise CorpusError(f"{INFO.title}: {root} contains no annotated excerpt of the test set. {get_it(INFO)}")
    clips = pd.DataFrame(rows, columns=["clip_id", "path", "group", "split", "instruments"])
    named = clips.pop("instruments")
    classes = tuple(name for name in INSTRUMENTS if any(name in names for names in named))
    labels = np.array([[name in names for name in classes] for names in named], dtype=np.float32)
    return Found(clips, classes, labels, excluded)


def find_all(root: Path) -> list[Found]:
    """List the training set, and the test set if it is on disk, for `validate`."""
    there = any((root / part).is_dir() for part in TESTING)
    return [find(root), *([find_test(root)] if there else [])]


def _read_annotation(path: Path) -> list[str]:
    if not path.is_file():
        return []
    names = path.read_text(encoding="utf-8", errors="replace").split()
    if set(names) - set(INSTRUMENTS):
        raise CorpusError(f"{path} names no instrument of {INFO.title} ({', '.join(INSTRUMENTS)}); download it again.")
    return names
