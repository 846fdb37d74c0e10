"""YAMNet and VGGish from the files of their publishers, as functions from samples to embeddings.

Nothing is unpickled: `yamnet.h5` contains arrays for a network built here, and TFLite files run in LiteRT. A SavedModel
is a program that TensorFlow executes, so use only files of its publisher.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instrlib.core.io import InstrlibError, RunError, read_arrays
from instrlib.core.parallel import load_keras, without_stderr

if TYPE_CHECKING:
    import keras

ENDINGS = {"savedmodel": "saved_model.pb", "h5": "*.h5", "tflite": "*.tflite"}
"""Files that are looked for, by form; of several files of one network the first form is taken."""

TITLES = {"yamnet": "YAMNet", "vggish": "VGGish"}
DIMENSIONS = {"yamnet": 1024, "vggish": 128, "vggish-pca": 128}

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
N_MELS = 64
PATCH_FRAMES = 96
PATCH_SAMPLES = 15_600
"""Samples under a patch: 96 frames of 400 samples, or 0.975 s."""

PCA_FILE = "vggish_pca_params.npz"
"""Beside VGGish: rotation and means of the features that AudioSet and OpenMIC-2018 store."""

PCA_LIMIT = 2.0
"""Rotated values are clipped at ± this and quantised to 0 to 255."""

YAMNET_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
"""One 3 x 3 convolution, then thirteen depthwise-separable ones; the filters stand in the weights (32 to 1024)."""

YAMNET_EPSILON = 1e-4


class FrontEnd(NamedTuple):
    """Settings that differ between the networks."""

    log_offset: float  # added to the mel magnitudes
    patch_hop_frames: int  # between the starts of two patches
    pad_last: bool  # whether an incomplete last patch is padded or dropped


FRONT_ENDS = {"yamnet": FrontEnd(0.001, 48, True), "vggish": FrontEnd(0.01, 96, False)}
FRONT_ENDS["vggish-pca"] = FRONT_ENDS["vggish"]

_BATCH = 64
_POOLED = ("reduce_mean", "global_average_pooling2d")
"""Names of the tensor before the scores, in files that return scores only."""

Reader = Callable[[np.ndarray], np.ndarray]
"""From samples [n] at 16 kHz to embeddings [n_windows, dimension]."""


def find(folder: Path, *, called: str = "") -> dict[str, tuple[Path, str]]:
    """Return path and format of networks by name; "yamnet" or "vggish" is in the path (two levels) or in `called`."""
    found: dict[str, tuple[Path, str]] = {}
    for form in ENDINGS:
        for path in _candidates(folder, form):
            words = f"{called} {path.relative_to(folder) if path != folder else folder.name}".lower()
            name = next((one for one in TITLES if one in words), None)
            if name and (name, form) != ("vggish", "h5"):
                found.setdefault(name, (path, form))
    if "vggish" in found and _pca_path(found["vggish"][0]).is_file():
        found["vggish-pca"] = found["vggish"]
    return found


def files(path: Path, form: str, name: str) -> list[Path]:
    """Return the files of a network, sorted."""
    own = [one for one in path.rglob("*") if one.is_file()] if form == "savedmodel" else [path]
    return sorted([*own, _pca_path(path)] if name == "vggish-pca" else own)


def reader(path: Path, form: str, name: str) -> Reader:
    """Load a network that `find` returned; damaged or wrong files raise `RunError`."""
    title = TITLES[name.removesuffix("-pca")]
    try:
        read = _READERS[form](path, name)
        read_all = _with_pca(read, _pca_path(path)) if name == "vggish-pca" else read
        n_values = read_all(np.zeros(PATCH_SAMPLES, np.float32)).shape[-1]
    except RunError:
        raise
    except Exception as error:  # every library raises other errors for damaged files
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} cannot be used as {title} ({reason}); download it again from its publisher.") from error
    if n_values != DIMENSIONS[name]:
        raise RunError(
            f"{path} is not {title}: it returns {n_values} values per window, not {DIMENSIONS[name]}; use another."
        )
    return read_all


def postprocess(vectors: np.ndarray, rotation: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Rotate, clip and quantise VGGish's embeddings [n, d] to uint8, as AudioSet and OpenMIC-2018 store them.

    Examples
    --------
    >>> postprocess(np.array([[-9.0, 1.0]]), np.eye(2), np.array([0.0, 1.0])).tolist()
    [[0, 127]]
    """
    rotated = (vectors - means.ravel()) @ rotation.T
    return ((np.clip(rotated, -PCA_LIMIT, PCA_LIMIT) + PCA_LIMIT) * (255 / (2 * PCA_LIMIT))).astype(np.uint8)


