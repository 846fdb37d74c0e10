"""NSynth: 305,979 single notes of 1,006 instruments in 11 families."""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import Found, read_parts

FAMILIES = ("brass", "flute", "guitar", "keyboard", "mallet", "reed", "string", "vocal")
"""The families that are used: those with enough acoustic instruments."""

_FIELDS = ("note_str", "instrument_str", "instrument_family_str", "instrument_source_str", "pitch", "velocity")


def find(root: Path) -> Found:
    """List the acoustic notes of `FAMILIES` in those of `nsynth-train`, `nsynth-valid` and `nsynth-test` on disk.

    `group` is the instrument, whose notes come from one sample pack. The instruments of `nsynth-train` are separate,
    but `nsynth-valid` and `nsynth-test` have different notes of the *same* instruments. Both are therefore the official
    test part here; validation is drawn from `nsynth-train`. Further columns: `pitch` and `velocity` (MIDI).
    """
    parts = {part: (f"nsynth-{part}/examples.json", f"nsynth-{part}/audio") for part in ("train", "valid", "test")}
    clips, notes = read_parts("nsynth", root, parts, _read_part)
    return Found(clips.replace({"split": {"valid": "test"}}), notes=notes)


def _read_part(root: Path, part: str) -> pd.DataFrame:
    """Return the notes of a part; other fields are dropped while reading, because the file is large."""
    fields = itemgetter(*_FIELDS)

    def keep(entry: dict[str, Any]) -> Any:
        return fields(entry) if "note_str" in entry else entry  # except the outermost object

    path = root / f"nsynth-{part}" / "examples.json"
    try:
        notes = json.loads(path.read_text(encoding="utf-8"), object_hook=keep)
        clips = pd.DataFrame(list(notes.values()), columns=["clip_id", "group", "label", "source", "pitch", "velocity"])
        made = clips.group + clips.pitch.map("-{:03d}".format) + clips.velocity.map("-{:03d}".format)
        family = clips.group.str.fullmatch(r"\w+_\d+") & (clips.group.str[:-4] == clips.label + "_" + clips.source)
        if clips.empty or not (family & (made == clips.clip_id) & (made == list(notes))).all():
            raise ValueError("no notes, or names that contradict the fields")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path} is not a list of notes ({error}); unpack the archive again.") from None
    clips = clips[(clips.pop("source") == "acoustic") & clips.label.isin(FAMILIES)]
    return clips.assign(path=f"nsynth-{part}/audio/" + clips.clip_id + ".wav")
