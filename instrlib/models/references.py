"""The networks of five published projects, rebuilt from their descriptions: input, layers and training.

Notebook 08 lists their data, the reported accuracies, and how the rebuilt networks differ.
"""

from dataclasses import dataclass, replace

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.models.layers import Layer


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
"""The networks by the names of their projects, the most expensive first."""
