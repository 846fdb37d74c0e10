"""Classifiers that are not trained here from scratch: traditional ones, embeddings, probes and fine-tuning."""

import dataclasses
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from librosa import feature
from sklearn import ensemble, naive_bayes, neural_network, svm, tree
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from trees import make_folder, write_audio

from instrlib.audio import decode
from instrlib.audio.features import extract, mel_edges_hz, sounding
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import CorpusError, RunError, StoreError
from instrlib.core.parallel import load_keras
from instrlib.data import corpora
from instrlib.data.splits import UNUSED, Split, save_split
from instrlib.data.store import FeatureStore
from instrlib.models import classical, train, trained, transfer
from instrlib.models.layers import Layer
from instrlib.models.published import load_tflite
from instrlib.models.trained import part_segments
from instrlib.models.transfer import patches, windows

CONFIG = FeatureConfig(n_mels=40, segment_s=1.0)
TREE = (tree.DecisionTreeClassifier(), {"max_depth": [2, None]})
BAYES = (naive_bayes.GaussianNB(), {"var_smoothing": [1e-9, 1e-2]})
MACHINE = make_pipeline(StandardScaler(), svm.SVC())


@pytest.fixture(scope="module")
def separable() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of four separate classes, with their classes and groups."""
    targets = np.repeat(np.arange(4), 24)
    x = np.random.default_rng(0).normal(size=(96, 6)) + 4 * np.eye(4, 6)[targets]
    return x, targets, np.arange(96) // 4


def test_statistics_are_those_of_librosas_features_over_sounding_frames_whatever_the_padding():
    rng, time_s = np.random.default_rng(0), np.arange(CONFIG.sample_rate_hz // 2) / CONFIG.sample_rate_hz
    tone = np.exp(-3 * time_s) * np.sin(2 * np.pi * 440 * time_s) + 0.05 * rng.normal(size=len(time_s))
    level_db = extract(tone, CONFIG)  # padded to a second
    amplitude, freq = 10 ** (level_db.astype(np.float64) / 20), mel_edges_hz(CONFIG)[1:-1]
    series = [
        feature.mfcc(S=level_db, n_mfcc=20),
        feature.spectral_centroid(S=amplitude, freq=freq),
        feature.spectral_bandwidth(S=amplitude, freq=freq),
        feature.spectral_rolloff(S=amplitude, freq=freq),
        feature.spectral_flatness(S=amplitude),
    ]
    used = np.concatenate(series)[:, sounding(level_db, CONFIG)]
    found = classical.statistics(level_db[None], CONFIG)
    expected = [used.mean(axis=1), used.std(axis=1)]
    np.testing.assert_allclose(found.reshape(2, 25)[:, :-1], expected, rtol=1e-3, atol=1e-3)
    assert used.shape[1] < 0.6 * CONFIG.shape[1]
    short = classical.statistics(level_db[None, :, : used.shape[1]], CONFIG)
    np.testing.assert_allclose(found, short, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [MACHINE[1], neural_network.MLPClassifier((8,)), ensemble.RandomForestClassifier(20)])
def test_each_kind_gives_probabilities_that_depend_on_the_seed_alone(model, separable):
    x, targets, _ = separable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, same = (classical.fit(model, {}, x[::2], targets[::2], seed=1) for _ in range(2))
    found = classical.probabilities(one, x[1::2], 5)  # the fifth class has no training row
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found[:, 4] == 0).all()
    assert (found.argmax(axis=1) == targets[1::2]).mean() > 0.75
    np.testing.assert_array_equal(found, classical.probabilities(same, x[1::2], 5))
    two = classical.fit(model, {}, x[:48], targets[:48], seed=1)  # a support vector machine has one value for two
    np.testing.assert_array_equal(classical.probabilities(two, x[:48], 2).argmax(axis=1), two.predict(x[:48]))


def test_settings_are_chosen_on_folds_that_no_group_crosses(separable):
    x, targets, groups = separable
    settings, score = classical.tune(MACHINE, {"svc__C": [1e-6, 1.0]}, x, targets, groups)
    assert settings == {"svc__C": 1.0} and score > 0.8
    alike, named = np.random.default_rng(0).normal(size=(24, 6)), np.random.default_rng(1).permutation(24) % 2
    assert classical.tune(*TREE, alike[groups], named[groups], groups)[1] < 0.75  # rows of one group tell nothing
    with warnings.catch_warnings():  # a class with one group, then one with one row
        warnings.simplefilter("error")
        classical.tune(MACHINE, {"svc__C": [0.01, 1.0]}, x, targets, np.where(targets == 3, 99, groups))
        settings, score = classical.tune(*BAYES, x[:73], targets[:73], groups[:73])
    assert settings == {"var_smoothing": 1e-9} and np.isnan(score)


def test_the_test_part_is_predicted_from_the_training_part_alone_and_cached(small, inputs, tmp_path, monkeypatch):
    fitted_on, tune, kinds = [], classical.tune, {"tree": TREE, "naive Bayes": BAYES}
    monkeypatch.setattr(classical, "tune", lambda *of: fitted_on.append(of[2]) or tune(*of))
    for _ in range(2):
        found, chosen = classical.answer_all(tmp_path, inputs, kinds, seeds=(0, 1), workers=1)
    train, test = (part_segments(small.store, small.split, part) for part in ("train", "test"))
    x, test_x = (classical.statistics(small.store.features[one.row], small.store.config) for one in (train, test))
    assert len(fitted_on) == 2 and list(found) == list(chosen.index) == list(kinds)
    np.testing.assert_array_equal(fitted_on[0], x)
    bayes = clone(BAYES[0]).set_params(**chosen.settings["naive Bayes"]).fit(x, train.target)
    means = pd.DataFrame(bayes.predict_proba(test_x)).groupby(test.clip_id.to_numpy()).mean()
    np.testing.assert_allclose(found["naive Bayes"]["probabilities"], [means, means], atol=1e-9)
    assert found["naive Bayes"]["clip_id"].tolist() == means.index.tolist()


RATE_HZ = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE_HZ).astype(np.float32)
RAMP = np.linspace(-1, 1, 1024, dtype=np.float32)
STEP_SAMPLES = 7680
TINY = (Layer("conv", 6, 5, 4, norm=True), Layer("conv", 8, 3, norm=True), Layer("average"))
SHORT = TrainConfig(epochs=2, batch_size=8)
STILL = dataclasses.replace(SHORT, epochs=1, learning_rate=1e-9)


@pytest.fixture(autouse=True)
def weights_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("INSTRLIB_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def levels(signal):
    """Return what the small networks below give: a ramp times the root mean square of each of YAMNet's windows."""
    return np.stack([RAMP * np.sqrt(np.mean(one**2)) for one in windows(signal, "yamnet")])


