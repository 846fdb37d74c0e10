"""OpenMIC-2018: 20,000 clips of 10 seconds from the Free Music Archive, with labels of 20 instruments, partly observed.

References
----------
.. [1] E. J. Humphrey, S. Durand, B. McFee, "OpenMIC-2018: an open dataset for multiple instrument recognition", ISMIR
   2018, pp. 438-444.
.. [2] Zenodo record 1432913, DOI 10.5281/zenodo.1432913.
.. [3] R. M. Bittner et al., "mirdata: software for reproducible usage of datasets", ISMIR 2019: addresses and
   checksums.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError, InstrlibError
from instrlib.core.io import read_json
from instrlib.core.parallel import track
from instrlib.data.base import COLUMNS, CONTENT, LEFT_OUT, Corpus, CorpusInfo, problem_table, strata
from instrlib.data.download import fetch, unpack
from instrlib.data.local import (
    are_there,
    audio_files,
    choose_classes,
    compare_with_index,
    draw_clips,
    find_unusable,
    mirdata_remotes,
    missing_reason,
    probe_clips,
    reaches_into_test,
    read_table,
)

INFO = CorpusInfo(
    name="openmic2018",
    title="OpenMIC-2018",
    licence="Creative Commons Attribution 4.0 International; each clip's audio under its own Creative Commons licence, "
    "named in the manifest's column `licence`",
    citation="E. J. Humphrey, S. Durand, B. McFee: OpenMIC-2018: an open dataset for multiple instrument recognition. "
    "ISMIR 2018. DOI 10.5281/zenodo.1432913.",
    url="https://zenodo.org/records/1432913",
    size="about 2.5 GB",
    how_to_get="`instrlib download openmic2018` fetches it, checks it and goes on where it was broken off.",
    multilabel=True,
)

FOLDER = "openmic-2018"
INDEX = "openmic2018_index_1.0.json"
CLASS_MAP = "class-map.json"
ARRAYS = "openmic-2018.npz"
LABELS = "openmic-2018-aggregated-labels.csv"
METADATA = "openmic-2018-metadata.csv"
PARTITIONS = {"train": "partitions/split01_train.csv", "test": "partitions/split01_test.csv"}

PRESENT = 0.5
"""From this share of (weighted) annotators on, an instrument counts as present."""

ARTIST_IN_TEST = LEFT_OUT + "other clips of its artist stand in the official test part"

VGGISH_SHAPE = (10, 128)
"""Frames of 0.96 s, and values of an embedding."""


class _ObjectsError(CorpusError):
    """An npz file stores Python objects."""


def load(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read the release, or a part of it, from disk.

    Labels come from `Y_true` and `Y_mask` of `openmic-2018.npz`. As published, that file stores its clip names as
    Python objects, which would have to be unpickled; then it is not used, and the labels come from
    `openmic-2018-aggregated-labels.csv`, from which its arrays were made. `problems` says so.

    Parameters
    ----------
    root : Path
        The folder `openmic-2018` of the release, or the folder that holds it.
    classes : sequence of str, optional
        Labels to use; all when left out. Clips in which none of them was looked for are passed over.
    max_clips_per_class : int, optional
        Cap for each stratum (see `base.strata`), drawn with `seed`, one clip of every artist before a second of any.
    seed : int
        Seed of that draw.

    Returns
    -------
    Corpus
        With several labels a clip: 1 present, 0 absent, NaN not observed. `group` is the artist, or the clip where no
        artist is known; `split` is the official part. Training clips of an artist who also stands in the test part
        are left out, with the reason `ARTIST_IN_TEST`. Further columns: `artist`, `title` and `licence`.

    Raises
    ------
    CorpusError
        When the release is missing or partial, a table lacks a column, names something outside the class map or a
        clip twice, an array of the npz holds objects (other than the clip names), or a class is observed nowhere.
    ConfigError
        When a class is unknown or the cap is below 1.
    """
    root = Path(root)
    base = _base(root)
    clips, labels, known, notes = _read_release(base)
    wanted = choose_classes(known, classes)
    labels = labels[:, [known.index(name) for name in wanted]]
    hidden = [name for name, seen in zip(wanted, np.isfinite(labels).any(axis=0), strict=True) if not seen]
    if hidden:
        raise CorpusError(
            f"{base}: the labels of {', '.join(hidden)} are hidden in every clip; leave that class out, or get the "
            f"release anew from {INFO.url}."
        )
    clips = clips.assign(path=_paths(root, base, clips.clip_id), row=np.arange(len(clips)))
    clips = clips[np.isfinite(labels).any(axis=1)]
    in_test = reaches_into_test(clips)
    problems = [(row.clip_id, row.path, ARTIST_IN_TEST) for row in clips[in_test].itertuples()] + notes
    clips = clips[~in_test]
    clips = clips.assign(label=strata(labels[clips.row], wanted))
    drawn = draw_clips(clips, max_clips_per_class, seed=seed)
    present = are_there(root, drawn.path)
    usable, unusable = probe_clips(root, drawn[present])
    unusable += [(row.clip_id, row.path, missing_reason(row.path)) for row in drawn[~present].itertuples()]
    usable = usable.sort_values("clip_id").reset_index(drop=True)
    manifest = usable[[*COLUMNS, "artist", "title", "licence", CONTENT]]
    problems = problem_table(sorted(unusable) + sorted(problems))
    return Corpus(INFO, root, manifest, wanted, problems, labels[usable.row])


