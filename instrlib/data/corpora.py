"""Corpora as tables with one row per clip, from one pipeline: choose classes, draw clips, probe and check files."""

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from instrlib.core.config import Profile, folders
from instrlib.core.io import ConfigError, CorpusError, expanded, hash_bytes, hash_json
from instrlib.data import files
from instrlib.data.files import CONTENT

NAMES = ("rendered", "fsdkaggle2018", "irmas", "openmic2018", "nsynth", "kaggle_instruments", "folder")
"""Each is a module beside this one with `find(root) -> Found`; `rendered` has its own `load`."""

COLUMNS = ("clip_id", "path", "start_s", "duration_s", "label", "group", "split")
"""The columns of every manifest; a corpus may add its own after these."""

MAX_UNUSABLE_SHARE = 0.05
"""A run stops when a larger share of the clips is unusable."""

IN_TEST = "other clips of its group are in the official test part"
TWO_CLASSES = "the same file is also in another class"

_KNOWN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


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


def excluded_table(rows: Iterable[tuple[str, str, str, bool]] = ()) -> pd.DataFrame:
    """Return the table of excluded clips, in which `usable` means that nothing is wrong with a clip."""
    types = {"clip_id": str, "path": str, "reason": str, "usable": bool}
    return pd.DataFrame(sorted(rows, key=lambda row: (row[3], row)), columns=list(types)).astype(types)


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
    def fingerprint(self) -> str:
        """Hash of the manifest, the classes and the labels, independent of the machine."""
        columns = [*COLUMNS, CONTENT] if CONTENT in self.manifest else list(COLUMNS)
        table = self.manifest[columns].round({"start_s": 4, "duration_s": 4})
        several = {} if self.labels is None else {"labels": self.labels}
        return hash_json({"classes": self.classes, "rows": table.to_numpy().tolist(), **several})[:16]


@dataclass(frozen=True)
class Found:
    """Clips in the tables and folders of a corpus, before any audio file is opened.

    `clips` has `clip_id`, `path` (relative to the root; the suffix on disk may differ), `label`, `group`, `split` and
    further columns. With several labels, `labels` has one column per class instead of `label`: 1, 0 or NaN.
    `validate` reports `notes`.
    """

    clips: pd.DataFrame
    labels: pd.DataFrame | None = None
    excluded: Sequence[tuple[str, str, str, bool]] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check that clip ids are unique."""
        check_unique("The corpus", self.clips.clip_id)


def info(name: str) -> CorpusInfo:
    """Return name, licence, citation and source of a corpus."""
    if name not in _KNOWN:
        return _module(name).INFO
    return CorpusInfo(name, **{field: value for field, value in _KNOWN[name].items() if field != "archives"})


def load(
    name: str, *, data: Path | str | None = None, profile: Profile, classes: Sequence[str] | None = None
) -> Corpus:
    """Load a corpus, by default of `data/<name>` and all its classes, at the size of a profile.

    Raises `ConfigError` for an unknown corpus or class, `CorpusError` when the corpus is missing or incomplete, or when
    more than 5 % of its clips are unusable.
    """
    root = _root(name, data)
    if name == "rendered":
        return _module(name).load(root, clips_per_class=profile.clips_per_class, classes=classes)
    corpus = read(name, root, classes=classes, max_clips_per_class=profile.max_clips_per_class)
    check_unusable_share(corpus)
    return corpus


def on_disk(name: str, data: Path | str | None = None) -> str:
    """Return one line on the state of a corpus on disk, such as "221 audio files in data/fsdkaggle2018"."""
    root = _root(name, data)
    n_files = sum(1 for _ in files.walk_audio(root))
    return f"{n_files:,} audio files in {root}" if n_files else f"nothing in {root}. {info(name).how_to_get}"


def download(name: str, data: Path | str | None = None) -> None:
    """Download the missing files of a corpus, check and unpack them; remove the unpacked archives.

    Interrupted downloads resume. Raises `ConfigError` if the publisher does not allow automatic downloads,
    `CorpusError` for damaged or incomplete files.
    """
    root, (archives, index) = _root(name, data), _remotes(name)
    if not archives:
        raise ConfigError(f"`instrlib download` cannot fetch {name}. {info(name).how_to_get}")
    for archive in archives:
        if not (root / archive.folder).is_dir():
            files.unpack(files.fetch(archive, root), root / archive.folder)
        (root / archive.filename).unlink(missing_ok=True)
    if index:
        files.fetch(index, root)


def validate(name: str, data: Path | str | None = None) -> list[str]:
    """Return one line for each fault of a corpus on disk.

    Every file is decoded completely. If `download` has fetched the index of mirdata, MD5 hashes are compared as well.
    """
    root, module, lines = _root(name, data), _module(name), []
    if name == "rendered":  # a cache: what is lost or cut is rendered again
        paths = list(files.walk_audio(root))
        reasons = [reason for *_, reason in files.examine(paths, decoded=True)]
        return [f"{path}: {reason}" for path, reason in zip(paths, reasons, strict=True) if reason]
    try:
        has_test = any((root / part).is_dir() for part in getattr(module, "TESTING", ()))
        for found in [module.find(root), *([module.find_test(root)] if has_test else [])]:
            paths = [files.with_suffix_on_disk(root, path) for path in found.clips.path]
            answers = files.examine([root / path for path in paths], decoded=True)
            wrong = [f"{path}: {reason}" for path, (_, _, reason) in zip(paths, answers, strict=True) if reason]
            lines += [*found.notes, *sorted([*wrong, *(f"{path}: {reason}" for _, path, reason, _ in found.excluded)])]
    except CorpusError as error:
        return [str(error)]
    _, index = _remotes(name)
    return [*lines, *(files.compare(root / index.filename, root / module.INDEXED) if index else [])]


def incomplete(name: str, root: Path, what: str) -> CorpusError:
    """Return the error for a corpus that lacks something, with size, licence and the way to get it."""
    known = info(name)
    return CorpusError(
        f"{known.title}: {root} lacks {what}. {known.how_to_get} Size: {known.size}. Licence: {known.licence}. "
        f"Page: {known.url}"
    )


def read_parts(
    name: str, root: Path, parts: dict[str, tuple[str, ...]], read_part: Callable[[Path, str], pd.DataFrame]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the clips of those parts of a release whose files exist, and notes on incomplete ones.

    The column `split` has the part, or "" without training clips or without others.
    """
    whole = [part for part, places in parts.items() if all((root / place).exists() for place in places)]
    if not whole:
        raise incomplete(name, root, ", ".join(place for places in parts.values() for place in places))
    partial = [part for part in parts if part not in whole and any((root / place).exists() for place in parts[part])]
    clips = pd.concat([read_part(root, part).assign(split=part) for part in whole], ignore_index=True)
    if len(whole) < 2 or "train" not in whole:
        clips["split"] = ""
    return clips, [f"The part {part!r} is not used; it needs {' and '.join(parts[part])}." for part in partial]


