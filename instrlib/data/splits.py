"""Training, validation and test parts that contain every class and that no group crosses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.io import LeakError, SplitError, hash_bytes, hash_json, read_json, write_json

PARTS = ("train", "validation", "test")

UNUSED = "unused"
"""Part of training clips that are left out on purpose, as for a learning curve."""

_ATTEMPTS = 40
"""Seeds that are tried until every class is in every part; after each quarter of them there is one fold less."""


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

    No group is in two parts, and every class has a group in every part. Validation or test parts of the publisher
    (column `split`) are kept. scikit-learn's StratifiedGroupKFold assigns the groups, separately for classes without
    common groups, so excluding one class does not move the clips of others. Raises `SplitError` when a class has fewer
    groups than there are parts, or no split has every class in every part, and `LeakError` when the parts of the
    publisher share a group.
    """
    parts = manifest.split.replace("", "train")
    asked = [name for name in ("test", "validation") if name not in set(parts)]
    for number, name in enumerate(asked):
        left, n_later = manifest[parts == "train"], len(asked) - number
        _check_groups(left, manifest.label, n_later + 1)
        fold_of = _folds(left, 5 if n_later == 2 else 4, seed=seed, leave=n_later, first_only=True)
        parts = parts.where(~manifest.group.isin(fold_of) | (parts != "train"), name)
    split = _checked(manifest, pd.Series(parts.to_numpy(), index=manifest.clip_id.to_numpy()), seed)
    check_classes(manifest, split.parts, manifest.label.unique())  # parts of the publisher may lack a class
    return split


def k_folds(manifest: pd.DataFrame, k: int, *, seed: int) -> list[Split]:
    """Split a corpus k times, at least 3, such that each clip is in the test part exactly once.

    Fold i is the test part of split i; a quarter of the other groups is for validation. Parts of the publisher are
    ignored. Raises `SplitError` if a class has fewer than k groups.
    """
    _check_groups(manifest, manifest.label, k)
    folds = manifest.group.map(_folds(manifest, k, seed=seed))
    splits = []
    for fold in range(k):
        validation = _folds(manifest[folds != fold], 4, seed=seed, leave=1, first_only=True)
        parts = np.select([folds == fold, manifest.group.isin(validation)], ["test", "validation"], "train")
        splits.append(_checked(manifest, pd.Series(parts, index=manifest.clip_id.to_numpy()), seed))
    return splits


def study_splits(manifest: pd.DataFrame, *, min_test_clips: int, seed: int) -> list[Split]:
    """Split once, or into 3 to 5 folds if the test part would have too few clips or groups.

    The test part needs `min_test_clips` clips in a quarter as many groups, because groups are what is independent. The
    number of folds is the smallest number of groups of a class.
    """
    split = make_split(manifest, seed=seed)
    tested = manifest[manifest.clip_id.map(split.parts) == "test"]
    if len(tested) >= min_test_clips and 4 * tested.group.nunique() >= min_test_clips:
        return [split]
    return k_folds(manifest, int(np.clip(_n_groups(manifest, manifest.label).min(), 3, 5)), seed=seed)


