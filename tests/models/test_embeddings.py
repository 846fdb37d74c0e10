"""A sound as a vector: networks of our own, and small ones in the forms in which YAMNet and VGGish are published."""

import dataclasses
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from instrlib.audio.frontends import VGGISH, YAMNET, fill_up, patches
from instrlib.core.backend import load_keras
from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError, CorpusError, RunError
from instrlib.data import corpora
from instrlib.models import embeddings, pretrained, train

RATE_HZ = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE_HZ).astype(np.float32)
SINE = np.sin(2 * np.pi * 440 * np.arange(3 * RATE_HZ) / RATE_HZ).astype(np.float32)
RAMP = np.linspace(-1, 1, 1024, dtype=np.float32)
STEP_SAMPLES = 7680


@pytest.fixture(autouse=True)
def own_weights(monkeypatch, tmp_path):
    for name in ("INSTRLIB_HUB", "TFHUB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INSTRLIB_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def network(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    return train.train_model(folder, small.store.folder, small.split_path, "small", TrainConfig(epochs=1), 0)


def levels(signal: np.ndarray) -> np.ndarray:
    """What the small networks below give: a ramp times the root mean square of each of YAMNet's windows."""
    filled = fill_up(signal, YAMNET)
    starts = range(0, len(filled) - 15_600 + 1, STEP_SAMPLES)
    return np.stack([RAMP * np.sqrt(np.mean(filled[first : first + 15_600] ** 2)) for first in starts])


def make_savedmodel(folder: Path, *, callable_itself: bool = True) -> Path:
    load_keras()
    import tensorflow as tf

    class Tiny(tf.Module):
        pass

    def run(waveform):
        frames = tf.signal.frame(waveform, 15_600, STEP_SAMPLES)
        level = tf.sqrt(tf.reduce_mean(frames**2, axis=1, keepdims=True))
        return {"scores": level * tf.ones((1, 521)), "vectors": level * RAMP, "spectrum": tf.zeros((96, 64))}

    compiled = tf.function(run, input_signature=[tf.TensorSpec([None], tf.float32, name="waveform")])
    module = Tiny()
    if callable_itself:
        Tiny.__call__ = lambda self, waveform: self.run(waveform)
        module.run = compiled
        module.__call__ = compiled
    tf.saved_model.save(module, str(folder), signatures=None if callable_itself else compiled)
    return folder


def make_tflite(path: Path, inputs: tuple[int | None, ...], *, scores_alone: bool = False) -> Path:
    load_keras()
    import tensorflow as tf

    if len(inputs) > 1:
        kernel = tf.constant(RAMP.reshape(1, 1, 1, 1024))

        def run(x):
            picture = tf.nn.conv2d(tf.reshape(x, (1, 96, 64, 1)), kernel, strides=32, padding="VALID")
            with tf.name_scope("global_average_pooling2d"):
                vectors = tf.reduce_mean(picture, axis=(1, 2), name="Mean")
            scores = tf.sigmoid(vectors @ tf.reshape(tf.constant(np.tile(RAMP, 521)), (1024, 521)))
            return scores if scores_alone else (scores, vectors)

    else:

        def run(x):
            frames = tf.signal.frame(x, 15_600, STEP_SAMPLES)
            return tf.sqrt(tf.reduce_mean(frames**2, axis=1, keepdims=True)) * RAMP

    compiled = tf.function(run, input_signature=[tf.TensorSpec(inputs, tf.float32)])
    concrete = compiled.get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    return path


def yamnet_weights(rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """YAMNet's weights with few filters a layer; only the last has as many as it should."""
    weights, n_in = {}, 1

    def norm(n: int) -> dict[str, np.ndarray]:
        values = rng.normal(0, 0.3, (2, n))
        return {"beta": values[0], "moving_mean": values[1], "moving_variance": rng.uniform(0.5, 2, n)}

    for number in range(1, 15):
        n_out = 1024 if number == 14 else 4
        if number == 1:
            weights["layer1/conv"] = {"kernel": rng.normal(0, 0.5, (3, 3, 1, n_out))}
            weights["layer1/conv/bn"] = norm(n_out)
        else:
            weights[f"layer{number}/depthwise_conv"] = {"depthwise_kernel": rng.normal(0, 0.5, (3, 3, n_in, 1))}
            weights[f"layer{number}/depthwise_conv/bn"] = norm(n_in)
            weights[f"layer{number}/pointwise_conv"] = {"kernel": rng.normal(0, 0.5, (1, 1, n_in, n_out))}
            weights[f"layer{number}/pointwise_conv/bn"] = norm(n_out)
        n_in = n_out
    return weights


def write_h5(path: Path, weights: dict[str, dict[str, np.ndarray]]) -> None:
    """Write weights as Keras 2's `save_weights` lays them out."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", *(name.encode() for name in weights)]
        file.create_group("input_1").attrs["weight_names"] = []
        for layer, arrays in weights.items():
            group = file.require_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in arrays]
            for name, values in arrays.items():
                group.create_dataset(f"{layer}/{name}:0", data=values.astype(np.float32))


def yamnet_by_hand(x: np.ndarray, weights: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    import tensorflow as tf

    strides = {1: 2, 3: 2, 5: 2, 7: 2, 13: 2}
    net = tf.constant(x[..., None], tf.float64)
    for name, arrays in weights.items():
        if name.endswith("/bn"):
            net = (net - arrays["moving_mean"]) / np.sqrt(arrays["moving_variance"] + 1e-4) + arrays["beta"]
            net = tf.nn.relu(net)
        elif "depthwise" in name:
            step = strides.get(int(name.split("/")[0].removeprefix("layer")), 1)
            net = tf.nn.depthwise_conv2d(net, arrays["depthwise_kernel"], (1, step, step, 1), "SAME")
        else:
            net = tf.nn.conv2d(net, arrays["kernel"], 2 if name == "layer1/conv" else 1, "SAME")
    return net.numpy().mean(axis=(1, 2))


def vggish_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """VGGish's variables with few filters a layer; only the last has as many as it should."""
    shapes = {
        "conv1": (3, 3, 1, 2), "conv2": (3, 3, 2, 3), "conv3/conv3_1": (3, 3, 3, 4), "conv3/conv3_2": (3, 3, 4, 4),
        "conv4/conv4_1": (3, 3, 4, 5), "conv4/conv4_2": (3, 3, 5, 5), "fc1/fc1_1": (6 * 4 * 5, 8), "fc1/fc1_2": (8, 8),
        "fc2": (8, 128),
    }  # fmt: skip
    weights = {f"vggish/{name}/weights": rng.normal(0, 0.4, shape) for name, shape in shapes.items()}
    weights |= {f"vggish/{name}/biases": rng.normal(0, 0.4, shape[-1]) for name, shape in shapes.items()}
    return {name: values.astype(np.float32) for name, values in weights.items()}


def vggish_by_hand(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    import tensorflow as tf

    net = x[..., None]
    for name in ("conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1", "conv4/conv4_2"):
        kernel, bias = weights[f"vggish/{name}/weights"], weights[f"vggish/{name}/biases"]
        net = tf.nn.relu(tf.nn.conv2d(net, kernel, 1, "SAME") + bias)
        if name not in ("conv3/conv3_1", "conv4/conv4_1"):
            net = tf.nn.max_pool2d(net, 2, 2, "SAME")
    net = net.numpy().reshape(len(x), -1)
    for name in ("fc1/fc1_1", "fc1/fc1_2"):
        net = np.maximum(net @ weights[f"vggish/{name}/weights"] + weights[f"vggish/{name}/biases"], 0)
    return net @ weights["vggish/fc2/weights"] + weights["vggish/fc2/biases"]


def write_checkpoint(path: Path, weights: dict[str, np.ndarray], *, version: int) -> None:
    """Write a checkpoint as TensorFlow 1 does: one file (version 1, VGGish's), or an index and its data."""
    load_keras()
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = [v1.get_variable(name, initializer=values) for name, values in weights.items()]
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables, write_version=version).save(session, str(path), write_meta_graph=False)
    (path.parent / "checkpoint").unlink(missing_ok=True)


def only() -> embeddings.Embedding:
    (found,) = embeddings.available()
    return found


# ---- networks from files ---------------------------------------------------------------------------------------------


def test_without_weights_each_network_is_missing_with_the_way_to_get_it(own_weights):
    assert embeddings.available() == []
    yamnet, vggish = embeddings.missing()
    assert "YAMNet is not in" in yamnet
    assert "yamnet.h5" in yamnet
    assert "INSTRLIB_HUB=https://tfhub.dev/google/vggish/1" in vggish
    assert "vggish_model.ckpt" in vggish
    own_weights.rmdir()
    assert embeddings.available() == []


def test_weights_lie_in_the_data_folder_when_no_other_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("INSTRLIB_WEIGHTS")
    assert embeddings.weights_folder() == tmp_path / "data" / "weights"
    assert "data/weights" in embeddings.missing()[0]


def test_a_folder_of_weights_is_named_by_its_whole_path_or_from_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("INSTRLIB_WEIGHTS", "weights")  # a notebook would look for it elsewhere than the command
    with pytest.raises(ConfigError, match=r"^INSTRLIB_WEIGHTS names weights; write the whole path, from the root\.$"):
        embeddings.available()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INSTRLIB_WEIGHTS", "~/weights")
    assert embeddings.weights_folder() == tmp_path / "weights"


@pytest.mark.parametrize("callable_itself", [True, False], ids=["callable", "signature"])
def test_a_savedmodel_gives_the_output_that_has_as_many_values_as_the_embedding(own_weights, callable_itself):
    make_savedmodel(own_weights / "yamnet_1", callable_itself=callable_itself)
    one = only()
    assert (one.name, one.dimension, one.sample_rate_hz, one.form) == ("yamnet", 1024, 16_000, "savedmodel")
    assert (one.window_s, one.hop_s) == (0.96, 0.48)
    np.testing.assert_allclose(one.embed(NOISE), levels(NOISE), rtol=1e-5)
    assert one.embed(NOISE[:100]).shape == (1, 1024)


def test_a_tflite_file_that_takes_a_patch_is_fed_yamnets_patches(own_weights):
    make_tflite(own_weights / "yamnet.tflite", (1, 96, 64))
    cells = patches(NOISE, YAMNET)[:, ::32, ::32].mean(axis=(1, 2))
    np.testing.assert_allclose(only().embed(NOISE), cells[:, None] * RAMP, rtol=1e-4, atol=1e-5)


def test_of_a_tflite_file_that_gives_scores_alone_the_mean_before_them_is_read(own_weights):
    make_tflite(own_weights / "yamnet_scores.tflite", (1, 96, 64), scores_alone=True)
    cells = patches(NOISE, YAMNET)[:, ::32, ::32].mean(axis=(1, 2))
    np.testing.assert_allclose(only().embed(NOISE), cells[:, None] * RAMP, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_samples", [None, 15_600], ids=["any length", "one window"])
def test_a_tflite_file_that_takes_samples_gets_the_sound_padded_as_yamnet_pads_it(own_weights, n_samples):
    make_tflite(own_weights / "yamnet.tflite", (n_samples,))
    np.testing.assert_allclose(only().embed(NOISE), levels(NOISE), rtol=1e-5)
    np.testing.assert_allclose(only().embed(NOISE[:30_000]), levels(NOISE[:30_000]), rtol=1e-5)


def test_yamnets_weights_fill_its_table(own_weights):
    weights = yamnet_weights(np.random.default_rng(1))
    write_h5(own_weights / "yamnet.h5", weights)
    found = only().embed(NOISE)
    np.testing.assert_allclose(found, yamnet_by_hand(patches(NOISE, YAMNET), weights), rtol=1e-3, atol=1e-4)
    assert np.ptp(found) > 0.1


@pytest.mark.parametrize("version", [1, 2])
def test_vggishs_checkpoint_fills_its_table(own_weights, version):
    weights = vggish_weights(np.random.default_rng(2))
    write_checkpoint(own_weights / "vggish_model.ckpt", weights, version=version)
    one = only()
    assert (one.name, one.dimension, one.hop_s) == ("vggish", 128, 0.96)
    expected = vggish_by_hand(patches(NOISE, VGGISH), weights)
    np.testing.assert_allclose(one.embed(NOISE), expected, rtol=1e-3, atol=1e-4)
    assert expected.min() < 0 < np.ptp(expected)  # no ReLU follows the last layer


def test_vggish_with_its_pca_gives_what_audioset_and_openmic_store(own_weights):
    rng = np.random.default_rng(3)
    write_checkpoint(own_weights / "vggish_model.ckpt", vggish_weights(rng), version=1)
    rotation, means = rng.normal(0, 0.02, (128, 128)), rng.normal(size=(128, 1))
    np.savez(own_weights / "vggish_pca_params.npz", pca_eigen_vectors=rotation, pca_means=means)
    plain, rotated = embeddings.available()
    assert (plain.name, rotated.name) == ("vggish", "vggish-pca")
    assert plain.fingerprint != rotated.fingerprint
    by_hand = np.clip(rotation @ (plain.embed(NOISE).T - means), -2, 2).T
    found = rotated.embed(NOISE)
    assert set(found.ravel()) <= set(range(256))
    np.testing.assert_array_equal(found, np.floor((by_hand + 2) * 63.75))
    assert len(np.unique(found)) > 20


def test_pca_parameters_with_objects_are_refused_and_not_unpickled(own_weights):
    write_checkpoint(own_weights / "vggish_model.ckpt", vggish_weights(np.random.default_rng(0)), version=1)
    np.savez(own_weights / "vggish_pca_params.npz", pca_eigen_vectors=np.array([{}], dtype=object))
    with pytest.raises(RunError, match=r"vggish_pca_params.npz does not hold VGGish's PCA"):
        embeddings.available()[1].embed(NOISE)


@pytest.mark.parametrize("name", ["yamnet.tflite", "yamnet.h5", "vggish_model.ckpt", "yamnet/saved_model.pb"])
def test_a_damaged_file_is_named_in_one_sentence(own_weights, name):
    (own_weights / name).parent.mkdir(exist_ok=True)
    (own_weights / name).write_bytes(b"not a network")
    with pytest.raises(RunError, match=r"cannot be used as (YAMNet|VGGish) \(.*get it again"):
        only().embed(NOISE)


def test_a_file_of_another_network_than_its_name_says_is_refused(own_weights):
    make_savedmodel(own_weights / "vggish")
    with pytest.raises(RunError, match="nothing with 128 values a window"):
        only().embed(NOISE)
    weights = yamnet_weights(np.random.default_rng(0))
    weights["layer14/pointwise_conv"]["kernel"] = weights["layer14/pointwise_conv"]["kernel"][..., :7]
    weights["layer14/pointwise_conv/bn"] = {
        name: values[:7] for name, values in weights["layer14/pointwise_conv/bn"].items()
    }
    write_h5(own_weights / "yamnet.h5", weights)
    with pytest.raises(RunError, match="it gives 7 values a window, not 1024"):
        embeddings.available()[1].embed(NOISE)


def test_of_several_files_of_a_network_the_one_that_loses_least_is_taken(own_weights):
    for name in ("sub/yamnet_8bit.tflite", "yamnet.h5", "notes.txt", "other.tflite", "vggish.h5", ".part/yamnet.h5"):
        (own_weights / name).parent.mkdir(exist_ok=True)
        (own_weights / name).touch()
    assert [(one.name, one.path.name) for one in embeddings.available()] == [("yamnet", "yamnet.h5")]


def test_another_file_has_another_fingerprint(own_weights):
    rng = np.random.default_rng(0)
    prints = set()
    for _ in range(2):
        write_h5(own_weights / "yamnet.h5", yamnet_weights(rng))
        prints.add(only().fingerprint)
    assert len(prints) == 2


# ---- TensorFlow Hub --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server that speaks the Hub's protocol for one handle."""
    made = make_savedmodel(tmp_path / "made")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(made, arcname=".")
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            known = self.path == "/google/yamnet/1?tf-hub-format=compressed"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(packed.getvalue()) if known else 0))
            self.end_headers()
            if known:
                self.wfile.write(packed.getvalue())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_a_hub_handle_is_fetched_once_and_kept_in_the_weights_folder(hub, own_weights, monkeypatch):
    address, asked = hub
    monkeypatch.setenv("INSTRLIB_HUB", f" {address}/google/yamnet/1/ ,")
    np.testing.assert_allclose(only().embed(NOISE), levels(NOISE), rtol=1e-5)
    embeddings._from_hub.cache_clear()
    assert only().path.parent == own_weights
    assert asked == ["/google/yamnet/1?tf-hub-format=compressed"]
    assert len(embeddings.missing()) == 1
    left = {path.suffix for path in own_weights.iterdir()}
    assert left == {"", ".sha256"}


def test_a_handle_that_cannot_be_had_is_one_sentence_and_no_error(hub, monkeypatch):
    address, asked = hub
    monkeypatch.setenv("INSTRLIB_HUB", f"{address}/google/yamnet/9")
    assert embeddings.available() == []
    sentence = embeddings.missing()[0]
    assert sentence.startswith(f"{address}/google/yamnet/9 cannot be had: The server answers 404")
    assert len(asked) == 1  # nobody is asked twice


def test_an_archive_that_a_kill_has_left_beside_its_network_is_removed(hub, own_weights, monkeypatch):
    address, _ = hub
    monkeypatch.setenv("INSTRLIB_HUB", f"{address}/google/yamnet/1")
    archive = own_weights / f"{only().path.name}.tar.gz"
    archive.write_bytes(b"what was unpacked")
    embeddings._from_hub.cache_clear()
    assert only().name == "yamnet" and not archive.exists()


def test_of_an_archive_without_a_network_nothing_is_left(own_weights, monkeypatch):
    def fetch(remote, folder):
        with tarfile.open(folder / remote.filename, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo("readme.txt"))
        return folder / remote.filename

    monkeypatch.setattr(embeddings, "fetch", fetch)
    monkeypatch.setenv("INSTRLIB_HUB", "https://tfhub.dev/google/none/1")
    assert embeddings.available() == [] and not list(own_weights.iterdir())
    assert embeddings.missing()[0].startswith("https://tfhub.dev/google/none/1 holds no SavedModel; take a handle")


def test_what_the_hubs_own_cache_holds_is_not_fetched(tmp_path, monkeypatch):
    # tensorflow_hub names the folder by the SHA-1 of the handle.
    make_savedmodel(tmp_path / "cache" / "9616fd04ec2360621642ef9455b84f4b668e219e")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INSTRLIB_HUB", "https://tfhub.dev/google/yamnet/1")
    one = only()
    assert one.name == "yamnet"
    np.testing.assert_allclose(one.embed(NOISE), levels(NOISE), rtol=1e-5)


# ---- our own, and whole corpora --------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path):
    """Two classes of recordings: soft and loud noise of several lengths, 20 in all."""
    rng = np.random.default_rng(4)
    for label, gain in (("loud", 0.5), ("soft", 0.05)):
        for number in range(10):
            path = tmp_path / "corpus" / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, gain * rng.uniform(-1, 1, 4000 + 6000 * number), RATE_HZ)
    return corpora.read("folder", tmp_path / "corpus")


