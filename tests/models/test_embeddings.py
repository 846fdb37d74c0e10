"""Embeddings of clips by networks in the forms in which YAMNet and VGGish are published."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ai_edge_litert.interpreter import Interpreter

from instrlib.core.io import ConfigError, CorpusError, RunError
from instrlib.core.parallel import load_keras
from instrlib.data import corpora
from instrlib.models import transfer
from instrlib.models.transfer import patches, windows

RATE_HZ = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE_HZ).astype(np.float32)
RAMP = np.linspace(-1, 1, 1024, dtype=np.float32)
STEP_SAMPLES = 7680


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


def make_savedmodel(folder, *, n_values=1024):
    load_keras()
    import tensorflow as tf

    def run(self, waveform):
        level = tf.sqrt(tf.reduce_mean(tf.signal.frame(waveform, 15_600, STEP_SAMPLES) ** 2, axis=1, keepdims=True))
        return {"scores": level * tf.ones((1, 521)), "vectors": level * RAMP[:n_values], "spectrum": tf.zeros((96, 64))}

    traced = tf.function(run, input_signature=[tf.TensorSpec([None], tf.float32, name="waveform")])
    tf.saved_model.save(type("Tiny", (tf.Module,), {"__call__": traced})(), str(folder))


def make_tflite(path, shape, *, scores_only=False):
    load_keras()
    import tensorflow as tf

    def of_patch(x):
        picture = tf.nn.conv2d(tf.reshape(x, (1, 96, 64, 1)), RAMP.reshape(1, 1, 1, 1024), strides=32, padding="VALID")
        with tf.name_scope("global_average_pooling2d"):
            vectors = tf.reduce_mean(picture, axis=(1, 2), name="Mean")
        scores = tf.sigmoid(vectors @ tf.reshape(tf.constant(np.tile(RAMP, 521)), (1024, 521)))
        return scores if scores_only else (scores, vectors)

    def of_samples(x):
        return tf.sqrt(tf.reduce_mean(tf.signal.frame(x, 15_600, STEP_SAMPLES) ** 2, axis=1, keepdims=True)) * RAMP

    run = tf.function(of_patch if len(shape) > 1 else of_samples, input_signature=[tf.TensorSpec(shape, tf.float32)])
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()]).convert())


def only():
    (found,) = transfer.available()
    return found


def test_weights_are_found_in_the_named_folder_or_in_data(weights_folder, monkeypatch, tmp_path):
    weights_folder.rmdir()
    assert transfer.available() == []
    monkeypatch.delenv("INSTRLIB_WEIGHTS")
    assert transfer.weights_folder() == tmp_path / "data" / "weights"
    monkeypatch.setenv("INSTRLIB_WEIGHTS", "weights")  # a notebook would look for it elsewhere than the command
    with pytest.raises(ConfigError, match="INSTRLIB_WEIGHTS"):
        transfer.available()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: make_savedmodel(folder / "yamnet_1"), levels),
        (lambda folder: make_tflite(folder / "yamnet.tflite", (1, 96, 64)), cells),
        (lambda folder: make_tflite(folder / "yamnet.tflite", (1, 96, 64), scores_only=True), cells),
        (lambda folder: make_tflite(folder / "yamnet.tflite", (None,)), levels),
        (lambda folder: make_tflite(folder / "yamnet.tflite", (15_600,)), levels),
    ],
    ids=["SavedModel", "patch", "patch, scores only", "samples", "samples of one window"],
)
def test_each_form_of_a_network_gives_its_embedding_of_each_window(weights_folder, make, expected):
    make(weights_folder)
    assert only().name == "yamnet"
    for signal in (NOISE, NOISE[:30_000], NOISE[:100]):
        np.testing.assert_allclose(only().embed(signal), expected(signal), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["yamnet/saved_model.pb", "yamnet.tflite", "vggish"])
def test_a_damaged_or_wrong_file_is_named(weights_folder, name):
    if name == "vggish":
        make_savedmodel(weights_folder / name, n_values=7)
    else:
        (weights_folder / name).parent.mkdir(exist_ok=True)
        (weights_folder / name).write_bytes(b"not a network")
    with pytest.raises(RunError, match=Path(name).parts[0]):
        only().embed(NOISE)


def test_of_several_files_of_a_network_the_form_that_loses_least_is_taken(weights_folder):
    for name in ("yamnet_8bit.tflite", "yamnet/saved_model.pb", "notes.txt", "a.tflite", ".part/yamnet/saved_model.pb"):
        (weights_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (weights_folder / name).touch()
    assert (only().name, only().path) == ("yamnet", weights_folder / "yamnet")
    before = only().fingerprint
    (only().path / "saved_model.pb").write_bytes(b"another network")
    assert only().fingerprint != before


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
    """Return two classes of noise of several lengths, 20 recordings in all."""
    rng = np.random.default_rng(4)
    for number in range(20):
        path = tmp_path / "corpus" / ("loud", "soft")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 / 10 ** (number % 2) * rng.uniform(-1, 1, 4000 + 3000 * number), RATE_HZ)
    return corpora.read("folder", tmp_path / "corpus")


@pytest.fixture
def yamnet(weights_folder):
    make_tflite(weights_folder / "yamnet.tflite", (None,))
    return only()


def test_each_clip_has_the_mean_over_its_windows_unless_it_is_silent(clips, yamnet, tmp_path):
    soundfile.write(clips.root / clips.manifest.path[3], np.zeros(22_000), RATE_HZ)
    ids, means = transfer.embed_corpus(clips, yamnet, root=tmp_path / "features", workers=1)
    used = clips.manifest.drop(3)
    assert list(ids) == list(used.clip_id) and means.shape == (19, 1024)
    for number in (0, 9, 18):
        signal = soundfile.read(clips.root / used.path.iloc[number], dtype="float32")[0]
        np.testing.assert_allclose(means[number], levels(signal).mean(axis=0), rtol=1e-4, atol=1e-7)
    soundfile.write(clips.root / clips.manifest.path[4], np.zeros(22_000), RATE_HZ)
    with pytest.raises(CorpusError, match="2 of 20"):
        transfer.embed_corpus(clips, yamnet, root=tmp_path / "other", workers=1)


def test_a_clip_within_a_file_is_read_in_parts_and_silent_parts_are_left_out(yamnet, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PART_S", 1.92)
    signal = np.concatenate([np.zeros(RATE_HZ), NOISE, np.zeros(3 * RATE_HZ), NOISE]).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", signal, RATE_HZ, subtype="FLOAT")
    parts = [signal[first : min(first + 30_720, 160_000)] for first in range(RATE_HZ, 160_000, 30_720)]
    expected = np.concatenate([levels(part) for part in parts if part.any()]).mean(axis=0)
    found = transfer._embed(yamnet, [(tmp_path / "long.wav", 1.0, 9.0)])["mean"]
    np.testing.assert_allclose(found, [expected], rtol=1e-4, atol=1e-7)


def test_a_killed_run_goes_on_and_a_finished_one_is_read(clips, yamnet, tmp_path, monkeypatch):
    read, load = [], transfer.decode.load

    def counted(*place, **settings):
        if len(read) == 17:
            read.clear()
            raise KeyboardInterrupt
        read.append(place)
        return load(*place, **settings)

    monkeypatch.setattr(transfer.decode, "load", counted)
    monkeypatch.setattr(transfer, "parallel_map", lambda function, tasks, **_: (function(*task) for task in tasks))
    with pytest.raises(KeyboardInterrupt):
        transfer.embed_corpus(clips, yamnet, root=tmp_path)
    first, again = (transfer.embed_corpus(clips, yamnet, root=tmp_path)[1] for _ in range(2))
    assert len(read) == 20 - 16
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("signal", "index"),
    # The sounds and classes of YAMNet's own tests, by their index in its class map.
    [(0 * NOISE, 494), (np.sin(0.055 * np.pi * np.arange(3 * RATE_HZ, dtype=np.float32)), 495), (2 * NOISE, 514)],
    ids=["silence", "sine wave", "white noise"],
)
def test_the_real_yamnet_recognises_silence_a_sine_and_noise_by_our_front_end(signal, index, monkeypatch):
    folder = os.environ.get("INSTRLIB_TEST_WEIGHTS")
    if not folder:
        pytest.skip("INSTRLIB_TEST_WEIGHTS does not name the folder of real weights")
    monkeypatch.setenv("INSTRLIB_WEIGHTS", folder)
    yamnet = next(one for one in transfer.available() if one.name == "yamnet")
    interpreter, scores = Interpreter(str(yamnet.path)), []
    interpreter.allocate_tensors()
    for patch in patches(signal, "yamnet"):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], patch[None])
        interpreter.invoke()
        scores.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    assert index in np.mean(scores, axis=0).argsort()[-10:]
    vectors = yamnet.embed(signal)
    assert vectors.shape == (6, 1024) and (vectors >= 0).all() and len(np.unique(vectors)) > 10


@pytest.mark.parametrize(
    ("n_samples", "n_vggish", "n_yamnet"),
    # YAMNet begins another patch every 7,680 samples after the first 15,600; VGGish drops the rest.
    [(1, 1, 1), (15_601, 1, 2), (23_280, 1, 2), (23_281, 1, 3), (30_960, 2, 3), (160_000, 10, 20)],
)
def test_the_number_of_patches_is_that_of_the_published_code(n_samples, n_vggish, n_yamnet):
    for name, n, offset in (("vggish", n_vggish, 0.01), ("yamnet", n_yamnet, 0.001)):
        found = patches(np.zeros(n_samples), name)
        assert found.shape == (n, 96, 64)
        np.testing.assert_allclose(found, np.log(offset), rtol=1e-6)
