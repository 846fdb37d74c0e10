"""What all tests share: folders of their own, and the real clips where they are."""

import gc
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ["INSTRLIB_WORKERS"] = "1"  # unless a test asks for more


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
    settings = ("CORPORA", "SCHEDULER", "WEIGHTS", "HUB")
    for name in (*(f"INSTRLIB_{setting}" for setting in settings), "TFHUB_CACHE_DIR"):
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
    from instrlib.core.config import FeatureConfig
    from instrlib.data import rendered
    from instrlib.data.splits import make_split, save_split
    from instrlib.data.store import build_store

    root = tmp_path_factory.mktemp("small")
    clips = rendered.load(root / "rendered", clips_per_class=24, classes=("flute", "piano", "drums"), workers=1)
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=1024), root=root / "features", workers=1)
    split = make_split(store.clips, seed=0)
    save_split(split, root / "split.json")
    return Small(clips, store, split, root / "split.json")


@pytest.fixture(scope="session")
def inputs(small: Small) -> Any:
    """Return what notebook 01 hands on, of the small corpus."""
    from instrlib.data.store import Inputs

    return Inputs(small.store, (small.split_path,), small.split.fingerprint)


@pytest.fixture(scope="session")
def plan(small: Small, inputs: Any) -> Any:
    """Return a plan of mixtures of one to three instruments, six of each number in each part."""
    from instrlib.studies import mixtures

    return mixtures.draw(inputs, small.clips, 6, sources=(1, 2, 3), seed=0)


@pytest.fixture(scope="session")
def mixtures(small: Small, plan: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return these mixtures, rendered."""
    from instrlib.studies.mixtures import render

    return render(plan, small.clips, root=tmp_path_factory.mktemp("mixtures"))


@pytest.fixture
def tones(tmp_path: Path) -> Any:
    """Return a corpus of three pure tones; see `trees.make_tones`."""
    from trees import make_tones

    return make_tones(tmp_path)


@pytest.fixture(scope="session")
def soundscapes(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return small soundscapes of one or two instruments."""
    from instrlib.studies import mixtures

    config = mixtures.SoundscapeConfig(
        per_ensemble={"validation": 1, "test": 2}, duration_s=(20.0, 24.0), instruments=(2, 3), entry_s=(4.0, 9.0)
    )
    plan = mixtures.compose(small.store, small.split, small.clips, config=config, seed=0)
    root = tmp_path_factory.mktemp("soundscapes")
    return mixtures.render(plan, small.clips, root=root, gap_s=mixtures.GAP_S)


@dataclass(frozen=True)
class Released:
    """A model folder, the networks that it was made of, and how to make it again."""

    made: Any
    trained: dict[str, Path]
    publish: Any


@pytest.fixture(scope="session")
def released(small: Small, inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Return a model folder of two tiny networks that were trained on the small corpus."""
    from dataclasses import replace

    from instrlib.core.config import AugmentConfig, TrainConfig
    from instrlib.deploy import release
    from instrlib.models import variants
    from instrlib.models.layers import Layer
    from instrlib.runner import run as runs

    root = tmp_path_factory.mktemp("released")
    table = (Layer("conv", 12, 5, 2, 2, True), Layer("conv", 24, 3, 1, 2, True), Layer("average", dropout=0.2))
    config = TrainConfig(epochs=12, patience=12)
    variant = variants.Variant("compact CNN", table, config, small.store.folder)
    outcome = variants.run_variants(root / "02", [variant], splits=inputs.splits, seeds=(0,), workers=1)
    layers = AugmentConfig(mix="mixtures", share=0.6, n_sources=(1, 3))
    recipe = replace(config, epochs=18, output="sigmoid", class_weights=False, augment=layers)
    name = "trained on mixtures"
    several_variant = variants.Variant(name, table, recipe, small.store.folder)
    mixed = variants.run_variants(root / "10", [several_variant], splits=inputs.splits, seeds=(0,), workers=1)[name]
    single = release.choose([release.Candidate("02_baseline_cnn", "compact CNN", outcome["compact CNN"].folders)])
    candidate = release.Candidate("10_layered_audio", name, mixed.folders)
    several = release.choose([candidate], score="mean_average_precision", fold=single.fold)
    parameters = {"corpus": "rendered", "data": "", "profile": "smoke", "seeds": 1}
    run = runs.Run("11_timeline", parameters, root / "11")

    def publish() -> Any:
        return release.publish(run.folder / "model", single, several, run=run, inputs=inputs, n_resamples=50)

    return Released(publish(), {"single": single.folder, "several": several.folder}, publish)


@pytest.fixture(scope="session")
def model_folder(released: Released) -> Path:
    """Return that model folder."""
    return released.made.model.folder


@pytest.fixture(scope="session")
def page_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with all that the page can show: a timeline's settings and a condition model."""
    from recordings import furnished

    return furnished(model_folder, tmp_path_factory.mktemp("furnished") / "model")


@pytest.fixture(scope="module")
def event_loops_closed() -> Iterator[None]:
    """Undo what Gradio and notebook clients leave: variables of the environment, and event loops with warnings."""
    with mock.patch.dict(os.environ):
        yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