@pytest.fixture
def yamnet(own_weights):
    make_tflite(own_weights / "yamnet.tflite", (None,))
    return only()


def test_each_clip_has_the_mean_and_the_maximum_over_its_windows(clips, yamnet, tmp_path):
    found = embeddings.embed_corpus(clips, yamnet, root=tmp_path / "features", workers=1)
    assert list(found["clip_id"]) == list(clips.manifest.clip_id)
    assert found["mean"].dtype == found["max"].dtype == np.float32
    for number in (0, 9, 19):
        signal = soundfile.read(clips.root / clips.manifest.path[number], dtype="float32")[0]
        np.testing.assert_allclose(found["mean"][number], levels(signal).mean(axis=0), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found["max"][number], levels(signal).max(axis=0), rtol=1e-4, atol=1e-7)
    loud = clips.manifest.label == "loud"
    assert found["mean"][loud, -1].min() > found["mean"][~loud, -1].max()


def test_a_clip_of_a_longer_file_is_that_part_alone_and_a_long_one_is_read_in_parts(yamnet, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "PART_S", 1.92)
    signal = np.concatenate([np.zeros(RATE_HZ), NOISE, np.zeros(3 * RATE_HZ), NOISE]).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", signal, RATE_HZ, subtype="FLOAT")
    parts = list(embeddings._parts(tmp_path / "long.wav", 1.0, 9.0, RATE_HZ))
    # Of 5 parts one is silent; no sample of the others is lost.
    assert [len(part) for part in parts] == [30_720, 30_720, 30_720, 21_120]
    np.testing.assert_array_equal(np.concatenate(parts[:2])[:48_000], NOISE)


