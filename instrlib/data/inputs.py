"""Features and splits from notebook 01, also with every segment as a separate clip."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.data.splits import PARTS, Split, fingerprint_of, load_split, same_group_share, save_split
from instrlib.data.store import FeatureStore, derive_store, open_store


@dataclass(frozen=True)
class Inputs:
    """Features, one split or the folds of a cross-validation, and their fingerprint."""

    store: FeatureStore
    splits: tuple[Path, ...]
    fingerprint: str


def open_inputs(preprocessing: Any) -> Inputs:
    """Return the features and splits of the finished run of notebook 01."""
    store = open_store(Path(str(preprocessing.arrays("inputs")["store"])))
    splits = tuple(sorted(preprocessing.folder.glob("splits/fold-*.json")))
    return Inputs(store, splits, fingerprint_of([load_split(path, store.segments) for path in splits]))


def by_segment(inputs: Inputs, folder: Path, *, keep_groups: bool, seed: int = 0) -> Inputs:
    """Turn every segment into a separate clip, so that the same code trains and tests on segments.

    With `keep_groups`, segments stay in the group and part of their clip. Otherwise each is its own group, and parts of
    the same sizes are drawn from all segments of a class, as in many published protocols. New splits go to `folder`.
    """
    cut = segment_store(inputs.store, keep_groups=keep_groups)
    clips, random = cut.clips, np.random.default_rng(seed)
    names = clips.clip_id if keep_groups else clips.groupby("label").clip_id.transform(random.permutation)
    paths = [folder / f"{cut.folder.name}-{number}.json" for number in range(len(inputs.splits))]
    for old, new in zip(inputs.splits, paths, strict=True):
        split = load_split(old, inputs.store.segments)
        parts = pd.Series(clip_of_segment(clips.clip_id).map(split.parts).to_numpy(), index=names)
        save_split(Split(parts.sort_index(), split.seed if keep_groups else seed), new)
    return Inputs(cut, tuple(paths), fingerprint_of([load_split(path, cut.segments) for path in paths]))


def segment_store(store: FeatureStore, *, keep_groups: bool) -> FeatureStore:
    """Return a store of the same features in which every segment is a clip "<clip>#<number>"."""

    def rename(segments: pd.DataFrame) -> pd.DataFrame:
        number = segments.groupby("clip_id").cumcount().astype(str).str.zfill(4)
        named = segments.assign(clip_id=segments.clip_id + "#" + number)
        return named if keep_groups else named.assign(group=named.clip_id, split="")

    return derive_store(store, rename, mark="segments in groups" if keep_groups else "segments")


def describe_segments(inputs: Inputs, clips: pd.DataFrame) -> dict[str, Any]:
    """Return the sizes of the parts, and `same_group`, the share of test segments whose group is in training.

    `inputs` come from `by_segment`; `clips` has the true `group` of each `clip_id`. Values are means over the splits.
    """
    segments = inputs.store.segments
    of = segments.assign(group=clip_of_segment(segments.clip_id).map(clips.set_index("clip_id").group))
    parts = [segments.clip_id.map(load_split(path, segments).parts) for path in inputs.splits]
    sizes = {part: float(np.mean([(of_split == part).sum() for of_split in parts])) for part in PARTS}
    return sizes | {"same_group": float(np.mean([same_group_share(of, of_split) for of_split in parts]))}


def clip_of_segment(segments: pd.Series) -> pd.Series:
    """Return the clip of each segment "<clip>#<number>"."""
    return segments.str.rsplit("#", n=1).str[0]
