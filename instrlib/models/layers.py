"""Networks as tables with one row per layer, for Keras 3 and tf_keras."""

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError
from instrlib.core.parallel import load_keras

BATCH_NORM_MOMENTUM = 0.9
"""With few steps an epoch Keras' default of .99 leaves the moving averages far behind the weights: on the quick study
validation accuracy then reads .3 where it is .98."""


@dataclass(frozen=True)
class Layer:
    """One row of a network's table."""

    kind: Literal["conv", "dense", "average", "time_average", "flatten"]  # averages: over all axes, or time
    units: int = 0  # filters or units
    kernel: int = 1  # side of the square kernel
    stride: int = 1
    pool: int = 1  # side of the max pooling afterwards
    norm: bool = False  # batch normalisation before the ReLU
    dropout: float = 0.0  # rate afterwards, below 1
    padding: Literal["same", "valid"] = "same"  # with zeros, which keeps the size, or not at all


SPECS: dict[str, tuple[Layer, ...]] = {
    # The default: four convolutions, the first one strided, then the mean over time and frequency, so that any clip
    # length works and the last convolution gives a class activation map.
    "compact": (
        # kind      units  kernel  stride  pool  norm   dropout
        Layer("conv",  24,    5,      2,     2,  True,   0.0),
        Layer("conv",  32,    3,      1,     1,  True,   0.0),
        Layer("conv",  64,    3,      1,     2,  True,   0.0),
        Layer("conv",  96,    3,      1,     1,  True,   0.0),
        Layer("average", dropout=0.3),
    ),
    # A fifth of the multiplications, for comparisons with dozens of trainings.
    "small": (
        Layer("conv",  16,    5,      2,     2,  True,   0.0),
        Layer("conv",  24,    3,      1,     2,  True,   0.0),
        Layer("conv",  48,    3,      1,     1,  True,   0.0),
        Layer("average", dropout=0.3),
    ),
}  # fmt: skip
"""The networks by name; the softmax over the classes, or a sigmoid for each, follows the last row."""


def widen(spec: tuple[Layer, ...], factor: float) -> tuple[Layer, ...]:
    """Return a table with `factor` times as many filters and units per row, at least one."""
    return tuple(replace(row, units=max(min(row.units, 1), round(factor * row.units))) for row in spec)


def build(
    spec: tuple[Layer, ...],
    input_shape: tuple[int, int, int],
    n_classes: int,
    *,
    keras: ModuleType | None = None,
    output: Literal["softmax", "sigmoid"] = "softmax",
    seed: int = 0,
) -> Any:
    """Build the network of a table: from [batch, n_bins, n_frames, 1] to probabilities [batch, n_classes].

    `input_shape` is (n_bins, n_frames, 1). `keras` is Keras 3 (the default) or tf_keras; weights can be copied between
    both. A row that does not fit its input raises `ConfigError`.
    """
    keras = keras or load_keras()
    inputs = x = keras.Input(input_shape, name="features")
    for number, row in enumerate(spec, 1):
        x = _add_row(keras.layers, x, row, number)
    outputs = keras.layers.Dense(n_classes, activation=output, name="scores")(x)
    model = keras.Model(inputs, outputs, name="network")  # TFLite files contain the name
    initialise(model, seed)
    return model


def initialise(model: Any, seed: int) -> None:
    """Reset all weights of a network to their initial values: kernels as in Glorot and Bengio (2010)."""
    number = 0
    for layer in model.layers:
        weights = [np.zeros(one.shape, np.float32) for one in layer.get_weights()]
        if hasattr(layer, "kernel"):
            *places, n_inputs, n_outputs = weights[0].shape
            limit = math.sqrt(6 / (math.prod(places) * (n_inputs + n_outputs)))
            weights[0] = np.random.default_rng((seed, number)).uniform(-limit, limit, weights[0].shape)
            number += 1
        elif weights:  # batch normalisation: gamma, beta, mean, variance
            weights[0] += 1
            weights[3] += 1
        layer.set_weights(weights)


