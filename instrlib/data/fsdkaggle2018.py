"""FSDKaggle2018: 11,073 clips of 41 classes from Freesound, of which many are musical instruments.

References
----------
.. [1] E. Fonseca, M. Plakal, F. Font, D. P. W. Ellis, X. Favory, J. Pons, X. Serra, "General-purpose tagging of
   Freesound audio with AudioSet labels: task description, dataset, and baseline", DCASE 2018, arXiv:1807.09902.
.. [2] Zenodo record 2552860, DOI 10.5281/zenodo.2552860.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import CorpusError
from instrlib.data.base import COLUMNS, CONTENT, LEFT_OUT, Corpus, CorpusInfo, problem_table
from instrlib.data.download import Remote, fetch, unpack
from instrlib.data.local import (
    are_there,
    audio_files,
    check_no_class_empty,
    choose_classes,
    draw_clips,
    find_unusable,
    missing_reason,
    probe_clips,
    reaches_into_test,
    read_table,
)

INFO = CorpusInfo(
    name="fsdkaggle2018",
    title="FSDKaggle2018",
    licence="each clip under its own Creative Commons licence (Attribution or CC0, a few Attribution Noncommercial), "
    "named in the manifest's column `licence`",
    citation="E. Fonseca, M. Plakal, F. Font, D. P. W. Ellis, X. Favory, J. Pons, X. Serra: General-purpose tagging of "
    "Freesound audio with AudioSet labels: task description, dataset, and baseline. DCASE 2018. "
    "DOI 10.5281/zenodo.2552860.",
    url="https://zenodo.org/records/2552860",
    size="about 5 GB",
    how_to_get="`instrlib download fsdkaggle2018` fetches it, checks it and goes on where it was broken off.",
)

GAP = 100
"""Two uploads of one class whose Freesound ids differ by at most this much count as one session; see `id_clusters`."""

SESSION_IN_TEST = LEFT_OUT + "other uploads of its session stand in the official test part"

META = "FSDKaggle2018.meta"
_FOLDERS = {"train": "FSDKaggle2018.audio_train", "test": "FSDKaggle2018.audio_test"}
_TABLES = {"train": f"{META}/train_post_competition.csv", "test": f"{META}/test_post_competition.csv"}
_COLUMNS = {
    "train": ("fname", "label", "manually_verified", "freesound_id", "license"),
    "test": ("fname", "label", "usage", "freesound_id", "license"),
}

REMOTES = tuple(
    Remote(f"{INFO.url}/files/{name}.zip?download=1", f"{name}.zip", None, f"md5:{md5}")
    for name, md5 in (
        (META, "f16828ac8be0e5285b9175a12f90d784"),
        ("FSDKaggle2018.audio_test", "f85c8665c3fc39311ea1b748e194a81d"),
        ("FSDKaggle2018.audio_train", "a8b47ff4b52022c178f88fa5c6f080d0"),
    )
)


def id_clusters(ids: Sequence[int] | np.ndarray, *, gap: int = GAP) -> np.ndarray:
    """Group Freesound ids that lie near each other.

    Freesound numbers uploads in the order in which they arrive, so the takes that one person uploads in one session,
    usually of one instrument in one room, get near ids. Clips of one session must not stand on both sides of a split,
    and the release names no uploader, so ids of one class that are chained by steps of at most `gap` are one cluster.

    The gap was chosen on the release's own 9,473 training rows. The number of clusters within classes falls as the
    gap grows:

    ======== ===== ===== ===== ===== ===== ===== =====
    gap          1    10    30    50   100   200  1000
    clusters  6039  4324  3939  3837  3689  3488  2524
    ======== ===== ===== ===== ===== ===== ===== =====

    Up to 10 sessions are still being put together; from about 20 to 100 the curve is nearly flat, because they are
    whole; above, unrelated uploads begin to merge. 100 is the careful end of the flat part: joining two strangers
    costs a little freedom in the split, tearing one session apart makes the test part dishonest. The care pays in
    subsets, where the missing neighbours lengthen the steps: 221 clips drawn from the release fall into 88 clusters
    by their own ids, and into 80 by the whole table; with a gap of 10 it would be 181.

    Parameters
    ----------
    ids : sequence of int
        Freesound ids of one class, in any order.
    gap : int
        Largest step inside a cluster.

    Returns
    -------
    numpy.ndarray [shape=(n,), int64]
        For each id the smallest id of its cluster.

    Examples
    --------
    >>> id_clusters([300, 5, 90, 1000]).tolist()
    [300, 5, 5, 1000]
    """
    ids = np.asarray(ids, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    begins = np.diff(ascending, prepend=ascending[:1] - gap - 1) > gap
    clusters = np.empty_like(ids)
    clusters[order] = ascending[begins][np.cumsum(begins) - 1]
    return clusters


def load(
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    max_clips_per_class: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read the release, or a part of it, from disk.

    What counts is what the tables in `FSDKaggle2018.meta` list: a root with the training part alone, or with tables
    cut down to some clips, is a corpus too. A clip is found by its stem, whatever its ending.

    Parameters
    ----------
    root : Path
        Folder that holds `FSDKaggle2018.meta` and `FSDKaggle2018.audio_train`, `FSDKaggle2018.audio_test` or both.
    classes : sequence of str, optional
        Labels to use; all when left out.
    max_clips_per_class : int, optional
        Cap for each class, drawn with `seed`, one clip of every group before a second of any.
    seed : int
        Seed of that draw.

    Returns
    -------
    Corpus
        The manifest has further columns: `freesound_id` (int), `licence` (str), `manually_verified` (bool; all test
        clips are) and `usage` ("Public" or "Private" for test clips, else ""). `group` is the label and the cluster
        of near Freesound ids (`id_clusters`). `split` holds the official parts when both are on disk. 59 % of the
        test clips then have a training clip of their class within 100 ids, so training clips whose group reaches
        into the test part are left out; they stand in `problems` with the reason `SESSION_IN_TEST`.

    Raises
    ------
    CorpusError
        When the root is missing or partial, a table lacks a column or names a clip twice, or a class has no usable
        clip.
    ConfigError
        When a class is unknown or the cap is below 1.
    """
    root = Path(root)
    rows = _read_rows(root)
    wanted = choose_classes(rows.label, classes)
    rows = rows[rows.label.isin(wanted)]
    rows = rows.assign(path=_paths(root, rows))
    in_test = reaches_into_test(rows)
    left_out = [(row.clip_id, row.path, SESSION_IN_TEST) for row in rows[in_test].itertuples()]
    drawn = draw_clips(rows[~in_test], max_clips_per_class, seed=seed)
    present = are_there(root, drawn.path)
    usable, unusable = probe_clips(root, drawn[present])
    unusable += [(row.clip_id, row.path, missing_reason(row.path)) for row in drawn[~present].itertuples()]
    check_no_class_empty(INFO, root, usable, wanted)
    columns = [*COLUMNS, "freesound_id", "licence", "manually_verified", "usage", CONTENT]
    manifest = usable[columns].sort_values("clip_id").reset_index(drop=True)
    return Corpus(INFO, root, manifest, wanted, problem_table(sorted(unusable) + sorted(left_out)))


