"""Training, validation and test parts that no group crosses, and that every class is in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import LeakError, SplitError
from instrlib.core.io import hash_bytes, hash_json, read_json, write_json

PARTS = ("train", "validation", "test")

UNUSED = "unused"
"""Part of training clips that are left out on purpose, as for a learning curve."""

MAX_FOLDS = 5

CLIPS_PER_GROUP = 4
"""A test part of n clips counts as large enough only when it has n / 4 groups: groups are what is independent."""

_VALIDATION = 0.25
"""Share of the clips outside the test part that validates."""

_ATTEMPTS = 40
"""Seeds that are tried until every class is everywhere; after each quarter of them there is one fold less."""


@dataclass(frozen=True, eq=False)
class Split:
    """The part of each clip ("train", "validation" or "test", a Series indexed by clip id, sorted), and its seed."""

    parts: pd.Series
    seed: int

    @property
    def fingerprint(self) -> str:
        """Hash of the clips and their parts, 16 hex digits."""
        return hash_json(sorted(self.parts.items()))[:16]


def make_split(manifest: pd.DataFrame, *, seed: int) -> Split:
    """Split a corpus by groups: about 60 % training, 20 % validation and 20 % test of each class.

    No group is in two parts, and every class has at least one group in every part. A validation or test part that the
    publisher fixed (column `split`) is kept. Groups are dealt by scikit-learn's StratifiedGroupKFold, separately for
    classes that share no groups, so leaving one out does not move the clips of the others.

    Parameters
    ----------
    manifest : pandas.DataFrame
        Columns `clip_id`, `label`, `group`, `split`.
    seed : int
        Another seed makes another split.

    Returns
    -------
    Split

    Raises
    ------
    SplitError
        When a class has fewer groups than there are parts, or no split is found in which every class is everywhere.
    LeakError
        When the publisher's own parts share a group.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abcdef"), "label": ["cello", "flute"] * 3, "group": list("uvwxyz")})
    >>> make_split(clips.assign(split=""), seed=0).parts.value_counts()[list(PARTS)].tolist()
    [2, 2, 2]
    """
    unknown = sorted(set(manifest.split) - {"", *PARTS})
    if unknown:
        raise SplitError(f"The corpus has a part {unknown[0]!r}; the parts are {', '.join(PARTS)}.")
    parts = manifest.split.where(manifest.split.isin(PARTS[1:]), "train")
    given = [name for name in PARTS[1:] if (parts == name).any()]
    asked = [name for name in ("test", "validation") if name not in given]
    for number, name in enumerate(asked):
        left, n_later = manifest[parts == "train"], len(asked) - number
        _check_groups(left, set(manifest.label), n_later + 1)
        chosen = _hold_out(left, 0.2 if n_later == 2 else _VALIDATION, leave=n_later, seed=seed)
        parts = parts.where(~manifest.group.isin(chosen) | (parts != "train"), name)
    split = _checked(manifest, pd.Series(parts.to_numpy(), index=manifest.clip_id.to_numpy()), seed)
    check_classes(manifest, split.parts, tuple(manifest.label.unique()))  # the publisher's may lack one
    return split


def k_folds(manifest: pd.DataFrame, k: int, *, seed: int) -> list[Split]:
    """Split a corpus k times, so that each clip is in the test part exactly once.

    In split i fold i is tested; of the other groups a quarter validates. A publisher's own parts are not used. Raises
    SplitError when k is below 3 or a class has fewer than k groups.
    """
    if k < 3:
        raise SplitError(f"k must be at least 3 (test, validation and training), not {k}.")
    _check_groups(manifest, set(manifest.label), k)
    fold_of: dict[str, int] = {}
    for clips in _components(manifest):
        fold_of |= _fold(clips, k, seed=seed)
    folds = manifest.group.map(fold_of)
    splits = []
    for fold in range(k):
        validation = _hold_out(manifest[folds != fold], _VALIDATION, leave=1, seed=seed)
        parts = np.select([folds == fold, manifest.group.isin(validation)], ["test", "validation"], "train")
        splits.append(_checked(manifest, pd.Series(parts, index=manifest.clip_id.to_numpy()), seed))
    return splits


def study_splits(manifest: pd.DataFrame, *, min_test_clips: int, seed: int) -> list[Split]:
    """Split once, or into 3 to 5 folds where the test part would have too few clips or groups.

    The test part is large enough with `min_test_clips` clips in a quarter as many groups. There are as many folds as
    the scarcest class has groups.
    """
    split = make_split(manifest, seed=seed)
    tested = manifest[manifest.clip_id.map(split.parts) == "test"]
    if len(tested) >= min_test_clips and CLIPS_PER_GROUP * tested.group.nunique() >= min_test_clips:
        return [split]
    scarcest = manifest.groupby("label").group.nunique().min()
    return k_folds(manifest, int(np.clip(scarcest, 3, MAX_FOLDS)), seed=seed)


def check_no_leak(manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Raise LeakError when a group is in two parts, SplitError when a clip has no part, two, or an unknown one.

    `manifest` has one row a clip or a segment (`clip_id`, `group`); `parts` is indexed by clip id.
    """
    if parts.index.has_duplicates or set(parts.index) != set(manifest.clip_id):
        wrong = parts.index[parts.index.duplicated()].union(parts.index.symmetric_difference(manifest.clip_id.unique()))
        raise SplitError(f"The split and the corpus have different clips: {wrong[0]!r} is missing in one, or is twice.")
    wrong = parts[~parts.isin((*PARTS, UNUSED))]
    if len(wrong):
        raise SplitError(f"The clip {wrong.index[0]!r} has the part {wrong.iloc[0]!r}; the parts are {PARTS}.")
    of_row = manifest.clip_id.map(parts).replace(UNUSED, "train")
    n_parts = of_row.groupby(manifest.group).nunique()
    leaks = sorted(n_parts.index[n_parts > 1])
    if leaks:
        both = " and ".join(sorted(set(of_row[manifest.group == leaks[0]]), key=PARTS.index))
        raise LeakError(f"The group {leaks[0]!r} is in {both} ({len(leaks)} such groups); each belongs in one part.")


