"""Training, validation and test parts that no group crosses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.core.errors import LeakError, SplitError
from instrlib.core.io import hash_bytes, hash_json, read_json, write_json

PARTS = ("train", "validation", "test")

MAX_FOLDS = 5

LEARNING_SHARES = (0.75, 0.25)
"""Training and validation, of what a fold leaves."""

_RESTARTS = 8
"""Orders in which the groups are dealt out; the best result is taken."""

_UNIT = 1 << 18
"""A whole class in the integers that shares are counted in, so that every machine finds the same split."""

_UNCOVERED = 10**15
"""Cost of a class without a group in a part; more than all the shares can add up to."""


@dataclass(frozen=True, eq=False)
class Split:
    """Which clip stands in which part.

    Attributes
    ----------
    parts : pandas.Series
        "train", "validation" or "test" for each clip, with the clip ids as index, sorted.
    seed : int
        The seed that it was made with.
    """

    parts: pd.Series
    seed: int

    @property
    def fingerprint(self) -> str:
        """Hash of the clips and their parts, 16 hex digits: the same split has the same one on every machine."""
        return hash_json(sorted(self.parts.items()))[:16]


def make_split(manifest: pd.DataFrame, *, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int) -> Split:
    """Split a corpus into training, validation and test, by groups.

    No group stands in two parts, every class has at least one group in every part, and each class's shares of clips
    come as near to `fractions` as the groups allow. Groups may hold clips of several classes. Where the publisher
    fixed a test or validation part (column `split`), it is kept, and the other clips share the remaining parts in the
    proportion of their fractions.

    The groups are dealt out one by one in an order that follows from a hash of the seed and their names, each to the
    part that lacks it most; then single groups are moved as long as that brings the shares nearer. All sums are of
    integers, so the result does not depend on the machine or on the order of the rows.

    Parameters
    ----------
    manifest : pandas.DataFrame
        Columns `clip_id`, `label`, `group`, `split`.
    fractions : tuple of float
        Shares of training, validation and test, above 0 and 1 together.
    seed : int
        Another seed makes another split.

    Returns
    -------
    Split

    Raises
    ------
    SplitError
        When a class has fewer groups than there are parts, or no split can be found in which all have one.
    LeakError
        When the publisher's own parts tear a group apart.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abcdef"), "label": ["cello", "flute"] * 3, "group": list("uvwxyz")})
    >>> make_split(clips.assign(split=""), seed=0).parts.value_counts()[list(PARTS)].tolist()
    [2, 2, 2]
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"The fractions must be three numbers above 0 that add up to 1, not {fractions}.")
    unknown = sorted(set(manifest.split) - {"", *PARTS})
    if unknown:
        raise SplitError(f"The corpus names a part {unknown[0]!r}; there is: {', '.join(PARTS)}.")
    fixed = manifest.split.where(manifest.split.isin(("validation", "test")), "")
    given = [name for name in PARTS if (fixed == name).any()]
    labels = sorted(set(manifest.label))
    for name in given:
        absent = sorted(set(labels) - set(manifest.label[fixed == name]))
        if absent:
            raise SplitError(f"The publisher's {name} part holds no clip of {', '.join(absent)}; leave that class out.")
    free = [name for name in PARTS if name not in given]
    shares = [fractions[PARTS.index(name)] for name in free]
    numbers = _deal(manifest[fixed == ""], labels, [share / sum(shares) for share in shares], free, seed=seed)
    parts = fixed.where(fixed != "", manifest.group.map(numbers).map(dict(enumerate(free))))
    return _checked(manifest, pd.Series(parts.to_numpy(), index=manifest.clip_id.to_numpy()), seed)