def test_a_clip_that_cannot_be_used_is_left_out_and_too_many_are_an_error(clips, yamnet, tmp_path):
    silent = clips.root / clips.manifest.path[3]
    soundfile.write(silent, np.zeros(22_000), RATE_HZ)
    found = embeddings.embed_corpus(clips, yamnet, root=tmp_path / "features", workers=1)
    assert list(found["clip_id"]) == list(clips.manifest.clip_id.drop(3))
    assert len(found["mean"]) == len(found["max"]) == 19
    soundfile.write(clips.root / clips.manifest.path[4], np.zeros(22_000), RATE_HZ)
    with pytest.raises(CorpusError, match="2 of 20 clips are unusable"):
        embeddings.embed_corpus(clips, yamnet, root=tmp_path / "other", workers=1)


# ---- the real ones ---------------------------------------------------------------------------------------------------


@pytest.fixture
def real_yamnet(monkeypatch) -> embeddings.Embedding:
    folder = os.environ.get("INSTRLIB_TEST_WEIGHTS")
    if not folder:
        pytest.skip("INSTRLIB_TEST_WEIGHTS does not name the folder of real weights")
    monkeypatch.setenv("INSTRLIB_WEIGHTS", folder)
    return next(one for one in embeddings.available() if one.name == "yamnet")