def cells(signal):
    """Return what those give that take a patch: the ramp times the mean of every 32nd cell."""
    return patches(signal, "yamnet")[:, ::32, ::32].mean(axis=(1, 2))[:, None] * RAMP


def save(path, shape=(None,), n_values=1024):
    """Save such a network as TFLite or SavedModel; one that takes a patch returns its scores only."""
    load_keras()
    import tensorflow as tf

    def of_samples(x):
        level = tf.sqrt(tf.reduce_mean(tf.signal.frame(x, 15_600, STEP_SAMPLES) ** 2, axis=1, keepdims=True))
        return {"scores": level * tf.ones((1, 521)), "vectors": level * RAMP[:n_values]}

    def of_patch(x):
        picture = tf.nn.conv2d(tf.reshape(x, (1, 96, 64, 1)), RAMP.reshape(1, 1, 1, 1024), strides=32, padding="VALID")
        with tf.name_scope("global_average_pooling2d"):
            vectors = tf.reduce_mean(picture, axis=(1, 2), name="Mean")
        return tf.sigmoid(vectors @ tf.reshape(tf.constant(np.tile(RAMP, 521)), (1024, 521)))

    module = tf.Module()
    module.__call__ = tf.function(of_patch if len(shape) > 1 else of_samples, [tf.TensorSpec(shape, tf.float32)])
    if path.suffix == ".tflite":
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
        path.write_bytes(converter.convert())
    else:
        tf.saved_model.save(module, str(path))