def k_folds(manifest: pd.DataFrame, k: int, *, seed: int) -> list[Split]:
    """Split a corpus k times, so that each clip stands in the test part exactly once.

    The groups are dealt into k folds of equal shares of each class, as in `make_split`. In split i the test part is
    fold i; of the other groups a quarter is dealt to validation and the rest to training. A publisher's own parts are
    not heeded.

    Parameters
    ----------
    manifest : pandas.DataFrame
        Columns `clip_id`, `label`, `group`.
    k : int
        Number of folds, at least 3: each class then keeps two groups for training and validation.
    seed : int
        Another seed makes other folds.

    Returns
    -------
    list of Split

    Raises
    ------
    SplitError
        When k is below 3 or a class has fewer than k groups.
    """
    if k < 3:
        raise SplitError(f"k must be at least 3 (test, validation and training), not {k}.")
    labels = sorted(set(manifest.label))
    numbers = _deal(manifest, labels, [1 / k] * k, [f"fold {number + 1}" for number in range(k)], seed=seed)
    folds = manifest.group.map(numbers)
    splits = []
    for number in range(k):
        others = _deal(manifest[folds != number], labels, LEARNING_SHARES, PARTS[:2], seed=seed)
        parts = manifest.group.map(others).map(dict(enumerate(PARTS[:2]))).where(folds != number, "test")
        splits.append(_checked(manifest, pd.Series(parts.to_numpy(), index=manifest.clip_id.to_numpy()), seed))
    return splits


def study_splits(manifest: pd.DataFrame, *, min_test_clips: int, seed: int) -> list[Split]:
    """Split a corpus once, or, where that would leave too few clips to test on, into folds that test every clip once.

    Parameters
    ----------
    manifest : pandas.DataFrame
        Columns `clip_id`, `label`, `group`, `split`.
    min_test_clips : int
        Fewest clips of a test part that is enough by itself.
    seed : int
        Of `make_split` and `k_folds`.

    Returns
    -------
    list of Split
        One, or as many as `n_folds` says.

    Raises
    ------
    SplitError, LeakError
        See `make_split`.
    """
    split = make_split(manifest, seed=seed)
    enough = (split.parts == "test").sum() >= min_test_clips
    return [split] if enough else k_folds(manifest, n_folds(manifest), seed=seed)


def n_folds(manifest: pd.DataFrame) -> int:
    """Return how many folds a corpus allows, 3 to 5: as many as its scarcest class has groups.

    Parameters
    ----------
    manifest : pandas.DataFrame
        Columns `label` and `group`.

    Examples
    --------
    >>> n_folds(pd.DataFrame({"label": ["cello"] * 4 + ["flute"] * 3, "group": list("uvwxyzz")}))
    3
    """
    scarcest = int(manifest.groupby("label").group.nunique().min())
    return int(np.clip(scarcest, 3, MAX_FOLDS))