def vggish_features(root: Path, clip_ids: Sequence[str]) -> np.ndarray:
    """Return the VGGish embeddings that come with the release.

    They are read from `openmic-2018.npz` where its clip names can be read without unpickling, else from the JSON file
    of each clip, which holds the same.

    Parameters
    ----------
    root : Path
        As in `load`.
    clip_ids : sequence of str
        Clips, such as "000046_3840".

    Returns
    -------
    np.ndarray [shape=(n_clips, 10, 128), uint8]
        In the order of `clip_ids`; one embedding for each 0.96 s, after VGGish's own PCA and 8-bit quantisation.

    Raises
    ------
    CorpusError
        When a clip has none, or they are not of that shape and range.
    """
    base = _base(Path(root))
    try:
        keys = _read_keys(base / ARRAYS)
        embeddings = _read_arrays(base / ARRAYS, ("X",))["X"]
    except (_ObjectsError, FileNotFoundError):
        tracked = track(clip_ids, total=len(clip_ids), describe="reading VGGish embeddings")
        values = [_read_vggish(base, clip_id) for clip_id in tracked]
        return np.array(values, dtype=np.uint8).reshape(len(values), *VGGISH_SHAPE)
    absent = sorted(set(clip_ids) - set(keys))
    if absent:
        raise CorpusError(f"{base / ARRAYS} has no embedding of {absent[0]}.")
    _check_embeddings(base / ARRAYS, embeddings, (len(keys), *VGGISH_SHAPE))
    rows = {key: row for row, key in enumerate(keys)}
    return embeddings[[rows[clip_id] for clip_id in clip_ids]].astype(np.uint8)


def download(root: Path) -> None:
    """Fetch what is missing of the release from Zenodo, check it and unpack it; and mirdata's list of its files.

    A release that is on disk is not fetched again; a download that broke off goes on where it was. The archive is
    removed once it is unpacked.

    Parameters
    ----------
    root : Path
        Folder to put it into; made when missing.

    Raises
    ------
    CorpusError
        When the archive cannot be fetched or has another checksum, or when the release was there before and is not
        whole.
    """
    root = Path(root)
    archives, index = mirdata_remotes("openmic2018")
    fetch(index, root)
    for remote in archives:
        # An archive that is still there was not unpacked to its end.
        if (root / remote.filename).exists() or not (_base(root) / CLASS_MAP).exists():
            archive = fetch(remote, root)
            unpack(archive, root)
            archive.unlink()
    base = _base(root)
    clips, *_ = _read_release(base)
    absent = int((~are_there(root, _paths(root, base, clips.clip_id))).sum())
    if absent:
        raise CorpusError(
            f"{base / 'audio'} lacks {absent:,} of the {len(clips):,} clips that have labels; move {base} away and run "
            "`instrlib download openmic2018` again."
        )


def validate(root: Path) -> list[str]:
    """List everything that is wrong with the release on disk; every file is decoded to its end.

    Where mirdata's list of files is there (`download` fetches it), each file's MD5 is compared with the publisher's.

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
    base = _base(root)
    try:
        clips, labels, classes, _ = _read_release(base)
        findings = _disagreements(base, clips.clip_id.tolist(), labels, classes)
    except CorpusError as error:
        return [str(error)]
    clips, known = clips.assign(path=_paths(root, base, clips.clip_id)), set(clips.clip_id)
    present = are_there(root, clips.path)
    problems = [(path, missing_reason(path)) for path in clips.path[~present]]
    problems += [(path, reason) for _, path, reason in find_unusable(root, clips[present])]
    problems += [
        (path, "no clip that has labels is called so")
        for prefix in sorted(path.name for path in (base / "audio").glob("*") if path.is_dir())
        for stem, name in sorted(audio_files(base / "audio" / prefix).items())
        if stem not in known
        for path in [(base / "audio" / prefix / name).relative_to(root).as_posix()]
    ]
    named = {(root / path).relative_to(base).with_suffix("").as_posix() for path, _ in problems}
    try:
        compared = compare_with_index(root / INDEX, base)
    except CorpusError as error:
        return [*findings, *(f"{path}: {reason}" for path, reason in problems), str(error)]
    problems += [(path, reason) for path, reason in compared if Path(path).with_suffix("").as_posix() not in named]
    return findings + [f"{path}: {reason}" for path, reason in problems]


def _base(root: Path) -> Path:
    """Return the folder that holds the tables: archives are unpacked to a folder of the release's name."""
    return root / FOLDER if (root / FOLDER).is_dir() else root