def read(
    name: str,
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    found: Found | None = None,
) -> Corpus:
    """Read a corpus from its folder, for any number of unusable clips; by default, those that its module finds.

    Excluded are training clips whose group is in the official test part, and identical files in two classes. Raises
    `ConfigError` for an unknown class or a limit below 1, `CorpusError` for a class without usable clips.
    """
    root = Path(root).absolute()
    found = found or _module(name).find(root)
    clips, labels = found.clips.reset_index(drop=True), None
    there = sorted(set(clips.label if found.labels is None else found.labels.columns))
    wanted = tuple(there if classes is None else sorted(set(classes)))
    unknown = sorted(set(wanted) - set(there))
    if unknown or len(wanted) < 2:
        fault = f"Unknown class {', '.join(unknown)}" if unknown else "At least two classes are required"
        raise ConfigError(f"{fault}; choose from {', '.join(there)}.")
    if found.labels is None:
        clips = clips[clips.label.isin(wanted)]
    else:
        labels = found.labels[list(wanted)].to_numpy(np.float32)
        clips = clips[np.isfinite(labels).any(axis=1)]
        clips = clips.assign(label=strata(labels[clips.index], wanted))
    excluded = [clips[_reaches_into_test(clips)].assign(reason=IN_TEST)]
    drawn = draw_clips(clips.drop(excluded[0].index), max_clips_per_class)
    drawn = drawn.assign(start_s=0.0, path=[files.with_suffix_on_disk(root, path) for path in drawn.path])
    drawn = drawn.join(files.probe(root, drawn.path))
    usable, unusable = drawn[drawn.reason == ""], drawn[drawn.reason != ""]
    usable = usable.assign(group=join_copies(usable))
    if labels is None:
        torn = usable.groupby(CONTENT).label.transform("nunique") > 1
        excluded.append(usable[torn].assign(reason=TWO_CLASSES))
        usable = usable[~torn]
    in_test = _reaches_into_test(usable)  # again, because copies merged groups
    excluded.append(usable[in_test].assign(reason=IN_TEST))
    usable = usable[~in_test].sort_values("clip_id")
    labels = None if labels is None else labels[usable.index]
    marks = usable.label.to_numpy()[:, None] == np.array(wanted) if labels is None else labels
    rows = [(one.clip_id, one.path, one.reason, True) for table in excluded for one in table.itertuples()]
    rows += [(one.clip_id, one.path, one.reason, False) for one in unusable.itertuples()]
    table = excluded_table([*found.excluded, *rows])
    check_every_class(name, wanted, marks, table)
    own = [column for column in found.clips if column not in COLUMNS]
    manifest = usable[[*COLUMNS, *own, CONTENT]].reset_index(drop=True)
    return Corpus(info(name), root, manifest, wanted, table, labels)


