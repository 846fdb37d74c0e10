"""What a published model hears in a recording of any length, read block by block.

Nothing here grows with the length of the file but a row of probabilities for each window.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instrlib.audio import decode as audio
from instrlib.audio.features import segment_starts, spectrum
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import AudioError, ConfigError
from instrlib.evaluation.calibration import is_named
from instrlib.models.published import Network, PublishedModel, listener

STUDY_CLIP_S = 60.0
"""Up to this duration a recording is cut as the study cuts its clips, into at most `max_segments`, so that the scores
of the study hold for it; of a longer one every segment is heard."""

_BLOCK_S = 10.0
_BATCH = 32
_MARGIN = 1e-6

Progress = Callable[[float], None]
"""Told which share of a recording is done, 0 to 1."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of a recording of one instrument.

    Attributes
    ----------
    path : Path
        The file.
    duration_s : float
        How long it is; of a truncated file what there is of it.
    classes : tuple of str
        What can be named.
    probabilities : np.ndarray [shape=(n_classes,)]
        Mean over the segments of the calibrated probabilities; they sum to 1.
    named : tuple of str
        The most probable class when it reaches its threshold; () means "none of these".
    """

    path: Path
    duration_s: float
    classes: tuple[str, ...]
    probabilities: np.ndarray
    named: tuple[str, ...]

    def top(self, n: int) -> list[tuple[str, float]]:
        """Return the n most probable classes with their probabilities, the first one first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[number], float(self.probabilities[number])) for number in order]


@dataclass(frozen=True)
class Windows:
    """What a network says of a recording, window by window.

    Attributes
    ----------
    start_s : np.ndarray [shape=(n,)]
        Where each window begins.
    window_s : float
        How long a window is; the last one can run over the end of the recording, as silence.
    probabilities : np.ndarray [shape=(n, n_classes)]
        Calibrated. 0 for every class in a window without sound (nothing above `audio.SILENCE_DBFS`).
    """

    start_s: np.ndarray
    window_s: float
    probabilities: np.ndarray


def predict_file(path: Path, model: PublishedModel, *, on_progress: Progress | None = None) -> Prediction:
    """Name the instrument of a recording.

    Parameters
    ----------
    path : Path
        A wav, flac, ogg or mp3 file of any length.
    model : PublishedModel
        See `published.open_model`.
    on_progress : callable, optional
        Told how far it is.

    Returns
    -------
    Prediction

    Raises
    ------
    AudioError
        When the file cannot be used: missing, damaged, too short, silent.
    """
    path, network = Path(path), model.single
    starts = _starts(audio.probe(path).duration_s, network.features)
    total, n_heard, length = np.zeros(len(model.classes)), 0, _Length()
    for _, heard in _listen(path, network, starts, network.features.segment_samples, length, on_progress):
        if heard is not None:
            total += heard
            n_heard += 1
    if not n_heard:
        raise AudioError(f"{path}: silent in every part that is listened to.")
    mean = total / n_heard
    named = (model.classes[int(mean.argmax())],) if is_named(mean, network.thresholds) else ()
    return Prediction(path, length.samples / network.features.sample_rate_hz, model.classes, mean, named)


def window_scores(
    path: Path,
    network: Network,
    *,
    hop_s: float = 1.0,
    window_s: float | None = None,
    on_progress: Progress | None = None,
) -> Windows:
    """Let a network hear a recording through windows that slide over it.

    Parameters
    ----------
    path : Path
        A wav, flac, ogg or mp3 file of any length.
    network : Network
        One of a published model's.
    hop_s : float
        From the beginning of one window to that of the next, above 0.
    window_s : float, optional
        Length of a window, at most a segment, as which it is heard (what is missing is silence); a segment when left
        out.
    on_progress : callable, optional
        Told how far it is.

    Returns
    -------
    Windows
        They begin at 0, hop_s, 2 hop_s and so on, until one reaches the end of the recording.

    Raises
    ------
    AudioError
        See `predict_file`.
    ConfigError
        When the hop or the window is no length that can be used.
    """
    config = network.features
    window_s = config.segment_s if window_s is None else window_s
    if not audio.MIN_DURATION_S <= window_s <= config.segment_s:
        raise ConfigError(
            f"A window of this network lasts from {audio.MIN_DURATION_S:g} to {config.segment_s:g} s, not {window_s!r}."
        )
    if not (math.isfinite(hop_s) and hop_s * config.sample_rate_hz >= 1):
        raise ConfigError(f"The hop between two windows must be a length above 0, not {hop_s!r}.")
    path = Path(path)
    starts = np.arange(_n_windows(audio.probe(path).duration_s, window_s, hop_s)) * hop_s
    n_samples = round(window_s * config.sample_rate_hz)
    begins, rows, length = [], [], _Length()
    for begin, heard in _listen(path, network, starts, n_samples, length, on_progress):
        begins.append(begin)
        rows.append(np.zeros_like(network.thresholds) if heard is None else heard)
    n = _n_windows(length.samples / config.sample_rate_hz, window_s, hop_s)  # fewer than begun in a truncated file
    return Windows(np.array(begins[:n]), window_s, np.stack(rows[:n]))


