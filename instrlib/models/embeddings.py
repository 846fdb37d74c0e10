"""Clip embeddings by YAMNet and VGGish, from the files of their publishers or TensorFlow Hub.

Nothing is unpickled: .h5 files contain arrays for a network built here, and TFLite files run in LiteRT. A SavedModel is
a program that TensorFlow executes, so use only files of its publisher.
"""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instrlib.audio import decode
from instrlib.core.cache import cached, key
from instrlib.core.config import folders
from instrlib.core.io import AudioError, InstrlibError, RunError, hash_file, in_parts, slug, whole
from instrlib.core.parallel import load_keras, parallel_map, without_stderr
from instrlib.data.corpora import Corpus, check_unusable_share
from instrlib.data.files import Remote, fetch, unpack

TITLES = {"yamnet": "YAMNet", "vggish": "VGGish"}
DIMENSIONS = {"yamnet": 1024, "vggish": 128}
HUB_HANDLES = {name: f"https://tfhub.dev/google/{name}/1" for name in TITLES}

ENDINGS = ("saved_model.pb", ".h5", ".tflite")
"""Files that are looked for; of several files of one network the first kind is taken."""

YAMNET_FILTERS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
YAMNET_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
"""One 3 x 3 convolution, then thirteen depthwise-separable ones."""

SAMPLE_RATE_HZ = 16_000
PATCH_SAMPLES = 15_600
"""Samples under a patch: 96 frames of 400 samples every 160, or 0.975 s."""

HOPS = {"yamnet": 48 * 160, "vggish": 96 * 160}
"""Samples between the starts of two patches."""

LOG_OFFSETS = {"yamnet": 0.001, "vggish": 0.01}
"""Added to the mel magnitudes."""

PART_S = 57.6
"""Longest part of a file that is decoded at a time: a whole number of windows of either network."""

Reader = Callable[[np.ndarray], np.ndarray]
"""From samples [n] at 16 kHz to embeddings [n_windows, dimension]."""


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
    are listed in `INSTRLIB_HUB`, separated by commas, are downloaded there.
    """
    _download_failures()
    folder, found = weights_folder(), {}
    for ending, name in itertools.product(ENDINGS, TITLES):
        for path in sorted(folder.rglob(f"*{ending}")):
            place = path.parent if ending == ENDINGS[0] else path
            words = place.relative_to(folder).as_posix() if place != folder else folder.name
            # A folder with a dot is still being unpacked.
            if name in words.lower() and "/." not in f"/{words}" and (name, ending) != ("vggish", ".h5"):
                found.setdefault(name, Embedding(name, place))
    return [found[name] for name in sorted(found)]


def missing() -> list[str]:
    """Return one sentence for each missing published network, with the way to get it."""
    there = {one.name for one in available()}
    # Without the path, because the sentence appears in notebooks, which must not depend on the machine.
    folder = "the folder that INSTRLIB_WEIGHTS names" if os.environ.get("INSTRLIB_WEIGHTS") else "data/weights"
    return _download_failures() + [
        f"{TITLES[name]} is not in {folder}: put its SavedModel or a file with {name} in its name "
        f"(.tflite{', .h5' if name == 'yamnet' else ''}) there, or set INSTRLIB_HUB={handle} to download it."
        for name, handle in HUB_HANDLES.items()
        if name not in there
    ]


def weights_folder() -> Path:
    """Return the folder of the published networks."""
    named = os.environ.get("INSTRLIB_WEIGHTS")
    return whole(named, "INSTRLIB_WEIGHTS") if named else folders().data / "weights"


def embed_corpus(
    corpus: Corpus, embedding: Embedding, *, root: Path, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Embed every clip of a corpus by a published network; results are cached, a few clips at a time.

    Returns
    -------
    clip_id : ndarray of str [n_clips]
        Without unusable clips; too large a share of them raises `CorpusError`.
    vectors : ndarray [n_clips, dimension]
        Means over the windows of each clip.
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


def fill_up(signal: np.ndarray, name: str) -> np.ndarray:
    """Append silence until the first patch is full; for YAMNet until the last patch is full."""
    n_over = max(len(signal) - PATCH_SAMPLES, 0)
    n_filled = PATCH_SAMPLES + (math.ceil(n_over / HOPS[name]) * HOPS[name] if name == "yamnet" else n_over)
    return np.pad(np.asarray(signal, np.float32), (0, n_filled - len(signal)))


def windows(signal: np.ndarray, name: str) -> np.ndarray:
    """Return the samples under each patch [n_patches, PATCH_SAMPLES]."""
    return np.lib.stride_tricks.sliding_window_view(fill_up(signal, name), PATCH_SAMPLES)[:: HOPS[name]]


def patches(signal: np.ndarray, name: str) -> np.ndarray:
    """Return the input patches of a network [n_patches, 96, 64], logarithms of mel magnitudes [1]_.

    References
    ----------
    .. [1] S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017.
       https://github.com/tensorflow/models/tree/master/research/audioset
    """
    import tensorflow as tf

    magnitude = np.abs(tf.signal.stft(windows(signal, name), 400, 160, 512))
    to_mel = tf.signal.linear_to_mel_weight_matrix(64, 257, SAMPLE_RATE_HZ, 125.0, 7500.0).numpy()
    return np.log(magnitude @ to_mel + np.float32(LOG_OFFSETS[name]))


def _download_failures() -> list[str]:
    handles = [handle.strip().rstrip("/") for handle in os.environ.get("INSTRLIB_HUB", "").split(",")]
    return [reason for handle in handles if handle and (reason := _from_hub(handle, weights_folder()))]


@functools.cache
def _from_hub(handle: str, folder: Path) -> str:
    """Download a SavedModel of TensorFlow Hub, unless it is there; return why it is unavailable, or "".

    This implements https://www.tensorflow.org/hub/hosting, because the package tensorflow_hub does not import with
    current setuptools. The result is cached, so an absent server is tried once.
    """
    place = folder / slug(handle)
    archive = Remote(f"{handle}?tf-hub-format=compressed", f"{place.name}.tar.gz")
    try:
        if not place.is_dir():
            unpack(fetch(archive, folder), place)
    except InstrlibError as error:
        return f"{handle} cannot be downloaded: {error}"
    (folder / archive.filename).unlink(missing_ok=True)
    return ""


def _embed(embedding: Embedding, sounds: list[tuple[Path, float, float]]) -> dict[str, np.ndarray]:
    """Return the mean embedding of each sound (path, start, duration); NaN where it is silent or damaged."""
    means = np.full((len(sounds), DIMENSIONS[embedding.name]), np.nan, np.float32)
    for number, sound in enumerate(sounds):
        vectors = [embedding.embed(signal) for signal in _parts(*sound)]
        if vectors:
            means[number] = np.concatenate(vectors).mean(axis=0)
    return {"mean": means}


def _parts(path: Path, start_s: float, duration_s: float) -> Iterator[np.ndarray]:
    """Yield a clip in parts of bounded length, without silent and damaged ones."""
    for number in range(max(1, math.ceil(duration_s / PART_S))):
        place = {"start_s": start_s + number * PART_S, "duration_s": min(PART_S, duration_s - number * PART_S)}
        with contextlib.suppress(AudioError):
            yield decode.load(path, sample_rate_hz=SAMPLE_RATE_HZ, **place)


@functools.lru_cache(maxsize=2)
def _reader(embedding: Embedding, fingerprint: str) -> Reader:
    """Load a network; the fingerprint is part of the cache's key, so that a changed file is loaded again."""
    path, name = embedding.path, embedding.name
    read_form = {".h5": _read_h5, ".tflite": _read_tflite}.get(path.suffix, _read_savedmodel)
    try:
        read = read_form(path, name)
        n_values = read(np.zeros(PATCH_SAMPLES, np.float32)).shape[-1]
        if n_values != DIMENSIONS[name]:
            raise ValueError(f"it returns {n_values} values per window, not {DIMENSIONS[name]}")
    except Exception as error:  # every library raises other errors for damaged files
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path} cannot be used as {TITLES[name]} ({reason}); download it again from its publisher."
        ) from error
    return read


