"""Networks as tables: one row a layer, read from top to bottom, built under Keras 3 or tf_keras alike."""

import bisect
import dataclasses
import functools
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np

from instrlib.core.backend import load_keras
from instrlib.core.errors import ConfigError

BATCH_NORM_MOMENTUM = 0.9
"""With few steps an epoch Keras' default of .99 leaves the moving averages far behind the weights: on the quick study
validation accuracy then reads .3 where it is .98."""


@dataclass(frozen=True)
class Layer:
    """One row of a network's table.

    Attributes
    ----------
    kind : {"conv", "dense", "average", "time_average", "flatten"}
        Convolution over frequency and time; dense layer; mean over both axes; mean over time alone; all values in one
        row.
    units : int
        Filters or units.
    kernel, stride, pool : int
        Side of the square kernel, of the step, and of the max pooling after it (1: none).
    norm : bool
        Batch normalisation before the ReLU.
    dropout : float
        Share dropped after it, 0 to below 1.
    padding : {"same", "valid"}
        Whether a convolution sees zeros beyond the edges and keeps the size, or stays within them.
    """

    kind: Literal["conv", "dense", "average", "time_average", "flatten"]
    units: int = 0
    kernel: int = 1
    stride: int = 1
    pool: int = 1
    norm: bool = False
    dropout: float = 0.0
    padding: Literal["same", "valid"] = "same"


SPECS: dict[str, tuple[Layer, ...]] = {
    # The default: four convolutions, the first one strided, and the mean over time and frequency, so that the length
    # of the clip does not matter and a class activation map can be read from the last convolution.
    "compact": (
        # kind      units  kernel  stride  pool  norm   dropout
        Layer("conv",  24,    5,      2,     2,  True,   0.0),
        Layer("conv",  32,    3,      1,     1,  True,   0.0),
        Layer("conv",  64,    3,      1,     2,  True,   0.0),
        Layer("conv",  96,    3,      1,     1,  True,   0.0),
        Layer("average", dropout=0.3),
    ),
    # A fifth of the work, for comparisons that train dozens of networks.
    "small": (
        Layer("conv",  16,    5,      2,     2,  True,   0.0),
        Layer("conv",  24,    3,      1,     2,  True,   0.0),
        Layer("conv",  48,    3,      1,     1,  True,   0.0),
        Layer("average", dropout=0.3),
    ),
}  # fmt: skip
"""The networks by name; the softmax over the classes, or a sigmoid for each, follows the last row."""


def get_spec(name: str) -> tuple[Layer, ...]:
    """Return the table called `name`.

    Raises
    ------
    ConfigError
        When there is none; the message lists those there are.

    Examples
    --------
    >>> [layer.units for layer in get_spec("compact") if layer.kind == "conv"]
    [24, 32, 64, 96]
    """
    if name not in SPECS:
        raise ConfigError(f"Unknown network {name!r}; there is: {', '.join(SPECS)}.")
    return SPECS[name]


def widen(spec: tuple[Layer, ...], factor: float) -> tuple[Layer, ...]:
    """Return a table with more or fewer filters and units in every row, at least one.

    Parameters
    ----------
    spec : tuple of Layer
        The table.
    factor : float
        Above 0; below 1 makes it narrower.

    Returns
    -------
    tuple of Layer

    Examples
    --------
    >>> [layer.units for layer in widen(get_spec("compact"), 0.5) if layer.kind == "conv"]
    [12, 16, 32, 48]
    """
    return tuple(
        dataclasses.replace(layer, units=max(1, round(factor * layer.units))) if layer.units else layer
        for layer in spec
    )


def resize(
    spec: tuple[Layer, ...], input_shape: tuple[int, int, int], n_classes: int, *, n_parameters: int
) -> tuple[Layer, ...]:
    """Make a table narrower, each layer by the same factor, until its network has about so many parameters.

    Parameters
    ----------
    spec : tuple of Layer
        The table.
    input_shape, n_classes
        See `build`.
    n_parameters : int
        How many are wanted, at most those of `spec`.

    Returns
    -------
    tuple of Layer
        Of all widths, the one whose network comes nearest.
    """
    widest = max(layer.units for layer in spec)

    def distance(units: int) -> int:
        return build(widen(spec, units / widest), input_shape, n_classes).count_params() - n_parameters

    # The number of parameters grows with the width, so halving finds the last width that has no more than wanted.
    enough = bisect.bisect_left(range(1, widest + 1), 1, key=distance)
    nearest = min({max(enough, 1), min(enough + 1, widest)}, key=lambda units: abs(distance(units)))
    return widen(spec, nearest / widest)


