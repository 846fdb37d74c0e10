"""YAMNet and VGGish from the files that their publishers give, as functions from samples to vectors.

Nothing is unpickled. The weights `yamnet.h5` and VGGish's checkpoint are numbers, which go into networks built here;
a TFLite file is run by LiteRT; a SavedModel is a program that TensorFlow runs, so take it only from its publisher.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrlib.audio.frontends import HOP_SAMPLES, N_MELS, PATCH_FRAMES, PATCH_SAMPLES, VGGISH, YAMNET, fill_up, patches
from instrlib.core.backend import load_keras, without_stderr
from instrlib.core.errors import InstrlibError, RunError
from instrlib.core.io import read_arrays

if TYPE_CHECKING:
    import keras

FORMS = ("savedmodel", "checkpoint", "h5", "tflite")
"""What a network can come as; where one is there several times, the first of these is taken."""

TITLES = {"yamnet": "YAMNet", "vggish": "VGGish"}
ACCEPTED = {
    "yamnet": "its SavedModel folder, yamnet.h5 or a .tflite file with yamnet in its name",
    "vggish": "its SavedModel folder, vggish_model.ckpt or a .tflite file with vggish in its name",
}

DIMENSIONS = {"yamnet": 1024, "vggish": 128, "vggish-pca": 128}
FRONT_ENDS = {"yamnet": YAMNET, "vggish": VGGISH, "vggish-pca": VGGISH}

PCA_FILE = "vggish_pca_params.npz"
"""Beside VGGish's file: the rotation and the means by which AudioSet's and OpenMIC's stored features were made."""

PCA_LIMIT = 2.0
"""Rotated values are cut at this, both ways, and spread over 0 to 255."""

YAMNET_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
"""YAMNet's table, one stride a row: a convolution, then thirteen depthwise ones each with a pointwise one after it.
All look at 3 x 3; how many filters a row has stands in the weights (32, 64, 128, 128, 256, 256, 512 ... 1024)."""

YAMNET_EPSILON = 1e-4
"""Of its normalisation, which has no scale."""

VGGISH_TABLE = (
    "conv1",
    "pool",
    "conv2",
    "pool",
    "conv3/conv3_1",
    "conv3/conv3_2",
    "pool",
    "conv4/conv4_1",
    "conv4/conv4_2",
    "pool",
    "flatten",
    "fc1/fc1_1",
    "fc1/fc1_2",
    "fc2",
)
"""VGGish's table, one row a layer, by the names in its checkpoint. All but the last are followed by a ReLU."""

_BATCH = 64
_POOLED = ("reduce_mean", "global_average_pooling2d")
"""What the tensor before the scores is called in files that give scores alone."""

Reader = Callable[[np.ndarray], np.ndarray]


def find(folder: Path, *, called: str = "") -> dict[str, tuple[Path, str]]:
    """Look for the networks in a folder and the two levels below it.

    Parameters
    ----------
    folder : Path
        It may be missing, and it may be a SavedModel itself.
    called : str
        What the folder holds, where its name does not tell.

    Returns
    -------
    dict of str to tuple
        Path and form by name. Recognised is a folder with a `saved_model.pb`, a `.h5` file, a `.tflite` file or a
        checkpoint (`.ckpt`, or `.ckpt.index` and its data) whose name, or whose folder's, holds "yamnet" or "vggish".
    """
    found: dict[str, tuple[Path, str]] = {}
    for form in FORMS:
        for path in _candidates(folder, form):
            words = f"{called} {path.relative_to(folder) if path != folder else folder.name}".lower()
            name = next((one for one in TITLES if one in words), None)
            if name and (name, form) not in (("yamnet", "checkpoint"), ("vggish", "h5")):
                found.setdefault(name, (path, form))
    if "vggish" in found and _pca_path(found["vggish"][0]).is_file():
        found["vggish-pca"] = found["vggish"]
    return found


def files(path: Path, form: str, name: str) -> list[Path]:
    """List the files that a network consists of, sorted."""
    if form == "savedmodel":
        own = [one for one in path.rglob("*") if one.is_file()]
    elif form == "checkpoint" and not path.is_file():
        own = list(path.parent.glob(f"{path.name}.*"))
    else:
        own = [path]
    return sorted([*own, _pca_path(path)] if name == "vggish-pca" else own)


