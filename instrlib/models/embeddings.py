"""Clip embeddings by YAMNet and VGGish, from the files of their publishers or TensorFlow Hub.

Nothing is unpickled: .h5 files contain arrays for a network built here, and TFLite files run in LiteRT. A SavedModel is
a program that TensorFlow executes, so use only files of its publisher.
"""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instrlib.audio import decode
from instrlib.core.cache import cached, key
from instrlib.core.config import folders
from instrlib.core.io import AudioError, RunError, hash_file, in_parts, slug, whole
from instrlib.core.parallel import load_keras, parallel_map, without_stderr
from instrlib.data.corpora import Corpus, check_unusable_share
from instrlib.data.files import Remote, fetch, unpack

TITLES = {"yamnet": "YAMNet", "vggish": "VGGish"}
DIMENSIONS = {"yamnet": 1024, "vggish": 128}
LOG_OFFSETS = {"yamnet": 0.001, "vggish": 0.01}
"""Added to the mel magnitudes."""

HOPS = {"yamnet": 48 * 160, "vggish": 96 * 160}
"""Samples between the starts of two patches."""

SAMPLE_RATE_HZ = 16_000
PATCH_SAMPLES = 15_600
"""Samples under a patch: 96 frames of 400 samples every 160, or 0.975 s."""

ENDINGS = ("saved_model.pb", ".h5", ".tflite")
"""Files that are looked for; of several files of one network the first kind is taken."""

YAMNET_FILTERS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
YAMNET_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
"""One 3 x 3 convolution, then thirteen depthwise-separable ones."""

PART_S = 57.6
"""Longest part of a file that is decoded at a time: a whole number of windows of either network."""


@dataclass(frozen=True)
class Embedding:
    """A published network: its name ("yamnet" or "vggish"), and its file or the folder of its SavedModel."""

    name: str
    path: Path

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the files of the network and of the code that runs it."""
        files = sorted(one for one in self.path.rglob("*") if one.is_file()) or [self.path]
        return key("models", name=self.name, files=[hash_file(one) for one in files])[:16]

    def embed(self, signal: np.ndarray) -> np.ndarray:
        """Return the embeddings [n_windows, dimension] of mono samples at 16 kHz; short signals are padded."""
        return _reader(self, self.fingerprint)(np.asarray(signal, np.float32))


def available() -> list[Embedding]:
    """Return the published networks on this machine, from `INSTRLIB_WEIGHTS` or `weights` in the data folder.

    The name of the network must be part of the name of a file or folder. SavedModels of TensorFlow Hub whose handles
    are listed in `INSTRLIB_HUB`, separated by commas, are downloaded there; `CorpusError` if that fails.
    """
    folder, found = weights_folder(), {}
    for handle in os.environ.get("INSTRLIB_HUB", "").replace(",", " ").split():
        _from_hub(handle.rstrip("/"), folder)
    for ending, name in itertools.product(ENDINGS, TITLES):
        for path in sorted(folder.rglob(f"*{ending}")):
            place = path.parent if ending == ENDINGS[0] else path
            words = place.relative_to(folder).as_posix() if place != folder else folder.name
            # A folder with a dot is still being unpacked.
            if name in words.lower() and "/." not in f"/{words}" and (name, ending) != ("vggish", ".h5"):
                found.setdefault(name, Embedding(name, place))
    return [found[name] for name in sorted(found)]


def weights_folder() -> Path:
    """Return the folder of the published networks."""
    named = os.environ.get("INSTRLIB_WEIGHTS")
    return whole(named, "INSTRLIB_WEIGHTS") if named else folders().data / "weights"


def embed_corpus(
    corpus: Corpus, embedding: Embedding, *, root: Path, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and embeddings (means over windows) of the usable clips of a corpus; parts of it are cached.

    Too large a share of unusable clips raises `CorpusError`.
    """
    clips = corpus.manifest
    sounds = [(corpus.root / clip.path, clip.start_s, clip.duration_s) for clip in clips.itertuples()]
    folder = Path(root) / "embeddings" / f"{corpus.fingerprint}-{embedding.fingerprint}"
    tasks = [
        (folder / f"{number:06d}.npz", embedding.fingerprint, functools.partial(_embed, embedding, part))
        for number, part in enumerate(in_parts(sounds, 16))
    ]
    found = parallel_map(cached, tasks, workers=workers, describe=f"embedding by {embedding.name}", isolate=True)
    means = np.concatenate([part["mean"] for part in found])
    usable = np.isfinite(means).all(axis=1)
    check_unusable_share(corpus, int((~usable).sum()))
    return clips.clip_id.to_numpy(str)[usable], means[usable]


