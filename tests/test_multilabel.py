"""Several labels a clip: what was not observed never counts, from the store to the scores."""

import numpy as np
import pandas as pd
import pytest
from trees import make_openmic2018

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import SplitError, read_arrays, read_json
from instrlib.data import corpora
from instrlib.data.splits import Split, load_split, make_split, save_split
from instrlib.data.store import build_store, open_store
from instrlib.evaluation import statistics
from instrlib.evaluation.metrics import best_thresholds, scores
from instrlib.evaluation.predictions import join_seeds, main_score
from instrlib.models import train, trained
from instrlib.models.layers import Layer

FEATURES = FeatureConfig(sample_rate_hz=8000, segment_s=1.0, segment_hop_s=1.0, n_fft=512, n_mels=24, fmax_hz=4000.0)
# Several labels always get sigmoid outputs.
RECIPE = {"epochs": 10, "batch_size": 8, "learning_rate": 1e-2, "output": "softmax"}
CONFIGS = [TrainConfig(**RECIPE, augment=AugmentConfig(mix=mix, share=0.5)) for mix in ("none", "cutmix")]
TINY = (Layer("conv", 16, 3, 2, 2, norm=True), Layer("conv", 16, 3, 1, 1, norm=True), Layer("average"))


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Return 64 clips of one or two of four classes; three of them were observed."""
    return corpora.read("openmic2018", make_openmic2018(tmp_path_factory.mktemp("tones")))


@pytest.fixture(scope="module")
def made(tones, tmp_path_factory):
    """Return the feature store, the file of the split, and the folders of two trained networks."""
    root = tmp_path_factory.mktemp("made")
    store = build_store(tones, FEATURES, root=root, workers=1)
    save_split(make_split(store.clips, seed=1), root / "split.json")
    variants = [train.Variant(config.augment.mix, TINY, config, store.folder) for config in CONFIGS]
    folders = [train.train_model(root / one.name, one, root / "split.json", seed) for seed, one in enumerate(variants)]
    return store, root / "split.json", folders


def test_a_network_learns_several_labels_and_its_run_says_how_it_decides(tones, made):
    store, _, folders = made
    assert open_store(store.folder).multilabel and store.segments.labels.str.fullmatch("[01?]{4}").all()
    order = store.clips.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(store.label_matrix(order), tones.labels[order.index])
    for folder in folders:
        metrics, kept = read_json(folder / "metrics.json"), read_arrays(folder / "validation.npz")
        thresholds = np.array(read_json(folder / "preprocessing.json")["thresholds"])
        np.testing.assert_array_equal(thresholds, best_thresholds(kept["labels"], kept["probabilities"])[0])
        assert metrics["validation"] == scores(kept["labels"], kept["probabilities"], thresholds)
        assert metrics["validation"]["mean_average_precision"] > 0.8 and metrics["no_threshold"] == []
        assert trained.load_model(folder)[0].layers[-1].activation.__name__ == "sigmoid"
        history = pd.read_csv(folder / "history.csv")
        assert history.val_loss.iloc[-1] == pytest.approx(metrics["validation"]["log_loss"], abs=1e-4)


def test_a_class_that_the_training_part_never_shows_is_named(tones, made, tmp_path):
    store = made[0]
    shown = store.clips.group.isin(store.clips.group[tones.labels[:, 1] == 1])
    parts = pd.Series(np.where(shown, "test", "train"), index=store.clips.clip_id)
    parts[parts[parts == "train"].index[-2:]] = "validation"
    save_split(Split(parts.sort_index(), 0), tmp_path / "split.json")
    with pytest.raises(SplitError, match="drums"):
        variant = train.Variant("tiny", TINY, CONFIGS[0], store.folder)
        train.train_model(tmp_path / "run", variant, tmp_path / "split.json", 0)


def test_predictions_carry_labels_and_thresholds_and_baselines_use_the_observed_ones(tones, made):
    store, split_path, folders = made
    test_part = join_seeds([[trained.read_test(one, store.folder, split_path)] for one in folders])
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
