"""Settings as frozen dataclasses, profiles of a study, and folders; names of quantities end with their unit."""

import dataclasses
import math
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from instrlib.core.io import ConfigError, expanded, hash_json, slug


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is allowed; otherwise raise a `ConfigError` that lists the allowed values."""
    if value not in allowed:
        raise ConfigError(f"Unknown {what} {value!r}; choose from: {', '.join(allowed)}.")
    return value


class Settings:
    """Base class of settings: checks types and limits, and converts to and from plain values."""

    limits: ClassVar[dict[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        """Check types and limits; an int becomes a float where floats are expected."""
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            low, high = self.limits.get(name, (-math.inf, math.inf))
            if typing.get_origin(kind) is Literal:
                one_of(name, value, typing.get_args(kind))
            elif kind in (int, float):
                if not (isinstance(value, int | kind) and math.isfinite(value) and low <= value <= high):
                    what = "a whole number" if kind is int else "a number"
                    raise ConfigError(f"{name} must be {what} from {low:g} to {high:g}, not {value!r}.")
                object.__setattr__(self, name, kind(value))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the settings of a `to_dict`; unknown names raise `ConfigError`."""
        for name in values:
            one_of("setting", name, tuple(sorted(field.name for field in dataclasses.fields(cls))))
        return cls(**values)