def windows(signal: np.ndarray, name: str) -> np.ndarray:
    """Return the samples under each patch [n_patches, PATCH_SAMPLES]; YAMNet pads the last patch, VGGish drops it."""
    n_over = max(len(signal) - PATCH_SAMPLES, 0)
    n_filled = PATCH_SAMPLES + (math.ceil(n_over / HOPS[name]) * HOPS[name] if name == "yamnet" else n_over)
    filled = np.pad(np.asarray(signal, np.float32), (0, n_filled - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(filled, PATCH_SAMPLES)[:: HOPS[name]]


def patches(signal: np.ndarray, name: str) -> np.ndarray:
    """Return input patches [n_patches, 96, 64], log-mel magnitudes (Hershey et al., 2017, arXiv:1609.09430)."""
    import tensorflow as tf

    magnitude = np.abs(tf.signal.stft(windows(signal, name), 400, 160, 512))
    to_mel = tf.signal.linear_to_mel_weight_matrix(64, 257, SAMPLE_RATE_HZ, 125.0, 7500.0).numpy()
    return np.log(magnitude @ to_mel + np.float32(LOG_OFFSETS[name]))


def _from_hub(handle: str, folder: Path) -> None:
    """Download a SavedModel of TensorFlow Hub, unless it is there; see https://www.tensorflow.org/hub/hosting.

    The package tensorflow_hub does not import with current setuptools.
    """
    place = folder / slug(handle)
    if not place.is_dir():
        archive = fetch(Remote(f"{handle}?tf-hub-format=compressed", f"{place.name}.tar.gz"), folder)
        unpack(archive, place)
        archive.unlink()


def _embed(embedding: Embedding, sounds: list[tuple[Path, float, float]]) -> dict[str, np.ndarray]:
    """Return the mean embedding of each sound (path, start, duration); NaN where it is silent or damaged."""
    means = np.full((len(sounds), DIMENSIONS[embedding.name]), np.nan, np.float32)
    for number, (path, start_s, duration_s) in enumerate(sounds):
        vectors = []
        for first_s in np.arange(max(1, math.ceil(duration_s / PART_S))) * PART_S:
            place = {"start_s": start_s + first_s, "duration_s": min(PART_S, duration_s - first_s)}
            with contextlib.suppress(AudioError):  # a silent or damaged part
                vectors.append(embedding.embed(decode.load(path, sample_rate_hz=SAMPLE_RATE_HZ, **place)))
        if vectors:
            means[number] = np.concatenate(vectors).mean(axis=0)
    return {"mean": means}


@functools.lru_cache(maxsize=2)
def _reader(embedding: Embedding, fingerprint: str) -> Callable[[np.ndarray], np.ndarray]:
    """Load a network; the fingerprint is part of the cache's key, so that a changed file is loaded again."""
    path, name = embedding.path, embedding.name
    load = {".h5": _load_h5, ".tflite": _load_tflite}.get(path.suffix, _load_savedmodel)
    try:
        run, cut = load(path, DIMENSIONS[name])
        if (n_values := run(cut(np.zeros(PATCH_SAMPLES), name)[0]).size) != DIMENSIONS[name]:
            raise ValueError(f"it returns {n_values} values per window, not {DIMENSIONS[name]}")
    except Exception as error:  # every library raises other errors for damaged files
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path} cannot be used as {TITLES[name]} ({reason}); download it again from its publisher."
        ) from error
    return lambda signal: np.stack([run(one).ravel() for one in cut(signal, name)])


def _load_savedmodel(path: Path, dimension: int) -> tuple[Callable, Callable]:
    load_keras()
    import tensorflow as tf

    with without_stderr():
        module = tf.saved_model.load(str(path))

    def run(window: np.ndarray) -> np.ndarray:
        answers = [np.asarray(one) for one in tf.nest.flatten(module(window))]
        return max(answers, key=lambda one: one.shape == (1, dimension))

    return run, windows


def _load_h5(path: Path, _dimension: int) -> tuple[Callable, Callable]:
    """Build YAMNet (Howard et al., 2017, arXiv:1704.04861) with the weights of a Keras 2 file."""
    keras = load_keras()
    layers, plain = keras.layers, {"padding": "same", "use_bias": False}
    inputs = keras.Input((96, 64))
    x = layers.Reshape((96, 64, 1))(inputs)
    for number, (filters, stride) in enumerate(zip(YAMNET_FILTERS, YAMNET_STRIDES, strict=True)):
        separable = [layers.DepthwiseConv2D(3, stride, **plain), layers.Conv2D(filters, 1, **plain)]
        for layer in separable if number else [layers.Conv2D(filters, 3, stride, **plain)]:
            x = layers.ReLU()(layers.BatchNormalization(scale=False, epsilon=1e-4)(layer(x)))
    vectors = layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, layers.Dense(521)(vectors)).load_weights(path)
    model = keras.Model(inputs, vectors)
    return lambda patch: model.predict_on_batch(patch[None]), patches


def _load_tflite(path: Path, dimension: int) -> tuple[Callable, Callable]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate, which fuses layers, the tensor before the scores is readable in files that return scores only.
    settings = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    with without_stderr():
        interpreter = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True, **settings)
        interpreter.allocate_tensors()
    pooled = ("reduce_mean", "global_average_pooling2d")
    inner = [one for one in interpreter.get_tensor_details() if any(word in one["name"].lower() for word in pooled)]
    tensors = [*inner, *interpreter.get_output_details()]
    vector = [one for one in tensors if one["shape"][-1:] == np.prod(one["shape"]) == dimension][-1]
    scale, zero = vector["quantization"]
    given = interpreter.get_input_details()[0]
    shape = list(given["shape"])
    if len(shape) < 3:  # samples, in old files of any number
        shape = [*[1] * (len(shape) - 1), PATCH_SAMPLES]
        interpreter.resize_tensor_input(given["index"], shape)
        interpreter.allocate_tensors()

    def run(one: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], one.reshape(shape))
        interpreter.invoke()
        values = interpreter.get_tensor(vector["index"]).astype(np.float32)
        return (values - zero) * np.float32(scale) if scale else values

    return run, patches if len(shape) > 2 else windows
