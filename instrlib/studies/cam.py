"""Which part of the picture speaks for a class: class activation maps (CAM) and Grad-CAM over frequency and time.

A map has the grid of the layer it is read from: cells that are steps apart and each see a whole field of the input.
`cell_grid` says where they are centred and how much they see, and `upsample` brings a map to the input's grid by those
centres. Maps belong to the logit, the value before the softmax: where an answer is sure, the softmax is flat and its
gradient vanishes [3]_.

References
----------
.. [1] B. Zhou et al., "Learning deep features for discriminative localization", CVPR 2016. arXiv:1512.04150
.. [2] R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
   ICCV 2017. arXiv:1610.02391
.. [3] K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks", 2013. arXiv:1312.6034
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import mel_edges_hz
from instrlib.core.backend import load_keras
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError

if TYPE_CHECKING:
    import keras

_BATCH = 64


@dataclass(frozen=True)
class Grid:
    """Where the cells of a layer lie on the input.

    Attributes
    ----------
    centre_bin : np.ndarray [shape=(n_rows,)]
        Row of the input that each row of cells is centred on; the lowest can lie below 0, the last beyond the input.
    centre_frame : np.ndarray [shape=(n_columns,)]
        Frame that each column of cells is centred on.
    field_bins, field_frames : int
        Rows and frames of the input that one cell sees: its receptive field, of which the middle counts most.
    shape : tuple of int
        (n_bins, n_frames) of the input.
    """

    centre_bin: np.ndarray
    centre_frame: np.ndarray
    field_bins: int
    field_frames: int
    shape: tuple[int, int]


def picture_layers(model: "keras.Model") -> list[str]:
    """Return the names of the layers whose output still has a frequency and a time axis, from input to output."""
    return [layer.name for layer in model.layers[1:] if len(layer.output.shape) == 4]


def cell_grid(model: "keras.Model", layer: str) -> Grid:
    """Work out where the cells of a layer are centred on the input, and how much of it each sees.

    A window of k samples that begins p before its input and moves on by s puts the centre of cell i at
    ``i * s - p + (k - 1) / 2`` of the layer before. With padding "same", TensorFlow puts half of what is missing,
    rounded down, in front: p depends on the length of the input, so the centres do as well.

    Parameters
    ----------
    model : keras.Model
        A chain of layers, as `models.build` makes it.
    layer : str
        Name of a layer of `picture_layers`.

    Returns
    -------
    Grid

    Raises
    ------
    ConfigError
        When there is no such layer, it has no picture axes, or the layers before it are no chain of windows.

    References
    ----------
    .. [1] V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016. arXiv:1603.07285
    """
    _check_layer(model, layer)
    shape = tuple(model.input.shape[1:3])
    centres = [np.arange(side, dtype=float) for side in shape]
    fields, steps = [1, 1], [1, 1]
    before = model.layers[0]
    for one in model.layers[1:]:
        windows = _windows(one, before)
        for axis, (size, step) in enumerate(windows):
            n_in, n_out = before.output.shape[1 + axis], one.output.shape[1 + axis]
            same = getattr(one, "padding", "valid") == "same"
            missing = max((n_out - 1) * step + size - n_in, 0) if same else 0
            place = np.arange(n_out) * step - missing // 2 + (size - 1) / 2
            centres[axis] = centres[axis][0] + steps[axis] * place
            fields[axis] += (size - 1) * steps[axis]
            steps[axis] *= step
        if one.name == layer:
            break
        before = one
    return Grid(*centres, *fields, shape)


def upsample(maps: np.ndarray, grid: Grid) -> np.ndarray:
    """Bring maps to the input's grid: bilinear between the centres of the cells, constant beyond the outermost.

    Parameters
    ----------
    maps : np.ndarray [shape=(..., n_rows, n_columns)]
        Maps on the grid of a layer.
    grid : Grid
        Where its cells lie.

    Returns
    -------
    np.ndarray [shape=(..., n_bins, n_frames)]

    Examples
    --------
    >>> grid = Grid(np.array([0.0]), np.array([0.5, 2.5]), 1, 2, (1, 4))
    >>> upsample(np.array([[0.0, 1.0]]), grid).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    bins, frames = _hats(grid)
    return bins @ maps @ frames.T


def downsample(pictures: np.ndarray, grid: Grid) -> np.ndarray:
    """Bring pictures to the grid of a layer: each cell is the mean of what `upsample` would spread it over.

    Parameters
    ----------
    pictures : np.ndarray [shape=(..., n_bins, n_frames)]
        On the input's grid.
    grid : Grid
        Where the layer's cells lie.

    Returns
    -------
    np.ndarray [shape=(..., n_rows, n_columns)]
    """
    bins, frames = (hat / np.maximum(hat.sum(axis=0), 1e-12) for hat in _hats(grid))
    return bins.T @ pictures @ frames