def only():
    (found,) = transfer.available()
    return found


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("yamnet_1", (None,), levels),
        ("yamnet.tflite", (None,), levels),
        ("yamnet.tflite", (1, 96, 64), cells),
    ],
)
def test_each_form_of_a_network_gives_its_embedding_of_each_window(weights_folder, name, shape, expected):
    save(weights_folder / name, shape)
    for signal in (NOISE, NOISE[:30_000], NOISE[:100]):
        np.testing.assert_allclose(only().embed(signal), expected(signal), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["yamnet/saved_model.pb", "yamnet.tflite", "vggish"])
def test_a_damaged_or_wrong_file_is_named(weights_folder, name):
    if name == "vggish":
        save(weights_folder / name, n_values=7)
    else:
        (weights_folder / name).parent.mkdir(exist_ok=True)
        (weights_folder / name).write_bytes(b"not a network")
    with pytest.raises(RunError, match=Path(name).parts[0]):
        only().embed(NOISE)


def test_in_the_named_folder_or_in_data_the_form_that_loses_least_is_taken(weights_folder, monkeypatch, tmp_path):
    assert transfer.available() == []
    for name in ("yamnet_8bit.tflite", "yamnet/saved_model.pb", "notes.txt", "a.tflite", ".part/yamnet/saved_model.pb"):
        (weights_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (weights_folder / name).touch()
    assert (only().name, only().path) == ("yamnet", weights_folder / "yamnet")
    before = only().fingerprint
    (only().path / "saved_model.pb").write_bytes(b"another network")
    assert only().fingerprint != before
    monkeypatch.delenv("INSTRLIB_WEIGHTS")
    assert transfer.weights_folder() == tmp_path / "data" / "weights" and transfer.available() == []


def test_a_hub_handle_is_asked_for_once_and_its_archive_removed(weights_folder, monkeypatch):
    asked = []

    def fetch(remote, folder):
        asked.append(remote.url)
        with tarfile.open(folder / remote.filename, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo("saved_model.pb"))
        return folder / remote.filename

    monkeypatch.setattr(transfer, "fetch", fetch)
    monkeypatch.setenv("INSTRLIB_HUB", " https://hub/google/yamnet/1/ ,")
    assert only() == only() and only().name == "yamnet" and only().path.parent == weights_folder
    assert asked == ["https://hub/google/yamnet/1?tf-hub-format=compressed"]
    assert list(weights_folder.iterdir()) == [only().path]


@pytest.fixture
def clips(tmp_path):
    return corpora.read("folder", make_folder(tmp_path / "corpus", classes=("cello", "flute"), recordings=10))


def test_each_clip_has_the_mean_over_its_windows_unless_it_is_silent_and_finished_parts_are_kept(
    clips, weights_folder, tmp_path
):
    save(weights_folder / "yamnet.tflite")
    write_audio(clips.root / clips.manifest.path[3], np.zeros(22_000))
    ids, means = transfer.embed_corpus(clips, only(), root=tmp_path / "features", workers=1)
    used = clips.manifest.drop(3)
    assert list(ids) == list(used.clip_id) and means.shape == (19, 1024)
    for number in (0, 9, 18):
        signal = decode.load(clips.root / used.path.iloc[number], sample_rate_hz=RATE_HZ)
        np.testing.assert_allclose(means[number], levels(signal).mean(axis=0), rtol=1e-4, atol=1e-7)
    kept, lost = sorted((tmp_path / "features").rglob("*.npz"))
    lost.unlink()  # killed before its end
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(transfer.embed_corpus(clips, only(), root=tmp_path / "features", workers=1)[1], means)
    assert lost.exists() and kept.stat().st_mtime_ns == written
    write_audio(clips.root / clips.manifest.path[4], np.zeros(22_000))
    with pytest.raises(CorpusError, match="2 of 20"):
        transfer.embed_corpus(clips, only(), root=tmp_path / "other", workers=1)


@pytest.mark.skipif("INSTRLIB_TEST_WEIGHTS" not in os.environ, reason="it names the folder of real weights")
def test_the_real_yamnet_recognises_silence_a_sine_and_noise_by_our_front_end(monkeypatch):
    monkeypatch.setenv("INSTRLIB_WEIGHTS", os.environ["INSTRLIB_TEST_WEIGHTS"])
    sine = np.sin(0.055 * np.pi * np.arange(3 * RATE_HZ, dtype=np.float32))
    for signal, index in ((0 * NOISE, 494), (sine, 495), (2 * NOISE, 514)):  # of YAMNet's own tests
        scores, vectors = load_tflite(only().path)(patches(signal, "yamnet"))[2], only().embed(signal)
        assert index in scores.mean(axis=0).argsort()[-10:]
        assert vectors.shape == (6, 1024) and (vectors >= 0).all() and len(np.unique(vectors)) > 10


@pytest.mark.parametrize(
    ("name", "offset", "counts"),
    # YAMNet begins another patch every 7,680 samples after the first 15,600; VGGish drops the rest.
    [("vggish", 0.01, (1, 1, 1, 1, 2, 10)), ("yamnet", 0.001, (1, 2, 2, 3, 3, 20))],
)
def test_the_number_of_patches_is_that_of_the_published_code(name, offset, counts):
    for n_samples, n in zip((1, 15_601, 23_280, 23_281, 30_960, 160_000), counts, strict=True):
        np.testing.assert_allclose(patches(np.zeros(n_samples), name), np.full((n, 96, 64), np.log(offset)), rtol=1e-6)


def planted(store):
    """Return vectors that name the class of a clip, beside 20 numbers that say nothing, in another order of clips."""
    clips, noise = store.clips, np.random.default_rng(0).normal(size=(len(store.clips), 20))
    return clips.clip_id.to_numpy(str)[::-1], np.hstack([np.eye(len(store.classes))[clips.target], noise])[::-1]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_probe_predicts_what_scikit_learns_regression_does(n_classes):
    x = np.random.default_rng(0).normal(2, 3, size=(90, 5))
    targets = x[:, :n_classes].argmax(axis=1)
    labels = np.eye(n_classes + 1)[targets]  # the last class is never seen
    probe = transfer.fit_probe(x[:60], labels[:60], x[60:], labels[60:])
    known, held_out = np.split(MinMaxScaler().fit(x[:60]).transform(x), [60])
    settings = {"max_iter": 5000, "class_weight": "balanced"}
    models = [LogisticRegression(C=penalty, **settings).fit(known, targets[:60]) for penalty in transfer.PENALTIES]
    tried = [model.predict_proba(held_out) for model in models]
    best = min(tried, key=lambda one: log_loss(targets[60:], one))
    np.testing.assert_allclose(probe.predict(x[60:]), np.pad(best, ((0, 0), (0, 1))), atol=1e-6)


def test_with_several_labels_each_class_is_learned_from_the_clips_in_which_it_was_observed():
    x = np.random.default_rng(0).normal(size=(80, 3))
    labels, hidden = (x > 0).astype(float), np.arange(80) % 3 == 0
    labels[hidden, 0] = np.nan
    labels[:, 1] = np.where(labels[:, 1] == 1, 1, np.nan)  # only ever observed present
    predicted = transfer.fit_probe(x, labels, x, labels, several=True).predict(x)
    scaler, seen = MinMaxScaler().fit(x), np.isfinite(labels[:, 0])
    model = LogisticRegression(C=max(transfer.PENALTIES), max_iter=5000)
    model.fit(scaler.transform(x)[seen], labels[seen, 0])
    np.testing.assert_allclose(predicted[:, 0], model.predict_proba(scaler.transform(x))[:, 1], atol=1e-6)
    n = np.isfinite(labels[:, 1]).sum()
    np.testing.assert_allclose(predicted[:, 1], (n + 1) / (n + 2))


def test_probes_predict_the_test_part_by_seed_alone_and_name_a_clip_without_embedding(small, tmp_path):
    store, parts = small.store, small.split.parts
    kept = store.clips.groupby("label").clip_id.head(9)
    few = parts.where((parts != "train") | parts.index.isin(kept), UNUSED)
    save_split(Split(few, 0), tmp_path / "few.json")
    (ids, x), splits = planted(store), [[small.split_path], [tmp_path / "few.json"]]
    in_test = pd.Series(ids).map(parts).to_numpy() == "test"
    moved = np.where(in_test[:, None] & (ids != ids[in_test][0])[:, None], 1000 + x, x)
    one, other = (transfer.probe_predictions((ids, values), store, splits) for values in (x, moved))
    found, same = one["probabilities"], one["clip_id"] == ids[in_test][0]
    assert one["clip_id"].tolist() == sorted(ids[in_test]) and found.shape == (2, in_test.sum(), 3)
    assert (found[0].argmax(axis=-1) == one["targets"]).mean() > 0.95 and (found[0] != found[1]).any()
    np.testing.assert_array_equal(found[:, same], other["probabilities"][:, same])
    assert (found[:, ~same] != other["probabilities"][:, ~same]).any()
    unknown = np.where(ids[:, None] == ids[3], np.nan, x)
    for vectors, named in (((ids[1:], x[1:]), ids[0]), ((ids, unknown), ids[3])):
        with pytest.raises(RunError, match=named):
            transfer.probe_predictions(vectors, store, splits)


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    return train.train_model(folder, train.Variant("tiny", TINY, SHORT, small.store.folder), small.split_path, 0)


def tuned(folder, small, pretrained, *, config=SHORT, **settings):
    start = transfer.Pretrained(pretrained, **settings)
    variant = train.Variant("tiny", TINY, config, small.store.folder, start=start)
    return train.train_model(folder, variant, small.split_path, 0)


def moved(before, after):
    """Return the largest change of the weights of each layer, by its name."""
    nets = [trained.load_model(one)[0].layers for one in (before, after)]
    return {
        layer.name: max(np.abs(a - b).max() for a, b in zip(layer.get_weights(), other.get_weights(), strict=True))
        for layer, other in list(zip(*nets, strict=True))[:-1]
        if layer.get_weights()
    }


def test_fine_tuning_begins_with_the_pretrained_body_and_a_probe_on_its_embedding(small, pretrained, tmp_path):
    store, parts = small.store, small.split.parts
    ids, x = transfer.embed_network(pretrained, store, root=tmp_path)
    still = tuned(tmp_path / "still", small, pretrained, config=STILL, frozen_norm=True)
    labels, part = np.eye(3)[store.clips.set_index("clip_id").target[ids]], parts[ids]
    known, held_out = ((x[part == name], labels[part == name]) for name in ("train", "validation"))
    probe = transfer.fit_probe(*known, *held_out)
    segments = store.segments.set_index("clip_id")
    for folder in (pretrained, still):
        model, scaler = trained.load_model(folder)
        head = transfer.Probe(*model.layers[-1].get_weights(), several=False) if folder == pretrained else probe
        given = store.read(segments.row[ids], scaler)  # one segment a clip
        np.testing.assert_allclose(head.predict(x), model.predict_on_batch(given), atol=1e-3)
    assert list(ids) == sorted(store.clips.clip_id) and max(moved(pretrained, still).values()) < 1e-6
    with pytest.raises(StoreError):
        transfer.embed_network(pretrained, dataclasses.replace(store, config=FeatureConfig()), root=tmp_path)


def test_rows_move_less_the_further_from_the_scores_and_normalisation_unless_it_is_frozen(small, pretrained, tmp_path):
    assert transfer.Pretrained(pretrained, decay=0.1).rates == pytest.approx((1 / 300, 1 / 30, 1 / 3, 1 / 3))
    head = moved(pretrained, tuned(tmp_path / "head", small, pretrained, decay=0.0, frozen_norm=True))
    assert set(head.values()) == {0.0} and len(head) == 4
    norms = moved(pretrained, tuned(tmp_path / "norms", small, pretrained, decay=0.0))
    assert norms["conv1"] == norms["conv2"] == 0 and norms["norm1"] > 1e-3
    decayed = moved(pretrained, tuned(tmp_path / "decayed", small, pretrained, decay=0.1, frozen_norm=True))
    assert 0 < 5 * decayed["conv1"] < decayed["conv2"]


def test_nothing_of_the_test_part_is_read(small, pretrained, tmp_path, monkeypatch):
    first, features = tuned(tmp_path / "first", small, pretrained), small.store.features.copy()
    of_test = small.store.segments.clip_id.map(small.split.parts) == "test"
    features[small.store.segments.row[of_test]] = -7
    monkeypatch.setattr(FeatureStore, "features", features)
    assert set(moved(first, tuned(tmp_path / "altered", small, pretrained, decay=1)).values()) == {0.0}
