"""What all tests share: folders of their own, and the real clips where they are."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no core waits for the other at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test out of the user's data, runs, reports and figures."""
    for name in ("data", "runs", "reports", "figures"):
        monkeypatch.setenv(f"INSTRLIB_{name.upper()}", str(tmp_path / name))
    monkeypatch.delenv("INSTRLIB_ROOT", raising=False)
    for name in ("INSTRLIB_WORKERS", "INSTRLIB_SCHEDULER", "INSTRLIB_WEIGHTS", "INSTRLIB_HUB", "TFHUB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real clips and tables; its README says what lies there."""
    folder = os.environ.get("INSTRLIB_TEST_DATA")
    if not folder:
        pytest.skip("INSTRLIB_TEST_DATA does not name the folder of real clips")
    return Path(folder)


@pytest.fixture(scope="session")
def sample_root(test_data: Path) -> Path:
    """Return the sample of FSDKaggle2018: 221 clips in the release's layout."""
    return test_data / "fsdkaggle2018_sample"


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the clone."""
    return REPOSITORY


@dataclass(frozen=True)
class Small:
    """A corpus of a few classes, its features and its split."""

    clips: Any
    store: Any
    split: Any
    split_path: Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Return 3 classes of 24 rendered clips, their features and a split: enough to train on in seconds."""
    from instrlib.config import FeatureConfig
    from instrlib.corpora import rendered
    from instrlib.splits import make_split, save_split
    from instrlib.store import build_store

    root = tmp_path_factory.mktemp("small")
    clips = rendered.load(root / "rendered", clips_per_class=24, classes=("flute", "piano", "drums"), workers=1)
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=1024), root=root / "features", workers=1)
    split = make_split(store.clips, seed=0)
    save_split(split, root / "split.json")
    return Small(clips, store, split, root / "split.json")


@pytest.fixture(scope="session")
def inputs(small: Small) -> Any:
    """Return what notebook 01 hands on, of the small corpus."""
    from instrlib.evaluation import Inputs

    return Inputs(small.store, (small.split_path,), small.split.fingerprint)


@pytest.fixture(scope="session")
def plan(small: Small, inputs: Any) -> Any:
    """Return a plan of mixtures of one to three instruments, six of each number in each part."""
    from instrlib import mixing

    return mixing.draw_study(inputs, 6, config=mixing.settings(small.store), seed=0)


@pytest.fixture(scope="session")
def mixtures(small: Small, plan: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return these mixtures, rendered."""
    from instrlib import mixing

    folder = tmp_path_factory.mktemp("mixtures")
    return mixing.render(plan, small.clips, config=mixing.settings(small.store), root=folder, workers=1)
