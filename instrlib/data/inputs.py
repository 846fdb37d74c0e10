"""What notebook 01 hands on: features and splits; and the same with every segment as a clip of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import hash_json
from instrlib.data.splits import (
    PARTS,
    Split,
    check_no_leak,
    fingerprint_of,
    load_split,
    same_group_share,
    save_split,
)
from instrlib.data.store import FeatureStore, derive_store, open_store


@dataclass(frozen=True)
class Inputs:
    """Features, one split or those of a cross-validation in which each clip is tested once, and their fingerprint."""

    store: FeatureStore
    splits: tuple[Path, ...]
    fingerprint: str


def open_inputs(preprocessing: Any) -> Inputs:
    """Return the features and the splits of the finished run of notebook 01."""
    store = open_store(Path(str(preprocessing.arrays("inputs")["store"])))
    splits = tuple(sorted(preprocessing.folder.glob("splits/fold-*.json")))
    return Inputs(store, splits, fingerprint_of([load_split(path, store.segments) for path in splits]))


def by_segment(inputs: Inputs, folder: Path, *, keep_groups: bool, seed: int = 0) -> Inputs:
    """Make every segment a clip of its own, so that the same code trains and tests on segments.

    With `keep_groups` each segment stays in its clip's group and part. Otherwise it is a group of its own, and parts of
    the same sizes are drawn from all segments of a class: the protocol of many published scores. New splits are written
    to `folder`.
    """
    cut = segment_store(inputs.store, keep_groups=keep_groups)
    kept = [load_split(path, inputs.store.segments) for path in inputs.splits]
    clips = cut.clips
    if keep_groups:
        made = [_by_segment(split, clips) for split in kept]
    else:
        swapped = clips.groupby("label").clip_id.transform(np.random.default_rng(seed).permutation)
        of_segment = [clip_of_segment(clips.clip_id).map(split.parts).to_numpy() for split in kept]
        made = [Split(pd.Series(parts, index=swapped, name="part").sort_index(), seed) for parts in of_segment]
    paths = tuple(folder / f"{cut.folder.name}-{number}.json" for number in range(len(made)))
    for split, path in zip(made, paths, strict=True):
        save_split(split, path)
    return Inputs(cut, paths, hash_json([split.fingerprint for split in made])[:16])


def segment_store(store: FeatureStore, *, keep_groups: bool) -> FeatureStore:
    """Return a store of the same features in which every segment is a clip of its own, "<clip>#<number>"."""

    def rename(segments: pd.DataFrame) -> pd.DataFrame:
        number = segments.groupby("clip_id").cumcount().astype(str).str.zfill(4)
        named = segments.assign(clip_id=segments.clip_id + "#" + number)
        return named if keep_groups else named.assign(group=named.clip_id, split="")

    return derive_store(store, rename, mark="segments in groups" if keep_groups else "segments")


def describe_segments(inputs: Inputs, clips: pd.DataFrame) -> dict[str, Any]:
    """Return sizes of the parts, and `same_group`: the share of tested segments with their group in training.

    `inputs` are by segment (see `by_segment`), `clips` has the true `group` of each `clip_id`. Means over the splits.
    """
    segments = inputs.store.segments
    of = segments.assign(group=clip_of_segment(segments.clip_id).map(clips.set_index("clip_id").group))
    parts = [segments.clip_id.map(load_split(path, segments).parts) for path in inputs.splits]
    sizes = {part: float(np.mean([(of_split == part).sum() for of_split in parts])) for part in PARTS}
    return sizes | {"same_group": float(np.mean([same_group_share(of, of_split) for of_split in parts]))}


def _by_segment(split: Split, clips: pd.DataFrame) -> Split:
    parts = pd.Series(clip_of_segment(clips.clip_id).map(split.parts).to_numpy(), index=clips.clip_id.to_numpy())
    check_no_leak(clips, parts)
    return Split(parts.sort_index().rename("part").rename_axis("clip_id"), split.seed)


def clip_of_segment(segments: pd.Series) -> pd.Series:
    """Return the clip of each segment "<clip>#<number>"."""
    return segments.str.rsplit("#", n=1).str[0]
