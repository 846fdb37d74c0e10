"""Your own recordings as a corpus: a folder with one folder per class."""

import unicodedata
from pathlib import Path

import pandas as pd

from instrlib.core.io import CorpusError
from instrlib.data.dataset import MAX_UNUSABLE_SHARE, Found, known
from instrlib.data.files import ENDINGS, read_table, walk_audio

GROUPS = "groups.csv"

INFO = known("folder")


def find(root: Path) -> Found:
    """List the audio files at any depth below each class folder; `clip_id` is the path without its suffix.

    Hidden files are skipped. `groups.csv` may assign groups (columns `path` or `clip_id`, relative to the root, with or
    without suffix, and `group`). Other clips form their own groups, and so do copies of one file together.
    """
    if not root.is_dir():
        raise CorpusError(f"There is no folder {root}. {INFO.how_to_get}")
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        there = ", ".join(path.name for path in classes) or "none"
        raise CorpusError(f"{root} must contain at least two class folders; found: {there}. {INFO.how_to_get}")
    rows = []
    for folder in classes:
        paths = [path.relative_to(root) for path in walk_audio(folder) if path.is_file()]
        if not paths:
            raise CorpusError(
                f"The class folder {folder} contains no audio file ({', '.join(ENDINGS)}); fill or move it."
            )
        rows += [(path.with_suffix("").as_posix(), path.as_posix(), folder.name) for path in paths]
    clips = pd.DataFrame(sorted(rows), columns=["clip_id", "path", "label"], dtype=str)
    twice = clips[clips.clip_id.duplicated(keep=False)].path
    if len(twice):
        raise CorpusError(f"{root}: {' and '.join(twice[:2])} differ only in their suffix; keep one of them.")
    groups, strangers = _read_groups(root / GROUPS, set(clips.clip_id))
    clips = clips.assign(group=[groups.get(name, name) for name in clips.clip_id], split="")
    return Found(
        clips, excluded=[(name, GROUPS, f"{GROUPS} names a clip that is not there", True) for name in strangers]
    )


def _read_groups(path: Path, clip_ids: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return the group of each named clip, and the entries that match no clip."""
    if not path.is_file():
        return {}, []
    table = read_table(path, ("group",))
    column = next((name for name in ("clip_id", "path") if name in table), None)
    if column is None:
        raise CorpusError(f"{path} lacks the column clip_id or path (it has {', '.join(table.columns)}); add one.")
    # File systems and spreadsheets encode "é" as one or two characters.
    by_form = {unicodedata.normalize("NFC", name): name for name in clip_ids}
    groups: dict[str, str] = {}
    strangers = []
    for entry, group in zip(table[column].str.strip(), table.group.str.strip(), strict=True):
        stem = str(Path(entry).with_suffix("")) if Path(entry).suffix.lower() in ENDINGS else entry
        clip_id = by_form.get(unicodedata.normalize("NFC", stem))
        if clip_id is None:
            strangers.append(entry)
        elif not group:
            raise CorpusError(f"{path}: the group of {entry} is empty; enter one or delete the row.")
        elif groups.setdefault(clip_id, group) != group:
            raise CorpusError(f"{path}: {entry} has two groups, {groups[clip_id]!r} and {group!r}; keep one.")
    if len(strangers) > MAX_UNUSABLE_SHARE * len(table):
        raise CorpusError(
            f"{path}: {len(strangers)} of {len(table)} entries match no clip (the first: {strangers[0]}); "
            "enter paths relative to that folder, such as cello/take 1.wav."
        )
    return groups, strangers
