"""What all tests share: folders of their own, and the real clips where they are."""

import gc
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from recordings import SIMULATED, plain_model
from trees import TONES_HZ, write_audio

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import write_json
from instrlib.data import corpora, rendered
from instrlib.data.splits import make_split, save_split
from instrlib.data.store import Inputs, build_store
from instrlib.deploy import release
from instrlib.models import published, variants
from instrlib.models.layers import Layer
from instrlib.runner.run import Run
from instrlib.studies import mixtures as studies

os.environ["INSTRLIB_WORKERS"] = "1"  # unless a test asks for more


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no core waits for the other at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Keep every test out of the user's data, runs, reports and figures."""
    for name in ("data", "runs", "reports", "figures"):
        monkeypatch.setenv(f"INSTRLIB_{name.upper()}", str(tmp_path / name))
    for name in ("ROOT", "CORPORA", "SCHEDULER", "WEIGHTS", "HUB"):
        monkeypatch.delenv(f"INSTRLIB_{name}", raising=False)


@pytest.fixture(scope="session")
def test_data():
    """Return the folder of real clips and tables; its README says what lies there."""
    folder = os.environ.get("INSTRLIB_TEST_DATA")
    if not folder:
        pytest.skip("INSTRLIB_TEST_DATA does not name the folder of real clips")
    return Path(folder)


@pytest.fixture(scope="session")
def repository():
    """Return the root of the clone."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return 3 classes of 24 rendered clips, their features and a split: enough to train on in seconds."""
    root = tmp_path_factory.mktemp("small")
    clips = rendered.load(root / "rendered", clips_per_class=24, classes=("flute", "piano", "drums"), workers=1)
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=1024), root=root / "features", workers=1)
    split = make_split(store.clips, seed=0)
    save_split(split, root / "split.json")
    return SimpleNamespace(clips=clips, store=store, split=split, split_path=root / "split.json")


@pytest.fixture(scope="session")
def inputs(small):
    """Return what notebook 01 hands on, of the small corpus."""
    return Inputs(small.store, (small.split_path,), small.split.fingerprint)


@pytest.fixture(scope="session")
def plan(small, inputs):
    """Return a plan of mixtures of one to three instruments, six of each number in each part."""
    return studies.draw(inputs, small.clips, 6, sources=(1, 2, 3), seed=0)


@pytest.fixture(scope="session")
def mixtures(small, plan, tmp_path_factory):
    """Return these mixtures, rendered."""
    return studies.render(plan, small.clips, root=tmp_path_factory.mktemp("mixtures"))


@pytest.fixture
def tones(tmp_path):
    """Return a corpus of three pure tones of one second and more, of different levels."""
    for number, (label, frequency_hz) in enumerate(TONES_HZ.items()):
        time_s = np.arange(2 * 22_050) / 22_050
        sound = 0.5 / (number + 1) * np.sin(2 * np.pi * frequency_hz * time_s)
        write_audio(tmp_path / f"{label}.wav", sound * ((time_s >= 0.25) & (time_s <= 1.25 + 0.25 * number)))
    columns, classes = ["clip_id", "path", "start_s", "duration_s", "label", "group", "split"], sorted(TONES_HZ)
    manifest = pd.DataFrame([(one, f"{one}.wav", 0.0, 2.0, one, one, "") for one in classes], columns=columns)
    return corpora.Corpus(replace(rendered.INFO, name="tones"), tmp_path, manifest, tuple(classes))


@pytest.fixture(scope="session")
def soundscapes(small, tmp_path_factory):
    """Return small soundscapes of one or two instruments."""
    spans = {"duration_s": (20.0, 24.0), "instruments": (2, 3), "entry_s": (4.0, 9.0)}
    config = studies.SoundscapeConfig(per_ensemble={"validation": 1, "test": 2}, **spans)
    plan = studies.compose(small.store, small.split, small.clips, config=config, seed=0)
    return studies.render(plan, small.clips, root=tmp_path_factory.mktemp("soundscapes"), gap_s=studies.GAP_S)


@pytest.fixture(scope="session")
def released(small, inputs, tmp_path_factory):
    """Return a model of two tiny networks trained on the small corpus, their folders, and how to publish it again."""
    root = tmp_path_factory.mktemp("released")
    table = (Layer("conv", 12, 5, 2, 2, True), Layer("conv", 24, 3, 1, 2, True), Layer("average", dropout=0.2))
    recipe = TrainConfig(epochs=12, patience=12)
    layers = AugmentConfig(mix="mixtures", share=0.6, n_sources=(1, 3))
    mixed = replace(recipe, epochs=18, output="sigmoid", class_weights=False, augment=layers)

    def candidate(notebook, name, config):
        variant = variants.Variant(name, table, config, small.store.folder)
        made = variants.run_variants(root / notebook[:2], [variant], splits=inputs.splits, seeds=(0,), workers=1)
        return release.Candidate(notebook, name, made[name].folders)

    single = release.choose([candidate("02_baseline_cnn", "compact CNN", recipe)])
    several = [candidate("10_layered_audio", "mixed", mixed)]
    several = release.choose(several, score="mean_average_precision", fold=single.fold)
    run = Run("11_timeline", {"corpus": "rendered", "data": "", "profile": "smoke", "seeds": 1}, root / "11")

    def publish():
        return release.publish(run.folder / "model", single, several, run=run, inputs=inputs, n_resamples=50)

    folders = {"single": single.folder, "several": several.folder}
    return SimpleNamespace(made=publish(), trained=folders, publish=publish)


@pytest.fixture(scope="session")
def page_folder(released, tmp_path_factory):
    """Return the folder of this model with what notebooks 11 and 12 add: settings of timelines, and of conditions."""
    folder = shutil.copytree(released.made.model.folder, tmp_path_factory.mktemp("furnished") / "model")
    decision = {"median_windows": 1, "on": 0.4, "off": 0.3, "pooling": "max", "recording": 0.4}
    release.note(folder, timeline={"network": "several", "hop_s": 1.0, "window_s": 3.0, **decision})
    write_json(folder / published.CONDITION, published.sealed(plain_model(about=SIMULATED)))
    return folder


@pytest.fixture(scope="module")
def event_loops_closed():
    """Undo what Gradio and notebook clients leave: variables of the environment, and event loops with warnings."""
    with mock.patch.dict(os.environ):
        yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
