"""Settings as frozen dataclasses; every name of a physical quantity carries its unit."""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from instrlib.core.errors import ConfigError
from instrlib.core.files import hash_json


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return a value that is allowed; refuse any other with a `ConfigError` that lists those there are."""
    if value not in allowed:
        raise ConfigError(f"Unknown {what} {value!r}; there is: {', '.join(allowed)}.")
    return value


@dataclass(frozen=True)
class FeatureConfig:
    """How sound becomes the picture that a network sees; stored with every model and used wherever it is used.

    Attributes
    ----------
    kind : {"log_mel", "mfcc", "pcen"}
        Mel spectrogram in dB; mel-frequency cepstral coefficients of it; mel spectrogram with per-channel energy
        normalisation.
    sample_rate_hz : int
        Rate to which every file is brought.
    segment_s, segment_hop_s : float
        Length of a segment and distance between the starts of two; a longer clip gives several segments.
    max_segments : int
        At most so many segments a clip, spread evenly over it, so that long clips do not outweigh short ones.
    n_fft, hop_length : int
        Frame length and step in samples (Hann window, centred frames, as librosa).
    n_mels : int
        Number of mel bands (Slaney's scale and area normalisation, as librosa).
    n_mfcc : int
        Number of coefficients when `kind` is "mfcc".
    fmin_hz, fmax_hz : float
        Lower and upper edge of the mel bands.
    top_db : float
        Dynamic range: values are dB below the segment's loudest value, cut at -top_db, the floor.
    scaling : {"fixed", "segment", "train"}
        "fixed": dB / top_db + 1, so 0 is silence and 1 the loudest (PCEN stays as it is); "segment": each segment to
        mean 0, deviation 1; "train": each band by mean and deviation fitted on the training part alone.
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
        """Refuse settings that cannot work together."""
        one_of("kind", self.kind, ("log_mel", "mfcc", "pcen"))
        one_of("scaling", self.scaling, ("fixed", "segment", "train"))
        for name in (
            "sample_rate_hz",
            "segment_s",
            "segment_hop_s",
            "max_segments",
            "n_fft",
            "hop_length",
            "n_mels",
            "n_mfcc",
            "top_db",
        ):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, not {value!r}.")
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise ConfigError(
                f"The mel bands must lie between 0 and half the sample rate ({self.sample_rate_hz / 2:g} Hz): "
                f"fmin_hz={self.fmin_hz:g}, fmax_hz={self.fmax_hz:g}."
            )
        if self.kind == "mfcc" and self.n_mfcc > self.n_mels:
            raise ConfigError(f"n_mfcc ({self.n_mfcc}) must not be above n_mels ({self.n_mels}).")

    @property
    def segment_samples(self) -> int:
        """Samples in one segment."""
        return round(self.segment_s * self.sample_rate_hz)

    @property
    def n_frames(self) -> int:
        """Frames in one segment (centred frames)."""
        return 1 + self.segment_samples // self.hop_length

    @property
    def n_bins(self) -> int:
        """Rows of the picture: mel bands or coefficients."""
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
        """Hash of what decides the stored values; `scaling` happens when they are read and does not count."""
        return hash_json({k: v for k, v in self.to_dict().items() if k != "scaling"})[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild the settings from `to_dict`; unknown names are refused."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"Unknown feature setting: {', '.join(unknown)}.")
        return cls(**values)


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to the training examples, anew for every batch; see `augment`.

    Attributes
    ----------
    mix : {"none", "cutmix", "mixup", "layers"}
        Two examples made into one, and their labels with them; or several examples sounding at once, each of their
        labels present.
    axes : {"both", "time", "frequency"}
        Which axes the box of CutMix is cut along; along the other it spans everything.
    beta : float
        Both parameters of the Beta distribution that the share of the first example is drawn from, above 0.
    share : float
        Share of the batches that are mixed, 0 to 1.
    layers : tuple of int
        Fewest and most examples that "layers" lays over each other, all of different classes; each number is drawn
        alike.
    level_range_db : float
        Largest difference of level between the first of them and another, in dB.
    time_masks, frequency_masks : int
        Stripes of silence over each example.
    time_mask_s : float
        Longest stripe over time, in seconds.
    frequency_mask_bins : int
        Widest stripe over frequency, in rows of the picture.
    retake : float
        Share of the examples that are heard as in another recording, 0 to 1; see `takes.retake`.
    """

    mix: Literal["none", "cutmix", "mixup", "layers"] = "none"
    axes: Literal["both", "time", "frequency"] = "both"
    beta: float = 1.0
    share: float = 1.0
    layers: tuple[int, int] = (1, 4)
    level_range_db: float = 12.0
    time_masks: int = 0
    time_mask_s: float = 0.0
    frequency_masks: int = 0
    frequency_mask_bins: int = 0
    retake: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        one_of("mix", self.mix, ("none", "cutmix", "mixup", "layers"))
        one_of("axes", self.axes, ("both", "time", "frequency"))
        if not self.beta > 0:
            raise ConfigError(f"beta must be above 0, not {self.beta!r}.")
        for name in ("share", "retake"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(self, name)!r}.")
        if not (len(self.layers) == 2 and 1 <= self.layers[0] <= self.layers[1]):
            raise ConfigError(f"layers must be the fewest and the most examples, from 1, not {self.layers!r}.")
        if not 0 <= self.level_range_db < math.inf:
            raise ConfigError(f"level_range_db must be a number from 0, not {self.level_range_db!r}.")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        At most so many passes over the training part.
    batch_size : int
        Segments in a batch.
    learning_rate : float
        Adam's first learning rate.
    schedule : {"cosine", "plateau", "constant"}
        How it goes on: to 0 along a cosine; halved after some epochs without a better validation loss; as it is.
    patience : int
        Stop after so many epochs without a better one on validation; its weights are kept, see `training.train_model`.
    class_weights : bool
        Weigh each class by the inverse of its share of the training part; softmax outputs alone. With sigmoid outputs
        every observed label weighs the same: heavier present ones would raise all probabilities above what is found.
    label_smoothing : float
        Share of probability spread over all classes, or over present and absent, from 0 to below 1.
    augment : AugmentConfig
        What is done to the training examples; by default nothing.
    output : {"softmax", "sigmoid"}
        One class a clip, or any number of them: then the probability of each is learned by itself, from the clips in
        which it was observed to be present or absent.
    """

    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    patience: int = 8
    class_weights: bool = True
    label_smoothing: float = 0.0
    augment: AugmentConfig = AugmentConfig()
    output: Literal["softmax", "sigmoid"] = "softmax"

    def __post_init__(self) -> None:
        """Refuse settings that there are not, or that cannot work together."""
        one_of("schedule", self.schedule, ("cosine", "plateau", "constant"))
        one_of("output", self.output, ("softmax", "sigmoid"))
        if self.augment.mix == "layers" and self.output != "sigmoid":
            raise ConfigError('Layered examples have several labels: mix="layers" needs output="sigmoid".')


@dataclass(frozen=True)
class Folders:
    """Where things lie. All can be moved by environment variables, so that tests never touch a user's folders.

    Attributes
    ----------
    data, runs, reports, figures, notebooks : Path
        Corpora and feature stores; artefacts of a run; committed numbers; committed pictures; the notebooks.
    """

    data: Path
    runs: Path
    reports: Path
    figures: Path
    notebooks: Path


def folders() -> Folders:
    """Return the folders in force.

    The root is `INSTRLIB_ROOT`, else the clone that this package lies in when it is one, else the working folder;
    `INSTRLIB_DATA`, `INSTRLIB_RUNS`, `INSTRLIB_REPORTS` and `INSTRLIB_FIGURES` move one folder alone.
    """
    clone = Path(__file__).resolve().parents[2]
    default = clone if (clone / "notebooks").is_dir() else Path.cwd()
    root = Path(os.environ.get("INSTRLIB_ROOT") or default)
    moved = {
        name: Path(os.environ.get(f"INSTRLIB_{name.upper()}") or root / name)
        for name in ("data", "runs", "reports", "figures")
    }
    return Folders(**moved, notebooks=root / "notebooks")
