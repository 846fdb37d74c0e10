"""NSynth: 305,979 single notes of 1,006 instruments in 11 families."""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import Found, complete_parts

FAMILIES = ("brass", "flute", "guitar", "keyboard", "mallet", "reed", "string", "vocal")
"""The families that are used: those with enough acoustic instruments."""

_COLUMNS = {
    "note_str": "clip_id",
    "instrument_str": "group",
    "instrument_family_str": "label",
    "instrument_source_str": "source",
    "pitch": "pitch",
    "velocity": "velocity",
}


def find(root: Path) -> Found:
    """List the acoustic notes of `FAMILIES` in those of `nsynth-train`, `nsynth-valid` and `nsynth-test` on disk.

    `group` is the instrument, whose notes come from one sample pack. The instruments of `nsynth-train` are separate,
    but `nsynth-valid` and `nsynth-test` have different notes of the *same* instruments. Both are therefore the official
    test part here (column `part` names the original); validation is drawn from `nsynth-train`. Further columns: `pitch`
    and `velocity` (MIDI).
    """
    names = {part: (f"nsynth-{part}/examples.json", f"nsynth-{part}/audio") for part in ("train", "valid", "test")}
    parts, notes = complete_parts("nsynth", root, names)
    clips = pd.concat([_read_notes(root / names[part][0]).assign(part=part) for part in parts], ignore_index=True)
    clips = clips[(clips.pop("source") == "acoustic") & clips.label.isin(FAMILIES)]
    clips["path"] = "nsynth-" + clips.part + "/audio/" + clips.clip_id + ".wav"
    official = "train" in parts and len(parts) > 1
    clips["split"] = np.where(clips.part == "train", "train", "test") if official else ""
    return Found(clips, notes=notes)


def _read_notes(path: Path) -> pd.DataFrame:
    """Return `_COLUMNS` of every note; other fields are dropped while reading, because the file is large."""
    fields = itemgetter(*_COLUMNS)

    def keep(entry: dict[str, Any]) -> Any:
        return fields(entry) if "note_str" in entry else entry  # except the outermost object

    try:
        notes = json.loads(path.read_text(encoding="utf-8"), object_hook=keep)
        clips = pd.DataFrame(list(notes.values()), columns=list(_COLUMNS.values()))
        made = [
            f"{group}-{pitch:03d}-{velocity:03d}"
            for group, pitch, velocity in clips[["group", "pitch", "velocity"]].to_numpy()
        ]
        agrees = (clips.clip_id == made) & (clips.clip_id == list(notes))
        agrees &= clips.group.str.fullmatch(r"\w+") & (
            clips.group.str.rpartition("_")[0] == clips.label + "_" + clips.source
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path} is not a list of notes ({error}); unpack the archive again.") from None
    if not len(clips) or not agrees.all():
        raise CorpusError(f"{path}: no notes, or names that contradict the fields; unpack the archive again.")
    return clips
