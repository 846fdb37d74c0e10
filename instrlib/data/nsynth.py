"""NSynth: 305,979 single notes of 1,006 instruments in 11 families."""

import json
import re
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.dataset import Found, check_unique, known, parts_on_disk

INFO = known("nsynth")

FAMILIES = ("brass", "flute", "guitar", "keyboard", "mallet", "reed", "string", "vocal")
"""The families that are used: those with enough acoustic instruments."""

_FIELDS = ("note_str", "instrument_str", "instrument_family_str", "instrument_source_str", "pitch", "velocity")


def find(root: Path) -> Found:
    """List the acoustic notes of `FAMILIES` in those of `nsynth-train`, `nsynth-valid` and `nsynth-test` on disk.

    `group` is the instrument, whose notes come from one sample pack. The instruments of `nsynth-train` are separate,
    but `nsynth-valid` and `nsynth-test` have different notes of the *same* instruments. Both are therefore the official
    test part here (column `part` names the original); validation is drawn from `nsynth-train`. Further columns: `pitch`
    and `velocity` (MIDI).
    """
    names = {part: (f"nsynth-{part}/examples.json", f"nsynth-{part}/audio") for part in ("train", "valid", "test")}
    parts, notes = parts_on_disk(INFO, root, names)
    clips = pd.concat([_read_part(root, part) for part in parts], ignore_index=True)
    check_unique(root, clips.clip_id)
    official = "train" in parts and len(parts) > 1
    clips["split"] = np.where(clips.part == "train", "train", "test") if official else ""
    return Found(clips, notes=notes)


def _read_part(root: Path, part: str) -> pd.DataFrame:
    notes = _read_notes(root / f"nsynth-{part}" / "examples.json")
    clips = pd.DataFrame(notes, columns=["clip_id", "group", "label", "source", "pitch", "velocity"])
    clips = clips[(clips.source == "acoustic") & clips.label.isin(FAMILIES)].drop(columns="source")
    return clips.assign(path="nsynth-" + part + "/audio/" + clips.clip_id + ".wav", part=part)


def _read_notes(path: Path) -> list[tuple]:
    """Return `_FIELDS` of every note; other fields are dropped while reading, because the file is large."""
    fields = itemgetter(*_FIELDS)

    def keep(entry: dict[str, Any]) -> Any:
        return fields(entry) if "note_str" in entry else entry  # except the outermost object

    try:
        with path.open(encoding="utf-8") as file:
            notes = json.load(file, object_hook=keep)
    except KeyError as error:
        raise CorpusError(f"{path}: a note lacks the field {error.args[0]}; unpack the archive again.") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is not valid JSON ({error}); unpack the archive again.") from None
    if not isinstance(notes, dict) or not notes:
        raise CorpusError(f"{path} names no notes; unpack the archive again.")
    strange = next((name for name, note in notes.items() if not _agrees(name, note)), None)
    if strange is not None:
        raise CorpusError(f"{path}: the fields of {strange} contradict its name; unpack the archive again.")
    return list(notes.values())


def _agrees(name: str, note: Any) -> bool:
    """Return whether the fields of an entry match its name; a matching name contains no path."""
    if not isinstance(note, tuple) or not all(isinstance(number, int) for number in note[4:]):
        return False
    note_str, instrument, family, source, pitch, velocity = note
    return name == note_str == f"{instrument}-{pitch:03d}-{velocity:03d}" and bool(
        re.fullmatch(rf"{re.escape(str(family))}_{re.escape(str(source))}_\d+", str(instrument))
    )
