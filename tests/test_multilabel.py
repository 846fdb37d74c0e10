"""Several labels a clip: what was not observed never counts, from the store to the scores."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import SplitError, read_arrays, read_json
from instrlib.data.corpora import Corpus, CorpusInfo, strata
from instrlib.data.splits import Split, load_split, make_split, save_split
from instrlib.data.store import build_store, open_store
from instrlib.evaluation import statistics
from instrlib.evaluation.metrics import best_thresholds
from instrlib.evaluation.metrics import scores as metrics_of
from instrlib.evaluation.predictions import join_seeds, main_score
from instrlib.models import train, trained
from instrlib.models.layers import Layer

CLASSES = ("drone", "whistle", "hiss")
INFO = CorpusInfo("tones", "Tones", "none", "none", "", "none", "Made here.", multilabel=True)
FEATURES = FeatureConfig(sample_rate_hz=8000, segment_s=1.0, segment_hop_s=1.0, n_fft=512, n_mels=24, fmax_hz=4000.0)
CONFIG = TrainConfig(epochs=10, batch_size=8, learning_rate=1e-2, output="sigmoid")
TINY = (Layer("conv", 16, 3, 2, 2, norm=True), Layer("conv", 16, 3, 1, 1, norm=True), Layer("average"))


def make_tones(root: Path, *, n_groups: int = 24, hidden: float = 0.3) -> Corpus:
    """Two clips a group; each class is present in about half of them, and a share of the labels is hidden."""
    rng, time_s = np.random.default_rng(7), np.arange(8000) / 8000
    rows, labels = [], []
    for number in range(2 * n_groups):
        present, known = rng.random(3) < 0.5, rng.random(3) >= hidden
        present[number % 3] |= not present.any()
        known[number % 3] |= not known.any()
        drone, whistle = (np.sin(2 * np.pi * rng.uniform(*band) * time_s) for band in ((100, 200), (900, 1500)))
        signal = present @ np.stack([drone, whistle, 0.5 * np.diff(rng.normal(size=8001))])
        soundfile.write(root / f"{number:03d}.wav", 0.1 * signal + rng.normal(0, 1e-3, 8000), 8000)
        labels.append(np.where(known, present, np.nan))
        rows.append((f"{number:03d}", f"{number:03d}.wav", 0.0, 1.0, f"group{number // 2:02d}", ""))
    labels = np.array(labels, dtype=np.float32)
    manifest = pd.DataFrame(rows, columns=["clip_id", "path", "start_s", "duration_s", "group", "split"])
    return Corpus(INFO, root, manifest.assign(label=strata(labels, CLASSES)), CLASSES, labels=labels)


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Corpus:
    return make_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def store(tones, tmp_path_factory):
    return build_store(tones, FEATURES, root=tmp_path_factory.mktemp("features"), workers=1)


@pytest.fixture(scope="module")
def split_path(store, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.json"
    save_split(make_split(store.clips, seed=1), path)
    return path


@pytest.fixture(scope="module")
def folders(store, split_path, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("trained")
    variant = train.Variant("tiny", TINY, CONFIG, store.folder)
    return [train.train_model(root / f"seed-{seed}", variant, split_path, seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def test_part(folders, store, split_path):
    return join_seeds([[trained.read_test(one, store.folder, split_path)] for one in folders])


def test_the_store_keeps_the_labels(tones, store):
    opened = open_store(store.folder)
    assert opened.multilabel and opened.segments.labels.str.fullmatch("[01?]{3}").all()
    np.testing.assert_array_equal(opened.label_matrix(opened.segments), tones.labels)
    order = opened.clips.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(opened.label_matrix(order), tones.labels[order.index])


def test_a_network_learns_several_labels_and_its_run_says_how_it_decides(folders):
    metrics = [read_json(folder / "metrics.json") for folder in folders]
    assert np.mean([one["validation"]["mean_average_precision"] for one in metrics]) > 0.7
    for folder, one in zip(folders, metrics, strict=True):
        kept = read_arrays(folder / "validation.npz")
        thresholds = np.array(read_json(folder / "preprocessing.json")["thresholds"])
        np.testing.assert_array_equal(thresholds, best_thresholds(kept["labels"], kept["probabilities"])[0])
        assert one["validation"] == metrics_of(kept["labels"], kept["probabilities"], thresholds)
        assert one["no_threshold"] == []
        assert trained.load_model(folder)[0].layers[-1].activation.__name__ == "sigmoid"
        history = pd.read_csv(folder / "history.csv")
        assert history.val_loss.iloc[-1] == pytest.approx(one["validation"]["log_loss"], abs=1e-4)


def test_several_labels_always_get_sigmoid_outputs_also_with_cutmix(store, split_path, tmp_path):
    recipe = dataclasses.replace(CONFIG, epochs=1, output="softmax", augment=AugmentConfig(mix="cutmix"))
    folder = train.train_model(tmp_path, train.Variant("tiny", TINY, recipe, store.folder), split_path, 0)
    assert trained.load_model(folder)[0].layers[-1].activation.__name__ == "sigmoid"


def test_a_class_that_the_training_part_never_shows_is_named(tones, store, tmp_path):
    shown = store.clips.group.isin(store.clips.group[tones.labels[:, 1] == 1])
    parts = pd.Series(np.where(shown, "test", "train"), index=store.clips.clip_id)
    parts[parts[parts == "train"].index[-2:]] = "validation"
    save_split(Split(parts.sort_index(), 0), tmp_path / "split.json")
    with pytest.raises(SplitError, match="whistle"):
        variant = train.Variant("tiny", TINY, CONFIG, store.folder)
        train.train_model(tmp_path / "run", variant, tmp_path / "split.json", 0)


def test_predictions_carry_labels_and_thresholds_and_baselines_use_the_observed_ones(
    tones, store, folders, split_path, test_part
):
    rows = tones.manifest.set_index("clip_id").index.get_indexer(test_part["clip_id"])
    np.testing.assert_array_equal(test_part["labels"], tones.labels[rows])
    chosen = [read_arrays(folder / "validation.npz")["thresholds"] for folder in folders]
    np.testing.assert_array_equal(test_part["thresholds"][:, 0], chosen)
    assert main_score(test_part) == "mean_average_precision"
    trivial = trained.trivial_baselines(store, [split_path], seed=0)
    train = store.clips.clip_id.map(load_split(split_path, store.clips).parts) == "train"
    np.testing.assert_allclose(trivial["prior"]["probabilities"][0], np.nanmean(tones.labels[train.to_numpy()], axis=0))
    table = statistics.score_table({"CNN": test_part, **trivial}, n_resamples=50, seed=0)
    found = table[table.score == "mean_average_precision"].set_index("model").estimate
    for name in trivial:  # the same answer for every clip has the average precision of chance
        assert found[name] == pytest.approx(np.nanmean(test_part["labels"], axis=0).mean())
    assert found["CNN"] > found["prior"]