def build(
    spec: tuple[Layer, ...],
    input_shape: tuple[int, int, int],
    n_classes: int,
    *,
    keras: ModuleType | None = None,
    fused: bool = False,
    output: Literal["softmax", "sigmoid"] = "softmax",
) -> Any:
    """Build the network of a table.

    Parameters
    ----------
    spec : tuple of Layer
        The table.
    input_shape : tuple of int
        (n_bins, n_frames, 1).
    n_classes : int
        Units of the last layer, at least 2.
    keras : module, optional
        `keras` (version 3, the default) or `tf_keras`; both give the same network, and weights pass from one to the
        other by `get_weights` and `set_weights`.
    fused : bool
        Normalise with TensorFlow's fused kernel, which trains a tenth faster; Keras 3 alone. The weights are those of
        the network without it, which is the one to keep: its file needs nothing but Keras.
    output : {"softmax", "sigmoid"}
        Probabilities that sum to 1, or one for each class by itself.

    Returns
    -------
    keras.Model
        Input [shape=(batch, n_bins, n_frames, 1)], output probabilities [shape=(batch, n_classes)].

    Raises
    ------
    ConfigError
        When a row does not fit what comes before it; the message names the row.
    """
    keras = keras or load_keras()
    layers = keras.layers
    normalization = _fused_normalization() if fused else layers.BatchNormalization
    inputs = keras.Input(input_shape, name="features")
    x = inputs
    for number, row in enumerate(spec, 1):
        x = _add_row(layers, normalization, x, row, number)
    outputs = layers.Dense(n_classes, activation=output, name="scores")(x)
    return keras.Model(inputs, outputs)


def output_of(model: Any) -> str:
    """Return which of "softmax" and "sigmoid" a network ends with; see `build`."""
    return model.layers[-1].activation.__name__


@functools.cache
def _fused_normalization() -> type:
    keras = load_keras()
    import tensorflow as tf

    class FusedBatchNormalization(keras.layers.BatchNormalization):
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if not training or not self.trainable or len(inputs.shape) != 4:
                return super().call(inputs, training=training, mask=mask)
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, self.gamma.value, self.beta.value, epsilon=self.epsilon, is_training=True
            )
            # The kernel gives the variance of a sample, Keras keeps that of the batch.
            n = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], variance.dtype)
            for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance * (n - 1) / n)):
                kept.assign(self.momentum * kept + (1 - self.momentum) * new)
            return outputs

    return FusedBatchNormalization


def _add_row(layers: ModuleType, normalization: type, x: Any, row: Layer, number: int) -> Any:
    picture = len(x.shape) == 4
    if (row.kind == "dense") == picture:
        raise ConfigError(
            f"Row {number} ({row.kind}) does not fit its input of shape {tuple(x.shape[1:])}: a dense row stands after "
            "an average or flatten row, all others before it."
        )
    if row.kind == "conv":
        margin = row.kernel - 1 if row.padding == "valid" else 0
        smallest = min(-(-(side - margin) // row.stride) for side in x.shape[1:3])
        if smallest < row.pool:
            raise ConfigError(
                f"Row {number} (conv, stride {row.stride}, pool {row.pool}) does not fit its input of "
                f"{x.shape[1]} x {x.shape[2]}: nothing is left to pool; use less pooling or a longer segment."
            )
        x = layers.Conv2D(
            row.units,
            row.kernel,
            strides=row.stride,
            padding=row.padding,
            use_bias=not row.norm,
            name=f"conv{number}",
        )(x)
    elif row.kind == "dense":
        x = layers.Dense(row.units, use_bias=not row.norm, name=f"dense{number}")(x)
    elif row.kind == "average":
        x = layers.GlobalAveragePooling2D(name=f"average{number}")(x)
    elif row.kind == "time_average":
        x = layers.AveragePooling2D((1, x.shape[2]), name=f"average{number}")(x)
        x = layers.Flatten(name=f"flatten{number}")(x)
    else:
        x = layers.Flatten(name=f"flatten{number}")(x)
    if row.norm:
        x = normalization(momentum=BATCH_NORM_MOMENTUM, name=f"norm{number}")(x)
    if row.kind in ("conv", "dense"):
        x = layers.ReLU(name=f"relu{number}")(x)
    if row.pool > 1:
        x = layers.MaxPooling2D(row.pool, name=f"pool{number}")(x)
    if row.dropout:
        x = layers.Dropout(row.dropout, name=f"dropout{number}")(x)
    return x


def count_multiply_adds(model: Any, *, nonzero: bool = False) -> int:
    """Count the multiplications of a forward pass over one input, in convolutions and dense layers.

    Parameters
    ----------
    model : keras.Model
        Built by `build`.
    nonzero : bool
        Leave out those by a weight that is zero: what a runtime that skips zeros would have to do.

    Returns
    -------
    int
        Multiply-adds; normalisation, pooling and activations are not counted, as is usual.
    """
    total = 0
    for layer in model.layers:
        if type(layer).__name__ in ("Conv2D", "Dense"):
            kernel = np.asarray(layer.kernel)
            # A convolution uses each weight once for every place of its output.
            places = math.prod(layer.output.shape[1:3]) if kernel.ndim == 4 else 1
            total += places * (np.count_nonzero(kernel) if nonzero else kernel.size)
    return int(total)
