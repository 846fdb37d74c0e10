"""Any folder of class folders: one's own recordings as a corpus."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.data.base import COLUMNS, CONTENT, LEFT_OUT, MAX_PROBLEM_SHARE, Corpus, CorpusInfo, problem_table
from instrlib.data.local import ENDINGS, choose_classes, draw_clips, find_unusable, is_audio, probe_clips, read_table

GROUPS = "groups.csv"

INFO = CorpusInfo(
    name="folder",
    title="A folder of class folders",
    licence="yours",
    citation="",
    url="",
    size="",
    how_to_get="Put the recordings of each class (wav, flac, ogg or mp3) into a folder named after it, all of these "
    "into one folder, and name that with DATA=. Without a groups.csv there (columns path and group: the recording "
    "session, performer or instrument) every file counts as its own group; add one when several files come from one "
    "session, else the test part is not honest.",
)


def load(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read a folder of class folders.

    Parameters
    ----------
    root : Path
        Folder whose sub-folders are the classes; below them files lie at any depth. Hidden files and files of other
        kinds are passed over. A `groups.csv` in it may name each clip's group (columns `clip_id` or `path`, relative
        to root, with or without ending; and `group`); clips that it does not name are their own group.
    classes : sequence of str, optional
        Class folders to use; all when left out.
    max_clips_per_class : int, optional
        Cap for each class, drawn with `seed`, one clip of every group before a second of any.
    seed : int
        Seed of that draw.

    Returns
    -------
    Corpus
        `clip_id` is the path relative to root without its ending. Entries of `groups.csv` that name no clip stand in
        `problems`.

    Raises
    ------
    CorpusError
        When the root is missing, has fewer than two class folders, one without audio or one that is a link, when two
        files differ in their ending alone, or when `groups.csv` is not usable.
    ConfigError
        When a class is unknown or the cap is below 1.
    """
    root = Path(root)
    clips = _find(root)
    names = set(clips.clip_id)
    groups, strangers = _read_groups(root, names)
    wanted = choose_classes(clips.label, classes)
    clips = clips[clips.label.isin(wanted)]
    clips = clips.assign(group=[groups.get(name, name) for name in clips.clip_id], split="")
    drawn = draw_clips(clips, max_clips_per_class, seed=seed)
    usable, unusable = probe_clips(root, drawn)
    empty = [name for name in wanted if name not in set(usable.label)]
    if empty:
        path, reason = next(problem[1:] for problem in unusable if problem[0].startswith(f"{empty[0]}/"))
        raise CorpusError(f"{root / empty[0]}: none of its files can be used; the first: {path}: {reason}")
    manifest = usable[[*COLUMNS, CONTENT]].sort_values("clip_id").reset_index(drop=True)
    return Corpus(INFO, root, manifest, wanted, problem_table(sorted(unusable) + strangers))


def validate(root: Path) -> list[str]:
    """List everything that is wrong with the folder; every file is decoded to its end.

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
        clips = _find(root)
        _, strangers = _read_groups(root, set(clips.clip_id))
    except CorpusError as error:
        return [str(error)]
    findings = [f"{path}: {reason}" for _, path, reason in find_unusable(root, clips)]
    return findings + [f"{path}: {reason.removeprefix(LEFT_OUT)}" for _, path, reason in strangers]


def _find(root: Path) -> pd.DataFrame:
    """Return `clip_id`, `path` and `label` of every audio file below a class folder."""
    if not root.is_dir():
        raise CorpusError(f"There is no folder {root}. {INFO.how_to_get}")
    class_folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(class_folders) < 2:
        found = class_folders[0].name if class_folders else "none"
        raise CorpusError(f"{root} must hold at least two class folders; found: {found}. {INFO.how_to_get}")
    rows: list[tuple[str, str, str]] = []
    seen: dict[str, str] = {}
    for folder in class_folders:
        if folder.is_symlink():
            raise CorpusError(
                f"The class folder {folder} is a link, behind which a change would not be noticed; put the folder "
                "itself there, or a folder of links to its files."
            )
        files = [path.relative_to(root) for path in sorted(folder.rglob("*")) if is_audio(path) and path.is_file()]
        files = [path for path in files if not any(part.startswith(".") for part in path.parts)]
        if not files:
            raise CorpusError(
                f"The class folder {folder} holds no audio file ({', '.join(ENDINGS)}); fill it or move it away."
            )
        for path in files:
            clip_id = path.with_suffix("").as_posix()
            if clip_id in seen:
                raise CorpusError(
                    f"{root}: {seen[clip_id]} and {path.as_posix()} differ in their ending alone; keep one of them."
                )
            seen[clip_id] = path.as_posix()
            rows.append((clip_id, path.as_posix(), folder.name))
    return pd.DataFrame(rows, columns=["clip_id", "path", "label"], dtype=str)


def _read_groups(root: Path, clip_ids: set[str]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Return each named clip's group, and a row for `problems` for each entry that names no clip."""
    path = root / GROUPS
    if not path.is_file():
        return {}, []
    table = read_table(path, ("group",))
    column = next((name for name in ("clip_id", "path") if name in table), None)
    if column is None:
        raise CorpusError(f"{path} lacks the column clip_id (or path); it has: {', '.join(table.columns)}.")
    # A file name may be stored composed or decomposed ("é"), and the table in the other form.
    by_form = {unicodedata.normalize("NFC", name): name for name in clip_ids}
    groups: dict[str, str] = {}
    strangers = []
    # "s1" and "s1 " are one session, which a split must not cut.
    for entry, group in zip(table[column], table.group.str.strip(), strict=True):
        clip_id = by_form.get(unicodedata.normalize("NFC", _without_ending(entry)))
        if clip_id is None:
            strangers.append((entry, GROUPS, f"{LEFT_OUT}{GROUPS} names it, but there is no such clip"))
        elif not group:
            raise CorpusError(f"{path}: the group of {entry} is empty.")
        elif groups.setdefault(clip_id, group) != group:
            raise CorpusError(f"{path}: {entry} has two groups, {groups[clip_id]!r} and {group!r}; keep one.")
    if len(strangers) > MAX_PROBLEM_SHARE * len(table):
        raise CorpusError(
            f"{path}: {len(strangers)} of {len(table)} entries name no clip (the first: {strangers[0][0]}); "
            "entries are paths relative to that folder, such as cello/take 1.wav."
        )
    return groups, strangers


def _without_ending(entry: str) -> str:
    path = Path(entry.strip())
    return (path.with_suffix("") if path.suffix.lower() in ENDINGS else path).as_posix()