def _read_release(base: Path) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...], list[tuple[str, str, str]]]:
    """Return the clips sorted by name, their labels, all classes, and what is to be said about the sources."""
    if not base.is_dir():
        raise CorpusError(f"{INFO.title}: there is no folder {base}; {_way_out()}")
    needed = [CLASS_MAP, METADATA, *PARTITIONS.values()]
    lacking = [name for name in needed if not (base / name).is_file()]
    lacking += [] if (base / ARRAYS).is_file() or (base / LABELS).is_file() else [LABELS]
    if lacking:
        raise CorpusError(f"{INFO.title}: {base} lacks {', '.join(lacking)}; {_way_out()}")
    classes = _read_class_map(base / CLASS_MAP)
    notes: list[tuple[str, str, str]] = []
    try:
        keys, labels = _labels_of_arrays(base / ARRAYS, classes)
    except _ObjectsError as error:
        if not (base / LABELS).is_file():
            raise
        keys, labels = _labels_of_table(base / LABELS, classes)
        reason = str(error).removeprefix(f"{base / ARRAYS}: ")
        notes = [(ARRAYS, ARRAYS, f"{LEFT_OUT}{reason}; the labels come from {LABELS}, which says the same")]
    except FileNotFoundError:
        keys, labels = _labels_of_table(base / LABELS, classes)
    return _describe(base, keys), labels, classes, notes


def _describe(base: Path, keys: list[str]) -> pd.DataFrame:
    """Return a row for each clip, with its official part and its artist."""
    parts: dict[str, str] = {}
    for part, name in PARTITIONS.items():
        for key in _read_partition(base / name):
            if key in parts:
                raise CorpusError(f"{base / name}: the clip {key} is named twice in the official parts.")
            parts[key] = part
    outside = [key for key in keys if key not in parts]
    if outside:
        raise CorpusError(f"{base / 'partitions'}: neither part names the clip {outside[0]}, which has labels.")
    path = base / METADATA
    table = read_table(path, ("sample_key", "artist_name", "track_title", "license_title"))
    twice = table.sample_key[table.sample_key.duplicated()]
    if len(twice):
        raise CorpusError(f"{path}: the clip {twice.iloc[0]} is described twice; keep one row of each.")
    known = table.set_index("sample_key").reindex(keys, fill_value="")
    artists = known.artist_name.str.strip()
    return pd.DataFrame(
        {
            "clip_id": keys,
            # Two artists of one name are joined, which costs little; one artist on both sides would be a leak.
            "group": [f"artist/{artist.casefold()}" if artist else f"clip/{key}" for key, artist in artists.items()],
            "split": [parts[key] for key in keys],
            "artist": artists.to_numpy(),
            "title": known.track_title.to_numpy(),
            "licence": known.license_title.to_numpy(),
        }
    )


def _read_class_map(path: Path) -> tuple[str, ...]:
    try:
        numbers = read_json(path)
    except InstrlibError as error:
        raise CorpusError(str(error)) from None
    if not isinstance(numbers, dict) or sorted(numbers.values(), key=str) != sorted(range(len(numbers)), key=str):
        raise CorpusError(f"{path} does not number the classes from 0; get the release anew from {INFO.url}.")
    return tuple(sorted(numbers, key=numbers.__getitem__))


def _read_partition(path: Path) -> list[str]:
    # One clip a line, without a heading.
    try:
        keys = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not a list of clips, one a line, in UTF-8.") from None
    return [key for key in keys if key]