def reader(path: Path, form: str, name: str) -> Reader:
    """Load a network as a function from samples at 16 kHz to one vector a window.

    Parameters
    ----------
    path, form, name
        As `find` gives them.

    Returns
    -------
    callable
        From [shape=(n,), float32] to [shape=(n_windows, DIMENSIONS[name]), float32].

    Raises
    ------
    RunError
        When the file is damaged or holds another network than its name says; the function raises it too.
    """
    title = TITLES[name.removesuffix("-pca")]
    try:
        read = _READERS[form](path, name)
        read_all = _with_pca(read, _pca_path(path)) if name == "vggish-pca" else read
        n_values = read_all(np.zeros(PATCH_SAMPLES, np.float32)).shape[-1]
    except RunError:
        raise
    except Exception as error:  # each of the libraries has its own errors for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} cannot be used as {title} ({reason}); get it again from its publisher.") from error
    if n_values != DIMENSIONS[name]:
        raise RunError(f"{path} is not {title}: it gives {n_values} values a window, not {DIMENSIONS[name]}.")
    return read_all


def postprocess(vectors: np.ndarray, rotation: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Rotate, cut and quantise VGGish's vectors, as was done to the features stored with AudioSet and OpenMIC.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, d)]
        What VGGish gives.
    rotation : np.ndarray [shape=(d, d)]
        `pca_eigen_vectors` of `vggish_pca_params.npz`, one row a component.
    means : np.ndarray [shape=(d,) or (d, 1)]
        Its `pca_means`.

    Returns
    -------
    np.ndarray [shape=(n, d), uint8]

    Examples
    --------
    >>> postprocess(np.array([[-9.0, 1.0]]), np.eye(2), np.array([0.0, 1.0])).tolist()
    [[0, 127]]
    """
    rotated = (vectors - means.ravel()) @ rotation.T
    return ((np.clip(rotated, -PCA_LIMIT, PCA_LIMIT) + PCA_LIMIT) * (255 / (2 * PCA_LIMIT))).astype(np.uint8)


def build_yamnet(weights: dict[str, dict[str, np.ndarray]]) -> "keras.Model":
    """Build YAMNet up to its embedding, the mean over frequency and time before the scores.

    Parameters
    ----------
    weights : dict of str to dict
        Arrays by layer ("layer1/conv", "layer2/depthwise_conv/bn" ...) and by their name in it; see `read_h5`.

    Returns
    -------
    keras.Model
        From patches [shape=(n, PATCH_FRAMES, N_MELS)] to vectors.

    References
    ----------
    .. [1] A. G. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications",
       2017. arXiv:1704.04861
    """
    layers = load_keras().layers
    inputs = load_keras().Input((PATCH_FRAMES, N_MELS))
    x = layers.Reshape((PATCH_FRAMES, N_MELS, 1))(inputs)
    arrays = []

    def add(layer: Any, *values: np.ndarray) -> None:
        nonlocal x
        x = layer(x)
        arrays.extend(values)

    for number, stride in enumerate(YAMNET_STRIDES, 1):
        for kind in ("conv",) if number == 1 else ("depthwise_conv", "pointwise_conv"):
            name = f"layer{number}/{kind}"
            kernel = weights[name].get("kernel", weights[name].get("depthwise_kernel"))
            if kind == "depthwise_conv":
                layer = layers.DepthwiseConv2D(kernel.shape[:2], strides=stride, padding="same", use_bias=False)
            else:
                step = stride if kind == "conv" else 1
                layer = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], strides=step, padding="same", use_bias=False)
            add(layer, kernel)
            norm = weights[f"{name}/bn"]
            add(
                layers.BatchNormalization(scale=False, epsilon=YAMNET_EPSILON),
                *(norm[one] for one in ("beta", "moving_mean", "moving_variance")),
            )
            add(layers.ReLU())
    add(layers.GlobalAveragePooling2D())
    model = load_keras().Model(inputs, x)
    model.set_weights(arrays)
    return model


def build_vggish(weights: Callable[[str], np.ndarray]) -> "keras.Model":
    """Build VGGish up to its embedding, which no ReLU follows.

    Parameters
    ----------
    weights : callable
        From a name in the checkpoint ("vggish/conv1/weights") to its array.

    Returns
    -------
    keras.Model
        From patches [shape=(n, PATCH_FRAMES, N_MELS)] to vectors.

    References
    ----------
    .. [1] S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017.
       doi:10.1109/ICASSP.2017.7952132
    """
    layers = load_keras().layers
    inputs = load_keras().Input((PATCH_FRAMES, N_MELS))
    x = layers.Reshape((PATCH_FRAMES, N_MELS, 1))(inputs)
    arrays = []
    for row in VGGISH_TABLE:
        if row == "pool":
            x = layers.MaxPooling2D(2, padding="same")(x)
        elif row == "flatten":
            x = layers.Flatten()(x)
        else:
            kernel, bias = (weights(f"vggish/{row}/{part}") for part in ("weights", "biases"))
            activation = None if row == VGGISH_TABLE[-1] else "relu"
            if row.startswith("conv"):
                layer = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], padding="same", activation=activation)
            else:
                layer = layers.Dense(kernel.shape[-1], activation=activation)
            x = layer(x)
            arrays += [kernel, bias]
    model = load_keras().Model(inputs, x)
    model.set_weights(arrays)
    return model


def read_h5(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read the weights of a Keras 2 network, in the h5 file that `save_weights` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to dict
        Arrays by layer and by their name in it: "kernel", "beta" ...
    """
    import h5py

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)  # a whole network has its weights in a group of their own
        layers = [_text(name) for name in root.attrs["layer_names"]]
        return {
            layer: {
                _text(name).rsplit("/", 1)[-1].split(":")[0]: root[layer][_text(name)][()]
                for name in root[layer].attrs["weight_names"]
            }
            for layer in layers
        }


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _candidates(folder: Path, form: str) -> Iterator[Path]:
    endings = {"savedmodel": "saved_model.pb", "checkpoint": "*.ckpt*", "h5": "*.h5", "tflite": "*.tflite"}
    for level in ("", "*/", "*/*/"):
        for path in sorted(folder.glob(level + endings[form])):
            if any(part.startswith(".") for part in path.relative_to(folder).parts):
                continue  # a folder that is being unpacked
            if form == "savedmodel":
                yield path.parent
            elif form != "checkpoint" or path.suffix == ".ckpt":
                yield path
            elif path.suffix == ".index":
                yield path.with_suffix("")