def recordings(paths: Sequence[Path]) -> list[Path | AudioError]:
    """Replace each folder by the audio files in it, in the order of their names.

    Parameters
    ----------
    paths : sequence of Path
        Files, which are left as they are, and folders.

    Returns
    -------
    list of Path or AudioError
        The error in the place of a folder that holds no audio file.
    """
    found: list[Path | AudioError] = []
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 - Path's own raises for a name that is too long
            found.append(path)
            continue
        from instrlib.data.local import is_audio

        inside = [one for one in sorted(path.rglob("*")) if is_audio(one) and os.path.isfile(one)]  # noqa: PTH113
        found += inside or [AudioError(f"{path}: this folder holds no wav, flac, ogg or mp3 file.")]
    return found


def _n_windows(duration_s: float, window_s: float, hop_s: float) -> int:
    return 1 + max(0, math.ceil((duration_s - window_s) / hop_s - _MARGIN))


def _starts(duration_s: float, config: FeatureConfig) -> np.ndarray:
    if duration_s <= STUDY_CLIP_S:
        return segment_starts(duration_s, config)
    every = math.ceil(duration_s / config.segment_hop_s) + 1
    return segment_starts(duration_s, dataclasses.replace(config, max_segments=every))


@dataclass
class _Length:
    """Samples of a recording, counted while it is read: a truncated file has fewer than its header says."""

    samples: int = 0


def _listen(
    path: Path, network: Network, starts: np.ndarray, n_samples: int, length: _Length, on_progress: Progress | None
) -> Iterator[tuple[float, np.ndarray | None]]:
    """Yield the begin of each stretch and its probabilities, None where nothing sounds."""
    config, listen = network.features, listener(network)
    shortest = audio.MIN_DURATION_S * config.sample_rate_hz
    stretches = _stretches(path, config.sample_rate_hz, starts, n_samples, length)
    while batch := list(itertools.islice(stretches, _BATCH)):
        sounds = [len(signal) >= shortest and not audio.is_silent(signal) for _, signal in batch]
        spectra = [spectrum(signal, config) for (_, signal), does in zip(batch, sounds, strict=True) if does]
        # In half precision on the way, as the features that the network was trained and scored with are stored.
        heard = iter(listen(np.stack(spectra).astype(np.float16))[0]) if spectra else iter(())
        yield from ((begin, next(heard) if does else None) for (begin, _), does in zip(batch, sounds, strict=True))
        if on_progress is not None:
            on_progress(min(1.0, (batch[-1][0] + _MARGIN) / (starts[-1] + _MARGIN)))


def _stretches(
    path: Path, sample_rate_hz: int, starts: np.ndarray, n_samples: int, length: _Length
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the begin and the samples of stretches that may overlap; the last ones end with the file."""
    waiting = [(float(begin), round(begin * sample_rate_hz)) for begin in starts]
    waiting.reverse()
    held, first = np.zeros(0, np.float32), 0  # samples that are still needed, and the number of the first of them
    for block in audio.blocks(path, sample_rate_hz=sample_rate_hz, block_s=_BLOCK_S):
        held = np.concatenate([held, block])
        length.samples += len(block)
        while waiting and waiting[-1][1] + n_samples <= first + len(held):
            begin, place = waiting.pop()
            yield begin, held[place - first : place - first + n_samples]
        passed = min(len(held), (waiting[-1][1] if waiting else first + len(held)) - first)
        held, first = held[passed:], first + passed
    while waiting and waiting[-1][1] < first + len(held):
        begin, place = waiting.pop()
        yield begin, held[place - first :]