def _labels_of_table(path: Path, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Return the clips, sorted, and their labels from the table of aggregated answers."""
    table = read_table(path, ("sample_key", "instrument", "relevance"))
    strangers = sorted(set(table.instrument) - set(classes))
    if strangers:
        there = ", ".join(classes)
        raise CorpusError(f"{path} names {', '.join(strangers)}, which {CLASS_MAP} does not; there is: {there}.")
    relevance = pd.to_numeric(table.relevance, errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~((relevance >= 0) & (relevance <= 1)))
    if len(wrong):
        row = table.iloc[wrong[0]]
        raise CorpusError(f"{path}: the relevance of {row.instrument} in {row.sample_key} is not between 0 and 1.")
    twice = table[table.duplicated(["sample_key", "instrument"])]
    if len(twice):
        row = twice.iloc[0]
        raise CorpusError(f"{path}: {row.instrument} in {row.sample_key} stands there twice; keep one row.")
    keys = sorted(set(table.sample_key))
    labels = np.full((len(keys), len(classes)), np.nan, dtype=np.float32)
    rows = pd.Categorical(table.sample_key, categories=keys).codes
    labels[rows, pd.Categorical(table.instrument, categories=list(classes)).codes] = relevance >= PRESENT
    return keys, labels


def _labels_of_arrays(path: Path, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Return the clips, sorted, and their labels from the npz file."""
    keys = _read_keys(path)
    try:
        stored = _read_arrays(path, ("Y_true", "Y_mask"))
    except _ObjectsError as error:  # not as published: somebody changed the file
        raise CorpusError(f"{error}. Delete it: {LABELS} says the same.") from None
    shape = (len(keys), len(classes))
    for name, values in stored.items():
        if values.shape != shape or values.dtype.kind not in "bfiu":
            raise CorpusError(f"{path}: {name} is of shape {values.shape}, not {shape}, or does not hold numbers.")
    labels = np.where(stored["Y_mask"].astype(bool), stored["Y_true"] >= PRESENT, np.nan).astype(np.float32)
    order = np.argsort(keys)
    return keys[order].tolist(), labels[order]


def _read_keys(path: Path) -> np.ndarray:
    keys = _read_arrays(path, ("sample_key",))["sample_key"]
    if keys.ndim != 1 or keys.dtype.kind not in "SU" or len(set(keys)) < len(keys):
        raise CorpusError(f"{path}: sample_key is not a list of names, each of them once.")
    return keys.astype(str)


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an npz file; nothing is unpickled."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as stored:
            for name in names:
                arrays[name] = np.asarray(stored[name])
    except KeyError:
        raise CorpusError(f"{path} lacks the array {name}.") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            reason = f"{name} holds Python objects, which would have to be unpickled, so nothing of the file was used"
            raise _ObjectsError(f"{path}: {reason}") from None
        raise CorpusError(f"{path} is not readable as arrays ({error}); get it anew from {INFO.url}.") from None
    return arrays


def _disagreements(base: Path, keys: list[str], labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Say where the npz file and the table differ, when both can be read; and what is wrong with the table."""
    if not (base / LABELS).is_file():
        return [f"{LABELS}: the file is missing."]
    others, of_table = _labels_of_table(base / LABELS, classes)
    if others != keys:
        return [f"{LABELS} and {ARRAYS} do not name the same clips."]
    rows = np.flatnonzero(~((labels == of_table) | (np.isnan(labels) & np.isnan(of_table))).all(axis=1))
    return [f"{LABELS} and {ARRAYS} differ about the labels of {keys[row]}." for row in rows]


def _read_vggish(base: Path, clip_id: str) -> np.ndarray:
    path = base / "vggish" / clip_id[:3] / f"{clip_id}.json"
    if not path.is_file():
        raise CorpusError(f"There is no embedding of {clip_id}: {path} is missing.")
    try:
        values = np.array(read_json(path)["features"])
    except (InstrlibError, KeyError, TypeError, ValueError):
        raise CorpusError(f"{path} does not hold VGGish embeddings; get it anew from {INFO.url}.") from None
    _check_embeddings(path, values, VGGISH_SHAPE)
    return values


def _check_embeddings(path: Path, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise CorpusError(f"{path}: its embeddings are not whole numbers from 0 to 255 of shape {shape}.")


def _paths(root: Path, base: Path, clip_ids: pd.Series) -> list[str]:
    """Return each clip's file, relative to the root; of a missing one the name in the release."""
    folder = (base / "audio").relative_to(root).as_posix()
    found = {prefix: audio_files(base / "audio" / prefix) for prefix in sorted({name[:3] for name in clip_ids})}
    return [f"{folder}/{name[:3]}/{found[name[:3]].get(name, name + '.ogg')}" for name in clip_ids]


def _way_out() -> str:
    return (
        f"get it with `instrlib download openmic2018` ({INFO.size}; {INFO.licence}) or from {INFO.url} "
        "(DOI 10.5281/zenodo.1432913) and name its folder with DATA=."
    )