def _add_row(layers: ModuleType, x: Any, row: Layer, number: int) -> Any:
    fits = (row.kind == "dense") != (len(x.shape) == 4)
    if fits and row.kind == "conv":
        margin = row.kernel - 1 if row.padding == "valid" else 0
        fits = min(-(-(side - margin) // row.stride) for side in x.shape[1:3]) >= row.pool
    if not fits:
        raise ConfigError(
            f"Row {number} ({row.kind}, stride {row.stride}, pool {row.pool}) does not fit its input of shape "
            f"{tuple(x.shape[1:])}; pool less, and put dense rows, and only these, after an average or flatten row."
        )
    if row.kind == "conv":
        settings = {"strides": row.stride, "padding": row.padding, "use_bias": not row.norm}
        x = layers.Conv2D(row.units, row.kernel, name=f"conv{number}", **settings)(x)
    elif row.kind == "dense":
        x = layers.Dense(row.units, use_bias=not row.norm, name=f"dense{number}")(x)
    elif row.kind == "average":
        x = layers.GlobalAveragePooling2D(name=f"average{number}")(x)
    else:
        if row.kind == "time_average":
            x = layers.AveragePooling2D((1, x.shape[2]), name=f"average{number}")(x)
        x = layers.Flatten(name=f"flatten{number}")(x)
    if row.norm:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"norm{number}")(x)
    if row.kind in ("conv", "dense"):
        x = layers.ReLU(name=f"relu{number}")(x)
    if row.pool > 1:
        x = layers.MaxPooling2D(row.pool, name=f"pool{number}")(x)
    if row.dropout:
        x = layers.Dropout(row.dropout, name=f"dropout{number}")(x)
    return x


def count_multiply_adds(model: Any, *, nonzero: bool = False) -> int:
    """Return the multiplications of convolutions and dense layers for one input, or those by non-zero weights only."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel)
            places = math.prod(layer.output.shape[1:3]) if kernel.ndim == 4 else 1  # that a convolution uses it at
            total += places * (np.count_nonzero(kernel) if nonzero else kernel.size)
    return int(total)


# -- published networks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A published network; the softmax over the classes follows the table `spec`."""

    features: FeatureConfig
    spec: tuple[Layer, ...]
    train: TrainConfig


_WINDOW = {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "fmin_hz": 0.0}
_MFCC = {"kind": "mfcc", "n_fft": 512, "hop_length": 160, "n_mels": 26, "n_mfcc": 13, "fmin_hz": 0.0}
_MASKS = {"time_masks": 1, "time_mask_s": 19 * 512 / 22_050, "frequency_masks": 1, "frequency_mask_bins": 9}

# If a description omits the epochs, training stops after 8 without improvement on validation, or after 20.
_PLAIN = TrainConfig(20, 32, 1e-3, "constant", patience=8, class_weights=False)

REFERENCES: dict[str, Reference] = {
    "layered-four": Reference(
        FeatureConfig(**_WINDOW, segment_s=12.0, segment_hop_s=12.0, max_segments=1, scaling="segment"),
        (
            # kind      units  kernel  stride  pool  norm   dropout
            Layer("conv",  16,    3,      1,     2,  True),
            Layer("conv",  32,    3,      1,     2,  True),
            Layer("conv",  64,    3,      1,     2,  True),
            Layer("flatten"),
            Layer("dense", 128),
        ),
        _PLAIN,
    ),
    "irmas-app": Reference(
        FeatureConfig(**_WINDOW),
        (
            Layer("conv",  32,    3,      1,     2,  True),
            Layer("conv",  64,    3,      1,     2,  True),
            Layer("conv",  128,   3,      1,     2,  True),
            Layer("average"),
            Layer("dense", 128,   dropout=0.5),
        ),
        TrainConfig(30, 32, 5e-4, "plateau", patience=30, augment=AugmentConfig(**_MASKS)),
    ),
    "nsynth-condition": Reference(
        # 2.96 s give its 128 frames, which it cuts from 3 s.
        FeatureConfig(**_WINDOW, segment_s=2.96, segment_hop_s=2.96, scaling="fixed"),
        (
            Layer("conv",  32,    3,      1,     2,  padding="valid"),
            Layer("conv",  64,    3,      1,     2,  padding="valid"),
            Layer("conv",  128,   3,      1,     2,  padding="valid"),
            Layer("flatten"),
            Layer("dense", 256,   dropout=0.5),
        ),
        _PLAIN,
    ),
    "freesound-cutmix": Reference(
        # Its 275 frames result from a window and step for 16 kHz; 1.99 s give as many centred frames.
        FeatureConfig(**_MFCC, segment_s=1.99, segment_hop_s=1.99, scaling="fixed"),
        (
            Layer("conv",  40,    3,      dropout=0.2),
            Layer("conv",  32,    1,      dropout=0.2),
            Layer("conv",  16,    1,      dropout=0.2),
            Layer("flatten"),
            Layer("dense", 64,    dropout=0.2),
            Layer("dense", 16,    dropout=0.2),
            Layer("dense", 12,    dropout=0.1),
        ),
        replace(_PLAIN, augment=AugmentConfig("cutmix", axes="both", beta=1.0, share=0.5)),
    ),
    "openmic-vggish": Reference(
        FeatureConfig(**_WINDOW),
        (
            Layer("time_average"),
            Layer("dense", 1024,  norm=True, dropout=0.5),
            Layer("dense", 512,   norm=True, dropout=0.4),
        ),
        TrainConfig(40, 32, 1e-4, "plateau", patience=8, class_weights=False),
    ),
}  # fmt: skip
"""The networks of five published projects, rebuilt from their descriptions, the most expensive first; notebook 08 lists
their data, the reported accuracies, and how the rebuilt networks differ."""
