"""Your own recordings as a corpus: a folder with one folder per class."""

import unicodedata
from pathlib import Path

import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.corpora import MAX_UNUSABLE_SHARE, Found, incomplete
from instrlib.data.files import ENDINGS, read_table, walk_audio

GROUPS = "groups.csv"


def find(root: Path) -> Found:
    """List the audio files at any depth below each class folder; `clip_id` is the path without its suffix.

    Hidden files are skipped. `groups.csv` may assign groups (columns `path` or `clip_id`, relative to the root, with or
    without suffix, and `group`). Other clips form their own groups, and so do copies of one file together.
    """
    classes = [path for path in sorted(root.glob("[!.]*")) if path.is_dir()]
    if len(classes) < 2:
        raise incomplete("folder", root, "at least two class folders")
    rows = []
    for folder in classes:
        paths = [path.relative_to(root) for path in walk_audio(folder) if path.is_file()]
        if not paths:
            raise CorpusError(f"The class folder {folder} has no audio file ({', '.join(ENDINGS)}); fill or move it.")
        rows += [(path.with_suffix("").as_posix(), path.as_posix(), folder.name, "") for path in paths]
    clips = pd.DataFrame(sorted(rows), columns=["clip_id", "path", "label", "split"], dtype=str)
    path, groups, strangers = root / GROUPS, {}, []
    table = read_table(path, ("group",)) if path.is_file() else pd.DataFrame(columns=["clip_id", "group"], dtype=str)
    entries = table["clip_id"] if "clip_id" in table else read_table(path, ("path",))["path"]
    # File systems and spreadsheets encode "é" as one or two characters.
    by_form = {unicodedata.normalize("NFC", name): name for name in clips.clip_id}
    for entry, group in zip(entries.str.strip(), table.group.str.strip(), strict=True):
        stem = str(Path(entry).with_suffix("")) if Path(entry).suffix.lower() in ENDINGS else entry
        clip_id = by_form.get(unicodedata.normalize("NFC", stem))
        if clip_id is None:
            strangers.append(entry)
        elif not group or groups.setdefault(clip_id, group) != group:
            raise CorpusError(f"{path}: {entry} has an empty or a second group ({group!r}); enter one group per clip.")
    if len(strangers) > MAX_UNUSABLE_SHARE * len(table):
        raise CorpusError(
            f"{path}: {len(strangers)} of {len(table)} entries match no clip (the first: {strangers[0]}); "
            "enter paths relative to that folder, such as cello/take 1.wav."
        )
    clips["group"] = [groups.get(clip_id, clip_id) for clip_id in clips.clip_id]
    return Found(clips, excluded=[(name, GROUPS, f"{GROUPS} names a clip that is missing", True) for name in strangers])