def download(root: Path) -> None:
    """Fetch what is missing of the release from Zenodo, check it and unpack it.

    A part that is on disk is not fetched again; a download that broke off goes on where it was. The archives are
    removed once they are unpacked.

    Parameters
    ----------
    root : Path
        Folder to put it into; made when missing.

    Raises
    ------
    CorpusError
        When an archive cannot be fetched or has another checksum, or when a part that was there before is not whole.
    """
    root = Path(root)
    for remote in REMOTES:
        if (root / remote.filename.removesuffix(".zip")).is_dir():
            continue
        archive = fetch(remote, root)
        unpack(archive, root)
        archive.unlink()
    for part, table in _TABLES.items():
        rows = _read_part(root, part)
        absent = int((~are_there(root, _paths(root, rows))).sum())
        if absent:
            raise CorpusError(
                f"{root / _FOLDERS[part]} lacks {absent} of the {len(rows)} clips that {table} names; "
                "move that folder away and run `instrlib download fsdkaggle2018` again."
            )
    for remote in REMOTES:
        if (root / remote.filename).exists():  # left by a run that was killed after it had unpacked it
            (root / remote.filename).unlink()


def validate(root: Path) -> list[str]:
    """List everything that is wrong with the release on disk; every file is decoded to its end.

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
        rows = _read_rows(root)
    except CorpusError as error:
        return [str(error)]
    findings = []
    for pair in zip(_FOLDERS.values(), _TABLES.values(), strict=True):
        there = [name for name in pair if (root / name).exists()]
        if len(there) == 1:
            lacking = next(name for name in pair if name not in there)
            findings.append(f"{there[0]} is there, but not {lacking}: this part is not used.")
    rows = rows.assign(path=_paths(root, rows))
    present = are_there(root, rows.path)
    findings += [f"{path}: {missing_reason(path)}" for path in rows.path[~present]]
    findings += [f"{path}: {reason}" for _, path, reason in find_unusable(root, rows[present])]
    for part in rows.part.unique():
        listed = set(rows.clip_id[rows.part == part]) | _padding(root, part)
        strangers = sorted(set(audio_files(root / _FOLDERS[part])) - listed)
        findings += [f"{_FOLDERS[part]}/{stem}: {_TABLES[part]} does not name this file." for stem in strangers]
    return findings


def _read_rows(root: Path) -> pd.DataFrame:
    """Return one row for each clip of the parts that are on disk, with its group and official part."""
    if not root.is_dir():
        raise CorpusError(f"{INFO.title}: there is no folder {root}; {_way_out()}")
    parts = [part for part in _TABLES if (root / _TABLES[part]).is_file() and (root / _FOLDERS[part]).is_dir()]
    if not parts:
        names = [*_FOLDERS.values(), *_TABLES.values()]
        lacking = ", ".join(name for name in names if not (root / name).exists())
        raise CorpusError(f"{INFO.title}: no part is whole in {root}, which lacks {lacking}; {_way_out()}")
    rows = pd.concat([_read_part(root, part) for part in parts], ignore_index=True)
    twice = rows.clip_id[rows.clip_id.duplicated()].unique()
    if len(twice):
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        tables = " and ".join(str(root / _TABLES[part]) for part in parts)
        raise CorpusError(
            f"{tables}: these clips are named more than once: {', '.join(twice[:5])}{more}; keep one row of each."
        )
    clusters = rows.groupby("label").freesound_id.transform(lambda ids: id_clusters(ids.to_numpy()))
    return rows.assign(
        group=[f"{label}/{cluster}" for label, cluster in zip(rows.label, clusters, strict=True)],
        split=rows.part if len(parts) == 2 else "",
    )


def _read_part(root: Path, part: str) -> pd.DataFrame:
    path = root / _TABLES[part]
    table = read_table(path, _COLUMNS[part])
    scored = {"manually_verified": "1"} if part == "test" else {"usage": ""}
    table = table.assign(**scored)
    table = table[table.usage != "Ignored"]
    wrong = table.fname[~table.freesound_id.str.fullmatch(r"\d{1,18}")]
    if len(wrong):
        raise CorpusError(f"{path}: the freesound_id of {wrong.iloc[0]} is not a whole number.")
    return pd.DataFrame(
        {
            "clip_id": [Path(name).stem for name in table.fname],
            "label": table.label.to_numpy(),
            "part": part,
            "freesound_id": table.freesound_id.astype(np.int64).to_numpy(),
            "licence": table.license.to_numpy(),
            "manually_verified": (table.manually_verified == "1").to_numpy(),
            "usage": table.usage.to_numpy(),
        }
    )


def _padding(root: Path, part: str) -> set[str]:
    """Return the stems of the clips that were never scored, of which some releases carry the audio."""
    if part != "test":
        return set()
    table = read_table(root / _TABLES[part], _COLUMNS[part])
    return {Path(name).stem for name in table.fname[table.usage == "Ignored"]}


def _paths(root: Path, rows: pd.DataFrame) -> list[str]:
    """Return each clip's file, relative to the root; of a missing one the name in the release."""
    found = {part: audio_files(root / folder) for part, folder in _FOLDERS.items()}
    return [
        f"{_FOLDERS[part]}/{found[part].get(clip_id, clip_id + '.wav')}"
        for part, clip_id in zip(rows.part, rows.clip_id, strict=True)
    ]


def _way_out() -> str:
    return (
        f"get it with `instrlib download fsdkaggle2018` ({INFO.size}; {INFO.licence}) or from {INFO.url} "
        "(DOI 10.5281/zenodo.2552860) and name its folder with DATA=."
    )
