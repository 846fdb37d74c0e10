"""Settings as frozen dataclasses, the profiles of a study, and its folders; names of quantities carry their unit."""

import dataclasses
import math
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from instrlib.core.errors import ConfigError
from instrlib.core.io import expanded, hash_json, slug


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value` when it is allowed; raise a `ConfigError` that lists the allowed ones otherwise."""
    if value not in allowed:
        raise ConfigError(f"Unknown {what} {value!r}; choose from: {', '.join(allowed)}.")
    return value


class Settings:
    """Base of the settings: checks their types and turns them into plain values and back."""

    def __post_init__(self) -> None:
        """Check that each value has its annotated type; 3 and 3.0 are one number of seconds."""
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            if typing.get_origin(kind) is Literal:
                one_of(name, value, typing.get_args(kind))
            elif kind is float:
                _require(isinstance(value, int | float) and math.isfinite(value), f"{name} must be a number", value)
                object.__setattr__(self, name, float(value))
            elif kind is int:
                _require(isinstance(value, int), f"{name} must be a whole number", value)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the settings that `to_dict` gave; unknown names are refused."""
        fields = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            one_of("setting", name, tuple(sorted(fields)))
        return cls(**values)


def _require(holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise ConfigError(f"{rule}, not {value!r}.")


@dataclass(frozen=True)
class FeatureConfig(Settings):
    """How sound becomes the features that a network sees; stored with every model.

    Attributes
    ----------
    kind : {"log_mel", "mfcc", "pcen"}
        Mel spectrogram in dB; its cepstral coefficients; mel spectrogram with per-channel energy normalisation.
    sample_rate_hz : int
        Rate to which every file is resampled.
    segment_s, segment_hop_s : float
        Length of a segment and distance between the starts of two; a longer clip gives several segments.
    max_segments : int
        Largest number of segments a clip, spread evenly over it.
    n_fft, hop_length : int
        Frame length and step in samples (Hann window, centred frames, as librosa).
    n_mels, n_mfcc : int
        Number of mel bands (Slaney's scale and area normalisation, as librosa) and of coefficients.
    fmin_hz, fmax_hz : float
        Lower and upper edge of the mel bands.
    top_db : float
        Dynamic range: values are dB below the segment's loudest value, cut at -top_db.
    scaling : {"fixed", "segment", "train"}
        "fixed": dB / top_db + 1, so 0 is silence and 1 the loudest (PCEN stays as it is); "segment": each segment to
        mean 0, deviation 1; "train": each band by mean and deviation of the training part.
    """

    kind: Literal["log_mel", "mfcc", "pcen"] = "log_mel"
    sample_rate_hz: int = 22_050
    segment_s: float = 3.0
    segment_hop_s: float = 3.0
    max_segments: int = 6
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 64
    n_mfcc: int = 20
    fmin_hz: float = 30.0
    fmax_hz: float = 11_025.0
    top_db: float = 80.0
    scaling: Literal["fixed", "segment", "train"] = "train"

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or cannot work together."""
        super().__post_init__()
        for name, value in self.to_dict().items():
            if name not in ("kind", "scaling", "fmin_hz"):
                _require(value > 0, f"{name} must be above 0", value)
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise ConfigError(
                f"The mel bands must lie between 0 and half the sample rate ({self.sample_rate_hz / 2:g} Hz): "
                f"fmin_hz={self.fmin_hz:g}, fmax_hz={self.fmax_hz:g}."
            )
        if self.kind == "mfcc":
            _require(self.n_mfcc <= self.n_mels, f"n_mfcc must not exceed n_mels ({self.n_mels})", self.n_mfcc)

    @property
    def segment_samples(self) -> int:
        """Samples in one segment."""
        return round(self.segment_s * self.sample_rate_hz)

    @property
    def n_frames(self) -> int:
        """Frames in one segment."""
        return 1 + self.segment_samples // self.hop_length

    @property
    def n_bins(self) -> int:
        """Mel bands or coefficients."""
        return self.n_mfcc if self.kind == "mfcc" else self.n_mels

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one segment's features, (n_bins, n_frames)."""
        return self.n_bins, self.n_frames

    @property
    def hop_s(self) -> float:
        """Step between two frames in seconds."""
        return self.hop_length / self.sample_rate_hz

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the stored values; `scaling` is applied when they are read and does not count."""
        return hash_json({k: v for k, v in self.to_dict().items() if k != "scaling"})[:16]


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """What is done to the training examples, anew for every batch."""

    # CutMix and MixUp combine two examples and their labels; "layers" adds several and keeps all their labels.
    mix: Literal["none", "cutmix", "mixup", "layers"] = "none"
    axes: Literal["both", "time", "frequency"] = "both"  # that CutMix's box is cut along
    beta: float = 1.0  # both parameters of the Beta distribution of the first example's share
    share: float = 1.0  # of the batches that are mixed
    layers: tuple[int, int] = (1, 4)  # fewest and most examples, all of different classes
    level_range_db: float = 12.0  # largest difference between the first of them and another
    time_masks: int = 0
    time_mask_s: float = 0.0  # the longest
    frequency_masks: int = 0
    frequency_mask_bins: int = 0  # the widest
    retake: float = 0.0  # share of the examples that get recording augmentation

    def __post_init__(self) -> None:
        """Refuse settings that are out of range."""
        super().__post_init__()
        _require(self.beta > 0, "beta must be above 0", self.beta)
        for name in ("share", "retake"):
            _require(0 <= getattr(self, name) <= 1, f"{name} must lie between 0 and 1", getattr(self, name))
        in_order = len(self.layers) == 2 and 1 <= self.layers[0] <= self.layers[1]
        _require(in_order, "layers must be the fewest and the most examples, from 1", self.layers)
        _require(self.level_range_db >= 0, "level_range_db must be at least 0", self.level_range_db)


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How a network is trained.

    Attributes
    ----------
    epochs, batch_size : int
        Largest number of passes over the training part; segments in a batch.
    learning_rate : float
        Adam's first learning rate.
    schedule : {"cosine", "plateau", "constant"}
        Falls to 0 along a cosine; is halved after some epochs without a better validation loss; stays.
    patience : int or None
        Stop after so many epochs without a better one on validation, and keep the best; None keeps the last epoch.
    class_weights : bool
        Weight each class by the inverse of its share of the training part (softmax only).
    label_smoothing : float
        Share of probability spread over all classes, from 0 to below 1.
    augment : AugmentConfig
        What is done to the training examples.
    output : {"softmax", "sigmoid"}
        One class a clip, or any number of them; sigmoid outputs learn from the observed labels alone.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    patience: int | None = None
    class_weights: bool = True
    label_smoothing: float = 0.0
    augment: AugmentConfig = AugmentConfig()
    output: Literal["softmax", "sigmoid"] = "softmax"

    def __post_init__(self) -> None:
        """Refuse settings that cannot work together."""
        super().__post_init__()
        if self.augment.mix == "layers" and self.output != "sigmoid":
            raise ConfigError('augment: mix="layers" gives several labels and needs output="sigmoid".')


@dataclass(frozen=True)
class Profile:
    """How large a study is: "smoke" takes seconds, for tests; "quick" minutes; "full" gives the findings."""

    name: str
    clips_per_class: int  # of the rendered corpus
    max_clips_per_class: int | None  # of corpora from disk; None takes all
    features: FeatureConfig
    train: TrainConfig  # of the baseline
    network: str  # of the comparisons that train many
    experiment: TrainConfig  # of those
    released_clips_per_class: int
    released: TrainConfig  # of the released model
    fine_tune_epochs: int  # while a network is pruned
    trials: int  # of a random search
    rows_per_kind: int | None  # changes of each kind in an ablation; None makes all
    min_test_clips: int  # with fewer, every clip is tested once, by cross-validation over groups
    explained_per_class: int  # clips whose activation maps are tested
    n_bootstrap: int
    notebook_limit_s: float


FOR_RECORDINGS = AugmentConfig(retake=0.5, mix="cutmix", share=0.5)
"""Augmentation of a network that learns from rendered sounds and is used on recordings."""

_SMOKE = Profile(
    name="smoke",
    clips_per_class=12,
    max_clips_per_class=12,
    features=FeatureConfig(hop_length=1024),
    train=TrainConfig(epochs=3),
    network="small",
    experiment=TrainConfig(epochs=3),
    released_clips_per_class=24,
    released=TrainConfig(epochs=2, augment=FOR_RECORDINGS),
    fine_tune_epochs=1,
    trials=2,
    rows_per_kind=1,
    min_test_clips=0,
    explained_per_class=2,
    n_bootstrap=100,
    notebook_limit_s=600.0,
)
_QUICK = dataclasses.replace(
    _SMOKE,
    name="quick",
    clips_per_class=50,
    max_clips_per_class=None,
    train=TrainConfig(epochs=40),
    experiment=TrainConfig(epochs=30),
    released_clips_per_class=400,
    released=TrainConfig(epochs=12, augment=FOR_RECORDINGS),
    fine_tune_epochs=8,
    trials=10,
    rows_per_kind=2,
    min_test_clips=100,
    explained_per_class=4,
    n_bootstrap=1000,
    notebook_limit_s=1800.0,
)
_FULL = dataclasses.replace(
    _QUICK,
    name="full",
    clips_per_class=600,
    features=FeatureConfig(),
    train=TrainConfig(epochs=60),
    experiment=TrainConfig(epochs=40),
    released_clips_per_class=3000,
    released=TrainConfig(epochs=20, augment=FOR_RECORDINGS),
    fine_tune_epochs=12,
    trials=20,
    rows_per_kind=None,
    explained_per_class=20,
    n_bootstrap=10_000,
    notebook_limit_s=12 * 3600.0,
)
PROFILES: dict[str, Profile] = {profile.name: profile for profile in (_SMOKE, _QUICK, _FULL)}


def get_profile(name: str) -> Profile:
    """Return the profile "smoke", "quick" or "full"; refuse any other name.

    Examples
    --------
    >>> get_profile("smoke").train.epochs
    3
    """
    return PROFILES[one_of("profile", name, tuple(PROFILES))]


@dataclass(frozen=True)
class Folders:
    """Folders of the project: corpora and stores, local runs, published numbers and figures, the notebooks."""

    data: Path
    runs: Path
    reports: Path
    figures: Path
    notebooks: Path


def folders() -> Folders:
    """Return the folders under INSTRLIB_ROOT, else under the clone of this package, else under the working folder.

    INSTRLIB_DATA, INSTRLIB_RUNS, INSTRLIB_REPORTS and INSTRLIB_FIGURES each move one of them.
    """
    clone = Path(__file__).resolve().parents[2]
    default = clone if (clone / "notebooks").is_dir() else Path.cwd()
    root = Path(os.environ.get("INSTRLIB_ROOT") or default)
    names = ("data", "runs", "reports", "figures")
    moved = {name: Path(os.environ.get(f"INSTRLIB_{name.upper()}") or root / name) for name in names}
    return Folders(**moved, notebooks=root / "notebooks")


def study_name(corpus: str, profile: str, data: str = "") -> str:
    """Return the name of a study: "<corpus>-<profile>", and for an own folder "folder-<its name>-<profile>".

    Examples
    --------
    >>> study_name("rendered", "quick"), study_name("folder", "quick", "~/My Sounds")
    ('rendered-quick', 'folder-my-sounds-quick')
    """
    own = f"-{slug(expanded(data).absolute().name)}" if corpus == "folder" and data else ""
    return f"{corpus}{own}-{profile}"