def patches(signal: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Return the input patches of a network [n_patches, PATCH_FRAMES, N_MELS], logarithms of mel magnitudes [1]_.

    References
    ----------
    .. [1] S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017.
       https://github.com/tensorflow/models/tree/master/research/audioset
    """
    import tensorflow as tf

    magnitude = np.abs(tf.signal.stft(fill_up(signal, front_end), 400, HOP_SAMPLES, 512))
    to_mel = tf.signal.linear_to_mel_weight_matrix(N_MELS, magnitude.shape[1], SAMPLE_RATE_HZ, 125.0, 7500.0).numpy()
    log_mel = np.log(magnitude @ to_mel + np.float32(front_end.log_offset))
    windows = np.lib.stride_tricks.sliding_window_view(log_mel, PATCH_FRAMES, axis=0)
    return windows[:: front_end.patch_hop_frames].transpose(0, 2, 1)


def fill_up(signal: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Append silence until the first patch is full; with `pad_last`, until the last patch is full."""
    n_over = max(len(signal) - PATCH_SAMPLES, 0)
    hop = front_end.patch_hop_frames * HOP_SAMPLES
    n_filled = PATCH_SAMPLES + (math.ceil(n_over / hop) * hop if front_end.pad_last else n_over)
    return np.pad(np.asarray(signal, np.float32), (0, n_filled - len(signal)))


def build_yamnet(weights: dict[str, dict[str, np.ndarray]]) -> "keras.Model":
    """Build YAMNet up to its embedding [1]_, from patches [n, PATCH_FRAMES, N_MELS] and the arrays of `read_h5`.

    References
    ----------
    .. [1] A. G. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications",
       2017. arXiv:1704.04861
    """
    layers = load_keras().layers
    inputs = load_keras().Input((PATCH_FRAMES, N_MELS))
    x = layers.Reshape((PATCH_FRAMES, N_MELS, 1))(inputs)
    arrays = []
    for number, stride in enumerate(YAMNET_STRIDES, 1):
        for kind in ("conv",) if number == 1 else ("depthwise_conv", "pointwise_conv"):
            name = f"layer{number}/{kind}"
            kernel = weights[name].get("kernel", weights[name].get("depthwise_kernel"))
            settings = {"padding": "same", "use_bias": False}
            if kind == "depthwise_conv":
                x = layers.DepthwiseConv2D(kernel.shape[:2], strides=stride, **settings)(x)
            else:
                step = stride if kind == "conv" else 1
                x = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], strides=step, **settings)(x)
            x = layers.ReLU()(layers.BatchNormalization(scale=False, epsilon=YAMNET_EPSILON)(x))
            norm = weights[f"{name}/bn"]
            arrays += [kernel, norm["beta"], norm["moving_mean"], norm["moving_variance"]]
    model = load_keras().Model(inputs, layers.GlobalAveragePooling2D()(x))
    model.set_weights(arrays)
    return model


