"""Corpora as tables with one row per clip, from one pipeline: choose classes, draw clips, probe and check files."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.io import ConfigError, CorpusError, hash_bytes, hash_json
from instrlib.data.files import CONTENT, audio_files, probe_clips, undecodable

COLUMNS = ("clip_id", "path", "start_s", "duration_s", "label", "group", "split")
"""The columns of every manifest; a corpus may add its own after these."""

MAX_UNUSABLE_SHARE = 0.05
"""A run stops when a larger share of the clips is unusable."""

KNOWN = tomllib.loads(Path(__file__).with_name("corpora.toml").read_text(encoding="utf-8"))
"""What is known of each corpus that is on disk only when it is fetched or made, by name."""

IN_TEST = "other clips of its group are in the official test part"
TWO_CLASSES = "the same file is also in another class"

_EXCLUDED = ("clip_id", "path", "reason", "usable")


@dataclass(frozen=True)
class CorpusInfo:
    """Description of a corpus; `name` is that on the command line, `how_to_get` a sentence."""

    name: str
    title: str
    licence: str
    citation: str
    url: str
    size: str
    how_to_get: str
    multilabel: bool = False


def known(name: str) -> CorpusInfo:
    """Return the description of a corpus in `corpora.toml`."""
    return CorpusInfo(name, **{key: value for key, value in KNOWN[name].items() if key != "archives"})


def excluded_table(rows: Iterable[tuple[str, str, str, bool]] = ()) -> pd.DataFrame:
    """Return the table of excluded clips: `clip_id`, `path`, `reason`, and `usable` if nothing is wrong with them."""
    table = pd.DataFrame(sorted(rows, key=lambda row: (row[3], row)), columns=list(_EXCLUDED))
    return table.astype({"clip_id": str, "path": str, "reason": str, "usable": bool})


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk.

    `manifest` has one row per clip: `clip_id` (unique), `path` (relative to `root`), `start_s` (in the file),
    `duration_s`, `label` (one of `classes`; with several labels see `strata`), `group` (recording, session, performer
    or instrument, which must not cross a split) and `split` (the publisher's "train", "validation" or "test", else "").
    `classes` are in the order of the network outputs. `labels` [shape=(n_clips, n_classes), float32] exist with several
    labels per clip: 1 present, 0 absent, NaN not observed. `excluded` is an `excluded_table`.
    """

    info: CorpusInfo
    root: Path
    manifest: pd.DataFrame
    classes: tuple[str, ...]
    excluded: pd.DataFrame = field(default_factory=excluded_table)
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the columns, clip ids and labels; raise `CorpusError` if one is wrong."""
        missing = [name for name in COLUMNS if name not in self.manifest]
        if missing:
            raise CorpusError(f"{self.info.name}: the manifest lacks the column {', '.join(missing)}; add it.")
        if self.manifest.empty:
            raise CorpusError(f"{self.info.name}: no usable clip in {self.root}. {self.info.how_to_get}")
        check_unique(self.info.name, self.manifest.clip_id)
        unknown = sorted(set(self.manifest.label) - set(self.classes))
        if unknown:
            raise CorpusError(
                f"{self.info.name}: the manifest has unknown labels ({', '.join(unknown)}); add them to the classes."
            )
        if self.labels is not None:
            _check_labels(self.info.name, self.labels, len(self.manifest), self.classes)

    @property
    def name(self) -> str:
        """Name on the command line."""
        return self.info.name

    @property
    def targets(self) -> np.ndarray:
        """Index of each clip's class, int64 [shape=(n_clips,)]."""
        return pd.Categorical(self.manifest.label, categories=list(self.classes)).codes.astype(np.int64)

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several labels."""
        return self.labels is not None

    @property
    def n_unusable(self) -> int:
        """Number of unusable clips, without those excluded on purpose."""
        return int((~self.excluded.usable).sum())

    @property
    def fingerprint(self) -> str:
        """Hash of the manifest, the classes and the labels, independent of the machine."""
        columns = [*COLUMNS, CONTENT] if CONTENT in self.manifest else list(COLUMNS)
        table = self.manifest[columns].round({"start_s": 4, "duration_s": 4})
        several = {} if self.labels is None else {"labels": self.labels}
        return hash_json({"classes": self.classes, "rows": table.to_numpy().tolist(), **several})[:16]


@dataclass(frozen=True)
class Found:
    """Clips in the tables and folders of a corpus, before any audio file is opened.

    `clips` has `clip_id`, `path` (relative to the root), `label`, `group`, `split` and further columns. With several
    labels, `labels` is that of `Corpus`, `classes` names its columns, and `label` is not required. `excluded` are rows
    of `excluded_table`. `validate` reports `notes`, and audio files in `folders` that are not in `clips`.
    """

    clips: pd.DataFrame
    classes: tuple[str, ...] | None = None
    labels: np.ndarray | None = None
    excluded: list[tuple[str, str, str, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folders: tuple[str, ...] = ()


def build(
    info: CorpusInfo,
    root: Path,
    found: Found,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Choose classes, draw clips, probe their files and merge the groups of identical files.

    Excluded are training clips whose group is in the official test part, and identical files in two classes. Raises
    `ConfigError` for an unknown class or a limit below 1, `CorpusError` for a class without usable clips.
    """
    clips, labels = found.clips.assign(_row=np.arange(len(found.clips))), None
    wanted = choose_classes(found.classes or clips.label, classes)
    in_test = reaches_into_test(clips)
    if found.labels is None:
        asked = clips.label.isin(wanted)
    else:
        labels = found.labels[:, [found.classes.index(name) for name in wanted]]
        asked = np.isfinite(labels).any(axis=1)
        clips = clips.assign(label="")
        clips.loc[asked, "label"] = strata(labels[asked], wanted)
    excluded = [*found.excluded, *_reasons(clips[asked & in_test], IN_TEST)]
    drawn = draw_clips(clips[asked & ~in_test], max_clips_per_class, seed=seed)
    usable, unusable = probe_clips(root, drawn)
    excluded += [(*row, False) for row in unusable]

    usable = usable.assign(group=join_copies(usable))
    if labels is None:
        torn = usable.groupby(CONTENT).label.transform("nunique") > 1
        excluded += _reasons(usable[torn], TWO_CLASSES)
        usable = usable[~torn]
    in_test = reaches_into_test(usable)  # again, because copies merged groups
    excluded += _reasons(usable[in_test], IN_TEST)
    usable = usable[~in_test].sort_values("clip_id", ignore_index=True)
    empty = [] if labels is not None else sorted(set(wanted) - set(usable.label))
    if empty:
        raise CorpusError(
            f"{info.title}: no usable clip of {', '.join(empty)} in {root}; "
            f"run `instrlib validate {info.name}` to list the reasons."
        )
    own = [name for name in found.clips if name not in COLUMNS]
    manifest = usable[[*COLUMNS, *own, CONTENT]]
    return Corpus(
        info, root, manifest, wanted, excluded_table(excluded), None if labels is None else labels[usable._row]
    )