def check_no_leak(manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Raise `LeakError` if a group is in two parts, `SplitError` unless each clip has one known part.

    `manifest` has one row per clip or segment (`clip_id`, `group`); `parts` is indexed by clip id.
    """
    if parts.index.has_duplicates or set(parts.index) != set(manifest.clip_id):
        raise SplitError("The split and the corpus have different clips, or a clip twice; split again.")
    if unknown := sorted(set(parts) - {*PARTS, UNUSED}):
        raise SplitError(f"Unknown part {unknown[0]!r}; the parts are {', '.join(PARTS)}.")
    of_row = manifest.clip_id.map(parts).replace(UNUSED, "train")
    n_parts = of_row.groupby(manifest.group).nunique()
    if leaks := sorted(n_parts.index[n_parts > 1]):
        both = " and ".join(sorted(set(of_row[manifest.group == leaks[0]]), key=PARTS.index))
        raise LeakError(f"The group {leaks[0]!r} is in {both} ({len(leaks)} such groups); each belongs in one part.")


def check_classes(manifest: pd.DataFrame, parts: pd.Series, classes: Sequence[str]) -> None:
    """Raise `SplitError` if a class has no clip in a part."""
    of_row = manifest.clip_id.map(parts)
    for part in PARTS:
        if missing := ", ".join(sorted(set(classes) - set(manifest.label[of_row == part]))):
            raise SplitError(f"The {part} part has no clip of {missing}; split again or leave that class out.")


def same_group_share(segments: pd.DataFrame, parts: pd.Series) -> float:
    """Return the share of test segments whose group is in training; 0 for a split by groups."""
    return float(segments.group[parts == "test"].isin(segments.group[parts == "train"]).mean())


def fingerprint_of(splits: Sequence[Split]) -> str:
    """Return the fingerprint of one split, or of all folds of a cross-validation."""
    prints = [split.fingerprint for split in splits]
    return prints[0] if len(prints) == 1 else hash_json(prints)[:16]


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON: its seed, its fingerprint and the part of each clip."""
    write_json(path, {"seed": split.seed, "fingerprint": split.fingerprint, "parts": split.parts.to_dict()})


def save_splits(splits: Sequence[Split], folder: Path) -> list[Path]:
    """Write splits as `fold-0.json`, `fold-1.json`, ... into their own folder, and remove others in it."""
    paths = [folder / f"fold-{number}.json" for number in range(len(splits))]
    for stale in set(folder.glob("fold-*.json")) - set(paths):
        stale.unlink()
    for split, path in zip(splits, paths, strict=True):
        save_split(split, path)
    return paths


def load_split(path: Path, manifest: pd.DataFrame) -> Split:
    """Read a split of `save_split`, for a table with one row per clip or segment (`clip_id`, `group`).

    Raises `SplitError` if the file is invalid, altered or for other clips, `LeakError` if a group is in two parts.
    """
    stored = read_json(path)
    try:
        split = _checked(manifest, pd.Series(stored["parts"], dtype=str), stored["seed"])
        intact = stored["fingerprint"] == split.fingerprint
    except (KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise SplitError(f"{path} is damaged or was altered; delete it and run the step that writes it again.")
    return split


def _checked(manifest: pd.DataFrame, parts: pd.Series, seed: int) -> Split:
    check_no_leak(manifest, parts)
    return Split(parts.sort_index().rename("part").rename_axis("clip_id"), seed)


def _n_groups(clips: pd.DataFrame, labels: Iterable[str]) -> pd.Series:
    """Return the number of groups of each class."""
    return clips.groupby("label").group.nunique().reindex(sorted(set(labels)), fill_value=0)


def _check_groups(clips: pd.DataFrame, labels: Iterable[str], n_needed: int) -> None:
    n_groups = _n_groups(clips, labels)
    if n_groups.min() < n_needed:
        raise SplitError(
            f"The class {n_groups.idxmin()!r} has groups: {n_groups.min()}, but {n_needed} are required; add clips "
            "from other recordings or sessions, or leave the class out."
        )


def _folds(manifest: pd.DataFrame, n: int, *, seed: int, leave: int = 2, first_only: bool = False) -> dict[str, int]:
    """Return the fold of each group, such that each class has a group in every fold and `leave` groups outside it.

    With `first_only`, the groups of a single such fold are returned, near 1 / n of the clips; n may then decrease.
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.model_selection import StratifiedGroupKFold

    found: dict[str, int] = {}
    manifest = manifest.sort_values("clip_id")  # so that the row order has no effect
    holds = (pd.crosstab(manifest.group, manifest.label) > 0).astype(int)
    _, component = connected_components(holds.T.to_numpy() @ holds.to_numpy(), directed=False)
    of_clip = manifest.label.map(dict(zip(holds.columns, component, strict=True)))
    for _, clips in manifest.groupby(of_clip.to_numpy()):  # tables without common groups
        labels, groups = clips.label.to_numpy(), clips.group.to_numpy()
        # Excluding a class must not change the seed of the others.
        own_seed = int(hash_bytes(f"{seed}".encode(), *(name.encode() for name in np.unique(labels)))[:8], 16)
        n_all = _n_groups(clips, labels)
        n_most = min(n, n_all.min())
        for attempt in range(_ATTEMPTS):
            n_now = max(2, n_most - 4 * attempt // _ATTEMPTS) if first_only else n
            dealer = StratifiedGroupKFold(n_now, shuffle=True, random_state=(own_seed + attempt) % 2**32)
            folds = [set(groups[test]) for _, test in dealer.split(labels, labels, groups)]
            # Otherwise the first fold has the largest group of each class.
            np.random.default_rng(own_seed + attempt).shuffle(folds)
            inside = [_n_groups(clips[clips.group.isin(fold)], labels) for fold in folds]
            fit = [
                fold for fold, n_in in zip(folds, inside, strict=True) if n_in.all() and (n_all - n_in >= leave).all()
            ]
            if first_only and fit:
                off = [round(20 * abs(clips.group.isin(fold).mean() - 1 / n)) for fold in fit]  # steps of 5 %
                fit = folds = [fit[int(np.argmin(off))]]
            if len(fit) == len(folds):
                found |= {group: number for number, fold in enumerate(folds) for group in fold}
                break
        else:
            raise SplitError(
                f"No split has {', '.join(np.unique(labels))} in every part, because their groups contain several "
                "classes; add recordings of these classes or leave one out."
            )
    return found