def _read_savedmodel(path: Path, name: str) -> Reader:
    load_keras()
    import tensorflow as tf

    with without_stderr():
        module = tf.saved_model.load(str(path))

    def read(signal: np.ndarray) -> np.ndarray:
        answers = [np.asarray(one) for one in tf.nest.flatten(module(fill_up(signal, name)))]
        return max(answers, key=lambda one: one.ndim == 2 and one.shape[1] == DIMENSIONS[name])

    return read


def _read_h5(path: Path, name: str) -> Reader:
    """Build YAMNet [1]_ with the weights of a Keras 2 file.

    References
    ----------
    .. [1] A. G. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications",
       2017. arXiv:1704.04861
    """
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
    return lambda signal: np.concatenate([model.predict_on_batch(x) for x in in_parts(patches(signal, name), 64)])


def _read_tflite(path: Path, name: str) -> Reader:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate, which fuses layers, the tensor before the scores is readable in files that return scores only.
    settings = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    with without_stderr():
        interpreter = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True, **settings)
        interpreter.allocate_tensors()
    n, given = DIMENSIONS[name], interpreter.get_input_details()[0]
    inner = [
        one
        for one in interpreter.get_tensor_details()
        if any(word in one["name"].lower() for word in ("reduce_mean", "global_average_pooling2d"))
    ]
    tensors = [*inner, *interpreter.get_output_details()]
    vector = [one for one in tensors if len(one["shape"]) > 1 and one["shape"][-1] == np.prod(one["shape"]) == n][-1]
    cut = patches
    if len(given["shape"]) < 3:  # samples, in old files of any number
        cut = windows
        interpreter.resize_tensor_input(given["index"], [*[1] * (len(given["shape"]) - 1), PATCH_SAMPLES])
        interpreter.allocate_tensors()

    def read(signal: np.ndarray) -> np.ndarray:
        found = []
        for one in cut(signal, name):
            interpreter.set_tensor(given["index"], one.reshape(interpreter.get_input_details()[0]["shape"]))
            interpreter.invoke()
            found.append(interpreter.get_tensor(vector["index"]).reshape(n).astype(np.float32))
        scale, zero = vector["quantization"]
        return (np.stack(found) - zero) * np.float32(scale) if scale else np.stack(found)

    return read