def check_classes(manifest: pd.DataFrame, parts: pd.Series, classes: Sequence[str]) -> None:
    """Raise SplitError when a class has no clip in a part."""
    of_row = manifest.clip_id.map(parts)
    for part in PARTS:
        missing = ", ".join(sorted(set(classes) - set(manifest.label[of_row == part])))
        if missing:
            raise SplitError(f"The {part} part has no clip of {missing}; split again or leave that class out.")


def same_group_share(segments: pd.DataFrame, parts: pd.Series) -> float:
    """Return the share of test segments that have a segment of their group in training: 0 for a split by groups.

    Examples
    --------
    >>> same_group_share(pd.DataFrame({"group": ["a", "a", "b"]}), pd.Series(["train", "test", "test"]))
    0.5
    """
    in_test = segments.group[parts == "test"]
    if in_test.empty:
        raise SplitError("The test part has no segment.")
    return float(in_test.isin(segments.group[parts == "train"]).mean())


def fingerprint_of(splits: Sequence[Split]) -> str:
    """Return the fingerprint of one split, or one for all of a cross-validation."""
    prints = [split.fingerprint for split in splits]
    return prints[0] if len(prints) == 1 else hash_json(prints)[:16]


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON: its seed, its fingerprint and the part of each clip."""
    write_json(path, {"seed": split.seed, "fingerprint": split.fingerprint, "parts": split.parts.to_dict()})


def save_splits(splits: Sequence[Split], folder: Path) -> list[Path]:
    """Write splits as `fold-0.json`, `fold-1.json`, ... into a folder of their own; others in it are removed."""
    paths = [folder / f"fold-{number}.json" for number in range(len(splits))]
    for stale in set(folder.glob("fold-*.json")) - set(paths):
        stale.unlink()
    for split, path in zip(splits, paths, strict=True):
        save_split(split, path)
    return paths


def load_split(path: Path, manifest: pd.DataFrame) -> Split:
    """Read what `save_split` wrote, for a table with one row a clip or a segment (`clip_id`, `group`).

    Raises SplitError when the file is no split, was altered or is of other clips, LeakError when a group is in two
    parts.
    """
    stored = read_json(path)
    try:
        split = _checked(manifest, pd.Series(stored["parts"], dtype=str), stored["seed"])
        fingerprint = stored["fingerprint"]
    except (KeyError, TypeError, AttributeError):
        raise SplitError(f"{path} does not hold a split; delete it and run that step again.") from None
    if fingerprint != split.fingerprint:
        raise SplitError(f"{path} was altered: its fingerprint does not fit. Delete it and run that step again.")
    return split


def _checked(manifest: pd.DataFrame, parts: pd.Series, seed: int) -> Split:
    check_no_leak(manifest, parts)
    return Split(parts.sort_index().rename("part").rename_axis("clip_id"), seed)


def _check_groups(clips: pd.DataFrame, labels: set[str], n_needed: int) -> None:
    """Raise SplitError when a class has fewer groups than it needs."""
    for label, n in clips.groupby("label").group.nunique().reindex(sorted(labels), fill_value=0).items():
        if n < n_needed:
            raise SplitError(
                f"The class {label!r} has groups: {n}, but {n_needed} parts need one each. Add clips of it from other "
                "recordings or sessions, or leave the class out."
            )


def _components(clips: pd.DataFrame) -> list[pd.DataFrame]:
    """Cut clips into tables whose classes share no groups, each sorted by clip: the order of rows must not matter."""
    from scipy.sparse.csgraph import connected_components

    holds = (pd.crosstab(clips.group, clips.label) > 0).astype(int)
    _, number = connected_components(holds.T.to_numpy() @ holds.to_numpy(), directed=False)
    of_clip = clips.label.map(dict(zip(holds.columns, number, strict=True)))
    return [part.sort_values("clip_id") for _, part in clips.groupby(of_clip.to_numpy())]


def _hold_out(clips: pd.DataFrame, share: float, *, leave: int, seed: int) -> set[str]:
    """Choose groups with about `share` of each class's clips, so that each class keeps `leave` other groups."""
    chosen: set[str] = set()
    for part in _components(clips):
        n = int(min(round(1 / share), part.groupby("label").group.nunique().min()))
        fold_of = _fold(part, n, seed=seed, leave=leave, share=share)
        chosen |= {group for group, fold in fold_of.items() if fold == 0}
    return chosen