def validate(root: Path, found: Found) -> list[str]:
    """Return one line for each fault of a corpus on disk; every file is decoded completely."""
    usable, problems = probe_clips(root, found.clips)
    problems += undecodable(root, usable)
    problems += [row[:3] for row in found.excluded]
    named = {*found.clips.path, *(path for _, path, _ in problems)}
    strangers = sorted({f"{folder}/{name}" for folder in found.folders for name in audio_files(root / folder).values()})
    return [
        *found.notes,
        *(f"{path}: {reason}" for _, path, reason in sorted(problems)),
        *(f"{path}: no table of the corpus names this file." for path in strangers if path not in named),
    ]


# -- choosing and drawing ----------------------------------------------------------------------------------------------


def choose_classes(found: Iterable[str], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes to use, sorted: `chosen`, else all; at least two."""
    there = sorted(set(found))
    unknown = sorted(set(chosen or ()) - set(there))
    if unknown:
        raise ConfigError(f"Unknown class {', '.join(unknown)}; choose from {', '.join(there)}.")
    wanted = tuple(there if chosen is None else sorted(set(chosen)))
    if len(wanted) < 2:
        raise ConfigError(f"At least two classes are required, not {len(wanted)}; choose from {', '.join(there)}.")
    return wanted


def draw_clips(clips: pd.DataFrame, max_clips_per_class: int | None, *, seed: int) -> pd.DataFrame:
    """Draw at most `max_clips_per_class` clips of each class, group by group in turn.

    An official test part and the rest keep their shares of the class, but the rest gets at least half of the limit if
    possible. The draw follows hashes of seed and names per class, so it is independent of the machine, the order of
    rows and the choice of classes. Raises `ConfigError` for a limit below 1.
    """
    if max_clips_per_class is None:
        return clips
    if max_clips_per_class < 1:
        raise ConfigError(f"max_clips_per_class must be at least 1, not {max_clips_per_class}.")
    ranked = clips.assign(
        _clip_rank=[_rank(seed, name) for name in clips.clip_id],
        _group_rank=[_rank(seed, name) for name in clips.group],
    ).sort_values("_clip_rank")
    ranked["_turn"] = ranked.groupby(["label", "group"]).cumcount()
    kept: list = []
    for _, of_class in ranked.sort_values(["_turn", "_group_rank"]).groupby("label"):
        cap = min(len(of_class), max_clips_per_class)
        in_test = of_class.split == "test"
        n_rest = min(int((~in_test).sum()), max(cap * int((~in_test).sum()) // len(of_class), (cap + 1) // 2))
        kept += [*of_class.index[~in_test][:n_rest], *of_class.index[in_test][: cap - n_rest]]
    return clips.loc[clips.index.isin(kept)]


def reaches_into_test(clips: pd.DataFrame) -> pd.Series:
    """Return whether each clip is a training clip of a group that is in the official test part."""
    return clips.group.isin(clips.group[clips.split == "test"]) & (clips.split == "train")


def join_copies(clips: pd.DataFrame) -> np.ndarray:
    """Return the group of each clip; groups with identical files are merged under the first name."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if clips.empty:
        return clips.group.to_numpy()
    of_group, names = pd.factorize(clips.group, sort=True)
    of_content, contents = pd.factorize(clips[CONTENT])
    n_nodes = len(names) + len(contents)
    shared = coo_array((np.ones(len(clips)), (of_group, len(names) + of_content)), shape=(n_nodes, n_nodes))
    component = connected_components(shared, directed=False)[1][: len(names)]
    return pd.Series(names, dtype=object).groupby(component).transform("first").to_numpy()[of_group]


def strata(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Return for each clip with several labels its rarest class, which is used for drawing, splitting and counting.

    For clips without a known present class, it is the rarest observed class. So every class keeps its share in each
    part.

    Examples
    --------
    >>> strata(np.array([[1, 1], [1, 0], [0, np.nan]]), ("piano", "banjo"))
    ['banjo', 'piano', 'piano']
    """
    observed = np.isfinite(labels)
    if not observed.any(axis=1).all():
        raise CorpusError(f"The clip in row {int((~observed.any(axis=1)).argmax())} has no label; leave it out.")
    present = labels == 1
    candidates = np.where(present.any(axis=1, keepdims=True), present, observed)
    count = np.where(candidates, present.sum(axis=0), np.inf)
    return [classes[number] for number in count.argmin(axis=1)]


def check_unusable_share(name: str, n_unusable: int, n_clips: int) -> None:
    """Raise `CorpusError` if more than `MAX_UNUSABLE_SHARE` of all clips are unusable."""
    if n_unusable > MAX_UNUSABLE_SHARE * n_clips:
        raise CorpusError(
            f"{name}: {n_unusable} of {n_clips} clips are unusable, more than {MAX_UNUSABLE_SHARE:.0%}; "
            f"run `instrlib validate {name}` to list the reasons."
        )


def check_unique(place: Path | str, clip_ids: pd.Series) -> None:
    """Raise `CorpusError` for duplicate clip ids."""
    twice = clip_ids[clip_ids.duplicated()].unique()
    if len(twice):
        raise CorpusError(f"{place} names {len(twice)} clips more than once, such as {twice[0]}; keep one row of each.")


def parts_on_disk(info: CorpusInfo, root: Path, parts: dict[str, tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Return complete parts of a release and notes on incomplete ones; `CorpusError` if none is complete."""
    lacking = {part: [name for name in names if not (root / name).exists()] for part, names in parts.items()}
    whole = [part for part, names in lacking.items() if not names]
    if not whole:
        names = ", ".join(name for one in lacking.values() for name in one)
        raise CorpusError(f"{info.title}: {root} lacks {names}. {get_it(info)}")
    incomplete = [part for part, names in lacking.items() if 0 < len(names) < len(parts[part])]
    return whole, [f"{', '.join(lacking[part])} is missing, so the part {part!r} is not used." for part in incomplete]


def get_it(info: CorpusInfo) -> str:
    """Return where to get a corpus, with size and licence, as the end of an error message."""
    return f"{info.how_to_get} Size: {info.size}. Licence: {info.licence}. Page: {info.url}"


def _reasons(clips: pd.DataFrame, reason: str) -> list[tuple[str, str, str, bool]]:
    return [(clip_id, path, reason, True) for clip_id, path in zip(clips.clip_id, clips.path, strict=True)]


def _rank(seed: int, name: str) -> str:
    return hash_bytes(str(seed).encode(), name.encode(errors="surrogateescape"))


def _check_labels(name: str, labels: np.ndarray, n_clips: int, classes: tuple[str, ...]) -> None:
    if labels.shape != (n_clips, len(classes)):
        raise CorpusError(f"{name}: labels must have the shape {(n_clips, len(classes))}, not {labels.shape}.")
    if not np.isin(labels[np.isfinite(labels)], (0, 1)).all():
        raise CorpusError(f"{name}: labels must be 1 (present), 0 (absent) or NaN (not observed).")
    for value, word in ((1, "present"), (0, "absent")):
        never = [one for one, column in zip(classes, labels.T, strict=True) if not (column == value).any()]
        if never:
            raise CorpusError(f"{name}: {', '.join(never)} is observed {word} in no clip; leave that class out.")