def read_h5(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read the arrays of a Keras 2 weights file, by layer and name ("kernel", "beta" ...)."""
    import h5py

    def text(name: bytes | str) -> str:
        return name.decode() if isinstance(name, bytes) else name

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)  # files of complete models have a group for the weights
        return {
            layer: {
                text(name).rsplit("/", 1)[-1].split(":")[0]: root[layer][text(name)][()]
                for name in root[layer].attrs["weight_names"]
            }
            for layer in map(text, root.attrs["layer_names"])
        }


def _candidates(folder: Path, form: str) -> Iterator[Path]:
    for level in ("", "*/", "*/*/"):
        for path in sorted(folder.glob(level + ENDINGS[form])):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):  # still being unpacked
                yield path.parent if form == "savedmodel" else path


def _pca_path(path: Path) -> Path:
    inside = path / PCA_FILE
    return inside if inside.is_file() else path.parent / PCA_FILE


def _with_pca(read: Reader, path: Path) -> Reader:
    try:
        kept = read_arrays(path)
        rotation, means = kept["pca_eigen_vectors"], kept["pca_means"]
    except (InstrlibError, KeyError) as error:
        raise RunError(
            f"{path} does not contain the PCA of VGGish ({error}); download it again from its publisher."
        ) from error
    return lambda signal: postprocess(read(signal), rotation, means).astype(np.float32)


def _read_savedmodel(path: Path, name: str) -> Reader:
    load_keras()
    import tensorflow as tf

    with without_stderr():
        module = tf.saved_model.load(str(path))
    run = module
    if not callable(module):
        signature = module.signatures["serving_default"]
        given = next(iter(signature.structured_input_signature[1]))

        def run(samples: tf.Tensor) -> dict[str, tf.Tensor]:
            return signature(**{given: samples})

    def read(signal: np.ndarray) -> np.ndarray:
        answers = [np.asarray(one) for one in tf.nest.flatten(run(tf.constant(fill_up(signal, FRONT_ENDS[name]))))]
        fitting = [one for one in answers if one.ndim == 2 and one.shape[1] == DIMENSIONS[name]]
        if not fitting:
            raise RunError(f"{path} returns nothing with {DIMENSIONS[name]} values a window; name another file.")
        return fitting[0]

    return read


def _read_h5(path: Path, name: str) -> Reader:
    model = build_yamnet(read_h5(path))

    def read(signal: np.ndarray) -> np.ndarray:
        x = patches(signal, FRONT_ENDS[name])
        return np.concatenate([model.predict_on_batch(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])

    return read


def _read_tflite(path: Path, name: str) -> Reader:
    interpreter = _interpreter(path)
    wanted = _vectors(interpreter.get_output_details(), name)
    if not wanted:
        # The outputs are scores only. Without a delegate, which fuses layers, the tensor before them is readable.
        interpreter = _interpreter(path, preserve=True)
        inner = _vectors(interpreter.get_tensor_details(), name)
        wanted = [one for one in inner if any(word in one["name"].lower() for word in _POOLED)]
    if not wanted:
        raise RunError(f"{path} returns no vector of {DIMENSIONS[name]} values; name another file.")
    given, front_end = interpreter.get_input_details()[0], FRONT_ENDS[name]
    shape = tuple(given["shape_signature"])

    def run(x: np.ndarray) -> np.ndarray:
        if tuple(interpreter.get_input_details()[0]["shape"]) != x.shape:
            interpreter.resize_tensor_input(given["index"], x.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        values = interpreter.get_tensor(wanted[-1]["index"]).reshape(-1, DIMENSIONS[name]).astype(np.float32)
        scale, zero = wanted[-1]["quantization"]
        return (values - zero) * np.float32(scale) if scale else values

    def read(signal: np.ndarray) -> np.ndarray:
        filled = fill_up(signal, front_end)
        if len(shape) > 2:
            pieces = [one.reshape(1, *shape[1:]) for one in np.ascontiguousarray(patches(signal, front_end))]
        elif shape[-1] > 1:  # the samples of one window
            starts = range(0, len(filled) - shape[-1] + 1, front_end.patch_hop_frames * HOP_SAMPLES)
            pieces = [filled[first : first + shape[-1]].reshape(shape) for first in starts]
        else:  # any number of samples: -1, or 1 in old files
            pieces = [filled.reshape((1,) * (len(shape) - 1) + (-1,))]
        return np.concatenate([run(one) for one in pieces])

    return read


def _interpreter(path: Path, *, preserve: bool = False) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if preserve else OpResolverType.AUTO
    with without_stderr():
        interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_preserve_all_tensors=preserve,
            experimental_op_resolver_type=kernels,
        )
        interpreter.allocate_tensors()
    return interpreter


def _vectors(tensors: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the tensors that are single vectors of the length of the embedding."""
    n = DIMENSIONS[name]
    return [one for one in tensors if len(one["shape"]) > 1 and one["shape"][-1] == np.prod(one["shape"]) == n]


_READERS = {"savedmodel": _read_savedmodel, "h5": _read_h5, "tflite": _read_tflite}
