"""NSynth: 305,979 single notes of 1,006 instruments in 11 families."""

import json
import re
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.data.dataset import Found, check_unique, known, parts_on_disk

INFO = known("nsynth")

FAMILIES = ("brass", "flute", "guitar", "keyboard", "mallet", "reed", "string", "vocal")
"""The families that are used: those with enough acoustic instruments."""

_FIELDS = ("note_str", "instrument_str", "instrument_family_str", "instrument_source_str", "pitch", "velocity")


def find(root: Path) -> Found:
    """List the acoustic notes of `FAMILIES` in those of `nsynth-train`, `nsynth-valid` and `nsynth-test` on disk.

    All notes of an instrument come from one sample pack, so `group` is the instrument. The publisher keeps the
    instruments of `nsynth-train` apart from those of the other two, but these two hold different notes of the *same*
    instruments. Both together are therefore the official test part here; column `part` tells them apart. Validation is
    drawn from `nsynth-train`. Further columns: `pitch` and `velocity` (MIDI).
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
    """Return `_FIELDS` of every note; the other fields are dropped while reading, for the file is large."""
    fields = itemgetter(*_FIELDS)

    def keep(entry: dict[str, Any]) -> Any:
        return fields(entry) if "note_str" in entry else entry  # the outermost object has no such field

    try:
        with path.open(encoding="utf-8") as file:
            notes = json.load(file, object_hook=keep)
    except KeyError as error:
        raise CorpusError(f"{path}: a note lacks the field {error.args[0]}; unpack the archive again.") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is not readable as JSON ({error}); unpack the archive again.") from None
    if not isinstance(notes, dict) or not notes:
        raise CorpusError(f"{path} names no notes; unpack the archive again.")
    strange = next((name for name, note in notes.items() if not _agrees(name, note)), None)
    if strange is not None:
        raise CorpusError(f"{path}: the fields of {strange} contradict its name; unpack the archive again.")
    return list(notes.values())


def _agrees(name: str, note: Any) -> bool:
    """Whether an entry's fields are those that its name states; no path can hide in such a name."""
    if not isinstance(note, tuple) or not all(isinstance(number, int) for number in note[4:]):
        return False
    note_str, instrument, family, source, pitch, velocity = note
    return name == note_str == f"{instrument}-{pitch:03d}-{velocity:03d}" and bool(
        re.fullmatch(rf"{re.escape(str(family))}_{re.escape(str(source))}_\d+", str(instrument))
    )
