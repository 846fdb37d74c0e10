"""IRMAS: 6,705 excerpts of 3 seconds with one predominant instrument, and 2,874 test excerpts with several."""

import re
import unicodedata
from pathlib import Path

import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import Corpus, Found, incomplete, read
from instrlib.data.files import walk_audio

INSTRUMENTS = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
"""Cello, clarinet, flute, acoustic guitar, electric guitar, organ, piano, saxophone, trumpet, violin, voice."""

TRAINING = "IRMAS-TrainingData"
TESTING = ("IRMAS-TestingData-Part1", "IRMAS-TestingData-Part2", "IRMAS-TestingData-Part3")
INDEXED = "."
"""Folder that the paths in mirdata's index are relative to."""

_NAME = re.compile(r"(?:\d+__)?\[([a-z]{3})\](?:\[(?:dru|nod)\])?\[[a-z_]+\](\d+)__\d+")


def find(root: Path) -> Found:
    """List the training excerpts, each with one predominant instrument.

    `group` is the number of the recording in the file name: "[pia][dru][jaz_blu]1234__2" and
    "012__[vio][nod][jaz_blu]1234__1" are excerpts of recording 1234.
    """
    rows, excluded = [], []
    for path in walk_audio(root / TRAINING):
        label = path.parent.name
        if label not in INSTRUMENTS:
            raise CorpusError(f"{path.parent} is no instrument of IRMAS ({', '.join(INSTRUMENTS)}); move it away.")
        place = f"{label}/{path.stem}", path.relative_to(root).as_posix()
        found = _NAME.fullmatch(path.stem)
        if found and found[1] == label:
            rows.append((*place, label, found[2], ""))
        else:
            excluded.append((*place, f"its name does not state its recording, as [{label}][cla]0016__2", False))
    if not rows:
        raise incomplete("irmas", root, f"excerpts in {TRAINING}")
    clips = pd.DataFrame(rows, columns=["clip_id", "path", "label", "group", "split"])
    lacking = [f"{TRAINING}/{name}" for name in INSTRUMENTS if not (root / TRAINING / name).is_dir()]
    lacking += [part for part in TESTING if not (root / part).is_dir()]
    return Found(clips, excluded=excluded, notes=[f"{name} is missing." for name in lacking])


def load_test(root: Path) -> Corpus:
    """Load the official test set: 5 to 20 s per clip, several labels; `group` is the recording, `split` "test"."""
    return read("irmas", root, found=find_test(Path(root)))


def find_test(root: Path) -> Found:
    """List the test excerpts, each with a text file that has one instrument per line."""
    rows, labels, excluded = [], [], []
    for path in (path for part in TESTING for path in walk_audio(root / part)):
        annotation, name = path.with_suffix(".txt"), path.relative_to(root).as_posix()
        place = name.removesuffix(path.suffix), name
        names = set(annotation.read_text("utf-8", errors="replace").split()) if annotation.is_file() else set()
        if names - set(INSTRUMENTS):
            raise CorpusError(f"{annotation} names no instrument of IRMAS: {', '.join(names)}; download it again.")
        if names:
            # A recording can occur in two Unicode forms and in two parts of the set.
            group = unicodedata.normalize("NFC", re.sub(r"-\d+$", "", path.stem))
            rows.append((*place, group, "test"))
            labels.append([float(one in names) for one in INSTRUMENTS])
        else:
            excluded.append((*place, "it has no annotation beside it", False))
    if not rows:
        raise incomplete("irmas", root, "annotated excerpts of the test set")
    present = pd.DataFrame(labels, columns=list(INSTRUMENTS)).loc[:, lambda table: table.any()]
    return Found(pd.DataFrame(rows, columns=["clip_id", "path", "group", "split"]), present, excluded)