def draw_clips(clips: pd.DataFrame, max_clips_per_class: int | None, *, seed: int = 0) -> pd.DataFrame:
    """Draw at most `max_clips_per_class` clips of each class, group by group in turn.

    An official test part and the rest keep their shares of the class, but the rest gets at least half of the limit if
    possible. The draw is independent of the order of rows and the choice of classes. Raises `ConfigError` below 1.
    """
    if max_clips_per_class is None:
        return clips
    if max_clips_per_class < 1:
        raise ConfigError(f"max_clips_per_class must be at least 1, not {max_clips_per_class}.")

    def rank(names: pd.Series) -> list[str]:
        return [hash_bytes(str(seed).encode(), name.encode(errors="surrogateescape")) for name in names]

    ranked = clips.assign(_clip=rank(clips.clip_id), _group=rank(clips.group)).sort_values("_clip")
    ranked["_turn"] = ranked.groupby(["label", "group"]).cumcount()
    kept: list = []
    for _, of_class in ranked.sort_values(["_turn", "_group"]).groupby("label"):
        cap = min(len(of_class), max_clips_per_class)
        in_test = of_class.split == "test"
        n_rest = min(int((~in_test).sum()), max(cap * int((~in_test).sum()) // len(of_class), (cap + 1) // 2))
        kept += [*of_class.index[~in_test][:n_rest], *of_class.index[in_test][: cap - n_rest]]
    return clips.loc[clips.index.isin(kept)]


def strata(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Return for each clip with several labels its rarest present, or else observed, class, to draw and split by."""
    present = labels == 1
    candidates = np.where(present.any(axis=1, keepdims=True), present, np.isfinite(labels))
    count = np.where(candidates, present.sum(axis=0), np.inf)
    return [classes[number] for number in count.argmin(axis=1)]


def join_copies(clips: pd.DataFrame) -> pd.Series:
    """Return the group of each clip; groups with identical files are merged under the first name."""
    group = clips.group
    while True:
        joined = group.groupby(clips[CONTENT]).transform("min").groupby(clips.group).transform("min")
        if joined.equals(group):
            return group
        group = joined


def _reaches_into_test(clips: pd.DataFrame) -> pd.Series:
    return clips.group.isin(clips.group[clips.split == "test"]) & (clips.split == "train")


def check_unusable_share(corpus: Corpus, n_more: int = 0) -> None:
    """Raise `CorpusError` if more than `MAX_UNUSABLE_SHARE` of all clips, `n_more` of the manifest, are unusable."""
    n_before = int((~corpus.excluded.usable).sum())  # without those excluded on purpose
    n_unusable, n_clips = n_before + n_more, n_before + len(corpus.manifest)
    if n_unusable > MAX_UNUSABLE_SHARE * n_clips:
        raise CorpusError(
            f"{corpus.name}: {n_unusable} of {n_clips} clips are unusable, more than {MAX_UNUSABLE_SHARE:.0%}; "
            f"run `instrlib validate {corpus.name}` to list the reasons."
        )


def check_every_class(name: str, classes: Sequence[str], labels: np.ndarray, excluded: pd.DataFrame) -> None:
    """Raise `CorpusError` unless each class (column of `labels`) has usable clips with and without it."""
    if empty := [one for one, column in zip(classes, labels.T, strict=True) if not {0, 1} <= set(column)]:
        first = [f" (the first, {one.path}: {one.reason})" for one in excluded[:1].itertuples()]
        raise CorpusError(
            f"{name}: no usable clip with, or none without, {', '.join(empty)}; {len(excluded)} are excluded"
            f"{''.join(first)}; replace them or leave the class out."
        )


def check_unique(place: Path | str, names: pd.Series) -> None:
    """Raise `CorpusError` for duplicate clip ids."""
    if len(twice := names[names.duplicated()].unique()):
        raise CorpusError(f"{place} has {len(twice)} clips more than once, such as {twice[0]}; keep one of each.")


def _remotes(name: str) -> tuple[list[files.Remote], files.Remote | None]:
    """Return the archives of a corpus, and mirdata's index of their files if there is one."""
    if not hasattr(_module(name), "INDEXED"):
        return [files.Remote(**one) for one in _KNOWN.get(name, {}).get("archives", ())], None
    known = import_module(f"mirdata.datasets.{name}")
    *archives, index = (
        files.Remote(one.url, one.filename, f"md5:{one.checksum}", re.sub(r"(-v[\d.]+)?\.\w+$", "", one.filename))
        for one in (*known.REMOTES.values(), known.INDEXES[known.INDEXES["default"]].remote)
    )
    return archives, index


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        raise ConfigError(f"Unknown corpus {name!r}; choose one of {', '.join(NAMES)}.")
    return import_module(f"instrlib.data.{name}")


def _root(name: str, data: Path | str | None) -> Path:
    return expanded(str(data)).absolute() if data else folders().data / name