def class_activation_maps(model: "keras.Model", x: np.ndarray) -> np.ndarray:
    """Compute the class activation map of every class [1]_.

    The network must end with the mean over frequency and time and a dense layer. Its logit of class c is then the mean
    over the cells of ``sum_k w[k, c] A[k]``, plus a bias; that sum, cell by cell, is the map.

    Parameters
    ----------
    model : keras.Model
        The network.
    x : np.ndarray [shape=(n, n_bins, n_frames, 1)]
        Inputs.

    Returns
    -------
    np.ndarray [shape=(n, n_classes, n_rows, n_columns), float32]
        Signed; on the grid of `last_picture_layer(model)`.

    Raises
    ------
    ConfigError
        When the network ends otherwise; `grad_cam` explains any.

    References
    ----------
    .. [1] B. Zhou et al., 2016, equation 2. arXiv:1512.04150
    """
    return weighted_channels(predict(channels(model), x), model)


def channels(model: "keras.Model") -> "keras.Model":
    """Return the network up to the channels whose mean the last layer weighs; it shares the weights.

    Raises
    ------
    ConfigError
        As `class_activation_maps`.
    """
    averages = [one for one in model.layers if type(one).__name__ == "GlobalAveragePooling2D"]
    if len(averages) != 1 or averages[0].output.shape != _last(model).input.shape:
        raise ConfigError(
            "A class activation map needs a network that ends with the mean over frequency and time and one dense "
            "layer; use grad_cam for this one."
        )
    return load_keras().Model(model.input, averages[0].input)


def weighted_channels(active: np.ndarray, model: "keras.Model") -> np.ndarray:
    """Sum channels [shape=(n, n_rows, n_columns, n_channels)] with the last layer's weights: the map of every class."""
    return np.einsum("nrck,kt->ntrc", active, _last(model).get_weights()[0], optimize=True)


def last_picture_layer(model: "keras.Model") -> str:
    """Return the name of the last layer with picture axes, whose cells a class activation map is made of.

    Raises
    ------
    ConfigError
        When no layer has any.
    """
    names = picture_layers(model)
    if not names:
        raise ConfigError("This network has no layer with a frequency and a time axis, so there is no map to read.")
    return names[-1]


def grad_cam(model: "keras.Model", x: np.ndarray, targets: np.ndarray, *, layer: str) -> np.ndarray:
    """Compute Grad-CAM at any layer [1]_.

    The channels A[k] of the layer are summed with the mean over the cells of the gradient of the logit as weights, and
    what is below 0 is cut. At the last layer before the mean over frequency and time this is the class activation map
    divided by the number of cells, above 0.

    Parameters
    ----------
    model : keras.Model
        The network; its last layer is a dense one with a softmax.
    x : np.ndarray [shape=(n, n_bins, n_frames, 1)]
        Inputs.
    targets : np.ndarray of int [shape=(n,)]
        The class to explain, input by input.
    layer : str
        Name of a layer of `picture_layers`.

    Returns
    -------
    np.ndarray [shape=(n, n_rows, n_columns), float32]
        At least 0; on the grid of `layer`.

    Raises
    ------
    ConfigError
        When there is no such layer or it has no picture axes; the message lists those that have.

    References
    ----------
    .. [1] R. R. Selvaraju et al., 2017, equations 1 and 2. arXiv:1610.02391
    """
    keras = load_keras()
    import tensorflow as tf

    _check_layer(model, layer)
    last = _last(model)
    both = keras.Model(model.input, [model.get_layer(layer).output, last.input])
    found = []
    for rows in _slices(len(x)):
        with tf.GradientTape() as tape:
            active, below = both(x[rows], training=False)
            chosen = tf.gather(below @ last.kernel + last.bias, np.asarray(targets)[rows], batch_dims=1)
        # One input's logit depends on that input alone, so the gradient of their sum is that of each.
        weights = tf.reduce_mean(tape.gradient(chosen, active), axis=(1, 2))
        found.append(tf.nn.relu(tf.einsum("nrck,nk->nrc", active, weights)).numpy())
    return np.concatenate(found)


