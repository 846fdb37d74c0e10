"""Apply the released model to recordings of any length, block by block, in constant memory."""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instrlib.audio import decode
from instrlib.audio.features import extract, segment_starts
from instrlib.core.config import FeatureConfig
from instrlib.core.io import AudioError, ConfigError
from instrlib.evaluation.calibration import is_named
from instrlib.models.published import Network, PublishedModel, predictor

STUDY_CLIP_S = 60.0
"""Shorter recordings are cut as the study cuts its clips, at most `max_segments` each, so that its scores hold."""

_BLOCK_S = 10.0
_BATCH = 32
_MARGIN = 1e-6

Progress = Callable[[float], None]
"""Progress callback; receives the share that is done, 0 to 1."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for a recording of one instrument."""

    path: Path
    duration_s: float  # of a truncated file: of the readable part
    classes: tuple[str, ...]
    probabilities: np.ndarray  # calibrated, mean over the segments [n_classes]
    named: tuple[str, ...]  # the top class if it reaches its threshold; () if the model abstains

    def top(self, n: int) -> list[tuple[str, float]]:
        """Return the n most probable classes with their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[number], float(self.probabilities[number])) for number in order]


@dataclass(frozen=True)
class Windows:
    """Calibrated probabilities [n, n_classes] of windows of `window_s` seconds that begin at `start_s` [n].

    The last window may extend beyond the end, as silence. Silent windows have probability 0 for every class.
    """

    start_s: np.ndarray
    window_s: float
    probabilities: np.ndarray


def predict_file(path: Path, model: PublishedModel, *, on_progress: Progress | None = None) -> Prediction:
    """Predict the instrument of a recording; unusable files raise `AudioError`."""
    path, network = Path(path), model.single
    starts = _starts(decode.probe(path).duration_s, network.features)
    reader = _Reader(path, network.features.sample_rate_hz)
    found = _predicted(reader, network, starts, network.features.segment_samples, on_progress)
    segments = [probabilities for _, probabilities in found if probabilities is not None]
    if not segments:
        raise AudioError(f"{path}: all analysed parts are silent; use a recording with sound.")
    mean = np.mean(segments, axis=0)
    named = (model.classes[int(mean.argmax())],) if is_named(mean, network.thresholds) else ()
    return Prediction(path, reader.duration_s, model.classes, mean, named)


def window_scores(
    path: Path,
    network: Network,
    *,
    hop_s: float = 1.0,
    window_s: float | None = None,
    on_progress: Progress | None = None,
) -> Windows:
    """Score sliding windows of a recording, from 0 s to its end, with a step of `hop_s` between their starts.

    A window is at most a segment (the default) long; shorter ones are padded with silence. Unusable files raise
    `AudioError`, an unusable hop or window `ConfigError`.
    """
    config = network.features
    window_s = config.segment_s if window_s is None else window_s
    if not decode.MIN_DURATION_S <= window_s <= config.segment_s:
        raise ConfigError(f"window_s must be {decode.MIN_DURATION_S:g} to {config.segment_s:g} s, not {window_s!r}.")
    if not (math.isfinite(hop_s) and hop_s * config.sample_rate_hz >= 1):
        raise ConfigError(f"hop_s must be above 0, not {hop_s!r}.")
    path = Path(path)
    starts = np.arange(_n_windows(decode.probe(path).duration_s, window_s, hop_s)) * hop_s
    reader = _Reader(path, config.sample_rate_hz)
    found = list(_predicted(reader, network, starts, round(window_s * config.sample_rate_hz), on_progress))
    found = found[: _n_windows(reader.duration_s, window_s, hop_s)]  # truncated files have fewer than announced
    silence = np.zeros(len(network.thresholds))
    rows = [silence if probabilities is None else probabilities for _, probabilities in found]
    return Windows(np.array([start_s for start_s, _ in found]), window_s, np.stack(rows))


def recordings(paths: Sequence[Path]) -> list[Path | AudioError]:
    """Replace each folder by its sorted audio files, or by an `AudioError` if it has none."""
    found: list[Path | AudioError] = []
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names that are too long
            found.append(path)
            continue
        from instrlib.data.files import is_audio

        inside = [one for one in sorted(path.rglob("*")) if is_audio(one) and os.path.isfile(one)]  # noqa: PTH113
        found += inside or [AudioError(f"{path}: no audio file in this folder.")]
    return found


def _n_windows(duration_s: float, window_s: float, hop_s: float) -> int:
    return 1 + max(0, math.ceil((duration_s - window_s) / hop_s - _MARGIN))


def _starts(duration_s: float, config: FeatureConfig) -> np.ndarray:
    if duration_s > STUDY_CLIP_S:
        config = dataclasses.replace(config, max_segments=math.ceil(duration_s / config.segment_hop_s) + 1)
    return segment_starts(duration_s, config)


@dataclass
class _Reader:
    """Reads a file once in order and counts its samples, because truncated files have fewer than announced."""

    path: Path
    sample_rate_hz: int
    n_samples: int = 0

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sample_rate_hz

    def stretches(self, starts_s: np.ndarray, n_samples: int) -> Iterator[tuple[float, np.ndarray]]:
        """Yield start and samples of possibly overlapping stretches; the last ones end with the file."""
        waiting = [(float(start_s), round(start_s * self.sample_rate_hz)) for start_s in reversed(starts_s)]
        held, first = np.zeros(0, np.float32), 0  # the buffered samples and the index of the first one
        for block in decode.blocks(self.path, sample_rate_hz=self.sample_rate_hz, block_s=_BLOCK_S):
            held = np.concatenate([held, block])
            self.n_samples += len(block)
            while waiting and waiting[-1][1] + n_samples <= first + len(held):
                start_s, place = waiting.pop()
                yield start_s, held[place - first : place - first + n_samples]
            passed = min(len(held), (waiting[-1][1] if waiting else first + len(held)) - first)
            held, first = held[passed:], first + passed
        while waiting and waiting[-1][1] < first + len(held):
            start_s, place = waiting.pop()
            yield start_s, held[place - first :]


def _predicted(
    reader: _Reader, network: Network, starts_s: np.ndarray, n_samples: int, on_progress: Progress | None
) -> Iterator[tuple[float, np.ndarray | None]]:
    """Yield the start of each stretch and its probabilities, None for silence."""
    config, predict = network.features, predictor(network)
    shortest = decode.MIN_DURATION_S * config.sample_rate_hz
    stretches = reader.stretches(starts_s, n_samples)
    while batch := list(itertools.islice(stretches, _BATCH)):
        sounds = [len(signal) >= shortest and not decode.is_silent(signal) for _, signal in batch]
        spectra = [extract(signal, config) for (_, signal), sound in zip(batch, sounds, strict=True) if sound]
        # Half precision, as in the stored features of training and test.
        found = iter(predict(np.stack(spectra).astype(np.float16))[0]) if spectra else iter(())
        yield from (
            (start_s, next(found) if sound else None) for (start_s, _), sound in zip(batch, sounds, strict=True)
        )
        if on_progress is not None:
            on_progress(min(1.0, (batch[-1][0] + _MARGIN) / (starts_s[-1] + _MARGIN)))