def _pca_path(path: Path) -> Path:
    beside = path.parent / PCA_FILE
    return path / PCA_FILE if (path / PCA_FILE).is_file() else beside


def _with_pca(read: Reader, path: Path) -> Reader:
    try:
        kept = read_arrays(path)
        rotation, means = kept["pca_eigen_vectors"], kept["pca_means"]
    except (InstrlibError, KeyError) as error:
        raise RunError(f"{path} does not hold VGGish's PCA ({error}); get it again from its publisher.") from error
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
            shapes = ", ".join(str(one.shape) for one in answers)
            raise RunError(
                f"{path} gives {shapes}, nothing with {DIMENSIONS[name]} values a window; name another file."
            )
        return fitting[0]

    return read


def _read_checkpoint(path: Path, name: str) -> Reader:
    load_keras()
    import tensorflow as tf

    return _of_patches(build_vggish(tf.train.load_checkpoint(str(path)).get_tensor), name)


def _read_h5(path: Path, name: str) -> Reader:
    return _of_patches(build_yamnet(read_h5(path)), name)


def _of_patches(model: "keras.Model", name: str) -> Reader:
    def read(signal: np.ndarray) -> np.ndarray:
        x = patches(signal, FRONT_ENDS[name])
        parts = [model.predict_on_batch(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)]
        return np.concatenate(parts)

    return read


def _read_tflite(path: Path, name: str) -> Reader:
    interpreter = _interpreter(path)
    wanted = _vectors(interpreter.get_output_details(), name)
    if not wanted:
        # It gives scores alone. What they are computed from can be read when nothing is overwritten, and when the
        # layers are not fused by a delegate.
        interpreter = _interpreter(path, preserve=True)
        wanted = [
            one
            for one in _vectors(interpreter.get_tensor_details(), name)
            if any(word in one["name"].lower() for word in _POOLED)
        ]
    if not wanted:
        raise RunError(f"{path} gives no vector of {DIMENSIONS[name]} values; name another file.")
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
        elif shape[-1] > 1:  # samples of one window
            starts = range(0, len(filled) - shape[-1] + 1, front_end.patch_hop_frames * HOP_SAMPLES)
            pieces = [filled[first : first + shape[-1]].reshape(shape) for first in starts]
        else:  # samples of any number: the file says -1, or 1 where it is older
            pieces = [filled.reshape((1,) * (len(shape) - 1) + (-1,))]
        return np.concatenate([run(one) for one in pieces])

    return read


def _interpreter(path: Path, *, preserve: bool = False) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if preserve else OpResolverType.AUTO
    with without_stderr():  # it tells which kernels it uses
        interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_preserve_all_tensors=preserve,
            experimental_op_resolver_type=kernels,
        )
        interpreter.allocate_tensors()
    return interpreter


def _vectors(tensors: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Of a file's tensors, those that are one vector of the network's length."""
    n = DIMENSIONS[name]
    return [one for one in tensors if len(one["shape"]) > 1 and one["shape"][-1] == np.prod(one["shape"]) == n]


_READERS = {
    "savedmodel": _read_savedmodel,
    "checkpoint": _read_checkpoint,
    "h5": _read_h5,
    "tflite": _read_tflite,
}
