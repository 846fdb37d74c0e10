"""What notebook 01 hands on: features and splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrlib.data.splits import fingerprint_of, load_split
from instrlib.data.store import FeatureStore, open_store


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