@dataclass(frozen=True)
class FeatureConfig(Settings):
    """Feature settings; stored with every model. Frames and mel bands follow librosa (Hann, centred, Slaney)."""

    kind: Literal["log_mel", "mfcc", "pcen"] = "log_mel"  # dB; cepstral coefficients; per-channel energy normalisation
    sample_rate_hz: int = 22_050  # files are resampled to this rate
    segment_s: float = 3.0
    segment_hop_s: float = 3.0  # between the starts of two segments; longer clips give several
    max_segments: int = 6  # per clip, evenly spaced
    n_fft: int = 2048  # samples
    hop_length: int = 512  # samples
    n_mels: int = 64
    n_mfcc: int = 20
    fmin_hz: float = 30.0  # lower edge of the mel bands
    fmax_hz: float = 11_025.0  # upper edge of the mel bands
    top_db: float = 80.0  # values are dB below the loudest value of the segment, clipped at -top_db
    scaling: Literal["fixed", "segment", "train"] = "train"  # see `audio.features.scale`

    limits: ClassVar = {
        **dict.fromkeys(("sample_rate_hz", "max_segments", "n_fft", "hop_length", "n_mels", "n_mfcc"), (1, math.inf)),
        **dict.fromkeys(("segment_s", "segment_hop_s", "top_db"), (1e-3, math.inf)),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise ConfigError(
                f"The mel bands must be between 0 and half the sample rate ({self.sample_rate_hz / 2:g} Hz): "
                f"fmin_hz={self.fmin_hz:g}, fmax_hz={self.fmax_hz:g}."
            )
        if self.kind == "mfcc" and self.n_mfcc > self.n_mels:
            raise ConfigError(f"n_mfcc must not exceed n_mels ({self.n_mels}), not {self.n_mfcc}.")

    @property
    def segment_samples(self) -> int:
        """Samples in one segment."""
        return round(self.segment_s * self.sample_rate_hz)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one segment's features, (n_bins, n_frames); the bins are mel bands or coefficients."""
        n_bins = self.n_mfcc if self.kind == "mfcc" else self.n_mels
        return n_bins, 1 + self.segment_samples // self.hop_length

    @property
    def hop_s(self) -> float:
        """Time between two frames in seconds."""
        return self.hop_length / self.sample_rate_hz

    @property
    def fingerprint(self) -> str:
        """Hash of the settings of stored features; `scaling` is excluded, because it is applied on reading."""
        return hash_json({k: v for k, v in self.to_dict().items() if k != "scaling"})[:16]


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """Augmentation of the training examples, drawn again for every batch."""

    # CutMix and MixUp mix two examples and their labels; "mixtures" adds several examples and keeps all labels.
    mix: Literal["none", "cutmix", "mixup", "mixtures"] = "none"
    axes: Literal["both", "time", "frequency"] = "both"  # of the CutMix box
    beta: float = 1.0  # both parameters of the Beta distribution of the share of the first example
    share: float = 1.0  # of the batches, to be mixed
    n_sources: tuple[int, int] = (1, 4)  # smallest and largest number of examples, all of different classes
    level_range_db: float = 12.0  # largest level difference from the first example
    time_masks: int = 0
    time_mask_s: float = 0.0  # the longest
    frequency_masks: int = 0
    frequency_mask_bins: int = 0  # the widest
    recording: float = 0.0  # share of the examples that get recording augmentation

    limits: ClassVar = {"beta": (1e-6, math.inf), "share": (0, 1), "recording": (0, 1), "level_range_db": (0, math.inf)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (len(self.n_sources) == 2 and 1 <= self.n_sources[0] <= self.n_sources[1]):
            raise ConfigError(f"n_sources must be the fewest and the most examples, from 1, not {self.n_sources!r}.")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Training settings of a network."""

    epochs: int = 30  # at most
    batch_size: int = 32  # segments
    learning_rate: float = 3e-3  # initial, of Adam
    # Cosine decay to 0; halving after epochs without a lower validation loss; no change.
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    patience: int | None = None  # epochs without improvement on validation, then keep the best; None: keep the last
    class_weights: bool = True  # the inverse of each class's share of the training part (softmax only)
    label_smoothing: float = 0.0  # share of the probability that is spread over all classes
    augment: AugmentConfig = AugmentConfig()
    # One class per clip, or any number of classes, trained on the observed labels only.
    output: Literal["softmax", "sigmoid"] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment.mix == "mixtures" and self.output != "sigmoid":
            raise ConfigError('mix="mixtures" gives several labels per clip and requires output="sigmoid".')


@dataclass(frozen=True)
class Profile:
    """Size of a study: "smoke" (seconds, for tests), "quick" (minutes) or "full" (for results)."""

    name: str
    clips_per_class: int  # of the rendered corpus
    max_clips_per_class: int | None  # of corpora on disk; None uses all
    features: FeatureConfig
    train: TrainConfig  # of the baseline
    network: str  # of comparisons with many trainings
    experiment: TrainConfig  # of these comparisons
    released_clips_per_class: int
    released: TrainConfig  # of the released model
    fine_tune_epochs: int  # while a network is pruned
    trials: int  # of a random search
    rows_per_kind: int | None  # changes of each kind in an ablation; None for all
    min_test_clips: int  # with fewer, cross-validation over groups tests every clip once
    explained_per_class: int  # clips with tested activation maps
    n_bootstrap: int
    notebook_limit_s: float


FOR_RECORDINGS = AugmentConfig(recording=0.5, mix="cutmix", share=0.5)
"""Augmentation of a network that learns from rendered sounds and is used on recordings."""

_SIZES: dict[str, tuple[Any, Any, Any]] = {  # smoke, quick, full
    "clips_per_class": (12, 50, 600),
    "max_clips_per_class": (12, None, None),
    "features": (FeatureConfig(hop_length=1024), FeatureConfig(hop_length=1024), FeatureConfig()),
    "train": tuple(TrainConfig(epochs=epochs) for epochs in (3, 40, 60)),
    "network": ("small", "small", "small"),
    "experiment": tuple(TrainConfig(epochs=epochs) for epochs in (3, 30, 40)),
    "released_clips_per_class": (24, 400, 3000),
    "released": tuple(TrainConfig(epochs=epochs, augment=FOR_RECORDINGS) for epochs in (2, 12, 20)),
    "fine_tune_epochs": (1, 8, 12),
    "trials": (2, 10, 20),
    "rows_per_kind": (1, 2, None),
    "min_test_clips": (0, 100, 100),
    "explained_per_class": (2, 4, 20),
    "n_bootstrap": (100, 1000, 10_000),
    "notebook_limit_s": (600.0, 1800.0, 12 * 3600.0),
}
PROFILES = {
    name: Profile(name, **{setting: sizes[number] for setting, sizes in _SIZES.items()})
    for number, name in enumerate(("smoke", "quick", "full"))
}


def get_profile(name: str) -> Profile:
    """Return the profile "smoke", "quick" or "full"; other names raise `ConfigError`."""
    return PROFILES[one_of("profile", name, tuple(PROFILES))]


@dataclass(frozen=True)
class Folders:
    """Folders of the project: corpora and feature stores, local runs, published reports, figures and notebooks."""

    data: Path
    runs: Path
    reports: Path
    figures: Path
    notebooks: Path


def folders() -> Folders:
    """Return the folders under INSTRLIB_ROOT, else under the clone of this package, else under the working folder.

    INSTRLIB_DATA, INSTRLIB_RUNS, INSTRLIB_REPORTS and INSTRLIB_FIGURES override single folders.
    """
    clone = Path(__file__).resolve().parents[2]
    default = clone if (clone / "notebooks").is_dir() else Path.cwd()
    root = expanded(os.environ.get("INSTRLIB_ROOT") or default)
    names = ("data", "runs", "reports", "figures")
    moved = {name: expanded(os.environ.get(f"INSTRLIB_{name.upper()}") or root / name) for name in names}
    return Folders(**moved, notebooks=root / "notebooks")


def study_name(corpus: str, profile: str, data: str = "") -> str:
    """Return the name of a study: "<corpus>-<profile>", or "folder-<folder name>-<profile>" for own recordings."""
    own = f"-{slug(expanded(data).absolute().name)}" if corpus == "folder" and data else ""
    return f"{corpus}{own}-{profile}"