def describe_layers(model: "keras.Model", config: FeatureConfig) -> pd.DataFrame:
    """Say for each layer with picture axes how fine its map is and how much a cell of it sees.

    Parameters
    ----------
    model : keras.Model
        The network.
    config : FeatureConfig
        How its input is made.

    Returns
    -------
    pandas.DataFrame
        Indexed by `layer`: `cells` ("rows x columns"), `step_s` and `step_bands` between two cells, `sees_s` and
        `sees_bands`. Of layers that differ in nothing of this (convolution, normalisation, activation) the last.
    """
    rows: dict[tuple, str] = {}
    for name in picture_layers(model):
        grid = cell_grid(model, name)
        step_bands, step_frames = (
            float(centre[1] - centre[0]) if len(centre) > 1 else np.nan
            for centre in (grid.centre_bin, grid.centre_frame)
        )
        cells = f"{len(grid.centre_bin)} x {len(grid.centre_frame)}"
        hop_s = config.hop_s
        rows[cells, step_frames * hop_s, step_bands, grid.field_frames * hop_s, grid.field_bins] = name
    columns = ["cells", "step_s", "step_bands", "sees_s", "sees_bands"]
    return pd.DataFrame(list(rows), pd.Index(rows.values(), name="layer"), columns)


def band_centres_hz(config: FeatureConfig) -> np.ndarray:
    """Return the centre of each mel band in Hz [shape=(n_mels,)].

    Raises
    ------
    ConfigError
        When the rows of the picture are cepstral coefficients, which stand for no frequency.
    """
    if config.kind != "log_mel":
        raise ConfigError("A map over frequency needs log-mel features; the rows of MFCC stand for no frequency.")
    return mel_edges_hz(config)[1:-1]


def shares(maps: np.ndarray, grid: Grid) -> np.ndarray:
    """Bring what speaks for a class in each map to mean 1 over the picture, so that maps can be averaged.

    Parameters
    ----------
    maps : np.ndarray [shape=(..., n_rows, n_columns)]
        Signed maps.
    grid : Grid
        Where their cells lie.

    Returns
    -------
    np.ndarray [shape of maps]
        At least 0; the mean of its `upsample` is 1, and NaN where a map has nothing above 0.
    """
    positive = np.maximum(maps, 0)
    bins, frames = (hat.mean(axis=0) for hat in _hats(grid))
    total = np.einsum("...rc,r,c->...", positive, bins, frames)[..., None, None]
    return np.divide(positive, total, out=np.full(positive.shape, np.nan), where=total > 0)


def predict(model: "keras.Model", x: np.ndarray) -> np.ndarray:
    """Return the outputs of a network, batch by batch [shape=(n, ...)]."""
    return np.concatenate([model.predict_on_batch(x[rows]) for rows in _slices(len(x))])


def _slices(n: int) -> list[slice]:
    """Parts as equal as can be, so that one or two shapes are compiled and not a new one for each remainder."""
    edges = np.linspace(0, n, -(-n // _BATCH) + 1).round().astype(int)
    return [slice(first, last) for first, last in pairwise(edges)]


def _last(model: "keras.Model") -> Any:
    last = model.layers[-1]
    if type(last).__name__ != "Dense" or getattr(last.activation, "__name__", "") != "softmax":
        raise ConfigError(
            f"A map belongs to a logit, and the last layer of this network ({last.name}) is no dense layer with a "
            "softmax; give a network of models.build."
        )
    return last


def _check_layer(model: "keras.Model", layer: str) -> None:
    there = picture_layers(model)
    if layer in there:
        return
    if layer in [one.name for one in model.layers]:
        raise ConfigError(
            f"The layer {layer!r} has no frequency and time axes to draw a map over; these have: {', '.join(there)}."
        )
    raise ConfigError(f"Unknown layer {layer!r}; there is: {', '.join(there)}.")


def _windows(layer: Any, before: Any) -> list[tuple[int, int]]:
    """Size and step of a layer's window over each axis."""
    if layer.input is not before.output:
        raise ConfigError(f"The layers up to {layer.name!r} are no chain, so its cells have no place on the input.")
    sizes, steps = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", (1, 1)), (1, 1)
    if sizes != (1, 1) or hasattr(layer, "strides"):
        wide = getattr(layer, "dilation_rate", (1, 1))
        sizes, steps = [(size - 1) * apart + 1 for size, apart in zip(sizes, wide, strict=True)], layer.strides
    same = getattr(layer, "padding", "valid") == "same"
    expected = [
        -(-side // step) if same else (side - size) // step + 1
        for side, size, step in zip(before.output.shape[1:3], sizes, steps, strict=True)
    ]
    if expected != list(layer.output.shape[1:3]):
        raise ConfigError(f"How the layer {layer.name!r} moves its cells over the input is not known.")
    return list(zip(sizes, steps, strict=True))


def _hats(grid: Grid) -> list[np.ndarray]:
    """Weights of linear interpolation between the centres [shape=(n_bins, n_rows) and (n_frames, n_columns)]."""
    return [
        np.stack([np.interp(np.arange(side), centres, unit) for unit in np.eye(len(centres))], axis=1)
        for side, centres in zip(grid.shape, (grid.centre_bin, grid.centre_frame), strict=True)
    ]