def _fold(clips: pd.DataFrame, n: int, *, seed: int, leave: int = 2, share: float | None = None) -> dict[str, int]:
    """Return the fold of each group, so that each class has a group in every fold and `leave` groups outside it.

    With a `share`, only fold 0 has to be so, and it is one of those that come nearest to it; n may then get smaller.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = clips.label.to_numpy(), clips.group.to_numpy()
    # Leaving a class out must not change the seed of the others.
    own_seed = int(hash_bytes(f"{seed}".encode(), *(name.encode() for name in np.unique(labels)))[:8], 16)
    for attempt in range(_ATTEMPTS):
        n_now = n if share is None else max(2, n - 4 * attempt // _ATTEMPTS)
        dealer = StratifiedGroupKFold(n_now, shuffle=True, random_state=(own_seed + attempt) % 2**32)
        folds = [set(groups[test]) for _, test in dealer.split(labels, labels, groups)]
        np.random.default_rng(own_seed + attempt).shuffle(folds)  # the first would have each class's largest group
        fit = [fold for fold in folds if _covers(clips, fold, leave)]
        if share is not None and fit:
            off = [round(20 * abs(clips.group.isin(fold).mean() - share)) for fold in fit]  # steps of 5 %
            fit = folds = [fit[int(np.argmin(off))]]
        if len(fit) == len(folds):
            return {group: number for number, fold in enumerate(folds) for group in fold}
    raise SplitError(
        f"No split was found in which {', '.join(np.unique(labels))} are in every part. Their groups hold several "
        "classes at once: add recordings of these classes or leave one out."
    )


def _covers(clips: pd.DataFrame, fold: set[str], leave: int) -> bool:
    """Whether each class has a group in the fold, and `leave` outside."""
    inside = clips.group.isin(fold)
    counts = [clips[part].groupby("label").group.nunique() for part in (inside, ~inside)]
    n_classes = clips.label.nunique()
    return len(counts[0]) == n_classes == len(counts[1]) and counts[1].min() >= leave