def check_no_leak(manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Make sure that every clip has one part and that no group stands in two.

    Parameters
    ----------
    manifest : pandas.DataFrame
        One row a clip or a segment; columns `clip_id` and `group`.
    parts : pandas.Series
        The part of each clip, with the clip ids as index.

    Raises
    ------
    LeakError
        When a group stands in several parts; the message names both.
    SplitError
        When a clip has no part or two, or a part belongs to no clip.
    """
    twice = parts.index[parts.index.duplicated()]
    strangers = sorted(set(parts.index).symmetric_difference(manifest.clip_id))
    if len(twice) or strangers:
        raise SplitError(
            f"The split and the corpus are not of the same clips: {twice[0] if len(twice) else strangers[0]!r} stands "
            "in one of them alone or twice; make the split again."
        )
    wrong = parts[~parts.isin(PARTS)]
    if len(wrong):
        raise SplitError(f"The clip {wrong.index[0]!r} has the part {wrong.iloc[0]!r}; there is: {', '.join(PARTS)}.")
    of_clip = manifest.clip_id.map(parts)
    crossing = of_clip.groupby(manifest.group).nunique()
    leaks = sorted(crossing.index[crossing > 1])
    if leaks:
        stands = [name for name in PARTS if name in set(of_clip[manifest.group == leaks[0]])]
        more = f" (and {len(leaks) - 1} more groups leak)" if len(leaks) > 1 else ""
        raise LeakError(f"The group {leaks[0]!r} stands in {' and '.join(stands)}{more}; a group belongs in one part.")


def check_classes(manifest: pd.DataFrame, parts: pd.Series, classes: Sequence[str]) -> None:
    """Make sure that every class has a clip in every part.

    Parameters
    ----------
    manifest : pandas.DataFrame
        One row a clip or a segment; columns `clip_id` and `label`.
    parts : pandas.Series
        The part of each clip, with the clip ids as index.
    classes : sequence of str
        The classes that are told apart.

    Raises
    ------
    SplitError
        When one has none; the message names the class and the part.
    """
    of_row = manifest.clip_id.map(parts)
    for part in PARTS:
        missing = sorted(set(classes) - set(manifest.label[of_row == part]))
        if missing:
            raise SplitError(
                f"There is no clip of {', '.join(missing)} in the {part} part of the split; make the split again, or "
                "leave that class out."
            )


def sibling_share(segments: pd.DataFrame, parts: pd.Series) -> float:
    """Return the share of test segments that have a segment of their group in training.

    Parameters
    ----------
    segments : pandas.DataFrame
        One row a segment, with the column `group`.
    parts : pandas.Series
        The part of each segment, with the index of `segments`; for a `Split` this is
        `segments.clip_id.map(split.parts)`.

    Returns
    -------
    float
        0 for an honest split, up to 1.

    Raises
    ------
    SplitError
        When no segment stands in the test part.

    Examples
    --------
    >>> segments = pd.DataFrame({"group": ["a", "a", "b"]})
    >>> sibling_share(segments, pd.Series(["train", "test", "test"]))
    0.5
    """
    in_test = segments.group[parts == "test"]
    if in_test.empty:
        raise SplitError("There is no segment in the test part.")
    return float(in_test.isin(segments.group[parts == "train"]).mean())


def fingerprint_of(splits: Sequence[Split]) -> str:
    """Return the fingerprint of one split, or one for all of a cross-validation."""
    prints = [split.fingerprint for split in splits]
    return prints[0] if len(prints) == 1 else hash_json(prints)[:16]


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON: its seed, its fingerprint and the part of each clip."""
    write_json(path, {"seed": split.seed, "fingerprint": split.fingerprint, "parts": split.parts.to_dict()})


def save_splits(splits: Sequence[Split], folder: Path) -> list[Path]:
    """Write splits as `fold-0.json`, `fold-1.json`, ... into a folder of their own; others in it are removed.

    Parameters
    ----------
    splits : sequence of Split
        One, or those of a cross-validation.
    folder : Path
        Where to.

    Returns
    -------
    list of Path
    """
    paths = [folder / f"fold-{number}.json" for number in range(len(splits))]
    for stale in set(folder.glob("fold-*.json")) - set(paths):
        stale.unlink()
    for split, path in zip(splits, paths, strict=True):
        save_split(split, path)
    return paths


def load_split(path: Path, manifest: pd.DataFrame) -> Split:
    """Read what `save_split` wrote.

    Parameters
    ----------
    path : Path
        The file.
    manifest : pandas.DataFrame
        The corpus that it belongs to, one row a clip or a segment; columns `clip_id` and `group`.

    Returns
    -------
    Split

    Raises
    ------
    SplitError
        When the file is not a split, was altered, or is of other clips.
    LeakError
        When a group stands in several parts.
    InstrlibError
        When the file is missing or is not JSON.
    """
    stored = read_json(path)
    try:
        split = _checked(manifest, pd.Series(stored["parts"], dtype=str), stored["seed"])
        fingerprint = stored["fingerprint"]
    except (KeyError, TypeError, AttributeError):
        raise SplitError(f"{path} does not hold a split; delete it and run that step again.") from None
    if fingerprint != split.fingerprint:
        raise SplitError(f"{path} was altered: its fingerprint does not fit; delete it and run that step again.")
    return split


def _checked(manifest: pd.DataFrame, parts: pd.Series, seed: int) -> Split:
    check_no_leak(manifest, parts)
    return Split(parts.sort_index().rename("part").rename_axis("clip_id"), seed)


def _deal(
    clips: pd.DataFrame, labels: Sequence[str], fractions: Sequence[float], names: Sequence[str], *, seed: int
) -> dict[str, int]:
    """Return the number of the part that each group goes to.

    Each of the `labels` must get a group in each part; `names` are the parts' names for messages.
    """
    # Sorted both ways, so the order of the rows does not matter.
    counts = pd.crosstab(clips.group, clips.label).reindex(columns=labels, fill_value=0)
    n_groups = (counts > 0).sum()
    for label, n in n_groups.items():
        if n < len(fractions):
            raise SplitError(
                f"The class {label!r} has {n} {'group' if n == 1 else 'groups'}, but {', '.join(names)} need one each: "
                "add clips of it from other recordings or sessions, or leave the class out."
            )
    numbers: dict[str, int] = {}
    for component in _components(counts > 0):
        numbers |= _deal_component(counts[component], fractions, names, seed=seed)
    return numbers


def _components(holds: pd.DataFrame) -> list[list[str]]:
    """Return the classes that share groups, directly or by way of others; each set can be dealt by itself."""
    from scipy.sparse.csgraph import connected_components

    shared = holds.to_numpy(dtype=np.int64)
    n, numbers = connected_components(shared.T @ shared, directed=False)
    return [holds.columns[numbers == number].tolist() for number in range(n)]


def _deal_component(
    counts: pd.DataFrame, fractions: Sequence[float], names: Sequence[str], *, seed: int
) -> dict[str, int]:
    counts = counts[counts.sum(axis=1) > 0]
    of_class = counts.to_numpy(dtype=np.int64)
    weights = (2 * of_class * _UNIT + of_class.sum(axis=0)) // (2 * of_class.sum(axis=0))  # rounded shares of a class
    best_cost, best = None, np.zeros(len(counts), dtype=np.int64)
    for restart in range(_RESTARTS):
        ranks = [hash_bytes(f"{seed} {restart}".encode(), str(group).encode()) for group in counts.index]
        cost, parts = _deal_once(weights, of_class > 0, fractions, np.argsort(ranks))
        if best_cost is None or cost < best_cost:
            best_cost, best = cost, parts
    if best_cost >= _UNCOVERED:
        bare = [
            f"{label} in {name}"
            for number, name in enumerate(names)
            for label in counts.columns[(of_class[best == number] > 0).sum(axis=0) == 0]
        ]
        raise SplitError(
            f"No split was found in which every class has a group in every part; missing: {', '.join(bare)}. Groups "
            "hold several classes at once here: add recordings of these classes or leave them out."
        )
    return dict(zip(counts.index, best.tolist(), strict=True))


def _deal_once(
    weights: np.ndarray, holds: np.ndarray, fractions: Sequence[float], order: np.ndarray
) -> tuple[int, np.ndarray]:
    """Deal the groups out in `order`, then move single groups while that lowers the cost.

    The cost of a deal is the sum over parts and classes of the squared distance between the share of the class in
    the part and the fraction asked for, and `_UNCOVERED` for each class that a part lacks.

    Parameters
    ----------
    weights : numpy.ndarray [shape=(n_groups, n_classes), int64]
        Share of each class that lies in the group, in `_UNIT`.
    holds : numpy.ndarray [shape=(n_groups, n_classes), bool]
        Whether the group has a clip of the class.
    fractions : sequence of float
        Share of each part.
    order : numpy.ndarray [shape=(n_groups,), int]
        Order of dealing.

    Returns
    -------
    cost : int
    parts : numpy.ndarray [shape=(n_groups,), int64]
    """
    n_groups, n_parts = len(weights), len(fractions)
    targets = np.round(np.outer(fractions, weights.sum(axis=0))).astype(np.int64)
    excess = -targets  # (n_parts, n_classes): what a part has above its target
    covered = np.zeros_like(excess)  # number of groups of the class in the part
    parts = np.full(n_groups, -1)
    for group in order:
        gained = ((covered == 0) & holds[group]).sum(axis=1)
        costs = 2 * excess @ weights[group] - gained * _UNCOVERED
        part = parts[group] = int(np.argmin(costs))
        excess[part] += weights[group]
        covered[part] += holds[group]

    squares = (weights * weights).sum(axis=1)
    rows = np.arange(n_groups)
    holding = holds.astype(np.int64)
    while True:
        pull = 2 * weights @ excess.T  # (n_groups, n_parts)
        gained = holding @ (covered == 0).T.astype(np.int64)
        lost = (holding * (covered == 1)[parts]).sum(axis=1)
        change = pull - pull[rows, parts][:, None] + 2 * squares[:, None] + (lost[:, None] - gained) * _UNCOVERED
        change[rows, parts] = 0
        group, part = divmod(int(np.argmin(change[order])), n_parts)
        group = order[group]
        if change[group, part] >= 0:
            break
        excess[parts[group]] -= weights[group]
        covered[parts[group]] -= holds[group]
        parts[group] = part
        excess[part] += weights[group]
        covered[part] += holds[group]
    return int((excess * excess).sum() + (covered == 0).sum() * _UNCOVERED), parts