@pytest.mark.parametrize(
    ("signal", "index"),
    # The sounds and classes of YAMNet's own tests, by their index in its class map.
    [(np.zeros_like(SINE), 494), (SINE, 495), (2 * NOISE, 514)],
    ids=["silence", "sine wave", "white noise"],
)
def test_the_real_yamnet_knows_silence_a_sine_and_noise_by_our_front_end(real_yamnet, signal, index):
    scores = pretrained._interpreter(real_yamnet.path)
    answers = []
    for patch in patches(signal, YAMNET):
        scores.set_tensor(scores.get_input_details()[0]["index"], patch[None])
        scores.invoke()
        answers.append(scores.get_tensor(scores.get_output_details()[0]["index"])[0])
    assert index in np.mean(answers, axis=0).argsort()[-10:]
    vectors = real_yamnet.embed(signal)
    assert vectors.shape == (6, 1024)
    assert (vectors >= 0).all()
    assert len(np.unique(vectors)) > 10


def test_the_real_yamnet_tells_real_instruments_apart(real_yamnet, sample_root, tmp_path):
    from sklearn.metrics import silhouette_score

    from instrlib.data import corpora

    clips = corpora.read("fsdkaggle2018", sample_root)
    chosen = clips.manifest.groupby("label").head(6)
    few = dataclasses.replace(
        clips, manifest=chosen.reset_index(drop=True), classes=tuple(sorted(chosen.label.unique()))
    )
    found = embeddings.embed_corpus(few, real_yamnet, root=tmp_path, workers=1)
    labels = few.manifest.set_index("clip_id").label[found["clip_id"]].to_numpy(str)
    shuffled = np.random.default_rng(0).permutation(labels)
    apart = silhouette_score(found["mean"], labels, metric="cosine")
    assert apart > silhouette_score(found["mean"], shuffled, metric="cosine") + 0.05
